"""Acceptance: every theorem accepts its premises, and refuses each near miss with the reason, the value and the need."""

import dataclasses
import math
from fractions import Fraction as F

import numpy as np
import pytest

from proxyconvex.core.calculus import bridge
from proxyconvex.core.conditions import BoundedBelow, GradientGrowth, Noise, ProxyConvexity, ProxyPL, Smooth
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence
from proxyconvex.core.explain import Alternative, explain, guarantee
from proxyconvex.core.guarantee import Guarantee
from proxyconvex.core.methods import (
    SGD,
    BallProjection,
    ConstantStep,
    GradientDescent,
    NormalisedStep,
    PolynomialStep,
)
from proxyconvex.core.numbers import Interval
from proxyconvex.core.premises import Constant
from proxyconvex.core.regions import Ball
from proxyconvex.core.setting import (
    BoundedProxy,
    Confidence,
    ErrorLink,
    IIDRows,
    IterateRange,
    OutputGradient,
    Start,
    TangentMargins,
)  # fmt: skip
from proxyconvex.core.theorems import (
    T1,
    T1_LAST,
    T1_SHARP,
    T2,
    T3,
    T3_SAMPLES,
    T3_STEPS,
    T3_VIRTUAL,
    T3T5,
    T4,
    T4T5,
    T6,
    T6_AZUMA,
    T8,
    THEOREMS,
    Accepted,
    Rejected,
)  # fmt: skip

V, W0 = np.zeros(2), np.array([1.0, 0.0])


def f(w):
    return w @ w / 2


GD = GradientDescent(ConstantStep(0.5), 100)
SAMPLING = SGD(ConstantStep(0.1), 100)
CYCLIC = SGD(ConstantStep(0.1), 100, sampling="cyclic")
ONE_PASS = SGD(ConstantStep(0.1), 100, sampling="one-pass")
NORMALISED = GradientDescent(NormalisedStep(0.5, 0.01), 5000)


def pl(**k):
    return ProxyPL(**{"f": f, "g": f, "xi": 0.0, "alpha": 2, "mu": 4.0, **k})


def pc(**k):
    return ProxyConvexity(**{"f": f, "g": f, "h": 0.0, "comparator": V, **k})


def growth(**k):
    return GradientGrowth(**{"A": 2.0, "C": 0.0, "g": f, "f": f, **k})


SMOOTH, BELOW, START = Smooth(1.0, f), BoundedBelow(0.0, f), Start(value=0.5, point=W0, comparator=V)
MARGINS, OUT = TangentMargins(np.full(10, 9.0), V), OutputGradient(1.0)
SAMPLE = {"samplewise": True, "h_max": 0.0}
FULL = {
    "T1": ([pl(), SMOOTH, BELOW, START], GD),
    "T1-sharp": ([pl(), SMOOTH, BELOW, START], GD),
    "T1-last": ([pl(), SMOOTH, BELOW, START], GD),
    "T2": ([pl(), SMOOTH, BELOW, START, Noise(1.0, 0.5)], SAMPLING),
    "T3": ([pc(), growth(), START], GD),
    "T3-virtual": ([pc(), growth(), START], GD),
    "T3-steps": ([pc(), growth(), START], GradientDescent(PolynomialStep(0.5), 100)),
    "T3-samples": ([pc(**SAMPLE), growth(scope="sample-wise"), START], CYCLIC),
    "T4": ([pc(), SMOOTH, BELOW, START], GD),
    "T3T5": ([pc(region=Ball(V, 1.0)), growth(region=Ball(V, 1.0)), START], GD),
    "T4T5": ([pc(region=Ball(V, 2.0)), SMOOTH, BELOW, START], GD),
    "T6": (
        [pc(**SAMPLE), growth(scope="sample-wise"), START, IIDRows(), BoundedProxy(1.0), Confidence(0.05)],
        ONE_PASS,
    ),
    "T6-azuma": (
        [pc(), growth(A=0, C=4.0, scope="sample-wise"), START, IterateRange(3.0), Confidence(0.05)],
        SAMPLING,
    ),
    "T8": ([MARGINS, OUT, Start(distance=1.0, point=W0)], NORMALISED),
}
BY_ID = {t.id: t for t in THEOREMS}


def answer(theorem, premises, method):
    return (
        BY_ID[theorem].accepts(premises, method)
        if isinstance(theorem, str)
        else theorem.accepts(premises, method)
    )


def swap(theorem, *new, method=None, drop=()):
    premises, old = FULL[theorem]
    kinds = tuple(type(p) for p in new) + tuple(drop)
    return [*(p for p in premises if not isinstance(p, kinds)), *new], method or old


@pytest.mark.parametrize("theorem", FULL, ids=str)
def test_full_premises_are_accepted_and_give_a_finite_promise(theorem):
    premises, method = FULL[theorem]
    assert isinstance(answer(theorem, premises, method), Accepted)
    made = BY_ID[theorem].promise(premises, method)
    assert isinstance(made, Guarantee) and math.isfinite(made.bound) and made.sentence.endswith(".")
    assert made.evidence is Evidence.ASSUMED and made.references == BY_ID[theorem].references


@pytest.mark.parametrize("theorem", FULL, ids=str)
def test_each_missing_premise_is_named(theorem):
    premises, method = FULL[theorem]
    for i, missing in enumerate(premises):
        got = answer(theorem, premises[:i] + premises[i + 1 :], method)
        assert isinstance(got, Rejected), missing
        assert "needs" in got.reason and got.needed, got


@pytest.mark.parametrize("theorem", FULL, ids=str)
def test_statistical_estimates_are_refused_everywhere(theorem):
    premises, method = FULL[theorem]
    for i, premise in enumerate(premises):
        for name in premise.constants:
            value = getattr(premise, name)
            if not isinstance(value, Constant) or (theorem, name) in UNUSED or name == "alpha":
                continue
            weak = dataclasses.replace(premise, **{name: Constant(value.value, "estimate")})
            got = answer(theorem, [*premises[:i], weak, *premises[i + 1 :]], method)
            assert isinstance(got, Rejected), (premise.name, name)
            assert "statistical estimate" in str(got)


UNUSED = {
    ("T3-samples", "h"), ("T6", "h"), *((t, "value") for t in ("T3", "T3-virtual", "T3-steps", "T3-samples", "T3T5", "T6", "T6-azuma", "T8")),
    *((t, "distance") for t in ("T1", "T1-sharp", "T1-last", "T2")), ("T6-azuma", "u"),
}  # fmt: skip

WRONG_SIDE = {
    "mu from above": (
        "T1",
        pl(mu=Constant(4.0, "upper")),
        "needs a lower bound on mu of proxy-pl, and 4 is an upper bound",
    ),
    "xi from below": ("T1", pl(xi=Constant(0.0, "lower")), "needs an upper bound on xi"),
    "L from below": (
        "T4",
        Smooth(Constant(1.0, "lower"), f),
        "needs an upper bound on L of smoothness, and 1 is a lower bound",
    ),
    "f_star from above": ("T4", BoundedBelow(Constant(0.0, "upper")), "needs a lower bound on f_star"),
    "h from below": ("T3", pc(h=Constant(0.0, "lower")), "needs an upper bound on h(v)"),
    "A from below": ("T3", growth(A=Constant(2.0, "lower")), "needs an upper bound on A of growth"),
    "R from below": (
        "T3",
        Start(value=0.5, distance=Constant(1.0, "lower")),
        "needs an upper bound on distance",
    ),
    "sigma2 from below": ("T2", Noise(1.0, Constant(0.5, "lower")), "needs an upper bound on sigma2"),
    "G from below": ("T8", OutputGradient(Constant(1.0, "lower")), "needs an upper bound on G"),
}


@pytest.mark.parametrize("case", WRONG_SIDE, ids=str)
def test_constants_on_the_wrong_side_are_refused(case):
    theorem, premise, text = WRONG_SIDE[case]
    got = answer(theorem, *swap(theorem, premise))
    assert isinstance(got, Rejected) and text in str(got)


def test_constants_on_the_safe_side_are_used():
    premises, method = swap("T1", pl(mu=Constant(3.0, "lower"), xi=Constant(0.1, "upper")))
    got = answer("T1", premises, method)
    assert got.constants["mu"] == 3 and got.constants["xi"] == F(0.1)


def test_the_safe_end_of_an_interval_constant_is_used():
    got = answer(
        "T1", *swap("T1", pl(mu=Interval(3, 5), xi=Interval(0, F(1, 10))), Smooth(Interval(F(1, 2), 1), f))
    )
    assert (got.constants["mu"], got.constants["xi"], got.constants["L"]) == (3, F(1, 10), 1)


ON_TRACE = Evidence.ON_TRACE
NEAR = {
    "T1 step at 2/L": ("T1", [], GradientDescent(ConstantStep(2.0), 9), "step size below 2/L = 2, and eta = 2"),
    "T1-sharp step beyond sqrt 3": ("T1-sharp", [], GradientDescent(ConstantStep(1.74), 9), "below sqrt(3)/L = 1.73205"),
    "T1-sharp smooth on a ball": ("T1-sharp", [Smooth(1.0, f, region=Ball(V, 99.0))], None, "smoothness on all of R^p"),
    "T1-sharp smooth on trace": ("T1-sharp", [Smooth(1.0, f, evidence=ON_TRACE)], None, "ON_TRACE only means"),
    "T1-sharp below on trace": ("T1-sharp", [BoundedBelow(0.0, evidence=ON_TRACE)], None, "not only on the trace"),
    "T1 PPL on a small ball": ("T1", [pl(region=Ball(W0, 5.7))], None, "on the ball of radius 5.7735 around w_0"),
    "T1 below f_star": ("T1", [BoundedBelow(0.6)], None, "f(w_0) = 0.5 is below f_star = 0.6"),
    "T1 with SGD": ("T1", [], SAMPLING, "speaks of full-batch gradient descent"),
    "T1 with projection": ("T1", [], GradientDescent(ConstantStep(0.5), 9, BallProjection(1.0)), "unprojected steps"),
    "T1 with a schedule": ("T1", [], GradientDescent(PolynomialStep(0.5), 9), "constant step size"),
    "T1 two objectives": ("T1", [Smooth(1.0, lambda w: w @ w)], None, "same objective f"),
    "T1-last for another g": ("T1-last", [pl(g=lambda w: w @ w)], None, "needs g = f"),
    "T1-last alpha 1": ("T1-last", [pl(alpha=1)], None, "needs alpha = 2"),
    "T1-last xi above f_star": ("T1-last", [pl(xi=0.01)], None, "needs xi <= f_star"),
    "T2 alpha 3": ("T2", [pl(alpha=3)], None, "needs alpha <= 2, and alpha = 3"),
    "T2 cyclic": ("T2", [], CYCLIC, "drawn afresh given the past; cyclic"),
    "T2 one pass without iid": ("T2", [], ONE_PASS, "IIDRows"),
    "T2 step": ("T2", [Noise(20.0, 0.5)], None, "below 2/(L rho) = 0.1, and eta = 0.1"),
    "T2 on trace": ("T2", [Noise(1.0, 0.5, evidence=ON_TRACE)], None, "bound of the mean over runs"),
    "T3 step at 2/A": ("T3", [], GradientDescent(ConstantStep(1.0), 9), "step size below 2/A = 1, and eta = 1"),
    "T3 on a ball only": ("T3", [pc(region=Ball(V, 9.0))], None, "claimed only on the ball of radius 9"),
    "T3 another g": ("T3", [growth(g=lambda w: f(w))], None, "same proxy g"),
    "T3 R too small": ("T3", [Start(point=W0, distance=0.99)], None, "R >= ||w_0 - v|| = 1, and the start gives R = 0.99"),
    "T3 another comparator": ("T3", [Start(point=W0, comparator=W0 / 2)], None, "names another one"),
    "T3 pointwise h": ("T3", [pc(h=lambda v, w: 0.0)], None, "needs h uniform on the region"),
    "T3 cyclic": ("T3", [growth(scope="expectation")], CYCLIC, "only T3-samples holds"),
    "T3 SGD with full-batch growth": ("T3", [], SAMPLING, "growth of the stochastic gradient"),
    "T3 projection off v": ("T3", [pc(comparator=W0 * 3)], GradientDescent(ConstantStep(0.5), 9, BallProjection(2.0)), "contains v"),
    "T3-steps first step": ("T3-steps", [], GradientDescent(PolynomialStep(1.01), 9), "every step at most 2/A = 1, and the first is 1.01"),
    "T3-samples in the mean": ("T3-samples", [pc()], None, "for every single sample"),
    "T3-samples batch 2": ("T3-samples", [], SGD(ConstantStep(0.1), 9, 2, "cyclic"), "batch size is 2"),
    "T3T5 ball 1% too small": ("T3T5", [growth(region=Ball(V, 0.99))], None, "on the ball of radius 1 around v, and the ball of radius 0.99"),
    "T3T5 with SGD": ("T3T5", [growth(scope="sample-wise")], SAMPLING, "full-batch"),
    "T4 step at 2/L": ("T4", [], GradientDescent(ConstantStep(2.0), 9), "below 2/L"),
    "T4 smooth on a ball": ("T4", [Smooth(1.0, f, region=Ball(V, 9.0))], None, "on all of R^p"),
    "T4T5 ball 1% too small": ("T4T5", [pc(region=Ball(V, 1.143))], None, "on the ball of radius 1.1547 around v"),
    "T6 cyclic": ("T6", [], CYCLIC, "each row at most once, and the sampling is cyclic"),
    "T6-azuma A > 0": ("T6-azuma", [growth(A=0.1, C=4.0, scope="sample-wise")], None, "needs A = 0"),
    "T6-azuma D on trace": ("T6-azuma", [IterateRange(3.0, evidence=ON_TRACE)], None, "D known before the run"),
    "T8 plain step": ("T8", [], GD, "normalised full-batch steps"),
    "T8 too few steps": ("T8", [], GradientDescent(NormalisedStep(0.001, 0.01), 1), "T c (2 S_k - c G^2) > R^2 = 1"),
    "T8 floor too high": ("T8", [], GradientDescent(NormalisedStep(0.5, 0.51), 5000), "floor <= k/(2n)"),
    "T8 margins on a small ball": ("T8", [TangentMargins(np.full(10, 9.0), V, region=Ball(V, 0.99))], None, "radius 1 around v"),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR, ids=str)
def test_near_misses_are_refused_with_the_reason(case):
    theorem, new, method, text = NEAR[case]
    got = answer(theorem, *swap(theorem, *new, method=method))
    assert isinstance(got, Rejected), got
    assert text in str(got), str(got)


def test_rejection_carries_value_and_need():
    got = T1.accepts(FULL["T1"][0], GradientDescent(ConstantStep(2.5), 9))
    assert (got.value, got.needed) == (2.5, "eta < 2")


def test_local_regions_just_large_enough_are_accepted():
    # T1 reach: sqrt(0.5 * 100 * 0.5 / 0.75) = 5.7735...; T4T5: sqrt(1 + 0.25/0.75) = 1.1547...
    assert isinstance(answer("T1", *swap("T1", pl(region=Ball(W0, 5.7736)))), Accepted)
    assert isinstance(answer("T4T5", *swap("T4T5", pc(region=Ball(V, 1.15471)))), Accepted)
    assert isinstance(answer("T3T5", *swap("T3T5", pc(region=Ball(V, 1.0)))), Accepted)


def test_projection_onto_a_ball_inside_the_region_makes_a_local_condition_global():
    local, method = Ball(V, 2.0), GradientDescent(ConstantStep(0.5), 100, BallProjection(2.0))
    premises = [pc(region=local), growth(region=local), START]
    assert isinstance(T3.accepts(premises, method), Accepted)
    assert isinstance(
        T3.accepts(premises, GradientDescent(ConstantStep(0.5), 100, BallProjection(2.01))), Rejected
    )
    azuma = [
        pc(comparator=W0),
        growth(A=0, C=4.0, scope="sample-wise"),
        Start(distance=1.0),
        Confidence(0.05),
    ]
    got = T6_AZUMA.accepts(azuma, SGD(ConstantStep(0.1), 100, projection=BallProjection(2.0)))
    assert got.constants["D"] == 3 and got.mode == "probability"


def test_on_trace_evidence_speaks_of_this_run_only():
    premises, method = swap(
        "T4", Smooth(1.0, f, evidence=ON_TRACE), pc(region=Ball(V, 0.1), evidence=ON_TRACE)
    )
    made = T4.promise(premises, method)
    assert "recorded run only" in made.sentence and made.evidence is Evidence.ASSUMED
    assert isinstance(T1.promise(*swap("T1", Smooth(1.0, f, evidence=ON_TRACE))), Guarantee)


def test_evidence_is_the_weakest_including_constants():
    proved = [dataclasses.replace(p, evidence=Evidence.PROVED) for p in FULL["T4"][0]]
    assert T4.promise(proved, GD).evidence is Evidence.PROVED
    proved[1] = Smooth(Constant(1.0, "upper", Evidence.SAMPLED), f, evidence=Evidence.PROVED)
    assert T4.promise(proved, GD).evidence is Evidence.SAMPLED


def test_modes_and_probability():
    assert T2.promise(*FULL["T2"]).mode == "expectation"
    assert "mean value of" in T2.promise(*swap("T2", pl(g=lambda w: f(w)))).sentence
    assert T3_SAMPLES.promise(*FULL["T3-samples"]).mode == "every-run"
    six = T6.promise(*FULL["T6"])
    assert (
        six.mode == "probability" and six.probability <= 0.95 and "probability at least 0.95" in six.sentence
    )


def test_t6_uses_the_population_mean_only_if_v_was_fixed_in_advance():
    long = SGD(ConstantStep(0.1), 10**6, sampling="one-pass")
    premises, _ = swap("T6", pc(h=0.001, samplewise=True, h_max=1.0))
    after, before = T6.promise(premises, long), None
    premises = [p for p in premises if not isinstance(p, Confidence)] + [
        Confidence(0.05, comparator_fixed=True)
    ]
    before = T6.promise(premises, long)
    assert before.bound < 0.01 < 1.0 < after.bound


def test_error_link_turns_the_proxy_into_an_error():
    linked = [*FULL["T4"][0], ErrorLink(Constant(1.4427, "upper"))]
    made = T4.promise(linked, GD)
    assert made.error_bound == pytest.approx(1.4427 * made.bound) and made.premises[-1].name == "error-link"
    other = [*FULL["T4"][0], ErrorLink(2.0, g=lambda w: 0.0)]
    assert T4.promise(other, GD).error_bound is None


def test_bound_is_rounded_upwards_from_exact_arithmetic():
    thirds = swap("T4", Start(value=0.1, point=np.array([0.1, 0.7]), comparator=V), Smooth(0.3, f))
    made, c = T4.promise(*thirds), T4.accepts(*thirds).constants
    exact = T4.bound(100, **c)
    assert F(made.bound) >= exact > F(math.nextafter(made.bound, 0))


def test_guarantee_picks_the_smallest_bound_and_explain_lists_all():
    premises = [pc(), growth(), SMOOTH, BELOW, START, pl()]
    rows = explain(premises, GD)
    assert len(rows) == len(THEOREMS) and {r.theorem for r in rows} == set(BY_ID)
    assert all(isinstance(r, Alternative) for r in rows)
    accepted = [r for r in rows if r.accepted]
    assert [r.accepted for r in rows] == sorted((r.accepted for r in rows), reverse=True)
    assert [r.bound for r in accepted] == sorted(r.bound for r in accepted)
    best = guarantee(premises, GD)
    assert best.theorem == accepted[0].theorem == "T1-last" and best.bound == accepted[0].bound
    assert all(r.reason and (r.accepted or r.bound is None) for r in rows)


def test_explain_orders_by_error_bound_first():
    rows = explain([*FULL["T8"][0]], NORMALISED)
    assert rows[0].theorem == "T8" and rows[0].error_bound == 0.0


def test_no_guarantee_says_which_theorem_came_closest():
    with pytest.raises(InvalidInputError, match=r"Closest: T\d.*needs.*Call explain"):
        guarantee([pc(), START], GD)


def test_premises_of_one_kind_may_not_be_given_twice():
    got = T4.accepts([*FULL["T4"][0], Smooth(2.0)], GD)
    assert isinstance(got, Rejected) and "2 premises of the kind Smooth" in got.reason
    with pytest.raises(InvalidInputError, match="Premise objects"):
        T4.accepts([1.0], GD)


def test_bridge_feeds_t1():
    local = bridge(pc(region=Ball(V, 9.0)))
    made = T1.promise([local, SMOOTH, BELOW, START], GD)
    assert isinstance(made, Guarantee)
    assert made.bound == pytest.approx(9 * math.sqrt(0.5 / (0.5 * 0.75 * 100)))


def test_sharp_beats_plain_and_virtual_beats_average():
    assert T1_SHARP.promise(*FULL["T1"]).bound < T1.promise(*FULL["T1"]).bound
    assert T3_VIRTUAL.promise(*FULL["T3"]).bound <= T3.promise(*FULL["T3"]).bound
    assert T3T5.promise(*FULL["T3T5"]).bound <= T3.promise(*FULL["T3"]).bound
    assert (
        T4T5.promise(*FULL["T4T5"]).quantity
        == "final-loss"
        == T4.promise(*FULL["T4"]).quantity
        == T1_LAST.promise(*FULL["T1"]).quantity
    )
    assert (
        T3_STEPS.promise([pc(), growth(), START], GD).bound == T3.promise([pc(), growth(), START], GD).bound
    )


def test_t8_promise_is_about_the_best_iterate():
    made = T8.promise(*FULL["T8"])
    assert made.quantity == "best-iterate-error" and made.error_bound == made.bound == 0.0
    assert {p.name for p in made.premises} == {"tangent-margins", "gradient-norm", "start"}


def test_evidence_prints_its_name_and_orders_by_strength():
    from proxyconvex.core.evidence import Evidence

    assert f"{Evidence.CERTIFIED}" == str(Evidence.CERTIFIED) == "CERTIFIED"
    assert min(Evidence.PROVED, Evidence.ON_TRACE) is Evidence.ON_TRACE
    assert all(e.sentence for e in Evidence)
