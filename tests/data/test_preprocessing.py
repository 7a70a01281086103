"""The pipeline against exact rational arithmetic, and against the checker's own copy, bit for bit."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.preprocessing import Preprocessing, data_digest
from proxyconvex_checker import preprocessing as checker


def table(seed: int, n: int = 17, d: int = 5) -> np.ndarray:
    """Rows with very different column sizes and one column that nearly cancels."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-6, 7, d)
    raw[:, -1] += 100 * np.abs(raw[:, -1]).max()
    return raw


SETTINGS = [
    {"center": c, "scale": s, "divide_by": v, "unit_norm": u, "bias": b}
    for c in (False, True)
    for s in ("none", "column")
    for v, u, b in ((1.0, True, 0.1), (16.0, True, 0.0), (3.0, False, 1.0))
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("seed", [0, 1])
def test_same_bits_as_the_checker(settings: dict, seed: int) -> None:
    raw = table(seed)
    mine = Preprocessing((0, 2, 3, 4), **settings)
    assert np.array_equal(mine.apply(raw), checker.apply(raw, mine.describe()))


def test_against_rational_arithmetic() -> None:
    raw = table(3)
    out = Preprocessing(tuple(range(5)), scale="column", bias=0.25).apply(raw)
    exact = [[Fraction(x) for x in row] for row in raw.tolist()]
    n = len(exact)
    for j in range(5):
        mean = sum(row[j] for row in exact) / n
        spread = math.sqrt(sum((row[j] - mean) ** 2 for row in exact) / n)
        for row in exact:
            row[j] = (row[j] - mean) / Fraction(spread)
    for i, row in enumerate(exact):
        norm = Fraction(math.sqrt(sum(x * x for x in row)))
        unit = [x / norm for x in row] + [Fraction(1, 4)]
        last = math.sqrt(sum(x * x for x in unit))
        np.testing.assert_allclose(out[i], [float(x) / last for x in unit], rtol=1e-11, atol=1e-13)


def test_rows_have_unit_norm_and_zero_rows_stay() -> None:
    raw = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, -1.0]])
    out = Preprocessing((0, 1), center=False, bias=0.0).apply(raw)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), [1, 0, 1], atol=1e-15)


def test_digest_names_rows_targets_and_shape() -> None:
    raw, y = table(0), np.where(np.arange(17) % 2, 1.0, -1.0)
    digest = data_digest(raw, y)
    assert digest == checker.data_digest(raw, y)
    # Known value: the format of the digest is part of every certificate ever written.
    known = "f98cfed6edf95b5bce981b11435e9d9d904a2ca91ac1ad6855e8c8310df31194"
    assert data_digest(np.zeros((2, 1)), np.array([-1.0, 1.0])) == known
    other = raw.copy()
    other[0, 0] = np.nextafter(other[0, 0], np.inf)
    assert data_digest(other, y) != digest
    assert data_digest(raw.reshape(5, 17).T.copy(), y) != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept_columns": ()}, "increasing list"),
        ({"kept_columns": (2, 1)}, "increasing list"),
        ({"kept_columns": (0, 9)}, "indices below 5"),
        ({"scale": "rows"}, "'none' or 'column'"),
        ({"divide_by": 0.0}, "finite number > 0"),
        ({"bias": float("nan")}, "finite number >= 0"),
    ],
    ids=["empty", "unsorted", "range", "scale", "divisor", "bias"],
)
def test_refusals(change: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Preprocessing(**{"kept_columns": (0, 1), **change}).apply(table(0))


def test_scaling_a_constant_column_is_refused() -> None:
    raw = table(0)
    raw[:, 1] = 7.0
    with pytest.raises(InvalidInputError, match="columns that vary"):
        Preprocessing((0, 1), scale="column").apply(raw)
