"""The hand-written two-layer pass against autodiff, NumPy and 300-bit arithmetic."""

from __future__ import annotations

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_problems import two_layer

from proxyconvex.families.two_layer import forward, forward_backward, softplus_and_sigmoid


@pytest.mark.parametrize("rows", [1, 3, 30], ids=["one row", "fewer rows than columns", "more rows"])
@pytest.mark.parametrize(
    ("name", "slope"), [("softplus", 0.0), ("smooth-leaky", 0.3), ("leaky-relu", 0.5), ("relu", 0.0)]
)
def test_equals_autodiff_and_numpy(name, slope, rows):
    problem, w = two_layer(name, slope=slope)
    w = w + 0.1 * np.random.default_rng(1).normal(size=w.shape)
    x, y = problem.features[:rows], problem.targets[:rows]
    with jax.enable_x64(True):
        args = [jnp.asarray(a) for a in (w, x, y)]
        loss, q, grad = forward_backward(*args, problem.activation, jnp.asarray(problem.signs))
        auto = problem.loss_grad(*args)
        outputs = forward(args[0], args[1], problem.activation, jnp.asarray(problem.signs))
        for a, b in zip((loss, q, grad), auto, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(outputs, q, rtol=1e-13, atol=1e-15)
        expected = problem.numpy_row(w, np.arange(rows))
        np.testing.assert_allclose(grad, expected[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(loss, expected[1], rtol=1e-12)


def test_softplus_and_sigmoid_to_a_few_units_in_the_last_place():
    t = np.concatenate(
        [np.linspace(-700, 700, 1401), np.random.default_rng(0).normal(size=2000) * 3, [0.0, 1e-300]]
    )
    with jax.enable_x64(True):
        value, slope = (np.asarray(a) for a in softplus_and_sigmoid(jnp.asarray(t)))
    precision, flint.ctx.prec = flint.ctx.prec, 300
    try:
        exact = np.array([float(flint.arb(x).exp().log1p()) for x in t.tolist()])
        exact_slope = np.array([float(1 / (1 + (-flint.arb(x)).exp())) for x in t.tolist()])
    finally:
        flint.ctx.prec = precision
    assert np.max(np.abs(value - exact) / exact) < 3e-15
    assert np.max(np.abs(slope - exact_slope) / exact_slope) < 1e-15
