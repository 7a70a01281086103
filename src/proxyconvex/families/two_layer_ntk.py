"""F4: two-layer networks near their tangent model at initialisation (Ji and Telgarsky 2020).

``N(W; x) = m^{-1/2} sum_r a_r phi(<w_r, x>)`` with fixed signs ``a_r`` (+1 for the first half of the neurons, -1 for
the second), hidden weights W trained on the logistic loss, and initial weights in equal pairs, so that
``N(W0; .) = 0``. Against a comparator V the loss is proxy convex in two forms, both consequences of
``<grad f(W), W - V> = mean_i p_i (y_i N^lin_i - m_i)`` with ``m_i = y_i N(W; x_i)``, ``p_i = 1 / (1 + exp(m_i))`` and
``N^lin_i = N(W; x_i) + <grad N(W; x_i), V - W>``, once ``y_i N^lin_i >= q_i`` on the region:

* T8: ``g_i = p_i (q_i - m_i) = p_i q_i + p_i log(p_i / (1 - p_i))``, ``h = 0``;
* T4 + T5 and T3 + T5 (convexity of the loss): ``g_i = log(1 + exp(-m_i))``, ``h_i = log(1 + exp(-q_i))``.

**Lazy regime.** The certified ``q_i`` exist where the network stays close to its tangent model at W0 (Chizat, Oyallon
and Bach 2019): with initial weights of scale s and sharpness ``beta = b / s`` the tangent features depend on b only,
while the curvature ``H = beta / 4`` falls as ``1 / s``. A promise from this family speaks of that regime.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.errors import InvalidInputError
from ..core.references import CHIZAT_BACH_2019, FREI_GU_2021, JI_TELGARSKY_2020, PROXYCONVEX_NOTES, Reference
from .activations import Activation
from .base import Family
from .two_layer import TwoLayerMarginProblem, check_data

THEOREMS = ("T8", "T4T5", "T3T5")


def paired_signs(width: int) -> Float[np.ndarray, " m"]:
    """Output signs: +1 for the first half of the neurons, -1 for the second; shape (width,)."""
    return np.repeat([1.0, -1.0], width // 2)


class TwoLayerProblem(TwoLayerMarginProblem):
    """The logistic loss of a two-layer network with the proxies of one theorem.

    Attributes:
        features: shape (n, d).
        targets: in {-1, +1}, shape (n,).
        comparator: V, shape (m, d).
        signs: output signs, shape (m,).
        margins: tangent margins ``q_i`` that the proxies use, shape (n,); they belong to the rows of ``features`` in
            order, so proxies are recorded on full batches only.
        activation: of the network.
        theorem: whose proxies to record: ``"T8"``, ``"T4T5"`` or ``"T3T5"``.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, "m d"]
    signs: Float[Array, " m"]
    margins: Float[Array, " n"]
    activation: Activation = eqx.field(static=True)
    theorem: str = eqx.field(static=True)

    def proxy(
        self, w: Float[Array, "m d"], q: Float[Array, " k"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """``(g_i, h_i)`` of the module's docstring for the rows of the full batch."""
        if q.shape != self.margins.shape:
            raise InvalidInputError(
                "batch", q.shape, f"all {len(self.margins)} rows in order", "Use full batches."
            )
        if self.theorem == "T8":
            return self.slope(q, y) * (self.margins - y * q), jnp.zeros_like(q)
        return self.pointwise_loss(q, y), jax.nn.softplus(-self.margins)


@dataclass(frozen=True)
class TwoLayerNTK(Family):
    """Hyperparameters of a two-layer network with paired initial weights.

    Attributes:
        width: number of hidden neurons m, even, at least 2.
        activation: any of the four.
        init_scale: standard deviation of the initial weights, ``> 0``.
        seed: of the initial weights.
    """

    width: int
    activation: Activation
    init_scale: float
    seed: int = 0

    name: ClassVar[str] = "two-layer-ntk"
    title: ClassVar[str] = "Two-layer network near its tangent model (Ji and Telgarsky 2020)"
    references: ClassVar[tuple[Reference, ...]] = (
        JI_TELGARSKY_2020,
        CHIZAT_BACH_2019,
        FREI_GU_2021,
        PROXYCONVEX_NOTES,
    )

    def __post_init__(self) -> None:
        check_width(self.width)
        if not isinstance(self.activation, Activation):
            raise InvalidInputError(
                "activation", self.activation, "an Activation", 'E.g. Activation("softplus").'
            )
        check_positive("init_scale", self.init_scale)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InvalidInputError("seed", self.seed, "a whole number >= 0")

    def initial(self, d: int) -> Float[np.ndarray, "m d"]:
        """``m/2`` normal rows times ``init_scale``, stacked twice; the network is zero there."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        half = rng.standard_normal((self.width // 2, d)) * self.init_scale
        return np.concatenate([half, half])

    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, "m d"],
        *,
        theorem: str = "T4T5",
        margins: Float[np.ndarray, " n"] | None = None,
        **proxy: Any,
    ) -> TwoLayerProblem:
        """Bind the network to data.

        Args:
            features: shape (n, d), float64.
            targets: in {-1, +1}, shape (n,).
            comparator: V, shape (m, d).
            theorem: whose proxies to record: ``"T8"``, ``"T4T5"`` or ``"T3T5"``.
            margins: certified tangent margins ``q_i``, shape (n,). By default the margins ``y_i N(V; x_i)`` of the
                comparator itself, which are the tangent margins where the network is linear in W.
            **proxy: nothing else is accepted.

        Raises:
            InvalidInputError: for an unknown theorem, shapes that do not fit or values that are not finite.
        """
        if proxy:
            raise InvalidInputError("proxy", sorted(proxy), "theorem and margins")
        if theorem not in THEOREMS:
            raise InvalidInputError("theorem", theorem, ", ".join(THEOREMS))
        check_rows(features, targets)
        if np.shape(comparator) != (self.width, features.shape[1]):
            raise InvalidInputError(
                "comparator",
                np.shape(comparator),
                f"shape ({self.width}, {features.shape[1]}): (width, features)",
            )
        if margins is None:
            values = self.activation.numpy(features @ comparator.T) @ paired_signs(self.width)
            margins = targets * values / math.sqrt(self.width)
        margins = np.asarray(margins, dtype=np.float64)
        if margins.shape != targets.shape or not np.isfinite(margins).all():
            raise InvalidInputError("margins", margins, f"finite numbers of shape {targets.shape}")
        return TwoLayerProblem(
            features=features,
            targets=targets,
            comparator=comparator,
            signs=paired_signs(self.width),
            margins=margins,
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


def check_width(width: Any) -> None:
    """Refuse a width that is not an even whole number ``>= 2``."""
    if isinstance(width, bool) or not isinstance(width, int) or width < 2 or width % 2:
        near = (
            max(2, 2 * round(width / 2)) if isinstance(width, (int, float)) and math.isfinite(width) else 1024
        )
        raise InvalidInputError(
            "width", width, "an even whole number >= 2 (initial neurons come in pairs)", f"Use e.g. {near}."
        )


def check_positive(what: str, value: Any) -> None:
    """Refuse anything but a finite number ``> 0``."""
    number = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > 0):
        raise InvalidInputError(what, value, "a finite number > 0")


def check_rows(features: Any, targets: Any) -> None:
    """`check_data`, and refuse a row of zeros, on which every network of this family is constant."""
    check_data(features, targets)
    if not np.any(features, axis=1).all():
        row = int(np.flatnonzero(~np.any(features, axis=1))[0])
        raise InvalidInputError(
            "features",
            f"row {row} is zero",
            "rows that are not all zero",
            "Add a bias feature (Preprocessing.bias).",
        )
