"""The search for a violation: structured points, then rounds of random points, ascent on -slack and curvature."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import deadline as timing
from ..deadline import NEVER, Deadline
from .candidates import random_points, structured_points
from .problem import Confirmation, Problem, Values

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float

    from .problem import Points

_KEEP = 48
_CONFIRMATIONS = 200


@dataclass
class Found:
    """A violation: the point, what confirmed it, and which part of the search met it."""

    point: Float[np.ndarray, " p"]
    confirmation: Confirmation
    origin: str


@dataclass
class Search:
    """State of one search; `run` returns the first confirmed violation or None.

    Attributes:
        problem: what is searched.
        seed: of all randomness.
        worst: smallest slack met, relative to the sum of the sizes of its terms.
        budget: most evaluations of the slack.
        deadline: when to stop.
        progress: called with a sentence and the evaluations so far.
        checkpoint: a file that keeps the number of rounds done; a search with the same statement and seed continues there.
    """

    problem: Problem
    seed: int
    budget: int
    deadline: Deadline = NEVER
    progress: Callable[[str, int], None] | None = None
    checkpoint: Path | None = None
    rounds: int = 0
    evaluations: int = 0
    tried: dict[str, int] = field(default_factory=dict)
    worst: float = np.inf
    worst_point: Float[np.ndarray, " p"] | None = None
    unconfirmed: Found | None = None
    _confirmations: int = 0
    _best: list[tuple[float, Float[np.ndarray, " p"]]] = field(default_factory=list)

    def generator(self, number: int) -> Callable[[], np.random.Generator]:
        """Gives the generator of one part of the search, always the same one."""
        return functools.cache(lambda: np.random.default_rng([self.seed, number]))

    @property
    def exhausted(self) -> bool:
        """Whether evaluations or time are used up."""
        return self.evaluations >= self.budget or self.deadline.over

    def run(self, first_round: int = 0, rounds: int | None = None) -> Found | None:
        """Structured points (with round 0), then rounds until something is found or the budget is used up.

        Args:
            first_round: number of the first round; rounds with different numbers use independent randomness.
            rounds: how many, or None for as many as the budget allows.
        """
        number = max(first_round, self._resumed())
        if number == 0:
            points = structured_points(self.problem, self.generator(0))
            found = self.consider(points, "structured points")
            if found:
                return found
        saved = timing.clock()
        while not self.exhausted and (rounds is None or number < first_round + rounds):
            number += 1
            found = self._round(np.random.default_rng([self.seed, number]), number)
            if found:
                return found
            self.rounds = number
            if self.checkpoint is not None and timing.clock() - saved > 1:
                self._save()
                saved = timing.clock()
        if self.checkpoint is not None:
            self._save()
        return self.last_look()

    @property
    def _key(self) -> str:
        return json.dumps([self.problem.statement, self.problem.size, self.seed])

    def _save(self) -> None:
        """Write what a later search needs to go on, atomically."""
        if self.checkpoint is None:
            return
        partial = self.checkpoint.with_suffix(".partial.npz")
        point = np.zeros(0) if self.worst_point is None else self.worst_point
        numbers = np.array([self.rounds, self.evaluations, self.worst])
        np.savez(
            partial,
            key=np.array(self._key),
            numbers=numbers,
            point=point,
            tried=np.array(json.dumps(self.tried)),
        )
        partial.replace(self.checkpoint)

    def _resumed(self) -> int:
        """The number of rounds that an earlier search of the same kind has done."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0
        with np.load(self.checkpoint) as stored:
            if "numbers" not in stored or str(stored["key"]) != self._key:
                return 0
            rounds, evaluations, worst = stored["numbers"].tolist()
            self.tried = json.loads(str(stored["tried"]))
            self.worst_point = stored["point"] if stored["point"].size else None
        self.rounds, self.evaluations, self.worst = int(rounds), int(evaluations), worst
        return self.rounds

    def _round(self, rng: np.random.Generator, number: int) -> Found | None:
        rows = max(2, min(256 * min(number, 8), self.budget // 16, 2**22 // self.problem.size))
        points = random_points(self.problem, rows, rng)
        found = self.consider(points, "random points")
        if found or self.exhausted:
            return found
        starts = self._starts(points, rng)
        if number % 3 == 1:
            path = self.problem.descent(starts[: max(1, len(starts) // 2)], 20)
            found = self.consider(path, "points along descent paths") if len(path) else None
            if found or self.exhausted:
                return found
        found = (
            self._separated(starts)
            or self._kinks(starts, rng)
            or self._ascend(starts, np.arange(len(starts)) % 2 == 1)
        )
        return found or (None if self.exhausted else self._curvature(rng))

    def _starts(self, points: Points, rng: np.random.Generator) -> Points:
        """Half the best points so far, half of this round's random ones."""
        n = max(2, min(32, 2**21 // self.problem.size, len(points)))
        best = np.array([x for _, x in self._best[: n // 2]]).reshape(-1, self.problem.size)
        fresh = points[rng.permutation(len(points))[: n - len(best)]]
        return np.concatenate([best, fresh])

    # --- parts ---

    def _ascend(self, x: Points, raw: np.ndarray) -> Found | None:
        """Projected gradient descent on the (relative) slack with Barzilai-Borwein steps, all rows at once."""
        values, slope = self.problem.gradients(x, raw)
        now = np.where(raw, values.slack, values.relative)
        length = np.maximum(np.linalg.norm(slope, axis=1), 1e-300)
        step = 0.1 * (self.problem.spread or 1.0) / length
        self.evaluations += len(x)
        for _ in range(40):
            new = self.problem.project(x - step[:, None] * slope)
            values, new_slope = self.problem.gradients(new, raw)
            found = self.consider(new, "gradient ascent on the violation", values)
            if found or self.exhausted:
                return found
            after = np.where(raw, values.slack, values.relative)
            better = after < now
            change, bend = new - x, new_slope - slope
            with np.errstate(all="ignore"):
                secant = np.sum(change**2, axis=1) / np.abs(np.sum(change * bend, axis=1))
            grown = np.clip(np.where(np.isfinite(secant), secant, 2 * step), 0.2 * step, 10 * step)
            x, slope = np.where(better[:, None], new, x), np.where(better[:, None], new_slope, slope)
            now, step = np.where(better, after, now), np.where(better, grown, 0.25 * step)
        return None

    def _separated(self, x: Points) -> Found | None:
        """Keep only the coordinates that pull the slack down, put the others back to an anchor.

        Decisive for slacks that are sums over many coordinates or layers, of which few are at fault.
        """
        _, slope = self.problem.gradients(x, np.ones(len(x), bool))
        trials = []
        for anchor in list(self.problem.anchors.values())[:2]:
            pull = slope * (x - anchor)
            strong = pull < 0.5 * pull.min(axis=1, keepdims=True)
            trials += [np.where(keep, x, anchor) for keep in (pull < 0, strong & (pull < 0))]
        return self.consider(self.problem.project(np.concatenate(trials)), "sparse points")

    def _kinks(self, x: Points, rng: np.random.Generator) -> Found | None:
        """Bisect for a jump on the ray from an anchor through each point, and look on both sides of it.

        What jumps is the size of the terms or, for every other ray, the relative slack.
        """
        named = list(self.problem.anchors.values())
        anchor = named[rng.integers(len(named))]
        times = 2.0 ** np.linspace(-3, 3, 9)
        rows = np.arange(len(x))

        def look(t: np.ndarray) -> tuple[np.ndarray, Found | None]:
            points = self.problem.project(anchor + t[:, None] * (x - anchor))
            values = self.problem.values(points)
            relative = np.where(np.isfinite(values.relative), values.relative, 0.0)
            size = np.log10(values.terms + 1e-30)
            return np.where(rows % 2 == 0, size, relative), self.consider(points, "points at kinks", values)

        seen = []
        for t in times:
            values, found = look(np.full(len(x), t))
            if found or self.exhausted:
                return found
            seen.append(values)
        table = np.stack(seen)
        jump = np.argmax(np.abs(np.diff(table, axis=0)), axis=0)
        low, high = times[jump], times[jump + 1]
        at_low, at_high = table[jump, rows], table[jump + 1, rows]
        for _ in range(12):
            middle = (low + high) / 2
            value, found = look(middle)
            if found or self.exhausted:
                return found
            left = np.abs(value - at_low) > np.abs(at_high - value)
            low, at_low = np.where(left, low, middle), np.where(left, at_low, value)
            high, at_high = np.where(left, middle, high), np.where(left, value, at_high)
        return None

    def _curvature(self, rng: np.random.Generator) -> Found | None:
        """Steps along the directions in which the slack bends down most, at anchors and at the best points."""
        problem, scale = self.problem, self.problem.spread or 1.0
        count = max(1, min(8, 2**21 // (16 * problem.size)))
        best = [x for _, x in self._best[:count]]
        bases = np.stack([*list(problem.anchors.values())[:count], *best][: 2 * count])
        if problem.size > 2**18:
            bases = bases[:1]
        directions = lowest_curvature(
            problem, bases, rng, min(problem.size, 24 if problem.size <= 2**14 else 6), self
        )
        if self.exhausted:
            return None
        sizes = scale * 2.0 ** np.arange(-10, 5, 1 if problem.size <= 2**14 else 5)
        steps = (bases + s * t * directions for t in sizes for s in (1, -1))
        return self.consider(problem.project(np.concatenate(list(steps))), "directions of negative curvature")

    def consider(self, points: Points, origin: str, values: Values | None = None) -> Found | None:
        """Look at the slacks of points; confirm the clearest violations among them."""
        if values is None:
            values = self.problem.values(points)
        self.evaluations += len(points)
        self.tried[origin] = self.tried.get(origin, 0) + len(points)
        self._remember(points, values)
        if self.progress:
            self.progress(origin, self.evaluations)
        ratio = values.slack / np.maximum(values.terms, 1e-300)
        suspects = np.flatnonzero((ratio < -self.problem.scale_of_rounding()) & self.problem.inside(points))
        for i in suspects[np.argsort(ratio[suspects], kind="stable")][:3]:
            # Rounding can look like a violation; confirming many such points of many parameters would take long.
            if self._confirmations >= max(12, min(_CONFIRMATIONS, 10**6 // self.problem.size)):
                break
            found = self._confirmed(points[i], origin)
            if found:
                return found
        return None

    def _confirmed(self, point: Float[np.ndarray, " p"], origin: str) -> Found | None:
        """The violation, if arithmetic outside XLA confirms it."""
        confirmation = self.problem.confirm(point)
        if confirmation.holds:
            return Found(point.copy(), confirmation, origin)
        self._confirmations += 1
        if (
            confirmation.how == "float64 only"
            and np.isfinite(confirmation.upper)
            and self.unconfirmed is None
        ):
            self.unconfirmed = Found(point.copy(), confirmation, origin)
        return None

    def last_look(self) -> Found | None:
        """Confirm the worst point of the whole search where it looks negative: what is reported of it was then checked."""
        if (
            self.worst_point is None
            or not self.worst < 0
            or not self.problem.inside(self.worst_point[None])[0]
        ):
            return None
        return self._confirmed(self.worst_point, "the worst point of the search")

    def _remember(self, points: Points, values: Values) -> None:
        order = np.argsort(values.relative, kind="stable")[:8]
        merged = self._best + [(float(values.relative[i]), points[i].copy()) for i in order]
        merged.sort(key=lambda pair: pair[0])
        self._best = merged[: _KEEP if self.problem.size <= 2**14 else 4]
        ratio = values.slack / np.maximum(values.terms, 1e-300)
        i = int(np.argmin(np.where(values.terms > 1e-250, ratio, np.inf)))
        if ratio[i] < self.worst and values.terms[i] > 1e-250:
            self.worst, self.worst_point = float(ratio[i]), points[i].copy()


def path_of(checkpoint: Any) -> Path | None:
    """The file of a state. Here, because loading `pathlib` takes as long as a short search."""
    if checkpoint is None:
        return None
    from pathlib import Path

    return Path(checkpoint)


def lowest_curvature(
    problem: Problem, bases: Points, rng: np.random.Generator, steps: int, search: Search
) -> Points:
    """Directions of least curvature of the slack at each base point, by Lanczos with full orthogonalisation.

    Products with the Hessian are central differences of gradients; all base points advance together.
    """
    n, p = bases.shape
    h = 1e-4 * (problem.spread or 1.0)
    basis, applied = np.zeros((n, steps, p)), np.zeros((n, steps, p))
    vector = rng.normal(size=(n, p))
    raw = np.ones(2 * n, bool)
    for k in range(steps):
        for _ in range(2):  # twice is enough
            vector = vector - np.einsum(
                "nkp,nk->np", basis[:, :k], np.einsum("nkp,np->nk", basis[:, :k], vector)
            )
        length = np.linalg.norm(vector, axis=1, keepdims=True)
        vector = np.where(length > 1e-12, vector / np.maximum(length, 1e-300), 0.0)
        basis[:, k] = vector
        _, slopes = problem.gradients(np.concatenate([bases + h * vector, bases - h * vector]), raw)
        applied[:, k] = (slopes[:n] - slopes[n:]) / (2 * h)
        search.evaluations += 2 * n
        vector = applied[:, k]
        if search.exhausted:
            break
    small = np.einsum("nkp,nlp->nkl", basis, applied)
    _, vectors = np.linalg.eigh((small + small.transpose(0, 2, 1)) / 2)
    lowest = np.einsum("nkp,nk->np", basis, vectors[:, :, 0])
    return lowest / np.maximum(np.linalg.norm(lowest, axis=1, keepdims=True), 1e-300)
