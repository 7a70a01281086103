"""Classical conditions where they hold: least squares and logistic regression with a linear model, by gradient descent.

``f(w) = mean loss(<w, x_i>, y_i)`` is convex in w for both losses, row by row: ``<grad f_i(w), w - v> >= f_i(w) - f_i(v)`` for
any v, so proxy convexity holds with ``g = f`` and ``h = f(v)`` on the whole space (PROVED; the baseline against which the
non-convex families of this library stand). Both are smooth, with ``L = lambda_max`` of ``(1/n) sum x x^T`` (squares) and
``lambda_max / 4`` (logistic); least squares obeys PL with exactly the smallest nonzero eigenvalue.

The theorems and their proofs are in `proxyconvex_checker.classical`; the other classical conditions (star-convex,
quasar-convex, RSI, KL) and problems (matrix factorisation, phase retrieval) are in `classical_conditions`.
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
from ..core.references import FREI_GU_2021, PROXYCONVEX_NOTES, Reference
from .base import Family, Problem
from .single_neuron import check_rows

LOSSES = ("squares", "logistic")


class LinearProblem(Problem):
    """Mean loss of ``<w, x>``, with ``g = f`` and ``h = f(v)``.

    Attributes:
        features: shape (n, d).
        targets: numbers, or -1 and +1, shape (n,).
        comparator: v, shape (1, d).
        loss_name: ``"squares"`` (half the squared error) or ``"logistic"``.
        signs: whether the targets are two classes; the error is then that of the sign.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, "1 d"]
    loss_name: str = eqx.field(static=True)
    signs: bool = eqx.field(static=True)

    def predict(self, w: Float[Array, "1 d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """``<w, x>`` on a batch."""
        return x @ w[0]

    def output(self, a: Float[Array, " k"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """``a`` itself, with slope one."""
        return a, jnp.ones_like(a)

    def pointwise_loss(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``(q - y)^2 / 2`` or ``log(1 + exp(-y q))``."""
        return (q - y) ** 2 / 2 if self.loss_name == "squares" else jax.nn.softplus(-y * q)

    def slope(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``|loss'|``."""
        return jnp.abs(q - y) if self.loss_name == "squares" else jax.nn.sigmoid(-y * q)

    def error(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """Squared error; for two classes one where the sign is wrong."""
        return (y * q <= 0).astype(q.dtype) if self.signs else (q - y) ** 2

    def proxy(
        self, w: Float[Array, "1 d"], q: Float[Array, " k"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """The loss of w and that of v, row by row."""
        return self.proxy_at(q, x @ self.comparator[0], q, y)

    def proxy_at(
        self, a: Float[Array, " k"], b: Float[Array, " k"], q: Float[Array, " k"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """`proxy` from ``a = <w, x>`` and ``b = <v, x>``."""
        return self.pointwise_loss(q, y), self.pointwise_loss(b, y)


@dataclass(frozen=True)
class LinearModel(Family):
    """A linear model.

    Attributes:
        loss: ``"squares"`` or ``"logistic"``.
        init_scale: standard deviation of the initial weights, ``>= 0``; 0 starts at the origin.
        seed: of the initial weights.
    """

    loss: str
    init_scale: float = 0.0
    seed: int = 0

    name: ClassVar[str] = "classical"
    title: ClassVar[str] = (
        "Convexity and PL: least squares and logistic regression (the classical special cases)"
    )
    references: ClassVar[tuple[Reference, ...]] = (FREI_GU_2021, PROXYCONVEX_NOTES)
    tasks: ClassVar[tuple[str, ...]] = ("regression", "binary")

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise InvalidInputError("loss", self.loss, " or ".join(LOSSES))
        if not (math.isfinite(self.init_scale) and self.init_scale >= 0):
            raise InvalidInputError("init_scale", self.init_scale, "a finite number >= 0", "Use e.g. 0.")

    @property
    def width(self) -> int:
        """One."""
        return 1

    def initial(self, d: int) -> Float[np.ndarray, "1 d"]:
        """Normal weights times ``init_scale``, shape (1, d)."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        return rng.standard_normal((1, d)) * self.init_scale

    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, "1 d"],
        **proxy: Any,
    ) -> LinearProblem:
        """Bind the model to data.

        Args:
            features: shape (n, d), float64.
            targets: finite numbers, shape (n,); -1 and +1 for the logistic loss.
            comparator: v, shape (1, d).
            **proxy: nothing is accepted.

        Raises:
            InvalidInputError: for shapes or targets that do not fit.
        """
        if proxy:
            raise InvalidInputError("proxy", sorted(proxy), "nothing: g = f and h = f(v)")
        check_rows(features, targets, comparator)
        signs = set(np.unique(targets)) == {-1.0, 1.0}
        if self.loss == "logistic" and not signs:
            raise InvalidInputError(
                "targets", np.unique(targets)[:5].tolist(), "-1 and +1 for the logistic loss"
            )
        return LinearProblem(features, targets, np.asarray(comparator, dtype=np.float64), self.loss, signs)

    def describe(self) -> dict[str, Any]:
        """The certificate's ``family`` fields; the loss belongs to the theorem."""
        return {
            "name": self.name,
            "width": 1,
            "activation": {"name": "leaky-relu", "slope": 1.0, "beta": 1.0},
            "init_scale": float(self.init_scale),
            "seed": int(self.seed),
        }
