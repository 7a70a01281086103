"""Print the README's table of promises from results/promises.json: `python benchmarks/promises_table.py`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from proxyconvex_checker.claims.promise import show

WHAT = {
    "best-iterate-error": "error of the best iterate, every run",
    "average-error": "average error over the iterates, mean over runs",
    "final-loss": "error of the last iterate, every run",
}


def percent(x: float) -> str:
    """Three significant digits, rounded up, so that what is printed is promised."""
    return show(100 * x, digits=3) + "%"


def row(result: dict[str, Any]) -> str:
    """One line of the table."""
    runs = result["runs"]
    kept = sum(r["consistent"] and r["verified"] for r in runs)
    target = "-" if result["target"] is None else f"{100 * result['target']:g}%"
    steps = sorted(r["steps"] for r in runs)
    shown = f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,}-{steps[-1]:,}"
    cells = [
        f"{result['data']} ({result['family']})",
        f"{runs[0]['theorem']}: {WHAT[runs[0]['quantity']]}",
        f"**{percent(max(r['promised_error'] for r in runs))}**",
        target,
        percent(max(r["measured"]["error"] for r in runs)),
        shown,
        f"{kept}/{len(runs)}",
        f"{statistics.median(r['seconds']['all'] for r in runs):.0f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    results = json.loads((Path(__file__).parent / "results" / "promises.json").read_text())["results"]
    print(
        "| data (family) | theorem and quantity | promised error | target | worst measured | steps | kept | median time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for result in results:
        print(row(result))


if __name__ == "__main__":
    main()
