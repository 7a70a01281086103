"""A condition whose best constant is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...core.premises import Premise
from ...core.reduced import ReducedCondition

Condition = Premise | ReducedCondition


@dataclass(frozen=True)
class Specimen:
    """One condition with a constant.

    Attributes:
        name: what it is.
        family: "classical", "side", "U", "F1" to "F6" or "reduced".
        make: the condition with a given value of the constant.
        truth: the best value.
        upward: whether a larger constant is the stronger claim (false beyond the truth); otherwise a smaller one is.
        why: where the truth comes from.
        like: a point with the shape of the parameters, where the condition does not show it.
        accuracy: relative accuracy to which the truth is known.
    """

    name: str
    family: str
    make: Callable[[float], Condition]
    truth: float
    upward: bool
    why: str
    like: Any = None
    accuracy: float = 1e-9

    def at(self, distance: float) -> Condition:
        """The claim that is a relative ``distance`` stronger than the truth (weaker if negative)."""
        return self.make(self.truth + (distance if self.upward else -distance) * abs(self.truth))

    def planted(self) -> Condition:
        """False: one percent beyond the truth."""
        return self.at(0.01)

    def true(self) -> Condition:
        """True: at the truth, less its accuracy."""
        return self.at(-self.accuracy)
