"""Compilation of the descent's functions: what varies between calls is traced, the rest of the problem is not.

`equinox.filter_jit` would do the same; its work in Python at every call takes as long as a thousand steps of a small
problem, and a run makes two calls a chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

# A step on a mini-batch is two products of a few million operations. XLA's default library for them takes 1.3 times
# as long as Eigen on such sizes in float64 (on full batches it is the faster one); an empty list selects Eigen.
EIGEN_PRODUCTS: dict[str, Any] = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def options() -> dict[str, Any]:
    """`EIGEN_PRODUCTS` where this version of XLA knows the option, else none; asked once, at the first compilation."""
    try:
        jax.jit(lambda x: x, compiler_options=EIGEN_PRODUCTS)(0.0)
    except jax.errors.JaxRuntimeError:
        return {}
    return EIGEN_PRODUCTS


class Compiled:
    """A compiled function of a problem and arrays, set up at the first call (so that importing compiles nothing).

    Arrays are traced. Everything else in a problem is part of the compiled code, and another value compiles anew.

    Args:
        fun: a pure JAX function; its arguments are pytrees.
        chosen: gives the compiler options; none by default.
    """

    def __init__(self, fun: Callable[..., Any], chosen: Callable[[], dict[str, Any]] | None = None) -> None:
        self.fun, self.chosen = fun, chosen
        functools.update_wrapper(self, fun)

    @functools.cached_property
    def _cached(self) -> Any:
        """The `jax.jit` behind it, with its cache of compilations."""

        def traced(fixed: tuple[Any, ...], *arrays: Any) -> Any:
            structure, rest = fixed
            given = iter(arrays)
            return self.fun(
                *jax.tree.unflatten(structure, [next(given) if a is None else a[0] for a in rest])
            )

        return jax.jit(
            traced, static_argnums=0, compiler_options=None if self.chosen is None else self.chosen()
        )

    def __call__(self, *args: Any) -> Any:
        """Call the compiled function."""
        leaves, structure = jax.tree.flatten(args)
        rest = tuple(None if isinstance(a, jax.Array | np.ndarray) else (a,) for a in leaves)
        return self._cached((structure, rest), *(a for a, b in zip(leaves, rest, strict=True) if b is None))


def one_function(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A loop that the CPU compiler turns into one function, for bodies of small operations without matrix products.

    XLA starts every operation of a loop body on its own, for 20 to 50 ns each: as long as a whole product of rows with 64
    entries. Loops over less than a kilobyte of data it compiles into one function by itself, marked by these attributes;
    here the mark is set for a loop that reads more. The numbers are the same. A compiler that does not know the mark ignores it.

    Args:
        fun: a function of arrays (pytrees), called while another one is traced; its first result is one of floats.

    Returns:
        A function of the same arguments and results.
    """

    def used(*args: Any) -> Any:
        out, structure = jax.tree.flatten(fun(*args))
        return jax.tree.unflatten(structure, [out[0] + _nothing(jax.tree.leaves(args)), *out[1:]])

    return lambda *args: set_xla_metadata(jax.jit(used)(*args), xla_cpu_small_call="true", inlineable="false")


def _nothing(arrays: list[Any]) -> Any:
    """Zero, from the first entry of every array: XLA ends the process where an argument of such a function is not used.

    That the loop does not use one may come out in XLA's optimisation only (the rows drawn, of data with a single row).
    """
    total = jnp.zeros(())
    for a in map(jnp.asarray, arrays):
        first = a.reshape(-1)[0]
        # An equality of floats cannot be folded, as there might be a NaN; and of one nothing but that is used.
        number = first == first if jnp.issubdtype(a.dtype, jnp.floating) else first
        total += 0.0 * number.astype(total.dtype)
    return total


def small_products(fun: Callable[..., Any]) -> Compiled:
    """`Compiled` with `options`."""
    return Compiled(fun, options)
