"""The schema refuses everything that is not exactly a certificate, and names the field."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificate_damage import at, dotted, leaves, objects
from hypothesis import given
from hypothesis import strategies as st

from proxyconvex_checker import document, preprocessing
from proxyconvex_checker.errors import CheckError

FREE = ("constants", "params")  # tables whose names the theorem fixes, not the schema


def test_every_field_is_required(good):
    raw = good.raw
    for path in objects(raw):
        for key in at(raw, path):
            changed = copy.deepcopy(raw)
            del at(changed, path)[key]
            if path and path[-1] in FREE:
                continue
            with pytest.raises(CheckError, match="missing field|unknown field|accepted") as caught:
                document.parse(changed)
            assert dotted((*path, key)) in caught.value.message or path == ("method", "step")


def test_every_unknown_field_is_refused_with_its_path(good):
    raw = good.raw
    for path in objects(raw):
        if path and path[-1] in FREE:
            continue
        changed = copy.deepcopy(raw)
        at(changed, path)["note"] = "x"
        with pytest.raises(CheckError, match="unknown field " + dotted((*path, "note")).replace("[", r"\[")):
            document.parse(changed)


@pytest.mark.parametrize("value", [1.5, True, [], {}, "\u0000", "", -1, 10**30], ids=repr)
def test_every_field_refuses_values_of_another_kind(good, value):
    raw = good.raw
    for path in leaves(raw):
        old = at(raw, path[:-1])[path[-1]]
        if (
            isinstance(old, bool)
            and isinstance(value, bool)
            or (value == -1 and path[-2:-1] in {(f,) for f in FREE})
        ):
            continue
        changed = copy.deepcopy(raw)
        at(changed, path[:-1])[path[-1]] = value
        with pytest.raises(CheckError) as caught:
            document.parse(changed)
        assert caught.value.step == "schema"
        assert dotted(path).split("[")[0].rpartition(".")[0] in caught.value.message


def test_null_is_refused_where_a_value_is_needed(good):
    raw, optional = good.raw, {("method", "sampling"), ("method", "batch_size"), ("claim", "error_bound")}
    for path in leaves(raw):
        if path in optional or path[-1] in ("value", "probability") or at(raw, path) is None:
            continue
        changed = copy.deepcopy(raw)
        at(changed, path[:-1])[path[-1]] = None
        with pytest.raises(CheckError):
            document.parse(changed)


@pytest.mark.parametrize(
    "text",
    [
        "nan",
        "inf",
        "-inf",
        "0x1.8p+0",
        "0x1.8000000000000P+0",
        "1.5",
        " 0x1.8000000000000p+0",
        "0x1.8000000000000p+9999",
    ]
    + ["-0x0.0p+0", "0x0.8000000000000p+1", "", "0X1.8000000000000p+0", "0x1.80000000000000000p+0"],
)
def test_only_finite_canonical_hexadecimal_floats_are_read(text):
    with pytest.raises(CheckError, match=r"somewhere\.eta = .*; accepted: a finite hexadecimal float"):
        document.real()(text, "somewhere.eta")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_the_round_trip_exactly(x):
    read = document.real()(document.encode(x), "x")
    assert read == x and math.copysign(1, read) == (math.copysign(1, x) if x else 1)


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, b"bytes", np.zeros(2)], ids=["nan", "inf", "bytes", "array"]
)
def test_other_values_cannot_be_stored(bad):
    with pytest.raises(CheckError, match="cannot be stored"):
        document.encode({"x": [bad]})


CONTRADICTIONS = {
    "equal-labels": (lambda r: r["data"].update(labels=["a", "a"]), "data.labels"),
    "huge-data": (lambda r: r["data"].update(n=2**20, d=2**20), "data.n"),
    "huge-comparator": (lambda r: r["comparator"].update(shape=[2**20, 2**20]), "comparator.shape"),
    "sloped-softplus": (
        lambda r: r["family"]["activation"].update(name="softplus", slope=(0.5).hex()),
        "family.activation.slope",
    ),
    "slope-above-one": (
        lambda r: r["family"]["activation"].update(slope=(1.5).hex()),
        "family.activation.slope",
    ),
    "sampled-descent": (lambda r: r["method"].update(name="gd", sampling="cyclic"), "method.sampling"),
    "sgd-without-batch": (
        lambda r: r["method"].update(name="sgd", sampling="cyclic", batch_size=None),
        "method.batch_size",
    ),
    "sgd-normalised": (
        lambda r: r["method"].update(
            name="sgd",
            sampling="cyclic",
            batch_size=1,
            step={"kind": "normalised", "c": (1.0).hex(), "floor": (1.0).hex()},
        ),
        "method.step.kind",
    ),
    "step-zero": (
        lambda r: r["method"].update(step={"kind": "constant", "eta": (0.0).hex()}),
        "method.step.eta",
    ),
    "probability": (lambda r: r["claim"].update(mode="probability", probability=None), "claim.probability"),
    "negative-bias": (lambda r: r["preprocessing"].update(bias=(-0.1).hex()), "preprocessing.bias"),
    "odd-name": (lambda r: r["constants"].update({"R\u202e": (1.0).hex()}), "constants"),
    "terminal": (lambda r: r["data"].update(name="\x1b[2Jgone"), "data.name"),
}


@pytest.mark.parametrize(("edit", "path"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_refused(one, edit, path):
    raw = one.raw
    edit(raw)
    with pytest.raises(CheckError) as caught:
        document.parse(raw)
    assert caught.value.step == "schema" and path in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": 1.5}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a": 1e5}',
        '{"a": %s}' % ("9" * 5000),
    ],
    ids=["duplicate", "float", "nan", "inf", "minus-inf", "exponent", "long-integer"],
)
def test_loose_json_is_refused(tmp_path: Path, text):
    file = tmp_path / "certificate.json"
    file.write_text(text)
    with pytest.raises(CheckError, match="schema"):
        document.read(file)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path):
    file = tmp_path / "certificate.json"
    with file.open("wb") as stream:
        stream.truncate(document.MAX_BYTES + 1)
    with pytest.raises(document.UnreadableError, match="bytes"):
        document.read(file)


def test_the_seal_ignores_layout_but_nothing_else(one):
    raw = one.raw
    one.path.write_text(json.dumps(dict(reversed(raw.items())), indent=7))
    assert document.seal(document.read(one.path)) == raw["seal"]
    for path in leaves(raw):
        if path != ("seal",):
            changed = copy.deepcopy(raw)
            at(changed, path[:-1])[path[-1]] = "other"
            assert document.seal(changed) != raw["seal"]


# --- preprocessing -----------------------------------------------------------------------------------------


def plain(raw: np.ndarray, s: dict[str, Any]) -> np.ndarray:
    """The same pipeline with Python floats, one entry at a time."""
    rows = [[float(row[j]) / s["divide_by"] for j in s["kept_columns"]] for row in raw]
    n = len(rows)
    for j in range(len(s["kept_columns"])):
        mean = math.fsum(row[j] for row in rows) / n
        sd = math.sqrt(math.fsum((row[j] - mean) * (row[j] - mean) for row in rows) / n)
        for row in rows:
            row[j] = row[j] - mean if s["center"] else row[j]
            row[j] = row[j] / sd if s["scale"] == "column" else row[j]

    def unit(rows):
        norms = [math.sqrt(math.fsum(v * v for v in row)) for row in rows]
        return [[v / r for v in row] if r > 0 else row for row, r in zip(rows, norms, strict=True)]

    rows = unit(rows) if s["unit_norm"] else rows
    if s["bias"] > 0:
        rows = [[*row, s["bias"]] for row in rows]
        rows = unit(rows) if s["unit_norm"] else rows
    return np.array(rows)


SETTINGS = [
    dict(kept_columns=[0, 2, 3], center=c, scale=s, divide_by=v, unit_norm=u, bias=b)
    for c in (False, True)
    for s in ("none", "column")
    for v in (1.0, 16.0, 0.3)
    for u in (False, True)
    for b in (0.0, 0.1)
]


@pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda s: "-".join(str(v) for v in s.values() if not isinstance(v, list))
)
def test_preprocessing_is_bit_exact(settings):
    raw = np.random.default_rng(1).standard_normal((37, 5)) * 10.0 ** np.arange(-3, 2)
    raw[4] = 0.0  # a zero row keeps its zeros
    assert np.array_equal(preprocessing.apply(raw, settings), plain(raw, settings))


@pytest.mark.parametrize("settings", SETTINGS[::5], ids=str)
def test_proxyconvex_and_the_checker_agree_bit_for_bit(settings):
    data = pytest.importorskip("proxyconvex.data")
    raw = np.random.default_rng(2).standard_normal((41, 5)) * 10.0 ** np.arange(-3, 2)
    mine = data.Preprocessing(**(settings | {"kept_columns": tuple(settings["kept_columns"])})).apply(raw)
    assert np.array_equal(mine, preprocessing.apply(raw, settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept_columns": []}, "increasing"),
        ({"kept_columns": [1, 1]}, "increasing"),
        ({"kept_columns": [0, 9]}, "outside"),
        ({"kept_columns": [1], "scale": "column"}, "constant"),
        ({"divide_by": 1e-320}, "NaN or an infinity|overflow"),
    ],
    ids=["none", "twice", "outside", "constant", "overflow"],
)
def test_impossible_preprocessing_is_refused(change, message):
    raw = np.random.default_rng(3).standard_normal((5, 3))
    raw[:, 1] = 7.0
    with pytest.raises(CheckError, match=message):
        preprocessing.apply(raw, SETTINGS[0] | {"kept_columns": [0, 2]} | change)


def test_the_digest_depends_on_rows_targets_and_shape():
    raw, targets = np.arange(6.0).reshape(3, 2), np.array([1.0, -1.0, 1.0])
    digests = {
        preprocessing.data_digest(raw, targets),
        preprocessing.data_digest(raw + 1e-16 + 1e-15, targets),
        preprocessing.data_digest(raw, -targets),
        preprocessing.data_digest(raw[::-1].copy(), targets),
        preprocessing.data_digest(raw.reshape(2, 3), targets),
    }
    assert len(digests) == 5
    assert preprocessing.data_digest(np.asfortranarray(raw), targets) in digests
