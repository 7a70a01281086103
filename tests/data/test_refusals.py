"""Files that must be refused: the message names the column, the row and the fix; and files that must not be."""

from __future__ import annotations

import datetime
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.data import Dataset, default_preprocessing, load

# (text of a CSV file, what the message must hold)
TABLES = {
    "repeated column": ("a,a,label\n1,2,x\n3,4,y\n", "'a'.*different names"),
    "repeated target": ("a,label,label\n1,x,x\n3,y,y\n", "'label'.*different names"),
    "column without a name": (",a,label\n0,2,x\n1,4,y\n", "column 1.*Name it or remove it"),
    "long row": ("a,b,label\n1,2,x\n3,4,y\n5,6,x,9\n", "row 3 = '4 cells'.*3 cells"),
    "short row": ("a,b,label\n1,2,x\n3,4\n5,6,y\n", "column 'label', row 2.*--drop-missing"),
    "semicolons": ("a;b;label\n1;2;x\n3;4;y\n", "separated by commas"),
    "word among numbers": ("a,b,label\n1,3,x\n3,oops,y\n5,4,x\n", "column 'b', row 2 = 'oops'.*holds text"),
    "nan written out": ("a,b,label\n1,3,x\nNaN,2,y\n5,4,x\n", "column 'a', row 2 = nan.*--drop-missing"),
    "nan in small letters": ("a,b,label\n1,3,x\nnan,2,y\n5,4,x\n", "column 'a', row 2 = nan.*--drop-missing"),
    "nan with a sign": (
        "a,b,label\n1,3,x\n2,4,y\n5, -NAN,x\n",
        "column 'b', row 3 = nan.*Missing values or NaN: 1",
    ),
    "nan among words": ("a,b,label\n1,3,x\n2,4,nan\n5,6,y\n", "column 'label', row 2 = None.*--drop-missing"),
    "a word after nan": ("a,b,label\nnan,3,x\n3,2,y\noops,4,x\n", "column 'a', row 1 = None.*--drop-missing"),
    "question mark": ("a,b,label\n1,3,x\n2,?,y\n5,4,x\n", "column 'b', row 2.*--drop-missing"),
    "infinity": ("a,b,label\n1,3,x\n2,-inf,y\n5,4,x\n", "column 'b', row 2 = -inf.*finite"),
    "number beyond float64": ("a,b,label\n1,3,x\n2,1e400,y\n5,4,x\n", "column 'b', row 2 = inf.*finite"),
    "squares overflow": ("a,b,label\n1,3,x\n2,-1e200,y\n5,4,x\n", r"column 'b', row 2 = -1e\+200.*Rescale"),
    "one row": ("a,b,label\n1,3,x\n", "at least two rows"),
    "one class": ("a,b,label\n1,3,x\n2,4,x\n", "column 'label' = 'x'.*All rows have the same label"),
    "three classes": ("a,b,label\n1,3,x\n2,4,y\n3,5,z\n", "x, y, z.*not 3.*such as 'x' and 'y'"),
    "label with a space": ("a,b,label\n1,3,x\n2,4, x\n3,5,y\n", "Remove the spaces"),
    "constant": ("a,b,label\n1,3,x\n1,4,y\n", "column 'a' = 1.0.*--drop-constant"),
    "empty column": ("a,b,label\n1,,x\n2,,y\n", "column 'b'.*The column is empty; remove it"),
    "empty file": ("", "The file is empty"),
    "header only": ("a,b,label\n", "The file is empty"),
}


@pytest.mark.parametrize("case", TABLES, ids=lambda c: c.replace(" ", "-"))
def test_tables(tmp_path: Path, case: str) -> None:
    text, message = TABLES[case]
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load(path, "label", tasks=("binary",))


DROPPED = {
    "the other class": ("a,label\n1,x\n,y\n5,x\n", "The other class was dropped by --drop-missing"),
    "every row": ("a,b,label\n1,,x\n,2,y\n", "would leave no row"),
    # Row 4 of the file is row 3 of what is left: the message must name the row a person will look for.
    "row numbers": ("a,label\n1,x\n,y\n5,x\ninf,y\n", "column 'a', row 4 = inf"),
    "row numbers after nan": ("a,label\n1,x\nnan,y\n5,x\n-inf,y\n", "column 'a', row 4 = -inf"),
    "row numbers of text after nan": ("a,label\n1,x\nnan,y\n5,x\nhm,y\n", "column 'a', row 4 = 'hm'"),
    "row numbers of text": ("a,label\n1,x\n,y\n5,x\nhm,y\n", "column 'a', row 4 = 'hm'"),
}


@pytest.mark.parametrize("case", DROPPED, ids=lambda c: c.replace(" ", "-"))
def test_after_dropping_rows(tmp_path: Path, case: str) -> None:
    text, message = DROPPED[case]
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load(path, "label", drop_missing=True)


def test_nan_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": [1.0, float("nan"), 3.0, None], "y": [0, 1, 1, 0]}).write_parquet(path)
    assert load(path, "y", drop_missing=True).raw.tolist() == [[1.0], [3.0]]


@pytest.mark.parametrize("spelling", ["nan", "NaN", "NAN", "-nan", " nan"])
def test_nan_in_a_csv_file_is_missing(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"a,b,y\n1,2,x\n{spelling},3,z\n4,1.5,x\n6,2.5,z\n")
    found = load(path, "y", drop_missing=True)
    assert found.raw.tolist() == [[1.0, 2.0], [4.0, 1.5], [6.0, 2.5]] and found.labels == ("x", "z")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)]}, "column 'a' = 'values of type Date'"),
        ({"a": [[1], [2]]}, r"column 'a' = 'values of type List"),
        ({"a": [1.0, 2.0], "y": [[0], [1]]}, "column 'y'.*labels that are text or numbers"),
        ({"a": [1.0, 1.0]}, "Every feature is constant"),
    ],
    ids=["dates", "lists", "list-labels", "all-constant"],
)
def test_parquet_types(tmp_path: Path, columns: dict, message: str) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"y": [0, 1], **columns}).write_parquet(path)
    with pytest.raises(InvalidInputError, match=message):
        load(path, "y", drop_constant=True)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pl.Series([1, 2], dtype=pl.Int128), [1, 2]),
        (pl.Series([1.5, 2.5], dtype=pl.Float32), [1.5, 2.5]),
        (pl.Series([True, False]), [1, 0]),
        (pl.Series(["1.5", "2.5"]).cast(pl.Decimal(10, 1)), [1.5, 2.5]),
    ],
    ids=["int128", "float32", "boolean", "decimal"],
)
def test_every_numeric_type_is_a_feature(tmp_path: Path, series: pl.Series, expected: list) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": series, "y": ["u", "v"]}).write_parquet(path)
    assert load(path, "y").raw[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["no", "yes"], ("no", "yes")), ([1, -1], ("-1", "1")), ([2, 10], ("2", "10")), ([0.0, 1.5], ("0.0", "1.5")),
        ([True, False], ("False", "True")), (pl.Series(["v", "u"], dtype=pl.Categorical), ("u", "v")),
    ],
    ids=["text", "signs", "integers", "floats", "booleans", "categories"],
)  # fmt: skip
def test_labels_are_ordered_by_value(tmp_path: Path, values: list, labels: tuple[str, str]) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": [1.0, 2.0], "y": values}).write_parquet(path)
    data = load(path, "y")
    assert data.labels == labels
    positive = [str(v) == labels[1] for v in values]
    np.testing.assert_array_equal(data.targets > 0, positive)


ARRAYS = {
    "different lengths": ({"X": np.ones((3, 2)), "y": np.array([0, 1])}, "same number of rows"),
    "names that clash": (
        {"X": np.eye(2), "X_1": np.ones(2), "y": np.array([0, 1])},
        "'X_1'.*different names",
    ),
    "three dimensions": (
        {"X": np.ones((2, 2, 2)), "y": np.array([0, 1])},
        r"array 'X' = 'shape \(2, 2, 2\)'",
    ),
    "complex": ({"X": np.eye(2) * 1j, "y": np.array([0, 1])}, "array 'X' = 'type complex128'"),
    "objects": ({"X": np.array([[None, 1], [2, 3]]), "y": np.array([0, 1])}, "array 'X' = 'Python objects'"),
    "nan": ({"X": np.array([[1, 2], [np.nan, 3]]), "y": np.array([0, 1])}, "column 'X_0', row 2 = nan"),
    "no arrays": ({}, "The file is empty"),
}


@pytest.mark.parametrize("case", ARRAYS, ids=lambda c: c.replace(" ", "-"))
def test_npz(tmp_path: Path, case: str) -> None:
    arrays, message = ARRAYS[case]
    path = tmp_path / "t.npz"
    np.savez(path, **arrays)
    with pytest.raises(InvalidInputError, match=message):
        load(path, "y")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InvalidInputError, match=r"numpy\.savez") as caught:
        load(path, "y")
    assert "allow_pickle" not in str(caught.value)  # NumPy's own advice would run whatever is in there


def test_npz_labels_in_one_column(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, X=np.array([[1, 2], [3, 5]], dtype=">i2"), y=np.array([[b"u"], [b"v"]]))
    data = load(path, "y")
    assert data.raw.tolist() == [[1, 2], [3, 5]]
    assert data.labels == ("u", "v")


def test_csv_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("a,label\n1,\xe9\n2,y\n".encode("latin1"))
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        load(path, "label")


@pytest.mark.parametrize(
    ("target", "hint"), [("Lable", "'label'"), ("A", "'a'"), ("zzz", "--target"), (None, "--target")]
)
def test_target_hints(tmp_path: Path, target: str | None, hint: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,label\n1,2,x\n3,4,y\n")
    with pytest.raises(InvalidInputError, match=f"one of the columns a, b, label.*{hint}"):
        load(path, target)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("breast_cancer", "Did you mean breast-cancer"),
        ("digits:5", "for example digits:0,1"),
        ("digits:4,4", "two different classes out of"),
        ("digits:10,1", "two different classes out of"),
        ("", "breast-cancer"),
        ("t.txt", r"\.csv|path of a CSV"),
    ],
    ids=["spelling", "no-classes", "same-class", "no-such-class", "nothing", "other-file"],
)
def test_name_hints(spec: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load(spec)


def test_a_file_of_unknown_type(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    path.write_text("hm")
    with pytest.raises(InvalidInputError, match=r"\.csv, \.parquet or \.npz"):
        load(path, "label")


def test_built_in_names_win_over_folders_and_take_no_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breast-cancer").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("breast-cancer").raw.shape == (569, 30)
    assert load("digits:0, 1").name == "digits:0,1"
    with pytest.raises(InvalidInputError, match="Leave --target out"):
        load("breast-cancer", "label")


def test_only_what_is_built_in_has_a_known_range() -> None:
    rows, y = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([-1.0, 1.0])
    assert default_preprocessing(Dataset("digits:mine.csv", rows, y), statistics=False).divide_by == 1.0
    assert default_preprocessing(load("digits:0,1"), statistics=False).divide_by == 16.0


def test_rows_behind_a_digest_cannot_change() -> None:
    rows, y = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([-1.0, 1.0])
    data = Dataset("mine", rows, y)
    digest = data.digest
    rows[0, 0] = 7
    assert Dataset("mine", data.raw, data.targets).digest == digest
    with pytest.raises(ValueError, match="read-only"):
        data.raw[0, 0] = 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raw": np.array([["a"], ["b"]])}, "raw = .*real numbers"),
        ({"raw": np.array([[1j], [2]])}, "raw = .*real numbers"),
        ({"raw": np.array([[1.0], [1e200]])}, "column 'x0', row 2.*Rescale"),
        ({"raw": np.ones((1, 1)), "targets": np.ones(1)}, "n >= 2"),
        ({"targets": np.array([0, 1])}, r"2 \* y - 1"),
        ({"targets": np.array([1, np.nan])}, "both of -1 and"),
        ({"columns": ("a", "b")}, "1 different names"),
        ({"raw": np.eye(2), "columns": ("a", "a")}, "2 different names"),
        ({"labels": ("u", "u")}, "two different names"),
    ],
    ids=[
        "text",
        "complex",
        "huge",
        "one-row",
        "zero-one",
        "nan-target",
        "number-of-names",
        "same-names",
        "same-labels",
    ],
)
def test_arrays(change: dict, message: str) -> None:
    good = {"raw": np.array([[1.0], [2.0]]), "targets": np.array([-1.0, 1.0])}
    with pytest.raises(InvalidInputError, match=message):
        Dataset("mine", **(good | change))
