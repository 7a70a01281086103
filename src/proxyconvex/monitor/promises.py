"""What the theorems would have promised with the constants that a run showed: evidence ON_TRACE, about this run only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..core.conditions import BoundedBelow, GradientGrowth, ProxyConvexity, ProxyPL, Smooth
from ..core.errors import InvalidInputError
from ..core.evidence import Evidence
from ..core.explain import explain
from ..core.guarantee import Alternative
from ..core.methods import SGD, ConstantStep, GradientDescent, Method
from ..core.premises import Constant, Premise
from ..core.setting import Start
from .conditions import WatchConvexity, WatchPL
from .proxies import BUILT_IN

SEEN = Evidence.ON_TRACE


@dataclass(frozen=True)
class Promise:
    """What one theorem would have promised.

    Attributes:
        condition: the watched condition it rests on.
        comparator: its comparator, ``""`` for PL.
        theorem: identifier such as ``"T4"``, or ``"T7"`` for the a-posteriori form.
        sentence: the promise.
        bound: the number, for ``measured``.
        measured: the same quantity on this run (NaN where it was not recorded).
        evidence: always ON_TRACE or weaker.
    """

    condition: str
    comparator: str
    theorem: str
    sentence: str
    bound: float
    measured: float
    evidence: Evidence = SEEN


def _objective(_w: Any) -> Any:
    raise InvalidInputError(
        "f", "the objective of a recorded run", "its recorded values", "A log holds no functions."
    )


def _proxy(_w: Any) -> Any:
    raise InvalidInputError(
        "g", "the proxy of a recorded run", "its recorded values", "A log holds no functions."
    )


def _seen(value: float, side: str) -> Constant:
    return Constant(value, side, SEEN)  # type: ignore[arg-type]


@dataclass(frozen=True)
class RunFacts:
    """What all premises share, read from the totals of a log; ``why_not`` says why no theorem on (S)GD can apply."""

    steps: int
    eta: float
    full_batch: bool
    f_star: float
    loss_known: bool
    first_loss: float | None
    least_loss: float
    last_loss: float | None
    smoothness: float | None
    descents: int
    tolerance: float
    why_not: str = ""


def run_facts(header: dict[str, Any], totals: dict[str, Any]) -> RunFacts:
    """Collect the facts and the first reason why the theorems on (S)GD cannot be used."""
    meta, taken, steps = header.get("meta", {}), totals["taken"], totals["steps"]
    full = bool(meta.get("full_batch"))
    tolerance = float(header.get("tolerance", 1e-5))
    why = ""
    if not taken["eta_max"] > 0 or not math.isfinite(taken["eta_min"]):
        why = "no single step size was recorded"
    elif taken["eta_min"] != taken["eta_max"]:
        why = f"the step size varied between {taken['eta_min']:.4g} and {taken['eta_max']:.4g}"
    elif totals["form"] == "update" and not taken["departure"] <= 10 * tolerance:
        why = "the steps taken were not eta times the gradient seen (momentum, Adam, weight decay, clipping or several step sizes)"
    elif totals["form"] == "update" and taken["compared"] != steps:
        why = f"the step taken was compared with eta times the gradient at {taken['compared']:,} of {steps:,} steps only (record update at every step)"
    elif broken := [c for c, track in totals["tracks"].items() if track["status"] == "FALSIFIED"]:
        why = f"the ledger against {broken[0]} does not add up: something else moved the weights"
    elif totals["form"] == "sgd" and totals.get("first_written", -1) >= 0:
        why = f"something other than the optimizer wrote to the weights before step {totals['first_written']:,}, between steps that were not compared"
    elif totals["first_missed"] >= 0:
        why = f"steps were missed before step {totals['first_missed']:,}"
    elif totals["skipped"]:
        why = f"{totals['skipped']:,} steps were skipped"
    elif totals["first_nonfinite"] >= 0:
        why = f"values were not finite at step {totals['first_nonfinite']:,}"
    smooth = taken["smoothness_upper"] if full and taken["measured"] >= steps - 1 and steps > 1 else None
    return RunFacts(
        steps,
        taken["eta_max"],
        full,
        float(meta.get("f_star", 0.0)),
        meta.get("loss") in BUILT_IN and float(meta.get("f_star", 0.0)) <= 0,
        taken["first_loss"],
        taken["least_loss"],
        taken["last_loss"],
        smooth if smooth is not None and smooth > 0 else None,
        taken["measured"],
        tolerance,
        why,
    )  # fmt: skip


def _method(facts: RunFacts, steps: int) -> Method:
    step = ConstantStep(facts.eta)
    # One batch is one sample z_t, in the order in which they came; nothing is assumed about that order.
    return GradientDescent(step, steps) if facts.full_batch else SGD(step, steps, 1, "cyclic")


def _setting(facts: RunFacts, distance: float | None = None, *, smooth: bool = False) -> list[Premise]:
    """Start and lower bound, and smoothness (measured over all steps but the last, whose arrival has no loss)."""
    start: dict[str, Any] = {"evidence": SEEN}
    if facts.first_loss is not None and facts.full_batch:
        start["value"] = _seen(facts.first_loss + facts.tolerance * abs(facts.first_loss), "upper")
    if distance is not None:
        start["distance"] = _seen(distance, "upper")
    known = Evidence.PROVED if facts.loss_known else Evidence.ASSUMED
    below = BoundedBelow(Constant(facts.f_star, "lower"), f=_objective, evidence=known)
    premises: list[Premise] = [Start(**start)]
    if facts.full_batch:
        premises.append(below)
        if smooth and facts.smoothness is not None:
            premises.append(Smooth(_seen(facts.smoothness, "upper"), f=_objective, evidence=SEEN))
    return premises


def convexity_promises(
    watch: WatchConvexity,
    comparator: str,
    tally: dict[str, Any],
    track: dict[str, Any],
    totals: dict[str, Any],
    facts: RunFacts,
) -> tuple[list[Promise], list[Alternative]]:
    """Promises from proxy convexity that held on all of the run, and every theorem with its reason.

    T7 needs no constants and comes first; the others follow from `explain` with growth ``(A, 0)`` and ``(0, C)`` as seen.
    """
    made: list[Promise] = []
    posterior = a_posteriori(watch, comparator, tally, track, totals)
    if posterior is not None:
        made.append(posterior)
    if facts.why_not or tally["checks"] != facts.steps or not track["first_sq"] >= 0:
        return made, []
    g = _objective if watch.g == "loss" and facts.full_batch else _proxy
    level = _seen(tally["h_max"], "upper")
    pc = ProxyConvexity(
        _objective, g, level, comparator=[0.0], h_max=level, samplewise=not facts.full_batch, evidence=SEEN
    )  # the comparator enters through its distance only
    far = math.sqrt(track["first_sq"]) * (1 + facts.tolerance)
    rows: list[Alternative] = []
    for A, C in ((tally["growth"], 0.0), (0.0, totals["maxima"].get("grad_sq", math.inf))):
        if not math.isfinite(A + C):
            continue
        scope = "full-batch" if facts.full_batch else "sample-wise"
        growth = GradientGrowth(
            _seen(A, "upper"), _seen(C, "upper"), g=g, f=_objective, scope=scope, evidence=SEEN
        )
        rows += explain([pc, growth, *_setting(facts, far)], _method(facts, facts.steps))
    mean = tally["g_sum"] / tally["checks"]
    values = {"average": mean, "smallest": tally["g_min"]}
    made += _stated(watch.name, comparator, rows, values, facts)
    if facts.full_batch and facts.smoothness is not None:
        smooth = explain([pc, *_setting(facts, far, smooth=True)], _method(facts, facts.descents))
        rows += smooth
        values = {"after": facts.last_loss if facts.last_loss is not None else math.nan}
        made += _stated(watch.name, comparator, smooth, values, facts)
    return made, _best(rows)


def pl_promises(
    watch: WatchPL, tally: dict[str, Any], least_g: float, facts: RunFacts
) -> tuple[list[Promise], list[Alternative]]:
    """Promises from a (proxy-)PL inequality that a full-batch run obeyed with ``mu > 0`` at each step."""
    mu = tally["least"]
    if facts.why_not or not facts.full_batch or tally["checks"] != facts.steps or not 0 < mu < math.inf:
        return [], []
    g = _objective if watch.g == "loss" else _proxy
    pl = ProxyPL(
        _objective,
        g,
        Constant(watch.xi, "upper"),
        watch.alpha,
        _seen(mu * (1 - 10 * facts.tolerance), "lower"),
        evidence=SEEN,
    )
    if facts.smoothness is None:
        return [], []
    rows = explain([pl, *_setting(facts, smooth=True)], _method(facts, facts.descents))
    values = {"smallest": least_g, "after": facts.last_loss if facts.last_loss is not None else math.nan}
    return _stated(watch.name, "", rows, values, facts), _best(rows)


def _best(rows: list[Alternative]) -> list[Alternative]:
    """One row a theorem: its smallest bound, or its reason."""
    found: dict[str, Alternative] = {}
    for row in rows:
        old = found.get(row.theorem)
        if old is None or (row.accepted and (not old.accepted or row.bound < old.bound)):  # type: ignore[operator]
            found[row.theorem] = row
    return sorted(
        found.values(), key=lambda r: (not r.accepted, r.bound if r.bound is not None else math.inf)
    )


def _stated(
    name: str, comparator: str, rows: list[Alternative], values: dict[str, float], facts: RunFacts
) -> list[Promise]:
    """The smallest bound of each kind (the average, the smallest, the final value)."""
    made: dict[str, Promise] = {}
    for row in _best(rows):
        kind = " ".join(row.reason.split()[:2])
        if not row.accepted or row.bound is None or kind in made:
            continue
        text = row.reason if facts.full_batch else row.reason.replace("samples drawn", "batches drawn")
        text = text.replace(" This speaks of the recorded run only: a premise was seen ON_TRACE.", "")
        measured = next((v for k, v in values.items() if k in kind.lower()), math.nan)
        made[kind] = Promise(name, comparator, row.theorem, text, row.bound, measured)
    return list(made.values())


def a_posteriori(
    watch: WatchConvexity,
    comparator: str,
    tally: dict[str, Any],
    track: dict[str, Any],
    totals: dict[str, Any],
) -> Promise | None:
    """T7's own promise, with no constant: where proxy convexity held, ``sum eta (g - h) <= sum eta <grad, w - v>``.

    For steps ``u = eta d`` T7 turns the right side into ``(R_0^2 - R_T^2)/2 + (1/2) sum ||u||^2``; for other optimisers, and where only some
    steps recorded g and h, the right side is the sum as measured.
    """
    if tally["violations"] or not tally["weighted"] or not tally["weight"] > 0:
        return None
    steps, weight = totals["steps"], tally["weight"]
    complete = tally["weighted"] == steps
    plain = totals["form"] == "sgd" or totals["taken"]["departure"] <= 1e-4
    closed = (
        complete and plain and track["checks"] == steps + totals["skipped"] and totals["first_missed"] < 0
    )
    # The two agree up to rounding; the larger is the safe one.
    right = max(track["right"], tally["inner"]) if closed else tally["inner"]
    words = "(||w_0-v||^2 - ||w_T-v||^2 + sum ||u||^2) / (2 sum eta)"
    if not closed:
        words = "the average of <grad, w - v>, as measured"
    scope = f"all {steps:,} steps" if complete else f"the {tally['weighted']:,} steps that recorded them"
    bound = (right + tally["weighted_h"]) / weight
    h = f"{watch.h:g}" if not isinstance(watch.h, str) else f"the average of {watch.h}"
    sentence = (
        f"Over {scope} the step-weighted average of {watch.g} is at most {h} plus {words}: {bound:.6g}."
    )
    return Promise(watch.name, comparator, "T7", sentence, bound, tally["weighted_g"] / weight)
