"""Shared audits of the report tests."""

from report_fixtures import broken, kept, sgd

__all__ = ["broken", "kept", "sgd"]
