"""Find sets on which a residual vanishes to second order, so that its Hessian decides near them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import numpy as np

from ...core.arithmetics import evaluate
from ...core.errors import InvalidInputError
from ...core.expressions import (
    Expression,
    derivative,
    lift,
    names,
    rebuild,
    substitute,
    topological,
    unary,
    variable,
)
from ...core.reduced import ReducedCondition
from ..deadline import Deadline
from . import polynomials as algebra
from .curvature import Segment
from .rewrite import DIFFERENTIABLE, PIVOTS

Start = dict[str, Expression]
MOST, LARGEST = 3, 1_500
"""Segments that are returned, and nodes of an expression beyond which none is looked for."""
_TOLERANCE = 1e-8


def segments(
    condition: ReducedCondition, hints: Iterable[Mapping[str, Expression]] = (), until: Deadline | None = None
) -> list[Segment]:
    """Sets where slack and derivatives vanish, by an identity of polynomials in atoms; those with the fewest moved variables first.

    Args:
        condition: the inequality.
        hints: values of several variables at once that are worth trying, each with its subsets. Without hints: every
            variable, or two, equal to another one, to 0, 1 or -1, or to a function of another one that occurs in the slack.
        until: when to stop looking.
    """
    e = condition.closed
    if len(topological(e)) > LARGEST:
        return []
    # Where the slack is not zero with all values of a hint, it is not zero on any of the larger sets.
    hints = list(hints)
    possible = [h for h in hints if _looks_zero(condition, e, dict(h), slopes=False)]
    options = list(_subsets(possible)) if hints else list(_guesses(condition, e))
    found: list[Start] = []
    for start in sorted(options, key=len):
        if len(found) >= MOST or (until is not None and until.over):
            break
        if any(old.items() <= start.items() for old in found):
            continue  # the set found is larger
        if _looks_zero(condition, e, start) and _vanishes(e, start):
            found.append(start)
    return [Segment(tuple(s), tuple(s.values())) for s in found]


def _subsets(hints: Iterable[Mapping[str, Expression]]) -> Iterator[Start]:
    for hint in hints:
        for size in range(1, len(hint) + 1):
            for moved in itertools.combinations(hint, size):
                yield {k: hint[k] for k in moved}


def _guesses(condition: ReducedCondition, e: Expression) -> Iterator[Start]:
    single = [(u, t) for u in condition.variables for t in _targets(condition, e, u)]
    for u, t in single:
        yield {u: t}
    for (u, s), (v, t) in itertools.combinations(single, 2):
        if u != v and not {u, v} & (names(s) | names(t)):
            yield {u: s, v: t}


def _targets(condition: ReducedCondition, e: Expression, u: str) -> Iterator[Expression]:
    lo, hi = condition.variables[u]
    for v in condition.variables:
        if v != u:
            yield variable(v)
    for number in PIVOTS:
        if lo <= Fraction(number) <= hi:
            yield lift(Fraction(number))
    functions = {
        (n.op, n.args[0].args[0]) for n in topological(e) if n.op in DIFFERENTIABLE and n.args[0].op == "var"
    }
    for op, v in sorted(functions):
        if v != u:
            yield unary(op, variable(v))
    if condition.curve is not None:
        for v in condition.variables:
            if v != u:
                yield substitute(condition.curve, {"t": variable(v)})


def _looks_zero(condition: ReducedCondition, e: Expression, start: Start, slopes: bool = True) -> bool:
    """Whether the slack is about zero there and (``slopes``) flat in the moved variables: a filter before the exact test."""
    rng = np.random.default_rng(0)
    x = {k: rng.uniform(float(lo), float(hi), 6) for k, (lo, hi) in condition.variables.items()}
    scale = 1 + np.max(np.abs(np.nan_to_num(evaluate(e, x))))
    at = {**x, **{k: np.broadcast_to(np.asarray(_float(t, x), float), 6) for k, t in start.items()}}
    if not np.all(np.abs(evaluate(e, at)) <= _TOLERANCE * scale):
        return False
    for k in start if slopes else ():
        width = 1e-4 * float(condition.variables[k][1] - condition.variables[k][0])
        sides = [evaluate(e, {**at, k: at[k] + s * width}) for s in (1, -1)]
        if not np.all(np.abs(sides[0] - sides[1]) <= 1e-3 * width * scale):
            return False
    return True


def _float(t: Expression, x: Mapping[str, np.ndarray]) -> np.ndarray:
    return evaluate(t, {n: x[n] for n in names(t)}) if names(t) else np.asarray(float(evaluate_constant(t)))


def evaluate_constant(t: Expression) -> float:
    """The value of an expression without variables."""
    return float(t.args[0]) if t.op == "const" else float(evaluate(t, {"_": 0.0}))


def _vanishes(e: Expression, start: Start) -> bool:
    """Slack and derivatives are zero as polynomials in atoms; a step counts as constant, as it is on every box that is used."""
    try:
        if algebra.polynomial(substitute(e, start)):
            return False
        steps: dict[str, Expression] = {}

        def hidden(node: Expression) -> Expression | None:
            if node.op != "step":
                return None
            name = f"step'{len(steps)}"
            steps[name] = node
            return variable(name)

        flat = rebuild(e, hidden)
        for k in start:
            slope = substitute(substitute(derivative(flat, k), steps), start)
            if algebra.polynomial(slope):
                return False
    except InvalidInputError:
        return False  # too many terms, or a function without a derivative
    return True
