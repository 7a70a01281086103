"""Carrying out the operations of a JAX formula outside XLA, on values of any kind: control flow, calls and moves of entries.

`Machine` is the interpreter of jaxprs that the ball arithmetic of `falsify.balls` and the translation of `translate.machine` share.
Values are NumPy arrays: of dtype object for what stands for real numbers, of an integer dtype for integers, of dtype bool for decided
truth values. Moves (gather, slice, transpose, pad, ...) are carried out by JAX on *positions* and then applied to the entries, so no
indexing rule is restated here.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

CALLS = (
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
    """An operation that an interpreter does not cover, or a computation that is too long for it."""


class Machine(abc.ABC):
    """Interpreter of jaxprs; counts scalar operations.

    Attributes:
        most: how many scalar operations are carried out at most.
        doing: what it does, for the error when there are too many.
    """

    most: int
    doing: str

    def __init__(self) -> None:
        self.operations = 0

    @abc.abstractmethod
    def entering(self, value: Any) -> np.ndarray:
        """A constant of the formula as a value."""

    @abc.abstractmethod
    def apply(self, equation: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """One equation that is neither a call nor control flow."""

    def run(self, jaxpr: Any, constants: Any, arguments: list[np.ndarray]) -> list[np.ndarray]:
        """Values of the outputs of a jaxpr."""
        values: dict[Any, np.ndarray] = {}
        values.update(zip(jaxpr.constvars, (self.entering(c) for c in constants), strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> np.ndarray:
            return self.entering(atom.val) if hasattr(atom, "val") else values[atom]

        for equation in jaxpr.eqns:
            results = self.step(equation, [read(a) for a in equation.invars])
            for variable, result in zip(equation.outvars, results, strict=True):
                values[variable] = np.asarray(result).reshape(variable.aval.shape)
        return [read(a) for a in jaxpr.outvars]

    def step(self, equation: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """One equation."""
        name, parameters = equation.primitive.name, equation.params
        self.operations += sum(v.aval.size for v in equation.outvars) + sum(x.size for x in inputs)
        if name == "dot_general":
            self.operations += _products(equation)
        if self.operations > self.most:
            raise Unsupported(f"more than {self.most} operations are too many for {self.doing}")
        if name in CALLS:
            inner = parameters.get("jaxpr", parameters.get("call_jaxpr", parameters.get("fun_jaxpr")))
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
        if name in ("scan", "while", "cond"):
            return getattr(self, "_" + name)(parameters, inputs)
        return self.apply(equation, inputs)

    def _cond(self, parameters: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        branches, index = parameters["branches"], inputs[0]
        decided = index.dtype == bool or (
            np.issubdtype(index.dtype, np.integer) and index.dtype != np.int8  # int8: partly undecided
        )
        if not decided:
            raise Unsupported("a branch that is left undecided")
        chosen = branches[min(max(int(index), 0), len(branches) - 1)]
        return self.run(chosen.jaxpr, chosen.consts, inputs[1:])

    def _while(self, parameters: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        test, body = parameters["cond_jaxpr"], parameters["body_jaxpr"]
        c, b = parameters["cond_nconsts"], parameters["body_nconsts"]
        test_constants, body_constants, state = inputs[:c], inputs[c : c + b], inputs[c + b :]
        while True:
            (go,) = self.run(test.jaxpr, test.consts, [*test_constants, *state])
            if go.dtype != bool:
                raise Unsupported("a loop whose end is left undecided")
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


def _products(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return int(equation.outvars[0].aval.size * np.prod([shape[i] for i in contracted], dtype=float))


def is_real(equation: Any, variable: Any = None) -> bool:
    """Whether an output of an equation (the first by default) holds real numbers."""
    return np.issubdtype((variable or equation.outvars[0]).aval.dtype, np.floating)


def on_integers(
    equation: Any, inputs: list[np.ndarray], whole: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """An operation on integers and truth values alone, by JAX; ``whole`` makes exact numbers of integers where the result is real."""
    if equation.primitive.name == "convert_element_type" and is_real(equation):
        return [whole(inputs[0].astype(int))]
    if equation.primitive.name == "iota" and is_real(equation):
        return [whole(np.asarray(equation.primitive.bind(**equation.params)).astype(int))]
    if any(is_real(equation, v) for v in equation.outvars):
        raise Unsupported(f"{equation.primitive.name!r} makes real numbers out of integers")
    results = equation.primitive.bind(*inputs, **equation.params)
    return [np.asarray(r) for r in (results if equation.primitive.multiple_results else [results])]


def matrices(
    x: np.ndarray, batch: Any, contracted: Any, contracted_last: bool
) -> tuple[np.ndarray, list[int], list[int]]:
    """An operand of ``dot_general`` as a stack of matrices, with the sizes of its batch and free axes."""
    free = [i for i in range(x.ndim) if i not in batch and i not in contracted]
    shape, sizes = [x.shape[i] for i in batch], [x.shape[i] for i in free]
    k = int(np.prod([x.shape[i] for i in contracted], dtype=int))
    n, m = int(np.prod(shape, dtype=int)), int(np.prod(sizes, dtype=int))
    if contracted_last:
        return x.transpose((*batch, *free, *contracted)).reshape(n, m, k), shape, sizes
    return x.transpose((*batch, *contracted, *free)).reshape(n, k, m), shape, sizes


def dot_general(
    equation: Any,
    a: np.ndarray,
    b: np.ndarray,
    product: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """``dot_general`` by products of matrices of entries."""
    (ca, cb), (ba, bb) = equation.params["dimension_numbers"]
    left, shape, free_a = matrices(a, ba, ca, contracted_last=True)
    right, _, free_b = matrices(b, bb, cb, contracted_last=False)
    products = [product(p, q) for p, q in zip(left, right, strict=True)]
    out = np.empty((len(products), *(products[0].shape if products else (0, 0))), dtype=object)
    for i, p in enumerate(products):
        out[i] = p
    return out.reshape((*shape, *free_a, *free_b))


def reduced(equation: Any, x: np.ndarray, combine: Callable[[Any, Any], Any], start: Any) -> np.ndarray:
    """A reduction over axes, entry by entry; ``start`` for no entries (None: refused)."""
    axes = tuple(equation.params["axes"])
    rest = [i for i in range(x.ndim) if i not in axes]
    flat = x.transpose((*rest, *axes)).reshape((*(x.shape[i] for i in rest), -1))
    if flat.shape[-1] == 0:
        if start is None:
            raise Unsupported("the largest of no numbers")
        return np.full(flat.shape[:-1], start, dtype=object)
    return np.asarray(np.frompyfunc(combine, 2, 1).reduce(flat, axis=-1), dtype=object)


def accumulated(equation: Any, x: np.ndarray, combine: Callable[[Any, Any], Any]) -> np.ndarray:
    """A cumulative operation along an axis, entry by entry."""
    axis = equation.params["axis"]
    flipped = np.flip(x, axis) if equation.params["reverse"] else x
    total = np.asarray(np.frompyfunc(combine, 2, 1).accumulate(flipped, axis=axis), dtype=object)
    return np.flip(total, axis) if equation.params["reverse"] else total


def scatter_add(equation: Any, operand: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """``operand`` plus the updates; where each goes is read off the transpose, which gathers positions."""
    import jax
    import jax.numpy as jnp

    if indices.dtype == object:
        raise Unsupported("positions that are not integers")

    def scatter(u: Any) -> Any:
        return equation.primitive.bind(jnp.zeros(operand.shape), jnp.asarray(indices), u, **equation.params)

    _, transpose = jax.vjp(scatter, jnp.zeros(updates.shape))
    (places,) = transpose(jnp.arange(1.0, operand.size + 1).reshape(operand.shape))
    out = operand.copy().reshape(-1)
    for place, update in zip(np.asarray(places).ravel().astype(int).tolist(), updates.ravel(), strict=True):
        if place:  # 0: an update outside the array, which is dropped
            out[place - 1] = out[place - 1] + update
    return out.reshape(operand.shape)


# --- moves of entries ----------------------------------------------------------------------------------------------


def _move(real: int) -> Callable[[Any, list[np.ndarray]], list[np.ndarray]]:
    """A primitive whose first ``real`` operands (all, if 0) hold entries to be moved and whose others are integers."""

    def apply(equation: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        count = real or len(inputs)
        if any(x.dtype == object for x in inputs[count:]):
            raise Unsupported("positions that are not integers")
        entries, positions, start = [], [], 0
        for x in inputs[:count]:
            entries.append(x.ravel())
            positions.append(np.arange(start, start + x.size, dtype=np.int64).reshape(x.shape))
            start += x.size
        pool = np.concatenate(entries)
        results = equation.primitive.bind(*positions, *inputs[count:], **equation.params)
        out = []
        for r in results if equation.primitive.multiple_results else [results]:
            where = np.asarray(r)
            if where.size and where.min() < 0:
                raise Unsupported("an index outside its array")
            out.append(pool[where])
        return out

    return apply


MOVES: dict[str, Callable[[Any, list[np.ndarray]], list[np.ndarray]]] = {
    **{name: _move(0) for name in ("reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "rev", "slice", "concatenate", "pad", "split")},
    **{name: _move(1) for name in ("gather", "dynamic_slice")},
    "dynamic_update_slice": _move(2),
}  # fmt: skip
