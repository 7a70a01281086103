"""Certificates of conditions: a subdivision of the box of variables, every leaf proved again."""
