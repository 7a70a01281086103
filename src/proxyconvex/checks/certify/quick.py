"""Lower bounds of expressions on very many boxes, at a small part of the cost of `program`.

Two things are saved. *What depends on one coordinate only* (function values ``s(a)``, their derivatives, their values at the centre) is enclosed once for
each of the few intervals that occur in that coordinate (`lattice`), with outward rounding as ever, and looked up for a box.
*The rest*, mostly ring operations in several coordinates, is computed rounded to nearest, and one number bounds all rounding errors together
(`quantities`). Other operations in several coordinates (quotients, divided differences, functions of sums), and what they depend on, are enclosed
with outward rounding.

Where a bound is so close to zero that the errors might decide, `program` looks at the box.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .lattice import Axes, Boxes
from .program import Program
from .quantities import Unbounded
from .registers import Plan
from .writer import AT_HI, AT_LO, HI, LO, MID, RADIUS, SLOPE_HI, SLOPE_LO, Values, Writer, called

Array = np.ndarray
COARSE = 2.0**-20
"""Errors beyond this share of the largest value on the region would leave most boxes to `program` anyway."""


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on boxes.

    Attributes:
        low: rigorous lower bounds.
        close: a box whose ``low`` is negative by less than this has to be looked at more closely.
    """

    low: Array
    close: float

    def undecided(self) -> Array:
        """The boxes that have to be looked at more closely."""
        return np.flatnonzero(~(self.low >= 0) & ~(self.low < -self.close))


class Quick:
    """Code for the lower ends of the outputs of a program, and for the mean-value form of a single output.

    Args:
        program: the expressions.
        lo: lower ends of the whole region, shape (1, d); bounds hold for boxes inside it.
        hi: upper ends.

    Attributes:
        natural: code of the lower ends, with a margin each; None where no bound on the errors is finite, or it is `COARSE`.
        centred: code of the mean-value form: its lower end, the value at the centre, and for each coordinate ``|gradient| times radius``; None
            likewise, or where there are several outputs.
    """

    def __init__(self, program: Program, lo: Array, hi: Array) -> None:
        self.program = program
        self.natural: Plan | None = None
        self.centred: Plan | None = None
        self.margins: list[float] = []
        self.lower_margin = self.upper_margin = math.nan
        self.moved: tuple[int, ...] = ()
        with np.errstate(all="ignore"):
            build = Writer(program, lo, hi)
            self.leaves, self.ranges = build.programs, build.ranges
            try:
                values, outputs = build.quantities()
            except Unbounded:
                return
            self.margins = [q.margin for q in outputs]
            if any(q.margin > COARSE * q.size + 2.0**-900 for q in outputs):
                return
            self.natural = build.code.plan([q.lo for q in outputs])
            if len(outputs) == 1:
                with contextlib.suppress(Unbounded):
                    self._centre(build, values)
        self.wanted = self.natural.columns | (self.centred.columns if self.centred is not None else set())

    def _centre(self, build: Writer, values: Values) -> None:
        """``g(x) >= g(c) - sum_i |G_i| r_i`` where ``|x_i - c_i| <= r_i``."""
        ring, steps = build.ring, []
        for i, g in sorted(build.slopes(values, self.program.outputs[0]).items()):
            steps.append((i, ring.mul(ring.abs(g), build.radius(i))))
        if not steps:
            raise Unbounded
        value = build.quantities(centre=True)[1][0]
        low = ring.sub(value, functools.reduce(ring.add, (step for _, step in steps)))
        self.lower_margin, self.upper_margin = low.margin, value.margin
        if low.margin > COARSE * low.size or low.margin > COARSE * value.size:
            raise Unbounded
        self.moved = tuple(i for i, _ in steps)
        self.centred = build.code.plan([low.lo, value.hi, *(step.hi for _, step in steps)])

    # --- running ---

    def lower(self, boxes: Boxes) -> Bounds:
        """Lower bounds by the natural extension; of several outputs, the least."""
        assert self.natural is not None
        with np.errstate(all="ignore"):
            ends = self._run(self.natural, boxes)
            low = None
            for end, m in zip(ends, self.margins, strict=True):
                low = end - m if low is None else np.minimum(low, end - m)
        assert low is not None
        return Bounds(np.broadcast_to(low, len(boxes)), 3 * max(self.margins))

    def mean_value(self, boxes: Boxes) -> tuple[Bounds, Array, Array]:
        """Lower bounds by the mean-value form, upper bounds at the centres, and how much each coordinate matters, shape (d, N)."""
        assert self.centred is not None
        with np.errstate(all="ignore"):
            low, middle, *parts = self._run(self.centred, boxes)
            score = np.zeros((len(boxes.ids), len(boxes)), np.float32)
            for i, part in zip(self.moved, parts, strict=True):
                score[i] = part
            return Bounds(low - self.lower_margin, 3 * self.lower_margin), middle + self.upper_margin, score

    def _run(self, plan: Plan, boxes: Boxes) -> list[Any]:
        numbers = [x.astype(np.intp) for x in boxes.ids]
        return plan.run(len(boxes), numbers, self._columns(boxes.axes), self._call)

    def _call(self, what: tuple[Any, ...], args: list[Any], n: int) -> tuple[Array, ...]:
        ends = [np.full(n, x) if isinstance(x, float) else x for x in args]
        pairs = list(zip(ends[0::2], ends[1::2], strict=True))
        return called(self.program, what, pairs, n)

    # --- tables ---

    def _columns(self, axes: Axes) -> dict[Any, Array]:
        """What the code looks up, for all intervals there are."""
        rows, columns = axes.tables.setdefault(id(self), (self, [0] * len(axes.lo), {}))[1:]
        for k, low in enumerate(axes.lo):
            if rows[k] < len(low):
                for key, column in self.table(k, low[rows[k] :], axes.hi[k][rows[k] :]).items():
                    columns[key] = np.concatenate([columns[key], column]) if key in columns else column
                rows[k] = len(low)
        return columns

    def table(self, k: int, lo: Array, hi: Array) -> dict[Any, Array]:
        """The columns of coordinate ``k`` for some intervals."""
        found: dict[Any, Array] = {}
        kinds = {key for c, key in self.wanted if c == k}
        if (RADIUS, 0) in kinds:
            centre = lo + 0.5 * (hi - lo)
            found[k, (RADIUS, 0)] = np.maximum(hi - centre, centre - lo) * (1 + 2.0**-51)
        leaves = self.leaves[k]
        if leaves is not None:
            for key, column in table(leaves, lo, hi, self.ranges, k, kinds).items():
                found[k, key] = column
        return found


def table(
    leaves: Program, lo: Array, hi: Array, ranges: dict[Any, Any], k: int, kinds: set[Any]
) -> dict[Any, Array]:
    """Enclosures of functions of one coordinate on intervals, cut down to their enclosures on the whole range."""
    found: dict[Any, Array] = {}
    low, high = lo[:, None], hi[:, None]
    with np.errstate(all="ignore"):
        if any(kind in (SLOPE_LO, SLOPE_HI) for kind, _ in kinds):
            values, slopes = leaves.gradients(low, high)
        else:
            values, slopes = leaves.values(low, high), [{} for _ in leaves.outputs]
        at = [None] * len(values)
        if any(kind in (MID, AT_LO, AT_HI) for kind, _ in kinds):
            centre = low + 0.5 * (high - low)
            at = leaves.values(centre, centre)  # type: ignore[assignment]
        for j, (value, slope, middle) in enumerate(zip(values, slopes, at, strict=True)):
            a, b = ranges[k, j, "value"]
            found[LO, j], found[HI, j] = np.fmax(value[0], a), np.fmin(value[1], b)
            if slope:
                c, d = ranges[k, j, "slope"]
                found[SLOPE_LO, j], found[SLOPE_HI, j] = np.fmax(slope[0][0], c), np.fmin(slope[0][1], d)
            if middle is not None:
                limit = ranges[k, j, "thin"]
                p, q = np.fmax(middle[0], a), np.fmin(middle[1], b)
                found[AT_LO, j], found[AT_HI, j] = p, q
                found[MID, j] = np.where(q - p <= limit, 0.5 * (p + q), np.nan)
    return {key: np.broadcast_to(found[key], len(lo)) for key in kinds if key in found}
