"""Two-layer networks near a comparator (Ji and Telgarsky 2020): every certified number, from data and weights.

Network ``N(W; x) = m^{-1/2} sum_r a_r phi(<w_r, x>)``, ``a_r = +1`` for the first half of the neurons and -1 for the second;
logistic loss ``f(W) = mean_i log(1 + exp(-y_i N(W; x_i)))``; initial weights in equal pairs, so ``N(W0; .) = 0``. The comparator
is ``V``, ``R = ||W0 - V||_F``, ``X = max_i ||x_i||``, ``H >= |phi''|``.

**Tangent margins on Ball(V, rho).** For every W there, ``y_i (N(W; x_i) + <grad N(W; x_i), V - W>) >= q_i`` with

* smooth phi: ``q_i = y_i N(V; x_i) - H ||x_i||^2 rho^2 / (2 sqrt m)`` (Taylor, neuron by neuron, and
  ``sum_r <v_r - w_r, x>^2 <= ||x||^2 ||V - W||^2``);
* (leaky) ReLU: the left side is ``m^{-1/2} y sum_r a_r phi'(<w_r, x>) <v_r, x>``. Where the sign of a neuron flips it changes by
  ``(1 - c) |<v_r, x>| / sqrt m``, and for the worse only if ``a_r = y_i``; a flip costs ``(<v_r, x> / ||x||)^2`` of the budget
  ``rho^2``. The fractional knapsack bounds the loss by ``(1 - c) / sqrt m (nu ||x||^2 rho^2 + sum_r (t_r - nu t_r^2)_+)``,
  ``t_r = |<v_r, x>|``, for any ``nu >= 0``.

The theorems (T8, T4 + T5, T3 + T5) and their proofs are in the documentation, page 'Mathematics'; each is restated at its
function. Nothing here is shared with the planner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from . import margins
from .activations import Activation, parse
from .errors import CheckError
from .rationals import rational, sqrt_lower, sqrt_upper, to_float_down, to_float_up
from .rounding import (
    Array,
    add_up,
    div_down,
    div_up,
    lambda_max_upper,
    log_rational,
    matmul_enclosure,
    mean_bounds,
    mul_up,
    next_down,
    next_up,
    norm_upper,
    product_upper,
    softplus_bounds,
    sub_down,
)

SLOPE_SQUARED_OVER_LOSS = Fraction(40727, 100000)
"""``sup_q loss'(q)^2 / loss(q)`` of the logistic loss is 0.407264... (at ``-log(1 - p) = p / (2 (1 - p))``, p = 0.71533)."""
BLOCK = 2**21


@dataclass(frozen=True)
class Network:
    """Everything the theorems need that does not depend on the radius.

    Attributes:
        activation: of the network.
        x: features, shape (n, d).
        y: targets, shape (n,).
        comparator: V, shape (m, d).
        distance: upper bound on R.
        norms: upper bounds on ``||x_i||``, shape (n,).
        margins: lower bounds on ``y_i N(V; x_i)``, shape (n,).
        slopes: upper bounds on ``(mean_r phi'(<v_r, x_i>)^2)^{1/2}``, shape (n,).
    """

    activation: Activation
    x: Array
    y: Array
    comparator: Array
    distance: float
    norms: Array
    margins: Array
    slopes: Array

    @property
    def width(self) -> int:
        """Number of neurons m."""
        return len(self.comparator)

    def tangent_margins(self, radius: float) -> Array:
        """Lower bounds ``q_i`` on the tangent margins over Ball(V, radius), shape (n,)."""
        if self.activation.smooth:
            factor = to_float_up(self.activation.curvature / (2 * sqrt_lower(self.width)))
            reach = mul_up(self.norms, radius)
            loss = mul_up(mul_up(reach, reach), factor)
        else:
            loss = self._knapsack(radius)
        return sub_down(self.margins, loss)

    def gradient_norm(self, radius: float) -> float:
        """Upper bound ``G`` on ``||grad N(W; x_i)||`` over the ball and all i; ``phi' <= 1`` always.

        Smooth phi: ``phi'(<w_r, x>) <= phi'(<v_r, x>) + H |<w_r - v_r, x>|`` and Minkowski's inequality. (Leaky) ReLU: the mean
        square of the slopes grows by at most ``(1 - c^2) / m`` times the number of neurons that can be switched on.
        """
        if self.activation.smooth:
            factor = to_float_up(self.activation.curvature / sqrt_lower(self.width))
            slopes = add_up(self.slopes, mul_up(mul_up(self.norms, radius), factor))
        else:
            rise = to_float_up((1 - rational(self.activation.slope) ** 2) / self.width)
            slopes = next_up(
                np.sqrt(add_up(mul_up(self.slopes, self.slopes), mul_up(self.switched_on(radius), rise)))
            )
        return float(mul_up(self.norms, np.minimum(slopes, 1.0)).max())

    def switched_on(self, radius: float) -> Array:
        """Upper bounds on the number of inactive neurons of each row that become active within the radius, shape (n,)."""
        out = np.empty(len(self.x))
        for rows in blocks(len(self.x), self.width):
            reach = mul_up(self.norms[rows], radius)
            z, e = matmul_enclosure(self.x[rows], self.comparator.T)
            # Neurons that may be active at V already count with slope 1; an infinite cost takes them out.
            cost = np.where(z > -e, np.inf, next_down(sub_down(-z, e) ** 2))
            out[rows] = _count_upper(np.maximum(cost, 0.0), mul_up(reach, reach))
        return out

    def _knapsack(self, radius: float) -> Array:
        """Upper bounds on the decrease of every margin by sign flips within the radius, shape (n,)."""
        half, out = self.width // 2, np.empty(len(self.x))
        for rows in blocks(len(self.x), self.width):
            budget = mul_up(mul_up(self.norms[rows], radius), mul_up(self.norms[rows], radius))
            z, e = matmul_enclosure(self.x[rows], self.comparator.T)
            own = self.y[rows, None] > 0
            t = np.abs(np.where(own, z[:, :half], z[:, half:]))
            e = np.where(own, e[:, :half], e[:, half:])
            out[rows] = knapsack_upper(t, e, budget)
        factor = to_float_up((1 - rational(self.activation.slope)) / sqrt_lower(self.width))
        return mul_up(out, factor)


def knapsack_upper(t: Array, e: Array, budget: Array) -> Array:
    """Upper bound on ``max {sum_r s_r t_r : 0 <= s_r <= 1, sum_r s_r t_r^2 <= budget}`` for every ``t`` within ``e``, per row.

    Any ``nu >= 0`` gives the bound ``nu budget + sum_r (t_r - nu t_r^2)_+``; the best one, from sorted approximate values, is only
    a hint. Each term is 1-Lipschitz in ``t_r >= 0``.
    """
    ordered = np.sort(t, axis=1)
    cost = np.cumsum(ordered * ordered, axis=1)
    last = (cost <= budget[:, None]).sum(axis=1)
    at = ordered[np.arange(len(t)), np.minimum(last, t.shape[1] - 1)]
    with np.errstate(divide="ignore"):
        nu = np.where((last < t.shape[1]) & (at > 0), np.minimum(1 / at, 1e150), 0.0)[:, None]
    shrink = next_up(1.0 - next_down(nu * t))
    terms = add_up(np.maximum(next_up(t * shrink), 0.0), e)
    total = product_upper(terms, np.ones((t.shape[1], 1)))[:, 0]
    return add_up(mul_up(nu[:, 0], budget), total)


def _count_upper(cost: Array, budget: Array) -> Array:
    """Upper bound on ``max {sum_r s_r : 0 <= s_r <= 1, sum_r s_r cost_r <= budget}`` per row: ``nu budget + sum (1 - nu cost)_+``."""
    ordered = np.sort(cost, axis=1)
    last = (np.cumsum(ordered, axis=1) <= budget[:, None]).sum(axis=1)
    at = ordered[np.arange(len(cost)), np.minimum(last, cost.shape[1] - 1)]
    with np.errstate(divide="ignore"):
        nu = np.where((last < cost.shape[1]) & (at > 0), np.minimum(1 / at, 1e150), 0.0)
    terms = np.zeros_like(cost)
    some = np.isfinite(cost)
    used = np.broadcast_to(nu[:, None], cost.shape)[some] * cost[some]
    terms[some] = np.maximum(next_up(1.0 - next_down(used)), 0.0)
    total = product_upper(terms, np.ones((cost.shape[1], 1)))[:, 0]
    return add_up(mul_up(nu, budget), total)


def blocks(n: int, width: int) -> Iterator[slice]:
    """Slices of rows such that a block of pre-activations has about `BLOCK` entries."""
    size = max(1, BLOCK // width)
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def examine(x: Array, y: Array, initial: Array, activation: dict[str, Any], comparator: Array) -> Network:
    """Certified margins, slopes and norms of a network at its comparator.

    Args:
        x: features, shape (n, d), float64.
        y: targets in {-1, +1}, shape (n,).
        initial: W0, shape (m, d), its two halves equal.
        activation: fields ``name``, ``slope``, ``beta``.
        comparator: V, shape (m, d).

    Raises:
        CheckError: for arrays that do not fit together.
    """
    phi = parse(activation)
    m = len(initial)
    if (
        initial.ndim != 2
        or x.ndim != 2
        or m < 2
        or m % 2
        or initial.shape != comparator.shape
        or initial.shape[1] != x.shape[1]
    ):
        raise CheckError(
            "network", f"shapes {x.shape}, {initial.shape}, {comparator.shape} do not fit together"
        )
    if y.shape != x.shape[:1] or not len(y) or not np.isin(y, (-1.0, 1.0)).all():
        raise CheckError("network", "targets must be -1 or +1, one per row")
    if not np.array_equal(initial[: m // 2], initial[m // 2 :]):
        raise CheckError(
            "network", "the initial weights do not come in equal pairs, so the initial network is not zero"
        )
    # One rounding per entry; the next float above in magnitude bounds the exact difference.
    distance = float(norm_upper(next_up(np.abs(comparator - initial))))
    value, slope = np.empty(len(x)), np.empty(len(x))
    for rows in blocks(len(x), m):
        value[rows], slope[rows] = _at_comparator(x[rows], y[rows], phi, comparator)
    return Network(phi, x, y, comparator, distance, norm_upper(x, axis=1), value, slope)


def _at_comparator(x: Array, y: Array, phi: Activation, comparator: Array) -> tuple[Array, Array]:
    """Lower bounds on ``y N(V; x)`` and upper bounds on the root mean square slope, for a block of rows.

    The two neurons of a pair are subtracted before the sum: with large initial weights their outputs nearly cancel, and the
    rounding of the sum is then relative to the small differences.
    """
    m = len(comparator)
    z, e = matmul_enclosure(x, comparator.T)
    v, v_error = phi.value(z, e)
    pair = v[:, : m // 2] - v[:, m // 2 :]
    pair_error = add_up(add_up(v_error[:, : m // 2], v_error[:, m // 2 :]), next_up(np.abs(pair)) * 2.0**-52)
    ones = np.ones((m // 2, 1))
    total, error = matmul_enclosure(pair, ones, a_error=pair_error)
    low = sub_down(y * total[:, 0], error[:, 0])
    root = div_up(1.0, to_float_down(sqrt_lower(m))), div_down(1.0, to_float_up(sqrt_upper(m)))
    value = next_down(low * np.where(low >= 0, root[1], root[0]))
    slopes = phi.derivative_upper(z, e)
    squares = product_upper(mul_up(slopes, slopes), np.ones((m, 1)))[:, 0]
    return value, next_up(np.sqrt(div_up(squares, m)))


# --- theorems --------------------------------------------------------------------------------------------------


def derive(
    theorem: str,
    x: Array,
    y: Array,
    initial: Array,
    activation: dict[str, Any],
    comparator: Array,
    params: dict[str, Any],
) -> dict[str, float]:
    """Every certified number of a promise, rounded in its safe direction.

    Args:
        theorem: ``"T8"`` (params T, k, c, floor), ``"T4T5"`` or ``"T3T5"`` (params T, eta).
        x: features, shape (n, d).
        y: targets in {-1, +1}, shape (n,).
        initial: W0, shape (m, d).
        activation: fields ``name``, ``slope``, ``beta``.
        comparator: V, shape (m, d).
        params: the numbers of the theorem.

    Raises:
        CheckError: if a premise fails.
    """
    if theorem not in THEOREMS:
        raise CheckError(
            "theorem", f"unknown theorem {theorem!r} for two-layer-ntk; known: {', '.join(THEOREMS)}"
        )
    steps = params["T"]
    if not (isinstance(steps, (int, np.integer)) and steps >= 1):
        raise CheckError(f"theorem {theorem}", f"T = {steps!r} is not a whole number of steps")
    return THEOREMS[theorem](examine(x, y, initial, activation, comparator), params)


def _positive(theorem: str, name: str, value: Any) -> Fraction:
    exact = rational(value)
    if exact <= 0:
        raise CheckError(f"theorem {theorem}", f"{name} = {value!r} must be positive")
    return exact


def normalised_descent(network: Network, params: dict[str, Any]) -> dict[str, float]:
    """T8: steps ``c / max(P_t, floor)``, ``P_t = mean |loss'|``, reach fewer than ``k`` errors within ``T`` iterates.

    While there are at least k errors, ``P_t >= k / (2 n) >= floor`` and
    ``<grad f, w - V> >= mean(p_i q_i + p_i log(p_i / (1 - p_i))) >= S P_t``, ``||grad f|| <= G P_t``, so each step lowers
    ``||w - V||^2`` by at least ``c (2 S - c G^2)``; ``T c (2 S - c G^2) > R^2`` is impossible for T such steps.
    """
    k, n, q = params["k"], len(network.y), network.tangent_margins(network.distance)
    if not (isinstance(k, int) and 1 <= k <= n):
        raise CheckError(margins.STEP, f"k = {k!r} is not a whole number from 1 to {n}")
    least, steepest = margins.margin_floor(q, k), network.gradient_norm(network.distance)
    bounds = margins.few_errors(
        n=n,
        k=k,
        steps=int(params["T"]),
        c=params["c"],
        floor=params["floor"],
        radius_sq=rational(network.distance) ** 2,
        gradient_sq=rational(steepest) ** 2,
        margin=least,
    )
    return {"R": network.distance, "G": steepest, "S": least, "q_min": float(q.min()), **bounds}


def _mean_loss_upper(q: Array) -> Fraction:
    """Upper bound on ``mean log(1 + exp(-q_i))``."""
    return rational(mean_bounds(softplus_bounds(-q)[1])[1])


def _spread_upper(x: Array) -> Fraction:
    """Upper bound on the largest eigenvalue of ``(1/n) sum_i x_i x_i'``, from the smaller Gram matrix."""
    gram = matmul_enclosure(x.T, x) if x.shape[1] <= len(x) else matmul_enclosure(x, x.T)
    return rational(lambda_max_upper(*gram)) / len(x)


def _errors(loss: Fraction, n: int) -> float:
    """A mean loss of at most ``loss`` allows ``floor(n loss / log 2)`` errors of n: each costs at least log 2."""
    return to_float_up(Fraction(min(n, int(n * loss / log_rational(2)[0])), n))


def smooth_descent(network: Network, params: dict[str, Any]) -> dict[str, float]:
    """T4 + T5: constant steps ``eta < 2 / L`` on a smooth network; the loss of the last iterate.

    ``L = lambda_max((1/n) sum x x') (1/4 + H / sqrt m)`` bounds the Hessian of f everywhere. With ``alpha = 1 / (2 - L eta)``
    descent gives ``(eta/2) sum ||grad f||^2 <= alpha (f_0 - f_T)``, ``f_0 = log 2``, hence ``||w_t - V||^2 <= R^2 + 2 eta alpha f_0``
    for as long as ``sum (f_s - h) >= 0``, and ``sum_{t<T} (f_t - h) <= R^2 / (2 eta) + alpha (f_0 - f_T)``. As f decreases,
    ``f_T <= max(h, [T h + R^2 / (2 eta) + (alpha - 1) f_0] / (T - 1 + alpha))``; if the sum turns negative earlier, ``f_T <= h``.
    """
    where, steps = "theorem T4T5", int(params["T"])
    if not network.activation.smooth:
        raise CheckError(where, f"{network.activation.name} is not smooth; T3T5 speaks of it")
    eta, r = _positive("T4T5", "eta", params["eta"]), rational(network.distance)
    smooth = rational(
        to_float_up(
            _spread_upper(network.x)
            * (Fraction(1, 4) + network.activation.curvature / sqrt_lower(network.width))
        )
    )
    if not smooth * eta < 2:
        raise CheckError(where, f"eta = {params['eta']!r} is not below 2 / L = {to_float_down(2 / smooth)!r}")
    alpha, (log2_low, log2_high) = 1 / (2 - smooth * eta), log_rational(2)
    radius = to_float_up(sqrt_upper(r * r + 2 * eta * alpha * log2_high))
    q = network.tangent_margins(radius)
    h = _mean_loss_upper(q)
    start = (alpha - 1) * (log2_high if alpha >= 1 else log2_low)
    loss = max(h, (steps * h + r * r / (2 * eta) + start) / (steps - 1 + alpha))
    return {
        "R": network.distance,
        "radius": radius,
        "L": float(smooth),
        "h": to_float_up(h),
        "q_min": float(q.min()),
        "bound": to_float_up(loss),
        "error_bound": _errors(loss, len(network.y)),
    }


def homogeneous_descent(network: Network, params: dict[str, Any]) -> dict[str, float]:
    """T3 + T5: constant steps ``eta < 2 / A``; the least loss among the first T iterates. No smoothness is used.

    ``||grad f||^2 <= lambda_max((1/n) sum x x') mean_i loss'_i^2 <= A f`` with ``A = 0.40727 lambda_max``, everywhere (neuron by
    neuron, ``phi' <= 1``). While ``(1 - eta A / 2) f_t >= h`` the distance to V does not grow, so
    ``min_{t<T} f_t <= [h + R^2 / (2 eta T)] / (1 - eta A / 2)``.
    """
    where, steps = "theorem T3T5", int(params["T"])
    eta, r = _positive("T3T5", "eta", params["eta"]), rational(network.distance)
    growth = rational(to_float_up(SLOPE_SQUARED_OVER_LOSS * _spread_upper(network.x)))
    if not growth * eta < 2:
        raise CheckError(where, f"eta = {params['eta']!r} is not below 2 / A = {to_float_down(2 / growth)!r}")
    q = network.tangent_margins(network.distance)
    h = _mean_loss_upper(q)
    loss = (h + r * r / (2 * eta * steps)) / (1 - eta * growth / 2)
    return {
        "R": network.distance,
        "A": float(growth),
        "G": network.gradient_norm(network.distance),
        "h": to_float_up(h),
        "q_min": float(q.min()),
        "bound": to_float_up(loss),
        "error_bound": _errors(loss, len(network.y)),
    }


THEOREMS = {"T8": normalised_descent, "T4T5": smooth_descent, "T3T5": homogeneous_descent}
