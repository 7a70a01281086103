"""Smart constructors: the operations of a traced formula, written with the functions that intervals enclose tightly.

JAX writes softplus as ``max(x, 0) + log1p(exp(-|x|))`` and its derivative as ``exp(x - softplus(x))``. Interval arithmetic over-estimates
such formulas a lot, because an argument that occurs twice is taken to vary twice. Every rule below is an identity between real numbers,
at every point where the left side is defined; ``tests/checks/test_translate.py`` checks each one.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from ...core.expressions import Expression, binary, lift, power, select, topological, unary


def is_const(x: Any, value: Any) -> bool:
    """Whether an expression is this number."""
    return isinstance(x, Expression) and x.op == "const" and x.args[0] == value


def negated(x: Expression) -> Expression:
    """``-x``; differences are turned round."""
    return binary("sub", x.args[1], x.args[0]) if x.op == "sub" else unary("neg", x)


def minus(x: Expression, y: Expression) -> Expression:
    """``x - y``, zero for equal expressions."""
    if x == y:
        return lift(0)
    return plus(x, y.args[0]) if y.op == "neg" else binary("sub", x, y)


def plus(x: Expression, y: Expression) -> Expression:
    """``x + y``; finds softplus, ``log(exp a + exp b)`` and ``1 - tanh^2``."""
    for p, q in ((x, y), (y, x)):
        for rule in (_softplus_of_max, _log_sum, _tanh_slope):
            if (found := rule(p, q)) is not None:
                return found
    if y.op == "neg":
        return minus(x, y.args[0])
    if x.op == "neg":
        return minus(y, x.args[0])
    return binary("add", x, y)


def _softplus_of_max(p: Expression, q: Expression) -> Expression | None:
    """``max(a, b) + log1p(exp(-|a - b|)) = b + softplus(a - b)``; the second term is a softplus already."""
    if q.op != "softplus":
        return None
    inner = q.args[0]
    if inner == negated(p):
        return unary("softplus", p)  # p + softplus(-p)
    if p.op not in ("max", "relu"):
        return None
    if inner.op != "neg" or inner.args[0].op != "abs":
        return None
    a, b = (p.args[0], lift(0)) if p.op == "relu" else p.args
    gap = inner.args[0].args[0]
    if gap == minus(a, b):
        return plus(b, unary("softplus", gap))
    return plus(a, unary("softplus", gap)) if gap == minus(b, a) else None


def _log_sum(p: Expression, q: Expression) -> Expression | None:
    """``m + log(exp(a - m) + exp(b - m)) = b + softplus(a - b)``."""
    if q.op != "log" or q.args[0].op != "add":
        return None
    terms = q.args[0].args
    if any(t.op != "exp" for t in terms):
        return None
    inside = [t.args[0] for t in terms]
    originals = []
    for e in inside:
        if e.op == "sub" and e.args[1] == p:
            originals.append(e.args[0])
        elif is_const(e, 0):
            originals.append(p)
        else:
            return None
    a, b = originals
    return plus(b, unary("softplus", minus(a, b)))


def _tanh_slope(p: Expression, q: Expression) -> Expression | None:
    """``e + e T = e' (1 - T^2)`` for ``e = e' (1 - T)``, T a tanh: what JAX makes of its derivative."""
    if q.op != "mul" or p not in q.args:
        return None
    t = q.args[1] if q.args[0] == p else q.args[0]
    if t.op != "tanh":
        return None
    gap, slope = binary("sub", 1, t), binary("sub", 1, power(t, 2))
    if p == gap:
        return slope
    if p.op == "mul" and gap in p.args:
        return binary("mul", p.args[1] if p.args[0] == gap else p.args[0], slope)
    return None


def times(x: Expression, y: Expression) -> Expression:
    """``x y``, a constant first; finds squares, ``sigmoid (1 - sigmoid)`` and ``sigmoid(-t) exp(t) = sigmoid(t)``."""
    if x == y:
        return power(x, 2)
    for p, q in ((x, y), (y, x)):
        if p.op == "sigmoid" and q.op == "exp" and p.args[0] == negated(q.args[0]):
            return unary("sigmoid", q.args[0])
        if p.op == "sigmoid" and q == binary("sub", 1, p):
            return unary("bump", p.args[0])
        if is_const(p, -1):
            return negated(q)
        if p.op == "const" and q.op == "mul" and q.args[0].op == "const":
            return binary("mul", p.args[0] * q.args[0].args[0], q.args[1])
        if p.op == "mul" and p.args[0].op == "const" and q.op != "const" and p.args[1] == q:
            return binary("mul", p.args[0], power(q, 2))
    return binary("mul", y, x) if y.op == "const" else binary("mul", x, y)


def over(x: Expression, y: Expression) -> Expression:
    """``x / y``; finds the sigmoid."""
    if is_const(x, 1) and y.op == "add":
        for p, q in (y.args, y.args[::-1]):
            if is_const(p, 1) and q.op == "exp":
                return unary("sigmoid", negated(q.args[0]))
    return times(lift(1 / y.args[0]), x) if y.op == "const" and y.args[0] != 0 else binary("div", x, y)


def exponential(x: Expression) -> Expression:
    """``exp x``; ``exp(t - softplus(t))`` and ``exp(-softplus(t))`` are sigmoids."""
    if x.op == "sub" and x.args[1] == unary("softplus", x.args[0]):
        return unary("sigmoid", x.args[0])
    if x.op == "neg" and x.args[0].op == "softplus":
        return unary("sigmoid", negated(x.args[0].args[0]))
    if x.op == "sub" and is_shifted_softplus(x.args[1], x.args[0]):
        # exp(a - (b + softplus(a - b))) = sigmoid(a - b)
        return unary("sigmoid", x.args[1].args[1].args[0])
    return unary("exp", x)


def is_shifted_softplus(e: Expression, a: Expression) -> bool:
    """Whether ``e`` is ``b + softplus(a - b)``."""
    return e.op == "add" and e.args[1].op == "softplus" and e.args[1].args[0] == minus(a, e.args[0])


def logarithm(x: Expression) -> Expression:
    """``log x``; ``log(1 + exp t)`` is softplus, and so is log 2, at 0."""
    if x.op == "add":
        for p, q in (x.args, x.args[::-1]):
            if is_const(p, 1) and q.op == "exp":
                return unary("softplus", q.args[0])
    return unary("softplus", 0) if is_const(x, 2) else unary("log", x)


def log_one_plus(x: Expression) -> Expression:
    """``log(1 + x)``; of an exponential it is softplus."""
    if x.op == "exp":
        return unary("softplus", x.args[0])
    return unary("softplus", 0) if is_const(x, 1) else unary("log1p", x)


def size(x: Expression) -> Expression:
    """``|x|``, which is ``x`` for sums and products of positive functions."""
    return x if never_negative(x) else unary("abs", x)


def never_negative(x: Expression) -> bool:
    """Whether an expression is >= 0 by its form."""
    known: dict[Expression, bool] = {}
    for node in topological(x):
        op, args = node.op, node.args
        if op == "const":
            known[node] = args[0] >= 0
        elif op in ("exp", "sigmoid", "softplus", "bump", "relu", "abs", "sqrt", "step"):
            known[node] = True
        elif op in ("add", "mul", "div", "min"):
            known[node] = known[args[0]] and known[args[1]]
        elif op == "max":
            known[node] = known[args[0]] or known[args[1]]
        elif op == "pow":
            known[node] = args[1] % 2 == 0 or known[args[0]]
        else:
            known[node] = False
    return known[x]


def larger(x: Expression, y: Expression) -> Expression:
    """``max(x, y)``."""
    if x == y:
        return x
    if is_const(y, 0):
        return unary("relu", x)
    return unary("relu", y) if is_const(x, 0) else binary("max", x, y)


def smaller(x: Expression, y: Expression) -> Expression:
    """``min(x, y)``."""
    return x if x == y else binary("min", x, y)


def raised(x: Expression, exponent: Expression) -> Expression:
    """``x ** y``: whole powers and roots by `core.numbers.power`, else ``exp(y log x)``."""
    from ...core.numbers import power as any_power

    if exponent.op == "const":
        return any_power(x, exponent.args[0])
    return unary("exp", binary("mul", exponent, logarithm(x)))


def chosen(x: Expression, a: Expression, b: Expression) -> Expression:
    """``a`` where ``x > 0``, else ``b``; ``c x`` and ``d x`` give ``d x + (c - d) relu(x)``."""
    c, d = multiple(a, x), multiple(b, x)
    if c is not None and d is not None and x.op != "const":
        return binary("add", binary("mul", d, x), binary("mul", c - d, unary("relu", x)))
    return select(x, a, b)


def multiple(e: Expression, x: Expression) -> Fraction | None:
    """The number ``c`` with ``e = c x`` by its form."""
    if is_const(e, 0):
        return Fraction(0)
    if e == x:
        return Fraction(1)
    if e == negated(x):
        return Fraction(-1)
    if e.op == "mul" and e.args[0].op == "const" and e.args[1] == x:
        return e.args[0].args[0]
    if e.op == "mul" and e.args[1].op == "const" and e.args[0] == x:
        return e.args[1].args[0]
    return None
