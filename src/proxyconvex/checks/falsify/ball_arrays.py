"""Arrays of balls, and the truth value of a comparison that they leave open."""

from __future__ import annotations

from typing import Any

import flint
import numpy as np

UNDECIDED = -1


def balls(values: Any) -> np.ndarray:
    """Exact balls of float64 numbers (an array of dtype object)."""
    array = np.asarray(values)
    out = np.empty(array.shape, dtype=object)
    out.ravel()[:] = [flint.arb(x) for x in array.ravel().tolist()]
    return out
