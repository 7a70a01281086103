"""Initial weights, rebuilt from the recorded seed (and, for a spectral start, from the rows), bit for bit."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from .errors import CheckError
from .preprocessing import exact_sum, float_bytes

STEP = "initial weights"
SWEEPS = 128
"""Power iterations of a spectral start."""


def normal(family: dict[str, Any], d: int) -> np.ndarray:
    """``width`` standard normal rows times ``init_scale``, shape (width, d)."""
    rng = np.random.Generator(np.random.PCG64(family["seed"]))
    return rng.standard_normal((family["width"], d)) * family["init_scale"]


def paired_normal(family: dict[str, Any], d: int) -> np.ndarray:
    """``width / 2`` normal rows stacked twice, shape (width, d).

    The copies carry opposite output signs, so the initial network is zero.

    Raises:
        CheckError: for an odd width.
    """
    if family["width"] % 2:
        raise CheckError(STEP, f"a network of paired neurons has an even width, not {family['width']}")
    half = normal({**family, "width": family["width"] // 2}, d)
    return np.concatenate([half, half])


def second_layer(family: dict[str, Any], d: int) -> np.ndarray:
    """A two-layer linear network: hidden weights zero, the second layer (last column) normal; shape (width, d + 1)."""
    weights = np.zeros((family["width"], d + 1))
    weights[:, -1] = normal(family, 1)[:, 0]
    return weights


def spectral(
    family: dict[str, Any], x: np.ndarray, weights: np.ndarray, square: float | None = None
) -> np.ndarray:
    """``init_scale`` times a leading eigenvector of ``(1/n) sum weight x x^T`` by power iteration from the seed, shape (1, d).

    Its squared norm before the scale is ``square``, by default its Rayleigh quotient. Every sum is exactly rounded.

    Args:
        family: the certificate's ``family`` fields.
        x: rows, shape (n, d).
        weights: one per row, shape (n,).
        square: squared norm of the eigenvector.

    Raises:
        CheckError: if a sum overflows or the matrix is zero.
    """
    weighted, d = x * weights[:, None], x.shape[1]
    matrix = np.empty((d, d))
    for i in range(d):
        for j in range(i, d):
            matrix[i, j] = matrix[j, i] = exact_sum(weighted[:, i] * x[:, j], "moments of the rows") / len(x)
    q = normal({**family, "width": 1, "init_scale": 1.0}, d)[0]
    value = 0.0
    for _ in range(SWEEPS):
        q = q / np.sqrt(exact_sum(q * q, "a vector"))
        image = np.array([exact_sum(row * q, "a row of moments") for row in matrix])
        value = exact_sum(q * image, "a Rayleigh quotient")
        if not value > 0:
            raise CheckError(STEP, "the second moments of the rows vanish: there is no leading direction")
        previous, q = q, image
    length = np.sqrt(value if square is None else square) * family["init_scale"]
    return (previous * length)[None]


def leading_direction(family: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`spectral` for rank-one factorisation: of the second moments of the rows; ``y`` is not used."""
    del y
    return spectral(family, x, np.ones(len(x)))


def from_intensities(family: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`spectral` for phase retrieval: rows weighted by y, squared norm ``mean y`` (right for standard normal rows).

    Raises:
        CheckError: if the mean of y is not positive.
    """
    mean = exact_sum(y, "the targets") / len(y)
    if not mean > 0:
        raise CheckError(STEP, "the mean of the targets is not positive")
    return spectral(family, x, y, mean)


def dense_shapes(family: dict[str, Any], d: int) -> list[tuple[int, int]]:
    """Shapes of the hidden weight matrices of a dense network."""
    hidden = family["hidden"]
    return list(zip(hidden, [d, *hidden[:-1]], strict=True))


def dense_size(family: dict[str, Any], d: int) -> int:
    """Number of trained weights of a dense network."""
    return sum(rows * columns for rows, columns in dense_shapes(family, d))


def dense(family: dict[str, Any], d: int) -> np.ndarray:
    """Hidden weights ``N(0, gain / rows)``, one layer after the other, flat; a paired last layer consists of two equal halves.

    Raises:
        CheckError: for an odd number of neurons in the last hidden layer.
    """
    shapes = dense_shapes(family, d)
    if shapes[-1][0] % 2:
        raise CheckError(STEP, f"the last hidden layer has an even number of neurons, not {shapes[-1][0]}")
    rng = np.random.Generator(np.random.PCG64(family["seed"]))
    blocks = []
    for k, (rows, columns) in enumerate(shapes):
        copies = 2 if family["paired"] and k == len(shapes) - 1 else 1
        drawn = rng.standard_normal((rows // copies, columns)) * math.sqrt(family["gain"] / rows)
        blocks += [drawn.reshape(-1)] * copies
    return np.concatenate(blocks)


def dense_head(family: dict[str, Any]) -> np.ndarray:
    """Output weights of a dense network with one output, shape (m,): signs or standard normal, times the output scale."""
    m = family["hidden"][-1]
    count = m // 2 if family["paired"] else m
    if family["head"] == "gaussian":
        rng = np.random.Generator(np.random.PCG64([family["seed"], 1]))
        a = rng.standard_normal(count)
    elif family["paired"]:
        a = np.ones(count)
    else:
        a = np.repeat([1.0, -1.0], (count - count // 2, count // 2))
    return family["output_scale"] * (np.concatenate([a, -a]) if family["paired"] else a)


def dense_layers(family: dict[str, Any], w: np.ndarray, d: int) -> list[np.ndarray]:
    """The weight matrices in a flat vector."""
    out, start = [], 0
    for rows, columns in dense_shapes(family, d):
        out.append(np.ascontiguousarray(w[start : start + rows * columns].reshape(rows, columns)))
        start += rows * columns
    return out


def array_digest(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's entries as little-endian float64 in C order."""
    return hashlib.sha256(float_bytes(array)).hexdigest()
