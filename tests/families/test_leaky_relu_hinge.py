"""Family F1: proxies and growth row by row against gradients written out in NumPy; the count of updates in hostile orders."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.families.activations import Activation
from proxyconvex.families.leaky_relu_hinge import LeakyReluHinge
from proxyconvex_checker import leaky_relu_hinge as checker
from proxyconvex_checker.errors import CheckError

CASES = {"m1": (1, 0.5), "m5": (5, 0.3), "m4-linear": (4, 1.0), "m64": (64, 0.1)}


def network(case: str, **changes) -> LeakyReluHinge:
    width, slope = CASES[case]
    return LeakyReluHinge(width, Activation("leaky-relu", slope), **changes)


def rows(seed=0, n=9, d=4):
    """Rows of different norms; u errs on some of them, so that q takes both signs."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * rng.uniform(0.3, 2, (n, 1))
    y = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    y[:2] = (1.0, -1.0)
    return x, y, rng.standard_normal(d)


def by_hand(w, x, y, slope):
    """``(y N, gradient of the hinge loss)`` of one row, neuron by neuron; derivative 0 at y N = 1 and c at a kink."""
    m = len(w)
    a = [(1.0 if r < (m + 1) // 2 else -1.0) / math.sqrt(m) for r in range(m)]
    pre = [float(w[r] @ x) for r in range(m)]
    margin = y * sum(a[r] * max(pre[r], slope * pre[r]) for r in range(m))
    b = 1.0 if margin < 1 else 0.0
    return margin, np.array([-b * y * a[r] * (1.0 if pre[r] > 0 else slope) * x for r in range(m)])


def points(width, v, x):
    """Random weights of many sizes, and those that switch every neuron to the side that hurts most."""
    rng = np.random.default_rng(1)
    for scale in (1e-8, 0.1, 1.0, 30.0, 1e4):
        yield scale * rng.standard_normal(v.shape)
    yield from (np.zeros_like(v), v, -v, 2 * v, 1e-6 * v, 0.5 * v + rng.standard_normal(v.shape))
    for row in x:
        yield np.tile(-row, (width, 1))
        yield np.tile(row, (width, 1))


@pytest.mark.parametrize("case", CASES)
def test_proxy_convexity_and_growth_row_by_row(case):
    family, (x, y, u) = network(case), rows()
    c = family.activation.slope
    for kappa, level in ((2.0, 1.0), (0.7, 0.4), (300.0, 1.6)):
        v = family.comparator(u, kappa)
        for w in points(family.width, v, x):
            with jax.enable_x64(True):
                problem = family.problem(x, y, v, u=u, kappa=kappa, level=level)
                g, h = (np.asarray(p) for p in problem.proxy(w, problem.predict(w, x), x, y))
            for i in range(len(x)):
                margin, grad = by_hand(w, x[i], y[i], c)
                s = y[i] * float(u @ x[i])
                q = s if s >= 0 else s / c
                b = float(margin < 1)
                # The recorded proxies are those of the docstring ...
                assert g[i] == pytest.approx(
                    b * (kappa * level - 1) + max(1 - margin, 0), rel=1e-12, abs=1e-12
                )
                assert h[i] == pytest.approx(kappa * max(level - q, 0), rel=1e-12, abs=1e-12)
                # ... and proxy convexity holds with them.
                size = abs(g[i]) + abs(h[i]) + np.linalg.norm(grad) * (np.linalg.norm(w) + np.linalg.norm(v))
                assert float(np.sum(grad * (w - v))) - g[i] + h[i] >= -1e-12 * size
                assert np.sum(grad**2) <= b * (x[i] @ x[i]) * (1 + 1e-12)


def test_the_papers_constants():
    """kappa = 2 and rows with margin one: ``<grad, W - V> >= 1[yN < 1] + (1 - yN)_+``, as in the paper."""
    family, (x, _, u) = network("m5"), rows()
    y = np.where(x @ u > 0, 1.0, -1.0)
    u = u / np.min(y * (x @ u))
    v = family.comparator(u, 2.0)
    for w in points(5, v, x):
        for i in range(len(x)):
            margin, grad = by_hand(w, x[i], y[i], 0.3)
            size = np.linalg.norm(grad) * (np.linalg.norm(w) + np.linalg.norm(v)) + abs(margin) + 2
            assert np.sum(grad * (w - v)) >= (margin < 1) + max(1 - margin, 0) - 1e-12 * size


def test_gradient_and_products_are_those_written_out_and_zero_at_the_kink_of_the_hinge():
    family, (x, y, u) = network("m5"), rows()
    v = family.comparator(u, 3.0)
    w = np.random.default_rng(2).standard_normal(v.shape)
    with jax.enable_x64(True):
        problem = family.problem(x, y, v, u=u, kappa=3.0)
        loss, q, grad = problem.loss_grad(w, x, y)
        known = problem.comparator_rows()
        parts = [by_hand(w, x[i], y[i], 0.3) for i in range(len(x))]
        np.testing.assert_allclose(grad, np.mean([p[1] for p in parts], axis=0), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(y * np.asarray(q), [p[0] for p in parts], rtol=1e-12)
        assert float(loss) == pytest.approx(np.mean([max(1 - p[0], 0) for p in parts]), rel=1e-12)
        for i, (_, by) in enumerate(parts):
            k = slice(i, i + 1)
            _, _, one, inner, square = problem.loss_grad_products(w, x[k], y[k], known[k])
            np.testing.assert_allclose(one, by, rtol=1e-12, atol=1e-14)
            assert float(inner) == pytest.approx(np.sum(by * (w - v)), rel=1e-11, abs=1e-12)
            assert float(square) == pytest.approx(np.sum(by**2), rel=1e-12, abs=1e-14)
        # y N = 1 exactly: one neuron with sign +1 and pre-activation 1.
        single = network("m1")
        corner = single.problem(np.array([[1.0], [-1.0]]), np.array([1.0, -1.0]), np.zeros((1, 1)))
        assert not np.asarray(
            corner.loss_grad(np.array([[1.0]]), np.array([[1.0]]), np.array([1.0]))[2]
        ).any()
        assert float(corner.slope(np.array([1.0]), np.array([1.0]))[0]) == 0.0


def separable(seed=0, n=40, d=5):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    u = rng.standard_normal(d)
    u /= np.linalg.norm(u)
    keep = np.abs(x @ u) > 0.15
    x, y = x[keep], np.sign(x[keep] @ u)
    return x, y, u / np.min(y * (x @ u))


def hostile(w, x, y, slope, eta, limit):
    """SGD that is always handed the row with the least margin below one; returns the number of updates."""
    for t in range(limit):
        parts = [by_hand(w, x[i], y[i], slope) for i in range(len(x))]
        i = int(np.argmin([p[0] for p in parts]))
        if parts[i][0] >= 1:
            return t
        w = w - eta * parts[i][1]
    return limit


@pytest.mark.parametrize("width", [1, 2, 7, 50])
@pytest.mark.parametrize("kappa", [2.0, 40.0])
def test_updates_in_a_hostile_order_stay_below_the_promise(width, kappa):
    x, y, u = separable()
    family = LeakyReluHinge(width, Activation("leaky-relu", 0.4), init_scale=0.05)
    w0, eta = family.initial(x.shape[1]), (kappa - 1) * (1 - 1e-9)
    params = {"T": 10**6, "eta": eta, "kappa": kappa}
    promised = checker.derive("T3m", x, y, w0, family.activation.describe(), u, params)["updates"]
    # The formula, by hand.
    gap = np.sum((w0 - family.comparator(u, kappa)) ** 2) / (2 * eta * (kappa - 1) - eta**2)
    assert promised == math.floor(gap)
    made = hostile(w0, x, y, 0.4, eta, int(promised) + 1)
    assert 0 < made <= promised


def test_a_perceptron_attains_a_good_part_of_the_promise():
    """Orthogonal rows, a linear network: every row costs one update, and the bound is not far above that."""
    n = 16
    x, y = np.eye(n), np.ones(n)
    y[::2] = -1.0
    family = LeakyReluHinge(2, Activation("leaky-relu", 1.0), init_scale=0.0)
    u, kappa = y.copy(), 1e6
    params = {"T": 10**6, "eta": kappa - 1, "kappa": kappa}
    w0 = family.initial(n)
    promised = checker.derive("T3m", x, y, w0, family.activation.describe(), u, params)["updates"]
    made = hostile(w0, x, y, 1.0, kappa - 1, 1000)
    assert made == n == promised


def test_share_of_updates_holds_for_rows_that_nothing_separates():
    x, y, u = separable(3)
    y[::5] *= -1
    family = LeakyReluHinge(6, Activation("leaky-relu", 0.5), init_scale=0.1)
    w, passes, kappa, eta = family.initial(x.shape[1]), 40, 50.0, 20.0
    params = {"T": passes * len(x), "eta": eta, "kappa": kappa}
    numbers = checker.derive("T3u", x, y, w, family.activation.describe(), 0.3 * u, params)
    q = y * (x @ u) * 0.3
    q = np.where(q < 0, q / 0.5, q)
    charge = (
        np.mean(np.maximum(1 + eta / kappa / 2 + 1 / kappa - q, 0)) if np.isclose(numbers["X"], 1) else None
    )
    assert numbers["charge"] == pytest.approx(charge, rel=1e-9)
    count, wrong = 0, 0
    for t in range(passes * len(x)):
        margin, grad = by_hand(w, x[t % len(x)], y[t % len(x)], 0.5)
        count, wrong = count + (margin < 1), wrong + (margin <= 0)
        w = w - eta * grad
    assert wrong <= count <= numbers["bound"] * passes * len(x)
    assert numbers["bound"] < 5  # the number is of the right size; it is vacuous for this careless u


def test_near_misses_of_the_checker():
    x, y, u = separable()
    family = LeakyReluHinge(3, Activation("leaky-relu", 0.5), init_scale=0.0)
    given = (x, y, family.initial(x.shape[1]), family.activation.describe())
    good = {"T": len(x) * 10**4, "eta": 99.0, "kappa": 100.0}
    numbers = checker.derive("T3m", *given, u, good)
    passes = int(numbers["updates"]) + 1
    assert checker.derive("T3m", *given, u, {**good, "passes": passes})["error_bound"] == 0.0
    for change, word in (
        ({"passes": passes - 1}, "not more than"),
        ({"passes": passes, "T": passes * len(x) - 1}, "less than"),
        ({"eta": 198.01}, "come closer"),
        ({"kappa": 0.5}, "come closer"),
    ):
        with pytest.raises(CheckError, match=word):
            checker.derive("T3m", *given, u, {**good, **change})
    y[0] *= -1
    with pytest.raises(CheckError, match="come closer"):
        checker.derive("T3m", *given, u, good)
    with pytest.raises(CheckError, match="homogeneous"):
        checker.derive("T3m", *given[:3], {"name": "smooth-leaky", "slope": 0.5, "beta": 1.0}, u, good)
    with pytest.raises(CheckError, match="no theorem"):
        checker.derive("T8", *given, u, good)


def test_leak_claimed_one_percent_too_large_is_caught_where_all_neurons_leak():
    """With every neuron on its leaky side, ``y <grad N, V>`` is exactly ``kappa q``; a larger leak in q breaks it."""
    x, y, u = np.array([[1.0, 0.0]]), np.array([-1.0]), np.array([-1.0, 0.0])
    w = np.tile([-1e-3, 0.0], (5, 1))
    margin, grad = by_hand(w, x[0], y[0], 0.3)
    q = float(y[0] * (u @ x[0]))
    for claimed, holds in ((0.3, True), (0.303, False)):
        # A comparator built for the leak `claimed`, in a network that leaks 0.3.
        v = np.where(np.arange(5) < 3, 1.0, -1.0)[:, None] * u * (10.0 / claimed) / math.sqrt(5)
        slack = float(np.sum(grad * (w - v))) - (10.0 * q - margin)
        assert bool(slack >= -1e-12 * 30) is holds


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: LeakyReluHinge(4, Activation("smooth-leaky", 0.5)), "leaky-relu"),
        (lambda: LeakyReluHinge(0, Activation("leaky-relu", 0.5)), "width"),
        (lambda: LeakyReluHinge(4, Activation("leaky-relu", 0.0)), r"\(0, 1\]"),
        (lambda: network("m5").problem(*rows()[:2], np.zeros((5, 3))), "comparator"),
        (lambda: network("m5").problem(*rows()[:2], np.zeros((5, 4)), kappa=0.0), "kappa"),
        (lambda: network("m5").problem(*rows()[:2], np.zeros((5, 4)), theta=0.5), "u, kappa and level"),
    ],
)
def test_bad_arguments_are_refused(build, word):
    with pytest.raises(InvalidInputError, match=word):
        build()
