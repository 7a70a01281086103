"""What a data set's targets are: two classes, several classes or numbers, and which family accepts which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sklearn.datasets

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.data import Dataset, load, require_task


@pytest.mark.parametrize(("spec", "rows", "classes"), [("digits", 1797, 10), ("wine", 178, 3)])
def test_all_classes(spec: str, rows: int, classes: int) -> None:
    data = load(spec)
    assert (data.task, len(data.targets), data.classes) == ("multiclass", rows, classes)
    np.testing.assert_array_equal(data.targets, getattr(sklearn.datasets, f"load_{spec}")().target)
    assert data.labels == tuple(str(k) for k in range(classes))


def test_diabetes_is_scaled_and_can_be_scaled_back() -> None:
    data, bunch = load("diabetes"), sklearn.datasets.load_diabetes(scaled=False)
    assert data.task == "regression" and data.labels == () and data.classes == 0
    assert (data.targets.min(), data.targets.max()) == (0.0, 1.0)
    offset, unit = data.target_scale
    np.testing.assert_allclose(offset + unit * data.targets, bunch.target, rtol=1e-14)
    np.testing.assert_array_equal(data.raw, bunch.data)


def test_a_pixel_from_the_others() -> None:
    data, bunch = load("digits:pixel-27"), sklearn.datasets.load_digits()
    np.testing.assert_array_equal(data.targets * 16, bunch.data[:, 27])
    assert data.raw.shape == (1797, 63) and "pixel_3_3" not in data.columns
    with pytest.raises(InvalidInputError, match="a pixel from 0 to 63 that varies"):
        load("digits:pixel-0")
    with pytest.raises(InvalidInputError, match="Name its target"):
        load("linnerud")
    assert load("linnerud:pulse").raw.shape == (20, 3)


ANY = ("binary", "regression", "multiclass")
FEATURE = [0.5, 1, 0, 2, 1, 3]
# (target column, tasks asked for, task found)
COLUMNS = {
    "three words": (["x", "y", "z"] * 2, ANY, "multiclass"),
    "whole numbers": ([3, 5, 9] * 2, ANY, "multiclass"),
    "fractions": ([0.5, 1.5, 2.5] * 2, ANY, "regression"),
    "two values": ([4, 7] * 3, ANY, "binary"),
    "two values as numbers": ([4, 7] * 3, ("regression",), "regression"),
    "whole numbers as numbers": ([3, 5, 9] * 2, ("regression",), "regression"),
    "whole numbers, no classes": ([3, 5, 9] * 2, ("binary", "regression"), "regression"),
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("case", COLUMNS, ids=lambda c: c.replace(" ", "-").replace(",", ""))
def test_the_target_column_decides(tmp_path: Path, case: str, kind: str) -> None:
    column, tasks, task = COLUMNS[case]
    path, table = tmp_path / f"t.{kind}", pl.DataFrame({"a": FEATURE, "y": column})
    if kind == "csv":
        table.write_csv(path)
    elif kind == "parquet":
        table.write_parquet(path)
    else:
        np.savez(path, a=np.array(FEATURE), y=np.array(column))
    data = load(path, "y", tasks=tasks)
    assert data.task == task
    if task == "regression":
        offset, unit = data.target_scale
        np.testing.assert_allclose(offset + unit * data.targets, column, rtol=1e-14)
    else:
        names = [str(v) for v in column]
        index = (data.targets + 1) / 2 if task == "binary" else data.targets
        assert [data.labels[int(k)] for k in index] == names


def test_many_whole_numbers_are_a_regression_unless_classes_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pl.DataFrame({"a": np.arange(50) % 7, "y": np.arange(50) % 25}).write_csv(path)
    assert load(path, "y").task == "regression"
    assert load(path, "y", tasks=("multiclass",)).classes == 25


@pytest.mark.parametrize(
    ("column", "tasks", "message"),
    [
        (["x", "y", "z"], ("regression",), "numbers .a regression target."),
        (["x", "y", "x"], ("regression",), "numbers .a regression target."),
        (["x", "y", "z"], ("binary",), "exactly two label values, not 3"),
        ([1.5, 2.5, 3.5], ("binary",), "A numeric target is a regression"),
        ([1.5, 2.5, 3.5], ("multiclass",), "three or more classes"),
        ([1, 2, 1], ("multiclass",), "Two classes are a binary problem"),
        ([1, 1, 1], ("regression",), "at least two different values"),
        ([1, 2, 3], ("ternary",), "binary, regression, multiclass"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, column: list, tasks: tuple[str, ...], message: str) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": [1.0, 2.0, 4.0], "y": column}).write_parquet(path)
    with pytest.raises(InvalidInputError, match=message):
        load(path, "y", tasks=tasks)


def test_infinite_target(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": [1.0, 2.0, 4.0], "y": [0.5, float("inf"), 0.2]}).write_parquet(path)
    with pytest.raises(InvalidInputError, match="column 'y', row 2"):
        load(path, "y")


@pytest.mark.parametrize(
    ("task", "targets", "labels", "message"),
    [
        ("multiclass", [0, 1, 3], (), "class indices 0 to 2"),
        ("multiclass", [0, 1, 1], (), "K >= 3"),
        ("multiclass", [0, 1, 2], ("a", "b", "b"), "K >= 3 different"),
        ("regression", [0.5, np.nan, 1], (), "targets, row 2"),
        ("regression", [0.5, 0.5, 0.5], (), "two different numbers"),
        ("regression", [0.5, 0.6, 0.5], ("a", "b"), "no labels for a regression"),
        ("ranking", [0, 1, 2], (), "binary, regression, multiclass"),
    ],
)
def test_arrays_are_checked(task: str, targets: list, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Dataset("arrays", np.eye(3), np.array(targets, float), labels, task=task)


@pytest.mark.parametrize("family", ["leaky-relu-noise", "two-layer-ntk"])
@pytest.mark.parametrize(
    ("spec", "message"), [("digits", "digits:0,1"), ("diabetes", "above and below its median")]
)
def test_a_family_says_which_task_it_accepts(family: str, spec: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        pc.plan(spec, family=family)


def test_what_is_accepted_passes() -> None:
    require_task(load("wine"), "any", ("multiclass",))
    with pytest.raises(InvalidInputError, match=r"regression data for the family any"):
        require_task(load("wine:0,1"), "any", ("regression",))
