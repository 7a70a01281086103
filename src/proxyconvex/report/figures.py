"""Small hand-made SVG line charts: no plotting library, colours from CSS variables, a text alternative.

A `Chart` is data; `render` draws it twice (wide and narrow, chosen by a media query), so that text keeps its
size on a phone, and puts the numbers beside it for the pointer read-out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from jaxtyping import Float

from .format import number, percent
from .scales import Kind, Scale, choose_scale

Role = Literal["run", "second", "promise", "faint", "good", "bad"]
MOST_POINTS = 300
SIZES = {"wide": (1040, 330), "half": (500, 300), "narrow": (350, 280), "small": (340, 170)}


@dataclass(frozen=True)
class Series:
    """A curve: ``y`` against ``x`` (both shape (n,)) in the colour of its role; NaN interrupts the line."""

    label: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    role: Role = "run"
    dashed: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line, such as a promised bound or a region's boundary; ``shade`` tints one side."""

    label: str
    y: float
    role: Role = "promise"
    shade: Literal["above", "below"] | None = None


@dataclass(frozen=True)
class Dot:
    """A single labelled point."""

    label: str
    x: float
    y: float
    role: Role = "run"


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        key: unique identifier, used for element ids: letters, digits and hyphens.
        title: what the figure shows, in a few words.
        summary: what a reader should see in it, in a sentence (also the text alternative).
        y_label: name of the vertical axis.
        series, levels, dots: what is drawn.
        mark: a vertical line at ``mark.x`` with its label (``mark.y`` is not used).
        x_label: name of the horizontal axis.
        x_scale, y_scale: kind of axis; see `scales.choose_scale`.
        as_percent: vertical values are fractions shown as percentages.
        signed: keep zero in view on a linear axis and mark the negative half as a violation.
        size: ``"wide"`` fills the page, ``"half"`` half of it, ``"small"`` is a small multiple.
    """

    key: str
    title: str
    summary: str
    y_label: str
    series: tuple[Series, ...]
    levels: tuple[Level, ...] = ()
    dots: tuple[Dot, ...] = ()
    mark: Dot | None = None
    x_label: str = "step"
    x_scale: Kind | Literal["auto"] = "log"
    y_scale: Kind | Literal["auto"] = "log"
    as_percent: bool = False
    signed: bool = False
    size: Literal["wide", "half", "small"] = "wide"

    @property
    def empty(self) -> bool:
        """Whether there is not a single finite point to draw."""
        return not any(np.isfinite(s.y).any() for s in self.series)

    def show(self, value: float) -> str:
        """A vertical value as text."""
        return percent(value) if self.as_percent else number(value)


def thin(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], most: int = MOST_POINTS) -> tuple:
    """At most about ``most`` points: the first, the last, and both extremes of each logarithmic bin of x.

    Keeping the smallest and the largest value of each bin means that thinning cannot hide a violation.
    """
    n = len(x)
    if n <= most:
        return x, y
    place = np.log1p(np.maximum(x - x[0], 0))
    edges = np.linspace(0, place[-1] or 1.0, most // 2 + 1)
    bins = np.clip(np.searchsorted(edges, place, side="right") - 1, 0, most // 2 - 1)
    keep = {0, n - 1}
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    for a, b in zip(starts, [*starts[1:], n], strict=True):
        part = y[a:b]
        bad = np.flatnonzero(~np.isfinite(part))
        keep.update(a + bad[:1])
        if bad.size < part.size:
            keep.update((a + int(np.nanargmin(part)), a + int(np.nanargmax(part))))
    index = np.array(sorted(int(k) for k in keep))
    return x[index], y[index]


def render(chart: Chart) -> str:
    """The chart as an HTML fragment: legend, drawings, and its numbers as JSON for the read-out."""
    data = [
        Series(s.label, *thin(np.asarray(s.x, float), np.asarray(s.y, float)), s.role, s.dashed)
        for s in chart.series
    ]
    if chart.empty:
        return '<p class="nothing">Nothing was recorded for this figure.</p>'
    drawings = [_drawing(chart, data, *SIZES[chart.size], "wide")]
    if chart.size != "small":
        drawings.append(_drawing(chart, data, *SIZES["narrow"], "narrow"))
    payload = {
        "x": chart.x_label,
        "percent": chart.as_percent,
        "series": [
            {"label": s.label, "role": s.role, "x": _numbers(s.x), "y": _numbers(s.y)}
            for s in data
            if s.role != "faint"
        ],
    }
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return (
        f'{_legend(chart)}<div class="plot" data-plot>{"".join(drawings)}'
        f'<div class="tip" hidden></div><script type="application/json">{text}</script></div>'
    )


def samples(chart: Chart, rows: int = 9) -> list[list[str]]:
    """The figure as a table: a header and up to ``rows`` of its steps, evenly spaced on a log scale."""
    shown = [s for s in chart.series if s.role != "faint" and len(s.x)]
    if not shown:
        return []
    base = np.asarray(shown[0].x, float)
    where = np.unique(
        np.round(np.expm1(np.linspace(0, np.log(len(base)), rows))).astype(int).clip(0, len(base) - 1)
    )
    table = [[chart.x_label, *(s.label for s in shown)]]
    for x in base[where]:
        row = [number(x)]
        for s in shown:
            hit = np.flatnonzero(np.asarray(s.x, float) == x)
            row.append(chart.show(float(s.y[hit[0]])) if hit.size else "")
        table.append(row)
    return table


def _numbers(values: Float[np.ndarray, " n"]) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]


def _legend(chart: Chart) -> str:
    items = [(s.label, s.role, s.dashed) for s in chart.series] + [
        (v.label, v.role, True) for v in chart.levels
    ]
    seen, out = set(), []
    for label, role, dashed in items:
        if label and label not in seen:
            seen.add(label)
            style = "swatch dashed" if dashed else "swatch"
            out.append(f'<li><span class="{style} {role}"></span>{escape(label)}</li>')
    return f'<ul class="legend">{"".join(out)}</ul>'


def _drawing(chart: Chart, data: list[Series], width: int, height: int, name: str) -> str:
    left, right, top, bottom = 56.0, width - 12.0, 24.0, height - 36.0
    xs = np.concatenate([s.x for s in data])
    ys = np.concatenate([*(s.y for s in data), [v.y for v in chart.levels]])
    x_scale = choose_scale(xs, chart.x_scale, left, right, tight=True)
    y_scale = choose_scale(ys, chart.y_scale, bottom, top, signed=chart.signed)
    ident = f"{chart.key}-{name}"
    mapping = {"x": _scale_data(x_scale), "y": _scale_data(y_scale), "top": top, "bottom": bottom}
    parts = [
        f'<svg class="{name}" viewBox="0 0 {width} {height}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'aria-labelledby="{ident}-t {ident}-d" data-scale="{escape(json.dumps(mapping))}">',
        f'<title id="{ident}-t">{escape(chart.title)}</title>',
        f'<desc id="{ident}-d">{escape(chart.summary)}</desc>',
        *_zones(chart, y_scale, left, right, top, bottom),
        *_axes(chart, x_scale, y_scale, (left, right, top, bottom), width),
    ]
    for s in sorted(data, key=lambda s: s.role != "faint"):
        style = f"curve {s.role}" + (" dashed" if s.dashed else "")
        path, lone = _path(x_scale.pixels(s.x), y_scale.pixels(s.y))
        parts.append(f'<path class="{style}" d="{path}"/>' if path else "")
        parts += [f'<circle class="dot {s.role}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in lone]
    for level in chart.levels:
        if np.isfinite(level.y):
            y = float(y_scale.pixels(level.y)[0])
            parts.append(f'<path class="curve {level.role} dashed" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
    if chart.mark is not None:
        parts += _mark(chart.mark, float(x_scale.pixels(chart.mark.x)[0]), left, top, bottom)
    parts += _dots(chart, x_scale, y_scale, right)
    parts.append('<path class="cursor" d=""/><g class="cursor-dots"></g></svg>')
    return "".join(parts)


def _scale_data(scale: Scale) -> list:
    return [scale.kind, scale.low, scale.high, scale.first, scale.stop, scale.start, scale.knee, scale.zero]


def _zones(chart: Chart, y: Scale, left: float, right: float, top: float, bottom: float) -> list[str]:
    out = []
    for level in chart.levels:
        if level.shade and np.isfinite(level.y):
            edge = float(y.pixels(level.y)[0])
            a, b = (top, edge) if level.shade == "above" else (edge, bottom)
            out.append(_rect("zone good", left, a, right, b))
    if chart.signed and y.low < 0:
        out.append(_rect("zone bad", left, float(y.pixels(0.0)[0]), right, bottom))
    return out


def _rect(style: str, left: float, top: float, right: float, bottom: float) -> str:
    size = f'width="{right - left:.1f}" height="{max(bottom - top, 0):.1f}"'
    return f'<rect class="{style}" x="{left:.1f}" y="{top:.1f}" {size}/>'


def _axes(chart: Chart, x: Scale, y: Scale, box: tuple[float, float, float, float], width: int) -> list[str]:
    left, right, _top, bottom = box
    out = [f'<text class="axis-name" x="{left - 48:.0f}" y="13">{escape(chart.y_label)}</text>']
    for pixel, label in y.ticks(4 if chart.size == "small" else 7, as_percent=chart.as_percent):
        out.append(f'<path class="grid" d="M{left:.1f} {pixel:.1f}H{right:.1f}"/>')
        out.append(
            f'<text class="tick" x="{left - 7:.1f}" y="{pixel + 4:.1f}" text-anchor="end">{label}</text>'
        )
    last = -1e9
    for pixel, label in x.ticks(9 if width > 600 else 5):
        if pixel - last < 30:
            continue
        last = pixel
        anchor = "end" if pixel > right - 12 else "middle"
        out.append(f'<path class="grid tickmark" d="M{pixel:.1f} {bottom:.1f}v4"/>')
        out.append(
            f'<text class="tick" x="{pixel:.1f}" y="{bottom + 17:.1f}" text-anchor="{anchor}">{label}</text>'
        )
    out.append(f'<path class="axis" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>')
    if y.kind != "log" and y.low < 0 < y.high:
        zero = float(y.pixels(0.0)[0])
        out.append(f'<path class="axis" d="M{left:.1f} {zero:.1f}H{right:.1f}"/>')
    out.append(
        f'<text class="axis-name" x="{right:.1f}" y="{bottom + 32:.1f}" text-anchor="end">'
        f"{escape(chart.x_label)}</text>"
    )
    return out


def _path(px: Float[np.ndarray, " n"], py: Float[np.ndarray, " n"]) -> tuple[str, list[tuple[float, float]]]:
    """SVG path with a gap at every NaN, and the points that stand alone (a path would not show them)."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(px, py, strict=True):
        if np.isfinite(x) and np.isfinite(y):
            pieces[-1].append((float(x), float(y)))
        elif pieces[-1]:
            pieces.append([])
    lines = ["M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in p) for p in pieces if len(p) > 1]
    return "".join(lines), [p[0] for p in pieces if len(p) == 1]


def _mark(mark: Dot, at: float, left: float, top: float, bottom: float) -> list[str]:
    near, anchor = (at + 6, "start") if at < left + 130 else (at - 6, "end")
    return [
        f'<path class="mark-line" d="M{at:.1f} {top:.1f}V{bottom:.1f}"/>',
        f'<text class="note {mark.role}" x="{near:.1f}" y="{top + 12:.1f}" text-anchor="{anchor}">'
        f"{escape(mark.label)}</text>",
    ]


def _dots(chart: Chart, x: Scale, y: Scale, right: float) -> list[str]:
    out = []
    for dot in chart.dots:
        cx, cy = float(x.pixels(dot.x)[0]), float(y.pixels(dot.y)[0])
        if not (np.isfinite(cx) and np.isfinite(cy)):
            continue
        out.append(f'<circle class="dot {dot.role}" cx="{cx:.1f}" cy="{cy:.1f}" r="4.5"/>')
        if dot.label:
            end = cx > right - 150
            at, anchor = (cx - 8, "end") if end else (cx + 8, "start")
            out.append(
                f'<text class="note {dot.role}" x="{at:.1f}" y="{cy - 8:.1f}" text-anchor="{anchor}">'
                f"{escape(dot.label)}</text>"
            )
    return out
