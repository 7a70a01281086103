"""Family F3: every inequality row by row in NumPy, exact constants where they are known, near misses, refusals."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence
from proxyconvex.families.links import LINKS, Link
from proxyconvex.families.single_neuron import SingleNeuron
from proxyconvex_checker import links as checker_links
from proxyconvex_checker import single_neuron as checker
from proxyconvex_checker.errors import CheckError

ACTIVATIONS = {
    "sigmoid": Link("sigmoid", beta=2.0),
    "tanh": Link("tanh", beta=0.7),
    "softplus": Link("softplus", beta=3.0),
    "leaky": Link("leaky-relu", 0.3),
    "relu": Link("relu"),
    "linear": Link("leaky-relu", 1.0),
    "custom": Link.custom(lambda t: t + 0.5 * jnp.sin(t), 1.5, 0.5),
}
SMOOTHED = [name for name in ACTIVATIONS if name != "relu"]


def reference(link: Link, t):
    """``(s, s')`` from formulas of their own."""
    t = np.asarray(t, dtype=np.float64)
    if link.name == "sigmoid":
        s = np.where(t >= 0, 1 / (1 + np.exp(-link.beta * np.abs(t))), 0) + np.where(
            t < 0, np.exp(-link.beta * np.abs(t)) / (1 + np.exp(-link.beta * np.abs(t))), 0
        )
        return s, link.beta / (2 + 2 * np.cosh(np.minimum(link.beta * np.abs(t), 700)))
    if link.name == "tanh":
        return np.tanh(link.beta * t), link.beta / np.cosh(np.minimum(link.beta * np.abs(t), 350)) ** 2
    if link.name == "softplus":
        return np.maximum(t, 0) + np.log1p(np.exp(-link.beta * np.abs(t))) / link.beta, 0.5 * (
            1 + np.tanh(link.beta * t / 2)
        )
    if link.name == "custom":
        return t + 0.5 * np.sin(t), 1 + 0.5 * np.cos(t)
    return np.where(t > 0, t, link.slope * t), np.where(t > 0, 1.0, link.slope)


def rows(seed=0, n=8, d=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * rng.uniform(0.3, 1.5, (n, 1))
    return x, rng.uniform(-0.5, 1.5, n), 0.7 * rng.standard_normal(d)


def points(v, x, radius):
    """Points of the ball around v: random, on its surface, at v, and those that move one row the most."""
    rng = np.random.default_rng(1)
    yield v
    for scale in (1e-9, 0.3, 1.0, 1.0):
        e = rng.standard_normal(len(v))
        yield v + radius * scale * e / np.linalg.norm(e)
    for row in x:
        for sign in (1, -1):
            yield v + sign * radius * row / np.linalg.norm(row)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_derivative(name):
    link = ACTIVATIONS[name]
    t = np.concatenate([np.linspace(-12, 12, 401), [0.0, 1e-12, -1e-12, 200.0, -200.0]])
    s, slope = reference(link, t)
    np.testing.assert_allclose(link.numpy(t), s, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(link.derivative(t), slope, rtol=1e-10, atol=1e-15)
    import jax

    with jax.enable_x64(True):
        both = link.value_and_slope(jnp.asarray(t))
    np.testing.assert_allclose(both[0], s, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(both[1], slope, rtol=1e-10, atol=1e-15)
    assert 0 <= slope.min() and slope.max() <= link.lipschitz * (1 + 1e-12)
    assert link.least_slope(-3.0, 2.0) <= reference(link, np.linspace(-3, 2, 1001))[1].min() + 1e-12


@pytest.mark.parametrize("form", ["i", "ii", "iii"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_forms_row_by_row_and_as_premises(name, form):
    link, (x, y, v), radius = ACTIVATIONS[name], rows(), 1.3
    if form == "ii" and name == "relu":
        pytest.skip("no slope above zero")
    size, bound, n = np.linalg.norm(x, axis=1).max(), link.lipschitz, len(x)
    if form == "iii":
        y = reference(link, x @ v)[0]
    pc_premise, growth = SingleNeuron(link).conditions(x, y, v, form, radius)
    b = x @ v
    at_v = reference(link, b)[0]
    span = np.linspace(b.min() - radius * size, b.max() + radius * size, 4001)
    gamma = reference(link, span)[1].min()
    own = np.mean((at_v - y) ** 2)
    for w in points(v, x, radius):
        a = x @ w
        value, slope = reference(link, a)
        r = value - y
        if form == "ii":
            # gamma may be taken on the interval spanned by this very a and b: sharper than what the premise uses
            g, h = gamma / 2 * (a - b) ** 2 * slope, bound / (2 * gamma) * (at_v - y) ** 2
        else:
            g = (value - at_v) ** 2 * slope / bound
            h = bound * radius * size * np.abs(at_v - y) if form == "i" else np.zeros(n)
        inner = r * slope * (a - b)
        scale = np.abs(inner) + g + h
        assert np.all(inner - g + h >= -1e-12 * np.maximum(scale, 1e-300))
        grad = (r * slope) @ x / n
        big = {
            "i": 2 * bound**2 * size**2 * (g.mean() + own),
            "ii": 4 * bound**3 * size**2 / (gamma or 1) * g.mean() + 2 * bound**2 * size**2 * own,
            "iii": bound**2 * size**2 * g.mean(),
        }[form]
        assert grad @ grad <= big * (1 + 1e-12) + 1e-300
        # the premises of the library agree
        assert float(pc_premise.slack(w)) == pytest.approx(
            (inner - g).mean() + float(pc_premise.h), abs=2e-3 * scale.mean() + 1e-15
        )
        assert float(pc_premise.slack(w)) >= -1e-12 * scale.mean() - 1e-30
        assert float(growth.slack(w)) >= -1e-12 * (grad @ grad) - 1e-30
    assert float(pc_premise.h) == pytest.approx(h.mean(), rel=1e-3)
    assert pc_premise.evidence is (Evidence.ASSUMED if name == "custom" else Evidence.PROVED)


def test_realisable_noise_drops_out_of_the_mean():
    """(iii) with two-point noise: the mean over the noise of the sample-wise product, computed exactly."""
    link, (x, _, v) = Link("sigmoid"), rows(2)
    at_v = reference(link, x @ v)[0]
    for w in points(v, x, 2.0):
        a = x @ w
        value, slope = reference(link, a)
        both = [(value - (at_v + e)) * slope * (a - x @ v) for e in (0.4, -0.4)]
        g = (value - at_v) ** 2 * slope / link.lipschitz
        assert np.all(np.mean(both, axis=0) - g >= -1e-15)
        square = np.mean([((value - (at_v + e)) * slope) ** 2 for e in (0.4, -0.4)], axis=0) * np.sum(
            x * x, axis=1
        )
        top = np.linalg.norm(x, axis=1).max() ** 2 * link.lipschitz**2
        assert np.mean(square) <= top * (np.mean(g) + 0.16) * (1 + 1e-12)


def test_the_bridge_gives_proxy_pl_with_the_same_level():
    x, y, v = rows()
    premise, _ = SingleNeuron(Link("tanh")).conditions(x, y, v, "ii", 0.8)
    ppl = pc.bridge(premise)
    assert float(ppl.mu) == pytest.approx(2 / 0.8)
    for w in points(v, x, 0.8):
        assert ppl.slack(w) >= -1e-12


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n != "custom"])
def test_certified_maxima_against_brute_force(name):
    link, (x, y, v) = ACTIVATIONS[name], rows(3)
    alpha, tail, radius = 0.15, 0.2, 1.7
    neuron = checker.neuron_of(x, y, np.zeros((1, 3)), link.describe(), v[None])
    certified = checker.maxima(neuron, alpha, tail, radius)
    best = []
    for row, target in zip(x, y, strict=True):
        b, half = row @ v, radius * np.linalg.norm(row)
        a = np.concatenate([np.linspace(b - half, b + half, 200_001), [b, 0.0 if abs(b) <= half else b]])
        value, slope = reference(link, a)
        r = value - target
        top = alpha * r**2 + tail * (r * slope) ** 2 - slope * r * (a - b)
        if link.name in ("leaky-relu", "relu") and abs(b) < half:  # the limit from the right at the kink
            top = np.append(top, alpha * target**2 + tail * target**2 - target * b)
        best.append(top.max())
    best = np.array(best)
    assert np.all(certified >= best - 1e-12)
    assert np.all(certified - best <= 2 * checker.TOLERANCE * best.mean() + 1e-9)


def test_linear_neuron_has_the_closed_form():
    """s(t) = t: the maximum is ``q^2 / (4 (1 - alpha - tail))`` with ``q = b - y`` where it lies inside the interval."""
    x, y, v = rows(4)
    alpha, tail = 0.3, 0.1
    neuron = checker.neuron_of(x, y, np.zeros((1, 3)), Link("leaky-relu", 1.0).describe(), v[None])
    q = x @ v - y
    np.testing.assert_allclose(
        checker.maxima(neuron, alpha, tail, 50.0),
        q**2 / (4 * (1 - alpha - tail)),
        rtol=2e-3,
        atol=1e-3 * np.mean(q**2),
    )


def test_the_promise_is_the_formula_and_a_run_keeps_it():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    v = np.array([0.8, -0.5, 0.3])
    y = np.tanh(x @ v) + 0.1 * rng.standard_normal(30)
    w, eta, alpha, steps = np.array([0.2, 0.1, 0.0]), 0.5, 0.3, 400
    params = {"T": steps, "eta": eta, "alpha": alpha}
    numbers = checker.derive("T3r", x, y, w[None], Link("tanh").describe(), v[None], params)
    assert numbers["lambda_max"] == pytest.approx(np.linalg.eigvalsh(x.T @ x / 30)[-1], rel=1e-9)
    assert numbers["R"] == pytest.approx(np.linalg.norm(w - v), rel=1e-9)
    assert numbers["opt"] == pytest.approx(np.mean((np.tanh(x @ v) - y) ** 2), rel=1e-9)
    assert numbers["baseline"] == pytest.approx(np.var(y), rel=1e-9) and numbers["baseline"] <= np.var(y)
    level = numbers["h"] + np.sum((w - v) ** 2) / (2 * eta * steps)
    assert numbers["bound"] == pytest.approx(level / alpha, rel=1e-9)
    assert numbers["C"] * numbers["opt"] + numbers["eps"] == pytest.approx(numbers["bound"], rel=1e-6)
    assert "error_bound" not in numbers
    least = np.inf
    for _ in range(steps):
        r = np.tanh(x @ w) - y
        least = min(least, np.mean(r**2))
        w = w - eta * (r * (1 - np.tanh(x @ w) ** 2)) @ x / 30
    assert least <= numbers["bound"] < np.var(y)


@pytest.mark.parametrize("name", LINKS)
def test_enclosures_of_activations_against_balls(name):
    ctx.prec = 200
    link = checker_links.Link(name, 0.25 if name == "leaky-relu" else 0.0, 1.3)
    rng = np.random.default_rng(6)
    lo = np.concatenate(
        [rng.standard_normal(40) * 10.0 ** rng.integers(-8, 3, 40), [0.0, -1e-300, -800.0, 30.0, -0.5]]
    )
    hi = lo + np.concatenate(
        [np.abs(rng.standard_normal(40)) * 10.0 ** rng.integers(-9, 2, 40), [0, 2e-300, 1, 9, 1]]
    )
    value, slope = link.value(lo, hi), link.derivative(lo, hi)
    for k in range(len(lo)):
        for share in (0.0, 0.3, 0.77, 1.0):
            t = lo[k] + share * (hi[k] - lo[k])
            t = min(max(t, lo[k]), hi[k])
            z = arb(1.3) * arb(float(t))
            if name == "sigmoid":
                s = 1 / (1 + (-z).exp())
                d = arb(1.3) * s / (1 + z.exp())
            elif name == "tanh":
                s = z.tanh()
                d = arb(1.3) / z.cosh() ** 2
            elif name == "softplus":
                s, d = (1 + z.exp()).log() / arb(1.3), 1 / (1 + (-z).exp())
            else:
                s, d = (
                    (arb(float(t)), arb(1)) if t > 0 else (arb(link.slope) * arb(float(t)), arb(link.slope))
                )
            tiny = arb(0, 1e-50)
            assert not s + tiny < arb(float(value[0][k])) and not s + tiny > arb(float(value[1][k])), (
                name,
                t,
            )
            assert not d + tiny < arb(float(slope[0][k])) and not d + tiny > arb(float(slope[1][k])), (
                name,
                t,
            )


def test_a_custom_activation_is_declared_and_a_lipschitz_constant_one_percent_too_small_is_found():
    x, y, v = rows(7)
    shape = dict(function=lambda t: 2.0 * t)
    right, wrong = Link.custom(shape["function"], 2.0, 2.0), Link.custom(shape["function"], 1.98, 2.0)
    for link, holds in ((right, True), (wrong, False)):
        premise, _ = SingleNeuron(link).conditions(x, 2.0 * (x @ v), v, "iii")
        # A linear s with no noise: the inequality is an equality.
        w = v + np.array([0.5, -0.2, 0.1])
        inner = np.mean((2 * x @ (w - v)) ** 2)
        assert bool(float(premise.slack(w)) >= -1e-12 * inner) is holds


REFUSALS = {
    "no such activation": (lambda: Link("gelu"), "Link.custom"),
    "slope of a sigmoid": (lambda: Link("sigmoid", 0.5), "slope"),
    "beta": (lambda: Link("tanh", beta=0.0), "beta"),
    "undeclared": (lambda: Link.custom(jnp.sin, float("nan")), "lipschitz"),
    "no function": (lambda: Link("custom", declared=1.0), "JAX function"),
    "no radius": (lambda: SingleNeuron(Link("relu")).conditions(*rows(), "i"), "radius"),
    "no slope": (lambda: SingleNeuron(Link("relu")).conditions(*rows(), "ii", 1.0), "slope stays above 0"),
    "form": (lambda: SingleNeuron(Link("relu")).conditions(*rows(), "iv"), "i, ii, iii"),
    "shape": (lambda: SingleNeuron(Link("relu")).problem(*rows()[:2], np.zeros(3)), "comparator"),
}


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: c.replace(" ", "-"))
def test_bad_arguments_are_refused(case):
    build, word = REFUSALS[case]
    with pytest.raises(InvalidInputError, match=word):
        build()


def test_the_checker_refuses_other_theorems_shapes_and_parameters():
    x, y, v = rows()
    given = (x, y, np.zeros((1, 3)), Link("tanh").describe())
    good = {"T": 10, "eta": 0.1, "alpha": 0.3}
    for call, word in (
        (("T3", *given, v[None], good), "no theorem"),
        (("T3r", *given, v, good), "shapes do not fit"),
        (("T3r", *given, v[None], {**good, "alpha": 0.0}), "alpha"),
        (
            ("T3r", *given[:3], {"name": "gelu", "slope": 0.0, "beta": 1.0}, v[None], good),
            "unknown activation",
        ),
        (("T3r", *given[:3], {"name": "tanh", "slope": 0.1, "beta": 1.0}, v[None], good), "slope"),
    ):
        with pytest.raises(CheckError, match=word):
            checker.derive(*call)
