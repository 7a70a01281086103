"""The comparator of a single neuron: regularised fits from several starts, then descent on the promise itself.

The promise (`proxyconvex_checker.single_neuron`) as a function of v, alpha and eta, with the maximum over a row's interval
taken on a grid: a hint for the checker, which bounds it by branch and bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from ..core.errors import InvalidInputError
from ..families.links import Link

GRID, FINE = 65, 17
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


class Promise:
    """The promised risk as a function of ``p = (v, log alpha, log eta)``, in plain floating point.

    The maximum over a row's interval is taken on a grid and then on a finer one around the best point. Its gradient is
    that of the term at the maximiser (envelope theorem); the interval moves with v, so that maxima at its ends count too.

    Of an activation without a declared curvature only the least and largest slope are known between the points: each term then
    takes the worse of the two, and the gradient says nothing.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows, self.top = rows, rows.top
        self.norms = np.linalg.norm(rows.x, axis=1)
        self.coarse = np.linspace(-1.0, 1.0, GRID)
        self.fine = np.linspace(-1.0, 1.0, FINE) * (2.0 / (GRID - 1))

    def __call__(self, p: Float[np.ndarray, " d+2"]) -> tuple[float, Float[np.ndarray, " d+2"]]:
        """Value and gradient."""
        rows, alpha, eta = self.rows, math.exp(p[-2]), math.exp(p[-1])
        away, n = p[:-2] - rows.start, len(rows.x)
        radius = math.sqrt(float(away @ away) + 1e-30)
        b, half = rows.x @ p[:-2], radius * self.norms
        u = self.coarse[self._terms(b, b[:, None] + half[:, None] * self.coarse, alpha, eta).argmax(axis=1)]
        near = np.clip(u[:, None] + self.fine, -1.0, 1.0)
        terms = self._terms(b, b[:, None] + half[:, None] * near, alpha, eta)
        k = (np.arange(n), terms.argmax(axis=1))
        level, u = float(terms[k].mean()), near[k]
        travel = radius**2 / (2 * eta * rows.steps)
        # Derivatives at the maximisers.
        a = b + half * u
        r, slope = rows.link.numpy(a) - rows.y, rows.link.derivative(a)
        step = 1e-6 * (1 + np.abs(a))
        bend = (rows.link.derivative(a + step) - rows.link.derivative(a - step)) / (2 * step)
        kappa, pull = eta * self.top / 2, slope * r
        along = 2 * alpha * r * slope + 2 * kappa * pull * (slope**2 + r * bend)
        along -= (slope**2 + r * bend) * (a - b) + pull
        by_radius = float(np.mean(along * self.norms * u)) + radius / (eta * rows.steps)
        gradient = rows.x.T @ (along + pull) / n + by_radius * away / radius
        value = (level + travel) / alpha
        by_alpha = float(np.mean(r * r)) - value
        by_eta = (kappa * float(np.mean(pull**2)) - travel) / alpha
        return value, np.concatenate([gradient / alpha, [by_alpha, by_eta]])

    def _terms(self, b: np.ndarray, a: np.ndarray, alpha: float, eta: float) -> np.ndarray:
        link = self.rows.link
        if slopes_only(link):
            r = link.numpy(a) - self.rows.y[:, None]
            pull, most = r * (a - b[:, None]), link.lipschitz
            least = np.where(pull >= 0, link.least_slope(float(a.min()), float(a.max())), most)
            return alpha * r**2 + eta * self.top / 2 * (r * most) ** 2 - least * pull
        r, slope = self.rows.link.numpy(a) - self.rows.y[:, None], self.rows.link.derivative(a)
        return alpha * r**2 + eta * self.top / 2 * (r * slope) ** 2 - slope * r * (a - b[:, None])


def slopes_only(link: Link) -> bool:
    """Whether nothing but bounds on the slope is known of an activation between two points."""
    return link.name == "custom" and link.curvature is None


def best_constants(v: Float[np.ndarray, " d"], function: Promise) -> tuple[float, np.ndarray]:
    """The least promise over a small grid of alpha and eta, and its point."""
    tries = []
    for alpha in (0.01, 0.03, 0.1, 0.2, 0.35):
        for eta in (0.003, 0.03, 0.3, 3.0):
            point = np.append(v, [math.log(alpha), math.log(eta / function.top)])
            tries.append((float(function(point)[0]), point))
    return min(tries, key=lambda t: t[0] if np.isfinite(t[0]) else math.inf)


def choose(rows: Rows, seed: int = 0, polish: int = 2, rounds: int = 150) -> Choice:
    """The comparator, alpha and eta with the least promise that was found.

    Args:
        rows: the problem.
        seed: of the random starts.
        polish: how many of the fits to improve by descent on the promise.
        rounds: iterations of that descent.
    """
    function = Promise(rows)
    # What a user's activation makes of far points may overflow; those points then count as bad ones.
    with np.errstate(over="ignore", invalid="ignore") if rows.link.name == "custom" else nullcontext():
        return _choose(rows, function, seed, polish, rounds)


def _choose(rows: Rows, function: Promise, seed: int, polish: int, rounds: int) -> Choice:
    def value_of(t: tuple[float, np.ndarray]) -> float:
        return t[0] if np.isfinite(t[0]) and np.isfinite(t[1]).all() else math.inf

    found = sorted((best_constants(v, function) for v in fits(rows, seed)), key=value_of)
    best = found[0]
    if not np.isfinite(value_of(best)):
        raise InvalidInputError(
            "activation",
            rows.link.label or rows.link.name,
            "an activation that is finite where the data take it",
        )
    if slopes_only(rows.link):
        v, start, size = best[1][:-2], best[1][-2:], math.log(function.top)
        box = ((math.log(1e-4), 0.0), (math.log(1e-4) - size, math.log(10.0) - size))
        end = minimize(lambda q: function(np.append(v, q))[0], start, method="Nelder-Mead", bounds=box)
        best, polish = min(best, (float(end.fun), np.append(v, end.x)), key=value_of), 0
    for _, point in found[:polish]:
        end = minimize(function, point, jac=True, method="L-BFGS-B", options={"maxiter": rounds})
        if np.isfinite(end.fun) and float(end.fun) < best[0]:
            best = (float(end.fun), np.asarray(end.x, dtype=np.float64))
    value, point = best
    return Choice(point[:-2], math.exp(point[-2]), math.exp(point[-1]), value)
