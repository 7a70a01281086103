"""Conditional promises after the run: which premises held on it, and what follows for it alone (ON_TRACE)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..core.evidence import Evidence
from ..core.guarantee import Guarantee
from ..descent.trace import Trace
from ..synthesis.plan_types import Plan
from .checks import TOLERANCE, AuditCheck


def reached(plan: Plan, trace: Trace) -> int:
    """First step with fewer than k errors (T8), else the number of steps taken: what comes later needs no premise."""
    hit = (
        trace.first_step_with_error(plan.guarantee.bound * (1 + TOLERANCE))
        if plan.guarantee.theorem == "T8"
        else None
    )
    return trace.steps_done if hit is None else hit[0]


def progress(plan: Plan, trace: Trace) -> AuditCheck:
    """T8: ``(||w_0 - V||^2 - ||w_t - V||^2) / t`` at the first step t with few errors is at least the planned rate."""
    stop, rate = reached(plan, trace), plan.derived["rate"]
    if stop == 0:
        return AuditCheck(
            "progress", True, "the initial weights already make few enough errors; no step was needed", None
        )
    k = int(np.searchsorted(trace.step, stop))
    mean = float(trace.dist_sq[0] - trace.dist_sq[k]) / stop
    text = f"over the {stop:,} steps before there were few errors, ||w - V||^2 fell by {mean:.6g} a step on average, planned at least {rate:.6g}"
    return AuditCheck("progress", mean >= rate * (1 - TOLERANCE), text, mean - rate)


def comparator_loss(plan: Plan, trace: Trace) -> AuditCheck:
    """T4: the average of ``h(V; w_t)`` over the steps is at most the planned h."""
    limit = plan.derived["h"]
    mean = trace.total("sum_h") / max(1, trace.steps_done)
    text = f"the tangent loss of V was {mean:.6g} on average over the run, planned at most {limit:.6g}"
    return AuditCheck("comparator-loss", mean <= limit * (1 + TOLERANCE), text, limit - mean)


def sufficient_decrease(plan: Plan, trace: Trace) -> AuditCheck:
    """``f_0 - f_T >= (eta/2) sum ||grad f_t||^2``, and (T4) the last loss is no larger than the average of ``f_1 .. f_T``."""
    first, last = float(trace.loss[0]), float(trace.loss[-1])
    spent = trace.total("sum_eta2_grad_sq") / (2 * plan.derived["eta"])
    slack = first - last - spent
    ok = slack >= -TOLERANCE * max(first, 1e-300)
    text = f"the loss fell by {first - last:.6g} in all, and (eta/2) sum ||grad f||^2 is {spent:.6g}"
    if plan.guarantee.theorem == "T4":
        average = (trace.total("sum_loss") - first + last) / max(1, trace.steps_done)
        ok = ok and last <= average * (1 + TOLERANCE)
        text += f"; it ended at {last:.6g}, its average over the run is {average:.6g}"
    return AuditCheck("sufficient-decrease", bool(ok), text, slack)


def proxy_pl(plan: Plan, trace: Trace) -> AuditCheck:
    """``||grad f_t|| >= gamma (mean |loss'| - xi)`` at every step."""
    gamma, xi = plan.derived["gamma"], plan.derived["xi"]
    inside = np.isfinite(trace.grad_sq) & (trace.step < max(1, trace.steps_done))
    norm, slope = np.sqrt(trace.grad_sq[inside]), trace.slope[inside]
    slack = norm - gamma * (slope - xi)
    k = int(np.argmin(slack))
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = (
            float(np.nanmin(np.where(slope > xi, norm / (slope - xi), np.nan)))
            if np.any(slope > xi)
            else math.inf
        )
    text = (
        f"||grad f|| / (mean|loss'| - xi) was at least {seen:.6g} at every step, planned at least gamma = {gamma:.6g} (least slack "
        f"{slack[k]:.4g}, step {int(trace.step[inside][k]):,})"
    )
    return AuditCheck("proxy-pl", bool(np.all(slack >= -TOLERANCE * norm)), text, float(slack[k]))


def tangent_margins(plan: Plan, trace: Trace) -> AuditCheck | None:
    """The tangent margins along the run, where they were looked at; a measurement, which nothing above depends on."""
    seen = trace.watched
    if not seen:
        return None
    parts = []
    for key, words in watched_words(seen).items():
        if len(seen[key]):
            least, at = float(np.min(seen[key])), int(seen["step"][int(np.argmin(seen[key]))])
            parts.append(f"{words} at least {least:.4g} (step {at:,}; {float(seen[key][0]):.4g} at w_0)")
    text = f"at {len(seen['step'])} iterates of the run: " + "; ".join(parts)
    return AuditCheck("tangent-margin", True, text, None)


WATCHED = {
    "margin_all": "tangent margin of all hidden layers",
    "margin_last": "tangent margin of the last hidden layer",
    "lambda_min": "least eigenvalue of the tangent kernel",
}


def watched_words(seen: Mapping[str, object]) -> dict[str, str]:
    """What was looked at along the run, by key, in words; several classes come with one margin each."""
    classes = {
        k: f"that of class {k.removeprefix('margin_class_')}" for k in seen if k.startswith("margin_class_")
    }
    return {k: words for k, words in {**WATCHED, **classes}.items() if k in seen}


CHECKS: dict[str, tuple[Callable[[Plan, Trace], AuditCheck | None], ...]] = {
    "T8": (progress, tangent_margins),
    "T4": (comparator_loss, sufficient_decrease, tangent_margins),
    "T1": (proxy_pl, sufficient_decrease, tangent_margins),
}


def after_run(plan: Plan, runs: tuple[Trace, ...], checks: Iterable[AuditCheck]) -> Guarantee | None:
    """The guarantee of a conditional plan on this run, its assumed premises replaced by what was measured.

    Returns:
        None for a plan that is not conditional, an unfinished run, or one on which a premise failed.
    """
    by_name = {c.name: c for c in reversed(list(checks))}
    if not plan.conditional or not all(t.complete and t.finite for t in runs):
        return None
    premises = []
    for p in plan.guarantee.premises:
        if p.evidence is not Evidence.ASSUMED:
            premises.append(p)
            continue
        check = by_name.get(p.name)
        if check is None or not check.ok:
            return None
        premises.append(replace(p, evidence=Evidence.ON_TRACE, statement=f"On this run: {check.sentence}."))
    consequence = plan.consequence
    sentence = f"On this run, and only on this run, every assumption was seen to hold, so {consequence}. Another run may differ."
    return replace(plan.guarantee, premises=tuple(premises), sentence=sentence)


def failed_conditions(plan: Plan, checks: Iterable[AuditCheck]) -> list[AuditCheck]:
    """Assumed premises that did not hold on the run: then the promise says nothing about it."""
    assumed = {p.name for p in plan.guarantee.premises if p.evidence is Evidence.ASSUMED}
    return [c for c in checks if plan.conditional and c.name in assumed and not c.ok]
