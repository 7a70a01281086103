"""Loading data: what is built in, files, and every refusal with its fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.data import Dataset, default_preprocessing, load


@pytest.mark.parametrize(
    ("spec", "shape", "positive"),
    [
        ("breast-cancer", (569, 30), 357),
        ("digits:0,1", (360, 64), 182),
        ("digits:1,0", (360, 64), 178),
        ("digits:even-odd", (1797, 64), 906),
        ("wine:0,2", (107, 13), 48),
    ],
)
def test_built_in(spec: str, shape: tuple[int, int], positive: int) -> None:
    data = load(spec)
    assert data.raw.shape == shape
    assert int((data.targets == 1).sum()) == positive
    features = default_preprocessing(data).apply(data.raw)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-15)


def test_same_digest_twice_and_known() -> None:
    assert load("wine:0,1").digest == load("wine:0,1").digest != load("wine:0,2").digest


@pytest.mark.parametrize(
    "spec", ["digits:", "digits:3,3", "digits:0,a", "wine:0,7", "breast-cancer:1", "iris", "nowhere/x.csv"]
)
def test_unknown_names(spec: str) -> None:
    with pytest.raises(InvalidInputError, match=r"digits:A,B|two different classes|existing CSV"):
        load(spec)


def frame(**changes: list) -> pl.DataFrame:
    """Six usable rows."""
    columns = {"a": [1.0, 2, 3, 4, 5, 6], "b": [0.5, 1, 0, 2, 1, 3], "label": ["no", "yes"] * 3}
    return pl.DataFrame({**columns, **changes}, strict=False)


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_files_agree(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"t.{kind}"
    table = frame()
    if kind == "csv":
        table.write_csv(path)
    elif kind == "parquet":
        table.write_parquet(path)
    else:
        np.savez(path, X=table.select("a", "b").to_numpy(), label=np.array(table["label"].to_list()))
    data = load(str(path), "label")
    assert data.labels == ("no", "yes")
    np.testing.assert_array_equal(data.raw, table.select("a", "b").to_numpy())
    np.testing.assert_array_equal(data.targets, [-1, 1] * 3)


REFUSALS = {
    "no target": (frame(), None, "--target"),
    "misspelt target": (frame(), "lable", "Did you mean 'label'"),
    "missing value": (frame(b=[1, None, 2, 3, 4, 5]), "label", r"column 'b', row 2.*--drop-missing"),
    "missing label": (frame(label=["no", None, "yes", "no", "yes", "no"]), "label", "column 'label', row 2"),
    "text": (frame(b=["u", "v", "w", "u", "v", "w"]), "label", "column 'b'.*holds text"),
    "one class": (frame(label=["no"] * 6), "label", "All rows have the same label"),
    "three classes": (frame(label=["x", "y", "z"] * 2), "label", "exactly two label values"),
    "constant": (frame(b=[7] * 6), "label", "column 'b'.*--drop-constant"),
    "infinite": (frame(b=[1, 2, 3, float("inf"), 5, 6]), "label", "column 'b', row 4"),
    "nan": (frame(b=[1, 2, float("nan"), 4, 5, 6]), "label", "column 'b', row 3"),
    "huge": (frame(b=[1, 2, 1e200, 4, 5, 6]), "label", "column 'b', row 3.*Rescale"),
    "only the target": (frame().select("label"), "label", "at least one feature"),
}


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: c.replace(" ", "-"))
def test_refusals(tmp_path: Path, case: str) -> None:
    table, target, message = REFUSALS[case]
    path = tmp_path / "t.parquet"
    table.write_parquet(path)
    with pytest.raises(InvalidInputError, match=message):
        load(str(path), target, tasks=("binary",))


def test_drops_on_request(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    frame(b=[7, None, 7, 7, 7, 7]).write_csv(path)
    data = load(str(path), "label", drop_constant=True, drop_missing=True)
    assert len(data.raw) == 5
    # The constant column stays in the stored rows. Leaving it out is a statistic of the data, so only the preprocessing does
    # it, and not where a promise about unseen rows forbids statistics.
    assert data.columns == ("a", "b")
    assert default_preprocessing(data).kept_columns == (0,)
    assert default_preprocessing(data, statistics=False).kept_columns == (0, 1)


@pytest.mark.parametrize("text", ["", "a,b,label\n"], ids=["empty", "header only"])
def test_empty_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InvalidInputError):
        load(str(path), "label")


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(InvalidInputError, match="readable PARQUET"):
        load(str(path), "label")


@pytest.mark.parametrize(
    ("raw", "y", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), "n >= 2"),
        (np.ones((3, 2)), np.ones(2), "one per row"),
        (np.ones((3, 2)), np.array([1, 1, 1.0]), "both of -1 and"),
        (np.ones((3, 2)), np.array([0, 1, 1.0]), "both of -1 and"),
        (np.array([[1, np.nan], [1, 2]]), np.array([-1, 1.0]), "column 'x1', row 1"),
    ],
    ids=["empty", "lengths", "one-class", "zero-one", "nan"],
)
def test_arrays_are_checked(raw: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Dataset("arrays", raw, y)
