"""Exact scalars: Fractions, intervals with rational ends, and enclosures of roots, powers, exp and log.

Everything here is integer arithmetic, so it is exact or rounded outward on purpose; no library function of unknown
accuracy is used. Write formulas with `proxyconvex.core.numbers`, which chooses the right routine for each type.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from numbers import Rational
from typing import Any

import numpy as np

from .errors import InvalidInputError
from .exponential import exp_ends

# Guard bits of the elementary functions, and the size at which endpoints are rounded outward (so that long
# computations do not grow without limit). Short formulas on float64 data never reach it and stay exact.
PRECISION = 224
_LONG = 8192


def _from_float(x: float) -> Fraction:
    if not math.isfinite(x):
        raise InvalidInputError("number", x, "a finite number", "Infinities and NaN have no exact value.")
    return Fraction(x)


def exact(x: Any) -> Fraction | Interval:
    """The exact value of a real scalar: a Fraction (floats are exact binary fractions) or an unchanged Interval.

    Raises:
        InvalidInputError: for NaN, infinities, booleans and anything that is not a real scalar.
    """
    if isinstance(x, Interval | Fraction):
        return x
    if isinstance(x, bool | np.bool_):
        raise InvalidInputError("number", x, "a real number")
    if isinstance(x, int | np.integer):
        return Fraction(int(x))
    if isinstance(x, Rational):
        return Fraction(int(x.numerator), int(x.denominator))
    if isinstance(x, float | np.floating):
        return _from_float(float(x))
    if getattr(x, "shape", None) == () and hasattr(x, "item"):
        return exact(x.item())
    raise InvalidInputError("number", x, "a real number (int, float, Fraction or Interval)")


def is_exact(x: Any) -> bool:
    """Whether ``x`` is a Fraction or an Interval."""
    return isinstance(x, Interval | Fraction)


def _shorten(x: Fraction, up: bool) -> Fraction:
    """``x`` itself while it is short, else ``x`` rounded to `PRECISION` significant bits, upwards or downwards."""
    if x.numerator.bit_length() + x.denominator.bit_length() <= _LONG:
        return x
    return _significant(x, up)


def _significant(x: Fraction, up: bool) -> Fraction:
    """``x`` rounded outward to `PRECISION` significant bits."""
    if x == 0:
        return x
    k = PRECISION - (x.numerator.bit_length() - x.denominator.bit_length())
    scaled = x * Fraction(2) ** k
    return Fraction(math.ceil(scaled) if up else math.floor(scaled)) / Fraction(2) ** k


class Interval:
    """A closed interval with rational endpoints; every operation returns an interval containing all results.

    Args:
        lo: lower end, any finite real number.
        hi: upper end ``>= lo``; equal to ``lo`` if left out.

    Comparisons answer only when they hold, or fail, for every pair of members; otherwise they raise
    `InvalidInputError` instead of guessing.
    """

    __slots__ = ("hi", "lo")
    __array_ufunc__ = None  # NumPy scalars leave mixed arithmetic to this class

    def __init__(self, lo: Any, hi: Any = None) -> None:
        low, high = exact(lo), exact(lo if hi is None else hi)
        self.lo: Fraction = low.lo if isinstance(low, Interval) else low
        self.hi: Fraction = high.hi if isinstance(high, Interval) else high
        if self.lo > self.hi:
            raise InvalidInputError("Interval", (lo, hi), "lo <= hi", "Swap the two ends.")

    @staticmethod
    def _outward(lo: Fraction, hi: Fraction) -> Interval:
        return Interval(_shorten(lo, False), _shorten(hi, True))

    @staticmethod
    def _lift(x: Any) -> Interval | None:
        if isinstance(x, Interval):
            return x
        return Interval(x) if isinstance(x, int | float | Fraction | np.integer | np.floating) else None

    def __repr__(self) -> str:
        return f"Interval({lower_float(self)!r}, {upper_float(self)!r})"

    def __hash__(self) -> int:
        return hash((self.lo, self.hi))

    def __contains__(self, x: Any) -> bool:
        other = Interval(x)
        return self.lo <= other.lo and other.hi <= self.hi

    def __float__(self) -> float:
        return float((self.lo + self.hi) / 2)

    def __neg__(self) -> Interval:
        return Interval(-self.hi, -self.lo)

    def __pos__(self) -> Interval:
        return self

    def __abs__(self) -> Interval:
        if self.lo >= 0:
            return self
        return -self if self.hi <= 0 else Interval(0, max(-self.lo, self.hi))

    def __add__(self, other: Any) -> Interval:
        o = self._lift(other)
        return NotImplemented if o is None else self._outward(self.lo + o.lo, self.hi + o.hi)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Interval:
        o = self._lift(other)
        return NotImplemented if o is None else self._outward(self.lo - o.hi, self.hi - o.lo)

    def __rsub__(self, other: Any) -> Interval:
        return (-self) + other

    def __mul__(self, other: Any) -> Interval:
        o = self._lift(other)
        if o is None:
            return NotImplemented
        products = (self.lo * o.lo, self.lo * o.hi, self.hi * o.lo, self.hi * o.hi)
        return self._outward(min(products), max(products))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Interval:
        o = self._lift(other)
        if o is None:
            return NotImplemented
        if o.lo <= 0 <= o.hi:
            raise InvalidInputError("divisor", o, "an interval without zero")
        return self * Interval(1 / o.hi, 1 / o.lo)

    def __rtruediv__(self, other: Any) -> Interval:
        o = self._lift(other)
        return NotImplemented if o is None else o / self

    def __pow__(self, exponent: Any) -> Interval:
        return Interval(interval_power(self, exponent))

    def _decide(self, other: Any, yes: Callable[..., bool], no: Callable[..., bool], sign: str) -> bool:
        o = self._lift(other)
        if o is None:
            return NotImplemented  # type: ignore[return-value]
        if yes(self, o):
            return True
        if no(self, o):
            return False
        raise InvalidInputError("comparison", f"{self} {sign} {o}", "intervals that do not overlap")

    def __lt__(self, other: Any) -> bool:
        return self._decide(other, lambda a, b: a.hi < b.lo, lambda a, b: a.lo >= b.hi, "<")

    def __le__(self, other: Any) -> bool:
        return self._decide(other, lambda a, b: a.hi <= b.lo, lambda a, b: a.lo > b.hi, "<=")

    def __gt__(self, other: Any) -> bool:
        return self._decide(other, lambda a, b: a.lo > b.hi, lambda a, b: a.hi <= b.lo, ">")

    def __ge__(self, other: Any) -> bool:
        return self._decide(other, lambda a, b: a.lo >= b.hi, lambda a, b: a.hi < b.lo, ">=")

    def __eq__(self, other: object) -> bool:
        o = self._lift(other)
        return o is not None and self.lo == o.lo and self.hi == o.hi


def lower(x: Any) -> Fraction:
    """Lower end of a scalar, exactly."""
    value = exact(x)
    return value.lo if isinstance(value, Interval) else value


def upper(x: Any) -> Fraction:
    """Upper end of a scalar, exactly."""
    value = exact(x)
    return value.hi if isinstance(value, Interval) else value


def upper_float(x: Any) -> float:
    """The smallest float64 that is not below ``x`` (infinity if there is none)."""
    target = upper(x)
    try:
        value = float(target)  # correctly rounded to nearest
    except OverflowError:
        return math.inf if target > 0 else -math.nextafter(math.inf, 0)
    if math.isinf(value):
        return value if value > 0 else -math.nextafter(math.inf, 0)
    return math.nextafter(value, math.inf) if Fraction(value) < target else value


def lower_float(x: Any) -> float:
    """The largest float64 that is not above ``x`` (minus infinity if there is none)."""
    return -upper_float(-lower(x))


# --- roots, powers, exponential and logarithm of exact numbers -----------------------------------------------------


def _integer_root(n: int, k: int) -> int:
    """Floor of the k-th root of ``n >= 0`` (Newton's method on integers, started above the root)."""
    if k == 2:
        return math.isqrt(n)
    if n < 2:
        return n
    x = 1 << -(-n.bit_length() // k)
    while True:
        y = ((k - 1) * x + n // x ** (k - 1)) // k
        if y >= x:
            return x
        x = y


def _root(x: Fraction, k: int) -> tuple[Fraction, Fraction]:
    """Enclosure of the k-th root of ``x >= 0``; both ends equal when the root is rational."""
    p, q = _integer_root(x.numerator, k), _integer_root(x.denominator, k)
    if p**k == x.numerator and q**k == x.denominator:
        return Fraction(p, q), Fraction(p, q)
    shift = max(PRECISION - (x.numerator.bit_length() - x.denominator.bit_length()) // k, 0)
    r = _integer_root((x.numerator << (k * shift)) // x.denominator, k)
    return Fraction(r, 1 << shift), Fraction(r + 1, 1 << shift)


def _power(x: Fraction, e: Fraction) -> tuple[Fraction, Fraction]:
    """Enclosure of ``x**e`` for ``x >= 0``, ``e > 0``."""
    if x in (0, 1) or e == 1:
        return x, x
    whole, part = divmod(e, 1)
    if part.denominator <= 64:
        if whole * (x.numerator.bit_length() + x.denominator.bit_length()) < _LONG:
            lo, hi = _root(x**e.numerator, e.denominator)
            return lo, hi
        return _scale(_integer_power(x, int(whole)), _power(x, part) if part else (Fraction(1), Fraction(1)))
    # Otherwise bracket the exponent by k/2^64 and multiply the repeated square roots of x.
    scaled = part * 2**64
    ends = [_binary_power(x, math.floor(scaled)), _binary_power(x, math.ceil(scaled))]
    hull = (min(a for a, _ in ends), max(b for _, b in ends))
    return _scale(_integer_power(x, int(whole)), hull)


def _scale(a: tuple[Fraction, Fraction], b: tuple[Fraction, Fraction]) -> tuple[Fraction, Fraction]:
    """Product of two enclosures of non-negative numbers, rounded outward."""
    return _shorten(a[0] * b[0], False), _shorten(a[1] * b[1], True)


def _integer_power(x: Fraction, n: int) -> tuple[Fraction, Fraction]:
    result, base = (Fraction(1), Fraction(1)), (x, x)
    while n:
        if n & 1:
            result = _scale(result, base)
        n >>= 1
        if n:
            base = _scale(base, base)
    return result


def _binary_power(x: Fraction, k: int) -> tuple[Fraction, Fraction]:
    """Enclosure of ``x**(k / 2**64)`` for ``x > 0`` and ``0 <= k <= 2**64``."""
    if k == 1 << 64:
        return x, x
    result, lo, hi = (Fraction(1), Fraction(1)), _significant(x, False), _significant(x, True)
    for bit in range(63, -1, -1):
        lo, hi = _significant(_root(lo, 2)[0], False), _significant(_root(hi, 2)[1], True)
        if k >> bit & 1:
            result = (_significant(result[0] * lo, False), _significant(result[1] * hi, True))
    return result


@functools.lru_cache(maxsize=256)
def _exp(x: Fraction) -> Interval:
    """Enclosure of ``e**x``."""
    if abs(x) > 10**6:
        raise InvalidInputError(
            "exponent", float(x), "at most 10^6 in size", "The result has no useful float value."
        )
    return Interval(*exp_ends(x, PRECISION))


def _tight(x: Interval) -> Interval:
    return Interval(_significant(x.lo, False), _significant(x.hi, True))


@functools.lru_cache(maxsize=256)
def _log(x: Fraction) -> Interval:
    """Enclosure of ``log x``, ``x > 0``: ``x = 2^k m``, ``m`` in [2/3, 4/3], ``log m = 2 atanh((m-1)/(m+1))``."""
    k = x.numerator.bit_length() - x.denominator.bit_length()
    m = x / Fraction(2) ** k
    while m > Fraction(4, 3):
        m, k = m / 2, k + 1
    while m < Fraction(2, 3):
        m, k = m * 2, k - 1
    return _tight(_log_near_one(m) + (k * _log_two() if k else 0))


def _log_two() -> Interval:
    return -2 * _log_near_one(Fraction(1, 2) * Fraction(4, 3)) + _log_near_one(Fraction(8, 9))


def _log_near_one(m: Fraction) -> Interval:
    if m == 1:
        return Interval(0)
    z = Interval((m - 1) / (m + 1))
    z = _tight(z)
    square, term, total = _tight(z * z), z, Interval(0)
    size = max(abs(square.lo), abs(square.hi))
    for i in range(60):
        total = _tight(total + term / (2 * i + 1))
        term = _tight(term * square)
    rest = max(abs(term.lo), abs(term.hi)) / (1 - size)
    return 2 * (total + Interval(-rest, rest))


# --- the same for intervals; results that are rational stay Fractions where the argument is one --------------------


def _hull(lo: Fraction, hi: Fraction, thin: bool) -> Fraction | Interval:
    return lo if thin and lo == hi else Interval(lo, hi)


def interval_power(x: Fraction | Interval, exponent: Any) -> Fraction | Interval:
    """``x**exponent`` for an exact ``x`` and a rational exponent (a float counts as the binary fraction it is).

    Raises:
        InvalidInputError: for a negative base with a fractional exponent, or zero to a negative power.
    """
    e, thin = exact(exponent), not isinstance(x, Interval)
    if isinstance(e, Interval):
        if e.lo != e.hi:
            raise InvalidInputError("exponent", e, "one rational number")
        e = e.lo
    lo, hi = lower(x), upper(x)
    if e == 0:
        return _hull(Fraction(1), Fraction(1), thin)
    if e < 0:
        return 1 / interval_power(x, -e)
    if e.denominator == 1 and lo < 0:
        n = int(e)
        ends = [_integer_power(abs(v), n) for v in (lo, hi)]
        if n % 2 == 0:
            return _hull(Fraction(0) if hi > 0 else ends[1][0], max(ends[0][1], ends[1][1]), thin)
        return _hull(-ends[0][1], ends[1][1] if hi >= 0 else -ends[1][0], thin)
    if lo < 0:
        raise InvalidInputError("base", x, "a number >= 0 for a fractional exponent")
    return _hull(_power(lo, e)[0], _power(hi, e)[1], thin)


def interval_exp(x: Fraction | Interval) -> Fraction | Interval:
    """Enclosure of ``e**x`` (the Fraction 1 for the Fraction 0)."""
    if not isinstance(x, Interval):
        return Fraction(1) if x == 0 else _exp(x)
    return Interval(_exp(x.lo).lo, _exp(x.hi).hi)


def interval_log(x: Fraction | Interval) -> Fraction | Interval:
    """Enclosure of the natural logarithm (the Fraction 0 for the Fraction 1).

    Raises:
        InvalidInputError: unless ``x > 0``.
    """
    if lower(x) <= 0:
        raise InvalidInputError("log of", x, "a number > 0")
    if not isinstance(x, Interval):
        return Fraction(0) if x == 1 else _log(x)
    return Interval(_log(x.lo).lo, _log(x.hi).hi)
