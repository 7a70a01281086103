"""One step of the branch and bound: what is tried on a box, and along which coordinate it is split where that fails."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ...core.expressions import Expression
from ..intervals.arrays import Own
from .curvature import Curved
from .lattice import Boxes, largest, selected
from .program import Gradient, Program, _Run
from .quick import Quick
from .ways import Way

Array = np.ndarray
Chunks = list[tuple[Any, ...]]
"""Arguments of `examine`: boxes, and scores where they are known."""

NATURAL, CENTRED, FORM, FORM_CENTRED, CURVED, OUTSIDE = 8, 9, 10, 11, 12, 13
TESTS = {
    NATURAL: "the slack, natural interval extension",
    CENTRED: "the slack, mean-value form",
    FORM: "the quadratic form is positive semi-definite (or the slack in another writing is >= 0), natural extension",
    FORM_CENTRED: "the same, mean-value form",
    CURVED: "second derivatives are positive semi-definite",
    OUTSIDE: "no point of the region lies in the box",
}


OPEN = 255
CHUNK = 4096
MANY = 512
"""In chunks of at least so many boxes the code of `quick` is worth writing."""
WORK = 2**21
"""Most evaluations of nodes in one chunk, which is what lies between two looks at the clock."""


def rows_for(cost: int) -> int:
    """How many boxes make a chunk, where one box asks for so many evaluations of nodes."""
    return max(64, min(CHUNK, WORK // max(1, cost)))


@dataclass(frozen=True)
class Task:
    """What is to be shown on every box.

    Attributes:
        slack: the slack, to be shown >= 0; None for smoothness, where second derivatives are all there is.
        form: requirements that make the slack >= 0, or None.
        curved: the test by second derivatives, or None.
        domain: what is >= 0 in the region, or None if the region is the box.
        lo: lower ends of the ranges, shape (1, d).
        hi: upper ends.
    """

    slack: Program | None
    form: Program | None
    curved: Curved | None
    domain: Program | None
    lo: Array
    hi: Array

    @property
    def plain(self) -> Program | None:
        """What closes a box where it is >= 0 by its natural extension; with a form, the slack itself is tried later."""
        return self.slack if self.form is None else self.form

    @property
    def widths(self) -> Array:
        """Of the ranges."""
        return (self.hi - self.lo)[0]

    @functools.cached_property
    def quick(self) -> Quick | None:
        """Fast lower bounds of `plain`; in one coordinate every box is another interval, and nothing is saved."""
        if self.plain is None or self.lo.size < 2:
            return None
        return Quick(self.plain, self.lo, self.hi)

    @property
    def rows(self) -> int:
        """How many boxes make a chunk."""
        cost = sum(len(p.order) for p in (self.slack, self.form) if p is not None)
        if self.curved is not None:
            cost += len(self.curved.residual.order) * (1 + len(self.curved.moved) ** 2)
        return rows_for(cost)

    @classmethod
    def make(
        cls,
        slack: Expression,
        way: Way,
        names: list[str],
        lo: Array,
        hi: Array,
        arithmetic: Own,
        domain: tuple[Expression, ...] = (),
        smoothness: Fraction | None = None,
    ) -> Task:
        """The task for an expression and one way to prove it; with ``smoothness`` the expression is f."""
        outside = Program(domain, names, arithmetic) if domain else None
        if smoothness is not None:
            return cls(None, None, Curved.make(slack, None, names, arithmetic, smoothness), outside, lo, hi)
        required = way.requirements
        form = None if required is None else Program(required, names, arithmetic)
        curved = None if way.segment is None else Curved.make(slack, way.segment, names, arithmetic)
        return cls(Program([slack], names, arithmetic), form, curved, outside, lo, hi)


@dataclass
class Outcome:
    """What one chunk of boxes gave.

    Attributes:
        codes: one byte a box: the test that closed it, or the coordinate to split.
        lower: the lowest bound that failed on each open box: on the slack, or on a requirement of the form.
        score: how much each coordinate matters for each open box, for splitting; shape (d, open boxes).
        refuted: where a centre was met at which the slack is certainly negative: an upper bound there and the point.
    """

    codes: Array
    lower: Array
    score: Array
    refuted: tuple[float, Array] | None = None


def examine(task: Task, boxes: Boxes, score: Array | None = None) -> Outcome:
    """Apply the tests to boxes, the cheapest first.

    Args:
        task: what is to be shown.
        boxes: where.
        score: how much each coordinate matters, where that is known from the boxes these come from: only plain enclosures are
            then evaluated, and open boxes are split by this score.
    """
    quick = task.quick if len(boxes) >= MANY else None
    codes = np.full(len(boxes), NATURAL if task.form is None else FORM, np.uint8)
    left = _Left(boxes, np.full(len(boxes), -np.inf))
    if task.domain is not None:
        outside = np.zeros(len(boxes), bool)
        for _, high in task.domain.values(boxes.lo, boxes.hi):
            outside |= high < 0
        codes[outside] = OUTSIDE
        left = left.keep(~outside)
    if task.plain is not None and len(left.boxes):
        left = _natural(task.plain, left, quick)
    if score is not None:
        score = score if left.rows is None else selected(score, left.rows)
        left.write(codes, largest(score))
        return Outcome(codes, left.lower, score)
    if len(left.boxes) and task.curved is not None:
        good, least = task.curved.closes(left.boxes.lo, left.boxes.hi)
        left.write(codes, np.full(len(good), CURVED, np.uint8))
        left = left.keep(~good, lower=least if task.slack is None else None)
    if not len(left.boxes):
        return Outcome(codes, np.zeros(0), np.zeros((len(boxes.ids), 0), np.float32))
    if task.slack is None:
        found = _widest(task, left)
    elif task.form is None and left.known is None and quick is not None and quick.centred is not None:
        found = _centred(task, quick, left)
    else:
        found = _closer(task, left)
    left.write(codes, found.codes)
    still = found.codes < NATURAL
    if still.all():
        found.codes = codes
        return found
    rows = np.flatnonzero(still)
    return Outcome(codes, selected(found.lower, rows), selected(found.score, rows), found.refuted)


def examine_all(task: Task, chunks: Chunks) -> list[Outcome]:
    """The outcomes of several chunks."""
    return [examine(task, *chunk) for chunk in chunks]


@dataclass
class _Left:
    """The boxes of a chunk that no test has closed so far.

    Attributes:
        boxes: these boxes.
        lower: a lower bound on each.
        rows: their places in the chunk; None for all of it.
        known: the enclosures of all nodes on them, where they are kept.
    """

    boxes: Boxes
    lower: Array
    rows: Array | None = None
    known: _Run | None = None

    def keep(self, good: Array, lower: Array | None = None) -> _Left:
        """Some of them, perhaps with other bounds."""
        lower = self.lower if lower is None else lower
        if good.all():
            return _Left(self.boxes, lower, self.rows, self.known)
        rows = np.flatnonzero(good)
        return _Left(
            self.boxes.part(rows),
            selected(lower, rows),
            rows if self.rows is None else self.rows[rows],
            None if self.known is None else self.known.part(rows),
        )

    def write(self, codes: Array, found: Array) -> None:
        """Codes of these boxes, to their places."""
        codes[slice(None) if self.rows is None else self.rows] = found


def _natural(program: Program, left: _Left, quick: Quick | None) -> _Left:
    """Drop the boxes on which all outputs are >= 0 by their natural extensions."""
    boxes = left.boxes
    if quick is not None and quick.natural is not None:
        bounds = quick.lower(boxes)
        low, rows = bounds.low, bounds.undecided()
        if 2 * rows.size < len(boxes):
            if rows.size:
                part, low = boxes.part(rows), low.copy()
                ends = [low for low, _ in program.values(part.lo, part.hi)]
                low[rows] = np.fmax(low[rows], functools.reduce(np.minimum, ends))
            return left.keep(~(low >= 0), np.fmax(low, -np.inf))
    # Where most bounds are that close to zero, the fast ones below would be as well.
    left.known = program.run(boxes.lo, boxes.hi)
    low = functools.reduce(np.minimum, (left.known.value[e][0] for e in program.outputs))
    return left.keep(~(low >= 0), np.fmax(low, -np.inf))


def _centred(task: Task, quick: Quick, left: _Left) -> Outcome:
    """The mean-value form of the slack, and the coordinates to split where it fails."""
    assert task.slack is not None
    slack = task.slack
    bounds, centres, score = quick.mean_value(left.boxes)
    low, rows = bounds.low, bounds.undecided()
    if rows.size:
        part, low = left.boxes.part(rows), low.copy()
        low[rows] = np.fmax(low[rows], slack.centred(part.lo, part.hi)[0][0])
    codes = largest(score)
    idle = np.flatnonzero(~(score.max(axis=0) > 0))
    if idle.size:  # no gradient mentions a coordinate: split the widest
        part = left.boxes.part(idle)
        codes[idle] = largest(((part.hi - part.lo) / task.widths).T)
    codes[low >= 0] = CENTRED
    return Outcome(codes, np.fmax(low, left.lower), score, _refuted(task, left.boxes, centres))


def _widest(task: Task, left: _Left) -> Outcome:
    """Split the widest coordinate that the function depends on."""
    assert task.curved is not None
    used = {n.args[0] for n in task.curved.residual.order if n.op == "var"}
    counts = np.array([name in used for name in task.curved.residual.index], float)
    score = (left.boxes.hi - left.boxes.lo) / task.widths * np.maximum(counts, 1e-12)
    score = np.ascontiguousarray(score.T, np.float32)
    return Outcome(largest(score), left.lower, score)


def _closer(task: Task, left: _Left) -> Outcome:
    """The tests with gradients, and the coordinates to split where they fail."""
    assert task.slack is not None
    lo, hi = left.boxes.lo, left.boxes.hi
    codes, lower = np.full(len(lo), OPEN, np.uint8), left.lower.copy()
    centres = np.full(len(lo), np.nan)
    score, todo = np.zeros_like(lo), np.ones(len(lo), bool)
    if task.form is not None:
        below, at, slopes = task.form.centred(lo, hi, left.known)
        good, refuted = np.ones(len(lo), bool), np.zeros(len(lo), bool)
        worst = np.full(len(lo), np.inf)
        for low, middle, slope in zip(below, at, slopes, strict=True):
            fails = ~(low >= 0)
            good &= ~fails
            refuted |= middle[1] < 0
            worst = np.minimum(worst, np.where(np.isnan(low), -np.inf, low))
            score += np.where(fails[:, None], _smear(slope, lo, hi, task.widths), 0.0)
        codes[good] = FORM_CENTRED
        lower = np.where(good, 0.0, worst)
        # Where the form is certainly not semi-definite only the slack itself can close the box, or refute the condition.
        todo = ~good & (refuted | ~(score.max(axis=1) > 0))
    rest = np.flatnonzero(todo)
    if rest.size:
        known = left.known if task.form is None else None
        below, at, slopes = task.slack.centred(lo[rest], hi[rest], known)
        low = np.where(np.isnan(below[0]), -np.inf, below[0])
        lower[rest], centres[rest] = low, at[0][1]
        codes[rest[low >= 0]] = CENTRED
        score[rest] = _smear(slopes[0], lo[rest], hi[rest], task.widths)
    still = codes == OPEN
    # A coordinate that no gradient mentions is not worth splitting, unless nothing is.
    with np.errstate(over="ignore"):  # scores are kept in single precision
        score = np.where(hi > lo, score + 1e-12 * (hi - lo) / task.widths, 0.0)
        score = np.ascontiguousarray(score.T, np.float32)
    codes[still] = largest(score)[still]
    return Outcome(codes, lower, score, _refuted(task, left.boxes, centres))


def _refuted(task: Task, boxes: Boxes, centres: Array) -> tuple[float, Array] | None:
    """The centre with the lowest upper bound, if that is negative and the centre certainly in the region."""
    rows = np.flatnonzero(centres < 0)
    if rows.size and task.domain is not None:
        part = boxes.part(rows)
        lo, hi = part.lo, part.hi
        centre = lo + 0.5 * (hi - lo)
        inside = np.ones(len(rows), bool)
        for low, _ in task.domain.values(centre, centre):
            inside &= low >= 0
        rows = rows[inside]
    if not rows.size:
        return None
    k = rows[np.argmin(centres[rows])]
    one = boxes.part(np.array([k]))
    lo, hi = one.lo[0], one.hi[0]
    return float(centres[k]), lo + 0.5 * (hi - lo)


def _smear(slope: Gradient, lo: Array, hi: Array, widths: Array) -> Array:
    """How much each coordinate may move the value over the box: ``|gradient| times width``."""
    total = np.zeros_like(lo)
    for i, (a, b) in slope.items():
        size = np.maximum(np.abs(a), np.abs(b)) * (hi[:, i] - lo[:, i])
        total[:, i] = np.where(np.isfinite(size), size, 1e6 * (hi[:, i] - lo[:, i]) / widths[i])
    return total
