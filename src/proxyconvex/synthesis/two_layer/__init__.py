"""Planner of the two-layer network near its initialisation (F4)."""
