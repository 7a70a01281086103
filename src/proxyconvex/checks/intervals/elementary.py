"""Elementary functions of float64 arrays with proven error bounds, from additions, products and quotients alone.

No library function of unknown accuracy is used: only IEEE 754 ``+ - * /`` and exact operations (scaling by powers of
two, `numpy.frexp`, `numpy.rint`, comparisons). Each kernel returns a float that is within the relative error of
`RELATIVE` of the true value, plus at most `TINY` where numbers are subnormal. The proofs are in
``docs/checks/certify.md``, section "The enclosures"; u = 2^-53 there and here.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from ...core.intervals import Interval, interval_exp, interval_log, lower, upper

Array = np.ndarray

TINY = 2.0**-1073
"""Absolute slack for results that are, or whose intermediate values are, subnormal."""
RELATIVE = {
    "exp": 2.0**-50,
    "log": 2.0**-49,
    "log1p": 2.0**-48,
    "softplus": 2.0**-47,
    "sigmoid": 2.0**-49,
    "bump": 2.0**-48,
    "tanh": 2.0**-48,
}
"""Half-width that is added on both sides, relative to the computed value; at least twice the proven error."""


def _rounded(x: Fraction | Interval, bits: int = 53) -> tuple[float, Fraction]:
    """A float of at most ``bits`` significant bits near an exactly enclosed number, and what is left of it."""
    middle = (lower(x) + upper(x)) / 2
    scale = Fraction(2) ** (bits - (middle.numerator.bit_length() - middle.denominator.bit_length()) - 1)
    head = Fraction(round(middle * scale)) / scale
    return float(head), middle - head


_LN2 = -1 * Interval(interval_log(Fraction(1, 2)))
_L1, _rest = _rounded(_LN2 / 16, 37)
_L2 = float(_rest)
_LN2_HI, _rest = _rounded(_LN2, 41)
_LN2_LO = float(_rest)
_PER_LN2 = float(16 / ((lower(_LN2) + upper(_LN2)) / 2))
# 2^(j/16) and 2^(j/16) - 1, rounded to nearest from 200-bit enclosures.
_POWERS = [interval_exp(Interval(j * _LN2 / 16)) if j else Interval(1) for j in range(16)]
_T = np.array([float((lower(p) + upper(p)) / 2) for p in _POWERS])
_TM1 = np.array([float((lower(p) + upper(p)) / 2 - 1) for p in _POWERS])
_SQRT_HALF = 0.7071067811865476
_LOG_TERMS = tuple(1.0 / k for k in range(21, 2, -2))


def _reduce(x: Array) -> tuple[Array, Array]:
    """``n`` and ``r`` with ``x = n log(2)/16 + r`` up to 0.05 u, ``|r| <= 0.02167``; ``|x| <= 746``."""
    n = np.rint(x * _PER_LN2)
    r = x - n * _L1
    r -= n * _L2
    return n, r


def _expm1_small(r: Array) -> Array:
    """``exp(r) - 1`` by its Taylor polynomial of degree 7."""
    p = r * (1 / 5040)
    for c in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5):
        p += c
        p *= r
    p *= r
    p += r
    return p


def _power_of_two(k: Array) -> Array:
    """``2^k`` for whole ``k`` in [-1022, 1023]."""
    return ((k + 1023) << 52).view(np.float64)


def exp(x: Array) -> Array:
    """Relative error below 4 u (plus half a subnormal unit); infinite from 709.79 on."""
    n, r = _reduce(np.minimum(np.maximum(x, -746.0), 710.0))
    with np.errstate(invalid="ignore"):
        n = n.astype(np.int64)
    s = _expm1_small(r)
    s += 1.0
    s *= _T[n & 15]
    k = n >> 4
    if k.size and k.min() > -1000 and k.max() < 1000:
        s *= _power_of_two(k)
        return s
    half = np.clip(k >> 1, -600, 600)
    s *= _power_of_two(half)
    s *= _power_of_two(np.clip(k - half, -600, 600))
    return s


def _expm1_positive(y: Array) -> Array:
    """``exp(y) - 1`` for ``0 <= y <= 700``; relative error below 10 u."""
    n, r = _reduce(y)
    with np.errstate(invalid="ignore"):
        n = n.astype(np.int64)
    p, j = _expm1_small(r), n & 15
    k = np.clip(n >> 4, 0, 1020)
    t = _T[j]
    return np.where(k == 0, _TM1[j] + t * p, _power_of_two(k) * (t * (1.0 + p)) - 1.0)


def _log_scaled(m: Array, e: Array) -> Array:
    """``log(m) + e log(2)`` for ``m`` in ``[sqrt(1/2), sqrt(2))`` up to rounding and whole ``e``."""
    d = m - 1.0
    f = d / (2.0 + d)
    z = f * f
    s = z * _LOG_TERMS[0]
    for c in _LOG_TERMS[1:]:
        s += c
        s *= z
    f += f
    s *= f
    f += s
    f += e * _LN2_LO
    f += e * _LN2_HI
    return f


def log(x: Array) -> Array:
    """Relative error below 6 u for finite ``x > 0``; NaN elsewhere (also at infinity)."""
    m, e = np.frexp(x)
    small = m < _SQRT_HALF
    v = _log_scaled(np.where(small, m + m, m), (e - small).astype(np.float64))
    return np.where((x > 0) & (x < np.inf), v, np.nan)


def log1p(x: Array) -> Array:
    """Relative error below 16 u for finite ``x > -1``; NaN elsewhere."""
    w = 1.0 + x
    part = w - x
    c = (1.0 - part) + (x - (w - part))  # the exact error of the sum (TwoSum, Knuth)
    return log(w) + c / w


def _log1p_unit(x: Array) -> Array:
    """`log1p` for ``0 <= x <= 1``: the same numbers without the search for the exponent."""
    w = 1.0 + x
    c = x - (w - 1.0)  # exact (Dekker, as x <= 1)
    large = w >= 2 * _SQRT_HALF
    v = _log_scaled(np.where(large, 0.5 * w, w), large.astype(np.float64))
    v += c / w
    return v


def sigmoid(x: Array) -> Array:
    """Relative error below 8 u."""
    e = exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def bump(x: Array) -> Array:
    """``sigmoid(x) sigmoid(-x)``; relative error below 11 u."""
    e = exp(-np.abs(x))
    d = 1.0 + e
    return e / (d * d)


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``; relative error below 20 u."""
    return np.maximum(x, 0.0) + _log1p_unit(exp(-np.abs(x)))


def tanh(x: Array) -> Array:
    """Relative error below 12 u."""
    y = np.minimum(2.0 * np.abs(x), 100.0)
    m = _expm1_positive(y)
    return np.copysign(m / (m + 2.0), x)


KERNELS: dict[str, Callable[[Array], Array]] = {
    "exp": exp,
    "log": log,
    "log1p": log1p,
    "softplus": softplus,
    "sigmoid": sigmoid,
    "bump": bump,
    "tanh": tanh,
}
# Where a function takes a value that is a float (at such a point the enclosure is that value), and its range.
EXACT = {
    "exp": (0.0, 1.0),
    "log": (1.0, 0.0),
    "log1p": (0.0, 0.0),
    "sigmoid": (0.0, 0.5),
    "bump": (0.0, 0.25),
    "tanh": (0.0, 0.0),
}
RANGE = {
    "exp": (0.0, np.inf),
    "softplus": (0.0, np.inf),
    "sigmoid": (0.0, 1.0),
    "bump": (0.0, 0.25),
    "tanh": (-1.0, 1.0),
}


def bound(name: str, x: Array, side: float) -> Array:
    """A bound on a function at the points ``x``: from below for ``side = -1``, from above for ``side = 1``.

    A NaN means that nothing is claimed (outside the domain, or overflow).
    """
    return _outward(name, x, KERNELS[name](x), side)


def both(name: str, x: Array) -> tuple[Array, Array]:
    """The bounds from below and from above, for one evaluation."""
    v = KERNELS[name](x)
    return _outward(name, x, v, -1.0), _outward(name, x, v, 1.0)


def ends(name: str, lo: Array, hi: Array) -> tuple[Array, Array]:
    """The bound from below at ``lo`` and the one from above at ``hi``, two arrays of the same length."""
    n, x = len(lo), np.concatenate([lo, hi])
    v = KERNELS[name](x)
    return _outward(name, x[:n], v[:n], -1.0), _outward(name, x[n:], v[n:], 1.0)


def _outward(name: str, x: Array, v: Array, side: float) -> Array:
    if name == "exp" and side < 0:
        v = np.minimum(v, 1.7e308)  # computed as infinite: the true value is at least this
    v = v + side * (np.abs(v) * RELATIVE[name] + TINY)
    if name in EXACT:
        at, value = EXACT[name]
        hit = x == at
        if hit.any():
            v[hit] = value
    if name in RANGE:
        # The tests below keep a NaN.
        low, high = RANGE[name]
        v = np.minimum(np.maximum(v, low), high)
    return v
