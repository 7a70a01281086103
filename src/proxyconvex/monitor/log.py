"""The log of a monitored run: JSON lines written as the run goes, read back even if the last line is torn."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

from ..core.errors import InvalidInputError

FORMAT = 1
LOG_NAME = "monitor.jsonl"
_encode = json.JSONEncoder(allow_nan=False).encode


class Sink(Protocol):
    """Something that takes the records as well, such as a TensorBoard writer."""

    def record(self, record: Mapping[str, Any]) -> None:
        """One record of a step."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...


def plain(value: Any) -> Any:
    """JSON values only: numbers that are not finite become the strings "nan", "inf" and "-inf"."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str | int | bool) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "size", None) in (1, None):
        return plain(value.item())
    return str(value)


_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _restored(value: Any) -> Any:
    if isinstance(value, str):
        return _SPECIAL.get(value, value)
    if isinstance(value, dict):
        return {k: _restored(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_restored(v) for v in value]
    return value


@final
class LogWriter:
    """Appends one line a record and hands it to the operating system at once: a killed process keeps what it had.

    The file is opened at the first line. A log that is already there is moved to ``monitor-1.jsonl`` (2, 3, ...) unless the run
    resumes it.

    Args:
        folder: folder of the log; created.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOG_NAME
        self._file: Any = None
        self.started = False

    def open(self, header: Mapping[str, Any], resume_at: int | None = None) -> None:
        """Start (or, from a step on, continue) the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        existing = self.path.exists() and self.path.stat().st_size > 0
        if existing and resume_at is None:
            self._move_away()
        torn = existing and resume_at is not None and not _ends_with_newline(self.path)
        self._file = self.path.open("ab")
        if torn:
            self._file.write(b"\n")
        self.started = True
        event = "start" if resume_at is None else "resume"
        at = {} if resume_at is None else {"step": resume_at}
        self.line({"event": event, "format": FORMAT, **at, **header})

    def _move_away(self) -> None:
        k = 1
        while (old := self.folder / f"monitor-{k}.jsonl").exists():
            k += 1
        self.path.rename(old)

    @property
    def is_open(self) -> bool:
        """Whether lines can be written."""
        return self._file is not None

    def line(self, record: Mapping[str, Any]) -> None:
        """Write one record."""
        try:
            text = _encode(record)
        except (ValueError, TypeError):
            text = _encode(plain(record))
        self._file.write((text + "\n").encode())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@final
@dataclass
class RunLog:
    """What a log holds.

    Attributes:
        header: comparators, preset, precision and whatever the adapter said about the run.
        records: one dict a recorded step, steps increasing. Records that a resumed run took again appear once, as taken again.
        ended: the closing record, None if the run is going on or was killed.
        totals: the running sums as last written.
        history: ``(step, totals)`` of every line that carried the sums.
        torn: lines that could not be read (a process killed while writing leaves at most one, the last).
        path: the file.
    """

    header: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    ended: dict[str, Any] | None = None
    torn: int = 0
    totals: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    path: Path | None = None

    def add_line(self, text: str) -> None:
        """Take in one line."""
        try:
            record = _restored(json.loads(text))
        except json.JSONDecodeError:
            record = None
        if isinstance(record, dict):
            self.take(record)
        else:
            self.torn += 1

    def take(self, record: dict[str, Any]) -> None:
        """Take in one record."""
        event = record.get("event")
        if event == "start":
            self.header, self.records, self.ended, self.totals, self.history = record, [], None, {}, []
        elif event == "resume":
            at = record["step"]
            self.header = {**self.header, **record}
            self.records = [r for r in self.records if r["step"] < at]
            self.history = [h for h in self.history if h[0] < at]
            self.totals = self.history[-1][1] if self.history else {}
            self.ended = None
        elif event == "end":
            self.ended, self.totals = record, record.get("final", self.totals)
            self.history.append((record["step"], self.totals))
        elif "step" in record:
            if "totals" in record:
                self.totals = record["totals"]
                self.history.append((record["step"], self.totals))
            self.records.append({k: v for k, v in record.items() if k != "totals"})
        else:
            self.torn += 1

    def column(self, key: str, comparator: str | None = None) -> tuple[list[int], list[float]]:
        """Steps and values of one recorded key, where it was recorded."""
        steps, values = [], []
        for r in self.records:
            value = r.get(key)
            if isinstance(value, dict):
                value = value.get(comparator)
            if isinstance(value, int | float):
                steps.append(r["step"])
                values.append(float(value))
        return steps, values


def log_path(where: str | os.PathLike[str]) -> Path:
    """The log file of a folder, or the file itself.

    Raises:
        InvalidInputError: if there is none.
    """
    path = Path(where)
    path = path / LOG_NAME if path.is_dir() else path
    if not path.is_file():
        raise InvalidInputError(
            "log", os.fspath(where), f"a folder that holds {LOG_NAME}, or such a file",
            "Pass the log_dir of the monitor.",
        )  # fmt: skip
    return path


def read_log(where: str | os.PathLike[str]) -> RunLog:
    """Read a log, finished or not.

    Args:
        where: folder or file.

    Raises:
        InvalidInputError: if there is no log, or nothing in it can be read.
    """
    path = log_path(where)
    log = RunLog(path=path)
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip():
                log.add_line(line)
    if not log.header:
        raise InvalidInputError(
            "log",
            os.fspath(path),
            "a log written by proxyconvex.monitor",
            f"{log.torn} lines could not be read.",
        )
    return log
