"""Gradient descent on functions that satisfy the premises never ends above the bound; expectations are exact."""

import itertools
import math
from fractions import Fraction as F

import numpy as np
import pytest

from proxyconvex.core.methods import PolynomialStep
from proxyconvex.core.numbers import lower_float
from proxyconvex.core.theorems import (
    T1,
    T1_LAST,
    T1_SHARP,
    T2,
    T3,
    T3_SAMPLES,
    T3_STEPS,
    T3_VIRTUAL,
    T3T5,
    T4,
    T4T5,
)
from proxyconvex.core.theorems.normalised import error_level, reaches
from proxyconvex.core.theorems.population import population_from_observed
from proxyconvex.core.theorems.proxy_convex import schedule_sums

ROOM = 1 + 1e-9


def descend(grad, w, eta, T):
    points = [np.array(w, float)]
    for t in range(T):
        points.append(points[-1] - (eta[t] if np.ndim(eta) else eta) * grad(points[-1]))
    return points


def logistic(seed, n=8, d=3):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.choice([-1.0, 1.0], n)
    z = x * y[:, None]

    def f(w):
        return float(np.mean(np.logaddexp(0, -z @ w)))

    def grad(w):
        return -(z.T @ (1 / (1 + np.exp(z @ w)))) / n

    L = float(np.linalg.eigvalsh(x.T @ x / n).max()) / 4
    return f, grad, L, rng


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("x", [0.2, 1.0, 1.5, 1.9], ids=lambda x: f"eta={x}/L")
def test_t1_on_quadratics_and_pl_rate(seed, x):
    rng = np.random.default_rng(seed)
    d = np.sort(rng.uniform(0.05, 2.0, 4))
    f, grad = (lambda w: float(d @ w**2 / 2)), (lambda w: d * w)
    L, T, eta = d[-1], 30, x / d[-1]
    points = descend(grad, rng.standard_normal(4) * 3, eta, T)
    common = {"eta": eta, "L": L, "Delta": f(points[0]), "mu": 4 * d[0]}
    assert min(map(f, points[:T])) <= T1.bound(T, xi=0.0, alpha=2.0, **common) * ROOM
    assert np.mean([f(p) for p in points[:T]]) <= T1.average_bound(T, xi=0.0, alpha=2.0, **common) * ROOM
    assert f(points[-1]) <= T1_LAST.bound(T, f_star=0.0, **common) * ROOM
    if x < math.sqrt(3):
        assert min(map(f, points[:T])) <= T1_SHARP.bound(T, xi=0.0, alpha=2.0, **common) * ROOM


@pytest.mark.parametrize("seed", range(6))
def test_t1_t3_t4_on_logistic_regression(seed):
    f, grad, L, rng = logistic(seed)
    v, w0 = rng.standard_normal(3), rng.standard_normal(3) * 2
    growth, h, R = 2 * L, f(v), float(np.linalg.norm(w0 - v))  # ||grad f||^2 <= 2 L f for a smooth f >= 0
    for x in (0.3, 1.0):
        eta = x / L
        for T in (1, 5, 60):
            points = descend(grad, w0, eta, T)
            g = [f(p) for p in points[:T]]
            norm = [float(np.linalg.norm(grad(p))) for p in points[:T]]
            assert min(norm) <= T1_SHARP.bound(T, eta=eta, L=L, Delta=f(w0), mu=2.0, xi=0.0, alpha=1.0) * ROOM
            assert f(points[-1]) <= T4.bound(T, eta=eta, R=R, L=L, Delta=f(w0), h=h) * ROOM
            if eta < 2 / growth:
                c = {"eta": eta, "R": R, "A": growth, "C": 0.0, "h": h}
                assert np.mean(g) <= T3.bound(T, **c) * ROOM
                assert min(g) <= T3_VIRTUAL.bound(T, **c) * ROOM


def test_a_premise_one_percent_wrong_breaks_the_bound():
    """The tests above can fail: with R 1% too small, the explicit worst run of T3-virtual exceeds the bound."""
    G2, s, eta, T = 4.0, 0.2, 0.1, 12
    gamma = G2 * s
    R2 = s * s * G2 + (T - 1) * eta * (2 * s - eta) * G2
    right = T3_VIRTUAL.bound(T, eta=eta, R=math.sqrt(R2), A=0.0, C=G2, h=0.0)
    wrong = T3_VIRTUAL.bound(T, eta=eta, R=0.99 * math.sqrt(R2), A=0.0, C=G2, h=0.0)
    assert gamma <= right * ROOM and gamma > wrong * ROOM


def test_schedule_sums_enclose_and_bound_holds():
    f, grad, L, rng = logistic(11)
    w0, v = rng.standard_normal(3) * 2, rng.standard_normal(3)
    step = PolynomialStep(0.9 / L, 0.5, 3.0)
    T = 200
    eta = step.eta / (1 + np.arange(T) / step.scale) ** step.power
    S, Q, largest = schedule_sums(step, T)
    assert F(math.fsum(eta)) in S and F(math.fsum(eta**2)) in Q and largest == F(step.eta)
    points = descend(grad, w0, eta, T)
    R = float(np.linalg.norm(w0 - v))
    bound = T3_STEPS.bound(T, S=S, Q=Q, R=F(R), A=F(2 * L), C=F(0), h=F(f(v)))
    assert min(map(f, points[:T])) <= float(bound.hi) * ROOM


def expectation_over_all_orders(T, eta):
    """SGD on f = mean_i a (w - b_i)^2 / 2 with two samples: E f(w_t) exactly, by all 2^T sequences."""
    a, b = 1.5, (-1.0, 2.0)
    centre = sum(b) / 2

    def excess(w):
        return a / 2 * (w - centre) ** 2

    mean = np.zeros(T)
    for order in itertools.product(range(2), repeat=T):
        w = 3.0
        for t, i in enumerate(order):
            mean[t] += excess(w) / 2**T
            w -= eta * a * (w - b[i])
    sigma2 = a * a * np.var(b)
    return mean, {"a": a, "sigma2": sigma2, "Delta": excess(3.0), "R": 3.0 - centre}


@pytest.mark.parametrize("eta", [0.05, 0.3, 0.9])
def test_t2_and_t3_hold_for_exact_expectations(eta):
    T = 9
    mean, c = expectation_over_all_orders(T, eta)
    a = c["a"]
    t2 = T2.bound(T, eta=eta, L=a, Delta=c["Delta"], mu=4 * a, xi=0.0, alpha=2.0, rho=1.0, sigma2=c["sigma2"])
    assert mean.min() <= t2 * ROOM
    if eta < 1 / a:
        growth = {"eta": eta, "R": c["R"], "A": 2 * a, "C": c["sigma2"], "h": 0.0}
        assert mean.mean() <= T3.bound(T, **growth) * ROOM
        assert mean.min() <= T3_VIRTUAL.bound(T, **growth) * ROOM


def test_t3_samples_holds_in_every_order():
    a = np.array([0.5, 1.0, 2.0, 0.1])
    eta, R = 0.4, 3.0
    bound = T3_SAMPLES.bound(4, eta=eta, R=R, A=2 * a.max(), C=0.0, h=0.0)
    for order in itertools.permutations(range(4)):
        w, total = R, 0.0
        for i in order:
            total += a[i] / 2 * w * w
            w -= eta * a[i] * w
        assert total / 4 <= bound * ROOM


def test_local_theorems_on_a_function_that_is_proxy_convex_only_near_v():
    """f = 1 - cos w: w sin w >= 1 - cos w exactly for |w| <= 2.331...; growth sin^2 <= 2 f; L = 1."""
    f, grad = (lambda w: 1 - math.cos(w)), math.sin
    for w0 in (2.2, 1.0):
        for eta in (0.1, 0.9):
            for T in (1, 3, 40):
                w, g = w0, []
                for _ in range(T):
                    g.append(f(w))
                    w -= eta * grad(w)
                assert min(g) <= T3T5.bound(T, eta=eta, R=w0, A=2.0, C=0.0, h=0.0) * ROOM
                if w0**2 + eta * f(w0) / (1 - eta / 2) <= 2.331**2:
                    assert f(w) <= T4T5.bound(T, eta=eta, R=w0, L=1.0, Delta=f(w0), h=0.0) * ROOM


def test_t6_fails_no_more_often_than_delta():
    """An adaptive martingale made to hurt: the error probability is positive only until the first error is seen."""
    rng = np.random.default_rng(5)
    delta, T, failures, runs = 0.1, 60, 0, 4000
    for _ in range(runs):
        p, mean, seen = 0.07, 0.0, 0.0
        for _ in range(T):
            mean += p
            e = float(rng.random() < p)
            seen += e
            p = 0.0 if e else p
        failures += mean / T > population_from_observed(T, seen / T, M=1.0, delta=delta, u=1.0)
    assert failures / runs <= delta + 3 * math.sqrt(delta / runs)
    assert failures > 0  # the test can fail: the bound is not vacuous


# --- T8 ------------------------------------------------------------------------------------------------------------


def brute_level(q, k):
    """S_k by minimising the ratio over p with every choice of k forced errors, on a fine grid refined by coordinates."""
    from scipy.optimize import minimize

    n, best = len(q), math.inf

    def psi(p):
        return p * np.log(p / (1 - p))

    for forced in itertools.combinations(range(n), k):
        bounds = [(0.5 if i in forced else 1e-9, 1 - 1e-9) for i in range(n)]
        for start in (0.5, 0.7, 0.51):
            x0 = [start if i in forced else start / 5 for i in range(n)]
            made = minimize(
                lambda p: float((p @ q + psi(p).sum()) / p.sum()), x0, bounds=bounds, method="L-BFGS-B"
            )
            best = min(best, float(made.fun))
    return best


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("q", [[3.0, 3.0, 3.0], [5.0, 1.0, -0.5], [4.0, 4.0, -4.0], [0.0, 0.1, 0.2]], ids=str)
def test_error_level_is_a_tight_lower_bound(q, k):
    q = np.array(q)
    level, true = error_level(q, k), brute_level(q, k)
    assert level <= true + 1e-9
    assert level >= true - 1e-5
    assert reaches(q, k, level) and not reaches(q, k, true + 1e-3)


def test_error_level_grows_with_k_and_beats_jensen():
    q = np.full(50, 6.0)
    levels = [error_level(q, k) for k in (1, 2, 10, 50)]
    assert levels == sorted(levels)
    for k, level in zip((1, 2, 10), levels, strict=False):
        assert level >= 6.0 - math.log(2 * 50 / k - 1) - 1e-6  # docs: Jensen for equal margins


@pytest.mark.parametrize("seed", range(4))
def test_t8_on_a_linear_model(seed):
    """N(w; x) = <w, x>: tangent margins are y <V, x>, G = max ||x||; run it and count errors."""
    from proxyconvex.core.methods import GradientDescent, NormalisedStep
    from proxyconvex.core.setting import OutputGradient, Start, TangentMargins
    from proxyconvex.core.theorems import T8, Accepted

    rng = np.random.default_rng(seed)
    n, d = 20, 4
    u = rng.standard_normal(d)
    x = rng.standard_normal((n, d))
    y = np.sign(x @ u)
    x += 0.3 * y[:, None] * u / np.linalg.norm(u)
    if seed == 3:
        y[0] = -y[0]  # one label is wrong: zero errors cannot be promised
    v = 12 * u
    q, G, R = y * (x @ v), float(np.linalg.norm(x, axis=1).max()), float(np.linalg.norm(v)) * (1 + 1e-12)
    k = next(k for k in range(1, n + 1) if error_level(q, k) > 0.5)
    assert (k == 1) == (seed != 3)
    S = error_level(q, k)
    c, floor = T8.step_size(1, S=S, G=G), lower_float(F(k, 2 * n))
    T = T8.steps(c=c, R=R, G=G, S=S)
    premises = [TangentMargins(q, v), OutputGradient(G), Start(distance=R, point=np.zeros(d))]
    answer = T8.accepts(premises, GradientDescent(NormalisedStep(c, floor), T))
    assert isinstance(answer, Accepted) and answer.constants["k"] <= k
    w, fewest = np.zeros(d), n
    for _ in range(T):
        margins = y * (x @ w)
        p = 1 / (1 + np.exp(margins))
        fewest = min(fewest, int((margins <= 0).sum()))
        w = w + c / max(p.mean(), floor) * (x * (y * p)[:, None]).mean(axis=0)
    assert fewest < answer.constants["k"]
    assert T8.promise(premises, GradientDescent(NormalisedStep(c, floor), T)).error_bound * n >= fewest
