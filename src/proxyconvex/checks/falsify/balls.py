"""A JAX formula evaluated in ball arithmetic: every operation on real numbers, every rounding covered.

The formula is traced to a jaxpr, and its operations are carried out on `flint.arb` balls, outside XLA: the result is an
enclosure of the value of the formula over the real numbers at an exact point. A comparison that the balls cannot decide
keeps both branches. An operation without an enclosure raises `Unsupported`; nothing is guessed.

Values are NumPy arrays: of dtype object (balls) for real numbers, of an integer dtype for integers, of dtype bool for
decided and int8 (1, 0 and `UNDECIDED`) for partly undecided truth values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flint
import numpy as np

PRECISION = 160
MOST_OPERATIONS = 60_000_000
UNDECIDED = -1
_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
)


class Unsupported(Exception):
    """An operation that has no enclosure here, or a computation that is too long for ball arithmetic."""


def balls(values: Any) -> np.ndarray:
    """Exact balls of float64 numbers (an array of dtype object)."""
    array = np.asarray(values)
    out = np.empty(array.shape, dtype=object)
    out.ravel()[:] = [flint.arb(x) for x in array.ravel().tolist()]
    return out


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


class Machine:
    """Interpreter of jaxprs over balls; counts scalar operations."""

    def __init__(self) -> None:
        self.operations = 0

    def run(self, jaxpr: Any, constants: Any, arguments: list[np.ndarray]) -> list[np.ndarray]:
        """Values of the outputs of a jaxpr."""
        values: dict[Any, np.ndarray] = {}
        values.update(zip(jaxpr.constvars, (entering(c) for c in constants), strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> np.ndarray:
            return entering(atom.val) if hasattr(atom, "val") else values[atom]

        for equation in jaxpr.eqns:
            results = self.step(equation, [read(a) for a in equation.invars])
            for variable, result in zip(equation.outvars, results, strict=True):
                values[variable] = np.asarray(result).reshape(variable.aval.shape)
        return [read(a) for a in jaxpr.outvars]

    def step(self, equation: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """One equation."""
        from .primitives import ELEMENTWISE, MOVES, STRUCTURED, on_integers

        name, parameters = equation.primitive.name, equation.params
        self.operations += sum(v.aval.size for v in equation.outvars) + sum(x.size for x in inputs)
        if name == "dot_general":
            self.operations += _products(equation)
        if self.operations > MOST_OPERATIONS:
            raise Unsupported(f"more than {MOST_OPERATIONS} operations are too many for ball arithmetic")
        if name in _CALLS:
            inner = parameters.get("jaxpr", parameters.get("call_jaxpr", parameters.get("fun_jaxpr")))
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
        if name in ("scan", "while", "cond"):
            return getattr(self, "_" + name)(parameters, inputs)
        if name in ("ne", "eq") and equation.invars[0] is equation.invars[1] and _finite(inputs[0]):
            return [np.full(inputs[0].shape, name == "eq")]  # the test for NaN: a finite number equals itself
        if all(x.dtype != object and x.dtype != np.int8 for x in inputs):
            return on_integers(equation, inputs)
        if name in MOVES:
            return MOVES[name](equation, inputs)
        if name in STRUCTURED:
            return [STRUCTURED[name](equation, *inputs)]
        if name in ELEMENTWISE:
            return [ELEMENTWISE[name](*np.broadcast_arrays(*inputs))]
        raise Unsupported(f"the operation {name!r} has no enclosure")

    def _cond(self, parameters: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        branches, index = parameters["branches"], inputs[0]
        if index.dtype == object or UNDECIDED in np.asarray(index):
            raise Unsupported("a branch that rounding leaves undecided")
        chosen = branches[min(max(int(index), 0), len(branches) - 1)]
        return self.run(chosen.jaxpr, chosen.consts, inputs[1:])

    def _while(self, parameters: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        test, body = parameters["cond_jaxpr"], parameters["body_jaxpr"]
        c, b = parameters["cond_nconsts"], parameters["body_nconsts"]
        test_constants, body_constants, state = inputs[:c], inputs[c : c + b], inputs[c + b :]
        while True:
            (go,) = self.run(test.jaxpr, test.consts, [*test_constants, *state])
            if go.dtype != bool:
                raise Unsupported("a loop whose end rounding leaves undecided")
            if not go:
                return state
            state = self.run(body.jaxpr, body.consts, [*body_constants, *state])

    def _scan(self, parameters: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        body, length = parameters["jaxpr"], parameters["length"]
        c, k = parameters["num_consts"], parameters["num_carry"]
        constants, state, slices = inputs[:c], inputs[c : c + k], inputs[c + k :]
        order = range(length - 1, -1, -1) if parameters["reverse"] else range(length)
        columns: dict[int, list[np.ndarray]] = {}
        for i in order:
            results = self.run(
                body.jaxpr, body.consts, [*constants, *state, *(np.asarray(s[i]) for s in slices)]
            )
            state, columns[i] = results[:k], results[k:]
        if not columns:
            raise Unsupported("a scan over nothing")
        return state + [np.stack(parts) for parts in zip(*(columns[i] for i in range(length)), strict=True)]


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


def _products(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return int(equation.outvars[0].aval.size * np.prod([shape[i] for i in contracted], dtype=float))
