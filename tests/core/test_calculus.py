"""The calculus: each rule's slack against the slack of its parts, exactly where the parts are exact."""

from fractions import Fraction as F

import numpy as np
import pytest

from proxyconvex.core import classical as cl
from proxyconvex.core.calculus import bridge, combine, regularise, reparametrise, scale, weaken
from proxyconvex.core.conditions import ProxyConvexity, ProxyPL
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence
from proxyconvex.core.numbers import Interval
from proxyconvex.core.premises import Constant
from proxyconvex.core.regions import Ball, Intersection

V = [F(1), F(-2)]
POINTS = [[F(a, 3), F(b, 5)] for a in (-7, 0, 4) for b in (-9, 1, 6)]


def f1(w):
    return (w[0] * w[0] + 3 * (w[1] * w[1])) / 2


def f2(w):
    return (w[0] - w[1]) * (w[0] - w[1])


PC1 = ProxyConvexity(
    f1,
    f1,
    F(13, 2),
    comparator=V,
    grad=lambda w: [w[0], 3 * w[1]],
    region=Ball(V, 9),
    evidence=Evidence.PROVED,
)
PC2 = ProxyConvexity(
    f2,
    f2,
    lambda v: f2(v),
    comparator=V,
    grad=lambda w: [2 * (w[0] - w[1]), 2 * (w[1] - w[0])],
    region=Ball([F(0), F(0)], 8),
)


def test_combination_adds_the_slacks():
    both = combine([PC1, PC2], [F(2), F(1, 3)])
    for w in POINTS:
        assert both.slack(w) == 2 * PC1.slack(w) + PC2.slack(w) / 3
    assert both.level.value == 13 + F(9, 3)
    assert isinstance(both.region, Intersection) and both.evidence is Evidence.ASSUMED


def test_combination_in_jax_and_without_weights():
    a = cl.convex(f1, comparator=[1.0, -2.0])
    b = cl.convex(f2, comparator=[1.0, -2.0])
    w = np.array([0.3, 0.4])
    assert combine([a, b]).slack(w) == pytest.approx(a.slack(w) + b.slack(w), rel=1e-13)


def test_pointwise_h_survives_combination():
    point = ProxyConvexity(f1, f1, lambda v, w: v[0] * v[0] + w[0] * w[0], comparator=V, grad=PC1.grad)
    both = combine([point, PC1])
    assert both.pointwise and both.slack(POINTS[0]) == point.slack(POINTS[0]) + PC1.slack(POINTS[0])


def test_scaling_pc_and_ppl():
    assert scale(PC1, F(5, 2)).slack(POINTS[1]) == F(5, 2) * PC1.slack(POINTS[1])
    ppl = cl.pl(f1, 1, 0, grad=PC1.grad)
    scaled = scale(ppl, 3)
    assert scaled.mu.value == 9 * 4
    assert scaled.slack(POINTS[0]) == 9 * ppl.slack(POINTS[0])


def test_reparametrisation_pulls_condition_and_region_back():
    m, b = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]), np.array([0.5, -0.25])
    u_star = [F(0), F(1, 4), F(2)]  # M u* + b = (1, -2) exactly
    pulled = reparametrise(PC1, m, b, u_star)
    for u in ([F(1), F(2), F(3)], [F(-1, 3), F(1, 2), F(0)]):
        image = [u[0] + 2 * u[1] + F(1, 2), u[1] - u[2] - F(1, 4)]
        assert pulled.slack(u) == PC1.slack(image)
        assert pulled.region.contains(u) == PC1.region.contains(image)
    assert pulled.evidence is Evidence.PROVED
    assert pulled.slack([1.0, 2.0, 3.0]) == pytest.approx(float(pulled.slack([F(1), F(2), F(3)])))


def test_reparametrisation_needs_the_image_of_the_comparator():
    with pytest.raises(InvalidInputError, match="M u' \\+ b = v"):
        reparametrise(PC1, np.eye(2), np.zeros(2), [1.0, -2.02])
    thirds = ProxyConvexity(f1, f1, 1.0, comparator=[0.7, 0.1], evidence=Evidence.PROVED)
    nearly = reparametrise(thirds, np.array([[3.0, 0], [0, 1]]), np.zeros(2), [0.7 / 3, 0.1])
    assert nearly.evidence is Evidence.SAMPLED


def test_regulariser_adds_its_strong_convexity():
    def ridge(w):
        return (w[0] * w[0] + w[1] * w[1]) * F(1, 2)

    made = regularise(PC1, ridge, 1, grad=lambda w: list(w), evidence=Evidence.PROVED)
    # a quadratic is strongly convex with equality, so it adds no slack at all
    assert all(made.slack(w) == PC1.slack(w) for w in POINTS)
    too_much = regularise(PC1, ridge, F(101, 100), grad=lambda w: list(w))
    assert any(too_much.slack(w) < PC1.slack(w) for w in POINTS)


def test_weakening_only_goes_one_way():
    raised = weaken(PC1, h=7)
    assert raised.slack(POINTS[0]) == PC1.slack(POINTS[0]) + F(1, 2) and raised.evidence is Evidence.PROVED
    with pytest.raises(InvalidInputError, match="Weakening can only raise h"):
        weaken(PC1, h=6)
    lowered = weaken(PC1, g=lambda w: f1(w) - 1)
    assert lowered.evidence is Evidence.ASSUMED and lowered.slack(POINTS[0]) == PC1.slack(POINTS[0]) + 1


def test_bridge_gives_ppl_on_the_ball():
    ppl = bridge(PC1)
    assert (
        isinstance(ppl, ProxyPL)
        and ppl.mu.value == F(2, 9)
        and ppl.xi.value == F(13, 2)
        and ppl.alpha.value == 1
    )
    inside = [w for w in POINTS if PC1.region.contains(w)]
    assert len(inside) > 3
    for w in inside:  # rho * slack(PPL) >= slack(PC) >= 0 inside the ball
        r = ppl.slack(w)
        assert 9 * (r.hi if isinstance(r, Interval) else r) >= PC1.slack(w)
    with pytest.raises(InvalidInputError, match="radius"):
        bridge(PC2)


def test_bridge_rounds_mu_downwards():
    ppl = bridge(cl.convex(f1, comparator=[0.0, 0.0]), 0.3)
    assert F(ppl.mu.value) <= 2 / F(0.3) and ppl.mu.side == "lower"


BAD = {
    "nothing": lambda: combine([]),
    "negative weight": lambda: combine([PC1], [-1]),
    "wrong number of weights": lambda: combine([PC1], [1, 2]),
    "estimated weight": lambda: combine([PC1], [Constant(1.0, "estimate")]),
    "two comparators": lambda: combine([PC1, cl.convex(f2, comparator=[0.0, 0.0])]),
    "no functions": lambda: combine([ProxyConvexity(None, None, 0, comparator=V)]),
    "zero factor": lambda: scale(PC1, 0),
    "pointwise bridge": lambda: bridge(ProxyConvexity(f1, f1, lambda v, w: 0, comparator=V), 1.0),
    "map of wrong shape": lambda: reparametrise(PC1, np.eye(2), np.zeros(3), V),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_is_refused_with_what_is_accepted(case):
    with pytest.raises(InvalidInputError, match="is not accepted; accepted:"):
        BAD[case]()
