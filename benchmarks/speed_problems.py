"""The problems and the competitors of the speed benchmarks: PyTorch autograd loops and an untraced JAX loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from proxyconvex.families.activations import Activation
from proxyconvex.families.base import MarginProblem, Problem
from proxyconvex.families.two_layer import (
    forward,
    forward_backward,
    forward_backward_products,
    pre_activations,
)


class Neuron(Problem):
    """One sigmoid neuron under the squared loss, gradient by autodiff, proxies of theory.md F3 (i)."""

    features: Any
    targets: Any
    comparator: Any

    def predict(self, w, x):
        return jax.nn.sigmoid(x @ w)

    def output(self, a):
        q = jax.nn.sigmoid(a)
        return q, q * (1 - q)

    def pointwise_loss(self, q, y):
        return (q - y) ** 2 / 2

    def slope(self, q, y):
        return jnp.abs(q - y)

    def error(self, q, y):
        return jnp.abs(q - y)

    def proxy(self, w, q, x, y):
        return self.proxy_at(None, x @ self.comparator, q, y)

    def proxy_at(self, a, b, q, y):
        t = jax.nn.sigmoid(b)
        return 4.0 * (q - t) ** 2 * q * (1 - q), 0.5 * jnp.abs(t - y)


class TwoLayer(MarginProblem):
    """Two-layer network under the logistic loss, gradient by autodiff; g is the loss, h its value at margin 1."""

    features: Any
    targets: Any
    comparator: Any
    signs: Any
    activation: Activation = eqx.field(static=True)

    def predict(self, w, x):
        return self.activation(x @ w.T) @ self.signs / math.sqrt(w.shape[0])

    def proxy(self, w, q, x, y):
        return self.pointwise_loss(q, y), jnp.full_like(q, math.log1p(math.exp(-1)))


class FastTwoLayer(TwoLayer):
    """The same network with the hand-written pass of `families.two_layer`."""

    def predict(self, w, x):
        return forward(w, x, self.activation, self.signs)

    def loss_grad(self, w, x, y):
        return forward_backward(w, x, y, self.activation, self.signs)

    def comparator_rows(self):
        return pre_activations(self.comparator, self.features)

    def loss_grad_products(self, w, x, y, known):
        return forward_backward_products(w, x, y, self.activation, self.signs, known)


def neuron(n: int, d: int) -> tuple[Neuron, np.ndarray]:
    """A noisy neuron problem and zero weights."""
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(n, d)) / math.sqrt(d), rng.normal(size=d)
    return Neuron(x, 1 / (1 + np.exp(-x @ v)) + 0.1 * rng.normal(size=n), v), np.zeros(d)


def two_layer(
    cls: type[TwoLayer], n: int, d: int, m: int, activation: Activation
) -> tuple[TwoLayer, np.ndarray]:
    """Unit rows, symmetric initial weights and a comparator at distance about sqrt(m) / 4."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    half = rng.normal(size=(m // 2, d))
    w, signs = np.concatenate([half, half]), np.repeat([1.0, -1.0], m // 2)
    v = w + 0.03 * rng.normal(size=(m, d))
    return cls(x, np.where(x[:, 0] > 0, 1.0, -1.0), v, signs, activation), w


def untraced(
    problem: Problem,
    w: np.ndarray,
    eta: float,
    steps: int,
    batch: int,
    chunk: int,
    through: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda loop: loop,
) -> Callable[[], object]:
    """The same training in JAX with nothing recorded: rows drawn per chunk, one compiled loop with a dynamic bound.

    ``through`` may change how the loop is compiled; by default it is what anybody would write.
    """
    with jax.enable_x64(True):
        ready = jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a, problem)
        x, y, start = ready.features, ready.targets, jnp.asarray(w)

        @jax.jit
        @through
        def loop(w, rows, count, x, y):
            body = lambda t, w: w - eta * ready.loss_grad(w, x[rows[t]], y[rows[t]])[2]  # noqa: E731
            return jax.lax.fori_loop(0, count, body, w)

    def run() -> object:
        with jax.enable_x64(True):
            rng, w = np.random.default_rng(0), start
            for t in range(0, steps, chunk):
                rows = rng.integers(0, len(y), size=(chunk, batch))
                w = loop(w, rows, min(chunk, steps - t), x, y)
            return np.asarray(w)

    return run


def torch_neuron(problem: Neuron, w: np.ndarray, eta: float, steps: int) -> Callable[[], object]:
    """PyTorch autograd, batch 1, the same scalars recorded in every step."""
    import torch

    x, y, v = (
        torch.from_numpy(np.asarray(a)) for a in (problem.features, problem.targets, problem.comparator)
    )

    def run() -> object:
        p = torch.tensor(w, requires_grad=True)
        record = np.empty((steps, 6))
        for t, i in enumerate(np.random.default_rng(0).integers(0, len(y), size=steps).tolist()):
            q = torch.sigmoid(x[i] @ p)
            loss = (q - y[i]) ** 2 / 2
            (grad,) = torch.autograd.grad(loss, p)
            with torch.no_grad():
                target, r = torch.sigmoid(x[i] @ v), p - v
                g, h = 4.0 * (q - target) ** 2 * q * (1 - q), 0.5 * (target - y[i]).abs()
                record[t] = torch.stack([loss, g, h, grad @ r, grad @ grad, r @ r]).numpy()
                p -= eta * grad
        return record

    return run


def torch_two_layer(
    problem: TwoLayer, w: np.ndarray, eta: float, steps: int, batch: int
) -> Callable[[], object]:
    """PyTorch autograd in float64, mini-batches, the same scalars recorded in every step."""
    import torch

    x, y, v, a = (
        torch.from_numpy(np.asarray(a))
        for a in (problem.features, problem.targets, problem.comparator, problem.signs / math.sqrt(len(w)))
    )
    h = torch.tensor(math.log1p(math.exp(-1)), dtype=torch.float64)

    def run() -> object:
        p = torch.tensor(w, requires_grad=True)
        record = np.empty((steps, 6))
        for t, i in enumerate(
            torch.from_numpy(np.random.default_rng(0).integers(0, len(y), size=(steps, batch)))
        ):
            q = torch.nn.functional.softplus(x[i] @ p.T) @ a
            loss = torch.nn.functional.softplus(-y[i] * q).mean()
            (grad,) = torch.autograd.grad(loss, p)
            with torch.no_grad():
                r = p - v
                record[t] = torch.stack(
                    [loss, loss, h, (grad * r).sum(), (grad * grad).sum(), (r * r).sum()]
                ).numpy()
                p -= eta * grad
        return record

    return run


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def paired(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times of each run, alternating, after one warm-up call each (which compiles)."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(rounds):
        # Every other round in reverse, so that nobody always goes first.
        for name in list(runs)[:: 1 if k % 2 == 0 else -1]:
            times[name].append(seconds(runs[name]))
    return times
