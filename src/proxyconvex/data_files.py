"""Data from CSV, Parquet and NPZ files, with errors that name the column, the row and the fix."""

from __future__ import annotations

import csv
import difflib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.errors import InvalidInputError
from .data_built_in import regression
from .dataset import LARGEST, TASKS, Dataset

if TYPE_CHECKING:
    import polars as pl

# What an empty cell is often written as in a CSV file.
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "None", "?"]
MOST_CLASSES = 20
"""Whole numbers with more different values than this are read as a regression target unless classes are asked for."""


def load_file(
    path: Path,
    target: str | None,
    *,
    drop_constant: bool,
    drop_missing: bool,
    tasks: tuple[str, ...] = TASKS,
) -> Dataset:
    """Load a file; the arguments are those of `proxyconvex.data.load`.

    Raises:
        InvalidInputError: if it cannot be read or used. Rows are counted from 1, without the header, as in the file.
    """
    if not path.is_file():
        raise InvalidInputError("data", str(path), "an existing CSV, Parquet or NPZ file", "Check the path.")
    frame = _read(path)
    if frame.width == 0 or frame.height == 0:
        raise InvalidInputError("data", str(path), "a file with a header and rows", "The file is empty.")
    target = _target_column(frame, target)
    names = [name for name in frame.columns if name != target]
    if not names:
        raise InvalidInputError(
            "data", str(path), "at least one feature besides the target", "Add feature columns."
        )
    before = frame.height
    frame, rows = _complete_rows(frame, drop_missing)
    if frame.height < 2:
        raise InvalidInputError("data", f"{path} with one complete row", "at least two rows", "Add rows.")
    task = _task(frame, target, tasks, dropped=frame.height < before)
    columns = {name: _numbers(frame[name], rows) for name in names}
    constant = [name for name, values in columns.items() if values.max() == values.min()]
    if len(constant) == len(names):
        raise InvalidInputError(
            "data", str(path), "at least one feature that varies", "Every feature is constant."
        )
    if constant and not drop_constant:
        raise InvalidInputError(
            f"column {constant[0]!r}", float(columns[constant[0]][0]), "features that vary",
            f"{len(constant)} feature(s) have the same value in every row; remove them, or drop them with --drop-constant.",
        )  # fmt: skip
    # Constant columns stay in the stored rows: leaving them out is a statistic of the data, and so the preprocessing's business.
    raw, source = np.column_stack(list(columns.values())), f"file {path.name}"
    if task == "regression":
        return regression(path.name, raw, _numbers(frame[target], rows), tuple(names), source)
    labels, targets = _labels(frame, target, task)
    return Dataset(path.name, raw, targets, labels, tuple(names), source, task)


def _read(path: Path) -> pl.DataFrame:
    import polars as pl

    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet", ".npz"):
        raise InvalidInputError(
            "data", str(path), "a file ending in .csv, .parquet or .npz", "Convert the file."
        )
    try:
        if kind == ".csv":
            return _from_csv(path)
        return pl.read_parquet(path) if kind == ".parquet" else _from_npz(path)
    except InvalidInputError:
        raise
    except pl.exceptions.NoDataError:
        raise InvalidInputError(
            "data", str(path), "a file with a header and rows", "The file is empty."
        ) from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "utf-8" in reason.lower():
            reason = "The text is not UTF-8; save the file with that encoding."
        raise InvalidInputError("data", str(path), f"a readable {kind[1:].upper()} file", reason) from error


def _from_csv(path: Path) -> pl.DataFrame:
    import polars as pl

    # Read on its own, because reading the table renames a repeated column without a word.
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise InvalidInputError(
            "data", header[0], "columns separated by commas", "Save the file with commas."
        )
    _refuse_repeated(header)
    if "" in header:
        raise InvalidInputError(
            f"column {header.index('') + 1}", "", "a name for every column",
            "Name it or remove it; a first column without a name is often a row number, which may give the label away.",
        )  # fmt: skip
    try:
        return pl.read_csv(path, infer_schema_length=None, null_values=MISSING)
    except pl.exceptions.ComputeError:
        _refuse_long_rows(path, len(header))  # says which row it is, where that is the reason
        raise


def _refuse_long_rows(path: Path, width: int) -> None:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row, cells in enumerate(csv.reader(file)):
            if len(cells) > width:
                raise InvalidInputError(
                    f"row {row}", f"{len(cells)} cells", f"{width} cells, as in the header"
                )


def _from_npz(path: Path) -> pl.DataFrame:
    import polars as pl

    if not zipfile.is_zipfile(path):
        raise InvalidInputError("data", str(path), "a readable NPZ file", "Write it with numpy.savez.")
    columns: list[tuple[str, np.ndarray]] = []
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            columns += _array_columns(name, _plain_array(file, name))
    _refuse_repeated([name for name, _ in columns])
    lengths = {name: len(column) for name, column in columns}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(
            "data", lengths, "arrays with the same number of rows", "Store X (n, d) and y (n,)."
        )
    return pl.DataFrame(dict(columns))


def _plain_array(file: Any, name: str) -> np.ndarray:
    try:
        array = file[name]
    except ValueError:  # NumPy's message would suggest to unpickle, which can run anything
        raise InvalidInputError(f"array {name!r}", "Python objects", "an array of numbers or text") from None
    if array.dtype.kind not in "biufUS":
        raise InvalidInputError(f"array {name!r}", f"type {array.dtype}", "an array of real numbers or text")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # too large for float64: refused later, with its row
            return array.astype(np.float64)
    return array.astype(str) if array.dtype.kind == "S" else array


def _array_columns(name: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
    if array.ndim == 1:
        return [(name, array)]
    if array.ndim == 2 and array.shape[1] == 1:
        return [(name, array[:, 0])]
    if array.ndim == 2:
        return [(f"{name}_{j}", array[:, j]) for j in range(array.shape[1])]
    raise InvalidInputError(f"array {name!r}", f"shape {array.shape}", "arrays with one or two dimensions")


def _refuse_repeated(names: list[str]) -> None:
    repeated = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if repeated:
        raise InvalidInputError(
            "columns", repeated[0], "columns with different names", "Rename or remove one of them."
        )


def _target_column(frame: pl.DataFrame, target: str | None) -> str:
    listed = ", ".join(frame.columns[:12]) + (", ..." if frame.width > 12 else "")
    if target is None:
        raise InvalidInputError(
            "target", None, f"one of the columns {listed}", "Name the label column with --target."
        )
    if target not in frame.columns:
        folded = {name.strip().lower(): name for name in frame.columns}
        near = difflib.get_close_matches(target.strip().lower(), folded, n=1)
        hint = f"Did you mean {folded[near[0]]!r}?" if near else "Name the label column with --target."
        raise InvalidInputError("target", target, f"one of the columns {listed}", hint)
    return target


def _complete_rows(frame: pl.DataFrame, drop_missing: bool) -> tuple[pl.DataFrame, np.ndarray]:
    """The rows without missing values or NaN, and their numbers in the file."""
    rows = np.arange(1, frame.height + 1)
    absent = np.column_stack([_absent(frame[name]) for name in frame.columns])
    if not absent.any():
        return frame, rows
    for j, name in enumerate(frame.columns):
        if absent[:, j].all():
            raise InvalidInputError(
                f"column {name!r}", None, "a value in every row", "The column is empty; remove it."
            )
    if not drop_missing:
        j = int(absent.any(axis=0).argmax())
        i = int(absent[:, j].argmax())
        raise InvalidInputError(
            f"column {frame.columns[j]!r}, row {rows[i]}", frame[i, j], "a value in every row",
            f"Missing values or NaN: {int(absent.sum())}, in {int(absent.any(axis=1).sum())} row(s); "
            "fill them in, or drop such rows with --drop-missing.",
        )  # fmt: skip
    complete = ~absent.any(axis=1)
    if not complete.any():
        raise InvalidInputError(
            "data", f"{frame.height} rows, each with a missing value", "rows without missing values",
            "--drop-missing would leave no row; fill in or remove the columns with most of them.",
        )  # fmt: skip
    return frame.filter(complete), rows[complete]


def _absent(column: pl.Series) -> np.ndarray:
    absent = column.is_null()
    return (absent | column.is_nan().fill_null(True) if column.dtype.is_float() else absent).to_numpy()


def _task(frame: pl.DataFrame, target: str, tasks: tuple[str, ...], *, dropped: bool) -> str:
    """What the target column holds, as far as ``tasks`` leaves a choice.

    Raises:
        InvalidInputError: if it holds nothing that is wanted.
    """
    import polars as pl

    column = frame[target]
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)):
        raise InvalidInputError(
            f"column {target!r}", f"values of type {column.dtype}", "labels that are text or numbers"
        )
    values = column.unique().sort().to_list()
    shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
    if len(values) == 1:
        accepted = "exactly two label values" if tasks == ("binary",) else "at least two different values"
        fix = "All rows have the same label." + (
            " The other class was dropped by --drop-missing." if dropped else ""
        )
        raise InvalidInputError(f"column {target!r}", shown, accepted, fix)
    if len({str(value).strip() for value in values}) < len(values):
        raise InvalidInputError(
            f"column {target!r}", values[:6], "labels without spaces around them", "Remove the spaces."
        )
    numeric = column.dtype.is_numeric()
    whole = not numeric or bool((column.cast(pl.Float64) % 1 == 0).all())
    likely = "binary" if len(values) == 2 else "multiclass" if whole else "regression"
    if likely == "multiclass" and numeric and len(values) > MOST_CLASSES:
        likely = "regression"
    if likely in tasks:
        return likely
    if numeric and "regression" in tasks:
        return "regression"
    if whole and len(values) > 2 and "multiclass" in tasks:
        return "multiclass"
    raise _unwanted(target, values, shown, tasks, numeric=numeric)


def _unwanted(
    target: str, values: list, shown: str, tasks: tuple[str, ...], *, numeric: bool
) -> InvalidInputError:
    if "binary" in tasks:
        fix = f"Keep the rows of two classes, such as {str(values[0])!r} and {str(values[1])!r}, or merge classes."
        if numeric:
            fix += " A numeric target is a regression: `proxyconvex families` says which families accept one."
        return InvalidInputError(
            f"column {target!r}", shown, f"exactly two label values, not {len(values)}", fix
        )
    if tasks == ("regression",):
        return InvalidInputError(
            f"column {target!r}", shown, "numbers (a regression target)", "Encode it as numbers."
        )
    return InvalidInputError(
        f"column {target!r}", shown, "three or more classes: text or whole numbers",
        "Two classes are a binary problem, numbers with a fraction a regression.",
    )  # fmt: skip


def _labels(frame: pl.DataFrame, target: str, task: str) -> tuple[tuple[str, ...], np.ndarray]:
    column = frame[target]
    values = column.unique().sort().to_list()
    if task == "binary":
        positive = (column == values[1]).to_numpy()
        return (str(values[0]), str(values[1])), np.where(positive, 1.0, -1.0)
    index = np.zeros(frame.height)
    for k, value in enumerate(values):
        index[(column == value).to_numpy()] = k
    return tuple(str(value) for value in values), index


def _numbers(column: pl.Series, rows: np.ndarray) -> np.ndarray:
    """A feature as float64; ``rows`` are the numbers of the rows in the file."""
    import polars as pl

    if column.dtype == pl.String:
        parsed = column.cast(pl.Float64, strict=False).is_null()
        i = int(parsed.arg_max() or 0)
        raise InvalidInputError(
            f"column {column.name!r}, row {rows[i]}", column[i], "numbers",
            "The column holds text; encode it as numbers (for example one 0/1 column per value) or remove it. "
            "A cell without a value must be empty.",
        )  # fmt: skip
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise InvalidInputError(
            f"column {column.name!r}",
            f"values of type {column.dtype}",
            "numbers",
            "Encode it as numbers or remove it.",
        )
    values = column.cast(pl.Float64).to_numpy()
    for wrong, accepted, fix in (
        (~np.isfinite(values), "finite numbers", "fix or remove such rows."),
        (np.abs(values) > LARGEST, f"numbers up to {LARGEST:g} in size", "Rescale the column."),
    ):
        if wrong.any():
            i = int(wrong.argmax())
            count = f"{int(wrong.sum())} value(s) are infinite; " if accepted == "finite numbers" else ""
            raise InvalidInputError(
                f"column {column.name!r}, row {rows[i]}", float(values[i]), accepted, count + fix
            )
    return values
