"""Ring operations rounded to nearest, with a bound on what all roundings together may have changed.

Outward rounding of every operation takes most of the time of an enclosure. Here the ends are computed with the ordinary operations of the
processor, and one number a formula, known before any box is looked at, bounds how far they can be from the ends of the natural extension
in exact arithmetic. **Lemma.** Let ``x, y`` be ends with ``|x| <= X, |y| <= Y``, ``x', y'`` the computed ones with ``|x' - x| <= e``,
``|y' - y| <= f``, and ``u = 2^-53``. Then

    |fl(x' + y') - (x + y)| <= e + f + u (X + e + Y + f),
    |fl(x' y') - x y|       <= X f + Y e + e f + u (X + e)(Y + f) + 2^-1075,

and minima, maxima, absolute values and negation are exact and do not magnify errors. Proof: ``x' y' - x y = x (y' - y) + y (x' - x) + (x' - x)(y' - y)``;
a result is within ``u`` of its size, or ``2^-1075`` where a product is subnormal (sums are then exact). The bounds themselves
are computed in floats, from numbers >= 0 by fewer than 2^20 roundings, which ``GROW`` in every step makes up for.

``X`` holds for every box at once: natural extensions in exact arithmetic are isotone, and what they start from is cut down to its
enclosure on the whole region (`quick`), so a bound on the whole region bounds the ends on every box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from ...core.intervals import lower_float, upper_float
from .registers import Code

UNIT, TINY, GROW = 2.0**-53, 2.0**-1070, 1 + 2.0**-30


@dataclass(frozen=True)
class Quantity:
    """One number that depends on the box.

    Attributes:
        lo: register of its lower end.
        hi: register of its upper end.
        mid: register of its value at the centre; -1 where that is not needed.
        low: least value of the lower end on any box (in exact arithmetic).
        high: greatest value of the upper end.
        error: how far the computed ends may be from those in exact arithmetic.
        blur: how far the computed value at the centre may be from the true one.
    """

    lo: int
    hi: int
    mid: int
    low: float
    high: float
    error: float = 0.0
    blur: float = 0.0

    @property
    def size(self) -> float:
        """A bound on its absolute value."""
        return max(abs(self.low), abs(self.high))

    @property
    def sign(self) -> int:
        """1 if it is never negative, -1 if never positive, else 0."""
        return 1 if self.low >= 0 else -1 if self.high <= 0 else 0

    def signed(self, sign: int) -> Quantity:
        """The same, where it is known never to be negative (1), never positive (-1), or nothing (0)."""
        low, high = (max(self.low, 0.0), self.high) if sign > 0 else (self.low, min(self.high, 0.0))
        return replace(self, low=low, high=high) if sign else self

    @property
    def margin(self) -> float:
        """What to subtract from the computed lower end, rounded to nearest, to be below that in exact arithmetic."""
        return margin(self.size, self.error)


def margin(size: float, error: float) -> float:
    """A number ``m`` with ``fl(x' - m) <= x`` if ``|x| <= size`` and ``|x' - x| <= error``: that difference rounds by at most ``u (size + error + m)``."""
    return (error + 4 * UNIT * (size + error) + TINY) * GROW


def _sum_error(x: float, e: float, y: float, f: float) -> float:
    return (e + f + UNIT * (x + e + y + f) + TINY) * GROW


def _product_error(x: float, e: float, y: float, f: float) -> float:
    return (x * f + y * e + e * f + UNIT * (x + e) * (y + f) + TINY) * GROW


def _down(x: float) -> float:
    return math.nextafter(x, -math.inf)


def _up(x: float) -> float:
    return math.nextafter(x, math.inf)


class Ring:
    """Ring operations, absolute values, minima and maxima on quantities: the code of their ends, their ranges and errors.

    Args:
        code: receives the instructions.
    """

    def __init__(self, code: Code) -> None:
        self.code = code

    def constant(self, number: Fraction | int) -> Quantity:
        """A number: the nearest float and its distance."""
        value = Fraction(number)
        near = float(value)
        distance = _up(float(abs(Fraction(near) - value))) if Fraction(near) != value else 0.0
        r = self.code.constant(near)
        return Quantity(r, r, r, lower_float(value), upper_float(value), distance, distance)

    def is_number(self, x: Quantity, value: float) -> bool:
        """Whether it is this constant."""
        return self.code.constants.get(x.lo) == value and x.lo == x.hi and x.error == 0

    def _at(self, op: str, *xs: Quantity) -> int:
        return -1 if any(x.mid < 0 for x in xs) else self.code.emit(op, *(x.mid for x in xs))

    def neg(self, x: Quantity) -> Quantity:
        """``-x``."""
        c = self.code
        return Quantity(c.emit("neg", x.hi), c.emit("neg", x.lo), self._at("neg", x), -x.high, -x.low, x.error, x.blur)  # fmt: skip

    def add(self, x: Quantity, y: Quantity) -> Quantity:
        """``x + y``."""
        return Quantity(
            self.code.emit("add", x.lo, y.lo), self.code.emit("add", x.hi, y.hi), self._at("add", x, y),
            _down(x.low + y.low), _up(x.high + y.high),
            _sum_error(x.size, x.error, y.size, y.error), _sum_error(x.size, x.blur, y.size, y.blur),
        ).signed(x.sign if x.sign == y.sign else 0)  # fmt: skip

    def sub(self, x: Quantity, y: Quantity) -> Quantity:
        """``x - y``."""
        return Quantity(
            self.code.emit("sub", x.lo, y.hi), self.code.emit("sub", x.hi, y.lo), self._at("sub", x, y),
            _down(x.low - y.high), _up(x.high - y.low),
            _sum_error(x.size, x.error, y.size, y.error), _sum_error(x.size, x.blur, y.size, y.blur),
        )  # fmt: skip

    def mul(self, x: Quantity, y: Quantity) -> Quantity:
        """``x y``; signs that hold on the whole region spare products."""
        for one, other in ((x, y), (y, x)):
            if self.is_number(one, 1.0):
                return other
            if self.is_number(one, -1.0):
                return self.neg(other)
        if x.sign and not y.sign:
            x, y = y, x
        lo, hi = self._corners(x, y)
        ends = [a * b for a in (x.low, x.high) for b in (y.low, y.high)]
        return Quantity(
            lo, hi, self._at("mul", x, y), _down(min(ends)), _up(max(ends)),
            _product_error(x.size, x.error, y.size, y.error), _product_error(x.size, x.blur, y.size, y.blur),
        ).signed(x.sign * y.sign)  # fmt: skip

    def _corners(self, x: Quantity, y: Quantity) -> tuple[int, int]:
        """The products of ends that may be least and greatest; if one sign is known, it is that of y."""
        p = lambda a, b: self.code.emit("mul", a, b)  # noqa: E731
        least = lambda a, b: self.code.emit("min", a, b)  # noqa: E731
        most = lambda a, b: self.code.emit("max", a, b)  # noqa: E731
        if x.sign and y.sign:
            # The factor of the same sign as the result's is taken at its end nearest to zero for the least product.
            near = lambda q: q.lo if q.sign > 0 else q.hi  # noqa: E731
            far = lambda q: q.hi if q.sign > 0 else q.lo  # noqa: E731
            small, large = p(near(x), near(y)), p(far(x), far(y))
            return (small, large) if x.sign == y.sign else (large, small)
        if y.sign:
            a, b = (x.lo, x.hi) if y.sign > 0 else (x.hi, x.lo)
            return least(p(a, y.lo), p(a, y.hi)), most(p(b, y.lo), p(b, y.hi))
        all_ = [p(a, b) for a in (x.lo, x.hi) for b in (y.lo, y.hi)]
        return (
            least(least(all_[0], all_[1]), least(all_[2], all_[3])),
            most(most(all_[0], all_[1]), most(all_[2], all_[3])),
        )

    def abs(self, x: Quantity) -> Quantity:
        """``|x|``."""
        if x.sign:
            return x if x.sign > 0 else self.neg(x)
        c = self.code
        lo = c.emit("max", c.emit("max", x.lo, c.emit("neg", x.hi)), c.constant(0.0))
        hi = c.emit("max", x.hi, c.emit("neg", x.lo))
        mid = -1 if x.mid < 0 else c.emit("max", x.mid, c.emit("neg", x.mid))
        return Quantity(lo, hi, mid, 0.0, x.size, x.error, x.blur)

    def power(self, x: Quantity, n: int) -> Quantity:
        """``x^n``, ``n >= 1``: of ``|x|`` where n is even; ends go to ends, as it then increases."""
        base = self.abs(x) if n % 2 == 0 else x
        result, c = base, self.code
        for _ in range(n - 1):
            mid = self._at("mul", result, base)
            low, high = result.low * abs(base.low), result.high * abs(base.high)
            result = Quantity(
                c.emit("mul", result.lo, self._size(base, 0)), c.emit("mul", result.hi, self._size(base, 1)), mid,
                _down(low), _up(high),
                _product_error(result.size, result.error, base.size, base.error),
                _product_error(result.size, result.blur, base.size, base.blur),
            ).signed(base.sign)  # fmt: skip
        return result

    def _size(self, x: Quantity, end: int) -> int:
        """The absolute value of an end."""
        r = x.hi if end else x.lo
        return r if x.sign > 0 else self.code.emit("max", r, self.code.emit("neg", r))

    def extreme(self, op: str, x: Quantity, y: Quantity) -> Quantity:
        """``max(x, y)`` or ``min(x, y)``."""
        pick = max if op == "max" else min
        return Quantity(
            self.code.emit(op, x.lo, y.lo), self.code.emit(op, x.hi, y.hi), self._at(op, x, y),
            pick(x.low, y.low), pick(x.high, y.high), max(x.error, y.error), max(x.blur, y.blur),
        )  # fmt: skip

    def hull(self, x: Quantity, y: Quantity) -> Quantity:
        """What contains both; it has no value at the centre."""
        return Quantity(
            self.code.emit("min", x.lo, y.lo), self.code.emit("max", x.hi, y.hi), -1,
            min(x.low, y.low), max(x.high, y.high), max(x.error, y.error),
        )  # fmt: skip
