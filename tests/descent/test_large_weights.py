"""Large weights take other sums than small ones, and single rows the structure of the gradient: both against NumPy."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proxyconvex.core.methods import SGD, ConstantStep
from proxyconvex.descent import kernels
from proxyconvex.descent.engine import Engine, prepare
from proxyconvex.descent.ledger import trace_identity
from proxyconvex.descent.run import train
from proxyconvex.families.activations import Activation
from proxyconvex.families.leaky_relu_noise import LeakyReluNoise

STEPS, ETA = 12, 0.3


def noisy_halfspace(offset: float | None = None):
    """63 neurons on 41 features (an odd number of weights); with ``offset`` the comparator is that far from w_0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 41)) / math.sqrt(41)
    y = np.where(x[:, 0] + 0.05 * rng.normal(size=30) > 0, 1.0, -1.0)
    family = LeakyReluNoise(63, Activation("smooth-leaky", slope=0.5), 0.1)
    w = family.initial(41)
    v = family.comparator(np.eye(41)[0], 8.0) if offset is None else w + offset
    return family.problem(x, y, v, u=np.eye(41)[0], kappa=8.0), w


def numpy_run(problem, w, drawn):
    """Inner product, squared gradient and squared distance of every step, and the final weights."""
    a, c, beta, out = problem.signs / math.sqrt(len(w)), problem.activation.slope, problem.activation.beta, []
    for rows in drawn:
        x, y = problem.features[rows], problem.targets[rows]
        z = x @ w.T
        ramp = np.clip(z * beta / 4 + 0.5, 0, 1)
        value = c * z + (1 - c) * (2 / beta * ramp**2 + np.maximum(z - 2 / beta, 0))
        pull = -y / (1 + np.exp(y * (value @ a))) / len(y)
        grad = ((c + (1 - c) * ramp) * a * pull[:, None]).T @ x
        r = w - problem.comparator
        out.append([(grad * r).sum(), (grad**2).sum(), (r**2).sum()])
        w = w - ETA * grad
    return np.array(out).T, w


@pytest.mark.parametrize("batch", [1, 4], ids=["one row: from the structure", "four rows: direct"])
def test_products_of_every_step_against_numpy(batch):
    problem, w = noisy_halfspace()
    method = SGD(ConstantStep(ETA), STEPS, batch)
    assert w.size >= kernels.LARGE and w.size % kernels.FOLD
    with jax.enable_x64(True):
        engine = Engine(prepare(problem), method, [3], False, None)
        engine.tabulate(w)
    assert (engine.table is not None) == (batch == 1)
    trace = train(problem, w, method, seed=3, online=True)
    expected, final = numpy_run(problem, w, engine.samplers[0].rows(0, STEPS))
    for name, column in zip(("inner", "grad_sq", "dist_sq"), expected, strict=True):
        np.testing.assert_allclose(trace.online[name], column, rtol=1e-12)
    np.testing.assert_allclose(trace.final_w, final, rtol=1e-12, atol=1e-14)
    assert trace_identity(trace).status.name == "HOLDS"


def test_comparator_close_for_its_size_takes_the_direct_form():
    problem, w = noisy_halfspace(offset=1e-7)
    with jax.enable_x64(True):
        engine = Engine(prepare(problem), SGD(ConstantStep(ETA), STEPS), [0], False, None)
        engine.tabulate(w)
    assert engine.table is None
    method = SGD(ConstantStep(1e-7), STEPS)
    trace = train(problem, w, method, online=True)
    r, (x, y) = w - problem.comparator, (problem.features, problem.targets)
    i = engine.samplers[0].rows(0, 1)[0]
    with jax.enable_x64(True):
        grad = np.asarray(prepare(problem).loss_grad(jnp.asarray(w), jnp.asarray(x[i]), jnp.asarray(y[i]))[2])
    size = math.sqrt((grad**2).sum() * (r**2).sum())
    assert abs(trace.online["inner"][0] - (grad * r).sum()) <= 1e-14 * size


@pytest.mark.parametrize("size", [1, 7, 8, 130, 300, 2047, 2048, 2583])
def test_full_sum_and_distance(size):
    rng = np.random.default_rng(size)
    w, v = rng.normal(size=(2, size))
    with jax.enable_x64(True):
        total = jax.jit(lambda p: kernels.full_sum(p * p))(jnp.asarray(w))
        far = jax.jit(kernels.distance_sq)(jnp.asarray(w), jnp.asarray(v))
    assert float(total) == pytest.approx(math.fsum(w * w), rel=1e-14)
    assert float(far) == pytest.approx(math.fsum((w - v) ** 2), rel=1e-14)


@pytest.mark.parametrize("shape", [(7,), (300,), (8, 256), (2583,), (41, 63)], ids=str)
def test_gradient_products_against_exact_sums(shape):
    rng = np.random.default_rng(3)
    grad, w, v = rng.normal(size=(3, *shape))
    with jax.enable_x64(True):
        got = jax.jit(kernels.gradient_products)(*map(jnp.asarray, (grad, w, v)))
    r = w - v
    for value, (a, b) in zip(got, ((grad, r), (grad, grad), (r, r)), strict=True):
        terms = (a * b).ravel()
        assert abs(float(value) - math.fsum(terms)) <= 1e-14 * math.fsum(abs(terms))


def test_an_option_this_xla_does_not_know_is_left_out(monkeypatch):
    from proxyconvex.descent import compilation

    known = compilation.options.__wrapped__
    assert known() in ({}, compilation.EIGEN_PRODUCTS)
    monkeypatch.setattr(compilation, "EIGEN_PRODUCTS", {"xla_cpu_no_such_option": ""})
    assert known() == {}
    twice = compilation.small_products(lambda x: 2 * x)
    monkeypatch.setattr(compilation, "options", known)
    assert twice(np.array([1.5])).tolist() == [3.0]
