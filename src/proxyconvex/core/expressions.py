"""Formulas as data: build one by calling a Python function with symbols, then run it in any arithmetic.

An `Expression` is a node of a directed acyclic graph over rational constants and named variables. It is made by ring
operations and the functions below, evaluated in floats, NumPy, JAX, Fractions, rational intervals or ball arithmetic
by `arithmetics`, differentiated by `derivative`, and stored by `expression_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from .errors import InvalidInputError
from .expression_text import text_of

UNARY = ("neg", "exp", "log", "log1p", "sqrt", "tanh", "sigmoid", "softplus", "bump", "relu", "step", "abs")
"""Functions of one argument. ``bump(t) = sigmoid(t) sigmoid(-t)`` is the derivative of the sigmoid, ``relu(t) =
max(t, 0)``, ``step(t) = 1`` for ``t > 0`` and 0 otherwise."""
BINARY = ("add", "sub", "mul", "div", "max", "min")
SELECT = "select"
"""``select(x, a, b)`` is ``a`` where ``x > 0`` and ``b`` elsewhere; only the one that is chosen need be defined."""


def rational(what: str, value: Any) -> Fraction:
    """An exact rational: ints, Fractions, floats as the binary fraction they are, strings like ``"0.721"`` or ``"1/3"``.

    Raises:
        InvalidInputError: for anything else, NaN and infinities.
    """
    accepted = "a finite number or a string such as '0.721' or '1/3'"
    if isinstance(value, bool):
        raise InvalidInputError(what, value, accepted)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, int | float | str | Fraction):
        try:
            return Fraction(value)
        except (ValueError, OverflowError, ZeroDivisionError):
            pass
    raise InvalidInputError(what, value, accepted)


class Expression:
    """A node: an operation and its arguments. Equality is of structure.

    Attributes:
        op: ``"const"``, ``"var"``, ``"pow"``, ``"select"``, or one of `UNARY` and `BINARY`.
        args: the arguments: expressions; a Fraction for a constant; a name for a variable; (base, exponent) for a power.
    """

    __slots__ = ("_hash", "args", "op")

    def __init__(self, op: str, *args: Any) -> None:
        self.op, self.args = op, args
        self._hash = hash((op, args))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew, because the hash of a string differs from process to process.
        return Expression, (self.op, *self.args)

    def same(self, other: Expression) -> bool:
        """Whether two expressions have the same structure."""
        if self is other:
            return True
        if self._hash != other._hash or self.op != other.op or len(self.args) != len(other.args):
            return False
        return all(
            x.same(y) if isinstance(x, Expression) and isinstance(y, Expression) else x == y
            for x, y in zip(self.args, other.args, strict=True)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.same(other)

    def __add__(self, other: Any) -> Expression:
        return binary("add", self, other)

    def __radd__(self, other: Any) -> Expression:
        return binary("add", other, self)

    def __sub__(self, other: Any) -> Expression:
        return binary("sub", self, other)

    def __rsub__(self, other: Any) -> Expression:
        return binary("sub", other, self)

    def __mul__(self, other: Any) -> Expression:
        return binary("mul", self, other)

    def __rmul__(self, other: Any) -> Expression:
        return binary("mul", other, self)

    def __truediv__(self, other: Any) -> Expression:
        return binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return binary("div", other, self)

    def __neg__(self) -> Expression:
        return unary("neg", self)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return unary("abs", self)

    def __pow__(self, exponent: Any) -> Expression:
        return power(self, exponent)

    # NumPy's functions call these on objects, so ``np.exp(a)`` works inside a formula.
    def exp(self) -> Expression:
        """Exponential."""
        return unary("exp", self)

    def log(self) -> Expression:
        """Natural logarithm."""
        return unary("log", self)

    def log1p(self) -> Expression:
        """``log(1 + x)``."""
        return unary("log1p", self)

    def sqrt(self) -> Expression:
        """Square root."""
        return unary("sqrt", self)

    def tanh(self) -> Expression:
        """Hyperbolic tangent."""
        return unary("tanh", self)

    def _no_branch(self, *_: Any) -> bool:
        raise InvalidInputError(
            "formula", "a comparison of variables", "one expression without branches",
            "Use maximum(x, y), minimum(x, y), absolute(x), relu(x) or step(x) instead of if, <, > or ==.",
        )  # fmt: skip

    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = _no_branch

    def __float__(self) -> float:
        raise InvalidInputError(
            "formula", "float(variable)", "ring operations and the functions handed to the formula",
            "Functions of the math module need numbers; list exp, log, tanh, ... as parameters of the formula to get theirs.",
        )  # fmt: skip

    def __repr__(self) -> str:
        return show(self)


def show(e: Expression, limit: int = 2000) -> str:
    """The expression as text; what is longer than ``limit`` is cut."""
    return text_of(topological(e), children, limit)


def lift(x: Any) -> Expression:
    """A number as a constant expression; expressions unchanged."""
    return x if isinstance(x, Expression) else Expression("const", rational("number in a formula", x))


def variable(name: str) -> Expression:
    """The variable of this name."""
    return Expression("var", name)


def _is(x: Expression, value: int) -> bool:
    return x.op == "const" and x.args[0] == value


def binary(op: str, x: Any, y: Any) -> Expression:
    """A binary operation, with constants folded and neutral elements dropped (both exact)."""
    a, b = lift(x), lift(y)
    if a.op == "const" and b.op == "const" and not (op == "div" and b.args[0] == 0):
        p, q = a.args[0], b.args[0]
        value = {
            "add": lambda: p + q, "sub": lambda: p - q, "mul": lambda: p * q,
            "div": lambda: p / q, "max": lambda: max(p, q), "min": lambda: min(p, q),
        }[op]()  # fmt: skip
        return Expression("const", value)
    if op == "div" and _is(b, 0):
        raise InvalidInputError("formula", "a division by zero", "a divisor that is not the constant 0")
    if op in ("add", "sub") and _is(b, 0):
        return a
    if op == "add" and _is(a, 0):
        return b
    if op == "sub" and _is(a, 0):
        return unary("neg", b)
    if op == "mul" and (_is(a, 0) or _is(b, 0)):
        return lift(0)
    if op in ("mul", "div") and _is(b, 1):
        return a
    if op == "mul" and _is(a, 1):
        return b
    return Expression(op, a, b)


RATIONAL_VALUES = {
    ("exp", 0): Fraction(1), ("log", 1): Fraction(0), ("log1p", 0): Fraction(0), ("sqrt", 0): Fraction(0), ("sqrt", 1): Fraction(1),
    ("tanh", 0): Fraction(0), ("sigmoid", 0): Fraction(1, 2), ("bump", 0): Fraction(1, 4),
}  # fmt: skip


def unary(op: str, x: Any) -> Expression:
    """A function of one argument; folded where its value at a constant is known to be rational."""
    a = lift(x)
    if a.op == "const" and op in ("neg", "abs", "relu", "step"):
        p = a.args[0]
        return lift({"neg": -p, "abs": abs(p), "relu": max(p, Fraction(0)), "step": Fraction(p > 0)}[op])
    if op == "neg" and a.op == "neg":
        return a.args[0]
    if a.op == "const" and (op, a.args[0]) in RATIONAL_VALUES:
        return lift(RATIONAL_VALUES[op, a.args[0]])
    return Expression(op, a)


def power(x: Any, exponent: Any) -> Expression:
    """An integer power, or a square root for the exponent 1/2."""
    a, e = lift(x), rational("exponent", exponent)
    if e == Fraction(1, 2):
        return unary("sqrt", a)
    if e.denominator != 1 or abs(e) > 64:
        raise InvalidInputError("exponent", exponent, "a whole number from -64 to 64, or 1/2")
    n = int(e)
    if n < 0:
        return binary("div", 1, power(a, -n))
    if n == 0:
        return lift(1)
    if n == 1:
        return a
    return lift(a.args[0] ** n) if a.op == "const" else Expression("pow", a, n)


def select(x: Any, a: Any, b: Any) -> Expression:
    """``a`` where ``x > 0``, else ``b``; folded where that is known, and written with relu or step where it is one of these."""
    t, yes, no = lift(x), lift(a), lift(b)
    if yes == no:
        return yes
    if t.op == "const":
        return yes if t.args[0] > 0 else no
    if yes == t and _is(no, 0):
        return unary("relu", t)
    if yes.op == "const" and no.op == "const":
        return no + (yes - no) * unary("step", t)
    return Expression(SELECT, t, yes, no)


def _function(op: str) -> Callable[[Any], Expression]:
    def apply(x: Any) -> Expression:
        return unary(op, x)

    apply.__name__ = op
    return apply


HELPERS: dict[str, Callable[..., Any]] = {
    **{op: _function(op) for op in UNARY if op != "neg"},
    "absolute": _function("abs"),
    "maximum": lambda x, y: binary("max", x, y),
    "minimum": lambda x, y: binary("min", x, y),
    "square": lambda x: power(x, 2),
}
"""What a formula may ask for by listing it as a parameter."""


# --- reading an expression -----------------------------------------------------------------------------------------


def children(e: Expression) -> tuple[Expression, ...]:
    """The arguments that are expressions."""
    return tuple(x for x in e.args if isinstance(x, Expression))


def topological(e: Expression) -> list[Expression]:
    """Every distinct node, arguments before the nodes that use them."""
    order: dict[Expression, None] = {}
    stack = [(e, False)]
    while stack:
        node, ready = stack.pop()
        if node in order:
            continue
        if ready:
            order[node] = None
            continue
        stack.append((node, True))
        stack.extend((c, False) for c in reversed(children(node)))
    return list(order)


def names(e: Expression) -> set[str]:
    """The names of the variables in an expression."""
    return {n.args[0] for n in topological(e) if n.op == "var"}


def rebuild(e: Expression, leaf: Callable[[Expression], Expression | None]) -> Expression:
    """The expression with every node for which ``leaf`` returns something replaced by that."""
    done: dict[Expression, Expression] = {}
    for node in topological(e):
        new = leaf(node)
        if new is None:
            new = node
            args = [done[c] if isinstance(c, Expression) else c for c in node.args]
            if node.op in BINARY:
                new = binary(node.op, *args)
            elif node.op == SELECT:
                new = select(*args)
            elif node.op == "pow":
                new = power(*args)
            elif node.op in UNARY:
                new = unary(node.op, *args)
        done[node] = new
    return done[e]


def substitute(e: Expression, values: Mapping[str, Any]) -> Expression:
    """The expression with variables replaced by numbers or expressions."""
    return rebuild(e, lambda n: lift(values[n.args[0]]) if n.op == "var" and n.args[0] in values else None)


def derivative(e: Expression, name: str) -> Expression:
    """The derivative with respect to a variable; at a kink the left one, as the families fix it.

    Raises:
        InvalidInputError: for ``step``, ``max``, ``min`` and ``select``, which have no derivative that this calculus can state.
    """
    done: dict[Expression, Expression] = {}
    for node in topological(e):
        if node.op in ("const", "var"):
            done[node] = lift(int(node.op == "var" and node.args[0] == name))
            continue
        x = node.args[0]
        dx = done[x]
        if node.op == "pow":
            done[node] = node.args[1] * power(x, node.args[1] - 1) * dx
        elif node.op == SELECT:
            done[node] = _no_rule(node.op, [done[c] for c in node.args])
        elif node.op in BINARY:
            done[node] = _binary_rule(node, x, node.args[1], dx, done[node.args[1]])
        else:
            done[node] = lift(0) if _is(dx, 0) else unary_derivative(node.op, x) * dx
    return done[e]


def _binary_rule(
    node: Expression, x: Expression, y: Expression, dx: Expression, dy: Expression
) -> Expression:
    if _is(dx, 0) and _is(dy, 0):
        return lift(0)
    if node.op in ("max", "min"):
        return _no_rule(node.op, [dx, dy])
    rules = {
        "add": lambda: dx + dy,
        "sub": lambda: dx - dy,
        "mul": lambda: dx * y + x * dy,
        "div": lambda: (dx - node * dy) / y,
    }
    return rules[node.op]()


def _no_rule(op: str, slopes: list[Expression]) -> Expression:
    if all(_is(d, 0) for d in slopes):
        return lift(0)
    raise InvalidInputError(
        "derivative",
        op,
        "a formula without max, min and select",
        "Give the derivative yourself, or use relu.",
    )


def unary_derivative(op: str, x: Expression) -> Expression:
    """The derivative of a function of one argument, at ``x``."""
    rules: dict[str, Callable[[], Expression]] = {
        "neg": lambda: lift(-1),
        "exp": lambda: unary("exp", x),
        "log": lambda: 1 / x,
        "log1p": lambda: 1 / (1 + x),
        "sqrt": lambda: 1 / (2 * unary("sqrt", x)),
        "tanh": lambda: 1 - power(unary("tanh", x), 2),
        "softplus": lambda: unary("sigmoid", x),
        "sigmoid": lambda: unary("bump", x),
        "bump": lambda: -unary("bump", x) * unary("tanh", x / 2),
        "relu": lambda: unary("step", x),
        "abs": lambda: 2 * unary("step", x) - 1,
    }
    if op not in rules:
        raise InvalidInputError("derivative", op, ", ".join(rules), "Give the derivative yourself.")
    return rules[op]()
