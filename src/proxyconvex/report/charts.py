"""Which figures a report shows, built from an audit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .figures import Chart, Dot, Level, Series
from .format import number, percent, quantity_value
from .series import (
    LedgerCurves,
    Slack,
    column,
    describe_quantity,
    distances,
    ledger_curves,
    progress,
    promise_curve,
    region_radius,
    steps,
)
from .summary import baseline_words

if TYPE_CHECKING:
    from ..core.guarantee import Guarantee
    from ..descent.trace import Trace
    from .audit import Audit

MOST_RUNS_DRAWN = 24
_SO_FAR = {"min": "best so far", "mean": "average so far", "last": "at this step"}


def outcome_charts(audit: Audit) -> list[Chart]:
    """Promise against outcome: the training error, then the loss and its slope, over steps."""
    g = audit.plan.guarantee
    _, name, _ = describe_quantity(g.quantity)
    # The error of a regression is its squared error: the promised quantity or the loss shows it.
    charts = [] if g.baseline is not None and g.error_bound is None else [_error_chart(audit)]
    if name != "error":
        charts.append(_promised_quantity_chart(audit, name))
    charts.append(_loss_chart(audit, with_loss=name != "loss", with_slope=name != "slope"))
    return [c for c in charts if c.series]


def _error_chart(audit: Audit) -> Chart:
    trace, g = audit.trace, audit.plan.guarantee
    _, name, reduce = describe_quantity(g.quantity)
    x, error = steps(trace), column(trace, "error")
    series = _other_runs(audit, "error")
    series.append(Series("training error at this step", x, error, "second" if reduce != "last" else "run"))
    if name == "error" and reduce != "last":
        series.append(Series(f"training error, {_SO_FAR[reduce]}", x, progress(trace, g.quantity), "run"))
    levels, promised = (), "no bound on the error is promised"
    if g.error_bound is not None:
        most = percent(g.error_bound, direction="up")
        levels = (Level(f"promised: at most {most}", g.error_bound, shade="below"),)
        promised = f"the promise is at most {most} {_when(g, audit.plan.method.steps)}"
    if g.quantity == "population-error":
        promised += " on fresh rows, which a training run cannot measure: drawn is the error on these rows"
    return Chart(
        key="error",
        title="Training error over steps",
        summary=f"Training error at the recorded steps; {promised}. {_smallest(trace)}",
        y_label="training error",
        series=tuple(series),
        levels=levels,
        dots=_first_zero(trace),
        x_scale="auto",
        y_scale="auto",
        as_percent=True,
    )


def _promised_quantity_chart(audit: Audit, name: str) -> Chart:
    """The promised quantity itself, where that is not an error."""
    trace, g, method = audit.trace, audit.plan.guarantee, audit.plan.method
    label, _, reduce = describe_quantity(g.quantity)
    x, values = steps(trace), column(trace, name)
    series = _other_runs(audit, name)
    if reduce != "last":
        series.append(Series(f"{name} at this step", x, values, "second"))
    series.append(Series(f"{name}, {_SO_FAR[reduce]}", x, progress(trace, g.quantity), "run"))
    curve = promise_curve(g, method, x)
    if curve is not None:
        # At the first steps the curve is far above everything measured and would squeeze the rest.
        ceiling = 30 * np.nanmax(np.where(np.isfinite(values), values, -np.inf), initial=abs(g.bound))
        shown = np.where(curve <= ceiling, curve, np.nan)
        series.append(Series("promised after this many steps", x, shown, "promise"))
    levels = [Level(f"promised: at most {number(g.bound, direction='up')}", g.bound, shade="below")]
    if g.baseline is not None:
        levels.append(Level(f"{baseline_words(audit.plan)}: {number(g.baseline)}", g.baseline))
    return Chart(
        key="quantity",
        title=f"The promised quantity: {label}",
        summary=f"Measured {label} against the promise of at most {number(g.bound, direction='up')} "
        f"{_when(g, method.steps)}.",
        y_label=name,
        series=tuple(series),
        levels=tuple(levels),
        x_scale="auto",
        y_scale="auto",
    )


def _loss_chart(audit: Audit, *, with_loss: bool, with_slope: bool) -> Chart:
    trace = audit.trace
    x = steps(trace)
    wanted = [("training loss", "loss", "run")] if with_loss else []
    wanted += [("mean slope of the loss", "slope", "second")] if with_slope else []
    series = [Series(label, x, column(trace, name), role) for label, name, role in wanted]
    return Chart(
        key="loss",
        title="Loss and its slope over steps"
        if len(wanted) > 1
        else f"{wanted[0][0].capitalize()} over steps",
        summary="The training loss and the mean of |ℓ′| at the recorded steps, on the full data.",
        y_label="loss, slope" if len(series) > 1 else wanted[0][1],
        series=tuple(s for s in series if np.isfinite(s.y).any()),
        x_scale="auto",
        y_scale="auto",
    )


def _other_runs(audit: Audit, name: str) -> list[Series]:
    """The other seeds, drawn faintly behind the run in the foreground."""
    others = [t for t in audit.runs if t is not audit.trace][:MOST_RUNS_DRAWN]
    read = distances if name == "distance" else lambda t: column(t, name)
    return [Series("other seeds", steps(t), read(t), "faint") for t in others]


def _when(guarantee: Guarantee, count: int) -> str:
    _, _, reduce = describe_quantity(guarantee.quantity)
    words = {"min": "for the best iterate within", "mean": "on average over", "last": "after"}
    return f"{words[reduce]} {number(count)} steps"


def _smallest(trace: Trace) -> str:
    if not math.isfinite(trace.min_error):
        return "No error was recorded."
    return (
        f"The smallest error seen is {percent(trace.min_error)}, at step {number(int(trace.min_error_step))}."
    )


def _first_zero(trace: Trace) -> tuple[Dot, ...]:
    at = int(trace.min_error_step)
    return (Dot(f"no errors at step {number(at)}", float(at), 0.0),) if trace.min_error == 0 else ()


def slack_chart(key: str, premise: str, slack: Slack, *, ok: bool) -> Chart:
    """A premise's slack along the run; ``ok`` is the audit's judgement, which sets the colour.

    A negative slack is not always a violation: a region may be left once the promise has been reached (T5).
    """
    role = "good" if ok else "bad"
    least = number(slack.least, direction="down")
    at = f"smallest {slack.scope}" + ("" if slack.where is None else f", at step {number(slack.where)}")
    return Chart(
        key=key,
        title=f"Slack of {premise}",
        summary=f"{slack.formula}: at least zero where the premise holds; {least} is the {at}.",
        y_label="slack",
        series=(Series("slack", slack.x, slack.y, role),),
        mark=until_mark(slack.last),
        dots=()
        if slack.where is None or not slack.on_curve
        else (Dot("", float(slack.where), slack.least, role),),
        x_scale="auto",
        y_scale="auto",
        signed=True,
        size="small",
    )


def until_mark(last: int | None) -> Dot | None:
    """Marks the last step that the premises speak of."""
    return None if last is None else Dot("needed up to here", float(last), 0.0, "second")


def ledger_charts(trace: Trace) -> list[Chart]:
    """Both sides of T7 over steps, and their difference relative to the sum of absolute terms."""
    curves = ledger_curves(trace)
    if curves is None:
        return []
    return [
        Chart(
            key="ledger",
            title="Both sides of the ledger",
            summary="The two sides of the identity over steps; in exact arithmetic the curves coincide.",
            y_label="both sides",
            series=(
                Series("Σ η ⟨d, w − v⟩", curves.x, curves.left, "run"),
                Series("½(‖w₀ − v‖² − ‖w − v‖² + Σ η² ‖d‖²)", curves.x, curves.right, "promise", dashed=True),
            ),
            x_scale="auto",
            y_scale="linear",
            size="half",
        ),
        Chart(
            key="residual",
            title="What is left over",
            summary="The gap between the two sides, relative to the sum of the absolute terms.",
            y_label="relative residual",
            series=(
                Series(
                    "gap, largest so far",
                    curves.x,
                    _so_far(np.abs(curves.left - curves.right), curves),
                    "run",
                ),
                Series(
                    "what rounding allows", curves.x, _so_far(curves.allowed, curves), "promise", dashed=True
                ),
            ),
            x_scale="auto",
            y_scale="log",
            size="half",
        ),
    ]


def _so_far(gap: np.ndarray, curves: LedgerCurves) -> np.ndarray:
    """Largest ``gap`` so far relative to the sum of absolute terms; NaN where exactly zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        worst = np.fmax.accumulate(gap / curves.absolute)
    return np.where(worst > 0, worst, np.nan)


def distance_chart(audit: Audit, last: int | None) -> Chart:
    """Distance of the weights to the comparator, with the boundary of the region where there is one.

    ``last`` is the last step at which the weights have to be inside it, None for the end of the run.
    """
    trace, g = audit.trace, audit.plan.guarantee
    x, distance = steps(trace), distances(trace)
    radius = region_radius(g)
    levels = ()
    if math.isfinite(radius):
        text = f"the ball of radius {number(radius, direction='up')}"
        levels = (Level(f"boundary of {text}", radius, shade="below"),)
    return Chart(
        key="distance",
        title="Distance to the comparator",
        summary="How far the weights are from v." + (f" The premises speak of {text}." if levels else ""),
        y_label="‖w − v‖",
        series=(*_other_runs(audit, "distance"), Series("‖w − v‖", x, distance, "run")),
        levels=levels,
        mark=until_mark(last) if levels else None,
        x_scale="auto",
        y_scale="linear",
    )


def gauge(bound: float, measured: float, *, is_error: bool, violated: bool) -> str:
    """One bar that sets the measured value beside the promised one, drawn on a scale from zero (SVG)."""
    if not (math.isfinite(bound) and math.isfinite(measured)) or bound <= 0 or measured < 0:
        return ""
    top = 1.15 * max(bound, measured)
    at = [16 + 608 * v / top for v in (bound, measured)]
    texts = [quantity_value(v, is_error, d) for v, d in ((bound, "up"), (measured, "nearest"))]
    anchors = ["start" if p < 120 else "end" if p > 520 else "middle" for p in at]
    role = "bad" if violated else "run"
    return (
        '<svg class="gauge" viewBox="0 0 640 84" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'aria-label="promised at most {texts[0]}, measured {texts[1]}">'
        f'<rect class="track" x="16" y="36" width="608" height="12" rx="6"/>'
        f'<rect class="promised" x="16" y="36" width="{at[0] - 16:.1f}" height="12" rx="6"/>'
        f'<path class="mark" d="M{at[0]:.1f} 28v28"/>'
        f'<text class="note promise" x="{at[0]:.1f}" y="20" text-anchor="{anchors[0]}">'
        f"promised ≤ {texts[0]}</text>"
        f'<circle class="dot {role}" cx="{at[1]:.1f}" cy="42" r="9"/>'
        f'<text class="note {role}" x="{at[1] - (9 if anchors[1] == "start" else 0):.1f}" y="76" '
        f'text-anchor="{anchors[1]}">measured {texts[1]}</text></svg>'
    )
