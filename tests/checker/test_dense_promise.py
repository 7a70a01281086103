"""T8 and T4 + T5 of dense networks: against runs in plain NumPy, and refusals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from proxyconvex.families.activations import Activation
from proxyconvex.families.dense import DenseNetwork
from proxyconvex_checker import CheckError, dense_promise, initial, margins

SOFT = Activation("softplus", 0.0, 1.0)
LEAK = Activation("smooth-leaky", 0.25, 2.0)


def fields(network, name="deep-relu"):
    return {
        "name": name,
        "hidden": list(network.hidden),
        "activation": network.activation.describe(),
        "gain": network.gain,
        "head": network.head,
        "output_scale": network.output_scale,
        "paired": network.paired,
        "seed": network.seed,
    }


def setting(phi=SOFT, hidden=(6, 6), head="gaussian", scale=1e5, length=1e-4, n=10):
    network = DenseNetwork(hidden, 1, phi, 2.0, head, scale, True, 5)
    rng = np.random.default_rng(1)
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    x = np.column_stack([rng.standard_normal((n, 2)) + 2 * y[:, None], np.ones(n)])
    start = network.initial(3)
    direction = network.features(start, x).combine(y[:, None] / n)
    return network, x, y, start, start + length * direction / np.linalg.norm(direction)


def gradient(network, w, x, y):
    features = network.features(w, x)
    q = y * features.outputs[:, 0]
    p = 1 / (1 + np.exp(q))
    return float(np.mean(np.logaddexp(0, -q))), features.combine((-y * p / len(y))[:, None]), p, q


@pytest.mark.parametrize("head", ["signs", "gaussian"])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("hidden", [(4,), (5, 6), (7, 3, 4)], ids=str)
def test_the_network_is_rebuilt_to_the_bit(hidden, paired, head):
    network = DenseNetwork(hidden, 1, SOFT, 1.7, head, 3.3, paired, 11)
    given = fields(network)
    w = initial.dense(given, 5)
    assert np.array_equal(w, network.initial(5))
    assert np.array_equal(initial.dense_head(given), network.output_weights()[:, 0])
    for a, b in zip(initial.dense_layers(given, w, 5), network.layers(w, 5), strict=True):
        assert np.array_equal(a, b)


def small_loss(network, x, y, start, v, steps, rho, share=0.9):
    near = dense_promise.prepare(x, y, start, fields(network), v)
    found = near.on_ball(rho)
    eta = share / float(np.mean(found.gradients**2 / 4 + found.hessian))
    params = {"T": steps, "eta": eta, "rho": rho}
    return dense_promise.derive("T4T5", x, y, start, fields(network), v, params), params


@pytest.mark.parametrize("phi", [SOFT, LEAK], ids=lambda a: a.name)
@pytest.mark.parametrize("share", [0.5, 1.0, 1.6])
def test_the_loss_of_a_run_keeps_the_promise(phi, share):
    network, x, y, w, v = setting(phi)
    steps = 300
    found, params = small_loss(network, x, y, w, v, steps, 2e-4, share)
    assert found["bound"] < 1.0
    losses = []
    for _ in range(steps):
        assert np.linalg.norm(w - v) <= found["radius"]
        f, g, _, _ = gradient(network, w, x, y)
        losses.append(f)
        # The premises at this point: proxy convexity, and the Lipschitz constant along the step.
        assert g @ (w - v) >= f - found["h"] - 1e-12
        after = w - params["eta"] * g
        change = np.linalg.norm(gradient(network, after, x, y)[1] - g)
        assert change <= found["L"] * np.linalg.norm(after - w) * (1 + 1e-9)
        w = after
    last = gradient(network, w, x, y)[0]
    assert np.all(np.diff([*losses, last]) <= 0)
    assert last <= found["bound"]
    assert last > found["bound"] / 1000  # not out of all proportion


@pytest.mark.parametrize("hidden", [(6,), (8, 8), (12, 12)], ids=str)
def test_normalised_descent_gets_below_k_errors(hidden):
    network, x, y, w, v = setting(SOFT, hidden, "signs")
    n, k = len(y), 2
    near = dense_promise.prepare(x, y, w, fields(network), v)
    found = near.on_ball(near.distance)
    level, steep = margins.margin_floor(found.margins, k), Fraction(found.gradient) ** 2
    c = margins.best_step(level, steep)
    steps = margins.steps_needed(level, c, steep, Fraction(near.distance) ** 2)
    params = {"T": steps, "k": k, "c": c, "floor": 0.09}
    promised = dense_promise.derive("T8", x, y, w, fields(network), v, params)
    assert promised["bound"] == (k - 1) / n
    errors = []
    for _ in range(steps):
        _, g, p, q = gradient(network, w, x, y)
        errors.append(int(np.sum(q <= 0)))
        w = w - c / max(p.mean(), params["floor"]) * g
    assert min(errors) < k
    with pytest.raises(CheckError, match="does not exceed"):
        dense_promise.derive("T8", x, y, network.initial(3), fields(network), v, {**params, "T": steps - 1})


def refusals():
    network, x, y, start, v = setting()
    found, params = small_loss(network, x, y, start, v, 300, 2e-4)

    def derive(network=network, start=start, v=v, theorem="T4T5", y=y, **changed):
        return dense_promise.derive(theorem, x, y, start, fields(network), v, {**params, **changed})

    unpaired = DenseNetwork(network.hidden, 1, SOFT, 2.0, "gaussian", 1e5, False, 5)
    relu = DenseNetwork(network.hidden, 1, Activation("relu"), 2.0, "gaussian", 1e5, True, 5)
    return {
        "small ball": (lambda: derive(rho=found["radius"] * 0.99), "may go as far"),
        "long step": (lambda: derive(eta=2.1 * params["eta"] / 0.9), "is not below 2 / L"),
        "unpaired": (lambda: derive(unpaired), "opposite pairs"),
        "relu": (lambda: derive(relu), "not smooth"),
        "far comparator": (lambda: derive(v=start + 30 * (v - start)), "may go as far|below 2 / L"),
        "theorem": (lambda: derive(theorem="T3T5"), "unknown theorem"),
        "shape": (lambda: derive(v=v[:-1]), "weights for a network"),
        "targets": (lambda: derive(y=np.abs(y) * 2), "targets must be"),
        "steps": (lambda: derive(T=0), "whole number of steps"),
    }


@pytest.mark.parametrize("case", refusals().values(), ids=refusals())
def test_refusals(case):
    call, message = case
    with pytest.raises(CheckError, match=message):
        call()
