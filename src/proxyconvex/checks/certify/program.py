"""Expressions on many boxes at once: enclosures of values and of gradients.

A box is a row of ``lo`` and ``hi``. `values` is the natural interval extension, with divided differences enclosed as
described in `_Run.divided`; `gradients` adds forward-mode derivatives, from which `centred` makes the mean-value form
``g(c) + sum_i dg/dx_i(box) (x_i - c_i)``, whose excess shrinks with the square of the box.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.expressions import Expression, topological
from ...core.intervals import lower_float, upper_float
from ..intervals.arrays import MONOTONE, Own, Pair

Gradient = dict[int, Pair]
CONVEX = ("exp", "softplus", "relu", "abs")
CONCAVE = ("log", "log1p", "sqrt")
INFLECTED = ("sigmoid", "tanh")  # convex below 0, concave above
UNKNOWN: Pair = (np.nan, np.nan)


class Program:
    """Several expressions of the same variables, each distinct node once.

    Args:
        outputs: the expressions.
        variables: names of the coordinates of a box, in order.
        arithmetic: interval arithmetic.
    """

    def __init__(self, outputs: Sequence[Expression], variables: Sequence[str], arithmetic: Own) -> None:
        self.outputs, self.arithmetic = tuple(outputs), arithmetic
        self.index = {name: i for i, name in enumerate(variables)}
        seen: dict[Expression, None] = {}
        for e in self.outputs:
            for node in topological(e):
                seen[node] = None
        self.order = list(seen)
        self._constants: dict[Expression, tuple[float, float]] = {}

    def constant(self, node: Expression) -> tuple[float, float]:
        """The floats around a constant; rounding a fraction outward takes as long as an operation on a chunk."""
        if node not in self._constants:
            self._constants[node] = lower_float(node.args[0]), upper_float(node.args[0])
        return self._constants[node]

    def values(self, lo: np.ndarray, hi: np.ndarray) -> list[Pair]:
        """Enclosures of the outputs on boxes, each of shape (N,)."""
        with np.errstate(all="ignore"):
            run = _Run(self, lo, hi, False)
            return [run.value[e] for e in self.outputs]

    def gradients(self, lo: np.ndarray, hi: np.ndarray) -> tuple[list[Pair], list[Gradient]]:
        """Enclosures of the outputs and of their partial derivatives on boxes."""
        with np.errstate(all="ignore"):
            run = _Run(self, lo, hi, True)
            return [run.value[e] for e in self.outputs], [run.slope[e] for e in self.outputs]

    def run(self, lo: np.ndarray, hi: np.ndarray) -> _Run:
        """The enclosures of all nodes on boxes, to take a part of them and add gradients."""
        with np.errstate(all="ignore"):
            return _Run(self, lo, hi, False)

    def centred(
        self, lo: np.ndarray, hi: np.ndarray, known: _Run | None = None
    ) -> tuple[list[Any], list[Pair], list[Gradient]]:
        """Lower bounds by the better of natural and mean-value form; values at the centres; gradients.

        Args:
            lo: lower corners.
            hi: upper corners.
            known: the enclosures on these very boxes, where they are known already.
        """
        centre = lo + 0.5 * (hi - lo)
        a, below = self.arithmetic, []
        with np.errstate(all="ignore"):
            run = _Run(self, lo, hi, False) if known is None else known
            run.differentiate_all()
            values, slopes = [run.value[e] for e in self.outputs], [run.slope[e] for e in self.outputs]
            at_centre = self.values(centre, centre)
            for value, slope, middle in zip(values, slopes, at_centre, strict=True):
                total = middle
                for i, g in slope.items():
                    step = a.sub((lo[:, i], hi[:, i]), (centre[:, i], centre[:, i]))
                    total = a.add(total, a.mul(g, step))
                below.append(np.fmax(value[0], total[0]))
        return below, at_centre, slopes


class _Run:
    """One evaluation."""

    def __init__(self, program: Program, lo: np.ndarray, hi: np.ndarray, slopes: bool) -> None:
        self.a, self.program = program.arithmetic, program
        self.lo, self.hi, self.n = lo, hi, len(lo)
        self.value: dict[Expression, Pair] = {}
        self.slope: dict[Expression, Gradient] = {}
        for node in program.order:
            self.value[node] = self.evaluate(node)
        if slopes:
            self.differentiate_all()

    def differentiate_all(self) -> None:
        """Add the gradients of all nodes."""
        for node in self.program.order:
            self.slope[node] = self.differentiate(node)

    def part(self, rows: np.ndarray) -> _Run:
        """The same for some of the boxes, without evaluating anything again."""
        other = copy.copy(self)
        other.lo, other.hi, other.n, other.slope = self.lo[rows], self.hi[rows], len(rows), {}
        other.value = {e: (x[0][rows], x[1][rows]) for e, x in self.value.items()}
        return other

    def evaluate(self, node: Expression) -> Pair:
        """The enclosure of one node from those of its arguments."""
        op, args = node.op, node.args
        if op == "const":
            low, high = self.program.constant(node)
            return np.full(self.n, low), np.full(self.n, high)
        if op == "var":
            i = self.program.index[args[0]]
            low = np.ascontiguousarray(self.lo[:, i])
            return (low, low) if self.lo is self.hi else (low, np.ascontiguousarray(self.hi[:, i]))
        if op == "dd":
            return self.divided(*args)
        x = self.value[args[0]]
        if op == "pow":
            return self.a.pow(x, args[1])
        if len(args) == 1:
            # At points one evaluation gives both bounds.
            return self.a.both(op, x[0]) if x[0] is x[1] and op in MONOTONE else self.a.unary(op, x)
        if op == "mul":
            for one, other in ((args[0], args[1]), (args[1], args[0])):
                if one.op == "const" and float(one.args[0]) == one.args[0]:
                    return self.a.scale(self.value[other], float(one.args[0]))
            if args[0] == args[1]:
                return self.a.square(x)
        return getattr(self.a, op)(x, *(self.value[y] for y in args[1:]))

    # --- divided differences ---

    def divided(self, f: str, order: int, u: Expression, v: Expression) -> Pair:
        """``f[u, v]`` or ``f[u, v, v]``.

        By the mean-value theorem (Taylor's, with the integral remainder) it is in the range of ``f'`` (of ``f''/2``) on the hull
        of u and v. First differences are, in addition: non-decreasing in both arguments where f is convex on the hull
        and non-increasing where it is concave, so that corners bound them; and the quotient of differences.
        """
        x, y = self.value[u], self.value[v]
        hull = (np.minimum(x[0], y[0]), np.maximum(x[1], y[1]))
        if order == 2:
            mean = self.a.scale(derivative(self.a, f, hull, 2), 0.5)
            t = self.a.sub(x, y)
            first = self.divided(f, 1, u, v)
            return meet(mean, self.a.div(self.a.sub(first, derivative(self.a, f, y, 1)), t))
        q = meet(derivative(self.a, f, hull, 1), self.corners(f, x, y, hull))
        if f in CONVEX or f in CONCAVE:
            return q
        plain = self.a.div(self.a.sub(self.a.unary(f, x), self.a.unary(f, y)), self.a.sub(x, y))
        return meet(q, plain)

    def corners(self, f: str, x: Pair, y: Pair, hull: Pair) -> Pair:
        """Bounds on ``f[u, v]`` from its values at two opposite corners, where it is monotone in both arguments."""
        if f in CONVEX:
            convex, concave = np.True_, np.False_
        elif f in CONCAVE:
            convex, concave = np.False_, np.True_
        elif f in INFLECTED:
            convex, concave = hull[1] <= 0, hull[0] >= 0
        else:
            return UNKNOWN
        low, high = self.quotient(f, x[0], y[0]), self.quotient(f, x[1], y[1])
        lo = np.where(convex, low[0], np.where(concave, high[0], np.nan))
        hi = np.where(convex, high[1], np.where(concave, low[1], np.nan))
        return lo, hi

    def quotient(self, f: str, x: Any, y: Any) -> Pair:
        """``(f(x) - f(y)) / (x - y)`` at points; nothing is claimed for ``x = y``."""
        a = self.a
        if f in MONOTONE:
            fx, fy = a.both(f, x), a.both(f, y)
        else:
            fx, fy = a.unary(f, (x, x)), a.unary(f, (y, y))
        return a.div(a.sub(fx, fy), a.sub((x, x), (y, y)))

    # --- derivatives ---

    def differentiate(self, node: Expression) -> Gradient:
        """Enclosures of the partial derivatives of a node; a coordinate that does not occur is left out."""
        op, args, a = node.op, node.args, self.a
        if op == "const":
            return {}
        if op == "var":
            one = np.ones(self.n)
            return {self.program.index[args[0]]: (one, one)}
        if op == "dd":
            return self.divided_slope(node, *args)
        x, gx = self.value[args[0]], self.slope[args[0]]
        if op == "pow":
            return self.times(gx, a.scale(a.pow(x, args[1] - 1), float(args[1])))
        if op == "neg":
            return {i: a.neg(g) for i, g in gx.items()}
        if len(args) == 1:
            return self.times(gx, derivative(a, op, x, 1)) if gx else {}
        if op == "select":
            return self.chosen_slope(x, gx, *(self.slope[y] for y in args[1:]))
        y, gy = self.value[args[1]], self.slope[args[1]]
        if op == "add":
            return self.sum(gx, gy)
        if op == "sub":
            return self.sum(gx, {i: a.neg(g) for i, g in gy.items()})
        if op == "mul":
            return self.sum(self.times(gx, y), self.times(gy, x))
        if op == "div":
            inverse = a.div((np.ones(self.n), np.ones(self.n)), y)
            return self.sum(self.times(gx, inverse), self.times(gy, a.neg(a.mul(self.value[node], inverse))))
        # max and min: a generalised gradient lies in the hull of both.
        zero = (np.zeros(self.n), np.zeros(self.n))
        return {i: hull_of(gx.get(i, zero), gy.get(i, zero)) for i in gx.keys() | gy.keys()}

    def divided_slope(self, node: Expression, f: str, order: int, u: Expression, v: Expression) -> Gradient:
        """``d f[u,v] = f[u,u,v] du + f[u,v,v] dv`` and ``d f[u,v,v] = f[u,u,v,v] du + 2 f[u,v,v,v] dv``."""
        by_u, by_v = self.partials(node, f, order, u, v)
        return self.sum(self.times(self.slope[u], by_u), self.times(self.slope[v], by_v))

    def partials(
        self, node: Expression, f: str, order: int, u: Expression, v: Expression
    ) -> tuple[Pair, Pair]:
        """The derivatives of a divided difference in u and in v.

        Divided differences of order k lie in the range of ``f^(k) / k!`` on the hull; the second ones are quotients of
        first ones too: ``f[u,u,v] = (f'(u) - f[u,v]) / (u - v)``.
        """
        a, x, y = self.a, self.value[u], self.value[v]
        hull = (np.minimum(x[0], y[0]), np.maximum(x[1], y[1]))
        if order == 2:
            third = derivative(a, f, hull, 3)
            return a.div(third, const(self.n, 6.0)), a.div(third, const(self.n, 3.0))
        second, t = a.scale(derivative(a, f, hull, 2), 0.5), a.sub(x, y)
        q = self.value[node]
        by_u = meet(second, a.div(a.sub(derivative(a, f, x, 1), q), t))
        by_v = meet(second, a.div(a.sub(q, derivative(a, f, y, 1)), t))
        return by_u, by_v

    def chosen_slope(self, x: Pair, gx: Gradient, ga: Gradient, gb: Gradient) -> Gradient:
        """The gradient of what is certainly chosen; unknown where x does not decide, as there may be a jump."""
        yes, no, zero = x[0] > 0, x[1] < 0, const(self.n, 0.0)
        return {
            i: tuple(
                np.where(yes, p, np.where(no, q, np.nan))
                for p, q in zip(ga.get(i, zero), gb.get(i, zero), strict=True)
            )
            for i in gx.keys() | ga.keys() | gb.keys()
        }  # type: ignore[return-value]

    def times(self, g: Gradient, factor: Pair) -> Gradient:
        """A gradient times a number."""
        return {i: self.a.mul(x, factor) for i, x in g.items()}

    def sum(self, g: Gradient, h: Gradient) -> Gradient:
        """The sum of two gradients."""
        return {
            i: self.a.add(g[i], h[i]) if i in g and i in h else g.get(i, h.get(i, UNKNOWN))
            for i in sorted(g.keys() | h.keys())
        }


def const(n: int, c: float) -> Pair:
    """A number as ``n`` thin intervals."""
    return np.full(n, c), np.full(n, c)


def meet(x: Pair, y: Pair) -> Pair:
    """The intersection of two enclosures of the same number; an unknown end leaves the other's."""
    return np.fmax(x[0], y[0]), np.fmin(x[1], y[1])


def hull_of(x: Pair, y: Pair) -> Pair:
    """The smallest interval that contains both."""
    return np.minimum(x[0], y[0]), np.maximum(x[1], y[1])


def derivative(a: Own, f: str, x: Pair, order: int) -> Pair:
    """Enclosure of the ``order``-th derivative (1, 2 or 3) of a function of one argument on intervals.

    At a kink: the hull of both one-sided derivatives, which is where generalised gradients and divided differences lie.
    Nothing is claimed where a derivative does not exist.
    """
    one = const(len(x[0]), 1.0)
    unknown = const(len(x[0]), np.nan)
    if f == "exp":
        return a.unary("exp", x)
    if f in ("log", "log1p"):
        inverse = a.div(one, x if f == "log" else a.add(x, one))
        return (inverse, a.neg(a.square(inverse)), a.scale(a.pow(inverse, 3), 2.0))[order - 1]
    if f == "sqrt":
        inverse = a.div(one, a.unary("sqrt", x))
        return a.scale(a.pow(inverse, 2 * order - 1), (0.5, -0.25, 0.375)[order - 1])
    if f in ("relu", "abs"):
        if order > 1:  # no curvature away from the kink
            flat = np.where((x[0] > 0) | (x[1] < 0), 0.0, np.nan)
            return flat, flat
        straddles = (x[0] <= 0) & (x[1] >= 0)
        low = 0.0 if f == "relu" else -1.0
        lo = np.where(straddles | (x[1] < 0), low, 1.0)
        hi = np.where(straddles | (x[0] > 0), 1.0, low)
        bad = np.isnan(x[0]) | np.isnan(x[1])
        return np.where(bad, low, lo), np.where(bad, 1.0, hi)
    if f == "tanh":
        th = a.unary("tanh", x)
        first = a.sub(one, a.square(th))
        if order == 1:
            return first
        if order == 2:
            return a.scale(a.mul(th, first), -2.0)
        return a.mul(first, a.sub(a.scale(a.square(th), 6.0), const(len(x[0]), 2.0)))
    shift = {"softplus": 0, "sigmoid": 1, "bump": 2}.get(f)
    if shift is None:
        return unknown  # step
    k = order + shift
    if k == 1:
        return a.unary("sigmoid", x)
    bump = a.unary("bump", x)
    if k == 2:
        return bump
    th = a.unary("tanh", a.scale(x, 0.5))
    if k == 3:
        return a.neg(a.mul(bump, th))
    square = a.square(th)
    if k == 4:
        return a.mul(bump, a.sub(a.scale(square, 1.5), const(len(x[0]), 0.5)))
    return a.mul(a.mul(bump, th), a.sub(const(len(x[0]), 2.0), a.scale(square, 3.0)))
