"""Estimates that stay honest with mini-batches: unbiased ||grad f||^2, gradient noise, PL constants with a confidence interval.

A mini-batch's own squared norm is not an estimate of ``||grad f||^2``: ``E||g||^2 = ||grad f||^2 + tr Cov(g)``, and the second term usually
dominates, so a PL check with it passes falsely. Two *independent* gradients have ``E<g_1, g_2> = ||grad f||^2`` exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .conditions import WatchPL, lookup

if TYPE_CHECKING:
    from .log import RunLog

LEVEL = 0.95
LEAST = 12  # observations a window needs
MOST_WINDOWS = 8


def unbiased_grad_sq(total_sq: float, sum_sq: float, parts: int) -> float:
    """``(||sum_i g_i||^2 - sum_i ||g_i||^2) / (k (k - 1))``: the mean of ``<g_i, g_j>`` over ``i != j``.

    Its expectation is ``||grad f(w)||^2`` when the k gradients are independent given w with mean ``grad f(w)``. For disjoint parts drawn
    *without replacement* from n rows it is lower by ``tr Cov(one row) / (n - 1)``. It may be negative.

    Args:
        total_sq: ``||sum_i g_i||^2``.
        sum_sq: ``sum_i ||g_i||^2``.
        parts: ``k >= 2``.
    """
    return (total_sq - sum_sq) / (parts * (parts - 1))


def part_variance(total_sq: float, sum_sq: float, parts: int) -> float:
    """Unbiased estimate of ``tr Cov(g_i)``, the variance of one part: ``(sum ||g_i||^2 - ||sum g_i||^2 / k) / (k - 1)``."""
    return (sum_sq - total_sq / parts) / (parts - 1)


@dataclass(frozen=True)
class Parts:
    """The split gradients of a run, at the steps that recorded them (arrays of shape (n,)).

    Attributes:
        step: the steps.
        unbiased: unbiased estimates of ``||grad f||^2``.
        naive: the batch's own ``||mean of g_i||^2``.
        noise: estimates of ``tr Cov`` of the whole batch's gradient.
        per_sample: estimates of ``tr Cov`` of one row's gradient (NaN where the size of the parts is not known).
        records: the records.
    """

    step: Float[np.ndarray, " n"]
    unbiased: Float[np.ndarray, " n"]
    naive: Float[np.ndarray, " n"]
    noise: Float[np.ndarray, " n"]
    per_sample: Float[np.ndarray, " n"]
    records: list[dict[str, Any]]


def parts_of(log: RunLog) -> Parts:
    """Collect the split gradients of a log."""
    rows, kept = [], []
    for r in log.records:
        total, each, k = r.get("parts_total_sq"), r.get("parts_sum_sq"), r.get("parts", 2)
        if total is None or each is None or k < 2 or not math.isfinite(total + each):
            continue
        variance = part_variance(total, each, k)
        size = r.get("part_size")
        rows.append(
            (
                r["step"],
                unbiased_grad_sq(total, each, k),
                total / k**2,
                variance / k,
                variance * size if size else math.nan,
            )
        )
        kept.append(r)
    columns = np.array(rows, float).reshape(-1, 5).T
    return Parts(*columns, kept)


@dataclass(frozen=True)
class Interval:
    """An estimate with an approximate confidence interval."""

    estimate: float
    low: float
    high: float
    level: float
    count: int
    first: int
    last: int


def mean_interval(
    values: Float[np.ndarray, " n"], steps: Float[np.ndarray, " n"], level: float = LEVEL
) -> Interval:
    """Mean with a Student interval (approximate: the values are taken as uncorrelated)."""
    return ratio_interval(values, np.ones_like(values), steps, level)


@cache
def _quantile(level: float, freedom: int) -> float:
    from scipy.stats import t as student

    return float(student.ppf(level, freedom))


def ratio_interval(
    top: Float[np.ndarray, " n"],
    bottom: Float[np.ndarray, " n"],
    steps: Float[np.ndarray, " n"],
    level: float = LEVEL,
) -> Interval:
    """``sum top / sum bottom`` with an interval by the delta method and Student's quantile.

    ``top_t - E[top_t | past]`` are martingale differences when batches are fresh; what the conditional means add to the spread of
    ``top - ratio bottom`` only widens the interval. It is approximate, and its level is not guaranteed for heavy tails.
    """
    n = len(top)
    ratio = float(top.sum() / bottom.sum())
    residual = top - ratio * bottom
    spread = float(np.sqrt((residual**2).sum() / max(n - 1, 1) / n) / abs(bottom.mean()))
    half = _quantile(0.5 + level / 2, max(n - 1, 1)) * spread
    return Interval(ratio, ratio - half, ratio + half, level, n, int(steps[0]), int(steps[-1]))


@dataclass(frozen=True)
class PLEstimate:
    """An empirical (proxy-)PL constant.

    In each window of the run ``||grad f||^alpha`` (alpha = 2; for alpha = 1 the squares of both sides) is averaged over the window's
    iterates and divided by the average of ``g - xi``. It is an estimate about averages over windows, never a bound at each iterate.

    Attributes:
        watch: the condition.
        windows: interval of ``mu`` in each window, at a level that covers all windows at once (Bonferroni).
        naive: what the batches' own squared norms would have said in the worst window (biased upwards; for comparison only).
    """

    watch: WatchPL
    windows: tuple[Interval, ...]
    naive: float

    @property
    def worst(self) -> Interval:
        """The window with the smallest estimate."""
        return min(self.windows, key=lambda w: w.estimate)

    @property
    def shown(self) -> bool:
        """Whether the smallest constant is positive beyond chance: the lower end of every window's interval is > 0."""
        return all(w.low > 0 for w in self.windows)

    @property
    def since(self) -> int:
        """First step of the windows from which on every interval is positive; -1 if the last one is not."""
        step = -1
        for w in reversed(self.windows):
            if not w.low > 0:
                break
            step = w.first
        return step


def pl_estimate(log: RunLog, watch: WatchPL, level: float = LEVEL) -> PLEstimate | None:
    """The empirical constant of a (proxy-)PL condition; None without enough split gradients.

    For alpha = 1 the square of the condition is used: ``||grad f||^2 >= (mu/2)^2 (g - xi)_+^2``. The batch's ``(g - xi)_+^2`` is on average larger
    than that of all data (Jensen), so the constant errs low.
    """
    parts = parts_of(log)
    excess = np.array([_excess(r, watch) for r in parts.records], float)
    use = np.isfinite(excess)
    x, y, at = parts.unbiased[use], excess[use], parts.step[use]
    naive = parts.naive[use]
    if len(x) < LEAST:
        return None
    count = int(min(MOST_WINDOWS, max(1, len(x) // (2 * LEAST))))
    share = 1 - (1 - level) / count
    windows, rough = [], []
    for part in np.array_split(np.arange(len(x)), count):
        if not y[part].mean() > 0:
            continue
        found = ratio_interval(x[part], y[part], at[part], share)
        windows.append(_as_mu(found, watch.alpha))
        rough.append(_mu(float(naive[part].sum() / y[part].sum()), watch.alpha))
    if not windows:
        return None
    return PLEstimate(watch, tuple(windows), min(rough))


def _excess(record: dict[str, Any], watch: WatchPL) -> float:
    g = lookup(watch.g, record, "")
    if g is None:
        return math.nan
    return g - watch.xi if watch.alpha == 2 else max(g - watch.xi, 0.0) ** 2


def _mu(ratio: float, alpha: int) -> float:
    """``ratio = ||grad||^2 / (g - xi)^(2/alpha)`` as ``mu``."""
    return 2 * ratio if alpha == 2 else 2 * math.copysign(math.sqrt(abs(ratio)), ratio)


def _as_mu(found: Interval, alpha: int) -> Interval:
    a, b, c = (_mu(v, alpha) for v in (found.estimate, found.low, found.high))
    return Interval(a, b, c, found.level, found.count, found.first, found.last)
