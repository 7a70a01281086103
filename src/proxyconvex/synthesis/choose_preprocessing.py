"""Choosing among standard preprocessings by the promise each would give, on a share of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ..data import Dataset, Preprocessing, default_preprocessing

COMPARED_ROWS = 500
BIASES = (0.1, 0.3, 1.0)

Worth = Callable[[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]], float]
"""The promise for features and targets; less is better."""


def _ranked(
    dataset: Dataset, candidates: Sequence[Preprocessing], worth: Worth, first: int = 0
) -> list[tuple[float, int, Preprocessing]]:
    """Promise on at most `COMPARED_ROWS` rows, number from ``first`` on, candidate."""
    every = math.ceil(len(dataset.raw) / COMPARED_ROWS)
    return [
        (worth(c.apply(dataset.raw)[::every], dataset.targets[::every]), k, c)
        for k, c in enumerate(candidates, first)
    ]


def cheapest(dataset: Dataset, candidates: Sequence[Preprocessing], worth: Worth) -> Preprocessing:
    """The candidate with the least promise; the first one of equals."""
    return min(_ranked(dataset, candidates, worth))[2]


def scaled_and_biased(dataset: Dataset, worth: Worth) -> Preprocessing:
    """The best of columns scaled or not, then of the bias features."""
    base = default_preprocessing(dataset)
    best = min(_ranked(dataset, [replace(base, scale=scale) for scale in ("none", "column")], worth))
    others = [replace(best[2], bias=bias) for bias in BIASES if bias != best[2].bias]
    return min([best, *_ranked(dataset, others, worth, 2)])[2]
