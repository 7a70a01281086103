"""Regions of parameter space on which a condition is claimed: the whole space, balls, products, intersections."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import numpy as np

from .errors import InvalidInputError
from .numbers import (
    exact,
    inner,
    is_exact_point,
    leaves,
    map_point,
    norm,
    norm_sq,
    norm_upper,
    sqrt,
    subtract,
    upper,
)


def checked_point(what: str, point: Any) -> Any:
    """A point with float64 arrays for its numeric leaves; exact points (Fractions, Intervals) are kept.

    Raises:
        InvalidInputError: for an empty point, NaN, infinities, or leaves that are not real numbers.
    """
    if not is_exact_point(point):
        if isinstance(point, list | tuple) and point and all(isinstance(x, int | float) for x in point):
            point = np.asarray(point, float)
        try:
            point = map_point(lambda x: np.asarray(x, float), point)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                what, point, "an array, a scalar or a pytree of them, of real numbers"
            ) from error
        flat = [np.asarray(x) for x in leaves(point)]
        if not all(np.isfinite(x).all() for x in flat):
            raise InvalidInputError(what, point, "finite numbers", "Remove NaN and infinities.")
        if not sum(x.size for x in flat):
            raise InvalidInputError(what, point, "at least one number")
    return point


def _checked_radius(what: str, radius: Any) -> Any:
    if isinstance(radius, bool | str) or radius is None:
        raise InvalidInputError(what, radius, "a finite number > 0")
    value = exact(radius)
    if not upper(value) > 0 or not isinstance(value, Fraction):
        raise InvalidInputError(
            what, radius, "a finite number > 0", "Give the radius as a float or a Fraction."
        )
    return radius


class Region(abc.ABC):
    """A closed set of parameters."""

    @abc.abstractmethod
    def contains(self, w: Any) -> bool:
        """Whether a point lies in the region (for exact points, decided exactly)."""

    @abc.abstractmethod
    def distance_to_boundary(self, w: Any) -> float:
        """Signed distance to the boundary: non-negative inside, negative outside.

        Inside, a ball of this radius around ``w`` lies in the region (for a pulled-back region and for products it is a
        lower bound of the distance). Infinite for the whole space.
        """

    @abc.abstractmethod
    def covers_ball(self, center: Any, radius: Any) -> bool:
        """Whether the closed ball certainly lies in the region (rigorous: rounding cannot turn a no into a yes)."""

    def intersect(self, other: Region) -> Region:
        """The intersection, simplified where one region contains the other by construction."""
        return intersect(self, other)

    def pullback(self, matrix: Any, offset: Any) -> Region:
        """The region ``{u : M u + b in region}``.

        Args:
            matrix: ``M``, shape (p, q).
            offset: ``b``, shape (p,).
        """
        return Pullback(self, matrix, offset)


@final
@dataclass(frozen=True)
class WholeSpace(Region):
    """All of parameter space."""

    def contains(self, w: Any) -> bool:
        """Always true."""
        return True

    def distance_to_boundary(self, w: Any) -> float:
        """Infinite."""
        return math.inf

    def covers_ball(self, center: Any, radius: Any) -> bool:
        """Always true."""
        return True

    def pullback(self, matrix: Any, offset: Any) -> Region:
        """The whole space again."""
        _checked_map(matrix, offset)
        return self

    def __str__(self) -> str:
        return "the whole space"


@final
@dataclass(frozen=True, eq=False)
class Ball(Region):
    """The Euclidean (Frobenius) ball ``||w - center|| <= radius``.

    Attributes:
        center: a point.
        radius: a finite number > 0.
    """

    center: Any
    radius: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", checked_point("center", self.center))
        _checked_radius("radius", self.radius)

    def contains(self, w: Any) -> bool:
        """``||w - center||^2 <= radius^2``."""
        if is_exact_point(w) or is_exact_point(self.center):
            gap = subtract(exact_point(w), exact_point(self.center))
            return bool(norm_sq(gap) <= exact(self.radius) ** 2)
        return bool(norm_sq(subtract(checked_point("w", w), self.center)) <= float(self.radius) ** 2)

    def distance_to_boundary(self, w: Any) -> float:
        """``radius - ||w - center||``."""
        if is_exact_point(w) or is_exact_point(self.center):
            return float(exact(self.radius) - norm_upper(subtract(exact_point(w), exact_point(self.center))))
        return float(self.radius) - float(norm(subtract(checked_point("w", w), self.center)))

    def covers_ball(self, center: Any, radius: Any) -> bool:
        """``||center - c|| + r <= radius``, with the distance rounded up."""
        return distance_upper(center, self.center) + upper(radius) <= exact(self.radius)

    def __str__(self) -> str:
        return f"the ball of radius {float(self.radius):.6g}"


@final
@dataclass(frozen=True, eq=False)
class PerNeuronBalls(Region):
    """Every row of the weight matrix stays near its own centre: ``||w_r - c_r|| <= radii_r`` for all ``r``.

    Attributes:
        center: shape (m, d).
        radii: shape (m,), or one number for all rows; finite and > 0.
    """

    center: np.ndarray
    radii: np.ndarray

    def __post_init__(self) -> None:
        center = checked_point("center", self.center)
        if not isinstance(center, np.ndarray) or center.ndim != 2:
            raise InvalidInputError("center", self.center, "a matrix with one row per neuron")
        radii = np.asarray(self.radii, float)
        if radii.ndim > 1 or radii.size not in (1, len(center)):
            raise InvalidInputError(
                "radii", self.radii, f"one number, or {len(center)} numbers (one per row)"
            )
        if not (np.isfinite(radii).all() and (radii > 0).all()):
            raise InvalidInputError("radii", self.radii, "finite numbers > 0")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "radii", np.broadcast_to(radii, (len(center),)).copy())

    def _gaps(self, w: Any) -> np.ndarray:
        try:
            w = np.asarray(w, float)
        except (TypeError, ValueError) as error:
            raise InvalidInputError("w", w, f"an array of shape {self.center.shape}") from error
        if w.shape != self.center.shape:
            raise InvalidInputError("w", w.shape, f"shape {self.center.shape}")
        return self.radii - np.sqrt(np.sum((w - self.center) ** 2, axis=1))

    def contains(self, w: Any) -> bool:
        """Whether every row is in its ball."""
        return bool(self._gaps(w).min() >= 0)

    def distance_to_boundary(self, w: Any) -> float:
        """Smallest ``radii_r - ||w_r - c_r||``."""
        return float(self._gaps(w).min())

    def covers_ball(self, center: Any, radius: Any) -> bool:
        """Whether each row's ball has room for the whole radius."""
        r = upper(radius)
        return all(
            distance_upper(row, c) + r <= Fraction(float(bound))
            for row, c, bound in zip(center, self.center, self.radii, strict=True)
        )

    def __str__(self) -> str:
        return f"per-neuron balls of radius {self.radii.min():.6g} to {self.radii.max():.6g}"


@final
@dataclass(frozen=True)
class Product(Region):
    """``w = (w_1, ..., w_k)`` with ``w_j`` in ``parts[j]`` (parameters that are a tuple or list, e.g. one per layer)."""

    parts: tuple[Region, ...]

    def __post_init__(self) -> None:
        _checked_parts(self.parts)

    def _split(self, w: Any) -> Any:
        if not isinstance(w, list | tuple) or len(w) != len(self.parts):
            raise InvalidInputError("w", w, f"a tuple of {len(self.parts)} points")
        return w

    def contains(self, w: Any) -> bool:
        """Whether every part contains its component."""
        return all(p.contains(x) for p, x in zip(self.parts, self._split(w), strict=True))

    def distance_to_boundary(self, w: Any) -> float:
        """Smallest distance of the parts."""
        return min(p.distance_to_boundary(x) for p, x in zip(self.parts, self._split(w), strict=True))

    def covers_ball(self, center: Any, radius: Any) -> bool:
        """Whether every part has room for the whole radius."""
        return all(p.covers_ball(x, radius) for p, x in zip(self.parts, self._split(center), strict=True))

    def __str__(self) -> str:
        return "the product of " + " and ".join(map(str, self.parts))


@final
@dataclass(frozen=True)
class Intersection(Region):
    """Points that lie in all of several regions; built by `Region.intersect`."""

    parts: tuple[Region, ...]

    def __post_init__(self) -> None:
        _checked_parts(self.parts)

    def contains(self, w: Any) -> bool:
        """Whether all parts contain the point."""
        return all(p.contains(w) for p in self.parts)

    def distance_to_boundary(self, w: Any) -> float:
        """Smallest distance of the parts (outside, only a lower bound on the size of the true distance)."""
        return min(p.distance_to_boundary(w) for p in self.parts)

    def covers_ball(self, center: Any, radius: Any) -> bool:
        """Whether all parts cover the ball."""
        return all(p.covers_ball(center, radius) for p in self.parts)

    def __str__(self) -> str:
        return "the intersection of " + " and ".join(map(str, self.parts))


@final
@dataclass(frozen=True, eq=False)
class Pullback(Region):
    """``{u : M u + b in region}``; distances are divided by an upper bound on the operator norm of ``M``."""

    region: Region
    matrix: Any
    offset: Any

    def __post_init__(self) -> None:
        matrix, offset = _checked_map(self.matrix, self.offset)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "offset", offset)

    def image(self, u: Any) -> Any:
        """``M u + b``."""
        return affine(self.matrix, self.offset, u)

    def contains(self, w: Any) -> bool:
        """Whether the image lies in the region."""
        return self.region.contains(self.image(w))

    def distance_to_boundary(self, w: Any) -> float:
        """A lower bound: the image's distance over ``||M||``."""
        return self.region.distance_to_boundary(self.image(w)) / float(_operator_norm_upper(self.matrix))

    def covers_ball(self, center: Any, radius: Any) -> bool:
        """The image of the ball lies in the ball of radius ``||M|| radius`` around the exact image of the centre."""
        image = affine(exact_point(self.matrix), exact_point(self.offset), exact_point(center))
        return self.region.covers_ball(image, upper(radius) * _operator_norm_upper(self.matrix))

    def __str__(self) -> str:
        return f"the preimage of {self.region} under u -> M u + b"


def intersect(*regions: Region) -> Region:
    """Intersection of regions: drops the whole space, keeps the smaller of two concentric balls."""
    flat: list[Region] = []
    for region in regions:
        if not isinstance(region, Region):
            raise InvalidInputError("region", region, "a Region")
        flat.extend(region.parts if isinstance(region, Intersection) else [region])
    kept: list[Region] = []
    for region in flat:
        if isinstance(region, WholeSpace) or any(k is region for k in kept):
            continue
        if isinstance(region, Ball):
            for i, k in enumerate(kept):
                if isinstance(k, Ball) and _same(k.center, region.center):
                    kept[i] = k if exact(k.radius) <= exact(region.radius) else region
                    break
            else:
                kept.append(region)
        else:
            kept.append(region)
    if not kept:
        return WholeSpace()
    return kept[0] if len(kept) == 1 else Intersection(tuple(kept))


def affine(matrix: Any, offset: Any, u: Any) -> Any:
    """``M u + b`` for arrays (NumPy, JAX) or for lists of exact numbers."""
    if not (is_exact_point(u) or is_exact_point(matrix) or is_exact_point(offset)):
        return matrix @ u + offset
    rows, shift, vector = exact_point(matrix), exact_point(offset), exact_point(u)
    return [inner(row, vector) + b for row, b in zip(rows, shift, strict=True)]


def exact_point(point: Any) -> Any:
    """The same point with exact leaves: arrays become nested lists of Fractions."""
    if isinstance(point, np.ndarray):
        return [exact_point(x) for x in point] if point.ndim else exact(point.item())
    return map_point(lambda x: exact_point(np.asarray(x)) if getattr(x, "ndim", 0) else exact(x), point)


def _same(a: Any, b: Any) -> bool:
    return a is b or distance_upper(a, b) == 0


def distance_upper(a: Any, b: Any) -> Fraction:
    """An upper bound on ``||a - b||`` in exact arithmetic (the rounding of the difference is covered)."""
    a, b = checked_point("center", a), checked_point("center", b)
    if is_exact_point(a) or is_exact_point(b) or sum(np.size(x) for x in leaves(a)) <= 256:
        return norm_upper(subtract(exact_point(a), exact_point(b)))
    # Each floating difference is exact or relatively off by at most 2^-53.
    return norm_upper(subtract(a, b)) * (1 + Fraction(1, 2**52))


def _checked_map(matrix: Any, offset: Any) -> tuple[Any, Any]:
    if is_exact_point(matrix) or is_exact_point(offset):
        rows = [list(row) for row in matrix]
        if not rows or len({len(r) for r in rows}) != 1 or len(offset) != len(rows):
            raise InvalidInputError("matrix", matrix, "p rows of q numbers, with an offset of p numbers")
        return rows, list(offset)
    m, b = np.asarray(matrix, float), np.asarray(offset, float)
    if m.ndim != 2 or b.shape != (m.shape[0],) or not m.size:
        raise InvalidInputError(
            "matrix", (m.shape, b.shape), "a matrix of shape (p, q) and an offset of shape (p,)"
        )
    if not (np.isfinite(m).all() and np.isfinite(b).all()):
        raise InvalidInputError("matrix", m, "finite numbers")
    return m, b


def _operator_norm_upper(matrix: Any) -> Fraction:
    """``||M|| <= min(||M||_F, sqrt(||M||_1 ||M||_inf))``, rounded up."""
    rows = [[abs(exact(x)) for x in row] for row in exact_point(matrix)]
    frobenius = norm_upper(rows)
    by_rows = max(upper(sum(row, Fraction(0))) for row in rows)
    by_columns = max(upper(sum(column, Fraction(0))) for column in zip(*rows, strict=True))
    return min(frobenius, upper(sqrt(by_rows * by_columns)))


def _checked_parts(parts: Any) -> None:
    if not isinstance(parts, tuple) or not parts or not all(isinstance(p, Region) for p in parts):
        raise InvalidInputError("parts", parts, "a non-empty tuple of regions")
