"""The operations of JAX on balls, by name: elementwise functions, moves of entries, sums and products.

Moves of entries, reductions and products of matrices are those of `checks.jaxprs`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import flint
import numpy as np

from .. import jaxprs
from ..jaxprs import Unsupported
from .ball_arrays import UNDECIDED, balls

arb = flint.arb


def _each(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    ufunc = np.frompyfunc(function, function.__code__.co_argcount, 1)
    return lambda *xs: np.asarray(ufunc(*xs), dtype=object)


# --- truth values: 1, 0 and UNDECIDED ------------------------------------------------------------------------------


def _truth(values: Any) -> np.ndarray:
    """Decided truth values as bool, else int8."""
    array = np.asarray(values).astype(np.int8)
    return array.astype(bool) if not np.any(array == UNDECIDED) else array


def _comparison(yes: Callable[[arb, arb], bool], no: Callable[[arb, arb], bool]) -> Callable[..., np.ndarray]:
    decide = np.frompyfunc(lambda a, b: 1 if yes(a, b) else 0 if no(a, b) else UNDECIDED, 2, 1)
    return lambda a, b: _truth(decide(_real(a), _real(b)))


def _real(x: np.ndarray) -> np.ndarray:
    """Integers beside balls, as balls."""
    return x if x.dtype == object else balls(x.astype(int)).reshape(x.shape)


def _not(a: np.ndarray) -> np.ndarray:
    return _truth(np.where(a == UNDECIDED, UNDECIDED, 1 - a.astype(np.int8)))


def _and(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    p, q = a.astype(np.int8), b.astype(np.int8)
    return _truth(np.where((p == 0) | (q == 0), 0, np.where((p == 1) & (q == 1), 1, UNDECIDED)))


def _or(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _not(_and(_not(a), _not(b)))


def _is_finite(x: np.ndarray) -> np.ndarray:
    return _truth(np.frompyfunc(lambda a: 1 if a.is_finite() else UNDECIDED, 1, 1)(x))


# --- elementwise ---------------------------------------------------------------------------------------------------


def _sign(x: arb) -> arb:
    if x > 0:
        return arb(1)
    if x < 0:
        return arb(-1)
    return arb(0) if x == 0 else arb(0, 1)


def _logistic(x: arb) -> arb:
    # Both forms are the same function; each avoids a huge intermediate on its side.
    return 1 / (1 + (-x).exp()) if x.mid() >= 0 else x.exp() / (1 + x.exp())


def _clamp(low: arb, x: arb, high: arb) -> arb:
    return low.max(x).min(high)


def _power(x: arb, e: Any) -> arb:
    return x ** arb(e)


ELEMENTWISE: dict[str, Callable[..., np.ndarray]] = {
    "add": _each(lambda a, b: a + b),
    "add_any": _each(lambda a, b: a + b),
    "sub": _each(lambda a, b: a - b),
    "mul": _each(lambda a, b: a * b),
    "div": _each(lambda a, b: a / b),
    "neg": _each(lambda a: -a),
    "abs": _each(lambda a: abs(a)),
    "sign": _each(_sign),
    "max": _each(lambda a, b: a.max(b)),
    "min": _each(lambda a, b: a.min(b)),
    "clamp": _each(_clamp),
    "pow": _each(_power),
    "square": _each(lambda a: a * a if not a.contains(0) else a**2),
    "sqrt": _each(lambda a: a.sqrt()),
    "rsqrt": _each(lambda a: a.rsqrt()),
    "floor": _each(lambda a: a.floor()),
    "ceil": _each(lambda a: a.ceil()),
    "cbrt": _each(lambda a: a.root(3) if a >= 0 else -((-a).root(3))),
    "exp": _each(lambda a: a.exp()),
    "exp2": _each(lambda a: arb(2) ** a),
    "expm1": _each(lambda a: a.expm1()),
    "log": _each(lambda a: a.log()),
    "log1p": _each(lambda a: a.log1p()),
    "logistic": _each(_logistic),
    "tanh": _each(lambda a: a.tanh()),
    "sinh": _each(lambda a: a.sinh()),
    "cosh": _each(lambda a: a.cosh()),
    "sin": _each(lambda a: a.sin()),
    "cos": _each(lambda a: a.cos()),
    "tan": _each(lambda a: a.tan()),
    "asin": _each(lambda a: a.asin()),
    "acos": _each(lambda a: a.acos()),
    "atan": _each(lambda a: a.atan()),
    "asinh": _each(lambda a: a.asinh()),
    "acosh": _each(lambda a: a.acosh()),
    "atanh": _each(lambda a: a.atanh()),
    "erf": _each(lambda a: a.erf()),
    "erfc": _each(lambda a: a.erfc()),
    "lgamma": _each(lambda a: a.lgamma()),
    "digamma": _each(lambda a: a.digamma()),
    "lt": _comparison(lambda a, b: a < b, lambda a, b: a >= b),
    "le": _comparison(lambda a, b: a <= b, lambda a, b: a > b),
    "gt": _comparison(lambda a, b: a > b, lambda a, b: a <= b),
    "ge": _comparison(lambda a, b: a >= b, lambda a, b: a < b),
    "eq": _comparison(lambda a, b: a == b, lambda a, b: a != b),
    "ne": _comparison(lambda a, b: a != b, lambda a, b: a == b),
    "not": _not,
    "and": _and,
    "or": _or,
    "is_finite": _is_finite,
    "copy": lambda a: a,
    "copy_p": lambda a: a,
    "stop_gradient": lambda a: a,
    "optimization_barrier": lambda a: a,
}


# --- sums, products, selection, conversion -------------------------------------------------------------------------


def _integer_pow(equation: Any, x: np.ndarray) -> np.ndarray:
    y = equation.params["y"]
    return _each(lambda a: a**y)(x)


def _reduce(combine: Callable[[arb, arb], arb], start: Any) -> Callable[[Any, np.ndarray], np.ndarray]:
    return lambda equation, x: jaxprs.reduced(equation, x, combine, start)


def _truth_reduce(every: bool) -> Callable[[Any, np.ndarray], np.ndarray]:
    def apply(equation: Any, x: np.ndarray) -> np.ndarray:
        axes, v = tuple(equation.params["axes"]), x.astype(np.int8)
        decided = 0 if every else 1
        return _truth(
            np.where(np.any(v == decided, axis=axes), decided, np.where(np.any(v == UNDECIDED, axis=axes), UNDECIDED, 1 - decided))
        )  # fmt: skip

    return apply


def _cumulative(combine: Callable[[arb, arb], arb]) -> Callable[[Any, np.ndarray], np.ndarray]:
    return lambda equation, x: jaxprs.accumulated(equation, x, combine)


def _select(equation: Any, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if any(c.dtype != object for c in cases):
        raise Unsupported("a choice between integers that rounding leaves undecided")
    which = np.broadcast_to(which, cases[0].shape)
    if which.dtype == np.int8:
        pick = np.frompyfunc(lambda w, a, b: a.union(b) if w == UNDECIDED else (b if w else a), 3, 1)
        return np.asarray(pick(which, *cases), dtype=object)
    return np.choose(which.astype(int), cases)


def _convert(equation: Any, x: np.ndarray) -> np.ndarray:
    target = np.dtype(equation.params["new_dtype"])
    if x.dtype == np.int8 and target == np.float64:
        return _each(lambda v: arb(0.5, 0.5) if v == UNDECIDED else arb(int(v)))(x)
    if x.dtype == object and target == np.float64:
        return x
    if x.dtype == object and np.issubdtype(target, np.integer) and all(a.is_integer() for a in x.ravel()):
        whole = np.array([int(float(a.mid())) for a in x.ravel()], dtype=target)  # exact far beyond any index
        return whole.reshape(x.shape)
    raise Unsupported(f"a conversion to {target}, which rounds")


def _dot_general(equation: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return jaxprs.dot_general(equation, _real(a), _real(b), _matrix_product)


def _matrix_product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    m, k, n = p.shape[0], p.shape[1], q.shape[1]
    if not m * k * n:
        return np.full((m, n), arb(0), dtype=object)
    product = flint.arb_mat(m, k, p.ravel().tolist()) * flint.arb_mat(k, n, q.ravel().tolist())
    out = np.empty(m * n, dtype=object)
    out[:] = product.entries()
    return out.reshape(m, n)


def _argument(sign: int) -> Callable[[Any, np.ndarray], np.ndarray]:
    """First position of the largest (sign 1) or smallest entry, where the balls decide it."""

    def first(row: np.ndarray) -> int:
        best = 0
        for i in range(1, row.size):
            if sign * row[i] > sign * row[best]:
                best = i
            elif not sign * row[i] <= sign * row[best]:
                raise Unsupported("the position of an extreme entry that rounding leaves undecided")
        return best

    def apply(equation: Any, x: np.ndarray) -> np.ndarray:
        (axis,) = equation.params["axes"]
        return np.apply_along_axis(first, axis, x).astype(np.int64)

    return apply


def _sort(equation: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Order statistics lie between the sorted lower and the sorted upper ends; other operands need a decided order."""
    axis = equation.params["dimension"]
    if equation.params["num_keys"] != 1 or inputs[0].dtype != object:
        raise Unsupported("a sort by several keys")
    keys = inputs[0]
    middle = np.frompyfunc(lambda a: float(a.mid()), 1, 1)(keys).astype(float)
    order = np.argsort(middle, axis=axis, kind="stable")
    ordered = [np.take_along_axis(x, order, axis) for x in inputs]
    rows = np.moveaxis(ordered[0], axis, -1).reshape(-1, keys.shape[axis])
    if all(a < b or a == b for row in rows for a, b in itertools.pairwise(row)):
        return ordered
    if len(inputs) > 1:
        raise Unsupported("an order that rounding leaves undecided")
    low, high = (np.frompyfunc(f, 1, 1)(keys) for f in (lambda a: a.lower(), lambda a: a.upper()))
    return [np.frompyfunc(lambda a, b: a.union(b), 2, 1)(np.sort(low, axis), np.sort(high, axis))]


STRUCTURED: dict[str, Callable[..., np.ndarray]] = {
    "integer_pow": _integer_pow,
    "reduce_sum": _reduce(lambda a, b: a + b, arb(0)),
    "reduce_prod": _reduce(lambda a, b: a * b, arb(1)),
    "reduce_max": _reduce(lambda a, b: a.max(b), None),
    "reduce_min": _reduce(lambda a, b: a.min(b), None),
    "reduce_and": _truth_reduce(True),
    "reduce_or": _truth_reduce(False),
    "cumsum": _cumulative(lambda a, b: a + b),
    "cumprod": _cumulative(lambda a, b: a * b),
    "cummax": _cumulative(lambda a, b: a.max(b)),
    "cummin": _cumulative(lambda a, b: a.min(b)),
    "select_n": _select,
    "convert_element_type": _convert,
    "dot_general": _dot_general,
    "scatter-add": jaxprs.scatter_add,
    "scatter_add": jaxprs.scatter_add,
    "argmax": _argument(1),
    "argmin": _argument(-1),
}


MOVES: dict[str, Callable[[Any, list[np.ndarray]], list[np.ndarray]]] = {**jaxprs.MOVES, "sort": _sort}
