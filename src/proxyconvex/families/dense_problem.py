"""Training a dense network in the engine: one flat vector of parameters, any of the three losses, the proxies of one theorem."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import losses
from .base import Problem
from .dense import DenseNetwork

THEOREMS = ("T8", "T4", "T1")


class DenseProblem(Problem):
    """The loss of a dense network with tangent proxies.

    What is recorded as ``g`` and ``h``:

    * T8: ``g = mean p_i (q_i - m_i)`` (class by class for several classes), ``h = 0``;
    * T4: U1, ``g = f(w)``, ``h = h(v; w)``, the loss of the tangent model at w evaluated at the comparator;
    * T1: ``g = mean |loss'|``, ``h = xi``, for the proxy PL inequality ``||grad f|| >= gamma (g - xi)``.

    Attributes:
        features: shape (n, d).
        targets: shape (n,).
        comparator: flat, shape (p,).
        head: output weights, shape (m, c).
        margins: tangent margins of T8, shape (n,) or (n, classes).
        level: xi of T1.
        network: the architecture.
        loss: name of the loss.
        theorem: whose proxies to record.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, " p"]
    head: Float[Array, "m c"]
    margins: Array
    level: Float[Array, ""]
    network: DenseNetwork = eqx.field(static=True)
    loss: str = eqx.field(static=True)
    theorem: str = eqx.field(static=True)

    def predict(self, w: Float[Array, " p"], x: Float[Array, "k d"]) -> Array:
        """Outputs, shape (k,) or (k, classes)."""
        return self.network.apply(w, x, self.head)

    def pointwise_loss(self, q: Array, y: Float[Array, " k"]) -> Float[Array, " k"]:
        """The loss per row."""
        return losses.value(self.loss, q, y)

    def slope(self, q: Array, y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``|loss'|`` per row; ``1 - p_y`` for several classes."""
        return losses.slope(self.loss, q, y)

    def error(self, q: Array, y: Float[Array, " k"]) -> Float[Array, " k"]:
        """One where the row is wrong; for regression the squared residual."""
        return losses.error(self.loss, q, y)

    def proxy(
        self, w: Float[Array, " p"], q: Array, x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """``(g_i, h_i)`` for the rows of the full batch."""
        if self.theorem == "T8":
            return losses.proxy_convexity(self.loss, q, y, self.margins), jnp.zeros(len(y))
        if self.theorem == "T1":
            return self.slope(q, y), jnp.full(len(y), self.level)
        lin = tangent_outputs(self, w, x)
        return self.pointwise_loss(q, y), losses.value(self.loss, lin, y)


def tangent_outputs(problem: DenseProblem, w: Array, x: Array) -> Array:
    """``N(w; x) + <grad N(w; x), v - w>``."""
    q, change = jax.jvp(lambda u: problem.predict(u, x), (w,), (problem.comparator - w,))
    return q + change


def bind(
    network: DenseNetwork,
    features: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, " n"],
    comparator: Float[np.ndarray, " p"],
    loss: str,
    theorem: str,
    margins: np.ndarray | None = None,
    level: float = 0.0,
) -> DenseProblem:
    """The problem with its arrays as float64.

    Args:
        network: the architecture.
        features: shape (n, d).
        targets: shape (n,).
        comparator: flat parameters.
        loss: name of the loss.
        theorem: one of `THEOREMS`.
        margins: of T8; zero by default.
        level: xi of T1.
    """
    shape = (len(targets), network.outputs) if loss == "cross-entropy" else (len(targets),)
    return DenseProblem(
        features=np.asarray(features, np.float64),
        targets=np.asarray(targets, np.float64),
        comparator=np.asarray(comparator, np.float64),
        head=network.output_weights(),
        margins=np.zeros(shape) if margins is None else np.asarray(margins, np.float64),
        level=np.asarray(level, np.float64),
        network=network,
        loss=losses.check_loss(loss),
        theorem=theorem,
    )
