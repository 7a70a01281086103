"""The checker's leaky numbers against exact arithmetic, brute force and simulated descent; wrong constants are caught."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize

from proxyconvex_checker import leaky_relu_noise as leaky
from proxyconvex_checker import margins
from proxyconvex_checker.errors import CheckError

LEAKY = {"name": "leaky-relu", "slope": 0.5, "beta": 1.0}
SMOOTH = {"name": "smooth-leaky", "slope": 0.5, "beta": 2.0}


def instance(seed=0, n=12, d=3, m=5, gap=1.0):
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    u = rng.standard_normal(d)
    x = rng.standard_normal((n, d)) + gap * y[:, None] * u / np.linalg.norm(u)
    return x, y, 0.3 * rng.standard_normal((m, d)), 2 * u


def signs(m):
    return np.where(np.arange(m) < (m + 1) // 2, 1.0, -1.0)


# --- S_k of theorem T8 -----------------------------------------------------------------------------------------


def brute_force(q, k):
    """The minimum over p by L-BFGS from several starts, for every choice of the k wrong rows."""
    n, rng, best = len(q), np.random.default_rng(0), math.inf
    for wrong in itertools.combinations(range(n), k):
        low = np.array([0.5 if i in wrong else 1e-12 for i in range(n)])

        def ratio(p):
            return (p @ q + np.sum(p * np.log(p / (1 - p)))) / p.sum()

        for _ in range(5):
            start = low + rng.uniform(1e-6, 1 - 1e-6, n) * (1 - 1e-9 - low)
            bounds = [(a, 1 - 1e-12) for a in low]
            options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 2000}
            best = min(best, minimize(ratio, start, bounds=bounds, method="L-BFGS-B", options=options).fun)
    return best


@pytest.mark.parametrize("seed", range(8))
def test_margin_floor_is_the_brute_force_minimum(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    k = int(rng.integers(1, n + 1))
    q = rng.standard_normal(n) * rng.choice([0.5, 4.0, 20.0]) + rng.choice([0.0, 5.0])
    found, true = margins.margin_floor(q, k), brute_force(q, k)
    assert true - 1e-6 * (1 + abs(true)) <= found <= true + 1e-9 * (1 + abs(true))


def test_margin_floor_is_below_the_ratio_at_every_grid_point():
    q, k = np.array([0.4, 2.0, -1.0]), 2
    floor = margins.margin_floor(q, k)
    grid = np.linspace(0.005, 0.995, 60)
    p = np.array([t for t in itertools.product(grid, repeat=3) if sum(a >= 0.5 for a in t) >= k])
    ratios = (p @ q + np.sum(p * np.log(p / (1 - p)), axis=1)) / p.sum(axis=1)
    assert floor <= ratios.min() <= floor + 0.05


def test_margin_floor_of_equal_margins_shifts_with_them():
    base = margins.margin_floor(np.zeros(50), 3)
    assert margins.margin_floor(np.full(50, 7.0), 3) == pytest.approx(base + 7, abs=1e-10)
    assert not margins.is_margin_floor(np.zeros(50), 3, base + 1e-9)


@pytest.mark.parametrize("k", [0, 4, 1.0], ids=["zero", "more-than-rows", "not-an-integer"])
def test_margin_floor_refuses_counts_that_make_no_sense(k):
    with pytest.raises(CheckError, match="number of errors"):
        margins.margin_floor(np.ones(3), k)


def test_one_step_too_few_is_refused():
    s, g, r = 1.7, Fraction(9, 4), Fraction(1000)
    c = margins.best_step(s, g)
    steps = margins.steps_needed(s, c, g, r)
    given = {"n": 20, "k": 3, "c": c, "floor": 0.07, "radius_sq": r, "gradient_sq": g, "margin": s}
    assert margins.few_errors(steps=steps, **given)["error_bound"] == pytest.approx(0.1)
    for change, word in (
        ({"steps": steps - 1}, "does not exceed"),
        ({"steps": steps, "floor": 0.0750001}, "floor"),
        ({"steps": steps, "c": 2 * s / float(g)}, "c = "),
        ({"steps": steps, "margin": 0.0}, "not above 0"),
        ({"steps": steps, "margin": 0.99 * s}, "does not exceed"),
    ):
        with pytest.raises(CheckError, match=word):
            margins.few_errors(**(given | change))


# --- the numbers, in exact rationals ---------------------------------------------------------------------------


def exact_error_bound(x, y, w0, u, c, eta, kappa, steps, growth):
    """T3e's bound with V's rows exact (m a perfect square), k0 to 30 digits."""
    frac = np.vectorize(Fraction, otypes=[object])
    x, w0, u, eta, kappa, c = frac(x), frac(w0), frac(u), Fraction(eta), Fraction(kappa), Fraction(c)
    s = [int(t) * (row @ u) for t, row in zip(y, x, strict=True)]
    q = [t if t >= 0 else t / c for t in s]
    theta = eta * growth / kappa
    half = Fraction(1, 2)
    charge = sum(max(Fraction(0), half + theta / 8 - t / 2, half + theta / 2 - t) for t in q) / len(q)
    m = len(w0)
    v = np.array([[kappa / c * int(a) * t / math.isqrt(m) for t in u] for a in signs(m)])
    k0 = Fraction(278464542761073795109358739022, 10**30)
    return 2 * (charge + k0 / kappa + np.sum((w0 - v) ** 2) / (2 * eta * kappa * steps))


@pytest.mark.parametrize("seed", range(4))
def test_error_bound_is_the_exact_one_rounded_up(seed):
    x, y, w0, u = instance(seed, m=4)
    eta, kappa, steps = 3.7, 11.0, 40
    derived = leaky.derive("T3e", x, y, w0, LEAKY, u, {"T": steps, "eta": eta, "kappa": kappa})
    growth = max(sum(Fraction(t) ** 2 for t in row) for row in x)
    exact = exact_error_bound(x, y, w0, u, 0.5, eta, kappa, steps, growth)
    assert exact <= Fraction(derived["bound"]) <= exact * (1 + Fraction(1, 10**12))
    assert derived["error_bound"] == derived["bound"]


def test_full_batch_form_uses_the_top_eigenvalue():
    x, y, w0, u = instance(m=4)
    derived = leaky.derive("T3f", x, y, w0, LEAKY, u, {"T": 40, "eta": 3.7, "kappa": 11.0})
    top = np.linalg.eigvalsh(x.T @ x / len(x))[-1]
    assert top <= derived["lambda_max"] <= top * (1 + 1e-12)
    exact = exact_error_bound(x, y, w0, u, 0.5, 3.7, 11.0, 40, Fraction(derived["lambda_max"]))
    assert exact <= Fraction(derived["bound"]) <= exact * (1 + Fraction(1, 10**12))


def test_smooth_activation_pays_for_what_it_misses():
    x, y, w0, u = instance(m=4)
    params = {"T": 40, "eta": 3.7, "kappa": 11.0}
    sharp = leaky.derive("T3e", x, y, w0, LEAKY, u, params)["charge"]
    smooth = leaky.derive("T3e", x, y, w0, SMOOTH, u, params)["charge"]
    omega = 2 * 0.5 / (2 * 2.0 * 2)
    assert sharp < smooth <= sharp + omega / 11.0 * (1 + 1e-9)


def test_slope_bound_of_t3_in_plain_arithmetic():
    x, y, w0, u = instance(m=4)
    eta, kappa, steps = 0.5, 11.0, 4000
    derived = leaky.derive("T3", x, y, w0, LEAKY, u, {"T": steps, "eta": eta, "kappa": kappa})
    s = y * (x @ u)
    q = np.minimum(s, s / 0.5)
    v = signs(4)[:, None] * (kappa / 0.5) * u / 2
    rest = 0.27846454276107 / kappa + np.sum((w0 - v) ** 2) / (2 * eta * kappa * steps)
    theta = eta * np.max(np.sum(x * x, axis=1)) / kappa
    expected = (np.maximum(1 - q, 0).mean() + rest) / (1 - theta / 2)
    assert derived["bound"] == pytest.approx(expected, rel=1e-9) and derived["bound"] >= expected * (
        1 - 1e-12
    )


# --- promises against simulated descent ------------------------------------------------------------------------


def output(w, x, c):
    z = x @ w.T
    return np.where(z > 0, z, c * z) @ signs(len(w)) / math.sqrt(len(w))


def sgd_mistakes(x, y, w, c, eta, steps, choose):
    """Rows drawn and the number of them that were wrong when drawn."""
    w, drawn, wrong = w.copy(), [], 0
    for t in range(steps):
        margin = y * output(w, x, c)
        i = choose(t, margin)
        drawn.append(i)
        wrong += margin[i] <= 0
        p = 1 / (1 + math.exp(min(margin[i], 700)))
        z = w @ x[i]
        slope = np.where(z > 0, 1.0, c)
        w += eta * p * y[i] * (signs(len(w)) * slope)[:, None] * x[i] / math.sqrt(len(w))
    return drawn, int(wrong)


ORDERS = {
    "random": lambda rng, n: lambda t, margin: int(rng.integers(n)),
    "cyclic": lambda rng, n: lambda t, margin: t % n,
    "most-wrong-first": lambda rng, n: lambda t, margin: int(np.argmin(margin)),
    "barely-wrong-first": lambda rng, n: (
        lambda t, margin: int(
            np.argmax(np.where(margin <= 0, margin, -np.inf)) if (margin <= 0).any() else np.argmin(margin)
        )
    ),
}


def online_bound(x, y, w0, u, c, eta, kappa, drawn, charge_of):
    q = charge_of(x, y, u, c)
    theta = eta * np.max(np.sum(x * x, axis=1)) / kappa
    charge = leaky.charges(q, theta)
    v = signs(len(w0))[:, None] * (kappa / c) * u / math.sqrt(len(w0))
    return 2 * (
        charge[drawn].sum() + len(drawn) * 0.2784645428 / kappa + np.sum((w0 - v) ** 2) / (2 * eta * kappa)
    )


def unit_margins(x, y, u, c):
    s = y * (x @ u)
    return np.minimum(s, s / c)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("gap", [0.3, 1.5, 4.0], ids=["overlapping", "close", "separated"])
def test_mistakes_never_exceed_the_online_bound(gap, order):
    for seed in range(4):
        x, y, w0, u = instance(seed, n=20, gap=gap)
        for kappa, theta in ((5.0, 0.5), (200.0, 2.0), (1e5, 1.0)):
            eta = theta * kappa / np.max(np.sum(x * x, axis=1))
            choose = ORDERS[order](np.random.default_rng(seed), len(x))
            drawn, wrong = sgd_mistakes(x, y, w0, 0.5, eta, 300, choose)
            for scale in (0.3, 1.0, 3.0):
                assert wrong <= online_bound(x, y, w0, scale * u, 0.5, eta, kappa, drawn, unit_margins) + 1e-9


def orthonormal(n=40):
    """Rows e_i of a linear neuron from zero: every row is wrong when first drawn, and u = 1.5 sum y_i e_i is optimal."""
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    return np.eye(n), y, np.zeros((1, n)), 1.5 * y


def test_the_online_bound_is_within_an_eighth_of_the_truth_on_orthonormal_rows():
    x, y, w0, u = orthonormal()
    kappa = 1e6
    drawn, wrong = sgd_mistakes(x, y, w0, 1.0, 2 * kappa, len(x), lambda t, margin: t)
    bound = online_bound(x, y, w0, u, 1.0, 2 * kappa, kappa, drawn, unit_margins)
    assert wrong == len(x) and wrong <= bound <= 1.126 * wrong


@pytest.mark.parametrize("factor", [1.1, 4.0], ids=["by-10-percent", "by-a-lot"])
def test_inflated_margins_are_refuted_by_the_simulation(factor):
    """A shorter u whose margins are claimed as if it were not: the promise falls below what happens."""
    x, y, w0, u = orthonormal()
    kappa = 1e6
    drawn, wrong = sgd_mistakes(x, y, w0, 1.0, 2 * kappa, len(x), lambda t, margin: t)

    def inflated(x, y, u, c):
        return unit_margins(x, y, factor * u, c)

    assert wrong > online_bound(x, y, w0, u / factor, 1.0, 2 * kappa, kappa, drawn, inflated)


def test_an_overstated_leak_is_refuted_by_the_simulation():
    """One neuron that always leaks is linear with slope 0.5; claimed as a leak of 1 it promises too much."""
    x, y, w0, u = orthonormal()
    kappa, n = 1e6, len(x)
    # Rows and targets turned so that <w, x> <= 0 whenever a row is drawn: only the leaking side is ever used.
    y = -np.ones(n)
    drawn, wrong = sgd_mistakes(x, y, w0, 0.5, 2 * kappa, n, lambda t, margin: t)
    honest = online_bound(x, y, w0, 3.0 * y, 0.5, 2 * kappa, kappa, drawn, unit_margins)
    claimed = online_bound(
        x, y, w0, 0.7 * y, 1.0, 2 * kappa, kappa, drawn, lambda x, y, u, c: unit_margins(x, y, u, 1) / 0.46
    )
    assert claimed < wrong <= honest


def test_the_population_inequality_holds_with_its_confidence():
    """Errors with adversarially chosen probabilities: the inequality of T6e fails in at most a delta of the runs."""
    rng, delta, steps, runs = np.random.default_rng(0), 0.1, 60, 4000
    fails = 0
    for _ in range(runs):
        seen, total, held = 0, 0.0, True
        for _ in range(steps):
            # Gamble while the errors lag behind their probabilities, stop otherwise.
            chance = 0.3 if seen <= total else 0.0
            total += chance
            seen += rng.random() < chance
        for u0 in leaky.ONE_PASS_U0:
            doubt = math.log(len(leaky.ONE_PASS_U0) / delta)
            held &= total <= (u0 * seen + doubt) / (1 - math.exp(-u0))
        fails += not held
    assert fails / runs <= delta


def test_population_bound_in_plain_arithmetic_and_what_must_be_fixed_in_advance():
    x, y, w0, u = instance(n=30, gap=4.0)
    kappa = leaky.ONE_PASS_ETA * 5.0
    params = {"T": 25, "eta": leaky.ONE_PASS_ETA, "kappa": kappa, "u0": 0.5, "delta": 0.05}
    derived = leaky.derive("T6e", x, y, w0, LEAKY, u, params)
    online = 25 * derived["online_bound"]
    expected = (0.5 * online + math.log(4 / 0.05)) / (25 * (1 - math.exp(-0.5)))
    assert derived["bound"] == pytest.approx(expected, rel=1e-12)
    charge = leaky.charges(unit_margins(x, y, u, 0.5), derived["theta"])
    assert 25 * derived["charge"] == pytest.approx(np.sort(charge)[-25:].sum(), abs=1e-12)
    for change, word in (
        ({"eta": 2.0**19}, "eta"),
        ({"u0": 0.3}, "u0"),
        ({"T": 31}, "one pass"),
        ({"delta": 1.0}, "delta"),
    ):
        with pytest.raises(CheckError, match=word):
            leaky.derive("T6e", x, y, w0, LEAKY, u, params | change)


# --- T1 --------------------------------------------------------------------------------------------------------


def smooth_loss_and_gradient(w, x, y, c, beta):
    z, a = x @ w.T, signs(len(w)) / math.sqrt(len(w))
    ramp = np.clip(0.5 + beta * z / 4, 0, 1)
    phi = c * z + (1 - c) * ((2 / beta) * ramp**2 + np.maximum(z - 2 / beta, 0))
    margin = y * (phi @ a)
    p = 1 / (1 + np.exp(margin))
    return (
        np.log1p(np.exp(-margin)).mean(),
        p,
        a[:, None] * ((c + (1 - c) * ramp).T @ ((-y * p / len(y))[:, None] * x)),
    )


def test_t1_constants_and_promise_on_a_run():
    x, y, w0, u = instance(gap=2.0, m=4)
    top = np.linalg.eigvalsh(x.T @ x / len(x))[-1]
    eta = 0.999 / (top * (0.25 + 0.5 * 2.0 / (4 * 2)))
    derived = leaky.derive("T1", x, y, w0, SMOOTH, u, {"T": 200, "eta": eta})
    loss, _, _ = smooth_loss_and_gradient(w0, x, y, 0.5, 2.0)
    assert loss <= derived["initial_loss"] <= loss * (1 + 1e-12)
    w, slopes, errors, gradients = w0.copy(), [], [], []
    for _ in range(200):
        _, p, grad = smooth_loss_and_gradient(w, x, y, 0.5, 2.0)
        slopes.append(p.mean())
        errors.append((p >= 0.5).mean())
        gradients.append(np.linalg.norm(grad))
        w -= eta * grad
    assert min(gradients) <= derived["gradient"]
    assert min(slopes) <= derived["bound"] and min(errors) <= derived["error_bound"] <= 2 * derived["bound"]
    with pytest.raises(CheckError, match="exceeds 1"):
        leaky.derive("T1", x, y, w0, SMOOTH, u, {"T": 200, "eta": 1.01 * eta})
    with pytest.raises(CheckError, match="kink"):
        leaky.derive("T1", x, y, w0, LEAKY, u, {"T": 200, "eta": eta})


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"theorem": "T9"}, "no theorem"),
        ({"x": np.full((12, 3), np.nan)}, "NaN"),
        ({"y": np.zeros(12)}, "targets"),
        ({"u": np.ones(4)}, "shapes"),
        ({"w0": np.ones((2, 4))}, "shapes"),
        ({"activation": LEAKY | {"slope": 0.0}}, "slope"),
        ({"activation": LEAKY | {"slope": 1.5}}, "slope"),
        ({"activation": LEAKY | {"name": "softplus"}}, "softplus"),
        ({"params": {"T": 4, "eta": -1.0, "kappa": 1.0}}, "eta"),
        ({"params": {"T": 4, "eta": 1.0, "kappa": math.inf}}, "kappa"),
    ],
    ids=["theorem", "nan", "targets", "u", "w0", "no-leak", "leak-above-1", "activation", "eta", "kappa"],
)
def test_bad_input_is_refused(change, word):
    x, y, w0, u = instance()
    given = {"theorem": "T3e", "x": x, "y": y, "w0": w0, "activation": LEAKY, "u": u}
    given |= {"params": {"T": 4, "eta": 1.0, "kappa": 1.0}} | change
    with pytest.raises(CheckError, match=word):
        leaky.derive(*given.values())


def test_theta_two_is_too_much_for_the_plain_form():
    x, y, w0, u = instance()
    with pytest.raises(CheckError, match="not below 2"):
        leaky.derive(
            "T3", x, y, w0, LEAKY, u, {"T": 4, "eta": 2.0 / np.max(np.sum(x * x, axis=1)), "kappa": 0.999}
        )
