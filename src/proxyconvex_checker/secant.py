"""Certified numbers of two non-convex problems near a solution: rank-one factorisation and phase retrieval, by full-batch GD.

**The contraction** (theorems ``RSIrank`` and ``RSIphase``). Let ``w = v + e``, ``||e|| <= R = ||w_0 - v||``, and
``grad f(w) = gamma + H e`` with ``gamma = grad f(v)`` and the symmetric matrix ``H = integral over [0, 1] of hess f(v + t e) dt``.
Suppose that on the ball, for numbers m > 0 and mu, L >= 0,

    <H e, e> >= m ||e||^2    (the restricted secant inequality),        -mu I <= H <= L I,        ||gamma|| <= delta.

Every eigenvalue x of H has ``(x + mu)(x - L) <= 0``, so ``||H e||^2 <= (L - mu) <H e, e> + L mu ||e||^2``. For
``eta (L - mu) <= 2`` therefore ``||e - eta H e||^2 <= q^2 ||e||^2``, ``q^2 = 1 - 2 eta m + eta^2 ((L - mu) m + L mu)``, and a step
gives ``||e'|| <= q ||e|| + eta delta``. If ``q < 1`` and ``q R + eta delta <= R``, no iterate leaves the ball (induction), and
``||w_T - v|| <= D = q^T R + eta delta / (1 - q)``. Along the segment from v, ``f(w_T) <= f(v) + delta D + (L/2) D^2``, because
``grad f(v + t e) = gamma + t H_t e`` with ``H_t <= L I``. In the words of proxy convexity, ``g = m ||w - v||^2`` and ``h = delta ||w - v||``.

**Rank one**: ``f(u) = ||u u^T - M||_F^2 / 4``, ``M = (1/n) sum x x^T``, ``grad f(u) = ||u||^2 u - M u``. Put ``E = M - v v^T``, ``V = ||v||^2``,
``p = <e, v>``, ``s = ||e||^2``. Then ``gamma = -E v`` and ``H = (V + p + s/3) I - E + v v^T + v e^T + e v^T + (2/3) e e^T``, so

* ``<H e, e> = V s + p^2 + 3 p s + s^2 - <E e, e>``. For tau >= 0, ``<E e, e> <= lambda s - tau p^2`` with ``lambda = lambda_max(E + tau v v^T)``, and
  ``(1 + tau) p^2 + 3 p s >= -9 s^2 / (4 (1 + tau))``: ``m = V - lambda - (9/(4 (1 + tau)) - 1)_+ R^2``.
* ``v v^T + v e^T + e v^T + (2/3) e e^T = (v + e)(v + e)^T - e e^T / 3`` lies between ``-s/3`` and ``(sqrt V + R)^2``, and ``|p| <= R sqrt V``:
  ``mu = (lambda - V + R sqrt V)_+``, ``L = V + R sqrt V + R^2/3 + (sqrt V + R)^2 + lambda_max(-E)_+``.

**Phase retrieval**: ``f(w) = (1/4n) sum (<x, w>^2 - y)^2``. With ``a = <x, v>``, ``b = <x, e>``, ``r = a^2 - y``:
``gamma = (1/n) sum r a x``, ``H = (1/n) sum (2 a^2 + r + 3 a b + b^2) x x^T``.

* ``<H e, e> = 2 <A e, e> + 3 T(e, e, e) + (1/n) sum b^4 + (1/n) sum r b^2``, ``A = (1/n) sum a^2 x x^T``, ``T = (1/n) sum a x (x) x (x) x``. For any c
  write ``T = c S + Delta`` with ``S(e, e, e) = p s`` (S is the symmetric part of v (x) I, which Gaussian rows have with c = 3); ``|Delta(e, e, e)| <= d s R``
  with d the largest singular value of Delta as a d x d^2 matrix. ``(1/n) sum b^4 >= (lambda_min(C) s)^2`` (Cauchy-Schwarz, C the second
  moments). With ``A >= alpha I + tau v v^T``: ``2 tau p^2 + 3 c p s >= -9 c^2 s^2 / (8 tau)``, so that
  ``m = 2 alpha - rho - 3 d R - (9 c^2/(8 tau) - lambda_min(C)^2)_+ R^2``, ``rho = (1/n) sum |r| ||x||^2``.
* ``2 a^2 + 3 a b + b^2 >= -a^2/4``: ``mu = lambda_max(A)/4 + rho``. ``||S(e, ., .)|| <= R sqrt V`` and ``b^2 <= R^2 ||x||^2``:
  ``L = 2 lambda_max(A) + rho + 3 |c| R sqrt V + 3 d R + R^2 lambda_max((1/n) sum ||x||^2 x x^T)``.

All eigenvalues are bounded with outward rounding. ``f(0)`` (rank one) or the best constant prediction (phase retrieval) is the baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .classical import check_linear
from .enclosed import Enclosed, moments
from .errors import CheckError
from .links import square_bounds, widened
from .rounding import (
    exp_rational,
    mean_bounds,
    mul_up,
    norm_lower,
    norm_upper,
    rational,
    sqrt_upper,
    sub_down,
    sub_up,
    to_float_down,
    to_float_up,
)
from .single_neuron import STEP, Neuron, neuron_of

Numbers = dict[str, float]
COLUMNS = 256
"""Pairs of features handled at once."""


@dataclass(frozen=True)
class Curvature:
    """What the contraction needs; ``m`` and ``baseline`` lower bounds, the others upper.

    Attributes:
        m: of the restricted secant inequality; it may be negative, which is refused later.
        L: largest eigenvalue of H.
        mu: minus the smallest.
        noise: ``||grad f(v)||``.
        opt: ``f(v)``.
        baseline: what no training reaches.
    """

    m: Fraction
    L: Fraction
    mu: Fraction
    noise: float
    opt: float
    baseline: float


def _size(v: np.ndarray) -> tuple[Fraction, Fraction]:
    """Bounds of ``||v||``."""
    return rational(float(norm_lower(v))), rational(float(norm_upper(v)))


def rank_one(neuron: Neuron, params: dict[str, Any]) -> Curvature:
    """The numbers of ``f(u) = ||u u^T - M||^2 / 4`` on the ball; ``params["tau"] >= 0``."""
    rest, R = 1.0 - params["tau"], rational(neuron.distance())
    tau, v = 1 - rational(rest), neuron.v[0]
    if tau < 0:
        raise CheckError(STEP, f"tau = {params['tau']!r} is negative")
    second, square = moments(Enclosed.exactly(neuron.x)), Enclosed.outer(v)
    gap = second - square
    steep = rational((second - square * rest).top())
    low, high = _size(v)
    bend = max(Fraction(9, 4) / (1 + tau) - 1, Fraction(0))
    flat = rational((square - second).top())
    return Curvature(
        m=low**2 - steep - bend * R**2,
        L=high**2 + R * high + R**2 / 3 + (high + R) ** 2 + flat,
        mu=max(steep - low**2 + R * high, Fraction(0)),
        noise=(gap @ Enclosed.exactly(v)).norm(),
        opt=to_float_up(rational(gap.norm()) ** 2 / 4),
        baseline=to_float_down(rational(second.norm_below()) ** 2 / 4),
    )


def third_moments(neuron: Neuron, a: Enclosed, c: float) -> float:
    """Upper bound on the largest singular value of ``Delta = T - c S`` (c/3 rounded) as a d x d^2 matrix.

    Only the columns (j, k) with ``j <= k`` are formed; the others are equal to them, so that those with ``j < k`` count twice in
    ``Delta Delta^T``.
    """
    x, v, d = neuron.x, neuron.v[0], neuron.x.shape[1]
    weighted = Enclosed(a.value[:, None], a.error[:, None]) * x
    j, k = np.triu_indices(d)
    parts = [slice(at, at + COLUMNS) for at in range(0, len(j), COLUMNS)]
    blocks = [(weighted.T @ (Enclosed.exactly(x[:, j[part]]) * x[:, k[part]])) / len(x) for part in parts]
    mean = Enclosed(np.hstack([b.value for b in blocks]), np.hstack([b.error for b in blocks]))
    # 3 S(i, j, k) = v_i [j=k] + v_j [i=k] + v_k [i=j]: at most three terms, added with two roundings.
    row, size = np.arange(d)[:, None], 3 * float(np.abs(v).max())
    three = v[:, None] * (j == k) + v[j] * (row == k) + v[k] * (row == j)
    delta = mean - Enclosed(three, np.full(three.shape, 2 * np.spacing(size))) * (c / 3)
    square = (delta * np.where(j == k, 1.0, 2.0)) @ delta.T
    return to_float_up(sqrt_upper(rational(square.top())))


def phase_retrieval(neuron: Neuron, params: dict[str, Any]) -> Curvature:
    """The numbers of ``f(w) = mean (<x, w>^2 - y)^2 / 4`` on the ball; ``params["tau"] > 0`` and any ``params["c"]``."""
    tau, R, v = float(params["tau"]), rational(neuron.distance()), neuron.v[0]
    if not tau > 0:
        raise CheckError(STEP, f"tau = {tau!r} is not positive")
    x = Enclosed.exactly(neuron.x)
    a = x @ Enclosed.exactly(v)
    square = square_bounds(*widened(a.value, a.error))
    r = np.maximum(np.abs(sub_down(square[0], neuron.y)), np.abs(sub_up(square[1], neuron.y)))
    lengths = norm_upper(neuron.x, axis=1)
    second = moments(Enclosed(a.value[:, None], a.error[:, None]) * neuron.x)
    spread = moments(x * lengths[:, None])
    # c/3 is rounded once, and what it is then is what the block used: three times it is the exact factor of S.
    factor = 3 * rational(params["c"] / 3)
    wide = rational(third_moments(neuron, a, params["c"]))
    least = max(rational(moments(x).bottom()), Fraction(0))
    leftover = rational(mean_bounds(mul_up(r, mul_up(lengths, lengths)))[1])
    high, top = _size(v)[1], rational(second.top())
    bend = max(9 * factor**2 / (8 * rational(tau)) - least**2, Fraction(0))
    alpha = rational((second - Enclosed.outer(v) * tau).bottom())
    return Curvature(
        m=2 * alpha - leftover - 3 * wide * R - bend * R**2,
        L=2 * top + leftover + 3 * abs(factor) * R * high + 3 * wide * R + R**2 * rational(spread.top()),
        mu=top / 4 + leftover,
        noise=mean_bounds(mul_up(mul_up(r, a.most), lengths))[1],
        opt=to_float_up(rational(mean_bounds(mul_up(r, r))[1]) / 4),
        baseline=to_float_down(rational(neuron.spread()) / 4),
    )


def contraction(neuron: Neuron, params: dict[str, Any], found: Curvature) -> Numbers:
    """The promise from the curvature: see the module's docstring.

    Raises:
        CheckError: if the secant constant is not positive or the step is too long for the iterates to stay in the ball.
    """
    eta, R, m, L, mu = rational(params["eta"]), rational(neuron.distance()), found.m, found.L, found.mu
    if not m > 0:
        raise CheckError(
            STEP, f"the secant constant {float(m):.4g} on the ball of radius {float(R):.4g} is not positive"
        )
    L = max(L, m)
    square = 1 - 2 * eta * m + eta**2 * ((L - mu) * m + L * mu)
    if not (eta * (L - mu) <= 2 and square < 1):
        raise CheckError(STEP, f"the step size {params['eta']!r} is too long for these constants")
    q, push = sqrt_upper(max(square, Fraction(0))), eta * rational(found.noise)
    if not (q < 1 and q * R + push <= R):
        raise CheckError(
            STEP, "the gradient at the comparator is too large for the iterates to stay in the ball"
        )
    # q^T <= exp(-T (1 - q^2) / 2).
    power = exp_rational(-min(params["T"] * (1 - square) / 2, Fraction(700)))[1]
    reach = min(power, Fraction(1)) * R + push / (1 - q)
    value = rational(found.opt) + rational(found.noise) * reach + L * reach**2 / 2
    return {
        "R": to_float_up(R),
        "m": to_float_down(m),
        "L": to_float_up(L),
        "mu": to_float_up(mu),
        "noise": found.noise,
        "contraction": to_float_up(square),
        "reach": to_float_up(reach),
        "opt": found.opt,
        "baseline": found.baseline,
        "bound": to_float_up(value),
    }


_THEOREMS: dict[str, Callable[[Neuron, dict[str, Any]], Curvature]] = {
    "RSIrank": rank_one,
    "RSIphase": phase_retrieval,
}


def derive(
    theorem: str,
    x: np.ndarray,
    y: np.ndarray,
    w0: np.ndarray,
    activation: dict[str, Any],
    comparator: np.ndarray,
    params: dict[str, Any],
) -> Numbers:
    """Every certified number of a promise, rounded outward, true in exact arithmetic for the given numbers.

    Args:
        theorem: ``"RSIrank"`` or ``"RSIphase"``.
        x: rows, shape (n, d).
        y: targets, shape (n,); rank-one factorisation does not use them.
        w0: initial weights, shape (1, d).
        activation: the identity: ``leaky-relu`` with slope 1.
        comparator: v, shape (1, d).
        params: ``T, eta, tau``, and ``c`` for phase retrieval.

    Returns:
        Constants and ``bound``, on the loss of the last iterate; ``m`` and ``baseline`` are lower bounds, the others upper.

    Raises:
        CheckError: if a premise fails or an argument has the wrong shape or range.
    """
    if theorem not in _THEOREMS:
        raise CheckError(STEP, f"no theorem {theorem} for this family; there are {', '.join(_THEOREMS)}")
    neuron = neuron_of(x, y, w0, activation, comparator)
    check_linear(neuron.link, params)
    return contraction(neuron, params, _THEOREMS[theorem](neuron, params))


__all__ = ["contraction", "derive", "phase_retrieval", "rank_one"]
