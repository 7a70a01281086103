"""What a run has shown, from its log alone: conditions, constants, promises, and the whole of it in plain language."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

from ..core.evidence import Evidence, Status
from ..core.guarantee import Alternative
from .conditions import WatchConvexity, WatchPL, watches_of
from .estimates import Interval, PLEstimate, mean_interval, parts_of, pl_estimate
from .log import RunLog, read_log
from .promises import Promise, convexity_promises, pl_promises, run_facts


@dataclass(frozen=True)
class Finding:
    """What the run showed of one condition.

    Attributes:
        condition: name of the watched condition.
        comparator: comparator, ``""`` where there is none.
        formula: the inequality.
        status: HOLDS (at every step that recorded it: ON_TRACE), FALSIFIED (with the step), NOT_FALSIFIED (an estimate, SAMPLED) or
            INCONCLUSIVE.
        evidence: what that rests on.
        sentence: numbers and wording.
        since: first step from which on no violation was seen, -1 if there is none.
        constants: the numbers.
    """

    condition: str
    comparator: str
    formula: str
    status: Status
    evidence: Evidence
    sentence: str
    since: int = -1
    constants: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A run in words and numbers.

    Attributes:
        log: what it was made from.
        totals: the running sums.
        findings: one for each condition and comparator.
        estimates: empirical (proxy-)PL constants of mini-batch runs.
        grad_sq: mean of the unbiased estimates of ``||grad f||^2`` over the last window, None without split gradients.
        inflation: how many times larger the batches' own ``||g||^2`` was on average, over the whole run.
        noise_scale: ``tr Cov(one row) / ||grad f||^2`` over the run, NaN if unknown.
        promises: what theorems would have promised.
        alternatives: every theorem that was tried, with its reason, by condition.
        why_not: why no theorem on (S)GD applies, ``""`` otherwise.
        notes: what a reader must know about how the numbers were taken.
    """

    log: RunLog
    totals: dict[str, Any]
    findings: tuple[Finding, ...]
    estimates: tuple[PLEstimate, ...]
    grad_sq: Interval | None
    inflation: float
    noise_scale: float
    promises: tuple[Promise, ...]
    alternatives: dict[str, list[Alternative]]
    why_not: str
    notes: tuple[str, ...]

    @property
    def gradients(self) -> tuple[str, ...]:
        """The kinds of gradient that the records saw."""
        return tuple(dict.fromkeys(r["gradient"] for r in self.log.records if "gradient" in r))

    def __str__(self) -> str:
        from .words import text

        return text(self)


def summarise(log: RunLog | str | os.PathLike[str]) -> Summary:
    """Summarise a log, finished or not.

    Args:
        log: a `RunLog`, or the folder or file of one.
    """
    log = log if isinstance(log, RunLog) else read_log(log)
    totals = log.totals
    if not totals:
        return Summary(log, {}, (), (), None, math.nan, math.nan, (), {}, "no step was recorded", ())
    watches = watches_of(log.header)
    facts = run_facts(log.header, totals)
    findings: list[Finding] = []
    promises: list[Promise] = []
    alternatives: dict[str, list[Alternative]] = {}
    for tally in totals["convexity"]:
        watch = watches[tally["watch"]]
        assert isinstance(watch, WatchConvexity)
        findings.append(_convexity(watch, tally, totals["steps"]))
        if not tally["violations"]:
            track = totals["tracks"][tally["comparator"]]
            made, rows = convexity_promises(watch, tally["comparator"], tally, track, totals, facts)
            promises += made
            if rows:
                alternatives[f"{watch.name}, v = {tally['comparator']}"] = rows
    for tally in totals["pl"]:
        watch = watches[tally["watch"]]
        assert isinstance(watch, WatchPL)
        findings.append(_pl(watch, tally))
        least = totals["taken"]["least_loss"] if watch.g == "loss" else math.nan
        made, rows = pl_promises(watch, tally, least, facts)
        promises += made
        if rows:
            alternatives[watch.name] = rows
    found = [pl_estimate(log, w) for w in watches.values() if isinstance(w, WatchPL)]
    estimates = tuple(e for e in found if e is not None)
    findings += [_estimated(e) for e in estimates]
    level, inflation, scale = _noise(log)
    return Summary(
        log, totals, tuple(findings), estimates, level, inflation, scale, tuple(promises), alternatives, facts.why_not,
        tuple(_notes(log, totals, facts.full_batch)),
    )  # fmt: skip


def _convexity(watch: WatchConvexity, tally: dict[str, Any], steps: int) -> Finding:
    n, c = tally["checks"], tally["comparator"]
    scope = f"all {n:,} steps" if n == steps else f"the {n:,} of {steps:,} steps that recorded it"
    numbers = f"smallest slack {tally['least']:.4g} at step {tally['least_step']:,}"
    constants = {
        "least slack": tally["least"], "largest h": tally["h_max"], "growth A": tally["growth"], "smallest g": tally["g_min"],
    }  # fmt: skip
    if not tally["violations"]:
        return Finding(
            watch.name, c, watch.formula, Status.HOLDS, Evidence.ON_TRACE,
            f"held on each step's own batch at {scope} ({numbers}); this says nothing about other runs.",
            tally["first_step"], constants,
        )  # fmt: skip
    last = tally["last_violation"]
    since = last + 1 if last < tally["last_step"] else -1
    after = f"; no violation was seen after step {last:,}" if since >= 0 else ", the last one at the end"
    return Finding(
        watch.name, c, watch.formula, Status.FALSIFIED, Evidence.ON_TRACE,
        f"was violated at {tally['violations']:,} of {scope.removeprefix('all ')} ({numbers}){after}.", since, constants,
    )  # fmt: skip


def _pl(watch: WatchPL, tally: dict[str, Any]) -> Finding:
    mu = tally["least"]
    constants = {"mu": mu}
    if not math.isfinite(mu):
        return Finding(
            watch.name, "", watch.formula, Status.HOLDS, Evidence.ON_TRACE,
            f"asks for nothing on this run: {watch.g} never exceeded {watch.xi:g}.", 0, constants,
        )  # fmt: skip
    extra = (
        f" (in the usual form (1/2)||grad f||^2 >= m (f - f_star): m = {mu / 4:.4g})"
        if watch.g == "loss" and watch.alpha == 2
        else ""
    )
    return Finding(
        watch.name, "", watch.formula, Status.HOLDS if mu > 0 else Status.FALSIFIED, Evidence.ON_TRACE,
        f"held at all {tally['checks']:,} full-batch steps with mu = {mu:.4g}{extra}, the smallest at step {tally['least_step']:,}.",
        0, constants,
    )  # fmt: skip


def _estimated(e: PLEstimate) -> Finding:
    w, n = e.worst, sum(x.count for x in e.windows)
    constants = {"mu": w.estimate, "mu low": w.low, "mu high": w.high, "naive mu": e.naive}
    what = (
        f"estimated from {n:,} split batches in {len(e.windows)} windows: in the weakest window (steps {w.first:,} to {w.last:,}) mu = {w.estimate:.4g}, "
        f"95% interval {w.low:.4g} to {w.high:.4g} over all windows at once"
    )
    if e.shown:
        status, tail = (
            Status.NOT_FALSIFIED,
            "positive beyond chance on average over each window; an estimate, not a bound at each iterate",
        )
    else:
        status, tail = Status.INCONCLUSIVE, "there a constant of zero cannot be told from a positive one"
        if e.since >= 0:
            tail += f", while it is positive beyond chance in every window from step {e.since:,} on"
    return Finding(
        e.watch.name, "", e.watch.formula, status, Evidence.SAMPLED, f"{what}; {tail}.", e.since, constants
    )


def _noise(log: RunLog) -> tuple[Interval | None, float, float]:
    parts = parts_of(log)
    if len(parts.step) < 2:
        return None, math.nan, math.nan
    tail = slice(-max(2, min(50, len(parts.step) // 2)), None)
    level = mean_interval(parts.unbiased[tail], parts.step[tail])
    total = float(parts.unbiased.sum())
    if not total > 0:
        return level, math.inf, math.inf
    return level, float(parts.naive.sum()) / total, float(parts.per_sample.sum()) / total


def _notes(log: RunLog, totals: dict[str, Any], full_batch: bool) -> list[str]:
    notes = []
    if not full_batch:
        notes.append(
            "The gradients are those of mini-batches: slacks are those of each step's own batch, and PL is estimated from split batches, never from "
            "a batch's own ||g||^2."
        )
    if totals["skipped"]:
        notes.append(
            f"{totals['skipped']:,} steps were skipped (the scaler found infinities); they are recorded and not summed."
        )
    if totals["first_missed"] >= 0:
        notes.append(
            f"Steps were missed before step {totals['first_missed']:,}: the ledger started again there."
        )
    tracks = totals["tracks"].values()
    if totals["form"] == "sgd" and any(t.get("unmeasured") and t["checks"] for t in tracks):
        notes.append(
            "Steps at which the ledger was not compared are taken for eta times the recorded gradient, as the optimizer's rule says."
        )
    if totals.get("first_written", -1) >= 0:
        notes.append(
            f"Before step {totals['first_written']:,} something other than the optimizer wrote to the weights, between steps that the ledger does not "
            "compare. Record inner-product, distance and update at every step to see whether they changed."
        )
    if totals["first_nonfinite"] >= 0:
        notes.append(f"From step {totals['first_nonfinite']:,} on some values were not finite.")
    if log.torn:
        notes.append(f"{log.torn} line(s) of the log could not be read, as after a kill; the rest is used.")
    if log.ended is None:
        notes.append("The log has no end: the run is going on or was killed. Sums are those last written.")
    return notes
