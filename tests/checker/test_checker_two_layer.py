"""The checker's two-layer numbers against 300-bit arithmetic, brute force and adversarial points of the ball."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import flint
import numpy as np
import pytest

from proxyconvex_checker import CheckError, activations, two_layer_ntk

SOFTPLUS = {"name": "softplus", "slope": 0.0, "beta": 1.5}
SMOOTH_LEAKY = {"name": "smooth-leaky", "slope": 0.2, "beta": 2.0}
LEAKY = {"name": "leaky-relu", "slope": 0.3, "beta": 1.0}
RELU = {"name": "relu", "slope": 0.0, "beta": 1.0}
ALL = [SOFTPLUS, SMOOTH_LEAKY, LEAKY, RELU]
named = pytest.mark.parametrize("fields", ALL, ids=lambda f: f["name"])


def phi(fields, t):
    c, beta = fields["slope"], fields["beta"]
    if fields["name"] == "softplus":
        return np.logaddexp(0, beta * t) / beta
    if fields["name"] == "smooth-leaky":
        inside = c * t + (1 - c) * (2 / beta) * (0.5 + beta * t / 4) ** 2
        return np.where(t >= 2 / beta, t, np.where(t <= -2 / beta, c * t, inside))
    return np.where(t > 0, t, c * t)


def slope(fields, t):
    c, beta = fields["slope"], fields["beta"]
    if fields["name"] == "softplus":
        return 1 / (1 + np.exp(-beta * t))
    if fields["name"] == "smooth-leaky":
        return c + (1 - c) * np.clip(0.5 + beta * t / 4, 0, 1)
    return np.where(t > 0, 1.0, c)


def net(seed=0, n=14, d=3, m=10, scale=1.0, move=0.8):
    """Random data, paired initial weights and a comparator that fits them a little."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    x = rng.standard_normal((n, d)) * 0.4 + y[:, None] * np.array([0.8, 0.3, 0.0])[:d]
    half = rng.standard_normal((m // 2, d)) * scale
    w0 = np.concatenate([half, half])
    a = np.repeat([1.0, -1.0], m // 2)
    v = w0 + move * a[:, None] * (y @ x / n + 0.1 * rng.standard_normal((m, d)))
    return x, y, w0, a, v


def exact_margins(fields, x, y, a, v):
    """y N(V; x) in 300-bit arithmetic."""
    flint.ctx.prec = 300
    try:
        c, beta = flint.arb(fields["slope"]), flint.arb(fields["beta"])
        out = []
        for row, target in zip(x, y, strict=True):
            total = flint.arb(0)
            for sign, neuron in zip(a, v, strict=True):
                t = sum(
                    (flint.arb(float(p)) * flint.arb(float(q)) for p, q in zip(row, neuron, strict=True)),
                    flint.arb(0),
                )
                if fields["name"] == "softplus":
                    value = (1 + (beta * t).exp()).log() / beta
                elif fields["name"] == "smooth-leaky":
                    if t > 2 / beta:
                        value = t
                    elif t < -2 / beta:
                        value = c * t
                    else:
                        k = beta * t / 4 + 0.5
                        value = c * t + (1 - c) * (2 / beta) * k * k
                else:
                    value = t if t > 0 else c * t
                total += flint.arb(float(sign)) * value
            out.append(flint.arb(float(target)) * total / flint.arb(len(v)).sqrt())
        return out
    finally:
        flint.ctx.prec = 53


@named
@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["scale-1", "scale-1e4"])
def test_margins_are_below_the_exact_ones_and_close(fields, scale):
    x, y, w0, a, v = net(scale=scale)
    fields = {**fields, "beta": fields["beta"] / scale}
    certified = two_layer_ntk.examine(x, y, w0, fields, v).margins
    for low, exact in zip(certified, exact_margins(fields, x, y, a, v), strict=True):
        assert flint.arb(float(low)) < exact
        assert float(exact.mid()) - low < 1e-12 * scale * 20


@pytest.mark.parametrize("fields", ALL, ids=lambda f: f["name"])
def test_activation_enclosures_contain_exact_values(fields):
    z = np.array(
        [0.0, -0.0, 1e-300, 1e-9, -1e-9, 0.7, -0.7, 1.3333333, -1.33333333, 40.0, -40.0, 800.0, -800.0, 1e8]
    )
    e = np.full_like(z, 1e-7)
    act = activations.parse(fields)
    value, error = act.value(z, e)
    upper = act.derivative_upper(z, e)
    for shift in (-1e-7, 0.0, 1e-7):
        ones = np.ones((1, 1))
        exact = [
            exact_margins(fields, np.array([[t]]), np.array([1.0]), [1.0], ones)[0] for t in z + shift * 0.999
        ]
        for v, err, true in zip(value, error, exact, strict=True):
            assert abs(flint.arb(float(v)) - true) <= flint.arb(float(err))
        with np.errstate(over="ignore"):
            assert np.all(slope(fields, z + shift * 0.999) <= upper)
    assert np.all(error[:10] < 2e-7)
    assert np.all(upper <= 1)


@named
def test_tangent_margins_hold_at_random_and_adversarial_points(fields):
    x, y, w0, a, v = net(m=10, move=0.5)
    network = two_layer_ntk.examine(x, y, w0, fields, v)
    m, rng, least = len(v), np.random.default_rng(1), np.inf
    for radius in (0.05, 0.3, network.distance):
        q, g = network.tangent_margins(radius), network.gradient_norm(radius)
        for trial in range(400):
            i = trial % len(x)
            move = rng.standard_normal(v.shape)
            if trial % 3 == 1:  # all neurons pushed along one row, against or with the comparator
                move = rng.choice([-1.0, 1.0], size=(m, 1)) * x[i] * rng.random((m, 1))
            if trial % 3 == 2:  # flip exactly the cheapest neurons of the harmful sign
                t = v @ x[i]
                order = np.argsort(np.where(a == y[i], np.abs(t), np.inf))[: 1 + trial % (m // 2)]
                move = np.zeros_like(v)
                move[order] = -(t[order, None] * (1 + 1e-9)) * x[i] / (x[i] @ x[i])
            w = (
                v + move * min(1.0, radius / np.linalg.norm(move))
                if trial % 3 == 2
                else v + move * radius / np.linalg.norm(move)
            )
            z = w @ x.T
            value = a @ phi(fields, z) / math.sqrt(m)
            grads = slope(fields, z) * a[:, None] / math.sqrt(m)
            linear = np.array([np.sum(grads[:, j, None] * x[j] * (v - w)) for j in range(len(x))])
            slack = y * (value + linear) - q
            assert slack.min() >= -1e-12
            least = min(least, slack.min())
            norms = np.sqrt(np.sum(grads**2, axis=0)) * np.linalg.norm(x, axis=1)
            assert norms.max() <= g + 1e-12
    assert least < 0.2  # the points come close: the bound is not idle


def test_one_neuron_reaches_the_smooth_bound():
    # At the centre of a quadratic piece the remainder is attained by moving one neuron along x.
    fields = {"name": "smooth-leaky", "slope": 0.0, "beta": 0.5}
    x, y = np.array([[1.0], [-1.0]]), np.array([1.0, -1.0])
    w0, v = np.zeros((2, 1)), np.array([[0.5], [-0.5]])
    network = two_layer_ntk.examine(x, y, w0, fields, v)
    radius, rho = 1.0, 0.5 / 4
    w = v + np.array([[radius], [0.0]])
    a, z = np.array([1.0, -1.0]), w[:, 0]
    linear = (a @ (phi(fields, z) + slope(fields, z) * (v - w)[:, 0])) / math.sqrt(2)
    assert linear == pytest.approx(network.tangent_margins(radius)[0], abs=1e-12)
    assert network.margins[0] - linear == pytest.approx(rho / (2 * math.sqrt(2)), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_knapsack_is_above_every_subset_and_below_its_fraction(seed):
    rng = np.random.default_rng(seed)
    t, budget = np.abs(rng.standard_normal((3, 8))), rng.random(3) * 3
    bound = two_layer_ntk.knapsack_upper(t, np.zeros_like(t), budget)
    count = two_layer_ntk._count_upper(t * t, budget)
    for row in range(3):
        best, most = 0.0, 0
        for chosen in itertools.product([0, 1], repeat=8):
            s = np.array(chosen)
            if s @ t[row] ** 2 <= budget[row]:
                best, most = max(best, s @ t[row]), max(most, s.sum())
        assert best <= bound[row] <= best + t[row].max() + 1e-9
        assert most <= count[row] <= most + 1 + 1e-9


def test_errors_of_preactivations_enter_the_knapsack():
    t, budget = np.array([[0.3, 0.5, 0.9]]), np.array([0.4])
    plain = two_layer_ntk.knapsack_upper(t, np.zeros_like(t), budget)
    shaken = two_layer_ntk.knapsack_upper(t, np.full_like(t, 0.01), budget)
    moved = two_layer_ntk.knapsack_upper(t + np.array([[0.01, -0.01, 0.01]]), np.zeros_like(t), budget)
    assert moved <= shaken
    assert plain < shaken


def test_slope_squared_over_loss_constant():
    p = np.linspace(1e-6, 1 - 1e-9, 2_000_001)
    worst = np.max(p * p / -np.log1p(-p))
    assert worst < float(two_layer_ntk.SLOPE_SQUARED_OVER_LOSS) < worst + 1e-5


@named
def test_smoothness_and_growth_constants(fields):
    x, y, w0, a, v = net(n=8, m=6)
    smooth = fields["name"] in ("softplus", "smooth-leaky")
    theorem, key = ("T4T5", "L") if smooth else ("T3T5", "A")
    constant = two_layer_ntk.derive(theorem, x, y, w0, fields, v, {"T": 5, "eta": 1e-3})[key]

    def loss_grad(w):
        z = w @ x.T
        q = a @ phi(fields, z) / math.sqrt(len(w))
        p = 1 / (1 + np.exp(y * q))
        return np.mean(np.logaddexp(0, -y * q)), (slope(fields, z) * a[:, None]) @ (
            -(p * y)[:, None] * x
        ) / len(x) / math.sqrt(len(w))

    rng, seen = np.random.default_rng(0), 0.0
    for _ in range(2000):
        w = rng.standard_normal(v.shape) * rng.choice([0.1, 1.0, 3.0])
        loss, grad = loss_grad(w)
        if smooth:
            step = rng.standard_normal(v.shape) * 1e-3
            seen = max(seen, np.linalg.norm(loss_grad(w + step)[1] - grad) / np.linalg.norm(step))
        else:
            seen = max(seen, np.sum(grad**2) / loss)
    assert 0.02 * constant < seen <= constant


# --- the theorems' last lines, and near misses ----------------------------------------------------------------


def planned(k=2, scale=30.0):
    """A T8 promise that just holds: arrays, activation and parameters."""
    x, y, w0, a, v = net(n=20, m=40, scale=scale)
    fields = {**SOFTPLUS, "beta": 1.0 / scale}
    slopes = slope(fields, w0 @ x.T)
    v = w0 + 40.0 * a[:, None] * (slopes @ (y[:, None] * x)) / math.sqrt(len(w0)) / len(x)
    network = two_layer_ntk.examine(x, y, w0, fields, v)
    q = network.tangent_margins(network.distance)
    s = two_layer_ntk.margins.margin_floor(q, k)
    g = network.gradient_norm(network.distance)
    c = s / g**2
    steps = int(network.distance**2 / (c * (2 * s - c * g * g)) * (1 + 1e-12)) + 1
    floor = k / (2 * len(y)) * (1 - 1e-9)
    return (x, y, w0, fields, v), {"T": steps, "k": k, "c": c, "floor": floor}


def test_t8_holds_with_just_enough_steps():
    arrays, params = planned()
    derived = two_layer_ntk.derive("T8", *arrays, params)
    assert derived["bound"] == derived["error_bound"] == pytest.approx(1 / 20)
    assert Fraction(derived["bound"]) >= Fraction(1, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"T": p["T"] - 1}, "does not exceed"),
        (lambda p: {"k": p["k"] - 1}, "floor|does not exceed"),
        (lambda p: {"c": 2.01 * p["c"]}, "not in"),
        (lambda p: {"floor": p["floor"] * 1.000001}, "floor"),
        (lambda p: {"c": -p["c"]}, "not in"),
        (lambda p: {"k": 0}, "k = 0"),
        (lambda p: {"T": 0}, "T = 0"),
    ],
    ids=[
        "one-step-fewer",
        "one-error-fewer",
        "step-too-long",
        "floor-too-high",
        "negative-step",
        "k-0",
        "T-0",
    ],
)
def test_t8_near_misses_are_refused(change, message):
    arrays, params = planned()
    with pytest.raises(CheckError, match=message):
        two_layer_ntk.derive("T8", *arrays, params | change(params))


def test_t8_refuses_a_shorter_comparator_a_sharper_activation_and_swapped_labels():
    (x, y, w0, fields, v), params = planned()
    with pytest.raises(CheckError):
        two_layer_ntk.derive("T8", x, y, w0, fields, w0 + 0.9 * (v - w0), params)
    with pytest.raises(CheckError):
        two_layer_ntk.derive("T8", x, y, w0, fields | {"beta": fields["beta"] * 1.2}, v, params)
    with pytest.raises(CheckError):
        two_layer_ntk.derive("T8", x, -y, w0, fields, v, params)


def test_t4t5_formula_by_hand():
    x, y, w0, a, v = net(scale=20.0, move=3.0)
    fields = {**SOFTPLUS, "beta": 0.05}
    spread = np.linalg.eigvalsh(x.T @ x / len(x))[-1]
    big_l = spread * (0.25 + 0.05 / 4 / math.sqrt(len(w0)))
    eta, steps = 1.8 / big_l, 700
    got = two_layer_ntk.derive("T4T5", x, y, w0, fields, v, {"T": steps, "eta": eta})
    r2, alpha = np.sum((v - w0) ** 2), 1 / (2 - big_l * eta)
    rho2 = r2 + 2 * eta * alpha * math.log(2)
    margins = y * (a @ phi(fields, v @ x.T)) / math.sqrt(len(w0))
    q = margins - 0.05 / 4 * np.sum(x * x, axis=1) * rho2 / (2 * math.sqrt(len(w0)))
    h = np.mean(np.logaddexp(0, -q))
    bound = max(h, (steps * h + r2 / (2 * eta) + (alpha - 1) * math.log(2)) / (steps - 1 + alpha))
    for key, value in {
        "L": big_l,
        "radius": math.sqrt(rho2),
        "h": h,
        "q_min": q.min(),
        "bound": bound,
    }.items():
        assert got[key] == pytest.approx(value, rel=1e-9)
    assert got["bound"] >= bound * (1 - 1e-14)
    assert got["error_bound"] == pytest.approx(math.floor(len(y) * bound / math.log(2)) / len(y))


@pytest.mark.parametrize(
    ("theorem", "key", "fields"), [("T4T5", "L", SOFTPLUS), ("T3T5", "A", RELU)], ids=["T4T5", "T3T5"]
)
def test_constant_steps_must_be_below_two_over_the_constant(theorem, key, fields):
    x, y, w0, _, v = net()
    constant = two_layer_ntk.derive(theorem, x, y, w0, fields, v, {"T": 5, "eta": 1e-3})[key]
    two_layer_ntk.derive(theorem, x, y, w0, fields, v, {"T": 5, "eta": 2 / constant * (1 - 1e-9)})
    with pytest.raises(CheckError, match="is not below 2"):
        two_layer_ntk.derive(theorem, x, y, w0, fields, v, {"T": 5, "eta": 2 / constant * (1 + 1e-9)})


def test_unknown_theorems_shapes_and_unpaired_weights_are_refused():
    x, y, w0, _, v = net()
    cases = [
        ("T9", x, y, w0, SOFTPLUS, v),
        ("T4T5", x, y, w0, RELU, v),
        ("T4T5", x[:, :2], y, w0, SOFTPLUS, v),
        ("T4T5", x, y * 2, w0, SOFTPLUS, v),
        ("T4T5", x, y, w0[:9], SOFTPLUS, v[:9]),
        ("T4T5", x, y, w0 + np.arange(10)[:, None], SOFTPLUS, v),
        ("T4T5", x, y, w0, {**SOFTPLUS, "name": "tanh"}, v),
        ("T4T5", x, y, w0, {**SOFTPLUS, "slope": 0.5}, v),
        ("T4T5", x * np.nan, y, w0, SOFTPLUS, v),
    ]
    for theorem, *arrays in cases:
        with pytest.raises(CheckError):
            two_layer_ntk.derive(theorem, *arrays, {"T": 5, "eta": 1e-3})


def test_blocks_of_rows_give_the_same_numbers(monkeypatch):
    x, y, w0, _, v = net()
    whole = two_layer_ntk.derive("T3T5", x, y, w0, RELU, v, {"T": 5, "eta": 1e-3})
    monkeypatch.setattr(two_layer_ntk, "BLOCK", 30)
    assert two_layer_ntk.derive("T3T5", x, y, w0, RELU, v, {"T": 5, "eta": 1e-3}) == pytest.approx(
        whole, rel=1e-12
    )
