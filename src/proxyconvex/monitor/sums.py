"""Compensated running sums: their error does not grow with the number of steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final


@final
class RunningSum:
    """Neumaier's compensated sum of Python floats.

    The error of `value` is at most ``2 u |sum| + O(n u^2) sum |x|`` with ``u = 2^-53``: for fewer than 2^40 terms it is a
    rounding of the result, not of the terms. Neumaier, Z. angew. Math. Mech. 54 (1974), 39-51.
    """

    __slots__ = ("correction", "total")

    def __init__(self, total: float = 0.0, correction: float = 0.0) -> None:
        self.total, self.correction = total, correction

    def add(self, x: float) -> None:
        """Add one term."""
        total = self.total
        new = total + x
        if abs(total) >= abs(x):
            self.correction += (total - new) + x
        else:
            self.correction += (x - new) + total
        self.total = new

    def add_all(self, terms: Iterable[float]) -> None:
        """Add terms one after the other: bit for bit what `add` gives."""
        total, correction = self.total, self.correction
        for x in terms:
            new = total + x
            correction += (total - new) + x if abs(total) >= abs(x) else (x - new) + total
            total = new
        self.total, self.correction = total, correction

    @property
    def value(self) -> float:
        """The sum so far."""
        return self.total + self.correction

    def state(self) -> list[float]:
        """Two floats that restore the sum bit for bit."""
        return [self.total, self.correction]
