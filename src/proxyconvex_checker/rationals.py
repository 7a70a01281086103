"""Exact rationals and their directed rounding to float64 and square roots."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import Any

import numpy as np

from .errors import CheckError

LARGEST = sys.float_info.max


def rational(x: Any) -> Fraction:
    """The exact value of a finite float or integer.

    Raises:
        CheckError: for NaN and infinities.
    """
    try:
        return Fraction(x.item() if isinstance(x, np.generic) else x)
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckError("arithmetic", f"{x!r} is not a finite number") from error


def to_float_up(x: Fraction | int) -> float:
    """The smallest float ``>= x`` (infinity beyond the largest float)."""
    try:
        value = float(x)
    except OverflowError:
        return math.inf if x > 0 else -LARGEST
    return math.nextafter(value, math.inf) if Fraction(value) < x else value


def to_float_down(x: Fraction | int) -> float:
    """The largest float ``<= x`` (minus infinity below the smallest float)."""
    return -to_float_up(-x)


def _sqrt_rational(x: Fraction, bits: int) -> tuple[Fraction, Fraction]:
    if x < 0:
        raise CheckError("arithmetic", "the square root of a negative number was asked for")
    p, q = Fraction(x).numerator, Fraction(x).denominator
    # x 4^k has about 2 bits binary digits, so that the integer root has `bits` of them.
    k = bits - (p.bit_length() - q.bit_length()) // 2
    scaled = (p << 2 * k) // q if k >= 0 else p // (q << -2 * k)
    root = math.isqrt(scaled)
    unit = Fraction(1, 1 << k) if k >= 0 else Fraction(1 << -k)
    low = root * unit
    return (low, low) if low * low == x else (low, (root + 1) * unit)


def sqrt_upper(x: Fraction | int, bits: int = 96) -> Fraction:
    """A rational ``>= sqrt(x)``, about ``bits`` binary digits accurate."""
    return _sqrt_rational(Fraction(x), bits)[1]


def sqrt_lower(x: Fraction | int, bits: int = 96) -> Fraction:
    """A rational ``<= sqrt(x)``, about ``bits`` binary digits accurate."""
    return _sqrt_rational(Fraction(x), bits)[0]
