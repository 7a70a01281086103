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
LARGE = 2.0**500
"""Products of sizes below this do not overflow."""


class Unbounded(Exception):
    """No finite bound on a quantity or on its errors, or an operation that is not covered."""


@dataclass(frozen=True)
class Quantity:
    """One number that depends on the box.

    Attributes:
        lo: register of its lower end.
        hi: register of its upper end; the same register for a value at a point.
        low: least value of the lower end on any box (in exact arithmetic).
        high: greatest value of the upper end.
        error: how far the computed ends may be from those in exact arithmetic.
    """

    lo: int
    hi: int
    low: float
    high: float
    error: float = 0.0

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


def _sum_error(x: Quantity, y: Quantity) -> float:
    e, f = x.error, y.error
    return (e + f + UNIT * (x.size + e + y.size + f) + TINY) * GROW


def _product_error(x: Quantity, y: Quantity) -> float:
    e, f = x.error, y.error
    return (x.size * f + y.size * e + e * f + UNIT * (x.size + e) * (y.size + f) + TINY) * GROW


def _down(x: float) -> float:
    return math.nextafter(x, -math.inf)


def _up(x: float) -> float:
    return math.nextafter(x, math.inf)


def finite(q: Quantity) -> Quantity:
    """The quantity.

    Raises:
        Unbounded: if its range or its error is not bounded (or not known), or so large that a product might overflow.
    """
    if not all(abs(x) < LARGE for x in (q.low, q.high, q.error)):
        raise Unbounded
    return q


class Ring:
    """Ring operations, absolute values, minima and maxima on quantities: the code of their ends, their ranges and errors.

    Every result is `finite`, so that no NaN is lost in a minimum or maximum here.

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
        return finite(Quantity(r, r, lower_float(value), upper_float(value), distance))

    def is_number(self, x: Quantity, value: float) -> bool:
        """Whether it is this constant."""
        return self.code.constants.get(x.lo) == value and x.lo == x.hi and x.error == 0

    def neg(self, x: Quantity) -> Quantity:
        """``-x``."""
        return Quantity(self.code.emit("neg", x.hi), self.code.emit("neg", x.lo), -x.high, -x.low, x.error)

    def add(self, x: Quantity, y: Quantity) -> Quantity:
        """``x + y``."""
        lo, hi = self.code.emit("add", x.lo, y.lo), self.code.emit("add", x.hi, y.hi)
        found = finite(Quantity(lo, hi, _down(x.low + y.low), _up(x.high + y.high), _sum_error(x, y)))
        return found.signed(x.sign if x.sign == y.sign else 0)

    def sub(self, x: Quantity, y: Quantity) -> Quantity:
        """``x - y``."""
        lo, hi = self.code.emit("sub", x.lo, y.hi), self.code.emit("sub", x.hi, y.lo)
        return finite(Quantity(lo, hi, _down(x.low - y.high), _up(x.high - y.low), _sum_error(x, y)))

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
        found = finite(Quantity(lo, hi, _down(min(ends)), _up(max(ends)), _product_error(x, y)))
        return found.signed(x.sign * y.sign)

    def _corners(self, x: Quantity, y: Quantity) -> tuple[int, int]:
        """The products of ends that may be least and greatest; if one sign is known, it is that of y."""

        def p(a: int, b: int) -> int:
            return self.code.emit("mul", a, b)

        def least(a: int, b: int) -> int:
            return self.code.emit("min", a, b)

        def most(a: int, b: int) -> int:
            return self.code.emit("max", a, b)

        if x.sign and y.sign:
            # The product of the ends nearest to zero is the least in size.
            (x_near, x_far), (y_near, y_far) = ((q.lo, q.hi) if q.sign > 0 else (q.hi, q.lo) for q in (x, y))
            small, large = p(x_near, y_near), p(x_far, y_far)
            return (small, large) if x.sign == y.sign else (large, small)
        if y.sign:
            a, b = (x.lo, x.hi) if y.sign > 0 else (x.hi, x.lo)
            return least(p(a, y.lo), p(a, y.hi)), most(p(b, y.lo), p(b, y.hi))
        one, two, three, four = (p(a, b) for a in (x.lo, x.hi) for b in (y.lo, y.hi))
        return least(least(one, two), least(three, four)), most(most(one, two), most(three, four))

    def abs(self, x: Quantity) -> Quantity:
        """``|x|``."""
        if x.sign:
            return x if x.sign > 0 else self.neg(x)
        c = self.code
        lo = hi = c.emit("max", x.hi, c.emit("neg", x.lo))
        if x.lo != x.hi:
            lo = c.emit("max", c.emit("max", x.lo, c.emit("neg", x.hi)), c.constant(0.0))
        return Quantity(lo, hi, 0.0, x.size, x.error)

    def power(self, x: Quantity, n: int) -> Quantity:
        """``x^n``, ``n >= 1``: of ``|x|`` where n is even; ends go to ends, as it then increases."""
        base = self.abs(x) if n % 2 == 0 else x
        result, size = base, [self._size(base, r) for r in (base.lo, base.hi)]
        for _ in range(n - 1):
            lo, hi = self.code.emit("mul", result.lo, size[0]), self.code.emit("mul", result.hi, size[1])
            low, high = _down(result.low * abs(base.low)), _up(result.high * abs(base.high))
            result = finite(Quantity(lo, hi, low, high, _product_error(result, base))).signed(base.sign)
        return result

    def _size(self, x: Quantity, end: int) -> int:
        """The absolute value of an end."""
        return end if x.sign > 0 else self.code.emit("max", end, self.code.emit("neg", end))

    def extreme(self, op: str, x: Quantity, y: Quantity) -> Quantity:
        """``max(x, y)`` or ``min(x, y)``."""
        pick = max if op == "max" else min
        lo, hi = self.code.emit(op, x.lo, y.lo), self.code.emit(op, x.hi, y.hi)
        return Quantity(lo, hi, pick(x.low, y.low), pick(x.high, y.high), max(x.error, y.error))

    def hull(self, x: Quantity, y: Quantity) -> Quantity:
        """What contains both."""
        lo, hi = self.code.emit("min", x.lo, y.lo), self.code.emit("max", x.hi, y.hi)
        return Quantity(lo, hi, min(x.low, y.low), max(x.high, y.high), max(x.error, y.error))
