"""Run a plan: train exactly what the promise speaks of and record what its premises need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import InvalidInputError
from ..core.methods import GradientDescent
from ..descent.run import train, train_many
from .plan_types import Plan

if TYPE_CHECKING:
    from ..descent.trace import Trace


def run(
    plan: Plan,
    *,
    seed: int | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    record_every: int | None = None,
) -> Trace:
    """Train the planned network with the planned method.

    Args:
        plan: what to train.
        seed: sampling seed of SGD; the plan's own by default. Full-batch descent has no randomness.
        progress: show a progress bar on standard error.
        checkpoint: file to save progress in after every chunk of steps, so that nothing is lost on Ctrl-C.
        resume: continue from that file; the final result has the same bytes as an uninterrupted run.
        record_every: full-data record spacing in steps; about 2000 records by default.

    Returns:
        The trace of the run.
    """
    return train(
        plan.problem(),
        plan.initial,
        plan.method,
        seed=plan.seed if seed is None else seed,
        # A conditional promise is judged at every step.
        record_every=1 if record_every is None and plan.conditional else record_every,
        progress=progress,
        checkpoint=checkpoint,
        resume=resume,
    )


def run_seeds(plan: Plan, seeds: Sequence[int], *, progress: bool = False) -> list[Trace]:
    """Train once per sampling seed, all seeds at once.

    Raises:
        InvalidInputError: for full-batch descent, which has no sampling seed.
    """
    require_seeds(plan, len(seeds) + 1)
    return train_many(plan.problem(), plan.initial, plan.method, seeds=list(seeds), progress=progress)


def require_seeds(plan: Plan, runs: int) -> None:
    """Refuse several runs of a method without randomness.

    Args:
        plan: the plan.
        runs: number of runs asked for.

    Raises:
        InvalidInputError: for full-batch descent, which has no sampling seed.
    """
    if isinstance(plan.method, GradientDescent):
        raise InvalidInputError(
            "runs",
            runs,
            "one run, because full-batch gradient descent has no randomness after initialisation",
            "Plan again with another --seed to change the initial weights.",
        )
