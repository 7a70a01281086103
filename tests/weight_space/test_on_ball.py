"""Proxy convexity on a ball of weights: the inequality at random weights, and the theorems that use it."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import weight_oracles as oracle

import proxyconvex as pc

ACTIVATIONS = [pc.Activation("relu"), pc.Activation("softplus", 0.0, 2.0)]
named = pytest.mark.parametrize("act", ACTIVATIONS, ids=lambda a: a.name)


def rows(seed=0, n=15, d=4):
    rng = np.random.default_rng(seed)
    x, u = rng.standard_normal((n, d)), rng.standard_normal(d)
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.sign(x @ u), u, rng


def two_layer(seed=0, m=32):
    x, y, u, rng = rows(seed)
    half = rng.standard_normal((m // 2, x.shape[1]))
    return x, y, np.concatenate([half + u, half - u]), np.repeat([1.0, -1.0], m // 2), rng


@named
@pytest.mark.parametrize("radius", [0.3, 3.0])
def test_the_inequality_holds_at_random_weights(act, radius):
    x, y, v, signs, rng = two_layer()
    found = pc.certify_on_ball(pc.TwoLayerNetwork(act), pc.Ball(v, radius), x, y)
    assert found.verdict.status is pc.Status.HOLDS
    premises = {p.name: p for p in found.premises}
    for (move,) in oracle.points_in_ball(rng, [v.shape], radius, 100):
        w = v + move
        out, tangent = oracle.two_layer(w, signs, x, act), oracle.two_layer_tangent(w, v, signs, x, act)
        pull = -y / (1 + np.exp(y * out))
        descent = np.mean(pull * (out - tangent))
        assert descent >= np.logaddexp(0, -y * out).mean() - found.h - 1e-12
        assert (y * tangent >= premises["tangent-margins"].margins - 1e-12).all()
    for name in ("proxy-convexity", "tangent-margins", "gradient-norm", "growth", "bounded-below"):
        assert premises[name].slack(w) >= -1e-12
        assert premises[name].weakest() >= pc.Evidence.CERTIFIED


@named
def test_h_that_is_too_small_is_violated(act):
    """The near miss: on a ball where the network can leave its tangent model, half of h fails."""
    x, y, v, signs, rng = two_layer()
    found = pc.certify_on_ball(pc.TwoLayerNetwork(act), pc.Ball(v, 1e-3), x, y)
    pc_premise = found.premises[0]
    half = pc.ProxyConvexity(pc_premise.f, pc_premise.g, found.h / 2, v)
    assert pc_premise.slack(v) == pytest.approx(found.h - float(pc_premise.f(v)), abs=1e-6)
    assert half.slack(v) < 0


def test_theorems_accept_the_premises():
    """Softplus: T4T5 promises a final loss; ReLU: T3T5 a best loss; both certified."""
    x, y, v, _, _ = two_layer(m=256)
    start = pc.Start(value=np.log(2.0), distance=0.05)
    method = pc.GradientDescent(pc.ConstantStep(0.5), 2000)
    for act, theorem in zip(ACTIVATIONS, ("T3T5", "T4T5"), strict=True):
        found = pc.certify_on_ball(pc.TwoLayerNetwork(act), pc.Ball(v, 1.5), x, y)
        made = pc.guarantee((*found.premises, start), method)
        assert theorem in {a.theorem for a in pc.explain((*found.premises, start), method) if a.accepted}
        assert made.bound >= found.h
        assert made.bound <= found.h + 0.01


@named
def test_dense_networks(act):
    x, y, _, rng = rows()
    w = (rng.standard_normal((12, 4)), rng.standard_normal((12, 12)), rng.standard_normal((1, 12)))
    scales = (1.0, 0.3, 0.3)
    found = pc.certify_on_ball(pc.DenseNetwork(act, scales), pc.Ball(w, 0.2), x, y)
    for move in oracle.points_in_ball(rng, [a.shape for a in w], 0.2, 3):
        point = tuple(a + d for a, d in zip(w, move, strict=True))
        for premise in found.premises:
            if premise.name != "smoothness":
                assert premise.slack(point) >= -1e-12, premise.name
            else:
                assert premise.slack(w, point) >= -1e-12


def test_the_certificate_is_about_h(tmp_path):
    x, y, v, _, _ = two_layer()
    found = pc.certify_on_ball(pc.TwoLayerNetwork(ACTIVATIONS[0]), pc.Ball(v, 0.5), x, y)
    result = pc.verify(found.write_certificate(tmp_path))
    assert result.accepted
    assert "log(1 + exp(-q))" in result.statement
    assert "proxy convex" in str(found)


def test_targets_are_needed():
    x, _, v, _, _ = two_layer()
    with pytest.raises(pc.InvalidInputError, match="targets"):
        pc.certify_on_ball(pc.TwoLayerNetwork(ACTIVATIONS[0]), pc.Ball(v, 0.5), x, None)


def test_the_example_runs(capsys):
    example = Path(__file__).parents[2] / "examples" / "weight_space.py"
    runpy.run_path(str(example), run_name="__main__")
    printed = capsys.readouterr().out
    assert "FALSIFIED" in printed
    assert "ACCEPTED" in printed
