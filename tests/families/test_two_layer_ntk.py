"""The two-layer family: gradients, proxies and refusals, against closed forms in NumPy."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.families.activations import Activation
from proxyconvex.families.two_layer_ntk import TwoLayerNTK

ACTIVATIONS = [
    Activation("softplus", 0.0, 1.5),
    Activation("smooth-leaky", 0.2, 2.0),
    Activation("leaky-relu", 0.3),
    Activation("relu"),
]
named = pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda a: a.name)


def bound(phi, theorem="T8", n=9, d=4, m=6):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)), np.where(np.arange(n) % 2, 1.0, -1.0)
    family = TwoLayerNTK(m, phi, 0.7, seed=3)
    v, q = rng.standard_normal((m, d)), rng.standard_normal(n)
    return family, family.problem(x, y, v, theorem=theorem, margins=q), x, y, v, q


def output(phi, w, x):
    a = np.repeat([1.0, -1.0], len(w) // 2)
    return phi.numpy(x @ w.T) @ a / math.sqrt(len(w))


@named
def test_network_is_zero_at_paired_initial_weights(phi):
    family, problem, x, _, _, _ = bound(phi)
    w0 = family.initial(x.shape[1])
    assert np.array_equal(w0[:3], w0[3:])
    assert np.array_equal(w0, family.initial(x.shape[1]))
    with jax.enable_x64(True):
        assert np.abs(problem.predict(w0, x)).max() < 1e-15


@named
def test_loss_and_gradient_equal_finite_differences(phi):
    _, problem, x, y, v, _ = bound(phi)
    with jax.enable_x64(True):
        loss, q, grad = (np.asarray(r) for r in problem.loss_grad(v, x, y))
    assert q == pytest.approx(output(phi, v, x), abs=1e-13)
    assert loss == pytest.approx(np.mean(np.logaddexp(0, -y * q)), rel=1e-13)
    for r, j in [(0, 0), (2, 3), (5, 1)]:
        move = np.zeros_like(v)
        move[r, j] = 1e-6
        up, down = (np.mean(np.logaddexp(0, -y * output(phi, v + s * move, x))) for s in (1, -1))
        assert grad[r, j] == pytest.approx((up - down) / 2e-6, abs=1e-8)


@named
def test_inner_product_is_the_identity_the_proxies_come_from(phi):
    # <grad f, w - V> = mean p (y N_lin(V) - y N), so g of T8 with q = y N_lin makes the slack zero.
    family, problem, x, y, v, _ = bound(phi)
    w = family.initial(x.shape[1]) + 0.3
    a = np.repeat([1.0, -1.0], 3)
    linear = output(phi, w, x) + ((phi.derivative(x @ w.T) * (x @ (v - w).T)) @ a) / math.sqrt(6)
    exact = family.problem(x, y, v, theorem="T8", margins=y * linear)
    convex = family.problem(x, y, v, theorem="T4T5", margins=y * linear)
    with jax.enable_x64(True):
        _, q, grad = problem.loss_grad(w, x, y)
        g, h = (np.asarray(k) for k in exact.proxy(w, q, x, y))
        g2, h2 = (np.asarray(k) for k in convex.proxy(w, q, x, y))
    inner = float(np.sum(np.asarray(grad) * (w - v)))
    assert inner == pytest.approx(np.mean(g - h), rel=1e-11)
    assert np.all(h == 0)
    assert inner >= np.mean(g2) - np.mean(h2)
    assert h2 == pytest.approx(np.logaddexp(0, -y * linear))
    p = 1 / (1 + np.exp(y * output(phi, w, x)))
    assert g == pytest.approx(p * y * linear + p * np.log(p / (1 - p)), rel=1e-9, abs=1e-12)


def test_default_margins_are_those_of_the_comparator():
    family, _, x, y, v, _ = bound(ACTIVATIONS[0])
    assert family.problem(x, y, v).margins == pytest.approx(y * output(ACTIVATIONS[0], v, x))


@pytest.mark.parametrize("width", [3, 0, -2, 2.0, True, "8"], ids=str)
def test_bad_widths_are_refused(width):
    with pytest.raises(InvalidInputError, match="width"):
        TwoLayerNTK(width, ACTIVATIONS[0], 1.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, "1"], ids=str)
def test_bad_scales_are_refused(scale):
    with pytest.raises(InvalidInputError, match="init_scale"):
        TwoLayerNTK(4, ACTIVATIONS[0], scale)


BAD_DATA = {
    "float16": (lambda x, y: (x.astype(np.float16), y), "float64"),
    "nan": (lambda x, y: (x * np.where(np.arange(4) == 1, np.nan, 1), y), "NaN"),
    "one class": (lambda x, y: (x, np.ones_like(y)), "both -1 and"),
    "labels 0 and 1": (lambda x, y: (x, (y + 1) / 2), "both -1 and"),
    "too few targets": (lambda x, y: (x, y[:-1]), "shape"),
    "a row of zeros": (lambda x, y: (x * (np.arange(9) > 0)[:, None], y), "row 0 is zero"),
    "a list": (lambda x, y: (x.tolist(), y), "NumPy array"),
}


@pytest.mark.parametrize("case", BAD_DATA, ids=str)
def test_bad_data_is_refused(case):
    family, _, x, y, v, _ = bound(ACTIVATIONS[0])
    change, message = BAD_DATA[case]
    with pytest.raises(InvalidInputError, match=message):
        family.problem(*change(x, y), v)


def test_bad_comparators_margins_and_theorems_are_refused():
    family, problem, x, y, v, q = bound(ACTIVATIONS[0])
    for kwargs in ({"margins": q[:-1]}, {"margins": q * np.nan}, {"theorem": "T1"}, {"kappa": 1.0}):
        with pytest.raises(InvalidInputError):
            family.problem(x, y, v, **kwargs)
    with pytest.raises(InvalidInputError, match="comparator"):
        family.problem(x, y, v[:-1])
    with pytest.raises(InvalidInputError, match="full batches"):
        problem.proxy(v, q[:3], x[:3], y[:3])
