"""Two-class data from CSV, Parquet and NPZ files, with errors that name the column, the row and the fix."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.errors import InvalidInputError
from .data import Dataset

if TYPE_CHECKING:
    import polars as pl


def load_file(path: Path, target: str | None, *, drop_constant: bool, drop_missing: bool) -> Dataset:
    """Load a file; the arguments are those of `proxyconvex.data.load`.

    Raises:
        InvalidInputError: if it cannot be read or used.
    """
    if not path.is_file():
        raise InvalidInputError("data", str(path), "an existing CSV, Parquet or NPZ file", "Check the path.")
    frame = _read(path)
    if frame.width == 0 or frame.height == 0:
        raise InvalidInputError("data", str(path), "a file with rows and a header", "The file is empty.")
    target = _target_column(frame, target)
    missing = frame.null_count().row(0)
    if any(missing):
        if not drop_missing:
            column = frame.columns[next(j for j, k in enumerate(missing) if k)]
            row = int(np.flatnonzero(frame[column].is_null().to_numpy())[0])
            raise InvalidInputError(
                f"column {column!r}, row {row + 1}", None, "a value in every row",
                f"{sum(missing)} values are missing; fill them in, or drop such rows with --drop-missing.",
            )  # fmt: skip
        frame = frame.drop_nulls()
    labels, targets = _labels(frame, target)
    names = [name for name in frame.columns if name != target]
    if not names:
        raise InvalidInputError("data", str(path), "at least one feature besides the target", "Add feature columns.")
    columns = [_numbers(frame, name) for name in names]
    constant = [name for name, column in zip(names, columns, strict=True) if column.max() == column.min()]
    if constant and not drop_constant:
        raise InvalidInputError(
            f"column {constant[0]!r}", float(columns[names.index(constant[0])][0]), "features that vary",
            f"{len(constant)} feature(s) do not vary; remove them, or drop them with --drop-constant.",
        )  # fmt: skip
    kept = [(name, column) for name, column in zip(names, columns, strict=True) if name not in constant]
    if not kept:
        raise InvalidInputError("data", str(path), "at least one feature that varies", "Every feature is constant.")
    raw = np.column_stack([column for _, column in kept])
    return Dataset(path.name, raw, targets, labels, tuple(name for name, _ in kept), f"file {path.name}")


def _read(path: Path) -> pl.DataFrame:
    import polars as pl

    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            return pl.read_csv(path, infer_schema_length=None, null_values=["", "NA", "N/A", "null", "None", "?"])
        if kind == ".parquet":
            return pl.read_parquet(path)
        if kind == ".npz":
            return _from_npz(path)
    except InvalidInputError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidInputError("data", str(path), f"a readable {kind[1:].upper()} file", first) from error
    raise InvalidInputError("data", str(path), "a file ending in .csv, .parquet or .npz", "Convert the file.")


def _from_npz(path: Path) -> pl.DataFrame:
    import polars as pl

    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        if array.ndim == 1:
            columns[name] = array
        elif array.ndim == 2:
            columns |= {f"{name}_{j}": array[:, j] for j in range(array.shape[1])}
        else:
            raise InvalidInputError(f"array {name!r}", f"shape {array.shape}", "arrays with one or two dimensions")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError("data", lengths, "arrays with the same number of rows", "Store X (n, d) and y (n,).")
    return pl.DataFrame(columns)


def _target_column(frame: pl.DataFrame, target: str | None) -> str:
    listed = ", ".join(frame.columns[:12]) + (", ..." if frame.width > 12 else "")
    if target is None:
        raise InvalidInputError("target", None, f"one of the columns {listed}", "Name the label column with --target.")
    if target not in frame.columns:
        near = difflib.get_close_matches(target, frame.columns, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Name the label column with --target."
        raise InvalidInputError("target", target, f"one of the columns {listed}", hint)
    return target


def _labels(frame: pl.DataFrame, target: str) -> tuple[tuple[str, str], np.ndarray]:
    values = frame[target].unique().sort().to_list()
    if any(isinstance(v, float) and not np.isfinite(v) for v in values):
        row = int(np.flatnonzero(~np.isfinite(frame[target].to_numpy()))[0])
        raise InvalidInputError(f"column {target!r}, row {row + 1}", values[-1], "finite labels", "Fix or drop the row.")
    if len(values) != 2:
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        fix = "All rows have the same label." if len(values) == 1 else "Keep the rows of two classes, or merge classes."
        raise InvalidInputError(f"column {target!r}", shown, "exactly two label values", fix)
    positive = (frame[target] == values[1]).to_numpy()
    return (str(values[0]), str(values[1])), np.where(positive, 1.0, -1.0)


def _numbers(frame: pl.DataFrame, name: str) -> np.ndarray:
    column = frame[name]
    if not (column.dtype.is_numeric() or column.dtype.is_(_boolean())):
        raise InvalidInputError(
            f"column {name!r}, row 1", column[0], "numbers",
            "The column holds text; encode it as numbers (for example one 0/1 column per value) or remove it.",
        )  # fmt: skip
    values = column.to_numpy().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InvalidInputError(
            f"column {name!r}, row {int(bad[0]) + 1}", float(values[bad[0]]), "finite numbers",
            f"{len(bad)} value(s) are NaN or infinite; fix or remove those rows.",
        )  # fmt: skip
    return values


def _boolean() -> Any:
    import polars as pl

    return pl.Boolean
