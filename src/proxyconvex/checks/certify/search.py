"""Interval branch and bound: prove a residual >= 0 box by box, and record the subdivision.

The tree is written breadth first, one byte a node: ``0..5`` bisects that coordinate at the float midpoint, the letters of
`TESTS` close the box. Boxes are never stored, so that the leaves cover the region is true by construction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InvalidInputError
from ...core.expressions import Expression
from ..intervals.arrays import Own
from .program import Gradient, Program

Array = np.ndarray

NATURAL, CENTRED, FORM, FORM_CENTRED = 8, 9, 10, 11
TESTS = {
    NATURAL: "the slack, natural interval extension",
    CENTRED: "the slack, mean-value form",
    FORM: "the quadratic form is positive semi-definite, natural extension",
    FORM_CENTRED: "the quadratic form is positive semi-definite, mean-value form",
}
CHUNK = 4096
FEW = 256
MAX_DIMENSION = 6


@dataclass(frozen=True)
class Task:
    """What is to be shown on every box: the slack is >= 0, or all requirements of a quadratic form are."""

    slack: Program
    form: Program | None
    widths: Array

    @classmethod
    def make(
        cls,
        slack: Expression,
        requirements: tuple[Expression, ...] | None,
        names: list[str],
        widths: Array,
        arithmetic: Own,
    ) -> Task:
        """The task for an expression and, where there is one, its quadratic form."""
        form = None if requirements is None else Program(requirements, names, arithmetic)
        return cls(Program([slack], names, arithmetic), form, widths)


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


def examine(task: Task, lo: Array, hi: Array) -> Outcome:
    """Apply the tests to boxes, the cheapest first."""
    n = len(lo)
    codes = np.full(n, 255, np.uint8)
    lower = np.full(n, -np.inf)
    out = Outcome(codes, lower, np.full(n, np.nan), np.zeros_like(lo))
    if task.form is not None:
        good = np.ones(n, bool)
        for low, _ in task.form.values(lo, hi):
            good &= low >= 0
        codes[good] = FORM
    open_ = np.flatnonzero(codes == 255)
    if open_.size and task.form is None:
        # With a quadratic form the plain extension is tried together with the mean-value form below.
        low = task.slack.values(lo[open_], hi[open_])[0][0]
        lower[open_] = np.where(np.isnan(low), -np.inf, low)
        codes[open_[low >= 0]] = NATURAL
        open_ = open_[~(low >= 0)]
    if open_.size:
        _closer(task, lo[open_], hi[open_], open_, out)
    return out


def _closer(task: Task, lo: Array, hi: Array, open_: Array, out: Outcome) -> None:
    """The tests with gradients, and the coordinates to split where they fail."""
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
        below, at, slopes = task.slack.centred(lo[rest], hi[rest])
        low = np.where(np.isnan(below[0]), -np.inf, below[0])
        out.lower[left], out.centres[left] = low, at[0][1]
        out.codes[left[low >= 0]] = CENTRED
        score[rest] = _smear(slopes[0], lo[rest], hi[rest], task.widths)
    still = out.codes[open_] == 255
    # A coordinate that no gradient mentions is not worth splitting, unless nothing is.
    out.score[open_] = np.where(hi > lo, score + 1e-12 * (hi - lo) / task.widths, 0.0)
    out.codes[open_[still]] = np.argmax(out.score[open_[still]], axis=1).astype(np.uint8)


def _smear(slope: Gradient, lo: Array, hi: Array, widths: Array) -> Array:
    """How much each coordinate may move the value over the box: ``|gradient| times width``."""
    total = np.zeros_like(lo)
    for i, (a, b) in slope.items():
        size = np.maximum(np.abs(a), np.abs(b)) * (hi[:, i] - lo[:, i])
        total[:, i] = np.where(np.isfinite(size), size, 1e6 * (hi[:, i] - lo[:, i]) / widths[i])
    return total


def split_boxes(lo: Array, hi: Array, coordinate: Array) -> tuple[Array, Array]:
    """Both halves of every box, one after the other; they share the midpoint, so nothing is lost."""
    rows = np.arange(len(lo))
    middle = lo[rows, coordinate] + 0.5 * (hi[rows, coordinate] - lo[rows, coordinate])
    low, high = np.repeat(lo, 2, axis=0), np.repeat(hi, 2, axis=0)
    high[2 * rows, coordinate] = middle
    low[2 * rows + 1, coordinate] = middle
    return low, high


@dataclass(frozen=True)
class Progress:
    """Where the branch and bound stands.

    Attributes:
        boxes: boxes examined.
        open: boxes still open.
        seconds: time so far.
        depth: levels of the tree.
        worst: lower bound on the slack over all open boxes.
        box: the open box where that is, a list of (lo, hi).
    """

    boxes: int
    open: int
    seconds: float
    depth: int
    worst: float
    box: list[tuple[float, float]] | None

    @property
    def rate(self) -> float:
        """Boxes per second."""
        return self.boxes / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        where = "" if self.box is None else f", worst open box {self.worst:.3g} at {_show(self.box)}"
        return (
            f"{self.boxes:,} boxes, {self.rate:,.0f} boxes/s, {self.open:,} open at depth {self.depth}{where}"
        )


def _show(box: list[tuple[float, float]]) -> str:
    return " x ".join(f"[{a:.6g}, {b:.6g}]" for a, b in box)


@dataclass
class State:
    """The branch and bound between two levels; everything that a resumed run needs.

    Attributes:
        lo: lower corners of the open boxes.
        hi: upper corners.
        tree: codes of the levels done, in breadth-first order.
        boxes: boxes examined.
        worst: the open box with the lowest bound (its bound and its row), of the last level.
        witness: a point where the slack is certainly negative, if one was met.
        seconds: time spent in earlier runs.
        floor: lower bound on the slack over the open boxes.
    """

    lo: Array
    hi: Array
    tree: list[Array] = field(default_factory=list)
    boxes: int = 0
    worst: tuple[float, list[tuple[float, float]]] | None = None
    witness: Array | None = None
    seconds: float = 0.0
    floor: float = -np.inf

    def save(self, path: Path, key: str) -> None:
        """Write the state to a file that `load` reads, atomically."""
        tree = np.concatenate(self.tree) if self.tree else np.zeros(0, np.uint8)
        levels = np.array([len(level) for level in self.tree])
        partial = path.with_suffix(".partial.npz")
        numbers = np.array([self.boxes, self.seconds])
        np.savez_compressed(
            partial, lo=self.lo, hi=self.hi, tree=tree, levels=levels, numbers=numbers, key=np.array(key)
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, key: str) -> State | None:
        """The state in a file, or None if there is none or it belongs to another condition."""
        if not path.exists():
            return None
        with np.load(path) as stored:
            if str(stored["key"]) != key:
                return None
            tree = np.split(stored["tree"], np.cumsum(stored["levels"])[:-1]) if len(stored["levels"]) else []
            boxes, seconds = stored["numbers"]
            return cls(stored["lo"], stored["hi"], list(tree), int(boxes), seconds=float(seconds))


Runner = Callable[[Task, list[tuple[Array, Array]]], Iterator[Outcome]]


def serial(task: Task, chunks: list[tuple[Array, Array]]) -> Iterator[Outcome]:
    """One chunk after the other."""
    for lo, hi in chunks:
        yield examine(task, lo, hi)


def threads(jobs: int) -> Runner:
    """Chunks on threads: NumPy lets go of the interpreter inside its loops."""

    def run(task: Task, chunks: list[tuple[Array, Array]]) -> Iterator[Outcome]:
        if len(chunks) < 2:
            yield from serial(task, chunks)
            return
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(lambda c: examine(task, *c), chunks)

    return run


def on_dask(scheduler: Any) -> Runner:
    """Chunks on a Dask cluster, given as a client or an address.

    A chunk is a deterministic function of its boxes, so a task that is retried or run twice changes nothing.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InvalidInputError(
            "scheduler", scheduler, "None", "Install Dask with: pip install 'dask[distributed]'."
        ) from error
    client = scheduler if isinstance(scheduler, Client) else Client(scheduler)

    def run(task: Task, chunks: list[tuple[Array, Array]]) -> Iterator[Outcome]:
        if len(chunks) < 2:
            yield from serial(task, chunks)
            return
        # The task is a few kilobytes and goes with every chunk: scattered data may be released between two levels.
        futures = [client.submit(examine, task, lo, hi, pure=False) for lo, hi in chunks]
        for future in futures:
            yield future.result()

    return run


@dataclass(frozen=True)
class Limits:
    """When to stop and whom to tell.

    Attributes:
        seconds: time budget.
        boxes: box budget.
        runner: how chunks are run.
        report: called after every chunk with a `Progress`.
        checkpoint: file that receives the state between levels.
        key: what the checkpoint belongs to.
    """

    seconds: float
    boxes: int
    runner: Runner = serial
    report: Callable[[Progress], None] | None = None
    checkpoint: Path | None = None
    key: str = ""


def search(task: Task, state: State, limits: Limits) -> State:
    """Continue until no box is open, a violation is met, or the budget is spent."""
    started, before = time.perf_counter(), state.seconds
    saved = started
    try:
        while len(state.lo) and state.witness is None:
            spent = time.perf_counter() - started
            if spent > limits.seconds or state.boxes + len(state.lo) > limits.boxes:
                break
            if not _level(task, state, limits, started, before):
                break
            now = time.perf_counter()
            if limits.checkpoint is not None and now - saved > 5:
                state.seconds, saved = before + now - started, now
                state.save(limits.checkpoint, limits.key)
    finally:
        state.seconds = before + time.perf_counter() - started
        if limits.checkpoint is not None:
            state.save(limits.checkpoint, limits.key)
    return state


def _level(task: Task, state: State, limits: Limits, started: float, before: float) -> bool:
    """Examine every open box once. Returns False, and changes nothing, if the time ran out on the way."""
    lo, hi = state.lo, state.hi
    starts = range(0, len(lo), CHUNK)
    chunks = [(lo[s : s + CHUNK], hi[s : s + CHUNK]) for s in starts]
    outcomes: list[Outcome] = []
    floor, worst, witness = np.inf, None, None
    done = 0
    for (a, b), outcome in zip(chunks, limits.runner(task, chunks), strict=True):
        outcomes.append(outcome)
        done += len(a)
        still = outcome.codes < NATURAL
        if still.any():
            i = int(np.argmin(np.where(still, outcome.lower, np.inf)))
            if outcome.lower[i] < floor or worst is None:
                floor = float(outcome.lower[i])
                worst = (floor, list(zip(a[i].tolist(), b[i].tolist(), strict=True)))
            bad = np.flatnonzero(outcome.centres < 0)
            if bad.size and witness is None:
                k = bad[np.argmin(outcome.centres[bad])]
                witness = a[k] + 0.5 * (b[k] - a[k])
        now = time.perf_counter() - started
        if limits.report is not None:
            box = None if worst is None else worst[1]
            open_ = sum(int((o.codes < NATURAL).sum()) for o in outcomes) + len(lo) - done
            limits.report(Progress(state.boxes + done, open_, before + now, len(state.tree) + 1, floor, box))
        if witness is None and now > limits.seconds and done < len(lo):
            return False
    codes = np.concatenate([o.codes for o in outcomes])
    score = np.concatenate([o.score for o in outcomes])
    state.tree.append(codes)
    state.boxes += len(lo)
    still = codes < NATURAL
    lo, hi, split, score = lo[still], hi[still], codes[still].astype(np.intp), score[still]
    while len(lo):
        lo, hi = split_boxes(lo, hi, split)
        # NumPy's cost is per call while boxes are few: then they are split again at once.
        if len(lo) > FEW:
            break
        score[np.arange(len(score)), split] /= 2
        score = np.repeat(score, 2, axis=0)
        split = np.argmax(score, axis=1)
        if 2 * len(lo) > 8 * max(1, int(still.sum())):
            break
        state.tree.append(split.astype(np.uint8))
    state.lo, state.hi = lo, hi
    state.worst, state.witness, state.floor = worst, witness, floor
    return True
