"""Deep nets on a ball: the layer-wise bounds against high-precision Hessians, random and adversarial weights."""

from __future__ import annotations

import numpy as np
import pytest
import weight_oracles as oracle

import proxyconvex as pc
from proxyconvex.checks.weights.layer_bounds import loss_hessian_bound
from proxyconvex_checker.activations import Activation as Checked
from proxyconvex_checker.weights import layers as weight_layers
from proxyconvex_checker.weights import norms as weight_norms

SMOOTH = [pc.Activation("softplus", 0.0, 2.0), pc.Activation("smooth-leaky", 0.2, 3.0)]
ALL = [*SMOOTH, pc.Activation("leaky-relu", 0.3), pc.Activation("relu")]


def network(widths, seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) for a, b in zip(widths, widths[1:], strict=False)]
    scales = [1.0, *(1 / np.sqrt(a) for a in widths[1:-1])]
    return weights, scales, rng.standard_normal((6, widths[0])), rng


@pytest.mark.parametrize("widths", [(3, 4, 1), (2, 3, 3, 1), (2, 3, 2, 3, 1)], ids=str)
@pytest.mark.parametrize("radius", [0.0, 0.4])
def test_hessian_bound_covers_high_precision_hessians(widths, radius):
    weights, scales, x, rng = network(widths, sum(widths))
    bound = pc.hessian_bound(weights, pc.Activation("softplus", 0.0, 2.0), radius, x[:2], scales)
    moves = [[np.zeros_like(w) for w in weights]]
    if radius:
        moves = list(oracle.points_in_ball(rng, [w.shape for w in weights], radius, 3))
    for move in moves:
        here = [w + d for w, d in zip(weights, move, strict=True)]
        for i in range(2):
            assert oracle.softplus_hessian(here, scales, x[i], 2) <= bound[i]


def test_hessian_bound_is_exact_where_it_can_be():
    """One neuron, one input, phi'' at its peak: N = a phi(w x) has Hessian H a x^2 in w (the output layer is fixed)."""
    w, a, x = [np.array([[0.0]]), np.array([[0.7]])], 0.7, np.array([[1.5]])
    got = pc.hessian_bound(w, pc.Activation("softplus", 0.0, 4.0), 0.0, x, (1.0, 1.0), (True, False))
    assert got[0] == pytest.approx(a * 1.5**2 * 4.0 / 4, rel=1e-9)


def test_two_layer_case_is_the_classical_remainder():
    """H ||x||^2 / sqrt m, and half of it times rho^2, for fixed output signs."""
    rng = np.random.default_rng(0)
    m, x = 64, rng.standard_normal((5, 3))
    w = [rng.standard_normal((m, 3)), np.repeat([1.0, -1.0], m // 2)[None]]
    net = pc.Layers(w, pc.Activation("softplus", 0.0, 2.0), x, (1.0, 0.125), (True, False))
    squares = (x**2).sum(axis=1)
    got = net.bounds(0.3)
    assert got.hessian == pytest.approx(0.5 * squares / np.sqrt(m), rel=1e-9)
    assert got.remainder == pytest.approx(0.25 * squares / np.sqrt(m) * 0.09, rel=1e-9)


@pytest.mark.parametrize("act", ALL, ids=lambda a: a.name)
@pytest.mark.parametrize("trained", [(True, True, True), (True, True, False), (False, True, False)], ids=str)
def test_no_weights_in_the_ball_beat_the_bounds(act, trained):
    weights, scales, x, rng = network((3, 12, 10, 1), 5)
    for radius in (1e-3, 0.5, 3.0):
        got = pc.layer_bounds(weights, act, x, radius, scales=scales, trained=trained)
        center = oracle.dense(weights, scales, x, act)[0]
        shapes = [w.shape if t else (0, 0) for w, t in zip(weights, trained, strict=True)]
        for move in oracle.points_in_ball(rng, shapes, radius, 120):
            d = [m if t else np.zeros_like(w) for m, w, t in zip(move, weights, trained, strict=True)]
            here = [w + v for w, v in zip(weights, d, strict=True)]
            value, back = oracle.dense(here, scales, x, act, [-v for v in d])
            tiny = 1e-12 * (1 + np.abs(center))
            assert (value >= got.output_low - tiny).all()
            assert (value <= got.output_high + tiny).all()
            assert (np.abs(value + back - center) <= got.remainder + tiny).all()
            unit = [rng.standard_normal(w.shape) * t for w, t in zip(weights, trained, strict=True)]
            size = np.sqrt(sum((u * u).sum() for u in unit))
            rate = oracle.dense(here, scales, x, act, [u / size for u in unit])[1]
            assert (np.abs(rate) <= got.lipschitz + tiny).all()


@pytest.mark.parametrize("act", SMOOTH, ids=lambda a: a.name)
def test_balls_per_layer(act):
    weights, scales, x, rng = network((3, 12, 10, 1), 6)
    radii = (0.3, 0.0, 0.7)
    region = pc.Product(tuple(pc.Ball(w, r or 1e-300) for w, r in zip(weights, radii, strict=True)))
    got = pc.layer_bounds(weights, act, x, region, scales=scales)
    center = oracle.dense(weights, scales, x, act)[0]
    assert (got.remainder <= pc.layer_bounds(weights, act, x, 0.8, scales=scales).remainder).all()
    for _ in range(100):
        d = [rng.standard_normal(w.shape) for w in weights]
        d = [v * (r / np.linalg.norm(v)) for v, r in zip(d, radii, strict=True)]
        value, back = oracle.dense(
            [w + v for w, v in zip(weights, d, strict=True)], scales, x, act, [-v for v in d]
        )
        assert (np.abs(value + back - center) <= got.remainder + 1e-12).all()
        assert (value >= got.output_low - 1e-12).all()


def test_the_hessian_bound_falls_with_the_width():
    """About like 1 / sqrt m, which norms alone would not give."""
    rng = np.random.default_rng(1)
    x, bounds = rng.standard_normal((1, 4)), []
    x /= np.linalg.norm(x)
    for m in (32, 128, 512):
        w = [rng.standard_normal((m, 4)), rng.standard_normal((m, m)), rng.choice([-1.0, 1.0], (1, m))]
        s = (1.0, 1 / np.sqrt(m), 1 / np.sqrt(m))
        bounds.append(pc.hessian_bound(w, pc.Activation("softplus"), 0.1, x, s)[0])
    assert bounds[1] < 0.62 * bounds[0]
    assert bounds[2] < 0.62 * bounds[1]


def test_largest_radius_is_certified_and_nearly_largest():
    weights, scales, x, _ = network((3, 64, 64, 1), 2)
    net = pc.Layers(weights, SMOOTH[0], x, scales)
    y = np.sign(net.center.low)
    r = net.largest_radius(y)
    assert (net.bounds(r).tangent_margins(y) >= 0).all()
    assert (net.bounds(1.01 * r).tangent_margins(y) < 0).any()
    assert net.largest_radius(-y) == 0.0


def test_smoothness_of_the_loss():
    weights, scales, x, rng = network((3, 8, 1), 3)
    y = np.array([1.0, -1.0] * 3)
    act = SMOOTH[0]
    constant = loss_hessian_bound(pc.layer_bounds(weights, act, x, 0.5, scales=scales))

    def loss(w):
        return float(np.mean(np.logaddexp(0, -y * oracle.dense(w, scales, x, act)[0])))

    for move in oracle.points_in_ball(rng, [w.shape for w in weights], 0.4, 30):
        size = np.sqrt(sum((m * m).sum() for m in move))
        step = [m * (0.02 / max(size, 1e-9)) for m in move]
        at = [loss([w + s * d for w, d in zip(weights, step, strict=True)]) for s in (-1, 0, 1)]
        assert abs(at[0] - 2 * at[1] + at[2]) / 0.02**2 <= constant + 1e-9


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (30, 12), (12, 30), (150, 120)], ids=str)
@pytest.mark.parametrize("limit", [512, 2], ids=["eigenvectors", "factorisation"])
def test_spectral_norms_are_upper_bounds_and_close(shape, limit, monkeypatch):
    monkeypatch.setattr(weight_norms, "EIGEN_LIMIT", limit)
    rng = np.random.default_rng(0)
    for w in (
        rng.standard_normal(shape),
        rng.standard_normal((shape[0], 1)) * np.ones(shape),
        1e-200 * np.eye(*shape),
    ):
        exact = np.linalg.norm(w / np.abs(w).max(), 2) * np.abs(w).max()
        got = weight_norms.spectral_norm_upper(w)
        assert exact * (1 - 1e-14) <= got <= exact * 1.02
    assert weight_norms.spectral_norm_upper(np.zeros(shape)) == 0.0


def test_power_iteration_alone_would_be_below():
    """Two nearly equal large eigenvalues: the proposal is below the truth, the bound above."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((120, 120)))[0]
    values = np.concatenate([[1.0, 0.9999], np.linspace(0.9, 0, 118)])
    gram = (q * values) @ q.T
    assert weight_norms._power(gram) < 1.0
    assert 1.0 <= weight_norms._factorised(gram, np.full_like(gram, 1e-14)) <= 1.01


def test_quadratic_forms_with_positive_entries():
    rng = np.random.default_rng(0)
    m = rng.random((50, 4, 4)) ** 4
    m = m + m.transpose(0, 2, 1)
    exact = np.linalg.eigvalsh(m).max(axis=1)
    got = weight_norms.quadratic_upper(m)
    assert (got >= exact * (1 - 1e-14)).all()
    assert got == pytest.approx(exact, rel=1e-6)
    r = rng.random(4)
    assert weight_norms.quadratic_upper(m, r) == pytest.approx(np.einsum("nij,i,j->n", m, r, r))


@pytest.mark.parametrize("act", ALL, ids=lambda a: a.name)
def test_slope_enclosures_contain(act):
    rng = np.random.default_rng(0)
    z, e = (
        rng.standard_normal(4000) * 3,
        np.abs(rng.standard_normal(4000)) * 10.0 ** rng.integers(-18, 0, 4000),
    )
    z[:200] = 0.0
    e[:100] = 0.0
    d, error = weight_layers.slope_enclosure(Checked(act.name, act.slope, act.beta), z, e)
    for t in (z - e, z, z + e):
        exact = oracle.slope(act.name, t, act.slope, act.beta)
        assert (np.abs(exact - d) <= error + 1e-16).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"radius": -1.0}, "radius"),
        ({"radius": (1.0, 2.0, 3.0)}, "one per layer"),
        ({"scales": (1.0,)}, "scales"),
        ({"inputs": np.ones((2, 5))}, "do not fit"),
        ({"weights": [np.full((4, 3), np.nan), np.ones((1, 4))]}, "NaN"),
        ({"activation": "relu"}, "an Activation"),
        ({"trained": (False, False)}, "one must"),
        ({"output": 3}, "no output 3"),
        ({"radius": pc.Ball(np.ones((4, 3)), 1.0)}, "list of weight matrices"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refusals(change, text):
    arguments = {
        "weights": [np.ones((4, 3)), np.ones((1, 4))],
        "activation": SMOOTH[0],
        "inputs": np.ones((2, 3)),
        "radius": 0.1,
    }
    arguments.update(change)
    with pytest.raises(pc.InvalidInputError, match=text):
        pc.layer_bounds(**arguments)


def test_a_kink_has_no_hessian_bound():
    with pytest.raises(pc.InvalidInputError, match="no Hessian"):
        pc.hessian_bound([np.ones((4, 3)), np.ones((1, 4))], pc.Activation("relu"), 0.1, np.ones((2, 3)))
