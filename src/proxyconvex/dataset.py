"""A data set: rows and targets, two classes, several classes or numbers, and the preprocessing it gets by default."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from .core.errors import InvalidInputError
from .preprocessing import Preprocessing, data_digest

TASKS = ("binary", "regression", "multiclass")
# Beyond this the squares of a few million entries add up to an infinity.
LARGEST = 1e150
SMALLEST = 1e-150
# Known before any row is seen: pixels of the digits are whole numbers from 0 to 16.
_KNOWN_RANGE = {"digits": 16.0}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows and targets of a problem: own copies, read only, because certificates name them by a digest.

    Attributes:
        name: what it was loaded as.
        raw: rows, shape (n, d), float64, finite, at most 1e150 in size; n >= 2.
        targets: shape (n,). ``"binary"``: -1 for ``labels[0]`` and +1 for ``labels[1]``; ``"multiclass"``: the index k of
            ``labels[k]``, as a float; ``"regression"``: finite numbers, not all equal.
        labels: the two classes, the K >= 3 classes, or () for regression.
        columns: names of the d features, all different.
        source: where it came from.
        task: ``"binary"``, ``"regression"`` or ``"multiclass"``.
        target_scale: ``(offset, unit)``: a target in its own units is ``offset + unit * target`` (regression).

    Raises:
        InvalidInputError: if the arrays are not of that kind; the message names the column and the row.
    """

    name: str
    raw: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, " n"]
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    source: str = "arrays"
    task: str = "binary"
    target_scale: tuple[float, float] = (0.0, 1.0)

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
        if self.task not in TASKS:
            raise InvalidInputError("task", self.task, ", ".join(TASKS))
        _refuse_entries(raw, columns)
        labels = _checked_targets(self.task, targets, tuple(str(label) for label in self.labels))
        offset, unit = (float(x) for x in self.target_scale)
        if not (np.isfinite(offset) and np.isfinite(unit) and unit > 0):
            raise InvalidInputError(
                "target_scale", self.target_scale, "a finite offset and a finite unit > 0"
            )
        for name, value in (("raw", raw), ("targets", targets), ("columns", columns), ("labels", labels)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "target_scale", (offset, unit))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of rows and targets."""
        return data_digest(self.raw, self.targets)

    @property
    def varying(self) -> tuple[int, ...]:
        """Indices of the columns that are not constant."""
        return tuple(int(j) for j in np.flatnonzero(self.raw.max(axis=0) > self.raw.min(axis=0)))

    @property
    def classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.labels)

    def __repr__(self) -> str:
        n, d = self.raw.shape
        if self.task == "regression":
            what = f"targets from {self.targets.min():.6g} to {self.targets.max():.6g}"
        elif self.task == "binary":
            what = f"classes {self.labels[0]!r} and {self.labels[1]!r}"
        else:
            what = f"{self.classes} classes"
        return f"<Dataset {self.name}: {n} rows, {d} columns, {what}>"


def _checked_targets(task: str, targets: Float[np.ndarray, " n"], labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels, after the targets have been checked against the task."""
    values = np.unique(targets)
    shown = sorted(values.tolist())[:5]
    if task == "regression":
        if labels:
            raise InvalidInputError("labels", labels, "no labels for a regression")
        for wrong, accepted in (
            (~np.isfinite(targets), "finite targets"),
            (np.abs(targets) > LARGEST, f"targets up to {LARGEST:g} in size"),
        ):
            if wrong.any():
                i = int(np.argmax(wrong))
                raise InvalidInputError(f"targets, row {i + 1}", float(targets[i]), accepted)
        if len(values) < 2:
            raise InvalidInputError("targets", shown, "at least two different numbers")
        return ()
    if task == "binary":
        labels = labels or ("-1", "+1")
        if len(labels) != 2 or labels[0] == labels[1]:
            raise InvalidInputError("labels", labels, "two different names")
        if set(values) != {-1.0, 1.0}:
            raise InvalidInputError(
                "targets", shown, "both of -1 and +1",
                "Two classes are needed; turn labels y of 0 and 1 into 2 * y - 1, or say task='multiclass' or 'regression'.",
            )  # fmt: skip
        return labels
    count = len(labels) or len(values)
    labels = labels or tuple(str(k) for k in range(count))
    if count < 3 or len(set(labels)) != count:
        raise InvalidInputError(
            "labels",
            labels[:5],
            "K >= 3 different names",
            "Two classes are task='binary' with targets -1 and +1.",
        )
    if not np.array_equal(values, np.arange(count)):
        raise InvalidInputError(
            "targets", shown, f"the class indices 0 to {count - 1}, each of them at least once"
        )
    return labels


def require_task(dataset: Dataset, family: str, accepted: tuple[str, ...]) -> None:
    """Refuse data of a task that a family does not cover, and say what to do instead.

    Args:
        dataset: the data.
        family: name of the family.
        accepted: the tasks it covers.

    Raises:
        InvalidInputError: if the data is of another task.
    """
    if dataset.task in accepted:
        return
    has = {
        "binary": "two classes",
        "regression": "a numeric target",
        "multiclass": f"{dataset.classes} classes",
    }
    fixes = {
        ("multiclass", "binary"): f"Keep two classes, such as {dataset.labels[:2]}, or merge them"
        + (f"; for example {dataset.name}:0,1." if dataset.name in ("digits", "wine") else "."),
        ("regression", "binary"): "Turn the target into two classes, for example above and below its median.",
        ("binary", "regression"): "Pass the target as numbers with task='regression'.",
        ("multiclass", "regression"): "Pass the target as numbers with task='regression'.",
    }
    fix = next((fixes[dataset.task, a] for a in accepted if (dataset.task, a) in fixes), "")
    raise InvalidInputError(
        "data", f"{dataset.name} with {has[dataset.task]}",
        f"{' or '.join(accepted)} data for the family {family}",
        f"{fix} `proxyconvex families` says which task each family accepts.".strip(),
    )  # fmt: skip


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
    # The squares of smaller numbers are no float64 numbers any more.
    sizes = np.abs(raw).max(axis=0, initial=0.0)
    for j in np.flatnonzero((sizes > 0) & (sizes < SMALLEST)):
        raise InvalidInputError(
            f"column {columns[j]!r}", f"numbers up to {sizes[j]:.3g} in size", f"a column with a number above {SMALLEST:g} in size",
            "Rescale the column.",
        )  # fmt: skip


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
