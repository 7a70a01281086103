"""Reduced conditions: one formula in every arithmetic, exact constants, refusals, storage."""

from __future__ import annotations

import json
import pickle
from fractions import Fraction

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.expression_rows import from_instructions, instructions
from proxyconvex.core.expressions import derivative, show, unary, variable
from proxyconvex.core.intervals import Interval


def neuron(activation="softplus", C="0.721"):
    return pc.ProxyConvexity.pointwise(
        lambda a, b, y, s, ds, C: (s(a) - y) * ds(a) * (a - b) - (s(a) - s(b)) ** 2 * ds(a) / 2 + C * (s(b) - y) ** 2,
        activation=activation, a=(-3, 3), b=(-3, 3), y=(0, 3), C=C,
    )  # fmt: skip


CURVES = {
    "softplus": (lambda t: np.log1p(np.exp(t)), lambda t: 1 / (1 + np.exp(-t))),
    "sigmoid": (lambda t: 1 / (1 + np.exp(-t)), lambda t: np.exp(-t) / (1 + np.exp(-t)) ** 2),
    "tanh": (np.tanh, lambda t: 1 / np.cosh(t) ** 2),
    "relu": (lambda t: max(t, 0), lambda t: float(t > 0)),
    "leaky-relu:1/10": (lambda t: max(t, t / 10), lambda t: 1.0 if t > 0 else 0.1),
    "identity": (lambda t: t, lambda t: 1.0),
    "square": (lambda t: t * t, lambda t: 2 * t),
}


@pytest.mark.parametrize("activation", CURVES)
def test_every_arithmetic_agrees_with_a_direct_computation(activation):
    condition = neuron(activation)
    s, ds = CURVES[activation]
    point = {"a": 1.25, "b": -0.75, "y": 0.5}
    a, b, y = point.values()
    want = (s(a) - y) * ds(a) * (a - b) - (s(a) - s(b)) ** 2 * ds(a) / 2 + 0.721 * (s(b) - y) ** 2
    assert condition.slack(**point) == pytest.approx(want, rel=1e-13)
    assert condition.slack(a, b, y) == condition.slack(point) == condition.slack(**point)
    arrays = condition.slack({k: np.full(3, v) for k, v in point.items()})
    assert arrays.shape == (3,) and arrays == pytest.approx(want, rel=1e-13)
    with jax.enable_x64(True):
        assert float(jax.jit(lambda t: condition.slack(t, b, y))(jnp.asarray(a))) == pytest.approx(
            want, rel=1e-12
        )
    exact = condition.slack({k: Fraction(v) for k, v in point.items()})
    ball = condition.slack({k: flint.arb(v) for k, v in point.items()})
    if isinstance(exact, Interval):
        assert exact.hi - exact.lo < Fraction(1, 10**40)
        assert ball.overlaps(flint.arb(flint.fmpq(exact.lo.numerator, exact.lo.denominator)))
    else:
        assert exact == pytest.approx(want) and activation in (
            "relu",
            "leaky-relu:1/10",
            "identity",
            "square",
        )


def test_interval_evaluation_contains_points():
    box = neuron().slack(a=Interval(1, Fraction(3, 2)), b=Interval(-1, 0), y=Interval(0, 1))
    rng = np.random.default_rng(0)
    for _ in range(12):
        x = {"a": rng.uniform(1, 1.5), "b": rng.uniform(-1, 0), "y": rng.uniform(0, 1)}
        assert neuron().slack({k: Fraction(v) for k, v in x.items()}) in box


def test_numbers_are_exact():
    condition = neuron(C="0.721")
    assert condition.constants["C"] == Fraction(721, 1000)
    assert neuron(C=0.721).constants["C"] == Fraction(0.721) != Fraction(721, 1000)
    third = pc.reduced(lambda x: Fraction(1, 3) * x, x=("1/3", 1))
    assert third.slack(x=Fraction(1)) == Fraction(1, 3)
    assert third.bounds()[0][0] > Fraction(1, 3) >= np.nextafter(third.bounds()[0][0], 0)
    assert third.contains(x="1/3") and not third.contains(x="0.3333")


def test_variants():
    condition = neuron()
    assert condition.with_constants(C=1).constants["C"] == 1
    assert condition.slack(1, 0, 1, C=2.0) == pytest.approx(condition.with_constants(C=2).slack(1, 0, 1))
    assert condition.on(y=(0, 1)).variables["y"] == (0, 1)
    assert "C = 721/1000" in repr(condition) and "a in [-3, 3]" in repr(condition)


def test_user_declared_activations():
    swish = pc.reduced(
        lambda a, s, ds: ds(a) + 0 * s(a), activation=lambda t, sigmoid: t * sigmoid(t), a=(-3, 3)
    )
    x = 0.7
    numeric = (lambda t: t / (1 + np.exp(-t)))(x + 1e-6) - (lambda t: t / (1 + np.exp(-t)))(x - 1e-6)
    assert swish.slack(x) == pytest.approx(numeric / 2e-6, rel=1e-8)
    given = pc.reduced(lambda a, ds: ds(a), activation=(lambda t: t**3, lambda t: 3 * t**2), a=(-1, 1))
    assert given.slack(0.5) == 0.75
    assert (
        pc.reduced(lambda a: np.exp(a), a=(-1, 1)).slack(0.0) == 1.0
    )  # NumPy's functions find the symbols' own


def test_storage_round_trip():
    for condition in (neuron(), neuron("leaky-relu:1/10"), neuron("tanh")):
        stored = json.loads(json.dumps(condition.to_dict()))
        again = pc.ReducedCondition.from_dict(stored)
        assert again.statement == condition.statement and again.to_dict() == stored
        copied = pickle.loads(pickle.dumps(condition.expression))
        assert copied == condition.expression and hash(copied) == hash(condition.expression)
        assert from_instructions(instructions(condition.expression)) == condition.expression


@pytest.mark.parametrize("f", ["exp", "log", "log1p", "sqrt", "tanh", "sigmoid", "softplus", "bump"])
def test_symbolic_derivatives(f):
    t = variable("t")
    for e in (unary(f, t), unary(f, t * t + 1) / (2 + t), unary(f, t) ** 3 - 2 * t):
        for _ in range(2):
            d = derivative(e, "t")
            from proxyconvex.core.arithmetics import evaluate

            with flint.ctx.workprec(200):
                x, h = flint.arb("0.7"), flint.arb(2) ** -60
                slope = (evaluate(e, {"t": x + h}) - evaluate(e, {"t": x - h})) / (2 * h)
                assert abs(slope - evaluate(d, {"t": x})) < 1e-25
            e = d


def test_text_keeps_the_meaning():
    a, b = variable("a"), variable("b")
    for e in (
        a - (b - a),
        a / (b * a),
        (a - b) ** 2,
        -(a + b) * 3,
        a * (b / 2),
        2 - -a,
        (-a) ** 2,
        a - b - 1,
    ):
        text = show(e).replace("^", "**")
        from proxyconvex.core.arithmetics import evaluate

        assert eval(text, {}, {"a": 3.0, "b": -1.5}) == evaluate(e, {"a": 3.0, "b": -1.5}), text


REFUSALS = {
    "comparison": (lambda: pc.reduced(lambda a: a > 0, a=(0, 1)), "without branches"),
    "branch": (lambda: pc.reduced(lambda a: a if a > 0 else 0, a=(0, 1)), "maximum"),
    "unknown-parameter": (lambda: pc.reduced(lambda a, q: a, a=(0, 1)), r"Give q=\(lo, hi\) for a variable"),
    "no-activation": (lambda: pc.reduced(lambda a, s: s(a), a=(0, 1)), "parameter 's'"),
    "unknown-activation": (lambda: pc.reduced(lambda a, s: s(a), activation="gelu", a=(0, 1)), "softplus"),
    "empty-range": (lambda: pc.reduced(lambda a: a, a=(1, 1)), "lo < hi"),
    "text": (lambda: pc.reduced(lambda a: a, a=(0, "x")), "a finite number or a string"),
    "infinite": (lambda: pc.reduced(lambda a: a, a=(0, float("inf"))), "a finite number"),
    "unused-constant": (lambda: pc.reduced(lambda a: a, a=(0, 1), C=1), "Drop C or use it"),
    "no-variable": (lambda: pc.reduced(lambda C: C, C=1), "at least one keyword"),
    "math-module": (lambda: pc.reduced(lambda a: __import__("math").exp(a), a=(0, 1)), "list exp, log, tanh"),
    "power": (lambda: pc.reduced(lambda a: a**0.3, a=(0, 1)), "a whole number from -64 to 64, or 1/2"),
    "nothing-returned": (lambda: pc.reduced(lambda a: None, a=(0, 1)), "Return left - right"),
    "missing-value": (lambda: neuron().slack(a=1), "a value for each of b, y"),
    "surplus-value": (lambda: neuron().slack(1, 2, 3, q=1), "the variables a, b, y"),
    "slope": (
        lambda: pc.reduced(lambda a, s: s(a), activation="leaky-relu:2", a=(0, 1)),
        r"a number in \[0, 1\]",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    call, match = REFUSALS[name]
    with pytest.raises(pc.InvalidInputError, match=match):
        call()
