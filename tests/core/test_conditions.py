"""Conditions: slacks against closed forms in every arithmetic, near misses, sides of constants, refusals."""

import math
from fractions import Fraction as F

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proxyconvex.core import classical as cl
from proxyconvex.core.conditions import BoundedBelow, GradientGrowth, Noise, ProxyConvexity, ProxyPL, Smooth
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence
from proxyconvex.core.numbers import Interval
from proxyconvex.core.premises import Constant
from proxyconvex.core.setting import OutputGradient, Start, TangentMargins

D = np.array([1.0, 4.0])  # f(w) = sum D w^2 / 2: m = 1, L = 4


def quad(w):
    return (w[0] * w[0] + 4 * (w[1] * w[1])) / 2


def quad_grad(w):
    return [w[0], 4 * w[1]]


def random_points(n, d=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)) * 2


def test_pc_slack_is_the_closed_form():
    v = np.array([0.5, -1.0])
    pc = ProxyConvexity(quad, lambda w: w @ w / 8, 3.0, comparator=v)
    for w in random_points(20):
        assert pc.slack(w) == pytest.approx((D * w) @ (w - v) - w @ w / 8 + 3.0, rel=1e-13)
        assert isinstance(pc.slack(w), float)


def test_one_slack_runs_in_every_arithmetic():
    pc = cl.strongly_convex(quad, 1, comparator=[F(1, 3), F(-1, 7)], grad=quad_grad)
    w = [F(2, 3), F(5, 7)]
    exact = pc.slack(w)
    # (f + |w-v|^2/2) against v: slack = sum (D-1)(w-v)^2 / 2 for this quadratic
    assert exact == F(3) * F(6, 7) ** 2 / 2 and isinstance(exact, F)
    as_float = cl.strongly_convex(quad, 1, comparator=[1 / 3, -1 / 7]).slack([2 / 3, 5 / 7])
    assert as_float == pytest.approx(float(exact), rel=1e-14)
    box = pc.slack([Interval(F(2, 3), F(3, 4)), F(5, 7)])
    assert exact in box and box.hi - box.lo < 1
    traced = jax.jit(
        lambda u: ProxyConvexity(quad, lambda x: x @ x / 2, 0.0, comparator=np.zeros(2)).slack(u)
    )(jnp.ones(2))
    assert float(traced) == pytest.approx(5.0 - 1.0)


def test_fractions_are_not_silently_rounded_by_float_constants():
    pc = ProxyConvexity(
        lambda w: 0.1 * w * w, lambda w: 0.1 * w * w, 0, comparator=F(0), grad=lambda w: 0.2 * w
    )
    # In exact arithmetic 0.2 and 0.1 are the stored binary fractions, and 2 * 0.1 == 0.2 exactly.
    assert pc.slack(F(1, 3)) == (F(0.2) - F(0.1)) / 9


def test_user_gradient_is_used_and_required_for_exact_points():
    with pytest.raises(InvalidInputError, match="JAX cannot differentiate on Fractions"):
        cl.convex(quad, comparator=[F(0), F(0)]).slack([F(1), F(1)])


def test_pointwise_h_and_h_of_v():
    by_v = ProxyConvexity(quad, quad, lambda v: v @ v, comparator=np.array([1.0, 2.0]))
    assert by_v.level.value == 5.0 and not by_v.level_is_pointwise
    assert by_v.weakest() is Evidence.ASSUMED
    pointwise = ProxyConvexity(quad, quad, lambda v, w: v @ v + w @ w, comparator=np.zeros(2))
    assert pointwise.level_is_pointwise and pointwise.level is None
    w = np.array([1.0, 1.0])
    assert pointwise.slack(w) == pytest.approx(5.0 - 2.5 + 2.0)


def test_floating_evaluation_of_h_is_never_certified():
    pc = ProxyConvexity(quad, quad, lambda v: v @ v, comparator=np.ones(2), evidence=Evidence.PROVED)
    assert pc.record().evidence is Evidence.SAMPLED
    fixed = ProxyConvexity(quad, quad, 2.0, comparator=np.ones(2), evidence=Evidence.PROVED)
    assert fixed.record().evidence is Evidence.PROVED


@pytest.mark.parametrize("alpha", [1, 2, 0.5, F(3, 2)], ids=str)
def test_ppl_slack_is_the_closed_form(alpha):
    ppl = ProxyPL(quad, quad, 0.25, alpha, 0.5)
    for w in random_points(10, seed=1):
        grad = np.linalg.norm(D * w)
        assert ppl.slack(w) == pytest.approx(grad ** float(alpha) - 0.25 * (D @ w**2 / 2 - 0.25), rel=1e-12)


def test_ppl_with_a_root_gives_an_enclosing_interval():
    ppl = ProxyPL(quad, quad, 0, 1, 1, grad=quad_grad)
    r = ppl.slack([F(1), F(1)])
    assert (
        isinstance(r, Interval)
        and (r.lo + F(5, 4)) ** 2 < 17 < (r.hi + F(5, 4)) ** 2
        and r.hi - r.lo < F(1, 2**100)
    )


# --- near misses: a constant that is right is not falsified, 1% more is -------------------------------------------

NEAR_MISS = {
    "PL modulus": lambda k: cl.pl(quad, F(1) * k, 0, grad=quad_grad),
    "strong convexity": lambda k: cl.strongly_convex(quad, F(1) * k, comparator=[F(0), F(0)], grad=quad_grad),
    "one-point convexity": lambda k: cl.one_point_convex(
        quad, F(1) * k, comparator=[F(0), F(0)], grad=quad_grad
    ),
    "KL factor": lambda k: cl.kl(quad, Constant(F(7, 5) * k), F(1, 2), 0, grad=quad_grad),
    "growth": lambda k: GradientGrowth(F(8) / k, 0, g=quad, f=quad, grad=quad_grad),
    "noise": lambda k: Noise(
        F(2) / k, 0, moment=lambda w: 2 * (w[0] * w[0] + 16 * (w[1] * w[1])), f=quad, grad=quad_grad
    ),
    "lower bound": lambda k: BoundedBelow((k - 1) * F(1, 10), quad),
}
GRID = [[F(a, 4), F(b, 4)] for a in range(-8, 9) for b in range(-8, 9)]


@pytest.mark.parametrize("name", NEAR_MISS, ids=str)
def test_one_percent_too_much_is_found(name):
    true, wrong = NEAR_MISS[name](F(1)), NEAR_MISS[name](F(102, 100) if name == "KL factor" else F(101, 100))
    lowest = min(_low(true.slack(w)) for w in GRID)
    assert lowest >= 0
    assert min(_low(wrong.slack(w)) for w in GRID) < 0


def _low(x):
    return x.lo if isinstance(x, Interval) else x


def test_smoothness_near_miss_on_pairs():
    pairs = [(a, b) for a in GRID[::17] for b in GRID[::13]]
    good, bad = Smooth(4, quad, grad=quad_grad), Smooth(F(396, 100), quad, grad=quad_grad)
    assert min(good.slack(a, b) for a, b in pairs) >= 0 > min(bad.slack(a, b) for a, b in pairs)
    assert all(good.descent_slack(a, b) >= good.slack(a, b) for a, b in pairs[:50])


def test_classical_constructors_hold_on_functions_that_have_the_property():
    def huber(w):
        x = w[0]
        return jnp.where(jnp.abs(x) < 1, x * x / 2, jnp.abs(x) - 0.5)

    points = random_points(100, 1, seed=4) * 3
    assert min(cl.convex(huber, comparator=[0.3]).slack(w) for w in points) >= 0
    assert min(cl.star_convex(huber, minimiser=[0.0]).slack(w) for w in points) >= 0
    assert min(cl.quasar_convex(huber, 0.5, minimiser=[0.0]).slack(w) for w in points) >= 0
    assert min(cl.strongly_convex(huber, 0.5, comparator=[0.0]).slack(w) for w in points) < 0
    # x^4 / 4 satisfies KL with |f'| = x^3 = (4 f)^(3/4): theta = 3/4, c = 4^(3/4)
    kl = cl.kl(lambda w: w[0] ** 4 / 4, 4**0.75, 0.75, 0.0)
    assert all(abs(kl.slack(w)) < 1e-9 * (1 + abs(w[0]) ** 4) for w in points)


def test_kl_constant_is_rounded_downwards():
    kl = cl.kl(quad, 0.1, 0.5, 0.0)
    assert F(kl.mu.value) <= 2 * F(0.1) ** 2 and kl.mu.side in ("lower", "exact")


def test_rsi_refuses_a_comparator_that_may_not_be_the_projection():
    with pytest.raises(InvalidInputError, match="unique minimiser"):
        cl.rsi(quad, 1.0, comparator=[0.0, 0.0])
    flat = cl.rsi(lambda w: w[0] ** 2 / 2, 1.0, comparator=[0.0, 0.0], distance_sq=lambda w: w[0] ** 2)
    assert flat.slack([2.0, 7.0]) == 0.0
    wrong = cl.rsi(lambda w: w[0] ** 2 / 2, 1.0, comparator=[0.0, 0.0], unique=True)
    assert wrong.slack([2.0, 7.0]) == -49.0


def test_tangent_margins_and_output_gradient_slack():
    x = np.array([[1.0, 2.0], [3.0, -1.0]])
    y = np.array([1.0, -1.0])
    v = np.array([0.5, 0.25])

    def model(w):
        return x @ w

    q = y * (x @ v)
    assert TangentMargins(q, v, model=model, targets=y).slack([9.0, 9.0]) == pytest.approx(0.0, abs=1e-12)
    assert TangentMargins(q + 0.01, v, model=model, targets=y).slack([9.0, 9.0]) == pytest.approx(-0.01)
    assert (
        OutputGradient(math.sqrt(10) * 1.000001, model=model).slack([0.0, 0.0])
        > 0
        > OutputGradient(math.sqrt(10) * 0.99, model=model).slack([0.0, 0.0])
    )


def test_start_computes_the_distance_rounded_upwards():
    start = Start(point=[0.1, 0.2], comparator=[0.3, 0.7])
    true = (F(0.1) - F(0.3)) ** 2 + (F(0.2) - F(0.7)) ** 2
    assert start.distance.value**2 >= true > (start.distance.value * (1 - F(1, 10**15))) ** 2


def test_slack_does_not_change_global_precision():
    ProxyConvexity(quad, quad, 0.0, comparator=np.zeros(2)).slack([1.0, 1.0])
    assert jax.config.jax_enable_x64 is False or jnp.zeros(1).dtype == jnp.float64


BAD = {
    "f not callable": lambda: ProxyConvexity(3, quad, 0.0, comparator=[0.0]),
    "no comparator": lambda: ProxyConvexity(quad, quad, 0.0, comparator=None),
    "NaN comparator": lambda: ProxyConvexity(quad, quad, 0.0, comparator=[math.nan]),
    "h text": lambda: ProxyConvexity(quad, quad, "0", comparator=[0.0]),
    "h NaN": lambda: ProxyConvexity(quad, quad, math.nan, comparator=[0.0]),
    "mu zero": lambda: ProxyPL(quad, quad, 0, 1, 0),
    "mu negative": lambda: ProxyPL(quad, quad, 0, 1, -1.0),
    "alpha zero": lambda: ProxyPL(quad, quad, 0, 0, 1),
    "alpha one-sided": lambda: ProxyPL(quad, quad, 0, Constant(1, "lower"), 1),
    "L negative": lambda: Smooth(-1.0),
    "L infinite": lambda: Smooth(math.inf),
    "A negative": lambda: GradientGrowth(-1, 0),
    "scope": lambda: GradientGrowth(1, 0, scope="mostly"),
    "sigma2 negative": lambda: Noise(1, -1),
    "side": lambda: Constant(1.0, "roughly"),
    "region": lambda: Smooth(1.0, region="everywhere"),
    "evidence": lambda: Smooth(1.0, evidence="sure"),
    "slack without functions": lambda: ProxyPL(None, None, 0, 1, 1).slack([1.0]),
    "vector-valued f": lambda: ProxyConvexity(quad, lambda w: w, 0.0, comparator=np.zeros(2)).slack(
        [1.0, 2.0]
    ),
    "zeta above one": lambda: cl.quasar_convex(quad, 2.0, minimiser=[0.0, 0.0]),
    "m from above": lambda: cl.strongly_convex(quad, Constant(1.0, "upper"), comparator=[0.0, 0.0]),
    "smoothness at one point": lambda: Smooth(1.0, quad).slack([1.0, 1.0]),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_is_refused_with_what_is_accepted(case):
    with pytest.raises(InvalidInputError, match="is not accepted; accepted:"):
        BAD[case]()
