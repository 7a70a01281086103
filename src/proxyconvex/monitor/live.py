"""A live terminal view of a growing log: what `proxyconvex watch` shows."""

from __future__ import annotations

import itertools
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from .conditions import WatchConvexity, watches_of
from .log import LOG_NAME, RunLog
from .words import GRADIENT_WORDS

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

BLOCKS = "▁▂▃▄▅▆▇█"


@final
class Follower:
    """Reads what was appended to a log since the last call; a line that is still being written waits for the next.

    Args:
        where: folder or file; it may not exist yet.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self.where = Path(where)
        self.log = RunLog()
        self._offset, self._rest, self._inode = 0, b"", -1
        self.rate = math.nan
        self._seen: tuple[float, int] | None = None

    @property
    def path(self) -> Path:
        """The file that is read."""
        return self.where if self.where.suffix == ".jsonl" else self.where / LOG_NAME

    def poll(self) -> bool:
        """Read on; True if something was new."""
        path = self.path
        if not path.is_file():
            return False
        status = path.stat()
        if status.st_ino != self._inode or status.st_size < self._offset:  # another run took the name
            self.log = RunLog(path=path)
            self._offset, self._rest, self._inode, self._seen = 0, b"", status.st_ino, None
        with path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                self.log.add_line(line.decode("utf-8", "replace"))
        self._clock()
        return bool(lines)

    def _clock(self) -> None:
        if not self.log.records:
            return
        now, step = time.monotonic(), self.log.records[-1]["step"]
        if self._seen is not None and step > self._seen[1]:
            self.rate = (step - self._seen[1]) / max(now - self._seen[0], 1e-9)
        if self._seen is None or step > self._seen[1]:
            self._seen = (now, step)


def sparkline(values: list[float], width: int = 60) -> str:
    """Values as blocks between their smallest and largest, the mean of each of at most ``width`` stretches."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    count = min(width, len(finite))
    cuts = [round(k * len(finite) / count) for k in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[int((m - low) * scale)] for m in means)


def _show(value: Any) -> str:
    return "-" if not isinstance(value, int | float) else f"{value:.4g}"


def view(log: RunLog, rate: float = math.nan) -> RenderableType:
    """The state of a log as one panel."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.panel import Panel
    from rich.table import Table

    if not log.records:
        return Panel("waiting for the first record", title="proxyconvex watch")
    last, t = log.records[-1], log.totals
    ended = log.ended
    state = f"ended: {ended['reason']}" if ended else "running (or killed)"
    speed = f", {rate:,.0f} steps/s" if math.isfinite(rate) and not ended else ""
    seen = last["gradient"]
    words = ", ".join(GRADIENT_WORDS[k] for k in seen.split("+"))
    values = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for name in ("now", "", "over the run"):
        values.add_column(name, justify="left" if name != "" else "right")
    for key, label in (
        ("loss", "loss of the batch"),
        ("grad_sq", f"||g||^2, {seen} gradient"),
        ("eta", "step size"),
        ("slope", "mean |loss'|"),
        ("error", "error"),
    ):
        _, column = log.column(key)
        if column:
            values.add_row(label, _show(column[-1]), sparkline(column))
    for c in log.header["comparators"]:
        _, column = log.column("dist_sq", c)
        if column:
            far = [math.sqrt(max(v, 0.0)) for v in column]
            values.add_row(f"||w - v||, v = {escape(c)}", _show(far[-1]), sparkline(far))
    lines: list[Any] = [f"step {last['step']:,} {state}{speed}", f"gradient seen: {seen} ({words})", values]
    lines += [_ledger_line(c, track) for c, track in t.get("tracks", {}).items()]
    lines += _condition_lines(log)
    if t.get("skipped"):
        lines.append(f"{t['skipped']:,} steps skipped")
    if t.get("first_nonfinite", -1) >= 0:
        lines.append(f"[bold red]not finite from step {t['first_nonfinite']:,} on[/]")
    title = escape(str(log.path.parent if log.path else "proxyconvex watch"))
    return Panel(Group(*lines), title=title, title_align="left")


def _ledger_line(comparator: str, track: dict[str, Any]) -> str:
    from rich.markup import escape

    colour = {"HOLDS": "green", "FALSIFIED": "bold red"}.get(track["status"], "yellow")
    what = {"HOLDS": "adds up", "FALSIFIED": "BROKEN", "INCONCLUSIVE": "not checked at every step"}.get(
        track["status"], "not checked yet"
    )
    share = (
        f", largest gap {100 * track['share']:.2g}% of what rounding allows, {track['checks']:,} comparisons"
        if track["checks"]
        else ""
    )
    return f"ledger T7, v = {escape(comparator)}: [{colour}]{what}[/]{share}"


def _condition_lines(log: RunLog) -> list[str]:
    from rich.markup import escape

    watches, lines = watches_of(log.header), []
    for tally in log.totals.get("convexity", []):
        watch = watches[tally["watch"]]
        formula = watch.formula if isinstance(watch, WatchConvexity) else ""
        good = tally["violations"] == 0
        state = (
            "[green]held[/]"
            if good
            else f"[bold red]violated {tally['violations']:,} times[/], last at step {tally['last_violation']:,}"
        )
        where = f"{escape(watch.name)}, v = {escape(tally['comparator'])}"
        lines.append(
            f"{where}: {state} in {tally['checks']:,} steps, smallest slack {tally['least']:.3g}  [dim]{escape(formula)}[/]"
        )
    for tally in log.totals.get("pl", []):
        lines.append(f"{escape(tally['watch'])}: mu = {tally['least']:.3g} so far, full-batch gradients")
    return lines


def watch(
    console: Console, where: str | os.PathLike[str], *, once: bool = False, interval: float = 0.5
) -> None:
    """Follow a log until its run ends (or Ctrl-C).

    Args:
        console: where to draw.
        where: folder or file; unless ``once``, it may not exist yet.
        once: draw what is there and return.
        interval: seconds between looks.
    """
    follower = Follower(where)
    if once:
        from .log import log_path

        log_path(where)
        follower.poll()
        console.print(view(follower.log))
        return
    from rich.live import Live

    with Live(view(follower.log), console=console, refresh_per_second=4, transient=False) as live:
        try:
            while follower.log.ended is None:
                if follower.poll():
                    live.update(view(follower.log, follower.rate))
                if follower.log.ended is None:
                    time.sleep(interval)
        except KeyboardInterrupt:
            live.update(view(follower.log))
