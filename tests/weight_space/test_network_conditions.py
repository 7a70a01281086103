"""Conditions on the loss of a known network: a certified number implies them, or they stay open; a certificate states the number."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import weight_oracles as oracle

import proxyconvex as pc

RELU, SOFTPLUS = pc.Activation("relu"), pc.Activation("softplus", 0.0, 2.0)


def rows(seed=0, n=12, d=3):
    rng = np.random.default_rng(seed)
    x, u = rng.standard_normal((n, d)), rng.standard_normal(d)
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.sign(x @ u), u, rng


def space(kind: str, act, radius=0.2):
    x, y, u, rng = rows()
    if kind == "two-layer":
        half = rng.standard_normal((4, 3))
        return pc.WeightSpace(
            pc.TwoLayerNetwork(act), pc.Ball(np.concatenate([half + u, half - u]), radius), x, y
        )
    w = (rng.standard_normal((5, 3)), rng.standard_normal((1, 5)))
    return pc.WeightSpace(pc.DenseNetwork(act, (1.0, 0.4)), pc.Ball(w, radius), x, y)


CASES = [(kind, act) for kind in ("two-layer", "dense") for act in (RELU, SOFTPLUS)]
cases = pytest.mark.parametrize(("kind", "act"), CASES, ids=[f"{k}-{a.name}" for k, a in CASES])


@cases
def test_every_premise_of_a_ball_is_certified_again(kind, act, tmp_path):
    s = space(kind, act)
    found = pc.certify_on_ball(s.network, s.region, s.inputs, s.targets)
    assert len(found.premises) == 6 if act.smooth else 5
    for premise in found.premises:
        verdict = pc.certify(premise)
        assert (verdict.status, verdict.evidence) == (pc.Status.HOLDS, pc.Evidence.CERTIFIED), verdict
        result = pc.verify(verdict.write(tmp_path / f"{premise.name}.json").parent)
        assert result.accepted and result.statement in verdict.sentence


def conditions(s, factor):
    """Conditions at ``factor`` times what is certified (above 1: weaker)."""
    center = s.region.center
    where = {"region": s.region}
    found = {
        "h": pc.ProxyConvexity(s.loss, s.loss, factor * s.bound("tangent-loss"), center, **where),
        "growth": pc.GradientGrowth(factor * s.bound("growth"), 0, s.loss, s.loss, **where),
        "below": pc.BoundedBelow(s.bound("least-loss") / factor, f=s.loss, **where),
    }
    if s.subject.activation.smooth:
        found["smooth"] = pc.Smooth(factor * s.bound("smoothness"), f=s.loss, **where)
    return found


@cases
def test_more_than_is_certified_is_never_claimed(kind, act):
    s = space(kind, act)
    for name, condition in conditions(s, 1.01).items():
        assert pc.certify(condition).status is pc.Status.HOLDS, name
    for name, condition in conditions(s, 0.99).items():
        verdict = pc.certify(condition)
        assert verdict.status is pc.Status.INCONCLUSIVE and "what is certified is" in verdict.sentence, name
        with pytest.raises(pc.InvalidInputError, match="a verdict HOLDS"):
            verdict.write("nowhere")


@cases
def test_the_new_quantities_bound_what_they_say(kind, act):
    """Second derivatives along random directions, and gradient against loss, at random weights; by JAX."""
    s = space(kind, act, 0.5)
    rng = np.random.default_rng(1)
    center = s.region.center if isinstance(s.region.center, tuple) else (s.region.center,)
    wrap = (lambda w: w[0]) if kind == "two-layer" else tuple
    with jax.enable_x64(True):
        for move in oracle.points_in_ball(rng, [a.shape for a in center], 0.5, 20):
            w = [jax.numpy.asarray(a + d) for a, d in zip(center, move, strict=True)]
            f = lambda p: s.loss(wrap(p))  # noqa: E731
            value, slope = jax.value_and_grad(f)(w)
            assert sum(float((g**2).sum()) for g in slope) <= s.bound("growth") * float(value) * (1 + 1e-12)
            if act.smooth:
                step = [rng.standard_normal(a.shape) for a in center]
                size = np.sqrt(sum((d**2).sum() for d in step))
                line = lambda t: f([a + t * d / size for a, d in zip(w, step, strict=True)])  # noqa: B023, E731
                assert abs(float(jax.grad(jax.grad(line))(0.0))) <= s.bound("smoothness")


def test_a_smaller_region_of_its_own_gives_its_own_bound():
    s = space("dense", SOFTPLUS, 0.5)
    small = pc.Ball(s.region.center, 0.05)
    level = pc.WeightSpace(s.network, small, s.inputs, s.targets).bound("smoothness")
    assert level < 0.999 * s.bound("smoothness")
    assert pc.certify(pc.Smooth(level, f=s.loss, region=small)).status is pc.Status.HOLDS
    assert pc.certify(pc.Smooth(level, f=s.loss, region=s.region)).status is pc.Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda s: pc.Smooth(9.0, f=s.loss), "give region=space.region"),
        (lambda s: pc.ProxyPL(s.loss, s.loss, 0, 2, 0.1, region=s.region), "no bound of a weight space implies ProxyPL"),
        (lambda s: pc.ProxyConvexity(s.loss, lambda w: 2 * s.loss(w), 9.0, s.region.center, region=s.region), "no bound of a weight space implies"),
        (lambda s: pc.ProxyConvexity(s.loss, s.loss, 9.0, tuple(2 * w for w in s.region.center), region=s.region), "make the comparator the centre"),
        (lambda s: pc.Smooth(9.0, f=s.loss, grad=lambda w: w, region=s.region), "a gradient or a moment of its own"),
    ],
)  # fmt: skip
def test_other_conditions_are_left_open_with_the_reason(make, reason):
    verdict = pc.certify(make(space("dense", SOFTPLUS)))
    assert verdict.status is pc.Status.INCONCLUSIVE and reason in verdict.sentence


def test_margins_of_rows_are_compared_one_by_one():
    s = space("two-layer", RELU)
    premise = pc.certify_on_ball(s.network, s.region, s.inputs, s.targets).premises[1]
    more = premise.margins.copy()
    more[3] += 0.01
    other = pc.TangentMargins(more, premise.comparator, premise.model, premise.targets, region=premise.region)
    assert "at least one of its margins" in pc.certify(other).sentence
