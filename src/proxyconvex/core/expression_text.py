"""Expressions as text, with as few parentheses as the usual rules need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def text_of(nodes: Sequence[Any], children: Callable[[Any], tuple[Any, ...]], limit: int) -> str:
    """The last of the nodes, each listed after its parts, as text; what is longer than ``limit`` is cut."""
    done: dict[Any, tuple[str, int]] = {}
    for node in nodes:
        text, own = _text(node, children, done)
        done[node] = (text if len(text) <= limit else text[: limit - 3] + "..."), own
    return done[nodes[-1]][0]


def _text(
    node: Any, children: Callable[[Any], tuple[Any, ...]], done: dict[Any, tuple[str, int]]
) -> tuple[str, int]:
    """The text of a node and how tightly it binds: 0 fractions and signs in front, 1 sums, 2 products, 5 the rest."""

    def inside(x: Any, level: int) -> str:
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
