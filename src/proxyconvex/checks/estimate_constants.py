"""The named constants of conditions: which way each weakens, and the best value that a point allows."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.conditions import BoundedBelow, GradientGrowth, Noise, ProxyConvexity, ProxyPL, Smooth
from ..core.errors import InvalidInputError
from ..core.premises import Constant, Premise
from .falsify.parameters import ParameterProblem

# +1: a larger constant is the stronger claim. 0: neither (each point allows an interval of exponents).
if TYPE_CHECKING:
    from jaxtyping import Float

STRONGER: dict[type[Premise], dict[str, int]] = {
    ProxyConvexity: {"h": -1},
    ProxyPL: {"mu": 1, "xi": -1, "alpha": 0},
    Smooth: {"L": -1},
    BoundedBelow: {"f_star": 1},
    GradientGrowth: {"A": -1, "C": -1},
    Noise: {"rho": -1, "sigma2": -1},
}
# What must stay positive (or not negative) when the search weakens or strengthens it.
POSITIVE = ("mu", "alpha", "L")
NON_NEGATIVE = ("A", "C", "rho", "sigma2")


def checked_name(condition: Premise, name: str) -> str:
    """The name of a constant of a condition (``B`` stands for the ``C`` of gradient growth).

    Raises:
        InvalidInputError: if the condition has no such constant, or it is not a number.
    """
    known = STRONGER.get(type(condition), {})
    if name == "B" and isinstance(condition, GradientGrowth):
        name = "C"
    if name not in known:
        accepted = ", ".join(known) or "none: this condition has no constant to move"
        raise InvalidInputError("constant", name, accepted)
    if not isinstance(getattr(condition, name), Constant):
        raise InvalidInputError(
            "constant", name, "a constant that is a number", f"Here {name} is a function."
        )
    return name


def value_of(condition: Premise, name: str) -> float:
    """The constant as a float."""
    return float(getattr(condition, name))


def with_value(condition: Premise, name: str, value: float) -> Premise:
    """The same condition with another value of one constant."""
    return dataclasses.replace(condition, **{name: float(value)})  # type: ignore[type-var]


def moving_problem(condition: Premise, name: str, like: Any) -> ParameterProblem:
    """The search problem with a constant that moves without compiling again (every constant but the exponent)."""
    return ParameterProblem(
        condition, like, (with_value(condition, name, 1.0), with_value(condition, name, 2.0))
    )


def critical_values(
    condition: Premise, name: str, points: Float[np.ndarray, "n p"], like: Any = None
) -> Float[np.ndarray, " n"]:
    """The value of a constant at which the slack of each point is zero (NaN where the point says nothing).

    The slack is affine in every constant but the exponent: two evaluations give the root. For the exponent,
    ``alpha = log((mu/2)(g - xi)) / log ||grad f||`` is found by bisection.
    """
    if name == "alpha":
        return np.array([_critical_alpha(condition, x, like) for x in points])
    problem = moving_problem(condition, name, like)
    first, second = (problem.at(condition, value).values(points).slack for value in (1.0, 2.0))
    with np.errstate(all="ignore"):
        slope = second - first
        root = 1.0 - first / slope
    expected = STRONGER[type(condition)][name] * slope < 0  # a stronger claim has less slack
    return np.where(np.isfinite(root) & expected, root, np.nan)


def critical_value(
    condition: Premise, name: str, arguments: tuple[Any, ...], low: float, high: float
) -> float:
    """As `critical_values`, for one point and without compilation; ``low`` and ``high`` bracket an exponent."""
    if name != "alpha":
        first, second = (float(with_value(condition, name, v).slack(*arguments)) for v in (1.0, 2.0))
        return 1.0 - first / (second - first) if second != first else math.nan
    return _bisect(lambda a: float(with_value(condition, "alpha", a).slack(*arguments)), low, high)


def _critical_alpha(condition: Premise, x: Float[np.ndarray, " p"], like: Any) -> float:
    problem = ParameterProblem(condition, like)
    arguments = problem.points_of(x)
    return _bisect(lambda a: float(with_value(condition, "alpha", a).slack(*arguments)), 1e-3, 64.0)


def _bisect(slack: Any, low: float, high: float) -> float:
    at_low, at_high = slack(low), slack(high)
    if not (at_low >= 0) ^ (at_high >= 0):
        return math.nan
    for _ in range(40):
        middle = (low + high) / 2
        if (slack(middle) >= 0) == (at_low >= 0):
            low = middle
        else:
            high = middle
    return (low + high) / 2
