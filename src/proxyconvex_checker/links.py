"""Enclosures of the activations of a single neuron and of their derivatives on intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import CheckError
from .rounding import (
    Array,
    add_up,
    div_down,
    div_up,
    mul_down,
    mul_up,
    sigmoid_bounds,
    softplus_bounds,
    sub_down,
    sub_up,
)

STEP = "activation"
LINKS = ("sigmoid", "tanh", "softplus", "leaky-relu", "relu")
Bounds = tuple[Array, Array]


@dataclass(frozen=True)
class Link:
    """A nondecreasing activation of a certificate.

    Attributes:
        name: ``"sigmoid"``: ``1 / (1 + exp(-beta t))``; ``"tanh"``: ``tanh(beta t)``; ``"softplus"``:
            ``log(1 + exp(beta t)) / beta``; ``"leaky-relu"``: ``max(t, c t)`` with derivative c at 0; ``"relu"``: c = 0.
        slope: the leak c in [0, 1].
        beta: sharpness ``> 0``.
    """

    name: str
    slope: float
    beta: float

    def value(self, lo: Array, hi: Array) -> Bounds:
        """Bounds of ``s`` on ``[lo, hi]`` (arrays of one shape)."""
        if self.name in ("leaky-relu", "relu"):
            low = np.where(lo > 0, lo, mul_down(self.slope, lo))
            return low, np.where(hi > 0, hi, mul_up(self.slope, hi))
        lo, hi = mul_down(self.beta, lo), mul_up(self.beta, hi)
        if self.name == "softplus":
            low, high = softplus_bounds(lo, hi)
            return div_down(low, self.beta), div_up(high, self.beta)
        if self.name == "sigmoid":
            return sigmoid_bounds(lo, hi)
        low, high = sigmoid_bounds(2 * lo, 2 * hi)  # tanh(t) = 2 sigmoid(2 t) - 1; doubling is exact
        return sub_down(2 * low, 1.0), sub_up(2 * high, 1.0)

    def derivative(self, lo: Array, hi: Array) -> Bounds:
        """Bounds of ``s'`` on ``[lo, hi]``, ``>= 0``."""
        if self.name in ("leaky-relu", "relu"):
            return np.where(lo > 0, 1.0, self.slope), np.where(hi > 0, 1.0, self.slope)
        scale = 2 * self.beta if self.name == "tanh" else self.beta
        lo, hi = mul_down(scale, lo), mul_up(scale, hi)
        if self.name == "softplus":
            return sigmoid_bounds(lo, hi)
        # beta p (1 - p) (tanh: 4 beta p (1 - p)) rises up to t = 0 and falls after it.
        factor = 4 * self.beta if self.name == "tanh" else self.beta
        left, right = _bump(lo), _bump(hi)
        low = np.minimum(left[0], right[0])
        high = np.where((lo <= 0) & (hi >= 0), 0.25, np.maximum(left[1], right[1]))
        return np.maximum(mul_down(factor, low), 0.0), mul_up(factor, high)

    def pieces(self, lo: Array, hi: Array) -> list[tuple[Bounds, Array | bool]]:
        """Bounds of ``s'`` with the cells where they are possible; a kinked activation has one of two slopes, not a mixture."""
        if self.name in ("leaky-relu", "relu"):
            leak, one = np.full(lo.shape, self.slope), np.ones(lo.shape)
            return [((leak, leak), lo <= 0), ((one, one), hi > 0)]
        return [(self.derivative(lo, hi), True)]


def _bump(t: Array) -> Bounds:
    """Bounds of ``sigmoid(t) sigmoid(-t)`` at points; at most 1/4."""
    p, q = sigmoid_bounds(t), sigmoid_bounds(-t)
    return mul_down(p[0], q[0]), np.minimum(mul_up(p[1], q[1]), 0.25)


def parse(fields: dict[str, Any]) -> Link:
    """The activation of a certificate.

    Raises:
        CheckError: for an unknown name or a constant out of range.
    """
    name, slope, beta = fields["name"], float(fields["slope"]), float(fields["beta"])
    if name not in LINKS:
        raise CheckError(STEP, f"unknown activation {name!r} of a single neuron; known: {', '.join(LINKS)}")
    if not 0 <= slope <= 1 or (name != "leaky-relu" and slope != 0):
        raise CheckError(STEP, f"slope {slope!r} is not possible for {name}")
    if not 1e-100 <= beta <= 1e100:
        raise CheckError(STEP, f"beta = {beta!r} is outside [1e-100, 1e100]")
    return Link(name, slope, beta)


def square_bounds(lo: Array, hi: Array) -> Bounds:
    """Bounds of ``t^2`` on ``[lo, hi]``."""
    size = np.maximum(np.abs(lo), np.abs(hi))
    least = np.where((lo <= 0) & (hi >= 0), 0.0, np.minimum(np.abs(lo), np.abs(hi)))
    return np.maximum(mul_down(least, least), 0.0), mul_up(size, size)


def product_lower(a: Bounds, b: Bounds) -> Array:
    """Lower bound of ``s t`` for s and t in two intervals."""
    corners = [mul_down(x, y) for x in a for y in b]
    return np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))


def widened(value: Array, error: Array) -> Bounds:
    """``[value - error, value + error]``."""
    return sub_down(value, error), add_up(value, error)


__all__ = ["LINKS", "Bounds", "Link", "parse", "product_lower", "square_bounds", "widened"]
