"""The leaky planner: optimal comparators (by weak duality), promises against simulated descent, targets on real data."""

from __future__ import annotations

import math

import cvxpy as cp
import numpy as np
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence
from proxyconvex.data import Dataset, Preprocessing, default_preprocessing, load
from proxyconvex.synthesis.convex_comparator import Rows, count_form, error_form, gradient_form, margin_form
from proxyconvex.synthesis.plan_leaky_relu_noise import plan_leaky_relu_noise as plan
from proxyconvex_checker import leaky_relu_noise, margins


def clouds(seed=0, n=40, gap=1.0, flipped=0.0):
    """Two clouds in three dimensions; some labels flipped."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    raw = rng.standard_normal((n, 3)) + gap * y[:, None]
    return Dataset("clouds", raw, np.where(rng.random(n) < flipped, -y, y))


PLAIN = Preprocessing((0, 1, 2), center=True, scale="none", unit_norm=True, bias=0.1)


def data_rows(name, slope=0.5):
    data = load(name) if isinstance(name, str) else name
    x = (default_preprocessing(data) if isinstance(name, str) else PLAIN).apply(data.raw)
    return Rows(data.targets[:, None] * x, slope), float(np.max(np.sum(x * x, axis=1)))


# --- the convex part is exact ----------------------------------------------------------------------------------


def dual_value(rows, growth, steps, size):
    """A lower bound on the T3e program from any weights that satisfy the constraints of its dual.

    Weights a, b, e >= 0 on the three pieces of the charges (gentle, steep, steep and negative), a + b + e <= 1/n each:
    the program is at least ``sum (a + b + e)`` if ``||Z'(a + 2b + 2e/c)||^2 <= (4 G / (T c^2)) sum (a/4 + b + e)``. The
    weights are solved for in units of ``size``, the value expected; the point found is then made feasible exactly.
    """
    z, c, n = rows.z, rows.slope, len(rows.z)
    limit = 4 * growth / (steps * c**2) / size

    def sides(a, b, e):
        return z.T @ (a + 2 * b + 2 * e / c), limit * (sum(a) / 4 + sum(b) + sum(e))

    variables = [cp.Variable(n, nonneg=True) for _ in range(3)]
    pull, budget = sides(*variables)
    problem = cp.Problem(
        cp.Maximize(cp.sum(sum(variables))),
        [sum(variables) <= 1 / (n * size), cp.quad_over_lin(pull / math.sqrt(limit), 1) <= budget / limit],
    )
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    weights = np.array([np.maximum(v.value, 0.0) for v in variables])
    weights /= np.maximum(1.0, weights.sum(axis=0) * n * size)
    pull, budget = sides(*weights)
    return size * min(1.0, budget / (pull @ pull)) * weights.sum()


@pytest.mark.parametrize("slope", [0.5, 1.0], ids=["c=0.5", "c=1"])
@pytest.mark.parametrize("name", ["digits:0,1", "breast-cancer", "wine:0,1", "noisy clouds"])
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_the_comparator_is_optimal_to_1e_6(name, slope):
    rows, growth = data_rows(name if ":" in name or "cancer" in name else clouds(flipped=0.1), slope)
    found = error_form(rows, growth, 1_000_000)
    lower = dual_value(rows, growth, 1_000_000, found.value)
    assert lower * (1 - 1e-9) <= found.value <= lower * (1 + 1e-6)


def test_shortest_comparator_of_separable_rows_is_the_support_vector_machine():
    from sklearn.svm import LinearSVC

    rows, _ = data_rows("wine:0,1")
    found = margin_form(rows, 1)
    # Errors weighted heavily, no intercept: the hard-margin machine through the origin.
    machine = LinearSVC(C=1e6, loss="hinge", fit_intercept=False, dual=True, tol=1e-9, max_iter=2_000_000)
    machine.fit(np.concatenate([rows.z, -rows.z]), np.repeat([1, -1], len(rows.z)))
    w = machine.coef_[0]
    assert found.value == pytest.approx(np.linalg.norm(w) / (rows.z @ w).min(), rel=1e-4)


def test_count_form_is_the_limit_of_s_k():
    """The count from the convex program is feasible in T8's own terms, one less is not, for a long comparator."""
    rows, growth = data_rows(clouds(n=60, flipped=0.1))
    steps, kappa = 3000, 1e7
    found = count_form(rows, math.sqrt(growth), steps)
    k = math.floor(found.value * 60) + 1
    pace = math.sqrt(growth) * np.linalg.norm(found.u) / (rows.slope * math.sqrt(steps))
    q = rows.unit_margins(found.u)
    assert margins.margin_floor(kappa * q, k) >= kappa * pace * (1 - 1e-5)
    assert k == 1 or margins.margin_floor(kappa * q, k - 1) < kappa * pace * (1 + 1e-5)


def test_gradient_form_against_many_directions():
    rows, _ = data_rows(clouds(flipped=0.1))
    best, rng = gradient_form(rows, 0.01), np.random.default_rng(0)
    for scale in (1e-4, 1e-2, 0.1):
        for _ in range(200):
            u = best.u * (1 + scale * rng.standard_normal(1)) + scale * rng.standard_normal(best.u.shape)
            q = rows.unit_margins(u)
            value = np.maximum(np.maximum(1 - q, 1 - 2 * q), 0).mean() + 0.04 * np.linalg.norm(u)
            assert value >= best.value * (1 - 1e-7)


# --- promises against runs -------------------------------------------------------------------------------------


def simulate(made, rng=None, full=False):
    """Descent in plain NumPy: (training error of w_0 .. w_{T-1}, mean slopes)."""
    x, y, w, phi = made.features, made.targets, made.initial.copy(), made.family.activation
    a = np.where(np.arange(len(w)) < (len(w) + 1) // 2, 1.0, -1.0) / math.sqrt(len(w))
    errors, slopes = [], []
    step = made.method.step
    for _ in range(made.method.steps):
        z = x @ w.T
        margin = y * (phi.numpy(z) @ a)
        p = 1 / (1 + np.exp(np.clip(margin, -700, 700)))
        errors.append((margin <= 0).mean())
        slopes.append(p.mean())
        eta = step.c / max(p.mean(), step.floor) if hasattr(step, "floor") else step.eta
        pick = slice(None) if full else [int(rng.integers(len(x)))]
        pull = (y[pick] * p[pick] / len(y[pick]))[:, None] * x[pick]
        w = w + eta * a[:, None] * (phi.derivative(z[pick]).T @ pull)
    return np.array(errors), np.array(slopes)


@pytest.mark.parametrize("activation", ["leaky-relu", "smooth-leaky"])
@pytest.mark.parametrize("flipped", [0.0, 0.1], ids=["clean", "noisy"])
def test_sgd_keeps_the_promise_in_the_mean(flipped, activation):
    made = plan(clouds(flipped=flipped), width=6, steps=1500, activation=activation, preprocessing=PLAIN)
    assert made.guarantee.mode == "expectation" and made.guarantee.quantity == "average-error"
    means = [simulate(made, np.random.default_rng(seed))[0].mean() for seed in range(6)]
    assert np.mean(means) <= made.guarantee.error_bound


@pytest.mark.parametrize("flipped", [0.0, 0.1], ids=["clean", "noisy"])
def test_normalised_descent_reaches_the_promised_error_in_time(flipped):
    made = plan(clouds(flipped=flipped), width=5, method="normalised-gd", steps=5000, preprocessing=PLAIN)
    assert made.guarantee.theorem == "T8" and made.method.steps <= 5000
    assert simulate(made, full=True)[0].min() <= made.guarantee.error_bound
    assert made.method.step.floor <= made.theorem_params["k"] / (2 * 40)


@pytest.mark.parametrize("noise", ["clean", "noisy"])
@pytest.mark.parametrize("activation", ["leaky-relu", "smooth-leaky"])
def test_full_batch_descent_keeps_the_best_of_its_promises(activation, noise):
    data = clouds(gap=2.0) if noise == "clean" else clouds(flipped=0.1)
    made = plan(data, width=6, method="gd", steps=2000, activation=activation, preprocessing=PLAIN)
    smooth = activation == "smooth-leaky"
    assert made.guarantee.theorem == ("T1" if smooth and noise == "noisy" else "T3f")
    errors, slopes = simulate(made, full=True)
    if made.guarantee.theorem == "T3f":
        assert errors.mean() <= made.guarantee.error_bound
    else:
        assert slopes.min() <= made.guarantee.bound
        assert errors.min() <= made.guarantee.error_bound
    accepted = {made.guarantee.theorem, *(a.theorem for a in made.alternatives if a.accepted)}
    assert accepted == ({"T1", "T3", "T3f", "T4"} if smooth else {"T3", "T3f"})
    bounds = [a.error_bound for a in made.alternatives if a.accepted]
    assert bounds == sorted(bounds)
    assert noise == "noisy" or made.guarantee.error_bound < 0.05


def test_one_pass_promises_fresh_rows_and_looks_at_none():
    made = plan(clouds(n=400, gap=2.0), width=4, one_pass=True, delta=0.1)
    g = made.guarantee
    assert (g.theorem, g.mode, g.evidence) == ("T6e", "probability", Evidence.ASSUMED)
    assert g.probability == pytest.approx(0.9) and g.error_bound < 0.5
    assert made.method.steps == 400 and made.method.sampling == "one-pass"
    assert "400 of the 1,000,000 steps" in " ".join(made.notes)
    assert not made.preprocessing.center and made.preprocessing.scale == "none"
    assert made.theorem_params["eta"] == leaky_relu_noise.ONE_PASS_ETA
    with pytest.raises(InvalidInputError, match="preprocessing"):
        plan(clouds(), one_pass=True, preprocessing=PLAIN)


def test_a_near_miss_in_the_step_or_the_comparator_changes_what_the_checker_derives():
    made = plan(clouds(), width=4, method="normalised-gd", preprocessing=PLAIN)
    given = (made.features, made.targets, made.initial, made.family.activation.describe())
    assert (
        leaky_relu_noise.derive("T8", *given, made.certificate_comparator, made.theorem_params)
        == made.derived
    )
    short = made.theorem_params | {"T": max(1, int(0.99 * made.method.steps))}
    with pytest.raises(leaky_relu_noise.CheckError, match="does not exceed"):
        leaky_relu_noise.derive("T8", *given, 0.99 * made.certificate_comparator, short)


# --- the plan as an object -------------------------------------------------------------------------------------


def test_plan_is_deterministic_and_complete():
    one, two = (plan(clouds(), width=4, steps=1000, preprocessing=PLAIN) for _ in range(2))
    assert one.certificate_comparator.tobytes() == two.certificate_comparator.tobytes()
    assert one.derived == two.derived and one.theorem_params == two.theorem_params
    theorems = {one.guarantee.theorem, *(a.theorem for a in one.alternatives)}
    assert theorems == {"T1", "T2", "T3", "T3e", "T3f", "T4", "T5", "T6", "T6e", "T8"}
    assert all(a.reason for a in one.alternatives)
    assert all((a.bound is not None) == a.accepted for a in one.alternatives)
    assert one.guarantee.evidence is Evidence.CERTIFIED
    assert one.problem().theorem == "T3e"
    np.testing.assert_allclose(np.linalg.norm(one.comparator - one.initial), one.derived["R"], rtol=1e-12)


def test_recorded_proxies_add_up_to_the_promise():
    """``2 (mean h + R^2 / (2 eta T)) / kappa`` of the recorded error proxies is the bound."""
    import jax

    made = plan(clouds(flipped=0.1), width=4, steps=1000, preprocessing=PLAIN)
    with jax.enable_x64(True):
        problem = made.problem()
        q = problem.predict(made.initial, made.features)
        _, h = problem.proxy(made.initial, q, made.features, made.targets)
        mean = float(np.mean(np.asarray(h)))
    kappa, eta = made.theorem_params["kappa"], made.theorem_params["eta"]
    expected = 2 * (mean + made.derived["R"] ** 2 / (2 * eta * 1000)) / kappa
    assert made.guarantee.bound == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"slope": 0.0}, "slope"),
        ({"slope": math.nan}, "slope"),
        ({"method": "adam"}, "method"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"activation": "relu"}, "activation"),
        ({"one_pass": True, "method": "gd"}, "one_pass"),
        ({"delta": 1.0, "one_pass": True}, "delta"),
        ({"delta": 0.1}, "one-pass"),
        ({"width": 0}, "width"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_bad_arguments_are_refused(change, word):
    with pytest.raises(InvalidInputError, match=word):
        plan(clouds(), preprocessing=None if "one_pass" in change else PLAIN, **change)


@pytest.mark.parametrize(
    "targets", [np.ones(4), np.array([1.0, -1.0, np.nan, 1.0])], ids=["one-class", "nan"]
)
def test_data_that_cannot_be_used_is_refused(targets):
    with pytest.raises(InvalidInputError, match="targets"):
        plan(Dataset("bad", np.eye(4), targets))


# --- real data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"), [("digits:0,1", 5.7e-5), ("breast-cancer", 0.0597), ("wine:0,1", 2.7e-4)]
)
def test_promise_on_real_data(name, target):
    made = plan(load(name), width=64, slope=0.5, steps=1_000_000)
    assert made.guarantee.error_bound <= target
    limit = error_form(Rows(made.targets[:, None] * made.features, 0.5), 1.0, 1_000_000).value
    assert limit <= made.guarantee.bound <= limit * 1.0011


def test_separable_data_need_few_normalised_steps():
    made = plan(load("digits:0,1"), method="normalised-gd")
    assert made.guarantee.error_bound == 0 and made.method.steps <= 60
    assert simulate(made, full=True)[0].min() == 0
