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
from .boxes import CENTRED, FORM, NATURAL, OUTSIDE, Chunks, Outcome, Task, examine, examine_all
from .lattice import Axes, Boxes, compact, doubled, largest

Array = np.ndarray

BATCH = 8
"""Most chunks in one message to another process."""
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
        open: the open boxes.
        tree: codes of the levels done, in breadth-first order.
        boxes: boxes examined.
        worst: the open box with the lowest bound (its bound and its row), of the last level.
        witness: a point where the slack is certainly negative, if one was met.
        seconds: time spent in earlier runs.
        floor: lower bound on the slack over the open boxes.
        score: how much each coordinate of the open boxes matters, from the last gradients that covered them; shape (d, N).
        plain: how many of the coming levels do without gradients.
        below: a proved lower bound on the slack over each open box, from the box it is half of; None where the tests bound
            something else.
    """

    open: Boxes
    tree: list[Array] = field(default_factory=list)
    boxes: int = 0
    worst: tuple[float, list[tuple[float, float]]] | None = None
    witness: Array | None = None
    seconds: float = 0.0
    floor: float = -np.inf
    score: Array | None = None
    plain: int = 0
    below: Array | None = None

    @classmethod
    def whole(cls, lo: Array, hi: Array) -> State:
        """The beginning: one box, given by its corners of shape (1, d)."""
        return cls(Boxes.of(lo, hi))

    def save(self, path: Path, key: str) -> None:
        """Write the state to a file that `load` reads, atomically."""
        axes = self.open.axes
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(
            partial,
            ids=self.open.ids,
            sizes=np.array([len(x) for x in axes.lo]),
            lo=np.concatenate(axes.lo),
            hi=np.concatenate(axes.hi),
            child=np.concatenate(axes.child),
            tree=np.concatenate(self.tree) if self.tree else np.zeros(0, np.uint8),
            levels=np.array([len(level) for level in self.tree]),
            numbers=np.array([self.boxes, self.seconds, self.plain]),
            score=np.zeros(0) if self.score is None else self.score,
            below=np.zeros(0) if self.below is None else self.below,
            key=np.array(key),
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, key: str) -> State | None:
        """The state in a file, or None if there is none or it belongs to another condition (or to another version)."""
        if not path.exists():
            return None
        with np.load(path) as stored:
            if str(stored["key"]) != key or "ids" not in stored:
                return None
            tree = np.split(stored["tree"], np.cumsum(stored["levels"])[:-1]) if len(stored["levels"]) else []
            boxes, seconds, plain = stored["numbers"]
            score, below = (stored[k] if stored[k].size else None for k in ("score", "below"))
            places = np.cumsum(stored["sizes"])[:-1]
            axes = Axes(*(np.split(stored[k], places) for k in ("lo", "hi", "child")))
            return cls(
                Boxes(axes, stored["ids"]),
                list(tree),
                int(boxes),
                seconds=float(seconds),
                score=score,
                plain=int(plain),
                below=below,
            )


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
        # The task is a few kilobytes and goes with every batch: scattered data may be released between two levels.
        size = max(1, min(BATCH, len(chunks) // 4))
        futures = []
        for start in range(0, len(chunks), size):
            batch = chunks[start : start + size]
            boxes = compact([some for some, *_ in batch])
            sent = [(some, *more) for some, (_, *more) in zip(boxes, batch, strict=True)]
            futures.append(client.submit(examine_all, task, sent, pure=False))
        for future in futures:
            yield from future.result()

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
        while len(state.open) and state.witness is None:
            spent = deadline.clock() - started
            if spent > limits.seconds or state.boxes + len(state.open) > limits.boxes:
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
    if task.slack is not None or task.curved is None or state.boxes < HOPELESS or not len(state.open):
        return False
    some = slice(None, None, max(1, len(state.open) // 256))
    part = state.open.part(some)
    lo, hi = part.lo, part.hi
    centre = lo + 0.5 * (hi - lo)
    inside = np.ones(len(centre), bool)
    for low, _ in () if task.domain is None else task.domain.values(centre, centre):
        inside &= low >= 0
    return bool((inside & ~task.curved.closes(centre, centre)[0]).any())


def _level(task: Task, state: State, limits: Limits, started: float, before: float) -> bool:
    """Examine every open box once. Returns False, and changes nothing, if the time ran out on the way."""
    boxes = state.open
    # Gradients cost several times a plain enclosure. Where they close next to nothing, the next levels do without.
    plain = state.plain > 0 and state.score is not None and task.slack is not None
    rows, n = task.rows, len(boxes)
    parts = [slice(s, s + rows) for s in range(0, n, rows)]
    chunks: Chunks = [
        (boxes.part(part), state.score[:, part]) if plain else (boxes.part(part),)  # type: ignore[index]
        for part in parts
    ]
    outcomes: list[Outcome] = []
    floor, worst, refuted = np.inf, None, None
    done = left = 0
    for (some, *_), outcome in zip(chunks, limits.runner(task, chunks), strict=True):
        outcomes.append(outcome)
        done, left = done + len(some), left + len(outcome.lower)
        if len(outcome.lower):
            i = int(np.argmin(outcome.lower))
            if outcome.lower[i] < floor or worst is None:
                floor = float(outcome.lower[i])
                worst = (floor, some.corners(int(np.flatnonzero(outcome.codes < NATURAL)[i])))
        if outcome.refuted is not None and refuted is None:
            refuted = outcome.refuted
        now = deadline.clock() - started
        if limits.report is not None:
            box = None if worst is None else worst[1]
            depth = len(state.tree) + 1
            limits.report(Progress(state.boxes + done, left + n - done, before + now, depth, floor, box))
        if refuted is None and now > limits.seconds and done < n:
            return False
    codes = np.concatenate([o.codes for o in outcomes])
    state.tree.append(codes)
    state.boxes += n
    by_gradient = np.count_nonzero((codes >= CENTRED) & (codes != FORM) & (codes != OUTSIDE))
    state.plain = (
        state.plain - 1 if plain else PLAIN if by_gradient < RARE * len(codes) and len(codes) > FEW else 0
    )
    _split(state, parts, outcomes, left)
    if task.slack is None or task.form is not None:
        state.below = None
    state.worst, state.floor = worst, floor
    state.witness = None if refuted is None else refuted[1]
    return True


def _split(state: State, parts: list[slice], outcomes: list[Outcome], left: int) -> None:
    """Put both halves of the boxes that are still open in the place of the boxes that were."""
    boxes, before = state.open, state.below
    d = len(boxes.ids)
    ids, score = np.empty((d, 2 * left), np.int32), np.empty((d, 2 * left), np.float32)
    below = np.empty(2 * left)
    end = 0
    for part, outcome in zip(parts, outcomes, strict=True):
        rows = np.flatnonzero(outcome.codes < NATURAL)
        place = slice(end, end + 2 * len(rows))
        end += 2 * len(rows)
        split = outcome.codes[rows]
        boxes.part(part).part(rows).halved(split, ids[:, place])
        doubled(_halved_score(outcome.score, split), score[:, place])
        known = outcome.lower if before is None else np.fmax(outcome.lower, before[part][rows])
        doubled(known, below[place])
    boxes = Boxes(boxes.axes, ids)
    # NumPy's cost is per call while boxes are few: then they are split again at once.
    while 0 < len(boxes) <= FEW and 2 * len(boxes) <= 8 * max(1, left):
        split = largest(score)
        state.tree.append(split)
        boxes = boxes.halved(split)
        score, below = doubled(_halved_score(score, split)), doubled(below)
    state.open, state.score, state.below = boxes, score, below


def _halved_score(score: Array, split: Array) -> Array:
    """The scores, halved in the coordinate that is split; the same array."""
    for k, row in enumerate(score):
        row *= np.float32(1) - np.float32(0.5) * (split == k)
    return score
