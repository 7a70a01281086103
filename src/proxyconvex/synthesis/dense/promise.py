"""Promises that rest on what a run will show: "if, along the run, ..., then ...".

Nothing uniform on a region is proved here about the network, so the premises about the run are ASSUMED before training; the audit
measures each of them at every step, and where they held the same theorem is a statement about that run (ON_TRACE). What the planner
chooses (comparator, margins with a reserve, step, T) decides how easily the premises will hold, not whether the implication is true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import rounding
from proxyconvex_checker.decimals import show
from proxyconvex_checker.rounding import to_float_up

from ...core.evidence import Evidence
from ...core.guarantee import Guarantee, PremiseRecord
from ...core.references import PROXYCONVEX_NOTES


@dataclass(frozen=True, eq=False)
class Promise:
    """A conditional promise, ready to become a plan.

    Attributes:
        guarantee: the implication.
        consequence: what follows where the premises hold.
        comparator: V, flat.
        proxy: keyword arguments of `DenseFamily.problem`.
        derived: the numbers the audit compares the run with.
    """

    guarantee: Guarantee
    consequence: str
    comparator: Float[np.ndarray, " p"]
    proxy: dict
    derived: dict[str, float]


def distance_upper(a: np.ndarray, b: np.ndarray) -> float:
    """Upper bound on ``||a - b||``."""
    gap = np.maximum(np.abs(rounding.sub_up(a, b)), np.abs(rounding.sub_down(a, b)))
    return float(to_float_up(rounding.norm_upper(gap))) if gap.any() else 0.0


def assumed(name: str, statement: str, value: float | None = None) -> PremiseRecord:
    """A premise about the run, not known before it."""
    return PremiseRecord(name, statement, Evidence.ASSUMED, PROXYCONVEX_NOTES, value)


def start_premise(distance: float) -> PremiseRecord:
    """``||w_0 - V|| <= R``, computed with outward rounding."""
    return PremiseRecord(
        "start-distance", f"The initial weights are within R = {show(distance)} of the comparator V.",
        Evidence.CERTIFIED, PROXYCONVEX_NOTES, distance,
    )  # fmt: skip


def percent(fraction: float) -> str:
    """A promised fraction as a percentage, rounded up."""
    return show(100 * fraction, digits=3) + "%"


@dataclass(frozen=True, eq=False)
class Line:
    """A unit direction from w0, with the margins at w0 and the share of their growth along it that is asked for.

    Attributes:
        unit: the direction.
        first: margins at w0, shape (n,) or (n, classes).
        held: what each margin is to gain per unit of distance.
        typical: the median gain per unit of distance at w0.
    """

    unit: Float[np.ndarray, " p"]
    first: np.ndarray
    held: np.ndarray
    typical: float

    def margins(self, radius: float) -> np.ndarray:
        """Margins asked for against the comparator at this distance from w0."""
        return self.first + radius * self.held
