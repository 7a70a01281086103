"""Monitors for training loops of other frameworks (to come)."""
