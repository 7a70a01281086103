"""Regions for a search: projection and membership of many points at once, and exact membership of one.

All regions of `core.regions` are convex, so the part of a ray from an inside point that lies in a region is a segment;
where there is no closed form for a projection, points are pulled back along that ray.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InvalidInputError
from ...core.intervals import exact, upper
from ...core.numbers import leaves, norm_upper
from ...core.region_box import Box
from ...core.regions import (
    Ball,
    Intersection,
    PerNeuronBalls,
    Product,
    Pullback,
    Region,
    WholeSpace,
    distance_upper,
    exact_point,
)

# Projections stop this far inside, so that the rounding of a projected point does not leave the region.
if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Points = Float[np.ndarray, "n p"]

_INSIDE = 1 - 1e-12


def flat(point: Any) -> Float[np.ndarray, " p"]:
    """All leaves of a point in one vector of float64."""
    parts = [np.ravel(np.asarray(x, float)) for x in leaves(_floats(point))]
    return np.concatenate(parts) if parts else np.zeros(0)


def _floats(point: Any) -> Any:
    if isinstance(point, dict):
        return {k: _floats(v) for k, v in sorted(point.items())}
    if isinstance(point, list | tuple):
        return [_floats(x) for x in point]
    return float(point) if isinstance(point, Fraction) or hasattr(point, "lo") else point


def center_of(region: Region) -> Any:
    """A point that shows the structure of the parameters and lies in the region, or None if it names none."""
    if isinstance(region, Ball | PerNeuronBalls | Box):
        return region.center
    if isinstance(region, Product):
        parts = [center_of(p) for p in region.parts]
        return None if any(p is None for p in parts) else tuple(parts)
    if isinstance(region, Intersection):
        return next((c for c in map(center_of, region.parts) if c is not None), None)
    if isinstance(region, Pullback):
        inner = center_of(region.region)
        return (
            None
            if inner is None
            else np.linalg.lstsq(region.matrix, flat(inner) - region.offset, rcond=None)[0]
        )
    return None


def inner_point(region: Region, start: Float[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
    """A point of an intersection by projecting on its parts in turn (convex sets: that converges to one if there is one)."""
    if not isinstance(region, Intersection):
        return start
    maps = [projection(p, flat(center_of(p))) for p in region.parts if center_of(p) is not None]
    point = start[None]
    for _ in range(300):
        for m in maps:
            point = m(point)
        if inside_many(region, point)[0]:
            break
    return point[0]


def radius_of(region: Region) -> float | None:
    """A typical distance from the centre to the boundary, or None for an unbounded region."""
    if isinstance(region, Ball):
        return float(region.radius)
    if isinstance(region, PerNeuronBalls):
        return float(region.radii.max())
    if isinstance(region, Box):
        return float((region.high - region.low).max() / 2)
    if isinstance(region, Product | Intersection):
        radii = [r for r in map(radius_of, region.parts) if r is not None]
        return None if not radii else (min(radii) if isinstance(region, Intersection) else max(radii))
    if isinstance(region, Pullback):
        inner = radius_of(region.region)
        return None if inner is None else inner / max(float(np.linalg.norm(region.matrix, 2)), 1e-12)
    return None


def inside_many(region: Region, points: Points) -> Bool[np.ndarray, " n"]:
    """Membership in floating point."""
    n = len(points)
    if isinstance(region, WholeSpace):
        return np.ones(n, bool)
    if isinstance(region, Ball):
        return np.linalg.norm(points - flat(region.center), axis=1) <= float(region.radius)
    if isinstance(region, PerNeuronBalls):
        rows = points.reshape(n, *region.center.shape) - region.center
        return np.all(np.linalg.norm(rows, axis=2) <= region.radii, axis=1)
    if isinstance(region, Box):
        return np.all((points >= region.low.ravel()) & (points <= region.high.ravel()), axis=1)
    if isinstance(region, Product):
        parts = zip(region.parts, _columns(region, points), strict=True)
        return np.all([inside_many(p, x) for p, x in parts], axis=0)
    if isinstance(region, Intersection):
        return np.all([inside_many(p, points) for p in region.parts], axis=0)
    if isinstance(region, Pullback):
        return inside_many(region.region, points @ region.matrix.T + region.offset)
    raise InvalidInputError("region", region, "a region of proxyconvex.core.regions")


def projection(region: Region, anchor: Float[np.ndarray, " p"]) -> Callable[[Points], Points]:
    """A map of points into the region (an orthogonal projection for balls and their products).

    Args:
        region: where to.
        anchor: a point of the region, from which the others are pulled back where there is no closed form.
    """
    if isinstance(region, WholeSpace):
        return lambda points: points
    if isinstance(region, Ball):
        c, r = flat(region.center), float(region.radius) * _INSIDE
        return lambda points: c + _shorter(points - c, r)
    if isinstance(region, PerNeuronBalls):
        c, radii = region.center, region.radii[:, None] * _INSIDE

        def rows(points: Points) -> Points:
            gaps = points.reshape(len(points), *c.shape) - c
            return (c + _shorter(gaps, radii)).reshape(points.shape)

        return rows
    if isinstance(region, Box):
        return lambda points: np.clip(points, region.low.ravel(), region.high.ravel())
    if isinstance(region, Product) and all(center_of(p) is not None for p in region.parts):
        maps = [projection(p, flat(center_of(p))) for p in region.parts]
        return lambda points: np.concatenate(
            [m(x) for m, x in zip(maps, _columns(region, points), strict=True)], axis=1
        )

    def pulled_back(points: Points) -> Points:
        low, high = np.zeros(len(points)), np.ones(len(points))
        whole = inside_many(region, points)
        for _ in range(45):
            middle = (low + high) / 2
            ok = inside_many(region, anchor + middle[:, None] * (points - anchor))
            low, high = np.where(ok, middle, low), np.where(ok, high, middle)
        return np.where(whole[:, None], points, anchor + (low * _INSIDE)[:, None] * (points - anchor))

    return pulled_back


def _shorter(gaps: np.ndarray, radius: Any) -> np.ndarray:
    """Vectors cut to at most ``radius`` along their last axis."""
    length = np.linalg.norm(gaps, axis=-1, keepdims=True)
    return gaps * np.minimum(1.0, radius / np.maximum(length, 1e-300))


def _columns(region: Product, points: Points) -> list[Points]:
    """The columns of each part (every part must name its centre, which tells its size)."""
    sizes = [flat(center_of(p)).size for p in region.parts[:-1]]
    return np.split(points, np.cumsum(sizes), axis=1)


def inside_exactly(region: Region, point: Any) -> bool:
    """Whether the region certainly contains a point of float64 numbers, each taken as the binary fraction it is."""
    if isinstance(region, WholeSpace):
        return True
    if isinstance(region, Ball):
        if flat(point).size <= 256:
            return region.contains(exact_point(point))
        return distance_upper(point, region.center) <= exact(region.radius)
    if isinstance(region, PerNeuronBalls):
        rows = zip(np.asarray(point), region.center, region.radii.tolist(), strict=True)
        return all(
            sum(((exact(x) - exact(y)) ** 2 for x, y in zip(w, c, strict=True)), Fraction(0)) <= exact(r) ** 2
            for w, c, r in rows
        )
    if isinstance(region, Product):
        return all(inside_exactly(p, x) for p, x in zip(region.parts, point, strict=True))
    if isinstance(region, Intersection):
        return all(inside_exactly(p, point) for p in region.parts)
    if isinstance(region, Pullback | Box):
        return region.contains(exact_point(point))
    raise InvalidInputError("region", region, "a region of proxyconvex.core.regions")


def size_upper(point: Any) -> float:
    """An upper bound on the norm of a point."""
    return float(upper(norm_upper(point)))
