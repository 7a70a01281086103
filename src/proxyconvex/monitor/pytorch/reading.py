"""Scalars of passes over memory, read later and many at once: one transfer from each device for a whole block of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        found: the values as numbers, once they are read.
    """

    __slots__ = ("found", "places", "rows", "values", "width")

    def __init__(self, rows: int, width: int) -> None:
        self.rows, self.width = rows, width
        self.values: list[Tensor] = []
        self.places: list[int] = []
        self.found: list[float] | None = None

    def sums(self) -> list[list[float]]:
        """The sums, shape [rows, width]; the pieces are added in float64."""
        found = numbers(self.values) if self.found is None else self.found
        out = [0.0] * (self.rows * self.width)
        for place, x in zip(self.places, found, strict=True):
            out[place] += x
        w = self.width
        return [out] if self.rows == 1 else [out[i : i + w] for i in range(0, len(out), w)]


def read(readings: Iterable[Reading | None]) -> None:
    """Read all of them at once."""
    waiting = [r for r in readings if r is not None and r.found is None]
    found = numbers([x for r in waiting for x in r.values])
    start = 0
    for r in waiting:
        r.found = found[start : start + len(r.values)]
        start += len(r.values)


def numbers(values: Sequence[Any]) -> list[float]:
    """Floats of many tensors of one element (numbers stay as they are), with one transfer for each other device and type."""
    out = [0.0] * len(values)
    groups: dict[Any, list[int]] = {}
    for k, x in enumerate(values):
        if type(x) is not Tensor or x.dim():
            out[k] = scalar(x)
        elif x.is_cpu:
            out[k] = x.item()
        else:
            groups.setdefault((x.device, x.dtype), []).append(k)
    for places in groups.values():
        for k, x in zip(places, torch.stack([values[k] for k in places]).tolist(), strict=True):
            out[k] = x
    return out
