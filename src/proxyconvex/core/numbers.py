"""One formula, many number types: helpers that run on floats, Fractions, intervals, NumPy and JAX arrays.

A condition or a bound is written once, with ``+ - * /`` and the helpers below. In float it is fast; in
`fractions.Fraction` it is exact as long as it stays rational; where a root, exponential or logarithm enters, a
Fraction turns into an `Interval` that contains the true value (with about 200 correct bits). The number to print is
then `upper_float` of the result: the smallest float64 not below it.

A *point* is a scalar, an array, or a tuple, list or dictionary of points (a JAX pytree). Lists of Fractions or
Intervals are exact vectors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from .errors import InvalidInputError
from .expressions import Expression, lift, unary
from .expressions import power as symbolic_power
from .intervals import (
    Interval,
    exact,
    interval_exp,
    interval_log,
    interval_power,
    is_exact,
    lower,
    lower_float,
    upper,
    upper_float,
)

__all__ = [
    "Interval", "absolute", "exact", "exp", "inner", "is_exact", "is_exact_point", "is_symbolic", "is_traced", "leaves", "log",
    "lower", "lower_float", "map_point", "maximum", "minimum", "norm", "norm_sq", "norm_upper", "power", "sqrt",
    "subtract", "upper", "upper_float",
]  # fmt: skip


def _module(*xs: Any) -> Any:
    """`math`-like module for these numbers: NumPy for NumPy values, JAX for JAX arrays and tracers."""
    for x in xs:
        if not isinstance(x, int | float | np.ndarray | np.generic | Fraction | Interval):
            import jax.numpy as jnp

            return jnp
    return np


def power(x: Any, exponent: Any) -> Any:
    """``x**exponent`` for ``x >= 0`` (any ``x`` when the exponent is a whole number).

    Whole exponents are ring operations. For exact ``x`` the result is a Fraction when that is rational, otherwise an
    enclosing Interval. Under JAX the derivative at 0 is set to 0 instead of NaN.
    """
    if is_exact(x):
        return interval_power(x, exponent)
    if isinstance(x, Expression):
        return _symbolic_power(x, exact(exponent))
    e = float(exponent)
    if e == int(e):
        return x ** int(e)
    if isinstance(x, int | float):
        if x < 0:
            raise InvalidInputError("base", x, "a number >= 0 for a fractional exponent")
        return float(x) ** e
    xp = _module(x)
    positive = x > 0
    return xp.where(positive, xp.where(positive, x, 1.0) ** e, 0.0)


def _symbolic_power(x: Expression, e: Any) -> Expression:
    """Whole powers; roots where the denominator is a power of two; ``exp(e log x)`` otherwise, which is not defined at 0."""
    if isinstance(e, Interval):
        raise InvalidInputError("exponent", e, "one rational number")
    roots = e.denominator.bit_length() - 1
    if e.denominator == 2**roots and abs(e.numerator) <= 64 and roots <= 6:
        for _ in range(roots):
            x = unary("sqrt", x)
        return symbolic_power(x, e.numerator)
    return unary("exp", lift(e) * unary("log", x))


def sqrt(x: Any) -> Any:
    """Square root; outward for exact numbers."""
    if isinstance(x, int | float):
        return math.sqrt(x)
    return power(x, Fraction(1, 2))


def exp(x: Any) -> Any:
    """Exponential; outward for exact numbers."""
    return interval_exp(x) if is_exact(x) else _module(x).exp(x)


def log(x: Any) -> Any:
    """Natural logarithm; outward for exact numbers."""
    return interval_log(x) if is_exact(x) else _module(x).log(x)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two numbers; for intervals, the interval of possible maxima."""
    if is_exact(a) or is_exact(b):
        if not (isinstance(a, Interval) or isinstance(b, Interval)):
            return max(a, b)
        return Interval(max(lower(a), lower(b)), max(upper(a), upper(b)))
    if isinstance(a, int | float) and isinstance(b, int | float):
        return max(a, b)
    return _module(a, b).maximum(a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two numbers; for intervals, the interval of possible minima."""
    return -maximum(-a, -b)


def absolute(x: Any) -> Any:
    """Absolute value."""
    return abs(x)


# --- points --------------------------------------------------------------------------------------------------------


def map_point(function: Callable[..., Any], *points: Any) -> Any:
    """Apply a function leaf by leaf to points of the same structure."""
    first = points[0]
    if isinstance(first, dict):
        if any(not isinstance(p, dict) or p.keys() != first.keys() for p in points):
            raise InvalidInputError("point", [sorted(p) for p in points], "points with the same keys")
        return {k: map_point(function, *(p[k] for p in points)) for k in first}
    if isinstance(first, list | tuple):
        if any(not isinstance(p, list | tuple | np.ndarray) or len(p) != len(first) for p in points):
            raise InvalidInputError("point", points, "points of the same length and structure")
        return type(first)(map_point(function, *parts) for parts in zip(*points, strict=True))
    return function(*points)


def leaves(point: Any) -> Iterator[Any]:
    """The scalars and arrays of a point; the entries of an object array."""
    if isinstance(point, dict):
        point = point.values()
    elif isinstance(point, np.ndarray) and point.dtype == object:
        point = point.ravel()
    elif not isinstance(point, list | tuple):
        yield point
        return
    for part in point:
        yield from leaves(part)


def is_exact_point(point: Any) -> bool:
    """Whether a point holds a Fraction or an Interval."""
    return any(is_exact(x) for x in leaves(point))


def is_symbolic(point: Any) -> bool:
    """Whether a point holds an `Expression` (a formula is then being written down, not evaluated)."""
    return any(isinstance(x, Expression) for x in leaves(point))


def is_traced(point: Any) -> bool:
    """Whether a point is being traced by a JAX transformation (jit, grad, vmap)."""
    jax = sys.modules.get("jax")
    return jax is not None and any(isinstance(x, jax.core.Tracer) for x in leaves(point))


def subtract(a: Any, b: Any) -> Any:
    """``a - b`` leaf by leaf."""
    return map_point(lambda x, y: x - y, a, b)


def inner(a: Any, b: Any) -> Any:
    """Euclidean (Frobenius) inner product over all leaves."""
    if isinstance(a, dict):
        return sum((inner(a[k], b[k]) for k in a), 0)
    if isinstance(a, list | tuple) or isinstance(b, list | tuple):
        return sum((inner(x, y) for x, y in zip(a, b, strict=True)), 0)
    product = a * b
    return product.sum() if getattr(product, "ndim", 0) else product


def norm_sq(a: Any) -> Any:
    """``||a||^2``."""
    return inner(a, a)


def norm(a: Any) -> Any:
    """``||a||``; outward for exact numbers."""
    return sqrt(norm_sq(a))


def norm_upper(a: Any) -> Fraction:
    """A rational upper bound on ``||a||``, at most a few roundings above it; 0 only for a zero point.

    Short or exact points are summed exactly. Otherwise: `math.fsum` is correctly rounded and each square is rounded
    once, so the factor ``1 + 2^-50`` covers the three roundings, and scaling by a power of two keeps the squares of
    all but negligible entries from underflowing (``2^-900`` per entry covers those).
    """
    if is_exact_point(a):
        return upper(sqrt(sum((exact(x) * exact(x) for x in leaves(a)), Fraction(0))))
    flat = np.concatenate([np.ravel(np.asarray(x, float)) for x in leaves(a)] or [np.zeros(0)])
    if not np.isfinite(flat).all():
        raise InvalidInputError("point", a, "finite entries")
    flat = flat[flat != 0]
    if flat.size <= 64:
        return upper(sqrt(sum((Fraction(x) ** 2 for x in flat.tolist()), Fraction(0))))
    _, e = math.frexp(float(np.max(np.abs(flat))))
    scaled = np.ldexp(flat, -e)
    root = Fraction(math.sqrt(math.fsum((scaled * scaled).tolist())))
    bound = root * (1 + Fraction(1, 2**50)) + Fraction(flat.size, 2**900)
    return Fraction(upper_float(bound)) * Fraction(2) ** e
