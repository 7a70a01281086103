"""One step of the branch and bound: what is tried on a box, and along which coordinate it is split where that fails."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...core.expressions import Expression
from ..intervals.arrays import Own
from .curvature import Curved
from .program import Gradient, Program, _Run
from .ways import Way

Array = np.ndarray

NATURAL, CENTRED, FORM, FORM_CENTRED, CURVED, OUTSIDE = 8, 9, 10, 11, 12, 13
TESTS = {
    NATURAL: "the slack, natural interval extension",
    CENTRED: "the slack, mean-value form",
    FORM: "the quadratic form is positive semi-definite (or the slack in another writing is >= 0), natural extension",
    FORM_CENTRED: "the same, mean-value form",
    CURVED: "second derivatives are positive semi-definite",
    OUTSIDE: "no point of the region lies in the box",
}


CHUNK = 4096
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
        widths: of the ranges.
    """

    slack: Program | None
    form: Program | None
    curved: Curved | None
    domain: Program | None
    widths: Array

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
        widths: Array,
        arithmetic: Own,
        domain: tuple[Expression, ...] = (),
        smoothness: Fraction | None = None,
    ) -> Task:
        """The task for an expression and one way to prove it; with ``smoothness`` the expression is f."""
        outside = Program(domain, names, arithmetic) if domain else None
        if smoothness is not None:
            return cls(None, None, Curved.make(slack, None, names, arithmetic, smoothness), outside, widths)
        required = way.requirements
        form = None if required is None else Program(required, names, arithmetic)
        curved = None if way.segment is None else Curved.make(slack, way.segment, names, arithmetic)
        return cls(Program([slack], names, arithmetic), form, curved, outside, widths)


@dataclass
class Outcome:
    """What one chunk of boxes gave.

    Attributes:
        codes: one byte a box: the test that closed it, or the coordinate to split.
        lower: the lowest bound that failed on each open box: on the slack, or on a requirement of the form.
        centres: upper bound on the slack at the centre of open boxes (NaN where it was not computed): negative refutes.
        score: how much each coordinate matters, for splitting.
    """

    codes: Array
    lower: Array
    centres: Array
    score: Array


def examine(task: Task, lo: Array, hi: Array, score: Array | None = None) -> Outcome:
    """Apply the tests to boxes, the cheapest first.

    Args:
        task: what is to be shown.
        lo: lower corners.
        hi: upper corners.
        score: how much each coordinate matters, where that is known from the boxes these come from: only plain enclosures are
            then evaluated, and open boxes are split by this score.
    """
    n = len(lo)
    codes = np.full(n, 255, np.uint8)
    lower = np.full(n, -np.inf)
    out = Outcome(codes, lower, np.full(n, np.nan), np.zeros(lo.shape, np.float32))
    if task.domain is not None:
        for _, high in task.domain.values(lo, hi):
            codes[high < 0] = OUTSIDE
    open_ = np.flatnonzero(codes == 255)
    if task.form is not None and open_.size:
        good = np.ones(open_.size, bool)
        for low, _ in task.form.values(lo[open_], hi[open_]):
            good &= low >= 0
        codes[open_[good]] = FORM
        open_ = open_[~good]
    known = None
    if open_.size and task.form is None and task.slack is not None:
        # With a quadratic form the plain extension is tried together with the mean-value form below.
        known = task.slack.run(lo[open_], hi[open_])
        low = known.value[task.slack.outputs[0]][0]
        lower[open_] = np.where(np.isnan(low), -np.inf, low)
        fails = np.flatnonzero(~(low >= 0))
        codes[open_[low >= 0]] = NATURAL
        known, open_ = (
            (known if fails.size == open_.size else known.part(fails)) if score is None else None,
            open_[fails],
        )
    if score is not None:
        out.score = score
        codes[open_] = largest(score[open_])
        return out
    if open_.size and task.curved is not None:
        good, least = task.curved.closes(lo[open_], hi[open_])
        if task.slack is None:
            lower[open_] = least
        codes[open_[good]] = CURVED
        known, open_ = None if known is None else known.part(np.flatnonzero(~good)), open_[~good]
    if open_.size:
        if task.slack is None:
            _widest(task, lo, hi, open_, out)
        else:
            _closer(task, lo[open_], hi[open_], open_, out, known)
    return out


def _widest(task: Task, lo: Array, hi: Array, open_: Array, out: Outcome) -> None:
    """Split the widest coordinate that the function depends on."""
    assert task.curved is not None
    used = {n.args[0] for n in task.curved.residual.order if n.op == "var"}
    counts = np.array([name in used for name in task.curved.residual.index], float)
    out.score[open_] = (hi[open_] - lo[open_]) / task.widths * np.maximum(counts, 1e-12)
    out.codes[open_] = largest(out.score[open_])


def _closer(task: Task, lo: Array, hi: Array, open_: Array, out: Outcome, known: _Run | None) -> None:
    """The tests with gradients, and the coordinates to split where they fail."""
    assert task.slack is not None
    score, todo = np.zeros_like(lo), np.ones(len(lo), bool)
    if task.form is not None:
        below, at, slopes = task.form.centred(lo, hi)
        good, refuted = np.ones(len(lo), bool), np.zeros(len(lo), bool)
        worst = np.full(len(lo), np.inf)
        for low, middle, slope in zip(below, at, slopes, strict=True):
            fails = ~(low >= 0)
            good &= ~fails
            refuted |= middle[1] < 0
            worst = np.minimum(worst, np.where(np.isnan(low), -np.inf, low))
            score += np.where(fails[:, None], _smear(slope, lo, hi, task.widths), 0.0)
        out.codes[open_[good]] = FORM_CENTRED
        out.lower[open_] = np.where(good, 0.0, worst)
        # Where the form is certainly not semi-definite only the slack itself can close the box, or refute the condition.
        todo = ~good & (refuted | ~(score.max(axis=1) > 0))
    rest = np.flatnonzero(todo)
    if rest.size:
        left = open_[rest]
        below, at, slopes = task.slack.centred(lo[rest], hi[rest], known)
        low = np.where(np.isnan(below[0]), -np.inf, below[0])
        out.lower[left], out.centres[left] = low, _inside(task, lo[rest], hi[rest], at[0][1])
        out.codes[left[low >= 0]] = CENTRED
        score[rest] = _smear(slopes[0], lo[rest], hi[rest], task.widths)
    still = out.codes[open_] == 255
    # A coordinate that no gradient mentions is not worth splitting, unless nothing is.
    with np.errstate(over="ignore"):  # scores are kept in single precision
        out.score[open_] = np.where(hi > lo, score + 1e-12 * (hi - lo) / task.widths, 0.0)
    out.codes[open_[still]] = largest(out.score[open_[still]])


def _inside(task: Task, lo: Array, hi: Array, at_centre: Array) -> Array:
    """The values at the centres, NaN where the centre is not certainly in the region."""
    if task.domain is None or not (at_centre < 0).any():
        return at_centre
    centre = lo + 0.5 * (hi - lo)
    inside = np.ones(len(lo), bool)
    for low, _ in task.domain.values(centre, centre):
        inside &= low >= 0
    return np.where(inside, at_centre, np.nan)


def _smear(slope: Gradient, lo: Array, hi: Array, widths: Array) -> Array:
    """How much each coordinate may move the value over the box: ``|gradient| times width``."""
    total = np.zeros_like(lo)
    for i, (a, b) in slope.items():
        size = np.maximum(np.abs(a), np.abs(b)) * (hi[:, i] - lo[:, i])
        total[:, i] = np.where(np.isfinite(size), size, 1e6 * (hi[:, i] - lo[:, i]) / widths[i])
    return total


def largest(score: Array) -> Array:
    """The first coordinate with the largest score, one a box; `numpy.argmax` is slow on short rows."""
    best, found = score[:, 0], np.zeros(len(score), np.uint8)
    for i in range(1, score.shape[1]):
        better = score[:, i] > best
        best = np.where(better, score[:, i], best)
        found[better] = i
    return found


def doubled(x: Array) -> Array:
    """Every row twice, one after the other."""
    out = np.empty((2 * len(x), *x.shape[1:]), x.dtype)
    out[0::2] = x
    out[1::2] = x
    return out


def split_boxes(lo: Array, hi: Array, coordinate: Array) -> tuple[Array, Array]:
    """Both halves of every box, one after the other; they share the midpoint, so nothing is lost."""
    rows = np.arange(len(lo))
    a, b = lo[rows, coordinate], hi[rows, coordinate]
    middle = a + 0.5 * (b - a)
    low, high = doubled(lo), doubled(hi)
    high[2 * rows, coordinate] = middle
    low[2 * rows + 1, coordinate] = middle
    return low, high
