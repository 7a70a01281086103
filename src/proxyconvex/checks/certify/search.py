"""Interval branch and bound: prove a residual >= 0 box by box, and record the subdivision.

The tree is written breadth first, one byte a node: ``0..5`` bisects that coordinate at the float midpoint, the letters of
`boxes.TESTS` close the box. Boxes are never stored, so that the leaves cover the region is true by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InvalidInputError
from .. import deadline
from .boxes import CENTRED, FORM, NATURAL, OUTSIDE, Outcome, Task, doubled, examine, largest, split_boxes

Array = np.ndarray

FEW = 256
HOPELESS = 20_000
PLAIN, RARE = 2, 0.05
"""After a level whose gradients closed less than this share of the boxes, so many levels do without."""
MAX_DIMENSION = 6


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
        score: how much each coordinate of the open boxes matters, from the last gradients that covered them.
        plain: how many of the coming levels do without gradients.
        below: a proved lower bound on the slack over each open box, from the box it is half of; None where the tests bound
            something else.
    """

    lo: Array
    hi: Array
    tree: list[Array] = field(default_factory=list)
    boxes: int = 0
    worst: tuple[float, list[tuple[float, float]]] | None = None
    witness: Array | None = None
    seconds: float = 0.0
    floor: float = -np.inf
    score: Array | None = None
    plain: int = 0
    below: Array | None = None

    def save(self, path: Path, key: str) -> None:
        """Write the state to a file that `load` reads, atomically."""
        tree = np.concatenate(self.tree) if self.tree else np.zeros(0, np.uint8)
        levels = np.array([len(level) for level in self.tree])
        partial = path.with_suffix(".partial.npz")
        numbers = np.array([self.boxes, self.seconds, self.plain])
        score = np.zeros(0) if self.score is None else self.score
        below = np.zeros(0) if self.below is None else self.below
        np.savez_compressed(
            partial,
            lo=self.lo,
            hi=self.hi,
            tree=tree,
            levels=levels,
            numbers=numbers,
            score=score,
            below=below,
            key=np.array(key),
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
            boxes, seconds, plain = stored["numbers"]
            score, below = (stored[k] if k in stored and stored[k].size else None for k in ("score", "below"))
            return cls(
                stored["lo"],
                stored["hi"],
                list(tree),
                int(boxes),
                seconds=float(seconds),
                score=score,
                plain=int(plain),
                below=below,
            )


Chunks = list[tuple[Array, ...]]
Runner = Callable[[Task, Chunks], Iterator[Outcome]]


def serial(task: Task, chunks: Chunks) -> Iterator[Outcome]:
    """One chunk after the other."""
    for chunk in chunks:
        yield examine(task, *chunk)


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

    def run(task: Task, chunks: Chunks) -> Iterator[Outcome]:
        if len(chunks) < 2:
            yield from serial(task, chunks)
            return
        # The task is a few kilobytes and goes with every chunk: scattered data may be released between two levels.
        futures = [client.submit(examine, task, *chunk, pure=False) for chunk in chunks]
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
    started, before = deadline.clock(), state.seconds
    saved = started
    try:
        while len(state.lo) and state.witness is None:
            spent = deadline.clock() - started
            if spent > limits.seconds or state.boxes + len(state.lo) > limits.boxes:
                break
            if not _level(task, state, limits, started, before) or _hopeless(task, state):
                break
            now = deadline.clock()
            if limits.checkpoint is not None and now - saved > 5:
                state.seconds, saved = before + now - started, now
                state.save(limits.checkpoint, limits.key)
    finally:
        state.seconds = before + deadline.clock() - started
        if limits.checkpoint is not None:
            state.save(limits.checkpoint, limits.key)
    return state


def _hopeless(task: Task, state: State) -> bool:
    """Whether smoothness fails at a single point of an open box, so that no subdivision closes it.

    Enclosures at a point lie in those on every box around it. The search goes on for a while, so that what is proved is tight.
    """
    if task.slack is not None or task.curved is None or state.boxes < HOPELESS or not len(state.lo):
        return False
    some = slice(None, None, max(1, len(state.lo) // 256))
    centre = state.lo[some] + 0.5 * (state.hi[some] - state.lo[some])
    inside = np.ones(len(centre), bool)
    for low, _ in () if task.domain is None else task.domain.values(centre, centre):
        inside &= low >= 0
    return bool((inside & ~task.curved.closes(centre, centre)[0]).any())


def _level(task: Task, state: State, limits: Limits, started: float, before: float) -> bool:
    """Examine every open box once. Returns False, and changes nothing, if the time ran out on the way."""
    lo, hi = state.lo, state.hi
    # Gradients cost several times a plain enclosure. Where they close next to nothing, the next levels do without.
    plain = state.plain > 0 and state.score is not None and task.slack is not None
    arrays = (lo, hi, state.score) if plain else (lo, hi)
    rows = task.rows
    chunks = [tuple(x[s : s + rows] for x in arrays) for s in range(0, len(lo), rows)]  # type: ignore[union-attr]
    outcomes: list[Outcome] = []
    floor, worst, witness = np.inf, None, None
    done = 0
    for (a, b, *_), outcome in zip(chunks, limits.runner(task, chunks), strict=True):
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
        now = deadline.clock() - started
        if limits.report is not None:
            box = None if worst is None else worst[1]
            open_ = sum(int((o.codes < NATURAL).sum()) for o in outcomes) + len(lo) - done
            limits.report(Progress(state.boxes + done, open_, before + now, len(state.tree) + 1, floor, box))
        if witness is None and now > limits.seconds and done < len(lo):
            return False
    codes = np.concatenate([o.codes for o in outcomes])
    score = np.concatenate([o.score for o in outcomes])
    below = np.concatenate([o.lower for o in outcomes])
    state.tree.append(codes)
    state.boxes += len(lo)
    still = codes < NATURAL
    by_gradient = np.count_nonzero((codes >= CENTRED) & (codes != FORM) & (codes != OUTSIDE))
    state.plain = (
        state.plain - 1 if plain else PLAIN if by_gradient < RARE * len(codes) and len(codes) > FEW else 0
    )
    rows = np.flatnonzero(still)
    lo, hi, score, split = lo[rows], hi[rows], score[rows], codes[rows].astype(np.intp)
    below = np.fmax(below[rows], state.below[rows]) if state.below is not None else below[rows]
    while len(lo):
        lo, hi = split_boxes(lo, hi, split)
        score[np.arange(len(score)), split] /= 2
        score, below = doubled(score), doubled(below)
        # NumPy's cost is per call while boxes are few: then they are split again at once.
        if len(lo) > FEW or 2 * len(lo) > 8 * max(1, int(still.sum())):
            break
        split = largest(score).astype(np.intp)
        state.tree.append(split.astype(np.uint8))
    state.score = score
    state.below = below if task.slack is not None and task.form is None else None
    state.lo, state.hi = lo, hi
    state.worst, state.witness, state.floor = worst, witness, floor
    return True
