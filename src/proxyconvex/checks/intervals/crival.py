"""The same interval operations served by the package ``crival`` (IEEE 1788, correctly rounded functions of CORE-MATH)."""

from __future__ import annotations

from typing import Any

import ival
import numpy as np

from .arrays import Own, Pair


def _box(x: Pair) -> Any:
    lo, hi = np.broadcast_arrays(np.asarray(x[0], float), np.asarray(x[1], float))
    return ival.Interval(np.where(np.isnan(lo), -np.inf, lo), np.where(np.isnan(hi), np.inf, hi))


def _ends(x: Any) -> Pair:
    return x.inf, x.sup


def _masked(x: Any, *ends: Any) -> Pair:
    """The ends, where all factors are known: zero times an unknown number is not known to be zero (it may not exist)."""
    known = np.isfinite(ends[0])
    for end in ends[1:]:
        known = known & np.isfinite(end)
    return np.where(known, x.inf, np.nan), np.where(known, x.sup, np.nan)


class Crival(Own):
    """Tightest enclosures of ring operations and elementary functions; the rest as in `Own`.

    An end that is not known is minus or plus infinity here. Where a function is not defined on the whole interval the
    standard would return its range on the part where it is; here nothing is claimed then.
    """

    name = "crival"

    def add(self, x: Pair, y: Pair) -> Pair:
        """``x + y``."""
        return _ends(_box(x) + _box(y))

    def sub(self, x: Pair, y: Pair) -> Pair:
        """``x - y``."""
        return _ends(_box(x) - _box(y))

    def mul(self, x: Pair, y: Pair) -> Pair:
        """``x y``."""
        return _masked(_box(x) * _box(y), *x, *y)

    def scale(self, x: Pair, c: float) -> Pair:
        """``c x``."""
        return _masked(_box(x) * c, *x)

    def square(self, x: Pair) -> Pair:
        """``x^2``."""
        return _masked(ival.sqr(_box(x)), *x)

    def monotone(self, name: str, x: Any) -> Any:
        """An increasing elementary function, end by end."""
        return self.below(name, x[0]), self.above(name, x[1])

    def below(self, name: str, x: Any) -> Any:
        """Lower bound on an elementary function at points."""
        return self._at(name, x)[0]

    def above(self, name: str, x: Any) -> Any:
        """Upper bound on an elementary function at points."""
        return self._at(name, x)[1]

    def both(self, name: str, x: Any) -> Pair:
        """Both bounds on an elementary function at points."""
        return self._at(name, x)

    def _at(self, name: str, x: Any) -> Pair:
        """An enclosure at points; every argument occurs once, so composition loses a few roundings only."""
        x = np.asarray(x, float)
        known = np.isfinite(x)
        t = ival.Interval(np.where(known, x, 0.0), np.where(known, x, 0.0))
        if name in ("exp", "tanh"):
            result = getattr(ival, name)(t)
        elif name in ("log", "log1p"):
            known = known & (x > (0.0 if name == "log" else -1.0))
            safe = np.where(known, x, 1.0)
            result = getattr(ival, name)(ival.Interval(safe, safe))
        else:
            small = ival.exp(-abs(t))
            if name == "softplus":
                result = ival.Interval(np.maximum(t.inf, 0.0), np.maximum(t.inf, 0.0)) + ival.log1p(small)
            elif name == "bump":
                result = small / ival.sqr(small + 1)
            else:
                away = 1 / (small + 1)
                near = 1 / (1 + 1 / small)  # increasing in `small`, which occurs once
                positive = x >= 0
                result = ival.Interval(
                    np.where(positive, away.inf, np.where(np.isnan(near.inf), 0.0, near.inf)),
                    np.where(positive, away.sup, np.where(np.isnan(near.sup), small.sup, near.sup)),
                )
        return np.where(known, result.inf, np.nan), np.where(known, result.sup, np.nan)
