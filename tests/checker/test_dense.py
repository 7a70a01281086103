"""Curvature of deep networks against finite differences, brute force and 60-digit arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from proxyconvex.families.activations import Activation
from proxyconvex.families.dense import DenseNetwork
from proxyconvex_checker import dense

ACTIVATIONS = [Activation("softplus", 0.0, 2.0), Activation("smooth-leaky", 0.2, 3.0)]


def setting(phi, hidden=(5, 4), seed=0, scale=1.0):
    network = DenseNetwork(hidden, 1, phi, 2.0, "signs", scale, False, seed)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((6, 3))
    y = np.where(np.arange(6) % 2, 1.0, -1.0)
    v = network.initial(3)
    return network, x, y, v, rng


def output(network, w, x):
    h = x
    for weight in network.layers(w, 3):
        h = network.activation.numpy(h @ weight.T)
    return h @ network.output_weights()[:, 0]


def examine(network, x, y, v, radius):
    return dense.examine(
        x, y, network.layers(v, 3), network.output_weights()[:, 0], network.activation.describe(), radius
    )


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda a: a.name)
@pytest.mark.parametrize("hidden", [(4,), (5, 4), (4, 3, 4)], ids=str)
def test_curvature_and_gradients_bound_every_point_of_the_ball(phi, hidden):
    network, x, y, v, rng = setting(phi, hidden)
    for radius in (0.05, 0.7):
        found = examine(network, x, y, v, radius)
        seen = 0.0
        for k in range(40):
            u, w = rng.standard_normal(v.size), rng.standard_normal(v.size)
            if k % 4 == 0:  # adversarial: everything in one layer, or in one neuron
                u[: v.size // 2] = 0
            if k % 4 == 1:
                u[network.layers(np.arange(v.size), 3)[-1][0].astype(int)] *= 30
            u /= np.linalg.norm(u)
            w = v + radius * w / np.linalg.norm(w) * rng.uniform() ** 0.2
            step = 2e-4
            second = (
                output(network, w + step * u, x)
                - 2 * output(network, w, x)
                + output(network, w - step * u, x)
            ) / step**2
            slope = (output(network, w + step * u, x) - output(network, w - step * u, x)) / (2 * step)
            assert (np.abs(second) <= found.hessian * (1 + 1e-6) + 1e-6).all()
            assert (np.abs(slope) <= found.gradient * (1 + 1e-6)).all()
            features = network.features(w, x)
            assert features.gradient_norms().max() <= found.gradient
            tangent = y * (output(network, w, x) + features.directional(network.layers(v - w, 3))[:, 0])
            assert (tangent >= found.margins).all()
            seen = max(seen, float((np.abs(second) / found.hessian).max()))
        assert seen > 1e-3  # the bound is not out of all proportion


def test_one_layer_is_tight_enough_to_be_falsified_when_shrunk():
    # One neuron pair at the kink of the derivative: N'' = a H (x.u)^2 exactly, which the bound must not undercut.
    network, _, _, _, _ = setting(ACTIVATIONS[0], (2,))
    x, v = np.array([[1.0, 0.0, 0.0]]), np.zeros(6)
    found = examine(network, x, np.array([1.0]), v, 1e-9)
    step = 1e-3
    u = np.array([1.0, 0, 0, 0, 0, 0])
    second = (
        abs(output(network, step * u, x) - 2 * output(network, v, x) + output(network, -step * u, x))[0]
        / step**2
    )
    assert second <= found.hessian[0] * (1 + 1e-9)
    assert second > 0.99 * found.hessian[0]


def test_center_margins_are_below_exact_ones():
    network, x, y, v, _ = setting(Activation("smooth-leaky", 0.25, 2.0))
    found = examine(network, x, y, v, 0.1)
    for i in range(len(x)):  # smooth-leaky is rational arithmetic, so the exact value exists
        h = [Fraction(float(t)) for t in x[i]]
        for weight in network.layers(v, 3):
            z = [sum(Fraction(float(a)) * b for a, b in zip(row, h, strict=True)) for row in weight]
            h = []
            for t in z:
                k = min(max(t * Fraction(2) / 4 + Fraction(1, 2), Fraction(0)), Fraction(1))
                h.append(Fraction(1, 4) * t + Fraction(3, 4) * (k * k + max(t - 1, Fraction(0))))
        exact = sum(
            Fraction(float(a)) * b for a, b in zip(network.output_weights()[:, 0], h, strict=True)
        ) * int(y[i])
        assert Fraction(float(found.at_center[i])) <= exact
        assert float(exact) - found.at_center[i] < 1e-12
        assert found.margins[i] < found.at_center[i]


def test_the_remainder_falls_with_the_output_scale():
    # The same margins at scale s need 1/s of the distance: the remainder falls like 1/s.
    lost = []
    for scale in (1.0, 100.0):
        network, x, y, v, _ = setting(ACTIVATIONS[0], scale=scale)
        found = examine(network, x, y, v, 0.5 / scale)
        lost.append(float((found.at_center - found.margins).max()))
    assert lost[1] < lost[0] / 50
