"""Expressions on boxes: natural interval extensions, gradients and mean-value forms."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from .expressions import Rows, arguments
from .intervals import (
    NAN,
    Array,
    Gradient,
    Pair,
    add,
    choice,
    const,
    difference,
    div,
    function,
    hull,
    meet,
    mul,
    neg,
    power,
    scale,
    slope,
    square,
    sub,
    thin,
)


def value(
    row: tuple[Any, ...], e: Rows, values: list[Pair], lo: Array, hi: Array, index: dict[str, int]
) -> Pair:
    """The enclosure of a row from those of the rows before it."""
    op = row[0]
    if op == "const":
        return const(lo[:, 0], row[1])
    if op == "var":
        return lo[:, index[row[1]]], hi[:, index[row[1]]]
    if op == "dd":
        return difference(row[1], row[2], values[row[3]], values[row[4]])
    x = values[row[1]]
    if op == "pow":
        return x if row[2] == 1 else power(x, row[2])
    if len(row) == 2:
        return function(op, x)
    if op == "select":
        return choice(x, values[row[2]], values[row[3]])
    y = values[row[2]]
    if op == "mul":
        for here, there in ((row[1], y), (row[2], x)):
            if e[here][0] == "const" and Fraction(float(e[here][1])) == e[here][1]:
                return scale(there, float(e[here][1]))
        return square(x) if row[1] == row[2] else mul(x, y)
    if op in ("max", "min"):
        pick = np.maximum if op == "max" else np.minimum
        return pick(x[0], y[0]), pick(x[1], y[1])
    return {"add": add, "sub": sub, "div": div}[op](x, y)


def evaluate(e: Rows, lo: Array, hi: Array, index: dict[str, int]) -> Pair:
    """Enclosure of an expression on boxes (rows of ``lo`` and ``hi``)."""
    values: list[Pair] = []
    for row in e:
        values.append(value(row, e, values, lo, hi, index))
    return values[-1]


def evaluate_centred(e: Rows, lo: Array, hi: Array, index: dict[str, int]) -> Array:
    """Lower bound by the mean-value form about the midpoint (or the natural extension, if that is better)."""
    values: list[Pair] = []
    slopes: list[Gradient] = []
    for row in e:
        values.append(value(row, e, values, lo, hi, index))
        slopes.append(_gradient(row, values, slopes, index))
    centre = lo + 0.5 * (hi - lo)
    total = evaluate(e, centre, centre, index)
    for i, g in slopes[-1].items():
        total = add(total, mul(g, sub((lo[:, i], hi[:, i]), thin(centre[:, i]))))
    return np.fmax(values[-1][0], total[0])


def sums(g: Gradient, h: Gradient) -> Gradient:
    """The sum of two gradients."""
    return {i: add(g[i], h[i]) if i in g and i in h else (g if i in g else h)[i] for i in sorted({*g, *h})}


def times(g: Gradient, x: Pair) -> Gradient:
    """A gradient times a number."""
    return {i: mul(d, x) for i, d in g.items()}


def _gradient(
    row: tuple[Any, ...], values: list[Pair], slopes: list[Gradient], index: dict[str, int]
) -> Gradient:
    """The chain rule for the row just evaluated."""
    op = row[0]
    if op == "const":
        return {}
    if op == "var":
        return {index[row[1]]: thin(np.ones_like(values[-1][0]))}
    inner = [slopes[i] for i in arguments(row)]
    x = [values[i] for i in arguments(row)]
    if op == "dd":
        return _difference_gradient(row[1], row[2], x, inner, values[-1])
    if op == "pow":
        n = row[2]
        return (
            inner[0] if n == 1 else times(inner[0], scale(x[0] if n == 2 else power(x[0], n - 1), float(n)))
        )
    if op == "neg":
        return {i: neg(g) for i, g in inner[0].items()}
    if len(inner) == 1:
        return times(inner[0], slope(op, x[0], 1)) if inner[0] else {}
    if op == "select":
        return _choice_gradient(x[0], inner, values[-1])
    g, h = inner
    if op == "add":
        return sums(g, h)
    if op == "sub":
        return sums(g, {i: neg(d) for i, d in h.items()})
    if op == "mul":
        return sums(times(g, x[1]), times(h, x[0]))
    if op == "div":
        inverse = div(thin(np.ones_like(x[0][0])), x[1])
        return sums(times(g, inverse), times(h, neg(mul(values[-1], inverse))))
    zero = thin(np.zeros_like(x[0][0]))
    return {i: hull(g.get(i, zero), h.get(i, zero)) for i in {*g, *h}}


def _choice_gradient(x: Pair, inner: list[Gradient], value: Pair) -> Gradient:
    """The gradient of what is certainly chosen; unknown where x does not decide, as there may be a jump."""
    yes, no = x[0] > 0, x[1] < 0
    zero, found = thin(np.zeros_like(value[0])), {}
    for i in sorted({*inner[0], *inner[1], *inner[2]}):
        a, b = inner[1].get(i, zero), inner[2].get(i, zero)
        found[i] = tuple(np.where(yes, p, np.where(no, q, NAN)) for p, q in zip(a, b, strict=True))
    return found


def _difference_gradient(f: str, order: int, x: list[Pair], inner: list[Gradient], value: Pair) -> Gradient:
    """``f[u,u,v] du + f[u,v,v] dv``, or ``f[u,u,v,v] du + 2 f[u,v,v,v] dv``."""
    both = hull(*x)
    if order == 2:
        third = slope(f, both, 3)
        by_u, by_v = div(third, const(third[0], 6)), div(third, const(third[0], 3))
    else:
        t, half = sub(*x), scale(slope(f, both, 2), 0.5)
        by_u = meet(half, div(sub(slope(f, x[0], 1), value), t))
        by_v = meet(half, div(sub(value, slope(f, x[1], 1)), t))
    return sums(times(inner[0], by_u), times(inner[1], by_v))
