"""T7 for one comparator: both sides of the identity as running sums, compared at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from ..core.evidence import Evidence, Status, Verdict
from ..core.trace_identity import right_side, rounding_scale
from .sums import RunningSum

INF = math.inf


@final
@dataclass(frozen=True)
class Rounding:
    """What rounding may explain.

    Attributes:
        tolerance: relative error of the dot products: ``|computed <a,b> - <a,b>| <= tolerance ||a|| ||b||``.
        weight_unit: unit roundoff of the stored weights if the update is the *intended* one (the weights round it: an
            error of at most ``weight_unit ||w_{t+1}||``), 0 if it was measured as ``w_t - w_{t+1}``.
        comparator_norm: ``||v||``, needed when ``weight_unit > 0``.
    """

    tolerance: float
    weight_unit: float = 0.0
    comparator_norm: float = 0.0


@final
class Track:
    """Running sums of T7 against one comparator ``v``, for any updates ``w_{t+1} = w_t - u_t``.

        sum_{s<t} <u_s, w_s - v> = (||w_0 - v||^2 - ||w_t - v||^2)/2 + (1/2) sum_{s<t} ||u_s||^2

    *Proof.* ``||w_{s+1} - v||^2 = ||w_s - v||^2 - 2 <u_s, w_s - v> + ||u_s||^2``; sum over s. Nothing is assumed: not the
    optimiser, not the loss. For plain SGD ``u = eta d`` and this is T7 (theory of this library's notes).

    The two sides come from different measurements (inner products of the updates; distances), so the check can fail: it does if
    the weights changed by anything but the recorded updates, or if a gradient was not the one that was used.

    Steps that were not measured end a *stretch*; the sums are over the steps of all stretches, each of which telescopes by itself. A step
    whose arrival was not measured as a distance can bring its ``drop = ||w_t - v||^2 - ||w_{t+1} - v||^2`` instead, formed from the
    difference of the stored weights, ``2 <w_t - w_{t+1}, w_t - v> - ||w_t - w_{t+1}||^2``. Its rounding is relative to the step, not
    to the distance, so with it a single step is compared sharply.
    """

    def __init__(self, rounding: Rounding) -> None:
        self.rounding = rounding
        self.worst, self.worst_step, self.broken_step, self.jump_step = 0.0, -1, -1, -1
        self.checks = self.unmeasured = 0
        self._begin()

    def _begin(self) -> None:
        self.dot, self.inner = RunningSum(), RunningSum()
        self.size, self.absolute, self.update_sq, self.drift = (RunningSum() for _ in range(4))
        # Of the stretches that have ended: what the distances fell by, and the scale of their rounding.
        self.dropped, self.ends = RunningSum(), RunningSum()
        self.first_sq = self.last_sq = self.stretch_sq = math.nan
        self.first_step, self.stretch_checks = -1, 0
        # <u, w - v>, ||u||^2 and, where it is known, the drop of the step just taken.
        self.pending: tuple[float, float, float | None] | None = None

    @property
    def here(self) -> bool:
        """Whether the distance at the current point is known, so that a step may leave from it."""
        return math.isfinite(self.stretch_sq) and self.pending is None

    def arrive(self, step: int, dist_sq: float) -> None:
        """The run has arrived at ``w_step``: compare both sides of what was summed so far."""
        if not math.isfinite(self.first_sq):
            self.first_sq, self.first_step = dist_sq, step
        if not math.isfinite(self.stretch_sq):
            self.stretch_sq, self.stretch_checks = dist_sq, 0
        elif self.pending is not None:
            dot, square, drop = self.pending
            drift = self._add(dot, square, dist_sq)
            size = math.sqrt(max(square * self.last_sq, 0.0)) + (self.last_sq + dist_sq + square) / 2
            good = self._adds_up(dot, square, self.last_sq - dist_sq, size, drift)
            if good and drop is not None:
                good = self._adds_up(dot, square, drop, self._drop_size(square), drift)
            self.stretch_checks += 1
            self._judge(step, good, dist_sq)
        self.last_sq, self.pending = dist_sq, None

    def leave(self, dot: float, square: float, eta_inner: float, drop: float | None = None) -> None:
        """The step from the last point: ``<u, w - v>``, ``||u||^2``; where known, ``eta <d, w - v>`` and the measured drop."""
        self.pending = (dot, square, drop)
        self.inner.add(eta_inner)

    def skip(self, step: int, steps: int = 1) -> None:
        """The step from ``w_step``, or so many from there on, is not measured: the stretch of measured steps ends, at the latest here."""
        self.unmeasured += steps
        if not math.isfinite(self.stretch_sq):
            return
        dropped, ends = self.stretch_sq - self.last_sq, 0.0
        if self.stretch_checks:
            ends = (self.stretch_sq + self.last_sq) / 2
        pending, self.pending = self.pending, None
        if pending is None or pending[2] is None:
            # A pending step whose end was not measured cannot be compared and is left out.
            self._end(dropped, ends)
            return
        dot, square, drop = pending
        drift = self._add(dot, square, max(self.last_sq - drop, 0.0))
        size = self._drop_size(square)
        self._end(dropped + drop, ends + size / 2)
        self._judge(step, self._adds_up(dot, square, drop, size, drift), math.nan)

    def restart(self) -> None:
        """Steps were missed: what follows is judged by itself (the running sums start again)."""
        self._begin()

    def _end(self, dropped: float, ends: float) -> None:
        self.dropped.add(dropped)
        self.ends.add(ends)
        self.stretch_sq = math.nan

    def _add(self, dot: float, square: float, dist_sq: float) -> float:
        """Take a step into the sums; returns what the rounding of the weights may have done to it."""
        self.dot.add(dot)
        self.absolute.add(abs(dot))
        self.update_sq.add(square)
        self.size.add(math.sqrt(max(square, 0.0) * max(self.last_sq, 0.0)))
        unit = self.rounding.weight_unit
        if not unit:
            return 0.0
        far = math.sqrt(max(dist_sq, 0.0))
        drift = unit * (self.rounding.comparator_norm + far) * far * 1.0001
        self.drift.add(drift)
        return drift

    def _drop_size(self, square: float) -> float:
        return 2 * math.sqrt(max(square * self.last_sq, 0.0)) + square

    def _adds_up(self, dot: float, square: float, drop: float, size: float, drift: float) -> bool:
        return abs(dot - right_side(drop, square)) <= self.rounding.tolerance * size + drift

    def _judge(self, step: int, adds_up: bool, dist_sq: float) -> None:
        """Count a comparison that ended at ``w_step``."""
        if not adds_up and self.jump_step < 0:
            self.jump_step = step
        self.checks += 1
        gap, allowed = self._gap(dist_sq)
        share = gap / allowed if allowed > 0 else (INF if gap > 0 else 0.0)
        if not share <= self.worst:
            self.worst, self.worst_step = share, step
        if not share <= 1 and self.broken_step < 0:
            self.broken_step = step

    def right(self, dist_sq: float) -> float:
        """``(||w_0 - v||^2 - ||w_t - v||^2)/2 + (1/2) sum ||u||^2``, stretch by stretch; ``dist_sq`` is that at the current point."""
        dropped = self.dropped.value
        if math.isfinite(self.stretch_sq):
            dropped += self.stretch_sq - dist_sq
        return right_side(dropped, self.update_sq.value)

    def _gap(self, dist_sq: float) -> tuple[float, float]:
        ends = 2 * self.ends.value  # kept as halves
        if math.isfinite(self.stretch_sq):
            ends += self.stretch_sq + dist_sq
        scale = rounding_scale(self.size.value, ends, self.update_sq.value)
        return abs(self.dot.value - self.right(dist_sq)), self.rounding.tolerance * scale + self.drift.value

    def sides(self) -> tuple[float, float]:
        """Both sides at the last point arrived at, without the step that has not arrived anywhere yet."""
        return self.dot.value, self.right(self.last_sq)

    def verdict(self, form: str) -> Verdict:
        """T7 over everything that was compared: HOLDS or FALSIFIED with both sides as witness."""
        if self.checks == 0 and self.unmeasured:
            return Verdict(
                Status.INCONCLUSIVE,
                "T7 was not checked as an identity: the update was not recorded at every step (the preset's choice; record it at every "
                "step to check it).",
            )
        if self.checks == 0:
            return Verdict(Status.INVALID_INPUT, "T7 has not been checked: it needs two points of the run.")
        left, right = self.sides()
        terms = "sum <u_t, w_t - v>" if form == "update" else "sum eta_t <d_t, w_t - v>"
        squares = "sum ||u_t||^2" if form == "update" else "sum eta_t^2 ||d_t||^2"
        ends, others = "(||w_0-v||^2 - ||w_T-v||^2)/2", ""
        if self.unmeasured:
            ends = "sum (||w_t-v||^2 - ||w_{t+1}-v||^2)/2"
            others = f" ({self.unmeasured:,} other steps were not compared)"
        numbers = f"{terms} = {left:.9g}, {ends} + (1/2) {squares} = {right:.9g}"
        witness = {"left": left, "right": right, "share": self.worst, "step": self.worst_step, "form": form}
        if self.broken_step < 0 and self.jump_step < 0:
            return Verdict(
                Status.HOLDS,
                f"T7 held at all {self.checks:,} steps compared{others}: {numbers}; the largest gap was {100 * self.worst:.2g}% of what "
                f"rounding allows.",
                Evidence.ON_TRACE,
                witness,
            )
        step = self.jump_step if self.jump_step >= 0 else self.broken_step
        why = (
            f"between step {step - 1:,} and step {step:,} the weights changed by something other than the recorded update"
            if self.jump_step >= 0
            else f"the gap first exceeded rounding at step {step:,}"
        )
        return Verdict(
            Status.FALSIFIED,
            f"T7 is broken: {why} ({numbers}; the largest gap was {self.worst:.3g} times what rounding allows).",
            Evidence.ON_TRACE,
            witness | {"step": step},
        )

    def summary(self, form: str) -> dict[str, Any]:
        """Both sides at the last point arrived at, and how they compare."""
        left, right = self.sides()
        inner = self.inner.value
        judged = self.verdict(form)
        return {
            "left": left,
            "right": right,
            "inner": inner if math.isfinite(inner) else None,
            "first_sq": self.first_sq,
            "last_sq": self.last_sq,
            "update_sq": self.update_sq.value,
            "absolute": self.absolute.value,
            "share": self.worst,
            "checks": self.checks,
            "partial": self.unmeasured > 0 and self.checks == 0,
            "unmeasured": self.unmeasured,
            "since": self.first_step,
            "status": judged.status.name,
            "sentence": judged.sentence,
        }

    # --- what survives a restart of the process ---

    _SUMS = ("dot", "inner", "size", "absolute", "update_sq", "drift", "dropped", "ends")
    _PLAIN = (
        "first_sq", "last_sq", "stretch_sq", "worst", "worst_step", "broken_step", "jump_step", "checks", "unmeasured", "first_step",
        "stretch_checks",
    )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values; `restore` is its inverse bit for bit."""
        sums = {k: getattr(self, k).state() for k in self._SUMS}
        plain = {k: getattr(self, k) for k in self._PLAIN}
        return {"sums": sums, "plain": plain, "pending": None if self.pending is None else list(self.pending)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a `state`."""
        for k in self._SUMS:
            setattr(self, k, RunningSum(*state["sums"][k]))
        for k in self._PLAIN:
            setattr(self, k, state["plain"][k])
        self.pending = None if state["pending"] is None else tuple(state["pending"])
