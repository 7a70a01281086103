"""Directed elementwise arithmetic: results of ``+ - * /`` moved to a known side of the exact value.

The assumptions are those stated in `rounding`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .errors import CheckError

Array = np.ndarray
_Function = TypeVar("_Function", bound=Callable[..., Any])

SMALLEST_NORMAL = 2.0**-1022
_LARGE = 4096


def quiet(function: _Function) -> _Function:
    """Run without NumPy's warnings: overflow and underflow are handled by the bounds themselves."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


def finite(x: Any, what: str = "an array") -> Array:
    """``x`` as a float64 array.

    Raises:
        CheckError: if it holds a NaN or an infinity, or is not numeric.
    """
    try:
        array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckError("arithmetic", f"{what} is not numeric ({error})") from error
    if not np.isfinite(array).all():
        raise CheckError("arithmetic", f"{what} holds a NaN or an infinity")
    return array


@quiet
def _shift(x: Any, sign: float) -> Any:
    """A float64 at least one step from ``x`` in the direction of ``sign``.

    `numpy.nextafter` is ten times slower than an addition, so large arrays are moved by ``2^-52 |x| +
    2^-1022``, which is at least one step: the spacing of floats at ``x`` is at most ``max(2^-52 |x|,
    2^-1074)``, and rounding is monotone.
    """
    if np.size(x) >= _LARGE:
        distance = np.abs(np.asarray(x, dtype=np.float64))
        distance *= 2.0**-52
        distance += SMALLEST_NORMAL
        distance *= sign
        distance += x
        if np.isfinite(distance).all():
            return distance
    return np.nextafter(x, sign * np.inf)


def next_up(x: Any) -> Any:
    """A float64 above ``x``; ``next_up(fl(a op b)) >= a op b`` for every correctly rounded operation."""
    return _shift(x, 1.0)


def next_down(x: Any) -> Any:
    """A float64 below ``x``; ``next_down(fl(a op b)) <= a op b`` for every correctly rounded operation."""
    return _shift(x, -1.0)


@quiet
def add_up(a: Any, b: Any) -> Any:
    """Upper bound on ``a + b``."""
    return _shift(np.add(a, b), 1.0)


@quiet
def add_down(a: Any, b: Any) -> Any:
    """Lower bound on ``a + b``."""
    return _shift(np.add(a, b), -1.0)


@quiet
def sub_up(a: Any, b: Any) -> Any:
    """Upper bound on ``a - b``."""
    return _shift(np.subtract(a, b), 1.0)


@quiet
def sub_down(a: Any, b: Any) -> Any:
    """Lower bound on ``a - b``."""
    return _shift(np.subtract(a, b), -1.0)


@quiet
def mul_up(a: Any, b: Any) -> Any:
    """Upper bound on ``a * b``."""
    return _shift(np.multiply(a, b), 1.0)


@quiet
def mul_down(a: Any, b: Any) -> Any:
    """Lower bound on ``a * b``."""
    return _shift(np.multiply(a, b), -1.0)


@quiet
def div_up(a: Any, b: Any) -> Any:
    """Upper bound on ``a / b`` (``b != 0``)."""
    return _shift(np.divide(a, b), 1.0)


@quiet
def div_down(a: Any, b: Any) -> Any:
    """Lower bound on ``a / b`` (``b != 0``)."""
    return _shift(np.divide(a, b), -1.0)
