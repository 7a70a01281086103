"""How audits show themselves: aligned text in terminals, a small HTML fragment in notebooks."""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING

from .format import number, percent, quantity_value
from .html import compared, evidence_view, failures, mode_text, verdict_view
from .series import describe_quantity
from .summary import method_line

if TYPE_CHECKING:
    from ..synthesis.plan_types import Plan
    from .audit import Audit

WIDTH = 100
_COLOURS = {"good": "#1a8f5c", "bad": "#d33a2f", "open": "#a87900"}


def audit_text(audit: Audit) -> str:
    """An audit as aligned plain text; violations come first."""
    view = verdict_view(audit)
    rows = [("VIOLATED", f"{f['name']}: {f['sentence']}") for f in failures(audit)]
    rows.append(("verdict", view["headline"]))
    rows.append(("measured", _measured(audit, plain=True)))
    rows += _plan_rows(audit.plan)
    rows += [("held", f"{c.name}: {c.sentence}{_margin(c, plain=True)}") for c in audit.checks if c.ok]
    if audit.command:
        rows.append(("command", audit.command))
    return _align(f"Audit: {_title(audit.plan)}", rows)


def audit_html(audit: Audit) -> str:
    """An audit as an HTML fragment for notebooks; violations come first."""
    view = verdict_view(audit)
    rows = [(f'<span style="color:{_COLOURS["bad"]}">Violated</span>', _failure(f)) for f in failures(audit)]
    rows += [
        ("Promise", escape(_bound(audit.plan, plain=False))),
        ("Measured", escape(_measured(audit, plain=False))),
        (
            "Evidence",
            f"{_badge(audit.plan.guarantee.evidence)} {escape(audit.plan.guarantee.evidence.sentence)}",
        ),
        ("Method", escape(method_line(audit.plan.method))),
    ]
    rows += [
        ("Held", f"<b>{escape(c.name)}</b> {escape(c.sentence)}{_margin(c)}") for c in audit.checks if c.ok
    ]
    headline = f"{view['headline']} {audit.plan.guarantee.sentence}"
    return _box(view["state"], f"Audit: {_title(audit.plan)}", headline, rows, audit.plan.notes)


def _title(plan: Plan) -> str:
    n, d = plan.features.shape
    return f"{plan.family.name} on {plan.dataset.name} ({n} rows, {d} features)"


def _plan_rows(plan: Plan) -> list[tuple[str, str]]:
    g = plan.guarantee
    rows = [
        ("promise", g.sentence + (" This bound is vacuous." if g.vacuous else "")),
        ("bound", _bound(plan, plain=True)),
        ("theorem", f"{g.theorem}, {mode_text(plan)}"),
        ("evidence", f"{g.evidence.name}: {g.evidence.sentence}"),
        ("method", method_line(plan.method)),
    ]
    longest = max((len(p.evidence.name) for p in g.premises), default=0)
    rows += [("premise", f"{p.evidence.name:<{longest}}  {p.name}: {p.statement}") for p in g.premises]
    return rows + [("note", note) for note in plan.notes]


def _bound(plan: Plan, *, plain: bool) -> str:
    g = plan.guarantee
    label, name, _ = describe_quantity(g.quantity)
    text = f"{label} {'<=' if plain else '≤'} {quantity_value(g.bound, name == 'error', 'up', plain=plain)}"
    if name != "error" and g.error_bound is not None:
        text += f", so error {'<=' if plain else '≤'} {percent(g.error_bound, direction='up', plain=plain)}"
    return text


def _measured(audit: Audit, *, plain: bool) -> str:
    _, value, is_error = compared(audit)
    label, _, _ = describe_quantity(audit.plan.guarantee.quantity)
    text = f"{label} {quantity_value(value, is_error, plain=plain)}"
    if not is_error and audit.plan.dataset.task != "regression":
        text += f", error {percent(audit.measured.get('error'), plain=plain)}"
    return text + (f" ({len(audit.runs)} runs)" if len(audit.runs) > 1 else "")


def _margin(check: object, *, plain: bool = False) -> str:
    margin = check.margin  # type: ignore[attr-defined]
    return "" if margin is None else f" (margin {number(margin, direction='down', plain=plain)})"


def _align(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    lines, previous = [title], ""
    for name, text in rows:
        head = "" if name == previous and name != "VIOLATED" else name
        previous = name
        indent = " " * (width + 4)
        wrapped = textwrap.wrap(
            " ".join(text.split()) if name != "premise" else text, WIDTH - len(indent)
        ) or [""]
        lines.append(f"  {head:<{width}}  {wrapped[0]}")
        lines += [indent + more for more in wrapped[1:]]
    return "\n".join(lines)


def _failure(failed: dict[str, str]) -> str:
    return f"<b>{escape(failed['name'])}</b> {escape(failed['sentence'])}"


def _badge(evidence: object) -> str:
    view = evidence_view(evidence)  # type: ignore[arg-type]
    colour = {"proved": "good", "certified": "good"}.get(view["role"], "open")
    style = "border:1px solid;border-radius:4px;padding:0 5px;font-size:.75em;font-weight:700"
    return f'<span style="{style};color:{_COLOURS[colour]}">{view["label"]}</span>'


def _box(state: str, title: str, headline: str, rows: list[tuple[str, str]], notes: tuple[str, ...]) -> str:
    """Rows hold HTML that is already escaped; title, headline and notes are escaped here."""
    body = "".join(
        f'<tr><th style="text-align:left;vertical-align:top;white-space:nowrap">{k}</th>'
        f'<td style="text-align:left">{v}</td></tr>'
        for k, v in rows
    )
    said = "".join(f'<div style="opacity:.75">{escape(n)}</div>' for n in notes)
    return (
        f'<div style="border-left:5px solid {_COLOURS[state]};padding:4px 0 4px 14px;max-width:60em">'
        f'<div style="opacity:.75">{escape(title)}</div>'
        f'<div style="font-size:1.15em;font-weight:600;margin:2px 0 6px">{escape(headline)}</div>'
        f'<table style="margin:0 0 6px">{body}</table>{said}</div>'
    )
