"""Enclosures of second derivatives on boxes, and the tests for a residual that vanishes on a set and for smoothness.

The proofs are in ``docs/checks/certify.md`` ("The Hessian on the hull"). Everything is restated in `proxyconvex_checker.boxes.curvature`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...core.expressions import Expression
from ...core.intervals import lower_float, upper_float
from ..intervals.arrays import Own, Pair
from .program import Gradient, Program, _Run, const, derivative

Array = np.ndarray
Hessian = dict[tuple[int, int], Pair]
NEAR = 16.0


@dataclass(frozen=True)
class Segment:
    """Where the slack vanishes to second order.

    Attributes:
        moved: the variables that take a value there.
        starts: these values, expressions of the other variables.
    """

    moved: tuple[str, ...]
    starts: tuple[Expression, ...]

    @property
    def sentence(self) -> str:
        """The device in words."""
        where = ", ".join(f"{n} = {e!r}" for n, e in zip(self.moved, self.starts, strict=True))
        return f"the slack vanishes to second order at {where}, and its second derivatives are positive semi-definite from there to the box"


@dataclass(frozen=True)
class Curved:
    """The test by second derivatives.

    Attributes:
        residual: the slack, or f itself for smoothness.
        starts: where segments start; None for smoothness.
        moved: coordinates in which derivatives are taken.
        bound: L for smoothness, else None.
    """

    residual: Program
    starts: Program | None
    moved: tuple[int, ...]
    bound: Fraction | None = None

    @classmethod
    def make(
        cls,
        e: Expression,
        segment: Segment | None,
        names: Sequence[str],
        arithmetic: Own,
        bound: Fraction | None = None,
    ) -> Curved:
        """The test for a slack and a segment, or for a function and a smoothness constant."""
        program, index = Program([e], names, arithmetic), {n: i for i, n in enumerate(names)}
        if segment is None:
            return cls(program, None, tuple(range(len(names))), bound)
        return cls(
            program, Program(segment.starts, names, arithmetic), tuple(index[n] for n in segment.moved)
        )

    def closes(self, lo: Array, hi: Array) -> tuple[Array, Array]:
        """Which boxes are closed, and a lower bound on the least eigenvalue of what should be semi-definite."""
        with np.errstate(all="ignore"):
            return self._smooth(lo, hi) if self.bound is not None else self._segments(lo, hi)

    def _segments(self, lo: Array, hi: Array) -> tuple[Array, Array]:
        assert self.starts is not None
        low, high = lo.copy(), hi.copy()
        near = np.ones(len(lo), bool)
        for i, (a, b) in zip(self.moved, self.starts.values(lo, hi), strict=True):
            low[:, i], high[:, i] = np.minimum(lo[:, i], a), np.maximum(hi[:, i], b)
            near &= high[:, i] - low[:, i] <= NEAR * (hi[:, i] - lo[:, i])
        good, least = np.zeros(len(lo), bool), np.full(len(lo), -np.inf)
        pick = np.flatnonzero(near)
        if pick.size:
            matrix = Second(self.residual, low[pick], high[pick], self.moved).matrix()
            good[pick] = semi_definite(self.residual.arithmetic, matrix)
        return good, least

    def _smooth(self, lo: Array, hi: Array) -> tuple[Array, Array]:
        a, n = self.residual.arithmetic, len(lo)
        assert self.bound is not None
        shift = np.full(n, lower_float(self.bound)), np.full(n, upper_float(self.bound))
        matrix = Second(self.residual, lo, hi, self.moved).matrix()
        good, least = np.ones(n, bool), np.full(n, np.inf)
        for sign in (1, -1):
            signed = [[a.neg(x) if sign < 0 else x for x in row] for row in matrix]
            shifted = [
                [a.add(x, shift) if i == j else x for j, x in enumerate(row)] for i, row in enumerate(signed)
            ]
            good &= semi_definite(a, shifted)
            least = np.minimum(least, circles(a, shifted))
        return good, least


def semi_definite(a: Own, matrix: list[list[Pair]]) -> Array:
    """Whether every symmetric matrix in an interval matrix is positive semi-definite, by elimination; one answer a box."""
    m = [list(row) for row in matrix]
    k = len(m)
    good = np.ones(m[0][0][0].shape, bool)
    for p in range(k):
        pivot = m[p][p]
        alone = pivot[0] >= 0
        for q in range(p + 1, k):
            alone &= (m[p][q][0] == 0) & (m[p][q][1] == 0)
        good &= alone | (pivot[0] > 0)
        for i in range(p + 1, k):
            for j in range(i, k):
                product = a.square(m[p][i]) if i == j else a.mul(m[p][i], m[p][j])
                rest = a.sub(m[i][j], a.div(product, pivot))
                kept = np.where(alone, m[i][j][0], rest[0]), np.where(alone, m[i][j][1], rest[1])
                m[i][j] = m[j][i] = kept
    return good


def circles(a: Own, matrix: list[list[Pair]]) -> Array:
    """A lower bound on the least eigenvalue of every matrix inside (Gershgorin's circles); minus infinity if unknown."""
    least = np.full(matrix[0][0][0].shape, np.inf)
    for i, row in enumerate(matrix):
        total = row[i]
        for j, x in enumerate(row):
            if j != i:
                total = a.sub(total, a.abs(x))
        least = np.minimum(least, np.where(np.isnan(total[0]), -np.inf, total[0]))
    return least


class Second(_Run):
    """Values, gradients and second derivatives of the one output of a program, in some coordinates."""

    def __init__(self, program: Program, lo: Array, hi: Array, moved: tuple[int, ...]) -> None:
        super().__init__(program, lo, hi, slopes=False)
        self.moved, self.curve = moved, {}
        self.zero, self.one = const(self.n, 0.0), const(self.n, 1.0)
        for node in program.order:
            self.slope[node], self.curve[node] = self.derive(node)

    def matrix(self) -> list[list[Pair]]:
        """The second derivatives of the output."""
        h = self.curve[self.program.outputs[0]]
        return [[h.get((min(i, j), max(i, j)), self.zero) for j in self.moved] for i in self.moved]

    def derive(self, node: Expression) -> tuple[Gradient, Hessian]:
        """Gradient and second derivatives of one node; what is left out is zero."""
        op, args = node.op, node.args
        if op == "const":
            return {}, {}
        if op == "var":
            i = self.program.index[args[0]]
            return ({i: self.one} if i in self.moved else {}), {}
        x, g, h = self.value[args[0]], self.slope[args[0]], self.curve[args[0]]
        if op == "neg":
            return {i: self.a.neg(d) for i, d in g.items()}, {i: self.a.neg(d) for i, d in h.items()}
        if op == "pow":
            return self.chain(g, h, *self.power_slopes(x, args[1])) if g else ({}, {})
        if len(args) == 1:
            return self.chain(g, h, *self.function_slopes(op, x)) if g else ({}, {})
        if op == "mul":
            for number, other in ((args[0], args[1]), (args[1], args[0])):
                if number.op == "const" and float(number.args[0]) == number.args[0]:
                    c, g, h = float(number.args[0]), self.slope[other], self.curve[other]
                    return {i: self.a.scale(d, c) for i, d in g.items()}, {
                        i: self.a.scale(d, c) for i, d in h.items()
                    }
        if op in ("add", "sub", "mul", "div"):
            return self.binary(op, args[0], args[1])
        return self.choice(op, args)

    def power_slopes(self, x: Pair, n: int) -> tuple[Pair, Pair]:
        """``n x^(n-1)`` and ``n (n-1) x^(n-2)``."""
        one = const(self.n, 1.0)
        second = one if n == 2 else x if n == 3 else self.a.pow(x, n - 2)
        first = x if n == 2 else self.a.pow(x, n - 1)
        return self.a.scale(first, float(n)), self.a.scale(second, float(n * (n - 1)))

    def function_slopes(self, op: str, x: Pair) -> tuple[Pair, Pair]:
        """First and second derivative; a step has none at its jump."""
        if op == "step":
            flat = np.where((x[0] > 0) | (x[1] < 0), 0.0, np.nan)
            return (flat, flat), (flat, flat)
        return derivative(self.a, op, x, 1), derivative(self.a, op, x, 2)

    def chain(self, g: Gradient, h: Hessian, first: Pair, second: Pair) -> tuple[Gradient, Hessian]:
        """``f(x)``: ``f' g`` and ``f' H + f'' g g'``."""
        curve = {ij: self.a.mul(first, d) for ij, d in h.items()}
        for i, j in pairs(g):
            if g[i] is self.one and g[j] is self.one:
                outer = second
            else:
                outer = self.a.mul(second, self.a.square(g[i]) if i == j else self.a.mul(g[i], g[j]))
            curve[i, j] = self.a.add(curve[i, j], outer) if (i, j) in curve else outer
        return {i: first if d is self.one else self.a.mul(d, first) for i, d in g.items()}, curve

    def binary(self, op: str, a: Expression, b: Expression) -> tuple[Gradient, Hessian]:
        """Sums, products and quotients."""
        g, h, gy, hy, x, y = (
            self.slope[a],
            self.curve[a],
            self.slope[b],
            self.curve[b],
            self.value[a],
            self.value[b],
        )
        if op == "sub":
            gy, hy = {i: self.a.neg(d) for i, d in gy.items()}, {i: self.a.neg(d) for i, d in hy.items()}
        if op in ("add", "sub"):
            return self.sum(g, gy), self.joined(h, hy)
        if op == "div":
            y = self.a.div(const(self.n, 1.0), y)
            square = self.a.square(y)
            gy, hy = self.chain(gy, hy, self.a.neg(square), self.a.scale(self.a.mul(square, y), 2.0))
        curve = self.joined(
            {ij: self.a.mul(d, y) for ij, d in h.items()}, {ij: self.a.mul(d, x) for ij, d in hy.items()}
        )
        for i, j in pairs({**g, **gy}):
            for p, q in ((i, j), (j, i)):
                if p in g and q in gy:
                    cross = self.a.mul(g[p], gy[q])
                    curve[i, j] = self.a.add(curve[i, j], cross) if (i, j) in curve else cross
        return self.sum(self.times(g, y), self.times(gy, x)), curve

    def choice(self, op: str, args: tuple[Expression, ...]) -> tuple[Gradient, Hessian]:
        """max, min and select: the derivatives of what is certainly chosen on the whole box."""
        a, b = args[-2:]
        x, y = self.value[a], self.value[b]
        if op == "select":
            test = self.value[args[0]]
            first, second = test[0] > 0, test[1] < 0
        else:
            first, second = (x[0] > y[1], y[0] > x[1]) if op == "max" else (x[1] < y[0], y[1] < x[0])

        def merged(p: dict, q: dict, keys: set) -> dict:
            found = {}
            for k in keys:
                s, t = p.get(k, self.zero), q.get(k, self.zero)
                found[k] = tuple(
                    np.where(first, u, np.where(second, v, np.nan)) for u, v in zip(s, t, strict=True)
                )
            return found

        touched = {i for k in args for i in self.slope[k]}
        slope = merged(self.slope[a], self.slope[b], touched)
        # Where nothing is chosen there may be no second derivative, however flat the parts are.
        return slope, merged(self.curve[a], self.curve[b], set(pairs(slope)))

    def joined(self, h: Hessian, k: Hessian) -> Hessian:
        """The sum of two sets of second derivatives."""
        return {
            ij: self.a.add(h[ij], k[ij]) if ij in h and ij in k else (h if ij in h else k)[ij]
            for ij in {*h, *k}
        }


def pairs(g: Gradient) -> list[tuple[int, int]]:
    """Pairs of coordinates that a gradient mentions, the smaller first."""
    return [(i, j) for i in sorted(g) for j in sorted(g) if i <= j]
