"""Classical conditions as proxy conditions (theory section 1; Frei & Gu 2021, section 2.1).

Every constructor returns a `ProxyConvexity` or `ProxyPL` whose `slack` can be evaluated, so a claim such as "f is 2-strongly
convex" can be checked point by point like any other condition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .conditions import ProxyConvexity, ProxyPL
from .errors import InvalidInputError
from .intervals import interval_power
from .numbers import exact, is_exact, lower, lower_float, norm_sq, subtract
from .premises import Constant, constant, fit, require_callable
from .regions import checked_point

Function = Callable[[Any], Any]


def convex(f: Function, *, comparator: Any, grad: Function | None = None, **where: Any) -> ProxyConvexity:
    """Convex f: PC(f, f(v)) for any v."""
    require_callable("f", f)
    return ProxyConvexity(f, f, lambda v: f(v), comparator=comparator, grad=grad, **where)


def strongly_convex(
    f: Function, m: Any, *, comparator: Any, grad: Function | None = None, **where: Any
) -> ProxyConvexity:
    """m-strongly convex f: PC(f + (m/2)||w - v||^2, f(v)) for any v."""
    require_callable("f", f)
    strength, v = _from_below("m", m, strict=False), checked_point("comparator", comparator)

    def g(w: Any) -> Any:
        return f(w) + fit(strength, w) / 2 * norm_sq(subtract(w, fit(v, w)))

    return ProxyConvexity(f, g, lambda u: f(u), comparator=v, grad=grad, **where)


def star_convex(f: Function, *, minimiser: Any, grad: Function | None = None, **where: Any) -> ProxyConvexity:
    """Star-convex f: PC(f, f(w*)) at a minimiser w* only."""
    return convex(f, comparator=minimiser, grad=grad, **where)


def quasar_convex(
    f: Function, zeta: Any, *, minimiser: Any, grad: Function | None = None, **where: Any
) -> ProxyConvexity:
    """zeta-quasar-convex f, 0 < zeta <= 1: PC(zeta f, zeta f(w*)) at a minimiser w*."""
    require_callable("f", f)
    factor = _from_below("zeta", zeta)
    if lower(factor.value) > 1:
        raise InvalidInputError("zeta", float(factor), "a number in (0, 1]")

    def g(w: Any) -> Any:
        return fit(factor, w) * f(w)

    return ProxyConvexity(f, g, lambda v: g(v), comparator=minimiser, grad=grad, **where)


def restricted_secant(
    f: Function,
    m: Any,
    *,
    comparator: Any,
    unique: bool = False,
    distance_sq: Function | None = None,
    grad: Function | None = None,
    **where: Any,
) -> ProxyConvexity:
    """Restricted secant inequality: PC(m ||w - v||^2, 0).

    Args:
        f: objective.
        m: constant > 0, exact or a lower bound.
        comparator: the minimiser.
        unique: says that the comparator is the only minimiser.
        distance_sq: otherwise ``w -> dist^2(w, minimisers)``, with the inequality known to hold for this very v.
        grad: gradient of f; by JAX if left out.
        **where: region, evidence, reference.

    Raises:
        InvalidInputError: with neither: the inequality is about the projection of w onto the minimisers, and a fixed v is
            that projection for every w only if it is the only minimiser.
    """
    require_callable("f", f)
    strength, v = _from_below("m", m), checked_point("comparator", comparator)
    if not unique and distance_sq is None:
        raise InvalidInputError(
            "unique",
            unique,
            "unique=True, or distance_sq",
            "The comparator must be the unique minimiser; else pass the distance.",
        )

    def g(w: Any) -> Any:
        square = distance_sq(w) if distance_sq is not None else norm_sq(subtract(w, fit(v, w)))
        return fit(strength, w) * square

    return ProxyConvexity(f, g, 0, comparator=v, grad=grad, **where)


def one_point_convex(
    f: Function, m: Any, *, comparator: Any, grad: Function | None = None, **where: Any
) -> ProxyConvexity:
    """One-point convexity towards a unique point v: ``<grad f(w), w - v> >= m ||w - v||^2``, PC(m||w - v||^2, 0)."""
    return restricted_secant(f, m, comparator=comparator, unique=True, grad=grad, **where)


def polyak_lojasiewicz(
    f: Function, m: Any, f_star: Any, *, grad: Function | None = None, **where: Any
) -> ProxyPL:
    """PL, ``(1/2)||grad f||^2 >= m (f - f_star)``: PPL(f, f_star, 2, 4m).

    ``f_star`` must be the infimum or a lower bound on it; the level xi is then that number.
    """
    require_callable("f", f)
    strength = _from_below("m", m)
    mu = 4 * exact(strength.value)
    return ProxyPL(f, f, f_star, 2, _rounded(mu, strength), grad=grad, **where)


def kurdyka_lojasiewicz(
    f: Function, c: Any, theta: Any, f_star: Any, *, grad: Function | None = None, **where: Any
) -> ProxyPL:
    """KL, ``||grad f|| >= c (f - f_star)^theta``, 0 < theta <= 1: PPL(f, f_star, 1/theta, 2 c^(1/theta)), mu rounded downwards."""
    require_callable("f", f)
    factor, power = _from_below("c", c), constant("theta", theta, 0, strict=True)
    if lower(power.value) > 1:
        raise InvalidInputError("theta", float(power), "a number in (0, 1]")
    alpha = 1 / exact(power.value)
    mu = 2 * interval_power(exact(factor.value), alpha)
    return ProxyPL(f, f, f_star, alpha, _rounded(mu, factor), grad=grad, **where)


def _from_below(what: str, value: Any, strict: bool = True) -> Constant:
    """A constant that must be known exactly or from below."""
    wrapped = constant(what, value, 0, strict=strict)
    if wrapped.side not in ("exact", "lower"):
        raise InvalidInputError(
            what,
            str(wrapped),
            "an exact value or a lower bound",
            "An upper bound or estimate may be too large.",
        )
    return wrapped


def _rounded(value: Any, source: Constant) -> Constant:
    """A derived lower constant: exact if its source is and it is rational, else rounded downwards."""
    low = lower(value)
    is_number = not hasattr(value, "lo") or value.lo == value.hi
    if is_exact(source.value):
        return Constant(low, "exact" if is_number and source.side == "exact" else "lower", source.evidence)
    safe = lower_float(low)
    return Constant(
        safe,
        "exact" if is_number and exact(safe) == low and source.side == "exact" else "lower",
        source.evidence,
    )


rsi = restricted_secant
pl = polyak_lojasiewicz
kl = kurdyka_lojasiewicz

__all__ = [
    "convex", "kl", "kurdyka_lojasiewicz", "one_point_convex", "pl",
    "polyak_lojasiewicz", "quasar_convex", "restricted_secant", "rsi", "star_convex", "strongly_convex",
]  # fmt: skip
