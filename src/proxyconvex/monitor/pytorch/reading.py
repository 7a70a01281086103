"""Scalars of passes over memory, read later and many at once: one transfer from each device for a whole block of steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor

from .distributed import scalar


@final
class Reading:
    """The sums of one pass as tensors of one element.

    Attributes:
        values: the tensors.
        places: where each is added, row after row of the sums.
        rows: number of rows (ways of sharding).
        width: columns of a row.
    """

    __slots__ = ("places", "rows", "values", "width")

    def __init__(self, rows: int, width: int) -> None:
        self.rows, self.width = rows, width
        self.values: list[Tensor] = []
        self.places: list[int] = []

    def sums(self, numbers: Iterator[float]) -> list[list[float]]:
        """The sums, shape [rows, width], from the values as numbers; the pieces are added in float64."""
        out = [0.0] * (self.rows * self.width)
        for place, x in zip(self.places, numbers, strict=False):
            out[place] += x
        w = self.width
        return [out] if self.rows == 1 else [out[i : i + w] for i in range(0, len(out), w)]


def read(reading: Reading) -> list[list[float]]:
    """The sums of a single reading, now."""
    return reading.sums(iter(numbers(reading.values)))


def numbers(values: Sequence[Any]) -> list[float]:
    """Floats of many tensors of one element (numbers stay as they are), with one transfer for each device and type."""
    out = [0.0] * len(values)
    groups: dict[Any, list[int]] = {}
    for k, x in enumerate(values):
        if type(x) is Tensor and not x.dim():
            groups.setdefault((x.device, x.dtype), []).append(k)
        else:
            out[k] = scalar(x)
    for places in groups.values():
        for k, x in zip(places, torch.stack([values[k] for k in places]).tolist(), strict=True):
            out[k] = x
    return out
