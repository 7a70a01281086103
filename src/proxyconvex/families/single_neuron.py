"""F3: one neuron on the squared loss, any targets (Frei, Cao and Gu 2020, agnostic learning of a single neuron).

``f(w) = (1/2) mean (s(<w, x_i>) - y_i)^2``, s nondecreasing with ``0 <= s' <= L``. Write ``a = <w, x>``, ``b = <v, x>``,
``r = s(a) - y``, ``X = max ||x_i||``, ``O = mean (s(b) - y)^2``, the comparator's own risk. Then
``<grad f(w), w - v> = mean r s'(a) (a - b)``, and, row by row:

(i) any s, on ``||w - v|| <= rho``: ``(s(a) - s(b)) (a - b) >= (s(a) - s(b))^2 / L`` because s is nondecreasing and L-Lipschitz,
    and ``|(s(b) - y) s'(a) (a - b)| <= |s(b) - y| L rho X``:
    ``g = (1/L) (s(a) - s(b))^2 s'(a)``, ``h = L rho X |s(b) - y|``; growth ``(2 L^2 X^2, 2 L^2 X^2 O)``.
(ii) ``s' >= gamma > 0`` on the interval spanned by a and b: ``(s(a) - s(b)) (a - b) >= gamma (a - b)^2`` and
    ``|s(b) - y| |a - b| <= (gamma/2) (a - b)^2 + (s(b) - y)^2 / (2 gamma)``:
    ``g = (gamma/2) (a - b)^2 s'(a)``, ``h = (L/(2 gamma)) (s(b) - y)^2``; growth ``(4 L^3 X^2/gamma, 2 L^2 X^2 O)``.
(iii) ``E[y|x] = s(<v, x>)`` (population): the noise drops out of the mean, so h = 0 with g as in (i), on the whole space;
    growth ``(L^2 X^2, 0)`` for GD, ``(L^2 X^2, L^2 X^2 O)`` for SGD.

Growth: ``||grad f||^2 <= X^2 mean (r s')^2``, ``r^2 <= 2 (s(a) - s(b))^2 + 2 (s(b) - y)^2``, and ``s'^2 <= L s'``; for (ii)
``(s(a) - s(b))^2 <= L^2 (a - b)^2``; for (iii) with GD, ``||grad f||^2 <= X^2 (mean |s(a) - s(b)| s')^2`` (Jensen). Cauchy and
Schwarz turn each, on a ball, into proxy PL (`proxyconvex.bridge`).

**The risk form** is what this library promises with. For any alpha > 0, tail >= 0 and radius R put

    g_i = alpha r^2 + tail (r s'(a))^2,
    h_i = max over |a - b_i| <= R ||x_i|| of [alpha r^2 + tail (r s'(a))^2 - s'(a) r (a - b_i)],

with r and s' at that a: proxy convexity on ``||w - v|| <= R`` by definition, with the smallest constant each row allows;
a maximum in one variable, certified by interval branch and bound. With ``tail = eta lambda_max / 2`` the second term pays
for the squared gradient (``||grad f||^2 <= lambda_max mean (r s')^2``), and `proxyconvex_checker.single_neuron` proves

    min over t < T of mean r^2 (w_t)  <=  [mean h_i + R^2 / (2 eta T)] / alpha  =  C O + eps,

``C = mean h_i / (alpha O)``, ``eps = R^2 / (2 eta T alpha)``. A linear s gives C near 1; (i) and (ii) with their worst slopes
give ``C = 2 + 2 L^3 / gamma^3`` and more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from proxyconvex_checker import single_neuron as checker

from ..core.conditions import GradientGrowth, ProxyConvexity
from ..core.errors import InvalidInputError
from ..core.evidence import Evidence
from ..core.references import FREI_CAO_GU_2020, FREI_GU_2021, PROXYCONVEX_NOTES, Reference
from ..core.regions import Ball, Region, WholeSpace
from .base import Family, Problem
from .links import LINKS, Link

FORMS = ("i", "ii", "iii", "risk")


class SingleNeuronProblem(Problem):
    """Half the mean squared error of ``s(<w, x>)``, with the proxies of one form.

    Attributes:
        features: shape (n, d).
        targets: numbers, shape (n,).
        comparator: v, shape (1, d).
        alpha: factor of the risk in g (risk form).
        tail: factor of ``(r s')^2`` in g (risk form).
        level: the mean of ``h_i`` (risk form).
        radius: rho of form (i).
        gamma: least slope of form (ii).
        link: the activation.
        form: whose proxies to record: one of `FORMS`.
        signs: whether the targets are two classes, -1 and +1; the error is then that of the sign.
    """

    features: Float[Array, "n d"]
    targets: Float[Array, " n"]
    comparator: Float[Array, "1 d"]
    alpha: Float[Array, ""]
    tail: Float[Array, ""]
    level: Float[Array, ""]
    radius: Float[Array, ""]
    gamma: Float[Array, ""]
    link: Link = eqx.field(static=True)
    form: str = eqx.field(static=True)
    signs: bool = eqx.field(static=True)

    def predict(self, w: Float[Array, "1 d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """``s(<w, x>)`` on a batch."""
        return self.link.value_and_slope(x @ w[0])[0]

    def output(self, a: Float[Array, " k"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """``s(a)`` and ``s'(a)``."""
        return self.link.value_and_slope(a)

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
        self, w: Float[Array, "1 d"], q: Float[Array, " k"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """``(g_i, h_i)`` of the module's docstring; in the risk form every h_i is their mean."""
        return self.proxy_at(x @ w[0], x @ self.comparator[0], q, y)

    def proxy_at(
        self, a: Float[Array, " k"], b: Float[Array, " k"], q: Float[Array, " k"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """`proxy` from ``a = <w, x>`` and ``b = <v, x>``."""
        slope = self.link.value_and_slope(a)[1]
        if self.form == "risk":
            return self.alpha * (q - y) ** 2 + self.tail * ((q - y) * slope) ** 2, jnp.full_like(
                q, self.level
            )
        at_v, lipschitz = self.link.value_and_slope(b)[0], self.link.lipschitz
        if self.form == "ii":
            return self.gamma / 2 * (a - b) ** 2 * slope, lipschitz / (2 * self.gamma) * (at_v - y) ** 2
        g = (q - at_v) ** 2 * slope / lipschitz
        if self.form == "iii":
            return g, jnp.zeros_like(q)
        size = jnp.sqrt(jnp.max(jnp.sum(self.features**2, axis=1)))
        return g, lipschitz * self.radius * size * jnp.abs(at_v - y)

    def loss_grad(
        self, w: Float[Array, "1 d"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, ""], Float[Array, " k"], Float[Array, "1 d"]]:
        """Mean loss, outputs and gradient on a batch, written out."""
        q, slope = self.link.value_and_slope(x @ w[0])
        r = q - y
        return jnp.mean(r * r) / 2, q, ((r * slope / len(r)) @ x)[None]


@dataclass(frozen=True)
class SingleNeuron(Family):
    """One neuron.

    Attributes:
        activation: a `Link`.
        init_scale: standard deviation of the initial weights, ``>= 0``; 0 starts at the origin.
        seed: of the initial weights.
    """

    activation: Link
    init_scale: float = 0.0
    seed: int = 0

    name: ClassVar[str] = "single-neuron"
    title: ClassVar[str] = "Agnostic learning of a single neuron (Frei, Cao and Gu 2020)"
    references: ClassVar[tuple[Reference, ...]] = (FREI_CAO_GU_2020, FREI_GU_2021, PROXYCONVEX_NOTES)
    tasks: ClassVar[tuple[str, ...]] = ("regression", "binary")

    def __post_init__(self) -> None:
        if not isinstance(self.activation, Link):
            raise InvalidInputError(
                "activation", self.activation, f"a Link: {', '.join(LINKS)} or Link.custom(...)"
            )
        if not (math.isfinite(self.init_scale) and self.init_scale >= 0):
            raise InvalidInputError("init_scale", self.init_scale, "a finite number >= 0", "Use e.g. 0.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InvalidInputError("seed", self.seed, "a whole number >= 0")

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
        *,
        form: str = "risk",
        alpha: float = 0.25,
        tail: float = 0.0,
        level: float = 0.0,
        radius: float = 1.0,
        gamma: float = 1.0,
        **proxy: Any,
    ) -> SingleNeuronProblem:
        """Bind the neuron to data.

        Args:
            features: shape (n, d), float64.
            targets: finite numbers, shape (n,).
            comparator: v, shape (1, d).
            form: whose proxies to record: one of `FORMS`.
            alpha: factor of the risk in g (risk form).
            tail: factor of ``(r s')^2`` in g (risk form).
            level: the mean of h (risk form).
            radius: rho (form i).
            gamma: least slope (form ii), ``> 0``.
            **proxy: nothing else is accepted.

        Raises:
            InvalidInputError: for an unknown form or shapes that do not fit.
        """
        if proxy:
            raise InvalidInputError("proxy", sorted(proxy), "form, alpha, tail, level, radius and gamma")
        if form not in FORMS:
            raise InvalidInputError("form", form, ", ".join(FORMS))
        check_rows(features, targets, comparator)
        numbers = dict(alpha=alpha, tail=tail, level=level, radius=radius, gamma=gamma)
        return SingleNeuronProblem(
            features=features,
            targets=targets,
            comparator=np.asarray(comparator, dtype=np.float64),
            link=self.activation,
            form=form,
            signs=set(np.unique(targets)) == {-1.0, 1.0},
            **{name: np.asarray(float(value)) for name, value in numbers.items()},
        )

    def conditions(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        v: Float[np.ndarray, " d"],
        form: str,
        radius: float | None = None,
    ) -> tuple[ProxyConvexity, GradientGrowth]:
        """Proxy convexity and growth of form (i), (ii) or (iii) as premises, for `guarantee`, `explain` and `bridge`.

        The constants are the checker's, rounded outward, with the evidence PROVED of the lemma; those of a custom activation
        are declared and in plain floating point, evidence ASSUMED. Form (iii) is about the population: its f is the mean over
        the noise, for targets with ``E[y|x] = s(<v, x>)``, whose gradient does not depend on the noise.

        Args:
            features: shape (n, d).
            targets: shape (n,); only their number counts in form (iii).
            v: comparator, shape (d,).
            form: ``"i"``, ``"ii"`` or ``"iii"``.
            radius: rho of the ball around v on which the condition is claimed; needed for (i), and for (ii) where the
                slope vanishes somewhere.

        Raises:
            InvalidInputError: if the form needs a radius, or the slope is not bounded away from zero on the range.
        """
        if form not in ("i", "ii", "iii"):
            raise InvalidInputError("form", form, "i, ii, iii")
        if form == "iii":
            targets = self.activation.numpy(features @ v)
        size, risk, residual, least = self._constants(features, targets, v)
        bound = self.activation.lipschitz
        if form == "i" and radius is None:
            raise InvalidInputError("radius", None, "a number > 0 for form (i)", "h grows with the radius.")
        gamma = 1.0
        if form == "ii":
            gamma = least(math.inf if radius is None else radius)
            if not gamma > 0:
                raise InvalidInputError(
                    "radius",
                    radius,
                    "a ball on which the slope stays above 0",
                    "Form (i) needs no such slope.",
                )
        problem = self.problem(
            features, targets, v[None], form=form, radius=radius if radius is not None else 1.0, gamma=gamma
        )
        square = bound**2 * size**2
        up = 1 + 2.0**-40  # more than the few roundings of these products
        growth = {
            "i": (2 * square * up, 2 * square * risk * up),
            "ii": (4 * bound * square / gamma * up, 2 * square * risk * up),
            "iii": (square * up, 0.0),
        }[form]
        levels = {
            "i": bound * (radius or 0.0) * size * residual * up,
            "ii": bound / (2 * gamma) * risk * up,
            "iii": 0.0,
        }
        region: Region = WholeSpace() if radius is None else Ball(v, radius)
        known = Evidence.ASSUMED if self.activation.name == "custom" else Evidence.PROVED
        x, y = problem.features, problem.targets

        def f(w: Any) -> Any:
            return problem.loss(w[None], x, y)

        def grad(w: Any) -> Any:
            return problem.loss_grad(w[None], x, y)[2][0]

        def g(w: Any) -> Any:
            return jnp.mean(problem.proxy(w[None], problem.predict(w[None], x), x, y)[0])

        where: dict[str, Any] = dict(region=region, evidence=known, reference=FREI_CAO_GU_2020)
        return (
            ProxyConvexity(f, g, levels[form], comparator=v, grad=grad, **where),
            GradientGrowth(*growth, g, f, grad, **where),
        )

    def _constants(
        self, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], v: Float[np.ndarray, " d"]
    ) -> tuple[float, float, float, Callable[[float], float]]:
        """X, O and ``mean |s(b) - y|`` (upper bounds), and gamma (a lower bound) as a function of the ball's radius."""
        if self.activation.name != "custom":
            neuron = checker.neuron_of(x, y, v[None], self.activation.describe(), v[None])
            return neuron.size(), neuron.risk()[1], neuron.residual(), neuron.least_slope
        b, size = x @ v, float(np.linalg.norm(x, axis=1).max())
        r = self.activation.numpy(b) - y

        def least(radius: float) -> float:
            return self.activation.least_slope(float(b.min()) - radius * size, float(b.max()) + radius * size)

        return size, float(np.mean(r * r)), float(np.mean(np.abs(r))), least

    def certificate_obstacle(self) -> str:
        """A function of the user's is nothing the independent checker can enclose."""
        if self.activation.name != "custom":
            return ""
        return (
            f"the activation {self.activation.label} is a function of yours with declared constants, which the independent checker can "
            "neither read nor prove; the named activations have certificates."
        )

    def describe(self) -> dict[str, Any]:
        """The certificate's ``family`` fields."""
        return {
            "name": self.name,
            "width": 1,
            "activation": self.activation.describe(),
            "init_scale": float(self.init_scale),
            "seed": int(self.seed),
        }


def check_rows(features: Any, targets: Any, comparator: Any) -> None:
    """Refuse arrays that are not finite float64 of matching shapes.

    Raises:
        InvalidInputError: naming what was found.
    """
    for what, array in (("features", features), ("targets", targets)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or not np.isfinite(array).all():
            raise InvalidInputError(
                what, getattr(array, "dtype", type(array).__name__), "finite float64 numbers"
            )
    if features.ndim != 2 or targets.shape != features.shape[:1] or not targets.size:
        raise InvalidInputError(
            "targets", targets.shape, f"shape (n,) for features of shape {features.shape}"
        )
    if np.shape(comparator) != (1, features.shape[1]):
        raise InvalidInputError("comparator", np.shape(comparator), f"shape (1, {features.shape[1]})")
