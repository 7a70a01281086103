"""Certified numbers of the family ``classical``: least squares and logistic regression, full-batch GD, constant step.

``C = (1/n) sum x x^T`` with largest eigenvalue ``lambda_max`` and smallest ``lambda_min``.

**CvxSquares**, **CvxLogistic** (f convex and L-smooth, ``eta L <= 1``): ``f(w_T) <= f(v) + R^2 / (2 eta T)``, ``R = ||w_0 - v||``, for any v. Proof.
Smoothness gives ``f(w_{t+1}) <= f(w_t) - (eta/2) ||grad f(w_t)||^2``; with ``f(w_t) <= f(v) + <grad f(w_t), w_t - v>`` the right
side is ``f(v) + (||w_t - v||^2 - ||w_{t+1} - v||^2) / (2 eta)``. Sum over t < T; f decreases, so the last term is the least.

**PLg** (least squares): ``||grad f||^2 >= 2 m (f - f*)`` with ``m = lambda_min`` (``grad f = C (w - w*)``,
``f - f* = (w-w*)^T C (w-w*)/2``), so ``f(w_{t+1}) - f* <= (1 - eta m) (f(w_t) - f*)`` for ``eta L <= 1``, and with
``rate = (1 - eta m)^T``: ``f(w_T) <= (1 - rate) f* + rate f(w_0) <= (1 - rate) f(v) + rate f(w_0)``, because ``f* <= f(v)``
and ``rate`` in [0, 1].

The activation field is the identity, ``leaky-relu`` with slope 1. The loss belongs to the theorem: logistic regression has
targets -1 and +1, ``L = lambda_max / 4`` and ``loss >= log 2`` at an error; least squares is
``f = (1/2) mean (<w, x> - y)^2`` with ``L = lambda_max`` and risk ``2 f``.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from .enclosed import Enclosed, moments
from .errors import CheckError
from .links import Link, square_bounds, widened
from .rounding import (
    exp_rational,
    log_rational,
    matmul_enclosure,
    mean_bounds,
    rational,
    softplus_bounds,
    sub_down,
    sub_up,
    to_float_up,
)
from .single_neuron import STEP, Neuron, neuron_of

Numbers = dict[str, float]


def loss_upper(neuron: Neuron, w: np.ndarray, logistic: bool) -> float:
    """Upper bound on ``f(w)``, w of shape (1, d)."""
    low, high = widened(*matmul_enclosure(neuron.x, w[0]))
    if logistic:
        return mean_bounds(softplus_bounds(np.where(neuron.y > 0, -low, high))[1])[1]
    squares = square_bounds(sub_down(low, neuron.y), sub_up(high, neuron.y))[1]
    return to_float_up(rational(mean_bounds(squares)[1]) / 2)


def lambda_min_lower(x: np.ndarray) -> float:
    """Lower bound on the smallest eigenvalue of C; at least 0."""
    return max(moments(Enclosed.exactly(x)).bottom(), 0.0)


def check_linear(link: Link, params: dict[str, Any]) -> None:
    """What a linear model has in common with its products and squares: T, eta > 0 and the identity as activation.

    Raises:
        CheckError: if one of them is something else.
    """
    for name in ("T", "eta"):
        if not (np.isfinite(params[name]) and params[name] > 0):
            raise CheckError(STEP, f"the parameter {name} = {params[name]!r} is not a positive number")
    if (link.name, link.slope) != ("leaky-relu", 1.0):
        raise CheckError(STEP, "a linear model has the activation leaky-relu with slope 1, the identity")


def _shared(neuron: Neuron, params: dict[str, Any], logistic: bool) -> Numbers:
    check_linear(neuron.link, params)
    top = neuron.covariance_top()
    smooth = to_float_up(rational(top) / (4 if logistic else 1))
    if not rational(params["eta"]) * rational(smooth) <= 1:
        raise CheckError(STEP, f"eta L exceeds 1: eta = {params['eta']!r}, L <= {smooth!r}")
    return {
        "R": neuron.distance(),
        "lambda_max": top,
        "L": smooth,
        "opt": loss_upper(neuron, neuron.v, logistic),
    }


def _promised(neuron: Neuron, numbers: Numbers, value: Fraction, logistic: bool) -> Numbers:
    if not logistic:
        risk = to_float_up(2 * value)
        numbers |= {"baseline": neuron.spread(), "bound": risk}
        if np.isin(neuron.y, (-1.0, 1.0)).all():
            numbers["error_bound"] = min(risk, 1.0)
        return numbers
    error = to_float_up(min(value / log_rational(2)[0], Fraction(1)))
    return numbers | {"bound": to_float_up(value), "error_bound": error}


def _cvx(neuron: Neuron, params: dict[str, Any], logistic: bool) -> Numbers:
    if logistic and not np.isin(neuron.y, (-1.0, 1.0)).all():
        raise CheckError(STEP, "logistic regression needs targets -1 and +1")
    numbers = _shared(neuron, params, logistic)
    travel = rational(numbers["R"]) ** 2 / (2 * rational(params["eta"]) * params["T"])
    return _promised(neuron, numbers, rational(numbers["opt"]) + travel, logistic)


def _plg(neuron: Neuron, params: dict[str, Any]) -> Numbers:
    numbers = _shared(neuron, params, False)
    least, start = lambda_min_lower(neuron.x), loss_upper(neuron, neuron.w0, False)
    # (1 - eta m)^T <= exp(-eta m T), and 1 for m = 0.
    power = rational(params["eta"]) * rational(least) * params["T"]
    rate = min(exp_rational(-min(power, Fraction(700)))[1], Fraction(1))
    # The larger of f(v) and f(w_0) takes what the other leaves.
    fit = rational(numbers["opt"])
    value = fit + rate * max(rational(start) - fit, Fraction(0))
    numbers |= {"m": least, "initial_loss": start, "rate": to_float_up(rate)}
    return _promised(neuron, numbers, value, False)


_THEOREMS: dict[str, Callable[[Neuron, dict[str, Any]], Numbers]] = {
    "CvxSquares": lambda neuron, params: _cvx(neuron, params, False),
    "CvxLogistic": lambda neuron, params: _cvx(neuron, params, True),
    "PLg": _plg,
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
        theorem: ``"CvxSquares"``, ``"CvxLogistic"`` or ``"PLg"``.
        x: features, shape (n, d).
        y: targets, shape (n,).
        w0: initial weights, shape (1, d).
        activation: the identity: ``leaky-relu`` with slope 1.
        comparator: v, shape (1, d).
        params: ``T, eta``.

    Returns:
        Constants, ``bound`` (the loss of logistic regression, the risk of least squares) and, for two classes,
        ``error_bound``; ``m`` and ``baseline`` are lower bounds, the others upper.

    Raises:
        CheckError: if a premise fails or an argument has the wrong shape or range.
    """
    if theorem not in _THEOREMS:
        raise CheckError(STEP, f"no theorem {theorem} for this family; there are {', '.join(_THEOREMS)}")
    return _THEOREMS[theorem](neuron_of(x, y, w0, activation, comparator), params)


__all__ = ["check_linear", "derive", "lambda_min_lower", "loss_upper"]
