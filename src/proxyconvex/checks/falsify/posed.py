"""The search problem that a condition poses."""

from __future__ import annotations

from typing import Any

from ...core.errors import InvalidInputError
from ...core.premises import Premise
from ...core.reduced import ReducedCondition
from .problem import Problem


def problem_of(condition: Premise | ReducedCondition, like: Any = None) -> Problem:
    """The search problem of a condition.

    Raises:
        InvalidInputError: for anything that is not a condition.
    """
    if isinstance(condition, ReducedCondition):
        from .reduced import ReducedProblem

        return ReducedProblem(condition)
    if isinstance(condition, Premise):
        from .parameters import ParameterProblem

        return ParameterProblem(condition, like)
    raise InvalidInputError(
        "condition",
        condition,
        "a condition such as pc.ProxyConvexity(...), or a reduced one from .pointwise(...)",
    )
