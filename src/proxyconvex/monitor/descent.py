"""What the steps themselves were: whether they are ``eta d``, and by how much they broke the descent inequality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final


@final
class StepTally:
    """Compares the steps taken with ``eta d``, and on full-batch runs measures smoothness along them.

    The descent inequality ``f(w_{t+1}) <= f(w_t) - <grad f(w_t), u_t> + (L/2)||u_t||^2`` holds for exactly the ``L`` at least
    ``L_t = 2 (f(w_{t+1}) - f(w_t) + <grad f(w_t), u_t>) / ||u_t||^2``. The losses are rounded, so what is kept is an upper bound: ``L_t`` plus
    ``2 r / ||u_t||^2``, with ``r`` sixteen units in the last place of both losses. For tiny steps it says nothing (it is large), never too little.

    Args:
        unit: unit roundoff of the losses.
    """

    def __init__(self, unit: float) -> None:
        self.unit = unit
        self.departure = 0.0
        self.eta_min, self.eta_max = math.inf, 0.0
        self.smoothness = self.smoothness_upper = -math.inf
        self.compared = self.measured = self.increases = self.smoothness_step = 0
        self.first_loss: float | None = None
        self.last_loss: float | None = None
        self.least_loss = math.inf
        self.last: tuple[float, float, float] | None = None  # loss, <grad f, u>, ||u||^2 of the step before

    def see(self, loss: float | None, eta: float | None) -> None:
        """Loss and step size of a step that was taken."""
        if eta is not None:
            if eta < self.eta_min:
                self.eta_min = eta
            if eta > self.eta_max:
                self.eta_max = eta
        self.last_loss = loss
        if loss is not None:
            if self.first_loss is None:
                self.first_loss = loss
            if loss < self.least_loss:
                self.least_loss = loss

    def add(self, record: Mapping[str, Any], eta: float | None, full_batch: bool, form: str) -> None:
        """One step that was taken."""
        loss, grad_sq = record["loss"], record.get("grad_sq")
        self.see(loss, eta)
        if form == "update":
            self._compare(record, eta)
        if not full_batch or loss is None or not math.isfinite(loss):
            self.last = None
            return
        if self.last is not None:
            self._descent(record["step"], loss, *self.last)
        slope, square = record.get("update_grad"), record.get("update_sq")
        if form == "sgd" and eta is not None and grad_sq is not None:
            slope, square = eta * grad_sq, eta * eta * grad_sq
        self.last = None if slope is None or square is None else (loss, slope, square)

    def _compare(self, record: Mapping[str, Any], eta: float | None) -> None:
        square, grad_sq = record.get("update_sq"), record.get("grad_sq")
        if square is None:
            return  # not due at this step
        if eta is None or grad_sq is None:
            self.departure = math.inf
            return
        self.compared += 1
        scale = max(square, eta * eta * grad_sq)
        gaps = [abs(square - eta * eta * grad_sq) / scale if scale > 0 else 0.0]
        inner, dots, far = (record.get(k) or {} for k in ("grad_w_minus_v", "update_dot", "dist_sq"))
        for c, dot in dots.items():
            size = math.sqrt(scale * max(far.get(c, 0.0), 0.0))
            if size > 0 and c in inner:
                gaps.append(abs(dot - eta * inner[c]) / size)
        self.departure = max(self.departure, *(g if math.isfinite(g) else math.inf for g in gaps))

    def _descent(self, step: int, loss: float, before: float, slope: float, square: float) -> None:
        self.measured += 1
        self.increases += loss > before
        if not square > 0:
            return
        found = 2 * (loss - before + slope) / square
        rounding = 2 * 16 * self.unit * (abs(loss) + abs(before)) / square
        self.smoothness = max(self.smoothness, found)
        if found + rounding > self.smoothness_upper:
            self.smoothness_upper, self.smoothness_step = found + rounding, step - 1

    _PLAIN = (
        "departure", "eta_min", "eta_max", "smoothness", "smoothness_upper", "compared", "measured", "increases",
        "smoothness_step", "first_loss", "last_loss", "least_loss",
    )  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """Plain numbers for the log."""
        return {k: getattr(self, k) for k in self._PLAIN}

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return self.summary() | {"last": None if self.last is None else list(self.last)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a `state`."""
        for k in self._PLAIN:
            setattr(self, k, state[k])
        self.last = None if state["last"] is None else tuple(state["last"])
