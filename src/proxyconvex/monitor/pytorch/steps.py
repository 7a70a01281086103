"""From what the hooks see to the ledger: one `Seen` a step, completed when the next one arrives.

At the call of ``optimizer.step`` the gradient and ``w_t`` are there, the step is not yet. Where the step taken is due (it is *judged*),
``w_t`` is kept, and at the next hook ``u = w_t - w_{t+1}`` is formed from the stored weights, whatever moved them. Where neighbouring
steps are both looked at, one pass over memory serves both. Where no products with ``w - v`` are due, nothing but ``||g||^2`` is read.

Plain SGD (no momentum, no weight decay, one step size) takes the step ``eta g`` up to the rounding of the weights, so its ledger sums
``eta <g, w - v>`` and ``eta^2 ||g||^2`` and compares them with what the weights really did: with the distances where the next step is
judged as well (``u`` then only once in `CHECK_EVERY`), else with ``u`` itself.

Scalars stay where they were computed and are read a block at a time: after `FLUSH_EVERY` steps, after `FLUSH_SECONDS`, or when
somebody asks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch

from ..intake import single
from ..ledger import Ledger
from ..schedule import Schedule, Together
from .distributed import Exchange, scalar
from .halves import Short
from .reading import Reading, numbers, read
from .vector import ParameterVector

CHECK_EVERY = 10
# Steps and seconds after which what was read is handed to the ledger; distributed runs go by steps alone, the same on all ranks.
FLUSH_EVERY, FLUSH_SECONDS = 16, 1.0
_SQUARE = ("gradient-norm", "half-batch")
_WHOLE = ("inner-product", "distance", "update", "tangent-loss")


@final
class Due:
    """What a step's hook has to measure, from the schedules alone.

    Attributes:
        square: step -> whether ``||g||^2`` is due by itself.
        whole: step -> whether products with ``w - v`` are due.
        update: step -> whether the step taken is due.
    """

    def __init__(self, schedules: Mapping[str, Schedule]) -> None:
        self.square, self.whole, self.update = (
            Together(schedules[n] for n in names if n in schedules)
            for names in (_SQUARE, _WHOLE, ("update",))
        )


@final
@dataclass(slots=True)
class Seen:
    """One step as far as it was seen.

    Attributes:
        step: its number.
        eta: step size of each parameter group.
        gradient: what the recorded gradient is, see `Ledger.observe`.
        losses: tensors whose sum is the loss.
        scale: the gradients were this many times too large (loss scaling).
        clip: norm before clipping, maximum and kind of norm.
        skipped: no step was taken.
        means, extra: further values; ``means`` are averaged over ranks.
        parts: number of gradients that were added up on this rank, and the sum of their squared norms.
        short: half-batch gradients by the short way, see `halves`.
        whole: its products with ``w - v`` are recorded.
        judged: the step taken is compared with the record.
        kept: the weights it left from are kept, so that the step taken can be formed.
        count: reference points whose distance is recorded.
        here: sums at ``w_t``; for each way of sharding its columns, see `ParameterVector.sums`.
        after: sums at ``w_{t+1}``, with those of the step taken.
    """

    step: int
    eta: list[float]
    gradient: str
    losses: list[Any] = field(default_factory=list)
    scale: float = 1.0
    clip: tuple[Any, float, float] | None = None
    skipped: bool = False
    means: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    parts: tuple[int, list[Any]] | None = None
    short: Short | None = None
    whole: bool = False
    judged: bool = False
    kept: bool = False
    count: int = 0
    here: Reading | None = None
    after: Reading | None = None


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
        due: what is measured when.
        start_every: where all steps are measured, the distance to ``w_0`` is once in this many steps if no comparator is ``w_0``.
    """

    def __init__(
        self,
        vector: ParameterVector,
        ledger: Ledger,
        exchange: Exchange,
        plain: bool,
        due: Due,
        start_every: int = 10,
    ) -> None:
        self.vector, self.ledger, self.exchange, self.plain, self.due = vector, ledger, exchange, plain, due
        self.start_every = start_every
        self.comparators = list(ledger.comparators)
        self.start = vector.labels.index("init")
        self.waiting: Seen | None = None
        self.buffer: list[Seen] = []
        self._mean_keys: list[str] = []
        self._late = time.monotonic() + FLUSH_SECONDS

    # -- measuring ----------------------------------------------------------------------------------------------------

    def arrive(self, seen: Seen, *, gradient: bool = True) -> None:
        """Measure at ``w_t``; complete and hand on the step before."""
        step, before = seen.step, self.waiting
        seen.whole = self.due.whole(step)
        # After `settle`, a step may have been handed on whose distance at its end is still owed.
        owed = before.kept if before is not None else any(t.pending for t in self.ledger.tracks.values())
        if seen.whole or owed:
            self._measure(seen, before, gradient)
        elif gradient and self.due.square(step):
            seen.here = self.vector.squares()
        if before is not None:
            self._hand_on(before)
        self.waiting = seen

    def _measure(self, seen: Seen, before: Seen | None, gradient: bool) -> None:
        step, whole = seen.step, seen.whole
        update = before is not None and before.kept
        seen.judged = self.due.update(step)
        seen.kept = seen.judged and not (self.plain and self.due.update(step + 1) and step % CHECK_EVERY)
        # The distance at the end of a step is needed where the step itself is not judged by its own difference.
        distance = whole or not self.plain
        count = len(self.comparators)
        if whole and (step % self.start_every == 0 or not self.due.whole(step - 1)):
            count = max(count, self.start + 1)
        gradient = gradient and (whole or self.due.square(step))
        reading = self.vector.sums(
            count=count, gradient=gradient, update=update, keep=seen.kept, distance=distance
        )
        seen.here = reading
        seen.count = count if distance else 0
        if before is not None and update:
            before.after = reading

    def settle(self) -> None:
        """Complete the step that waits, at the weights as they are now, and hand everything to the ledger."""
        before, self.waiting = self.waiting, None
        if before is not None:
            if before.kept:
                before.after = self.vector.sums(
                    count=len(self.comparators), gradient=False, update=True, distance=False
                )
            self._hand_on(before)
        self.flush()

    def finish(
        self,
        reason: str,
        *,
        exchange: bool = True,
        conclude: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        """Settle and close the ledger at ``w_T``; see `Ledger.close`."""
        if self.exchange.several and not exchange:
            self.buffer.clear()
            self.waiting = None
            self.ledger.close(
                reason=f"{reason}; steps since the last exchange of the ranks are not in the log"
            )
            return
        self.settle()
        sums = self.vector.sums(count=len(self.vector.labels), gradient=False).sums()
        whole = self.exchange.whole(np.array([sums]))[0]
        self.ledger.close(
            dist_sq={c: float(whole[3 + 3 * i]) for i, c in enumerate(self.comparators)},
            dist0_sq=float(whole[3 + 3 * self.start]),
            reason=reason,
            conclude=conclude,
        )

    def _hand_on(self, seen: Seen) -> None:
        self.buffer.append(seen)
        late = not self.exchange.several and time.monotonic() > self._late
        if late or len(self.buffer) >= FLUSH_EVERY:
            self.flush()

    # -- handing on ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Read what was measured, combine the ranks and hand the buffered steps to the ledger."""
        steps, self.buffer = self.buffer, []
        self._late = time.monotonic() + FLUSH_SECONDS
        if not steps:
            return
        read(r for seen in steps for r in (seen.here, seen.after))
        if self.exchange.several or len(self.vector.groups) > 1:
            self._flush_whole(steps)
            return
        for seen in steps:
            if _bare(seen) and not self.ledger.wants(seen.step):
                self._pass_over(seen)
                continue
            here, after = (None if r is None else r.sums()[0] for r in (seen.here, seen.after))
            self._observe(seen, here, after, _means(seen))

    def _pass_over(self, seen: Seen) -> None:
        """A step of which only loss, step size and ``||g||^2`` are known."""
        found, losses = None if seen.here is None else seen.here.found, seen.losses
        grad_sq = None if found is None else sum(found) / (seen.scale * seen.scale)
        eta = seen.eta[0] if len(seen.eta) == 1 else single(seen.eta)
        loss = None
        if losses:
            loss = losses[0] if len(losses) == 1 and type(losses[0]) is float else sum(numbers(losses))
        self.ledger.pass_over(seen.step, seen.eta if eta is None else eta, loss, seen.gradient, grad_sq)

    def _flush_whole(self, steps: list[Seen]) -> None:
        """The same where sums of shards, or values of ranks, have to be combined first."""
        width = 2 + 3 * len(self.vector.labels)
        table = np.zeros((len(steps), 2, len(self.vector.groups), width))
        for i, seen in enumerate(steps):
            for j, r in enumerate((seen.here, seen.after)):
                if r is not None:
                    table[i, j, :, : r.width] = r.sums()
        whole = self.exchange.whole(table).tolist()
        means = [_means(seen) for seen in steps]
        if self.exchange.several:
            means = self._average(steps, means)
        for seen, (here, after), mean in zip(steps, whole, means, strict=True):
            self._observe(seen, here if seen.here else None, after if seen.after else None, mean)

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
        self, seen: Seen, here: list[float] | None, after: list[float] | None, means: dict[str, float]
    ) -> None:
        eta = seen.eta[0] if len(seen.eta) == 1 else single(seen.eta)
        record: dict[str, Any] = {
            "step": seen.step,
            "loss": means.pop("loss", None),
            "eta": seen.eta if eta is None else eta,
            "gradient": seen.gradient,
        }
        if here is not None:
            if seen.count:
                record["dist_sq"] = {c: here[3 + 3 * i] for i, c in enumerate(self.comparators)}
                if seen.count > self.start:
                    record["dist0_sq"] = here[3 + 3 * self.start]
            if not seen.skipped:
                self._products(seen, here, after, record)
        extra = seen.extra
        if seen.parts is not None and "parts_sum_sq" in means and not seen.skipped:
            self._parts(seen, record, means.pop("parts_sum_sq"), extra)
        if seen.short is not None and not seen.skipped:
            loss = record["loss"]
            extra |= seen.short.complete(
                record, means["probe_loss"] if loss is None else loss, _probe(means), numbers
            )
        for key, value in means.items():
            name, _, c = key.partition(":")
            if c:
                extra.setdefault(name, {})[c] = value
            elif key != "parts_sum_sq":
                extra[name] = value
        if "tangent_loss" in extra:
            _same_forward(extra, record["loss"])
        record |= extra
        if seen.skipped:
            record["skipped"] = True
        self.ledger.take(record, eta)

    def _products(
        self, seen: Seen, here: list[float], after: list[float] | None, record: dict[str, Any]
    ) -> None:
        """The squares and inner products of a step that was taken."""
        s = seen.scale
        if seen.whole or self.due.square(seen.step):
            record["grad_sq"] = here[0] / (s * s)
        if seen.whole:
            record["grad_w_minus_v"] = {c: here[2 + 3 * i] / s for i, c in enumerate(self.comparators)}
        if seen.clip is not None:
            _unclipped(seen.clip, s, record)
        if after is None:
            return
        # u in the ledger is w_t - w_{t+1}; the pass formed w_{t+1} - w_t and <., w_{t+1} - v>.
        square = after[1]
        taken = {c: square - after[4 + 3 * i] for i, c in enumerate(self.comparators)}
        if self.plain:
            record["drop"] = {c: 2 * x - square for c, x in taken.items()}
            record["update_drift"] = _drift(seen.eta[0], record, square, taken)
        else:
            record["update_sq"], record["update_dot"] = square, taken

    def _parts(self, seen: Seen, record: dict[str, Any], sum_sq: float, extra: dict[str, Any]) -> None:
        """Gradients that were added up anyway, of micro-batches or ranks, as parts of a mean."""
        assert seen.parts is not None
        each = seen.parts[0]
        ranks = self.exchange.ranks
        parts = each * ranks
        total = record.get("raw_grad_sq", record.get("grad_sq"))
        if total is None or parts < 2 or (seen.clip is None and "clipped" in seen.gradient):
            return
        extra["parts"] = float(parts)
        extra["parts_total_sq"] = parts**2 * total
        # The mean over ranks of each rank's sum, as a sum over ranks; each part was a share 1/each of a mean.
        extra["parts_sum_sq"] = ranks * each**2 * sum_sq


def _probe(means: dict[str, float]) -> dict[str, Any]:
    """What was found on the batch that was given."""
    inner = {k.partition(":")[2]: x for k, x in means.items() if k.startswith("probe_inner:")}
    return {"probe_loss": means["probe_loss"], "probe_inner": inner}


def _bare(seen: Seen) -> bool:
    """Whether nothing but its loss, step size and ``||g||^2`` is recorded."""
    more = seen.whole or seen.count or seen.skipped or seen.clip or seen.means or seen.extra or seen.parts
    return not more and (seen.here is None or seen.here.width == 2)


def _means(seen: Seen) -> dict[str, float]:
    """What ranks average, as numbers: the loss, the further values, the squared norms of the parts."""
    pairs: list[tuple[str, Any]] = []
    for key, value in seen.means.items():
        if isinstance(value, dict):
            pairs += [(f"{key}:{c}", x) for c, x in value.items()]
        else:
            pairs.append((key, value))
    parts = [] if seen.parts is None else seen.parts[1]
    found = numbers([*seen.losses, *parts, *(x for _, x in pairs)])
    n, m = len(seen.losses), len(parts)
    out = {"loss": sum(found[:n])} if n else {}
    out |= {key: x for (key, _), x in zip(pairs, found[n + m :], strict=True)}
    if seen.parts is not None:
        out["parts_sum_sq"] = sum(found[n : n + m])
    return out


def _unclipped(clip: tuple[Any, float, float], scale: float, record: dict[str, Any]) -> None:
    """The gradient before clipping, from its norm."""
    norm, maximum, kind = clip
    total = scalar(norm) / scale
    factor = min(1.0, maximum / (total + 1e-6))
    if not (math.isfinite(total) and factor > 0):
        return
    record["clip"] = factor
    if kind == 2.0:
        record["raw_grad_sq"] = total * total
    elif "grad_sq" in record:
        record["raw_grad_sq"] = record["grad_sq"] / factor**2
    if "grad_w_minus_v" in record:
        record["raw_grad_w_minus_v"] = {c: x / factor for c, x in record["grad_w_minus_v"].items()}


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
