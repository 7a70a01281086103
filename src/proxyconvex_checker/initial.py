"""Initial weights, rebuilt from the recorded seed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .errors import CheckError
from .preprocessing import float_bytes

STEP = "initial weights"


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


def array_digest(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's entries as little-endian float64 in C order."""
    return hashlib.sha256(float_bytes(array)).hexdigest()
