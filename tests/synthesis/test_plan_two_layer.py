"""The two-layer planner: its optimisers against independent ones, its promises against simulated descent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence
from proxyconvex.core.methods import ConstantStep, NormalisedStep
from proxyconvex.data import Dataset, Preprocessing, load
from proxyconvex.synthesis import tangent_svm
from proxyconvex.synthesis.two_layer import plan as planner
from proxyconvex.synthesis.two_layer import tangent as tangent_module
from proxyconvex.synthesis.two_layer.options import step_seconds
from proxyconvex.synthesis.two_layer.plan import plan_two_layer_ntk as plan
from proxyconvex_checker import CheckError, margins, two_layer_ntk


def clouds(seed=0, n=40, gap=0.6):
    """Two overlapping clouds that a curved boundary separates."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    raw = rng.standard_normal((n, 3)) + gap * y[:, None]
    return Dataset(f"clouds {seed}", raw, y)


def signed_gram(seed=0, n=30):
    rng = np.random.default_rng(seed)
    data = clouds(seed, n)
    half = rng.standard_normal((200, 3))
    slopes = 1 / (1 + np.exp(-3 * data.raw @ half.T))
    return tangent_svm.signed(tangent_svm.tangent_gram(data.raw, slopes), data.targets)


def simulate(made, steps=None):
    """Descent in plain NumPy; returns the errors of w_0 .. w_{T-1} and the final loss."""
    x, y, w, phi = made.features, made.targets, made.initial.copy(), made.family.activation
    a = np.repeat([1.0, -1.0], len(w) // 2) / math.sqrt(len(w))
    errors = []
    for _ in range(made.method.steps if steps is None else steps):
        z = x @ w.T
        q = y * (phi.numpy(z) @ a)
        p = 1 / (1 + np.exp(np.minimum(q, 700)))
        errors.append(int(np.sum(q <= 0)))
        step = made.method.step
        eta = step.c / max(p.mean(), step.floor) if isinstance(step, NormalisedStep) else step.eta
        w += eta * a[:, None] * ((phi.derivative(z) * (p * y)[:, None]).T @ x) / len(y)
    return errors, float(np.mean(np.logaddexp(0, -y * (phi.numpy(x @ w.T) @ a))))


# --- optimisers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1.0, 100.0, 1e4], ids=str)
def test_soft_margin_solves_the_dual_problem(penalty):
    q = signed_gram()
    a = tangent_svm.soft_margin(q, penalty)
    dual = q + np.eye(len(q)) / penalty
    other = minimize(
        lambda b: (0.5 * b @ dual @ b - b.sum(), dual @ b - 1), np.zeros(len(q)), jac=True,
        method="L-BFGS-B", bounds=[(0, None)] * len(q), options={"maxiter": 20000, "maxfun": 40000, "ftol": 1e-16, "gtol": 1e-10},
    )  # fmt: skip
    assert 0.5 * a @ dual @ a - a.sum() <= other.fun + 1e-9 * abs(other.fun)
    gradient = dual @ a - 1
    assert gradient.min() > -1e-7
    assert np.abs(gradient * a).max() < 1e-6


def test_hard_margin_is_the_best_margin_per_norm():
    q = signed_gram()
    hard = tangent_svm.margin_path(q)[-1]
    assert hard.margins.min() == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        a = np.abs(hard.alpha * rng.lognormal(0, rng.choice([0.01, 0.1, 1]), len(q)))
        assert (q @ a).min() / math.sqrt(a @ q @ a) <= 1 / hard.norm * (1 + 1e-6)


def test_logistic_is_stationary():
    q, weight = signed_gram(), 1e-4
    d = tangent_svm.logistic(q, weight)
    assert 2 * weight * d.alpha == pytest.approx(1 / (1 + np.exp(d.margins)) / len(q), rel=1e-5, abs=1e-9)
    assert d.norm == pytest.approx(math.sqrt(d.alpha @ q @ d.alpha))


@pytest.mark.parametrize("seed", range(5))
def test_levels_agree_with_the_checker(seed):
    rng = np.random.default_rng(seed)
    q = rng.standard_normal(25) * 4 + 3
    for k in (1, 4, 20):
        level = tangent_module.largest_level(q, k)
        assert level == pytest.approx(margins.margin_floor(q, k), abs=1e-9)
        assert tangent_module.least_k(q, level - 1e-6) <= k < tangent_module.least_k(q, level + 1e-6)


@pytest.mark.parametrize("name", ["softplus", "relu"])
def test_remainders_agree_with_the_checker(name):
    data = clouds()
    half = np.random.default_rng(1).standard_normal((20, 3))
    tangent = tangent_module.Tangent(data.raw, data.targets, half, name, 0.0, 2.0, (1.0, 1e6))
    family = tangent.family(50.0, 0)
    w0 = np.concatenate([half, half]) * 50.0
    v = w0.copy()
    v[0, 0] += 1e-9
    network = two_layer_ntk.examine(data.raw, data.targets, w0, family.activation.describe(), v)
    for radius in (0.1, 3.0, 100.0):
        certified = network.margins - network.tangent_margins(radius)
        assert tangent.remainder(radius, 50.0) == pytest.approx(certified, rel=1e-6, abs=1e-9)


# --- promises -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("activation", ["softplus", "smooth-leaky", "relu", "leaky-relu"])
def test_normalised_descent_keeps_the_promise(activation, seed):
    slope = 0.2 if "leaky" in activation else 0.0
    made = plan(clouds(seed), width=128, activation=activation, slope=slope, seed=seed, steps=400)
    errors, _ = simulate(made)
    assert made.guarantee.evidence >= Evidence.CERTIFIED
    assert min(errors) <= made.guarantee.error_bound * 40 + 1e-9
    assert made.guarantee.error_bound < 0.5
    # The recorded proxy and the certified premise hold along the run.
    assert made.proxy["margins"].min() == pytest.approx(made.derived["q_min"])


@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_plain_descent_keeps_the_promise(activation):
    made = plan(clouds(1), width=128, activation=activation, method="gd", steps=3000)
    errors, final = simulate(made)
    assert isinstance(made.method.step, ConstantStep)
    assert final <= made.guarantee.bound
    assert errors[-1] / 40 <= made.guarantee.error_bound < 0.5
    assert made.guarantee.quantity == ("final-loss" if activation == "softplus" else "best-loss")


def test_more_steps_never_promise_more_errors():
    data = load("breast-cancer")
    bounds = [plan(data, width=256, steps=s).guarantee.error_bound for s in (60, 150, 1500)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[1] > bounds[2] == 0


def test_a_promise_fails_with_one_step_fewer():
    made = plan(clouds(), width=64)
    arrays = (made.features, made.targets, made.initial, made.family.activation.describe(), made.comparator)
    assert two_layer_ntk.derive("T8", *arrays, made.theorem_params) == made.derived
    with pytest.raises(CheckError, match="does not exceed"):
        two_layer_ntk.derive("T8", *arrays, made.theorem_params | {"T": made.method.steps - 1})


def test_same_inputs_give_the_same_plan_and_seeds_other_weights():
    one, two, other = (plan(clouds(), width=32, seed=s) for s in (5, 5, 6))
    assert one.derived == two.derived
    assert np.array_equal(one.comparator, two.comparator)
    assert not np.array_equal(one.initial, other.initial)


def test_fixed_scale_and_sharpness_are_kept():
    made = plan(clouds(), width=512, beta=0.05, init_scale=40.0, method="gd", steps=2000)
    assert made.family.init_scale == 40.0
    assert made.family.activation.beta == 0.05
    assert np.std(made.initial) == pytest.approx(40.0, rel=0.1)


def test_target_errors_allow_fewer_steps():
    data = clouds(3, gap=0.3)
    exact, loose = plan(data, width=64), plan(data, width=64, target_errors=8)
    assert loose.method.steps < exact.method.steps
    assert loose.theorem_params["k"] == 9


def test_a_budget_limits_the_steps_to_half_its_time(monkeypatch):
    monkeypatch.setattr(planner, "step_seconds", lambda x, y, tangent: 0.01)
    made = plan(load("breast-cancer"), width=256, budget_seconds=4.0)
    assert made.method.steps <= 200
    assert 0 < made.guarantee.error_bound < 0.5


def test_a_step_is_timed():
    data = clouds()
    tangent = tangent_module.Tangent(
        data.raw, data.targets, np.ones((4, 3)), "softplus", 0.0, 2.0, (1.0, 1e6)
    )
    assert 0 < step_seconds(data.raw, data.targets, tangent) < 5


def test_plan_says_that_it_is_lazy():
    made = plan(clouds(), width=64)
    assert "lazy" in made.guarantee.sentence
    assert any("lazy" in note.lower() for note in made.notes)
    assert {a.theorem for a in made.alternatives} >= {"T8", "T4T5", "T3T5"}


TARGETS = {
    "digits:0,1": {"steps": 100},
    "breast-cancer": {"steps": 1200},
    "digits:even-odd": {"steps": 2200},
}


@pytest.mark.parametrize("name", TARGETS)
def test_no_errors_are_promised_on_real_data(name):
    made = plan(load(name), width=1024)
    assert made.guarantee.error_bound == 0
    assert made.method.steps <= TARGETS[name]["steps"]


@pytest.mark.parametrize(("name", "most"), [("digits:0,1", 0.003), ("breast-cancer", 0.02)], ids=str)
def test_plain_descent_on_real_data(name, most):
    made = plan(load(name), width=1024, method="gd", steps=20000)
    assert made.guarantee.error_bound <= most


def test_classical_route_at_moderate_scale():
    made = plan(load("digits:0,1"), width=1024, method="gd", steps=20000, init_scale=1.0, beta=0.25)
    assert made.guarantee.error_bound <= 0.008


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"width": 7}, "width"),
        ({"activation": "tanh"}, "activation"),
        ({"slope": 0.5}, "slope"),
        ({"activation": "leaky-relu", "slope": 1.0}, "slope"),
        ({"activation": "relu", "beta": 1.0}, "beta"),
        ({"beta": -1.0}, "beta"),
        ({"init_scale": 0.0}, "init_scale"),
        ({"method": "sgd"}, "method"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"target_errors": -1}, "target_errors"),
        ({"budget_seconds": 0.0}, "budget_seconds"),
        ({"seed": -1}, "seed"),
    ],
    ids=lambda v: str(v),
)
def test_bad_options_are_refused(settings, name):
    with pytest.raises(InvalidInputError, match=name):
        plan(clouds(), **settings)


def test_an_impossible_promise_is_refused_with_a_way_out():
    with pytest.raises(InvalidInputError, match="larger width"):
        plan(clouds(), width=4, init_scale=1.0, beta=4.0, steps=3)


def test_a_row_of_zeros_is_refused():
    raw = np.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.5], [2.0, 1.0]])
    data = Dataset("zeros", raw, np.array([1.0, -1.0, 1.0, -1.0]))
    with pytest.raises(InvalidInputError, match="row 0"):
        plan(data, preprocessing=Preprocessing((0, 1), center=False, bias=0.0), width=8)


@pytest.mark.parametrize("method", ["normalised-gd", "gd"])
@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_contradictory_rows_are_refused_with_a_reason(method, activation):
    rows = np.repeat([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], 4, axis=0)
    data = Dataset("contradiction", rows, np.tile([1.0, -1.0], 6))
    with pytest.raises(InvalidInputError, match="error below one half"):
        plan(data, width=32, method=method, activation=activation)
