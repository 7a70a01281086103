"""The tangent margin ``max_{||V|| <= 1} min_i y_i <grad N(w; x_i), V>`` and the least eigenvalue of the tangent kernel, from below.

The QP ``min_{p in simplex} p' K p`` has the squared margin as its value, so an approximate p *over*-estimates the margin. What is
reported is the margin of the recovered direction ``V = sum_i a_i y_i grad N_i / ||.||`` instead: any a gives a true lower bound, and
it is computed with outward rounding for the Gram matrix as given (`proxyconvex_checker.rounding`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky

from proxyconvex_checker import rounding

from ..core.errors import InvalidInputError

HARD = 1e8
"""Penalty of squared slack at which a soft margin is the hard one for every purpose here."""


@dataclass(frozen=True, eq=False)
class TangentMargin:
    """A direction in the tangent features and what is proved about it.

    Attributes:
        coefficients: a, shape (n,); ``V = sum_i a_i y_i grad N(w; x_i) / norm``.
        margins: lower bounds on ``y_i <grad N(w; x_i), V>``, ``||V|| = 1``, shape (n,).
        gamma: their minimum, a lower bound on the tangent margin where it is positive.
        upper: ``sqrt(p' K p)`` for the probability vector ``p ~ a``, an upper bound on the tangent margin (in floating point).
    """

    coefficients: Float[np.ndarray, " n"]
    margins: Float[np.ndarray, " n"]
    gamma: float
    upper: float

    @property
    def separable(self) -> bool:
        """Whether the direction separates the rows."""
        return self.gamma > 0

    def slack(self, level: float) -> float:
        """``xi = mean_i (1 - margin_i / level)_+``, for the proxy PL inequality with slack at margin ``level``.

        ``||grad f|| >= <-grad f, V> >= mean p_i margin_i >= level (mean p_i - xi)`` because ``p_i <= 1``.
        """
        if not level > 0:
            raise InvalidInputError("level", level, "a margin > 0")
        return float(np.mean(np.maximum(0.0, 1 - self.margins / level)))


def soft_margin(
    q: Float[np.ndarray, "n n"], penalty: float, start: np.ndarray | None = None, iterations: int = 60
) -> Float[np.ndarray, " n"]:
    """Coefficients of the squared-slack SVM ``min 1/2 a'Qa + (C/2) sum (1 - (Qa)_i)_+^2`` by an active-set Newton method.

    Args:
        q: signed Gram matrix ``y_i y_j K_ij``.
        penalty: C.
        start: coefficients to begin with.
        iterations: at most this many steps.
    """
    n = len(q)
    a = np.zeros(n) if start is None else start.copy()
    m = q @ a

    def objective(a: np.ndarray, m: np.ndarray) -> float:
        return float(0.5 * a @ m + 0.5 * penalty * np.sum(np.maximum(1 - m, 0) ** 2))

    now = objective(a, m)
    for _ in range(iterations):
        rows = np.flatnonzero(m < 1)
        if not len(rows):
            break
        block = q[np.ix_(rows, rows)] + np.eye(len(rows)) / penalty
        try:
            step = -a
            step[rows] += cho_solve(cho_factor(block), np.ones(len(rows)))
        except (
            LinAlgError
        ):  # rounding made the block indefinite: what has been reached is as valid as anything else
            break
        slope, t = q @ step, 1.0
        while t > 1e-6 and objective(a + t * step, m + t * slope) > now:
            t /= 2
        a, m = a + t * step, m + t * slope
        before, now = now, objective(a, m)
        if now >= before * (1 - 1e-13):
            break
    return np.maximum(a, 0.0)


def tangent_margin(
    gram: Float[np.ndarray, "n n"],
    targets: Float[np.ndarray, " n"],
    penalty: float | None = None,
    gram_error: Float[np.ndarray, "n n"] | None = None,
) -> TangentMargin:
    """Best direction found and its certified margins.

    Args:
        gram: tangent kernel K.
        targets: in {-1, +1}.
        penalty: of the squared slack, relative to ``1 / mean K_ii``; None for the hard margin.
        gram_error: optional bound on the error of every entry of ``gram``.
    """
    y = np.asarray(targets, float)
    q = gram * y[:, None] * y
    scale = float(np.mean(np.diag(q))) or 1.0
    a = None
    for c in (1e2, 1e4, 1e6, HARD) if penalty is None else (penalty,):
        a = soft_margin(q, c / scale, a)
    assert a is not None
    if not np.any(a > 0):
        a = np.full(len(y), 1.0)
    return certified_margin(q, a, gram_error)


def certified_margin(
    signed: Float[np.ndarray, "n n"], a: Float[np.ndarray, " n"], error: np.ndarray | None = None
) -> TangentMargin:
    """Lower bounds on the margins of the unit vector along ``sum_i a_i y_i grad N_i``, by outward rounding.

    ``y_i <grad N_i, V> = (Q a)_i / sqrt(a' Q a)``; the numerator is enclosed, and the denominator bounded on the side that makes
    the quotient smaller (above for positive, below for negative numerators).
    """
    value, wide = rounding.matmul_enclosure(signed, a, a_error=error)
    low = rounding.sub_down(value, wide)
    norm_sq, norm_error = rounding.dot(a, value)
    spread = float(rounding.add_up(norm_error, rounding.add_up(*rounding.dot(np.abs(a), wide))))
    above = rounding.to_float_up(Fraction(float(norm_sq)) + Fraction(spread))
    below = rounding.to_float_down(Fraction(float(norm_sq)) - Fraction(spread))
    if not above > 0:
        return TangentMargin(a, np.full(len(a), -np.inf), -np.inf, float("inf"))
    big = float(rounding.to_float_up(Fraction(rounding.sqrt_upper(Fraction(above)))))
    small = (
        float(rounding.to_float_down(Fraction(rounding.sqrt_lower(Fraction(below))))) if below > 0 else 0.0
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        margins = np.where(
            low >= 0, rounding.div_down(low, big), rounding.div_down(low, small) if small > 0 else -np.inf
        )
    total = float(a.sum())
    upper = float(np.sqrt(max(norm_sq, 0.0))) / total if total > 0 else float("inf")
    return TangentMargin(a, margins, float(margins.min()), upper)


def least_eigenvalue(gram: Float[np.ndarray, "n n"], error: float = 0.0) -> float:
    """A proved lower bound on ``lambda_min`` of a symmetric matrix (0 if none is proved to be positive).

    With ``R`` the computed Cholesky factor of ``K - s I``: ``K = s I + R'R + E``, ``R'R >= 0`` exactly, hence
    ``lambda_min(K) >= s - ||E||``; the residual E is enclosed with outward rounding. The best s is found by bisection.

    Args:
        gram: K, symmetric.
        error: bound on the spectral norm of what the stored K misses of the true one.
    """
    k = (gram + gram.T) / 2
    guess = float(np.linalg.eigvalsh(k)[0])
    best = 0.0
    for share in (1 - 1e-9, 1 - 1e-6, 1 - 1e-3, 0.9, 0.5):
        shift = share * guess
        if shift <= 0:
            break
        shifted = k - shift * np.eye(len(k))
        try:
            factor = cholesky(shifted)
        except LinAlgError:
            continue
        product, wide = rounding.matmul_enclosure(factor.T, factor)
        # The residual in exact arithmetic: |K - s I - R'R| <= |shifted - product| + wide + rounding of the diagonal.
        gap = rounding.add_up(
            np.abs(rounding.sub_up(np.maximum(shifted, product), np.minimum(shifted, product))), wide
        )
        gap[np.diag_indices(len(k))] = rounding.add_up(np.diag(gap), 2.0**-52 * (np.abs(np.diag(k)) + shift))
        # Symmetric, so the spectral norm is at most the largest row sum.
        value, wider = rounding.sum_enclosure(gap, axis=1)
        norm = float(np.max(rounding.add_up(value, wider)))
        asymmetry = float(np.max(np.sum(np.abs(gram - k), axis=1))) * (1 + 2.0**-40)
        best = max(best, shift * (1 - 2.0**-50) - norm - error - asymmetry)
    return max(best, 0.0)
