"""What every family is: an architecture with fixed initial weights, and the finite-sum problem it poses on data.

A *family* is one published result made executable. The architecture object (`Family`) holds hyperparameters only;
`Family.problem` binds it to data and a comparator and yields a `Problem`, the pure JAX functions that
`proxyconvex.descent` runs and records.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.references import Reference


class Problem(eqx.Module):
    """A finite-sum objective ``f(w) = mean_i loss_i(w)`` on parameters ``w`` (one array), with its proxies.

    Attributes:
        features: data matrix, shape (n, d).
        targets: targets, shape (n,); for classification in {-1, +1}.
        comparator: the fixed comparator ``v``, same shape as the parameters.
    """

    features: eqx.AbstractVar[Float[Array, "n d"]]
    targets: eqx.AbstractVar[Float[Array, " n"]]
    comparator: eqx.AbstractVar[Array]

    @abc.abstractmethod
    def predict(self, w: Array, x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """Network outputs on a batch."""

    @abc.abstractmethod
    def pointwise_loss(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """Loss of predictions ``q``, per sample."""

    @abc.abstractmethod
    def slope(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``|d loss / d q|`` per sample."""

    @abc.abstractmethod
    def error(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """Error per sample (0/1 for classification; a prediction of exactly zero counts as wrong)."""

    @abc.abstractmethod
    def proxy(
        self, w: Array, q: Float[Array, " k"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """Per-sample proxies ``(g_z(w), h_z(v))`` of the proxy convexity premise; batch means give ``g, h``."""

    def loss(self, w: Array, x: Float[Array, "k d"], y: Float[Array, " k"]) -> Float[Array, ""]:
        """Mean loss on a batch."""
        return jnp.mean(self.pointwise_loss(self.predict(w, x), y))

    def loss_grad(
        self, w: Array, x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, ""], Float[Array, " k"], Array]:
        """Mean loss, predictions and gradient on a batch, from one forward and one backward pass."""

        def objective(p: Array) -> tuple[Array, Array]:
            q = self.predict(p, x)
            return jnp.mean(self.pointwise_loss(q, y)), q

        (value, q), grad = jax.value_and_grad(objective, has_aux=True)(w)
        return value, q, grad

    def watch(self, w: np.ndarray) -> dict[str, float]:
        """What to note about a few iterates of a run (NumPy; outside the compiled loop); nothing by default."""
        return {}

    def output(self, a: Float[Array, " k"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """Prediction and its derivative in ``a = <w, x>``, for a problem that sees the weights through ``a`` alone.

        Such a problem may override this and `proxy_at`; a whole step of SGD on single rows is then measured in one pass
        over the weights (`descent.ridge`).
        """
        raise NotImplementedError

    def proxy_at(
        self, a: Float[Array, " k"], b: Float[Array, " k"], q: Float[Array, " k"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """`proxy` as a function of ``a = <w, x>``, ``b = <v, x>``, prediction and target; goes with `output`."""
        raise NotImplementedError

    def comparator_rows(self) -> Float[Array, "n k"] | None:
        """What `loss_grad_products` wants to know of the comparator, one row per row of the data, or None.

        A problem whose gradient on a single row has structure overrides both methods. The descent asks once per run.
        """
        return None

    def loss_grad_products(
        self, w: Array, x: Float[Array, "1 d"], y: Float[Array, " 1"], known: Float[Array, "1 k"]
    ) -> tuple[Float[Array, ""], Float[Array, " 1"], Array, Float[Array, ""], Float[Array, ""]]:
        """`loss_grad` on one row, then ``<grad, w - v>`` and ``||grad||^2`` at less than a pass over the gradient.

        Asked for only if `comparator_rows` gives something; ``known`` is its row for ``x``. The distance is never
        left to the problem: it is measured on the weights, so that T7 stays a check.
        """
        raise NotImplementedError


class MarginProblem(Problem):
    """Binary classification with the logistic loss ``log(1 + exp(-y q))``."""

    def pointwise_loss(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """Logistic loss per sample."""
        return jax.nn.softplus(-y * q)

    def slope(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``|loss'| = 1 / (1 + exp(y q))`` per sample."""
        return jax.nn.sigmoid(-y * q)

    def error(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """One where ``y q <= 0``."""
        return (y * q <= 0).astype(q.dtype)


class Family(abc.ABC):
    """A published result as an architecture: hyperparameters, initial weights, and the problem posed on data."""

    name: ClassVar[str]
    title: ClassVar[str]
    references: ClassVar[tuple[Reference, ...]]
    tasks: ClassVar[tuple[str, ...]] = ("binary",)
    """What data it accepts: some of ``"binary"``, ``"regression"``, ``"multiclass"``."""

    @abc.abstractmethod
    def initial(self, d: int) -> Float[np.ndarray, "m d"]:
        """Initial weights for ``d`` input features, from NumPy's Generator (so that a checker can rebuild them)."""

    @abc.abstractmethod
    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: np.ndarray,
        **proxy: Any,
    ) -> Problem:
        """Bind the architecture to data, a comparator and the constants of the proxies to record."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON-ready description (floats stay floats)."""

    def certificate_fields(self) -> dict[str, Any]:
        """Exactly the fields a certificate stores under ``family``; the description itself by default."""
        return self.describe()

    def certificate_obstacle(self) -> str:
        """Why no certificate can state this architecture, in a sentence; empty where one can."""
        return ""
