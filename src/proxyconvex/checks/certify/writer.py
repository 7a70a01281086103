"""Write the code of `quick` for a formula: what is looked up, what is computed, what is left to `program`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.expressions import Expression, children
from .program import Program, _Run, derivative
from .quantities import Quantity, Ring, Unbounded, finite, margin
from .registers import Code

Array = np.ndarray
Slopes = dict[int, Quantity]
LO, HI, MID, AT_LO, AT_HI, SLOPE_LO, SLOPE_HI, RADIUS = range(8)
"""Columns of a function of one coordinate: its ends; its value at the centre, and the bounds of that; the ends of its derivative; and how far the
centre is from the ends."""
RING = ("add", "sub", "neg", "mul", "pow", "max", "min")
"""Operations that tolerate errors: these do not decide how wide an enclosure is."""
SAMPLES = 65
"""A value at a centre that is looked up is used where its bounds are at most four times as far apart as at so many points."""


@dataclass
class Values:
    """Quantities of nodes.

    Attributes:
        near: with errors.
        exact: without, of what is handed to `program`.
    """

    near: dict[Expression, Quantity]
    exact: dict[Expression, Quantity]


class Writer:
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
        self.slope: dict[Expression, Slopes] = {}
        self.uses: dict[Expression, frozenset[int]] = {}
        self.lone: dict[Expression, tuple[int, int]] = {}
        self.ranges: dict[Any, Any] = {}
        self.programs = self._leaves(lo, hi)
        # What the operations that are left to `program` depend on is left to it, too: errors that are small on the scale of the whole
        # region might be large for them on a box.
        self.inner: set[Expression] = set()
        for e in reversed(program.order):
            if len(self.uses[e]) > 1 and (e in self.inner or e.op not in RING):
                self.inner.update(children(e))

    def _leaves(self, lo: Array, hi: Array) -> list[Program | None]:
        """Find the largest expressions in one coordinate, and enclose them on the whole region."""
        uses = self.uses
        for e in self.program.order:
            own = frozenset((self.program.index[e.args[0]],)) if e.op == "var" else frozenset()
            uses[e] = own.union(*(uses[c] for c in children(e)))
        wanted = dict.fromkeys(self.program.outputs)
        wanted.update(dict.fromkeys(c for e in self.program.order if len(uses[e]) > 1 for c in children(e)))
        names = list(self.program.index)
        leaves: list[list[Expression]] = [[] for _ in names]
        for e in wanted:
            if len(uses[e]) < 2 and e.op != "const":
                k = next(iter(uses[e]), 0)
                self.lone[e] = (k, len(leaves[k]))
                leaves[k].append(e)
        programs = [
            Program(found, [names[k]], self.program.arithmetic) if found else None
            for k, found in enumerate(leaves)
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

    def quantities(self, centre: bool = False) -> tuple[Values, list[Quantity]]:
        """The quantities of all nodes that matter, on boxes or at their centres, and those of the outputs.

        Raises:
            Unbounded: if their errors are not bounded.
        """
        made = Values({}, {})
        for e in self.program.order:
            if e in self.lone:
                self._looked_up(e, made, centre)
            elif e.op == "const":
                made.near[e] = self.ring.constant(e.args[0])
                if e in self.inner:
                    low, high = self.program.constant(e)
                    lo, hi = self.code.constant(low), self.code.constant(high)
                    made.exact[e] = finite(Quantity(lo, hi, low, high))
            elif len(self.uses[e]) > 1:
                if e in self.inner or e.op not in RING:
                    found = self.elsewhere(("value", e), [made.exact[c] for c in children(e)])[0]
                    made.near[e] = made.exact[e] = found
                else:
                    made.near[e] = self.evaluate(e, [made.near[c] for c in children(e)])
        return made, [made.near[e] for e in self.program.outputs]

    def _looked_up(self, e: Expression, made: Values, centre: bool) -> None:
        """A function of one coordinate."""
        k, j = self.lone[e]
        a, b = self.ranges[k, j, "value"]

        def column(*kinds: int, error: float = 0.0) -> Quantity:
            lo, hi = (self.code.emit("take", k, (kind, j)) for kind in (kinds[0], kinds[-1]))
            return finite(Quantity(lo, hi, a, b, error))

        if not centre:
            made.near[e] = made.exact[e] = column(LO, HI)
        elif e.op == "var":
            made.near[e] = made.exact[e] = column(MID)
        else:
            # The middle of two bounds is not as far from either as they are from each other, and rounds.
            error = margin(max(abs(a), abs(b)), self.ranges[k, j, "thin"])
            made.near[e] = column(MID, error=error)
            if e in self.inner:
                made.exact[e] = column(AT_LO, AT_HI)

    def evaluate(self, e: Expression, xs: list[Quantity]) -> Quantity:
        """A ring operation, a maximum or a minimum."""
        if e.op in ("add", "sub", "neg"):
            return getattr(self.ring, e.op)(*xs)
        if e.op == "mul":
            return self.ring.power(xs[0], 2) if e.args[0] == e.args[1] else self.ring.mul(*xs)
        if e.op == "pow":
            return self.ring.power(xs[0], e.args[1])
        return self.ring.extreme(e.op, *xs)

    def elsewhere(self, what: tuple[Any, ...], xs: list[Quantity]) -> list[Quantity]:
        """An operation that is left to `program`: its results, cut down to their enclosures on the whole region."""
        ranges = called(self.program, what, [(np.array([q.low]), np.array([q.high])) for q in xs], 1)
        call = self.code.emit("call", what, *(r for q in xs for r in (q.lo, q.hi)))
        found = []
        for i in range(0, len(ranges), 2):
            a, b = _first(ranges[i]), _first(ranges[i + 1])
            lo = self.code.emit("fmax", self.code.emit("part", call, i), self.code.constant(a))
            hi = self.code.emit("fmin", self.code.emit("part", call, i + 1), self.code.constant(b))
            found.append(finite(Quantity(lo, hi, a, b)))
        return found

    def radius(self, k: int) -> Quantity:
        """How far a point can be from the centre in a coordinate."""
        r = self.code.emit("take", k, (RADIUS, 0))
        return Quantity(r, r, 0.0, self.widths[k])

    # --- derivatives ---

    def slopes(self, values: Values, output: Expression) -> Slopes:
        """The partial derivatives of an output, from values on boxes.

        Raises:
            Unbounded: if their errors are not bounded, or an operation is not covered.
        """
        for e in self.program.order:
            if e in values.near:
                self.slope[e] = self.differentiate(e, values)
        return self.slope[output]

    def differentiate(self, e: Expression, values: Values) -> Slopes:
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
            return {k: finite(Quantity(lo, hi, a, b))}
        x, *others = children(e)
        gx, vx = self.slope[x], values.near[x]
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
            return self.sum(
                *(self.times(self.slope[z], d) for z, d in zip((x, y), self.partials(e, values), strict=True))
            )
        if not others:
            return self.times(gx, self.elsewhere(("slope", e.op), [values.exact[x]])[0]) if gx else {}
        gy = self.slope[others[0]]
        if e.op == "add":
            return self.sum(gx, gy)
        if e.op == "sub":
            return self.sum(gx, {i: ring.neg(g) for i, g in gy.items()})
        if e.op in ("max", "min"):
            zero = ring.constant(0)
            return {i: ring.hull(gx.get(i, zero), gy.get(i, zero)) for i in sorted({*gx, *gy})}
        raise Unbounded

    def partials(self, e: Expression, values: Values) -> tuple[Quantity, Quantity]:
        """The derivatives of a product, quotient or divided difference in its two arguments."""
        x, y = children(e)
        if e.op == "mul":
            return values.near[y], values.near[x]
        if e.op == "div":
            (inverse,) = self.elsewhere(("inverse",), [values.exact[y]])
            return inverse, self.ring.neg(self.ring.mul(values.near[e], inverse))
        first, second = self.elsewhere(("partials", e), [values.exact[z] for z in (x, y, e)])
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


def _first(x: Any) -> float:
    return float(np.ravel(x)[0])
