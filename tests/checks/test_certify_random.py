"""Random conditions, many of them slightly false: none of those is certified, and every certificate passes the checker."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.checks.certify.certify import certify
from proxyconvex.core.evidence import Status
from proxyconvex_checker.checking import verify

ACTIVATIONS = [
    "softplus", "sigmoid", "tanh", "relu", "leaky-relu:1/4", "square", lambda t, sigmoid: t * sigmoid(t), lambda t: t**3 / 3 + t,
]  # fmt: skip


def random_condition(rng: np.random.Generator) -> pc.ReducedCondition:
    """A random quadratic form in t, r and s(a) - s(b), about two variables or about 0."""
    activation = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]
    k = [Fraction(int(n), 8) for n in rng.integers(-8, 9, 7)]
    k[0], k[3] = (
        abs(k[0]) + Fraction(int(rng.integers(0, 5)), 2),
        abs(k[3]) + Fraction(int(rng.integers(1, 9)), 2),
    )
    extra, single, width = (
        int(rng.integers(3)),
        bool(rng.integers(3) == 0),
        Fraction(int(rng.integers(4, 33)), 8),
    )

    def slack(a, b, y, s, ds, exp):
        v = 0 * b if single else b
        t, r, d = a - v, s(v) - y, s(a) - s(v)
        total = (
            k[0] * d * t + k[1] * d * d + k[2] * t * t + k[3] * r * r + k[4] * t * r * ds(a) + k[5] * d * r
        )
        if extra == 1:
            total = total + k[6] * (exp(a) - exp(v) - exp(v) * t)
        return total + k[6] * t * t * b * b if extra == 2 else total

    return pc.reduced(slack, activation=activation, a=(-width, width), b=(-2, 2), y=(-1, 1))


def least(condition: pc.ReducedCondition, rng: np.random.Generator) -> float:
    """The least slack at sampled points, a third of them near the diagonal."""
    n = 30_000
    x = {k: rng.uniform(float(lo), float(hi), n) for k, (lo, hi) in condition.variables.items()}
    lo, hi = map(float, condition.variables["a"])
    x["a"][: n // 3] = np.clip(
        x["b"][: n // 3] + rng.normal(size=n // 3) * 10.0 ** rng.uniform(-3, 0, n // 3), lo, hi
    )
    return float(np.min(condition.slack(x)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_conditions(seed, tmp_path):
    rng, seen = np.random.default_rng(seed), Counter()
    for _ in range(16):
        condition = random_condition(rng)
        lowest = least(condition, rng)
        if lowest < 0 and rng.random() < 0.5:
            # Lifted until it is false by a thousandth of its depth only.
            lifted = condition.expression + Fraction(-lowest) * Fraction(999, 1000)
            condition, lowest = replace(condition, expression=lifted), lowest / 1000
        verdict = certify(condition, max_boxes=6_000, seconds=5, jobs=1, solver="boxes")
        seen[verdict.status] += 1
        if verdict.status is Status.HOLDS:
            assert lowest >= -1e-12, condition
            path = tmp_path / "c.json"
            path.write_text(json.dumps(verdict.document()))
            result = verify(path)
            assert result.accepted, (result.steps[-1], condition)
        elif verdict.status is Status.INCONCLUSIVE and verdict.delta is not None:
            assert lowest >= -float(verdict.delta) - 1e-12, condition
        elif verdict.status is Status.FALSIFIED:
            assert condition.slack(verdict.witness["point"]) < 0
    assert seen[Status.HOLDS] >= 2 and seen[Status.FALSIFIED] >= 2, seen
