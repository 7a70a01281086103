"""Falsification and certification of conjectured conditions (to come)."""
