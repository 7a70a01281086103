"""Two-layer networks on a ball around their weights: what every certificate in weight space is computed with.

Network ``N(W; x) = m^{-1/2} sum_r a_r phi(<w_r, x>)`` with fixed signs ``a_r``, centre V, on the Frobenius ball ``||W - V||_F <= rho``
and / or per-neuron balls ``||w_r - v_r|| <= caps_r`` (given both, each bound is the smaller of the two: both regions contain the
intersection). All four activations are convex with ``c <= phi' <= 1``; smooth ones have ``0 <= phi'' <= H``. Write
``delta_r = <w_r - v_r, x_i>``, so that ``sum_r delta_r^2 <= ||x_i||^2 rho^2`` and ``|delta_r| <= ||x_i|| caps_r``; a neuron is *adverse*
for row i if ``a_r = y_i``.

**Tangent margins**, ``Delta_i = y_i N(V; x_i) - y_i (N(W; x_i) + <grad N(W; x_i), V - W>)``. Smooth: it is
``m^{-1/2} sum_r y_i a_r [phi(v) - phi(w) + phi'(w) delta_r]``, and the bracket lies in ``[0, H delta_r^2 / 2]`` (Taylor with ``phi'' >= 0``), so
only adverse neurons hurt: ``Delta_i <= H ||x_i||^2 rho^2 / (2 sqrt m)``. On per-neuron balls H may be replaced neuron by neuron by the
largest ``phi''`` within reach of ``<v_r, x_i>``. (Leaky) ReLU: the knapsack over adverse neurons.

**All rows at once**, ``sum_i c_i Delta_i`` for ``c_i >= 0``. Smooth: neuron r contributes at most
``H / (2 sqrt m) delta' C_{a_r} delta`` with ``C_s = sum_{y_i = s} c_i x_i x_i'``, together ``H rho^2 / (2 sqrt m) max_s lambda_max(C_s)``.
(Leaky) ReLU: the joint flip bound, `flips`.

**Mean loss of the tangent margins.** On ``[0, D_i]``, ``D_i`` the bound for row i alone, the convex ``loss(m_i - t)`` lies below its chord:
``h <= mean loss(m_i) + sum_i c_i Delta_i^+``, ``c_i = (loss(m_i - D_i) - loss(m_i)) / (n D_i)``; also ``h <= mean loss(m_i - D_i)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..activations import Activation
from ..errors import CheckError
from ..rationals import rational, sqrt_lower, sqrt_upper, to_float_down, to_float_up
from ..rounding import (
    SMALLEST_NORMAL,
    Array,
    add_up,
    div_down,
    div_up,
    finite,
    matmul_enclosure,
    mean_bounds,
    mul_up,
    next_down,
    next_up,
    norm_upper,
    product_upper,
    sigmoid_bounds,
    softplus_bounds,
    sub_down,
    sub_up,
    sum_bounds,
)
from ..two_layer_ntk import blocks, knapsack_upper
from . import flips as weight_flips
from .norms import eigenvalue_upper

STEP = "network"


@dataclass(frozen=True)
class Center:
    """A network at its centre: independent of the region.

    Attributes:
        phi: activation.
        x: inputs, shape (n, d).
        y: targets in {-1, +1}, shape (n,).
        v: centre, shape (m, d).
        signs: ``a_r`` in {-1, +1}, shape (m,).
        norms: upper bounds on ``||x_i||``, shape (n,).
        low: lower bounds on ``y_i N(V; x_i)``, shape (n,).
        high: upper bounds on them.
        slope_squares: upper bounds on ``sum_r phi'(<v_r, x_i>)^2``, shape (n,).
    """

    phi: Activation
    x: Array
    y: Array
    v: Array
    signs: Array
    norms: Array
    low: Array
    high: Array
    slope_squares: Array


@dataclass(frozen=True)
class Region:
    """``||W - V||_F <= radius`` and ``||w_r - v_r|| <= caps_r``; at least one of the two."""

    radius: float | None = None
    caps: Array | None = None

    def __post_init__(self) -> None:
        if self.radius is None and self.caps is None:
            raise CheckError("region", "a radius or per-neuron radii are needed")
        for value in (self.radius, self.caps):
            if value is not None and not (np.isfinite(value).all() and np.all(np.asarray(value) >= 0)):
                raise CheckError("region", "radii must be finite and >= 0")


def checked(x: Array, y: Array, v: Array, signs: Array) -> tuple[Array, Array, Array, Array]:
    """The arrays as float64.

    Raises:
        CheckError: for arrays that do not fit together, targets or signs other than -1 and +1.
    """
    x, y, v, signs = (finite(z, "an array of the network") for z in (x, y, v, signs))
    if x.ndim != 2 or v.ndim != 2 or not x.size or not v.size or x.shape[1] != v.shape[1]:
        raise CheckError(STEP, f"inputs {x.shape} and weights {v.shape} do not fit together")
    for what, values, count in (("targets", y, len(x)), ("signs", signs, len(v))):
        if values.shape != (count,) or not np.isin(values, (-1.0, 1.0)).all():
            raise CheckError(STEP, f"{what} must be {count} numbers -1 or +1")
    return x, y, v, signs


def examine(x: Array, y: Array, v: Array, signs: Array, phi: Activation) -> Center:
    """The centre's margins, slopes and norms.

    Raises:
        CheckError: for arrays that do not fit together, targets or signs other than -1 and +1.
    """
    x, y, v, signs = checked(x, y, v, signs)
    ends, squares = np.empty((len(x), 2)), np.empty(len(x))
    for rows in blocks(len(x), len(v)):
        z, e = matmul_enclosure(x[rows], v.T)
        ends[rows] = _signed_sum(*phi.value(z, e), signs)
        d = phi.derivative_upper(z, e)
        squares[rows] = row_sums(mul_up(d, d))
    root = div_down(1.0, to_float_up(sqrt_upper(len(v)))), div_up(1.0, to_float_down(sqrt_lower(len(v))))
    low, high = ends[:, 0], ends[:, 1]
    low = next_down(low * np.where(low >= 0, root[0], root[1]))
    high = next_up(high * np.where(high >= 0, root[1], root[0]))
    low, high = np.where(y > 0, low, -high), np.where(y > 0, high, -low)
    return Center(phi, x, y, v, signs, np.asarray(norm_upper(x, axis=1)), low, high, squares)


def _signed_sum(value: Array, error: Array, signs: Array) -> Array:
    """(lower, upper) bounds on ``sum_r a_r phi_r``, shape (rows, 2).

    Neurons of opposite signs are subtracted in pairs first: where they nearly cancel, the rounding of the sum is then relative to the
    small differences.
    """
    plus, minus = np.flatnonzero(signs > 0), np.flatnonzero(signs < 0)
    k = min(len(plus), len(minus))
    pair = value[:, plus[:k]] - value[:, minus[:k]]
    pair_error = add_up(add_up(error[:, plus[:k]], error[:, minus[:k]]), next_up(np.abs(pair)) * 2.0**-52)
    rest = plus[k:] if len(plus) > k else minus[k:]
    terms = np.concatenate([pair, value[:, rest] * signs[rest]], axis=1)
    errors = np.concatenate([pair_error, error[:, rest]], axis=1)
    total, e = matmul_enclosure(terms, np.ones((terms.shape[1], 1)), a_error=errors)
    return np.column_stack([sub_down(total[:, 0], e[:, 0]), add_up(total[:, 0], e[:, 0])])


def row_sums(x: Array) -> Array:
    """Upper bounds on the sums of the rows of a matrix with entries >= 0."""
    return product_upper(np.ascontiguousarray(x), np.ones((x.shape[1], 1)))[:, 0]


# --- tangent margins, row by row -------------------------------------------------------------------------------


def tangent_decrease(center: Center, region: Region) -> Array:
    """Upper bounds ``D_i >= 0`` on ``Delta_i`` over the region, shape (n,)."""
    best = np.full(len(center.x), np.inf)
    if region.radius is not None:
        best = np.minimum(best, _tangent_in_ball(center, region.radius))
    if region.caps is not None:
        best = np.minimum(best, _tangent_in_caps(center, region.caps))
    return best


def _tangent_in_ball(center: Center, radius: float) -> Array:
    phi, m = center.phi, len(center.v)
    reach = mul_up(center.norms, radius)
    if phi.smooth:
        return mul_up(mul_up(reach, reach), to_float_up(phi.curvature / (2 * sqrt_lower(m))))
    out = np.empty(len(center.x))
    for rows in blocks(len(center.x), m):
        z, e = matmul_enclosure(center.x[rows], center.v.T)
        adverse = center.y[rows, None] * center.signs > 0
        t, e = np.where(adverse, np.abs(z), 0.0), np.where(adverse, e, 0.0)
        out[rows] = knapsack_upper(t, e, mul_up(reach[rows], reach[rows]))
    return mul_up(out, to_float_up((1 - rational(phi.slope)) / sqrt_lower(m)))


def _tangent_in_caps(center: Center, caps: Array) -> Array:
    phi, out = center.phi, np.empty(len(center.x))
    for rows in blocks(len(center.x), len(center.v)):
        z, e = matmul_enclosure(center.x[rows], center.v.T)
        reach = mul_up(center.norms[rows, None], caps)
        adverse = center.y[rows, None] * center.signs > 0
        if phi.smooth:
            terms = mul_up(mul_up(reach, reach), curvature_upper(phi, z, add_up(e, reach)))
        else:
            terms = np.where(sub_down(np.abs(z), e) <= reach, add_up(np.abs(z), e), 0.0)
        out[rows] = row_sums(np.where(adverse, terms, 0.0))
    factor = rational(0.5) if phi.smooth else 1 - rational(phi.slope)
    return mul_up(out, to_float_up(factor / sqrt_lower(len(center.v))))


def curvature_upper(phi: Activation, z: Array, reach: Array) -> Array:
    """Upper bound on ``phi''`` within ``reach`` of ``z``; it is even and non-increasing in ``|t|``.

    softplus: ``phi''(t) = beta phi'(t) phi'(-t)``; smooth-leaky: H for ``|t| <= 2 / beta``, 0 beyond.
    """
    nearest = np.maximum(sub_down(np.abs(z), reach), 0.0)
    top = to_float_up(phi.curvature)
    if phi.name == "softplus":
        zero = np.zeros_like(nearest)
        local = mul_up(phi.derivative_upper(nearest, zero), phi.derivative_upper(-nearest, zero))
        return np.minimum(mul_up(local, phi.beta), top)
    return np.where(nearest <= next_up(2 / phi.beta), top, 0.0)


# --- tangent margins, all rows at once -------------------------------------------------------------------------


def joint_decrease(center: Center, region: Region, weights: Array, nu: float | None = None) -> float:
    """Upper bound on ``sum_i c_i Delta_i^+`` over the region.

    Args:
        center: the network.
        region: where.
        weights: ``c_i >= 0``, shape (n,).
        nu: the scalar of the joint flip bound, ``>= 0``; needed for (leaky) ReLU on a Frobenius ball, not used otherwise.

    Raises:
        CheckError: for weights or a nu that are not finite and >= 0.
    """
    weights = finite(weights, "the weights of the rows")
    if weights.shape != center.y.shape or (weights < 0).any():
        raise CheckError(weight_flips.STEP, "the weights must be numbers >= 0, one per row")
    best = np.inf
    if center.phi.smooth:
        spread = [spread_upper(center, np.where(center.y == s, weights, 0.0)) for s in (1.0, -1.0)]
        factor = to_float_up(center.phi.curvature / (2 * sqrt_lower(len(center.v))))
        if region.radius is not None:
            square = mul_up(region.radius, region.radius)
            best = float(mul_up(mul_up(max(spread), square), factor))
        if region.caps is not None:
            own = np.where(center.signs > 0, spread[0], spread[1])
            total = sum_bounds(mul_up(mul_up(region.caps, region.caps), own))[1]
            best = min(best, float(mul_up(total, factor)))
        return best
    flips = tabulate(center, weights)
    if region.radius is not None:
        if nu is None:
            raise CheckError(weight_flips.STEP, "nu is missing")
        best = weight_flips.total_decrease(flips, nu, region.radius)
    if region.caps is not None:
        best = min(best, weight_flips.capped_decrease(flips, region.caps))
    return best


def tabulate(center: Center, weights: Array) -> weight_flips.Flips:
    """The sorted flips of a (leaky) ReLU network."""
    return weight_flips.tabulate(
        center.x, center.y, center.v, center.signs, center.phi.slope, center.norms, weights
    )


def spread_upper(center: Center, weights: Array) -> float:
    """Upper bound on ``lambda_max(sum_i c_i x_i x_i')``, from the smaller Gram matrix."""
    rows = np.flatnonzero(weights > 0)
    if not len(rows):
        return 0.0
    scaled = center.x[rows] * np.sqrt(next_up(weights[rows]))[:, None]
    # Root and product round once each, by 2^-53 relatively.
    error = np.abs(scaled) * 2.0**-51 + SMALLEST_NORMAL
    if scaled.shape[1] <= len(rows):
        gram = matmul_enclosure(scaled.T, scaled, a_error=error.T, b_error=error)
    else:
        gram = matmul_enclosure(scaled, scaled.T, a_error=error, b_error=error.T)
    return eigenvalue_upper(*gram)


def chord_weights(margins: Array, decrease: Array) -> Array:
    """Upper bounds on ``(loss(m - D) - loss(m)) / (n D)``, shape (n,); at most ``|loss'(m - D)| / n`` and ``1 / n``."""
    worst = sub_down(margins, decrease)
    rise = sub_up(softplus_bounds(-worst)[1], softplus_bounds(-margins)[0])
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        chord = div_up(rise, decrease)
    steepest = sigmoid_bounds(-worst)[1]
    slope = np.where((decrease > 0) & np.isfinite(chord), np.minimum(chord, steepest), steepest)
    return div_up(np.minimum(np.maximum(slope, 0.0), 1.0), len(margins))


def tangent_loss(center: Center, region: Region, nu: float | None = None) -> float:
    """Upper bound on the mean logistic loss of the tangent margins over the region: the ``h`` of T4 + T5 and T3 + T5."""
    alone = tangent_decrease(center, region)
    row_by_row = mean_bounds(softplus_bounds(-sub_down(center.low, alone))[1])[1]
    if not center.phi.smooth and region.radius is not None and nu is None:
        return row_by_row
    weights = chord_weights(center.low, alone)
    start = mean_bounds(softplus_bounds(-center.low)[1])[1]
    return min(row_by_row, float(add_up(start, joint_decrease(center, region, weights, nu))))
