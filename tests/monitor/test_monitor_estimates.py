"""Unbiased where the naive number is biased; intervals that cover; proxies against their definitions."""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from monitored_runs import loss_and_gradient, problem, train

from proxyconvex import InvalidInputError, Status
from proxyconvex.monitor.conditions import WatchPL
from proxyconvex.monitor.estimates import (
    part_variance,
    parts_of,
    pl_estimate,
    ratio_interval,
    unbiased_grad_sq,
)
from proxyconvex.monitor.log import RunLog
from proxyconvex.monitor.proxies import BUILT_IN, ERROR_FACTOR, proxies
from proxyconvex.monitor.summary import _estimated, summarise


@pytest.mark.parametrize("k", [2, 3])
def test_expectation_over_every_batch_is_exact(k: int) -> None:
    """All k-tuples of single-row parts, enumerated: the estimate's mean is ||grad f||^2, the batch's own norm's is not."""
    x, y, _ = problem()
    w = np.array([0.5, -0.2, 0.1, 0.0, 0.3])
    rows = [loss_and_gradient(w, x[[i]], y[[i]])[1] for i in range(5)]
    mean = sum(rows) / 5
    true, spread = mean @ mean, np.mean([(g - mean) @ (g - mean) for g in rows])
    unbiased, naive, variance = [], [], []
    for chosen in itertools.product(rows, repeat=k):
        total, each = sum(chosen) @ sum(chosen), sum(g @ g for g in chosen)
        unbiased.append(unbiased_grad_sq(total, each, k))
        naive.append(total / k**2)
        variance.append(part_variance(total, each, k))
    assert np.mean(unbiased) == pytest.approx(true, rel=1e-12)
    assert np.mean(variance) == pytest.approx(spread, rel=1e-12)
    assert np.mean(naive) == pytest.approx(true + spread / k, rel=1e-12)
    assert np.mean(naive) > 1.1 * true
    without = [
        unbiased_grad_sq(sum(c) @ sum(c), sum(g @ g for g in c), k) for c in itertools.permutations(rows, k)
    ]
    assert np.mean(without) == pytest.approx(true - spread / 4, rel=1e-9)  # n - 1 = 4: the stated bias


def test_interval_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    signal, level = np.linspace(1.0, 0.5, 40), np.linspace(2.0, 1.0, 40)
    truth, hits = signal.sum() / level.sum(), 0
    for _ in range(2000):
        found = ratio_interval(
            signal + rng.normal(size=40), level + 0.1 * rng.normal(size=40), np.arange(40.0)
        )
        hits += found.low <= truth <= found.high
    assert 0.935 <= hits / 2000 <= 0.965  # three standard errors about 0.95


def _log(unbiased_mean: float, noise: float, excess: float, n: int = 400, seed: int = 0) -> RunLog:
    """Records with half-batch gradients around a mean of the given squared norm, in 20 dimensions."""
    rng = np.random.default_rng(seed)
    log = RunLog(header={"event": "start", "comparators": ["init"]})
    mean = np.zeros(20)
    mean[0] = math.sqrt(unbiased_mean)
    for t in range(n):
        a, b = mean + noise * rng.normal(size=(2, 20))
        log.take(
            {
                "step": t,
                "loss": excess,
                "parts": 2,
                "part_size": 8,
                "parts_total_sq": (a + b) @ (a + b),
                "parts_sum_sq": a @ a + b @ b,
            }
        )
    return log


def test_naive_pl_check_passes_falsely_and_the_estimate_does_not() -> None:
    """A stationary point that is no minimum: grad f = 0, f - f_star = 1. PL is false there; batch noise hides it from the naive check."""
    e = pl_estimate(_log(0.0, 1.0, 1.0), WatchPL("PL"))
    assert e.naive > 10
    assert not e.shown
    assert e.worst.low < 0 < e.worst.high


def test_constant_of_known_size_is_found_inside_its_interval() -> None:
    e = pl_estimate(_log(0.5, 0.1, 2.0), WatchPL("PL"))
    assert e.shown
    assert all(w.low <= 2 * 0.5 / 2.0 <= w.high for w in e.windows)
    one = pl_estimate(_log(0.25, 0.05, 2.0), WatchPL("PL", alpha=1))
    assert all(w.low <= 2 * math.sqrt(0.25) / 2.0 <= w.high for w in one.windows)
    assert pl_estimate(_log(0.5, 0.1, 2.0, n=8), WatchPL("PL")) is None


def test_since_when() -> None:
    early, late = _log(0.0, 1.0, 1.0, n=200), _log(4.0, 0.1, 1.0, n=200)
    for r in late.records:
        early.take({**r, "step": r["step"] + 200})
    e = pl_estimate(early, WatchPL("PL"))
    assert not e.shown
    assert e.since == 200
    assert "from step 200 on" in _estimated(e).sentence


def test_noise_of_a_row() -> None:
    parts = parts_of(_log(0.5, 0.3, 1.0, n=4000))
    assert parts.per_sample.mean() == pytest.approx(8 * 20 * 0.09, rel=0.02)
    assert parts.noise.mean() == pytest.approx(20 * 0.09 / 2, rel=0.02)
    assert (parts.naive - parts.unbiased).mean() == pytest.approx(20 * 0.09 / 2, rel=0.02)


def test_run_is_never_judged_by_the_norm_of_a_batch() -> None:
    s = summarise(train(steps=200)[0].log())
    pl = [f for f in s.findings if f.condition == "PL"]
    assert [f.status for f in pl] in ([Status.NOT_FALSIFIED], [Status.INCONCLUSIVE])
    assert pl[0].evidence.name == "SAMPLED"
    assert not s.totals["pl"]
    assert s.inflation > 1.2


# --- proxies ---


def _batch(loss: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    if loss == "cross-entropy":
        return 4 * rng.normal(size=(3, 7, 6)), rng.integers(0, 6, (3, 7))
    y = rng.choice([0.0, 1.0] if loss == "binary-cross-entropy" else [-1.0, 1.0], 40)
    return 3 * rng.normal(size=40), y


def _value(loss: str, q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The losses themselves, row by row, for numerical derivatives."""
    sign = 2 * y - 1 if loss == "binary-cross-entropy" else y
    if loss in ("logistic", "binary-cross-entropy"):
        return np.logaddexp(0, -sign * q)
    return np.maximum(0, 1 - sign * q) if loss == "hinge" else (q - y) ** 2 / 2


@pytest.mark.parametrize("loss", sorted(BUILT_IN))
def test_slopes_are_derivatives_and_errors_are_errors(loss: str) -> None:
    q, y = _batch(loss)
    found = proxies(loss, np, q, y)
    if loss == "cross-entropy":
        z, t = q.reshape(-1, 6), y.ravel()
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        slope = 1 - p[np.arange(len(t)), t]
        error = z.argmax(1) != t
        margin = z[np.arange(len(t)), t] - np.where(np.arange(6) == t[:, None], -np.inf, z).max(1)
    else:
        slope = np.abs(_value(loss, q + 1e-6, y) - _value(loss, q - 1e-6, y)) / 2e-6
        margin = q * (2 * y - 1 if loss == "binary-cross-entropy" else y)
        error = margin <= 0
    assert found["slope"] == pytest.approx(slope.mean(), rel=1e-6)
    assert found["error"] == pytest.approx(error.mean())
    assert found["margin_mean"] == pytest.approx(margin.mean())
    assert found["margin_min"] == pytest.approx(margin.min())
    assert found["error"] <= ERROR_FACTOR[loss] * found["slope"] + 1e-12
    each = BUILT_IN[loss](np, q, y)
    assert (np.where(each["margin"] <= 0, 1.0, 0.0) <= ERROR_FACTOR[loss] * each["slope"] + 1e-12).all()


@pytest.mark.parametrize("loss", sorted(BUILT_IN))
def test_the_same_numbers_from_other_libraries(loss: str) -> None:
    q, y = _batch(loss)
    mask = (np.random.default_rng(1).random(y.shape) < 0.7).astype(float)
    for m in (None, mask):
        expected = proxies(loss, np, q, y, m)
        got = [proxies(loss, jnp, jnp.asarray(q), jnp.asarray(y), None if m is None else jnp.asarray(m))]
        torch = pytest.importorskip("torch")
        got.append(
            proxies(loss, torch, torch.tensor(q), torch.tensor(y), None if m is None else torch.tensor(m))
        )
        for other in got:
            assert {k: float(v) for k, v in other.items()} == pytest.approx(
                {k: float(v) for k, v in expected.items()}, rel=2e-5
            )
    half = proxies(loss, np, q.reshape(-1, *q.shape[y.ndim :])[mask.ravel() > 0], y.ravel()[mask.ravel() > 0])
    assert {k: float(v) for k, v in proxies(loss, np, q, y, mask).items()} == pytest.approx(
        {k: float(v) for k, v in half.items()}
    )


def test_slopes_far_from_the_boundary() -> None:
    z, y = np.array([[800.0, 0.0], [0.0, 800.0], [40.0, 0.0]]), np.array([0, 0, 0])
    slope = BUILT_IN["cross-entropy"](np, z, y)["slope"]
    assert slope[:2].tolist() == [0.0, 1.0]
    assert slope[2] == pytest.approx(math.exp(-40), rel=1e-12)
    assert BUILT_IN["logistic"](np, np.array([40.0, -40.0]), np.ones(2))["slope"] == pytest.approx(
        [math.exp(-40), 1.0]
    )
    with pytest.raises(InvalidInputError, match="'hinge'"):
        proxies("focal", np, z, y)
