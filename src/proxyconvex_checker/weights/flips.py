"""The joint flip bound: how much the tangent margins of all samples together can lose when the weights of a (leaky) ReLU network move.

Network ``N(W; x) = m^{-1/2} sum_r a_r phi(<w_r, x>)``, centre V. The tangent margin ``y_i (N(W; x_i) + <grad N(W; x_i), V - W>)
= m^{-1/2} sum_r y_i a_r phi'(<w_r, x_i>) <v_r, x_i>`` differs from the margin at V only where a neuron has another sign at W than
at V ("flips"). A flip changes it by ``(1 - c) |<v_r, x_i>| / sqrt m``, for the worse exactly if ``y_i a_r = 1``, and needs
``||w_r - v_r|| >= d_ri = |<v_r, x_i>| / ||x_i||``. So with weights ``c_i >= 0`` the total loss is at most ``sum_r P_r(tau_r)``, where
``tau_r = ||w_r - v_r||`` and ``P_r(tau)`` sums ``c_i (1 - c) |<v_r, x_i>| / sqrt m`` over the hurting samples with ``d_ri <= tau``.

* Frobenius ball, ``sum_r tau_r^2 <= rho^2``: for **any** ``nu >= 0`` at most ``nu rho^2 + sum_r max_k (P_rk - nu d_r(k)^2)``, the maximum
  over the prefixes of the samples sorted by ``d``, the empty one included. The scalar nu is the whole certificate.
* Per-neuron balls ``tau_r <= caps_r``: at most ``sum_r P_r(caps_r)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import CheckError
from ..rationals import rational, sqrt_lower, to_float_up
from ..rounding import (
    Array,
    add_up,
    div_down,
    gamma_upper,
    matmul_enclosure,
    mul_down,
    mul_up,
    next_up,
    sub_down,
    sum_bounds,
)

STEP = "joint flip bound"
BLOCK = 2**20
BUCKETS = 1024
"""Prefixes kept per neuron. Beyond that, neighbouring samples share the cost of the first and the gains of all: still an upper bound."""


@dataclass(frozen=True)
class Flips:
    """Gains and costs of flipping, neuron by neuron, the cheapest samples first; a list of blocks of neurons.

    Attributes:
        neurons: indices of the neurons of each block.
        gains: upper bounds on ``P_rk``, shape (rows, k) each, non-decreasing along a row.
        costs: lower bounds on ``d_r(k)^2``, same shapes, non-decreasing along a row.
    """

    neurons: tuple[Array, ...]
    gains: tuple[Array, ...]
    costs: tuple[Array, ...]


def tabulate(x: Array, y: Array, v: Array, signs: Array, slope: float, norms: Array, weights: Array) -> Flips:
    """Sort the hurting samples of every neuron by the cost of flipping it there.

    Args:
        x: inputs, shape (n, d).
        y: targets in {-1, +1}, shape (n,).
        v: centre, shape (m, d).
        signs: ``a_r`` in {-1, +1}, shape (m,).
        slope: the leak c.
        norms: upper bounds on ``||x_i||``, shape (n,).
        weights: ``c_i >= 0``, shape (n,).

    Raises:
        CheckError: for a weight that is negative or not finite.
    """
    weights = np.asarray(weights, float)
    if weights.shape != y.shape or not np.isfinite(weights).all() or (weights < 0).any():
        raise CheckError(STEP, "the weights must be finite numbers >= 0, one per row")
    factor = to_float_up((1 - rational(slope)) / sqrt_lower(len(v)))
    neurons, gains, costs = [], [], []
    for sign in (1.0, -1.0):
        rows = np.flatnonzero((y == sign) & (weights > 0))
        if not len(rows):
            continue
        columns = np.ascontiguousarray(x[rows].T)
        # A zero row has no gain; its norm must not divide by zero.
        size, weight = np.maximum(norms[rows], 2.0**-1000), mul_up(weights[rows], factor)
        members = np.flatnonzero(signs == sign)
        step = max(1, BLOCK // len(rows))
        for start in range(0, len(members), step):
            block = members[start : start + step]
            gain, cost = _block(v[block], columns, size, weight)
            neurons.append(block)
            gains.append(gain)
            costs.append(cost)
    return Flips(tuple(neurons), tuple(gains), tuple(costs))


def _block(v: Array, columns: Array, size: Array, weight: Array) -> tuple[Array, Array]:
    """Prefix sums of gains and squared costs for a block of neurons."""
    z, e = matmul_enclosure(v, columns)
    np.abs(z, out=z)
    gain = mul_up(add_up(z, e), weight)
    cost = np.maximum(div_down(sub_down(z, e), size), 0.0)
    order = np.argsort(cost, axis=1)
    cost = np.take_along_axis(cost, order, axis=1)
    total = np.cumsum(np.take_along_axis(gain, order, axis=1), axis=1)
    # k additions of numbers >= 0 in any order: relative error gamma_k.
    total *= to_float_up(1 + 2 * Fraction(gamma_upper(total.shape[1] + 2)))
    cost = np.maximum(mul_down(cost, cost), 0.0)
    if total.shape[1] > BUCKETS:
        edges = np.linspace(0, total.shape[1], BUCKETS + 1).astype(int)
        total, cost = total[:, edges[1:] - 1], cost[:, edges[:-1]]
    return np.ascontiguousarray(next_up(total)), np.ascontiguousarray(cost)


def total_decrease(flips: Flips, nu: float, radius: float) -> float:
    """Upper bound on the weighted decrease over the Frobenius ball of this radius, from the scalar nu.

    A flip that costs more than the whole budget is impossible, so it is left out. Rounding: a term ``P - nu d^2`` that is positive
    is off by less than ``2^-51 P``.

    Raises:
        CheckError: for a nu that is negative or not finite.
    """
    if not (math.isfinite(nu) and nu >= 0):
        raise CheckError(STEP, f"nu = {nu!r} is not a finite number >= 0")
    budget = float(mul_up(radius, radius))
    best = []
    for gain, cost in zip(flips.gains, flips.costs, strict=True):
        possible = cost <= budget
        terms = np.where(possible, gain - nu * cost, 0.0)
        error = np.where(possible, gain, 0.0).max(axis=1) * 2.0**-50
        best.append(np.maximum(terms.max(axis=1), 0.0) + next_up(error))
    total = sum_bounds(next_up(np.concatenate(best)))[1] if best else 0.0
    return float(add_up(mul_up(nu, budget), total))


def capped_decrease(flips: Flips, caps: Array) -> float:
    """Upper bound on the weighted decrease over per-neuron balls of radii ``caps``, shape (m,)."""
    best = []
    for rows, gain, cost in zip(flips.neurons, flips.gains, flips.costs, strict=True):
        reach = mul_up(caps[rows], caps[rows])[:, None]
        best.append(np.where(cost <= reach, gain, 0.0).max(axis=1))
    return sum_bounds(np.concatenate(best))[1] if best else 0.0


def best_nu(flips: Flips, radius: float, relative: float = 1e-4) -> float:
    """A nu whose bound is within ``relative`` of the best (plain floating point: any nu is valid).

    The bound is convex and piecewise linear in nu. Two tangents, one from each side of the minimum, meet below it; the next nu is
    where they meet, and the gap between the value there and the meeting point bounds what is left to gain.
    """
    budget = radius * radius

    def at(nu: float) -> tuple[float, float]:
        value, spent = nu * budget, 0.0
        for gain, cost in zip(flips.gains, flips.costs, strict=True):
            terms = gain - nu * cost
            terms[cost > budget] = 0.0
            k = terms.argmax(axis=1)
            row = np.arange(len(k))
            taken = terms[row, k]
            value += float(np.maximum(taken, 0.0).sum())
            spent += float(np.where(taken > 0, cost[row, k], 0.0).sum())
        return value, budget - spent

    low, (value_low, slope_low) = 0.0, at(0.0)
    if slope_low >= 0 or budget == 0 or not value_low:
        return 0.0
    # J(nu) >= nu rho^2, so beyond J(0) / rho^2 nothing is better than nu = 0.
    high = value_low / budget
    value_high, slope_high = at(high)
    if slope_high <= 0:
        return high
    for _ in range(60):
        nu = (value_high - value_low + slope_low * low - slope_high * high) / (slope_low - slope_high)
        nu = min(max(nu, low), high)
        meeting = value_low + slope_low * (nu - low)
        value, slope = at(nu)
        if value - meeting <= relative * value:
            return nu
        if slope < 0:
            low, value_low, slope_low = nu, value, slope
        else:
            high, value_high, slope_high = nu, value, slope
    return nu
