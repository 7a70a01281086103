"""Line charts and text as SVG without scripts, fonts or style sheets, for the pictures of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGES = Path(__file__).parents[1] / "docs" / "images"
GREEN, ORANGE, BLUE, VIOLET, GREY = "#00796b", "#c2410c", "#0b7285", "#5f3dc4", "#9e9e9e"
LEFT, TOP, BOTTOM = 58, 16, 42


def svg(width: int, height: int, parts: Sequence[str]) -> str:
    """A white picture."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    return (
        "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>"]) + "\n"
    )


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "#333") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


@dataclass(frozen=True)
class Curve:
    """One line: its label in the legend, its points, its colour and dashes."""

    label: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    dash: str = ""


@dataclass(frozen=True)
class Axis:
    """A linear axis from zero, or a logarithmic one; ``unit`` is what a number is called."""

    low: float
    high: float
    logarithmic: bool = False
    percent: bool = False

    def place(self, value: np.ndarray) -> np.ndarray:
        """0 at the lower end, 1 at the upper; values beyond an end are drawn at it."""
        value = np.clip(np.asarray(value, float), self.low, self.high)
        if self.logarithmic:
            return np.log(value / self.low) / np.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Where a line and a number are drawn: powers of ten, or five places."""
        if self.logarithmic:
            first, last = np.ceil(np.log10(self.low) - 1e-9), np.floor(np.log10(self.high) + 1e-9)
            return [10.0**k for k in range(int(first), int(last) + 1)]
        return [float(t) for t in np.linspace(self.low, self.high, 5)]

    def words(self, value: float) -> str:
        """A number beside the axis."""
        return f"{100 * value:.3g}%" if self.percent else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def chart(
    curves: Sequence[Curve],
    x: Axis,
    y: Axis,
    x_label: str,
    legend: int = 210,
    size: tuple[int, int] = (720, 300),
) -> str:
    """A line chart with a legend of that width on its right."""
    wide, high = size
    right, bottom = wide - legend, high - BOTTOM

    def across(v: np.ndarray) -> np.ndarray:
        return LEFT + (right - LEFT) * x.place(v)

    def down(v: np.ndarray) -> np.ndarray:
        return bottom - (bottom - TOP) * y.place(v)

    parts = []
    for tick in y.ticks():
        level = float(down(np.array(tick)))
        parts.append(f'<path d="M{LEFT} {level:.1f}H{right}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, level + 4, y.words(tick), "end"))
    parts += [text(float(across(np.array(tick))), bottom + 17, x.words(tick), "middle") for tick in x.ticks()]
    parts.append(text((LEFT + right) / 2, high - 8, x_label, "middle"))
    for k, curve in enumerate(curves):
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across(curve.x), down(curve.y), strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{curve.colour}" stroke-width="2" stroke-dasharray="{curve.dash}"/>'
        )
        parts.append(text(right + 12, TOP + 14 + 20 * k, curve.label, colour=curve.colour))
    return svg(wide, high, parts)
