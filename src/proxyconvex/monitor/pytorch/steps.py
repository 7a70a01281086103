"""From what the hooks see to the ledger: one `Seen` a step, completed when the next one arrives.

At the call of ``optimizer.step`` the gradient and ``w_t`` are there, the step is not yet. So each step is measured in one pass
over memory at that moment, and the step before it is completed from the same pass: ``u = w_t - w_{t-1}`` as it really was, whatever
moved the weights. Plain SGD (no momentum, no weight decay, one step size) takes the step ``eta g`` up to the rounding of the
weights; then only ``g`` and ``||w - v||^2`` are measured at every step, and the real ``u`` once in `CHECK_EVERY` steps. The identity T7
is not made empty by that: its other side, the distances, is measured directly at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch

from ..ledger import Ledger
from .distributed import Exchange, scalar
from .vector import ParameterVector

CHECK_EVERY = 10
# Distributed runs exchange the sums of this many steps at once.
FLUSH_EVERY = 16


@final
@dataclass
class Seen:
    """One step as far as it was seen.

    Attributes:
        step: its number.
        eta: step size of each parameter group.
        gradient: what the recorded gradient is, see `Ledger.observe`.
        sums: inner products at ``w_t``: for each way of sharding its columns, see `ParameterVector.sums`.
        update: those of the step taken from ``w_t``, measured at the next; None if the step is ``eta g``.
        losses: tensors whose sum is the loss.
        scale: the gradients were this many times too large (loss scaling).
        clip: norm before clipping, maximum and kind of norm.
        skipped: no step was taken.
        means, extra: further values; ``means`` are averaged over ranks.
        parts: number of gradients that were added up on this rank, and the sum of their squared norms.
    """

    step: int
    eta: list[float]
    gradient: str
    sums: list[list[float]]
    update: list[list[float]] | None = None
    losses: list[Any] = field(default_factory=list)
    scale: float = 1.0
    clip: tuple[Any, float, float] | None = None
    skipped: bool = False
    means: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    parts: tuple[int, list[Any]] | None = None
    measured: bool = False


def takes_plain_steps(optimizer: Any) -> bool:
    """Whether an optimizer's step is ``eta g`` up to rounding: SGD, one constant-free rule for all parameters."""
    groups = optimizer.param_groups
    return (
        type(optimizer) is torch.optim.SGD
        and not any(g["momentum"] or g["weight_decay"] or g["maximize"] for g in groups)
        and len({float(g["lr"]) for g in groups}) == 1
        and all(
            p.dtype in (torch.float32, torch.float64) and not p.is_complex()
            for g in groups
            for p in g["params"]
        )
    )


@final
class Recorder:
    """Measures steps and hands them to the ledger.

    Args:
        vector: the weights; its reference points are the comparators, then (unless it is one of them) ``w_0``.
        ledger: of this rank; only rank 0's writes.
        exchange: how ranks are combined.
        plain: whether the optimizer takes plain steps.
        start_every: the distance to ``w_0`` is measured once in this many steps if no comparator is ``w_0``.
    """

    def __init__(
        self, vector: ParameterVector, ledger: Ledger, exchange: Exchange, plain: bool, start_every: int = 10
    ) -> None:
        self.vector, self.ledger, self.exchange, self.plain = vector, ledger, exchange, plain
        self.start_every = start_every
        self.comparators = list(ledger.comparators)
        self.start = vector.labels.index("init")
        self.waiting: Seen | None = None
        self.buffer: list[Seen] = []
        self._kept = False
        self._mean_keys: list[str] = []

    # -- measuring ----------------------------------------------------------------------------------------------------

    def arrive(self, seen: Seen, *, gradient: bool = True) -> Seen:
        """Measure at ``w_t``; complete and hand on the step before."""
        check = not self.plain or seen.step % CHECK_EVERY == 0
        seen.sums = self._measure(with_start=seen.step % self.start_every == 0, gradient=gradient, keep=check)
        self._hand_on()
        self.waiting = seen
        return seen

    def _measure(self, *, with_start: bool, gradient: bool, keep: bool) -> list[list[float]]:
        count = max(len(self.comparators), self.start + 1 if with_start else 0)
        update = self.waiting is not None and self._kept and not self.waiting.measured
        sums = self.vector.sums(count=count, gradient=gradient, update=update, keep=keep)
        if update and self.waiting is not None:
            self.waiting.update = sums
            self.waiting.measured = True
        self._kept = keep
        return sums

    def settle(self) -> None:
        """Complete the step that waits, at the weights as they are now, and hand everything to the ledger."""
        if self.waiting is not None and self._kept and not self.waiting.measured:
            self._measure(with_start=False, gradient=False, keep=False)
        self._hand_on()
        self.flush()

    def finish(self, reason: str, *, exchange: bool = True) -> None:
        """Settle and close the ledger at ``w_T``."""
        if self.exchange.several and not exchange:
            self.buffer.clear()
            self.waiting = None
            self.ledger.close(
                reason=f"{reason}; steps since the last exchange of the ranks are not in the log"
            )
            return
        self.settle()
        whole = self.exchange.whole(
            np.array([self.vector.sums(count=len(self.vector.labels), gradient=False)])
        )[0]
        self.ledger.close(
            dist_sq={c: float(whole[3 + 3 * i]) for i, c in enumerate(self.comparators)},
            dist0_sq=float(whole[3 + 3 * self.start]),
            reason=reason,
        )

    def _hand_on(self) -> None:
        if self.waiting is None:
            return
        self.buffer.append(self.waiting)
        self.waiting = None
        if not self.exchange.several or len(self.buffer) >= FLUSH_EVERY:
            self.flush()

    # -- handing on ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Combine the ranks and hand the buffered steps to the ledger."""
        steps, self.buffer = self.buffer, []
        if not steps:
            return
        if not self.exchange.several and len(self.vector.groups) == 1:
            for seen in steps:
                self._observe(seen, seen.sums[0], seen.update[0] if seen.update else None, self._means(seen))
            return
        width = 2 + 3 * len(self.vector.labels)
        table = np.zeros((len(steps), 2, len(self.vector.groups), width))
        for i, seen in enumerate(steps):
            table[i, 0, :, : len(seen.sums[0])] = seen.sums
            if seen.update is not None:
                table[i, 1, :, : len(seen.update[0])] = seen.update
        whole = self.exchange.whole(table)
        means = [self._means(seen) for seen in steps]
        if self.exchange.several:
            means = self._average(steps, means)
        for i, seen in enumerate(steps):
            here, taken = whole[i].tolist()
            self._observe(seen, here[: len(seen.sums[0])], taken if seen.update else None, means[i])

    def _means(self, seen: Seen) -> dict[str, float]:
        out = {"loss": sum(map(scalar, seen.losses))} if seen.losses else {}
        for key, value in seen.means.items():
            if isinstance(value, dict):
                out |= {f"{key}:{c}": scalar(x) for c, x in value.items()}
            else:
                out[key] = scalar(value)
        if seen.parts is not None:
            out["parts_sum_sq"] = sum(map(scalar, seen.parts[1]))
        return out

    def _average(self, steps: list[Seen], means: list[dict[str, float]]) -> list[dict[str, float]]:
        """Averages over the ranks that have a value; the layout is the same on all of them, whatever they have."""
        keys = self.mean_keys()
        values = np.zeros((len(steps), len(keys), 2))
        for i, row in enumerate(means):
            for j, key in enumerate(keys):
                if key in row:
                    values[i, j] = row[key], 1.0
        values = self.exchange.added(values)
        return [
            {k: float(values[i, j, 0] / values[i, j, 1]) for j, k in enumerate(keys) if values[i, j, 1]}
            for i in range(len(steps))
        ]

    def mean_keys(self) -> list[str]:
        """Names of everything that is averaged over ranks."""
        each = [
            f"{k}:{c}"
            for k in ("tangent_loss", "tangent_loss_other", "probe_inner")
            for c in self.comparators
        ]
        return ["loss", "probe_loss", "parts_sum_sq", *each, *self._mean_keys]

    def also_average(self, names: list[str]) -> None:
        """Declare further values (proxies) that ranks average."""
        self._mean_keys = names

    def _observe(
        self, seen: Seen, here: list[float], step: list[float] | None, means: dict[str, float]
    ) -> None:
        comparators, s = self.comparators, seen.scale
        dots: dict[str, Any] = {"dist_sq": {c: here[3 + 3 * i] for i, c in enumerate(comparators)}}
        if len(here) > 3 + 3 * self.start:
            dots["dist0_sq"] = here[3 + 3 * self.start]
        extra = seen.extra
        if not seen.skipped:
            dots["grad_sq"] = here[0] / (s * s)
            dots["grad_w_minus_v"] = {c: here[2 + 3 * i] / s for i, c in enumerate(comparators)}
            self._unclipped(seen, dots)
            if step is not None:
                # u in the ledger is w_t - w_{t+1}; the pass formed w_{t+1} - w_t and <., w_{t+1} - v>.
                square = step[1]
                taken = {c: square - step[4 + 3 * i] for i, c in enumerate(comparators)}
                if self.plain:
                    extra["update_drift"] = _drift(seen.eta[0], dots, square, taken)
                else:
                    dots["update_sq"], dots["update_dot"] = square, taken
            self._parts(seen, dots, means, extra)
        loss = means.pop("loss", None)
        for key, value in means.items():
            name, _, c = key.partition(":")
            if c:
                extra.setdefault(name, {})[c] = value
            elif key != "parts_sum_sq":
                extra[name] = value
        if "tangent_loss" in extra:
            _same_forward(extra, loss)
        self.ledger.observe(
            seen.step,
            eta=seen.eta,
            loss=loss,
            dots=dots,
            gradient=seen.gradient,
            skipped=seen.skipped,
            extra=extra,
        )

    def _unclipped(self, seen: Seen, dots: dict[str, Any]) -> None:
        if seen.clip is None:
            return
        norm, maximum, kind = seen.clip
        total = scalar(norm) / seen.scale
        factor = min(1.0, maximum / (total + 1e-6))
        if math.isfinite(total) and factor > 0:
            dots["clip"] = factor
            dots["raw_grad_sq"] = total * total if kind == 2.0 else dots["grad_sq"] / factor**2
            dots["raw_grad_w_minus_v"] = {c: x / factor for c, x in dots["grad_w_minus_v"].items()}

    def _parts(
        self, seen: Seen, dots: dict[str, Any], means: dict[str, float], extra: dict[str, Any]
    ) -> None:
        """Gradients that were added up anyway, of micro-batches or ranks, as parts of a mean."""
        if seen.parts is None or "parts_sum_sq" not in means:
            return
        each = seen.parts[0]
        ranks = self.exchange.ranks
        parts = each * ranks
        total = dots.get("raw_grad_sq", dots["grad_sq"])
        if parts < 2 or (seen.clip is None and "clipped" in seen.gradient):
            return
        extra["parts"] = float(parts)
        extra["parts_total_sq"] = parts**2 * total
        # The mean over ranks of each rank's sum, as a sum over ranks; each part was a share 1/each of a mean.
        extra["parts_sum_sq"] = ranks * each**2 * means["parts_sum_sq"]


def _drift(eta: float, dots: dict[str, Any], square: float, taken: dict[str, float]) -> float:
    """How far the step taken was from ``eta g``: the larger of the relative gaps of ``||u||^2`` and ``<u, w - v>``."""
    model = eta * eta * dots["grad_sq"]
    worst = abs(square - model) / max(square, model) if max(square, model) > 0 else 0.0
    for c, value in taken.items():
        size = math.sqrt(max(square, model) * dots["dist_sq"][c])
        gap = abs(value - eta * dots["grad_w_minus_v"][c])
        worst = max(worst, gap / size if size > 0 else 0.0)
    return worst


def _same_forward(extra: dict[str, Any], loss: float | None) -> None:
    """A tangent loss counts against the step's own loss only if both are of the same forward pass."""
    probe = extra["probe_loss"]
    if loss is not None and abs(probe - loss) > 1e-4 * max(abs(loss), abs(probe)) + 1e-7:
        extra["tangent_loss_other"] = extra.pop("tangent_loss")
