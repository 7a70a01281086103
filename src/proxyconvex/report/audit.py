"""The audit: every premise and the promise itself, checked on a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxyconvex_checker.decimals import show

from ..core.errors import InvalidInputError
from ..core.evidence import Status
from ..core.guarantee import Guarantee
from ..descent.ledger import trace_identity
from ..descent.trace import Trace
from ..synthesis.plan_types import Plan
from .on_trace import after_run, failed_conditions
from .premises import AuditCheck, premise_checks
from .summary import summary

__all__ = ["Audit", "AuditCheck", "audit"]

# Quantities by what is compared: the column of the trace, and how it is reduced over the run.
QUANTITIES = {
    "best-iterate-error": ("error", "min"),
    "average-error": ("error", "average"),
    "population-error": ("online", "average"),
    "final-loss": ("loss", "final"),
    "best-loss": ("loss", "min"),
    "best-slope": ("slope", "min"),
    "online-error": ("online", "average"),
    "updates": ("updates", "final"),
    "best-risk": ("risk", "min"),
    "final-risk": ("risk", "final"),
}
# Two-sided 95% quantile of Student's t for 1 .. 29 degrees of freedom is at most this table's value.
_STUDENT = {
    1: 12.71,
    2: 4.31,
    3: 3.19,
    4: 2.78,
    5: 2.58,
    6: 2.45,
    7: 2.37,
    8: 2.31,
    9: 2.27,
    14: 2.15,
    19: 2.10,
}


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """Promise beside outcome.

    Attributes:
        plan: the promise.
        trace: the first run.
        runs: all runs (several sampling seeds), the first included.
        measured: ``quantity``; ``final``, ``min`` and ``average`` of the promised quantity; ``value``, the one of the
            three that the promise bounds; ``error``, the error set beside the promised one; mean over the runs.
        checks: every premise, the trace identity and the promise itself; violated ones first.
        command: the line that reproduces this audit, if it came from the command line.
    """

    plan: Plan
    trace: Trace
    runs: tuple[Trace, ...]
    measured: dict[str, Any]
    checks: tuple[AuditCheck, ...]
    command: str = ""

    @property
    def after_run(self) -> Guarantee | None:
        """For a conditional promise whose premises held: what this run alone has shown (ON_TRACE)."""
        return after_run(self.plan, self.runs, self.checks)

    @property
    def consistent(self) -> bool:
        """Whether nothing was violated."""
        return all(check.ok for check in self.checks)

    def summary(self) -> dict[str, Any]:
        """The JSON object of ``proxyconvex audit --json``."""
        return summary(self.plan, self)

    def __repr__(self) -> str:
        from .repr import audit_text

        return audit_text(self)

    def _repr_html_(self) -> str:
        from .repr import audit_html

        return audit_html(self)


def audit(plan: Plan, trace: Trace, *more: Trace, command: str = "") -> Audit:
    """Check every premise and the promise of a plan on one or more runs of it.

    Args:
        plan: the promise.
        trace: a run of it, from `proxyconvex.run`.
        *more: further runs with other sampling seeds; a promise about the mean over runs is compared with their mean.
        command: line that reproduces this audit.

    Returns:
        The audit; ``audit.consistent`` says whether nothing was violated.

    Raises:
        InvalidInputError: if a trace is not a run of this plan.
    """
    runs = (trace, *more)
    for one in runs:
        if one.method != plan.method or one.initial.shape != plan.initial.shape:
            raise InvalidInputError(
                "trace", one, f"a run of this plan ({plan.method})", "Use proxyconvex.run(plan)."
            )
    checks: list[AuditCheck] = []
    for one in runs:
        label = f"seed {one.seed}: " if more else ""
        checks += [
            AuditCheck(c.name, c.ok, label + c.sentence, c.margin)
            for c in (*_run_checks(plan, one), *premise_checks(plan, one))
        ]
    measured = _measured(plan, runs)
    if failed_conditions(plan, checks):
        text = "not judged: a condition of the promise did not hold on this run, so it says nothing about it"
        checks.append(AuditCheck("promise", True, text, None))
    else:
        checks.append(_outcome(plan, runs, measured))
    checks = _merge(checks) if more else checks
    checks.sort(key=lambda c: c.ok)
    return Audit(plan, trace, runs, measured, tuple(checks), command)


def _merge(checks: list[AuditCheck]) -> list[AuditCheck]:
    """Of each name: every violation, else the tightest passing check."""
    out: list[AuditCheck] = []
    for name in dict.fromkeys(c.name for c in checks):
        group = [c for c in checks if c.name == name]
        failed = [c for c in group if not c.ok]
        tightest = min(group, key=lambda c: math.inf if c.margin is None else c.margin)
        out += failed or [tightest]
    return out


def _run_checks(plan: Plan, trace: Trace) -> list[AuditCheck]:
    """Checks that hold for any theorem: finite numbers, the intended start, the trace identity (T7)."""
    place = "" if trace.finite else f"; step {trace.nonfinite_step:,} is not"
    checks = [AuditCheck("finite", trace.finite, f"every recorded number is finite{place}", None)]
    if not np.array_equal(trace.initial, plan.initial):
        checks.append(
            AuditCheck("start", False, "the run did not start at the planned initial weights", None)
        )
    if trace.method.projection is None:  # with projection the identity is only an inequality
        identity = trace_identity(trace)
        checks.append(AuditCheck("trace-identity", identity.status is Status.HOLDS, identity.sentence, None))
    return checks


def _series(trace: Trace, column: str) -> dict[str, float]:
    """Final, least and average value of a quantity on one run."""
    if column == "online":
        value = trace.online_error
        return {"final": value, "min": value, "average": value}
    if (
        column == "updates"
    ):  # the slope of the hinge loss is 1 in a step that changes the weights and 0 in another
        value = trace.total("sum_slope")
        return {"final": value, "min": value, "average": value}
    if column == "risk":  # the loss is half of it
        return {k: 2 * v for k, v in _series(trace, "loss").items()}
    values = getattr(trace, column)
    # The promise speaks of w_0 .. w_{T-1}; the last record is w_T.
    inside = values[trace.step < max(trace.steps_done, 1)]
    steps = trace.step[trace.step < max(trace.steps_done, 1)]
    widths = np.diff(np.append(steps, trace.steps_done)) if trace.steps_done else np.ones(len(steps))
    least = {"error": trace.min_error, "loss": trace.min_loss}.get(column, float(np.min(inside)))
    if column in ("loss", "slope") and not trace.stochastic and trace.steps_done:
        average = trace.total(f"sum_{column}") / trace.steps_done
    elif column == "error" and not trace.stochastic and trace.steps_done:
        average = trace.total("sum_online_error") / trace.steps_done
    else:
        average = float(np.average(inside, weights=widths))
    return {"final": float(values[-1]), "min": least, "average": average}


def _measured(plan: Plan, runs: tuple[Trace, ...]) -> dict[str, Any]:
    quantity = plan.guarantee.quantity
    if quantity not in QUANTITIES:
        raise InvalidInputError("quantity", quantity, ", ".join(QUANTITIES))
    column, reduce = QUANTITIES[quantity]
    per_run = [_series(t, column) for t in runs]
    out: dict[str, Any] = {"quantity": quantity}
    out |= {k: float(np.mean([s[k] for s in per_run])) for k in ("final", "min", "average")}
    out["value"] = out[reduce]
    errors = [_series(t, "online" if column == "online" else "error")[reduce] for t in runs]
    out["error"] = float(np.mean(errors))
    if len(runs) > 1:
        out["runs"] = len(runs)
        out["per_run"] = [s[reduce] for s in per_run]
    return out


def _how(quantity: str, runs: tuple[Trace, ...]) -> str:
    """What kind of measurement stands behind a quantity that a run cannot see exactly."""
    if quantity == "population-error":
        return " (errors on rows as they came, before they were used: an estimate)"
    if quantity == "average-error" and runs[0].stochastic:
        return f" (estimated from {len(runs[0].step):,} recorded iterates)"
    return ""


def _outcome(plan: Plan, runs: tuple[Trace, ...], measured: dict[str, Any]) -> AuditCheck:
    """The promise itself. A promise in expectation is refuted only when a confidence interval lies above it."""
    g = plan.guarantee
    if not all(t.complete for t in runs):
        done = min(t.steps_done for t in runs)
        text = f"not yet due: {done:,} of {plan.method.steps:,} steps were taken; continue with --resume"
        return AuditCheck("promise", True, text, None)
    value, bound = measured["value"], g.bound
    slack = 1e-9 * max(1.0, abs(bound))
    text = f"measured {g.quantity} {value:.6g}{_how(g.quantity, runs)}, promised at most {show(bound)}"
    if g.mode == "every-run":
        worst = max(measured.get("per_run", [value]))
        return AuditCheck("promise", worst <= bound + slack, text, bound - worst)
    if len(runs) < 2:
        # One run may well lie above a mean; by Markov's inequality it is 20 times above with probability at most 5%.
        limit = 20 * bound if g.mode == "expectation" else bound
        kind = "a mean over runs" if g.mode == "expectation" else "with high probability"
        text += f" ({kind}; one run was made"
        text += ", which may lie above a mean)" if bound < value <= limit else ")"
        return AuditCheck("promise", value <= limit + slack, text, bound - value)
    values = np.array(measured["per_run"])
    freedom = len(values) - 1
    quantile = _STUDENT[max(k for k in _STUDENT if k <= freedom)]
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    text += f" (mean of {len(values)} runs, 95% confidence interval +-{half:.2g})"
    return AuditCheck("promise", value - half <= bound + slack, text, bound - value)
