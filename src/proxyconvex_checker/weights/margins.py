"""True margins, outputs and gradients of a two-layer network on a ball; notation as in `two_layer`.

``y_i N(V; x_i) - y_i N(W; x_i) <= m^{-1/2} sum_r psi_r(delta_r)``; for any ``nu > 0`` that is at most
``m^{-1/2} (nu ||x_i||^2 rho^2 + sum_r sup_t [psi_r(t) - nu t^2])``, and every supremum has a closed form (`_adverse`, `_other`).
"""

from __future__ import annotations

import numpy as np

from ..activations import Activation
from ..directed import quiet
from ..rationals import rational, sqrt_lower, sqrt_upper, to_float_down, to_float_up
from ..rounding import (
    Array,
    add_up,
    div_up,
    matmul_enclosure,
    mul_up,
    next_down,
    next_up,
    norm_upper,
    sub_down,
    sub_up,
)
from ..two_layer_ntk import Network, blocks
from .two_layer import Center, Region, curvature_upper, row_sums


def margin_decrease(center: Center, region: Region, direction: Array | None = None) -> Array:
    """Upper bounds on ``s_i N(V; x_i) - s_i N(W; x_i)`` over the region, shape (n,); ``s`` is y unless given."""
    s = center.y if direction is None else direction
    out, m = np.empty(len(center.x)), len(center.v)
    for rows in blocks(len(center.x), m):
        z, e = matmul_enclosure(center.x[rows], center.v.T)
        d, adverse = center.phi.derivative_upper(z, e), s[rows, None] * center.signs > 0
        best = np.full(len(z), np.inf)
        if region.radius is not None:
            best = _margin_in_ball(center, rows, (z, e, d, adverse), region.radius)
        if region.caps is not None:
            reach = mul_up(center.norms[rows, None], region.caps)
            best = np.minimum(best, row_sums(_single(center.phi, z, e, d, adverse, reach)))
        out[rows] = best
    return mul_up(out, to_float_up(1 / sqrt_lower(m)))


CURVED = ((1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (1.3, 0.0))
KINKED = ((0.8, 0.0), (1.0, 0.0), (1.2, 0.0), (1.5, 0.0))
"""Values of nu that are tried: multiples of the first-order optimum, plus multiples of the curvature."""
_Cells = tuple[Array, Array, Array, Array]


@quiet
def _margin_in_ball(center: Center, rows: slice, cells: _Cells, radius: float) -> Array:
    """``min_nu nu ||x||^2 rho^2 + sum_r sup_t [psi_r(t) - nu t^2]`` over a few nu, per row."""
    z, e, d, adverse = cells
    reach = mul_up(center.norms[rows], radius)
    budget = mul_up(reach, reach)
    bend = to_float_up(center.phi.curvature) if center.phi.smooth else 0.0
    slopes = np.sqrt(center.slope_squares[rows])
    first = slopes / (2 * np.maximum(reach, 1e-150))
    # |psi_r(t)| <= |t| and Cauchy's inequality: always available.
    best = mul_up(reach, to_float_up(sqrt_upper(len(center.v))))
    for stretch, more in CURVED if bend else KINKED:
        nu = np.clip(first * stretch + more * bend, 1e-140, 1e140)[:, None]
        quarter = 1 / (4 * nu)
        terms = np.where(
            adverse, _adverse(center.phi, z, e, d, quarter), _other(center.phi, z, e, d, nu, quarter)
        )
        # Fewer than ten roundings per term, each below 2^-52 relative to the term or to 1 / (4 nu).
        slack = next_up(quarter[:, 0] * (2.0**-48 * z.shape[1]))
        total = add_up(mul_up(row_sums(np.maximum(terms, 0.0)), 1 + 2.0**-48), slack)
        best = np.minimum(best, add_up(mul_up(nu[:, 0], budget), total))
    return best


def _adverse(phi: Activation, z: Array, e: Array, d: Array, quarter: Array) -> Array:
    """``sup_t [phi(v) - phi(v - t) - nu t^2]``, ``quarter = 1 / (4 nu)``.

    By convexity ``phi(v) - phi(v - t) <= phi'(v) t``; homogeneous phi also ``<= c t + (1 - c) max(v, 0)``.
    """
    value = d * d * quarter
    if phi.smooth:
        return value
    c = phi.slope
    return np.minimum(value, c * c * quarter + (1 - c) * np.maximum(z + e, 0.0) * (1 + 2.0**-50))


def _other(phi: Activation, z: Array, e: Array, d: Array, nu: Array, quarter: Array) -> Array:
    """``sup_t [phi(v + t) - phi(v) - nu t^2]``.

    ``phi(v + t) - phi(v) <= t``; smooth phi also ``<= phi'(v) t + H t^2 / 2``; homogeneous phi is the larger of its two lines,
    ``c t`` and ``t - (1 - c) max(-v, 0)``.
    """
    if phi.smooth:
        rest = next_down(nu - to_float_up(phi.curvature) / 2)
        bent = np.where(rest > 0, d * d / (4 * np.where(rest > 0, rest, 1.0)) * (1 + 2.0**-48), np.inf)
        return np.minimum(np.broadcast_to(quarter, d.shape), bent)
    c = phi.slope
    return np.maximum(c * c * quarter, quarter - (1 - c) * np.maximum(-(z + e), 0.0))


def _single(phi: Activation, z: Array, e: Array, d: Array, adverse: Array, reach: Array) -> Array:
    """Upper bounds on ``psi_r`` where neuron r alone has ``|delta_r| <= reach``."""
    if phi.smooth:
        half = mul_up(mul_up(reach, reach), curvature_upper(phi, z, add_up(e, reach)) / 2)
        return np.where(adverse, mul_up(d, reach), np.minimum(reach, add_up(mul_up(d, reach), half)))
    c, rest = phi.slope, next_up(1 - phi.slope)
    down = np.minimum(reach, add_up(mul_up(reach, c), mul_up(rest, np.maximum(add_up(z, e), 0.0))))
    gap = next_down(next_down(1 - c) * np.maximum(-add_up(z, e), 0.0))
    up = np.maximum(mul_up(reach, c), sub_up(reach, gap))
    return np.where(adverse, down, np.minimum(up, reach))


def margins(center: Center, region: Region) -> Array:
    """Lower bounds on ``y_i N(W; x_i)`` over the region, shape (n,)."""
    return sub_down(center.low, margin_decrease(center, region))


def output_range(center: Center, region: Region) -> tuple[Array, Array]:
    """(lower, upper) bounds on ``N(W; x_i)`` over the region, shape (n,) each."""
    low, high = (
        np.where(center.y > 0, center.low, -center.high),
        np.where(center.y > 0, center.high, -center.low),
    )
    one = np.ones(len(center.y))
    return sub_down(low, margin_decrease(center, region, one)), add_up(
        high, margin_decrease(center, region, -one)
    )


def lipschitz(center: Center, region: Region) -> Array:
    """Upper bounds on ``||grad N(W; x_i)|| = ||x_i|| (mean_r phi'(<w_r, x_i>)^2)^{1/2}`` over the region, shape (n,).

    Smooth phi: ``phi'(w) <= phi'(v) + H |delta_r|`` and Minkowski's inequality. (Leaky) ReLU: the sum of squared slopes grows by
    ``1 - c^2`` for each neuron that can be switched on (`two_layer_ntk.Network`). At most ``||x_i||`` always.
    """
    phi, m = center.phi, len(center.v)
    radius = np.inf if region.radius is None else region.radius
    if region.caps is not None:
        radius = min(float(radius), float(norm_upper(region.caps)))
    squares = center.slope_squares
    if phi.smooth:
        rise = mul_up(mul_up(center.norms, radius), to_float_up(phi.curvature))
        root = add_up(next_up(np.sqrt(squares)), rise)
    else:
        slopes = next_up(np.sqrt(div_up(squares, m)))
        network = Network(phi, center.x, center.y, center.v, radius, center.norms, center.low, slopes)
        more = mul_up(network.switched_on(radius), to_float_up(1 - rational(phi.slope) ** 2))
        root = next_up(np.sqrt(add_up(squares, more)))
    share = div_up(root, to_float_down(sqrt_lower(m)))
    return mul_up(center.norms, np.minimum(share, 1.0))
