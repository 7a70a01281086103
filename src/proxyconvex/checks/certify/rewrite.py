"""Rewrite a residual that vanishes on a set, so that it can be certified there.

At ``w = v`` the residual of a proxy condition is zero, and no box around such a point closes by subdivision. With
``t = u - v``, ``f(u) = f(v) + q t`` (``q = f[u, v]``, the divided difference of ``f``) and ``r = s(v) - y``, the residual of
most conditions is a quadratic form ``M_tt t^2 + 2 M_tr t r + M_rr r^2``, exactly. It is non-negative for *every* t and r where
the matrix is positive semi-definite, and that is a strict inequality in general, which boxes can decide. Where first
differences leave a term linear in ``t``, second ones are used: ``q = f'(v) + p t`` with ``p = f[u, v, v]``.
The proof is in ``docs/checks/certify.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...core.arithmetics import evaluate
from ...core.errors import InvalidInputError
from ...core.expressions import (
    Expression,
    children,
    lift,
    power,
    substitute,
    topological,
    unary,
    unary_derivative,
    variable,
)
from ...core.reduced import ReducedCondition
from ..deadline import Deadline
from . import polynomials as algebra
from .polynomials import Polynomial

DIFFERENTIABLE = ("exp", "log", "log1p", "sqrt", "tanh", "sigmoid", "softplus", "bump", "relu")
T, R = variable("t'"), variable("r'")
"""The small quantities as symbols; the primes keep them apart from the user's names."""


@dataclass(frozen=True)
class Plan:
    """A quadratic form that equals the residual, and what must be >= 0 for it to be so.

    Attributes:
        u: name of the variable with ``t = u - v``.
        v: name of the other one, or a number such as ``"0"`` (the residual then vanishes at ``u = 0``).
        y: name of the variable with ``r = s(v) - y``, or None if the form is in ``t`` alone.
        order: 1 if first divided differences serve, 2 if second ones are needed.
        matrix: ``(M_tt, M_tr, M_rr)``; only ``(M_tt,)`` without ``y``.
        factors: for M_tt, and with ``y`` for M_rr and the determinant: factors and powers whose product it is.
    """

    u: str
    v: str
    y: str | None
    order: int
    matrix: tuple[Expression, ...]
    factors: tuple[tuple[tuple[Expression, int], ...], ...]

    @property
    def requirements(self) -> tuple[Expression, ...]:
        """The matrix is positive semi-definite where all of these are >= 0: the factors of odd power."""
        return tuple(dict.fromkeys(e for part in self.factors for e, n in part if n % 2))

    @property
    def sentence(self) -> str:
        """The rewriting in words."""
        small = f"t = {self.u} - {self.v}" + (f" and r = s({self.v}) - {self.y}" if self.y else "")
        how = "first" if self.order == 1 else "second"
        return f"the slack is a quadratic form in {small} with coefficients in {how} divided differences"


PIVOTS = ("0", "1", "-1")
"""Numbers that are tried in the place of the second variable."""


def pivot(condition: ReducedCondition, v: str) -> Expression:
    """The second variable, or the number, as an expression."""
    return variable(v) if v in condition.variables else lift(Fraction(v))


def _functions_at(e: Expression, name: str) -> set[str]:
    x = variable(name)
    return {n.op for n in topological(e) if n.op in DIFFERENTIABLE and n.args[0] == x}


def difference(f: str, order: int, u: Expression, v: Expression) -> Expression:
    """The node of a divided difference: ``f[u, v]`` or ``f[u, v, v]``."""
    return Expression("dd", f, order, u, v)


def _swap(
    condition: ReducedCondition, e: Expression, u: str, v: str, y: str | None, order: int
) -> dict[Expression, Polynomial]:
    """What stands for which atom after the substitution."""
    eu, ev = variable(u), pivot(condition, v)
    t = algebra.atom(T)
    swap: dict[Expression, Polynomial] = {eu: algebra.add(algebra.polynomial(ev), t)}
    functions = _functions_at(e, u)
    if v in condition.variables:
        functions &= _functions_at(e, v) | _curve_functions(condition)
    for f in sorted(functions):
        at_v = algebra.polynomial(unary(f, ev))
        q = algebra.atom(difference(f, order, eu, ev))
        if order == 2:
            q = algebra.add(algebra.polynomial(unary_derivative(f, ev)), algebra.multiply(q, t))
        swap[Expression(f, eu)] = algebra.add(at_v, algebra.multiply(q, t))
    if y is not None and condition.curve is not None:
        target = algebra.polynomial(substitute(condition.curve, {"t": ev}))
        swap[variable(y)] = algebra.add(target, algebra.atom(R), -1)
    return swap


def _curve_functions(condition: ReducedCondition) -> set[str]:
    return set() if condition.curve is None else _functions_at(condition.curve, "t")


def _inside(e: Expression) -> set[str]:
    """Names of variables that occur inside a function or a divisor, where a substitution does not reach."""
    found: set[str] = set()
    for node in topological(e):
        opaque = node.op not in ("add", "sub", "mul", "neg", "pow", "const", "var", "div")
        inner = children(node) if opaque else (node.args[1],) if node.op == "div" else ()
        for x in inner:
            found |= {n.args[0] for n in topological(x) if n.op == "var"}
    return found


def _degrees(p: Polynomial) -> Iterator[tuple[int, int, Polynomial]]:
    for m, c in p.items():
        powers = dict(m)
        i, j = powers.pop(T, 0), powers.pop(R, 0)
        yield i, j, {tuple((a, n) for a, n in m if a not in (T, R)): c}


def quadratic(p: Polynomial) -> tuple[Polynomial, Polynomial, Polynomial] | None:
    """``(M_tt, M_tr, M_rr)`` with ``p = M_tt t^2 + 2 M_tr t r + M_rr r^2``, or None if a term has degree below 2."""
    tt: Polynomial = {}
    tr: Polynomial = {}
    rr: Polynomial = {}
    for i, j, c in _degrees(p):
        if i + j < 2:
            return None
        left = algebra.constant(1)
        if i >= 2:
            left = algebra.multiply(
                algebra.raised(algebra.atom(T), i - 2), algebra.raised(algebra.atom(R), j)
            )
            tt = algebra.add(tt, algebra.multiply(c, left))
        elif i == 1:
            left = algebra.raised(algebra.atom(R), j - 1)
            tr = algebra.add(tr, algebra.multiply(c, left), Fraction(1, 2))
        else:
            left = algebra.raised(algebra.atom(R), j - 2)
            rr = algebra.add(rr, algebra.multiply(c, left))
    return tt, tr, rr


def _split(p: Polynomial, nonnegative: Callable[[Expression], bool]) -> list[tuple[Expression, int]]:
    """Factors and powers with the product ``p``: those known to be >= 0, even powers, and the rest."""
    known = tuple((a, n) for a, n in algebra.content(p) if n % 2 == 0 or nonnegative(a))
    rest = algebra.divide(p, known)
    return [*known] if rest == algebra.constant(1) and known else [*known, (algebra.expression(rest), 1)]


def _plan(
    condition: ReducedCondition,
    e: Expression,
    u: str,
    v: str,
    y: str | None,
    order: int,
    nonnegative: Callable[[Expression], bool],
) -> Plan | None:
    form = quadratic(algebra.polynomial(e, _swap(condition, e, u, v, y, order)))
    if form is None:
        return None
    back = {"t'": variable(u) - pivot(condition, v)}
    if y is not None and condition.curve is not None:
        back["r'"] = substitute(condition.curve, {"t": pivot(condition, v)}) - variable(y)
    tt, tr, rr = form
    if y is None:
        if tr or rr:
            return None
        determinant: Polynomial = {}
    else:
        determinant = algebra.add(algebra.multiply(tt, rr), algebra.raised(tr, 2), -1)
    parts = (tt,) if y is None else (tt, rr, determinant)
    factors = tuple(tuple((substitute(f, back), n) for f, n in _split(part, nonnegative)) for part in parts)
    entries = (tt,) if y is None else form
    return Plan(u, v, y, order, tuple(substitute(algebra.expression(m), back) for m in entries), factors)


def _vanishes(condition: ReducedCondition, e: Expression, u: str, v: str, y: str | None) -> bool:
    """Whether the residual looks like zero where ``t = 0`` (and ``r = 0``): a filter, so that few forms are tried in vain."""
    rng = np.random.default_rng(0)
    x = {k: rng.uniform(float(lo), float(hi), 4) for k, (lo, hi) in condition.variables.items()}
    scale = np.max(np.abs(evaluate(e, x)))
    x[u] = x[v] if v in x else np.full(4, float(v))
    if y is not None and condition.curve is not None:
        x[y] = np.broadcast_to(evaluate(condition.curve, {"t": x[u]}), 4)
    return not np.max(np.abs(evaluate(e, x))) > 1e-9 * (1 + scale)


def _simple(plan: Plan) -> tuple[int, int]:
    return (sum(len(topological(x)) for x in plan.requirements), plan.order)


def plans(
    condition: ReducedCondition, nonnegative: Callable[[Expression], bool], until: Deadline | None = None
) -> list[Plan]:
    """Every quadratic form found, simplest first.

    Args:
        condition: the reduced condition.
        nonnegative: whether an expression is known to be >= 0 on the whole region.
        until: when to stop looking.
    """
    e = condition.closed
    found: list[Plan] = []
    inside = _inside(e)
    for u in condition.variables:
        for v in (*condition.variables, *PIVOTS):
            if until is not None and until.over:
                return sorted(found, key=_simple)
            if u == v or (
                v in PIVOTS and not condition.variables[u][0] <= Fraction(v) <= condition.variables[u][1]
            ):
                continue
            ys = [
                y
                for y in condition.variables
                if y not in (u, v) and y not in inside and condition.curve is not None
            ]
            labels = [y for y in (None, *ys) if _vanishes(condition, e, u, v, y)]
            for order in (1, 2):
                for y in labels:
                    try:
                        made = _plan(condition, e, u, v, y, order, nonnegative)
                    except InvalidInputError:
                        continue  # too many terms, or a function without a second derivative
                    if made is not None:
                        found.append(made)
                if found and order == 1:
                    break
    return sorted(found, key=_simple)


def residual(plan: Plan, condition: ReducedCondition) -> Expression:
    """The quadratic form as an expression of the variables (equal to the slack; for tests)."""
    t = variable(plan.u) - pivot(condition, plan.v)
    total = plan.matrix[0] * power(t, 2)
    if plan.y is not None and condition.curve is not None:
        r = substitute(condition.curve, {"t": pivot(condition, plan.v)}) - variable(plan.y)
        total = total + lift(2) * plan.matrix[1] * t * r + plan.matrix[2] * power(r, 2)
    return total
