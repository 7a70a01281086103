"""Lower bounds of expressions on very many boxes, at a small part of the cost of `program`.

Two things are saved. *What depends on one coordinate only* (function values ``s(a)``, their derivatives, their values at the centre) is enclosed once for
each of the few intervals that occur in that coordinate (`lattice`), with outward rounding as ever, and looked up for a box.
*The rest*, mostly ring operations in several coordinates, is computed rounded to nearest, and one number bounds all rounding errors together
(`quantities`). Other operations in several coordinates (quotients, divided differences, functions of sums) receive ends moved outward by the errors
so far and are then enclosed as ever, so the errors start at zero again.

Where a bound is so close to zero that the errors might decide, `program` looks at the box.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.expressions import Expression, children
from .lattice import Axes, Boxes
from .program import Program, _Run, derivative
from .quantities import Quantity, Ring, margin
from .registers import Code, Plan

Array = np.ndarray
Slopes = dict[int, Quantity]
LO, HI, MID, SLOPE_LO, SLOPE_HI, RADIUS = range(6)
SAMPLES = 65
"""A value at a centre that is looked up is used where its bounds are at most four times as far apart as at so many points."""
LARGE = 2.0**500


class _Beyond(Exception):
    """No finite bound on the errors, or an operation that is not covered."""


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on boxes.

    Attributes:
        low: rigorous lower bounds.
        close: a box whose ``low`` is negative by less than this has to be looked at more closely.
    """

    low: Array
    close: float


class Quick:
    """Code for the lower ends of the outputs of a program, and for the mean-value form of a single output.

    Args:
        program: the expressions.
        lo: lower ends of the whole region, shape (1, d); bounds hold for boxes inside it.
        hi: upper ends.

    Attributes:
        natural: code of the lower ends, with a margin each; None where no bound on the errors is finite.
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
            build = _Builder(program, lo, hi)
            self.leaves, self.ranges = build.programs, build.ranges
            try:
                outputs = build.quantities(build.value, LO, HI)
            except _Beyond:
                return
            self.margins = [q.margin for q in outputs]
            self.natural = build.code.plan([q.lo for q in outputs])
            if len(outputs) == 1:
                with contextlib.suppress(_Beyond):
                    self._centre(build)
        self.wanted = self.natural.columns | (self.centred.columns if self.centred is not None else set())

    def _centre(self, build: _Builder) -> None:
        """``g(x) >= g(c) - sum_i |G_i| r_i`` where ``|x_i - c_i| <= r_i``."""
        ring, steps = build.ring, []
        for i, g in sorted(build.slopes(self.program.outputs[0]).items()):
            steps.append((i, ring.mul(ring.abs(g), build.radius(i))))
        if not steps:
            raise _Beyond
        value = build.quantities({}, MID, MID)[0]
        low = finite(ring.sub(value, functools.reduce(ring.add, (step for _, step in steps))))
        self.lower_margin, self.upper_margin = low.margin, value.margin
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
        if any(kind == MID for kind, _ in kinds):
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
                found[MID, j] = np.where(q - p <= limit, 0.5 * (p + q), np.nan)
    return {key: np.broadcast_to(found[key], len(lo)) for key in kinds if key in found}


def called(program: Program, what: tuple[Any, ...], pairs: list[Any], n: int) -> tuple[Array, ...]:
    """An operation with outward rounding: ends of its results, one after the other."""
    kind, a = what[0], program.arithmetic
    if kind == "slope":
        return derivative(a, what[1], pairs[0], 1)
    if kind == "inverse":
        return a.div((np.ones(n), np.ones(n)), pairs[0])
    node = what[1]
    run = object.__new__(_Run)
    run.a, run.program, run.n = a, program, n
    if kind == "value":
        run.value = dict(zip(children(node), pairs, strict=True))
        return run.evaluate(node)
    run.value = dict(zip((*children(node), node), pairs, strict=True))
    first, second = run.partials(node, *node.args)
    return (*first, *second)


class _Builder:
    """Writes the code of a program.

    Attributes:
        code: the instructions.
        ring: writes ring operations.
        programs: for each coordinate, the functions of it alone that are looked up.
        ranges: their enclosures, and those of their derivatives, on the whole range; how wide their enclosures at a centre may be.
    """

    def __init__(self, program: Program, lo: Array, hi: Array) -> None:
        self.program, self.code = program, Code()
        self.ring = Ring(self.code)
        self.widths = [float(b - a) * (1 + 2.0**-50) for a, b in zip(lo[0], hi[0], strict=True)]
        self.value: dict[Expression, Quantity] = {}
        self.slope: dict[Expression, Slopes] = {}
        self.uses: dict[Expression, frozenset[int]] = {}
        self.lone: dict[Expression, tuple[int, int]] = {}
        self.ranges: dict[Any, Any] = {}
        self.programs = self._leaves(lo, hi)

    def _leaves(self, lo: Array, hi: Array) -> list[Program | None]:
        """Find the largest expressions in one coordinate, and enclose them on the whole region."""
        uses = self.uses
        for e in self.program.order:
            own = frozenset((self.program.index[e.args[0]],)) if e.op == "var" else frozenset()
            uses[e] = own.union(*(uses[c] for c in children(e)))
        wanted = dict.fromkeys(self.program.outputs)
        wanted.update(
            dict.fromkeys(c for e in self.program.order if len(uses[e]) > 1 for c in children(e))
        )
        names = list(self.program.index)
        leaves: list[list[Expression]] = [[] for _ in names]
        for e in wanted:
            if len(uses[e]) < 2 and e.op != "const":
                k = next(iter(uses[e]), 0)
                self.lone[e] = (k, len(leaves[k]))
                leaves[k].append(e)
        programs = [
            Program(found, [names[k]], self.program.arithmetic) if found else None for k, found in enumerate(leaves)
        ]
        for k, found in enumerate(programs):
            if found is not None:
                values, slopes = found.gradients(lo[:, k : k + 1], hi[:, k : k + 1])
                x = np.linspace(lo[0, k], hi[0, k], SAMPLES)[:, None]
                points = found.values(x, x)
                for j, (value, slope, at) in enumerate(zip(values, slopes, points, strict=True)):
                    self.ranges[k, j, "value"] = (_first(value[0]), _first(value[1]))
                    self.ranges[k, j, "thin"] = 4 * float(np.max(at[1] - at[0]))
                    if slope:
                        self.ranges[k, j, "slope"] = (_first(slope[0][0]), _first(slope[0][1]))
        return programs

    def quantities(self, found: dict[Expression, Quantity], lower: int, upper: int) -> list[Quantity]:
        """The quantities of the outputs, from these columns.

        Args:
            found: receives those of all nodes that matter.
            lower: the column of lower ends.
            upper: that of upper ends.

        Raises:
            _Beyond: if their errors are not bounded.
        """
        for e in self.program.order:
            if e in self.lone:
                k, j = self.lone[e]
                a, b = self.ranges[k, j, "value"]
                lo, hi = (self.code.emit("take", k, (kind, j)) for kind in (lower, upper))
                # The middle of two bounds is not as far from either as they are from each other, and rounds.
                error = 0.0
                if lower == MID and e.op != "var":
                    error = margin(max(abs(a), abs(b)), self.ranges[k, j, "thin"])
                found[e] = finite(Quantity(lo, hi, a, b, error))
            elif e.op == "const":
                found[e] = self.ring.constant(e.args[0])
            elif len(self.uses[e]) > 1:
                found[e] = finite(self.evaluate(e, [found[c] for c in children(e)]))
        return [found[e] for e in self.program.outputs]

    def evaluate(self, e: Expression, xs: list[Quantity]) -> Quantity:
        """The quantity of a node in several coordinates."""
        if e.op in ("add", "sub", "neg", "abs"):
            return getattr(self.ring, e.op)(*xs)
        if e.op == "mul":
            return self.ring.power(xs[0], 2) if e.args[0] == e.args[1] else self.ring.mul(*xs)
        if e.op == "pow":
            return self.ring.power(xs[0], e.args[1])
        if e.op in ("max", "min"):
            return self.ring.extreme(e.op, *xs)
        if e.op == "relu":
            return self.ring.extreme("max", xs[0], self.ring.constant(0))
        return self.elsewhere(("value", e), xs)[0]

    def elsewhere(self, what: tuple[Any, ...], xs: list[Quantity]) -> list[Quantity]:
        """An operation that is left to `program`: its results, cut down to their enclosures on the whole region."""
        ranges = called(self.program, what, [(np.array([q.low]), np.array([q.high])) for q in xs], 1)
        call = self.code.emit("call", what, *(r for q in xs for r in self.outward(q)))
        found = []
        for i in range(0, len(ranges), 2):
            a, b = _first(ranges[i]), _first(ranges[i + 1])
            lo = self.code.emit("fmax", self.code.emit("part", call, i), self.code.constant(a))
            hi = self.code.emit("fmin", self.code.emit("part", call, i + 1), self.code.constant(b))
            found.append(Quantity(lo, hi, a, b))
        return found

    def outward(self, q: Quantity) -> tuple[int, int]:
        """Ends moved so far that they bound."""
        if q.error == 0:
            return q.lo, q.hi
        by = self.code.constant(q.margin)
        return self.code.emit("sub", q.lo, by), self.code.emit("add", q.hi, by)

    def radius(self, k: int) -> Quantity:
        """How far a point can be from the centre in a coordinate."""
        r = self.code.emit("take", k, (RADIUS, 0))
        return Quantity(r, r, 0.0, self.widths[k])

    # --- derivatives ---

    def slopes(self, output: Expression) -> Slopes:
        """The partial derivatives of an output.

        Raises:
            _Beyond: if their errors are not bounded, or an operation is not covered.
        """
        for e in self.program.order:
            if e in self.value:
                self.slope[e] = {i: finite(q) for i, q in self.differentiate(e).items()}
        return self.slope[output]

    def differentiate(self, e: Expression) -> Slopes:
        """The partial derivatives of a node, by the rules of `program`."""
        ring = self.ring
        if e.op == "const":
            return {}
        if e in self.lone:
            k, j = self.lone[e]
            if (k, j, "slope") not in self.ranges:
                return {}
            a, b = self.ranges[k, j, "slope"]
            lo, hi = (
                [self.code.constant(a)] * 2
                if a == b
                else [self.code.emit("take", k, (kind, j)) for kind in (SLOPE_LO, SLOPE_HI)]
            )
            return {k: Quantity(lo, hi, a, b)}
        x, *others = children(e)
        gx, vx = self.slope[x], self.value[x]
        if e.op == "pow":
            n = e.args[1]
            inner = ring.power(vx, n - 1) if n > 1 else ring.constant(1)
            return self.times(gx, ring.mul(ring.constant(n), inner))
        if e.op == "neg":
            return {i: ring.neg(g) for i, g in gx.items()}
        if e.op in ("dd", "div") or (others and e.op == "mul"):
            y = others[0]
            if e.op == "mul" and x == y:
                return self.times(gx, ring.mul(ring.constant(2), vx))
            return self.sum(*(self.times(self.slope[z], d) for z, d in zip((x, y), self.partials(e), strict=True)))
        if not others:
            return self.times(gx, self.elsewhere(("slope", e.op), [vx])[0]) if gx else {}
        gy = self.slope[others[0]]
        if e.op == "add":
            return self.sum(gx, gy)
        if e.op == "sub":
            return self.sum(gx, {i: ring.neg(g) for i, g in gy.items()})
        if e.op in ("max", "min"):
            zero = ring.constant(0)
            return {i: ring.hull(gx.get(i, zero), gy.get(i, zero)) for i in sorted({*gx, *gy})}
        raise _Beyond

    def partials(self, e: Expression) -> tuple[Quantity, Quantity]:
        """The derivatives of a product, quotient or divided difference in its two arguments."""
        x, y = (self.value[c] for c in children(e))
        if e.op == "mul":
            return y, x
        if e.op == "div":
            inverse = finite(self.elsewhere(("inverse",), [y])[0])
            return inverse, self.ring.neg(self.ring.mul(self.value[e], inverse))
        first, second = self.elsewhere(("partials", e), [x, y, self.value[e]])
        return first, second

    def times(self, g: Slopes, factor: Quantity) -> Slopes:
        """A gradient times a number."""
        return {i: self.ring.mul(q, factor) for i, q in g.items()}

    def sum(self, g: Slopes, h: Slopes) -> Slopes:
        """The sum of two gradients."""
        return {
            i: self.ring.add(g[i], h[i]) if i in g and i in h else (g if i in g else h)[i]
            for i in sorted({*g, *h})
        }


def finite(q: Quantity) -> Quantity:
    """The quantity.

    Raises:
        _Beyond: if its range or its error is not bounded, or so large that a product could overflow.
    """
    if not all(abs(x) < LARGE for x in (q.low, q.high, q.error)):
        raise _Beyond
    return q


def _first(x: Any) -> float:
    return float(np.ravel(x)[0])
