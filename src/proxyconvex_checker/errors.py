"""The one exception of the checker."""

from __future__ import annotations


class CheckError(ValueError):
    """A step of the verification failed.

    Args:
        step: short stable name of the step, e.g. ``"schema"``, ``"data digest"``, ``"theorem T8"``.
        message: one sentence with the numbers or names that did not agree.
    """

    def __init__(self, step: str, message: str) -> None:
        self.step, self.message = step, message
        super().__init__(f"{step}: {message}")
