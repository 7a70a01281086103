"""T7 for one comparator: both sides of the identity as running sums, compared at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from ..core.evidence import Evidence, Status, Verdict
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
    """

    def __init__(self, rounding: Rounding) -> None:
        self.rounding = rounding
        self.dot, self.inner = RunningSum(), RunningSum()
        self.size, self.absolute, self.update_sq, self.drift = (RunningSum() for _ in range(4))
        self.first_sq = self.last_sq = math.nan
        self.pending: tuple[float, float] | None = None  # (<u, w - v>, ||u||^2) of the step just taken
        self.worst, self.worst_step, self.broken_step, self.jump_step = 0.0, -1, -1, -1
        self.checks, self.first_step, self.partial = 0, -1, False

    def arrive(self, step: int, dist_sq: float) -> None:
        """The run has arrived at ``w_step``: compare both sides of what was summed so far."""
        if not math.isfinite(self.first_sq):
            self.first_sq, self.first_step = dist_sq, step
        elif self.pending is not None and not self.partial:
            dot, square = self.pending
            far = math.sqrt(max(dist_sq, 0.0))
            unit = self.rounding.weight_unit
            drift = unit * (self.rounding.comparator_norm + far) * far * 1.0001 if unit else 0.0
            self.drift.add(drift)
            if not self._step_adds_up(dot, square, dist_sq, drift) and self.jump_step < 0:
                self.jump_step = step
            self.checks += 1
            gap, allowed = self._gap(dist_sq)
            share = gap / allowed if allowed > 0 else (INF if gap > 0 else 0.0)
            if not share <= self.worst:
                self.worst, self.worst_step = share, step
            if not share <= 1 and self.broken_step < 0:
                self.broken_step = step
        self.last_sq, self.pending = dist_sq, None

    def leave(self, dot: float, square: float, eta_inner: float) -> None:
        """The step from the last point: ``<u, w - v>``, ``||u||^2`` and, where it is known, ``eta <d, w - v>``."""
        self.pending = (dot, square)
        self.dot.add(dot)
        self.absolute.add(abs(dot))
        self.update_sq.add(square)
        self.size.add(math.sqrt(max(square, 0.0) * max(self.last_sq, 0.0)))
        self.inner.add(eta_inner)

    def skip(self) -> None:
        """A step whose update was not due: the distances go on, the identity cannot be checked over it."""
        self.partial, self.pending = True, None

    def restart(self) -> None:
        """Steps were missed: what follows is judged by itself (the running sums start again)."""
        self.dot, self.inner = RunningSum(), RunningSum()
        self.size, self.absolute, self.update_sq, self.drift = (RunningSum() for _ in range(4))
        self.first_sq = self.last_sq = math.nan
        self.first_step, self.pending = -1, None

    def _step_adds_up(self, dot: float, square: float, dist_sq: float, drift: float) -> bool:
        gap = abs(dot - (self.last_sq - dist_sq) / 2 - square / 2)
        size = math.sqrt(max(square * self.last_sq, 0.0)) + (self.last_sq + dist_sq + square) / 2
        return gap <= self.rounding.tolerance * size + drift

    def right(self, dist_sq: float) -> float:
        """``(||w_0 - v||^2 - ||w_t - v||^2)/2 + (1/2) sum ||u||^2``."""
        return (self.first_sq - dist_sq) / 2 + self.update_sq.value / 2

    def _gap(self, dist_sq: float) -> tuple[float, float]:
        scale = self.size.value + (self.first_sq + dist_sq) / 2 + self.update_sq.value / 2
        return abs(self.dot.value - self.right(dist_sq)), self.rounding.tolerance * scale + self.drift.value

    def before_pending(self) -> tuple[float, float]:
        """Both sides at the last point arrived at, without the step that has not arrived anywhere yet."""
        dot, square = self.pending or (0.0, 0.0)
        return self.dot.value - dot, self.right(self.last_sq) - square / 2

    def verdict(self, form: str) -> Verdict:
        """T7 over everything that was compared: HOLDS or FALSIFIED with both sides as witness."""
        if self.partial:
            return Verdict(
                Status.INCONCLUSIVE,
                "T7 was not checked as an identity: the update was not recorded at every step (the preset's choice; record it at every "
                "step to check it).",
            )
        if self.checks == 0:
            return Verdict(Status.INVALID_INPUT, "T7 has not been checked: it needs two points of the run.")
        left, right = self.before_pending()
        terms = "sum <u_t, w_t - v>" if form == "update" else "sum eta_t <d_t, w_t - v>"
        squares = "sum ||u_t||^2" if form == "update" else "sum eta_t^2 ||d_t||^2"
        numbers = f"{terms} = {left:.9g}, (||w_0-v||^2 - ||w_T-v||^2)/2 + (1/2) {squares} = {right:.9g}"
        witness = {"left": left, "right": right, "share": self.worst, "step": self.worst_step, "form": form}
        if self.broken_step < 0 and self.jump_step < 0:
            return Verdict(
                Status.HOLDS,
                f"T7 held at all {self.checks:,} steps compared: {numbers}; the largest gap was {100 * self.worst:.2g}% of what "
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
        left, right = self.before_pending()
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
            "partial": self.partial,
            "since": self.first_step,
            "status": judged.status.name,
            "sentence": judged.sentence,
        }

    # --- what survives a restart of the process ---

    _SUMS = ("dot", "inner", "size", "absolute", "update_sq", "drift")
    _PLAIN = (
        "first_sq",
        "last_sq",
        "worst",
        "worst_step",
        "broken_step",
        "jump_step",
        "checks",
        "first_step",
    )

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
