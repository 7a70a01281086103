"""F1: two-layer leaky ReLU networks of any width on the hinge loss, SGD (Brutzkus, Globerson, Malach, Shalev-Shwartz 2018).

``N(W; x) = m^{-1/2} sum_r a_r s(<w_r, x>)``, ``s(t) = max(t, c t)``, c in (0, 1], ``a_r`` = +1 for the first ``ceil(m/2)``
neurons, then -1; the loss of a row is ``(1 - y N)_+``, with derivative **0 at y N = 1** (an automatic derivative of the
maximum gives 1/2 there, for which the growth bound below is false). Write ``b = 1[y N < 1]``.

Fix any vector u and kappa > 0, let V have rows ``(kappa / c) a_r u / sqrt m``, ``q(t) = t`` for t >= 0 and ``t / c`` for
t < 0, ``q_i = q(y_i <u, x_i>)``. At *every* W:

1. ``y_i <grad N, V> = (mean_r s'_r) (kappa / c) y_i <u, x_i> >= kappa q_i``, because the mean lies in [c, 1];
2. ``<grad N, W> = N``, because s is positively homogeneous (also for the value c of the derivative at 0);
3. so ``<grad f_i(W), W - V> = b (y <grad N, V> - y N) >= b (kappa q_i - 1) + (1 - y N)_+``.

For any ``level`` l, ``b (kappa q - 1) >= b (kappa l - 1) - kappa (l - q)_+``, hence sample-wise proxy convexity with

    g_i = b (kappa l - 1) + (1 - y N)_+,    h_i = kappa (l - q_i)_+,

which is what a run records. On rows with margin (``q_i >= l`` for all i) h vanishes. The paper's choice is ``l = 1``,
``kappa = 2``: ``g = b + (1 - y N)_+``. Growth: ``||grad f_i||^2 = b (mean s'^2) ||x_i||^2 <= b X^2`` (PROVED).

A step with b = 0 changes nothing, and one with b = 1 brings the weights closer to V by a fixed amount, so the number of
*updates* is bounded, whatever the order of the rows and the width: `proxyconvex_checker.leaky_relu_hinge` has the two
theorems (T3m for separable rows, T3u with slack). The bound tends to ``(X ||u|| / c)^2`` for ``eta = kappa / X^2`` and
kappa to infinity, a quarter of what the paper's ``kappa = 2`` gives with ``eta = 1 / X^2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.errors import InvalidInputError
from ..core.references import BRUTZKUS_2018, FREI_GU_2021, PROXYCONVEX_NOTES, Reference
from .activations import Activation
from .base import Problem
from .leaky_relu_noise import LeakyReluNoise, output_signs
from .two_layer import forward, pre_activations, value_and_slope


class HingeProblem(Problem):
    """The hinge loss of the network, with the proxies of the module's docstring.

    Attributes:
        features: shape (n, d).
        targets: in {-1, +1}, shape (n,).
        comparator: V, shape (m, d).
        signs: output signs, shape (m,).
        u: the vector V is built from, shape (d,).
        kappa: length of V in units of ``u``'s own.
        level: the margin l that g counts on.
        activation: of the network.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, "m d"]
    signs: Float[Array, " m"]
    u: Float[Array, " d"]
    kappa: Float[Array, ""]
    level: Float[Array, ""]
    activation: Activation = eqx.field(static=True)

    def predict(self, w: Float[Array, "m d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """Network outputs on a batch."""
        return forward(w, x, self.activation, self.signs)

    def pointwise_loss(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """Hinge loss per row."""
        return jnp.maximum(1 - y * q, 0.0)

    def slope(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``b = 1[y q < 1]``: summed over a run of single rows, the number of updates."""
        return (y * q < 1).astype(q.dtype)

    def error(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """One where ``y q <= 0``."""
        return (y * q <= 0).astype(q.dtype)

    def proxy(
        self, w: Float[Array, "m d"], q: Float[Array, " k"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """``(g_i, h_i)`` of the module's docstring, for any rows."""
        s = y * (x @ self.u)
        unit = jnp.minimum(s, s / self.activation.slope)
        g = self.slope(q, y) * (self.kappa * self.level - 1) + self.pointwise_loss(q, y)
        return g, self.kappa * jnp.maximum(self.level - unit, 0.0)

    def loss_grad(
        self, w: Float[Array, "m d"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, ""], Float[Array, " k"], Float[Array, "m d"]]:
        """Mean loss, outputs and gradient, written out: the derivative at ``y N = 1`` is 0."""
        _, q, delta = self._pass(w, x, y)
        return jnp.mean(self.pointwise_loss(q, y)), q, delta @ x

    def comparator_rows(self) -> Float[Array, "n m"]:
        """``<v_r, x_i>`` for every row of the data."""
        return pre_activations(self.comparator, self.features)

    def loss_grad_products(
        self,
        w: Float[Array, "m d"],
        x: Float[Array, "1 d"],
        y: Float[Array, " 1"],
        known: Float[Array, "1 m"],
    ) -> tuple[Float[Array, ""], Float[Array, " 1"], Float[Array, "m d"], Float[Array, ""], Float[Array, ""]]:
        """`loss_grad` on one row with ``<grad, w - v>`` and ``||grad||^2``, from the rank-one gradient."""
        z, q, delta = self._pass(w, x, y)
        d = delta[:, 0]
        inner, square = d @ (z[:, 0] - known[0]), (d @ d) * (x[0] @ x[0])
        return jnp.mean(self.pointwise_loss(q, y)), q, delta @ x, inner, square

    def _pass(
        self, w: Array, x: Array, y: Array
    ) -> tuple[Float[Array, "m k"], Float[Array, " k"], Float[Array, "m k"]]:
        """Pre-activations, outputs, and the derivative of the mean loss in the pre-activations."""
        a = self.signs / np.sqrt(w.shape[0])
        z = w @ x.T
        value, slope = value_and_slope(self.activation, z)
        q = a @ value
        return z, q, a[:, None] * slope * (-y * self.slope(q, y) / x.shape[0])


@dataclass(frozen=True)
class LeakyReluHinge(LeakyReluNoise):
    """Hyperparameters of a two-layer leaky ReLU network trained on the hinge loss.

    Attributes:
        width: number of hidden neurons m >= 1.
        activation: ``leaky-relu`` with slope c in (0, 1].
        init_scale: standard deviation of the initial weights, ``>= 0``.
        seed: of the initial weights.
    """

    name: ClassVar[str] = "leaky-relu-hinge"
    title: ClassVar[str] = "Leaky ReLU network of any width on the hinge loss, SGD (Brutzkus et al. 2018)"
    references: ClassVar[tuple[Reference, ...]] = (BRUTZKUS_2018, FREI_GU_2021, PROXYCONVEX_NOTES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation.name != "leaky-relu":
            raise InvalidInputError(
                "activation", self.activation.name, "leaky-relu", "The bound needs <grad N, W> = N."
            )

    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, "m d"],
        *,
        u: Float[np.ndarray, " d"] | None = None,
        kappa: float = 2.0,
        level: float = 1.0,
        **proxy: Any,
    ) -> HingeProblem:
        """Bind the network to data.

        Args:
            features: shape (n, d), float64.
            targets: in {-1, +1}, shape (n,).
            comparator: V, shape (m, d).
            u: the vector V is built from, shape (d,); by default the one that gives V's first row.
            kappa: length of V in units of u's own, ``> 0``.
            level: the margin l of the proxies, ``> 0``.
            **proxy: nothing else is accepted.

        Raises:
            InvalidInputError: for shapes that do not fit or values that are not finite.
        """
        if proxy:
            raise InvalidInputError("proxy", sorted(proxy), "u, kappa and level")
        u = self.checked_u(features, targets, comparator, u, kappa=kappa, level=level)
        return HingeProblem(
            features=features,
            targets=targets,
            comparator=comparator,
            signs=output_signs(self.width),
            u=u,
            kappa=np.asarray(float(kappa)),
            level=np.asarray(float(level)),
            activation=self.activation,
        )
