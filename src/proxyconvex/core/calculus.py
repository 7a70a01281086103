"""The calculus of conditions: combine, scale, reparametrise, regularise, weaken, and pass from PC to PPL.

Each function returns a new premise whose `slack` is built from the old functions, so every rule can be checked point by
point. Rules: Frei & Gu (2021), section 2, and this library's notes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from .conditions import ProxyConvexity, ProxyPL
from .errors import InvalidInputError
from .evidence import Evidence
from .intervals import interval_power
from .numbers import (
    exact,
    inner,
    is_exact_point,
    lower,
    lower_float,
    map_point,
    norm_sq,
    subtract,
    upper,
)
from .premises import Constant, Side, constant, fit, gradient, needed, same_point
from .references import PROXYCONVEX_NOTES
from .regions import Ball, affine, exact_point, intersect


def _worst_side(constants: Sequence[Constant]) -> Side:
    """Side of a sum of constants: exact if all are, one side if none is on the other."""
    sides: set[Side] = {c.side for c in constants if c.side != "exact"}
    if "estimate" in sides or len(sides) > 1:
        return "estimate"
    return sides.pop() if sides else "exact"


def _sum_of(pairs: Sequence[tuple[Any, Callable[..., Any] | None]]) -> Callable[[Any], Any]:
    """``w -> sum c_i f_i(w)``."""

    def total(w: Any) -> Any:
        return sum((fit(c, w) * needed("f", f)(w) for c, f in pairs), 0)

    return total


def _grad_of(premise: ProxyConvexity | ProxyPL) -> Callable[[Any], Any]:
    return lambda w: gradient(premise.f, premise.grad, w)


def _weighted(weights: Sequence[Constant], constants: Sequence[Constant]) -> Constant:
    """``sum c_i h_i``, exactly; in float it is kept as the exact rational."""
    value = sum(
        (exact(w.value) * exact(c.value) for w, c in zip(weights, constants, strict=True)), Fraction(0)
    )
    return Constant(value, _worst_side(constants))


def combine(conditions: Sequence[ProxyConvexity], weights: Sequence[Any] | None = None) -> ProxyConvexity:
    """Non-negative combination: ``sum c_i f_i`` is ``(sum c_i g_i, sum c_i h_i)``-proxy convex on the common region.

    Args:
        conditions: against the same comparator.
        weights: ``c_i >= 0`` (exact), all 1 if left out.

    Raises:
        InvalidInputError: for different comparators, negative weights or mixed sample-wise and mean conditions.
    """
    conditions = tuple(conditions)
    if not conditions or not all(isinstance(c, ProxyConvexity) for c in conditions):
        raise InvalidInputError("conditions", conditions, "at least one ProxyConvexity")
    scales = [constant("weights", w, 0) for w in (weights if weights is not None else [1] * len(conditions))]
    if len(scales) != len(conditions):
        raise InvalidInputError("weights", weights, f"{len(conditions)} numbers >= 0")
    if any(s.side != "exact" for s in scales):
        raise InvalidInputError("weights", weights, "exact numbers")
    first = conditions[0]
    for other in conditions[1:]:
        if not same_point(first.comparator, other.comparator):
            raise InvalidInputError(
                "comparator", "different comparators", "one comparator v for all", "Restate them at v."
            )
        if other.samplewise != first.samplewise:
            raise InvalidInputError("samplewise", "mixed", "all sample-wise or all in the mean")
    _require_functions(conditions)
    grads = [_grad_of(c) for c in conditions]

    def grad(w: Any) -> Any:
        parts = [g(w) for g in grads]
        scaled = [fit(c, w) for c in scales]
        return map_point(lambda *xs: sum((c * x for c, x in zip(scaled, xs, strict=True)), 0), *parts)

    return ProxyConvexity(
        _sum_of([(c, p.f) for c, p in zip(scales, conditions, strict=True)]),
        _sum_of([(c, p.g) for c, p in zip(scales, conditions, strict=True)]),
        _combined_h(conditions, scales),
        comparator=first.comparator,
        grad=grad,
        h_max=_combined_max(conditions, scales),
        samplewise=first.samplewise,
        region=intersect(*(c.region for c in conditions)),
        evidence=min(c.evidence for c in conditions),
        reference=PROXYCONVEX_NOTES,
    )


def _combined_h(conditions: Sequence[ProxyConvexity], weights: Sequence[Constant]) -> Any:
    if all(isinstance(c.h, Constant) for c in conditions):
        total = _weighted(weights, [c.h for c in conditions])
        return Constant(total.value, total.side, min(c.weakest() for c in conditions))
    if any(c.level_is_pointwise for c in conditions):

        def pointwise(v: Any, w: Any) -> Any:
            return sum((fit(s, w) * c.level_at(w) for s, c in zip(weights, conditions, strict=True)), 0)

        return pointwise
    return lambda v: sum((fit(s, v) * c.level_at(v) for s, c in zip(weights, conditions, strict=True)), 0)


def _combined_max(conditions: Sequence[ProxyConvexity], weights: Sequence[Constant]) -> Constant | None:
    """Bound on the combined h where every part has one (a constant h bounds itself unless it is sample-wise)."""
    tops = []
    for c in conditions:
        top = (
            c.h_max
            if c.h_max is not None
            else (c.level if c.level_is_pointwise or not c.samplewise else None)
        )
        if top is None:
            return None
        tops.append(top)
    if not any(c.h_max is not None for c in conditions):
        return None
    return _weighted(weights, tops)


def scale(condition: ProxyConvexity | ProxyPL, factor: Any) -> ProxyConvexity | ProxyPL:
    """``c f``, c > 0: PC becomes ``(c g, c h)``; PPL(g, xi, alpha, mu) keeps g and gets ``c^alpha mu``."""
    c = constant("factor", factor, 0, strict=True)
    if isinstance(condition, ProxyConvexity):
        return combine([condition], [c])
    _require_functions([condition])
    mu = lower(interval_power(exact(c.value), condition.alpha.value) * exact(condition.mu.value))
    inner_grad = _grad_of(condition)
    return ProxyPL(
        _sum_of([(c, condition.f)]),
        condition.g,
        condition.xi,
        condition.alpha,
        Constant(mu, condition.mu.side, condition.mu.evidence),
        grad=lambda w: map_point(lambda x: fit(c, w) * x, inner_grad(w)),
        region=condition.region,
        evidence=condition.evidence,
        reference=condition.reference,
    )


def reparametrise(condition: ProxyConvexity, matrix: Any, offset: Any, comparator: Any) -> ProxyConvexity:
    """Linear reparametrisation: ``F(u) = f(M u + b)`` is ``(g o, h o)``-proxy convex against ``u'`` with ``M u' + b = v``.

    The region is pulled back along ``u -> M u + b``.

    Args:
        condition: proxy convexity of ``f`` against ``v``.
        matrix: ``M``, shape (p, q).
        offset: ``b``, shape (p,).
        comparator: ``u'``, shape (q,). If ``M u' + b`` equals ``v`` only up to rounding, the evidence of the result is at most SAMPLED.

    Raises:
        InvalidInputError: if ``M u' + b`` is not ``v``.
    """
    _require_functions([condition])
    m, b = _as_map(matrix, offset)
    if len(exact_point(comparator)) != m.shape[1] or len(exact_point(condition.comparator)) != m.shape[0]:
        raise InvalidInputError(
            "matrix", m.shape, "shape (p, q) for a comparator v of length p and u' of length q"
        )
    image = affine(exact_point(np.asarray(matrix)), exact_point(np.asarray(offset)), exact_point(comparator))
    target = exact_point(condition.comparator)
    evidence = condition.evidence
    if not same_point(image, target):
        gap, size = (float(upper(norm_sq(x))) for x in (subtract(image, target), image))
        if gap > (1e-13**2) * max(size, float(upper(norm_sq(target)))):
            raise InvalidInputError(
                "comparator",
                comparator,
                f"a point u' with M u' + b = v (off by {gap**0.5:.3g})",
                "Solve M u' + b = v first.",
            )
        evidence = min(evidence, Evidence.SAMPLED)
    base = _grad_of(condition)

    def image_of(u: Any) -> Any:
        return affine(fit(m, u), fit(b, u), u) if is_exact_point(u) else affine(m, b, u)

    def grad(u: Any) -> Any:
        d = base(image_of(u))
        if is_exact_point(u):
            return [inner(list(column), d) for column in zip(*exact_point(m), strict=True)]
        return sum(row * part for row, part in zip(m, d, strict=True))  # M^T d, for an array or a list d

    def h_of(v: Any, u: Any = None) -> Any:
        return condition.level_at(image_of(v if u is None else u))

    h: Any = condition.h
    if condition.level_is_pointwise:
        h = lambda v, u: h_of(v, u)  # noqa: E731 - the two parameters mark it as pointwise
    elif not isinstance(h, Constant):
        h = lambda v: h_of(v)  # noqa: E731
    return ProxyConvexity(
        lambda u: needed("f", condition.f)(image_of(u)),
        lambda u: needed("g", condition.g)(image_of(u)),
        h,
        comparator=comparator,
        grad=grad,
        h_max=condition.h_max,
        samplewise=condition.samplewise,
        region=condition.region.pullback(m, b),
        evidence=evidence,
        reference=PROXYCONVEX_NOTES,
    )


def _as_map(matrix: Any, offset: Any) -> tuple[Any, Any]:
    """The map as float arrays; exact entries must be floats (so that JAX and exact arithmetic use one map)."""
    m, b = np.asarray(matrix), np.asarray(offset)
    if m.ndim != 2 or b.shape != (m.shape[0],):
        raise InvalidInputError("matrix", (m.shape, b.shape), "shapes (p, q) and (p,)")
    floats = np.asarray(m, float), np.asarray(b, float)
    for original, rounded in zip((m, b), floats, strict=True):
        if original.dtype == object and not all(
            exact(x) == Fraction(y) for x, y in zip(original.ravel(), rounded.ravel(), strict=True)
        ):
            raise InvalidInputError("matrix", original, "numbers that are float64 exactly")
    return floats


def regularise(
    condition: ProxyConvexity,
    penalty: Callable[[Any], Any],
    strength: Any = 0,
    grad: Callable[[Any], Any] | None = None,
    evidence: Evidence = Evidence.ASSUMED,
) -> ProxyConvexity:
    """Add an m-strongly convex penalty ``r``: ``f + r`` is ``(g + r + (m/2)||w - v||^2, h + r(v))``-proxy convex.

    Args:
        condition: proxy convexity of ``f``.
        penalty: ``r``, m-strongly convex (m = 0: convex).
        strength: ``m >= 0``, exact or a lower bound.
        grad: gradient of ``r``; by JAX if left out.
        evidence: what the (strong) convexity of ``r`` rests on.
    """
    from .classical import strongly_convex

    added = strongly_convex(
        penalty,
        strength,
        comparator=condition.comparator,
        grad=grad,
        evidence=evidence,
        region=condition.region,
    )
    return combine([condition, added])


def weaken(
    condition: ProxyConvexity,
    *,
    g: Callable[[Any], Any] | None = None,
    h: Any = None,
    evidence: Evidence = Evidence.ASSUMED,
) -> ProxyConvexity:
    """Lower ``g`` or raise ``h``; both keep proxy convexity.

    Args:
        condition: the stronger condition.
        g: a function that is nowhere above the old ``g`` on the region (unchanged if left out).
        h: a number (unchanged if left out); refused if it is below the old number.
        evidence: what ``new g <= old g`` rests on; where ``g`` or a function ``h`` changes, the result is no better than that.
    """
    result = condition.evidence
    new_h = condition.h
    if h is not None:
        new_h = constant("h", h)
        old = condition.level
        if old is None:
            result = min(result, evidence)
        elif lower(new_h.value) < upper(old.value):
            raise InvalidInputError(
                "h", float(new_h), f"at least the old h = {float(old):.6g}", "Weakening can only raise h."
            )
    if g is not None:
        result = min(result, evidence)
    return ProxyConvexity(
        condition.f,
        g or condition.g,
        new_h,
        comparator=condition.comparator,
        grad=condition.grad,
        h_max=condition.h_max if h is None else None,
        samplewise=condition.samplewise and h is None,
        region=condition.region,
        evidence=result,
        reference=condition.reference,
    )


def bridge(condition: ProxyConvexity, radius: Any = None) -> ProxyPL:
    """PC on ``||w - v|| <= rho`` gives PPL(g, h(v), 1, 2/rho) there (Cauchy-Schwarz): ``rho ||grad f|| >= g - h``.

    Args:
        condition: proxy convexity with a uniform ``h``.
        radius: ``rho > 0``; may be left out when the region is a ball around ``v``.

    Raises:
        InvalidInputError: without a radius, or for a pointwise ``h`` without ``h_max``.
    """
    if radius is None:
        region = condition.region
        if not (isinstance(region, Ball) and same_point(region.center, condition.comparator)):
            raise InvalidInputError(
                "radius", None, "a number rho > 0", "Pass the radius of a ball around the comparator."
            )
        radius = region.radius
    rho = constant("radius", radius, 0, strict=True)
    level = condition.level
    if level is None:
        raise InvalidInputError(
            "h", "pointwise", "a uniform h", "Give h_max, an upper bound on h(v, w) over the region."
        )
    mu = 2 / exact(rho.value)
    safe = lower_float(mu) if isinstance(rho.value, float) else mu
    exactly = exact(safe) == mu
    return ProxyPL(
        condition.f,
        condition.g,
        level,
        1,
        Constant(safe, "exact" if exactly else "lower"),
        grad=condition.grad,
        region=intersect(condition.region, Ball(condition.comparator, rho.value)),
        evidence=min(
            condition.evidence, level.evidence if level.evidence is not None else condition.evidence
        ),
        reference=condition.reference,
    )


def _require_functions(conditions: Sequence[ProxyConvexity | ProxyPL]) -> None:
    for c in conditions:
        if (c.f is None and c.grad is None) or c.g is None:
            raise InvalidInputError(
                "f, g", None, "functions", "The calculus builds new functions from f (or grad) and g."
            )
        if c.f is None:
            raise InvalidInputError("f", None, "a function of w")


__all__ = ["bridge", "combine", "regularise", "reparametrise", "scale", "weaken"]
