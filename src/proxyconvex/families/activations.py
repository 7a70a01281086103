"""Activations with the constants the theory needs: range of the derivative and bound on the curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.errors import InvalidInputError

NAMES = ("softplus", "smooth-leaky", "leaky-relu", "relu")


@dataclass(frozen=True)
class Activation:
    """One of the activations the guarantees cover.

    * ``softplus``: ``log(1 + exp(beta t)) / beta``; derivative in (0, 1), ``|phi''| <= beta / 4``.
    * ``smooth-leaky``: derivative ``c + (1 - c) clip(1/2 + beta t / 4, 0, 1)``, with ``phi(t) = max(t, c t)`` for
      ``|t| >= 2 / beta``; derivative in [c, 1], ``|phi''| <= (1 - c) beta / 4``. No transcendental function.
    * ``leaky-relu``: ``max(t, c t)``; ``relu``: ``c = 0``. Positively homogeneous, not smooth. The derivative at 0 is c.

    Attributes:
        name: one of the four names.
        slope: the leak ``c`` in [0, 1]; 0 for softplus and relu.
        beta: sharpness ``> 0`` of the smooth activations (unused by the others).
    """

    name: str
    slope: float = 0.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise InvalidInputError("activation", self.name, ", ".join(NAMES))
        if not 0 <= self.slope <= 1:
            raise InvalidInputError("slope", self.slope, "a number in [0, 1]")
        if self.name in ("softplus", "relu") and self.slope != 0:
            raise InvalidInputError(
                "slope", self.slope, f"0 for {self.name}", "Use leaky-relu or smooth-leaky."
            )
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise InvalidInputError("beta", self.beta, "a finite number > 0")

    @property
    def smooth(self) -> bool:
        """Whether the derivative is Lipschitz."""
        return self.name in ("softplus", "smooth-leaky")

    @property
    def homogeneous(self) -> bool:
        """Whether ``phi(s t) = s phi(t)`` for ``s >= 0``."""
        return not self.smooth

    @property
    def curvature(self) -> float:
        """``H``, a bound on ``|phi''|`` (infinite when not smooth)."""
        return (1 - self.slope) * self.beta / 4 if self.smooth else math.inf

    def __call__(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """The activation under JAX."""
        c = self.slope
        if self.name == "softplus":
            return jax.nn.softplus(self.beta * t) / self.beta
        if self.name == "smooth-leaky":
            z = jnp.clip(t * (self.beta / 4) + 0.5, 0.0, 1.0)
            # rho(t) = (2/beta) z^2 inside the quadratic zone and t beyond it.
            rho = (2 / self.beta) * z * z + jnp.maximum(t - 2 / self.beta, 0.0)
            return c * t + (1 - c) * rho
        return jnp.where(t > 0, t, c * t)

    def numpy(self, t: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The activation in NumPy float64."""
        c = self.slope
        if self.name == "softplus":
            return np.logaddexp(0.0, self.beta * t) / self.beta
        if self.name == "smooth-leaky":
            z = np.clip(t * (self.beta / 4) + 0.5, 0.0, 1.0)
            return c * t + (1 - c) * ((2 / self.beta) * z * z + np.maximum(t - 2 / self.beta, 0.0))
        return np.where(t > 0, t, c * t)

    def derivative(self, t: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The derivative in NumPy float64 (at a kink: the left value, as the JAX code has it)."""
        c = self.slope
        if self.name == "softplus":
            z = np.exp(-np.abs(self.beta * t))
            return np.where(t >= 0, 1.0, z) / (1.0 + z)
        if self.name == "smooth-leaky":
            return c + (1 - c) * np.clip(t * (self.beta / 4) + 0.5, 0.0, 1.0)
        return np.where(t > 0, 1.0, c)

    def describe(self) -> dict[str, Any]:
        """The certificate's fields."""
        return {"name": self.name, "slope": float(self.slope), "beta": float(self.beta)}
