"""Estimates: one-sided, labelled, and refused by theorems."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.evidence import Evidence
from proxyconvex.core.methods import ConstantStep
from proxyconvex.core.theorems import THEOREMS
from proxyconvex.families.activations import Activation

D = np.array([1.0, 3.0, 10.0])


def _f(w):
    return jnp.sum(D * w * w) / 2


def test_points_bound_constants_from_the_side_theorems_refuse():
    pairs = [(np.zeros(3), np.array([0.0, 1.0, 0.0])), (np.ones(3), np.array([1.0, 1.0, 2.0]))]
    smooth = pc.estimate(pc.Smooth(1.0, f=_f), "L", points=pairs)
    assert (float(smooth), smooth.side, smooth.evidence) == (pytest.approx(10.0), "lower", Evidence.SAMPLED)
    pl = pc.ProxyPL(_f, _f, 0, 2, 1.0)
    mu = pc.estimate(pl, "mu", points=[np.array([0.0, 1.0, 0.0])], evidence=Evidence.ON_TRACE)
    assert (float(mu), mu.side, mu.evidence) == (pytest.approx(12.0), "upper", Evidence.ON_TRACE)
    growth = pc.estimate(pc.GradientGrowth(1.0, 0, g=_f, f=_f), "A", like=np.zeros(3))
    assert growth.side == "lower"
    assert 19 < float(growth) <= 20 + 1e-9  # the truth is 20


@pytest.mark.parametrize("dimensions", [(40, 5), (6, 9)])
def test_the_smoothness_bound_is_above_every_hessian(dimensions):
    n, d = dimensions
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(n, d)), np.where(rng.normal(size=n) > 0, 1.0, -1.0)
    m, phi = 3, Activation("softplus", beta=0.7)
    bound = pc.smoothness_upper(x, phi, m)
    assert (bound.side, bound.evidence) == ("upper", Evidence.CERTIFIED)
    spread = np.linalg.eigvalsh(x.T @ x / n).max()
    by_hand = spread * (0.25 + 0.7 / 4 / np.sqrt(m))
    assert by_hand <= float(bound) <= by_hand * (1 + 1e-9)
    signs = np.where(np.arange(m) % 2, -1.0, 1.0) / np.sqrt(m)
    with jax.enable_x64(True):
        hessian = jax.jit(
            jax.hessian(lambda w: jnp.mean(jax.nn.softplus(-y * (phi(x @ w.reshape(m, d).T) @ signs))))
        )
        for size in (0.0, 0.5, 3.0):
            eigenvalues = np.linalg.eigvalsh(np.asarray(hessian(size * rng.normal(size=m * d))))
            assert np.abs(eigenvalues).max() <= float(bound)


def test_power_iteration_stays_below_and_says_so():
    constant = pc.curvature_lower(
        lambda w: jnp.sum(jnp.asarray(D) * w**2) / 2 - 20 * jnp.sum(jnp.cos(w)), np.zeros(3), iterations=3
    )
    assert (constant.side, constant.evidence) == ("lower", Evidence.CERTIFIED)
    assert 21 < float(constant) <= 30  # the Hessian is diag(21, 23, 30)
    assert constant.value <= Fraction(30)
    converged = pc.curvature_lower(_f, np.zeros(3), iterations=200)
    assert 10 * (1 - 1e-12) <= float(converged) <= 10
    rounded = pc.curvature_lower(
        lambda w: jnp.sum(w.astype(jnp.float32) ** 2).astype(jnp.float64), np.ones(2)
    )
    assert rounded.evidence is Evidence.SAMPLED


def test_no_theorem_takes_an_estimate_or_the_wrong_side():
    """The right L is accepted by T1; an estimate of it and a lower bound on it are refused by every theorem."""
    method = pc.GradientDescent(ConstantStep(0.01), 100)
    g = _f

    def premises(smoothness):
        return [
            pc.ProxyPL(_f, g, 0, 2, 4.0),
            pc.Smooth(smoothness, f=_f),
            pc.BoundedBelow(0, f=_f),
            pc.Start(value=1.0, point=np.ones(3)),
        ]

    t1 = next(t for t in THEOREMS if t.id == "T1")
    assert t1.accepts(premises(10.0), method).__class__.__name__ == "Accepted"
    estimate = pc.estimate_mean(np.random.default_rng(0).normal(10, 0.1, size=50)).constant
    assert estimate.side == "estimate"
    for wrong, word in ((estimate, "estimate"), (pc.curvature_lower(_f, np.zeros(3)), "lower")):
        refused = t1.accepts(premises(wrong), method)
        assert refused.__class__.__name__ == "Rejected"
        assert word in str(refused)
        for theorem in THEOREMS:
            answer = theorem.accepts(premises(wrong), method)
            uses = answer.__class__.__name__ == "Accepted" and any(
                isinstance(p, pc.Smooth) for p in getattr(answer, "premises", ())
            )
            assert not uses, theorem.id


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(2)
    hits = {"bounded": 0, "normal": 0}
    runs = 400
    for _ in range(runs):
        coin = (rng.random(60) < 0.3).astype(float)
        e = pc.estimate_mean(coin, confidence=0.9, bounds=(0, 1))
        hits["bounded"] += e.low <= 0.3 <= e.high
        e = pc.estimate_mean(rng.normal(2.0, 3.0, size=8), confidence=0.9)
        hits["normal"] += e.low <= 2.0 <= e.high
    assert hits["bounded"] / runs >= 0.9
    assert (
        abs(hits["normal"] / runs - 0.9) < 0.05
    )  # exact for normal samples: three standard errors are 0.045


def test_the_noise_estimate_is_unbiased_and_worded_as_an_estimate():
    rng = np.random.default_rng(3)
    values = [pc.estimate_noise(np.array([1.0, -2.0]) + rng.normal(size=(5, 2))).value for _ in range(2000)]
    assert np.mean(values) == pytest.approx(2.0, abs=0.1)
    text = str(pc.estimate_noise(rng.normal(size=(30, 2))))
    assert text.startswith("about ")
    assert "with confidence 0.95 (30 samples; Student's t, exact for normal samples only)" in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pc.estimate(pc.Smooth(1.0, f=_f), "L", points=[np.zeros(3)]), "a pair"),
        (
            lambda: pc.estimate(
                pc.Smooth(1.0, f=_f), "L", points=[(np.zeros(3), np.zeros(3))], like=np.zeros(3)
            ),
            "pairs",
        ),
        (lambda: pc.estimate(pc.ProxyPL(_f, _f, 0, 1, 1), "alpha", like=np.zeros(3)), "pc.tightest"),
        (lambda: pc.smoothness_upper(np.ones((3, 2)), Activation("relu"), 4), "no smoothness constant"),
        (lambda: pc.smoothness_upper(np.ones(3), Activation("softplus"), 4), "one row per sample"),
        (lambda: pc.smoothness_upper(np.ones((3, 2)), Activation("softplus"), 0), "whole number"),
        (lambda: pc.estimate_mean([1.0]), "at least two"),
        (lambda: pc.estimate_mean([1.0, 2.0], bounds=(0, 1)), "bounds of every sample"),
        (lambda: pc.estimate_mean([1.0, 2.0], confidence=1), "Try 0.95"),
    ],
    ids=["single", "equal", "alpha", "kink", "shape", "width", "few", "bounds", "confidence"],
)
def test_refusals(call, message):
    with pytest.raises(pc.InvalidInputError, match=message):
        call()
