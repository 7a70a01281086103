"""Margins in the tangent features of a two-layer network: support vector machines and logistic regression.

All three problems are convex and are solved in the n dual coefficients by Newton's method with an exact or Armijo line
search; n up to a few thousand. Their results are proposals: whatever they return, the checker computes what it promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

# Penalties of the squared slack beyond which the soft margin is the hard one for every purpose here.
HARD = 1e8


@dataclass(frozen=True)
class Direction:
    """A comparator direction ``sum_i alpha_i y_i grad N(W0; x_i)`` in the tangent features.

    Attributes:
        alpha: coefficients, shape (n,).
        margins: tangent margins of the direction, ``Q alpha``, shape (n,).
        norm: its Euclidean norm, ``sqrt(alpha' Q alpha)``.
        label: which problem it solves.
    """

    alpha: Float[np.ndarray, " n"]
    margins: Float[np.ndarray, " n"]
    norm: float
    label: str


def tangent_gram(x: Float[np.ndarray, "n d"], slopes: Float[np.ndarray, "n h"]) -> Float[np.ndarray, "n n"]:
    """Gram matrix of ``grad N(W0; x_i)`` for paired initial weights.

    Args:
        x: features.
        slopes: ``phi'(<w_r, x_i>)`` of one neuron of each of the ``h = m/2`` pairs.
    """
    return (x @ x.T) * (slopes @ slopes.T / slopes.shape[1])


def signed(gram: Float[np.ndarray, "n n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n n"]:
    """``Q_ij = y_i y_j K_ij``."""
    return gram * y[:, None] * y


def _direction(q: Float[np.ndarray, "n n"], alpha: Float[np.ndarray, " n"], label: str) -> Direction:
    margins = q @ alpha
    return Direction(alpha, margins, float(np.sqrt(max(alpha @ margins, 0.0))), label)


def soft_margin(
    q: Float[np.ndarray, "n n"],
    penalty: float,
    start: Float[np.ndarray, " n"] | None = None,
    iterations: int = 60,
) -> Float[np.ndarray, " n"]:
    """Minimise ``1/2 a'Qa + (C/2) sum_i (1 - (Qa)_i)_+^2``: the SVM with squared slack, whose limit is the hard margin.

    Newton's method on the piecewise quadratic objective (O. Chapelle, *Training a Support Vector Machine in the
    Primal*, Neural Computation 19, 2007): the rows with positive slack solve ``(Q_SS + I/C) a_S = 1``.

    Args:
        q: signed Gram matrix.
        penalty: C.
        start: coefficients to start from.
        iterations: at most this many Newton steps.

    Returns:
        The coefficients, shape (n,).
    """
    n = len(q)
    a = np.zeros(n) if start is None else start.copy()
    m = q @ a
    before = np.inf
    for _ in range(iterations):
        rows = np.flatnonzero(m < 1)
        if not len(rows):
            break
        block = q[np.ix_(rows, rows)]
        block[np.diag_indices(len(rows))] += 1 / penalty
        step = -a
        step[rows] += cho_solve(cho_factor(block, overwrite_a=True), np.ones(len(rows)))
        slope = q @ step
        t = _line_search(a, m, step, slope, penalty)
        a, m = a + t * step, m + t * slope
        value = 0.5 * a @ m + 0.5 * penalty * float(np.sum(np.maximum(1 - m, 0) ** 2))
        if (t == 1.0 and np.array_equal(rows, np.flatnonzero(m < 1))) or value >= before * (1 - 1e-14):
            break
        before = value
    return np.maximum(a, 0.0)


def _line_search(a: np.ndarray, m: np.ndarray, step: np.ndarray, slope: np.ndarray, penalty: float) -> float:
    """Exact minimiser on [0, 1] of the convex piecewise quadratic along ``a + t step``."""

    def derivative(t: float) -> float:
        return float((a + t * step) @ slope - penalty * np.maximum(1 - m - t * slope, 0) @ slope)

    if derivative(1.0) <= 1e-12 * abs(derivative(0.0)):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if derivative(middle) > 0 else (middle, high)
    return low


def margin_path(
    q: Float[np.ndarray, "n n"], penalties: Sequence[float] = (1e2, 1e4, 1e6, HARD)
) -> list[Direction]:
    """Directions for increasing penalties, each started from the one before; the last one is the hard margin.

    A direction is scaled so that its least margin is 1 where it separates the rows.
    """
    out, alpha = [], None
    scale = float(np.mean(np.diag(q)))
    for c in penalties:
        alpha = soft_margin(q, c / scale, alpha)
        direction = _direction(q, alpha, f"soft margin, penalty {c:g}")
        least = float(direction.margins.min())
        if least > 0:
            direction = Direction(
                alpha / least, direction.margins / least, direction.norm / least, direction.label
            )
        out.append(direction)
    return out


def logistic(
    q: Float[np.ndarray, "n n"],
    weight: float,
    start: Float[np.ndarray, " n"] | None = None,
    iterations: int = 100,
) -> Direction:
    """Minimise ``mean_i log(1 + exp(-(Qa)_i)) + weight a'Qa``: the T4 + T5 bound of the tangent model itself.

    Args:
        q: signed Gram matrix.
        weight: ``1 / (2 eta T)``.
        start: coefficients to start from.
        iterations: at most this many Newton steps.
    """
    n = len(q)
    a = np.zeros(n) if start is None else start.copy()
    m = q @ a

    def objective(a: np.ndarray, m: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0, -m)) + weight * (a @ m))

    value = objective(a, m)
    for _ in range(iterations):
        p = expit(-m)
        # Stationary: 2 weight a = p / n. Newton in a: (2 weight I + D Q) step = p / n - 2 weight a, D = diag(p (1-p) / n),
        # made symmetric by D^{1/2}.
        root = np.sqrt(p * (1 - p) / n)
        residual = p / n - 2 * weight * a
        system = root[:, None] * q * root
        system[np.diag_indices(n)] += 2 * weight
        inner = cho_solve(cho_factor(system, overwrite_a=True), root * (q @ residual))
        step = (residual - root * inner) / (2 * weight)
        slope, t = q @ step, 1.0
        drop = float(residual @ slope)
        while t > 1e-10:
            trial = objective(a + t * step, m + t * slope)
            if trial <= value - 1e-4 * t * drop:
                break
            t /= 2
        else:
            break
        a, m = a + t * step, m + t * slope
        small, value = value - trial <= 1e-12 * abs(value), trial
        if small:
            break
    return _direction(q, a, f"logistic regression, weight {weight:.3g}")
