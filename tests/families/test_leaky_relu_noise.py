"""Family F2: proxies and growth sample by sample against gradients written out in NumPy, near misses, refusals."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.families.activations import Activation
from proxyconvex.families.leaky_relu_noise import K0, THEOREMS, LeakyReluNoise, output_signs

CASES = {
    "leaky-0.3-m5": (5, Activation("leaky-relu", 0.3)),
    "leaky-0.5-m1": (1, Activation("leaky-relu", 0.5)),
    "linear-m4": (4, Activation("leaky-relu", 1.0)),
    "smooth-0.3-m6": (6, Activation("smooth-leaky", 0.3, 2.0)),
}


def rows(seed=0, n=9, d=4):
    """Rows of different norms; u errs on some of them, so that q takes both signs."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * rng.uniform(0.3, 2, (n, 1))
    y = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    y[:2] = (1.0, -1.0)
    return x, y, rng.standard_normal(d)


def sample_gradient(family, w, x, y):
    """(margin, p, gradient) of one row, neuron by neuron."""
    m, phi = family.width, family.activation
    pre = [float(w[r] @ x) for r in range(m)]
    a = [(1.0 if r < (m + 1) // 2 else -1.0) / math.sqrt(m) for r in range(m)]
    margin = y * sum(a[r] * float(phi.numpy(np.array(pre[r]))) for r in range(m))
    p = 1 / (1 + math.exp(margin)) if margin < 700 else 0.0
    grad = np.array([-p * y * a[r] * float(phi.derivative(np.array(pre[r]))) * x for r in range(m)])
    return margin, p, grad


def points(family, v, x, u):
    """Random weights of many sizes, and those that switch every neuron to the side that hurts most."""
    rng = np.random.default_rng(1)
    for scale in (1e-8, 0.1, 1.0, 30.0, 1e4):
        yield scale * rng.standard_normal(v.shape)
    yield from (np.zeros_like(v), v, -v, 2 * v, 1e-6 * v, 0.5 * v + rng.standard_normal(v.shape))
    for i in range(len(x)):
        yield np.tile(-x[i], (family.width, 1))
        yield np.tile(x[i], (family.width, 1)) * output_signs(family.width)[:, None]
        yield np.tile(-u, (family.width, 1))


def proxies(family, x, y, u, theorem, w, **constants):
    v = family.comparator(u, constants.get("kappa", 1.0))
    with jax.enable_x64(True):
        problem = family.problem(x, y, v, theorem=theorem, u=u, **constants)
        g, h = problem.proxy(w, problem.predict(w, x), x, y)
        return v, np.asarray(g), np.asarray(h)


@pytest.mark.parametrize("theorem", [t for t in THEOREMS if t != "T1"])
@pytest.mark.parametrize("case", list(CASES))
def test_proxy_convexity_holds_sample_by_sample(case, theorem):
    family = LeakyReluNoise(*CASES[case])
    x, y, u = rows()
    for kappa, theta in ((0.7, 0.2), (5.0, 1.9), (300.0, 6.0)):
        v = family.comparator(u, kappa)
        for w in points(family, v, x, u):
            _, g, h = proxies(family, x, y, u, theorem, w, kappa=kappa, theta=theta)
            for i in range(len(x)):
                margin, p, grad = sample_gradient(family, w, x[i], y[i])
                inner = float(np.sum(grad * (w - v)))
                size = (
                    p * (abs(margin) + kappa * abs(u @ x[i]) / family.activation.slope)
                    + abs(g[i])
                    + abs(h[i])
                )
                spread = p * np.linalg.norm(x[i]) * (np.linalg.norm(w) + np.linalg.norm(v))
                assert inner - g[i] + h[i] >= -1e-12 * (size + spread), (case, theorem, i)


@pytest.mark.parametrize("case", list(CASES))
def test_gradients_obey_the_growth_that_the_theorems_use(case):
    family = LeakyReluNoise(*CASES[case])
    x, y, u = rows()
    for w in points(family, family.comparator(u, 2.0), x, u):
        parts = [sample_gradient(family, w, x[i], y[i]) for i in range(len(x))]
        for i, (_, p, grad) in enumerate(parts):
            assert np.linalg.norm(grad) <= np.linalg.norm(x[i]) * p * (1 + 1e-12)
        full = np.mean([grad for _, _, grad in parts], axis=0)
        top = np.linalg.eigvalsh(x.T @ x / len(x))[-1]
        assert np.sum(full**2) <= top * np.mean([p * p for _, p, _ in parts]) * (1 + 1e-12)


@pytest.mark.parametrize("case", list(CASES))
def test_ppl_inequality_of_t1(case):
    family = LeakyReluNoise(*CASES[case])
    x, y, u = rows()
    for w in points(family, family.comparator(u, 2.0), x, u):
        _, g, h = proxies(family, x, y, u, "T1", w)
        full = np.mean([sample_gradient(family, w, x[i], y[i])[2] for i in range(len(x))], axis=0)
        reach = np.linalg.norm(u) / family.activation.slope * np.linalg.norm(full)
        assert reach >= g.mean() - h.mean() - 1e-12


@pytest.mark.parametrize("case", list(CASES))
def test_hand_written_pass_is_the_gradient(case):
    family = LeakyReluNoise(*CASES[case])
    x, y, u = rows()
    w = np.random.default_rng(3).standard_normal((family.width, 4))
    with jax.enable_x64(True):
        problem = family.problem(x, y, family.comparator(u, 1.0), u=u)
        _, q, grad = problem.loss_grad(w, x, y)
        q, grad = np.asarray(q), np.asarray(grad)
    parts = [sample_gradient(family, w, x[i], y[i]) for i in range(len(x))]
    np.testing.assert_allclose(y * q, [margin for margin, _, _ in parts], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(grad, np.mean([g for _, _, g in parts], axis=0), rtol=1e-12, atol=1e-14)


def test_tangent_form_is_an_equality_for_a_linear_network_and_one_percent_too_much_breaks_it():
    family = LeakyReluNoise(4, Activation("leaky-relu", 1.0))
    x, y, u = rows()
    y = np.where(x @ u > 0, 1.0, -1.0)
    w, kappa = np.random.default_rng(2).standard_normal((4, 4)), 3.0
    v, g, h = proxies(family, x, y, u, "T8", w, kappa=kappa)
    inner = [np.sum(sample_gradient(family, w, x[i], y[i])[2] * (w - v)) for i in range(len(x))]
    np.testing.assert_allclose(inner, g - h, rtol=1e-10, atol=1e-12)
    _, g, h = proxies(family, x, y, 1.01 * u, "T8", w, kappa=kappa)
    assert (np.array(inner) - g + h < 0).all()


def test_leak_claimed_one_percent_too_large_is_caught_where_all_neurons_leak():
    """V built for a leak of 0.303 while the network has 0.3: the tangent margins are 1% short."""
    true, claimed = (LeakyReluNoise(6, Activation("leaky-relu", c)) for c in (0.3, 0.303))
    x, y, u = rows()
    y = np.where(x @ u > 0, 1.0, -1.0)
    i = 0
    w = np.tile(-x[i], (6, 1))
    for family, holds in ((true, True), (claimed, False)):
        v = family.comparator(u, 50.0)
        _, p, grad = sample_gradient(true, w, x[i], y[i])
        margin = y[i] * float(true.activation.numpy(w @ x[i]) @ output_signs(6)) / math.sqrt(6)
        needed = p * (50.0 * y[i] * (u @ x[i]) - margin)
        assert holds == bool(np.sum(grad * (w - v)) >= needed - 1e-9)


def test_k0_is_the_least_upper_bound():
    t = np.linspace(1.2, 1.4, 200_001)
    peak = (t / (1 + np.exp(t))).max()
    assert peak <= K0 <= peak * (1 + 1e-9)


def test_omega_bounds_what_the_smooth_network_misses_homogeneity_by():
    family = LeakyReluNoise(*CASES["smooth-0.3-m6"])
    x, _, u = rows()
    worst = 0.0
    w = np.zeros((6, 4))
    w[3:] = 40 * x[0]
    for weights in (w, *points(family, family.comparator(u, 1.0), x, u)):
        z, phi = weights @ x.T, family.activation
        miss = (output_signs(6) @ (phi.numpy(z) - phi.derivative(z) * z)) / math.sqrt(6)
        worst = max(worst, float(np.abs(miss).max()))
    assert 0.99 * family.omega <= worst <= family.omega * (1 + 1e-12)


def test_initial_weights_are_those_of_the_seed():
    family = LeakyReluNoise(3, Activation("leaky-relu", 0.5), 0.25, 7)
    expected = np.random.Generator(np.random.PCG64(7)).standard_normal((3, 2)) * 0.25
    assert family.initial(2).tobytes() == expected.tobytes()
    assert family.describe()["activation"] == {"name": "leaky-relu", "slope": 0.5, "beta": 1.0}


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: LeakyReluNoise(0, Activation("leaky-relu", 0.5)), "width"),
        (lambda: LeakyReluNoise(2.5, Activation("leaky-relu", 0.5)), "width"),
        (lambda: LeakyReluNoise(4, Activation("leaky-relu", 0.0)), "slope"),
        (lambda: LeakyReluNoise(4, Activation("relu")), "activation"),
        (lambda: LeakyReluNoise(4, Activation("leaky-relu", 0.5), math.nan), "init_scale"),
        (lambda: LeakyReluNoise(4, Activation("leaky-relu", 0.5), seed=-1), "seed"),
    ],
    ids=["no-width", "width-not-whole", "no-leak", "relu", "nan-scale", "negative-seed"],
)
def test_bad_architecture_is_refused(build, word):
    with pytest.raises(InvalidInputError, match=word):
        build()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"x": np.full((9, 4), np.nan)}, "features"),
        ({"y": np.ones(9)}, "targets"),
        ({"y": np.ones(5)}, "targets"),
        ({"x": np.ones((9, 4), dtype=np.float32)}, "features"),
        ({"v": np.ones((2, 4))}, "comparator"),
        ({"theorem": "T9"}, "theorem"),
        ({"kappa": 0.0}, "kappa"),
        ({"theta": math.inf}, "theta"),
        ({"u": np.ones(3)}, "u = "),
        ({"margins": np.ones(9)}, "proxy"),
    ],
    ids=[
        "nan",
        "one-class",
        "wrong-length",
        "float32",
        "shape-v",
        "theorem",
        "kappa",
        "theta",
        "shape-u",
        "unknown",
    ],
)
def test_bad_data_is_refused(change, word):
    family = LeakyReluNoise(5, Activation("leaky-relu", 0.5))
    x, y, u = rows()
    settings = {"x": x, "y": y, "v": family.comparator(u, 1.0), "u": u} | change
    with pytest.raises(InvalidInputError, match=word):
        family.problem(settings.pop("x"), settings.pop("y"), settings.pop("v"), **settings)
