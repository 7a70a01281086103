"""Expressions as lists of instructions, which JSON can store."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .errors import InvalidInputError
from .expressions import BINARY, SELECT, UNARY, Expression, lift, topological, variable


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
