"""Classical and side conditions of the zoo."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar

from ...core.classical import (
    kurdyka_lojasiewicz,
    one_point_convex,
    polyak_lojasiewicz,
    quasar_convex,
    restricted_secant,
    strongly_convex,
)
from ...core.conditions import BoundedBelow, GradientGrowth, Noise, ProxyConvexity, Smooth
from ...core.regions import Ball
from .specimen import Specimen


def _rotated(eigenvalues: list[float]) -> Any:
    """A quadratic with these eigenvalues in a fixed random basis."""
    p = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(p, p)))
    matrix = basis @ np.diag(eigenvalues) @ basis.T
    return lambda w: w @ matrix @ w / 2


def _diagonal(eigenvalues: list[float]) -> Any:
    d = np.array(eigenvalues)
    return lambda w: jnp.sum(d * w * w) / 2


def _bumpy(w: Any) -> Any:
    return (w**2 + 3 * jnp.sin(w) ** 2).sum()


def _pl_of_bumpy() -> float:
    """``inf f'^2 / (2 f)`` for ``f = w^2 + 3 sin^2 w``: one variable, solved in every valley of the ratio."""

    def ratio(w: float) -> float:
        return (2 * w + 3 * math.sin(2 * w)) ** 2 / (2 * (w * w + 3 * math.sin(w) ** 2))

    grid = np.linspace(0.05, 12, 4801)
    best = int(np.argmin([ratio(w) for w in grid]))
    found = minimize_scalar(
        ratio, bounds=(grid[max(best - 1, 0)], grid[best + 1]), method="bounded", options={"xatol": 1e-13}
    )
    return float(found.fun)


def _tilted_minimum() -> float:
    """Minimum of ``w^4 - 2 w^2 + 0.3 w`` from the roots of its derivative."""
    roots = np.roots([4, 0, -4, 0.3])
    real = roots[np.abs(roots.imag) < 1e-9].real
    return float(min(w**4 - 2 * w**2 + 0.3 * w for w in real))


_X = np.random.default_rng(11).normal(size=(12, 4))
_Y = np.where(_X[:, 0] > 0, 1.0, -1.0)
_ROWS = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0], [3.0, 0.0, 1.0]])
LOSS_GROWTH = float(-minimize_scalar(
    lambda q: -(1 / (1 + math.exp(q))) ** 2 / math.log1p(math.exp(-q)), bounds=(-6, 6), method="bounded", options={"xatol": 1e-13}
).fun)  # fmt: skip


def _logistic(w: Any) -> Any:
    return jnp.mean(jax.nn.softplus(-_Y * (_X @ w)))


def _quartic(w: Any) -> Any:
    return (w @ w) ** 2 / 4


def _log_radius(w: Any) -> Any:
    return jnp.log(1 + w @ w)


CLASSICAL = [
    Specimen("strongly convex, round", "classical", lambda c: strongly_convex(_diagonal([1, 1, 1]), c, comparator=np.zeros(3)), 1.0, True, "the Hessian is the identity"),
    Specimen("strongly convex, rotated", "classical", lambda c: strongly_convex(_rotated([1, 2, 3, 5, 10]), c, comparator=np.arange(5.0)), 1.0, True, "smallest eigenvalue"),
    Specimen("star-convex, quartic", "classical", lambda c: ProxyConvexity(_quartic, lambda w: c * _quartic(w), 0, comparator=np.zeros(3)), 4.0, True, "Euler: <grad f, w> = 4 f"),
    Specimen("quasar-convex, log radius on a ball", "classical", lambda c: quasar_convex(_log_radius, c, minimiser=np.zeros(3), region=Ball(np.zeros(3), 3.0)), 18 / (10 * math.log(10)), True, "2 r^2/((1+r^2) log(1+r^2)) decreases; at r = 3"),
    Specimen("restricted secant", "classical", lambda c: restricted_secant(_diagonal([2, 5]), c, comparator=np.zeros(2), unique=True), 2.0, True, "smallest eigenvalue"),
    Specimen("one-point convex, wavy", "classical", lambda c: one_point_convex(lambda w: (w**2 + jnp.sin(w) ** 2).sum(), c, comparator=np.zeros(2)), 2 - 2 * 0.217233628211221657, True, "2 + sin(2w)/w, least value of the sinc function"),
    Specimen("PL, singular quadratic", "classical", lambda c: polyak_lojasiewicz(_diagonal([0, 1, 4]), c, 0.0), 1.0, True, "smallest positive eigenvalue", np.zeros(3)),
    Specimen("PL, w^2 + 3 sin^2 w", "classical", lambda c: polyak_lojasiewicz(_bumpy, c, 0.0), _pl_of_bumpy(), True, "one variable, by bounded minimisation", np.zeros(1), 1e-7),
    Specimen("KL, quartic", "classical", lambda c: kurdyka_lojasiewicz(_quartic, c, 0.75, 0.0), 4**0.75, True, "|grad f| = r^3, f = r^4/4", np.zeros(2)),
]  # fmt: skip

SIDE = [
    Specimen("smooth, rotated quadratic", "side", lambda c: Smooth(c, f=_rotated([1, 2, 3, 5, 10])), 10.0, False, "largest eigenvalue", np.zeros(5)),
    Specimen("smooth, softplus", "side", lambda c: Smooth(c, f=lambda w: jax.nn.softplus(w).sum()), 0.25, False, "softplus'' <= 1/4, at 0", np.zeros(1)),
    Specimen("smooth, logistic regression", "side", lambda c: Smooth(c, f=_logistic), float(np.linalg.eigvalsh(_X.T @ _X / 12).max() / 4), False, "largest eigenvalue of the second moments / 4, at 0", np.zeros(4)),
    Specimen("smooth, cosine (not convex)", "side", lambda c: Smooth(c, f=lambda w: jnp.cos(w).sum()), 1.0, False, "|cos''| <= 1", np.zeros(2)),
    Specimen("smooth on a ball, quartic", "side", lambda c: Smooth(c, f=_quartic, region=Ball(np.zeros(2), 2.0)), 12.0, False, "largest eigenvalue 3 r^2 at r = 2"),
    Specimen("bounded below, Rosenbrock", "side", lambda c: BoundedBelow(c, f=lambda w: 1 + (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2), 1.0, True, "minimum at (1, 1)", np.zeros(2)),
    Specimen("bounded below, tilted double well", "side", lambda c: BoundedBelow(c, f=lambda w: (w**4 - 2 * w**2 + 0.3 * w).sum()), _tilted_minimum(), True, "roots of the derivative", np.zeros(1)),
    Specimen("growth, quadratic", "side", lambda c: GradientGrowth(c, 0, g=_rotated([1, 2, 4]), f=_rotated([1, 2, 4])), 8.0, False, "|grad f|^2 <= 2 L f", np.zeros(3)),
    Specimen("growth in the mean, least squares", "side", lambda c: GradientGrowth(c, 0, g=lambda w: jnp.mean((_ROWS @ w - 1) ** 2) / 2, moment=lambda w: jnp.mean((_ROWS @ w - 1) ** 2 * (_ROWS**2).sum(axis=1)), scope="expectation"), 20.0, False, "2 max |x|^2, where only that row errs", np.zeros(3)),
    Specimen("growth, bounded gradient", "side", lambda c: GradientGrowth(0, c, g=lambda w: 0.0 * w.sum(), f=lambda w: jnp.sqrt(1 + w @ w)), 1.0, False, "|grad f| -> 1 at infinity", np.zeros(3)),
    Specimen("growth, logistic loss", "side", lambda c: GradientGrowth(c, 0, g=lambda w: jax.nn.softplus(-w).sum(), f=lambda w: jax.nn.softplus(-w).sum()), LOSS_GROWTH, False, "sup loss'^2 / loss, one variable", np.zeros(1)),
    Specimen("noise, factor", "side", lambda c: Noise(c, 2.0, moment=lambda w: 3 * (w @ w) + 2, f=lambda w: w @ w / 2), 3.0, False, "moment 3 |grad|^2 + 2", np.zeros(3), 1e-6),
    Specimen("noise, additive", "side", lambda c: Noise(1.0, c, moment=lambda w: w @ w + 2 / (1 + w @ w), f=lambda w: w @ w / 2), 2.0, False, "moment |grad|^2 + 2/(1 + |w|^2), at 0", np.zeros(3)),
]  # fmt: skip
