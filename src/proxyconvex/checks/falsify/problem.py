"""What a search looks for: points of R^p at which a slack is negative, and how such a point is confirmed.

`Problem` is the interface; `ParameterProblem` serves the conditions of `core.conditions` (JAX functions of parameters)
and `ReducedProblem` the reduced ones (NumPy formulas in a few variables, no compilation).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...core.errors import InvalidInputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Points = Float[np.ndarray, "n p"]

How = Literal["exact fractions", "rational intervals", "ball arithmetic", "float64 only"]


@dataclass(frozen=True)
class Confirmation:
    """What arithmetic outside XLA says about the slack at one point.

    Attributes:
        holds: True if the slack is certainly negative there and the point certainly lies in the region.
        how: the arithmetic that decided, or "float64 only" when none could.
        upper: an upper bound on the slack (float64, rounded up); for "float64 only" the float64 value itself.
        note: why not, or the size of the float64 margin against a rounding estimate.
    """

    holds: bool
    how: How
    upper: float
    note: str = ""


@dataclass(frozen=True)
class Values:
    """Slacks at n points in float64.

    Attributes:
        slack: shape (n,); plus infinity where it is not a number.
        terms: sum of the sizes of the terms of the slack, the measure of its rounding error.
        relative: slack over the size of its two sides, which does not change when both shrink together.
    """

    slack: Float[np.ndarray, " n"]
    terms: Float[np.ndarray, " n"]
    relative: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, slack: Any, terms: Any, relative: Any) -> Values:
        """From arrays that may hold NaN: what is not a number is no violation."""
        s, t, r = (np.asarray(x, float) for x in (slack, terms, relative))
        defined = np.isfinite(s) & np.isfinite(t) & np.isfinite(r)
        return cls(np.where(defined, s, np.inf), np.where(defined, t, 0.0), np.where(defined, r, np.inf))


class Problem(abc.ABC):
    """A slack on a set of points of R^p.

    Attributes:
        size: ``p``.
        statement: the condition as a sentence.
        anchors: named points to look around (comparator, centre, ...), shape (p,) each.
        spread: a typical distance within the region, or None when it is unbounded.
    """

    size: int
    statement: str
    anchors: dict[str, Float[np.ndarray, " p"]]
    spread: float | None

    @abc.abstractmethod
    def values(self, points: Points) -> Values:
        """Slack, sum of the sizes of its terms, and relative slack, in float64, at many points."""

    @abc.abstractmethod
    def gradients(self, points: Points, raw: Bool[np.ndarray, " n"]) -> tuple[Values, Points]:
        """The values, and the gradient of the slack (where ``raw``) or of the relative slack (elsewhere)."""

    @abc.abstractmethod
    def project(self, points: Points) -> Points:
        """Points of the region near the given ones."""

    @abc.abstractmethod
    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """Membership in the region in float64, shape (n,)."""

    @abc.abstractmethod
    def confirm(self, point: Float[np.ndarray, " p"]) -> Confirmation:
        """Whether the slack is certainly negative at a point and the point certainly in the region."""

    @abc.abstractmethod
    def present(self, point: Float[np.ndarray, " p"]) -> dict[str, Any]:
        """The point as the user knows it, by name."""

    @abc.abstractmethod
    def reproduce(self, point: Float[np.ndarray, " p"]) -> str:
        """A line of Python that evaluates the slack at the point."""

    @abc.abstractmethod
    def coordinate(self, i: int) -> str:
        """Name of one coordinate."""

    def descent(self, starts: Points, steps: int) -> Points:
        """Points along gradient descent paths of the objective, where there is one; else none."""
        return np.zeros((0, self.size))

    def structured(self, rng: Callable[[], np.random.Generator]) -> Points:
        """Further points worth trying that only this problem knows; ``rng`` gives the generator, if one is needed."""
        return np.zeros((0, self.size))

    def scale_of_rounding(self) -> float:
        """A rounding estimate for the relative slack in float64 (an estimate, not a bound)."""
        return 2.0**-52 * max(8.0, float(np.sqrt(self.size)))


def float_only(problem: Problem, point: Float[np.ndarray, " p"], why: str) -> Confirmation:
    """The label of a violation that only float64 has seen."""
    values = problem.values(point[None])
    slack, scale = float(values.slack[0]), float(values.terms[0])
    margin = -slack / max(scale * problem.scale_of_rounding(), 1e-300)
    note = f"{why}; the float64 violation is {margin:.3g} times an estimate of its rounding error, which is not a bound"
    return Confirmation(False, "float64 only", slack, note)


def fixed_batches(
    function: Callable[[Points], tuple[np.ndarray, ...]], rows: int
) -> Callable[[Points], tuple[np.ndarray, ...]]:
    """A function compiled for ``rows`` points at a time, on any number of points."""

    def run(points: Points) -> tuple[np.ndarray, ...]:
        if not len(points):
            raise InvalidInputError("points", points.shape, "at least one point")
        parts = []
        for start in range(0, len(points), rows):
            block = points[start : start + rows]
            padded = np.concatenate([block, np.repeat(block[:1], rows - len(block), axis=0)])
            parts.append([np.asarray(x)[: len(block)] for x in function(padded)])
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))

    return run
