"""Run an `Expression` in floats, NumPy, JAX, Fractions, rational intervals, balls, or any type with the same methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from . import numbers
from .errors import InvalidInputError
from .expressions import Expression, topological
from .intervals import Interval, exact

Table = dict[str, Callable[..., Any]]

_RING: Table = {
    "neg": lambda x: -x,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, n: x**n,
}


def _array_table(xp: Any) -> Table:
    """Functions for NumPy or JAX arrays; stable for arguments of any size."""

    def sigmoid(t: Any) -> Any:
        small = xp.exp(-abs(t))
        return xp.where(t >= 0, 1.0, small) / (1.0 + small)

    def bump(t: Any) -> Any:
        small = xp.exp(-abs(t))
        return small / ((1.0 + small) * (1.0 + small))

    return {
        **_RING,
        "exp": xp.exp, "log": xp.log, "log1p": xp.log1p, "sqrt": xp.sqrt, "tanh": xp.tanh, "abs": abs,
        "sigmoid": sigmoid, "bump": bump, "max": xp.maximum, "min": xp.minimum,
        "softplus": lambda t: xp.maximum(t, 0.0) + xp.log1p(xp.exp(-abs(t))),
        "relu": lambda t: xp.where(t > 0, t, 0.0),
        "step": lambda t: xp.where(t > 0, 1.0, 0.0),
        "select": lambda t, a, b: xp.where(t > 0, a, b),
    }  # fmt: skip


def _compare(x: Any) -> Any:
    """``x > 0`` as 0, 1 or, for an interval that contains both, ``[0, 1]``."""
    low, high = numbers.lower(x), numbers.upper(x)
    return Fraction(1) if low > 0 else Fraction(0) if high <= 0 else Interval(0, 1)


def _exact_select(x: Any, a: Any, b: Any) -> Any:
    """``a`` where ``x > 0``, else ``b``; both where ``x`` does not decide."""
    low, high = numbers.lower(x), numbers.upper(x)
    if low > 0 or high <= 0:
        return a if low > 0 else b
    return Interval(min(numbers.lower(a), numbers.lower(b)), max(numbers.upper(a), numbers.upper(b)))


def _exact_power(x: Any, n: int) -> Any:
    return x**n if isinstance(x, Fraction) else Interval(numbers.power(x, n))


def _exact_sigmoid(t: Any) -> Any:
    """``1 / (1 + exp(-t))``: increasing, so the ends give the ends."""
    return 1 / (1 + numbers.exp(-t))


def _exact_bump(t: Any) -> Any:
    """Even and decreasing in ``|t|``."""
    size = abs(t)
    low, high = numbers.lower(size), numbers.upper(size)
    ends = [_exact_sigmoid(v) * _exact_sigmoid(-v) for v in (high, low)]
    return Interval(numbers.lower(ends[0]), numbers.upper(ends[1]))


def _exact_tanh(t: Any) -> Any:
    return 1 - 2 / (numbers.exp(2 * t) + 1)


_EXACT: Table = {
    **_RING,
    "pow": _exact_power,
    "exp": numbers.exp, "log": numbers.log, "sqrt": numbers.sqrt, "abs": abs,
    "log1p": lambda t: numbers.log(1 + t),
    "tanh": _exact_tanh, "sigmoid": _exact_sigmoid, "bump": _exact_bump,
    "softplus": lambda t: numbers.log(1 + numbers.exp(t)),
    "relu": lambda t: numbers.maximum(t, Fraction(0)),
    "step": _compare,
    "select": _exact_select,
    "max": numbers.maximum, "min": numbers.minimum,
}  # fmt: skip


def _ball_table() -> Table:
    """python-flint balls (`flint.arb`): every result contains the true value."""
    import flint

    one = flint.arb(1)

    def step(t: Any) -> Any:
        return one if t > 0 else flint.arb(0) if t <= 0 else flint.arb(0.5, 0.5)

    def softplus(t: Any) -> Any:
        # Of exp(-|t|), so that nothing overflows; the sign must be known for that.
        return t + (-t).exp().log1p() if t > 0 else t.exp().log1p()

    return {
        **_RING,
        "exp": lambda t: t.exp(), "log": lambda t: t.log(), "log1p": lambda t: t.log1p(), "sqrt": lambda t: t.sqrt(),
        "tanh": lambda t: t.tanh(), "abs": abs,
        "sigmoid": lambda t: one / (one + (-t).exp()),
        "bump": lambda t: one / (one + (-t).exp()) / (one + t.exp()),
        "softplus": softplus,
        "relu": lambda t: t.max(flint.arb(0)),
        "step": step,
        "select": lambda t, a, b: a if t > 0 else b if t <= 0 else a.union(b),
        "max": lambda x, y: x.max(y), "min": lambda x, y: x.min(y),
    }  # fmt: skip


def kind_of(values: list[Any]) -> str:
    """The arithmetic these values ask for: "exact", "ball", "jax" or "array" (floats and NumPy)."""
    if any(type(v).__module__.startswith("flint") for v in values):
        return "ball"
    if any(isinstance(v, Fraction | Interval) for v in values):
        return "exact"
    if any(not isinstance(v, int | float | np.ndarray | np.generic) for v in values):
        if not all(hasattr(v, "dtype") or isinstance(v, int | float) for v in values):
            wrong = next(v for v in values if not hasattr(v, "dtype") and not isinstance(v, int | float))
            raise InvalidInputError(
                "value", wrong, "floats, NumPy or JAX arrays, Fractions, Intervals or flint.arb balls"
            )
        return "jax"
    return "array"


def _setup(values: list[Any]) -> tuple[Table, Callable[[Any], Any]]:
    """The functions of an arithmetic and the conversion of numbers into it."""
    kind = kind_of(values)
    if kind == "exact":
        return _EXACT, exact
    if kind == "array":
        return _array_table(np), lambda c: np.asarray(c, float) if isinstance(c, list) else _number(c)
    if kind == "jax":
        import jax.numpy as jnp

        return _array_table(jnp), _number
    import flint

    def ball(c: Any) -> Any:
        if not isinstance(c, int | float | Fraction):
            return c
        p = Fraction(c)
        return flint.arb(flint.fmpq(p.numerator, p.denominator))

    return _ball_table(), ball


def _number(c: Any) -> Any:
    return float(c) if isinstance(c, Fraction | int) else c


def run(
    expression: Expression, values: Mapping[str, Any], functions: Table, number: Callable[[Any], Any]
) -> Any:
    """Evaluate node by node with the given functions; each distinct node once."""
    done: dict[Expression, Any] = {}
    for node in topological(expression):
        if node.op == "const":
            done[node] = number(node.args[0])
        elif node.op == "var":
            done[node] = values[node.args[0]]
        else:
            done[node] = functions[node.op](*(done[x] if isinstance(x, Expression) else x for x in node.args))
    return done[expression]


def evaluate(expression: Expression, values: Mapping[str, Any]) -> Any:
    """The value at a point, in the arithmetic of the point.

    Python floats give a float; NumPy and JAX arrays broadcast; Fractions give a Fraction while the result is rational
    and an enclosing `Interval` otherwise; `flint.arb` balls give a ball. Numbers of the formula are exact in the last two.
    """
    given = list(values.values())
    functions, number = _setup(given)
    with np.errstate(all="ignore"):
        result = run(expression, {k: number(v) for k, v in values.items()}, functions, number)
    if all(isinstance(v, int | float) for v in given) and given:
        return float(result)
    if isinstance(result, Interval) and result.lo == result.hi:
        return result.lo
    return result
