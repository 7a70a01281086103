"""The table of families: what was promised before training, and what happened; from raw audit summaries.

    python benchmarks/family_table.py --run            # audit every family on its data sets, one JSON file per audit
    python benchmarks/family_table.py --write          # put the table between the markers in README.md and docs/families.md
    python benchmarks/family_table.py --check          # exit 1 unless what is written there is what the results say

``--run`` takes minutes to an hour; the other two read ``results/families/*.json`` and take a second.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "families"
DOCUMENTS = (HERE.parent / "README.md", HERE.parent / "docs" / "families.md")
BEGIN, END = "<!-- family-table: begin -->", "<!-- family-table: end -->"
NOTE = "<!-- Written by `make table` from benchmarks/results/families; do not edit by hand. -->"

# Every row of the table: data set, family and further options of `proxyconvex audit`.
AUDITS: tuple[tuple[str, str, str], ...] = (
    ("digits:0,1", "leaky-relu-hinge", ""),
    ("wine:0,1", "leaky-relu-hinge", ""),
    ("breast-cancer", "leaky-relu-hinge", ""),
    ("digits:0,1", "leaky-relu-noise", "--width 64 --slope 0.5 --method sgd --steps 1000000"),
    ("breast-cancer", "leaky-relu-noise", "--width 64 --slope 0.5 --method sgd --steps 1000000"),
    ("diabetes", "single-neuron", ""),
    ("linnerud:weight", "single-neuron", ""),
    ("digits:0,1", "two-layer-ntk", ""),
    ("breast-cancer", "two-layer-ntk", ""),
    ("digits:even-odd", "two-layer-ntk", ""),
    ("digits:0,1", "tangent", ""),
    ("breast-cancer", "tangent", ""),
    ("diabetes", "tangent", ""),
    ("digits", "tangent", ""),
    ("digits:0,1", "deep-relu", ""),
    ("breast-cancer", "deep-relu", ""),
    ("digits:0,1", "deep-relu", "--method gd-slope"),
    ("digits:0,1", "deep-relu", "--activation softplus --depth 2"),
    ("wine", "deep-relu", ""),
    ("digits", "deep-relu", ""),
    ("breast-cancer", "three-layer", ""),
    ("breast-cancer", "three-layer", "--activation softplus"),
    ("wine", "three-layer", ""),
    ("diabetes", "three-layer", ""),
    ("diabetes", "classical", ""),
    ("breast-cancer", "classical", ""),
    ("wine", "classical", "--problem rank-one"),
    ("digits", "classical", "--problem rank-one"),
    ("wine", "classical", "--problem phase-retrieval"),
    ("digits:0,1", "classical", "--problem phase-retrieval"),
    ("diabetes", "classical", "--problem linear-network"),
)

WORDS = {
    "best-iterate-error": "error of the best iterate",
    "average-error": "average error",
    "population-error": "error on fresh rows",
    "online-error": "errors as rows arrive",
    "final-loss": "loss of the last iterate",
    "best-loss": "loss of the best iterate",
    "average-loss": "average loss",
    "best-slope": "mean slope of the best iterate",
    "best-risk": "squared error of the best iterate",
    "final-risk": "squared error of the last iterate",
    "updates": "number of updates",
}
HEAD = (
    "family",
    "data",
    "promised quantity",
    "promise",
    "outcome",
    "ratio",
    "theorem",
    "evidence",
    "steps",
    "step size",
)


def number(x: float | None, up: bool = False) -> str:
    """Three significant digits; promises rounded up."""
    if x is None or not math.isfinite(x):
        return "-"
    if x == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(x)))
    factor = 10.0**digits
    # Exactly: a product of floats could fall on the wrong side of a whole number.
    value = (math.ceil(Fraction(x) * Fraction(factor)) if up else round(x * factor)) / factor
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def evidence(summary: dict[str, Any]) -> str:
    """The evidence of the promise, and for a conditional one what the run showed."""
    before = summary["guarantee"]["evidence"]
    if not summary["guarantee"].get("conditional"):
        return before
    after = summary.get("after_run")
    return (
        f"conditional ({before}); then {after['evidence']}"
        if after
        else f"conditional ({before}); not met on this run"
    )


def row(summary: dict[str, Any]) -> str:
    """One audit summary as a line of the table."""
    g, measured = summary["guarantee"], summary["measured"]
    is_error = g["quantity"].endswith("error")
    promised, value = (
        (g["error_bound"], measured["value"])
        if is_error and g["error_bound"] is not None
        else (g["bound"], measured["value"])
    )
    percent = 100.0 if is_error else 1.0
    unit = "%" if is_error else ""
    shown = "none" if promised is None else number(percent * promised, up=True) + unit
    if g["error_bound"] is not None and not is_error:
        shown += f" (error ≤ {number(100 * g['error_bound'], up=True)}%)"
    if g["vacuous"]:
        shown += " **vacuous**"
    if g.get("baseline") is not None:
        shown += (
            f" ({'zero vector' if summary['family'] == 'rank-one' else 'constant'}: {number(g['baseline'])})"
        )
    ratio = "-" if not promised or value is None else number(value / promised)
    options = summary.get("options", "")
    cells = (
        # What one types after --family: the problems of `classical` have names of their own.
        ("classical" if "--problem" in options else summary["family"]) + (f" `{options}`" if options else ""),
        f"{summary['data']['name']} ({summary['data']['n']})",
        WORDS.get(g["quantity"], g["quantity"].replace("-", " "))
        + {"expectation": ", mean over runs", "probability": ", w.h.p."}.get(g["mode"], ""),
        shown,
        number(None if value is None else percent * value) + unit,
        ratio,
        g["theorem"],
        evidence(summary),
        f"{summary['steps']:,}",
        number(summary["step_size"]),
    )
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"


def load() -> list[dict[str, Any]]:
    """Every stored summary, in the order of `AUDITS`, others after them by name."""
    order = {name(*audit): k for k, audit in enumerate(AUDITS)}
    files = sorted(RESULTS.glob("*.json"), key=lambda p: (order.get(p.stem, len(order)), p.stem))
    return [json.loads(p.read_text()) for p in files]


def table(summaries: list[dict[str, Any]]) -> str:
    """The table in Markdown, with what would make vacuous promises say something below it."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD), *(row(s) for s in summaries)]
    notes = [
        f"* {s['family']} on {s['data']['name']}: {note}"
        for s in summaries
        if s["guarantee"]["vacuous"]
        for note in s.get("notes", [])
        if "vacuous" in note
    ]
    kept = sum(bool(s["consistent"]) for s in summaries)
    text = (
        f"{kept} of {len(summaries)} audits found nothing violated. Ratio: outcome over promise. A *conditional* promise holds if the run does "
        "what its premises say; where it did, the conclusion is one about that run only (ON_TRACE)."
    )
    return "\n".join(
        [
            *lines,
            "",
            text,
            *(["", "What would make the vacuous ones say something:", "", *notes] if notes else []),
        ]
    )


def block(text: str) -> str:
    """What stands between the markers, markers included."""
    return f"{BEGIN}\n{NOTE}\n\n{text}\n\n{END}"


def replaced(document: str, text: str) -> str:
    """A document with the table between its markers; they are added at the end if they are missing."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.S)
    if pattern.search(document):
        return pattern.sub(lambda _: block(text), document)
    return document.rstrip("\n") + "\n\n" + block(text) + "\n"


def name(data: str, family: str, options: str) -> str:
    """File name of an audit's summary."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{family} {data} {options}").strip("-")


def run(only: str) -> None:
    """Audit and store the summaries (those whose name contains ``only``)."""
    from environment import environment

    RESULTS.mkdir(parents=True, exist_ok=True)
    for data, family, options in AUDITS:
        stem = name(data, family, options)
        if only not in stem:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "proxyconvex.cli",
                "audit",
                data,
                "--family",
                family,
                *options.split(),
                "--out",
                folder,
                "--quiet",
                "--json",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            print(f"{stem}: exit {done.returncode}: {done.stderr.strip()[-300:]}", flush=True)
            continue
        summary = json.loads(done.stdout)
        summary |= {
            "options": options,
            "seconds": round(time.perf_counter() - started, 1),
            "environment": environment(),
        }
        (RESULTS / f"{stem}.json").write_text(json.dumps(summary, indent=1) + "\n")
        print(f"{stem}: exit {done.returncode}, {summary['seconds']} s", flush=True)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="store_true", help="audit, store the summaries")
    parser.add_argument("--only", default="", help="with --run: only audits whose file name contains this")
    parser.add_argument("--write", action="store_true", help="write the table into the documents")
    parser.add_argument("--check", action="store_true", help="exit 1 unless the documents are current")
    parser.add_argument(
        "--documents", nargs="*", type=Path, default=list(DOCUMENTS), help="files to write or check"
    )
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.only)
    text = table(load())
    for path in arguments.documents:
        document = path.read_text() if path.exists() else "# Families\n"
        if arguments.write:
            path.write_text(replaced(document, text))
        if arguments.check and block(text) not in document:
            raise SystemExit(
                f"{path} is not current: run `make table` (or `python benchmarks/family_table.py --write`)"
            )
    if not (arguments.write or arguments.check or arguments.run):
        print(text)


if __name__ == "__main__":
    main()
