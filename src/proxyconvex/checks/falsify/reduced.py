"""The search problem of a reduced condition: a NumPy formula in a few bounded variables, no compilation."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ...core.arithmetics import evaluate
from ...core.errors import InvalidInputError
from ...core.expressions import topological
from ...core.intervals import lower, upper
from ...core.intervals import upper_float as rounded_up
from ...core.reduced import ReducedCondition
from .problem import Confirmation, Problem, Values

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from .problem import Points

_STEP = 2.0**-26
SHORT = 120
"""Nodes of a formula up to which rational intervals cost less than loading python-flint."""


@final
class ReducedProblem(Problem):
    """A `ReducedCondition` as a search problem; its points are the values of its variables, in order."""

    def __init__(self, condition: ReducedCondition) -> None:
        self.condition = condition
        self._closed = condition.closed
        self.names = list(condition.variables)
        self.size = len(self.names)
        self.statement = condition.statement
        self.low, self.high = condition.bounds()
        self.width = self.high - self.low
        self.spread = float(self.width.max()) / 2
        middle = (self.low + self.high) / 2
        self.anchors = {"centre": middle, "zero": np.clip(np.zeros(self.size), self.low, self.high)}

    def _slack(self, points: Points) -> Float[np.ndarray, " n"]:
        with np.errstate(all="ignore"):
            slack = evaluate(self._closed, dict(zip(self.names, points.T, strict=True)))
        return np.broadcast_to(np.asarray(slack, float), (len(points),))

    def values(self, points: Points) -> Values:
        """By NumPy; the size of the terms is taken as 1 or the slack's own, whichever is larger."""
        slack = self._slack(points)
        return Values.of(slack, np.maximum(1.0, np.abs(slack)), slack)

    def gradients(self, points: Points, raw: Bool[np.ndarray, " n"]) -> tuple[Values, Points]:
        """By central differences."""
        step = np.maximum(self.width, 1e-300) * _STEP**0.5
        shifts = np.concatenate([np.diag(step), -np.diag(step)])
        around = points[None] + shifts[:, None]
        values = self._slack(around.reshape(-1, self.size)).reshape(2, self.size, len(points))
        with np.errstate(all="ignore"):
            slope = ((values[0] - values[1]) / (2 * step[:, None])).T
        return self.values(points), np.nan_to_num(slope, posinf=0.0, neginf=0.0)

    def project(self, points: Points) -> Points:
        """Into the ranges."""
        return np.clip(points, self.low, self.high)

    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """Membership: the float64 ranges lie inside the exact ones."""
        return np.all((points >= self.low) & (points <= self.high), axis=1)

    def confirm(self, point: Float[np.ndarray, " p"]) -> Confirmation:
        """By rational intervals where the formula is short, else, or where these do not decide, by balls; the point is exact.

        Loading python-flint takes longer than the whole search of a short formula.
        """
        if not self.condition.contains(*point.tolist()):
            return Confirmation(False, "float64 only", float("nan"), "the point lies outside the ranges")
        ends = self._rationally(point)
        if ends is not None and (ends[1] < 0 or ends[0] >= 0):
            return Confirmation(ends[1] < 0, "rational intervals", rounded_up(ends[1]))
        from .balls import PRECISION, balls, precision, upper_float

        with precision(PRECISION):
            ball = self.condition.slack(*balls(point).tolist())
        return Confirmation(bool(ball < 0), "ball arithmetic", upper_float(ball))

    def _rationally(self, point: Float[np.ndarray, " p"]) -> tuple[Fraction, Fraction] | None:
        """Both ends of an enclosure of the slack, or None for a long formula or outside a domain."""
        if len(topological(self._closed)) > SHORT:
            return None
        try:
            value = self.condition.slack(*map(Fraction, point.tolist()))
        except InvalidInputError:
            return None
        return lower(value), upper(value)

    def present(self, point: Float[np.ndarray, " p"]) -> dict[str, Any]:
        """Value of each variable."""
        return dict(zip(self.names, point.tolist(), strict=True))

    def reproduce(self, point: Float[np.ndarray, " p"]) -> str:
        """``cond.slack(a=..., b=...)``."""
        return f"cond.slack({', '.join(f'{k}={v!r}' for k, v in self.present(point).items())})"

    def coordinate(self, i: int) -> str:
        """Name of a variable."""
        return self.names[i]
