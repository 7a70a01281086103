"""From the stored rows to the features a promise speaks of, bit for bit, and the digest that names the rows.

Every step is an elementwise float64 operation or a `math.fsum`, both correctly rounded, so every machine gets
the same bits. `proxyconvex` has its own, independently written copy; a test compares the two.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import Any

import numpy as np

from .errors import CheckError

STEP = "preprocessing"
_LITTLE = np.dtype("<f8")


def float_bytes(array: np.ndarray) -> bytes:
    """The entries in C order as little-endian float64, the form in which arrays are hashed."""
    return np.ascontiguousarray(array, dtype=_LITTLE).tobytes()


def data_digest(raw: np.ndarray, targets: np.ndarray) -> str:
    """SHA-256 (hex) of the shape, the rows and the targets; ``raw`` has shape (n, d), ``targets`` (n,)."""
    n, d = raw.shape
    digest = hashlib.sha256(b"proxyconvex-data-1\n" + f"{n} {d}\n".encode())
    digest.update(float_bytes(raw))
    digest.update(float_bytes(targets))
    return digest.hexdigest()


def exact_sum(values: np.ndarray, what: str) -> float:
    """The correctly rounded sum."""
    try:
        return math.fsum(values.tolist())
    except (OverflowError, ValueError) as error:  # ValueError: infinities of both signs
        raise CheckError(STEP, f"the sum over {what} overflows float64") from error


def _centre_and_scale(x: np.ndarray, center: bool, scale: str) -> np.ndarray:
    """Steps 2 and 3; the deviation is always taken around the mean, whether or not the mean is removed."""
    n = len(x)
    means = np.array([exact_sum(column, "a column") / n for column in x.T])
    deviations = x - means
    result = deviations if center else x
    if scale == "none":
        return result
    spread = np.array(
        [np.sqrt(exact_sum(column * column, "a column's squares") / n) for column in deviations.T]
    )
    if not np.all(spread > 0):
        where = int(np.flatnonzero(~(spread > 0))[0])
        raise CheckError(STEP, f"kept column number {where} is constant and cannot be scaled")
    return result / spread


def _unit_rows(x: np.ndarray) -> np.ndarray:
    norms = np.array([np.sqrt(exact_sum(row * row, "a row's squares")) for row in x])
    result = x.copy()
    positive = norms > 0
    result[positive] = x[positive] / norms[positive, None]
    return result


def apply(raw: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """The features, shape (n, d'), from the stored rows, shape (n, d).

    Args:
        raw: stored rows.
        settings: ``kept_columns``, ``center``, ``scale`` (``"none"`` or ``"column"``), ``divide_by``,
            ``unit_norm``, ``bias``.

    Raises:
        CheckError: if a column is out of range, a scaled column is constant or the result is not finite.
    """
    kept = settings["kept_columns"]
    if not kept or any(b <= a for a, b in itertools.pairwise(kept)):
        raise CheckError(STEP, "kept_columns is not an increasing list with at least one column")
    if kept[0] < 0 or kept[-1] >= raw.shape[1]:
        raise CheckError(STEP, f"kept_columns names a column outside 0..{raw.shape[1] - 1}")
    with np.errstate(all="ignore"):
        x = raw[:, kept] / settings["divide_by"]
        x = _centre_and_scale(x, settings["center"], settings["scale"])
        if settings["unit_norm"]:
            x = _unit_rows(x)
        if settings["bias"] > 0:
            x = np.concatenate([x, np.full((len(x), 1), settings["bias"])], axis=1)
            if settings["unit_norm"]:
                x = _unit_rows(x)
    if not np.isfinite(x).all():
        raise CheckError(STEP, "the preprocessed features hold a NaN or an infinity")
    return np.ascontiguousarray(x)
