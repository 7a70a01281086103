"""Promised and actual number of updates of SGD on the hinge loss, over widths; raw numbers to results/mistakes.json.

    python benchmarks/mistakes.py                      # widths 2, 4, ..., 4096 on two data sets
    python benchmarks/mistakes.py --figure docs/images/mistakes.svg

For every width and both orders of the rows (passes; uniform draws) the plan is made anew, trained and audited.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import proxyconvex as pc
from environment import environment
from proxyconvex.data import load
from proxyconvex.synthesis.plan_leaky_relu_hinge import best_preprocessing

DATA = ("wine:0,1", "digits:0,1")
WIDTHS = tuple(2**k for k in range(1, 13))
RESULTS = Path(__file__).parent / "results" / "mistakes.json"


def one(data: str, width: int, sampling: str, preprocessing: Any) -> dict[str, Any]:
    """Plan, train and audit once."""
    started = time.perf_counter()
    steps = 1_000_000 if sampling == "cyclic" else 20_000
    plan = pc.plan(
        data,
        family="leaky-relu-hinge",
        width=width,
        sampling=sampling,
        steps=steps,
        preprocessing=preprocessing,
    )
    trace = pc.run(plan)
    audit = pc.audit(plan, trace)
    return {
        "data": data,
        "width": width,
        "sampling": sampling,
        "theorem": plan.guarantee.theorem,
        "promised": plan.derived["updates"],
        "made": trace.total("sum_slope"),
        "steps": plan.method.steps,
        "final_error": float(trace.error[-1]),
        "consistent": audit.consistent,
        "updates": next(c.sentence for c in audit.checks if c.name == "updates"),
        "step_size": plan.method.step.eta,
        "constants": plan.derived,
        "seconds": time.perf_counter() - started,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The picture of the documentation: promised (lines) and made (dots) against the width."""
    width, height, left, bottom = 640, 300, 60, 45
    top = 1.15 * max(row["promised"] for row in rows)

    def x(m: int) -> float:
        return left + (width - left - 120) * (m.bit_length() - 2) / 11

    def y(count: float) -> float:
        return height - bottom - (height - bottom - 20) * count / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for m in WIDTHS:
        parts.append(f'<text x="{x(m):.0f}" y="{height - bottom + 18}" text-anchor="middle">{m}</text>')
    step = 10 ** (len(str(int(top))) - 1) // 2 or 1
    for count in range(0, int(top) + 1, step):
        parts.append(
            f'<line x1="{left}" x2="{width - 120}" y1="{y(count):.1f}" y2="{y(count):.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{left - 8}" y="{y(count) + 4:.1f}" text-anchor="end">{count}</text>')
    for data, colour in zip(DATA, ("#00796b", "#c2410c"), strict=True):
        mine = [r for r in rows if r["data"] == data and r["sampling"] == "cyclic"]
        line = " ".join(f"{x(r['width']):.1f},{y(r['promised']):.1f}" for r in mine)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(r["width"]):.1f}" cy="{y(r["made"]):.1f}" r="4" fill="{colour}"/>' for r in mine
        ]
        parts.append(
            f'<text x="{width - 112}" y="{y(mine[-1]["promised"]) + 4:.1f}" fill="{colour}">{data} promised</text>'
        )
    parts.append(f'<text x="{width - 112}" y="{y(mine[-1]["made"]) + 4:.1f}" fill="#333">made (dots)</text>')
    parts.append(
        f'<text x="{(left + width - 120) / 2:.0f}" y="{height - 8}" text-anchor="middle">width</text>'
    )
    parts.append(f'<text x="{left}" y="14">updates of SGD, in passes over the rows</text></svg>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n")


def main() -> None:
    """Run everything and write the raw numbers and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--draw-only", action="store_true", help="draw the picture from --out")
    arguments = parser.parse_args()
    if arguments.draw_only:
        rows = json.loads(arguments.out.read_text())["results"]
    else:
        rows = []
        for data in DATA:
            preprocessing = best_preprocessing(load(data), 0.5, 1_000_000)
            for width in WIDTHS:
                for sampling in ("cyclic", "with-replacement"):
                    rows.append(one(data, width, sampling, preprocessing))
                    last = rows[-1]
                    print(
                        f"{data:12} width {width:5} {sampling:16} promised {last['promised']:5.0f} made {last['made']:4.0f} "
                        f"consistent {last['consistent']} {last['seconds']:.1f} s",
                        flush=True,
                    )
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"environment": environment(), "results": rows}, indent=1) + "\n")
    if arguments.figure:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
