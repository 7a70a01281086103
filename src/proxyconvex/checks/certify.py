"""Certify a reduced condition by interval branch and bound."""

from __future__ import annotations

from typing import Any


def certify(condition: Any) -> Any:
    """Placeholder until the branch and bound lands."""
    raise NotImplementedError


def tightest(condition: Any, name: str) -> Any:
    """Placeholder until the branch and bound lands."""
    raise NotImplementedError
