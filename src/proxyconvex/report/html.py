"""The report of an audit: one self-contained HTML file, without network, fonts or plotting library."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import charts, series, tables
from .certificate import no_certificate
from .figures import Chart, render, samples
from .format import number, percent, quantity_value
from .on_trace import failed_conditions, watched_words
from .premises import last_needed
from .summary import baseline_words

if TYPE_CHECKING:
    import jinja2

    from ..core.evidence import Evidence
    from ..synthesis.plan_types import Plan
    from .audit import Audit

TEMPLATES = Path(__file__).parent / "templates"
MODES = {
    "every-run": "a promise about every single run",
    "expectation": "a promise about the mean over runs; a single run may lie above it",
    "probability": "a promise that holds with probability at least {p} over the draw of the rows",
}


def write_report(audit: Audit, path: str | os.PathLike[str]) -> Path:
    """Write the report of an audit.

    Args:
        audit: plan, trace and checks.
        path: file to write; its folder is created. A folder gets ``report.html``.

    Returns:
        The path of the file, UTF-8, typically 150 to 400 kB.
    """
    target = Path(path)
    if target.is_dir():
        target = target / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(report_html(audit), encoding="utf-8", newline="\n")
    return target


def report_html(audit: Audit) -> str:
    """The report as a string; the same audit gives the same bytes."""
    return _environment().get_template("report.html.j2").render(report_context(audit))


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["raw_asset"] = lambda name: (TEMPLATES / name).read_text(encoding="utf-8")
    return environment


def report_context(audit: Audit) -> dict[str, Any]:
    """Everything the template prints, as plain strings, lists and dicts."""
    plan, done = audit.plan, audit.trace.steps_done
    return {
        "title": f"{plan.dataset.name} · {plan.family.name}",
        "verdict": verdict_view(audit),
        "cards": _cards(audit),
        "outcomes": [figure_view(c) for c in charts.outcome_charts(audit)],
        "premises": _premises(audit),
        "checks": [_check_view(c) for c in _violations_first(audit)],
        "ledger": {
            "rows": tables.ledger_rows(audit.trace),
            "holds": plan.method.projection is None,
            "figures": [figure_view(c) for c in charts.ledger_charts(audit.trace)],
        },
        "distance": figure_view(
            charts.distance_chart(audit, horizon(audit) if horizon(audit) < done else None)
        ),
        "runs": tables.run_rows(audit),
        "alternatives": [tables.alternative_row(a, plan) for a in plan.alternatives],
        "watched": watched_view(audit),
        "constants_title": "Certified constants" if not plan.conditional else "Constants",
        "constants_text": CERTIFIED_TEXT if not plan.conditional else CONDITIONAL_TEXT,
        "data": tables.data_rows(plan),
        "model": tables.model_rows(plan),
        "constants": [
            {"name": k, "value": number(v, 8), "exact": tables.exact(v)}
            for k, v in sorted(plan.derived.items())
        ],
        "notes": [*plan.notes, *filter(None, [no_certificate(plan)])],
        "command": audit.command,
        "references": [{"text": r.text, "url": tables.safe_url(r.url)} for r in tables.references(plan)],
    }


CERTIFIED_TEXT = (
    "Computed with outward rounding, each rounded to the side on which the promise stays true. The last column is the exact "
    "floating-point number."
)
CONDITIONAL_TEXT = "What the promise asks of the run, as planned. Nothing here is certified about the network away from its start."


def watched_view(audit: Audit) -> dict[str, Any] | None:
    """Tangent margins, or the least eigenvalue of the tangent kernel, at the iterates where they were looked at."""
    seen = audit.trace.watched
    if not seen:
        return None
    words = watched_words(seen)
    rows = [[number(int(t)), *(number(float(seen[k][i])) for k in words)] for i, t in enumerate(seen["step"])]
    return {"head": ["step", *words.values()], "rows": rows}


def figure_view(chart: Chart) -> dict[str, Any]:
    """A rendered figure with its caption and table."""
    table = samples(chart)
    return {
        "key": chart.key,
        "title": chart.title,
        "summary": chart.summary,
        "svg": render(chart),
        "head": table[0] if table else [],
        "rows": table[1:],
    }


def failures(audit: Audit) -> list[dict[str, str]]:
    """What failed, as name and sentence.

    Failing checks; and a measured value above a promise about every run, even if no check says so.
    """
    found = [{"name": c.name, "sentence": c.sentence} for c in audit.checks if not c.ok]
    bound, measured, is_error = compared(audit)
    due = audit.plan.guarantee.mode == "every-run" and audit.trace.steps_done >= audit.plan.method.steps
    # The audit's own allowance: far more than the rounding of a mean, far less than a reader could notice.
    if not found and due and measured > bound + 1e-9 * max(1.0, abs(bound)):
        texts = quantity_value(measured, is_error), quantity_value(bound, is_error, "up")
        found.append({"name": "bound", "sentence": f"measured {texts[0]}, above the promised {texts[1]}."})
    return found


def _violations_first(audit: Audit) -> list:
    return sorted(audit.checks, key=lambda c: c.ok)


def verdict_view(audit: Audit) -> dict[str, Any]:
    """The verdict: ``state`` is ``"bad"``, ``"open"`` (not judged, or nothing promised) or ``"good"``."""
    g, trace, steps = audit.plan.guarantee, audit.trace, audit.plan.method.steps
    done = int(trace.steps_done)
    failed = failures(audit)
    interrupted = trace.interrupted or done < steps
    unmet = failed_conditions(audit.plan, audit.checks)
    after = audit.after_run
    if failed:
        what = "1 check failed" if len(failed) == 1 else f"{len(failed)} checks failed"
        state, headline = "bad", f"The promise was not kept: {what}."
        if unmet and len(unmet) == len(failed):
            headline = (
                "A condition of the promise did not hold on this run: the promise says nothing about it."
            )
    elif interrupted:
        state = "open"
        headline = f"The run stopped after {number(done)} of {number(steps)} steps: not judged yet."
        if not trace.finite:
            headline = f"The run broke down: its numbers are not finite from step {number(done)} on."
    elif g.vacuous:
        state, headline = "open", "Nothing was violated, but this promise says nothing: the bound is vacuous."
    elif audit.plan.conditional:
        state, headline = "good", "Every condition held on this run, and what follows from them was kept."
    elif g.mode == "every-run":
        state, headline = "good", "The promise was kept."
    else:
        # One run, or a few, cannot establish a statement about a mean or a probability.
        what = "These runs agree" if len(audit.runs) > 1 else "This run agrees"
        state, headline = "good", f"{what} with the promise."
    bound, measured, is_error = compared(audit)
    good = "Kept" if g.mode == "every-run" else "Consistent"
    return {
        "state": state,
        "label": {"bad": "Violated", "open": "Open", "good": good}[state],
        "headline": headline,
        "sentence": g.sentence,
        "failures": failed,
        "gauge": charts.gauge(
            bound, measured, is_error=is_error, violated=state == "bad" and measured > bound
        ),
        "mode": mode_text(audit.plan),
        "evidence": evidence_view(g.evidence),
        "theorem": g.theorem,
        "after": None
        if after is None
        else {"sentence": after.sentence, "evidence": evidence_view(after.evidence)},
    }


def mode_text(plan: Plan) -> str:
    """What kind of promise it is: about every run, the mean over runs, or with a probability."""
    g = plan.guarantee
    return MODES.get(g.mode, g.mode).format(p=percent(g.probability, 6, "down"))


def evidence_view(evidence: Evidence) -> dict[str, str]:
    """A badge: its label, CSS class and meaning."""
    return {
        "label": evidence.name.replace("_", " "),
        "role": evidence.name.lower().replace("_", "-"),
        "sentence": evidence.sentence,
    }


def compared(audit: Audit) -> tuple[float, float, bool]:
    """``(promised, measured, whether they are errors)``: the two numbers that are set side by side."""
    g = audit.plan.guarantee
    _, name, reduce = series.describe_quantity(g.quantity)
    reduced = audit.measured.get({"min": "min", "mean": "average", "last": "final"}[reduce])
    measured = audit.measured.get("value", reduced)
    bound = g.error_bound if name == "error" and g.error_bound is not None else g.bound
    return float(bound), math.nan if measured is None else float(measured), name == "error"


def _cards(audit: Audit) -> list[dict[str, str]]:
    plan, g = audit.plan, audit.plan.guarantee
    bound, measured, is_error = compared(audit)
    label, _, _ = series.describe_quantity(g.quantity)
    cards = []
    if g.error_bound is not None:
        small = label if is_error else "implied by the promised quantity"
        cards.append(_card("Promised error", f"≤ {percent(g.error_bound, direction='up')}", small, "promise"))
        cards.append(_card("Measured error", percent(audit.measured.get("error")), _error_note(audit), "run"))
    if not is_error:
        cards.append(_card("Promised quantity", f"≤ {number(bound, direction='up')}", label, "promise"))
        cards.append(_card("Measured", number(measured), label, "run"))
    if g.baseline is not None:
        words = baseline_words(plan).capitalize()
        unit = "mean squared error" if "risk" in g.quantity else "loss"
        cards.append(_card(words, number(g.baseline), f"its {unit}: what no training reaches"))
    done = int(audit.trace.steps_done)
    kept = (
        number(plan.method.steps)
        if done == plan.method.steps
        else f"{number(done)} of {number(plan.method.steps)}"
    )
    step = plan.method.step
    size, note = (step.eta, "constant") if hasattr(step, "eta") else (step.c, "normalised by the mean slope")
    if hasattr(step, "power"):
        note = "decaying"
    cards += [
        _card("Theorem", g.theorem, mode_text(plan)),
        _card("Evidence", g.evidence.name.replace("_", " "), g.evidence.sentence, "evidence"),
        _card("Steps", kept, plan.method.name),
        _card("Step size", number(size), note),
    ]
    return cards


def _error_note(audit: Audit) -> str:
    _, name, reduce = series.describe_quantity(audit.plan.guarantee.quantity)
    if len(audit.runs) > 1:
        return f"mean of {len(audit.runs)} runs"
    if name != "error":
        return "training error of this run"
    return {"min": "best iterate of this run", "mean": "average over this run", "last": "last iterate"}[
        reduce
    ]


def _card(label: str, value: str, note: str = "", role: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note, "role": role}


def horizon(audit: Audit) -> int:
    """Last step of the run that the premises speak of, as the audit judges it."""
    return int(last_needed(audit.plan, audit.trace)[0]) if len(audit.trace.step) else 0


def _premises(audit: Audit) -> list[dict[str, Any]]:
    g = audit.plan.guarantee
    checks = {c.name: c for c in reversed(audit.checks)}  # of several with one name, the first (a failure)
    out = []
    for k, p in enumerate(g.premises):
        slack = series.premise_slack(p, g, audit.trace, horizon(audit))
        check = checks.get(p.name) or checks.get(series.SHOWN_BY.get(p.name, ""))
        view: dict[str, Any] = {
            "name": p.name,
            "statement": p.statement,
            "evidence": evidence_view(p.evidence),
            "reference": {"text": p.reference.text, "url": tables.safe_url(p.reference.url)},
            "value": None if p.value is None else number(p.value, 6),
            "check": None if check is None else _check_view(check),
            "figure": None,
            "slack": None,
        }
        if slack is not None:
            ok = slack.least >= 0 if check is None else check.ok
            view["figure"] = figure_view(charts.slack_chart(f"premise-{k}", p.name, slack, ok=ok))
            view["slack"] = {
                "formula": slack.formula,
                "least": number(slack.least, direction="down"),
                "where": None if slack.where is None else number(slack.where),
                "scope": slack.scope,
                "ok": ok,
            }
        out.append(view)
    return out


def _check_view(check: Any) -> dict[str, Any]:
    margin = None if check.margin is None else number(check.margin, direction="down")
    return {"name": check.name, "ok": bool(check.ok), "sentence": check.sentence, "margin": margin}
