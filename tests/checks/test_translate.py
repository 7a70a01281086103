"""From JAX functions to expressions: the meaning is that of the program in real arithmetic, kinks included; the rest is refused."""

from __future__ import annotations

import flint
import jax
import jax.numpy as jnp
import numpy as np
import parameter_conditions as zoo
import pytest

import proxyconvex as pc
from proxyconvex.checks.certify import polynomials
from proxyconvex.checks.certify.certify import certify
from proxyconvex.checks.jaxprs import Unsupported
from proxyconvex.checks.translate import simplify
from proxyconvex.checks.translate.condition import NotCertifiable, translate
from proxyconvex.checks.translate.machine import translated
from proxyconvex.core.arithmetics import evaluate
from proxyconvex.core.evidence import Evidence, Status
from proxyconvex.core.expressions import Expression, lift, power, select, unary, variable

X = np.array([[0.5, -1.0], [1.25, 0.5], [-0.75, 2.0]])
A, B = variable("a"), variable("b")


@jax.custom_jvp
def _straight_through(w):
    return jnp.where(w > 0, 1.0, 0.0)


@_straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    (w,), (dw,) = primals, tangents
    return _straight_through(w), dw


def _loop(w):
    def body(carry, row):
        return carry + jnp.tanh(row @ w), row @ w

    total, seen = jax.lax.scan(body, 0.0, jnp.asarray(X))
    return total * jnp.sum(seen)


FUNCTIONS = {
    "softplus": lambda w: jnp.mean(jax.nn.softplus(X @ w)),
    "sigmoid": lambda w: jnp.sum(jax.nn.sigmoid(X @ w) ** 3),
    "log sigmoid": lambda w: jnp.sum(jax.nn.log_sigmoid(X @ w)),
    "tanh": lambda w: jnp.prod(jnp.tanh(X @ w)),
    "relu": lambda w: jnp.sum(jax.nn.relu(X @ w) ** 2),
    "maximum": lambda w: jnp.sum(jnp.maximum(w, 0.5 * w) * w),
    "minimum": lambda w: jnp.minimum(w[0], w[1]) ** 3,
    "absolute": lambda w: jnp.sum(jnp.abs(w) ** 3),
    "leaky": lambda w: jnp.sum(jax.nn.leaky_relu(X @ w, 0.25) ** 2),
    "elu": lambda w: jnp.sum(jax.nn.elu(X @ w)),
    "silu": lambda w: jnp.sum(jax.nn.silu(X @ w)),
    "where": lambda w: jnp.where(w[0] > w[1], w[0] ** 2, w[1] ** 3),
    "conjunction": lambda w: jnp.where((w[0] > 0) & ~(w[1] <= 0.5), w[0], w[1] * w[0]),
    "logsumexp": lambda w: jax.nn.logsumexp(w),
    "logaddexp": lambda w: jnp.logaddexp(w[0], 2 * w[1]),
    "softmax": lambda w: jax.nn.softmax(jnp.concatenate([w, w[::-1] * 2]))[1],
    "norm": lambda w: jnp.linalg.norm(w - jnp.array([3.0, 4.0])),
    "powers": lambda w: jnp.sum((2 + w) ** 1.5 + w**4 + (3 + w) ** -2),
    "roots": lambda w: jnp.sum((4 + w) ** 0.75) + jax.lax.rsqrt(5 + w[0]),
    "exponent": lambda w: (3 + w[0]) ** w[1],
    "logs": lambda w: jnp.log(3 + w[0]) * jnp.log1p(w[1] ** 2) + jnp.expm1(w[0]) + jnp.cosh(w[1]) - jnp.sinh(w[0]) + jnp.exp2(w[1]),
    "moves": lambda w: jnp.sum(jnp.outer(w, w).T[::-1].reshape(2, 2)[:, 1:] * jnp.pad(w, 1)[1:3, None]) + jnp.dot(w, X[:2]) @ w,
    "clip": lambda w: jnp.sum(jnp.clip(w, -0.5, 0.25) * w),
    "sign": lambda w: jnp.sum(jnp.sign(w) * w**2),
    "cumulative": lambda w: jnp.sum(jnp.cumsum(w) * jnp.cumprod(w)),
    "scan": _loop,
    "gather": lambda w: w[jnp.array([1, 0, 1])] @ jnp.array([1.0, 2.0, 3.0]) + w.at[0].add(w[1])[0] ** 2,
    "extremes": lambda w: jnp.max(X @ w) - jnp.min(w),
    "custom derivative": lambda w: jnp.sum(_straight_through(w) * w),
    "stopped": lambda w: jnp.sum(jax.lax.stop_gradient(w) * w),
    "tangents": lambda w: jax.jvp(lambda u: jnp.tanh(X @ u) @ jnp.ones(3), (w,), (jnp.ones(2),))[1],
}  # fmt: skip
POINTS = [
    *np.random.default_rng(0).uniform(-1, 1, (12, 2)),
    np.zeros(2),
    np.array([0.5, 0.5]),
    np.array([0.0, 0.25]),
    np.array([-0.5, 0.0]),
]


def symbolic_pair():
    return np.array([A, B], dtype=object)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_those_of_the_program(name):
    """Random points and points on the kinks, where the derivative is the one that JAX takes."""
    f = FUNCTIONS[name]
    value = translated("f", f)(symbolic_pair())
    slope = translated("grad f", jax.grad(f), scalar=False)(symbolic_pair())
    with jax.enable_x64(True):
        for x in POINTS:
            at = {"a": float(x[0]), "b": float(x[1])}
            assert evaluate(value, at) == pytest.approx(float(f(jnp.asarray(x))), rel=1e-12, abs=1e-12)
            expected = np.asarray(jax.grad(f)(jnp.asarray(x)))
            assert [evaluate(s, at) for s in slope] == pytest.approx(expected, rel=1e-11, abs=1e-11), x


def test_float_constants_keep_their_exact_value():
    value = translated("f", lambda w: 0.1 * w[0])(symbolic_pair())
    assert evaluate(value, {"a": pc.checks.certify.certify.Fraction(1), "b": pc.checks.certify.certify.Fraction(0)}) * 2**55 == 3602879701896397  # fmt: skip


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda w: jnp.sum(jnp.sin(w)), r"'sin' has no counterpart.*test_translate.py, line \d+"),
        (lambda w: jnp.sum(w.astype(jnp.float32)), r"float32, which rounds|a conversion to float32"),
        (lambda w: jnp.sum(jnp.floor(w)), "'floor' has no counterpart"),
        (lambda w: w[jnp.argmax(w)], "'argmax' has no counterpart"),
        (lambda w: jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1.0, w[0]), "left undecided"),
        (
            lambda w: jax.lax.cond(w[0] > 0, lambda: w[0], lambda: w[1]),
            "a branch or a position that depends on w",
        ),
        (lambda w: jnp.sum(w) * jnp.nan, "not a number"),
        (lambda w: jnp.sum(w) + jnp.inf, "infinity"),
    ],
)
def test_what_has_no_exact_counterpart_is_refused_by_name_and_line(function, message):
    with pytest.raises(Unsupported, match=message):
        translated("f", function)(symbolic_pair())


def _balls(e, at):
    with flint.ctx.workprec(300):
        return evaluate(e, {k: flint.arb(v) for k, v in at.items()})


M = Expression("max", A, B)
RULES = {
    "softplus of maximum": (simplify.plus(simplify.larger(A, B), simplify.log_one_plus(simplify.exponential(simplify.negated(unary("abs", A - B))))), Expression("add", Expression("max", A, B), Expression("log1p", Expression("exp", -abs(A - B))))),
    "softplus of relu": (simplify.plus(unary("relu", A), unary("softplus", -abs(A))), Expression("add", unary("relu", A), unary("softplus", -abs(A)))),
    "p + softplus(-p)": (simplify.plus(A, unary("softplus", -A)), Expression("add", A, unary("softplus", -A))),
    "log of a sum": (simplify.plus(M, Expression("log", unary("exp", A - M) + unary("exp", B - M))), Expression("add", M, Expression("log", unary("exp", A - M) + unary("exp", B - M)))),
    "tanh slope": (simplify.plus(B * (1 - unary("tanh", A)), (B * (1 - unary("tanh", A))) * unary("tanh", A)), Expression("mul", B, 1 - power(unary("tanh", A), 2))),
    "bump": (simplify.times(unary("sigmoid", A), 1 - unary("sigmoid", A)), Expression("mul", unary("sigmoid", A), 1 - unary("sigmoid", A))),
    "sigmoid from softplus": (simplify.exponential(A - unary("softplus", A)), Expression("exp", A - unary("softplus", A))),
    "sigmoid from minus softplus": (simplify.exponential(-unary("softplus", A)), Expression("exp", -unary("softplus", A))),
    "shifted sigmoid": (simplify.exponential(Expression("sub", A, B + unary("softplus", A - B))), Expression("exp", A - (B + unary("softplus", A - B)))),
    "sigmoid quotient": (simplify.over(lift(1), 1 + unary("exp", -A)), Expression("div", lift(1), 1 + unary("exp", -A))),
    "sigmoid times exp": (simplify.times(unary("sigmoid", simplify.negated(A)), unary("exp", A)), Expression("mul", unary("sigmoid", -A), unary("exp", A))),
    "log of one plus": (simplify.logarithm(1 + unary("exp", A)), Expression("log", 1 + unary("exp", A))),
    "log two": (simplify.logarithm(lift(2)), Expression("log", lift(2))),
    "leaky": (simplify.chosen(A, lift(2) * A, lift(3) * A), Expression("select", A, lift(2) * A, lift(3) * A)),
    "sign of a size": (simplify.size(unary("exp", A) + power(B, 2)), abs(unary("exp", A) + power(B, 2))),
    "step": (select(A, 2, 5), Expression("select", A, lift(2), lift(5))),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_every_rewriting_rule_is_an_identity_and_applies(name):
    short, long = RULES[name]
    assert short != long or name == "tanh slope"
    rng = np.random.default_rng(1)
    for x in [*rng.uniform(-3, 3, (20, 2)), np.array([1.0, 0.0])]:
        at = {"a": float(x[0]), "b": float(x[1])}
        assert abs(_balls(short, at) - _balls(long, at)) < 1e-60


def test_a_slack_vanishes_exactly_at_its_comparator():
    """The data are floats and h(v) is traced, so that nothing is left of the slack at w = v."""
    made = translate(zoo.convexity(1))
    from proxyconvex.core.expressions import substitute

    assert made.zeros[0] == {"w_0": lift("1/2"), "w_1": lift("1/4")}
    assert polynomials.polynomial(substitute(made.reduced.closed, made.zeros[0])) == {}


@pytest.mark.parametrize(
    "f",
    [
        lambda w: jnp.sum(jnp.log1p(jnp.exp(-w))) + jnp.sum(w**2) / 2,
        lambda w: jnp.sum(jnp.log1p(jnp.exp(w))),
        lambda w: jnp.sum(jnp.exp(w)),
    ],
    ids=("logistic as users write it, with decay", "softplus by hand", "exp"),
)
def test_a_convex_function_is_certified_against_a_fixed_comparator(f):
    v = jnp.array([0.5, -0.25])
    condition = pc.ProxyConvexity(f, f, f, comparator=v, region=pc.Ball(center=v, radius=1.0))
    assert certify(condition, seconds=20).status is Status.HOLDS


@pytest.mark.parametrize("name", zoo.TRUE)
def test_conditions_on_parameters_are_certified_and_verified(name, tmp_path):
    condition, options = zoo.TRUE[name]
    verdict = certify(condition, seconds=60, name=name, **options)
    assert (verdict.status, verdict.evidence) == (Status.HOLDS, Evidence.CERTIFIED), verdict
    result = pc.verify(verdict.write(tmp_path / "out.json"))
    assert result.accepted
    assert "translated from" in result.statement and name in result.statement
    assert "that it is what the functions compute in real arithmetic is not" in result.statement


@pytest.mark.parametrize("name", [n for n in zoo.MAKE if not n.startswith("smooth")])
def test_one_percent_beyond_the_truth_is_refuted(name):
    make, options = zoo.MAKE[name]
    factor = 1.12 if name == "below" else 1.01
    condition = make(factor)
    verdict = certify(condition, seconds=60, **options)
    assert verdict.status is Status.FALSIFIED, verdict
    if not options:
        w = np.array([float(v) for v in verdict.witness["point"].values()])
        assert condition.slack(w.reshape(1, 2) if name == "growth" else w) < 0


@pytest.mark.parametrize("name", ["smooth", "smooth quadratic"])
def test_too_small_smoothness_constants_are_never_certified(name):
    make, _ = zoo.MAKE[name]
    verdict = certify(make(0.99), seconds=5)
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.witness["proved_L"] >= float(make(1).L)
    assert (
        certify(pc.Smooth(verdict.witness["proved_L"] * 1.001, f=make(1).f, region=make(1).region)).status
        is Status.HOLDS
    )


def test_regions_are_kept_exactly():
    """The quartic is 12-smooth on the disc of radius 2, and no better; on its bounding box it is not."""
    disc = certify(pc.Smooth(12.2, f=zoo.quartic, region=pc.Ball(np.zeros(2), 2.0)), seconds=60)
    assert disc.status is Status.HOLDS and disc.boxes > 1
    assert (
        certify(pc.Smooth(12.2, f=zoo.quartic, region=pc.Box([-2, -2], [2, 2])), seconds=3).status
        is Status.INCONCLUSIVE
    )
    product = pc.Product((pc.Ball(np.zeros(1), 1.0), pc.Box([0.0], [2.0])))
    f = lambda w: w[0][0] ** 2 + w[1][0]  # noqa: E731
    held = certify(pc.BoundedBelow(0, f=f, region=product))
    assert (
        held.status is Status.HOLDS
        and "w_0_0 in [-1, 1]" in held.sentence
        and "w_1_0 in [0, 2]" in held.sentence
    )


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (pc.BoundedBelow(0, f=lambda w: w @ w, region=pc.Ball(np.zeros(7), 1.0)), "7 variables"),
        (
            pc.ProxyConvexity(zoo.quartic, zoo.quartic, 0, comparator=np.zeros(2)),
            "the whole space, does not bound w_0, w_1",
        ),
        (
            pc.BoundedBelow(0, f=lambda w: jnp.sum(jnp.sin(w)) + 9, region=zoo.DISC),
            "'sin' has no counterpart",
        ),
        (
            pc.ProxyConvexity(zoo.quartic, zoo.quartic, 0, np.zeros(2), samplewise=True, region=zoo.DISC),
            "for every single sample",
        ),
        (
            pc.ProxyConvexity(zoo.quartic, zoo.quartic, 0, np.zeros(2), g_min=0, region=zoo.DISC),
            "g_min would be claimed",
        ),
        (
            pc.GradientGrowth(9, 9, zoo.quartic, zoo.quartic, scope="sample-wise", region=zoo.DISC),
            "for every single sample",
        ),
        (
            pc.GradientGrowth(9, 9, zoo.quartic, zoo.quartic, scope="expectation", region=zoo.DISC),
            "no moment is given",
        ),
        (pc.Smooth(9, f=zoo.leaky, grad=lambda w: w, region=zoo.DISC), "not recognised as the gradient"),
    ],
)
def test_what_cannot_be_certified_says_why(condition, reason):
    verdict = certify(condition)
    assert verdict.status is Status.INCONCLUSIVE and verdict.evidence is Evidence.ASSUMED
    assert reason in verdict.sentence
    with pytest.raises(pc.InvalidInputError, match="a verdict HOLDS"):
        verdict.document()


def test_a_rounded_constant_inside_the_functions_is_refused():
    half = pc.scale(zoo.convexity(1), pc.checks.certify.certify.Fraction(1, 3))
    with pytest.raises(NotCertifiable, match="no float64"):
        translate(half)
    # As a constant of the condition itself it is exact.
    third = pc.BoundedBelow(pc.checks.certify.certify.Fraction(-1, 3), f=lambda w: w @ w, region=zoo.DISC)
    assert translate(third).reduced.slack(w_0=0.0, w_1=0.0) == pytest.approx(1 / 3)


def test_smoothness_is_not_mistaken_for_an_inequality(tmp_path):
    """z3 and the exports know inequalities; the expression of a smoothness proof is f itself."""
    condition = pc.Smooth(3, f=lambda w: w @ w + 1, region=zoo.DISC)
    with pytest.raises(pc.InvalidInputError, match="z3 decides inequalities only"):
        certify(condition, solver="z3")
    verdict = certify(condition)
    assert verdict.status is Status.HOLDS
    with pytest.raises(pc.InvalidInputError, match="proxyconvex verify"):
        pc.export_coq(verdict, tmp_path / "out.v")
    with pytest.raises(pc.InvalidInputError, match="proxyconvex verify"):
        pc.export_smt(verdict.condition, tmp_path / "out.smt2")
    # A region with a constraint that the checker does not see to be convex: the larger one is used.
    turned = pc.intersect(
        pc.Ball(np.zeros(2), 1.0), pc.Ball(np.zeros(2), 0.5).pullback([[1.0, 1.0], [0.0, 1.0]], [0.0, 0.0])
    )
    held = certify(pc.Smooth(3, f=lambda w: w @ w + 1, region=turned))
    assert held.status is Status.HOLDS and pc.verify(held.write(tmp_path / "c.json")).accepted
