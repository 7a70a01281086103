"""Second derivatives on boxes, and two tests with them: a residual that vanishes on a set, and smoothness.

*Segments.* Let a function F vanish together with its derivatives in the coordinates O where ``x_i = p_i`` for all i in O, each ``p_i``
a function of the other coordinates. Then ``F(x) = t' H t / 2`` with ``t_i = x_i - p_i`` and H the second derivatives in O at some point
between x and the point with ``x_i = p_i`` (Taylor along the segment). So F >= 0 on a box if H is positive semi-definite on the smallest box
that contains it and the values of p over it. That F and its derivatives vanish is checked with polynomials in atoms.

*Smoothness.* Where ``L I - H`` and ``L I + H`` are positive semi-definite on a convex set, f is L-smooth there (Taylor once more).

A function without second derivatives somewhere on a box (a kink inside) gets an unknown enclosure (NaN), which no test accepts.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import CheckError
from . import evaluation as ev
from . import expressions as ex
from . import intervals as iv
from .expressions import Polynomial, Rows
from .intervals import Array, Gradient, Pair

STEP = "curvature"
Hessian = dict[tuple[int, int], Pair]


# --- that the residual vanishes ------------------------------------------------------------------------------------


def check(offending: list[tuple[str, Rows]], slack: Rows, names: set[str]) -> None:
    """Check that the slack and its derivatives in the offending variables vanish where these take their targets.

    Raises:
        CheckError: if they do not, or a target uses an offending variable.
    """
    moved = [name for name, _ in offending]
    if len(set(moved)) != len(moved) or not set(moved) <= names:
        raise CheckError(STEP, "the coordinates of a segment must be different variables")
    for _, rows in offending:
        if ex.variables(rows) - (names - set(moved)) or any(row[0] == "dd" for row in rows):
            raise CheckError(STEP, "a target may use the other variables only")
    start = {name: ex.expand(rows) for name, rows in offending}
    value, slopes = _vanishing(slack, start)
    if value:
        raise CheckError(STEP, "the slack does not vanish where the segments start")
    if wrong := [name for name in moved if slopes.get(name)]:
        raise CheckError(STEP, f"the derivative in {wrong[0]} does not vanish where the segments start")


def _vanishing(e: Rows, start: dict[str, Polynomial]) -> tuple[Polynomial, dict[str, Polynomial]]:
    """Value and derivatives, as polynomials in atoms, where each name of ``start`` takes its value there."""
    values: list[Polynomial] = []
    slopes: list[dict[str, Polynomial]] = []
    for row in e:
        value, slope = _dual(row, values, slopes, start)
        values.append(value)
        slopes.append({k: p for k, p in slope.items() if p})
    return values[-1], slopes[-1]


def _dual(row: tuple[Any, ...], values: list[Polynomial], slopes: list[dict[str, Polynomial]], start: dict[str, Polynomial]) -> tuple[Polynomial, dict[str, Polynomial]]:  # fmt: skip
    op = row[0]
    if op == "const":
        return ex.constant(row[1]), {}
    if op == "var":
        return (start[row[1]], {row[1]: ex.constant(1)}) if row[1] in start else (ex.atom(row[1]), {})
    x, dx = values[row[1]], slopes[row[1]]
    if op == "neg":
        return ex.plus({}, x, -1), _scaled(dx, ex.constant(-1))
    if op == "pow":
        return ex.power(x, row[2]), _scaled(dx, ex.times(ex.constant(row[2]), ex.power(x, row[2] - 1)))
    if op in ("add", "sub", "mul", "div"):
        return _ring(op, x, dx, values[row[2]], slopes[row[2]])
    if len(row) == 2:
        slope = {} if not dx or op == "step" else _scaled(dx, ex.slope(op, x))
        return ex.value_at(op, x), slope
    inner = [values[i] for i in row[1:]]
    if any(slopes[i] for i in row[1:]):
        raise CheckError(STEP, f"derivatives of {op} are not supported where segments start")
    return ex.atom(f"{op}({';'.join(map(ex.key_of, inner))})"), {}


def _ring(op: str, x: Polynomial, dx: dict[str, Polynomial], y: Polynomial, dy: dict[str, Polynomial]) -> tuple[Polynomial, dict[str, Polynomial]]:  # fmt: skip
    if op in ("add", "sub"):
        sign = 1 if op == "add" else -1
        return ex.plus(x, y, sign), _joined(dx, _scaled(dy, ex.constant(sign)))
    if op == "mul":
        return ex.times(x, y), _joined(_scaled(dx, y), _scaled(dy, x))
    inverse = ex.inverse(y)
    value = ex.times(x, inverse)
    minus = ex.times(ex.times(value, inverse), ex.constant(-1))
    return value, _joined(_scaled(dx, inverse), _scaled(dy, minus))


def _scaled(d: dict[str, Polynomial], factor: Polynomial) -> dict[str, Polynomial]:
    return {k: ex.times(p, factor) for k, p in d.items()}


def _joined(a: dict[str, Polynomial], b: dict[str, Polynomial]) -> dict[str, Polynomial]:
    return {k: ex.plus(a.get(k, {}), b.get(k, {})) for k in {*a, *b}}


# --- second derivatives on boxes -----------------------------------------------------------------------------------


class Second:
    """Values, gradients and second derivatives of an expression in some of its variables, on boxes."""

    def __init__(self, e: Rows, lo: Array, hi: Array, index: dict[str, int], names: list[str]) -> None:
        self.place = {name: i for i, name in enumerate(names)}
        self.zero = np.zeros(len(lo)), np.zeros(len(lo))
        self.one = np.ones(len(lo)), np.ones(len(lo))
        self.values: list[Pair] = []
        self.slopes: list[Gradient] = []
        self.curves: list[Hessian] = []
        for row in e:
            self.values.append(ev.value(row, e, self.values, lo, hi, index))
            slope, curve = self._derive(row, e)
            self.slopes.append(slope)
            self.curves.append(curve)

    def matrix(self) -> list[list[Pair]]:
        """The second derivatives of the last row."""
        k, h = len(self.place), self.curves[-1]
        return [[h.get((min(i, j), max(i, j)), self.zero) for j in range(k)] for i in range(k)]

    def _derive(self, row: tuple[Any, ...], e: Rows) -> tuple[Gradient, Hessian]:
        op, one = row[0], self.one
        if op == "const":
            return {}, {}
        if op == "var":
            return ({self.place[row[1]]: one}, {}) if row[1] in self.place else ({}, {})
        args = ex.arguments(row)
        x, g, h = self.values[args[0]], self.slopes[args[0]], self.curves[args[0]]
        if op == "dd":
            raise CheckError(STEP, "divided differences have no place in a slack")
        if op == "neg":
            return {i: iv.neg(d) for i, d in g.items()}, {i: iv.neg(d) for i, d in h.items()}
        if op == "pow":
            n = row[2]
            first = one if n == 1 else iv.scale(x if n == 2 else iv.power(x, n - 1), float(n))
            second = self.zero if n == 1 else iv.scale(one if n == 2 else x if n == 3 else iv.power(x, n - 2), float(n * (n - 1)))  # fmt: skip
            return self._chain(g, h, first, second)
        if len(args) == 1:
            return self._chain(g, h, *self._slopes(op, x)) if g else ({}, {})
        if op == "mul" and (c := self._number(e, args)) is not None:
            g, h = (self.slopes[args[1]], self.curves[args[1]]) if e[args[0]][0] == "const" else (g, h)
            return {i: iv.scale(d, c) for i, d in g.items()}, {i: iv.scale(d, c) for i, d in h.items()}
        if op in ("add", "sub", "mul", "div"):
            return self._binary(op, args)
        return self._choice(op, args)

    def _number(self, e: Rows, args: tuple[int, ...]) -> float | None:
        """A factor that is a number and a float, whose products stay exact where they are."""
        for i in args:
            if e[i][0] == "const" and abs(e[i][1]) < 2**500 and Fraction(float(e[i][1])) == e[i][1]:
                return float(e[i][1])
        return None

    def _slopes(self, op: str, x: Pair) -> tuple[Pair, Pair]:
        if op == "step":
            flat = np.where((x[0] > 0) | (x[1] < 0), 0.0, iv.NAN)
            return (flat, flat), (flat, flat)
        return iv.slope(op, x, 1), iv.slope(op, x, 2)

    def _chain(self, g: Gradient, h: Hessian, first: Pair, second: Pair) -> tuple[Gradient, Hessian]:
        curve = {ij: iv.mul(first, d) for ij, d in h.items()}
        for i, j in _pairs(g):
            if g[i] is self.one and g[j] is self.one:
                outer = second
            else:
                outer = iv.mul(second, iv.square(g[i]) if i == j else iv.mul(g[i], g[j]))
            curve[i, j] = iv.add(curve[i, j], outer) if (i, j) in curve else outer
        return {i: first if d is self.one else iv.mul(first, d) for i, d in g.items()}, curve

    def _binary(self, op: str, args: tuple[int, ...]) -> tuple[Gradient, Hessian]:
        a, b = args
        g, h, gy, hy, y = self.slopes[a], self.curves[a], self.slopes[b], self.curves[b], self.values[b]
        if op == "sub":
            gy, hy = {i: iv.neg(d) for i, d in gy.items()}, {i: iv.neg(d) for i, d in hy.items()}
        if op in ("add", "sub"):
            return ev.sums(g, gy), _sum(h, hy)
        if op == "div":
            inverse = iv.div(self.one, y)
            square = iv.square(inverse)
            gy, hy = self._chain(gy, hy, iv.neg(square), iv.scale(iv.mul(square, inverse), 2.0))
            y = inverse
        x = self.values[a]
        slope = ev.sums(ev.times(g, y), ev.times(gy, x))
        curve = _sum({ij: iv.mul(d, y) for ij, d in h.items()}, {ij: iv.mul(d, x) for ij, d in hy.items()})
        for i, j in _pairs({**g, **gy}):
            cross = self.zero
            for p, q in ((i, j), (j, i)):
                if p in g and q in gy:
                    cross = iv.add(cross, iv.mul(g[p], gy[q]))
            curve[i, j] = iv.add(curve[i, j], cross) if (i, j) in curve else cross
        return slope, curve

    def _choice(self, op: str, args: tuple[int, ...]) -> tuple[Gradient, Hessian]:
        """max, min and select: the derivatives of the one that is certainly chosen on the whole box."""
        a, b = args[-2:]
        if op == "select":
            x = self.values[args[0]]
            first, second = x[0] > 0, x[1] < 0
        else:
            x, y = self.values[a], self.values[b]
            first, second = (x[0] > y[1], y[0] > x[1]) if op == "max" else (x[1] < y[0], y[1] < x[0])

        def pick(p: Pair, q: Pair) -> Pair:
            return tuple(np.where(first, s, np.where(second, t, iv.NAN)) for s, t in zip(p, q, strict=True))  # type: ignore[return-value]

        def merged(p: dict[Any, Pair], q: dict[Any, Pair]) -> dict[Any, Pair]:
            return {i: pick(p.get(i, self.zero), q.get(i, self.zero)) for i in {*p, *q}}

        curve = merged(self.curves[a], self.curves[b])
        # Where nothing is chosen there may be no second derivative, however flat the parts are.
        for ij in _pairs({i: self.zero for k in args for i in self.slopes[k]}):
            curve.setdefault(ij, pick(self.zero, self.zero))
        return merged(self.slopes[a], self.slopes[b]), curve


def _pairs(g: Gradient) -> list[tuple[int, int]]:
    return [(i, j) for i in sorted(g) for j in sorted(g) if i <= j]


def _sum(h: Hessian, k: Hessian) -> Hessian:
    return {ij: iv.add(h[ij], k[ij]) if ij in h and ij in k else (h if ij in h else k)[ij] for ij in {*h, *k}}


def semi_definite(matrix: list[list[Pair]]) -> Array:
    """Whether every symmetric matrix in an interval matrix is positive semi-definite, by elimination; one answer a box.

    ``[[a, b'], [b, C]]`` is positive semi-definite if ``a > 0`` and ``C - b b'/a`` is, or ``a >= 0``, ``b = 0`` and C is.
    """
    m = [list(row) for row in matrix]
    k = len(m)
    good = np.ones(m[0][0][0].shape, bool)
    for p in range(k):
        low = m[p][p][0]
        alone = low >= 0
        for q in range(p + 1, k):
            alone &= (m[p][q][0] == 0) & (m[p][q][1] == 0)
        good &= alone | (low > 0)
        for i in range(p + 1, k):
            for j in range(i, k):
                product = iv.square(m[p][i]) if i == j else iv.mul(m[p][i], m[p][j])
                rest = iv.sub(m[i][j], iv.div(product, m[p][p]))
                m[i][j] = m[j][i] = tuple(np.where(alone, s, t) for s, t in zip(m[i][j], rest, strict=True))  # type: ignore[assignment]
    return good


def closes(
    slack: Rows, offending: list[tuple[str, Rows]], lo: Array, hi: Array, index: dict[str, int]
) -> Array:
    """On which boxes the second derivatives, from the box to where the segments start, make the slack >= 0."""
    low, high = lo.copy(), hi.copy()
    for name, target in offending:
        start = ev.evaluate(target, lo, hi, index)
        i = index[name]
        # An unknown end stays unknown.
        low[:, i], high[:, i] = np.minimum(low[:, i], start[0]), np.maximum(high[:, i], start[1])
    return semi_definite(Second(slack, low, high, index, [name for name, _ in offending]).matrix())


def smooth(f: Rows, bound: Fraction, lo: Array, hi: Array, index: dict[str, int]) -> Array:
    """On which boxes both ``L I - H`` and ``L I + H`` are positive semi-definite."""
    names = sorted(index, key=index.__getitem__)
    matrix = Second(f, lo, hi, index, names).matrix()
    shift = iv.const(lo[:, 0], bound)
    good = np.ones(len(lo), bool)
    for sign in (1, -1):
        signed = [[iv.neg(x) if sign < 0 else x for x in row] for row in matrix]
        good &= semi_definite([[iv.add(x, shift) if i == j else x for j, x in enumerate(row)] for i, row in enumerate(signed)])  # fmt: skip
    return good


def convex(domain: list[Rows]) -> bool:
    """Whether every set ``d >= 0`` is convex by its form: d is a number plus linear terms minus squares of variables."""
    for rows in domain:
        for monomial, c in ex.expand(rows).items():
            degree = sum(n for _, n in monomial)
            plain = all(ex.NAME.fullmatch(atom) for atom, _ in monomial)
            if not plain or degree > 2 or (degree == 2 and (len(monomial) > 1 or c > 0)):
                return False
    return True
