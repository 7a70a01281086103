"""Axes for the report's figures: linear, logarithmic with a place for zero, and symmetric logarithmic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from .format import number, percent

Kind = Literal["linear", "log", "symlog"]
CLOSEST = 11.0  # pixels between tick labels
ZERO_GUTTER = 20.0  # pixels kept at the low end of a log axis for the value 0


@dataclass(frozen=True)
class Scale:
    """A map from values to pixels.

    Attributes:
        kind: ``"log"`` draws 0 (and anything below ``low``) in a gutter beside the axis when ``zero`` is set;
            ``"symlog"`` is linear within ``+-knee`` and logarithmic outside.
        low: smallest value drawn (positive for log).
        high: largest value drawn, ``> low``.
        start: pixel of the low end.
        stop: pixel of ``high``.
        zero: whether a log axis has the gutter for zero.
        knee: half-width of the linear part of a symlog axis.
    """

    kind: Kind
    low: float
    high: float
    start: float
    stop: float
    zero: bool = False
    knee: float = 1.0

    def _transform(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        if self.kind == "log":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log10(values)
        if self.kind == "symlog":
            return np.sign(values) * np.log10(1 + np.abs(values) / self.knee)
        return np.asarray(values, dtype=float)

    @property
    def first(self) -> float:
        """Pixel of ``low`` (after the gutter for zero)."""
        return self.start + math.copysign(ZERO_GUTTER, self.stop - self.start) if self.zero else self.start

    def pixels(self, values: object) -> Float[np.ndarray, " n"]:
        """Pixel of each value; NaN where it cannot be drawn, values beyond the ends are clamped to them."""
        v = np.atleast_1d(np.asarray(values, dtype=float))
        low, high = self._transform(np.array([self.low, self.high]))
        with np.errstate(invalid="ignore"):
            inside = np.clip((self._transform(v) - low) / (high - low), 0, 1)
            out = self.first + inside * (self.stop - self.first)
            if self.kind == "log":
                out = np.where(v <= 0, self.start if self.zero else np.nan, out)
        return np.where(np.isfinite(v), out, np.nan)

    def ticks(self, most: int, *, as_percent: bool = False) -> list[tuple[float, str]]:
        """Pixels and labels of at most about ``most`` ticks."""
        values = {"linear": _linear_ticks, "log": _log_ticks, "symlog": _symlog_ticks}[self.kind](self, most)
        if self.zero:
            values = [0.0, *values]
        show = percent if as_percent else _short
        # Zero first: of labels too close together the later one goes.
        out: list[tuple[float, str]] = []
        for v in sorted(values, key=lambda v: v != 0):
            pixel = float(self.pixels(v)[0])
            if all(abs(pixel - other) >= CLOSEST for other, _ in out):
                out.append((pixel, show(v)))
        return sorted(out, key=lambda tick: abs(tick[0] - self.start))


def choose_scale(
    values: Float[np.ndarray, " n"],
    kind: Kind | Literal["auto"],
    start: float,
    stop: float,
    *,
    signed: bool = False,
    tight: bool = False,
) -> Scale:
    """The axis that shows these values: a kind (if ``"auto"``), ends on round numbers, and room for zeros.

    Args:
        values: everything drawn along the axis; non-finite entries are ignored, an empty array gives [0, 1].
        kind: wanted kind. ``log`` falls back to linear without positive values, to ``symlog`` with negative
            ones; ``auto`` takes a log (or symlog) axis when positive values span more than a factor of 30.
        start: pixel of the low end.
        stop: pixel of the high end.
        signed: include zero on a linear axis (slack).
        tight: end exactly at the largest value instead of on a round number (steps).
    """
    v = values[np.isfinite(values)]
    positive, negative = v[v > 0], v[v < 0]
    if kind == "auto":
        size = np.abs(v[v != 0])
        wide = size.size > 0 and size.max() > 30 * size.min()
        kind = "symlog" if wide and negative.size else "log" if wide else "linear"
    if kind == "log" and negative.size:
        kind = "symlog"
    if kind == "log" and positive.size:
        low, high = _log_ends(float(positive.min()), float(positive.max()))
        high = float(positive.max()) if tight and positive.max() > low else high
        return Scale("log", low, high, start, stop, zero=bool((v == 0).any()))
    if kind == "symlog" and v.size and np.abs(v).max() > 0:
        size = np.abs(v[v != 0])
        # The knee keeps at most six decades, so that a tiny violation below a large start stays visible.
        knee = max(float(size.min()), float(size.max()) * 1e-6)
        return Scale("symlog", min(float(v.min()), 0.0), max(float(v.max()), 0.0), start, stop, knee=knee)
    if not v.size:
        return Scale("linear", 0.0, 1.0, start, stop)
    low, high = float(v.min()), float(v.max())
    if signed or (low >= 0 and low < 0.4 * high):
        low, high = min(low, 0.0), max(high, 0.0)
    if not high > low:
        pad = abs(high) * 0.5 or 1.0
        low, high = (low - pad, high + pad) if low != 0 else (0.0, 1.0)
    step = _round_step((high - low) / 4)
    top = high if tight else math.ceil(high / step - 1e-9) * step
    return Scale("linear", math.floor(low / step + 1e-9) * step, top, start, stop)


def _short(value: float) -> str:
    return number(value, 3)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m for m in (1, 2, 2.5, 5, 10) if raw <= m * power * (1 + 1e-9)) * power


def _log_ends(low: float, high: float) -> tuple[float, float]:
    """Ends on a decade, or on 1, 2, 5 times a power of ten when the range is short."""
    decades = math.log10(high / low) if high / low < 1e300 else 300.0
    marks = (1.0,) if decades > 2 else (1.0, 2.0, 5.0)

    def candidates(value: float) -> list[float]:
        base = math.floor(math.log10(value))
        return [m * 10.0**e for e in (base - 1, base, base + 1) for m in marks]

    new_low = max(c for c in candidates(low) if c <= low * (1 + 1e-9))
    new_high = min(c for c in candidates(high) if c >= high * (1 - 1e-9))
    if not new_high > new_low:
        new_low, new_high = new_low / 10, new_high * 10
    return max(new_low, 1e-300), new_high


def _linear_ticks(scale: Scale, most: int) -> list[float]:
    step = _round_step((scale.high - scale.low) / max(most - 1, 1))
    first = math.ceil(scale.low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(scale.high / step + 1e-9) + 1)]


def _log_ticks(scale: Scale, most: int) -> list[float]:
    first, last = math.ceil(math.log10(scale.low) - 1e-9), math.floor(math.log10(scale.high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / most))
    decades = [10.0**e for e in range(first, last + 1, every)]
    if len(decades) > 2:
        return decades
    steps = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
    return [s for s in steps if scale.low * (1 - 1e-9) <= s <= scale.high * (1 + 1e-9)]


def _symlog_ticks(scale: Scale, most: int) -> list[float]:
    bottom = math.ceil(math.log10(scale.knee) - 1e-9)
    out = [0.0]
    for sign, end in ((1, scale.high), (-1, -scale.low)):
        if end >= scale.knee:
            top = math.floor(math.log10(end) + 1e-9)
            every = max(1, math.ceil(2 * (top - bottom + 1) / most))
            out += [sign * 10.0**e for e in range(top, bottom - 1, -every)]
    return sorted(out)
