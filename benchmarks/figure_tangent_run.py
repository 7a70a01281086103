"""The picture of docs/families/tangent.md: proxy PL and tangent margins along one run. Writes docs/images/tangent-run.svg."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import proxyconvex as pc

OUT = Path(__file__).parents[1] / "docs" / "images" / "tangent-run.svg"


LEFT, RIGHT, TOP, BOTTOM, WIDE, HIGH = 52, 200, 16, 40, 720, 300


def draw(curves, last: float, top: float) -> str:
    """A line chart as one SVG without scripts, fonts or style sheets."""

    def at(x: float, y: float) -> str:
        return (
            f"{LEFT + (WIDE - LEFT - RIGHT) * x / last:.1f},{TOP + (HIGH - TOP - BOTTOM) * (1 - y / top):.1f}"
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDE}" height="{HIGH}" fill="white"/>',
    ]
    for k in range(5):
        (x0, y0), (x1, _) = (at(0, top * k / 4).split(","), at(last, 0).split(","))
        parts.append(
            f'<path d="M{x0} {y0}H{x1}" stroke="#ddd"/><text x="{LEFT - 6}" y="{float(y0) + 4}" text-anchor="end">{top * k / 4:.1f}</text>'
        )
        parts.append(
            f'<text x="{at(last * k / 4, 0).split(",")[0]}" y="{HIGH - 22}" text-anchor="middle">{last * k / 4:.0f}</text>'
        )
    parts.append(f'<text x="{(LEFT + WIDE - RIGHT) / 2}" y="{HIGH - 6}" text-anchor="middle">step</text>')
    for k, (label, x, y, colour, dash) in enumerate(curves):
        points = " ".join(at(float(a), float(b)) for a, b in zip(x, y, strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        parts.append(
            f'<text x="{WIDE - RIGHT + 10}" y="{TOP + 16 + 20 * k}" fill="{colour}" font-size="11">{label}</text>'
        )
    return "\n".join(parts) + "</svg>\n"


def main() -> None:
    plan = pc.plan("digits:0,1", family="deep-relu", method="gd-slope", steps=400)
    trace = pc.run(plan)
    step, seen = trace.step.astype(float), trace.watched
    ratio = np.sqrt(trace.grad_sq) / trace.slope
    curves = (
        ("‖grad f‖ / mean|loss'|, every step", step, ratio, "#0b7285", ""),
        ("tangent margin, all hidden layers", seen["step"], seen["margin_all"], "#2b8a3e", ""),
        ("tangent margin, last hidden layer", seen["step"], seen["margin_last"], "#5f3dc4", ""),
        (
            "gamma asked for before training",
            step[[0, -1]],
            np.full(2, plan.derived["gamma"]),
            "#c92a2a",
            "6 4",
        ),
    )
    svg = draw(curves, float(step[-1]), 1.15 * float(ratio.max()))
    OUT.write_text(svg, encoding="utf-8")
    print(OUT)


if __name__ == "__main__":
    main()
