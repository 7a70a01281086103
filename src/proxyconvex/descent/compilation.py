"""Compilation of the loop of SGD with the XLA options that suit its small matrix products."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

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


class SmallProducts:
    """`equinox.filter_jit` with `options`, set up at the first call (so that importing compiles nothing).

    Args:
        fun: a pure JAX function.
    """

    def __init__(self, fun: Callable[..., Any]) -> None:
        self.fun = fun
        functools.update_wrapper(self, fun)

    @functools.cached_property
    def _jitted(self) -> Any:
        return eqx.filter_jit(self.fun, compiler_options=options())

    def __call__(self, *args: Any) -> Any:
        """Call the compiled function."""
        return self._jitted(*args)

    @property
    def _cached(self) -> Any:
        """The cache of compilations, as `equinox.filter_jit` has it."""
        return self._jitted._cached
