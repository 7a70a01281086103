"""Constants bracketed by searches: the refuted end is certain, the other is labelled as a search."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.checks.estimate_constants import critical_value
from proxyconvex.core.evidence import Evidence, Status

D = np.array([1.0, 3.0, 10.0])


def _f(w):
    return jnp.sum(D * w * w) / 2


def _disc(w):
    return jnp.sum(w * w) / 2


CASES = {
    "L": (pc.Smooth(1.0, f=_f), "L", 10.0),
    "mu": (pc.ProxyPL(_f, _f, 0, 2, 100.0), "mu", 4.0),
    "A": (pc.GradientGrowth(1.0, 0, g=_f, f=_f), "A", 20.0),
    "B": (pc.GradientGrowth(0, 5.0, g=lambda w: 0.0 * w.sum(), f=lambda w: jnp.sqrt(1 + w @ w)), "B", 1.0),
    "f_star": (pc.BoundedBelow(-10.0, f=lambda w: _f(w) - 3.0), "f_star", -3.0),
    # |w|^alpha >= w^2 on |w| <= 1/2 exactly for alpha <= 2.
    "alpha": (pc.ProxyPL(_disc, _disc, 0, 1.0, 4.0, region=pc.Ball(np.zeros(1), 0.5)), "alpha", 2.0),
}


@pytest.mark.parametrize("name", CASES)
def test_brackets_the_closed_form(name):
    condition, constant, truth = CASES[name]
    like = None if name == "alpha" else np.zeros(3)
    bracket = pc.tightest(condition, constant, like=like, tolerance=0.02, budget=6000)
    stronger = bracket.stronger
    assert stronger * (bracket.refuted - truth) > 0  # the refuted end is beyond the truth
    assert abs(bracket.refuted - truth) <= 1e-3 * abs(truth)
    assert stronger * (bracket.kept - truth) <= 1e-9
    assert abs(bracket.kept - truth) <= 0.05 * abs(truth)
    assert bracket.counterexample.status is Status.FALSIFIED
    assert bracket.search.status is Status.NOT_FALSIFIED
    assert bracket.evidence is Evidence.SAMPLED
    assert "SAMPLED: that proves nothing" in str(bracket)


def test_xi_and_a_level_h():
    bracket = pc.tightest(
        pc.ProxyPL(_f, _f, 5.0, 2, 4.0), "xi", like=np.zeros(3), tolerance=0.02, budget=4000
    )
    assert -1e-6 < bracket.refuted < 0 <= bracket.kept < 0.2
    # f = |w|^2/2 against v = 0 with g = 2 f + 1: the best h is 1.
    condition = pc.ProxyConvexity(_disc, lambda w: 2 * _disc(w) + 1, 7.0, comparator=np.zeros(2))
    bracket = pc.tightest(condition, "h", tolerance=0.02, budget=4000)
    assert 0.999 < bracket.refuted < 1 <= bracket.kept < 1.05


def test_a_refuted_number_is_not_rounded_into_a_false_claim():
    bracket = pc.tightest(CASES["L"][0], "L", like=np.zeros(3), tolerance=0.1, budget=2000)
    printed = float(str(bracket).split("> ")[1].split(" ")[0])
    assert printed <= bracket.refuted < 10


def test_reduced_conditions_are_handed_to_the_certified_bracket():
    condition = pc.reduced(
        lambda a, b, s, c: (s(a) - s(b)) * (a - b) - c * (s(a) - s(b)) ** 2,
        activation="tanh",
        a=(-1, 1),
        b=(-1, 1),
        c=0.5,
    )
    bracket = pc.tightest(condition, "c", tolerance=1e-3)
    assert float(bracket.certified) <= 1 <= float(bracket.refuted)


def test_the_root_of_the_slack_is_where_the_counterexample_stops():
    w = np.array([1.0, 0.0, 0.0])
    assert critical_value(CASES["mu"][0], "mu", (w,), 0, 1) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pc.tightest(CASES["L"][0], "mu", like=np.zeros(3)), "accepted: L"),
        (lambda: pc.tightest("f", "L"), "a condition of proxyconvex"),
        (lambda: pc.tightest(CASES["L"][0], "L", like=np.zeros(3), tolerance=0), "a number in"),
        (lambda: pc.tightest(pc.convex(_f, comparator=np.zeros(3)), "h"), "h is a function"),
    ],
    ids=["name", "type", "tolerance", "function"],
)
def test_refusals(call, message):
    with pytest.raises(pc.InvalidInputError, match=message):
        call()
