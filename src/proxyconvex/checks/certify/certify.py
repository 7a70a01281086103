"""Certify a reduced condition: a proof by boxes that others can check, a counterexample, or what remains open."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InvalidInputError
from ...core.expressions import Expression, rational
from ...core.intervals import lower_float, upper_float
from ...core.reduced import ReducedCondition
from ..intervals.arrays import Own, arithmetic
from . import verdict
from .program import Program
from .rewrite import Plan, plans
from .search import MAX_DIMENSION, Limits, Progress, State, Task, on_dask, search, serial, threads
from .verdict import Certification

SOLVERS = ("auto", "boxes", "z3")
ROUNDS = (3_000, 100_000)
"""Box budgets of the first rounds, in which every way to write the residual gets its chance."""


@dataclass(frozen=True)
class Problem:
    """A condition ready for branch and bound.

    Attributes:
        condition: the condition.
        delta: what is proved is ``slack >= -delta``.
        lo: lower ends of the ranges, rounded outward, shape (1, d).
        hi: upper ends.
        arithmetic: interval arithmetic.
    """

    condition: ReducedCondition
    delta: Fraction
    lo: np.ndarray
    hi: np.ndarray
    arithmetic: Own

    @classmethod
    def make(cls, condition: Any, delta: Any, name: str) -> Problem:
        """Check the arguments.

        Raises:
            InvalidInputError: if the condition is not a reduced one in at most six variables, or delta is negative.
        """
        if not isinstance(condition, ReducedCondition):
            raise InvalidInputError(
                "condition", condition, "a reduced condition in at most 6 bounded variables",
                "Write it as ProxyConvexity.pointwise(...) or reduced(...); full conditions on parameters can be searched for "
                "counterexamples (falsify), not certified by boxes.",
            )  # fmt: skip
        if condition.dimension > MAX_DIMENSION:
            raise InvalidInputError("number of variables", condition.dimension, f"at most {MAX_DIMENSION}")
        gap = rational("delta", delta)
        if gap < 0:
            raise InvalidInputError("delta", delta, "a number >= 0")
        ranges = condition.variables.values()
        lo = np.array([[lower_float(a) for a, _ in ranges]])
        hi = np.array([[upper_float(b) for _, b in ranges]])
        return cls(condition, gap, lo, hi, arithmetic(name))

    @property
    def relaxed(self) -> ReducedCondition:
        """The condition with ``slack + delta`` in place of the slack."""
        c = self.condition
        if not self.delta:
            return c
        return ReducedCondition(
            c.expression + self.delta, c.variables, c.constants, c.activation, c.name, c.lift, c.curve
        )

    def forms(self, most: int = 3) -> list[Plan | None]:
        """Ways to write the residual, the most promising first; None is the slack as it stands."""

        def nonnegative(e: Expression) -> bool:
            low = Program([e], list(self.condition.variables), self.arithmetic).values(self.lo, self.hi)[0][0]
            return bool(low[0] >= 0)

        return [*plans(self.relaxed, nonnegative)[:most], None]

    def task(self, plan: Plan | None) -> Task:
        """The branch and bound for one way to write the residual."""
        names = list(self.condition.variables)
        required = None if plan is None else plan.requirements
        return Task.make(self.relaxed.closed, required, names, (self.hi - self.lo)[0], self.arithmetic)


def certify(
    condition: ReducedCondition,
    *,
    seconds: float = 60.0,
    max_boxes: int = 20_000_000,
    delta: Any = 0,
    jobs: int = 1,
    scheduler: Any = None,
    arithmetic: str = "own",
    solver: str = "auto",
    progress: bool | Callable[[Progress], None] = False,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Certification:
    """Prove or refute ``slack >= 0`` on the whole region of a reduced condition, equality included.

    Example:
        >>> from proxyconvex.core.reduced import reduced
        >>> cond = reduced(lambda a, b, s: (s(a) - s(b)) * (a - b), activation="tanh", a=(-4, 4), b=(-4, 4))
        >>> certify(cond).status.name
        'HOLDS'

    Args:
        condition: at most six variables.
        seconds: time budget.
        max_boxes: box budget.
        delta: prove ``slack >= -delta`` instead.
        jobs: threads. On chunks of this size they mostly wait for each other (two took 2.6 times as long as one when measured on two
            cores), so for more speed use processes: ``scheduler``.
        scheduler: a Dask client or scheduler address to run on instead.
        arithmetic: ``"own"`` or ``"crival"`` (a package to install).
        solver: ``"boxes"``; ``"z3"`` for conditions made of ring operations, relu, step, abs, max and min (a package to
            install; exact, but its proof cannot be checked again); ``"auto"``: boxes, and z3 where it applies and boxes alone are slow.
        progress: True for a line on standard error, or a function that receives a `Progress` after every chunk.
        checkpoint: a file that keeps the state; an interrupted call with the same arguments continues from it.

    Returns:
        HOLDS with a certificate to `write`, FALSIFIED with a confirmed counterexample, or INCONCLUSIVE with the worst open box and the
        delta for which ``slack >= -delta`` is proved.

    Raises:
        InvalidInputError: for arguments that cannot be used.
    """
    if solver not in SOLVERS:
        raise InvalidInputError("solver", solver, ", ".join(SOLVERS))
    if not seconds > 0 or not max_boxes >= 1:
        raise InvalidInputError("budget", (seconds, max_boxes), "seconds > 0 and max_boxes >= 1")
    problem = Problem.make(condition, delta, arithmetic)
    started = time.perf_counter()
    if solver == "z3":
        from .z3 import decide

        return decide(condition, seconds, problem.delta, required=True)
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InvalidInputError("jobs", jobs, "a whole number >= 1")
    runner = on_dask(scheduler) if scheduler is not None else threads(jobs) if jobs > 1 else serial
    report, finish = _reporter(progress)
    try:
        return _run(problem, started, seconds, max_boxes, runner, report, solver, checkpoint)
    finally:
        finish()


def _run(problem, started, seconds, max_boxes, runner, report, solver, checkpoint) -> Certification:
    """Every form in turn with growing budgets; z3 between the rounds where it applies."""
    forms = problem.forms()
    path = None if checkpoint is None else Path(checkpoint)
    key = _key(problem)
    resumed = None if path is None else State.load(path, key)
    states = {0: resumed} if resumed is not None else {}
    tasks = {i: problem.task(plan) for i, plan in enumerate(forms)}
    asked_z3 = solver != "auto"
    for limit in (*ROUNDS, max_boxes):
        final = limit == max_boxes
        for i, plan in enumerate(forms):
            state = states.setdefault(i, State(problem.lo, problem.hi))
            left = seconds - (time.perf_counter() - started)
            if left <= 0:
                break
            keep = path if i == 0 else None
            # The last form gets what the others leave; while there are several, they share the time.
            share = left / (len(forms) - i) if final else left
            search(tasks[i], state, Limits(share, min(limit, max_boxes), runner, report, keep, key))
            if (done := _conclude(problem, plan, state)) is not None:
                return done
        if not asked_z3:
            from .z3 import applies, decide

            asked_z3 = True
            if applies(problem.condition):
                found = decide(
                    problem.condition,
                    max(1.0, 0.5 * (seconds - (time.perf_counter() - started))),
                    problem.delta,
                )
                if found is not None:
                    return found
    best = max(states, key=lambda i: _floor(problem, states[i])[0])
    floor, box = _floor(problem, states[best])
    return verdict.undecided(problem.condition, states[best], floor, box)


def _conclude(problem: Problem, plan: Plan | None, state: State) -> Certification | None:
    if state.witness is not None:
        point = verdict.simple_witness(problem.relaxed, state.witness)
        if point is not None:
            return verdict.falsified(problem.relaxed, point, state.boxes, state.seconds, "branch and bound")
        state.witness = None
    if not len(state.lo):
        return verdict.holds(problem.condition, plan, state, problem.delta)
    return None


def _floor(problem: Problem, state: State) -> tuple[float, list[tuple[float, float]] | None]:
    """A proved lower bound on the slack over the whole region, from its open boxes, and the box where it is attained."""
    program = Program([problem.condition.closed], list(problem.condition.variables), problem.arithmetic)
    worst, box = 0.0 if not problem.delta else -float(problem.delta), None
    for start in range(0, len(state.lo), 4096):
        lo, hi = state.lo[start : start + 4096], state.hi[start : start + 4096]
        low = program.centred(lo, hi)[0][0]
        low = np.where(np.isnan(low), -np.inf, low)
        i = int(np.argmin(low))
        if box is None or low[i] < worst:
            worst, box = min(worst, float(low[i])), list(zip(lo[i].tolist(), hi[i].tolist(), strict=True))
    return worst, box


def _key(problem: Problem) -> str:
    """What a checkpoint belongs to."""
    data = {**problem.condition.to_dict(), "delta": str(problem.delta), "arithmetic": problem.arithmetic.name}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _reporter(
    progress: bool | Callable[[Progress], None],
) -> tuple[Callable[[Progress], None] | None, Callable[[], None]]:
    """The function to call with progress, and one to call at the end."""
    if callable(progress):
        return progress, lambda: None
    if not progress:
        return None, lambda: None
    last, shown = [0.0], [False]

    def report(p: Progress) -> None:
        now = time.perf_counter()
        if now - last[0] > 0.2:
            last[0], shown[0] = now, True
            print(f"\r\033[K{p}", end="", file=sys.stderr, flush=True)

    def finish() -> None:
        if shown[0]:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    return report, finish


def tightest(condition: ReducedCondition, name: str, **options: Any) -> Any:
    """The best value of a constant for which the condition is certified; see `tightest.tightest`."""
    from .tightest import tightest as find

    return find(condition, name, **options)
