"""Theorem T8, shared by the families: normalised gradient descent gets below ``k`` errors.

Let ``p_i`` be the slope ``|loss'|`` of the logistic loss at row i and ``psi(p) = p log(p / (1 - p))``,
which is minus ``p`` times the margin that has this slope. If on a ball around a comparator V, of radius
``R = ||w_0 - V||``, every tangent margin towards V is at least ``q_i`` and every output gradient has norm
at most G, then ``<grad f, w - V> >= mean(p_i q_i + psi(p_i)) >= S_k mean p`` while at least ``k`` rows are
wrong (``p_i >= 1/2``), where

    S_k = min over p in (0,1)^n with at least k entries >= 1/2 of [sum_i p_i q_i + psi(p_i)] / sum_i p_i.

With steps ``c / max(mean p, floor)``, ``floor <= k / (2n)``, the squared distance to V falls by
``c (2 S_k - c G^2)`` at each such step, so that ``T c (2 S_k - c G^2) > R^2`` leaves no room for T of them.

``S_k >= tau`` is a sum over the rows. With ``theta_i = q_i - tau``, a free row contributes at least
``inf_p p theta + psi(p) = -W(exp(-theta - 1))`` (W: Lambert's function; the conjugate of psi is
``W(exp(s - 1))``), a wrong one at least ``theta / 2`` if ``theta >= -2`` and the same ``-W`` otherwise (the
minimiser then has ``p >= 1/2`` by itself). The difference is >= 0 and increases with theta, hence the
cheapest ``k`` wrong rows are those with the smallest ``q``.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from .errors import CheckError
from .rounding import (
    finite,
    lambert_w_exp_upper,
    rational,
    sub_down,
    sub_up,
    sum_bounds,
    to_float_down,
    to_float_up,
)

STEP = "theorem T8"


def is_margin_floor(q: Any, k: int, tau: float) -> bool:
    """Whether ``S_k >= tau`` is certified (False says nothing).

    Args:
        q: lower bounds on the tangent margins, shape (n,); ``S_k`` increases with each of them.
        k: number of errors, in 1..n.
        tau: the candidate.
    """
    order = np.sort(finite(q, "the tangent margins"))
    theta = sub_down(order, tau)
    free = -lambert_w_exp_upper(sub_up(-theta, 1.0))
    terms = free.copy()
    terms[:k] = np.where(theta[:k] >= -2.0, theta[:k] / 2, free[:k])
    return sum_bounds(terms)[0] >= 0


def margin_floor(q: Any, k: int) -> float:
    """A certified lower bound on ``S_k``, within about 1e-12 of it relative to ``max |q| + log n``.

    Args:
        q: lower bounds on the tangent margins, shape (n,).
        k: number of errors, in 1..n.

    Raises:
        CheckError: if ``k`` is not in 1..n, or a margin is not finite.
    """
    q = np.sort(finite(q, "the tangent margins"))
    n = len(q)
    if not (isinstance(k, int) and 1 <= k <= n):
        raise CheckError(STEP, f"k = {k} is not a number of errors in 1..{n}")
    tau = _hint(q, k)
    step = 2.0**-48 * (abs(tau) + float(np.abs(q).max()) + math.log(n) + 1)
    for _ in range(60):
        if is_margin_floor(q, k, tau):
            return tau
        tau, step = tau - step, 2 * step
    raise CheckError(STEP, "no certified lower bound on the margin S_k was found")


def _hint(q: np.ndarray, k: int) -> float:
    """``S_k`` by bisection in plain floating point (only a hint)."""
    # All p_i = 1/2 is allowed, so S_k <= mean q; and S_k >= min q + (S_k for q = 0) >= min q - log(2n) - 2.
    low, high = float(q[0]) - math.log(2 * len(q)) - 2, float(q.mean()) + 1e-9
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if _excess(q - middle, k) >= 0 else (low, middle)
    return low


def _excess(theta: np.ndarray, k: int) -> float:
    w = lambert_w_exp(-theta - 1)
    return float(-w[k:].sum() + np.where(theta[:k] >= -2, theta[:k] / 2, -w[:k]).sum())


def lambert_w_exp(s: np.ndarray) -> np.ndarray:
    """``W(exp(s))`` in plain floating point, by Newton's method on the concave equation ``w + log w = s``."""
    small = np.exp(np.minimum(s, 1.0))
    w = np.maximum(np.where(s > 1, s - np.log(np.maximum(s, 1.0)), small / (1 + small)), 1e-300)
    for _ in range(6):
        w = np.maximum(w * (1 + s - np.log(w)) / (1 + w), 1e-300)
    return w


def few_errors(
    *,
    n: int,
    k: int,
    steps: int,
    c: float,
    floor: float,
    radius_sq: Fraction,
    gradient_sq: Fraction,
    margin: float,
) -> dict[str, float]:
    """The last step of T8, in exact rational arithmetic.

    Args:
        n: number of rows.
        k: the promise is: fewer than ``k`` errors.
        steps: number of steps T.
        c: constant of the normalised step.
        floor: floor of the normalised step.
        radius_sq: upper bound on ``R^2``.
        gradient_sq: upper bound on ``G^2``.
        margin: certified lower bound on ``S_k``.

    Returns:
        ``bound`` and ``error_bound``, both ``(k - 1) / n`` rounded up.

    Raises:
        CheckError: naming the inequality that fails, with its two sides.
    """
    s, step = rational(margin), rational(c)
    if not s > 0:
        raise CheckError(
            STEP, f"S = {margin:.6g} is not above 0: the comparator does not rule out {k} errors"
        )
    if not 0 < rational(floor) <= Fraction(k, 2 * n):
        raise CheckError(STEP, f"the floor {floor!r} of the step is not in (0, k/(2n) = {k / (2 * n):.6g}]")
    if not 0 < step * gradient_sq < 2 * s:
        raise CheckError(STEP, f"c = {c!r} is not in (0, 2 S / G^2)")
    progress = steps * step * (2 * s - step * gradient_sq)
    if not progress > radius_sq:
        raise CheckError(
            STEP, f"T c (2 S - c G^2) = {float(progress):.9g} does not exceed R^2 = {float(radius_sq):.9g}"
        )
    rate = to_float_up(Fraction(k - 1, n))
    return {"bound": rate, "error_bound": rate}


def best_step(margin: float, gradient_sq: Fraction) -> float:
    """The best constant ``c = S / G^2`` of the normalised step, rounded down."""
    return to_float_down(rational(margin) / gradient_sq)


def steps_needed(margin: float, c: float, gradient_sq: Fraction, radius_sq: Fraction) -> int:
    """The smallest ``T`` with ``T c (2 S - c G^2) > R^2`` (``c`` admissible)."""
    rate = rational(c) * (2 * rational(margin) - rational(c) * gradient_sq)
    if not rate > 0:
        raise CheckError(STEP, f"c = {c!r} is not in (0, 2 S / G^2)")
    return int(radius_sq / rate) + 1
