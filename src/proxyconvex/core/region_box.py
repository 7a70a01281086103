"""Boxes: every coordinate in a range of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from .errors import InvalidInputError
from .numbers import exact, is_exact_point, upper
from .regions import Region, checked_point, exact_point


@final
@dataclass(frozen=True, eq=False)
class Box(Region):
    """``low <= w <= high``, entry by entry.

    Example:
        >>> Box([0.0, -1.0], [1.0, 1.0]).contains([0.5, 1.0])
        True

    Attributes:
        low: an array (or list) of finite numbers; a number together with an array ``high`` serves every entry.
        high: the same, greater in every entry.
    """

    low: Any
    high: Any

    def __post_init__(self) -> None:
        ends = [checked_point(what, getattr(self, what)) for what in ("low", "high")]
        if not all(isinstance(e, np.ndarray) for e in ends):
            raise InvalidInputError("low, high", (self.low, self.high), "arrays of one shape", "For parameters in several arrays use Product of one Box each.")  # fmt: skip
        try:
            low, high = np.broadcast_arrays(*ends)
        except ValueError as error:
            raise InvalidInputError("low, high", [e.shape for e in ends], "arrays of one shape") from error
        if not (low < high).all():
            raise InvalidInputError("low, high", (self.low, self.high), "low < high in every entry")
        object.__setattr__(self, "low", low.copy())
        object.__setattr__(self, "high", high.copy())

    @property
    def center(self) -> np.ndarray:
        """The middle, up to rounding."""
        return self.low + (self.high - self.low) / 2

    def _checked(self, w: Any) -> np.ndarray:
        try:
            point = np.asarray(w, float)
        except (TypeError, ValueError) as error:
            raise InvalidInputError("w", w, f"an array of shape {self.low.shape}") from error
        if point.shape != self.low.shape:
            raise InvalidInputError("w", point.shape, f"shape {self.low.shape}")
        return point

    def contains(self, w: Any) -> bool:
        """Whether every entry lies in its range (for exact points, decided exactly)."""
        if is_exact_point(w):
            flat = np.ravel(np.asarray(exact_point(w), dtype=object))
            if flat.size != self.low.size:
                raise InvalidInputError("w", flat.size, f"{self.low.size} numbers")
            return all(exact(a) <= x <= exact(b) for x, a, b in zip(flat, self.low.ravel(), self.high.ravel(), strict=True))  # fmt: skip
        point = self._checked(w)
        return bool((point >= self.low).all() and (point <= self.high).all())

    def distance_to_boundary(self, w: Any) -> float:
        """Inside, the smallest distance to a face; outside, minus the distance to the box."""
        point = self._checked(w)
        outside = np.maximum(np.maximum(self.low - point, point - self.high), 0.0)
        if outside.any():
            return -float(np.linalg.norm(outside))
        return float(np.minimum(point - self.low, self.high - point).min())

    def covers_ball(self, center: Any, radius: Any) -> bool:
        """Whether every face is at least the radius away from the centre, in exact arithmetic."""
        r = upper(radius)
        middle = np.ravel(np.asarray(exact_point(center), dtype=object))
        return middle.size == self.low.size and all(
            exact(a) + r <= c and c + r <= exact(b)
            for c, a, b in zip(middle, self.low.ravel(), self.high.ravel(), strict=True)
        )

    def __str__(self) -> str:
        if self.low.size <= 6:
            return "the box " + " x ".join(f"[{a:.6g}, {b:.6g}]" for a, b in zip(self.low.ravel(), self.high.ravel(), strict=True))  # fmt: skip
        return f"a box of {self.low.size} ranges"
