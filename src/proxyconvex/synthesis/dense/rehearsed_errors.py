"""T8 along a run, with the progress asked for taken from a rehearsal on the tangent model.

``few_errors`` asks for what the *least favourable* slopes would give with the margins at w0. Where that is too little to rule out errors within
the steps allowed, this asks instead for a share of what the tangent model's own run gives. The implication is the same and needs no more:
if ``||w - V||^2`` falls by ``rate`` a step on average while at least k rows are wrong, then ``T rate > R^2`` leaves no room for T such steps.
What a rehearsal adds is only how likely the premise is to hold.

After t steps ``||w_t - V||^2 - ||w_0 - V||^2 = ||w_t - w_0||^2 - 2 <w_t - w_0, V - w_0>``. A network that leaves its tangent model moves farther and
gets less of the second term, so the reserve is put on both terms: `KEEP` of the second, `FARTHER` times the first. The comparator that
minimises T under this reserve lies about three times as far as the one that minimises it without.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from ...core.errors import InvalidInputError
from .directions import Setting
from .promise import Line, distance_upper
from .rehearsal import Approach, approach

KEEP, KEEP_PUBLISHED = 0.6, 0.5
"""Share of the rehearsed pull towards V that is asked for; at output scales below `CLOSE`, where networks leave their tangent model sooner."""
FARTHER, FARTHER_PUBLISHED = 2.0, 3.0
"""The squared distance from w0 may be this many times that of the rehearsal; at small output scales."""
CLOSE = 4.0
LARGEST_PUBLISHED = 16
"""Largest of `FACTORS` at small output scales: longer steps were seen to leave the tangent model (digits, even or odd)."""
FACTORS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Constants c of the step that are rehearsed, in units of the inverse square of the steepest output gradient."""
RADII = np.geomspace(0.2, 60.0, 24)


@dataclass(frozen=True, eq=False)
class Rehearsed:
    """A comparator and a step with the progress they had on the tangent model.

    Attributes:
        comparator: V, flat.
        radius: upper bound on ``||w0 - V||``.
        c: constant of the normalised step.
        k: the promise is fewer than k errors.
        pull: mean of ``2 <w_{t+1} - w_t, V - w_0>`` until fewer than k rows were wrong.
        moved: mean growth of ``||w_t - w_0||^2`` per step until then.
        after: at which step that was.
        steepness: mean of ``||grad f||^2 / (mean|loss'|)^2`` over those steps.
        rate: what is asked for.
        steps: ``T``, with ``T rate > R^2``.
    """

    comparator: Float[np.ndarray, " p"]
    radius: float
    c: float
    k: int
    pull: float
    moved: float
    after: int
    steepness: float
    rate: float
    steps: int


@dataclass(frozen=True, eq=False)
class _Choice:
    c: float
    k: int
    line: Line
    length: float
    pull: float
    moved: float
    after: int
    steepness: float
    reserve: tuple[float, float]

    @property
    def rate(self) -> float:
        keep, farther = self.reserve
        return keep * self.pull - farther * self.moved

    @property
    def needed(self) -> float:
        return self.length**2 / self.rate if self.rate > 0 else np.inf


def reserves(setting: Setting) -> tuple[float, float]:
    """The share of the pull that is asked for, and the allowed factor on the squared distance from w0."""
    if setting.network.output_scale < CLOSE:
        return KEEP_PUBLISHED, FARTHER_PUBLISHED
    return KEEP, FARTHER


def rehearse_errors(setting: Setting, lines: list[Line], allowed: int) -> Rehearsed:
    """The fewest errors that a share of the rehearsed progress reaches within the steps allowed, with the smallest step that does.

    Args:
        setting: network, data and the logistic or cross-entropy loss.
        lines: directions in which the comparator may lie.
        allowed: largest T.

    Raises:
        InvalidInputError: if the rehearsal does not get below n/2 errors, or makes no progress.
    """
    whole = setting if setting.layers is None else replace(setting, layers=None)
    floor, unit = 1 / (2 * len(setting.y)), setting.steepest() ** -2
    pushes = [setting.push(line.unit) for line in lines]
    best: _Choice | None = None
    published = setting.network.output_scale < CLOSE
    for factor in (f for f in FACTORS if f <= LARGEST_PUBLISHED or not published):
        seen = approach(whole, factor * unit, floor, allowed, pushes)
        found = _fewest(setting, seen, lines, factor * unit, allowed)
        if found is None or (best is not None and found.k > best.k):
            if best is not None:
                break
            continue
        best = found
    if best is None:
        raise InvalidInputError(
            "steps", allowed, "enough steps for the tangent model of this network",
            "Allow more --steps, or a larger --width.",
        )  # fmt: skip
    comparator = setting.start + best.length * best.line.unit
    radius = distance_upper(setting.start, comparator)
    rate = best.rate
    steps = int(Fraction(radius) ** 2 / Fraction(rate)) + 1
    return Rehearsed(
        comparator, radius, best.c, best.k, best.pull, best.moved, best.after, best.steepness, rate, steps
    )


def _fewest(setting: Setting, seen: Approach, lines: list[Line], c: float, allowed: int) -> _Choice | None:
    """The smallest k, and the comparator that needs the fewest steps for it; None if there is none up to n/2."""
    n = len(setting.y)
    least = np.minimum.accumulate(seen.errors)
    for k in dict.fromkeys(int(e) + 1 for e in sorted(set(least.tolist())) if 2 * e < n):
        after = int(np.argmax(seen.errors < k))
        if after == 0:
            continue
        choices = [
            _Choice(c, k, line, length, length * float(pull[after - 1]) / after, float(seen.fixed[after - 1]) / after, after,
                    float(seen.steepness[:after].mean()), reserves(setting))
            for line, pull in zip(lines, seen.pulls, strict=True)
            for length in (RADII * np.log(2 * n) / line.typical).tolist()
        ]  # fmt: skip
        fitting = [x for x in choices if x.needed * (1 + 1e-6) + 1 <= allowed]
        if fitting:
            return min(fitting, key=lambda x: x.needed)
    return None


def rehearsed_level(found: Rehearsed) -> float:
    """S with ``c (2 S - c G^2) = rate``: the mean of ``<grad f, w - V> / mean|loss'|`` asked for."""
    return float(found.rate / found.c + found.c * found.steepness) / 2
