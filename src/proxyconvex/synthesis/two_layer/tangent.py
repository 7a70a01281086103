"""The tangent model of a two-layer network at its initial weights, and how far the network can leave it.

Scales: with initial weights ``s A`` (A standard normal) and sharpness ``beta = b / s``, the slopes
``phi'(<w_r, x>) = phi'_b(<a_r, x>)`` and with them all tangent features depend on ``b`` only; the curvature
``H = (1 - c) b / (4 s)``, and for (leaky) ReLU the share of neurons whose sign can flip, vanish as s grows. All numbers
here are plain floating point: proposals, which the checker then certifies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.special import wrightomega

from ...families.activations import Activation
from ...families.two_layer_ntk import TwoLayerNTK, paired_signs
from ..tangent_svm import Direction, signed, tangent_gram

SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Values of ``b = beta * init_scale`` that are tried for smooth activations."""
GENTLE = (0.05, 0.1, 0.25, 0.5)
"""Values tried as well when the initial scale is given."""
SCALES = (1.0, 1e6)
"""Least and largest initial scale the planner chooses by itself."""


@dataclass(frozen=True)
class Tangent:
    """Tangent features at initialisation for one sharpness.

    Attributes:
        x: features, shape (n, d).
        y: targets in {-1, +1}, shape (n,).
        half: standard normal initial weights A of one neuron of each pair, shape (m/2, d).
        name: activation name.
        slope: leak c.
        sharpness: ``b = beta * init_scale`` (without meaning for homogeneous activations).
        scales: least and largest initial scale allowed.
    """

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, " n"]
    half: Float[np.ndarray, "h d"]
    name: str
    slope: float
    sharpness: float
    scales: tuple[float, float]

    @property
    def width(self) -> int:
        """Number of neurons m."""
        return 2 * len(self.half)

    @property
    def smooth(self) -> bool:
        """Whether the activation is smooth."""
        return self.activation(1.0).smooth

    def activation(self, scale: float) -> Activation:
        """The activation that goes with an initial scale."""
        probe = Activation(self.name, self.slope)
        return Activation(self.name, self.slope, self.sharpness / scale) if probe.smooth else probe

    def family(self, scale: float, seed: int) -> TwoLayerNTK:
        """The architecture at an initial scale."""
        return TwoLayerNTK(self.width, self.activation(scale), float(scale), seed)

    @cached_property
    def norms(self) -> Float[np.ndarray, " n"]:
        """``||x_i||``."""
        return np.linalg.norm(self.x, axis=1)

    @cached_property
    def slopes(self) -> Float[np.ndarray, "n h"]:
        """``phi'(<w_r, x_i>)`` at initialisation."""
        return self.activation(1.0).derivative(self.x @ self.half.T)

    @cached_property
    def gram(self) -> Float[np.ndarray, "n n"]:
        """Signed Gram matrix of the tangent features."""
        return signed(tangent_gram(self.x, self.slopes), self.y)

    @cached_property
    def steepest(self) -> float:
        """``max_i ||grad N(W0; x_i)||``."""
        return float(np.sqrt(np.diag(self.gram).max()))

    @cached_property
    def _flips(self) -> tuple[Float[np.ndarray, "n h"], Float[np.ndarray, "n h"]]:
        """Sums of the smallest ``|<a_r, x_i>|`` and of their squares: a flip's gain and cost at scale 1."""
        t = np.sort(np.abs(self.x @ self.half.T), axis=1)
        return np.cumsum(t, axis=1), np.cumsum(t * t, axis=1)

    def remainder(self, radius: float, scale: float) -> Float[np.ndarray, " n"]:
        """How much a tangent margin can differ from its value at the comparator, within ``radius`` of it."""
        if self.smooth:
            curvature = (1 - self.slope) * self.sharpness / (4 * scale)
            return curvature * (self.norms * radius) ** 2 / (2 * np.sqrt(self.width))
        gain, cost = self._flips
        budget = (self.norms * radius / scale) ** 2
        flipped = (cost <= budget[:, None]).sum(axis=1)
        rows, last = np.arange(len(self.x)), np.minimum(flipped, len(self.half) - 1)
        before = np.where(flipped > 0, gain[rows, np.maximum(flipped - 1, 0)], 0.0)
        spent = np.where(flipped > 0, cost[rows, np.maximum(flipped - 1, 0)], 0.0)
        own = gain[rows, last] - np.where(last > 0, gain[rows, np.maximum(last - 1, 0)], 0.0)
        part = np.where(flipped < len(self.half), (budget - spent) / np.maximum(own, 1e-300), 0.0)
        return scale * (1 - self.slope) * (before + np.minimum(part, own)) / np.sqrt(self.width)

    def gradient_norm(self, radius: float, scale: float) -> float:
        """About the largest ``||grad N||`` within ``radius`` of a comparator near initialisation."""
        top = float(self.norms.max())
        if not self.smooth:
            # Neurons are equally likely on and off; those that can be switched on are about the cheapest half.
            flipped = (self._flips[1] <= (top * radius / scale) ** 2).sum(axis=1).max() / len(self.half)
            return min(np.sqrt(self.steepest**2 + (1 - self.slope**2) * 0.6 * flipped * top * top), top)
        drift = (1 - self.slope) * self.sharpness / (4 * scale) * radius * top * top / np.sqrt(self.width)
        return min(self.steepest + 1.1 * drift, top)

    def comparator(self, direction: Direction, radius: float, scale: float) -> Float[np.ndarray, "m d"]:
        """``W0 + radius * direction / ||direction||``, shape (m, d)."""
        alpha = direction.alpha * self.y * (radius / direction.norm)
        move = (self.slopes * alpha[:, None]).T @ self.x / np.sqrt(self.width)
        start = self.half * scale
        return np.concatenate([start + move, start - move])

    def margins(self, comparator: Float[np.ndarray, "m d"], scale: float) -> Float[np.ndarray, " n"]:
        """``y_i N(V; x_i)``."""
        value = self.activation(scale).numpy(self.x @ comparator.T) @ paired_signs(self.width)
        return self.y * value / np.sqrt(self.width)


def least_k(q: Float[np.ndarray, " n"], level: float) -> int:
    """The smallest k with ``S_k >= level`` (theorem T8) in floating point; n + 1 if there is none.

    ``S_k >= tau`` iff the sum over rows of ``-W(exp(-theta - 1))``, ``theta = q - tau``, plus the k smallest costs of
    making a row wrong is at least 0; a cost is ``theta / 2 + W(exp(-theta - 1))``, or 0 for ``theta < -2``.
    """
    theta = q - level
    free = wrightomega(-theta - 1)
    costs = np.sort(np.where(theta >= -2, theta / 2 + free, 0.0))
    total = np.cumsum(costs) - free.sum()
    reached = np.flatnonzero(total >= 0)
    return int(reached[0]) + 1 if len(reached) else len(q) + 1


def largest_level(q: Float[np.ndarray, " n"], k: int) -> float:
    """``S_k`` in floating point, by bisection."""
    low, high = float(q.min()) - np.log(2 * len(q)) - 2, float(q.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if least_k(q, middle) <= k else (low, middle)
    return low
