"""Decide piecewise polynomial conditions exactly with z3 (an optional package): no boxes, no rounding.

Where the activation has kinks (relu, leaky relu, absolute values), the residual is a polynomial on each of finitely many
pieces and vanishes at their common corner, where neither subdivision nor divided differences close. The theory of real
closed fields decides it. The answer rests on z3 and cannot be checked again, so its evidence is DECIDED, below CERTIFIED.
"""

from __future__ import annotations

import importlib.util
import time
from fractions import Fraction
from typing import Any

from ...core.arithmetics import run
from ...core.errors import InvalidInputError
from ...core.evidence import Evidence, Status
from ...core.expressions import Expression, topological
from ...core.reduced import ReducedCondition
from . import verdict
from .verdict import Certification

PIECEWISE = ("relu", "step", "abs", "max", "min", "select")
_RING = ("const", "var", "neg", "add", "sub", "mul", "pow", "div")


def polynomial_pieces(e: Expression) -> bool:
    """Whether an expression is made of ring operations, divisions by constants and the functions of `PIECEWISE`."""
    for node in topological(e):
        if node.op not in (*_RING, *PIECEWISE) or (node.op == "div" and node.args[1].op != "const"):
            return False
    return True


def applies(condition: ReducedCondition) -> bool:
    """Whether the condition has kinks, is otherwise polynomial, and z3 is installed."""
    e = condition.closed
    kinks = any(node.op in PIECEWISE for node in topological(e))
    return kinks and polynomial_pieces(e) and importlib.util.find_spec("z3") is not None


def _table(z3: Any) -> dict[str, Any]:
    zero, one = z3.RealVal(0), z3.RealVal(1)

    def power(x: Any, n: int) -> Any:
        result = x
        for _ in range(n - 1):
            result = result * x
        return result

    return {
        "neg": lambda x: -x,
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "div": lambda x, y: x / y,
        "pow": power,
        "relu": lambda x: z3.If(x > 0, x, zero),
        "step": lambda x: z3.If(x > 0, one, zero),
        "abs": lambda x: z3.If(x > 0, x, -x),
        "select": lambda x, a, b: z3.If(x > 0, a, b),
        "max": lambda x, y: z3.If(x > y, x, y),
        "min": lambda x, y: z3.If(x > y, y, x),
    }


def decide(
    condition: ReducedCondition, seconds: float, delta: Fraction, required: bool = False
) -> Certification | None:
    """Ask z3 for a point with ``slack < -delta``.

    Args:
        condition: the condition.
        seconds: time limit.
        delta: as for `certify`.
        required: raise or answer INCONCLUSIVE instead of returning None.

    Raises:
        InvalidInputError: if ``required`` and z3 is not installed or the condition is not piecewise polynomial.
    """
    if not polynomial_pieces(condition.closed):
        if required:
            raise InvalidInputError(
                "solver", "z3", "'boxes'", f"z3 serves formulas of + - * ** and {', '.join(PIECEWISE)} only."
            )
        return None
    try:
        import z3
    except ImportError as error:
        if required:
            raise InvalidInputError(
                "solver", "z3", "'boxes'", "Install it with: pip install z3-solver."
            ) from error
        return None
    started = time.perf_counter()

    def number(c: Fraction) -> Any:
        return z3.RealVal(f"{c.numerator}/{c.denominator}")

    symbols = {k: z3.Real(k) for k in condition.variables}
    slack = run(condition.closed, symbols, _table(z3), number)
    solver = z3.Solver()
    solver.set("timeout", max(1, int(1000 * seconds)))
    for k, (lo, hi) in condition.variables.items():
        solver.add(symbols[k] >= number(lo), symbols[k] <= number(hi))
    for d in condition.domain:
        solver.add(run(d, symbols, _table(z3), number) >= number(Fraction(0)))
    solver.add(slack < number(-delta))
    answer = solver.check()
    spent = time.perf_counter() - started
    if answer == z3.unsat:
        bound = "0" if not delta else f"-{verdict.rounded(delta)}"
        lift = f" {condition.lift}" if condition.lift and not delta else ""
        how = "z3 on the pieces of the formula, in exact real arithmetic"
        sentence = (
            f"The slack is >= {bound} for all {condition.where}, equality included: decided by z3 in exact arithmetic in "
            f"{spent:.3g} s. This rests on z3 and leaves no certificate to check again.{lift}"
        )
        return Certification(Status.HOLDS, sentence, Evidence.DECIDED, {}, condition, 0, spent, how, delta)
    if answer == z3.sat:
        point = _point(solver.model(), symbols, condition)
        relaxed = condition.raised(delta)
        if verdict.confirmed(relaxed, point) is not None:
            return verdict.falsified(relaxed, point, 0, spent, "z3")
    if not required:
        return None
    sentence = f"z3 did not decide within {seconds:.3g} s."
    return Certification(Status.INCONCLUSIVE, sentence, Evidence.ASSUMED, {}, condition, 0, spent, "z3")


def _point(model: Any, symbols: dict[str, Any], condition: ReducedCondition) -> dict[str, Fraction]:
    """The model as rationals; an algebraic number is replaced by a near rational (the caller confirms the point)."""
    point = {}
    for k, (lo, hi) in condition.variables.items():
        value = model.eval(symbols[k], model_completion=True)
        if not hasattr(value, "numerator_as_long"):
            value = value.approx(60)
        number = Fraction(value.numerator_as_long(), value.denominator_as_long())
        point[k] = min(max(number, lo), hi)
    return point
