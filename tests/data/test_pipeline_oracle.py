"""The canonical pipeline, bit for bit, against pure Python: every operation as an exact fraction, rounded once."""

from __future__ import annotations

import hashlib
import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.data import Dataset, load
from proxyconvex.preprocessing import Preprocessing, data_digest

Rows = list[list[float]]


def rounded(exact: Fraction) -> float:
    """The nearest float64, ties to even: division of two integers is correctly rounded in Python."""
    return exact.numerator / exact.denominator


def total(values: list[float]) -> float:
    """The sum, rounded once."""
    return rounded(sum(map(Fraction, values), Fraction(0)))


def root(x: float) -> float:
    """The square root, rounded once, from integer arithmetic alone."""
    if x == 0:
        return 0.0
    exact = Fraction(x)
    shift = max(0, 60 + (exact.denominator.bit_length() - exact.numerator.bit_length()) // 2)
    scaled = exact * 4**shift
    floor = math.isqrt(scaled.numerator // scaled.denominator)
    # Between two integers the root is irrational; half a unit away from both decides every rounding alike.
    inexact = floor * floor != scaled
    return rounded(Fraction(2 * floor + inexact, 2 * 2**shift))


def product(a: float, b: float) -> float:
    return rounded(Fraction(a) * Fraction(b))


def quotient(a: float, b: float) -> float:
    return rounded(Fraction(a) / Fraction(b))


def difference(a: float, b: float) -> float:
    return rounded(Fraction(a) - Fraction(b))


def unit(rows: Rows) -> Rows:
    out = []
    for row in rows:
        norm = root(total([product(x, x) for x in row]))
        out.append([quotient(x, norm) for x in row] if norm > 0 else row)
    return out


def slow(
    raw: Rows, kept: list[int], center: bool, scale: str, divide_by: float, unit_norm: bool, bias: float
) -> Rows:
    rows = [[quotient(row[j], divide_by) for j in kept] for row in raw]
    n = len(rows)
    for j in range(len(kept)):
        column = [row[j] for row in rows]
        mean = quotient(total(column), n)
        centred = [difference(x, mean) for x in column]
        result = centred if center else column
        if scale == "column":
            spread = root(quotient(total([product(x, x) for x in centred]), n))
            result = [quotient(x, spread) for x in result]
        for row, x in zip(rows, result, strict=True):
            row[j] = x
    if unit_norm:
        rows = unit(rows)
    if bias > 0:
        rows = [[*row, bias] for row in rows]
        rows = unit(rows) if unit_norm else rows
    return rows


def same_bits(a: np.ndarray, rows: Rows) -> bool:
    # + 0.0 makes both zeros the same: a fraction has no sign of zero.
    return (a + 0.0).tobytes() == (np.array(rows, dtype=np.float64) + 0.0).tobytes()


NUMBERS = st.one_of(
    st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-60 else x),
    st.integers(-9, 9).map(float),
)
TABLES = st.integers(1, 4).flatmap(
    lambda d: st.lists(st.lists(NUMBERS, min_size=d, max_size=d), min_size=2, max_size=6)
)


@given(
    raw=TABLES,
    center=st.booleans(),
    scale=st.sampled_from(["none", "column"]),
    divide_by=st.sampled_from([1.0, 16.0, 3.0, 0.7]),
    unit_norm=st.booleans(),
    bias=st.sampled_from([0.0, 0.1, 1.0]),
)
@example(
    raw=[[0.1], [0.2], [0.30000000000000004]],
    center=True,
    scale="column",
    divide_by=1.0,
    unit_norm=True,
    bias=0.1,
)
@example(raw=[[1.0, 3.0], [1.0, 5.0]], center=True, scale="none", divide_by=3.0, unit_norm=True, bias=0.0)
def test_every_bit(
    raw: Rows, center: bool, scale: str, divide_by: float, unit_norm: bool, bias: float
) -> None:
    d = len(raw[0])
    if scale == "column":  # a constant column, or one whose squares underflow, is refused; see the test below
        spread = [np.ptp([row[j] for row in raw]) for j in range(d)]
        kept = [j for j in range(d) if spread[j] > 1e-50]
        if not kept:
            return
    else:
        kept = list(range(d))
    mine = Preprocessing(tuple(kept), center, scale, divide_by, unit_norm, bias).apply(np.array(raw))
    assert same_bits(mine, slow(raw, kept, center, scale, divide_by, unit_norm, bias))


@pytest.mark.parametrize("settings", [(True, "column", 1.0), (True, "none", 1.0), (False, "none", 16.0)])
@pytest.mark.parametrize("spec", ["breast-cancer", "digits:0,1"])
def test_every_bit_on_real_rows(spec: str, settings: tuple[bool, str, float]) -> None:
    data = load(spec)
    rows, kept = data.raw[:60], [j for j in range(data.raw.shape[1]) if np.ptp(data.raw[:60, j]) > 0][:8]
    center, scale, divide_by = settings
    mine = Preprocessing(tuple(kept), center, scale, divide_by).apply(rows)
    assert same_bits(mine, slow(rows.tolist(), kept, center, scale, divide_by, True, 0.1))


@given(st.floats(1e-150, 1e150))
@example(2.0)
@example(math.nextafter(1.0, 0.0))
@example(math.nextafter(1.0, 2.0))
def test_the_oracles_root_is_correctly_rounded(x: float) -> None:
    y = root(x)
    below, above = (Fraction(math.nextafter(y, side)) for side in (0.0, math.inf))
    assert ((below + Fraction(y)) / 2) ** 2 <= Fraction(x) <= ((above + Fraction(y)) / 2) ** 2


def test_the_oracle_can_fail() -> None:
    raw = np.array([[0.1, 0.2], [0.3, 0.7], [0.9, 0.4]])
    rows = slow(raw.tolist(), [0, 1], True, "none", 1.0, True, 0.1)
    features = Preprocessing((0, 1)).apply(raw)
    assert same_bits(features, rows)
    features[1, 0] = np.nextafter(features[1, 0], 2)
    assert not same_bits(features, rows)


def test_digest_from_bytes_written_by_hand() -> None:
    raw, y = [[1.5, -2.0], [0.1, 3e10], [0.0, 7.0]], [1.0, -1.0, 1.0]
    text = b"proxyconvex-data-1\n3 2\n" + b"".join(struct.pack("<d", x) for row in raw for x in row)
    expected = hashlib.sha256(text + b"".join(struct.pack("<d", t) for t in y)).hexdigest()
    assert data_digest(np.array(raw), np.array(y)) == expected
    for layout in (np.asfortranarray(raw), np.array(raw, dtype=">f8")):
        assert Dataset("by hand", layout, np.array(y)).digest == expected


# Part of every certificate ever written: if one of these changes, old certificates name rows nobody can load.
DIGESTS = {
    "breast-cancer": "d05adda5fe426a50ea99934212a2196886861342428c81c9a68dfbfc95ada81a",
    "digits:0,1": "48922ae65f3557f1f9b198c53fdfa0c6937fc63bbe7c038bc4f67a990375fd40",
    "digits:even-odd": "f4049cd038b01194986d6ce7fc4c86367e1eec754d8e7cdf715694426725a7b8",
    "wine:0,1": "55944f7e36f5f433d08f564e489d02ea9ee5ddd108f9c11663f95bed1cbf7ce4",
}


@pytest.mark.parametrize("spec", DIGESTS)
def test_digests_of_built_in_data_are_stable(spec: str) -> None:
    assert load(spec).digest == DIGESTS[spec]


@pytest.mark.parametrize(
    ("raw", "settings"),
    [
        (np.array([[1e100, 1.0], [2e100, 3.0]]), {"divide_by": 1e-100, "center": False}),
        (np.array([[1e100, 1.0], [2e100, 3.0]]), {"divide_by": 1e-100, "scale": "column"}),
        (np.array([[1.0, 2.0], [3.0, 4.0]]), {"bias": 1e200}),
    ],
    ids=["rows", "columns", "bias"],
)
def test_overflow_is_refused_rather_than_turned_into_zeros(raw: np.ndarray, settings: dict) -> None:
    with pytest.raises(InvalidInputError, match="overflow"):
        Preprocessing((0, 1), **settings).apply(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept_columns": (-2, 0)}, "indices >= 0"),
        ({"kept_columns": (0.5, 1)}, "indices >= 0"),
        ({"kept_columns": None}, "indices >= 0"),
        ({"center": "yes"}, "True or False"),
        ({"divide_by": "16"}, "finite number > 0"),
        ({"divide_by": float("inf")}, "finite number > 0"),
        ({"bias": True}, "finite number >= 0"),
        ({"bias": -0.1}, "finite number >= 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items()),
)
def test_wrong_settings(change: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Preprocessing(**{"kept_columns": (0, 1), **change})


def test_settings_are_plain_values_whatever_they_came_as() -> None:
    mine = Preprocessing(np.array([0, 2]), np.True_, "none", np.int64(16), True, np.float32(0.5))
    assert mine.describe() == Preprocessing((0, 2), True, "none", 16.0, True, 0.5).describe()
    assert {type(value) for value in mine.describe().values()} == {list, bool, str, float}
    assert hash(mine) == hash(Preprocessing((0, 2), True, "none", 16.0, True, 0.5))
