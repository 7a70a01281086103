"""Classical conditions where convexity fails: rank-one factorisation, phase retrieval and two-layer linear networks, by gradient descent.

* `RankOne`: ``f(u) = ||u u^T - M||_F^2 / 4``, M the second moments of the rows, and `PhaseRetrieval`: ``f(w) = mean (<x, w>^2 - y)^2 / 4``.
  On a ball around a solution v both obey the restricted secant inequality ``<grad f(w) - grad f(v), w - v> >= m ||w - v||^2``: proxy
  convexity with ``g = m ||w - v||^2`` and ``h = ||grad f(v)|| ||w - v||``. Gradient descent from inside the ball never leaves it.
* `LinearNetwork`: ``f(W, a) = mean (<W^T a, x> - y)^2 / 2``. Around a start with a large second layer it obeys the PL inequality.

The constants and every proof are in `proxyconvex_checker.secant` and `proxyconvex_checker.linear_network`.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from proxyconvex_checker import initial

from ..core.errors import InvalidInputError
from ..core.references import CANDES_LI_SOLTANOLKOTABI_2015, FREI_GU_2021, PROXYCONVEX_NOTES, Reference
from .base import Family, Problem
from .single_neuron import check_rows


class SecantProblem(Problem):
    """A problem with the restricted secant inequality towards v.

    Attributes:
        features: shape (n, d).
        targets: shape (n,).
        comparator: v, shape (1, d).
        secant: m.
        noise: upper bound on ``||grad f(v)||``.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, "1 d"]
    secant: Float[Array, ""]
    noise: Float[Array, ""]

    def proxy(
        self, w: Float[Array, "1 d"], q: Float[Array, " k"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """``m ||w - v||^2`` and ``||grad f(v)|| ||w - v||``, the same for every row."""
        square = jnp.sum((w - self.comparator) ** 2)
        return self.secant * square + 0 * q, self.noise * jnp.sqrt(square) + 0 * q


class RankOneProblem(SecantProblem):
    """``||u u^T - M||_F^2 / 4``, M the second moments of all rows.

    The objective is a mean over rows of ``(||u||^4 - 2 <x, u>^2 + ||M||^2) / 4``, which is what `predict` returns: a row alone
    predicts nothing. The targets play no part.

    Attributes:
        size: ``||M||_F^2``.
    """

    size: Float[Array, ""]

    def predict(self, w: Float[Array, "1 d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """The share of each row in the objective."""
        return ((w[0] @ w[0]) ** 2 - 2 * (x @ w[0]) ** 2 + self.size) / 4

    def pointwise_loss(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """The share itself."""
        return q

    def slope(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """One."""
        return jnp.ones_like(q)

    def error(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """The share itself."""
        return q


class PhaseProblem(SecantProblem):
    """``mean (<x, w>^2 - y)^2 / 4``."""

    def predict(self, w: Float[Array, "1 d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """``<x, w>``."""
        return x @ w[0]

    def pointwise_loss(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``(q^2 - y)^2 / 4``."""
        return (q * q - y) ** 2 / 4

    def slope(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``|(q^2 - y) q|``."""
        return jnp.abs((q * q - y) * q)

    def error(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """Squared error of the intensity."""
        return (q * q - y) ** 2


class NetworkProblem(Problem):
    """``mean (<W^T a, x> - y)^2 / 2``; the weights are the rows of W, each followed by its entry of a.

    Attributes:
        features: shape (n, d).
        targets: shape (n,).
        comparator: v, shape (m, d + 1).
        signs: whether the targets are two classes; the error is then that of the sign.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, "m e"]
    signs: bool = eqx.field(static=True)

    def predict(self, w: Float[Array, "m e"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """``<W^T a, x>``."""
        return x @ (w[:, -1] @ w[:, :-1])

    def pointwise_loss(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``(q - y)^2 / 2``."""
        return (q - y) ** 2 / 2

    def slope(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """``|q - y|``."""
        return jnp.abs(q - y)

    def error(self, q: Float[Array, " k"], y: Float[Array, " k"]) -> Float[Array, " k"]:
        """Squared error; for two classes one where the sign is wrong."""
        return (y * q <= 0).astype(q.dtype) if self.signs else (q - y) ** 2

    def proxy(
        self, w: Float[Array, "m e"], q: Float[Array, " k"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """The loss and that of v: g and xi of the proxy PL inequality."""
        return self.pointwise_loss(q, y), self.pointwise_loss(self.predict(self.comparator, x), y)


@dataclass(frozen=True)
class Factored(Family, abc.ABC):
    """What the three have in common.

    Attributes:
        init_scale: factor on the start, ``> 0``.
        seed: of the initial weights.
        width: hidden units; 1 except for a linear network.
    """

    init_scale: float = 1.0
    seed: int = 0
    width: int = 1

    references: ClassVar[tuple[Reference, ...]] = (FREI_GU_2021, PROXYCONVEX_NOTES)
    tasks: ClassVar[tuple[str, ...]] = ("regression", "binary", "multiclass")

    def __post_init__(self) -> None:
        if not (math.isfinite(self.init_scale) and self.init_scale > 0):
            raise InvalidInputError("init_scale", self.init_scale, "a finite number > 0", "Use e.g. 0.5.")
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 1:
            raise InvalidInputError("width", self.width, "a whole number >= 1")

    def initial(self, d: int) -> Float[np.ndarray, "1 d"]:
        """The random vector from which the power iteration of `start` begins, times ``init_scale``."""
        return initial.normal(self.describe(), d)

    @abc.abstractmethod
    def start(
        self, features: Float[np.ndarray, "n d"], targets: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "m e"]:
        """The initial weights for these rows, as the checker rebuilds them."""

    def describe(self) -> dict[str, Any]:
        """The certificate's ``family`` fields; the activation is the identity."""
        return {
            "name": self.name,
            "width": int(self.width),
            "activation": {"name": "leaky-relu", "slope": 1.0, "beta": 1.0},
            "init_scale": float(self.init_scale),
            "seed": int(self.seed),
        }


@dataclass(frozen=True)
class RankOne(Factored):
    """Rank-one factorisation of the second moments of the rows."""

    init_scale: float = 0.5

    name: ClassVar[str] = "rank-one"
    title: ClassVar[str] = (
        "Restricted secant inequality: rank-one factorisation of the rows' second moments (problem of `classical`)"
    )

    def start(
        self, features: Float[np.ndarray, "n d"], targets: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "1 d"]:
        """A leading eigenvector by power iteration, with the right norm times ``init_scale``."""
        return initial.leading_direction(self.describe(), features, targets)

    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, "1 d"],
        **proxy: Any,
    ) -> RankOneProblem:
        """Bind to rows; ``proxy`` holds ``secant`` and ``noise``."""
        check_rows(features, targets, comparator)
        size = np.asarray(np.sum((features.T @ features / len(features)) ** 2))
        return RankOneProblem(features, targets, np.asarray(comparator, float), **_secant(proxy), size=size)


@dataclass(frozen=True)
class PhaseRetrieval(Factored):
    """Phase retrieval from intensities ``y = <x, z>^2``."""

    name: ClassVar[str] = "phase-retrieval"
    title: ClassVar[str] = (
        "Restricted secant inequality: phase retrieval from Gaussian measurements (problem of `classical`)"
    )
    references: ClassVar[tuple[Reference, ...]] = (
        FREI_GU_2021,
        CANDES_LI_SOLTANOLKOTABI_2015,
        PROXYCONVEX_NOTES,
    )

    def start(
        self, features: Float[np.ndarray, "n d"], targets: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "1 d"]:
        """The spectral start: a leading eigenvector of ``mean y x x^T``, of squared norm ``mean y``, times ``init_scale``."""
        return initial.from_intensities(self.describe(), features, targets)

    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, "1 d"],
        **proxy: Any,
    ) -> PhaseProblem:
        """Bind to measurements; ``proxy`` holds ``secant`` and ``noise``."""
        check_rows(features, targets, comparator)
        return PhaseProblem(features, targets, np.asarray(comparator, float), **_secant(proxy))


@dataclass(frozen=True)
class LinearNetwork(Factored):
    """A two-layer linear network whose hidden weights start at zero."""

    width: int = 16

    name: ClassVar[str] = "linear-network"
    title: ClassVar[str] = "PL around the start: two-layer linear networks (problem of `classical`)"
    tasks: ClassVar[tuple[str, ...]] = ("regression", "binary")

    def initial(self, d: int) -> Float[np.ndarray, "m e"]:
        """Hidden weights zero, second layer normal times ``init_scale``, shape (m, d + 1)."""
        return initial.second_layer(self.describe(), d)

    def start(
        self, features: Float[np.ndarray, "n d"], targets: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "m e"]:
        """`initial`; it does not depend on the rows."""
        return self.initial(features.shape[1])

    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, "m e"],
        **proxy: Any,
    ) -> NetworkProblem:
        """Bind to data; nothing is accepted as ``proxy``."""
        if proxy:
            raise InvalidInputError("proxy", sorted(proxy), "nothing: g = f and h = f(v)")
        v = np.asarray(comparator, float)
        if v.ndim != 2 or v.shape[1] != features.shape[1] + 1:
            raise InvalidInputError("comparator", f"shape {v.shape}", f"shape (m, {features.shape[1] + 1})")
        check_rows(features, targets, v[:1, :-1])
        return NetworkProblem(features, targets, v, set(np.unique(targets)) == {-1.0, 1.0})


def _secant(proxy: dict[str, Any]) -> dict[str, Any]:
    if set(proxy) != {"secant", "noise"}:
        raise InvalidInputError("proxy", sorted(proxy), "secant (m > 0) and noise (>= 0)")
    # As arrays: other values are no reason to compile again.
    return {name: np.asarray(value, dtype=np.float64) for name, value in proxy.items()}


PROBLEMS: dict[str, type[Factored]] = {
    family.name: family for family in (RankOne, PhaseRetrieval, LinearNetwork)
}
"""The problems of the family `classical` beside least squares and logistic regression."""
