"""Boxes as products of intervals that are kept once.

Bisection makes few different intervals in one coordinate: at most ``2^(k+1) - 1`` where no box has more than ``k`` bisections of that coordinate above
it, however many boxes there are. They are numbered, and a box is its numbers. What depends on one coordinate only is then computed once for an interval instead of once for
a box (`quick`), and halving a box copies a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


class Axes:
    """The intervals of every coordinate; there are only ever more of them.

    Args:
        lo: for each coordinate, the lower ends.
        hi: the upper ends.
        child: for each interval, the number of its lower half, -1 while it has none; the upper half is the next one.

    Attributes:
        tables: what has been computed about the intervals, by who computed it.
    """

    def __init__(self, lo: list[Array], hi: list[Array], child: list[Array] | None = None) -> None:
        self.lo, self.hi = lo, hi
        self.child = [np.full(len(x), -1, np.int32) for x in lo] if child is None else child
        self.tables: dict[int, Any] = {}
        # Room for more, so that adding a few intervals does not copy all of them.
        self._room = {id(ends): list(ends) for ends in (self.lo, self.hi, self.child)}

    def __reduce__(self) -> tuple[Any, ...]:
        return Axes, (self.lo, self.hi, self.child)

    def sizes(self) -> list[int]:
        """How many intervals each coordinate has."""
        return [len(x) for x in self.lo]

    def since(self, sizes: list[int]) -> tuple[list[Array], list[Array]]:
        """The ends of the intervals that were added since there were so many."""
        lo, hi = ([x[n:] for x, n in zip(ends, sizes, strict=True)] for ends in (self.lo, self.hi))
        return lo, hi

    def extend(self, lo: list[Array], hi: list[Array]) -> None:
        """Add intervals."""
        for k, (low, high) in enumerate(zip(lo, hi, strict=True)):
            self._append(k, low, high)

    def _append(self, k: int, lo: Array, hi: Array) -> None:
        for ends, new in ((self.lo, lo), (self.hi, hi), (self.child, np.full(len(lo), -1, np.int32))):
            n, room = len(ends[k]), self._room[id(ends)]
            if n + len(new) > len(room[k]):
                larger = np.empty(2 * (n + len(new)), new.dtype)
                larger[:n] = ends[k]
                room[k] = larger
            room[k][n : n + len(new)] = new
            ends[k] = room[k][: n + len(new)]

    def halves(self, k: int, ids: Array) -> Array:
        """The numbers of the lower halves of intervals of coordinate ``k``; halves share the midpoint, so nothing is lost."""
        first = self.child[k][ids]
        missing = first < 0
        if missing.any():
            new = np.sort(ids[missing])
            new = new[np.append(True, new[1:] != new[:-1])]  # twice as fast as `numpy.unique`
            n = len(self.lo[k])
            a, b = self.lo[k][new], self.hi[k][new]
            middle = a + 0.5 * (b - a)
            low, high = np.repeat(a, 2), np.repeat(b, 2)
            high[0::2], low[1::2] = middle, middle
            self.child[k][new] = n + 2 * np.arange(len(new), dtype=np.int32)
            self._append(k, low, high)
            first = self.child[k][ids]
        return first


@dataclass(frozen=True)
class Boxes:
    """Some boxes.

    Attributes:
        axes: the intervals.
        ids: numbers of the intervals, shape (d, N), int32.
    """

    axes: Axes
    ids: Array

    @classmethod
    def of(cls, lo: Array, hi: Array) -> Boxes:
        """Boxes given by their corners, shape (N, d)."""
        n, d = lo.shape
        axes = Axes([lo[:, k].copy() for k in range(d)], [hi[:, k].copy() for k in range(d)])
        return cls(axes, np.tile(np.arange(n, dtype=np.int32), (d, 1)))

    def __len__(self) -> int:
        return self.ids.shape[1]

    def part(self, rows: Array | slice) -> Boxes:
        """Some of them."""
        return Boxes(self.axes, self.ids[:, rows] if isinstance(rows, slice) else selected(self.ids, rows))

    @property
    def lo(self) -> Array:
        """Lower corners, shape (N, d)."""
        return np.stack([x[i] for x, i in zip(self.axes.lo, self.ids, strict=True)], axis=1)

    @property
    def hi(self) -> Array:
        """Upper corners, shape (N, d)."""
        return np.stack([x[i] for x, i in zip(self.axes.hi, self.ids, strict=True)], axis=1)

    def corners(self, row: int) -> list[tuple[float, float]]:
        """One box as a list of (lo, hi)."""
        axes = self.axes
        return [(float(axes.lo[k][i]), float(axes.hi[k][i])) for k, i in enumerate(self.ids[:, row])]

    def halved(self, split: Array, out: Array | None = None) -> Boxes:
        """Both halves of every box along its coordinate in ``split``, one after the other.

        Args:
            split: a coordinate for each box.
            out: where the numbers go, shape (d, 2 N).
        """
        ids = np.empty((len(self.ids), 2 * len(self)), np.int32) if out is None else out
        for k, numbers in enumerate(self.ids):
            new, rows = ids[k], np.flatnonzero(split == k)
            new[0::2] = numbers
            new[1::2] = numbers
            if rows.size:
                first = self.axes.halves(k, numbers[rows])
                rows *= 2
                new[rows] = first
                rows += 1
                new[rows] = first + 1
        return Boxes(self.axes, ids)


def compact(some: Sequence[Boxes]) -> list[Boxes]:
    """The same boxes over only the intervals that they use, to be sent elsewhere; all must have the same axes."""
    axes, whole = some[0].axes, np.concatenate([boxes.ids for boxes in some], axis=1)
    lo, hi = [], []
    for k, numbers in enumerate(whole):
        used, whole[k] = np.unique(numbers, return_inverse=True)
        lo.append(axes.lo[k][used])
        hi.append(axes.hi[k][used])
    ends = np.cumsum([len(boxes) for boxes in some])
    fewer = Axes(lo, hi)
    return [Boxes(fewer, ids) for ids in np.split(whole, ends[:-1], axis=1)]


def selected(x: Array, rows: Array) -> Array:
    """Some entries of the last axis; row by row, as NumPy is slow in two dimensions."""
    if x.ndim == 1:
        return x.take(rows, mode="clip")
    out = np.empty((len(x), len(rows)), x.dtype)
    for row, to in zip(x, out, strict=True):
        row.take(rows, out=to, mode="clip")
    return out


def doubled(x: Array, out: Array | None = None) -> Array:
    """Every entry of the last axis twice, one after the other."""
    out = np.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype) if out is None else out
    out[..., 0::2] = x
    out[..., 1::2] = x
    return out


def largest(score: Array) -> Array:
    """The first coordinate with the largest score, one a box, for scores of shape (d, N); `numpy.argmax` is slow on short rows."""
    best, found = score[0].copy(), np.zeros(score.shape[1], np.uint8)
    for k in range(1, len(score)):
        # Numbers only grow, so the maximum remembers the last improvement.
        better = (score[k] > best).view(np.uint8)
        better *= np.uint8(k)
        np.maximum(found, better, out=found)
        np.maximum(best, score[k], out=best)
    return found
