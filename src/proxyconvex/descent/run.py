"""Train and record: gradient descent and SGD on a `Problem`, from one compiled loop."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ..core.errors import InvalidInputError
from ..core.methods import Method
from ..families.base import Problem
from .engine import Engine, Flight, check_weights, prepare
from .live import Bar, Interruption
from .recorder import ERROR, LOSS, Recorder
from .sampling import check_seed, record_steps
from .trace import Trace, write_npz

CHECKPOINT = "proxyconvex-checkpoint-1"


def train(
    problem: Problem,
    initial: np.ndarray,
    method: Method,
    *,
    seed: int = 0,
    record_every: int | None = None,
    online: bool = False,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    chunk: int | None = None,
) -> Trace:
    """Train with a gradient method and record everything the guarantees speak of.

    All arithmetic is float64. Sums, minima and maxima are over every step whatever is recorded. The same arguments
    give the same bytes on the same machine with the same number of threads. Ctrl-C stops after the chunks under
    way (at most two) and returns what was done, with ``trace.interrupted``. A value that overflows stops the run, with ``trace.finite``
    False.

    Args:
        problem: data, model, loss, proxies and comparator; arrays in float64.
        initial: initial weights, of the comparator's shape.
        method: `GradientDescent` or `SGD`.
        seed: sampling seed of SGD; the rows of step t depend on ``(seed, t)`` only.
        record_every: spacing of the records in steps; None for every step of a short run and about 2000 records of
            a long one. Each record of SGD costs one pass over all data.
        online: also keep the values on the rows used at *every* step, in ``trace.online`` (72 bytes a step).
        progress: show a progress bar on standard error.
        checkpoint: ``.npz`` file that is replaced atomically after chunks of steps (at most about once a second), at
            the end and on Ctrl-C.
        resume: go on from ``checkpoint`` if it exists; the final result has the same bytes as without the stop.
        chunk: steps per compiled call; by default chosen from the shapes.

    Returns:
        The trace, with the final and the best weights.

    Raises:
        InvalidInputError: for wrong shapes or types, one pass that is too long, or a checkpoint of another run.
    """
    with jax.enable_x64(True):
        ready = prepare(problem)
        w = check_weights(initial, problem.comparator)
        engine = Engine(ready, method, [check_seed(seed)], False, chunk)
        return _Session(engine, w, record_every, online).run(progress, checkpoint, resume)[0]


def train_many(
    problem: Problem,
    initials: np.ndarray | Sequence[np.ndarray],
    method: Method,
    seeds: Sequence[int] | None = None,
    *,
    record_every: int | None = None,
    online: bool = False,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    chunk: int | None = None,
) -> list[Trace]:
    """Many runs at once, vectorised over sampling seeds and initial weights.

    Args:
        problem: as for `train`; the comparator is shared.
        initials: one array of weights for all runs, or one per run.
        method: as for `train`.
        seeds: one sampling seed per run; by default 0 for each of ``initials``.
        record_every: as for `train`.
        online: as for `train`.
        progress: as for `train`.
        checkpoint: as for `train`.
        resume: as for `train`.
        chunk: as for `train`.

    Returns:
        One trace per run, in order, equal to that of `train` up to rounding; ``best_w`` is None.

    Raises:
        InvalidInputError: as for `train`, or if the numbers of seeds and initial weights differ.
    """
    with jax.enable_x64(True):
        ready = prepare(problem)
        shape = np.shape(problem.comparator)
        stack = np.array(initials, dtype=np.float64)
        if stack.shape == shape:
            stack = np.broadcast_to(stack, (1 if seeds is None else len(seeds), *shape))
        seeds = [0] * len(stack) if seeds is None else [check_seed(s) for s in seeds]
        if len(seeds) != len(stack) or not len(stack):
            raise InvalidInputError(
                "seeds", seeds, "one per run", f"There are initial weights for {len(stack)} runs."
            )
        w = np.stack([check_weights(a, problem.comparator, "initials") for a in stack])
        engine = Engine(ready, method, seeds, True, chunk)
        return _Session(engine, w, record_every, online).run(progress, checkpoint, resume)


class _Session:
    """One call of `train` or `train_many`: the loop over chunks."""

    def __init__(self, engine: Engine, initial: np.ndarray, record_every: int | None, online: bool) -> None:
        self.engine, self.initial, self.online = engine, initial, online
        engine.tabulate(initial)
        self.steps = engine.method.steps
        schedule = record_steps(self.steps, record_every)
        # The last step has its own record in `Recorder.finish`.
        rows = len(engine.problem.targets)
        self.recorders = [Recorder(engine.method, schedule[:-1], online, rows) for _ in engine.seeds]
        self.schedule = schedule
        self.done = 0
        self.w = jnp.asarray(initial)
        self.best: tuple[int, jax.Array] = (0, self.w)
        # Runs that overflowed: step and weights there.
        self.bad: dict[int, tuple[int, jax.Array]] = {}
        self.interrupted = False
        self.saved_at, self.save_cost = -np.inf, 0.0
        self.watched: list[dict[str, float]] = []

    def run(self, progress: bool, checkpoint: str | os.PathLike[str] | None, resume: bool) -> list[Trace]:
        key = ""
        if checkpoint is not None:
            key = self.engine.fingerprint(self.initial, self.schedule, self.online)
            if resume and Path(checkpoint).exists():
                self._restore(Path(checkpoint), key)
        elif resume:
            raise InvalidInputError("checkpoint", None, "a file name when resume=True")
        with (
            Interruption() as stop,
            Bar(self.steps, self.done, progress) as bar,
            ThreadPoolExecutor(1) as worker,
        ):
            flight = self._next(self.w, self.done)
            while flight is not None:
                # Asked for before this chunk has ended, the next one follows it without a pause. JAX runs what one
                # thread asks for one after the other: asked for by another thread, the numbers of this chunk do not
                # wait for the next one, and are recorded while it is computed.
                ahead = None if stop.requested else self._next(flight.after, flight.start + flight.count)
                loss, error = self._land(flight, *worker.submit(self.engine.numbers, flight).result())
                if len(self.bad) == len(self.recorders):
                    break
                self.done, self.w = flight.start + flight.count, flight.after
                bar.update(self.done, loss, error)
                self.interrupted = ahead is None and self.done < self.steps
                if checkpoint is not None:
                    self._save(checkpoint, key, force=ahead is None)
                flight = ahead
        return self._traces()

    def _next(self, w: jax.Array, start: int) -> Flight | None:
        count = min(self.engine.chunk, self.steps - start)
        if count <= 0:
            return None
        return self.engine.launch(w, start, count, self.recorders[0].due(start, start + count))

    def _land(self, flight: Flight, columns: np.ndarray, full: np.ndarray | None) -> tuple[float, float]:
        """Record a chunk; returns the loss and error of its last step, for the progress bar."""
        self._watch(flight.start, flight.before)
        for i, recorder in enumerate(self.recorders):
            if i in self.bad:
                continue
            bad = recorder.first_bad(columns[i])
            count = flight.count if bad is None else bad
            at = flight.at[flight.at < flight.start + count]
            improved = recorder.absorb(
                flight.start, columns[i, :, :count], None if full is None else full[i], at
            )
            if improved and not self.engine.many:
                self.best = (flight.start, flight.before)
            if bad is not None:
                w = (
                    self.engine.launch(flight.before, flight.start, count, at).after
                    if count
                    else flight.before
                )
                self.bad[i] = (flight.start + count, w[i] if self.engine.many else w)
        return float(columns[0, LOSS, -1]), float(columns[0, ERROR, -1])

    def _watch(self, step: int, w: jax.Array, last: bool = False) -> None:
        """Ask the problem about an iterate: at steps that about double, and at the end."""
        if type(self.engine.problem).watch is Problem.watch:
            return
        due = last or not self.watched or step >= 2 * self.watched[-1]["step"] + 8
        if self.engine.many or not due:
            return
        said = self.engine.problem.watch(np.asarray(w))
        if said:
            self.watched.append({"step": float(step), **said})

    def _traces(self) -> list[Trace]:
        engine, v = self.engine, np.asarray(self.engine.problem.comparator)
        ends = [
            self.bad.get(i, (self.done, self.w[i] if engine.many else self.w))
            for i in range(len(engine.seeds))
        ]
        last = jnp.stack([w for _, w in ends]) if engine.many else ends[0][1]
        columns, full = engine.measure(last, self.steps)
        if self.done > 0 and not self.bad:
            self._watch(self.done, last, last=True)
        watched = {k: np.array([row[k] for row in self.watched]) for k in (self.watched or [{}])[0]}
        out = []
        for i, recorder in enumerate(self.recorders):
            steps_done, w = ends[i]
            initial = self.initial[i] if engine.many else self.initial
            out.append(
                recorder.finish(
                    steps_done,
                    columns[i],
                    None if full is None else full[i],
                    initial=initial.copy(),
                    final_w=np.array(w),
                    best_w=None if engine.many else self._best(recorder),
                    comparator_norm=float(np.linalg.norm(v)),
                    rows=len(engine.problem.targets),
                    seed=engine.seeds[i],
                    watched=watched,
                    interrupted=self.interrupted and i not in self.bad,
                    finite=i not in self.bad,
                    nonfinite_step=steps_done if i in self.bad else -1,
                )
            )
        return out

    def _best(self, recorder: Recorder) -> np.ndarray:
        """The iterate with the least error, by running the chunk that holds it once more from its start.

        Copying the weights at every improvement inside the loop would cost more than this one chunk at the end.
        """
        start, w = self.best
        count = recorder.min_error_step - start
        return np.array(w if count <= 0 else self.engine.launch(w, start, count, np.array([start])).after)

    def _save(self, path: str | os.PathLike[str], key: str, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self.saved_at < max(1.0, 20 * self.save_cost):
            return
        bad = {f"bad/{i}": np.array(w) for i, (_, w) in self.bad.items()}
        arrays = {
            "format": np.array(CHECKPOINT), "key": np.array(key), "done": np.array(self.done), "w": np.array(self.w),
            "watched": np.array(json.dumps(self.watched)), "best_start": np.array(self.best[0]), "best_w": np.array(self.best[1]),
            "bad_steps": np.array([[i, t] for i, (t, _) in self.bad.items()], dtype=np.int64).reshape(-1, 2), **bad,
        }  # fmt: skip
        for i, recorder in enumerate(self.recorders):
            arrays |= {f"{i}/{k}": a for k, a in recorder.state().items()}
            if self.online:
                arrays[f"{i}/online"] = recorder.online[:, : self.done]
        write_npz(path, arrays)
        self.saved_at, self.save_cost = time.monotonic(), time.monotonic() - now

    def _restore(self, path: Path, key: str) -> None:
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                a = {k: file[k] for k in file.files}
        except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise InvalidInputError(
                "checkpoint", str(path), "a checkpoint that can be read",
                f"It is damaged or no checkpoint ({type(error).__name__}). Remove it to start from the beginning.",
            ) from error  # fmt: skip
        if str(a.get("format")) != CHECKPOINT or str(a.get("key")) != key:
            raise InvalidInputError(
                "checkpoint", str(path), "a checkpoint of this very run (data, weights, method, seed, chunk, records)",
                "Remove the file, or repeat the arguments it was made with.",
            )  # fmt: skip
        self.done, self.w = a["done"].item(), jnp.asarray(a["w"])
        self.watched = json.loads(str(a["watched"])) if "watched" in a else []
        self.best = (a["best_start"].item(), jnp.asarray(a["best_w"]))
        self.bad = {int(i): (int(t), jnp.asarray(a[f"bad/{i}"])) for i, t in a["bad_steps"]}
        for i, recorder in enumerate(self.recorders):
            prefix = f"{i}/"
            state = {k[len(prefix) :]: v for k, v in a.items() if k.startswith(prefix)}
            recorder.restore(state, a.get(f"{i}/online", np.zeros((0, 0))))
