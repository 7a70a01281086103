"""Certified numbers of the family ``single-neuron``, from the data, the seed and a vector ``v``.

``f(w) = (1/2) mean r_i(w)^2``, ``r_i = s(<w, x_i>) - y_i``; the *risk* is ``mean r_i^2``. Write ``a = <w, x_i>``,
``b_i = <v, x_i>``, ``R = ||w_0 - v||``, ``lambda`` for the largest eigenvalue of ``(1/n) sum x x^T``, and let all primes
be derivatives of s at a (at a kink, the fixed value).

**T3r** (full-batch GD, constant step eta). For ``alpha > 0`` and ``tail = eta lambda / 2`` put

    h_i = max over |a - b_i| <= R ||x_i|| of [alpha r^2 + tail (r s')^2 - s' r (a - b_i)],    h = mean h_i.

Let ``B = [h + R^2/(2 eta T)] / alpha`` and suppose ``mean r^2 (w_t) > B`` for every t < T. Then every w_t lies in the ball
of radius R around v, by induction: there ``|a - b_i| <= R ||x_i||``, so by definition of h

    <grad f, w_t - v> = mean r s' (a - b) >= alpha mean r^2 + tail mean (r s')^2 - h,

and ``||grad f||^2 <= lambda mean (r s')^2`` (``grad f = (1/n) X^T (r s')``), hence

    ||w_{t+1} - v||^2 <= ||w_t - v||^2 - 2 eta (alpha mean r^2 - h) < ||w_t - v||^2 - R^2 / T.

After T steps ``||w_T - v||^2 < 0``, a contradiction: some t < T has ``mean r^2 (w_t) <= B``. There is no limit on eta:
a long step makes h large. With ``O = mean (s(b_i) - y_i)^2``, B is ``C O + eps``, ``C = h / (alpha O)``,
``eps = R^2 / (2 eta T alpha)``.

The maximum over a is bounded by branch and bound on intervals: a cell is enclosed, split while it could hold more than the
best value seen plus a tolerance, and every cell's upper bound counts, kept or dropped.

If all targets are -1 or +1, a row whose sign is wrong has ``r^2 >= 1``, so that the error is at most the risk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .enclosed import covariance_top, largest_row
from .errors import CheckError
from .links import Bounds, Link, parse, product_lower, square_bounds, widened
from .rounding import (
    add_up,
    finite,
    matmul_enclosure,
    mean_bounds,
    mul_down,
    mul_up,
    next_up,
    norm_upper,
    rational,
    sub_down,
    sub_up,
    to_float_down,
    to_float_up,
)

STEP = "theorem"
CELLS, ROUNDS, MOST = 48, 26, 3_000_000
TOLERANCE = 3e-4
"""A cell is split while it could raise the maximum by more than this share of the mean of the maxima."""

Numbers = dict[str, float]


@dataclass(frozen=True)
class Neuron:
    """The arrays and the activation, with everything the theorem needs."""

    x: np.ndarray
    y: np.ndarray
    w0: np.ndarray
    v: np.ndarray
    link: Link

    def centres(self) -> Bounds:
        """Bounds of ``b_i``."""
        return widened(*matmul_enclosure(self.x, self.v[0]))

    def distance(self) -> float:
        """Upper bound on R."""
        return float(norm_upper(next_up(np.abs(self.w0 - self.v))))

    def covariance_top(self) -> float:
        """Upper bound on lambda."""
        return covariance_top(self.x)

    def risk(self) -> tuple[float, float]:
        """Bounds of the comparator's own risk O."""
        value = self.link.value(*self.centres())
        low, high = square_bounds(sub_down(value[0], self.y), sub_up(value[1], self.y))
        return mean_bounds(low)[0], mean_bounds(high)[1]

    def residual(self) -> float:
        """Upper bound on ``mean |s(b_i) - y_i|``."""
        value = self.link.value(*self.centres())
        low, high = sub_down(value[0], self.y), sub_up(value[1], self.y)
        return mean_bounds(np.maximum(np.abs(low), np.abs(high)))[1]

    def size(self) -> float:
        """Upper bound on X, the largest norm of a row."""
        return largest_row(self.x)

    def least_slope(self, radius: float) -> float:
        """Lower bound on s' at every a with ``|a - b_i| <= radius X`` for some i."""
        low, high = self.centres()
        if not np.isfinite(radius):
            return self.link.slope if self.link.name == "leaky-relu" else 0.0
        half = mul_up(radius, self.size())
        return float(self.link.derivative(sub_down(low.min(), half), add_up(high.max(), half))[0])

    def spread(self) -> float:
        """Lower bound on ``mean (y_i - mean y)^2``: the risk of the best constant."""
        centre = float(np.mean(self.y))
        least = np.maximum(sub_down(np.abs(self.y - centre), np.spacing(np.abs(self.y) + abs(centre))), 0.0)
        low, high = mean_bounds(self.y)
        shift = max(rational(high) - rational(centre), rational(centre) - rational(low), 0)
        return to_float_down(max(rational(mean_bounds(mul_down(least, least))[0]) - shift**2, 0))


def ceiling(
    neuron: Neuron, cells: Bounds, rows: np.ndarray, centres: Bounds, alpha: float, tail: float
) -> np.ndarray:
    """Upper bounds of ``alpha r^2 + tail (r s')^2 - s' r (a - b)`` for a in cells of the given rows."""
    lo, hi = cells
    value, y = neuron.link.value(lo, hi), neuron.y[rows]
    r = sub_down(value[0], y), sub_up(value[1], y)
    top = square_bounds(*r)[1]
    pull = product_lower(r, (sub_down(lo, centres[1][rows]), sub_up(hi, centres[0][rows])))
    risk, found = mul_up(alpha, top), np.full(len(rows), -np.inf)
    for slope, possible in neuron.link.pieces(lo, hi):
        least = np.where(pull >= 0, mul_down(slope[0], pull), mul_down(slope[1], pull))
        steep = mul_up(tail, mul_up(top, mul_up(slope[1], slope[1])))
        upper = sub_up(add_up(risk, steep), least)
        found = np.maximum(found, np.where(possible, upper, -np.inf))
    return found


def _plain(neuron: Neuron, a: np.ndarray, rows: np.ndarray, alpha: float, tail: float) -> np.ndarray:
    """The same at points, in plain floating point: decides which cells are worth splitting, and nothing else."""
    value, slope = neuron.link.value(a, a)[0], neuron.link.derivative(a, a)[0]
    r = value - neuron.y[rows]
    return alpha * r * r + tail * (r * slope) ** 2 - slope * r * (a - neuron.x[rows] @ neuron.v[0])


def maxima(neuron: Neuron, alpha: float, tail: float, radius: float) -> np.ndarray:
    """Upper bounds on ``h_i``, shape (n,)."""
    n, centres = len(neuron.x), neuron.centres()
    half = mul_up(radius, norm_upper(neuron.x, axis=1))
    start, stop = sub_down(centres[0], half), add_up(centres[1], half)
    parts = np.linspace(0.0, 1.0, CELLS + 1)
    edges = start[:, None] + (stop - start)[:, None] * parts
    edges[:, 0], edges[:, -1] = start, stop  # neighbours share an edge, so that nothing is left out
    edges = np.maximum.accumulate(np.minimum(edges, stop[:, None]), axis=1)
    lo, hi, rows = edges[:, :-1].ravel(), edges[:, 1:].ravel(), np.repeat(np.arange(n), CELLS)
    best, found = np.full(n, -np.inf), np.full(n, -np.inf)
    for turn in range(ROUNDS):
        upper = ceiling(neuron, (lo, hi), rows, centres, alpha, tail)
        np.maximum.at(best, rows, _plain(neuron, lo + (hi - lo) / 2, rows, alpha, tail))
        keep = upper > best[rows] + TOLERANCE * max(float(np.mean(best)), 1e-12)
        if turn == ROUNDS - 1 or 2 * int(keep.sum()) > MOST:
            keep[:] = False
        np.maximum.at(found, rows[~keep], upper[~keep])
        if not keep.any():
            break
        lo, hi, rows = lo[keep], hi[keep], rows[keep]
        middle = lo + (hi - lo) / 2
        middle = np.minimum(np.maximum(middle, lo), hi)
        lo, hi, rows = (
            np.concatenate([lo, middle]),
            np.concatenate([middle, hi]),
            np.concatenate([rows, rows]),
        )
    return found


def promise(neuron: Neuron, params: dict[str, Any]) -> Numbers:
    """The numbers of T3r; as good as the enclosures of ``neuron.link``.

    Raises:
        CheckError: if a parameter is out of range or the level overflows.
    """
    for name in ("T", "eta", "alpha"):
        if not (np.isfinite(params[name]) and params[name] > 0):
            raise CheckError(STEP, f"the parameter {name} = {params[name]!r} is not a positive number")
    eta, alpha, radius, top = params["eta"], params["alpha"], neuron.distance(), neuron.covariance_top()
    tail = to_float_up(rational(eta) * rational(top) / 2)
    level = mean_bounds(maxima(neuron, alpha, tail, radius))[1]
    if not np.isfinite(level):
        raise CheckError(STEP, "the proxy level h overflows float64")
    travel = rational(radius) ** 2 / (2 * rational(eta) * params["T"])
    low, high = neuron.risk()
    bound = to_float_up((rational(level) + travel) / rational(alpha))
    numbers = {
        "R": radius,
        "lambda_max": top,
        "h": level,
        "opt": high,
        "fit": to_float_up(rational(level) / rational(alpha)),
        "eps": to_float_up(travel / rational(alpha)),
        "baseline": neuron.spread(),
        "bound": bound,
    }
    if low > 0:
        numbers["C"] = to_float_up(rational(level) / (rational(alpha) * rational(low)))
    if np.isin(neuron.y, (-1.0, 1.0)).all():
        numbers["error_bound"] = min(bound, 1.0)
    return numbers


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
        theorem: ``"T3r"``.
        x: features, shape (n, d).
        y: targets, shape (n,).
        w0: initial weights, shape (1, d).
        activation: ``name`` (one of `links.LINKS`), ``slope`` and ``beta``.
        comparator: v, shape (1, d).
        params: ``T, eta, alpha``.

    Returns:
        Constants, ``bound`` and, for targets -1 and +1, ``error_bound``; ``baseline`` is a lower bound, the others upper.

    Raises:
        CheckError: if an argument has the wrong shape or range.
    """
    if theorem != "T3r":
        raise CheckError(STEP, f"no theorem {theorem} for this family; there is T3r")
    return promise(neuron_of(x, y, w0, activation, comparator), params)


def neuron_of(
    x: np.ndarray, y: np.ndarray, w0: np.ndarray, activation: dict[str, Any], comparator: np.ndarray
) -> Neuron:
    """The arrays and the activation, after shapes and ranges have been checked; arguments as for `derive`."""
    x, y, w0, v = finite(x, "x"), finite(y, "y"), finite(w0, "w0"), finite(comparator, "v")
    fits = x.ndim == 2 and y.shape == x.shape[:1] and w0.shape == v.shape == (1, x.shape[1]) and len(y) > 0
    if not fits:
        raise CheckError(STEP, f"shapes do not fit: x {x.shape}, y {y.shape}, w0 {w0.shape}, v {v.shape}")
    return Neuron(x, y, w0, v, parse(activation))
