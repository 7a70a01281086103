"""Numbers as people read them: rounded in the safe direction, never hiding a NaN or an infinity.

A promised upper bound is rounded up and a margin (slack) down, so that a printed sentence is implied by the
number behind it. Rounding starts from the shortest decimal that identifies the float: 0.1 is printed as 0.1.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

Direction = Literal["nearest", "up", "down"]
_ROUNDING = {"nearest": ROUND_HALF_EVEN, "up": ROUND_CEILING, "down": ROUND_FLOOR}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS, THIN = "\u2212", "\u202f"


def number(x: object, digits: int = 4, direction: Direction = "nearest", *, plain: bool = False) -> str:
    """``x`` to ``digits`` significant digits.

    Args:
        x: an int, a float or None.
        digits: significant digits, at least 1; whole numbers below 10^15 are printed in full.
        direction: ``"up"`` for upper bounds, ``"down"`` for margins and lower bounds.
        plain: ASCII only (``-1.5e-09``), for terminals; otherwise ``−1.5×10⁻⁹``, thousands spaced.

    Returns:
        The text; ``"n/a"`` for None and NaN, ``"∞"`` (plain: ``"inf"``) for infinities.
    """
    value = _as_float(x)
    if value is None or math.isnan(value):
        return "n/a"
    minus = "-" if plain else MINUS
    if math.isinf(value):
        return (minus if value < 0 else "") + ("inf" if plain else "∞")
    if value == int(value) and abs(value) < 1e15 and (abs(value) < 10**6 or isinstance(x, int)):
        return _group(int(value), plain)
    rounded = Context(prec=digits, rounding=_ROUNDING[direction]).create_decimal(Decimal(repr(value)))
    exponent = rounded.adjusted()
    sign = minus if rounded < 0 else ""
    if -4 < exponent < 6:
        return sign + _trim(format(abs(rounded), "f"))
    mantissa = _trim(format(abs(rounded).scaleb(-exponent), "f"))
    if mantissa == "1" and not plain:
        return f"{sign}10{str(exponent).translate(_SUPERSCRIPT)}"
    if plain:
        return f"{sign}{mantissa}e{exponent:+03d}"
    return f"{sign}{mantissa}×10{str(exponent).translate(_SUPERSCRIPT)}"


def percent(x: object, digits: int = 3, direction: Direction = "nearest", *, plain: bool = False) -> str:
    """A fraction as a percentage, ``0.00798 -> "0.798%"``; same conventions as `number`."""
    value = _as_float(x)
    if value is None or not math.isfinite(value):
        return number(value, plain=plain)
    context = Context(prec=digits, rounding=_ROUNDING[direction])
    hundredfold = context.create_decimal(Decimal(repr(value)) * 100)
    if hundredfold == 0:
        return "0%"
    if hundredfold.adjusted() < -4:
        return number(float(hundredfold), digits, plain=plain) + "%"
    sign = "" if hundredfold > 0 else ("-" if plain else MINUS)
    return sign + _trim(format(abs(hundredfold), "f")) + "%"


def quantity_value(
    x: object, is_error: bool, direction: Direction = "nearest", *, plain: bool = False
) -> str:
    """A value of a promised quantity: a percentage for errors, a number for losses and slopes."""
    return (
        percent(x, direction=direction, plain=plain)
        if is_error
        else number(x, direction=direction, plain=plain)
    )


def _as_float(x: object) -> float | None:
    try:
        return None if x is None else float(x)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _group(value: int, plain: bool) -> str:
    text = f"{abs(value):,}" if not plain else str(abs(value))
    if not plain:
        text = text.replace(",", THIN) if abs(value) >= 10_000 else text.replace(",", "")
    return (("-" if plain else MINUS) if value < 0 else "") + text


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
