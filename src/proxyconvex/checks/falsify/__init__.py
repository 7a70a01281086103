"""Search for a counterexample of a condition, make it small, and confirm it in ball arithmetic."""
