"""The smallest C of a single neuron that holds for *every* row on a range, by certification of a pointwise inequality.

For ``a, b, y`` in given intervals, ``s'(a) (s(a) - y)(a - b) >= alpha (s(a) - y)^2 - alpha C (s(b) - y)^2`` lifts, by the mean over
rows, to proxy convexity with ``g = alpha risk(w)`` and ``h = alpha C risk(v)`` for all data and dimensions on that range; growth
is ``(lambda_max L^2 / alpha, 0)``. This C is larger than the one of a plan, which uses each row's own b and y.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import InvalidInputError
from ..core.intervals import lower_float, upper_float
from ..core.reduced import ReducedCondition, reduced
from ..families.links import Link

if TYPE_CHECKING:
    from ..checks.certify.tightest import Bracket
    from .plan_types import Plan

ALPHAS = (Fraction(1, 8), Fraction(1, 5), Fraction(1, 4), Fraction(3, 10), Fraction(3, 8))
Interval = tuple[float, float]


@dataclass(frozen=True)
class RangeConstant:
    """The smallest C that was certified on a range.

    Attributes:
        C: certified.
        refuted: a smaller value with a counterexample at the same alpha.
        alpha: factor of the risk, the best of those tried.
        a: interval of ``<w, x>``.
        b: interval of ``<v, x>``.
        y: interval of the targets.
    """

    C: float
    refuted: float
    alpha: float
    a: Interval
    b: Interval
    y: Interval


def condition(link: Link, a: Interval, b: Interval, y: Interval, alpha: Any, C: Any = 4) -> ReducedCondition:
    """The pointwise inequality as a reduced condition, for the activation with ``beta = 1`` on scaled intervals.

    ``s_beta(t) = s(beta t)`` leaves ``s'(a) (a - b)`` unchanged when a and b are scaled by beta; softplus, ``s(beta t)/beta``, also
    scales y.

    Raises:
        InvalidInputError: for a custom activation; write its condition with `proxyconvex.reduced`.
    """
    if link.name == "custom":
        raise InvalidInputError(
            "activation", "custom", "a named activation", "Write it with proxyconvex.reduced."
        )
    name = f"leaky-relu:{Fraction(link.slope)}" if link.name == "leaky-relu" else link.name
    beta = Fraction(link.beta) if link.name in ("sigmoid", "tanh", "softplus") else Fraction(1)

    def scaled(interval: Interval, factor: Fraction) -> tuple[Fraction, Fraction]:
        return Fraction(interval[0]) * factor, Fraction(interval[1]) * factor

    return reduced(
        lambda a, b, y, s, ds, C, alpha: (
            ds(a) * (s(a) - y) * (a - b) - alpha * (s(a) - y) ** 2 + C * alpha * (s(b) - y) ** 2
        ),
        activation=name,
        a=scaled(a, beta),
        b=scaled(b, beta),
        y=scaled(y, beta if link.name == "softplus" else Fraction(1)),
        C=C,
        alpha=alpha,
    )


def range_constant(plan: Plan, alphas: Iterable[Any] = ALPHAS, seconds: float = 5.0) -> RangeConstant:
    """The smallest C certified on the range of a plan's data: every a the ball allows, every b and y between the extremes.

    Args:
        plan: a plan of `single-neuron`.
        alphas: factors of the risk to try.
        seconds: time for each of them.

    Raises:
        InvalidInputError: for a plan of another family, or if nothing is certified (a slope that vanishes on the range).
    """
    link = getattr(plan.family, "activation", None)
    if not isinstance(link, Link):
        raise InvalidInputError("plan", plan.family.name, "a plan of the family single-neuron")
    from ..checks.certify.tightest import tightest

    b = plan.features @ plan.comparator[0]
    reach = plan.derived["R"] * float(np.linalg.norm(plan.features, axis=1).max())
    wide = 1e-9 * (1 + reach + float(np.abs(b).max()))  # more than the rounding of these numbers
    inner = (float(b.min()) - wide, float(b.max()) + wide)
    outer = (inner[0] - reach, inner[1] + reach)
    y = (float(plan.targets.min()), float(plan.targets.max()))
    found: list[tuple[float, Bracket, Fraction]] = []
    for alpha in alphas:
        bracket = tightest(condition(link, outer, inner, y, alpha), "C", seconds=seconds)
        if bracket.certified is not None:
            found.append((upper_float(bracket.certified), bracket, Fraction(alpha)))
    if not found:
        raise InvalidInputError(
            "activation",
            link.name,
            "a slope bounded away from 0 on the range",
            "No C was certified; try leaky-relu.",
        )
    value, bracket, alpha = min(found, key=lambda one: one[0])
    refuted = lower_float(bracket.refuted) if bracket.refuted is not None else 0.0
    return RangeConstant(value, refuted, float(alpha), outer, inner, y)
