"""Loading data sets: the ones scikit-learn ships, and files."""

from __future__ import annotations

import re
from pathlib import Path

from .core.errors import InvalidInputError
from .data_built_in import built_in, is_built_in
from .data_files import load_file
from .dataset import TASKS, Dataset, default_preprocessing, require_task
from .preprocessing import Preprocessing

__all__ = ["TASKS", "Dataset", "Preprocessing", "default_preprocessing", "load", "require_task"]

FILE_TYPES = (".csv", ".parquet", ".npz")


def load(
    spec: str | Path,
    target: str | None = None,
    drop_constant: bool = False,
    drop_missing: bool = False,
    tasks: tuple[str, ...] = TASKS,
) -> Dataset:
    """Load a data set.

    A file's target column decides the task: two values are two classes; text, and whole numbers with at most 20 different
    values, are classes; other numbers are regression targets, stored as ``(y - min) / (max - min)``. Where ``tasks``
    leaves only one reading of the column, that one is taken.

    Args:
        spec: ``breast-cancer``, ``digits:A,B``, ``digits:even-odd``, ``wine:A,B`` (two classes), ``digits``, ``wine``
            (several), ``diabetes``, ``linnerud:weight|waist|pulse``, ``digits:pixel-J`` (numeric targets), or the path of
            a CSV, Parquet or NPZ file.
        target: name of the label column (files).
        drop_constant: accept features that do not vary instead of refusing them (files). They stay in the stored rows;
            `default_preprocessing` leaves them out where statistics of the data may be used.
        drop_missing: drop rows with missing values or NaN instead of refusing them (files). A promise about unseen rows is then
            about rows without missing values.
        tasks: the tasks that are wanted, out of `TASKS`.

    Raises:
        InvalidInputError: if it cannot be used; the message names the column, the row and the fix. Rows are counted from 1,
            without the header.
    """
    tasks = tuple(tasks)
    if not tasks or any(task not in TASKS for task in tasks):
        raise InvalidInputError("task", tasks, ", ".join(TASKS))
    path = Path(spec)
    if path.suffix.lower() in FILE_TYPES or (path.is_file() and not is_built_in(str(spec))):
        return load_file(path, target, drop_constant=drop_constant, drop_missing=drop_missing, tasks=tasks)
    if target is not None and is_built_in(str(spec)):
        raise InvalidInputError("target", target, "no target for a built-in data set", "Leave --target out.")
    return built_in(re.sub(r"\s+", "", str(spec)).lower())
