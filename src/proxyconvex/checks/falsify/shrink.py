"""Make a counterexample small: few coordinates, simple numbers, and which coordinates do not matter.

Everything is tried in float64 with a margin; the caller confirms the result in exact arithmetic. All numbers tried are
binary fractions, so what is printed is what was checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..deadline import NEVER, Deadline
from .candidates import distinct, simple_grid, values_of
from .problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from .problem import Points

    Vector = Float[np.ndarray, " p"]

_MARGIN = 64.0
_COORDINATES = 160
_FLOATS = 2**22


@dataclass
class Shrinker:
    """Simplifies violations of one problem within a budget.

    Attributes:
        problem: what was searched.
        budget: most evaluations of the slack.
        deadline: when to stop.
    """

    problem: Problem
    budget: int
    deadline: Deadline = NEVER
    evaluations: int = 0
    _neutral: list[Vector] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What a coordinate is set to when it is dropped: zero, or its value at an anchor such as the comparator.
        zero = np.zeros(self.problem.size)
        named = [self.problem.anchors[k] for k in ("comparator", "centre") if k in self.problem.anchors]
        self._neutral = [zero, *(v for v in named if np.any(v))][: 1 if not self.problem.size > 1 else 2]

    def violated(self, points: Points) -> Bool[np.ndarray, " n"]:
        """Which points lie in the region and violate the condition by a clear margin over rounding."""
        inside = self.problem.inside(points)
        out = np.zeros(len(points), bool)
        if inside.any():
            chosen = points[inside]
            values = self.problem.values(chosen)
            self.evaluations += len(chosen)
            out[inside] = values.slack < -_MARGIN * self.problem.scale_of_rounding() * values.terms
        return out

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self.evaluations >= self.budget or self.deadline.over

    def run(self, point: Vector) -> Vector:
        """A simpler violation; the given point if nothing simpler was found (or it violates only within the margin)."""
        if not self.violated(point[None])[0]:
            return point
        point = point + 0.0  # no negative zeros
        best = self._from_grid(point)
        for step in (self._blocks, self._scaled, self._rounded, self._coordinates, self._blocks):
            if self.exhausted:
                break
            best = step(best) + 0.0
        return best

    def _from_grid(self, point: Vector) -> Vector:
        """For few variables: the simplest violation on the grid of simple points, if that beats the given one."""
        grid = simple_grid(self.problem)
        if not len(grid):
            return point
        bad = grid[self.violated(grid)]
        options = np.concatenate([bad, point[None]])
        return options[int(np.argmin(costs(options)))]

    def _blocks(self, x: Vector) -> Vector:
        """Set whole blocks of coordinates to zero (or to the comparator's), the largest blocks first."""
        p, width = self.problem.size, self.problem.size
        most = max(2, min(128, _FLOATS // p))
        while width >= 1 and not self.exhausted:
            starts = np.arange(0, p, width)
            if len(starts) > 4 * most:
                break
            for neutral in self._neutral:
                trials, kept = [], []
                for s in starts:
                    trial = x.copy()
                    trial[s : s + width] = neutral[s : s + width]
                    if costs(trial[None])[0] < costs(x[None])[0]:
                        trials.append(trial)
                        kept.append(s)
                for k in range(0, len(trials), most):
                    good = self.violated(np.stack(trials[k : k + most]))
                    x = self._merge(
                        x, neutral, [s for s, ok in zip(kept[k : k + most], good, strict=True) if ok], width
                    )
            width = width // 2 if width > 1 else 0
        return x

    def _merge(self, x: Vector, neutral: Vector, starts: list[int], width: int) -> Vector:
        """Apply blocks that work alone together where they do; halve the set when they do not."""
        if not starts or self.exhausted:
            return x
        trial = x.copy()
        for s in starts:
            trial[s : s + width] = neutral[s : s + width]
        if self.violated(trial[None])[0]:
            return trial
        if len(starts) == 1:
            return x
        half = len(starts) // 2
        return self._merge(self._merge(x, neutral, starts[:half], width), neutral, starts[half:], width)

    def _scaled(self, x: Vector) -> Vector:
        """Move along the ray from an anchor so that the largest coordinate of the step is one, or a small power of two."""
        trials = []
        for anchor in self._neutral[::-1]:
            reach = np.max(np.abs(x - anchor))
            if reach > 0:
                trials += [
                    anchor + (x - anchor) * (t / reach) for t in (1.0, 2.0, 4.0, 0.5, 8.0, 0.25, 0.125)
                ]
        for trial in trials:
            rounded = np.round(trial * 64) / 64
            for candidate in (rounded, trial):
                if self.violated(candidate[None])[0]:
                    return candidate
        return x

    def _rounded(self, x: Vector) -> Vector:
        """All coordinates rounded to the coarsest binary grid on which the violation survives."""
        trials = np.stack([np.round(x * 2.0**k) / 2.0**k for k in (0, 1, 2, 3, 4, 6, 8, 12, 20)])
        for block in np.array_split(trials, max(1, trials.size // _FLOATS)):
            good = self.violated(block)
            if good.any():
                return block[int(np.argmax(good))]
        return x

    def _coordinates(self, x: Vector) -> Vector:
        """Coordinate by coordinate the simplest value that keeps the violation; repeated until nothing changes."""
        for _ in range(6):
            before = x.copy()
            active = np.flatnonzero(cost(x) > 0)
            active = active[np.argsort(-cost(x[active]), kind="stable")][:_COORDINATES]
            for i in active:
                options = simpler_values(x[i], [v[i] for v in self._neutral])
                if not len(options):
                    continue
                if self.exhausted:
                    return x
                trials = np.repeat(x[None], len(options), axis=0)
                trials[:, i] = options
                good = self.violated(trials)
                if good.any():
                    x = trials[int(np.argmax(good))]
            if np.array_equal(before, x):
                break
        return x

    def irrelevant(self, x: Vector, rng: Callable[[], np.random.Generator]) -> tuple[list[int], int]:
        """Coordinates that do not matter: at every other value tried, the violation stays.

        Args:
            x: the counterexample.
            rng: gives the generator of the values, where they are drawn.

        Returns:
            Their positions and the number of values tried for each. This is sampled, not proved.
        """
        found, tries = [], 24
        if self.problem.size > 64 or self.exhausted:
            return [], 0
        for i in range(self.problem.size):
            values = np.concatenate([values_of(self.problem, i, tries - 4, rng), [0.0, 1.0, -1.0, -x[i]]])
            trials = np.repeat(x[None], tries, axis=0)
            trials[:, i] = values
            inside = self.problem.inside(trials)
            if inside.sum() >= 8 and self.violated(trials[inside]).all():
                found.append(i)
        return found, tries


def cost(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """How complicated a number is: 0 for 0, 1 for 1, then by the bits of numerator and denominator; signs a little."""
    mantissa, exponent = np.frexp(np.abs(x))
    numerator = np.ldexp(mantissa, 53).astype(np.int64)
    low = numerator & -numerator
    zeros = np.where(numerator > 0, np.log2(np.maximum(low, 1)), 0)
    significant = 53 - zeros  # bits of the odd part of the numerator
    power = exponent - significant  # |x| = odd * 2^power
    size = significant + np.abs(power) + np.maximum(0, -power)
    return np.where(x == 0, 0.0, size + 0.25 * (x < 0))


def costs(points: Points) -> Float[np.ndarray, " n"]:
    """Total cost of each point."""
    return cost(points).sum(axis=1)


def simpler_values(x: float, neutral: list[float]) -> Float[np.ndarray, " k"]:
    """Binary fractions simpler than ``x``, the simplest first: 0, an anchor's value, 1, -1, and ``x`` rounded."""
    rounded = [r(x * 2.0**k) / 2.0**k for k in range(-3, 11) for r in (np.round, np.floor, np.ceil)]
    options = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, *neutral, *rounded])
    options = distinct(options[np.isfinite(options)])
    order = np.argsort(cost(options), kind="stable")
    options = options[order]
    return options[cost(options) < cost(np.array([x]))[0]]
