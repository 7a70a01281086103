"""Interval evaluation of expressions on many boxes, with NumPy: the checker's own arithmetic.

An interval is a pair of arrays; a NaN as an end means that nothing is known on that side, and no test accepts it. Inexact sums
and products are moved outward by ``2^-52`` of their size, which leaves zeros alone; products with a power of two are exact. ``exp``, ``expm1``, ``log`` and ``log1p`` are NumPy's, trusted within 8 units in the last place (or 2^-1022), like
everywhere in the checker.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from ..rationals import to_float_down, to_float_up

Array = np.ndarray
Pair = tuple[Array, Array]
Gradient = dict[int, Pair]

_EPS, _TINY = 2.0**-52, 2.0**-1020
_LIBM = 2.0**-48
NAN = np.nan


# --- ring operations -----------------------------------------------------------------------------------------------


def _out(lo: Array, hi: Array, extra: Any = 0.0) -> Pair:
    return lo - (np.abs(lo) * _EPS + extra), hi + (np.abs(hi) * _EPS + extra)


def add(x: Pair, y: Pair) -> Pair:
    """``x + y``; ends that are exact sums (Knuth's TwoSum finds no error) are kept, sums below 2^-1021 are always exact."""
    return _end(x[0], y[0], -1.0), _end(x[1], y[1], 1.0)


def _end(a: Array, b: Array, side: float) -> Array:
    s = a + b
    part = s - a
    inexact = (a - (s - part)) + (b - part) != 0
    return s + side * (np.abs(s) * _EPS * inexact)


def neg(x: Pair) -> Pair:
    """``-x``."""
    return -x[1], -x[0]


def sub(x: Pair, y: Pair) -> Pair:
    """``x - y``."""
    return add(x, neg(y))


def mul(x: Pair, y: Pair) -> Pair:
    """``x y``; where no product of non-zero ends can underflow, zeros stay exact."""
    ends = [a * b for a in x for b in y]
    lo = np.minimum(np.minimum(ends[0], ends[1]), np.minimum(ends[2], ends[3]))
    hi = np.maximum(np.maximum(ends[0], ends[1]), np.maximum(ends[2], ends[3]))
    risky: Any = False
    for a in (*x, *y):
        risky = risky | ((a != 0) & (np.abs(a) < 2.0**-480))
    return _out(lo, hi, _TINY * risky)


def scale(x: Pair, c: float) -> Pair:
    """``c x``; ends that are exact are kept: powers of two unless tiny, otherwise where Dekker's TwoProd finds no error."""
    lo, hi = (x[0], x[1]) if c >= 0 else (x[1], x[0])
    return _scaled(lo, c, -1.0), _scaled(hi, c, 1.0)


def _scaled(x: Array, c: float, side: float) -> Array:
    p = x * c
    if c == 0:
        return p
    tiny = (np.abs(p) < 2.0**-960) & (x != 0)
    if abs(math.frexp(c)[0]) == 0.5:
        moved = side * _TINY * tiny
    else:
        # The error of the product, itself exact where nothing under- or overflows (then it is NaN or tiny, and the end is moved).
        (a, b), (d, e) = _halves(x), _halves(np.float64(c))
        error = b * e - (((p - a * d) - b * d) - a * e)
        moved = side * (np.abs(p) * _EPS * ~(error == 0) + _TINY * tiny)
        moved = np.where(tiny, side * (np.abs(p) * _EPS + _TINY), moved)
    return np.where(np.isfinite(p), p + moved, NAN)


def _halves(x: Any) -> tuple[Any, Any]:
    """Veltkamp's splitting into 26 and 27 bits."""
    t = x * 134217729.0
    high = t - (t - x)
    return high, x - high


def magnitude(x: Pair) -> Pair:
    """``|x|``."""
    return np.maximum(np.maximum(x[0], -x[1]), 0.0), np.maximum(np.abs(x[0]), np.abs(x[1]))


def square(x: Pair) -> Pair:
    """``x^2``."""
    low, high = magnitude(x)
    lo, hi = mul((low, high), (low, high))
    return np.maximum(lo, 0.0), hi


def power(x: Pair, n: int) -> Pair:
    """``x^n`` for ``n >= 1``."""
    if n % 2 == 0:
        result = base = square(x)
        for _ in range(n // 2 - 1):
            result = mul(result, base)
        return result
    result = x
    for end in range(n - 1):
        del end
        # Odd powers increase: the sizes of the ends suffice.
        result = (
            mul((result[0], result[0]), thin(np.abs(x[0])))[0],
            mul((result[1], result[1]), thin(np.abs(x[1])))[1],
        )
    return result


def thin(x: Array) -> Pair:
    """Points as intervals."""
    return x, x


def div(x: Pair, y: Pair) -> Pair:
    """``x / y``; nothing is known where ``y`` may be zero."""
    apart = (y[0] > 0) | (y[1] < 0)
    lo = np.where(apart, 1.0 / np.where(apart, y[1], 1.0), NAN)
    hi = np.where(apart, 1.0 / np.where(apart, y[0], 1.0), NAN)
    return mul(x, _out(lo, hi, _TINY * ((np.abs(lo) < 2.0**-1000) | (np.abs(hi) < 2.0**-1000))))


def hull(x: Pair, y: Pair) -> Pair:
    """The smallest interval with both inside."""
    return np.minimum(x[0], y[0]), np.maximum(x[1], y[1])


def meet(x: Pair, y: Pair) -> Pair:
    """Both enclose the same number; an unknown end gives way."""
    return np.fmax(x[0], y[0]), np.fmin(x[1], y[1])


def const(like: Array, c: Fraction | float) -> Pair:
    """A number, outward."""
    f = Fraction(c)
    return np.full(like.shape, to_float_down(f)), np.full(like.shape, to_float_up(f))


# --- functions -----------------------------------------------------------------------------------------------------


def _library(v: Array) -> Pair:
    return v - (np.abs(v) * _LIBM + _TINY), v + (np.abs(v) * _LIBM + _TINY)


def _clip(x: Pair, low: float, high: float) -> Pair:
    return np.minimum(np.maximum(x[0], low), high), np.minimum(np.maximum(x[1], low), high)


def _at(f: str, x: Array) -> Pair:
    """Bounds on a function at points."""
    one = thin(np.ones_like(x))
    if f == "exp":
        lo, hi = _library(np.exp(x))
        return np.where(x == 0, 1.0, np.maximum(np.where(np.isfinite(lo), lo, NAN), 0.0)), np.where(
            x == 0, 1.0, hi
        )
    if f in ("log", "log1p"):
        good = np.isfinite(x) & (x > (0.0 if f == "log" else -1.0))
        lo, hi = _library((np.log if f == "log" else np.log1p)(np.where(good, x, 1.0)))
        return np.where(good, lo, NAN), np.where(good, hi, NAN)
    small = _clip(_library(np.exp(-np.abs(x))), 0.0, 1.0)
    small = (np.where(x == 0, 1.0, small[0]), np.where(x == 0, 1.0, small[1]))
    if f == "softplus":
        # log1p increases.
        lo, hi = np.log1p(small[0]), np.log1p(small[1])
        return add(thin(np.maximum(x, 0.0)), (np.maximum(_library(lo)[0], 0.0), _library(hi)[1]))
    if f == "sigmoid":
        away = div(one, add(one, small))
        near = sub(one, away)
        # e/(1+e) directly where x < 0, which keeps its relative accuracy.
        near = meet(near, div(small, add(one, small)))
        result = (np.where(x >= 0, away[0], near[0]), np.where(x >= 0, away[1], near[1]))
        return _clip((np.where(x == 0, 0.5, result[0]), np.where(x == 0, 0.5, result[1])), 0.0, 1.0)
    if f == "bump":
        lo, hi = _clip(div(small, square(add(one, small))), 0.0, 0.25)
        return np.where(x == 0, 0.25, lo), np.where(x == 0, 0.25, hi)
    if f == "tanh":
        m = _library(np.expm1(-2.0 * np.abs(x)))  # in (-1, 0]
        lo, hi = _clip(div(neg(m), add(thin(np.full_like(x, 2.0)), m)), 0.0, 1.0)
        lo, hi = np.where(x == 0, 0.0, lo), np.where(x == 0, 0.0, hi)
        return np.where(x >= 0, lo, -hi), np.where(x >= 0, hi, -lo)
    raise KeyError(f)


MONOTONE = ("exp", "log", "log1p", "softplus", "sigmoid", "tanh")


def function(f: str, x: Pair) -> Pair:
    """The range of a function of one argument."""
    if f in MONOTONE:
        lo, hi = _at(f, x[0])[0], _at(f, x[1])[1]
        unknown = np.isnan(x[0]), np.isnan(x[1])
        return np.where(unknown[0], NAN, lo), np.where(unknown[1], NAN, hi)
    if f == "neg":
        return neg(x)
    if f == "abs":
        return magnitude(x)
    if f == "relu":
        return np.maximum(x[0], 0.0), np.maximum(x[1], 0.0)
    if f == "step":
        return np.where(x[0] > 0, 1.0, 0.0), np.where(x[1] <= 0, 0.0, 1.0)
    if f == "bump":
        low, high = magnitude(x)
        return np.where(np.isnan(high), 0.0, _at(f, high)[0]), np.where(np.isnan(low), 0.25, _at(f, low)[1])
    if f == "sqrt":
        good = x[0] >= 0
        lo, hi = _out(np.sqrt(np.where(good, x[0], 1.0)), np.sqrt(np.where(good, x[1], 1.0)))
        return np.where(good, lo, NAN), np.where(good, hi, NAN)
    raise KeyError(f)


def slope(f: str, x: Pair, order: int) -> Pair:
    """The range of a derivative; at a kink the hull of both one-sided ones. Unknown (NaN) where none is tabulated."""
    one = thin(np.ones_like(x[0]))
    unknown = thin(np.full_like(x[0], NAN))
    if f == "exp":
        return function("exp", x)
    if f in ("log", "log1p"):
        inverse = div(one, x if f == "log" else add(x, one))
        return (inverse, neg(square(inverse)), scale(power(inverse, 3), 2.0))[order - 1]
    if f == "sqrt":
        inverse = div(one, function("sqrt", x))
        return scale(power(inverse, 2 * order - 1), (0.5, -0.25, 0.375)[order - 1])
    if f in ("relu", "abs"):
        if order > 1:  # no curvature away from the kink
            return thin(np.where((x[0] > 0) | (x[1] < 0), 0.0, NAN))
        low = 0.0 if f == "relu" else -1.0
        return np.where(x[0] > 0, 1.0, low), np.where(x[1] < 0, low, 1.0)
    if f == "tanh":
        th = function("tanh", x)
        first = _clip(sub(one, square(th)), 0.0, 1.0)
        if order == 1:
            return first
        if order == 2:
            return scale(mul(th, first), -2.0)
        return mul(first, sub(scale(square(th), 6.0), scale(one, 2.0)))
    number = order + {"softplus": 0, "sigmoid": 1, "bump": 2}.get(f, 99)
    if number > 5:
        return unknown
    if number == 1:
        return function("sigmoid", x)
    bump = function("bump", x)
    if number == 2:
        return bump
    th = function("tanh", scale(x, 0.5))
    if number == 3:
        return neg(mul(bump, th))
    if number == 4:
        return mul(bump, sub(scale(square(th), 1.5), scale(one, 0.5)))
    return mul(mul(bump, th), sub(scale(one, 2.0), scale(square(th), 3.0)))


def choice(x: Pair, a: Pair, b: Pair) -> Pair:
    """``a`` where ``x > 0``, else ``b``; both where x does not decide."""
    yes, no, either = x[0] > 0, x[1] <= 0, hull(a, b)
    return (
        np.where(yes, a[0], np.where(no, b[0], either[0])),
        np.where(yes, a[1], np.where(no, b[1], either[1])),
    )


# --- divided differences -------------------------------------------------------------------------------------------

_CONVEX, _CONCAVE = ("exp", "softplus", "relu"), ("log", "log1p", "sqrt")


def difference(f: str, order: int, x: Pair, y: Pair) -> Pair:
    """``f[x, y]`` or ``f[x, y, y]``: range of the derivative on the hull, corners where monotone, the quotient."""
    both = hull(x, y)
    if order == 2:
        first = difference(f, 1, x, y)
        return meet(scale(slope(f, both, 2), 0.5), div(sub(first, slope(f, y, 1)), sub(x, y)))
    result = slope(f, both, 1)
    low, high = _quotient(f, x[0], y[0]), _quotient(f, x[1], y[1])
    never = np.zeros(x[0].shape, bool)
    up, down = never, never
    if f in _CONVEX:
        up = ~never
    elif f in _CONCAVE:
        down = ~never
    elif f in ("sigmoid", "tanh"):
        up, down = both[1] <= 0, both[0] >= 0
    result = meet(
        result,
        (
            np.where(up, low[0], np.where(down, high[0], NAN)),
            np.where(up, high[1], np.where(down, low[1], NAN)),
        ),
    )
    return meet(result, div(sub(function(f, x), function(f, y)), sub(x, y)))


def _quotient(f: str, x: Array, y: Array) -> Pair:
    return div(sub(function(f, thin(x)), function(f, thin(y))), sub(thin(x), thin(y)))
