"""What is proved when the budget is spent: a lower bound on the slack over the whole region, from the boxes still open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..deadline import Deadline
from .boxes import rows_for
from .program import Program
from .search import State

Box = list[tuple[float, float]]


@dataclass(frozen=True)
class Floor:
    """A proved bound.

    Attributes:
        value: the slack is at least this on the whole region; at most 0, minus infinity if nothing is known.
        box: the open box where the bound is attained.
        state: the branch and bound that it comes from.
    """

    value: float
    box: Box | None
    state: State


def floor_of(program: Program, state: State, until: Deadline) -> Floor:
    """The bound from one branch and bound: closed boxes give 0, an open one what its parent gave or, better, its mean-value form.

    The boxes with the lowest bounds are looked at first, so that the bound is as good as the time allows and no look is wasted: once
    the lowest is one that was looked at, the others cannot improve it. A first chunk is looked at in any case.

    Args:
        program: the slack.
        state: where the branch and bound stands.
        until: when to stop looking.
    """
    n, rows = len(state.open), rows_for(len(program.order))
    below = np.full(n, -np.inf) if state.below is None else state.below.copy()
    order = np.argsort(below, kind="stable")
    for start in range(0, n, rows):
        if start and (until.over or below[order[:start]].min() <= below[order[start]]):
            break
        some = order[start : start + rows]
        part = state.open.part(some)
        low = program.centred(part.lo, part.hi)[0][0]
        below[some] = np.fmax(below[some], np.where(np.isnan(low), -np.inf, low))
    i = int(np.argmin(below))
    return Floor(min(0.0, float(below[i])), state.open.corners(i), state)


def best_floor(program: Program, states: Iterable[State], until: Deadline) -> Floor:
    """The best bound of several ways to prove the same; those that know something already and have few open boxes come first."""
    ranked = sorted(states, key=lambda s: (s.below is None, len(s.open)))
    found = [
        floor_of(program, state, until.part(1 / (len(ranked) - k)))
        for k, state in enumerate(ranked)
        if not k or not until.over
    ]
    return max(found, key=lambda one: one.value)
