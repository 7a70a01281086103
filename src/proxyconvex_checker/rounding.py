"""Rigorous enclosures of float64 computations, with the standard library and NumPy only.

Every function returns bounds that hold in exact arithmetic for the float64 numbers it was given.

Trusted base (everything else is proved from it):

* IEEE-754 binary64 with round-to-nearest for elementwise ``+ - * /`` and ``sqrt`` in NumPy; `math.fsum` is
  the correctly rounded sum.
* A matrix product is the conventional one: each entry is a sum of the ``k`` products, in any order, with or
  without fused multiply-add, on any number of threads (no Strassen-like scheme). It may flush subnormal
  *results* to zero.
* NumPy's ``exp, log, log1p, expm1`` in float64 are within 8 units in the last place of the true value
  (`LIBM_ULPS`; their documented and measured errors are below 4), or within 2^-1022 where the result is
  subnormal.

The error bounds of sums and products are the a-priori ones: N. J. Higham, *Accuracy and Stability of
Numerical Algorithms*, 2nd ed., section 3.1 (``gamma_k = k u / (1 - k u)``, ``u = 2^-53``), which hold for
every order of summation.
"""

from __future__ import annotations

import math
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
    mul_down,
    mul_up,
    next_down,
    next_up,
    quiet,
    sub_down,
    sub_up,
)
from .elementary import (
    LIBM_ULPS,
    exp_bounds,
    exp_rational,
    expm1_bounds,
    lambert_w_exp_upper,
    lambert_w_upper,
    log1p_bounds,
    log_bounds,
    log_rational,
    sigmoid_bounds,
    softplus_bounds,
    sqrt_bounds,
)
from .errors import CheckError
from .rationals import LARGEST, rational, sqrt_lower, sqrt_upper, to_float_down, to_float_up

__all__ = [
    "LARGEST",
    "LIBM_ULPS",
    "SMALLEST_NORMAL",
    "add_down",
    "add_up",
    "div_down",
    "div_up",
    "dot",
    "exp_bounds",
    "exp_rational",
    "expm1_bounds",
    "finite",
    "gamma_upper",
    "lambda_max_upper",
    "lambert_w_exp_upper",
    "lambert_w_upper",
    "log1p_bounds",
    "log_bounds",
    "log_rational",
    "matmul_enclosure",
    "mean_bounds",
    "mul_down",
    "mul_up",
    "next_down",
    "next_up",
    "norm_lower",
    "norm_upper",
    "product_upper",
    "rational",
    "sigmoid_bounds",
    "softplus_bounds",
    "sqrt_bounds",
    "sqrt_lower",
    "sqrt_upper",
    "sub_down",
    "sub_up",
    "sum_bounds",
    "sum_enclosure",
    "to_float_down",
    "to_float_up",
]

Array = np.ndarray


# --- sums and products of arrays ---------------------------------------------------------------------------


def gamma_upper(k: int) -> float:
    """Upper bound on ``gamma_k = k u / (1 - k u)``.

    Raises:
        CheckError: if ``k`` is so large (2^50) that the bound would say nothing.
    """
    if not 0 <= k < 2**50:
        raise CheckError("arithmetic", f"a sum of {k} terms has no useful error bound")
    return to_float_up(Fraction(k, 2**53 - k))


def _result(value: Array, error: Array, what: str) -> tuple[Any, Any]:
    if not (np.isfinite(value).all() and np.isfinite(error).all()):
        raise CheckError("arithmetic", f"{what} overflows float64")
    return value, error


def _affine_up(x: Array, slope: Fraction, constant: Fraction) -> Array:
    """Upper bound on ``slope x + constant`` for ``x, slope, constant >= 0``, in two passes.

    The two roundings lose at most a factor ``(1 - u)^2`` and 2^-1074; the coefficients are raised by more
    than that.
    """
    raised = 1 + Fraction(4, 2**53)
    result = np.multiply(x, to_float_up(slope * raised))
    result = result + to_float_up(constant * raised + Fraction(2) ** -1070)
    return result


def _from_absolute(absolute: Array, k: int) -> tuple[Array, Array]:
    """Upper bounds on the exact sum and on ``|fl(sum terms) - sum terms|``, from ``fl(sum |terms|)``.

    ``k`` is the number of products.

    ``fl(S) >= (1 - gamma) S - tiny`` gives ``S <= (fl(S) + tiny) / (1 - gamma) <= (fl(S) + tiny) (1 + 2
    gamma)`` for ``gamma <= 1/2``. Each product and each partial sum may lose 2^-1022 (flush to zero), and a
    loss made early is amplified by at most ``1 + gamma <= 2``: ``tiny = (4 k + 4) 2^-1022``.
    """
    gamma, tiny = Fraction(gamma_upper(k + 2)), (4 * k + 4) * Fraction(SMALLEST_NORMAL)
    slope = 1 + 2 * gamma
    return _affine_up(absolute, slope, slope * tiny), _affine_up(
        absolute, gamma * slope, (gamma * slope + 1) * tiny
    )


@quiet
def product_upper(a: Array, b: Array) -> Array:
    """Upper bound on the exact product of two matrices with entries ``>= 0``, shapes (n, k) and (k, m)."""
    return _from_absolute(a @ b, a.shape[-1])[0]


@quiet
def matmul_enclosure(
    a: Array, b: Array, a_error: Array | None = None, b_error: Array | None = None
) -> tuple[Array, Array]:
    """``(C, E)`` with ``|A B - C| <= E`` elementwise, for every order of summation and with or without FMA.

    Args:
        a: shape (n, k).
        b: shape (k, m), or (k,) for a matrix-vector product.
        a_error: optional, same shape, ``>= 0``: ``A`` may be any matrix with ``|A - a| <= a_error``.
        b_error: the same for ``B``.

    Raises:
        CheckError: for NaN, infinity or overflow.
    """
    a, b = finite(a, "left factor"), finite(b, "right factor")
    value = a @ b
    absolute_a, absolute_b = np.abs(a), np.abs(b)
    error = _from_absolute(absolute_a @ absolute_b, a.shape[-1])[1]
    if b_error is not None:
        error = add_up(error, product_upper(absolute_a, finite(b_error, "error bound")))
        absolute_b = add_up(absolute_b, b_error)
    if a_error is not None:
        error = add_up(error, product_upper(finite(a_error, "error bound"), absolute_b))
    return _result(value, error, "a matrix product")


@quiet
def dot(x: Array, y: Array) -> tuple[Any, Any]:
    """``(value, error)`` with ``|<x, y> - value| <= error`` along the last axis (arrays broadcast)."""
    x, y = finite(x, "left factor"), finite(y, "right factor")
    products = x * y
    k = products.shape[-1]
    value = products.sum(axis=-1)
    return _result(value, _from_absolute(np.abs(products).sum(axis=-1), k)[1], "a dot product")


@quiet
def sum_enclosure(x: Array, axis: int | None = None, x_error: Array | None = None) -> tuple[Any, Any]:
    """``(value, error)`` with ``|sum - value| <= error``; ``x_error`` bounds the error of each term.

    A full sum (``axis=None``) is the correctly rounded `math.fsum`, so its error is one ulp; along an axis it
    is NumPy's sum with the a-priori bound.
    """
    x = finite(x, "a summand")
    if axis is None:
        value = _fsum(x.ravel())
        error: Any = sub_up(next_up(abs(value)), abs(value))
        if x_error is not None:
            error = add_up(error, next_up(_fsum(finite(x_error, "error bound").ravel())))
    else:
        value, k = x.sum(axis=axis), x.shape[axis]
        error = _from_absolute(np.abs(x).sum(axis=axis), k)[1]
        if x_error is not None:
            error = add_up(error, _from_absolute(finite(x_error, "error bound").sum(axis=axis), k)[0])
    return _result(np.asarray(value)[()], np.asarray(error)[()], "a sum")


def _fsum(values: Array) -> float:
    try:
        return math.fsum(values)
    except OverflowError as error:
        raise CheckError("arithmetic", "a sum overflows float64") from error


def sum_bounds(x: Array) -> tuple[float, float]:
    """(lower, upper) bounds on the sum of all entries, one ulp around the correctly rounded sum."""
    value = _fsum(finite(x, "a summand").ravel())
    return float(next_down(value)), float(next_up(value))


def mean_bounds(x: Array) -> tuple[float, float]:
    """(lower, upper) bounds on the mean of all entries (at least one)."""
    low, high = sum_bounds(x)
    count = np.asarray(x).size
    if count == 0:
        raise CheckError("arithmetic", "the mean of no numbers is not defined")
    return float(div_down(low, count)), float(div_up(high, count))


# --- norms -------------------------------------------------------------------------------------------------


@quiet
def _scaled_squares(x: Any, axis: int | None) -> tuple[Array, Array, int]:
    """``x`` over a power of two near its largest entry (so that nothing overflows), squared and summed."""
    x = finite(x, "a vector")
    x = x.ravel() if axis is None else np.moveaxis(x, axis, -1)
    if x.shape[-1] == 0:
        raise CheckError("arithmetic", "the norm of an empty vector was asked for")
    exponent = np.frexp(np.abs(x).max(axis=-1))[1]
    # Two half steps, because ldexp by more than 1023 would overflow its own scale for subnormal vectors.
    half = exponent // 2
    scaled = np.ldexp(np.ldexp(x, -half[..., None]), -(exponent - half)[..., None])
    return (scaled * scaled).sum(axis=-1), exponent, x.shape[-1]


@quiet
def norm_upper(x: Any, axis: int | None = None) -> Any:
    """Upper bound on the Euclidean norm of all entries (``axis=None``: Frobenius) or along an axis."""
    squares, exponent, k = _scaled_squares(x, axis)
    # Scaling may round entries that become subnormal: at most 2^-1074 each, far below the 2^-1022 per term
    # allowed.
    total = _from_absolute(squares, k)[0]
    value = next_up(np.ldexp(next_up(np.sqrt(total)), exponent))
    return _result(value, value, "a norm")[0][()]


@quiet
def norm_lower(x: Any, axis: int | None = None) -> Any:
    """Lower bound on the Euclidean norm, same conventions as `norm_upper`."""
    squares, exponent, k = _scaled_squares(x, axis)
    total = sub_down(squares, _from_absolute(squares, k)[1])
    value = next_down(np.ldexp(next_down(np.sqrt(np.maximum(total, 0.0))), exponent))
    return np.maximum(value, 0.0)[()]


@quiet
def lambda_max_upper(c: Array, c_error: Array | None = None) -> float:
    """Upper bound on the largest eigenvalue of every symmetric matrix within ``c_error`` of ``c``.

    With any approximate eigenvectors ``Q`` and values ``l``: ``C = Q diag(l) Q' + rest`` gives
    ``lambda_max <= max(l, 0) ||Q||^2 + ||rest||_F`` and ``||Q||^2 <= 1 + ||Q'Q - I||_F`` (Weyl).
    """
    c = finite(c, "a symmetric matrix")
    values, q = np.linalg.eigh((c + c.T) / 2)
    scaled = q * values
    product, error = matmul_enclosure(
        scaled, q.T, a_error=next_up(np.abs(scaled)) * 2.0**-52 + SMALLEST_NORMAL
    )
    # Entries of rest = C - Q diag(l) Q'; the subtraction rounds by at most one ulp of its result.
    rest = add_up(next_up(np.abs(c - product)), error)
    if c_error is not None:
        rest = add_up(rest, finite(c_error, "error bound"))
    gram, gram_error = matmul_enclosure(q.T, q)
    defect = add_up(next_up(np.abs(gram - np.eye(len(c)))), gram_error)
    top = mul_up(max(float(values.max()), 0.0), add_up(1.0, norm_upper(defect)))
    return float(add_up(top, norm_upper(rest)))
