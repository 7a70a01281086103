"""The exponential of a rational number between two binary fractions, by integer arithmetic that rounds outward."""

from __future__ import annotations

from fractions import Fraction

_TERMS = 26
_GUARD = 8


def exp_ends(x: Fraction, bits: int) -> tuple[Fraction, Fraction]:
    """Binary fractions of at most ``bits`` significant bits with ``lo <= e**x <= hi``.

    ``e**|x| = (e**t)**(2**k)`` with ``t = |x| / 2**k <= 2**-10``. In units of ``2**-w`` every term of the Taylor series of
    ``e**t`` is rounded down for the lower end and up for the upper one; the terms left out add up to at most
    ``2 t**26 / 26! < 2**-347``, less than one unit, which the upper end gets. Then k squarings of positive numbers, each
    rounded outward to w bits, and for ``x < 0`` the reciprocal, which exchanges the ends.

    Args:
        x: at most 10^6 in size.
        bits: at most 256; the relative width is about ``2**(1 - bits)``.
    """
    k = 10 + (abs(x.numerator) // x.denominator + 1).bit_length()
    w = bits + k + _GUARD
    scaled, unit = abs(x.numerator) << w, x.denominator << k
    ends = []
    for up in (0, 1):
        t = -(-scaled // unit) if up else scaled // unit
        term = total = 1 << w
        for i in range(1, _TERMS):
            term = -(-term * t // (i << w)) if up else term * t // (i << w)
            total += term
        ends.append(total + up)
    (lo, hi), shift = ends, -w
    for _ in range(k):
        lo, hi, shift = _shortened(lo * lo, hi * hi, 2 * shift, w)
    if x < 0:
        lo, hi, shift = (1 << 2 * w) // hi, -(-(1 << 2 * w) // lo), -shift - 2 * w
    lo, hi, shift = _shortened(lo, hi, shift, bits)
    scale = Fraction(1 << shift) if shift >= 0 else Fraction(1, 1 << -shift)
    return lo * scale, hi * scale


def _shortened(lo: int, hi: int, shift: int, bits: int) -> tuple[int, int, int]:
    """``lo 2**shift`` and ``hi 2**shift``, rounded outward so that the upper mantissa keeps ``bits`` bits."""
    excess = max(0, hi.bit_length() - bits)
    return lo >> excess, -(-hi >> excess), shift + excess
