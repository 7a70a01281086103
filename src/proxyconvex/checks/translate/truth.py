"""Truth values of a traced formula that depend on the variables, and the choices they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ...core.expressions import Expression, lift
from .simplify import chosen, larger, minus, negated

Kind = Literal["positive", "not", "and", "or"]


@dataclass(frozen=True)
class Truth:
    """``x > 0``, or a combination of such.

    Attributes:
        kind: ``"positive"``, ``"not"``, ``"and"`` or ``"or"``.
        parts: the expression, or the truth values that are combined.
    """

    kind: Kind
    parts: tuple[Any, ...]


def positive(x: Expression) -> Truth | bool:
    """``x > 0``; decided where the form of x decides it. ``max(p, q) - p > 0`` is ``q > p``."""
    if x.op == "const":
        return x.args[0] > 0
    if x.op == "relu":
        return positive(x.args[0])
    if x.op == "neg" and x.args[0].op in ("relu", "abs", "sqrt", "exp", "softplus", "sigmoid"):
        return False
    if x.op == "sub":
        left, right = x.args
        if right.op == "max" and left in right.args:
            return False
        if right == larger_than_zero(left):
            return False
        if left.op == "max" and right in left.args:
            other = left.args[1] if left.args[0] == right else left.args[0]
            return positive(minus(other, right))
        if left == larger_than_zero(right):
            return positive(negated(right))
    return Truth("positive", (x,))


def larger_than_zero(x: Expression) -> Expression:
    """``max(x, 0)``."""
    return larger(x, lift(0))


def negation(p: Truth | bool) -> Truth | bool:
    """Not p."""
    if isinstance(p, Truth):
        return p.parts[0] if p.kind == "not" else Truth("not", (p,))
    return not p


def both(p: Truth | bool, q: Truth | bool) -> Truth | bool:
    """Whether p and q hold."""
    if isinstance(p, Truth) and isinstance(q, Truth):
        return p if p == q else Truth("and", (p, q))
    if isinstance(p, Truth):
        return p if q else False
    return q if p else False


def either(p: Truth | bool, q: Truth | bool) -> Truth | bool:
    """Whether p or q holds."""
    return negation(both(negation(p), negation(q)))


def greater(x: Expression, y: Expression) -> Truth | bool:
    """``x > y``."""
    return positive(minus(x, y))


def equal(x: Expression, y: Expression) -> Truth | bool:
    """``x == y``: neither is greater."""
    return both(negation(greater(x, y)), negation(greater(y, x)))


def pick(p: Truth | bool, a: Expression, b: Expression) -> Expression:
    """``a`` where p holds, else ``b``."""
    if not isinstance(p, Truth):
        return a if p else b
    if p.kind == "positive":
        return chosen(p.parts[0], a, b)
    if p.kind == "not":
        return pick(p.parts[0], b, a)
    first, second = p.parts
    if p.kind == "and":
        return pick(first, pick(second, a, b), b)
    return pick(first, a, pick(second, a, b))
