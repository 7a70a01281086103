"""F2: two-layer networks with leaky activations, of any width, under label noise (Frei, Cao and Gu 2021).

``N(W; x) = m^{-1/2} sum_r a_r phi(<w_r, x>)`` with ``phi'`` in [c, 1], ``a_r`` = +1 for the first ``ceil(m/2)``
neurons, then -1; hidden weights W are trained on the logistic loss. Write ``m_i = y_i N(W; x_i)``,
``p_i = |loss'| = 1 / (1 + exp(m_i))``, ``q(s) = s`` for s >= 0 and ``s / c`` for s < 0.

Fix any vector u and kappa > 0, let V have rows ``(kappa / c) a_r u / sqrt m`` and ``q_i = q(y_i <u, x_i>)``. Since the
mean of ``phi'_r`` over neurons is in [c, 1], ``y_i <grad N(W; x_i), V> >= kappa q_i`` at *every* W. A positively
homogeneous phi has ``<grad N, W> = N``, the smooth variant misses it by at most omega (`LeakyReluNoise.omega`), so

    <grad f_i(W), W - V> >= p_i (kappa q_i - omega - m_i)       for every W and every row,

the *tangent* form. Every proxy recorded here is a consequence, and holds globally:

* ``"T8"``: ``g = p (kappa q - omega - m)``, ``h = 0``: the tangent form itself;
* ``"T3"``: ``g = kappa p``, ``h = kappa (1 - q + omega/kappa)_+ + k0`` with ``k0 = max_t t / (1 + e^t)``: the paper's;
* ``"T3e"``, ``"T3f"``, ``"T6e"``: ``g = kappa (err/2 + theta p^2 / 2)``, ``h = kappa charge + k0`` with
  ``charge = max(0, 1/2 + theta/8 - q/2, 1/2 + theta/2 - q)``: proxy convexity in the *error*; the term with
  ``p^2`` pays for the squared gradients (``||grad f_i|| <= ||x_i|| p_i``). These are exactly what T3e adds up;
* ``"T1"``: ``g = p``, ``h = (1 - q)_+``, for the PPL inequality ``(||u|| / c) ||grad f|| >= g - h``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.errors import InvalidInputError
from ..core.references import FREI_CAO_GU_2021, FREI_GU_2021, PROXYCONVEX_NOTES, Reference
from .activations import Activation
from .base import Family
from .two_layer import TwoLayerMarginProblem, check_data, forward_backward_products, pre_activations

THEOREMS = ("T3e", "T3f", "T6e", "T8", "T3", "T1")
K0 = 0.27846454276107379
"""``max_t t / (1 + e^t) = W(1/e)``, rounded up."""


def output_signs(width: int) -> Float[np.ndarray, " m"]:
    """Output signs: +1 for the first ``ceil(m/2)`` neurons, then -1; shape (width,)."""
    return np.where(np.arange(width) < (width + 1) // 2, 1.0, -1.0)


class LeakyReluProblem(TwoLayerMarginProblem):
    """The logistic loss of the network, with the proxies of one theorem.

    Attributes:
        features: shape (n, d).
        targets: in {-1, +1}, shape (n,).
        comparator: V, shape (m, d).
        signs: output signs, shape (m,).
        u: the vector V is built from, shape (d,).
        kappa: length of V in units of ``u``'s own.
        theta: step size in units of ``kappa / X^2`` (or ``kappa / lambda_max``).
        omega: what the smooth variant misses homogeneity by; 0 for leaky-relu.
        activation: of the network.
        theorem: whose proxies to record.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, "m d"]
    signs: Float[Array, " m"]
    u: Float[Array, " d"]
    kappa: Float[Array, ""]
    theta: Float[Array, ""]
    omega: Float[Array, ""]
    activation: Activation = eqx.field(static=True)
    theorem: str = eqx.field(static=True)

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
        return forward_backward_products(w, x, y, self.activation, self.signs, known)

    def unit_margins(self, x: Float[Array, "k d"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``q(y <u, x>)`` per row."""
        s = y * (x @ self.u)
        return jnp.minimum(s, s / self.activation.slope)

    def proxy(
        self, w: Float[Array, "m d"], q: Float[Array, " k"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """``(g_i, h_i)`` of the module's docstring, for any rows."""
        unit, p, kappa = self.unit_margins(x, y), self.slope(q, y), self.kappa
        if self.theorem == "T1":
            return p, jnp.maximum(1 - unit, 0.0)
        if self.theorem == "T8":
            return p * (kappa * unit - self.omega - y * q), jnp.zeros_like(q)
        unit = unit - self.omega / kappa
        if self.theorem == "T3":
            return kappa * p, kappa * jnp.maximum(1 - unit, 0.0) + K0
        soft, hard = 0.5 + self.theta / 8 - unit / 2, 0.5 + self.theta / 2 - unit
        charge = jnp.maximum(jnp.maximum(soft, hard), 0.0)
        return kappa * (self.error(q, y) + self.theta * p * p) / 2, kappa * charge + K0


@dataclass(frozen=True)
class LeakyReluNoise(Family):
    """Hyperparameters of a two-layer network with a leaky activation.

    Attributes:
        width: number of hidden neurons m >= 1.
        activation: ``leaky-relu`` or ``smooth-leaky`` with slope c in (0, 1].
        init_scale: standard deviation of the initial weights, ``>= 0``.
        seed: of the initial weights.
    """

    width: int
    activation: Activation
    init_scale: float = 0.1
    seed: int = 0

    name: ClassVar[str] = "leaky-relu-noise"
    title: ClassVar[str] = "Leaky two-layer network of any width under label noise (Frei, Cao and Gu 2021)"
    references: ClassVar[tuple[Reference, ...]] = (FREI_CAO_GU_2021, FREI_GU_2021, PROXYCONVEX_NOTES)

    def __post_init__(self) -> None:
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 1:
            raise InvalidInputError("width", self.width, "a whole number >= 1", "Use e.g. 64.")
        if not isinstance(self.activation, Activation) or self.activation.name not in (
            "leaky-relu",
            "smooth-leaky",
        ):
            raise InvalidInputError(
                "activation", self.activation, "leaky-relu or smooth-leaky", "The slope must stay above zero."
            )
        if not self.activation.slope > 0:
            raise InvalidInputError("slope", self.activation.slope, "a number in (0, 1]", "Use e.g. 0.5.")
        scale = self.init_scale
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        if not (number and math.isfinite(scale) and scale >= 0):
            raise InvalidInputError("init_scale", scale, "a finite number >= 0", "Use e.g. 0.1.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InvalidInputError("seed", self.seed, "a whole number >= 0")

    @property
    def omega(self) -> float:
        """Bound on ``|N(W; x) - <grad N(W; x), W>|``, ``ceil(m/2) (1 - c) / (2 beta sqrt m)``; 0 for leaky-relu.

        ``0 <= phi(t) - t phi'(t) <= (1 - c) / (2 beta)``, and at most ``ceil(m/2)`` neurons have the same sign.
        """
        a = self.activation
        if not a.smooth:
            return 0.0
        return (self.width + 1) // 2 * (1 - a.slope) / (2 * a.beta * math.sqrt(self.width))

    def initial(self, d: int) -> Float[np.ndarray, "m d"]:
        """Normal weights times ``init_scale``, shape (m, d)."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        return rng.standard_normal((self.width, d)) * self.init_scale

    def comparator(self, u: Float[np.ndarray, " d"], kappa: float) -> Float[np.ndarray, "m d"]:
        """V: rows ``(kappa / c) a_r u / sqrt m``."""
        row = (kappa / self.activation.slope) * u / math.sqrt(self.width)
        return output_signs(self.width)[:, None] * row

    def checked_u(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, "m d"],
        u: Float[np.ndarray, " d"] | None,
        *,
        kappa: float,
        **positive: float,
    ) -> Float[np.ndarray, " d"]:
        """The vector u after all arguments have been checked; by default the one that gives V's first row.

        Raises:
            InvalidInputError: for shapes that do not fit, values that are not finite, numbers that are not positive.
        """
        check_data(features, targets)
        d = features.shape[1]
        if np.shape(comparator) != (self.width, d):
            raise InvalidInputError(
                "comparator", np.shape(comparator), f"shape ({self.width}, {d}): (width, features)"
            )
        for what, value in {"kappa": kappa, **positive}.items():
            if not (math.isfinite(value) and value > 0):
                raise InvalidInputError(what, value, "a finite number > 0")
        if u is None:
            u = comparator[0] * (math.sqrt(self.width) * self.activation.slope / kappa)
        u = np.asarray(u, dtype=np.float64)
        if u.shape != (d,) or not np.isfinite(u).all():
            raise InvalidInputError("u", u, f"finite numbers of shape ({d},)")
        return u

    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, "m d"],
        *,
        theorem: str = "T3e",
        u: Float[np.ndarray, " d"] | None = None,
        kappa: float = 1.0,
        theta: float = 1.0,
        **proxy: Any,
    ) -> LeakyReluProblem:
        """Bind the network to data.

        Args:
            features: shape (n, d), float64.
            targets: in {-1, +1}, shape (n,).
            comparator: V, shape (m, d).
            theorem: whose proxies to record: one of `THEOREMS`.
            u: the vector V is built from, shape (d,); by default the one that gives V's first row.
            kappa: length of V in units of u's own, ``> 0``.
            theta: step size in units of ``kappa / X^2``, ``> 0`` (error form only).
            **proxy: nothing else is accepted.

        Raises:
            InvalidInputError: for an unknown theorem, shapes that do not fit or values that are not finite.
        """
        if proxy:
            raise InvalidInputError("proxy", sorted(proxy), "theorem, u, kappa and theta")
        if theorem not in THEOREMS:
            raise InvalidInputError("theorem", theorem, ", ".join(THEOREMS))
        u = self.checked_u(features, targets, comparator, u, kappa=kappa, theta=theta)
        # NumPy scalars are dynamic under JAX: another kappa does not compile again.
        kappa, theta, omega = (np.asarray(float(value)) for value in (kappa, theta, self.omega))
        return LeakyReluProblem(
            features=features,
            targets=targets,
            comparator=comparator,
            signs=output_signs(self.width),
            u=u,
            kappa=kappa,
            theta=theta,
            omega=omega,
            activation=self.activation,
            theorem=theorem,
        )

    def describe(self) -> dict[str, Any]:
        """The certificate's ``family`` fields."""
        return {
            "name": self.name,
            "width": int(self.width),
            "activation": self.activation.describe(),
            "init_scale": float(self.init_scale),
            "seed": int(self.seed),
        }
