"""Small runs with everything known: logistic regression watched by the framework-neutral ledger, in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from proxyconvex.monitor.conditions import WatchConvexity, WatchPL
from proxyconvex.monitor.ledger import Ledger

ROWS, FEATURES = 200, 5


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, FEATURES))
    y = np.sign(x[:, 0] + 0.4 * rng.normal(size=ROWS))
    v = np.zeros(FEATURES)
    v[0] = 2.0
    return x, y, v


def loss_and_gradient(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, float]:
    q = y * (x @ w)
    s = 1 / (1 + np.exp(q))
    return float(np.logaddexp(0, -q).mean()), -(x * (y * s)[:, None]).mean(0), float(s.mean())


def dots_of(
    w: np.ndarray, g: np.ndarray, u: np.ndarray, points: dict[str, np.ndarray], w0: np.ndarray
) -> dict[str, Any]:
    return {
        "grad_sq": float(g @ g),
        "grad_w_minus_v": {c: float(g @ (w - v)) for c, v in points.items()},
        "dist_sq": {c: float((w - v) @ (w - v)) for c, v in points.items()},
        "dist0_sq": float((w - w0) @ (w - w0)),
        "update_sq": float(u @ u),
        "update_dot": {c: float(u @ (w - v)) for c, v in points.items()},
        "update_grad": float(u @ g),
    }


def train(
    ledger: Ledger | None = None,
    *,
    full_batch: bool = False,
    momentum: float = 0.0,
    steps: int = 150,
    eta: float = 0.05,
    batch: int = 32,
    seed: int = 0,
    log_dir: Any = None,
    start: int = 0,
    state: Any = None,
    close: bool = True,
    preset: Any = "full",
    **arguments: Any,
) -> tuple[Ledger, Any]:
    """A run of (S)GD or heavy ball; ``state`` continues another one bit for bit."""
    x, y, v = problem(seed)
    w0 = np.zeros(FEATURES)
    points = {"init": w0, "teacher": v}
    if ledger is None:
        ledger = Ledger(
            log_dir,
            comparators=tuple(points),
            preset=preset,
            precision="float64",
            meta={"full_batch": full_batch, "loss": "logistic"},
            watches=[WatchConvexity("own", "loss", "loss_v"), WatchPL("slope", "slope", 0.0, 1)],
            **arguments,
        )
    w, m = (w0.copy(), np.zeros(FEATURES)) if state is None else state
    for t in range(start, steps):
        rows = np.arange(ROWS) if full_batch else np.random.default_rng([seed, t]).integers(0, ROWS, batch)
        f, g, slope = loss_and_gradient(w, x[rows], y[rows])
        extra: dict[str, Any] = {"slope": slope}
        extra["loss_v"] = {c: loss_and_gradient(p, x[rows], y[rows])[0] for c, p in points.items()}
        if not full_batch:
            half = batch // 2
            a, b = (loss_and_gradient(w, x[r], y[r])[1] for r in (rows[:half], rows[half:]))
            extra |= {
                "parts": 2,
                "parts_total_sq": float((a + b) @ (a + b)),
                "parts_sum_sq": float(a @ a + b @ b),
                "part_size": half,
            }
        m = momentum * m + g
        u = eta * m
        ledger.observe(t, eta=eta, loss=f, dots=dots_of(w, g, u, points, w0), extra=extra)
        w = w - u
    if close:
        ledger.close(dist_sq={c: float((w - p) @ (w - p)) for c, p in points.items()}, dist0_sq=float(w @ w))
    return ledger, (w, m)
