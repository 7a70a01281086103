"""Chunks of boxes on other processes of this machine.

Threads do not serve: on chunks of this size they mostly wait for the interpreter. Nor does `multiprocessing`, which imports the user's script
again or forks a process that runs JAX. A worker is a fresh interpreter that reads tasks and chunks from a pipe and writes outcomes to
another; it ends when its pipe is closed, so also when the process that started it ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from .boxes import Chunks, Outcome, Task, examine_all
from .lattice import Axes, Boxes
from .search import BATCH, serial


class Workers:
    """A runner for `search` on several processes; they start with the first level of more than a few chunks.

    While they load, chunks are examined here. A chunk is a deterministic function of its boxes, so the outcome does not depend on
    where it was examined, and what a worker that dies leaves behind is examined here, too.

    Args:
        jobs: how many.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs, self.started = jobs, False
        self.workers: list[_Worker] = []

    def __call__(self, task: Task, chunks: Chunks) -> Iterator[Outcome]:
        """Examine the chunks; outcomes come in their order."""
        if len(chunks) < 2 * self.jobs:
            yield from serial(task, chunks)
            return
        if not self.started:
            self.started = True
            self.workers = [_Worker() for _ in range(self.jobs)]
        ready = [w for w in self.workers if w.is_ready()]
        if not ready:
            yield from serial(task, chunks)
            return
        size = max(1, min(BATCH, len(chunks) // (2 * len(ready))))
        batches = [chunks[i : i + size] for i in range(0, len(chunks), size)]
        for worker, batch in zip(ready, batches, strict=False):
            worker.send(task, batch)
        for k, batch in enumerate(batches):
            worker = ready[k % len(ready)]
            outcomes = worker.receive()
            if k + len(ready) < len(batches):
                worker.send(task, batches[k + len(ready)])
            yield from serial(task, batch) if outcomes is None else outcomes

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.close()
        self.workers = []


class _Worker:
    """One process and its pipes."""

    def __init__(self) -> None:
        place = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=place,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.to: BinaryIO = self.process.stdin  # type: ignore[assignment]
        self.back: BinaryIO = self.process.stdout  # type: ignore[assignment]
        self.ready = self.alive = False
        self.task: Task | None = None
        self.axes: Axes | None = None
        self.sizes: list[int] = []
        self.number = 0

    def is_ready(self) -> bool:
        """Whether it has loaded and lives; does not wait."""
        if self.alive or self.ready:
            return self.alive
        if select.select([self.back], [], [], 0)[0]:
            self.ready = True
            self.alive = self.back.read(1) == b"!"
        return self.alive

    def send(self, task: Task, batch: Chunks) -> None:
        """A batch, with the task where it is another one than before, and the intervals that were not sent before."""
        self.number += 1
        axes = batch[0][0].axes
        new = axes is not self.axes
        intervals = axes.since([0] * len(axes.lo) if new else self.sizes)
        numbers = [(boxes.ids, *more) for boxes, *more in batch]
        try:
            message = (self.number, None if task is self.task else task, new, intervals, numbers)
            pickle.dump(message, self.to, pickle.HIGHEST_PROTOCOL)
            self.to.flush()
            self.task, self.axes, self.sizes = task, axes, axes.sizes()
        except OSError:
            self.alive = False

    def receive(self) -> list[Outcome] | None:
        """The outcomes of the batch sent last; None from a process that has died.

        A search that ran out of time leaves answers in the pipe: those with another number belong to other boxes and are dropped.
        """
        number, answer = 0, None
        while self.alive and number != self.number:
            try:
                number, answer = pickle.load(self.back)
            except (OSError, EOFError, pickle.UnpicklingError):
                self.alive = False
        if not self.alive:
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """End it."""
        for pipe in (self.to, self.back):
            with contextlib.suppress(OSError):  # it died with a message in the pipe
                pipe.close()
        self.process.terminate()
        self.process.wait()


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer batches until the pipe is closed."""
    sink.write(b"!")
    sink.flush()
    task: Any = None
    axes = Axes([], [])
    while True:
        try:
            number, other, new, intervals, batch = pickle.load(source)
        except EOFError:
            return
        task = task if other is None else other
        try:
            if new:
                axes = Axes(*intervals)
            else:
                axes.extend(*intervals)
            answer: Any = examine_all(task, [(Boxes(axes, ids), *more) for ids, *more in batch])
        except Exception as error:
            answer = error
        pickle.dump((number, answer), sink, pickle.HIGHEST_PROTOCOL)
        sink.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
