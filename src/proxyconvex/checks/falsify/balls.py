"""A JAX formula evaluated in ball arithmetic: every operation on real numbers, every rounding covered.

The formula is traced to a jaxpr, and its operations are carried out on `flint.arb` balls, outside XLA: the result is an
enclosure of the value of the formula over the real numbers at an exact point. A comparison that the balls cannot decide
keeps both branches. An operation without an enclosure raises `Unsupported`; nothing is guessed.

Values are NumPy arrays: of dtype object (balls) for real numbers, of an integer dtype for integers, of dtype bool for
decided and int8 (1, 0 and `ball_arrays.UNDECIDED`) for partly undecided truth values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flint
import numpy as np

from .. import jaxprs
from ..jaxprs import Unsupported
from .ball_arrays import balls
from .primitives import ELEMENTWISE, MOVES, STRUCTURED

PRECISION = 160
MOST_OPERATIONS = 60_000_000


def enclose(function: Callable[..., Any], *points: Any) -> flint.arb:
    """Enclosure of a scalar JAX function at exact float64 points.

    Args:
        function: traceable by JAX; its value is one number.
        points: arrays or pytrees of float64 arrays; every float counts as the binary fraction it is.

    Returns:
        A ball that contains the value of the formula over the real numbers.

    Raises:
        Unsupported: if an operation is not covered, or there are more than `MOST_OPERATIONS` scalar operations.
    """
    import jax

    with jax.enable_x64(True):
        closed = jax.make_jaxpr(function)(*points)
        leaves = [np.asarray(x, float) for x in jax.tree.leaves(points)]
        machine = Machine()
        try:
            with precision(PRECISION):
                (result,) = machine.run(closed.jaxpr, closed.consts, [balls(x) for x in leaves])
        except (TypeError, ValueError, NotImplementedError, KeyError) as error:
            # A number type or a parameter that this interpreter does not know: no enclosure, never a guess.
            raise Unsupported(f"{type(error).__name__}: {error}") from error
    if result.size != 1 or result.dtype != object:
        raise Unsupported("the formula does not return one real number")
    return result.ravel()[0]


def upper_float(ball: flint.arb) -> float:
    """The smallest float64 found not below the upper end of a ball; NaN for a ball that is not finite."""
    if not ball.is_finite():
        return float("nan")
    value = float(ball.upper().mid())
    return value if ball <= value else float(np.nextafter(value, np.inf))


class precision:
    """Scope with so many bits, restoring flint's setting afterwards."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def __enter__(self) -> None:
        self.before = flint.ctx.prec
        flint.ctx.prec = self.bits

    def __exit__(self, *details: object) -> None:
        flint.ctx.prec = self.before


class Machine(jaxprs.Machine):
    """Interpreter of jaxprs over balls."""

    doing = "ball arithmetic"

    @property
    def most(self) -> int:  # type: ignore[override]
        """Of scalar operations."""
        return MOST_OPERATIONS

    def entering(self, value: Any) -> np.ndarray:
        """Floats become exact balls; integers and truth values stay."""
        return entering(value)

    def apply(self, equation: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """One operation."""
        name = equation.primitive.name
        if name in ("ne", "eq") and equation.invars[0] is equation.invars[1] and _finite(inputs[0]):
            return [np.full(inputs[0].shape, name == "eq")]  # the test for NaN: a finite number equals itself
        if all(x.dtype != object and x.dtype != np.int8 for x in inputs):
            return jaxprs.on_integers(equation, inputs, balls)
        if name in MOVES:
            return MOVES[name](equation, inputs)
        if name in STRUCTURED:
            return [STRUCTURED[name](equation, *inputs)]
        if name in ELEMENTWISE:
            return [ELEMENTWISE[name](*np.broadcast_arrays(*inputs))]
        raise Unsupported(f"the operation {name!r} has no enclosure")


def entering(value: Any) -> np.ndarray:
    """A constant of the formula: floats become exact balls, integers and truth values stay."""
    array = np.asarray(value)
    if array.dtype == np.int8:
        raise Unsupported("integers of eight bits")  # that type stands for truth values here
    if array.dtype == object or array.dtype == bool or np.issubdtype(array.dtype, np.integer):
        return array
    if np.issubdtype(array.dtype, np.floating):
        return balls(array.astype(float))
    raise Unsupported(f"numbers of type {array.dtype}")


@functools.cache
def _finite_test() -> Any:
    return np.frompyfunc(lambda x: x.is_finite(), 1, 1)


def _finite(x: np.ndarray) -> bool:
    return x.dtype != object or bool(np.all(_finite_test()(x)))
