"""Pictures of the documentation pages of F3 and of the classical problems, from raw numbers and closed forms.

python benchmarks/figures_scalar.py          # docs/images/single-neuron.svg and docs/images/classical.svg
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from drawing import GREEN, GREY, IMAGES, ORANGE, svg, text

HERE = Path(__file__).parent


def neuron_picture(results: list[dict]) -> str:
    """For every data set the worst promise and outcome over the seeds, as a share of the best constant's risk."""
    rows = [r for r in results if r["family"] == "single-neuron"]
    left, width, step = 210, 640, 46
    height = 60 + step * len(rows)
    scale = (width - left - 30) / 1.05
    parts = [text(left, 18, "mean squared error over that of the best constant (dashed); worst of 20 seeds")]
    for k, row in enumerate(rows):
        top = 36 + step * k
        base = row["runs"][0]["baseline"]
        promised = max(run["bound"] for run in row["runs"]) / base
        made = max(run["measured"]["value"] for run in row["runs"]) / base
        name = f"{row['data']}, {row['settings'].get('activation') or ('tanh' if row['runs'][0]['error_bound'] is not None else 'sigmoid')}"
        parts.append(text(left - 8, top + 20, name, "end"))
        for value, colour, y in ((promised, ORANGE, top), (made, GREEN, top + 17)):
            parts.append(
                f'<rect x="{left}" y="{y}" width="{scale * value:.1f}" height="14" fill="{colour}"/>'
            )
            parts.append(text(left + scale * value + 5, y + 12, f"{value:.3f}", colour=colour))
    line = left + scale
    parts.append(
        f'<line x1="{line:.1f}" x2="{line:.1f}" y1="28" y2="{height - 22}" stroke="{GREY}" stroke-dasharray="5 4"/>'
    )
    parts.append(text(left, height - 8, "promised before training", colour=ORANGE))
    parts.append(text(left + 170, height - 8, "reached", colour=GREEN))
    return svg(width, height, parts)


def least_ratio(share: float, linear: tuple[float, float], quadratic: float, cross: float) -> float:
    """``min <grad f, e> / ||e||^2`` over the directions of e with ``||e|| = share ||z||``, in units of ``||z||^2``."""
    angle = np.linspace(-1, 1, 4001) * share  # p / ||z||^2 over the sphere
    s = share**2
    return float(np.min((linear[1] * angle**2 + cross * angle * s + linear[0] * s + quadratic * s * s) / s))


def classical_picture() -> str:
    """The secant constants: formula (lines) and the minimum over directions (dots), against the radius."""
    width, height, left, bottom = 640, 300, 50, 40
    parts = [
        text(
            left,
            16,
            "least &lt;grad f, e&gt; / ||e||^2 over the ball, in units of ||z||^2: formula (lines), minimum over directions (dots)",
        )
    ]

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (width - left - 190) * x, height - bottom - (height - bottom - 30) * y / 2.1

    problems = (
        ("rank one: 1 - (5/4) rho^2", (1.0, 1.0), 1.0, 3.0, 1.25, 1.0, GREEN),
        ("phase retrieval: 2 - (33/16) rho^2", (2.0, 4.0), 3.0, 9.0, 33 / 16, 2.0, ORANGE),
    )
    for name, linear, quadratic, cross, drop, start, colour in problems:
        line = [at(x, start - drop * x * x) for x in np.linspace(0, 0.98, 60) if start - drop * x * x >= 0]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline fill="none" stroke-width="2" stroke="{colour}" points="{points}"/>')
        for share in np.linspace(0.08, 0.88, 11):
            worst = min(least_ratio(t * share, linear, quadratic, cross) for t in np.linspace(0.05, 1, 40))
            x, y = at(share, max(worst, 0.0))
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        x, y = at(1.0, start - 0.5)
        parts.append(text(x - 8, y, name, colour=colour))
    for x in (0, 0.25, 0.5, 0.75, 1.0):
        parts.append(text(at(x, 0)[0], height - bottom + 16, f"{x:g}", "middle"))
    for y in (0, 1, 2):
        parts.append(text(left - 8, at(0, y)[1] + 4, str(y), "end"))
        parts.append(
            f'<line x1="{left}" x2="{width - 190}" y1="{at(0, y)[1]:.1f}" y2="{at(0, y)[1]:.1f}" stroke="#ddd"/>'
        )
    parts.append(text(at(0.5, 0)[0], height - 6, "radius of the ball over ||z||", "middle"))
    return svg(width, height, parts)


def main() -> None:
    """Draw both."""
    results = json.loads((HERE / "results" / "families_seeds_scalar.json").read_text())["results"]
    (IMAGES / "single-neuron.svg").write_text(neuron_picture(results))
    (IMAGES / "classical.svg").write_text(classical_picture())


if __name__ == "__main__":
    main()
