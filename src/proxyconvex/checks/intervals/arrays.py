"""Vectorised interval arithmetic on float64 arrays with outward rounding.

An interval is a pair ``(lo, hi)`` of arrays (or floats) of the same shape. A NaN or an infinity as an end means that
nothing is claimed on that side; every operation passes that on. Sums know their rounding error exactly (TwoSum), and
products with a constant as well (TwoProd), so equality is kept where floats can express it; other results are moved
outward by one or two units in the last place. Proofs: ``docs/checks/certify.md``, section "The arithmetic".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import elementary

Array = np.ndarray
Pair = tuple[Any, Any]

EPS = 2.0**-52
MONOTONE = ("exp", "log", "log1p", "sigmoid", "softplus", "tanh")
_SMALL, _SAFE = 2.0**-969, 2.0**-480
_SPLIT = 134217729.0  # 2^27 + 1


def down(s: Any) -> Any:
    """A float below ``s`` by one or two units in the last place; 0 stays 0, an infinity becomes NaN."""
    return s - np.abs(s) * EPS


def up(s: Any) -> Any:
    """A float above ``s``, see `down`."""
    return s + np.abs(s) * EPS


def _sum(a: Any, b: Any, side: float) -> Any:
    """``a + b`` rounded towards ``side``: exact sums are kept (TwoSum). Arrays of one shape are worked on in place."""
    s = a + b
    if not isinstance(s, np.ndarray):
        s = np.asarray(s)
    part = s - a
    error = s - part
    np.subtract(a, error, out=error)
    np.subtract(b, part, out=part)
    error += part
    np.abs(s, out=part)
    part *= EPS
    if side > 0:
        part *= error > 0
        s += part
    else:
        part *= error < 0
        s -= part
    return s


class Own:
    """The arithmetic of this package: needs NumPy only."""

    name = "own"

    def add(self, x: Pair, y: Pair) -> Pair:
        """``x + y``."""
        return _sum(x[0], y[0], -1.0), _sum(x[1], y[1], 1.0)

    def sub(self, x: Pair, y: Pair) -> Pair:
        """``x - y``."""
        return _sum(x[0], -y[1], -1.0), _sum(x[1], -y[0], 1.0)

    def neg(self, x: Pair) -> Pair:
        """``-x``."""
        return -x[1], -x[0]

    def scale(self, x: Pair, c: float) -> Pair:
        """``c x`` for a float ``c``; exact products are kept (TwoProd, Dekker)."""
        if c == 0:
            zero = x[0] * 0.0
            return zero, zero
        lo, hi = (x[0], x[1]) if c > 0 else (x[1], x[0])
        return _scaled(lo, c, -1.0), _scaled(hi, c, 1.0)

    def mul(self, x: Pair, y: Pair) -> Pair:
        """``x y``."""
        (a, b), (c, d) = x, y
        if np.min(a) >= 0 and np.min(c) >= 0:
            lo, hi = a * c, b * d
        elif np.min(a) >= 0:
            lo, hi = np.minimum(a * c, b * c), np.maximum(a * d, b * d)
        elif np.min(c) >= 0:
            lo, hi = np.minimum(a * c, a * d), np.maximum(b * c, b * d)
        else:
            p, q, r, s = a * c, a * d, b * c, b * d
            lo = np.minimum(np.minimum(p, q), np.minimum(r, s))
            hi = np.maximum(np.maximum(p, q), np.maximum(r, s))
        extra = _underflow(lo, hi, a, b, c, d)
        return down(lo) - extra, up(hi) + extra

    def square(self, x: Pair) -> Pair:
        """``x^2``."""
        size_lo, size_hi = self.abs(x)
        lo, hi = size_lo * size_lo, size_hi * size_hi
        extra = _underflow(lo, hi, size_lo, size_hi)
        return np.maximum(down(lo) - extra, 0.0), up(hi) + extra

    def pow(self, x: Pair, n: int) -> Pair:
        """``x^n`` for ``n >= 1``."""
        if n == 1:
            return x
        if n % 2 == 0:
            return self.pow(self.square(x), n // 2)
        # Odd powers are increasing.
        return self._odd(x[0], n, 0), self._odd(x[1], n, 1)

    def _odd(self, end: Any, n: int, side: int) -> Any:
        size = np.abs(end)
        low, high = size, size
        for _ in range(n - 1):
            low, high = self.mul((low, high), (size, size))
        positive = high if side else low
        negative = -(low if side else high)
        return np.where(np.isnan(end), np.nan, np.where(end >= 0, positive, negative))

    def div(self, x: Pair, y: Pair) -> Pair:
        """``x / y``; nothing is claimed where ``y`` contains zero."""
        inside = ~((y[0] > 0) | (y[1] < 0))
        c = np.where(inside, np.nan, 1.0 / np.where(inside, 1.0, y[1]))
        d = np.where(inside, np.nan, 1.0 / np.where(inside, 1.0, y[0]))
        extra = 2.0**-1074 * ((np.abs(c) < 2.0**-1021) | (np.abs(d) < 2.0**-1021))
        return self.mul(x, (down(c) - extra, up(d) + extra))

    def abs(self, x: Pair) -> Pair:
        """``|x|``."""
        lo = np.maximum(np.maximum(x[0], -x[1]), 0.0)
        return lo, np.maximum(np.abs(x[0]), np.abs(x[1]))

    def max(self, x: Pair, y: Pair) -> Pair:
        """``max(x, y)``."""
        return np.maximum(x[0], y[0]), np.maximum(x[1], y[1])

    def min(self, x: Pair, y: Pair) -> Pair:
        """``min(x, y)``."""
        return np.minimum(x[0], y[0]), np.minimum(x[1], y[1])

    def relu(self, x: Pair) -> Pair:
        """``max(x, 0)``."""
        return np.maximum(x[0], 0.0), np.maximum(x[1], 0.0)

    def step(self, x: Pair) -> Pair:
        """1 where ``x > 0``, 0 where ``x <= 0``, both where either is possible."""
        return np.where(x[0] > 0, 1.0, 0.0), np.where(x[1] <= 0, 0.0, 1.0)

    def select(self, x: Pair, a: Pair, b: Pair) -> Pair:
        """``a`` where ``x > 0``, ``b`` where ``x <= 0``, the hull of both where either is possible."""
        yes, no = x[0] > 0, x[1] <= 0
        lo = np.where(yes, a[0], np.where(no, b[0], np.minimum(a[0], b[0])))
        hi = np.where(yes, a[1], np.where(no, b[1], np.maximum(a[1], b[1])))
        return lo, hi

    def sqrt(self, x: Pair) -> Pair:
        """Square root; nothing is claimed where ``x`` may be negative."""
        with np.errstate(invalid="ignore"):
            lo, hi = np.sqrt(x[0]), np.sqrt(x[1])
        bad = ~(x[0] >= 0)
        return np.where(bad, np.nan, down(lo)), np.where(bad, np.nan, up(hi))

    def monotone(self, name: str, x: Pair) -> Pair:
        """An increasing elementary function; arrays of both ends go through the kernel together, because calls cost time, too."""
        if getattr(x[0], "ndim", 0) != 1:
            return self.below(name, x[0]), self.above(name, x[1])
        return elementary.ends(name, x[0], x[1])

    def below(self, name: str, x: Any) -> Any:
        """Lower bound on an elementary function at points."""
        return elementary.bound(name, np.asarray(x, float), -1.0)

    def above(self, name: str, x: Any) -> Any:
        """Upper bound on an elementary function at points."""
        return elementary.bound(name, np.asarray(x, float), 1.0)

    def both(self, name: str, x: Any) -> Pair:
        """Both bounds on an elementary function at points."""
        return elementary.both(name, np.asarray(x, float))

    def bump(self, x: Pair) -> Pair:
        """``sigmoid(x) sigmoid(-x)``: even, decreasing in ``|x|``."""
        low, high = self.abs(x)
        return self.below("bump", high), self.above("bump", low)

    def unary(self, op: str, x: Pair) -> Pair:
        """A function of `core.expressions.UNARY`."""
        if op in MONOTONE:
            return self.monotone(op, x)
        return getattr(self, op)(x)


def _scaled(x: Any, c: float, side: float) -> Any:
    """``c x`` rounded towards ``side``; kept where TwoProd finds no error."""
    p = x * c
    if abs(math.frexp(c)[0]) == 0.5:
        # A power of two: exact unless the result is subnormal; an infinity becomes NaN (inf * 0).
        size = np.abs(p)
        return p + side * (size * 0.0 + 2.0**-1074 * ((size < 2.0**-1000) & (x != 0)))
    high = x * _SPLIT
    high = high - (high - x)
    low = x - high
    c_high = c * _SPLIT
    c_high = c_high - (c_high - c)
    c_low = c - c_high
    error = low * c_low - (((p - high * c_high) - low * c_high) - high * c_low)
    size = np.abs(p)
    # Below 2^-969 the error term may itself underflow; an infinity or a NaN makes the result a NaN.
    inexact = ~(error * side <= 0) | ((size < _SMALL) & (x != 0))
    return p + side * ((size * EPS) * inexact + 2.0**-1074 * ((size < _SMALL) & (x != 0)))


def _underflow(lo: Any, hi: Any, *ends: Any) -> Any:
    """What to add outward because a product of non-zero numbers may have underflowed: 0 nearly always."""
    if np.min(np.minimum(np.abs(lo), np.abs(hi))) >= _SMALL:
        return 0.0
    risky = False
    for end in ends:
        risky = risky | ((end != 0) & (np.abs(end) < _SAFE))
    return 2.0**-1073 * risky
