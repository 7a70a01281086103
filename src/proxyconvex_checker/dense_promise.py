"""Dense networks of any depth with a smooth activation: what T8 and T4 + T5 promise before training, from data and weights.

The network and its Hessian bound on a ball are those of `dense`; the comparator V is the centre of the ball, R an upper bound on ``||w_0 - V||``.

**T8** (`margins`): tangent margins ``q_i`` and gradients ``||grad N|| <= G`` on ``Ball(V, R)``.

**T4 + T5.** Let margins q, gradients ``G_i`` and Hessians ``M_i`` hold on ``Ball(V, rho)``. There the loss ``f = mean log(1 + exp(-y N))`` has
``||grad f|| <= mean G_i`` and a gradient that is Lipschitz with ``L = mean (G_i^2 / 4 + M_i)`` (``l'' <= 1/4``, ``|l'| <= 1``), and
``<grad f(w), w - V> >= f(w) - h``, ``h = mean log(1 + exp(-q_i))``. With ``eta < 2 / L``, ``alpha = 1 / (2 - L eta)`` and ``f_0 = log 2`` (opposite pairs:
the outputs start at zero) put ``radius^2 = R^2 + 2 eta T h + 2 eta alpha f_0``. If ``radius + eta mean G_i <= rho`` then all of ``w_0 .. w_T`` are within
``radius`` of V, and

    f_T <= [T h + R^2 / (2 eta) + (alpha - 1) f_0] / (T - 1 + alpha).

*Proof.* Suppose ``w_0 .. w_{t-1}`` are within ``radius``. A step moves by at most ``eta mean G_i``, so ``w_t`` and the segments between are in
``Ball(V, rho)``, where the descent lemma gives ``eta^2 sum_{s<t} ||grad f_s||^2 <= 2 eta alpha (f_0 - f_t)``. Expanding the square,
``||w_t - V||^2 <= R^2 - 2 eta sum_{s<t} (f_s - h) + 2 eta alpha (f_0 - f_t)``, which is at most ``radius^2`` because ``f >= 0``, ``t <= T``. So no iterate
leaves. At ``t = T`` the left side is at least 0, and f decreases, so ``sum_{t<T} f_t >= f_0 + (T - 1) f_T``; solve for ``f_T``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from . import activations, dense, initial, margins
from .errors import CheckError
from .rationals import rational, sqrt_upper, to_float_down, to_float_up
from .rounding import Array, log_rational, mean_bounds, mul_up, next_up, norm_upper, softplus_bounds

STEP = "network"


@dataclass(frozen=True, eq=False)
class Near:
    """A dense network with its data and comparator.

    Attributes:
        x: features, shape (n, d).
        y: -1 and +1, shape (n,).
        family: fields of the certificate.
        comparator: V, flat.
        distance: upper bound on ``||w_0 - V||``.
    """

    x: Array
    y: Array
    family: dict[str, Any]
    comparator: Array
    distance: float

    @cached_property
    def center(self) -> dense.Center:
        """The network at V."""
        weights = initial.dense_layers(self.family, self.comparator, self.x.shape[1])
        return dense.center(
            self.x, self.y, weights, initial.dense_head(self.family), self.family["activation"]
        )

    def on_ball(self, radius: float) -> dense.Curvature:
        """Margins, Hessians and gradients on ``Ball(V, radius)``."""
        return self.center.on_ball(radius)


def derive(
    theorem: str,
    x: Array,
    y: Array,
    start: Array,
    family: dict[str, Any],
    comparator: Array,
    params: dict[str, Any],
) -> dict[str, float]:
    """Every certified number of a promise, rounded in its safe direction.

    Args:
        theorem: ``"T8"`` (params T, k, c, floor) or ``"T4T5"`` (params T, eta, rho).
        x: features, shape (n, d).
        y: targets in {-1, +1}, shape (n,).
        start: initial weights, flat.
        family: fields of a dense family.
        comparator: V, flat.
        params: the numbers of the theorem.

    Raises:
        CheckError: if a premise fails.
    """
    known = {"T8": normalised_descent, "T4T5": smooth_descent}
    if theorem not in known:
        raise CheckError(
            "theorem", f"unknown theorem {theorem!r} for dense networks; known: {', '.join(known)}"
        )
    if not (isinstance(params["T"], int | np.integer) and params["T"] >= 1):
        raise CheckError(f"theorem {theorem}", f"T = {params['T']!r} is not a whole number of steps")
    return known[theorem](prepare(x, y, start, family, comparator), params)


def prepare(x: Array, y: Array, start: Array, family: dict[str, Any], comparator: Array) -> Near:
    """The network, after its arrays have been seen to fit together.

    Raises:
        CheckError: for arrays or an activation that do not.
    """
    size = (initial.dense_size(family, x.shape[1]),)
    if start.shape != size or comparator.shape != size:
        raise CheckError(STEP, f"{start.shape} and {comparator.shape} weights for a network of {size[0]}")
    if y.shape != x.shape[:1] or not len(y) or not np.isin(y, (-1.0, 1.0)).all():
        raise CheckError(STEP, "targets must be -1 or +1, one per row")
    if not activations.parse(family["activation"]).smooth:
        raise CheckError(STEP, f"{family['activation']['name']} is not smooth: nothing is known on a ball")
    # One rounding per entry; the next float above in magnitude bounds the exact difference.
    distance = float(norm_upper(next_up(np.abs(comparator - start))))
    return Near(x, y, family, comparator, distance)


def normalised_descent(network: Near, params: dict[str, Any]) -> dict[str, float]:
    """T8: fewer than k errors within T normalised steps."""
    k, n = params["k"], len(network.y)
    if not (isinstance(k, int) and 1 <= k <= n):
        raise CheckError(margins.STEP, f"k = {k!r} is not a whole number from 1 to {n}")
    found = network.on_ball(network.distance)
    least = margins.margin_floor(found.margins, k)
    bounds = margins.few_errors(
        n=n,
        k=k,
        steps=int(params["T"]),
        c=params["c"],
        floor=params["floor"],
        radius_sq=rational(network.distance) ** 2,
        gradient_sq=rational(found.gradient) ** 2,
        margin=least,
    )
    numbers = {"R": network.distance, "G": found.gradient, "M": float(found.hessian.max()), "S": least}
    return {**numbers, "q_min": float(found.margins.min()), **bounds}


def smooth_descent(network: Near, params: dict[str, Any]) -> dict[str, float]:
    """T4 + T5: the loss after T constant steps (the proof is in the module's docstring)."""
    where, steps, n = "theorem T4T5", int(params["T"]), len(network.y)
    eta, rho, r = rational(params["eta"]), rational(params["rho"]), rational(network.distance)
    if not (eta > 0 and rho > 0):
        raise CheckError(where, f"eta = {params['eta']!r} and rho = {params['rho']!r} must be positive")
    if not network.family["paired"]:
        raise CheckError(where, "without opposite pairs the loss at the start is not known to be log 2")
    found = network.on_ball(float(params["rho"]))
    curved = mean_bounds(mul_up(found.gradients, found.gradients))[1]
    smooth = rational(curved) / 4 + rational(mean_bounds(found.hessian)[1])
    if not smooth * eta < 2:
        raise CheckError(where, f"eta = {params['eta']!r} is not below 2 / L = {to_float_down(2 / smooth)!r}")
    alpha, (low, high) = 1 / (2 - smooth * eta), log_rational(2)
    h = rational(mean_bounds(softplus_bounds(-found.margins)[1])[1])
    radius = to_float_up(sqrt_upper(r * r + 2 * eta * steps * h + 2 * eta * alpha * high))
    reach = rational(radius) + eta * rational(mean_bounds(found.gradients)[1])
    if not reach <= rho:
        raise CheckError(
            where, f"the iterates may go as far as {to_float_up(reach)!r}, rho is {params['rho']!r}"
        )
    start = (alpha - 1) * (high if alpha >= 1 else low)
    loss = (steps * h + r * r / (2 * eta) + start) / (steps - 1 + alpha)
    return {
        "R": network.distance,
        "radius": radius,
        "L": to_float_up(smooth),
        "G": found.gradient,
        "M": float(found.hessian.max()),
        "h": to_float_up(h),
        "q_min": float(found.margins.min()),
        "bound": to_float_up(loss),
        "error_bound": to_float_up(Fraction(min(n, int(n * loss / low)), n)),
    }
