"""T7 on simulated runs: holds to rounding, and a relative change of 1e-8 in any column is found."""

import math

import numpy as np
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence, Status
from proxyconvex.core.trace_identity import trace_identity


def record(seed=0, T=500, d=7, scale=1.0):
    rng = np.random.default_rng(seed)
    w, v = rng.standard_normal(d) * scale, rng.standard_normal(d) * scale
    start, inner, squares = float((w - v) @ (w - v)), [], []
    for t in range(T):
        g, eta = rng.standard_normal(d) * scale + 0.1 * w, 0.05 / math.sqrt(t + 1)
        inner.append(eta * float(g @ (w - v)))
        squares.append(eta * eta * float(g @ g))
        w = w - eta * g
    return np.array(inner), start, float((w - v) @ (w - v)), np.array(squares)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("seed", range(3))
def test_holds_on_any_run(seed, scale):
    verdict = trace_identity(*record(seed, scale=scale))
    assert verdict.status is Status.HOLDS and verdict.evidence is Evidence.ON_TRACE
    assert verdict.witness["gap"] <= 1e-13 * verdict.witness["scale"]


def test_sums_and_terms_agree():
    inner, a, b, squares = record(1)
    by_sums = trace_identity(math.fsum(inner), a, b, math.fsum(squares), float(np.abs(inner).sum()))
    assert by_sums.status is Status.HOLDS
    assert by_sums.witness["left"] == trace_identity(inner, a, b, squares).witness["left"]


@pytest.mark.parametrize("column", range(4), ids=["inner", "dist0", "distT", "squares"])
def test_a_change_of_one_part_in_1e8_is_found(column):
    values = list(record(2))
    values[column] = values[column] * (1 + 1e-8)
    verdict = trace_identity(*values)
    assert verdict.status is Status.FALSIFIED and "T7 is broken" in verdict.sentence
    with pytest.raises(TypeError, match="no truth value"):
        bool(verdict)


def test_tolerance_is_relative_to_absolute_terms_not_to_the_cancelled_sum():
    # terms of size 1 cancel to 1e-12 of their sum of absolute values: rounding of 1e-13 must be forgiven
    inner = np.array([1.0, -1.0] * 1000 + [1e-9])
    assert trace_identity(inner, 2e-9 + 2e-10, 2e-10, np.zeros(1)).status is Status.HOLDS
    assert trace_identity(inner, 2.2e-9 + 1e-6, 2e-10, np.zeros(1)).status is Status.FALSIFIED


def test_what_cannot_be_checked():
    run = record(3)
    assert trace_identity(*run, projected=True).status is Status.INVALID_INPUT
    assert trace_identity(run[0], math.nan, run[2], run[3]).status is Status.INVALID_INPUT
    assert trace_identity(run[0], -1.0, run[2], run[3]).status is Status.INVALID_INPUT
    assert trace_identity(5.0, 1.0, 1.0, 1.0, 2.0).status is Status.INVALID_INPUT
    with pytest.raises(InvalidInputError, match="absolute"):
        trace_identity(1.0, 1.0, 1.0, 1.0)
    with pytest.raises(InvalidInputError, match="tolerance"):
        trace_identity(*run, tolerance=0.0)
    with pytest.raises(InvalidInputError, match="vector of per-step terms"):
        trace_identity(np.ones((2, 2)), 1.0, 1.0, 1.0)
