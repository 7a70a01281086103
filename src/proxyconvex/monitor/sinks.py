"""Further receivers of a monitor's records: TensorBoard, and a Parquet file at the end of the run."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from ..core.errors import InvalidInputError
from .log import RunLog


def flat(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of a record, one by one: ``("dist_sq/init", 0.5)`` for a value by comparator."""
    for key, value in record.items():
        if key in ("totals", "event"):
            continue
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", v) for name, v in value.items())
        elif isinstance(value, list | tuple):
            yield from ((f"{key}/{k}", v) for k, v in enumerate(value))
        else:
            yield key, value


@final
class TensorBoardSink:
    """Passes every line of the log to a TensorBoard writer as ``proxyconvex/<gradient seen>/<name>`` or ``proxyconvex/<name>``.

    Args:
        writer: anything with ``add_scalar(tag, value, step)``, such as ``torch.utils.tensorboard.SummaryWriter``; it stays open.
        prefix: first part of the tags.
    """

    def __init__(self, writer: Any, prefix: str = "proxyconvex") -> None:
        if not callable(getattr(writer, "add_scalar", None)):
            raise InvalidInputError("writer", writer, "an object with add_scalar(tag, value, step)")
        self.writer, self.prefix = writer, prefix

    def record(self, record: Mapping[str, Any]) -> None:
        """See `log.Sink`."""
        seen = record.get("gradient", "")
        for key, value in flat(record):
            if key == "step" or isinstance(value, bool | str) or value is None or not math.isfinite(value):
                continue
            of_gradient = "grad" in key or key.startswith("parts_")
            tag = f"{self.prefix}/{seen}/{key}" if of_gradient and seen else f"{self.prefix}/{key}"
            self.writer.add_scalar(tag, value, record["step"])

    def close(self) -> None:
        """Hand what is buffered to the disk."""
        flush = getattr(self.writer, "flush", None)
        if callable(flush):
            flush()


@final
class ParquetSink:
    """Writes the lines of the log as one Parquet table when the run ends (the JSON lines are there all along).

    Args:
        path: file to write.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []

    def record(self, record: Mapping[str, Any]) -> None:
        """See `log.Sink`."""
        self.rows.append(dict(flat(record)))

    def close(self) -> None:
        """Write the table."""
        write_rows(self.rows, self.path)


def write_parquet(log: RunLog, path: str | os.PathLike[str]) -> Path:
    """A log as a Parquet table: one row a recorded step, columns such as ``dist_sq/init``."""
    return write_rows([dict(flat(r)) for r in log.records], Path(path))


def write_rows(rows: list[dict[str, Any]], path: Path) -> Path:
    """Rows with differing keys as one table; what a row lacks is null."""
    import polars as pl

    path.parent.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(k for r in rows for k in r)
    table = {n: [_number(r.get(n)) for r in rows] for n in names}
    pl.DataFrame(table, strict=False).write_parquet(path)
    return path


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
