"""The mean logistic loss of a two-layer network on a ball, to first order exact.

With ``Delta_i = y_i N(V; x_i) - y_i N(W; x_i)``, ``p_i = |loss'|`` at the centre and ``loss'' <= 1/4``,

    f(W) <= f(V) + (1/n) sum_i p_i Delta_i + (1/8n) sum_i Delta_i^2.

* ``Delta_i^2 <= sum_r delta_ri^2`` (``|phi'| <= 1``, Cauchy), so the last term is at most ``lambda_max(C) rho^2 / 8``, ``C = (1/n) sum x x'``.
* phi is convex, so adverse neurons (``a_r = y_i``) contribute at most their first-order term. The others contribute it and a remainder
  in ``[0, H delta^2 / 2]`` (smooth) or ``[0, (1 - c) (|delta| - |<v_r, x_i>|)_+]`` (homogeneous). The first-order terms of all neurons and
  rows are ``<grad f(V), W - V> <= ||grad f(V)|| rho``.
* Remainders, smooth: ``H rho^2 / (2 sqrt m) max_s lambda_max(sum_{y_i = s} (p_i / n) x_i x_i')``.
* Remainders, homogeneous: with ``k_i = (1 - c) p_i / (n sqrt m)`` and ``tau = ||w_r - v_r||``, neuron r contributes at most
  ``sum_i k_i ||x_i|| (tau - d_ri)_+ = max_k (S_k tau - T_k)``, the samples sorted by ``d_ri = |<v_r, x_i>| / ||x_i||``, ``S_k`` and ``T_k`` the sums of
  ``k_i ||x_i||`` and ``k_i |<v_r, x_i>|`` over the first k; hence, for any ``nu > 0``, all together at most
  ``nu rho^2 + sum_r max_k (S_k^2 / (4 nu) - T_k)_+``.
"""

from __future__ import annotations

import numpy as np

from ..directed import quiet
from ..rationals import rational, sqrt_lower, to_float_up
from ..rounding import (
    Array,
    add_up,
    div_down,
    div_up,
    gamma_upper,
    matmul_enclosure,
    mean_bounds,
    mul_down,
    mul_up,
    next_down,
    next_up,
    norm_upper,
    sigmoid_bounds,
    softplus_bounds,
    sub_down,
    sub_up,
    sum_bounds,
)
from ..two_layer_ntk import blocks
from .layers import slope_enclosure
from .margins import margin_decrease
from .two_layer import Center, Region, chord_weights, spread_upper


def loss(center: Center, region: Region) -> float:
    """Upper bound on the mean logistic loss over the region: the best of all arguments."""
    best = from_margins(center, region)
    radius = np.inf if region.radius is None else region.radius
    if region.caps is not None:
        radius = min(float(radius), float(norm_upper(region.caps)))
    return min(best, first_order(center, float(radius)))


def from_margins(center: Center, region: Region) -> float:
    """Upper bound on the mean logistic loss, from the margins row by row and from their chords.

    ``sum_i c_i |delta_ri| <= sqrt(sum c) sqrt(lambda_max(sum c_i x_i x_i')) ||w_r - v_r||`` and ``sum_r ||w_r - v_r|| <= sqrt m rho``.
    """
    alone = margin_decrease(center, region)
    row_by_row = mean_bounds(softplus_bounds(-sub_down(center.low, alone))[1])[1]
    if region.radius is None:
        return row_by_row
    weights = chord_weights(center.low, np.maximum(alone, 0.0))
    spread = mul_up(spread_upper(center, weights), sum_bounds(weights)[1])
    move = mul_up(next_up(np.sqrt(spread)), region.radius)
    return min(row_by_row, float(add_up(mean_bounds(softplus_bounds(-center.low)[1])[1], move)))


def loss_lower(center: Center, region: Region) -> float:
    """Lower bound on the mean logistic loss over the region, row by row."""
    rise = margin_decrease(center, region, -center.y)
    return max(mean_bounds(softplus_bounds(-add_up(center.high, rise))[0])[0], 0.0)


def first_order(center: Center, radius: float) -> float:
    """The bound of the module's docstring on the Frobenius ball."""
    n = len(center.y)
    square = float(mul_up(radius, radius))
    share = div_up(sigmoid_bounds(-center.low)[1], n)
    start = mean_bounds(softplus_bounds(-center.low)[1])[1]
    total = add_up(start, mul_up(gradient_norm(center), radius))
    spread = spread_upper(center, np.full(n, float(div_up(1.0, n))))
    total = add_up(total, mul_up(mul_up(spread, square), 0.125))
    if center.phi.smooth:
        bend = to_float_up(center.phi.curvature / (2 * sqrt_lower(len(center.v))))
        halves = [spread_upper(center, np.where(center.y == s, share, 0.0)) for s in (1.0, -1.0)]
        return float(add_up(total, mul_up(mul_up(max(halves), square), bend)))
    return float(add_up(total, _kinks(center, share, radius)))


def gradient_norm(center: Center) -> float:
    """Upper bound on ``||grad f(V)||_F``; the signs of the neurons do not change it."""
    n, (m, d) = len(center.y), center.v.shape
    low, high = sigmoid_bounds(-center.high)[0], sigmoid_bounds(-center.low)[1]
    middle = (low + high) / 2
    half = next_up(np.maximum(sub_up(high, middle), sub_up(middle, low)))
    pulled = (middle * center.y)[:, None] * center.x
    pulled_error = add_up(mul_up(half[:, None], np.abs(center.x)), np.abs(pulled) * 2.0**-51 + 2.0**-1022)
    total, error = np.zeros((m, d)), np.zeros((m, d))
    for rows in blocks(n, m):
        z, e = matmul_enclosure(center.x[rows], center.v.T)
        slopes, slopes_error = slope_enclosure(center.phi, z, e)
        part, part_error = matmul_enclosure(
            slopes.T, pulled[rows], a_error=slopes_error.T, b_error=pulled_error[rows]
        )
        total = total + part
        error = add_up(add_up(error, part_error), np.abs(total) * 2.0**-52)
    size = norm_upper(add_up(np.abs(total), error))
    return float(mul_up(div_up(size, n), to_float_up(1 / sqrt_lower(m))))


@quiet
def _kinks(center: Center, share: Array, radius: float) -> float:
    """``min_nu nu rho^2 + sum_r max_k (S_k^2 / (4 nu) - T_k)_+`` over a grid of nu."""
    sums = list(_prefixes(center, share, radius))
    budget = float(mul_up(radius, radius))
    steepest = max((float(s.max()) for s, _ in sums), default=0.0)
    if not sums or steepest == 0 or budget == 0:
        return 0.0
    # Below, a single neuron may use the whole budget; above, nothing bends.
    grid = steepest / radius * 2.0 ** np.arange(-14, 2)
    grid = grid[np.isfinite(grid) & (grid > 1e-300)]
    best = min((_kinks_at(sums, float(nu), budget) for nu in grid), default=np.inf)
    return min(
        best, sum_bounds(np.concatenate([(s[:, -1:] * radius).ravel() for s, _ in sums]))[1] * (1 + 2.0**-50)
    )


def _kinks_at(sums: list[tuple[Array, Array]], nu: float, budget: float) -> float:
    """One nu, rounded up: a positive term is off by less than ``2^-50`` of ``S^2 / (4 nu)``."""
    parts = []
    for s, t in sums:
        rise = s * s / (4 * nu)
        parts.append(np.maximum((rise - t).max(axis=1), 0.0) + rise.max(axis=1) * 2.0**-49)
    return float(add_up(mul_up(nu, budget), sum_bounds(next_up(np.concatenate(parts)))[1]))


def _prefixes(center: Center, share: Array, radius: float) -> list[tuple[Array, Array]]:
    """Per block of neurons: upper bounds on ``S_k``, lower bounds on ``T_k``; samples that cannot be reached have no weight."""
    factor = to_float_up((1 - rational(center.phi.slope)) / sqrt_lower(len(center.v)))
    out = []
    for sign in (1.0, -1.0):
        rows = np.flatnonzero(center.y == -sign)
        members = np.flatnonzero(center.signs == sign)
        if not len(rows) or not len(members):
            continue
        columns, size = np.ascontiguousarray(center.x[rows].T), np.maximum(center.norms[rows], 2.0**-1000)
        weight = mul_up(share[rows], factor)
        for part in blocks(len(members), len(rows)):
            z, e = matmul_enclosure(center.v[members[part]], columns)
            least = np.maximum(sub_down(np.abs(z), e), 0.0)
            distance = np.maximum(div_down(least, size), 0.0)
            order = np.argsort(distance, axis=1)
            possible = distance <= radius
            # One weight for both sums, so that each k_i ||x_i|| (tau - d_i) keeps its sign.
            gain = np.where(possible, mul_up(weight, size), 0.0)
            cost = np.where(possible, np.maximum(mul_down(mul_down(weight, size), distance), 0.0), 0.0)
            up = to_float_up(1 + 2 * rational(gamma_upper(len(rows) + 2)))
            s = np.cumsum(np.take_along_axis(gain, order, axis=1), axis=1) * up
            t = np.cumsum(np.take_along_axis(cost, order, axis=1), axis=1) / next_up(up)
            out.append((next_up(s), np.maximum(next_down(t), 0.0)))
    return out
