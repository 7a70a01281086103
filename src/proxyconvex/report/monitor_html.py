"""The report of a monitored run: one self-contained HTML file in the style of the audit's report."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from ..core.evidence import Evidence
from ..monitor.log import RunLog
from ..monitor.summary import Finding, Summary, summarise
from ..monitor.words import average_of, gradient_words, noise_lines, plain_lines, run_lines
from .format import number
from .html import _environment as environment
from .html import evidence_view, figure_view
from .monitor_charts import charts


def write_monitor_report(log: RunLog | str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write the report of a log.

    Args:
        log: a log, or the folder or file of one; finished, running or killed.
        path: file to write; its folder is created. A folder gets ``report.html``.
    """
    target = Path(path)
    if target.is_dir():
        target = target / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(monitor_html(summarise(log)), encoding="utf-8", newline="\n")
    return target


def monitor_html(summary: Summary) -> str:
    """The report as a string; the same log gives the same bytes."""
    return environment().get_template("monitor.html.j2").render(context(summary))


def context(s: Summary) -> dict[str, Any]:
    """Everything the template prints, as plain strings, lists and dicts."""
    meta = s.log.header.get("meta", {})
    title = str(meta.get("title") or (s.log.path.parent.name if s.log.path else "a monitored run"))
    base: dict[str, Any] = {"title": title, "empty": not s.totals, "verdict": _verdict(s)}
    if not s.totals:
        return base
    return base | {
        "cards": _cards(s),
        "lines": [line[0].upper() + line[1:].removesuffix(".") + "." for line in map(pretty, (*run_lines(s), *plain_lines(s), *noise_lines(s)))],
        "notes": [pretty(n) for n in s.notes],
        "figures": [figure_view(c) for c in charts(s)],
        "findings": [_finding(f) for f in s.findings],
        "promises": [_promise(p) for p in s.promises],
        "why_not": s.why_not,
        "ledger": [_track(c, t) for c, t in s.totals["tracks"].items()] + _average(s),
        "form": _form(s),
        "theorems": [
            {"name": name, "rows": [{"theorem": r.theorem, "accepted": r.accepted, "reason": pretty(r.reason), "bound": number(r.bound, direction="up") if r.accepted else ""} for r in rows]}
            for name, rows in s.alternatives.items()
        ],
        "gradients": [gradient_words(g) for g in s.gradients],
        "schedules": [(k, v) for k, v in s.log.header.get("quantities", {}).items()],
        "meta": [(str(k), str(v)) for k, v in meta.items()] + [("dot products summed in", s.log.header.get("precision", ""))],
    }  # fmt: skip


_PRETTY = {
    "||": "‖", "^2": "²", "^1": "", "grad f": "∇f", "<grad, ": "⟨∇, ", "‖grad‖": "‖∇‖", "<u_t, w_t - v>": "⟨u, w − v⟩", "<d_t, w_t - v>": "⟨d, w − v⟩",
    "w - v> >=": "w − v⟩ ≥", "<grad": "⟨∇", "w - v>": "w − v⟩", ">=": "≥", "<=": "≤", "w_0": "w₀", "(mu/2)": "(μ/2)", "mu = ": "μ = ", "w - v": "w − v", "sum ": "Σ ",
}  # fmt: skip


def pretty(text: str) -> str:
    """ASCII formulas as they are printed on paper."""
    for plain, printed in _PRETTY.items():
        text = text.replace(plain, printed)
    return text


def _form(s: Summary) -> str:
    if s.totals["form"] == "update":
        return "u is the step as it was taken, whatever the optimiser"
    return "u = eta d with the gradient d that was seen (plain SGD): the update itself was not recorded"


def _verdict(s: Summary) -> dict[str, str]:
    """State, label, headline and sentence of the head of the page."""
    if not s.totals:
        return {"state": "open", "label": "Empty", "headline": "Nothing was recorded yet.", "sentence": ""}
    t = s.totals
    losses = [x for x in s.log.column("loss")[1] if math.isfinite(x)]
    went = (
        f"batch loss from {number(losses[0])} to {number(losses[-1])}" if losses else "no loss was recorded"
    )
    sentence = f"{number(t['steps'])} steps, {went}."
    broken = [c for c, track in t["tracks"].items() if track["status"] == "FALSIFIED"]
    if broken:
        return {
            "state": "bad",
            "label": "Ledger broken",
            "headline": "The record does not add up.",
            "sentence": f"{sentence} {pretty(t['tracks'][broken[0]]['sentence'])}",
        }
    if t["first_nonfinite"] >= 0:
        headline = f"The run broke down: values are not finite from step {number(t['first_nonfinite'])} on."
        return {"state": "bad", "label": "Not finite", "headline": headline, "sentence": sentence}
    going = "" if s.log.ended is not None else " The log has no end: the run is going on or was killed."
    if all(track["status"] == "HOLDS" for track in t["tracks"].values()):
        every = not any(track.get("unmeasured") for track in t["tracks"].values())
        held = [f for f in s.findings if f.evidence is Evidence.ON_TRACE and f.status.name == "HOLDS"]
        what = (
            f" {len(held)} watched condition{'s' if len(held) > 1 else ''} held at every step that recorded {'them' if len(held) > 1 else 'it'}."
            if held
            else ""
        )
        return {
            "state": "good",
            "label": "Ledger adds up",
            "headline": f"The record adds up at every step{'' if every else ' that was compared'}.",
            "sentence": f"{sentence}{what}{going}",
        }
    first = next(iter(t["tracks"].values()))
    return {
        "state": "open",
        "label": "Recorded",
        "headline": "The run is recorded.",
        "sentence": f"{sentence} {first['sentence']}{going}",
    }


def _cards(s: Summary) -> list[dict[str, str]]:
    t = s.totals
    seen = " / ".join(s.gradients)
    losses = s.log.column("loss")[1]
    cards = [
        _card("Steps", number(t["steps"]), f"{number(t['skipped'])} skipped" if t["skipped"] else "taken")
    ]
    if losses:
        cards.append(_card("Batch loss", number(losses[-1]), f"{number(losses[0])} at the start", "run"))
    if s.grad_sq is not None:
        g = s.grad_sq
        note = f"unbiased, {number(g.low, 3)} to {number(g.high, 3)} (95%), steps {number(g.first)} to {number(g.last)}"
        cards.append(_card("‖∇f‖² lately", number(g.estimate), note))
    else:
        x, y = s.log.column("grad_sq")
        if y:
            batch = (
                "of all data"
                if s.log.header.get("meta", {}).get("full_batch")
                else "of the batch, not an estimate of ‖∇f‖²"
            )
            cards.append(
                _card("‖g‖² lately", number(y[-1]), f"{seen} gradient, {batch}, step {number(x[-1])}")
            )
    for e in s.estimates[:1]:
        w = e.worst
        cards.append(
            _card(
                f"{e.watch.name}, μ",
                number(w.estimate, 3),
                f"{number(w.low, 3)} to {number(w.high, 3)} in the weakest window",
                "evidence",
            )
        )
    for c, track in list(t["tracks"].items())[:2]:
        if track["last_sq"] >= 0:
            note = f"v = {c}, {number(math.sqrt(max(track['first_sq'], 0)))} at the start"
            cards.append(_card("‖w − v‖", number(math.sqrt(track["last_sq"])), note))
    if math.isfinite(s.noise_scale):
        cards.append(_card("Noise scale", number(s.noise_scale, 3), "tr Cov of one row over ‖∇f‖²"))
    cards.append(_card("Gradient seen", seen or "none", "every number on this page", "evidence"))
    return cards


def _card(label: str, value: str, note: str = "", role: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note, "role": role}


def _finding(f: Finding) -> dict[str, Any]:
    mark = {"HOLDS": "held", "FALSIFIED": "violated", "NOT_FALSIFIED": "not violated", "INCONCLUSIVE": "open"}
    return {
        "name": f.condition,
        "comparator": f.comparator,
        "formula": pretty(f.formula),
        "state": mark[f.status.name],
        "evidence": evidence_view(f.evidence),
        "sentence": pretty(f.sentence[0].upper() + f.sentence[1:]),
        "since": number(f.since) if f.since >= 0 else "",
    }


def _promise(p: Any) -> dict[str, Any]:
    return {
        "theorem": p.theorem,
        "condition": p.condition + (f", v = {p.comparator}" if p.comparator else ""),
        "sentence": pretty(p.sentence),
        "bound": number(p.bound, direction="up"),
        "measured": number(p.measured) if math.isfinite(p.measured) else "",
        "evidence": evidence_view(p.evidence),
    }


def _average(s: Summary) -> list[dict[str, str]]:
    """The row of the average of the iterates, judged at the end of the run."""
    t = average_of(s)
    if not t:
        return []
    # One comparison, at the end: the average is not known before.
    row = {**t, "partial": False, "checks": 1}
    return [_track(f"average of {number(t['steps'])} iterates", row)]


def _track(name: str, t: dict[str, Any]) -> dict[str, str]:
    return {
        "name": name,
        "left": number(t["left"], 9),
        "right": number(t["right"], 9),
        "share": "" if t["partial"] or not t["checks"] else f"{100 * t['share']:.2g}%",
        "checks": number(t["checks"]),
        "state": {"HOLDS": "held", "FALSIFIED": "violated"}.get(t["status"], "not checked"),
        "sentence": pretty(t["sentence"]),
    }
