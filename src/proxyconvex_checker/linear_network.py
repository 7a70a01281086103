"""Certified numbers of two-layer linear networks on the squared loss, from a start with a large second layer (theorem ``PLnet``).

``f(W, a) = F(theta) = (1/2n) ||X theta - y||^2``, ``theta = W^T a``; ``C = X^T X / n`` with smallest eigenvalue ``l > 0`` and largest
``lambda_max``. All parameters w are one array of shape (m, d + 1): the rows of W, then the entry of a.

**PL.** With ``g = grad F(theta)``: ``grad_W f = a g^T``, ``grad_a f = W g``, so ``||grad f||^2 >= ||a||^2 ||g||^2 >= ||a||^2 2 l (f - f*)``, f* the minimum
of F. On the ball of radius rho around w_0 therefore ``||grad f||^2 >= 2 m (f - f*)``, ``m = l (||a_0|| - rho)^2``.

**Smoothness.** Along ``(W + t P, a + t b)``: ``d theta = P^T a + W^T b``, ``d^2 theta = 2 P^T b``, so the second derivative of f is
``<C d theta, d theta> + 2 <g, P^T b>``, at most ``(lambda_max (||W||^2 + ||a||^2) + ||g||) ||(P, b)||^2`` in size. Where ``f <= f(w_0)``,
``||g||^2 <= 2 lambda_max (f - f*)``. So ``L = lambda_max (||w_0|| + rho)^2 + sqrt(2 lambda_max gap)``, ``gap = f(w_0) - f*``, on the part of the ball where f is at most
``f(w_0)``.

**The iterates stay in the ball** if ``eta L <= 1`` and ``m rho^2 > 8 gap``. Follow the polygon of the steps. As long as it stays in the ball with
``f <= f(w_0)``, ``f(w - t grad f) <= f(w) - (t/2) ||grad f||^2`` for t <= eta (which also keeps f from growing), and with ``D = f - f*``
``sqrt D - sqrt D' >= (D - D')/(2 sqrt D) >= t ||grad f||^2 / (4 sqrt D) >= t ||grad f|| sqrt(2 m) / 4``: the path so far is at most
``sqrt(8 gap / m) < rho``. It never reaches the boundary.

**Promise.** ``f(w_T) - f* <= (1 - eta m)^T gap``, so with ``rate = (1 - eta m)^T`` and ``f* <= f(v)``:
``f(w_T) <= (1 - rate) f(v) + rate f(w_0)``, for any v with ``f(v) <= f(w_0)``. f* is bounded below by ``F(theta_v) - ||grad F(theta_v)||^2 / (2 l)``.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from .classical import check_linear, lambda_min_lower
from .enclosed import Enclosed, moments
from .errors import CheckError
from .links import parse, square_bounds, widened
from .rounding import (
    exp_rational,
    finite,
    mean_bounds,
    norm_lower,
    norm_upper,
    rational,
    sqrt_upper,
    to_float_down,
    to_float_up,
)
from .single_neuron import STEP, Neuron

Numbers = dict[str, float]


def _product(w: np.ndarray) -> Enclosed:
    """``theta = W^T a``, shape (d,)."""
    return Enclosed.exactly(np.ascontiguousarray(w[:, :-1].T)) @ Enclosed.exactly(w[:, -1])


def _residuals(x: np.ndarray, y: np.ndarray, theta: Enclosed) -> tuple[Enclosed, float, float]:
    """``X theta - y`` and bounds of ``F(theta)``."""
    r = Enclosed.exactly(x) @ theta - Enclosed.exactly(y)
    low, high = square_bounds(*widened(r.value, r.error))
    return r, mean_bounds(low)[0] / 2, mean_bounds(high)[1] / 2


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
        theorem: ``"PLnet"``.
        x: rows, shape (n, d).
        y: targets, shape (n,).
        w0: initial weights, shape (m, d + 1).
        activation: the identity: ``leaky-relu`` with slope 1.
        comparator: v, shape (m, d + 1).
        params: ``T, eta, radius``.

    Returns:
        Constants, ``bound`` on the risk ``2 f`` of the last iterate and, for two classes, ``error_bound``; ``l``, ``m`` and ``baseline`` are lower bounds, the others upper.

    Raises:
        CheckError: if a premise fails or an argument has the wrong shape or range.
    """
    if theorem != "PLnet":
        raise CheckError(STEP, f"no theorem {theorem} for this family; there is PLnet")
    x, y, w0, v = finite(x, "x"), finite(y, "y"), finite(w0, "w0"), finite(comparator, "v")
    if not (x.ndim == 2 and y.shape == x.shape[:1] and w0.shape == v.shape == (len(w0), x.shape[1] + 1)):
        raise CheckError(STEP, f"shapes do not fit: x {x.shape}, y {y.shape}, w0 {w0.shape}, v {v.shape}")
    link, radius = parse(activation), rational(params["radius"])
    check_linear(link, params)
    low, top = rational(lambda_min_lower(x)), rational(moments(Enclosed.exactly(x)).top())
    reach = rational(float(norm_lower(w0[:, -1]))) - radius
    if not (low > 0 and radius > 0 and reach > 0):
        raise CheckError(
            STEP,
            f"the smallest eigenvalue of the second moments ({float(low):.4g}), the radius ({float(radius):.4g}) and what is left of the "
            f"second layer on the ball ({float(reach):.4g}) must be positive",
        )
    theta = _product(v)
    r, below, fit = _residuals(x, y, theta)
    slope = (Enclosed.exactly(np.ascontiguousarray(x.T)) @ r / len(x)).norm()
    start = _residuals(x, y, _product(w0))[2]
    gap = max(rational(start) - rational(below) + rational(slope) ** 2 / (2 * low), Fraction(0))
    m = low * reach**2
    L = top * (rational(float(norm_upper(w0))) + radius) ** 2 + sqrt_upper(2 * top * gap)
    if not m * radius**2 > 8 * gap:
        raise CheckError(
            STEP, f"m rho^2 = {float(m * radius**2):.4g} is not above 8 (f(w_0) - f*) = {float(8 * gap):.4g}"
        )
    if not rational(params["eta"]) * L <= 1:
        raise CheckError(STEP, f"eta L exceeds 1: eta = {params['eta']!r}, L <= {float(L):.6g}")
    power = rational(params["eta"]) * m * params["T"]
    rate = min(exp_rational(-min(power, Fraction(700)))[1], Fraction(1))
    value = rational(fit) + rate * max(rational(start) - rational(fit), Fraction(0))
    numbers = {
        "l": to_float_down(low),
        "lambda_max": to_float_up(top),
        "m": to_float_down(m),
        "L": to_float_up(L),
        "initial_loss": start,
        "gap": to_float_up(gap),
        "rate": to_float_up(rate),
        "opt": fit,
        "baseline": Neuron(x, y, w0, v, link).spread(),
        "bound": to_float_up(2 * value),
    }
    if np.isin(y, (-1.0, 1.0)).all():
        numbers["error_bound"] = min(numbers["bound"], 1.0)
    return numbers


__all__ = ["derive"]
