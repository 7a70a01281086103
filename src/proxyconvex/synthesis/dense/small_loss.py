"""T4 and T1 along a run: a small loss or a small slope, if the steps decrease the loss and a premise about the comparator holds."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.decimals import show
from proxyconvex_checker.rounding import to_float_up

from ...core.errors import InvalidInputError
from ...core.evidence import Evidence
from ...core.guarantee import Guarantee, PremiseRecord
from ...core.methods import ConstantStep, GradientDescent
from ...core.references import FREI_GU_2021, PROXYCONVEX_NOTES
from ...families.tangent_margin import TangentMargin
from .directions import Setting, largest_eigenvalue, mean_loss, regression
from .promise import Promise, assumed, distance_upper, percent, start_premise
from .rehearsal import MOST, rehearse

RESERVE = 0.75
"""Share of the tangent margin at w0 that is asked for along the run (T1)."""
ROOM = 4.0
"""h(V; w) may exceed its largest value on the tangent model's path by this share over the output scale.

Outputs ``s N`` reach the same values at 1/s of the distance, where the features have changed 1/s as much. In pilot runs (wine, output scale 8, six
seeds) the share seen was up to 1.2 over the scale.
"""
DRIFT = 3.0
"""On that path h(V; w) drifts from its value at w0; this much more again is allowed."""
CURVATURE = 2.0
"""The step size is the inverse of this factor times the largest curvature of the tangent model at w0."""
LOG2 = Fraction(math.log(2)) * (1 - Fraction(1, 2**50))
"""A lower bound on log 2: the loss of every error is at least that."""
SECOND = {"logistic": 0.25, "squared": 1.0, "cross-entropy": 0.5}
"""Bounds on the largest eigenvalue of the second derivative of the loss in the outputs."""


def step_size(setting: Setting) -> float:
    """A step at which the loss should decrease by half of ``eta ||grad f||^2``: a guess, which the run confirms or not."""
    return len(setting.y) / (CURVATURE * SECOND[setting.loss] * largest_eigenvalue(setting))


def _comparator(setting: Setting, eta: float, steps: int) -> tuple[Float[np.ndarray, " p"], float, float]:
    """V, what h(V; w) should not exceed on average along the run, and h(V; w0).

    The tangent model's own run shows where the weights will go; h there, with a reserve, is what is asked for. Comparators closer to
    w0 lose less when the network leaves its tangent model, so a few are tried.
    """
    points = rehearse(setting, ConstantStep(eta), steps).points
    if steps > MOST:
        points = (*points, points[-1] + (points[-1] - setting.start) * 0.3)
    at = [setting.network.features(w, setting.x) for w in points]
    best = None
    for factor in (1.0, 4.0, 16.0, 64.0):
        change = regression(setting, factor / (2 * eta * steps))
        v = setting.start + change
        first = mean_loss(setting.loss, setting.tangent_outputs(setting.start, v), setting.y)
        seen = [first]
        for w, features in zip(points, at, strict=True):
            outputs = features.outputs[:, 0] if setting.network.outputs == 1 else features.outputs
            seen.append(mean_loss(setting.loss, outputs + setting.push(v - w, features), setting.y))
        h = (1 + ROOM / setting.network.output_scale) * max(seen) + DRIFT * (max(seen) - first)
        total = h + float(change @ change) / (2 * eta * steps)
        if best is None or total < best[0]:
            best = total, v, h, first
    assert best is not None
    return best[1], best[2], best[3]


def small_loss(setting: Setting, steps: int, opt: float | None = None) -> Promise:
    """T4 along a run: ``f(w_T) <= h + R^2/(2 eta T)``, if the comparator's tangent loss averages to at most h and f decreases.

    Args:
        setting: network, data and loss.
        steps: T.
        opt: the loss of a teacher, to set the promise against; None if there is none.
    """
    eta = step_size(setting)
    v, h, at = _comparator(setting, eta, steps)
    radius = distance_upper(setting.start, v)
    bound = float(to_float_up(Fraction(h) + Fraction(radius) ** 2 / (2 * Fraction(eta) * steps)))
    error = None if setting.loss == "squared" else min(1.0, float(to_float_up(Fraction(bound) / LOG2)))
    consequence = f"the loss after {steps:,} steps of gradient descent is at most {show(bound)}"
    if error is not None:
        consequence += f", hence the training error at most {percent(error)}"
    if opt is not None:
        consequence += f" (OPT + eps with OPT = {opt:.4g}, eps = {show(max(bound - opt, 0.0))})"
    premises = (
        start_premise(radius),
        PremiseRecord(
            "proxy-convexity", "<grad f(w), w - V> >= f(w) - h(V; w) at every w, h(V; w) the loss of the tangent model at w evaluated "
            "at V (convexity of the loss).", Evidence.PROVED, FREI_GU_2021,
        ),
        assumed("comparator-loss", f"Along the run h(V; w_t) is on average at most h = {show(h)} (at w_0 it is {at:.4g}).", h),
        assumed(
            "sufficient-decrease", "Over the run the loss falls by at least (eta/2) sum ||grad f||^2, and ends no higher than its average "
            "(both hold where every step decreases it by (eta/2) ||grad f||^2).", eta,
        ),
    )  # fmt: skip
    guarantee = Guarantee(
        theorem="T4",
        quantity="final-loss",
        sentence=f"If V keeps its tangent loss and the steps decrease the loss as stated below, then {consequence}.",
        bound=bound,
        error_bound=error,
        mode="every-run",
        premises=premises,
        method=GradientDescent(ConstantStep(eta), steps),
        references=(FREI_GU_2021, PROXYCONVEX_NOTES),
        constants={"h": h, "R": radius, "eta": eta},
        baseline=float(np.var(setting.y) / 2) if setting.loss == "squared" else None,
    )
    return Promise(guarantee, consequence, v, {"theorem": "T4"}, {"R": radius, "h": h, "eta": eta})


def small_slope(setting: Setting, margin: TangentMargin, steps: int, layers: str) -> Promise:
    """T1 along a run: the least mean slope is at most ``xi + sqrt(2 f(w_0) / (eta T)) / gamma``, if PPL holds and f decreases.

    Args:
        setting: network and data with the logistic loss.
        margin: tangent margin at w0.
        steps: T.
        layers: which layers the margin uses, in words.
    """
    eta = step_size(setting)
    f0 = mean_loss(setting.loss, setting.tangent_outputs(setting.start, setting.start), setting.y)
    root = math.sqrt(2 * f0 / (eta * steps))
    positive = margin.margins[margin.margins > 0]
    if not positive.size:
        raise InvalidInputError(
            "margin", margin.gamma, "a direction with a positive tangent margin at some row"
        )
    choices = [
        (margin.slack(level) + root / (RESERVE * level), level)
        for level in np.quantile(positive, np.linspace(0, 0.9, 19))
    ]
    _, level = min(choices)
    xi, gamma = margin.slack(level), RESERVE * float(level)
    bound = float(to_float_up(Fraction(xi) + Fraction(root) / Fraction(gamma) * (1 + Fraction(1, 2**40))))
    error = min(1.0, 2 * bound)
    consequence = f"the least mean |loss'| within {steps:,} steps of gradient descent is at most {show(bound)}, hence the error there at most {percent(error)}"
    premises = (
        assumed(
            "proxy-pl", f"Along the run ||grad f|| >= gamma (mean |loss'| - xi), gamma = {gamma:.6g}, xi = {xi:.4g}; it holds wherever the "
            f"tangent margin of {layers} is at least gamma (at w_0 it is at least {margin.gamma:.6g}).", gamma,
        ),
        assumed("sufficient-decrease", "Over the run the loss falls by at least (eta/2) sum ||grad f||^2.", eta),
    )  # fmt: skip
    guarantee = Guarantee(
        theorem="T1",
        quantity="best-slope",
        sentence=f"If the proxy PL inequality and the decrease stated below hold along the run, then {consequence}.",
        bound=bound,
        error_bound=error,
        mode="every-run",
        premises=premises,
        method=GradientDescent(ConstantStep(eta), steps),
        references=(FREI_GU_2021, PROXYCONVEX_NOTES),
        constants={"gamma": gamma, "xi": xi, "eta": eta, "Delta": f0},
    )
    return Promise(
        guarantee,
        consequence,
        setting.start,
        {"theorem": "T1", "level": xi},
        {"gamma": gamma, "xi": xi, "eta": eta, "f0": f0},
    )
