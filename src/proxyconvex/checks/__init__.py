"""Falsification, certification and estimation of conditions: one folder per question."""
