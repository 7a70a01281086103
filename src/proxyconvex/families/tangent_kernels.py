"""Gram matrices of tangent features ``K_ij = <grad N(w; x_i), grad N(w; x_j)>``, without ever holding the whole Jacobian.

* Any JAX model: blocks of Jacobian rows that fit a memory limit (`blockwise`).
* Dense networks: ``K = sum_l (delta_l delta_l^T) * (h_{l-1} h_{l-1}^T)`` entry by entry, because the gradient in a layer is an outer
  product (`layerwise`). This costs n^2 times the *widths* instead of n^2 times the number of parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from ..core.errors import InvalidInputError
from .dense import Features

MEMORY = 2**30
"""Bytes that the rows of a Jacobian may take at one time."""


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
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "n n"]:
    """Gram matrix of ``grad sum_c weights_ic N_c(x_i)`` for any JAX model, in float64.

    Of the rows of the Jacobian, a large block is kept while the rows after it pass by in small pieces, so the rows are computed about
    ``n / (2 kept)`` times each and the products are ``n^2`` times the number of parameters.

    Args:
        apply: ``(params, x) -> outputs`` of shape (n,) or (n, C), rows independent of each other.
        params: a pytree of arrays.
        x: inputs; the first axis counts the n rows.
        weights: which combination of outputs to differentiate, shape (n, C); the single output by default.
        memory: bytes for Jacobian rows, at least four of them; what the model itself needs for a piece of rows comes on top.
        progress: called after every piece with the entries of the matrix that are done and their number.

    Returns:
        The symmetric matrix, shape (n, n), as NumPy.
    """
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.asarray(a, float), params))
        x = jnp.asarray(x)
        n, p = x.shape[0], flat.size
        kept, piece = block_sizes(n, p, memory)
        combination = jnp.ones((n, 1)) if weights is None else jnp.asarray(weights, float)

        def scalar(w: Any, row: Any, c: Any) -> Any:
            return jnp.dot(jnp.reshape(apply(unravel(w), row[None]), -1), c)

        # The buffers are donated and written in place: fresh pages for every block would cost several times the gradients.
        @partial(jax.jit, donate_argnums=0)
        def fill(buffer: Any, w: Any, rows: Any, c: Any, at: Any) -> Any:
            return lax.dynamic_update_slice(
                buffer, jax.vmap(jax.grad(scalar), (None, 0, 0))(w, rows, c), (at, 0)
            )

        def gradients(buffer: Any, start: int, at: int = 0) -> Any:
            # The last piece is filled up with copies of the last row, so that every piece has one shape and compiles once.
            chosen = np.minimum(np.arange(start, start + piece), n - 1)
            return fill(buffer, flat, x[chosen], combination[chosen], at)

        # Both factors are contracted over their second axis as they lie: no transposed copy.
        product = jax.jit(lambda a, b: lax.dot_general(a, b, (((1,), (1,)), ((), ()))))
        block = jnp.zeros((kept, p))
        passing = jnp.zeros((piece, p)) if kept < n else None
        out, done = np.zeros((n, n)), 0
        for i in range(0, n, kept):
            for at in range(0, kept, piece):
                at = min(at, kept - piece)
                block = gradients(block, i + at, at)
            for j in (i, *range(i + kept, n, piece)):
                if j > i:
                    passing = gradients(passing, j)
                values = np.asarray(product(block, block if j == i else passing))
                rows, columns = min(kept, n - i), min(values.shape[1], n - j)
                out[i : i + rows, j : j + columns] = values[:rows, :columns]
                done += rows * columns * (1 if j == i else 2)
                if progress is not None:
                    progress(done, n * n)
        upper = np.triu(out)
        return upper + np.triu(upper, 1).T


def block_sizes(n: int, parameters: int, memory: int = MEMORY) -> tuple[int, int]:
    """Rows to keep and rows per passing piece: ``kept + 3 piece`` rows fit the memory (a piece, and two more while it is computed).

    Args:
        n: rows of the Jacobian.
        parameters: its columns.
        memory: bytes.
    """
    fitting = memory // (8 * parameters)
    if fitting < 4:
        raise InvalidInputError(
            "memory", memory, f"at least {32 * parameters} bytes for {parameters:,} parameters"
        )
    piece = max(1, min(n, fitting // 12))
    kept = min(n, fitting - 3 * piece)
    kept = -(-n // -(-n // kept))  # blocks of equal size, as many as before
    return kept, min(piece, kept)


def full_jacobian(apply: Callable[[Any, Any], Any], params: Any, x: Any) -> Float[np.ndarray, "n n"]:
    """The same matrix from the whole Jacobian at once: the yardstick of the benchmark and an oracle for tests."""
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.asarray(a, float), params))
        jacobian = jax.jacrev(lambda w: apply(unravel(w), jnp.asarray(x)))(flat)
        return np.asarray(jacobian @ jacobian.T)
