"""Certified upper bounds on spectral norms and on quadratic forms with entries >= 0; never a plain power iteration.

A power iteration stops *below* the truth, so here it only proposes; what is proved is a matrix inequality.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CheckError
from ..rounding import (
    Array,
    add_up,
    div_up,
    finite,
    lambda_max_upper,
    matmul_enclosure,
    mul_up,
    next_up,
    norm_upper,
    product_upper,
    sub_up,
)

EIGEN_LIMIT = 512
"""Gram matrices up to this size get their upper bound from approximate eigenvectors, larger ones from a factorisation."""
_TRIES = 60


def spectral_norm_upper(w: Any) -> float:
    """Upper bound on the largest singular value of a matrix, shape (p, q); relative excess about 1e-9, or 1e-3 for large ones.

    ``||W||^2 = lambda_max(G)`` with G the smaller of the two Gram matrices, enclosed with its rounding errors. Up to `EIGEN_LIMIT`
    by `lambda_max_upper`; above, by one factorisation: for *any* matrix F, ``l I - G = F'F - D`` gives
    ``lambda_max(G) <= l + ||D||_F``. F is the floating-point Cholesky factor of ``l I - G``, where the proposal ``l`` is a power
    iteration's value raised until the factorisation succeeds; ``||D||_F`` is computed with outward rounding, so nothing is assumed
    about the factorisation.

    Raises:
        CheckError: for NaN, infinity or overflow.
    """
    w = finite(w, "a weight matrix")
    if w.ndim != 2 or not w.size:
        raise CheckError("arithmetic", f"a weight matrix of shape {w.shape} has no spectral norm")
    largest = float(np.abs(w).max())
    if largest == 0:
        return 0.0
    if min(w.shape) == 1:
        return float(norm_upper(w))
    # A power of two, so that the scaling is exact (but for subnormal results, which the product's error covers).
    exponent = int(np.frexp(largest)[1])
    w = np.ldexp(w, -exponent)
    gram, error = matmul_enclosure(w.T, w) if w.shape[1] <= w.shape[0] else matmul_enclosure(w, w.T)
    root = next_up(np.sqrt(next_up(eigenvalue_upper(gram, error))))
    return float(min(next_up(np.ldexp(root, exponent)), norm_upper(np.ldexp(w, exponent))))


def eigenvalue_upper(gram: Array, error: Array) -> float:
    """Upper bound ``>= 0`` on the largest eigenvalue of every positive semi-definite matrix within ``error`` of ``gram``.

    From approximate eigenvectors up to `EIGEN_LIMIT`, from one factorisation above (see `spectral_norm_upper`).
    """
    return lambda_max_upper(gram, error) if len(gram) <= EIGEN_LIMIT else _factorised(gram, error)


def _factorised(gram: Array, error: Array) -> float:
    """Upper bound on the largest eigenvalue of every symmetric matrix within ``error`` of ``gram``."""
    gram = (gram + gram.T) / 2
    excess, level = 1e-3, _power(gram)
    for _ in range(_TRIES):
        proposal = level * (1 + excess)
        shifted = -gram
        shifted[np.diag_indices(len(gram))] += proposal
        try:
            factor = np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            excess *= 2
            continue
        product, product_error = matmul_enclosure(factor, factor.T)
        # gram was symmetrised and shifted: one rounding each, of numbers no larger than twice the proposal and |gram|.
        defect = add_up(next_up(np.abs(product - shifted)), product_error)
        defect = add_up(defect, add_up(error, error.T))
        defect = add_up(defect, np.abs(gram) * 2.0**-50)
        defect[np.diag_indices(len(gram))] += next_up(abs(proposal) * 2.0**-50)
        return float(add_up(proposal, norm_upper(next_up(defect))))
    raise CheckError("arithmetic", "no upper bound on a spectral norm was found")


def _power(gram: Array) -> float:
    """About the largest eigenvalue (only a proposal)."""
    x = np.ones(len(gram)) + np.arange(len(gram)) / len(gram)
    value = 0.0
    for _ in range(60):
        x = gram @ x
        value = float(np.linalg.norm(x))
        x /= value
    return value


def quadratic_upper(m: Array, values: Array | None = None) -> Array:
    """Upper bounds on ``sup {u' M u}`` for symmetric M with entries >= 0, shape (n, k, k).

    Args:
        m: upper bounds on the entries, shape (n, k, k).
        values: shape (k,): the supremum over ``|u_j| <= values_j``. Left out: over the unit ball, that is ``lambda_max``.

    By Collatz and Wielandt ``lambda_max(M) <= max_j (M x)_j / x_j`` for every positive x; x is close to an eigenvector.
    """
    if values is not None:
        u = np.broadcast_to(values, m.shape[:-1])
        inner = product_upper(np.ascontiguousarray(m), np.ascontiguousarray(u[..., None]))[..., 0]
        return _sum_up(mul_up(inner, u))
    known = np.isfinite(m).all(axis=(1, 2))
    if not known.all():
        return np.where(known, quadratic_upper(np.where(known[:, None, None], m, 0.0)), np.inf)
    frobenius = np.asarray(norm_upper(m.reshape(len(m), -1), axis=1))
    x = np.abs(np.linalg.eigh(m)[1][..., -1]) + 1e-12
    ratio = div_up(product_upper(m, x[..., None])[..., 0], x)
    return np.minimum(ratio.max(axis=1), frobenius)


def _sum_up(x: Array) -> Array:
    """Upper bound on the sum of entries >= 0 along the last axis."""
    return product_upper(np.ascontiguousarray(x), np.ones((x.shape[-1], 1)))[..., 0]


def distance_upper(a: Array, b: Array) -> float:
    """Upper bound on ``||a - b||_F``."""
    gap = np.maximum(sub_up(a, b), sub_up(b, a))
    return float(norm_upper(np.maximum(gap, 0.0)))
