"""Expressions as lists of instructions, which JSON can store, and as text."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .errors import InvalidInputError
from .expressions import BINARY, SELECT, UNARY, Expression, children, lift, topological, variable

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def instructions(e: Expression) -> list[list[Any]]:
    """The expression as a list ``[op, argument, ...]``; arguments are positions in the list, names, exponents or "p/q"."""
    order = topological(e)
    index = {node: i for i, node in enumerate(order)}
    rows: list[list[Any]] = []
    for node in order:
        if node.op == "const":
            rows.append(["const", str(node.args[0])])
        else:
            rows.append([node.op, *(index[x] if isinstance(x, Expression) else x for x in node.args)])
    return rows


def from_instructions(rows: list[list[Any]]) -> Expression:
    """The expression that `instructions` stored.

    Raises:
        InvalidInputError: if the rows are not such a list.
    """
    built: list[Expression] = []
    for row in rows:
        op, args = row[0], row[1:]
        if op == "const":
            built.append(lift(str(args[0])))
        elif op == "var":
            built.append(variable(str(args[0])))
        elif op == "pow":
            built.append(Expression("pow", built[args[0]], int(args[1])))
        elif op in UNARY or op in BINARY or op == SELECT:
            built.append(Expression(op, *(built[i] for i in args)))
        else:
            raise InvalidInputError(
                "instruction", row, ", ".join((*UNARY, *BINARY, SELECT, "const", "var", "pow"))
            )
    return built[-1]


def digest(e: Expression) -> str:
    """SHA-256 of the instructions, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(instructions(e), separators=(",", ":")).encode()).hexdigest()


def show(e: Expression, limit: int = 2000) -> str:
    """The expression as text, with as few parentheses as the usual rules need; what is longer than ``limit`` is cut."""
    done: dict[Expression, tuple[str, int]] = {}
    for node in topological(e):
        text, own = _text(node, done)
        done[node] = (text if len(text) <= limit else text[: limit - 3] + "..."), own
    return done[e][0]


def _text(node: Expression, done: dict[Expression, tuple[str, int]]) -> tuple[str, int]:
    """The text of a node and how tightly it binds: 0 fractions and signs in front, 1 sums, 2 products, 5 the rest."""

    def inside(x: Expression, level: int) -> str:
        text, own = done[x]
        return f"({text})" if level > own else text

    if node.op == "const":
        value = node.args[0]
        plain = str(value)
        if value.denominator & (value.denominator - 1) == 0 and len(plain) > 12:
            plain = repr(float(value))
        return plain, 0 if value < 0 or "/" in plain else 5
    if node.op == "var":
        return node.args[0], 5
    if node.op == "pow":
        return f"{inside(node.args[0], 4)}^{node.args[1]}", 5
    if node.op == "neg":
        return f"-{inside(node.args[0], 2)}", 1
    if node.op in _SIGNS:
        own = 1 if node.op in ("add", "sub") else 2
        left, right = inside(node.args[0], own), inside(node.args[1], own + (node.op in ("sub", "div")))
        return (f"{left}{_SIGNS[node.op]}{right}" if own == 2 else f"{left} {_SIGNS[node.op]} {right}"), own
    if node.op == "dd":
        name, order, u, v = node.args
        return f"{name}[{', '.join([inside(u, 0), *[inside(v, 0)] * order])}]", 5
    return f"{node.op}({', '.join(inside(c, 0) for c in children(node))})", 5
