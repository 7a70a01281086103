"""The answer of `certify`: a verdict with its proof, in words and as a document."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from proxyconvex_checker.decimals import show

from ...core.arithmetics import evaluate
from ...core.errors import InvalidInputError
from ...core.evidence import Evidence, Status, Verdict
from ...core.intervals import lower, lower_float, upper, upper_float
from ...core.reduced import ReducedCondition
from .boxes import CENTRED
from .floor import Floor
from .rewrite import Plan
from .search import State
from .ways import Way


@dataclass(frozen=True)
class Certification(Verdict):
    """A `Verdict` about a reduced condition, with what it rests on.

    Attributes:
        condition: what was examined.
        boxes: boxes examined.
        seconds: time it took.
        method: how it was decided, a sentence.
        delta: the proved bound is ``slack >= -delta`` (None if no bound was proved).
        way: what the boxes were closed with, besides the slack itself.
        smoothness: L, where the claim is that f is L-smooth.
        codes: the tree of the proof, one byte a node (None if there is none to write).
    """

    condition: ReducedCondition | None = None
    boxes: int = 0
    seconds: float = 0.0
    method: str = ""
    delta: Fraction | None = None
    way: Way = field(default_factory=Way)
    smoothness: Fraction | None = None
    codes: np.ndarray | None = None

    @property
    def plan(self) -> Plan | None:
        """The quadratic form that was used, if one was."""
        return self.way.plan

    def document(self) -> dict[str, Any]:
        """The certificate as JSON data.

        Raises:
            InvalidInputError: if nothing was proved by boxes.
        """
        from . import document as certify_document

        if self.codes is None or self.condition is None or self.delta is None:
            raise InvalidInputError(
                "certificate", self.status.name, "a verdict HOLDS, or one that holds up to -delta, that was reached by boxes",
                "Only such a proof can be written down and checked again; this verdict has none.",
            )  # fmt: skip
        return certify_document.accepted(self.condition, self.way, self.codes, self.delta, self.smoothness)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the certificate for `proxyconvex verify`; it is checked before it is written."""
        from . import document as certify_document

        return certify_document.write(self.document(), path)


def rounded(x: Fraction) -> str:
    """A rational as a short text that is not below it."""
    return f"{float(upper_float(x)):.6g}" if x else "0"


def confirmed(condition: ReducedCondition, point: Mapping[str, Fraction]) -> tuple[Fraction, Fraction] | None:
    """Exact bounds on a slack that is certainly negative at a point of the ranges, else None.

    In ball arithmetic at 256 bits where python-flint is installed, else with rational intervals.
    """
    if not condition.contains(point):
        return None
    try:
        ends = _by_balls(condition, point)
    except ImportError:
        try:
            value = evaluate(condition.closed, dict(point))
        except InvalidInputError:
            return None
        ends = lower(value), upper(value)
    return ends if ends is not None and ends[1] < 0 else None


def _by_balls(condition: ReducedCondition, point: Mapping[str, Fraction]) -> tuple[Fraction, Fraction] | None:
    import flint

    with flint.ctx.workprec(256):
        balls = {k: flint.arb(flint.fmpq(v.numerator, v.denominator)) for k, v in point.items()}
        value = evaluate(condition.closed, balls)
        if not value.is_finite():
            return None
        ends = []
        for end in (value.lower(), value.upper()):
            m, e = end.man_exp()
            ends.append(Fraction(int(m)) * Fraction(2) ** int(e))
    return ends[0], ends[1]


def simple_witness(condition: ReducedCondition, x: np.ndarray) -> dict[str, Fraction] | None:
    """A point near ``x`` with as simple coordinates as still refute, or None if not even ``x`` does."""
    point = {}
    for (name, (lo, hi)), value in zip(condition.variables.items(), x.tolist(), strict=True):
        point[name] = min(max(Fraction(value), lo), hi)
    if confirmed(condition, point) is None:
        return None
    for name in point:
        exact = point[name]
        for denominator in (1, 2, 4, 8, 10, 100, 1000):
            trial = {**point, name: Fraction(round(exact * denominator), denominator)}
            if confirmed(condition, trial) is not None:
                point = trial
                break
    return point


def holds(
    condition: ReducedCondition, way: Way, state: State, delta: Fraction, smoothness: Fraction | None = None
) -> Certification:
    """The verdict of a finished branch and bound."""
    bound = "0" if delta == 0 else f"-{rounded(delta)}"
    lift = f" {condition.lift}" if condition.lift and delta == 0 else ""
    where = f"for all {condition.where}"
    given = ", ".join(f"{k} = {_plain(v)}" for k, v in condition.constants.items())
    claim = f"The slack is >= {bound} {where}{' with ' + given if given else ''}, equality included"
    how = way.sentence
    if smoothness is not None:
        claim, how = f"f is L-smooth with L = {_plain(smoothness)} {where}", "second derivatives on every box"
    sentence = f"{claim}: proved by examining {state.boxes:,} boxes in {state.seconds:.3g} s with every rounding bounded; {how}.{lift}"
    if condition.origin:
        sentence += " What is proved is the formula translated from the functions; the certificate states it."
    return Certification(
        Status.HOLDS, sentence, Evidence.CERTIFIED, {}, condition, state.boxes, state.seconds, how, delta, way, smoothness,
        np.concatenate(state.tree),
    )  # fmt: skip


def not_certifiable(reason: str) -> Certification:
    """The answer for a condition that boxes cannot be used on."""
    return Certification(
        Status.INCONCLUSIVE, f"Not certified, because {reason}.", Evidence.ASSUMED, {"reason": reason}
    )


def falsified(
    condition: ReducedCondition, point: dict[str, Fraction], boxes: int, seconds: float, how: str
) -> Certification:
    """The verdict of a confirmed violation."""
    ends = confirmed(condition, point)
    if ends is None:
        raise InvalidInputError("witness", point, "a point where the slack is certainly negative")
    where = ", ".join(f"{k} = {_plain(v)}" for k, v in point.items())
    value = upper_float(ends[1])
    sentence = f"The slack is negative, at most {show(value)}, at {where} (confirmed in ball arithmetic)."
    witness = {"point": point, "slack": (lower_float(ends[0]), value)}
    return Certification(
        Status.FALSIFIED, sentence, Evidence.CERTIFIED, witness, condition, boxes, seconds, how
    )


def _plain(x: Fraction) -> str:
    return str(x) if len(str(x)) <= 12 else repr(float(x)) if Fraction(float(x)) == x else str(x)


def undecided(condition: ReducedCondition, way: Way, floor: Floor, delta: Fraction) -> Certification:
    """The verdict of a spent budget: the delta for which ``slack >= -delta`` is proved nevertheless, and the worst box.

    The tree of that proof is the branch and bound so far, with every open box closed by the bound on the slack there.

    Args:
        condition: as given.
        way: what boxes were closed with.
        floor: the bound on ``slack + delta``.
        delta: what was asked for.
    """
    state, names = floor.state, list(condition.variables)
    asked = f"-{rounded(delta)}" if delta else "0"
    spent = f"The budget is spent; the best of the ways tried examined {state.boxes:,} boxes in {state.seconds:.3g} s and left {len(state.open):,} open"
    proved = short_above(delta - Fraction(floor.value)) if np.isfinite(floor.value) else None
    if proved is None:
        sentence = f"{spent}. No lower bound on the slack was found either."
    else:
        sentence = (
            f"It holds up to -delta with delta = {rounded(proved)}: slack >= -{rounded(proved)} is proved for all {condition.where}; "
            f"between that and {asked} nothing is decided. {spent}."
        )
    if floor.box is not None:
        ends = zip(names, floor.box, strict=True)
        sentence += f" Worst open box: {', '.join(f'{n} in [{a:.6g}, {b:.6g}]' for n, (a, b) in ends)}."
    witness = {
        "box": dict(zip(names, floor.box, strict=True)) if floor.box else {},
        "lower_bound": -np.inf if proved is None else -upper_float(proved),
        "open": len(state.open),
    }
    # A form or a segment that belongs to slack + delta says nothing about another delta.
    written = proved is not None and (not delta or (way.requirements is None and way.segment is None))
    codes = np.concatenate([*state.tree, np.full(len(state.open), CENTRED, np.uint8)]) if written else None
    return Certification(
        Status.INCONCLUSIVE, sentence, Evidence.ASSUMED if proved is None else Evidence.CERTIFIED, witness, condition, state.boxes,
        state.seconds, way.sentence, proved, way, None, codes,
    )  # fmt: skip


def short_above(x: Fraction) -> Fraction:
    """A decimal number of four digits that is not below ``x >= 0``: the margin is more than the checker's enclosures are wider."""
    return Fraction(Context(prec=4, rounding=ROUND_CEILING).create_decimal(Decimal(upper_float(x))))


def undecided_smoothness(
    condition: ReducedCondition,
    state: State,
    bound: Fraction,
    floor: float,
    box: list[tuple[float, float]] | None,
) -> Certification:
    """The verdict of a spent budget for smoothness: the constant that is proved nevertheless."""
    proved = None if not np.isfinite(floor) else upper_float(bound + max(Fraction(0), -Fraction(floor)))
    weaker = (
        "No constant is proved"
        if proved is None
        else f"Proved is that f is L-smooth there with L = {proved!r}"
    )
    shown = (
        ""
        if box is None
        else ", ".join(
            f"{n} in [{a:.6g}, {b:.6g}]" for n, (a, b) in zip(condition.variables, box, strict=True)
        )
    )
    sentence = (
        f"The budget of {state.seconds:.3g} s and {state.boxes:,} boxes is spent with {len(state.open):,} boxes open. {weaker}; whether it is with "
        f"L = {_plain(bound)} is not decided. Worst open box: {shown}."
    )
    witness = {
        "box": dict(zip(condition.variables, box, strict=True)) if box else {},
        "open": len(state.open),
        "proved_L": proved,
    }
    evidence = Evidence.ASSUMED if proved is None else Evidence.CERTIFIED
    return Certification(
        Status.INCONCLUSIVE, sentence, evidence, witness, condition, state.boxes, state.seconds
    )
