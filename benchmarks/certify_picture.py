"""The picture of docs/checks/certify.md: the constant that P2 needs over (a, b), and the boxes of a proof.

python benchmarks/certify_picture.py    # writes docs/images/certify_p2.svg
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import proxyconvex as pc
from certify import p2
from proxyconvex_checker.boxes import tree as boxes_tree

SIZE, CELLS, LEFT, TOP = 440, 44, 60, 40


def main() -> None:
    """Draw it."""
    grid = -3 + 6 * (np.arange(CELLS) + 0.5) / CELLS
    a, b = np.meshgrid(grid, grid, indexing="ij")
    s, slope = np.logaddexp(0, a), 1 / (1 + np.exp(-a))
    t = np.where(np.abs(a - b) < 1e-9, 1.0, a - b)
    q = np.where(np.abs(a - b) < 1e-9, slope, (s - np.logaddexp(0, b)) / t)
    need = slope / (4 * (q - q * q / 2))
    step = SIZE / CELLS

    def x(value: float) -> float:
        return LEFT + SIZE * (value + 3) / 6

    def y(value: float) -> float:
        return TOP + SIZE * (3 - value) / 6

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + SIZE + 130} {TOP + SIZE + 50}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    low, high = float(need.min()), float(need.max())

    def colour(value: float) -> str:
        k = (value - low) / (high - low)
        return f"rgb({int(235 - 205 * k)},{int(245 - 130 * k)},{int(240 - 125 * k)})"

    for i in range(CELLS):
        for j in range(CELLS):
            parts.append(
                f'<rect x="{x(grid[i]) - step / 2:.1f}" y="{y(grid[j]) - step / 2:.1f}" width="{step + 0.3:.1f}" height="{step + 0.3:.1f}" fill="{colour(need[i, j])}"/>'
            )
    verdict = pc.certify(p2("0.68663"), jobs=1)
    ranges = [(k, lo, hi) for k, (lo, hi) in verdict.condition.variables.items()]

    def leaf(_: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> None:
        for (a0, b0, _y0), (a1, b1, _y1) in zip(lo, hi, strict=True):
            parts.append(
                f'<rect x="{x(a0):.2f}" y="{y(b1):.2f}" width="{x(a1) - x(a0):.2f}" height="{y(b0) - y(b1):.2f}" fill="none" stroke="#333" stroke-width="0.5"/>'
            )

    count = boxes_tree.walk(ranges, verdict.codes, leaf)
    parts.append(f'<circle cx="{x(1.0321):.1f}" cy="{y(-3):.1f}" r="5" fill="#c0392b"/>')
    parts.append(
        f'<text x="{x(1.0321) + 8:.1f}" y="{y(-3) - 8:.1f}" fill="#c0392b">C* = 0.686629 at a = 1.03, b = -3</text>'
    )
    for k in range(-3, 4):
        parts.append(f'<text x="{x(k):.1f}" y="{TOP + SIZE + 18}" text-anchor="middle">{k}</text>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(k) + 4:.1f}" text-anchor="end">{k}</text>')
    parts.append(
        f'<text x="{LEFT + SIZE / 2}" y="{TOP + SIZE + 40}" text-anchor="middle">a = &lt;w, x&gt;</text>'
    )
    parts.append(
        f'<text x="18" y="{TOP + SIZE / 2}" transform="rotate(-90 18 {TOP + SIZE / 2})" text-anchor="middle">b = &lt;v, x&gt;</text>'
    )
    parts.append(
        f'<text x="{LEFT}" y="24">C needed at (a, b), and the {count} boxes that prove C = 0.68663</text>'
    )
    for k in range(60):
        value = low + (high - low) * k / 59
        parts.append(
            f'<rect x="{LEFT + SIZE + 25}" y="{TOP + SIZE - 7 * (k + 1) - 10}" width="18" height="7.4" fill="{colour(value)}"/>'
        )
    parts.append(f'<text x="{LEFT + SIZE + 50}" y="{TOP + SIZE - 12}">{low:.3f}</text>')
    parts.append(f'<text x="{LEFT + SIZE + 50}" y="{TOP + SIZE - 422}">{high:.3f}</text></svg>')
    target = Path(__file__).parents[1] / "docs" / "images" / "certify_p2.svg"
    target.write_text("\n".join(parts) + "\n")
    print(target, count)


if __name__ == "__main__":
    main()
