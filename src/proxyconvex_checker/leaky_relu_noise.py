"""Certified numbers of the family ``leaky-relu-noise``, from the data, the seed and a vector ``u``.

The family is that of Frei, Cao and Gu (2021): ``N(W; x) = m^{-1/2} sum_r a_r phi(<w_r, x>)``, ``phi'`` in
[c, 1], ``a_r`` = +1 for the first ``ceil(m/2)`` neurons, then -1. Write ``margin = y N``,
``p = 1 / (1 + exp(margin))``, ``X = max_i ||x_i||``, ``q(s) = s`` for s >= 0 and ``s / c`` for s < 0,
``q_i = q(y_i <u, x_i>)``. The comparator is V with rows ``(kappa / c) a_r u / sqrt m``.

* ``y <grad N(W; x), V> = (mean_r phi'_r) (kappa / c) y <u, x> >= kappa q_i`` for every W;
* ``0 <= phi(t) - t phi'(t) <= (1 - c) / (2 beta)`` (0 for leaky-relu), so
  ``y <grad N, W> <= margin + omega``, ``omega = ceil(m/2) (1 - c) / (2 beta sqrt m)``. Below, ``q_i``
  stands for ``q_i - omega / kappa``;
* hence ``<grad f_i(W), W - V> >= p (kappa q_i - margin)`` (tangent margins), and
  ``||grad f_i(W)|| <= X p``.

**T3e** (error form; SGD, batch 1, any order of rows). ``theta = eta X^2 / kappa``,
``k0 = max_t t / (1 + e^t) = W(1/e)``, ``charge_i = max(0, 1/2 + theta/8 - q_i/2, 1/2 + theta/2 - q_i)``.
Then

    eta <d, W - V> - (eta^2/2) ||d||^2 >= eta kappa (err/2 - charge_i - k0/kappa),

because ``p q - theta p^2/2`` is concave in p: look at p = 1/2, 1 (error) and p = 0, 1/2 (no error; there
``p margin <= k0``). Telescoping, with ``R = ||w_0 - V||``:
``sum_t err_{z_t}(w_t) <= 2 [sum_t charge_{z_t} + T k0/kappa + R^2 / (2 eta kappa)]``, whatever the order.
Uniform draws turn this into a bound on the expected average training error.

**T3f** (full batch): ``||grad f||^2 <= lambda_max(C) mean p^2`` with ``C = (1/n) sum x x^T``, so the same
holds for the average training error with ``theta = eta lambda_max(C) / kappa``, without any randomness.

**T6e** (one pass over i.i.d. rows): ``exp((1-e^-u0) pi - u0 err)`` has conditional mean <= 1 for an error
of probability pi. So with probability 1 - delta, for all of J values u0 fixed in advance,
``sum_t err_pop(w_t) <= [u0 sum_t err_t + log(J/delta)] / (1 - e^-u0)``. The vector u, and kappa with it,
may be chosen after seeing the rows; the step eta may not: it is the constant `ONE_PASS_ETA`.

**T8**: see `margins`; here the tangent margins are ``kappa q_i``, ``G = X`` and the region is the whole
space.

**T1** (full batch, smooth-leaky): ``||grad f|| >= (c/||u||) mean p q_i`` (q_i without omega). Smoothness
with ``L = lambda_max(C) (1/4 + (1-c) beta / (4 sqrt m))`` and ``eta L <= 1`` give an iterate with
``||grad f||^2 <= 4 f(w_0) / (eta (3T - 1))`` (Abbaszadehpeivasti et al. 2021, with the constant
``1/eta >= L``). There ``mean p <= mean (1-q_i)_+ + (||u||/c) ||grad f||``, and the error is at most
``mean max(0, 1-q_i, 1-2q_i) + 2 (||u||/c) ||grad f||``.

**T3** (the paper's form): the average of ``mean p`` is at most
``[mean (1-q_i)_+ + k0/kappa + R^2/(2 eta kappa T)] / (1 - eta X^2/(2 kappa))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from . import margins
from .activations import Activation
from .enclosed import covariance_top, largest_row
from .errors import CheckError
from .rounding import (
    add_up,
    div_down,
    expm1_bounds,
    finite,
    lambert_w_exp_upper,
    log_rational,
    matmul_enclosure,
    mean_bounds,
    mul_down,
    norm_upper,
    rational,
    softplus_bounds,
    sqrt_lower,
    sqrt_upper,
    sub_down,
    sub_up,
    sum_bounds,
    to_float_down,
    to_float_up,
)

STEP = "theorem"
ONE_PASS_ETA = 2.0**20
"""The step size of every one-pass promise; kappa adapts to it afterwards, so nothing is lost by fixing it."""
ONE_PASS_U0 = (0.125, 0.25, 0.5, 1.0)
"""The values of u0 among which delta is split evenly."""

Numbers = dict[str, float]


@dataclass(frozen=True)
class Network:
    """The arrays and the activation's constants, with everything the theorems share."""

    x: np.ndarray
    y: np.ndarray
    w0: np.ndarray
    u: np.ndarray
    name: str
    slope: float
    beta: float

    @property
    def width(self) -> int:
        """Number of neurons."""
        return len(self.w0)

    def signs(self) -> np.ndarray:
        """Output signs, shape (m,)."""
        return np.where(np.arange(self.width) < (self.width + 1) // 2, 1.0, -1.0)

    def radius(self) -> float:
        """Upper bound on X."""
        return largest_row(self.x)

    def covariance_top(self) -> float:
        """Upper bound on ``lambda_max((1/n) sum x x^T)``."""
        return covariance_top(self.x)

    def unit_margins(self) -> np.ndarray:
        """Lower bounds on ``q(y <u, x>)``, shape (n,)."""
        value, error = matmul_enclosure(self.x, self.u)
        s = sub_down(self.y * value, error)
        return np.where(s >= 0, s, div_down(s, self.slope))

    def curvature_loss(self) -> Fraction:
        """Upper bound on ``omega``."""
        if self.name == "leaky-relu":
            return Fraction(0)
        half = (self.width + 1) // 2
        return half * (1 - rational(self.slope)) / (2 * rational(self.beta) * sqrt_lower(self.width))

    def margins(self, kappa: float) -> np.ndarray:
        """Lower bounds on ``q(y <u, x>) - omega / kappa``, shape (n,)."""
        loss = self.curvature_loss()
        q = self.unit_margins()
        return sub_down(q, to_float_up(loss / rational(kappa))) if loss else q

    def distance_sq(self, kappa: float) -> Fraction:
        """Upper bound on ``||w_0 - V||^2`` for the exact V."""
        scale = rational(kappa) / rational(self.slope)
        inner, error = matmul_enclosure(self.w0, self.u)
        low = sum_bounds(sub_down(self.signs() * inner, error))[0]
        # The root of the width divides the inner product: take the root that lowers it.
        cross = rational(low) / (sqrt_upper(self.width) if low >= 0 else sqrt_lower(self.width))
        initial, length = rational(norm_upper(self.w0)), rational(norm_upper(self.u))
        return max(initial**2 - 2 * scale * cross + scale**2 * length**2, Fraction(0))

    def initial_loss(self) -> float:
        """Upper bound on the mean loss of ``w_0``."""
        z, error = matmul_enclosure(self.x, self.w0.T)
        value, error = Activation(self.name, self.slope, self.beta).value(z, error)
        output, slack = matmul_enclosure(value, self.signs(), a_error=error)
        least = sub_down(self.y * output, slack)
        roots = to_float_down(sqrt_lower(self.width)), to_float_up(sqrt_upper(self.width))
        least = np.where(least >= 0, div_down(least, roots[1]), div_down(least, roots[0]))
        return mean_bounds(softplus_bounds(-least)[1])[1]


# --- pieces of the theorems --------------------------------------------------------------------------------


def _k0() -> Fraction:
    """Upper bound on ``max_t t / (1 + e^t) = W(1/e)``."""
    return rational(lambert_w_exp_upper(-1.0))


def charges(q: np.ndarray, theta: float) -> np.ndarray:
    """Upper bounds on ``charge_i``, from lower bounds on ``q_i`` and an upper bound on theta; shape (n,)."""
    soft = sub_up(add_up(0.5, theta / 8), q / 2)
    hard = sub_up(add_up(0.5, theta / 2), q)
    return np.maximum(np.maximum(soft, hard), 0.0)


def _shortfall(q: np.ndarray) -> float:
    """Upper bound on ``mean (1 - q_i)_+``."""
    return mean_bounds(np.maximum(sub_up(1.0, q), 0.0))[1]


def positive(params: dict[str, Any], *names: str) -> None:
    """Refuse parameters that are not positive numbers."""
    for name in names:
        value = params[name]
        if not (isinstance(value, (int, float)) and np.isfinite(value) and value > 0):
            raise CheckError(STEP, f"the parameter {name} = {value!r} is not a positive number")


def _error_form(
    net: Network, params: dict[str, Any], growth: Fraction
) -> tuple[Numbers, np.ndarray, Fraction]:
    """Constants, charges and ``R^2`` of T3e, T3f and T6e; ``growth`` is the factor of ``mean p^2``."""
    positive(params, "T", "eta", "kappa")
    kappa, radius_sq = rational(params["kappa"]), net.distance_sq(params["kappa"])
    theta = to_float_up(rational(params["eta"]) * growth / kappa)
    q = net.margins(params["kappa"])
    constants = {
        "R": to_float_up(sqrt_upper(radius_sq)),
        "X": net.radius(),
        "theta": theta,
        "k0": to_float_up(_k0()),
        "u_norm": float(norm_upper(net.u)),
    }
    return constants, charges(q, theta), radius_sq


def _travel(params: dict[str, Any], radius_sq: Fraction) -> Fraction:
    """``k0 / kappa + R^2 / (2 eta kappa T)``: what one step costs beside its charge."""
    kappa = rational(params["kappa"])
    return _k0() / kappa + radius_sq / (2 * rational(params["eta"]) * kappa * params["T"])


# --- the theorems ------------------------------------------------------------------------------------------


def _t3e(net: Network, params: dict[str, Any]) -> Numbers:
    constants, charge, radius_sq = _error_form(net, params, rational(net.radius()) ** 2)
    return constants | _average(params, charge, radius_sq)


def _t3f(net: Network, params: dict[str, Any]) -> Numbers:
    top = net.covariance_top()
    constants, charge, radius_sq = _error_form(net, params, rational(top))
    return constants | {"lambda_max": top} | _average(params, charge, radius_sq)


def _average(params: dict[str, Any], charge: np.ndarray, radius_sq: Fraction) -> Numbers:
    mean = mean_bounds(charge)[1]
    bound = to_float_up(2 * (rational(mean) + _travel(params, radius_sq)))
    return {"charge": mean, "bound": bound, "error_bound": bound}


def _t6e(net: Network, params: dict[str, Any]) -> Numbers:
    steps, u0, delta = params["T"], params["u0"], params["delta"]
    if params["eta"] != ONE_PASS_ETA:
        raise CheckError(STEP, f"eta = {params['eta']!r}; the step fixed in advance is {ONE_PASS_ETA!r}")
    if u0 not in ONE_PASS_U0:
        raise CheckError(STEP, f"u0 = {u0!r} is not one of the values fixed in advance, {ONE_PASS_U0}")
    if not 0 < delta < 1:
        raise CheckError(STEP, f"delta = {delta!r} is not in (0, 1)")
    if steps > len(net.x):
        raise CheckError(STEP, f"T = {steps}: one pass over {len(net.x)} rows has no more steps than that")
    constants, charge, radius_sq = _error_form(net, params, rational(net.radius()) ** 2)
    # Which rows come first depends on the order: charge the largest ones.
    paid = rational(sum_bounds(np.sort(charge)[len(charge) - steps :])[1])
    mistakes = 2 * (paid + steps * _travel(params, radius_sq))
    doubt = log_rational(len(ONE_PASS_U0) / rational(delta))[1]
    shrink = -rational(expm1_bounds(-u0)[1])
    bound = to_float_up((rational(u0) * mistakes + doubt) / (steps * shrink))
    return constants | {
        "charge": to_float_up(paid / steps),
        "online_bound": to_float_up(mistakes / steps),
        "bound": bound,
        "error_bound": bound,
    }


def _t8(net: Network, params: dict[str, Any]) -> Numbers:
    positive(params, "T", "c", "floor", "kappa", "k")
    omega = net.curvature_loss()
    q = mul_down(net.unit_margins(), params["kappa"])
    if omega:
        q = sub_down(q, to_float_up(omega))
    margin, radius_sq = margins.margin_floor(q, params["k"]), net.distance_sq(params["kappa"])
    top = net.radius()
    return {
        "R": to_float_up(sqrt_upper(radius_sq)),
        "X": top,
        "G": top,
        "S": margin,
        "q_min": float(q.min()),
        "u_norm": float(norm_upper(net.u)),
    } | margins.few_errors(
        n=len(net.x),
        k=params["k"],
        steps=params["T"],
        c=params["c"],
        floor=params["floor"],
        radius_sq=radius_sq,
        gradient_sq=rational(top) ** 2,
        margin=margin,
    )


def _t1(net: Network, params: dict[str, Any]) -> Numbers:
    positive(params, "T", "eta")
    if net.name != "smooth-leaky":
        raise CheckError(STEP, f"T1 needs a smooth activation; {net.name} has a kink")
    eta, top = rational(params["eta"]), net.covariance_top()
    bend = (1 - rational(net.slope)) * rational(net.beta) / (4 * sqrt_lower(net.width))
    smooth = rational(top) * (Fraction(1, 4) + bend)
    if not eta * smooth <= 1:
        raise CheckError(STEP, f"eta L = {float(eta * smooth):.9g} exceeds 1 (L <= {float(smooth):.9g})")
    loss, length = net.initial_loss(), float(norm_upper(net.u))
    gradient = sqrt_upper(4 * rational(loss) / (eta * (3 * params["T"] - 1)))
    reach, q = rational(length) / rational(net.slope) * gradient, net.unit_margins()
    shortfall = _shortfall(q)
    wrong = mean_bounds(np.maximum(np.maximum(sub_up(1.0, q), sub_up(1.0, 2 * q)), 0.0))[1]
    bound = rational(shortfall) + reach
    return {
        "L": to_float_up(smooth),
        "lambda_max": top,
        "initial_loss": loss,
        "gradient": to_float_up(gradient),
        "xi": shortfall,
        "u_norm": length,
        "bound": to_float_up(bound),
        "error_bound": to_float_up(min(2 * bound, rational(wrong) + 2 * reach)),
    }


def _t3(net: Network, params: dict[str, Any]) -> Numbers:
    positive(params, "T", "eta", "kappa")
    kappa, top, radius_sq = rational(params["kappa"]), net.radius(), net.distance_sq(params["kappa"])
    theta = rational(params["eta"]) * rational(top) ** 2 / kappa
    if not theta < 2:
        raise CheckError(STEP, f"theta = eta X^2 / kappa = {float(theta):.9g} is not below 2")
    shortfall = _shortfall(net.margins(params["kappa"]))
    bound = (rational(shortfall) + _travel(params, radius_sq)) / (1 - theta / 2)
    return {
        "R": to_float_up(sqrt_upper(radius_sq)),
        "X": top,
        "theta": to_float_up(theta),
        "xi": shortfall,
        "u_norm": float(norm_upper(net.u)),
        "bound": to_float_up(bound),
        "error_bound": to_float_up(2 * bound),
    }


_THEOREMS = {"T1": _t1, "T3": _t3, "T3e": _t3e, "T3f": _t3f, "T6e": _t6e, "T8": _t8}


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
        theorem: ``"T3e"``, ``"T3f"``, ``"T6e"``, ``"T8"``, ``"T1"`` or ``"T3"``.
        x: features, shape (n, d).
        y: targets in {-1, +1}, shape (n,).
        w0: initial weights, shape (m, d).
        activation: ``name`` (``"leaky-relu"`` or ``"smooth-leaky"``), ``slope`` in (0, 1] and ``beta`` > 0.
        comparator: the vector u, shape (d,).
        params: ``T`` and, by theorem: ``eta, kappa`` (T3e, T3f, T3); ``eta, kappa, u0, delta`` (T6e);
            ``c, floor, k, kappa`` (T8); ``eta`` (T1).

    Returns:
        Constants, ``bound`` and ``error_bound``; ``S`` and ``q_min`` are lower bounds, the others upper.

    Raises:
        CheckError: if a premise fails or an argument has the wrong shape or range.
    """
    if theorem not in _THEOREMS:
        known = ", ".join(sorted(_THEOREMS))
        raise CheckError(STEP, f"no theorem {theorem} for this family; there are {known}")
    return _THEOREMS[theorem](check_arrays(x, y, w0, activation, comparator), params)


def check_arrays(
    x: np.ndarray, y: np.ndarray, w0: np.ndarray, activation: dict[str, Any], comparator: np.ndarray
) -> Network:
    """The network and the data, after shapes and ranges have been checked; arguments as for `derive`."""
    x, y, w0, u = finite(x, "x"), finite(y, "y"), finite(w0, "w0"), finite(comparator, "u")
    fits = x.ndim == 2 and w0.ndim == 2 and y.shape == x.shape[:1] and u.shape == x.shape[1:] == w0.shape[1:]
    if not fits:
        raise CheckError(STEP, f"shapes do not fit: x {x.shape}, y {y.shape}, w0 {w0.shape}, u {u.shape}")
    if not (len(y) and len(w0) and np.isin(y, (-1.0, 1.0)).all()):
        raise CheckError(STEP, "the targets must be -1 or +1, and there must be rows and neurons")
    name, slope, beta = activation["name"], activation["slope"], activation["beta"]
    if name not in ("leaky-relu", "smooth-leaky"):
        raise CheckError(STEP, f"the activation {name} has no slope bounded away from 0")
    if not 0 < slope <= 1 or not (np.isfinite(beta) and beta > 0):
        raise CheckError(STEP, f"slope {slope!r} is not in (0, 1] or beta {beta!r} is not positive")
    return Network(x, y, w0, u, name, float(slope), float(beta))
