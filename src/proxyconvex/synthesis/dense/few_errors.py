"""T8 along a run: few errors, if the steps bring the weights closer to the comparator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import CheckError, margins
from proxyconvex_checker.rounding import to_float_down, to_float_up

from ...core.errors import InvalidInputError
from ...core.evidence import Evidence
from ...core.guarantee import Guarantee, PremiseRecord
from ...core.methods import ConstantStep, GradientDescent, NormalisedStep
from ...core.references import FREI_GU_2021, PROXYCONVEX_NOTES
from ...families import losses
from ..two_layer.tangent import largest_level, least_k
from .directions import Setting, separators
from .promise import Line, Promise, assumed, distance_upper, percent, start_premise
from .rehearsal import rehearse
from .rehearsed_errors import Rehearsed, rehearse_errors, rehearsed_level, reserves

RESERVE = 0.75
"""Share of every tangent margin towards the comparator at w0 that is asked for along the run."""
GROWTH = 1.15
"""G is never asked to be smaller than needed: at most this factor times the largest output gradient at w0."""
STEEPER = 1.6
"""Allowed root mean square of ``||grad f|| / mean|loss'|``, as a multiple of that of a rehearsal on the tangent model."""
SPARE = 1.0 + 1e-4
SHARE = 0.4
"""Share of the progress per step that tangent margins at w0 would give, asked for on average over the run."""
SHARE_EXACT = Fraction(SHARE)
PATIENCE = 2.5
"""A comparator may need this many times the fewest steps, if it is nearer."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    line: Line
    radius: float
    effective: Float[np.ndarray, " n"]
    k: int


def _lines(setting: Setting) -> list[Line]:
    first = losses.tangent_margins(
        setting.loss, setting.tangent_outputs(setting.start, setting.start), setting.y
    )
    out = []
    for unit in separators(setting):
        gain = losses.tangent_margins(setting.loss, setting.push(unit), setting.y)
        typical = float(np.median(gain[np.isfinite(gain)]))
        if typical > 0:
            out.append(Line(unit, first, np.where(gain > 0, RESERVE * gain, gain / RESERVE), typical))
    return out


def _candidates(setting: Setting, lines: list[Line], growth: float, steps: int) -> list[_Candidate]:
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
    """T8: fewer than k errors within T normalised steps, if the steps bring the weights closer to V as planned.

    What is asked for is first what tangent margins at w0 give for the least favourable slopes; where that leaves errors, a share of
    what a rehearsal on the tangent model gave (`rehearsed_errors`), if that leaves fewer.

    Args:
        setting: network, data, and the logistic or cross-entropy loss.
        steps: T; chosen by default, at most ``most``.
        most: largest T to choose.

    Raises:
        InvalidInputError: if no k up to n/2 can be reached in that many steps.
    """
    lines, made = _lines(setting), None
    if not lines:
        raise InvalidInputError(
            "data", f"{len(setting.y)} rows", "rows of which some direction in the tangent space at w_0 gets more than half right",
            "Are there equal rows with different labels, or features that say nothing about the label? --method gd promises a loss instead.",
        )  # fmt: skip
    if setting.loss == "logistic":
        try:
            made = _from_margins(setting, lines, steps, most)
        except InvalidInputError:
            made = None
    if made is not None and made.derived["k"] <= 1:
        return made
    try:
        seen = rehearse_errors(setting, lines, steps or most)
    except InvalidInputError:
        seen = None
    if seen is not None and (made is None or seen.k < made.derived["k"]):
        return _from_rehearsal(setting, seen, steps)
    if made is None:
        made = _from_margins(setting, lines, steps, most)
    return made


def _from_margins(setting: Setting, lines: list[Line], steps: int | None, most: int) -> Promise:
    growth, cap = _first_growth(setting), GROWTH * setting.steepest()
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


def _from_rehearsal(setting: Setting, seen: Rehearsed, steps: int | None) -> Promise:
    keep, farther = reserves(setting)
    asked = (
        f"In a rehearsal on the tangent model at w_0 it fell by {seen.pull - seen.moved:.6g} a step until fewer than {seen.k} rows were wrong "
        f"(after {seen.after:,} steps); asked for is what is left with {keep:.0%} of the pull towards V and {farther:g} times the growth of ||w - w_0||^2."
    )
    growth = to_float_up(Fraction(seen.steepness**0.5))
    return _promise(
        setting, seen.comparator, seen.radius, seen.k, rehearsed_level(seen), growth, seen.c, max(seen.steps, steps or 0), seen.rate, asked
    )  # fmt: skip


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


def _t8(setting: Setting, lines: list[Line], growth: float, steps: int | None, most: int) -> Promise:
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
    q = candidate.effective - 1e-9
    radius = distance_upper(setting.start, comparator)
    proved = _certified_steps(q, candidate.k, growth, radius, allowed)
    if proved is None:
        raise _too_few(allowed)
    k, level, c, needed = proved
    steps = needed if free else max(needed, allowed)
    rate = to_float_up(SHARE_EXACT * progress(level, c, growth))
    what = "1 - p_y" if setting.loss == "cross-entropy" else "|loss'|"
    asked = (
        f"T8 gives c (2 S - c G^2) at every step, S = {level:.6g} = S_k(q), where the tangent margins against V keep {RESERVE:.0%} of their "
        f"gain at w_0 and ||grad f|| <= G mean({what}), G = {growth:.6g}; asked for is {SHARE:.0%} of that."
    )
    return _promise(setting, comparator, radius, k, level, growth, c, steps, rate, asked)


def _promise(
    setting: Setting,
    comparator: Float[np.ndarray, " p"],
    radius: float,
    k: int,
    level: float,
    growth: float,
    c: float,
    steps: int,
    rate: float,
    asked: str,
) -> Promise:
    n = len(setting.y)
    bound = to_float_up(Fraction(k - 1, n))
    method = GradientDescent(NormalisedStep(c, to_float_down(Fraction(k, 2 * n))), int(steps))
    consequence = (
        f"the best of the first {steps:,} iterates of normalised gradient descent makes at most {k - 1} of {n} training errors "
        f"({percent(bound)})"
    )
    premises = (
        start_premise(radius),
        assumed(
            "progress",
            f"While at least k = {k} rows are wrong, a step brings ||w - V||^2 down by {rate:.6g} on average. {asked}",
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
