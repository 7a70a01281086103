"""From the rows that the compiled loop returns to a `Trace`: sums, minima and maxima over every step, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..core.methods import SGD, Method
from .trace import COLUMNS, SUMS, Trace

LOSS, G, H, INNER, GRAD_SQ, DIST_SQ, ERROR, SLOPE, ETA = range(len(COLUMNS))
# Columns that hold values on all data under SGD, in the order of kernels.FULL_COLUMNS.
FULL = (LOSS, G, H, ERROR, SLOPE)
_SCALARS = (
    "min_error", "min_error_step", "min_loss", "min_loss_step", "max_dist_sq", "max_dist_step", "exit_step",
    "max_dist_sq_until_exit", "min_slack", "min_slack_step", "max_growth", "filled",
)  # fmt: skip


class Recorder:
    """Collects one run.

    Args:
        method: what is run.
        schedule: steps to record, from `sampling.record_steps`.
        online: keep the rows of every step.
        rows: number of rows of the data; at most ``rows + 2`` falls of the least error are kept.
    """

    def __init__(self, method: Method, schedule: Int[np.ndarray, " k"], online: bool, rows: int) -> None:
        self.limit = rows + 2
        self.method, self.schedule, self.stochastic = method, schedule, isinstance(method, SGD)
        self.records = np.full((len(COLUMNS), len(schedule)), np.nan)
        self.prefix = np.zeros((len(SUMS), len(schedule)))
        # Not filled: only what was written is read, and filling takes as long as many steps.
        self.online = np.empty((len(COLUMNS), method.steps if online else 0))
        # Running sums as unevaluated pairs high + low (Neumaier), shape (2, sums).
        self.total = np.zeros((2, len(SUMS)))
        self._rows = np.empty((5, 0))
        self.filled = 0
        self.min_error = self.min_loss = self.min_slack = math.inf
        self.min_error_step = self.min_loss_step = self.min_slack_step = 0
        self.max_dist_sq = self.max_dist_sq_until_exit = -math.inf
        self.max_growth = 0.0
        self.max_dist_step, self.exit_step = 0, -1
        self.improved: list[tuple[float, float, float]] = []

    def due(self, start: int, stop: int) -> Int[np.ndarray, " r"]:
        """Scheduled steps in ``start .. stop - 1``."""
        a, b = np.searchsorted(self.schedule, (start, stop))
        return self.schedule[a:b]

    @staticmethod
    def first_bad(c: Float[np.ndarray, "9 c"]) -> int | None:
        """Index of the first step with an overflow or a NaN (the proxies may be infinite), or None."""
        with np.errstate(all="ignore"):
            finite = (LOSS, INNER, GRAD_SQ, DIST_SQ)
            # One number tells for most chunks; it may overflow where no entry does.
            if np.isfinite(sum(c[k].sum() for k in finite)):
                return None
            good = np.isfinite(c[LOSS] + c[INNER] + c[GRAD_SQ] + c[DIST_SQ])
        return None if good.all() else int(np.argmin(good))

    def absorb(
        self,
        start: int,
        columns: Float[np.ndarray, "9 c"],
        full: Float[np.ndarray, "r 5"] | None,
        at: np.ndarray,
    ) -> bool:
        """Take in the finite numbers of steps ``start, start + 1, ...``.

        Args:
            start: first step.
            columns: `COLUMNS` on the rows used, by step.
            full: for SGD: values on all data at the steps ``at``.
            at: scheduled steps in this range, from `due`.

        Returns:
            Whether the least error so far went down.
        """
        count = columns.shape[1]
        if not count:
            return False
        columns, offsets = np.ascontiguousarray(columns), at - start
        before = self.max_dist_sq
        with np.errstate(all="ignore"):
            self._region(start, columns)
            farthest = columns[DIST_SQ].max()
            if farthest > self.max_dist_sq:
                self.max_dist_sq = float(farthest)
                self.max_dist_step = start + int(np.argmax(columns[DIST_SQ]))
            self._premises(start, columns)
            self._add(columns, offsets)
        k = slice(self.filled, self.filled + len(at))
        self.records[:, k] = columns[:, offsets]
        if full is not None:
            self.records[FULL, k] = full[: len(at)].T
        self.filled += len(at)
        if self.online.size:
            self.online[:, start : start + count] = columns
        error, loss = (
            (columns[ERROR], columns[LOSS]) if full is None else (full[: len(at), 3], full[: len(at), 0])
        )
        steps = start + np.arange(count) if full is None else at
        return self._least(
            steps, error, loss, lambda i: max(before, columns[DIST_SQ, : steps[i] - start + 1].max())
        )

    def _add(self, c: Float[np.ndarray, "9 c"], offsets: Int[np.ndarray, " r"]) -> None:
        """Add the steps to the running sums and store the sums before every recorded step."""
        weighted, squared, g, h, size = room = self._room(c)
        for k, out in zip((INNER, GRAD_SQ, G, H), room, strict=False):
            np.multiply(c[ETA], c[k], out=out)
        np.multiply(c[ETA], squared, out=squared)
        np.abs(weighted, out=size)
        terms = (c[ETA], weighted, squared, g, h, c[G], c[H], c[ERROR], size, c[LOSS], c[SLOPE])
        # One pairwise sum per stretch between two records, then a short running sum over the stretches.
        late = len(offsets) == 0 or offsets[0] > 0
        cuts = np.concatenate([[0], offsets]) if late else offsets
        stretches = np.stack([np.add.reduceat(term, cuts) for term in terms]).astype(np.longdouble)
        ends = np.cumsum(stretches, axis=1)
        before = np.zeros((len(SUMS), len(offsets)), np.longdouble)
        before[:, 0 if late else 1 :] = ends[:, :-1]
        high, low = self.total
        k = slice(self.filled, self.filled + len(offsets))
        self.prefix[:, k] = high[:, None] + (low[:, None] + before)
        part = ends[:, -1].astype(np.float64)
        new = high + part
        # Neumaier: what the addition lost, taken from the smaller of the two.
        lost = np.where(np.abs(high) >= np.abs(part), (high - new) + part, (part - new) + high)
        self.total = np.stack([new, low + lost + (ends[:, -1] - part).astype(np.float64)])

    def _region(self, start: int, c: Float[np.ndarray, "9 c"]) -> None:
        """Largest distance until the first ``t`` with ``sum_{s<t} (g_s - h_s) < 0``, exclusive."""
        if self.exit_step >= 0:
            return
        before = (self.total[:, SUMS.index("sum_g")] - self.total[:, SUMS.index("sum_h")]).sum()
        gained = np.subtract(c[G], c[H], out=self._room(c)[0])
        last = len(gained) - 1
        # Only where all losses together could bring the sum below zero is it followed step by step.
        if not before + np.minimum(gained, 0.0, out=self._room(c)[1]).sum() > 0:
            negative = np.cumsum(gained) + before < 0
            if negative.any():
                last = int(np.argmax(negative))
                self.exit_step = start + last + 1
        self.max_dist_sq_until_exit = max(self.max_dist_sq_until_exit, float(c[DIST_SQ, : last + 1].max()))

    def _premises(self, start: int, c: Float[np.ndarray, "9 c"]) -> None:
        """Least slack of proxy convexity and largest gradient growth."""
        slack, growth = self._room(c)[:2]
        np.subtract(c[INNER], c[G], out=slack)
        slack += c[H]
        if np.fmin.reduce(slack) < self.min_slack:
            k = int(np.nanargmin(slack))
            self.min_slack, self.min_slack_step = float(slack[k]), start + k
        # Not a number where the gradient is zero and the slope too: no growth.
        np.sqrt(c[GRAD_SQ], out=growth)
        growth /= c[SLOPE]
        self.max_growth = max(self.max_growth, float(np.fmax.reduce(growth)))

    def _room(self, c: Float[np.ndarray, "9 c"]) -> Float[np.ndarray, "5 c"]:
        """Rows to compute in. Fresh memory for every product would cost more than the product."""
        if self._rows.shape[1] < c.shape[1]:
            self._rows = np.empty((5, c.shape[1]))
        return self._rows[:, : c.shape[1]]

    def _least(
        self, at: np.ndarray, error: np.ndarray, loss: np.ndarray, farthest: Callable[[int], float]
    ) -> bool:
        """Update the minima with the iterates ``at``; ``farthest(i)`` is the largest distance up to ``at[i]``."""
        if not len(at):
            return False
        k = int(np.argmin(loss))
        if loss[k] < self.min_loss:
            self.min_loss, self.min_loss_step = float(loss[k]), int(at[k])
        if not error.min() < self.min_error:
            return False
        before = np.minimum.accumulate(np.append(self.min_error, error))[:-1]
        better = np.flatnonzero(error < before)
        self.improved += [(int(at[i]), float(error[i]), float(farthest(i))) for i in better]
        # A 0/1 error can go down n + 1 times at most; a real-valued one is thinned to bound the memory.
        if len(self.improved) > self.limit:
            self.improved = [*self.improved[: self.limit - 1], self.improved[-1]]
        self.min_error, self.min_error_step = self.improved[-1][1], self.improved[-1][0]
        return True

    def state(self) -> dict[str, np.ndarray]:
        """Everything needed to go on later; see `restore`."""
        out = {name: np.array(getattr(self, name)) for name in _SCALARS}
        done = self.filled
        return out | {
            "records": self.records[:, :done],
            "prefix": self.prefix[:, :done],
            "total": self.total,
            "improved": np.array(self.improved, dtype=np.float64).reshape(-1, 3),
        }

    def restore(self, state: dict[str, np.ndarray], online: Float[np.ndarray, "9 t"]) -> None:
        """Go back to a stored state."""
        for name in _SCALARS:
            setattr(self, name, state[name].item())
        self.records[:, : self.filled], self.prefix[:, : self.filled] = state["records"], state["prefix"]
        self.total = state["total"]
        self.improved = [(int(s), float(e), float(d)) for s, e, d in state["improved"]]
        if self.online.size:
            self.online[:, : online.shape[1]] = online

    def finish(
        self, steps_done: int, row: Float[np.ndarray, " 9"], full: Float[np.ndarray, " 5"] | None, **rest: Any
    ) -> Trace:
        """The trace, closed with the numbers of the iterate from which no step was taken.

        Args:
            steps_done: steps taken.
            row: `COLUMNS` at ``w_{steps_done}``.
            full: for SGD: values on all data there.
            **rest: the remaining fields of `Trace`.
        """
        last = np.array(row, dtype=np.float64)
        last[ETA] = 0.0
        if full is not None:
            last[list(FULL)] = full
            last[[INNER, GRAD_SQ]] = np.nan
        if last[DIST_SQ] > self.max_dist_sq:
            self.max_dist_sq, self.max_dist_step = float(last[DIST_SQ]), steps_done
        k = self.filled
        records = np.concatenate([self.records[:, :k], last[:, None]], axis=1)
        prefix = np.concatenate([self.prefix[:, :k], self.total.sum(axis=0)[:, None]], axis=1)
        # What nothing was measured for stays out of JSON's way as NaN rather than as an infinity.
        scalars = {n: getattr(self, n) for n in _SCALARS if n != "filled"}
        scalars |= {
            n: math.nan for n, v in scalars.items() if isinstance(v, float) and math.isinf(v) and not k
        }
        improved = np.array(self.improved, dtype=np.float64).reshape(-1, 3)
        return Trace(
            step=np.append(self.schedule[:k], steps_done).astype(np.int64),
            sums=dict(zip(SUMS, prefix, strict=True)),
            **dict(zip(COLUMNS, records, strict=True)),
            best_steps=improved[:, 0].astype(np.int64),
            best_errors=improved[:, 1].copy(),
            best_max_dist_sq=improved[:, 2].copy(),
            online=dict(zip(COLUMNS, self.online[:, :steps_done], strict=True)) if self.online.size else {},
            method=self.method,
            steps_done=steps_done,
            **scalars,
            **rest,
        )
