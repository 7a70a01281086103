"""The same statement as an SMT-LIB 2 script for delta-complete solvers such as dReal.

The script asks for a point with ``slack < -delta``: ``unsat`` proves ``slack >= -delta`` on the region. A residual that is zero on a set
is delta-satisfiable for every delta, so a positive delta is asked for; for a residual with a quadratic form the script can ask
instead whether the form fails to be semi-definite: its unsat includes equality (an unsat is exact; delta is only the precision).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...core.arithmetics import run
from ...core.errors import InvalidInputError
from ...core.expressions import Expression, names, rational, rebuild, topological, unary_derivative, variable
from ...core.reduced import ReducedCondition
from .rewrite import Plan


def number(c: Fraction) -> str:
    """A rational as an SMT-LIB term."""
    size = f"{abs(c.numerator)}.0" if c.denominator == 1 else f"(/ {abs(c.numerator)}.0 {c.denominator}.0)"
    return f"(- {size})" if c < 0 else size


def _binary(symbol: str) -> Callable[[str, str], str]:
    return lambda x, y: f"({symbol} {x} {y})"


TERMS: dict[str, Callable[..., str]] = {
    "neg": lambda x: f"(- {x})",
    "add": _binary("+"), "sub": _binary("-"), "mul": _binary("*"), "div": _binary("/"),
    "max": _binary("max"), "min": _binary("min"),
    "pow": lambda x, n: f"(^ {x} {n})",
    "log1p": lambda x: f"(log (+ 1.0 {x}))",
    **{f: (lambda x, f=f: f"({f} {x})") for f in ("exp", "log", "sqrt", "tanh", "abs")},
    "sigmoid": lambda x: f"(/ 1.0 (+ 1.0 (exp (- {x}))))",
    "bump": lambda x: f"(/ 1.0 (* (+ 1.0 (exp (- {x}))) (+ 1.0 (exp {x}))))",
    "softplus": lambda x: f"(log (+ 1.0 (exp {x})))",
    "relu": lambda x: f"(max {x} 0.0)",
    "step": lambda x: f"(ite (> {x} 0.0) 1.0 0.0)",
}  # fmt: skip


def smt_text(condition: ReducedCondition, delta: Any = "1/1000", plan: Plan | None = None) -> str:
    """The script.

    Args:
        condition: the condition.
        delta: the script's unsat proves ``slack >= -delta``; the solver's precision is set to half of it.
        plan: ask instead whether this quadratic form is semi-definite everywhere; ``delta`` then only sets the precision.

    Raises:
        InvalidInputError: unless ``delta > 0``, or if the form uses second differences.
    """
    gap = rational("delta", delta)
    if gap <= 0:
        raise InvalidInputError(
            "delta", delta, "a number > 0", "Delta-complete solvers decide up to a positive delta only."
        )
    lines = [f"; {condition.statement}", "(set-logic QF_NRA)", f"(set-option :precision {float(gap / 2)!r})"]
    for k, (lo, hi) in condition.variables.items():
        lines += [
            f"(declare-fun {k} () Real)",
            f"(assert (<= {number(lo)} {k}))",
            f"(assert (<= {k} {number(hi)}))",
        ]
    if plan is None:
        lines += [
            f"; unsat proves slack >= -{gap}",
            f"(assert (< {_term(condition.closed, {})} {number(-gap)}))",
        ]
    else:
        lines += _form(plan)
    return "\n".join([*lines, "(check-sat)", "(get-model)", "(exit)", ""])


def _form(plan: Plan) -> list[str]:
    """Divided differences as unknowns, bound by their definition and by the derivative at both ends."""
    nodes = sorted({n for e in plan.requirements for n in topological(e) if n.op == "dd"}, key=repr)
    if plan.order != 1:
        raise InvalidInputError("plan", plan.sentence, "a form in first differences")
    lines = [
        "; unsat proves that the quadratic form is positive semi-definite, and so slack >= 0, equality included"
    ]
    symbols: dict[Expression, str] = {}
    for i, node in enumerate(nodes):
        f, _, u, v = node.args
        q = symbols[node] = f"dd{i}"
        lines += [
            f"; {q} = ({f}({u}) - {f}({v})) / ({u} - {v})",
            f"(declare-fun {q} () Real)",
            f"(assert (= (- {TERMS[f](_term(u, {}))} {TERMS[f](_term(v, {}))}) (* {q} (- {_term(u, {})} {_term(v, {})}))))",
            *_between(f, q, u, v),
        ]
    fails = " ".join(f"(< {_term(e, symbols)} 0.0)" for e in plan.requirements)
    return [*lines, f"(assert (or {fails}))"]


def _between(f: str, q: str, u: Expression, v: Expression) -> list[str]:
    """Bounds on a divided difference: the derivative is monotone, or falls on both sides of 0, so its least value is at an end."""
    if f in ("relu", "step", "abs"):
        return [f"(assert (and (<= 0.0 {q}) (<= {q} 1.0)))"] if f == "relu" else []
    ends = [_term(unary_derivative(f, x), {}) for x in (u, v)]
    bounds = [f"(assert (<= (min {ends[0]} {ends[1]}) {q}))"] if f != "bump" else []
    if f in ("exp", "log", "log1p", "sqrt", "softplus"):
        bounds.append(f"(assert (<= {q} (max {ends[0]} {ends[1]})))")
    elif f in ("sigmoid", "tanh"):
        bounds.append(f"(assert (<= {q} {'0.25' if f == 'sigmoid' else '1.0'}))")
    return bounds


def _term(e: Expression, symbols: dict[Expression, str]) -> str:
    values = {n: n for n in names(e)}
    if not symbols:
        return run(e, values, TERMS, number)
    return _term(rebuild(e, lambda n: variable(symbols[n]) if n in symbols else None), {})


def export_smt(
    condition: ReducedCondition, path: str | os.PathLike[str], delta: Any = "1/1000", plan: Plan | None = None
) -> Path:
    """Write the script; returns its path.

    Raises:
        InvalidInputError: for a condition that was translated from functions of parameters.
    """
    if condition.domain or condition.origin:
        raise InvalidInputError(
            "condition",
            condition.name,
            "a reduced condition that you wrote down",
            "Check it with proxyconvex verify.",
        )
    target = Path(path)
    target.write_text(smt_text(condition, delta, plan))
    return target
