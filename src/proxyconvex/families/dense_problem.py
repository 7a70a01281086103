"""Training a dense network in the engine: one flat vector of parameters, any of the three losses, the proxies of one theorem."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import losses
from .base import Problem
from .class_margin import margins_by_class
from .dense import DenseNetwork
from .tangent_kernels import layerwise
from .tangent_margin import least_eigenvalue, tangent_margin

THEOREMS = ("T8", "T4", "T1")


class DenseProblem(Problem):
    """The loss of a dense network with tangent proxies.

    What is recorded as ``g`` and ``h``:

    * T8: ``g = S mean |loss'|``, ``h = 0``: what tangent margins ``q_i`` give while k rows are wrong, ``S = S_k(q)``;
    * T4: U1, ``g = f(w)``, ``h = h(v; w)``, the loss of the tangent model at w evaluated at the comparator;
    * T1: ``g = mean |loss'|``, ``h = xi``, for the proxy PL inequality ``||grad f|| >= gamma (g - xi)``.

    Attributes:
        features: shape (n, d).
        targets: shape (n,).
        comparator: flat, shape (p,).
        head: output weights, shape (m, c).
        level: S of T8, xi of T1.
        network: the architecture.
        loss: name of the loss.
        theorem: whose proxies to record.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, " p"]
    head: Float[Array, "m c"]
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
            return self.level * self.slope(q, y), jnp.zeros(len(y))
        if self.theorem == "T1":
            return self.slope(q, y), jnp.full(len(y), self.level)
        lin = tangent_outputs(self, w, x)
        return self.pointwise_loss(q, y), losses.value(self.loss, lin, y)

    def watch(self, w: Float[np.ndarray, " p"]) -> dict[str, float]:
        """Tangent margins of all hidden layers and of the last one (two classes), by class (several), or the kernel's least eigenvalue."""
        if not np.isfinite(w).all():
            return {}
        x, y = np.asarray(self.features), np.asarray(self.targets)
        features = self.network.features(w, x)
        if self.network.outputs > 1:
            by_class = margins_by_class(self.network, features, y, x.shape[1])
            named = {f"margin_class_{c}": float(m) for c, m in enumerate(by_class)}
            return {"margin_all": min(named.values()), **named}
        kernel = layerwise(features)
        if self.loss == "squared":
            return {"lambda_min": least_eigenvalue(kernel)}
        last = layerwise(features, only=[len(self.network.hidden) - 1])
        return {
            "margin_all": tangent_margin(kernel, y, penalty=1e6).gamma,
            "margin_last": tangent_margin(last, y, penalty=1e6).gamma,
        }


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
        level: S of T8, xi of T1.
    """
    return DenseProblem(
        features=np.asarray(features, np.float64),
        targets=np.asarray(targets, np.float64),
        comparator=np.asarray(comparator, np.float64),
        head=network.output_weights(),
        level=np.asarray(level, np.float64),
        network=network,
        loss=losses.check_loss(loss),
        theorem=theorem,
    )
