"""Look for a counterexample to a conjectured condition, make it small, and confirm it outside floating point."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from proxyconvex_checker.decimals import show

from ...core.errors import InvalidInputError
from ...core.evidence import Evidence, Status, Verdict
from ...core.premises import Premise
from ...core.reduced import ReducedCondition
from ..deadline import Deadline
from .posed import problem_of
from .problem import Confirmation, Problem
from .search import Found, Search, path_of
from .shrink import Shrinker

if TYPE_CHECKING:
    import os

OnFirst = Callable[[Verdict], None]


def falsify(
    condition: Premise | ReducedCondition,
    *,
    seed: int = 0,
    budget: int | None = None,
    seconds: float | None = None,
    search_seconds: float | None = None,
    like: Any = None,
    shrink: bool = True,
    on_first: OnFirst | None = None,
    progress: Callable[[str, int], None] | None = None,
    scheduler: Any = None,
    jobs: int = 1,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Verdict:
    """Search for a point at which a condition fails.

    Points of many shapes are tried (corners, rays, equal arguments, kinks, the neighbourhood of the comparator, descent
    paths), then gradient ascent on the violation and directions of negative curvature, with restarts. The first
    violation that exact or ball arithmetic confirms is handed to ``on_first``, made simpler, confirmed again, returned.

    Example:
        >>> from proxyconvex import Smooth, falsify
        >>> print(falsify(Smooth(1.9, f=lambda w: w @ w), like=[0.0, 0.0]).status.name)
        FALSIFIED

    Args:
        condition: a condition of `core.conditions` with its functions, or a reduced condition.
        seed: of all randomness; the same seed and budget give the same answer.
        budget: most evaluations of the slack in the search (as many again, at most, for shrinking). By default 60,000,
            fewer for very many parameters.
        seconds: also stop after so many seconds (the answer then depends on the machine): search, confirmation and shrinking
            together. What is compiled once, or confirmed once, is not interrupted.
        search_seconds: stop the search, but not the shrinking, after so many.
        like: any point of the right shape; needed where neither a comparator nor a ball shows the shape.
        shrink: whether to simplify the counterexample.
        on_first: called once with the first confirmed counterexample, before it is simplified.
        progress: called with what is being tried and the number of evaluations so far.
        scheduler: a `dask.distributed.Client`, or the address of a scheduler: rounds of the search run there.
        jobs: number of processes for the search on this machine (needs Dask; 1: none).
        checkpoint: a file that keeps the state; an interrupted search with the same seed continues from it.

    Returns:
        FALSIFIED with evidence CERTIFIED and a witness; NOT_FALSIFIED with evidence SAMPLED, saying what was tried (which proves
        nothing); INCONCLUSIVE where a violation was seen in float64 and could not be confirmed.

    Raises:
        InvalidInputError: for a condition without functions or shape, or a budget that is not positive.
    """
    deadline = Deadline.after(seconds)
    problem = problem_of(condition, like)
    budget = default_budget(problem.size) if budget is None else budget
    if not budget > 0:
        raise InvalidInputError("budget", budget, "a number of evaluations > 0")
    if seconds is not None and not seconds > 0:
        raise InvalidInputError("seconds", seconds, "a time > 0, or None")
    if search_seconds is not None and not search_seconds > 0:
        raise InvalidInputError("search_seconds", search_seconds, "a time > 0, or None")
    searching = Deadline(min(deadline.at, Deadline.after(search_seconds).at))
    search = Search(problem, seed, int(budget), searching, progress, path_of(checkpoint))
    if scheduler is not None or jobs > 1:
        from .distributed import search_elsewhere

        found = search_elsewhere(search, condition, like, scheduler, jobs)
    else:
        found = search.run()
    if found is None:
        return _not_found(search)
    if on_first is not None:
        on_first(_falsified(search, found, found.point, found.confirmation, [], 0))
    if not shrink:
        return _falsified(search, found, found.point, found.confirmation, [], 0)
    return _simplified(search, found, int(budget), deadline)


def search_once(problem: Problem, seed: int, budget: int | None) -> Verdict:
    """The verdict of one search, without shrinking."""
    search = Search(problem, seed, default_budget(problem.size) if budget is None else budget)
    found = search.run()
    return (
        _not_found(search)
        if found is None
        else _falsified(search, found, found.point, found.confirmation, [], 0)
    )


def default_budget(size: int) -> int:
    """Evaluations: 60,000 for few parameters, fewer for very many."""
    return int(max(200, min(60_000, 2e8 / size)))


def _simplified(search: Search, found: Found, budget: int, deadline: Deadline) -> Verdict:
    """Shrink, confirm what came out, and keep the original where that fails."""
    shrinker = Shrinker(search.problem, budget, deadline)
    point, confirmation = shrinker.run(found.point), found.confirmation
    if not np.array_equal(point, found.point):
        again = search.problem.confirm(point)
        point, confirmation = (point, again) if again.holds else (found.point, found.confirmation)
    free, tries = shrinker.irrelevant(point, search.generator(2**31))
    return _falsified(search, found, point, confirmation, free, tries)


def _falsified(
    search: Search, found: Found, point: np.ndarray, confirmation: Confirmation, free: list[int], tries: int
) -> Verdict:
    problem = search.problem
    arguments = problem.present(point)
    line = problem.reproduce(point)
    nonzero = int(np.count_nonzero(point))
    names = [problem.coordinate(i) for i in free]
    where = _at(problem, arguments, nonzero)
    sentence = (
        f"This is false, with its constants as given: {problem.statement.rstrip('.')}. {where[0].upper()}{where[1:]} the slack is at most "
        f"{show(confirmation.upper)} < 0 ({confirmation.how})."
    )
    if names:
        sentence += f" It does not seem to matter what {', '.join(names)} {'is' if len(names) == 1 else 'are'} (each of {tries} other values tried, wherever inside the region, violates it too)."
    witness = {
        "point": arguments,
        "arguments": tuple(arguments.values()),
        "flat": point,
        "slack_upper": confirmation.upper,
        "confirmed_by": confirmation.how,
        "nonzero": nonzero,
        "size": problem.size,
        "does_not_matter": names,
        "found_by": found.origin,
        "reproduce": line,
        "evaluations": search.evaluations,
    }
    return Verdict(Status.FALSIFIED, sentence, Evidence.CERTIFIED, witness)


def _at(problem: Problem, arguments: dict[str, Any], nonzero: int) -> str:
    """Where, in words: all values of a short point, else how many coordinates are not zero."""
    if problem.size <= 12:
        shown = ", ".join(f"{k} = {_plain(v)}" for k, v in arguments.items())
        return f"at {shown}"
    return f"at a point with {nonzero} of {problem.size} coordinates different from zero"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_plain(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(_plain, value)) + ")"
    return str(np.asarray(value).tolist())


def _not_found(search: Search) -> Verdict:
    problem, seen = search.problem, search.unconfirmed
    tried = ", ".join(f"{n} {origin}" for origin, n in search.tried.items())
    worst = None if search.worst_point is None else problem.present(search.worst_point)
    witness: dict[str, Any] = {
        "tried": dict(search.tried),
        "evaluations": search.evaluations,
        "smallest_relative_slack": search.worst,
        "at": worst,
    }
    if seen is not None:
        c = seen.confirmation
        witness |= {"point": problem.present(seen.point), "confirmed_by": c.how, "float64_slack": c.upper}
        witness["reproduce"] = problem.reproduce(seen.point)
        return Verdict(
            Status.INCONCLUSIVE,
            f"A violation was seen in float64 only ({witness['reproduce']}: slack {c.upper:.6g}) and is no proof that the condition is false; {c.note}.",
            Evidence.SAMPLED,
            witness,
        )
    return Verdict(
        Status.NOT_FALSIFIED,
        f"No counterexample was found, which does not show that none exists. Tried with seed {search.seed}: {tried}. Relative to its terms, the smallest slack met was {search.worst:.3g}{' (in float64; exact arithmetic does not confirm that it is negative)' if search.worst < 0 else ''}.",
        Evidence.SAMPLED,
        witness,
    )
