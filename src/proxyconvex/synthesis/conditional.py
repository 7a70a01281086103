"""Promises that rest on what a run will show: "if, along the run, ..., then ...".

Nothing uniform on a region is proved here about the network, so the premises about the run are ASSUMED before training; the audit
measures each of them at every step, and where they held the same theorem is a statement about that run (ON_TRACE). What the planner
chooses (comparator, margins with a reserve, step, T) decides how easily the premises will hold, not whether the implication is true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import CheckError, margins, rounding
from proxyconvex_checker.claims.promise import show
from proxyconvex_checker.rounding import to_float_down, to_float_up

from ..core.errors import InvalidInputError
from ..core.evidence import Evidence
from ..core.guarantee import Guarantee, PremiseRecord
from ..core.methods import ConstantStep, GradientDescent, NormalisedStep
from ..core.references import FREI_GU_2021, PROXYCONVEX_NOTES
from ..families import losses
from ..families.tangent_margin import TangentMargin
from .tangent_directions import Setting, largest_eigenvalue, mean_loss, regression, separators
from .tangent_run import MOST, rehearse
from .two_layer.tangent import largest_level, least_k

RESERVE = 0.75
"""Share of every tangent margin towards the comparator at w0 that is asked for along the run."""
GROWTH = 1.15
"""G is never asked to be smaller than needed: at most this factor times the largest output gradient at w0."""
CURVATURE = 2.0
"""The step size is the inverse of this factor times the largest curvature of the tangent model at w0."""
STEEPER = 1.6
"""Allowed root mean square of ``||grad f|| / mean|loss'|``, as a multiple of that of a rehearsal on the tangent model."""
SPARE = 1.0 + 1e-4
SHARE = 0.4
"""Share of the progress per step that tangent margins at w0 would give, asked for on average over the run."""
SHARE_EXACT = Fraction(SHARE)
PATIENCE = 2.5
"""A comparator may need this many times the fewest steps, if it is nearer."""


@dataclass(frozen=True, eq=False)
class Promise:
    """A conditional promise, ready to become a plan.

    Attributes:
        guarantee: the implication.
        consequence: what follows where the premises hold.
        comparator: V, flat.
        proxy: keyword arguments of `DenseFamily.problem`.
        derived: the numbers the audit compares the run with.
    """

    guarantee: Guarantee
    consequence: str
    comparator: Float[np.ndarray, " p"]
    proxy: dict
    derived: dict[str, float]


def distance_upper(a: np.ndarray, b: np.ndarray) -> float:
    """Upper bound on ``||a - b||``."""
    gap = np.maximum(np.abs(rounding.sub_up(a, b)), np.abs(rounding.sub_down(a, b)))
    return float(to_float_up(rounding.norm_upper(gap))) if gap.any() else 0.0


def _assumed(name: str, statement: str, value: float | None = None) -> PremiseRecord:
    return PremiseRecord(name, statement, Evidence.ASSUMED, PROXYCONVEX_NOTES, value)


def _start(distance: float) -> PremiseRecord:
    return PremiseRecord(
        "start-distance", f"The initial weights are within R = {show(distance)} of the comparator V.",
        Evidence.CERTIFIED, PROXYCONVEX_NOTES, distance,
    )  # fmt: skip


def percent(fraction: float) -> str:
    """A promised fraction as a percentage, rounded up."""
    return show(100 * fraction, digits=3) + "%"


# --- T8: few errors ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Line:
    """A unit direction from w0, with the margins at w0 and the share of their growth along it that is asked for."""

    unit: Float[np.ndarray, " p"]
    first: np.ndarray
    held: np.ndarray
    typical: float

    def margins(self, radius: float) -> np.ndarray:
        return self.first + radius * self.held


@dataclass(frozen=True, eq=False)
class _Candidate:
    line: _Line
    radius: float
    effective: Float[np.ndarray, " n"]
    k: int


def _lines(setting: Setting) -> list[_Line]:
    first = losses.tangent_margins(
        setting.loss, setting.tangent_outputs(setting.start, setting.start), setting.y
    )
    out = []
    for unit in separators(setting):
        gain = losses.tangent_margins(setting.loss, setting.push(unit), setting.y)
        typical = float(np.median(gain[np.isfinite(gain)]))
        if typical > 0:
            out.append(_Line(unit, first, np.where(gain > 0, RESERVE * gain, gain / RESERVE), typical))
    return out


def _candidates(setting: Setting, lines: list[_Line], growth: float, steps: int) -> list[_Candidate]:
    out = []
    for line in lines:
        for radius in np.geomspace(0.2, 60.0, 24) * math.log(2 * len(setting.y)) / line.typical:
            effective = losses.effective_margins(setting.loss, line.margins(radius))
            k = least_k(effective, SPARE * radius * growth / math.sqrt(SHARE * steps))
            out.append(_Candidate(line, float(radius), effective, k))
    return [c for c in out if c.k <= len(setting.y)]


def _first_growth(setting: Setting) -> float:
    """``||grad f|| / mean|loss'|`` at w0, with room: where the search for G begins."""
    return STEEPER * rehearse(setting, ConstantStep(1e-12), 1).growth


def few_errors(setting: Setting, steps: int | None, most: int) -> Promise:
    """T8: fewer than k errors within T normalised steps, if tangent margins and gradients stay as planned along the run.

    Args:
        setting: network, data, and the logistic or cross-entropy loss.
        steps: T; chosen by default, at most ``most``.
        most: largest T to choose.

    Raises:
        InvalidInputError: if no k up to n/2 can be reached in that many steps.
    """
    growth, cap, lines = _first_growth(setting), GROWTH * setting.steepest(), _lines(setting)
    made = None
    for _ in range(3):
        made = _t8(setting, lines, min(growth, cap), steps, most)
        rule = made.guarantee.method.step
        assert isinstance(rule, NormalisedStep)
        seen = rehearse(setting, rule, made.guarantee.method.steps, int(made.derived["k"])).growth
        if STEEPER * seen <= min(growth, cap) * (1 + 1e-9) or growth >= cap:
            break
        growth = 1.1 * STEEPER * seen
    assert made is not None
    return made


def _needed(candidate: _Candidate, k: int, growth: float) -> float:
    level = largest_level(candidate.effective, k)
    return (SPARE * candidate.radius * growth / level) ** 2 / SHARE if level > 0 else math.inf


def _too_few(allowed: int) -> InvalidInputError:
    return InvalidInputError(
        "steps",
        allowed,
        "enough steps for the margins of this network",
        "Allow more --steps, or a larger --width.",
    )


def _t8(setting: Setting, lines: list[_Line], growth: float, steps: int | None, most: int) -> Promise:
    allowed = steps or most
    found = _candidates(setting, lines, growth, allowed)
    if not found:
        raise _too_few(allowed)
    best = min(found, key=lambda c: (c.k, c.radius))
    if steps is None:
        # A comparator near w0 keeps the network near its tangent model; the nearest that needs at most a few times the fewest steps.
        needed = {id(c): _needed(c, best.k, growth) for c in found}
        least = min(needed.values())
        best = min((c for c in found if needed[id(c)] <= PATIENCE * least), key=lambda c: c.radius)
    comparator = setting.start + best.radius * best.line.unit
    return _t8_promise(setting, best, comparator, growth, allowed, steps is None)


def progress(level: float, c: float, growth: float) -> Fraction:
    """``c (2 S - c G^2)``: by how much a step brings the squared distance to V down (T8)."""
    return Fraction(c) * (2 * Fraction(level) - Fraction(c) * Fraction(growth) ** 2)


def _certified_steps(
    q: Float[np.ndarray, " n"], k: int, growth: float, radius: float, allowed: int
) -> tuple[int, float, float, int] | None:
    """The least k from the given one on that is proved to be reached in time, with ``S_k``, c and the steps needed."""
    while True:
        try:
            level = margins.margin_floor(q, k)
            c = margins.best_step(level, Fraction(growth) ** 2)
            gain = SHARE_EXACT * progress(level, c, growth) if level > 0 else Fraction(0)
            needed = math.floor(Fraction(radius) ** 2 / gain) + 1 if gain > 0 else len(q) + allowed
            if needed <= allowed:
                return k, level, c, needed
        except CheckError:
            pass
        if k >= len(q):
            return None
        k = min(len(q), k + 1 + k // 50)


def _t8_promise(
    setting: Setting,
    candidate: _Candidate,
    comparator: Float[np.ndarray, " p"],
    growth: float,
    allowed: int,
    free: bool,
) -> Promise:
    n = len(setting.y)
    q = candidate.effective - 1e-9
    radius = distance_upper(setting.start, comparator)
    proved = _certified_steps(q, candidate.k, growth, radius, allowed)
    if proved is None:
        raise _too_few(allowed)
    k, level, c, needed = proved
    steps = needed if free else max(needed, allowed)
    rate = to_float_up(SHARE_EXACT * progress(level, c, growth))
    bound = to_float_up(Fraction(k - 1, n))
    method = GradientDescent(NormalisedStep(c, to_float_down(Fraction(k, 2 * n))), int(steps))
    what = "1 - p_y" if setting.loss == "cross-entropy" else "|loss'|"
    consequence = (
        f"the best of the first {steps:,} iterates of normalised gradient descent makes at most {k - 1} of {n} training errors "
        f"({percent(bound)})"
    )
    premises = (
        _start(radius),
        _assumed(
            "progress",
            f"While at least k = {k} rows are wrong, a step brings ||w - V||^2 down by {rate:.6g} on average. T8 gives c (2 S - c G^2) at "
            f"every step, S = {level:.6g} = S_k(q), where the tangent margins against V keep {RESERVE:.0%} of their gain at w_0 and "
            f"||grad f|| <= G mean({what}), G = {growth:.6g}; asked for is {SHARE:.0%} of that.",
            rate,
        ),
        PremiseRecord(
            "steps", f"T = {steps:,} times that is more than R^2.", Evidence.CERTIFIED, PROXYCONVEX_NOTES
        ),
    )
    guarantee = Guarantee(
        theorem="T8",
        quantity="best-iterate-error",
        sentence=f"If the steps bring the weights closer to V on average as stated below, then {consequence}.",
        bound=bound,
        error_bound=bound,
        mode="every-run",
        premises=premises,
        method=method,
        references=(PROXYCONVEX_NOTES, FREI_GU_2021),
        constants={"S": level, "k": k, "c": c, "R": radius, "G": growth},
    )
    proxy = {"theorem": "T8", "level": level}
    return Promise(
        guarantee,
        consequence,
        comparator,
        proxy,
        {"R": radius, "G": growth, "S": level, "c": c, "k": float(k), "rate": rate},
    )


# --- T4: a small loss ----------------------------------------------------------------------------------------------

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
        h = 1.05 * max(seen) + 1.5 * (max(seen) - first)
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
        _start(radius),
        PremiseRecord(
            "proxy-convexity", "<grad f(w), w - V> >= f(w) - h(V; w) at every w, h(V; w) the loss of the tangent model at w evaluated "
            "at V (convexity of the loss).", Evidence.PROVED, FREI_GU_2021,
        ),
        _assumed("comparator-loss", f"Along the run h(V; w_t) is on average at most h = {show(h)} (at w_0 it is {at:.4g}).", h),
        _assumed(
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


# --- T1: a small slope ---------------------------------------------------------------------------------------------


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
        _assumed(
            "proxy-pl", f"Along the run ||grad f|| >= gamma (mean |loss'| - xi), gamma = {gamma:.6g}, xi = {xi:.4g}; it holds wherever the "
            f"tangent margin of {layers} is at least gamma (at w_0 it is at least {margin.gamma:.6g}).", gamma,
        ),
        _assumed("sufficient-decrease", "Over the run the loss falls by at least (eta/2) sum ||grad f||^2.", eta),
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
