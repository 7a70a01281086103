"""The progress bar and the polite Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """While active, the first Ctrl-C only sets ``requested`` and a second one interrupts at once.

    The loop looks at ``requested`` between two chunks, so that what was done is kept. Outside the main thread,
    Ctrl-C is left alone.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None
        self._active = False

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._active = True
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping after this chunk of steps (Ctrl-C again: at once)", file=sys.stderr)

    def __exit__(
        self, kind: type | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._active:
            # A handler installed by C code reads back as None and cannot be put back.
            signal.signal(
                signal.SIGINT, self._previous if self._previous is not None else signal.default_int_handler
            )


class Bar:
    """A progress bar on standard error with rate, time left, loss and error; does nothing if not ``shown``.

    Args:
        total: number of steps.
        done: steps already done.
        shown: whether to draw.
    """

    def __init__(self, total: int, done: int, shown: bool) -> None:
        self._progress: Any = None
        if not shown:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Any) -> Text:
                speed = task.finished_speed or task.speed
                return Text("" if not speed else f"{speed:,.0f} steps/s")

        self._progress = Progress(
            TextColumn("training"), BarColumn(), TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), Rate(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._progress.add_task("training", total=total, completed=done, note="compiling")

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def update(self, done: int, loss: float, error: float) -> None:
        """Show that ``done`` steps are done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=f"loss {loss:.3g}, error {error:.3g}")

    def __exit__(
        self, kind: type | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
