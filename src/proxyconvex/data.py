"""Data sets with two classes: the ones scikit-learn ships, files, and arrays."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .core.errors import InvalidInputError
from .preprocessing import Preprocessing, data_digest

__all__ = ["Dataset", "Preprocessing", "default_preprocessing", "load"]

BUILT_IN = ("breast-cancer", "digits:A,B", "digits:even-odd", "wine:A,B")
FILE_TYPES = (".csv", ".parquet", ".npz")
# Beyond this the squares of a few million entries add up to an infinity.
LARGEST = 1e150
# Known before any row is seen: pixels of the digits are whole numbers from 0 to 16.
_KNOWN_RANGE = {"digits": 16.0}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows and targets of a two-class problem: own copies, read only, because certificates name them by a digest.

    Attributes:
        name: what it was loaded as.
        raw: rows, shape (n, d), float64, finite, at most 1e150 in size; n >= 2.
        targets: shape (n,), -1 for ``labels[0]`` and +1 for ``labels[1]``.
        labels: the two classes.
        columns: names of the d features, all different.
        source: where it came from.

    Raises:
        InvalidInputError: if the arrays are not of that kind; the message names the column and the row.
    """

    name: str
    raw: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, " n"]
    labels: tuple[str, str] = ("-1", "+1")
    columns: tuple[str, ...] = ()
    source: str = "arrays"

    def __post_init__(self) -> None:
        raw, targets = _own("raw", self.raw), _own("targets", self.targets)
        if raw.ndim != 2 or raw.shape[0] < 2 or raw.shape[1] < 1:
            raise InvalidInputError(
                "raw", f"an array of shape {raw.shape}", "shape (n, d) with n >= 2 and d >= 1"
            )
        if targets.shape != raw.shape[:1]:
            raise InvalidInputError(
                "targets", f"shape {targets.shape}", f"shape ({raw.shape[0]},), one per row"
            )
        columns = tuple(str(c) for c in self.columns) or tuple(f"x{j}" for j in range(raw.shape[1]))
        if len(columns) != raw.shape[1] or len(set(columns)) < len(columns):
            raise InvalidInputError("columns", columns, f"{raw.shape[1]} different names, one per column")
        labels = tuple(str(label) for label in self.labels)
        if len(set(labels)) != 2:
            raise InvalidInputError("labels", labels, "two different names")
        _refuse_entries(raw, columns)
        if set(np.unique(targets)) != {-1.0, 1.0}:
            raise InvalidInputError(
                "targets", sorted(np.unique(targets).tolist())[:5], "both of -1 and +1",
                "Two classes are needed; turn labels y of 0 and 1 into 2 * y - 1.",
            )  # fmt: skip
        for name, value in (("raw", raw), ("targets", targets), ("columns", columns), ("labels", labels)):
            object.__setattr__(self, name, value)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of rows and targets."""
        return data_digest(self.raw, self.targets)

    @property
    def varying(self) -> tuple[int, ...]:
        """Indices of the columns that are not constant."""
        return tuple(int(j) for j in np.flatnonzero(self.raw.max(axis=0) > self.raw.min(axis=0)))

    def __repr__(self) -> str:
        n, d = self.raw.shape
        return (
            f"<Dataset {self.name}: {n} rows, {d} columns, classes {self.labels[0]!r} and {self.labels[1]!r}>"
        )


def _own(name: str, values: Any) -> Float[np.ndarray, "..."]:
    """A read-only float64 copy in C order: nobody can change the rows behind a digest that was already handed out."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(name, f"an array of type {array.dtype}", "an array of real numbers")
    with np.errstate(
        over="ignore"
    ):  # an extended-precision number too large for float64 is refused as infinite
        copy = np.array(array, dtype=np.float64, order="C")
    copy.setflags(write=False)
    return copy


def _refuse_entries(raw: Float[np.ndarray, "n d"], columns: tuple[str, ...]) -> None:
    for wrong, accepted, fix in (
        (~np.isfinite(raw), "finite numbers", "Fix or remove the row."),
        (np.abs(raw) > LARGEST, f"numbers up to {LARGEST:g} in size", "Rescale the column."),
    ):
        if wrong.any():
            i, j = (int(k) for k in np.argwhere(wrong)[0])
            raise InvalidInputError(f"column {columns[j]!r}, row {i + 1}", float(raw[i, j]), accepted, fix)


def default_preprocessing(dataset: Dataset, *, statistics: bool = True) -> Preprocessing:
    """The preprocessing used unless another is asked for: rows of unit norm and a small bias feature.

    Args:
        dataset: the data.
        statistics: whether statistics of the data may be used. False for promises about unseen rows: then nothing is centred,
            scaled or dropped, and the divisor is a constant known before any row was seen.

    Raises:
        InvalidInputError: if every column is constant and may be dropped.
    """
    # Only what scikit-learn ships has a range known in advance; a file may have any name.
    kind = dataset.name.split(":")[0] if dataset.source.startswith("scikit-learn") else "file"
    if not statistics:
        every = tuple(range(dataset.raw.shape[1]))
        return Preprocessing(every, center=False, scale="none", divide_by=_KNOWN_RANGE.get(kind, 1.0))
    kept = dataset.varying
    if not kept:
        raise InvalidInputError(
            "data", dataset.name, "at least one feature that varies", "Every column is constant."
        )
    return Preprocessing(kept, center=True, scale="none" if kind == "digits" else "column")


def load(
    spec: str | Path, target: str | None = None, drop_constant: bool = False, drop_missing: bool = False
) -> Dataset:
    """Load a data set.

    Args:
        spec: ``breast-cancer``, ``digits:A,B``, ``digits:even-odd``, ``wine:A,B``, or the path of a CSV, Parquet or NPZ file.
        target: name of the label column (files).
        drop_constant: accept features that do not vary instead of refusing them (files). They stay in the stored rows;
            `default_preprocessing` leaves them out where statistics of the data may be used.
        drop_missing: drop rows with missing values or NaN instead of refusing them (files). A promise about unseen rows is then
            about rows without missing values.

    Raises:
        InvalidInputError: if it cannot be used; the message names the column, the row and the fix. Rows are counted from 1,
            without the header.
    """
    path = Path(spec)
    if path.suffix.lower() in FILE_TYPES or (path.is_file() and not _is_built_in(str(spec))):
        from .data_files import load_file

        return load_file(path, target, drop_constant=drop_constant, drop_missing=drop_missing)
    if target is not None and _is_built_in(str(spec)):
        raise InvalidInputError("target", target, "no target for a built-in data set", "Leave --target out.")
    return _built_in(re.sub(r"\s+", "", str(spec)).lower())


def _is_built_in(spec: str) -> bool:
    return spec.partition(":")[0].strip().lower() in ("breast-cancer", "digits", "wine")


def _built_in(spec: str) -> Dataset:
    import sklearn.datasets as source

    kind, _, classes = spec.partition(":")
    if spec == "breast-cancer":
        bunch = source.load_breast_cancer()
        names = tuple(str(s) for s in bunch.feature_names)
        y = np.where(bunch.target == 1, 1.0, -1.0)
        return Dataset(spec, bunch.data, y, ("malignant", "benign"), names, "scikit-learn load_breast_cancer")
    if spec == "digits:even-odd":
        bunch = source.load_digits()
        y = np.where(bunch.target % 2 == 1, 1.0, -1.0)
        return Dataset(
            spec, bunch.data, y, ("even", "odd"), tuple(bunch.feature_names), "scikit-learn load_digits"
        )
    pair = re.fullmatch(r"(\d+),(\d+)", classes)
    if kind in ("digits", "wine") and pair:
        bunch = source.load_digits() if kind == "digits" else source.load_wine()
        a, b = int(pair[1]), int(pair[2])
        known = sorted({int(k) for k in bunch.target})
        if a == b or a not in known or b not in known:
            raise InvalidInputError(
                "data", spec, f"two different classes out of {known}", f"For example {kind}:0,1."
            )
        rows = np.isin(bunch.target, (a, b))
        y = np.where(bunch.target[rows] == b, 1.0, -1.0)
        names = tuple(str(s) for s in bunch.feature_names)
        return Dataset(
            f"{kind}:{a},{b}", bunch.data[rows], y, (str(a), str(b)), names, f"scikit-learn load_{kind}"
        )
    accepted = ", ".join(f"`{name}`" for name in BUILT_IN) + ", or the path of a CSV, Parquet or NPZ file"
    raise InvalidInputError("data", spec, accepted, _hint(spec))


def _hint(spec: str) -> str:
    kind = spec.partition(":")[0]
    if kind in ("digits", "wine"):
        return f"Name two classes, for example {kind}:0,1."
    near = difflib.get_close_matches(kind, ["breast-cancer", "digits:0,1", "wine:0,1"], n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else "No such data set or file was found."
