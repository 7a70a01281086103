"""The best constant of a condition: certified on both sides for reduced conditions, by search for those on parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import InvalidInputError
from ..core.evidence import Evidence, Status, Verdict
from ..core.premises import Premise
from ..core.reduced import ReducedCondition
from .estimate_constants import (
    NON_NEGATIVE,
    POSITIVE,
    STRONGER,
    checked_name,
    critical_value,
    moving_problem,
    value_of,
    with_value,
)
from .falsify.falsify import falsify, search_once


@dataclass(frozen=True)
class SampledBracket:
    """What a search knows of the best value of a constant.

    Attributes:
        constant: its name.
        refuted: a value at which the condition is certainly false (None if none was met).
        kept: the nearest value tried at which no violation was found. It is SAMPLED: the best value may lie beyond it, on
            the weaker side.
        counterexample: the verdict at ``refuted``.
        search: the verdict at ``kept``.
        stronger: +1 if larger values claim more, -1 if smaller ones do.
        searches: number of searches made.
    """

    constant: str
    refuted: float | None
    kept: float
    counterexample: Verdict | None
    search: Verdict
    stronger: int
    searches: int

    @property
    def evidence(self) -> Evidence:
        """SAMPLED: one side rests on a search."""
        return Evidence.SAMPLED

    def __str__(self) -> str:
        c, side = self.constant, "<" if self.stronger > 0 else ">"
        kept = f"at {c} = {_plain(self.kept, 0)} no violation was found (SAMPLED: that proves nothing)"
        if self.refuted is None:
            return f"{c}: no value was refuted; {kept}"
        how = self.counterexample.witness["confirmed_by"] if self.counterexample is not None else ""
        return f"the best {c} is {side} {_plain(self.refuted, self.stronger)} (refuted there, {how}); {kept}"


def _plain(value: float, side: int) -> str:
    """Eight digits where they do not say more than the value does (``side``: the safe direction), else all of them."""
    short = f"{value:.8g}"
    safe = float(short) == value or side == 0 or (float(short) - value) * side > 0
    return short if safe else repr(value)


def tightest(condition: Premise | ReducedCondition, constant: str, **options: Any) -> Any:
    """The best value of a constant, bracketed.

    For a reduced condition both ends are certified (see `checks.certify.tightest`). For a condition on parameters the
    refuted end is confirmed in exact or ball arithmetic and the other is what a search could not refute: SAMPLED.

    Example:
        >>> from proxyconvex import Smooth, tightest
        >>> bracket = tightest(Smooth(1.0, f=lambda w: 3 * w @ w / 2), "L", like=[0.0, 0.0])
        >>> 2.99 < bracket.refuted < 3 <= bracket.kept < 3.01
        True

    Args:
        condition: reduced, or on parameters.
        constant: its name: of reduced conditions as given to them; ``mu``, ``xi``, ``alpha``, ``L``, ``f_star``, ``A``,
            ``C`` (or ``B``), ``rho``, ``sigma2``, or a constant ``h``.
        **options: for conditions on parameters see `tightest_by_search`, for reduced ones `checks.certify.tightest`.

    Raises:
        InvalidInputError: for a name the condition does not have.
    """
    if isinstance(condition, ReducedCondition):
        from .certify.tightest import tightest as certified

        return certified(condition, constant, **options)
    if isinstance(condition, Premise):
        return tightest_by_search(condition, constant, **options)
    raise InvalidInputError("condition", condition, "a condition of proxyconvex")


def tightest_by_search(
    condition: Premise,
    constant: str,
    *,
    tolerance: float = 1e-3,
    seed: int = 0,
    budget: int | None = None,
    like: Any = None,
    end: Literal["upper", "lower"] = "upper",
    progress: Callable[[str, int], None] | None = None,
) -> SampledBracket:
    """Bracket a constant by searches: each counterexample moves the refuted end to the best value that it allows.

    Args:
        condition: its present value of the constant is where the search starts.
        constant: which one.
        tolerance: relative width at which to stop.
        seed: of the searches.
        budget: evaluations of each search.
        like: shape of the parameters, where the condition does not show it.
        end: which end of the interval of valid exponents (``alpha`` only: each point allows an interval of them).
        progress: called with a sentence and the number of searches.

    Returns:
        A `SampledBracket`.

    Raises:
        InvalidInputError: for an unknown constant, or when no value within a factor 2^40 survives a search.
    """
    if not 0 < tolerance < 1:
        raise InvalidInputError("tolerance", tolerance, "a number in (0, 1)")
    name = checked_name(condition, constant)
    direction = STRONGER[type(condition)][name] or (1 if end == "upper" else -1)
    hunt = _Hunt(condition, name, direction, seed, budget, like, progress)
    start = value_of(condition, name)
    hunt.look(start)
    step = max(abs(start), 1e-3 if name in POSITIVE + NON_NEGATIVE else 1.0)
    for k in range(41):
        if hunt.kept is not None and hunt.refuted is not None:
            break
        away = direction if hunt.refuted is None else -direction
        value = hunt.moved(hunt.edge(), away, step * 2.0**k)
        if value is None:
            break
        hunt.look(value)
    if hunt.kept is None:
        raise InvalidInputError(
            constant, start, "a constant for which the condition holds with some value",
            f"It was refuted even at {hunt.edge():.6g}.",
        )  # fmt: skip
    while hunt.refuted is not None and hunt.width() > tolerance:
        low, high = sorted((hunt.kept, hunt.refuted))
        wide = low > 0 and high / low > 4
        before = hunt.width()
        hunt.look(math.sqrt(low * high) if wide else (low + high) / 2)
        if hunt.width() >= before:
            break
    return hunt.bracket()


class _Hunt:
    """Searches at different values of one constant, and the two ends they leave."""

    def __init__(
        self,
        condition: Premise,
        name: str,
        direction: int,
        seed: int,
        budget: int | None,
        like: Any,
        progress: Any,
    ) -> None:
        self.condition, self.name, self.direction = condition, name, direction
        self.seed, self.budget, self.like, self.progress = seed, budget, like, progress
        self.refuted: float | None = None
        self.kept: float | None = None
        self.counterexample: Verdict | None = None
        self.search: Verdict | None = None
        self.searches = 0
        self.problem = None if name == "alpha" else moving_problem(condition, name, like)
        self.last = value_of(condition, name)

    def look(self, value: float) -> None:
        """One search; the end it moves is as good as its counterexample allows."""
        self.last = value
        self.searches += 1
        if self.progress:
            self.progress(f"searching at {self.name} = {value:.8g}", self.searches)
        claim = with_value(self.condition, self.name, value)
        if self.problem is None:
            verdict = falsify(claim, seed=self.seed, budget=self.budget, like=self.like, shrink=False)
        else:
            verdict = search_once(self.problem.at(claim, value), self.seed, self.budget)
        if verdict.status is not Status.FALSIFIED:
            self.kept, self.search = value, verdict
            return
        self.refuted, self.counterexample = value, verdict
        self._sharpen(value, verdict)

    def _sharpen(self, value: float, verdict: Verdict) -> None:
        """Move the refuted end to just this side of the value at which the counterexample stops working."""
        from .falsify.posed import problem_of

        ends = sorted((value, 64.0 if self.direction < 0 else 1e-3))
        critical = critical_value(self.condition, self.name, verdict.witness["arguments"], *ends)
        if not math.isfinite(critical) or self.direction * (value - critical) <= 0:
            return
        better = critical + self.direction * 1e-9 * max(abs(critical), 1e-9)
        if self.kept is not None and self.direction * (better - self.kept) <= 0:
            return
        if (self.name in POSITIVE and better <= 0) or (self.name in NON_NEGATIVE and better < 0):
            return
        claim = with_value(self.condition, self.name, better)
        problem = problem_of(claim, self.like) if self.problem is None else self.problem.at(claim, better)
        confirmation = problem.confirm(verdict.witness["flat"])
        if confirmation.holds:
            witness = verdict.witness | {"slack_upper": confirmation.upper, "confirmed_by": confirmation.how}
            sentence = (
                f"This is false, with {self.name} = {better!r}: {claim.record().statement.rstrip('.')}. At "
                f"{verdict.witness['reproduce']} the slack is at most {confirmation.upper:.6g} < 0 ({confirmation.how})."
            )
            self.refuted = better
            self.counterexample = Verdict(Status.FALSIFIED, sentence, Evidence.CERTIFIED, witness)

    def edge(self) -> float:
        """The end from which to move on."""
        return self.last if self.refuted is None else self.refuted

    def moved(self, value: float, direction: int, step: float) -> float | None:
        """The next value, kept in the range of the constant; None at the end of it."""
        new = value + direction * step
        if self.name in POSITIVE and new <= 0:
            return value / 4 if value > 1e-12 else None
        if self.name in NON_NEGATIVE and new < 0:
            return 0.0 if value > 0 else None
        return new

    def width(self) -> float:
        """Relative distance of the two ends."""
        if self.kept is None or self.refuted is None:
            return math.inf
        return abs(self.kept - self.refuted) / max(abs(self.kept), abs(self.refuted), 1e-12)

    def bracket(self) -> SampledBracket:
        """The result."""
        if self.kept is None or self.search is None:
            raise InvalidInputError(self.name, self.last, "a value that survives a search")
        return SampledBracket(
            self.name,
            self.refuted,
            self.kept,
            self.counterexample,
            self.search,
            self.direction,
            self.searches,
        )
