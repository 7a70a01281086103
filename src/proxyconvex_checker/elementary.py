"""Bounds of elementary functions on intervals, elementwise.

The assumption about NumPy's ``exp, log, log1p, expm1`` is stated in `rounding`; the rest follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from .directed import (
    SMALLEST_NORMAL,
    add_down,
    add_up,
    div_down,
    div_up,
    finite,
    next_down,
    next_up,
    quiet,
    sub_down,
)
from .errors import CheckError
from .rationals import LARGEST, rational, to_float_down, to_float_up

Bounds = tuple[Any, Any]

LIBM_ULPS = 8
"""Assumed accuracy of NumPy's elementary functions, in units in the last place."""
_LIBM_RELATIVE = (LIBM_ULPS + 1) * 2.0**-52  # one more: the ulp may be that of the next binade


@quiet
def _library(function: Callable[[Any], Any], lo: Any, hi: Any, floor: float = -np.inf) -> Bounds:
    """Bounds of an increasing NumPy function on ``[lo, hi]`` under the trusted-base assumption."""
    lo = finite(lo, "an argument")
    hi = lo if hi is None else finite(hi, "an argument")
    low, high = np.minimum(function(lo), LARGEST), function(hi)
    # Computing the padding loses less than a relative 2^-51, for which the relative part has room.
    low = np.maximum(sub_down(low, np.abs(low) * _LIBM_RELATIVE + 2 * SMALLEST_NORMAL), floor)
    high = add_up(high, np.abs(high) * _LIBM_RELATIVE + 2 * SMALLEST_NORMAL)
    return low[()], high[()]


def exp_bounds(lo: Any, hi: Any = None) -> Bounds:
    """Bounds of ``exp`` on ``[lo, hi]`` (``hi`` defaults to ``lo``); the upper one may be infinite."""
    return _library(np.exp, lo, hi, floor=0.0)


def expm1_bounds(lo: Any, hi: Any = None) -> Bounds:
    """Bounds of ``exp(x) - 1`` on ``[lo, hi]``; the upper one may be infinite."""
    return _library(np.expm1, lo, hi, floor=-1.0)


def log_bounds(lo: Any, hi: Any = None) -> Bounds:
    """Bounds of the natural logarithm on ``[lo, hi]``, ``lo > 0``."""
    if np.any(np.asarray(lo) <= 0):
        raise CheckError("arithmetic", "the logarithm of a number <= 0 was asked for")
    return _library(np.log, lo, hi)


def log1p_bounds(lo: Any, hi: Any = None) -> Bounds:
    """Bounds of ``log(1 + x)`` on ``[lo, hi]``, ``lo > -1``."""
    if np.any(np.asarray(lo) <= -1):
        raise CheckError("arithmetic", "the logarithm of a number <= 0 was asked for")
    return _library(np.log1p, lo, hi)


@quiet
def sqrt_bounds(lo: Any, hi: Any = None) -> Bounds:
    """Bounds of the square root on ``[lo, hi]``, ``lo >= 0``."""
    lo = finite(lo, "an argument")
    hi = lo if hi is None else finite(hi, "an argument")
    if np.any(lo < 0):
        raise CheckError("arithmetic", "the square root of a negative number was asked for")
    return np.maximum(next_down(np.sqrt(lo)), 0.0)[()], next_up(np.sqrt(hi))[()]


@quiet
def softplus_bounds(lo: Any, hi: Any = None) -> Bounds:
    """Bounds of ``log(1 + exp(t)) = max(t, 0) + log1p(exp(-|t|))`` on ``[lo, hi]``, tight for every ``t``."""
    lo = finite(lo, "an argument")
    hi = lo if hi is None else finite(hi, "an argument")
    low = add_down(np.maximum(lo, 0.0), np.maximum(log1p_bounds(exp_bounds(-np.abs(lo))[0])[0], 0.0))
    high = add_up(np.maximum(hi, 0.0), log1p_bounds(exp_bounds(-np.abs(hi))[1])[1])
    return np.maximum(low, 0.0)[()], high[()]


@quiet
def sigmoid_bounds(lo: Any, hi: Any = None) -> Bounds:
    """Bounds of ``1 / (1 + exp(-t))`` on ``[lo, hi]``, tight for every ``t`` (also very negative)."""
    lo = finite(lo, "an argument")
    hi = lo if hi is None else finite(hi, "an argument")
    small, large = exp_bounds(-np.abs(lo)), exp_bounds(-np.abs(hi))
    low = np.where(lo >= 0, div_down(1.0, add_up(1.0, small[1])), div_down(small[0], add_up(1.0, small[0])))
    high = np.where(hi >= 0, div_up(1.0, add_down(1.0, large[0])), div_up(large[1], add_down(1.0, large[1])))
    return np.maximum(low, 0.0)[()], np.minimum(high, 1.0)[()]


@quiet
def lambert_w_exp_upper(s: Any) -> Any:
    """Upper bound on ``W(exp(s))``, the ``w > 0`` with ``w + log w = s``, for any ``s`` (no overflow).

    Newton's iterate is only a hint: it is raised until ``w + log w >= s`` is verified, which suffices because
    the left side increases.
    """
    s = finite(s, "an argument")
    w = np.where(s > 1, np.maximum(s - np.log(np.maximum(s, 1.0)), 0.5), np.exp(np.minimum(s, 1.0)) / 2)
    w, far = np.maximum(w, SMALLEST_NORMAL), s > 1e300  # W(exp(s)) <= s for s >= 1
    for _ in range(60):
        w = np.maximum(w * ((1 + s - np.log(w)) / (1 + w)), SMALLEST_NORMAL)
    growth = 2.0**-50
    for _ in range(60):
        holds = (add_down(w, log_bounds(w)[0]) >= s) | far
        if holds.all():
            return np.where(far, s, np.minimum(w, exp_bounds(s)[1]))[()]  # W(x) <= x
        w, growth = np.where(holds, w, w * (1 + growth) + SMALLEST_NORMAL), growth * 2
    raise CheckError("arithmetic", "no verified upper bound on the Lambert function was found")


def lambert_w_upper(x: Any) -> Any:
    """Upper bound on ``W(x)``, the ``w >= 0`` with ``w exp(w) = x``, for ``x >= 0``; verified likewise."""
    x = finite(x, "an argument")
    if np.any(x < 0):
        raise CheckError("arithmetic", "the Lambert function of a negative number was asked for")
    positive = np.maximum(x, SMALLEST_NORMAL)
    return np.minimum(lambert_w_exp_upper(log_bounds(positive)[1]), x)[()]  # W(x) <= x


def log_rational(x: Fraction | int) -> tuple[Fraction, Fraction]:
    """Rational (lower, upper) bounds on ``log(x)``, ``x > 0``, about 48 binary digits accurate."""
    low, high = to_float_down(Fraction(x)), to_float_up(Fraction(x))
    bounds = log_bounds(low, high)
    return rational(bounds[0]), rational(bounds[1])


def exp_rational(x: Fraction | int) -> tuple[Fraction, Fraction]:
    """Rational (lower, upper) bounds on ``exp(x)``, about 48 binary digits accurate; ``x`` below 709."""
    bounds = exp_bounds(to_float_down(Fraction(x)), to_float_up(Fraction(x)))
    return rational(bounds[0]), rational(bounds[1])
