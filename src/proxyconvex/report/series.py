"""From a recorded trace to the curves of the report: outcomes, premise slacks, both sides of T7.

Everything here is for drawing, in float64 on what was recorded; the verdicts come from the audit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ..core.methods import ConstantStep, Method
from ..descent.ledger import ledger_sides
from .format import number

if TYPE_CHECKING:
    from ..core.guarantee import Guarantee, PremiseRecord
    from ..descent.trace import Trace

Array = Float[np.ndarray, " n"]
# Quantity: its name for people, the column of the trace that shows it, and its reduction over the steps.
QUANTITIES = {
    "best-iterate-error": ("training error of the best iterate", "error", "min"),
    "final-error": ("training error of the last iterate", "error", "last"),
    "average-error": ("training error averaged over the steps", "error", "mean"),
    "online-error": ("errors on the rows as they arrive, averaged", "error", "mean"),
    "population-error": ("error on fresh rows, averaged over the steps", "error", "mean"),
    "final-loss": ("training loss of the last iterate", "loss", "last"),
    "best-loss": ("training loss of the best iterate", "loss", "min"),
    "average-loss": ("training loss averaged over the steps", "loss", "mean"),
    "average-slope": ("mean loss slope averaged over the steps", "slope", "mean"),
    "best-slope": ("mean loss slope of the best iterate", "slope", "min"),
    "updates": ("number of updates", "updates", "last"),
    "best-risk": ("mean squared error of the best iterate", "risk", "min"),
    "final-risk": ("mean squared error of the last iterate", "risk", "last"),
    "best-proxy": ("proxy g of the best iterate", "g", "min"),
    "average-proxy": ("proxy g averaged over the steps", "g", "mean"),
}
ONLINE = ("online-error", "population-error")


def describe_quantity(quantity: str) -> tuple[str, str, str]:
    """``(name for people, trace column, how it is reduced over steps)`` of a promised quantity."""
    if quantity in QUANTITIES:
        return QUANTITIES[quantity]
    column_name = next((c for c in ("error", "slope", "loss") if c in quantity), "g")
    words = {"best": "min", "average": "mean", "online": "mean"}
    reduce = next((r for word, r in words.items() if word in quantity), "last")
    return quantity.replace("-", " "), column_name, reduce


def steps(trace: Trace) -> Array:
    """The recorded steps as floats, shape (k,)."""
    return np.asarray(trace.step, dtype=float)


def column(trace: Trace, name: str) -> Array:
    """A recorded column as float64, shape (k,); ``updates`` counts the steps that changed the weights, ``risk`` is twice the loss."""
    if name == "updates":
        return np.asarray(trace.sums["sum_slope"], dtype=float)
    if name == "risk":
        return 2 * np.asarray(trace.loss, dtype=float)
    return np.asarray(getattr(trace, name), dtype=float)


def distances(trace: Trace) -> Array:
    """``||w_t - v||`` at the recorded steps, shape (k,)."""
    return np.sqrt(np.maximum(column(trace, "dist_sq"), 0))


def final_total(trace: Trace, name: str) -> float:
    """The final value of a running sum; NaN for an empty trace."""
    values = np.asarray(trace.sums.get(name, ()), dtype=float)
    return float(values[-1]) if values.size else math.nan


def progress(trace: Trace, quantity: str) -> Array:
    """The promised quantity as it stands after each recorded step, shape (k,).

    A minimum or an average of a full-batch run covers every step, recorded or not. Under SGD the average of a
    full-data column is over the recorded steps, each standing for the steps up to the next record; online
    quantities use the sums over every drawn row.
    """
    _, name, reduce = describe_quantity(quantity)
    values, at = column(trace, name), steps(trace)
    if reduce == "last" or not values.size:
        return values
    if reduce == "min":
        best = np.fmin.accumulate(values)
        if name == "error" and len(trace.best_steps):
            place = np.searchsorted(trace.best_steps, at, side="right") - 1
            best = np.fmin(best, np.where(place >= 0, trace.best_errors[np.maximum(place, 0)], np.inf))
        return best
    key = "sum_online_error" if name == "error" else f"sum_{name}"
    if key in trace.sums and (quantity in ONLINE or not trace.stochastic):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(at > 0, np.asarray(trace.sums[key], dtype=float) / at, values)
    weights = np.where(np.isfinite(values), np.diff(at, append=at[-1] + 1), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.cumsum(np.where(weights > 0, values, 0) * weights) / np.cumsum(weights)


def reduced(trace: Trace, quantity: str) -> float:
    """The promised quantity as measured on one run (NaN for an empty trace)."""
    values = progress(trace, quantity)
    return float(values[-1]) if values.size else math.nan


@dataclass(frozen=True)
class Slack:
    """A premise's slack along a run: non-negative where the premise held.

    Attributes:
        formula: what is drawn.
        x: steps, shape (k,).
        y: slack there, shape (k,).
        least: smallest slack over the steps that the premise speaks of.
        where: its step, None where it is not known.
        scope: what ``least`` covers.
        on_curve: whether ``least`` is a point of the drawn curve.
        last: last step that the premise speaks of, None if it is the end of the run.
    """

    formula: str
    x: Array
    y: Array
    least: float
    where: int | None
    scope: str
    on_curve: bool = True
    last: int | None = None


def _slack(
    formula: str, x: Array, y: Array, last: int, known: float = math.nan, at: int | None = None
) -> Slack:
    """Slack of recorded values ``y``; ``known`` at step ``at`` is the smallest over every step, if kept."""
    ends = last >= x[-1]
    y_inside = np.where(x <= last, y, np.nan)
    usable = math.isfinite(known) and (ends or (at is not None and at <= last))
    scope = "over every step" if usable else "over the recorded steps"
    scope += "" if ends else f" up to step {number(last)}"
    least, where = (known, at) if usable else (math.nan, None)
    if np.isfinite(y_inside).any():
        k = int(np.nanargmin(y_inside))
        if not least <= y[k]:
            least, where = float(y[k]), int(x[k])
    return Slack(formula, x, y, least, where, scope, last=None if ends else last)


def proxy_slack(trace: Trace, last: int) -> Slack:
    """Slack of proxy convexity, ``<d_t, w_t - v> - g_t + h_t``.

    Under SGD the recorded g and h are values on all data while the inner product is that of the drawn rows,
    so what is drawn is the running sum over the drawn rows; the smallest slack is over each step's own rows.
    """
    x = steps(trace)
    if trace.stochastic:
        inner, g, h = (np.asarray(trace.sums[f"sum_eta_{k}"], dtype=float) for k in ("inner", "g", "h"))
        formula, scope = (
            "Σ η (⟨d, w − v⟩ − g + h) so far, on the drawn rows",
            "of a single step, over every step",
        )
        return Slack(formula, x, inner - g + h, trace.min_slack, trace.min_slack_step, scope, on_curve=False)
    y = column(trace, "inner") - column(trace, "g") + column(trace, "h")
    return _slack("⟨∇f, w − v⟩ − g + h", x, y, last, trace.min_slack, trace.min_slack_step)


def ball_slack(trace: Trace, radius: float, last: int) -> Slack:
    """Distance left to the boundary of the region, ``radius - ||w_t - v||``."""
    known = radius - math.sqrt(max(trace.max_dist_sq, 0.0))
    y = radius - distances(trace)
    return _slack("radius − ‖w − v‖", steps(trace), y, last, known, int(trace.max_dist_step))


def growth_slack(trace: Trace, gradient_bound: float, last: int) -> Slack:
    """Slack of the gradient bound, ``G - ||d_t|| / mean|loss'|``; a curve for full-batch runs only."""
    x = steps(trace)
    with np.errstate(invalid="ignore", divide="ignore"):
        y = gradient_bound - np.sqrt(np.maximum(column(trace, "grad_sq"), 0)) / column(trace, "slope")
    y = np.full_like(x, np.nan) if trace.stochastic else y
    return _slack("G − ‖∇f‖ / mean|ℓ′|", x, y, last, gradient_bound - trace.max_growth)


def descent_slack(trace: Trace, smoothness: float, last: int) -> Slack | None:
    """Slack of ``f_{t+1} <= f_t - eta (1 - L eta/2) ||grad f_t||^2``, at consecutive records."""
    x = steps(trace)
    if trace.stochastic or len(x) < 2:
        return None
    eta, loss = column(trace, "eta")[:-1], column(trace, "loss")
    y = loss[:-1] - loss[1:] - eta * (1 - smoothness * eta / 2) * column(trace, "grad_sq")[:-1]
    y = np.where(np.diff(x) == 1, y, np.nan)
    return _slack("f − f(next) − η (1 − Lη/2) ‖∇f‖²", x[:-1], y, last)


# Premises of the theorems, and the check of the audit that shows them along a run.
SHOWN_BY = {
    "tangent-margins": "proxy-convexity",
    "few-errors": "region",
    "ball": "region",
}


def premise_slack(premise: PremiseRecord, guarantee: Guarantee, trace: Trace, last: int) -> Slack | None:
    """The slack of a premise up to step ``last``, chosen by its name; None where no run shows it."""
    name, constants = SHOWN_BY.get(premise.name, premise.name), guarantee.constants
    slack = None
    if not len(trace.step):
        return None
    if "convex" in name:
        slack = proxy_slack(trace, last)
    elif "growth" in name or "gradient" in name:
        slack = growth_slack(trace, float(constants.get("G", constants.get("X", math.nan))), last)
    elif "smooth" in name:
        slack = descent_slack(trace, float(constants.get("L", premise.value or math.nan)), last)
    elif "region" in name:
        slack = ball_slack(trace, region_radius(guarantee), last)
    return slack if slack is not None and math.isfinite(slack.least) else None


def region_radius(guarantee: Guarantee) -> float:
    """Radius of the ball on which the premises were proved (NaN when they hold everywhere)."""
    if guarantee.theorem in ("T1", "T3e", "T6e"):
        return math.nan
    for key in ("R_prime", "R_region", "radius", "R"):
        if key in guarantee.constants:
            return float(guarantee.constants[key])
    return math.nan


@dataclass(frozen=True)
class LedgerCurves:
    """Both sides of T7 at the recorded steps, each shape (k,).

    ``left`` is ``sum eta <d, w-v>``; ``right`` is ``(D_0^2 - D_t^2)/2 + (1/2) sum eta^2 ||d||^2``.
    ``absolute`` is the sum of the absolute terms, ``allowed`` the gap that rounding can explain.
    """

    x: Array
    left: Array
    right: Array
    absolute: Array
    allowed: Array


def ledger_curves(trace: Trace) -> LedgerCurves | None:
    """T7 along the run; None for an empty trace and under projection, where the identity does not hold."""
    if not len(trace.step) or trace.method.projection is not None:
        return None
    left, right, allowed = ledger_sides(trace)
    square = column(trace, "dist_sq")
    absolute = trace.sums["sum_abs"] + (square[0] + square + trace.sums["sum_eta2_grad_sq"]) / 2
    return LedgerCurves(steps(trace), left, right, absolute, allowed)


def promise_curve(guarantee: Guarantee, method: Method, at: Array) -> Array | None:
    """What the same constants promise after ``at`` steps; None where that is not known.

    With a constant step the bound of T4 with T5 is ``h + slope / t`` (theory.md, T4), so two points fix it.
    """
    rest = guarantee.constants.get("h") if guarantee.theorem == "T4T5" else None
    if rest is None or not isinstance(method.step, ConstantStep):
        return None
    if not (math.isfinite(rest) and math.isfinite(guarantee.bound) and rest <= guarantee.bound):
        return None
    return np.where(at > 0, rest + (guarantee.bound - rest) * method.steps / np.maximum(at, 1), np.nan)
