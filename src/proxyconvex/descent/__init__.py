"""Gradient methods as one compiled loop, and the trace that a run leaves behind."""
