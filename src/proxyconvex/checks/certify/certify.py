"""Certify a condition: a proof by boxes that others can check, a counterexample, or what remains open."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InvalidInputError
from ...core.expressions import Expression, names, rational, topological
from ...core.intervals import lower_float, upper_float
from ...core.premises import Premise
from ...core.reduced import ReducedCondition
from .. import deadline
from ..deadline import NEVER, Deadline, OutOfTime
from ..intervals.arrays import Own
from ..intervals.choose import arithmetic
from . import polynomials, verdict
from .boxes import CENTRED, Task
from .floor import best_floor
from .program import Program
from .rewrite import plans
from .search import MAX_DIMENSION, Limits, Progress, State, on_dask, search, serial
from .vanish import segments
from .verdict import Certification
from .ways import Way
from .workers import Workers

if TYPE_CHECKING:
    from ..weights.conditions import NetworkVerdict

SOLVERS = ("auto", "boxes", "z3")
ROUNDS = (3_000, 100_000)
"""Box budgets of the first rounds, in which every way to write the residual gets its chance."""
RESERVED = 0.1
"""Share of the time that is kept for the bound on the slack over the boxes that stay open."""
PREPARING = 0.3
"""Share that looking for ways may take."""


@dataclass(frozen=True)
class Problem:
    """A condition ready for branch and bound.

    Attributes:
        condition: the condition; for smoothness, its expression is f itself.
        delta: what is proved is ``slack >= -delta``.
        lo: lower ends of the ranges, rounded outward, shape (1, d).
        hi: upper ends.
        arithmetic: interval arithmetic.
        smoothness: L, if the claim is that f is L-smooth.
        hints: values of variables at which the slack may vanish to second order.
    """

    condition: ReducedCondition
    delta: Fraction
    lo: np.ndarray
    hi: np.ndarray
    arithmetic: Own
    smoothness: Fraction | None = None
    hints: tuple[dict[str, Expression], ...] = ()

    @classmethod
    def make(
        cls, condition: Any, delta: Any, name: str, smoothness: Fraction | None = None, hints: tuple[dict[str, Expression], ...] = ()
    ) -> Problem:  # fmt: skip
        """Check the arguments.

        Raises:
            InvalidInputError: if the condition is not a reduced one in at most six variables, or delta is negative.
        """
        if not isinstance(condition, ReducedCondition):
            raise InvalidInputError(
                "condition", condition, "a reduced condition in at most 6 bounded variables, or a condition on parameters",
                "Write it as pc.ProxyConvexity(...), pc.ProxyPL(...), pc.Smooth(...) or pc.ProxyConvexity.pointwise(...).",
            )  # fmt: skip
        if condition.dimension > MAX_DIMENSION:
            raise InvalidInputError("number of variables", condition.dimension, f"at most {MAX_DIMENSION}")
        gap = rational("delta", delta)
        if gap < 0 or (gap and smoothness is not None):
            raise InvalidInputError(
                "delta", delta, "a number >= 0 (0 for smoothness: give a larger L instead)"
            )
        ranges = condition.variables.values()
        lo = np.array([[lower_float(a) for a, _ in ranges]])
        hi = np.array([[upper_float(b) for _, b in ranges]])
        return cls(condition, gap, lo, hi, arithmetic(name), smoothness, hints)

    @property
    def relaxed(self) -> ReducedCondition:
        """The condition with ``slack + delta`` in place of the slack."""
        return self.condition.raised(self.delta)

    def ways(self, until: Deadline | None = None, most: int = 3) -> list[Way]:
        """Ways to prove it that are cheap to find, the most promising first; the last is the slack as it stands.

        Args:
            until: when to stop looking for others than the last.
            most: how many quadratic forms.
        """
        until = until or NEVER
        if self.smoothness is not None:
            return [Way()]
        if self.hints:
            return [*self.curved_ways(until), Way()]

        def nonnegative(e: Expression) -> bool:
            if not names(e) <= set(self.condition.variables):
                return False  # t or r, whose sign is not known
            low = Program([e], list(self.condition.variables), self.arithmetic).values(self.lo, self.hi)[0][0]
            return bool(low[0] >= 0)

        return [*(Way(plan) for plan in plans(self.relaxed, nonnegative, until)[:most]), Way()]

    def curved_ways(self, until: Deadline | None = None) -> list[Way]:
        """Ways with second derivatives where the slack vanishes to second order, and with the slack written as a polynomial."""
        if self.smoothness is not None:
            return []
        until = until or NEVER
        expanded = None if until.over else self._expanded()
        found = [Way(segment=s) for s in segments(self.relaxed, self.hints, until)]
        if expanded is not None:
            found += [Way(rewritten=expanded, segment=found[0].segment if found else None)]
        return found

    def _expanded(self) -> Expression | None:
        """The slack as a polynomial in function values, where terms cancel; None where it is long or the same."""
        e = self.relaxed.closed
        if len(topological(e)) > 600:
            return None
        try:
            written = polynomials.expression(polynomials.polynomial(e))
        except InvalidInputError:
            return None
        return None if written == e or len(topological(written)) > 1_500 else written

    def task(self, way: Way) -> Task:
        """The branch and bound for one way."""
        names, domain = list(self.condition.variables), self.condition.domain
        return Task.make(
            self.relaxed.closed, way, names, self.lo, self.hi, self.arithmetic, domain, self.smoothness
        )


def certify(
    condition: Premise | ReducedCondition,
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
    like: Any = None,
    comparator: str = "fixed",
    name: str = "",
) -> Certification | NetworkVerdict:
    """Prove or refute a condition on its whole region, equality included.

    Example:
        >>> from proxyconvex.core.reduced import reduced
        >>> cond = reduced(lambda a, b, s: (s(a) - s(b)) * (a - b), activation="tanh", a=(-4, 4), b=(-4, 4))
        >>> certify(cond).status.name
        'HOLDS'

    Args:
        condition: a reduced condition in at most six variables, or a condition on at most six parameters in a bounded region (a
            ball, a box, per-neuron balls, products and intersections of them), whose functions JAX can trace; or a condition on
            ``space.loss`` of a `WeightSpace`, of any size, which its bounds certify.
        seconds: time budget of the whole call, translation and the bound on what stays open included; a piece of work once begun is
            finished.
        max_boxes: box budget.
        delta: prove ``slack >= -delta`` instead.
        jobs: number of processes for levels of many boxes (1: none). They load while the search goes on here; results do not depend on them.
        scheduler: a Dask client or scheduler address to run on instead.
        arithmetic: ``"own"`` or ``"crival"`` (a package to install).
        solver: ``"boxes"``; ``"z3"`` for conditions made of ring operations, relu, step, abs, max and min (a package to
            install; exact, but its proof cannot be checked again); ``"auto"``: boxes, and z3 where it applies and boxes alone are slow.
        progress: True for a line on standard error, or a function that receives a `Progress` after every chunk.
        checkpoint: a file that keeps the state; an interrupted call with the same arguments continues from it.
        like: for a condition on parameters: a point of the right shape, where neither a comparator nor the region shows it.
        comparator: for proxy convexity on parameters: ``"fixed"``, or ``"region"`` to let v range over the region as well (its
            coordinates are then variables, too).
        name: what to call a condition on parameters in the certificate.

    Returns:
        HOLDS with a certificate to `write`, FALSIFIED with a confirmed counterexample, or INCONCLUSIVE with the worst open box and the
        smallest delta found for which ``slack >= -delta`` is proved (which can be written, too), or with the reason why the condition cannot be certified.

    Raises:
        InvalidInputError: for arguments that cannot be used.
    """
    _check_options(solver, seconds, max_boxes, jobs, comparator)
    until = Deadline.after(seconds)
    if isinstance(condition, Premise):
        from ..weights.network_of import network_of

        if network_of(condition) is not None:
            from ..weights.conditions import certify_network

            return certify_network(condition)
        from ..translate.condition import NotCertifiable, translate

        try:
            made = translate(condition, like, comparator == "region", name, until)
        except NotCertifiable as reason:
            return verdict.not_certifiable(str(reason))
        except OutOfTime:
            return verdict.not_certifiable(
                f"the budget of {seconds:.3g} s was spent on writing the formula down"
            )
        problem = Problem.make(made.reduced, delta, arithmetic, made.smoothness, made.zeros)
    else:
        problem = Problem.make(condition, delta, arithmetic)
    if solver == "z3":
        if problem.smoothness is not None:
            raise InvalidInputError(
                "solver", solver, "'auto' or 'boxes' for smoothness", "z3 decides inequalities only."
            )
        from .z3 import decide

        return decide(problem.condition, max(1.0, until.left), problem.delta, required=True)
    workers = Workers(jobs)
    runner = on_dask(scheduler) if scheduler is not None else workers if jobs > 1 else serial
    report, finish = _reporter(progress)
    run = _Run(
        problem,
        until,
        max_boxes,
        runner,
        report,
        solver,
        None if checkpoint is None else Path(checkpoint),
    )
    try:
        return run()
    finally:
        finish()
        workers.close()


def _check_options(solver: str, seconds: float, max_boxes: int, jobs: int, comparator: str) -> None:
    if solver not in SOLVERS:
        raise InvalidInputError("solver", solver, ", ".join(SOLVERS))
    if not seconds > 0 or not max_boxes >= 1:
        raise InvalidInputError("budget", (seconds, max_boxes), "seconds > 0 and max_boxes >= 1")
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InvalidInputError("jobs", jobs, "a whole number >= 1")
    if comparator not in ("fixed", "region"):
        raise InvalidInputError("comparator", comparator, "'fixed' or 'region'")


@dataclass
class _Run:
    """Every way in turn with growing budgets; z3 between the rounds where it applies."""

    problem: Problem
    until: Deadline
    max_boxes: int
    runner: Any
    report: Any
    solver: str
    path: Path | None

    def __post_init__(self) -> None:
        self.searching = self.until.part(1 - RESERVED)
        self.ways = self.problem.ways(self.searching.part(PREPARING))
        self.tasks = [self.problem.task(way) for way in self.ways]
        self.key = _key(self.problem)
        resumed = None if self.path is None else State.load(self.path, self.key)
        self.states = {0: resumed} if resumed is not None else {}

    def __call__(self) -> Certification:
        """The verdict."""
        for number, limit in enumerate((*ROUNDS, self.max_boxes)):
            if (done := self._round(limit, limit == self.max_boxes)) is not None:
                return done
            if number == 0:
                done = self._add_ways()
                done = self._by_z3() if done is None else done
                if done is not None:
                    return done
        if self.problem.smoothness is not None:
            floor, box = self.states[0].worst or (-np.inf, None)
            return verdict.undecided_smoothness(
                self.problem.condition, self.states[0], self.problem.smoothness, floor, box
            )
        program = Program(
            [self.problem.relaxed.closed], list(self.problem.condition.variables), self.problem.arithmetic
        )
        best = best_floor(program, self.states.values(), self.until)
        way = next(self.ways[i] for i, state in self.states.items() if state is best.state)
        if best.value >= 0:  # the bounds on the open boxes close them all
            closed = replace(
                best.state, tree=[*best.state.tree, np.full(len(best.state.open), CENTRED, np.uint8)]
            )
            return verdict.holds(self.problem.condition, way, closed, self.problem.delta)
        return verdict.undecided(self.problem.condition, way, best, self.problem.delta)

    def _round(self, limit: int, final: bool) -> Certification | None:
        for i, way in enumerate(self.ways):
            state = self.states.setdefault(i, State.whole(self.problem.lo, self.problem.hi))
            left = self.searching.left
            if left <= 0:
                break
            keep = self.path if i == 0 else None
            # The last way gets what the others leave; while there are several, they share the time.
            share = left / (len(self.ways) - i) if final else left
            search(
                self.tasks[i],
                state,
                Limits(share, min(limit, self.max_boxes), self.runner, self.report, keep, self.key),
            )
            if (done := _conclude(self.problem, way, state)) is not None:
                return done
        return None

    def _add_ways(self) -> Certification | None:
        """The ways that take time to find; those with a parameter condition's hints are there already."""
        if self.problem.hints or self.searching.over:
            return None
        for way in self.problem.curved_ways(self.searching.part(PREPARING)):
            self.ways.append(way)
            self.tasks.append(self.problem.task(way))
            state = self.states[len(self.ways) - 1] = State.whole(self.problem.lo, self.problem.hi)
            search(
                self.tasks[-1],
                state,
                Limits(max(self.searching.left, 0.0), ROUNDS[0], self.runner, self.report),
            )
            if (done := _conclude(self.problem, way, state)) is not None:
                return done
        return None

    def _by_z3(self) -> Certification | None:
        if self.solver != "auto" or self.problem.smoothness is not None:
            return None
        from .z3 import applies, decide

        if self.searching.over or not applies(self.problem.condition):
            return None
        return decide(self.problem.condition, max(1.0, 0.5 * self.searching.left), self.problem.delta)


def _conclude(problem: Problem, way: Way, state: State) -> Certification | None:
    if state.witness is not None:
        point = verdict.simple_witness(problem.relaxed, state.witness)
        if point is not None:
            return verdict.falsified(problem.relaxed, point, state.boxes, state.seconds, "branch and bound")
        state.witness = None
    if not len(state.open):
        return verdict.holds(problem.condition, way, state, problem.delta, problem.smoothness)
    return None


def _key(problem: Problem) -> str:
    """What a checkpoint belongs to."""
    data = {
        **problem.condition.to_dict(),
        "delta": str(problem.delta),
        "smoothness": str(problem.smoothness),
        "arithmetic": problem.arithmetic.name,
    }
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
        now = deadline.clock()
        if now - last[0] > 0.2:
            last[0], shown[0] = now, True
            print(f"\r\033[K{p}", end="", file=sys.stderr, flush=True)

    def finish() -> None:
        if shown[0]:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    return report, finish
