"""Two small problems with hand-written NumPy formulas: the oracles of the descent tests."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from proxyconvex.families.activations import Activation
from proxyconvex.families.base import MarginProblem, Problem


class Neuron(Problem):
    """One sigmoid neuron, squared loss ``(s(w.x) - y)^2 / 2``; g and h as in family F3 (i) with L_s = 1/4."""

    features: np.ndarray
    targets: np.ndarray
    comparator: np.ndarray
    radius: float = eqx.field(static=True, default=2.0)

    def predict(self, w, x):
        return jax.nn.sigmoid(x @ w)

    def pointwise_loss(self, q, y):
        return (q - y) ** 2 / 2

    def slope(self, q, y):
        return jnp.abs(q - y)

    def error(self, q, y):
        return jnp.abs(q - y)

    def proxy(self, w, q, x, y):
        target = jax.nn.sigmoid(x @ self.comparator)
        g = 4.0 * (q - target) ** 2 * q * (1 - q)
        return g, 0.25 * self.radius * jnp.abs(target - y)

    def numpy_row(self, w, rows):
        """(gradient, loss, g, h, error, slope) on some rows, in NumPy."""
        x, y = self.features[rows], self.targets[rows]
        q, target = 1 / (1 + np.exp(-x @ w)), 1 / (1 + np.exp(-x @ self.comparator))
        grad = ((q - y) * q * (1 - q)) @ x / len(y)
        g, h = 4.0 * (q - target) ** 2 * q * (1 - q), 0.25 * self.radius * np.abs(target - y)
        e = np.abs(q - y).mean()
        return grad, ((q - y) ** 2 / 2).mean(), g.mean(), h.mean(), e, e


class TwoLayer(MarginProblem):
    """``N(W; x) = m^{-1/2} sum a_r phi(<w_r, x>)``, logistic loss; g = mean loss, h = its value at margins 1."""

    features: np.ndarray
    targets: np.ndarray
    comparator: np.ndarray
    signs: np.ndarray
    activation: Activation = eqx.field(static=True)

    def predict(self, w, x):
        return self.activation(x @ w.T) @ self.signs / np.sqrt(w.shape[0])

    def proxy(self, w, q, x, y):
        return self.pointwise_loss(q, y), jnp.full_like(q, np.log1p(np.exp(-1.0)))

    def numpy_row(self, w, rows):
        x, y, a = self.features[rows], self.targets[rows], self.signs / np.sqrt(len(self.signs))
        z = x @ w.T
        q = self.activation.numpy(z) @ a
        p = 1 / (1 + np.exp(y * q))
        grad = a[:, None] * (self.activation.derivative(z).T @ ((-y * p / len(y))[:, None] * x))
        loss = np.log1p(np.exp(-y * q)).mean()
        return grad, loss, loss, np.log1p(np.exp(-1.0)), (y * q <= 0).mean(), p.mean()


def neuron(n=40, d=7, seed=0):
    """A noisy neuron problem and initial weights."""
    rng = np.random.default_rng(seed)
    x, v = rng.normal(size=(n, d)), rng.normal(size=d)
    y = 1 / (1 + np.exp(-x @ v)) + 0.1 * rng.normal(size=n)
    return Neuron(x, y, v), 0.5 * rng.normal(size=d)


def two_layer(name="softplus", n=30, d=5, m=8, seed=0, slope=0.0):
    """A two-layer problem with random comparator, and nearly symmetric initial weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = np.where(x[:, 0] + 0.3 * rng.normal(size=n) > 0, 1.0, -1.0)
    half = rng.normal(size=(m // 2, d))
    # Not exactly symmetric: outputs of zero up to rounding would make the 0/1 error of the first iterate arbitrary.
    w0 = np.concatenate([half, half]) + 0.05 * rng.normal(size=(m, d))
    signs = np.repeat([1.0, -1.0], m // 2)
    v = w0 + rng.normal(size=(m, d))
    return TwoLayer(x, y, v, signs, Activation(name, slope)), w0
