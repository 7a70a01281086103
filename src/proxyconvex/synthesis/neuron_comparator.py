"""The comparator of a single neuron: regularised fits from several starts, then descent on the promise itself.

The promise (`proxyconvex_checker.single_neuron`) as a function of v, alpha and eta, with the maximum over a row's interval
taken on a grid: a hint for the checker, which bounds it by branch and bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from ..families.links import Link

GRID = 33
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
STARTS = 3


@dataclass(frozen=True)
class Choice:
    """A comparator with the constants that go with it.

    Attributes:
        v: shape (d,).
        alpha: factor of the risk.
        eta: step size.
        value: the promised risk, in plain floating point on a grid.
    """

    v: Float[np.ndarray, " d"]
    alpha: float
    eta: float
    value: float


@dataclass(frozen=True)
class Rows:
    """The problem: rows, targets, initial weights, activation and number of steps."""

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, " n"]
    start: Float[np.ndarray, " d"]
    link: Link
    steps: int

    @property
    def top(self) -> float:
        """Largest eigenvalue of ``(1/n) sum x x^T`` (in plain floating point)."""
        return float(np.linalg.eigvalsh(self.x.T @ self.x / len(self.x))[-1])


def fits(rows: Rows, seed: int) -> Iterator[Float[np.ndarray, " d"]]:
    """Local minima of ``mean (s(<v, x>) - y)^2 + mu ||v - w_0||^2`` for several mu, from several starts."""
    rng = np.random.default_rng(seed)
    x, y, link, n = rows.x, rows.y, rows.link, len(rows.x)
    d = x.shape[1]
    starts = [rows.start, *(rng.standard_normal(d) / math.sqrt(d) for _ in range(STARTS - 1))]
    for mu in PENALTIES:

        def objective(v: np.ndarray, mu: float = mu) -> tuple[float, np.ndarray]:
            a = x @ v
            r, away = link.numpy(a) - y, v - rows.start
            return float(r @ r) / n + mu * float(away @ away), 2 * x.T @ (
                r * link.derivative(a)
            ) / n + 2 * mu * away

        ends = [minimize(objective, start, jac=True, method="L-BFGS-B") for start in starts]
        yield min(ends, key=lambda end: float(end.fun)).x


def promise(rows: Rows) -> Any:
    """The promised risk and its gradient as a compiled function of ``(v, log alpha, log eta)``."""
    x, y, start = (jnp.asarray(a) for a in (rows.x, rows.y, rows.start))
    norms, top, grid = jnp.linalg.norm(x, axis=1), rows.top, jnp.linspace(-1.0, 1.0, GRID)

    def bound(p: Float[Array, " d+2"]) -> Float[Array, ""]:
        v, alpha, eta = p[:-2], jnp.exp(p[-2]), jnp.exp(p[-1])
        radius = jnp.sqrt(jnp.sum((v - start) ** 2) + 1e-30)
        b = x @ v
        a = b[:, None] + radius * norms[:, None] * grid
        value, slope = rows.link.value_and_slope(a)
        r = value - y[:, None]
        rest = alpha * r**2 + eta * top / 2 * (r * slope) ** 2 - slope * r * (a - b[:, None])
        return (jnp.mean(jnp.max(rest, axis=1)) + radius**2 / (2 * eta * rows.steps)) / alpha

    return jax.jit(jax.value_and_grad(bound))


def best_constants(rows: Rows, v: Float[np.ndarray, " d"], function: Any) -> tuple[float, np.ndarray]:
    """The least promise over a small grid of alpha and eta, and its point."""
    tries = []
    for alpha in (0.01, 0.03, 0.1, 0.2, 0.35):
        for eta in (0.003, 0.03, 0.3, 3.0):
            point = np.append(v, [math.log(alpha), math.log(eta / rows.top)])
            tries.append((float(function(point)[0]), point))
    return min(tries, key=lambda t: t[0])


def choose(rows: Rows, seed: int = 0, polish: int = 2, rounds: int = 150) -> Choice:
    """The comparator, alpha and eta with the least promise that was found.

    Args:
        rows: the problem.
        seed: of the random starts.
        polish: how many of the fits to improve by descent on the promise.
        rounds: iterations of that descent.
    """
    with jax.enable_x64(True):
        function = promise(rows)
        found = sorted((best_constants(rows, v, function) for v in fits(rows, seed)), key=lambda t: t[0])
        best = found[0]
        for _, point in found[:polish]:
            end = minimize(
                lambda p: [np.asarray(out, dtype=np.float64) for out in function(p)],
                point, jac=True, method="L-BFGS-B", options={"maxiter": rounds},
            )  # fmt: skip
            if np.isfinite(end.fun) and float(end.fun) < best[0]:
                best = (float(end.fun), np.asarray(end.x, dtype=np.float64))
    value, point = best
    return Choice(point[:-2], math.exp(point[-2]), math.exp(point[-1]), value)
