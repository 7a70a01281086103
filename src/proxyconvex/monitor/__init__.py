"""Monitors for existing training loops: a framework-neutral ledger, its log and summary, and thin adapters."""
