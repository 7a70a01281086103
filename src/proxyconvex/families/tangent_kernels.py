"""Gram matrices of tangent features ``K_ij = <grad N(w; x_i), grad N(w; x_j)>``, without ever holding the whole Jacobian.

* Any JAX model: blocks of Jacobian rows that fit a memory limit (`blockwise`).
* Dense networks: ``K = sum_l (delta_l delta_l^T) * (h_{l-1} h_{l-1}^T)`` entry by entry, because the gradient in a layer is an outer
  product (`layerwise`). This costs n^2 times the *widths* instead of n^2 times the number of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from ..core.errors import InvalidInputError
from .dense import Features

MEMORY = 2**28
"""Bytes that two blocks of Jacobian rows may take together."""


def layerwise(
    features: Features, output: int = 0, only: Sequence[int] | None = None, other: int | None = None
) -> Float[np.ndarray, "n n"]:
    """Gram matrix of a dense network's tangent features.

    Args:
        features: from `DenseNetwork.features`.
        output: which output c.
        only: hidden layers to count, numbered from 0; all by default.
        other: a second output c' for the off-diagonal block ``<grad N_c, grad N_c'>``; c by default.
    """
    n = len(features.outputs)
    total = np.zeros((n, n))
    left, right = features.signals[output], features.signals[output if other is None else other]
    for k, h in enumerate(features.inputs):
        if only is None or k in only:
            total += (left[k] @ right[k].T) * (h @ h.T)
    return total


def mean_over_outputs(features: Features, only: Sequence[int] | None = None) -> Float[np.ndarray, "n n"]:
    """``(1/C) sum_c K_cc``: the kernel all outputs share in wide networks."""
    count = len(features.signals)
    return sum(layerwise(features, c, only) for c in range(count)) / count  # type: ignore[return-value]


def blockwise(
    apply: Callable[[Any, Any], Any],
    params: Any,
    x: Any,
    weights: Float[np.ndarray, "n c"] | None = None,
    memory: int = MEMORY,
) -> Float[np.ndarray, "n n"]:
    """Gram matrix of ``grad sum_c weights_ic N_c(x_i)`` for any JAX model, in float64.

    Args:
        apply: ``(params, x) -> outputs`` of shape (n,) or (n, C), rows independent of each other.
        params: a pytree of arrays.
        x: inputs; the first axis counts the n rows.
        weights: which combination of outputs to differentiate, shape (n, C); the single output by default.
        memory: bytes for Jacobian rows; at least two rows must fit.

    Returns:
        The symmetric matrix, shape (n, n), as NumPy.
    """
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.asarray(a, float), params))
        x = jnp.asarray(x)
        n, p = x.shape[0], flat.size
        rows = min(n, memory // (16 * p))
        if rows < 1:
            raise InvalidInputError("memory", memory, f"at least {16 * p} bytes for {p:,} parameters")
        combination = jnp.ones((n, 1)) if weights is None else jnp.asarray(weights)

        def scalar(w: Any, row: Any, c: Any) -> Any:
            return jnp.dot(jnp.reshape(apply(unravel(w), row[None]), -1), c)

        jacobian = jax.jit(jax.vmap(jax.grad(scalar), (None, 0, 0)))
        starts = range(0, n, rows)
        out = np.zeros((n, n))
        for i in starts:
            a = jacobian(flat, x[i : i + rows], combination[i : i + rows])
            for j in (s for s in starts if s <= i):
                b = a if i == j else jacobian(flat, x[j : j + rows], combination[j : j + rows])
                out[i : i + rows, j : j + rows] = np.asarray(a @ b.T)
        lower = np.tril(out)
        return lower + np.tril(lower, -1).T


def full_jacobian(apply: Callable[[Any, Any], Any], params: Any, x: Any) -> Float[np.ndarray, "n n"]:
    """The same matrix from the whole Jacobian at once: the yardstick of the benchmark and an oracle for tests."""
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.asarray(a, float), params))
        jacobian = jax.jacrev(lambda w: apply(unravel(w), jnp.asarray(x)))(flat)
        return np.asarray(jacobian @ jacobian.T)


def rows_that_fit(parameters: int, memory: int = MEMORY) -> int:
    """Rows of a Jacobian block under the memory limit."""
    return math.floor(memory / (16 * parameters))
