"""The figures of a monitored run, from its log; every one says which gradient it shows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..monitor.conditions import WatchConvexity, lookup, watches_of
from ..monitor.estimates import parts_of
from ..monitor.summary import Summary
from ..monitor.words import GRADIENT_WORDS
from .figures import Chart, Level, Role, Series

ROLES: tuple[Role, ...] = ("run", "second", "promise", "good")


def seen(summary: Summary) -> str:
    """Which gradient the records saw, in a few words."""
    return " / ".join(
        f"{g} gradient: " + ", ".join(GRADIENT_WORDS[k] for k in g.split("+")) for g in summary.gradients
    )


def _series(summary: Summary, key: str, label: str, role: Role, comparator: str | None = None) -> Series:
    x, y = summary.log.column(key, comparator)
    return Series(label, np.array(x, float), np.array(y, float), role)


def _chart(key: str, title: str, text: str, y_label: str, series: list[Series], **more: Any) -> Chart | None:
    kept = tuple(s for s in series if len(s.x) and np.isfinite(s.y).any())
    more = {"x_scale": "auto", "y_scale": "auto", "size": "half"} | more
    return Chart(key=key, title=title, summary=text, y_label=y_label, series=kept, **more) if kept else None


def charts(summary: Summary) -> list[Chart]:
    """Everything that was recorded, most important first."""
    made = [
        _loss(summary),
        _ledger(summary),
        _gradient(summary),
        _distance(summary),
        *_slacks(summary),
        *_pl(summary),
        _proxies(summary),
        _steps(summary),
    ]
    return [c for c in made if c is not None]


def _loss(s: Summary) -> Chart | None:
    series = [_series(s, "loss", "loss of the step's batch", "run")]
    for k, c in enumerate(s.log.header["comparators"]):
        role = ("promise", "good", "second")[k % 3]
        series.append(_series(s, "tangent_loss", f"tangent loss at v = {c} (U1)", role, c))
    return _chart(
        "loss", "Loss", "The loss of each recorded step's own batch (not of all data, unless the run is full-batch).", "loss", series
    )  # fmt: skip


def _ledger(s: Summary) -> Chart | None:
    series: list[Series] = []
    for k, c in enumerate(s.log.header["comparators"][:2]):
        rows = [(step, t["tracks"][c]) for step, t in s.log.history if not t["tracks"][c]["partial"]]
        at = np.array([step for step, _ in rows], float)
        for side, label, role in (
            ("left", "Σ ⟨u, w − v⟩", ("run", "good")[k]),
            ("right", "right side", ("promise", "second")[k]),
        ):
            y = np.array([t[side] for _, t in rows], float)
            series.append(Series(f"{label}, v = {c}", at, y, role, dashed=side == "right"))
    text = "Both sides of the identity T7 so far, from different measurements; in exact arithmetic the curves coincide."
    return _chart("ledger", "The ledger (T7)", text, "both sides", series, y_scale="linear")


def _gradient(s: Summary) -> Chart | None:
    parts = parts_of(s.log)
    series = [
        _series(s, "grad_sq", "‖g‖² of the step's gradient", "faint" if len(parts.step) else "run"),
        _series(s, "raw_grad_sq", "‖g‖² before clipping", "second"),
    ]
    text = f"Squared norm of the gradient seen ({seen(s)})."
    if len(parts.step):
        mean = _smoothed(parts.unbiased)
        series[0] = Series("‖g‖² of the batch (too large)", parts.step, _smoothed(parts.naive), "second")
        series.append(Series("unbiased ‖∇f‖² from split batches", parts.step, mean, "run"))
        text += " Running means over up to 25 records; the unbiased estimate may be negative."
    return _chart("gradient", "Gradient", text, "squared norm", series)


def _smoothed(y: np.ndarray, width: int = 25) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(y)])
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(ends - width, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def _distance(s: Summary) -> Chart | None:
    series = []
    for k, c in enumerate(s.log.header["comparators"]):
        x, y = s.log.column("dist_sq", c)
        series.append(
            Series(f"‖w − v‖, v = {c}", np.array(x, float), np.sqrt(np.maximum(y, 0)), ROLES[k % 4])
        )
    if "init" not in s.log.header["comparators"]:
        x, y = s.log.column("dist0_sq")
        series.append(Series("‖w − w₀‖", np.array(x, float), np.sqrt(np.maximum(y, 0)), "second"))
    return _chart("distance", "Where the weights went", "Distance to each comparator.", "distance", series)


def _slacks(s: Summary) -> list[Chart]:
    """One figure for each watched proxy convexity that was recorded."""
    made = []
    for name, watch in watches_of(s.log.header).items():
        if not isinstance(watch, WatchConvexity):
            continue
        series = []
        for k, c in enumerate(s.log.header["comparators"]):
            rows = [(r["step"], _slack(watch, r, c)) for r in s.log.records]
            kept = [(a, b) for a, b in rows if b is not None]
            x, y = np.array(kept, float).reshape(-1, 2).T
            series.append(Series(f"slack, v = {c}", x, y, ROLES[k % 4]))
        text = f"⟨grad, w − v⟩ − {watch.g} + {watch.h} on each step's own batch: proxy convexity holds where this is not negative ({seen(s)})."
        chart = _chart(f"pc{len(made)}", f"Proxy convexity: {name}", text, "slack", series, signed=True)
        if chart is not None:
            made.append(chart)
    return made


def _slack(watch: WatchConvexity, record: dict[str, Any], c: str) -> float | None:
    inner = record.get("raw_grad_w_minus_v") or record.get("grad_w_minus_v") or {}
    g, h = lookup(watch.g, record, c), lookup(watch.h, record, c)
    if record.get("skipped") or g is None or h is None or c not in inner:
        return None
    return inner[c] - g + h


def _pl(s: Summary) -> list[Chart]:
    made = []
    for k, e in enumerate(s.estimates):
        x = np.array([[w.first, w.last, math.nan] for w in e.windows], float).ravel()
        wide = lambda values: np.array([[v, v, math.nan] for v in values], float).ravel()  # noqa: E731 - three curves
        series = [
            Series("estimate", x, wide(w.estimate for w in e.windows), "run"),
            Series("95% interval", x, wide(w.low for w in e.windows), "second", dashed=True),
            Series("95% interval", x, wide(w.high for w in e.windows), "second", dashed=True),
        ]
        levels = (Level(f"a naive check would have said {e.naive:.3g}", e.naive, "promise"),)
        text = f"μ of ‖∇f‖^{e.watch.alpha} ≥ (μ/2)({e.watch.g} − {e.watch.xi:g}) in each window of the run, from split batches, with an interval for all windows at once."
        chart = _chart(f"pl{k}", f"Empirical constant: {e.watch.name}", text, "μ", series, levels=levels, signed=True, y_scale="linear", x_scale="linear")  # fmt: skip
        made.append(chart)
    return [c for c in made if c is not None]


def _proxies(s: Summary) -> Chart | None:
    known = [("slope", "|ℓ′|", "run"), ("error", "error", "promise")]
    series = [_series(s, key, f"{label} on the batch", role) for key, label, role in known]
    return _chart(
        "proxies", "Proxies", "Mean of |ℓ′| and the error on each recorded step's own batch.", "value", series
    )


def _steps(s: Summary) -> Chart | None:
    series = [_series(s, "eta", "step size η", "run")]
    x, y = s.log.column("update_sq")
    series.append(
        Series("‖u‖, size of the step taken", np.array(x, float), np.sqrt(np.maximum(y, 0)), "second")
    )
    return _chart(
        "steps", "Steps", "Step size, and how far the weights moved in each recorded step.", "size", series
    )
