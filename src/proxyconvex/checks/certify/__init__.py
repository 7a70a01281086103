"""Interval branch and bound: certify a condition in at most six variables, and write the proof for others to check."""
