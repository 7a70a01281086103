"""Activations of a single neuron: nondecreasing, Lipschitz, with the slopes that the agnostic results need."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.errors import InvalidInputError

LINKS = ("sigmoid", "tanh", "softplus", "leaky-relu", "relu")


@dataclass(frozen=True)
class Link:
    """A nondecreasing activation s with ``0 <= s' <= L``.

    * ``sigmoid``: ``1 / (1 + exp(-beta t))``, L = beta / 4; ``tanh``: ``tanh(beta t)``, L = beta;
    * ``softplus``: ``log(1 + exp(beta t)) / beta``, L = 1; ``leaky-relu``: ``max(t, c t)``, L = 1; ``relu``: c = 0. The
      derivative at 0 is c.

    Another activation is declared with `Link.custom`.

    Attributes:
        name: one of the five names, or ``custom``.
        slope: the leak c in [0, 1]; 0 for all but leaky-relu.
        beta: sharpness ``> 0`` of the smooth ones.
        function: the activation of a ``custom`` link, a JAX function of an array, applied entrywise.
        declared: its Lipschitz constant.
        curvature: for a ``custom`` link, a declared H with ``|s'(t) - s'(u)| <= H |t - u|``, or None.
        label: what to call a ``custom`` link.
        range_slope: for a ``custom`` link: ``(lo, hi) -> `` a lower bound on its slope there, ``>= 0``.
    """

    name: str
    slope: float = 0.0
    beta: float = 1.0
    function: Callable[[Any], Any] | None = None
    declared: float | None = None
    range_slope: Callable[[float, float], float] | None = None
    curvature: float | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.name not in (*LINKS, "custom"):
            raise InvalidInputError(
                "activation", self.name, ", ".join(LINKS), "Or declare one with Link.custom."
            )
        if not (0 <= self.slope <= 1) or (self.name != "leaky-relu" and self.slope != 0):
            raise InvalidInputError("slope", self.slope, "a number in [0, 1], and 0 for all but leaky-relu")
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise InvalidInputError("beta", self.beta, "a finite number > 0")
        if self.name == "custom":
            if not callable(self.function):
                raise InvalidInputError("function", self.function, "a JAX function, applied entrywise")
            if self.declared is None or not (math.isfinite(self.declared) and self.declared > 0):
                raise InvalidInputError(
                    "lipschitz", self.declared, "a finite number > 0", "Declare L with s' <= L."
                )
            if self.curvature is not None and not (math.isfinite(self.curvature) and self.curvature >= 0):
                raise InvalidInputError(
                    "curvature", self.curvature, "a finite number >= 0, or None where it is not known"
                )

    @classmethod
    def custom(
        cls,
        function: Callable[[Any], Any],
        lipschitz: float,
        gamma: float | Callable[[float, float], float] = 0.0,
        *,
        curvature: float | None = None,
        label: str | None = None,
    ) -> Link:
        """Any nondecreasing activation with a declared Lipschitz constant.

        Args:
            function: a JAX function of an array, applied entrywise; nondecreasing.
            lipschitz: L with ``0 <= s' <= L`` everywhere; taken on trust (evidence ASSUMED).
            gamma: a lower bound on s': a number, or a function ``(lo, hi) -> gamma`` for the slope on ``[lo, hi]``.
            curvature: H with ``|s'(t) - s'(u)| <= H |t - u|`` everywhere (a bound on ``|s''|``), taken on trust; a promise is much
                tighter with it. None for an activation with kinks, or where it is not known.
            label: what to call it in reports; the name of the function by default.

        Raises:
            InvalidInputError: if a constant is not a finite number of its sign.
        """
        if not callable(gamma):
            if not (math.isfinite(gamma) and gamma >= 0):
                raise InvalidInputError(
                    "gamma", gamma, "a finite number >= 0, or a function (lo, hi) -> gamma"
                )
            least = float(gamma)
        bound = gamma if callable(gamma) else (lambda lo, hi: least)
        name = label or getattr(function, "__name__", type(function).__name__)
        return cls(
            "custom",
            function=function,
            declared=lipschitz,
            range_slope=bound,
            curvature=curvature,
            label=name,
        )

    @property
    def lipschitz(self) -> float:
        """L, the largest slope."""
        if self.declared is not None:
            return float(self.declared)
        return {"sigmoid": self.beta / 4, "tanh": self.beta}.get(self.name, 1.0)

    def least_slope(self, lo: float, hi: float) -> float:
        """gamma: the least slope on ``[lo, hi]`` (in plain floating point)."""
        if self.range_slope is not None:
            return float(self.range_slope(lo, hi))
        # Each of the named slopes is monotone, or rises and then falls: the least is at an end.
        return float(self.derivative(np.array([lo, hi], dtype=np.float64)).min())

    def value_and_slope(self, t: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """``s(t)`` and ``s'(t)`` under JAX."""
        if self.name == "sigmoid":
            p = jax.nn.sigmoid(self.beta * t)
            return p, self.beta * p * jax.nn.sigmoid(-self.beta * t)
        if self.name == "tanh":
            p = jax.nn.sigmoid(2 * self.beta * t)
            return jnp.tanh(self.beta * t), 4 * self.beta * p * jax.nn.sigmoid(-2 * self.beta * t)
        if self.name == "softplus":
            return jax.nn.softplus(self.beta * t) / self.beta, jax.nn.sigmoid(self.beta * t)
        if self.function is not None:
            return self.function(t), jax.grad(lambda u: jnp.sum(self.function(u)))(t)  # type: ignore[misc]
        return jnp.where(t > 0, t, self.slope * t), jnp.where(t > 0, 1.0, self.slope)

    def numpy(self, t: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """``s(t)`` in NumPy float64."""
        t = np.asarray(t, dtype=np.float64)
        if self.name == "sigmoid":
            return 0.5 * (1 + np.tanh(self.beta * t / 2))
        if self.name == "tanh":
            return np.tanh(self.beta * t)
        if self.name == "softplus":
            return np.logaddexp(0.0, self.beta * t) / self.beta
        if self.function is not None:
            return _evaluated(self.function, t)[0]
        return np.where(t > 0, t, self.slope * t)

    def derivative(self, t: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """``s'(t)`` in NumPy float64 (at the kink of leaky-relu: c)."""
        t = np.asarray(t, dtype=np.float64)
        if self.name in ("sigmoid", "tanh"):
            b, factor = (self.beta, self.beta) if self.name == "sigmoid" else (2 * self.beta, 4 * self.beta)
            e = np.exp(-np.abs(b * t))
            return factor * e / (1 + e) ** 2
        if self.name == "softplus":
            e = np.exp(-np.abs(self.beta * t))
            return np.where(t >= 0, 1.0, e) / (1 + e)
        if self.function is not None:
            return _evaluated(self.function, t)[1]
        return np.where(t > 0, 1.0, self.slope)

    def describe(self) -> dict[str, Any]:
        """The certificate's fields; of a ``custom`` link, which no certificate has, what was declared."""
        fields: dict[str, Any] = {"name": self.name, "slope": float(self.slope), "beta": float(self.beta)}
        if self.name == "custom":
            fields |= {"function": self.label, "lipschitz": self.lipschitz, "curvature": self.curvature}
        return fields


@functools.lru_cache(maxsize=16)
def _compiled(function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    return jax.jit(lambda t: (function(t), jax.grad(lambda u: jnp.sum(function(u)))(t)))


def _evaluated(function: Callable[[Any], Any], t: Float[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
    """Values and slopes of a user's activation in float64, on arrays padded to a power of two (few sizes to compile for)."""
    flat = np.zeros(1 << max(4, (t.size - 1).bit_length()))
    flat[: t.size] = t.ravel()
    with jax.enable_x64(True):
        value, slope = _compiled(function)(jnp.asarray(flat))
    return tuple(np.asarray(a, np.float64)[: t.size].reshape(t.shape) for a in (value, slope))  # type: ignore[return-value]
