"""Data sets with two classes: the ones scikit-learn ships, files, and arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .core.errors import InvalidInputError
from .preprocessing import Preprocessing, data_digest

__all__ = ["Dataset", "Preprocessing", "default_preprocessing", "load"]

BUILT_IN = "`breast-cancer`, `digits:A,B`, `digits:even-odd`, `wine:A,B`"
# Known before any row is seen: pixels of the digits are whole numbers from 0 to 16.
_KNOWN_RANGE = {"digits": 16.0}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows and targets of a two-class problem.

    Attributes:
        name: what it was loaded as.
        raw: rows, shape (n, d), float64, finite.
        targets: shape (n,), -1 for ``labels[0]`` and +1 for ``labels[1]``.
        labels: the two classes.
        columns: names of the d features.
        source: where it came from.
    """

    name: str
    raw: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, " n"]
    labels: tuple[str, str] = ("-1", "+1")
    columns: tuple[str, ...] = ()
    source: str = "arrays"

    def __post_init__(self) -> None:
        raw = np.ascontiguousarray(np.asarray(self.raw, dtype=np.float64))
        targets = np.ascontiguousarray(np.asarray(self.targets, dtype=np.float64))
        if raw.ndim != 2 or raw.shape[0] < 2 or raw.shape[1] < 1:
            raise InvalidInputError("raw", f"an array of shape {raw.shape}", "shape (n, d) with n >= 2 and d >= 1")
        if targets.shape != raw.shape[:1]:
            raise InvalidInputError("targets", f"shape {targets.shape}", f"shape ({raw.shape[0]},), one per row")
        columns = self.columns or tuple(f"x{j}" for j in range(raw.shape[1]))
        if len(columns) != raw.shape[1]:
            raise InvalidInputError("columns", f"{len(columns)} names", f"{raw.shape[1]} names, one per column")
        bad = np.argwhere(~np.isfinite(raw))
        if len(bad):
            i, j = (int(k) for k in bad[0])
            raise InvalidInputError(
                f"column {columns[j]!r}, row {i + 1}", raw[i, j], "finite numbers", "Fix or drop the row (--drop-missing)."
            )
        if np.abs(raw).max() > 1e150:
            i, j = (int(k) for k in np.argwhere(np.abs(raw) > 1e150)[0])
            raise InvalidInputError(
                f"column {columns[j]!r}, row {i + 1}", raw[i, j], "numbers up to 1e150", "Rescale the column."
            )
        if set(np.unique(targets)) != {-1.0, 1.0}:
            raise InvalidInputError(
                "targets", sorted(np.unique(targets).tolist())[:5], "both of -1 and +1", "Two classes are needed."
            )
        for name, value in (("raw", raw), ("targets", targets), ("columns", columns)):
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
        return f"<Dataset {self.name}: {n} rows, {d} columns, classes {self.labels[0]!r} and {self.labels[1]!r}>"


def default_preprocessing(dataset: Dataset, *, statistics: bool = True) -> Preprocessing:
    """The preprocessing used unless another is asked for: rows of unit norm and a small bias feature.

    Args:
        dataset: the data.
        statistics: whether statistics of the data may be used. False for promises about unseen rows: then nothing is centred,
            scaled or dropped, and the divisor is a constant known before any row was seen.
    """
    kind = dataset.name.split(":")[0]
    if not statistics:
        every = tuple(range(dataset.raw.shape[1]))
        return Preprocessing(every, center=False, scale="none", divide_by=_KNOWN_RANGE.get(kind, 1.0))
    kept = dataset.varying
    if not kept:
        raise InvalidInputError("data", dataset.name, "at least one feature that varies", "Every column is constant.")
    return Preprocessing(kept, center=True, scale="none" if kind == "digits" else "column")


def load(
    spec: str, target: str | None = None, drop_constant: bool = False, drop_missing: bool = False
) -> Dataset:
    """Load a data set.

    Args:
        spec: ``breast-cancer``, ``digits:A,B``, ``digits:even-odd``, ``wine:A,B``, or the path of a CSV, Parquet or NPZ file.
        target: name of the label column (files).
        drop_constant: drop features that do not vary instead of refusing them (files).
        drop_missing: drop rows with missing values instead of refusing them (files).

    Raises:
        InvalidInputError: if it cannot be used; the message names the column, the row and the fix.
    """
    path = Path(spec)
    if path.suffix.lower() in (".csv", ".parquet", ".npz") or path.exists():
        from .data_files import load_file

        return load_file(path, target, drop_constant=drop_constant, drop_missing=drop_missing)
    return _built_in(spec)


def _built_in(spec: str) -> Dataset:
    import sklearn.datasets as source

    kind, _, classes = spec.partition(":")
    if kind == "breast-cancer" and not classes:
        bunch = source.load_breast_cancer()
        names = tuple(str(s) for s in bunch.feature_names)
        y = np.where(bunch.target == 1, 1.0, -1.0)
        return Dataset(spec, bunch.data, y, ("malignant", "benign"), names, "scikit-learn load_breast_cancer")
    if kind == "digits" and classes == "even-odd":
        bunch = source.load_digits()
        y = np.where(bunch.target % 2 == 1, 1.0, -1.0)
        return Dataset(spec, bunch.data, y, ("even", "odd"), tuple(bunch.feature_names), "scikit-learn load_digits")
    pair = re.fullmatch(r"(\d),(\d)", classes)
    if kind in ("digits", "wine") and pair:
        bunch = source.load_digits() if kind == "digits" else source.load_wine()
        a, b = int(pair[1]), int(pair[2])
        known = sorted({int(k) for k in bunch.target})
        if a == b or a not in known or b not in known:
            raise InvalidInputError("data", spec, f"two different classes out of {known}", f"For example {kind}:0,1.")
        rows = np.isin(bunch.target, (a, b))
        y = np.where(bunch.target[rows] == b, 1.0, -1.0)
        names = tuple(str(s) for s in bunch.feature_names)
        return Dataset(spec, bunch.data[rows], y, (str(a), str(b)), names, f"scikit-learn load_{kind}")
    raise InvalidInputError(
        "data", spec, f"{BUILT_IN}, or the path of a CSV, Parquet or NPZ file", "No such data set or file was found."
    )
