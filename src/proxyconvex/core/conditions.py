"""The conditions of the theory as premises: proxy convexity, proxy PL, smoothness, growth, noise.

Every condition has one `slack`, written with ring operations and the helpers of `numbers`, so the same line runs on
JAX arrays, floats, Fractions and intervals. Definitions: Frei & Gu (2021), sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

from .errors import InvalidInputError
from .evidence import Evidence
from .numbers import absolute, inner, is_exact, is_exact_point, norm_sq, power, subtract
from .premises import Constant, Premise, evaluate, fit, gradient, needed, require_callable, takes_two
from .reduced import RIDGE, ReducedCondition, reduced
from .references import FREI_GU_2021, Reference
from .regions import checked_point

Function = Callable[[Any], Any]
Scope = Literal["full-batch", "expectation", "sample-wise"]
SCOPES = ("full-batch", "expectation", "sample-wise")


@final
@dataclass(frozen=True, eq=False, repr=False)
class ProxyConvexity(Premise):
    """``<grad f(w), w - v> >= g(w) - h(v)`` for all ``w`` in the region (PC).

    Example:
        >>> pc = ProxyConvexity(lambda w: (w @ w) / 2, lambda w: w @ w, 0.0, comparator=[0.0, 0.0])
        >>> pc.slack([1.0, 2.0])
        0.0

    Attributes:
        f: objective, a JAX function of ``w`` (or None for a premise given by its constants alone).
        g: proxy that is bounded from above by the theorems, a function of ``w``.
        h: a number, a function ``h(v)``, or a pointwise ``h(v, w)``.
        comparator: ``v``.
        grad: gradient of ``f``; by JAX if left out. Needed for exact (Fraction, Interval) evaluation.
        h_max: for sample-wise premises: an upper bound on every ``h_z(v)``; for a pointwise ``h``: an upper bound on
            ``h(v, w)`` over the region, which turns it into a uniform one.
        samplewise: whether the inequality holds for every single sample (``f``, ``g``, ``h`` are then the means).
        g_min: a lower bound on ``g`` where it is known (needed nowhere but in T6, where it must be >= 0).
    """

    f: Function | None
    g: Function | None
    h: Any
    comparator: Any
    grad: Function | None = None
    h_max: Any = None
    samplewise: bool = False
    g_min: Any = None
    reference: Reference = field(default=FREI_GU_2021, kw_only=True)

    name: ClassVar[str] = "proxy-convexity"
    constants: ClassVar[tuple[str, ...]] = ("h", "h_max", "g_min")

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("f", "g", "grad"):
            require_callable(what, getattr(self, what), optional=True)
        if self.comparator is None:
            raise InvalidInputError("comparator", None, "a point v", "Pass comparator=v.")
        object.__setattr__(self, "comparator", checked_point("comparator", self.comparator))
        if not callable(self.h):
            self._wrap("h")
        self._wrap("h_max", optional=True)
        self._wrap("g_min", optional=True)

    @staticmethod
    def pointwise(formula: Function, *, activation: Any = None, **given: Any) -> ReducedCondition:
        """The reduced form: a slack in ``a = <w, x>``, ``b = <v, x>`` and ``y`` that implies (PC) of a single neuron.

        Example:
            >>> cond = ProxyConvexity.pointwise(
            ...     lambda a, b, s: (s(a) - s(b)) * (a - b) - 4 * (s(a) - s(b)) ** 2,
            ...     activation="sigmoid", a=(-4, 4), b=(-4, 4),
            ... )
            >>> cond.slack(a=0.0, b=0.0)
            0.0

        Args:
            formula: the slack; see `reduced` for what it may ask for.
            activation: a name, a function of ``t``, or a pair (function, derivative).
            **given: ranges ``a=(-3, 3)`` of variables and values ``C=0.721`` of constants.
        """
        return reduced(formula, activation=activation, name="proxy convexity, pointwise", lift=RIDGE, **given)

    @property
    def level_is_pointwise(self) -> bool:
        """Whether ``h`` depends on ``w`` as well."""
        return callable(self.h) and takes_two(self.h)

    @property
    def level(self) -> Constant | None:
        """The number ``h(v)``, or None for a pointwise ``h`` without ``h_max``.

        A function ``h`` is evaluated at ``v``: exactly if ``v`` is exact, else in floating point, whose rounding
        nobody has bounded, so the evidence of the number is at most SAMPLED.
        """
        if isinstance(self.h, Constant):
            return self.h
        if self.level_is_pointwise:
            return self.h_max
        value = evaluate(self.h, self.comparator)
        return Constant(value, "exact", None if is_exact(value) else self.weakest())

    def weakest(self) -> Evidence:
        """As for any premise; a floating-point evaluation of ``h(v)`` counts as SAMPLED."""
        base = super().weakest()
        if isinstance(self.h, Constant) or self.level_is_pointwise or is_exact_point(self.comparator):
            return base
        return min(base, Evidence.SAMPLED)

    def level_at(self, w: Any) -> Any:
        """``h(v)`` or ``h(v, w)`` in the arithmetic of ``w``."""
        if isinstance(self.h, Constant):
            return fit(self.h, w)
        v = fit(self.comparator, w)
        return self.h(v, w) if self.level_is_pointwise else self.h(v)

    def slack(self, w: Any) -> Any:
        """``<grad f(w), w - v> - g(w) + h``."""
        g = needed("g", self.g)

        def formula(u: Any) -> Any:
            d = gradient(self.f, self.grad, u)
            return inner(d, subtract(u, fit(self.comparator, u))) - g(u) + self.level_at(u)

        return evaluate(formula, w)

    @property
    def statement(self) -> str:
        """The inequality with the value of ``h(v)``."""
        level = self.level
        value = "pointwise" if level is None else str(level)
        each = "for every single sample, " if self.samplewise else ""
        return f"Proxy convexity: {each}<grad f(w), w - v> >= g(w) - h with h {value}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class ProxyPL(Premise):
    """``||grad f(w)||^alpha >= (mu/2) (g(w) - xi)`` for all ``w`` in the region (PPL).

    Attributes:
        f: objective, or None.
        g: proxy, or None.
        xi: level, a number (theorems need it exact or from above).
        alpha: exponent > 0 (exact).
        mu: constant > 0 (theorems need it exact or from below).
        grad: gradient of ``f``; by JAX if left out.
    """

    f: Function | None
    g: Function | None
    xi: Any
    alpha: Any
    mu: Any
    grad: Function | None = None
    reference: Reference = field(default=FREI_GU_2021, kw_only=True)

    name: ClassVar[str] = "proxy-pl"
    constants: ClassVar[tuple[str, ...]] = ("mu", "xi", "alpha")

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("f", "g", "grad"):
            require_callable(what, getattr(self, what), optional=True)
        self._wrap("xi")
        self._wrap("alpha", 0, strict=True)
        self._wrap("mu", 0, strict=True)
        if self.alpha.side != "exact":
            raise InvalidInputError("alpha", self.alpha, "an exact exponent")

    def slack(self, w: Any) -> Any:
        """``||grad f(w)||^alpha - (mu/2) (g(w) - xi)``."""
        g = needed("g", self.g)

        def formula(u: Any) -> Any:
            strength = power(norm_sq(gradient(self.f, self.grad, u)), _half(self.alpha.value))
            return strength - fit(self.mu, u) / 2 * (g(u) - fit(self.xi, u))

        return evaluate(formula, w)

    @property
    def statement(self) -> str:
        """The inequality with its constants."""
        return f"Proxy PL: ||grad f(w)||^{float(self.alpha):.6g} >= (mu/2)(g(w) - xi) with mu {self.mu} and xi {self.xi}"


def _half(alpha: Any) -> Any:
    """``alpha / 2`` without rounding (halving a float is exact)."""
    return alpha // 2 if isinstance(alpha, int) and alpha % 2 == 0 else alpha / 2


@final
@dataclass(frozen=True, eq=False, repr=False)
class Smooth(Premise):
    """``f`` is L-smooth: ``|f(u) - f(w) - <grad f(w), u - w>| <= (L/2) ||u - w||^2``.

    On convex regions that is equivalent to an L-Lipschitz gradient. With evidence ON_TRACE it means the measured descent inequality at each step (`descent_slack >= 0`).
    """

    L: Any
    f: Function | None = None
    grad: Function | None = None

    name: ClassVar[str] = "smoothness"
    constants: ClassVar[tuple[str, ...]] = ("L",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("L", 0, strict=True)
        for what in ("f", "grad"):
            require_callable(what, getattr(self, what), optional=True)

    def slack(self, w: Any, other: Any = None) -> Any:
        """``(L/2) ||u - w||^2 - |f(u) - f(w) - <grad f(w), u - w>|`` at the pair ``w``, ``u = other``."""
        return self._pair(w, other, absolute)

    def descent_slack(self, w: Any, other: Any) -> Any:
        """The upper half only: ``(L/2) ||u - w||^2 - (f(u) - f(w) - <grad f(w), u - w>)``."""
        return self._pair(w, other, lambda gap: gap)

    def _pair(self, w: Any, other: Any, size: Function) -> Any:
        f = needed("f", self.f)
        if other is None:
            raise InvalidInputError("other", None, "a second point", "Smoothness compares two points.")

        def formula(a: Any, b: Any) -> Any:
            step = subtract(b, a)
            gap = f(b) - f(a) - inner(gradient(self.f, self.grad, a), step)
            return fit(self.L, a) / 2 * norm_sq(step) - size(gap)

        return evaluate(formula, w, other)

    @property
    def statement(self) -> str:
        """Smoothness with its constant."""
        return f"Smoothness: f is L-smooth with L {self.L}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class BoundedBelow(Premise):
    """``f(w) >= f_star`` for all ``w`` in the region."""

    f_star: Any
    f: Function | None = None

    name: ClassVar[str] = "bounded-below"
    constants: ClassVar[tuple[str, ...]] = ("f_star",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("f_star")
        require_callable("f", self.f, optional=True)

    def slack(self, w: Any) -> Any:
        """``f(w) - f_star``."""
        f = needed("f", self.f)
        return evaluate(lambda u: f(u) - fit(self.f_star, u), w)

    @property
    def statement(self) -> str:
        """The bound."""
        return f"f is bounded below by f_star {self.f_star}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class GradientGrowth(Premise):
    """``||d||^2 <= A g(w) + C`` for the gradients ``d`` that the method uses.

    Attributes:
        A: factor >= 0.
        C: additive part >= 0.
        g: the proxy (pass the same function object as to the other condition), or None.
        f: objective whose full gradient is meant, or None.
        grad: gradient of ``f``; by JAX if left out.
        moment: ``w -> E||grad f(w; z)||^2``, for the scope "expectation".
        scope: "full-batch" (the full gradient), "expectation" (the second moment of the stochastic gradient) or
            "sample-wise" (every sample's gradient against that sample's ``g_z``).
    """

    A: Any
    C: Any
    g: Function | None = None
    f: Function | None = None
    grad: Function | None = None
    moment: Function | None = None
    scope: Scope = "full-batch"

    name: ClassVar[str] = "growth"
    constants: ClassVar[tuple[str, ...]] = ("A", "C")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("A", 0)
        self._wrap("C", 0)
        for what in ("f", "g", "grad", "moment"):
            require_callable(what, getattr(self, what), optional=True)
        if self.scope not in SCOPES:
            raise InvalidInputError("scope", self.scope, ", ".join(map(repr, SCOPES)))

    def slack(self, w: Any) -> Any:
        """``A g(w) + C - E||d||^2``."""
        g = needed("g", self.g)

        def formula(u: Any) -> Any:
            square = self.moment(u) if self.moment else norm_sq(gradient(self.f, self.grad, u))
            return fit(self.A, u) * g(u) + fit(self.C, u) - square

        return evaluate(formula, w)

    @property
    def statement(self) -> str:
        """The growth bound with its constants."""
        left = {"full-batch": "||grad f(w)||^2", "expectation": "E||grad f(w; z)||^2"}.get(
            self.scope, "for every single sample, ||grad f(w; z)||^2"
        )
        return f"Gradient growth: {left} <= A g(w) + C with A {self.A} and C {self.C}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Noise(Premise):
    """``E||grad f(w; z)||^2 <= rho ||grad f(w)||^2 + sigma2`` with ``E grad f(w; z) = grad f(w)``.

    Attributes:
        rho: factor >= 0 (below 1 only together with a large enough sigma2: a second moment is at least the squared mean).
        sigma2: additive part >= 0.
        moment: ``w -> E||grad f(w; z)||^2``, or None.
        f: objective, or None.
        grad: gradient of ``f``; by JAX if left out.
    """

    rho: Any
    sigma2: Any
    moment: Function | None = None
    f: Function | None = None
    grad: Function | None = None

    name: ClassVar[str] = "noise"
    constants: ClassVar[tuple[str, ...]] = ("rho", "sigma2")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("rho", 0)
        self._wrap("sigma2", 0)
        for what in ("f", "grad", "moment"):
            require_callable(what, getattr(self, what), optional=True)

    def slack(self, w: Any) -> Any:
        """``rho ||grad f(w)||^2 + sigma2 - E||grad f(w; z)||^2``."""
        moment = needed("moment", self.moment)

        def formula(u: Any) -> Any:
            full = norm_sq(gradient(self.f, self.grad, u))
            return fit(self.rho, u) * full + fit(self.sigma2, u) - moment(u)

        return evaluate(formula, w)

    @property
    def statement(self) -> str:
        """The noise bound with its constants."""
        return f"Noise: E||grad f(w; z)||^2 <= rho ||grad f(w)||^2 + sigma2 with rho {self.rho} and sigma2 {self.sigma2}"
