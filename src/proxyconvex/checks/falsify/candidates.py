"""Points worth trying first, and random ones of many shapes: corners, rays, kinks, equal arguments, comparators."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Float

    from .problem import Points

_GRID_LIMIT = 6000
_FLOATS = 2**22


def structured_points(problem: Problem, rng: Callable[[], np.random.Generator]) -> Points:
    """The fixed points of a search: anchors, what lies between and beyond them, axes, corners, simple numbers.

    Args:
        problem: what is searched.
        rng: gives the generator that chooses among axes and corners where there are too many; else it is not asked, because
            loading `numpy.random` takes longer than the search of a short formula.

    Returns:
        Points of the region, shape (n, p), at most a few thousand.
    """
    anchors = np.stack(list(problem.anchors.values()))
    parts = [anchors, simple_grid(problem), problem.structured(rng)]
    some = max(2, min(512, _FLOATS // problem.size // 8))
    scale = problem.spread or 1.0
    for anchor in anchors[: 1 + (problem.size <= 4096)]:
        axes = np.arange(problem.size)
        if problem.size > max(1, some // 24):
            axes = rng().permutation(problem.size)[: max(1, some // 24)]
        for t in scale * 2.0 ** np.array([-7, -4, -2, -1, 0, 2]):
            steps = np.zeros((len(axes), problem.size))
            steps[np.arange(len(axes)), axes] = t
            parts += [anchor + steps, anchor - steps]
        parts.append(anchor + corners(problem.size, min(64, some), rng) * scale)
        level = np.linspace(-scale, scale, 9)[:, None] if some > 9 else np.array([[scale]])
        parts.append(np.broadcast_to(level, (len(level), problem.size)))  # all arguments equal
    for one, other in itertools.combinations(anchors[:3], 2):
        parts.append(one + np.array([-1, 0.25, 0.5, 0.75, 2.0])[:, None] * (other - one))
    return problem.project(np.concatenate(parts))


def corners(p: int, n: int, rng: Callable[[], np.random.Generator]) -> Points:
    """Vectors of signs: all of them when there are few, else random ones and the two constant ones."""
    if 2**p <= n:
        return np.array(list(itertools.product((-1.0, 1.0), repeat=p)))
    signs = rng().choice([-1.0, 1.0], size=(n, p))
    signs[0], signs[-1] = 1.0, -1.0
    return signs


def distinct(values: np.ndarray) -> np.ndarray:
    """Sorted, each once; `numpy.unique` would load the masked arrays of NumPy, which takes longer than the search."""
    return np.array(sorted(set(values.tolist())), float)


def simple_grid(problem: Problem) -> Points:
    """For up to six variables: all points with halves (else integers, else -1, 0, 1) within four of the origin, and corners."""
    if problem.size > 6:
        return np.zeros((0, problem.size))
    low, high = box(problem)
    for step in (0.25, 0.5, 1.0, None):
        axes = []
        for lo, hi in zip(low, high, strict=True):
            if step is None:
                ticks = np.array([-1.0, 0.0, 1.0])
            else:
                ticks = np.arange(np.ceil(max(lo, -4) / step), np.floor(min(hi, 4) / step) + 1) * step
            ends = [lo, hi, (lo + hi) / 2] if np.isfinite(lo) and np.isfinite(hi) else []
            ticks = np.concatenate([ticks[(ticks >= lo) & (ticks <= hi)], ends])
            axes.append(distinct(ticks))
        if np.prod([len(a) for a in axes], dtype=float) <= _GRID_LIMIT:
            return np.stack([m.ravel() for m in np.meshgrid(*axes, indexing="ij")], axis=1)
    return np.zeros((0, problem.size))


def box(problem: Problem) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """A box that holds the region: its ranges, or infinite."""
    if hasattr(problem, "low"):
        return problem.low, problem.high  # type: ignore[attr-defined]
    if problem.spread is None:
        return np.full(problem.size, -np.inf), np.full(problem.size, np.inf)
    far = np.concatenate([np.eye(problem.size), -np.eye(problem.size)]) * 1e9
    ends = problem.project(far)
    return ends.min(axis=0), ends.max(axis=0)


def values_of(problem: Problem, i: int, n: int, rng: Callable[[], np.random.Generator]) -> np.ndarray:
    """``n`` values of one coordinate: evenly over its range where it has one of its own, else those of random points."""
    if hasattr(problem, "low"):
        low, high = box(problem)
        return np.linspace(low[i], high[i], n)
    return random_points(problem, n, rng())[:, i]


def random_points(problem: Problem, n: int, rng: np.random.Generator) -> Points:
    """Random points of the region: anchors plus dense or sparse steps of sizes over seven orders of magnitude.

    A third are spread over the region evenly in their coordinates (bounded variables only), a few have equal
    coordinates, and some are steps of one size in several coordinates, so that symmetric points are met.
    """
    p, scale = problem.size, problem.spread or 1.0
    anchors = np.stack(list(problem.anchors.values()))
    base = anchors[rng.integers(len(anchors), size=n)]
    direction = rng.normal(size=(n, p))
    kind = rng.random((n, 1))
    if p > 1:
        keep = rng.random((n, p)) < np.minimum(1.0, 10 ** rng.uniform(-np.log10(p), 0.3, (n, 1)))
        keep[np.arange(n), rng.integers(p, size=n)] = True
        direction = np.where(keep | (kind < 0.5), direction, 0.0)
        direction = np.where(kind > 0.85, np.sign(direction), direction)
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-300)
    reach = scale * (
        10 ** rng.uniform(-4, 0.4, (n, 1)) if problem.spread else 10 ** rng.uniform(-3, 2.5, (n, 1))
    )
    points = base + direction * reach
    low, high = box(problem) if p <= 64 else (np.full(p, -np.inf), np.full(p, np.inf))
    if np.isfinite(low).all() and np.isfinite(high).all():
        even = rng.random(n) < 0.34
        points[even] = (low + (high - low) * rng.random((n, p)))[even]
    equal = rng.random(n) < 0.05
    points[equal] = points[equal][:, :1]
    return problem.project(points)
