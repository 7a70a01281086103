"""Claims on balls of weights: attacks never beat them, near misses are refuted, every kind of region and network."""

from __future__ import annotations

import numpy as np
import pytest
import weight_oracles as oracle

import proxyconvex as pc
from proxyconvex.checks.weights import attack as weight_attack
from proxyconvex_checker.weights import loss as weight_loss
from proxyconvex_checker.weights import margins as weight_margins
from proxyconvex_checker.weights import point as weight_point
from proxyconvex_checker.weights import two_layer as weight_two_layer

ACTIVATIONS = [
    pc.Activation("relu"),
    pc.Activation("leaky-relu", 0.3),
    pc.Activation("softplus", 0.0, 2.0),
    pc.Activation("smooth-leaky", 0.1, 3.0),
]
named = pytest.mark.parametrize("act", ACTIVATIONS, ids=lambda a: a.name)
REGIONS = ["ball", "per-neuron", "both"]


def problem(n=12, m=16, d=4, seed=0):
    """A network that separates its rows at the centre."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    u = rng.standard_normal(d)
    y = np.sign(x @ u)
    half = rng.standard_normal((m // 2, d))
    return x, y, np.concatenate([half + 0.6 * u, half - 0.6 * u]), np.repeat([1.0, -1.0], m // 2)


def region_of(kind, v, radius):
    caps = pc.PerNeuronBalls(v, radius * (0.1 + np.arange(len(v)) / len(v)))
    return {"ball": pc.Ball(v, radius), "per-neuron": caps, "both": pc.intersect(pc.Ball(v, radius), caps)}[
        kind
    ]


def space_of(act, kind="ball", radius=0.5, seed=0):
    x, y, v, _ = problem(seed=seed)
    return pc.WeightSpace(pc.TwoLayerNetwork(act), region_of(kind, v, radius), x, y)


def displacements(kind, v, radius, rng, count):
    for (move,) in oracle.points_in_ball(rng, [v.shape], radius, count):
        if kind != "ball":
            caps = radius * (0.1 + np.arange(len(v)) / len(v))
            size = np.linalg.norm(move, axis=1)
            reach = caps if kind == "per-neuron" else np.minimum(caps, size)
            move = move * (reach * (1 - 1e-12) / np.maximum(size, 1e-300))[:, None]
        yield move


def measured(w, v, signs, x, y, act):
    out = oracle.two_layer(w, signs, x, act)
    tangent = y * oracle.two_layer_tangent(w, v, signs, x, act)
    slopes = oracle.slope(act.name, x @ w.T, act.slope, act.beta)
    lost = np.maximum(y * oracle.two_layer(v, signs, x, act) - tangent, 0)
    return {
        "margin": (y * out).min(),
        "tangent-margin": tangent.min(),
        "loss": np.logaddexp(0, -y * out).mean(),
        "tangent-loss": np.logaddexp(0, -tangent).mean(),
        "mean-tangent-decrease": lost.mean(),
        "least-loss": np.logaddexp(0, -y * out).mean(),
        "least-output": out.min(),
        "largest-output": out.max(),
        "lipschitz": (np.linalg.norm(x, axis=1) * np.sqrt((slopes**2).mean(axis=1))).max(),
    }


@named
@pytest.mark.parametrize("kind", REGIONS)
@pytest.mark.parametrize("radius", [0.05, 1.0, 5.0])
def test_no_weights_in_the_region_beat_the_bounds(act, kind, radius):
    x, y, v, signs = problem()
    space = space_of(act, kind, radius)
    bounds = space.bounds()
    c, region = space._two_layer
    low, high = weight_margins.output_range(c, region)
    lowest = weight_loss.loss_lower(c, region)
    for move in displacements(kind, v, radius, np.random.default_rng(1), 300):
        for name, value in measured(v + move, v, signs, x, y, act).items():
            if name.endswith("margin") or name.startswith("least"):
                assert value >= bounds[name] - 1e-12, name
            else:
                assert value <= bounds[name] + 1e-12, name
        out = oracle.two_layer(v + move, signs, x, act)
        assert (out >= low - 1e-12).all()
        assert (out <= high + 1e-12).all()
        assert np.logaddexp(0, -y * out).mean() >= lowest - 1e-12


@named
@pytest.mark.parametrize("kind", REGIONS)
@pytest.mark.parametrize("quantity", ["margin", "tangent-margin", "loss", "tangent-loss"])
def test_attacks_do_not_beat_the_bounds_and_come_close(act, kind, quantity):
    space = space_of(act, kind)
    bound = space.bound(quantity)
    found = weight_attack.attack(space.subject, quantity, bound, effort=60, starts=2)
    assert not found.refutes
    assert weight_point.inside(space.subject, found.weights)
    center = weight_point.value(space.subject, quantity, space.subject.weights)
    if abs(bound - center[0]) > 1e-9:  # per-neuron balls may allow no flip at all
        assert (found.value - center[0]) / (bound - center[0]) > {"margin": 0.4, "loss": 0.1}.get(
            quantity, 0.05
        )


@named
@pytest.mark.parametrize("quantity", ["margin", "tangent-margin", "loss", "tangent-loss"])
def test_near_misses_are_refuted(act, quantity):
    """A claim tightened beyond what an attack reaches is false, and is refuted with weights anyone can check."""
    x, y, v, signs = problem()
    space = space_of(act)
    bound = space.bound(quantity)
    reached = weight_attack.attack(space.subject, quantity, bound, effort=60, starts=2).value
    center = weight_point.value(space.subject, quantity, space.subject.weights)[0]
    level = reached + 0.01 * (center - reached)
    verdict = space.certify(quantity, level, effort=60)
    assert verdict.status is pc.Status.FALSIFIED, verdict.sentence
    w = verdict.witness["weights"][0]
    assert np.linalg.norm(w - v) <= 0.5
    again = measured(w, v, signs, x, y, act)[quantity]
    assert again == pytest.approx(verdict.witness["value"], abs=1e-9)
    assert (again < level) if quantity.endswith("margin") else (again > level)


@named
def test_between_bound_and_attack_nothing_is_claimed(act):
    space = space_of(act, radius=1.0)
    bound = space.bound("loss")
    verdict = space.certify("loss", bound - 1e-9, effort=20)
    assert verdict.status is pc.Status.INCONCLUSIVE
    assert "does not show that there is nothing worse" in verdict.sentence
    sure = space.certify("loss")
    assert sure.status is pc.Status.HOLDS
    assert sure.evidence is pc.Evidence.CERTIFIED


@named
def test_single_sample_tangent_bounds_are_attained(act):
    """ReLU: the knapsack is attained by flipping the cheapest neurons, if the budget ends exactly at a flip."""
    x, y, v, signs = problem(n=1, seed=3)
    if act.smooth:
        return
    z = np.sort(np.abs(v[signs * y[0] > 0] @ x[0]))[:3]
    radius = np.linalg.norm(z) / np.linalg.norm(x[0]) * (1 + 1e-6)
    space = pc.WeightSpace(pc.TwoLayerNetwork(act), pc.Ball(v, radius), x, y)
    found = weight_attack.attack(space.subject, "tangent-margin", 0.0, effort=1, starts=1)
    assert found.value == pytest.approx(space.bound("tangent-margin"), abs=1e-5)


def test_first_order_margins_are_exact_for_small_balls():
    """For rho -> 0 the decrease of a margin is ||grad N|| rho, attained along the gradient."""
    for act in ACTIVATIONS:
        x, y, v, signs = problem()
        space = pc.WeightSpace(pc.TwoLayerNetwork(act), pc.Ball(v, 1e-6), x, y)
        c, region = space._two_layer
        slopes = oracle.slope(act.name, x @ v.T, act.slope, act.beta)
        exact = np.linalg.norm(x, axis=1) * np.sqrt((slopes**2).mean(axis=1)) * 1e-6
        assert weight_margins.margin_decrease(c, region) == pytest.approx(exact, rel=1e-4)


def test_joint_smooth_remainder_uses_the_spread_of_the_rows():
    """Rows in orthogonal directions cannot all use the same budget: n times better than row by row."""
    n, act = 8, ACTIVATIONS[2]
    v = np.zeros((16, n))
    space = pc.WeightSpace(pc.TwoLayerNetwork(act), pc.Ball(v, 1.0), np.eye(n), np.ones(n))
    assert space.bound("mean-tangent-decrease") == pytest.approx(0.5 / (2 * 4.0) / n, rel=1e-9)
    c, region = space._two_layer
    assert weight_two_layer.tangent_decrease(c, region) == pytest.approx(np.full(n, 0.5 / 8), rel=1e-9)


def test_local_curvature_sharpens_per_neuron_balls():
    """Far from the bend a softplus neuron is nearly linear, which the global H does not see."""
    act = pc.Activation("softplus", 0.0, 10.0)
    v, x, y = np.full((4, 1), 3.0), np.ones((1, 1)), np.ones(1)
    space = pc.WeightSpace(pc.TwoLayerNetwork(act, np.ones(4)), pc.PerNeuronBalls(v, 0.1), x, y)
    c, region = space._two_layer
    plain = 2.5 * 0.01 * 4 / (2 * 2)
    assert weight_two_layer.tangent_decrease(c, region)[0] < 1e-9 * plain


@pytest.mark.parametrize("act", ACTIVATIONS, ids=lambda a: a.name)
def test_dense_networks(act):
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((16, 3)), rng.standard_normal((16, 16)), rng.standard_normal((1, 16)))
    x = rng.standard_normal((6, 3))
    scales = (1.0, 0.25, 0.25)
    y = np.sign(oracle.dense(w, scales, x, act)[0])
    product = pc.Product(tuple(pc.Ball(a, 0.2) for a in w))
    for region, quantities in (
        (pc.Ball(w, 0.3), ("margin", "tangent-loss")),
        (product, ("tangent-margin", "loss")),
    ):
        space = pc.WeightSpace(pc.DenseNetwork(act, scales), region, x, y)
        for quantity in quantities:
            bound = space.bound(quantity)
            found = weight_attack.attack(space.subject, quantity, bound, effort=20, starts=2)
            assert not found.refutes
            assert weight_point.inside(space.subject, found.weights)
            sign = 1 if quantity.endswith("margin") else -1
            assert weight_attack._judge(
                space.subject, quantity, found.value + sign * 1e-6, [found.weights], ""
            ).refutes
        assert ("hessian" in space.quantities) == act.smooth
        for move in oracle.points_in_ball(rng, [a.shape for a in w], 0.2, 30):
            out = oracle.dense([a + d for a, d in zip(w, move, strict=True)], scales, x, act)[0]
            assert space.bound("least-output") <= out.min()
            assert space.bound("largest-output") >= out.max()
            assert space.bound("least-loss") <= np.logaddexp(0, -y * out).mean() <= space.bound("loss")
        assert "dense" in str(space)


def test_points_outside_are_not_counterexamples():
    space = space_of(ACTIVATIONS[0])
    v = space.subject.weights[0]
    move = np.zeros_like(v)
    move[0, 0] = 0.5
    assert weight_point.inside(space.subject, [v])
    assert weight_point.inside(space.subject, [v + 0.999 * move])
    assert not weight_point.inside(space.subject, [v + 1.0001 * move])


@named
def test_values_at_points_are_enclosed(act):
    x, y, v, signs = problem(seed=5)
    space = space_of(act, seed=5)
    for move in displacements("ball", v, 0.5, np.random.default_rng(2), 20):
        exact = measured(v + move, v, signs, x, y, act)
        for quantity in ("margin", "tangent-margin", "loss", "tangent-loss"):
            low, high = weight_point.value(space.subject, quantity, [v + move])
            assert low - 1e-14 <= exact[quantity] <= high + 1e-14
            assert high - low < 1e-10


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda x, y, v: pc.WeightSpace(pc.TwoLayerNetwork(ACTIVATIONS[0]), pc.WholeSpace(), x, y), "a Ball"),
        (
            lambda x, y, v: pc.WeightSpace(pc.TwoLayerNetwork(ACTIVATIONS[0]), pc.Ball(v[:, :2], 1), x, y),
            "centre of shape",
        ),
        (
            lambda x, y, v: pc.WeightSpace(
                pc.TwoLayerNetwork(ACTIVATIONS[0], np.ones(3)), pc.Ball(v, 1), x, y
            ),
            "signs",
        ),
        (
            lambda x, y, v: pc.WeightSpace(pc.TwoLayerNetwork(ACTIVATIONS[0]), pc.Ball(v, 1), x, 2 * y),
            "targets",
        ),
        (
            lambda x, y, v: pc.WeightSpace(pc.TwoLayerNetwork(ACTIVATIONS[0]), pc.Ball(v, 1), x * np.inf, y),
            "inputs",
        ),
        (lambda x, y, v: pc.WeightSpace("relu", pc.Ball(v, 1), x, y), "network"),
        (
            lambda x, y, v: pc.WeightSpace(pc.DenseNetwork(ACTIVATIONS[0]), pc.Ball(v, 1), x, y),
            "tuple of matrices",
        ),
        (
            lambda x, y, v: pc.WeightSpace(pc.DenseNetwork(ACTIVATIONS[0]), pc.Ball((v, v), 1), x, y),
            "fit together",
        ),
        (lambda x, y, v: space_of(ACTIVATIONS[0]).bound("hessian"), "quantity"),
        (lambda x, y, v: space_of(ACTIVATIONS[0]).certify("loss", np.nan), "finite"),
        (lambda x, y, v: space_of(ACTIVATIONS[0]).write_certificate("unused", "loss", 0.0), "implies"),
        (
            lambda x, y, v: pc.WeightSpace(
                pc.TwoLayerNetwork(ACTIVATIONS[0]),
                pc.intersect(pc.Ball(v, 1), pc.PerNeuronBalls(v + 1, 1)),
                x,
                y,
            ),
            "same centre",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refusals(build, text):
    x, y, v, _ = problem()
    with pytest.raises(pc.InvalidInputError, match=text), np.errstate(invalid="ignore"):
        build(x, y, v)


def test_without_targets_only_gradients_are_bounded():
    x, _, v, _ = problem()
    space = pc.WeightSpace(pc.TwoLayerNetwork(ACTIVATIONS[2]), pc.Ball(v, 0.5), x)
    assert space.quantities == ("least-output", "largest-output", "lipschitz", "hessian")
    with pytest.raises(pc.InvalidInputError, match="Give targets"):
        space.bound("loss")
