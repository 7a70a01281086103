"""Expressions of a box certificate: well-formedness, text, and equality as polynomials in atoms.

An expression is a list of rows ``[op, argument, ...]``; an argument is the position of an earlier row, and the last row is
the value. Everything here is exact (integers and fractions).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ..errors import CheckError

STEP = "expressions"
UNARY = ("neg", "exp", "log", "log1p", "sqrt", "tanh", "sigmoid", "softplus", "bump", "relu", "step", "abs")
BINARY = ("add", "sub", "mul", "div", "max", "min")
DIFFERENTIABLE = ("exp", "log", "log1p", "sqrt", "tanh", "sigmoid", "softplus", "bump", "relu")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")
_RATIONAL = re.compile(r"-?(0|[1-9][0-9]{0,400})(/[1-9][0-9]{0,400})?")
MAX_ROWS, MAX_TERMS = 10_000, 4_000

Rows = list[tuple[Any, ...]]
Monomial = tuple[tuple[str, int], ...]
Polynomial = dict[Monomial, Fraction]


def rational(value: Any, path: str) -> Fraction:
    """A rational in lowest terms, stored as ``"p"`` or ``"p/q"``.

    Raises:
        CheckError: for anything else.
    """
    if isinstance(value, str) and _RATIONAL.fullmatch(value):
        number = Fraction(value)
        if str(number) == value:
            return number
    raise CheckError("schema", f"{path} = {value!r:.60}; accepted: a rational 'p' or 'p/q' in lowest terms")


def rows(value: Any, path: str) -> Rows:
    """The checked rows of an expression, constants as Fractions.

    Raises:
        CheckError: naming the row that is not well formed.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_ROWS:
        raise CheckError("schema", f"{path}: accepted: a list of 1 to {MAX_ROWS} rows")
    return [_row(row, i, f"{path}[{i}]") for i, row in enumerate(value)]


def _row(row: Any, i: int, path: str) -> tuple[Any, ...]:
    def earlier(x: Any) -> bool:
        return isinstance(x, int) and not isinstance(x, bool) and 0 <= x < i

    if isinstance(row, list) and row and isinstance(row[0], str):
        op, args = row[0], row[1:]
        if op == "const" and len(args) == 1:
            return op, rational(args[0], path)
        if op == "var" and len(args) == 1 and isinstance(args[0], str) and NAME.fullmatch(args[0]):
            return op, args[0]
        if op in UNARY and len(args) == 1 and earlier(args[0]):
            return op, args[0]
        if op in BINARY and len(args) == 2 and earlier(args[0]) and earlier(args[1]):
            return op, *args
        if op == "select" and len(args) == 3 and all(map(earlier, args)):
            return op, *args
        if op == "pow" and len(args) == 2 and earlier(args[0]):
            n = args[1]
            if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 64:
                return op, args[0], n
        if (
            op == "dd"
            and len(args) == 4
            and args[0] in DIFFERENTIABLE
            and earlier(args[2])
            and earlier(args[3])
        ):
            if args[1] not in (1, 2) or isinstance(args[1], bool):
                raise CheckError("schema", f"{path}: the order of a divided difference is 1 or 2")
            return op, *args
    raise CheckError("schema", f"{path} = {row!r:.60} is not an instruction")


def arguments(row: tuple[Any, ...]) -> tuple[int, ...]:
    """Positions of the rows that a row uses."""
    op = row[0]
    if op in ("const", "var"):
        return ()
    return row[3:] if op == "dd" else row[1:2] if op == "pow" else row[1:]


def variables(e: Rows) -> set[str]:
    """Names of the variables."""
    return {row[1] for row in e if row[0] == "var"}


# --- text ----------------------------------------------------------------------------------------------------------


def short(x: Fraction) -> str:
    """A rational as text: itself, or the float it is where that is shorter."""
    plain = str(x)
    return plain if len(plain) <= 12 or Fraction(float(x)) != x else repr(float(x))


def text(e: Rows, limit: int = 4_000) -> str:
    """The expression with as few parentheses as the usual rules need; a long one by its digest."""
    done: list[
        tuple[str, int]
    ] = []  # text and how tightly it binds: 1 sums, 2 products, 3 signs and fractions, 4 the rest

    def wrap(i: int, level: int) -> str:
        inner, own = done[i]
        return inner if own >= level else f"({inner})"

    for row in e:
        op = row[0]
        if op == "const":
            plain = short(row[1])
            done.append((plain, 2 if "/" in plain or row[1] < 0 else 4))
        elif op == "var":
            done.append((row[1], 4))
        elif op == "pow":
            done.append((f"{wrap(row[1], 4)}^{row[2]}", 4))
        elif op == "neg":
            done.append((f"-{wrap(row[1], 3)}", 2))
        elif op in ("add", "sub"):
            done.append(
                (
                    f"{wrap(row[1], 1)} {'+' if op == 'add' else '-'} {wrap(row[2], 1 if op == 'add' else 2)}",
                    1,
                )
            )
        elif op in ("mul", "div"):
            sign = "*" if op == "mul" else "/"
            done.append((f"{wrap(row[1], 2)}{sign}{wrap(row[2], 3)}", 2))
        elif op == "dd":
            inner = ", ".join([done[row[3]][0], *[done[row[4]][0]] * row[2]])
            done.append((f"{row[1]}[{inner}]", 4))
        else:
            done.append((f"{op}({', '.join(done[i][0] for i in row[1:])})", 4))
        if len(done[-1][0]) > limit:
            return f"F, the formula of {len(e)} instructions with SHA-256 {digest(e)},"
    return done[-1][0]


def digest(e: Rows) -> str:
    """SHA-256 of the rows as they are stored, without spaces."""
    stored = [[str(x) if isinstance(x, Fraction) else x for x in row] for row in e]
    return hashlib.sha256(json.dumps(stored, separators=(",", ":")).encode()).hexdigest()


# --- polynomials in atoms ------------------------------------------------------------------------------------------


def constant(c: Fraction | int) -> Polynomial:
    """A number."""
    return {(): Fraction(c)} if c else {}


def atom(key: str) -> Polynomial:
    """An atom."""
    return {((key, 1),): Fraction(1)}


def plus(p: Polynomial, q: Polynomial, factor: Fraction | int = 1) -> Polynomial:
    """``p + factor q``."""
    total = dict(p)
    for m, c in q.items():
        total[m] = total.get(m, Fraction(0)) + factor * c
    return {m: c for m, c in total.items() if c}


def times(p: Polynomial, q: Polynomial) -> Polynomial:
    """``p q``.

    Raises:
        CheckError: if it would have too many terms.
    """
    if len(p) * len(q) > 40 * MAX_TERMS:
        raise CheckError(STEP, "an expression has too many terms when expanded")
    total: Polynomial = {}
    for m, c in p.items():
        for n, d in q.items():
            powers = dict(m)
            for key, e in n:
                powers[key] = powers.get(key, 0) + e
            joint = tuple(sorted(powers.items()))
            total[joint] = total.get(joint, Fraction(0)) + c * d
    return {m: c for m, c in total.items() if c}


def power(p: Polynomial, n: int) -> Polynomial:
    """``p^n``."""
    result = constant(1)
    for _ in range(n):
        result = times(result, p)
    return result


RATIONAL_VALUES = {
    "exp": {0: Fraction(1)},
    "log": {1: Fraction(0)},
    "log1p": {0: Fraction(0)},
    "sqrt": {0: Fraction(0), 1: Fraction(1)},
    "tanh": {0: Fraction(0)},
    "sigmoid": {0: Fraction(1, 2)},
    "bump": {0: Fraction(1, 4)},
}
"""Values of functions at numbers, where these are rational."""


def known_value(f: str, x: Polynomial) -> Polynomial | None:
    """``f(x)`` as a number, if ``x`` is one and the value is in the table."""
    if x and set(x) != {()}:
        return None
    c = x.get((), Fraction(0))
    value = RATIONAL_VALUES.get(f, {}).get(c)
    if f in ("relu", "step", "abs"):
        value = {"relu": max(c, Fraction(0)), "step": Fraction(c > 0), "abs": abs(c)}[f]
    return None if value is None else constant(value)


def key_of(p: Polynomial) -> str:
    """A text that two polynomials share if and only if they are equal."""
    return "+".join(f"{c}*{'*'.join(f'{a}^{e}' for a, e in m)}" for m, c in sorted(p.items())) or "0"


def expand(e: Rows, swap: Mapping[str, Polynomial] | None = None) -> Polynomial:
    """The expression as a polynomial in atoms; ``swap`` replaces atoms where they are factors of terms."""
    replaced = swap or {}
    outer: list[Polynomial] = []
    inner: list[Polynomial] = []  # without replacement: what is inside a function stays as it is

    def leaf(key: str) -> tuple[Polynomial, Polynomial]:
        return replaced.get(key, atom(key)), atom(key)

    for row in e:
        op = row[0]
        if op == "const":
            pair = (constant(row[1]), constant(row[1]))
        elif op == "var":
            pair = leaf(row[1])
        elif op in ("add", "sub"):
            sign = 1 if op == "add" else -1
            pair = (plus(outer[row[1]], outer[row[2]], sign), plus(inner[row[1]], inner[row[2]], sign))
        elif op == "neg":
            pair = (plus({}, outer[row[1]], -1), plus({}, inner[row[1]], -1))
        elif op == "mul":
            pair = (times(outer[row[1]], outer[row[2]]), times(inner[row[1]], inner[row[2]]))
        elif op == "pow":
            pair = (power(outer[row[1]], row[2]), power(inner[row[1]], row[2]))
        elif op == "div":
            pair = _quotient(outer[row[1]], inner[row[1]], inner[row[2]], leaf)
        elif op == "dd":
            pair = leaf(difference_key(row[1], row[2], inner[row[3]], inner[row[4]]))
        elif len(row) == 2 and (value := known_value(op, inner[row[1]])) is not None:
            pair = (value, value)
        else:
            pair = leaf(f"{op}({';'.join(key_of(inner[i]) for i in row[1:])})")
        outer.append(pair[0])
        inner.append(pair[1])
    return outer[-1]


def _quotient(
    outer: Polynomial, inner: Polynomial, divisor: Polynomial, leaf: Any
) -> tuple[Polynomial, Polynomial]:
    if set(divisor) == {()}:
        c = 1 / divisor[()]
        return plus({}, outer, c), plus({}, inner, c)
    if not divisor:
        raise CheckError(STEP, "a division by zero")
    a, b = leaf(f"inv({key_of(divisor)})")
    return times(outer, a), times(inner, b)


def difference_key(f: str, order: int, u: Polynomial, v: Polynomial) -> str:
    """The atom of a divided difference."""
    return f"dd:{f}:{order}({key_of(u)};{key_of(v)})"


def function_key(f: str, x: Polynomial) -> str:
    """The atom of a function value."""
    return f"{f}({key_of(x)})"


def value_at(f: str, x: Polynomial) -> Polynomial:
    """``f(x)``: a number where that is known, else an atom."""
    number = known_value(f, x)
    return atom(function_key(f, x)) if number is None else number


def inverse(x: Polynomial) -> Polynomial:
    """``1/x``: a number for a number, else an atom.

    Raises:
        CheckError: for zero.
    """
    if not x:
        raise CheckError(STEP, "a division by zero")
    return constant(1 / x[()]) if set(x) == {()} else atom(f"inv({key_of(x)})")


def slope(f: str, x: Polynomial) -> Polynomial:
    """``f'(x)`` for a variable or a number ``x``, as a polynomial in atoms.

    Raises:
        CheckError: for a function that second differences are not used with.
    """
    if f in ("exp", "softplus", "sigmoid"):
        return value_at({"exp": "exp", "softplus": "sigmoid", "sigmoid": "bump"}[f], x)
    if f == "tanh":
        return plus(constant(1), power(value_at("tanh", x), 2), -1)
    if f == "log":
        return inverse(x)
    if f == "log1p":
        return inverse(plus(constant(1), x))
    if f == "sqrt":
        return inverse(plus({}, value_at("sqrt", x), 2))
    if f in ("relu", "abs"):
        step = value_at("step", x)
        return step if f == "relu" else plus(constant(-1), step, 2)
    if f == "bump":
        return plus({}, times(value_at("bump", x), value_at("tanh", plus({}, x, Fraction(1, 2)))), -1)
    raise CheckError(STEP, f"second differences of {f} are not supported")
