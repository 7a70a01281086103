"""Certified numbers of the family ``leaky-relu-hinge``, from the data, the seed and a vector ``u``.

``N(W; x) = m^{-1/2} sum_r a_r s(<w_r, x>)``, ``s(t) = max(t, c t)``, ``a_r`` = +-1 as in `leaky_relu_noise`, hinge loss
``(1 - y N)_+`` with derivative 0 at ``y N = 1``; one row a step. Write ``b = 1[y N < 1]``, ``X = max ||x_i||``,
``q(t) = t`` for t >= 0 and ``t / c`` for t < 0, ``q_i = q(y_i <u, x_i>)``; V has rows ``(kappa / c) a_r u / sqrt m``.

* ``y <grad N, V> = (mean_r s'_r) (kappa / c) y <u, x> >= kappa q_i`` for every W, because the mean is in [c, 1];
* ``<grad N, W> = N`` (homogeneity), so ``<grad f_i, W - V> >= b (kappa q_i - y N) >= b (kappa q_i - 1)``;
* ``||grad f_i||^2 = b (mean_r s'_r^2) ||x_i||^2 <= b X^2``.

A step with ``b = 0`` changes nothing. One with ``b = 1`` lowers ``||W - V||^2`` by at least
``2 eta (kappa q_i - 1) - eta^2 X^2``.

**T3m** (separable). With ``q_min = min_i q_i`` and ``gain = 2 eta (kappa q_min - 1) - eta^2 X^2 > 0`` the number of updates is
at most ``R^2 / gain``, ``R = ||w_0 - V||``, in any order of the rows and for any T. It is whole: ``updates`` is the floor.
If the rows are visited in passes, one of the first ``passes = updates + 1`` of them changes nothing; every row then has
``y N >= 1``, and nothing changes ever after: the final training error is 0.

**T3u** (any data). ``theta = eta X^2 / kappa``, ``charge_i = max(0, 1 + theta/2 + 1/kappa - q_i)``: the step's decrease is at
least ``2 eta kappa (b - charge_i)``, so ``sum_t b_t <= sum_t charge_{z_t} + R^2 / (2 eta kappa)``. Over whole passes the mean
charge is that of the data; for uniform draws so is its expectation, and a row that is wrong has ``b = 1``.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from .errors import CheckError
from .leaky_relu_noise import STEP, Network, check_arrays, positive
from .rounding import add_up, div_up, mean_bounds, norm_upper, rational, sqrt_upper, sub_up, to_float_up

Numbers = dict[str, float]


def _shared(net: Network, radius_sq: Fraction) -> Numbers:
    return {
        "R": to_float_up(sqrt_upper(radius_sq)),
        "X": net.radius(),
        "u_norm": float(norm_upper(net.u)),
    }


def _t3m(net: Network, params: dict[str, Any]) -> Numbers:
    positive(params, "T", "eta", "kappa")
    eta, kappa, radius_sq = (
        rational(params["eta"]),
        rational(params["kappa"]),
        net.distance_sq(params["kappa"]),
    )
    least = float(net.unit_margins().min())
    gain = 2 * eta * (kappa * rational(least) - 1) - eta**2 * rational(net.radius()) ** 2
    if not gain > 0:
        raise CheckError(
            STEP,
            f"an update need not come closer: 2 (kappa q_min - 1) does not exceed eta X^2, q_min = {least:.6g}",
        )
    updates = int(radius_sq / gain)
    numbers = _shared(net, radius_sq) | {"q_min": least, "updates": float(updates), "bound": float(updates)}
    if "passes" not in params:
        return numbers
    if params["passes"] <= updates:
        raise CheckError(STEP, f"passes = {params['passes']} is not more than the {updates} updates promised")
    if params["passes"] * len(net.x) > params["T"]:
        raise CheckError(
            STEP, f"{params['T']} steps are less than {params['passes']} passes over {len(net.x)} rows"
        )
    return numbers | {"error_bound": 0.0}


def _t3u(net: Network, params: dict[str, Any]) -> Numbers:
    positive(params, "T", "eta", "kappa")
    eta, kappa, radius_sq = (
        rational(params["eta"]),
        rational(params["kappa"]),
        net.distance_sq(params["kappa"]),
    )
    theta = to_float_up(eta * rational(net.radius()) ** 2 / kappa)
    level = add_up(add_up(1.0, theta / 2), div_up(1.0, params["kappa"]))
    charge = mean_bounds(np.maximum(sub_up(level, net.unit_margins()), 0.0))[1]
    bound = to_float_up(rational(charge) + radius_sq / (2 * eta * kappa * params["T"]))
    return _shared(net, radius_sq) | {"theta": theta, "charge": charge, "bound": bound, "error_bound": bound}


_THEOREMS = {"T3m": _t3m, "T3u": _t3u}


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
        theorem: ``"T3m"`` or ``"T3u"``.
        x: features, shape (n, d).
        y: targets in {-1, +1}, shape (n,).
        w0: initial weights, shape (m, d).
        activation: ``leaky-relu`` with ``slope`` in (0, 1].
        comparator: the vector u, shape (d,).
        params: ``T, eta, kappa`` and, for T3m over passes, ``passes``.

    Returns:
        Constants, ``bound`` and, where there is one, ``error_bound``; ``q_min`` is a lower bound, the others upper.

    Raises:
        CheckError: if a premise fails or an argument has the wrong shape or range.
    """
    if theorem not in _THEOREMS:
        raise CheckError(STEP, f"no theorem {theorem} for this family; there are {', '.join(_THEOREMS)}")
    if activation["name"] != "leaky-relu":
        raise CheckError(
            STEP, f"the mistake bound needs a homogeneous leaky activation, not {activation['name']}"
        )
    return _THEOREMS[theorem](check_arrays(x, y, w0, activation, comparator), params)
