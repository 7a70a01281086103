"""Interval arithmetic on arrays with outward rounding, and an optional library behind the same interface."""
