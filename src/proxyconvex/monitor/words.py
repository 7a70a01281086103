"""A summary as plain text for a terminal."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from .conditions import watches_of

if TYPE_CHECKING:
    from .summary import Summary

WIDTH = 110
GRADIENT_WORDS = {
    "raw": "as computed, before any clipping",
    "clipped": "after clipping",
    "accumulated": "summed over accumulation parts",
    "rank-local": "of one rank only",
    "global": "over all ranks",
}


def gradient_words(kind: str) -> str:
    """What a kind of gradient means, for people."""
    return f"{kind} ({', '.join(GRADIENT_WORDS[k] for k in kind.split('+'))})"


def _wrap(text: str, first: str = "  - ") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False
    )


def average_of(s: Summary) -> dict[str, Any]:
    """What the last line of the log says of the average of the iterates; empty if that was no comparator or the run has not ended."""
    return (s.log.ended or {}).get("average") or {}


def run_lines(s: Summary) -> list[str]:
    """Steps, loss, gradient, distances."""
    t, log = s.totals, s.log
    end = "running or killed" if log.ended is None else log.ended["reason"]
    losses = log.column("loss")[1]
    lines = [f"{t['steps']:,} steps taken ({end})" + (f", {t['skipped']:,} skipped" if t["skipped"] else "")]
    if losses:
        lines.append(f"batch loss {losses[0]:.4g} at the start, {losses[-1]:.4g} at the end")
    lines.append("gradient seen: " + "; ".join(gradient_words(g) for g in s.gradients))
    for c, track in t["tracks"].items():
        if track["first_sq"] >= 0:
            lines.append(
                f"||w - v|| for v = {c}: {math.sqrt(track['first_sq']):.4g} at step {track['since']:,}, "
                f"{math.sqrt(max(track['last_sq'], 0)):.4g} at the last one recorded"
            )
    average = average_of(s)
    if average:
        lines.append(
            f"||w - v|| for v = the average of {average['steps']:,} iterates: {math.sqrt(max(average['dist0_sq'], 0)):.4g} at the start, "
            f"{math.sqrt(max(average['distT_sq'], 0)):.4g} at the end"
        )
    return lines


def plain_lines(s: Summary) -> list[str]:
    """What it means, without a formula."""
    t = s.totals
    lines = []
    g_of = lambda name: watches_of(s.log.header)[name].g  # noqa: E731 - a name for a look-up
    for c, track in t["tracks"].items():
        if track["status"] == "HOLDS":
            rest = ": nothing else moved them."
            if track.get("unmeasured"):
                rest = f" at the {track['checks']:,} steps that were compared."
            lines.append(
                f"Measured against v = {c}, the recorded steps explain where the weights went, to rounding{rest}"
            )
        elif track["status"] == "FALSIFIED":
            lines.append(
                f"Measured against v = {c}, the recorded steps do not explain where the weights went: something else moved them, or the record is wrong."
            )
    for p in s.promises:
        if p.theorem == "T7":
            over = "on this run" if p.sentence.startswith("Over all") else "over the steps that recorded it"
            lines.append(
                f"{p.condition}: compared with v = {p.comparator}, no constant assumed, the average of {g_of(p.condition)} could not exceed {p.bound:.4g} {over}; it was {p.measured:.4g}."
            )
    for e in s.estimates:
        what = f"{e.watch.name}: on average over each stretch of the run the gradient was large enough for the {e.watch.g} to go down at a rate"
        if e.shown:
            lines.append(
                f"{what}; the constant was at least {min(w.low for w in e.windows):.3g} with 95% confidence."
            )
        elif e.since >= 0:
            lines.append(f"{what} from step {e.since:,} on; before that, noise hides it.")
        else:
            lines.append(
                f"{e.watch.name}: in part of the run, among it the end, the gradient cannot be told from zero beside its noise, so no rate is shown."
            )
    return lines


def noise_lines(s: Summary) -> list[str]:
    """What the split batches say about the gradient."""
    if s.grad_sq is None:
        return []
    g = s.grad_sq
    lines = [
        f"||grad f||^2 averaged over steps {g.first:,} to {g.last:,}: {g.estimate:.4g}, 95% interval {g.low:.4g} to {g.high:.4g} (unbiased, from split batches)"
    ]
    if math.isfinite(s.inflation):
        lines.append(
            f"the batches' own ||g||^2 was {s.inflation:.3g} times as large on average; a PL check with it would overstate the constant by that much"
        )
    if math.isfinite(s.noise_scale):
        lines.append(
            f"gradient noise: tr Cov of one row / ||grad f||^2 = {s.noise_scale:.4g} (batches below that are mostly noise)"
        )
    return lines


def text(s: Summary) -> str:
    """The summary for people."""
    if not s.totals:
        return "Nothing was recorded yet."
    out = ["What this run showed"]
    for line in run_lines(s):
        out += _wrap(line)
    for line in plain_lines(s):
        out += _wrap(line)
    out.append("The ledger (T7)")
    for c, track in s.totals["tracks"].items():
        out += _wrap(f"v = {c}: {track['status']}. {track['sentence']}")
    average = average_of(s)
    if average:
        out += _wrap(f"v = average: {average['status']}. {average['sentence']}")
    out.append("Conditions")
    if not s.findings:
        out += _wrap(
            "none was recorded: pass proxies, or use the preset standard (tangent loss and split batches every 10 steps)"
        )
    for f in s.findings:
        where = f", v = {f.comparator}" if f.comparator else ""
        out += _wrap(f"{f.condition}{where} [{f.evidence.name}]: {f.formula} {f.sentence}")
    noise = noise_lines(s)
    if noise:
        out.append("The gradient itself")
    for line in noise:
        out += _wrap(line)
    out.append("What theorems would then have promised, for this run only")
    for p in s.promises:
        where = f", v = {p.comparator}" if p.comparator else ""
        measured = f" Measured: {p.measured:.6g}." if math.isfinite(p.measured) else ""
        out += _wrap(f"{p.theorem} from {p.condition}{where} [{p.evidence.name}]: {p.sentence}{measured}")
    if not s.promises:
        out += _wrap("none: " + (s.why_not or "no condition with its constants was seen at every step"))
    elif s.why_not:
        out += _wrap(f"no theorem on (S)GD with constants: {s.why_not}")
    if s.notes:
        out.append("Notes")
    for note in s.notes:
        out += _wrap(note)
    return "\n".join(out)
