"""Numbers in sentences, rounded so that the sentence follows from the number. Loads nothing else of the checker."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def show(value: float, lower: bool = False, digits: int = 6) -> str:
    """``value`` to six significant digits, rounded up (a lower bound: down), so that it implies the text."""
    rounded = Context(prec=digits, rounding=ROUND_FLOOR if lower else ROUND_CEILING).create_decimal(
        Decimal(value)
    )
    if rounded == 0:
        return "0"
    if -5 <= rounded.adjusted() < 15:
        text = format(rounded, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = format(rounded, "e").partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{exponent}"
