"""The comparator ``"average"``: the mean of the run's own iterates, known only at its end.

T7 holds for every fixed v, also one chosen afterwards. With ``m = v - w_0`` all its terms follow from sums against ``w_0``:

    sum <u_t, w_t - v> = sum <u_t, w_t - w_0> - <w_0 - w_T, m> ,   ||w_0 - v||^2 = ||m||^2 ,   ||w_T - v||^2 = ||(w_T - w_0) - m||^2 ,

because ``sum u_t = w_0 - w_T``. The last two are formed from differences.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from ...core.errors import InvalidInputError
from ...core.evidence import Evidence, Status, Verdict
from .steps import Recorder
from .vector import ParameterVector


@final
@dataclass(frozen=True)
class AverageResult:
    """T7 against the average iterate.

    Attributes:
        steps: number of iterates averaged.
        dist0_sq, distT_sq: ``||w_0 - v||^2`` and ``||w_T - v||^2``.
        update_dot: ``sum <u_t, w_t - v>``, which bounds ``sum eta_t (g_t - h_t)`` for plain gradient steps.
        verdict: whether it equals the other side of T7 to rounding.
    """

    steps: int
    dist0_sq: float
    distT_sq: float
    update_dot: float
    verdict: Verdict


@final
class RunningAverage:
    """Adds up the iterates of a run.

    Args:
        vector: the weights, with the reference point "init".
    """

    def __init__(self, vector: ParameterVector) -> None:
        self.vector, self.total, self.count = vector, vector.zeros(), 0
        self.result: AverageResult | None = None

    def add(self) -> None:
        """Add the current weights."""
        self.vector.accumulate(self.total, weight=1.0, label="init")
        self.count += 1

    def finish(self, recorder: Recorder, folder: str | os.PathLike[str] | None) -> dict[str, Any]:
        """Judge the average once the run has ended, and keep it as ``average.pt`` beside the log.

        Returns:
            What the last line of the log says of it: ``{"average": {...}}``, or nothing if it could not be judged.
        """
        ledger, exchange = recorder.ledger, recorder.exchange
        track = ledger.tracks["init"]
        if not self.count or ledger.first_missed >= 0 or track.checks == 0 or track.unmeasured:
            return {}
        end = self.vector.zeros()
        self.vector.accumulate(end, weight=1.0, label="init")
        sums = np.zeros((1, len(exchange.groups), 3))
        for piece, e, total in zip(self.vector.pieces, end, self.total, strict=True):
            m = total / self.count
            gap = e - m
            for j, x in enumerate((torch.dot(m, m), torch.dot(gap, gap), torch.dot(e, m))):
                sums[0, piece.group, j] += float(x)
        near, far, cross = exchange.whole(sums)[0]
        left = track.dot.value + cross
        right = (near - far) / 2 + track.update_sq.value / 2
        scale = track.size.value + abs(cross) + (near + far + track.update_sq.value) / 2
        allowed = ledger.tolerance * scale + track.drift.value
        numbers = f"sum <u, w - v> = {left:.9g}, the other side is {right:.9g}, rounding allows a gap of {allowed:.2g}"
        holds = abs(left - right) <= allowed
        verdict = Verdict(
            Status.HOLDS if holds else Status.FALSIFIED,
            f"T7 {'holds' if holds else 'is broken'} against the average of {self.count:,} iterates: {numbers}.",
            Evidence.ON_TRACE,
            {"left": left, "right": right, "allowed": allowed},
        )
        self.result = AverageResult(self.count, float(near), float(far), float(left), verdict)
        if folder is not None and exchange.kind != "fsdp" and exchange.writer:
            torch.save({"state_dict": self.state_dict()}, Path(folder) / "average.pt")
        return {
            "average": {
                "steps": self.count,
                "dist0_sq": float(near),
                "distT_sq": float(far),
                "left": float(left),
                "right": float(right),
                "share": abs(left - right) / allowed if allowed > 0 else 0.0,
                "status": verdict.status.name,
                "sentence": verdict.sentence,
            }
        }

    def state_dict(self) -> dict[str, Any]:
        """The average as a state dict of the trained parameters: a comparator for the next run.

        Raises:
            InvalidInputError: before the first step.
        """
        if not self.count:
            raise InvalidInputError("average", "no step yet", "a run with at least one step")
        start = self.vector.reference("init")
        mean = self.vector._unpack([t / self.count for t in self.total])
        return {
            n: (s + m).to(p.dtype).cpu()
            for n, s, m, p in zip(self.vector.names, start, mean, self.vector.params, strict=True)
        }

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"total": [t.clone() for t in self.total], "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.count = int(state["count"])
        for mine, saved in zip(self.total, state["total"], strict=True):
            mine.copy_(saved)
