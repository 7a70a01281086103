"""One step as far as it was seen, and what its numbers say beside the sums."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch

from ..intake import checked_gradient
from ..schedule import Schedule, Together
from .distributed import scalar
from .halves import Short
from .reading import Reading, numbers

_SQUARE = ("gradient-norm", "half-batch")
_WHOLE = ("inner-product", "distance", "update", "tangent-loss")
_OTHERS = ("record", "smoothness", "tangent-margin")


@final
class Due:
    """What a step's hook has to measure, from the schedules alone.

    Attributes:
        square: step -> whether ``||g||^2`` is due by itself.
        whole: step -> whether products with ``w - v`` are due.
        update: step -> whether the step taken is due.
        anything: step -> whether one of these, a line of the log, or anything that is evaluated on a batch is due.
    """

    def __init__(self, schedules: Mapping[str, Schedule]) -> None:
        self.square, self.whole, self.update, self.anything = (
            Together(schedules[n] for n in names if n in schedules)
            for names in (_SQUARE, _WHOLE, ("update",), (*_SQUARE, *_WHOLE, *_OTHERS))
        )


@final
@dataclass(slots=True)
class Seen:
    """One step as far as it was seen.

    Attributes:
        step: its number.
        eta: the step size, or that of each parameter group.
        gradient: what the recorded gradient is, see `Ledger.observe`.
        losses: tensors whose sum is the loss.
        scale: the gradients were this many times too large (loss scaling).
        clip: norm before clipping, maximum and kind of norm.
        skipped: no step was taken.
        means, extra: further values; ``means`` are averaged over ranks.
        parts: number of gradients that were added up on this rank, and the sum of their squared norms.
        short: norms of part gradients by the short way, see `halves`.
        whole: its products with ``w - v`` are recorded.
        judged: the step taken is compared with the record.
        kept: the weights it left from are kept, so that the step taken can be formed.
        count: reference points whose distance is recorded.
        here: sums at ``w_t``; for each way of sharding its columns, see `ParameterVector.sums`.
        after: sums at ``w_{t+1}``, with those of the step taken.
    """

    step: int
    eta: float | list[float]
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


# A step of which nothing but its loss and step size is known, and nothing else is asked; its gradient was the loop's own: its number, the
# step size (or that of each parameter group), and the loss: a number, a tensor that is still to be read, or None if it was not told.
# Most steps are such; a tuple is what takes the least time to make.
Quiet = tuple[int, float | list[float], Any]


def step_sizes(optimizer: Any) -> float | list[float]:
    """The step size, or those of several parameter groups."""
    groups = optimizer.param_groups
    return float(groups[0]["lr"]) if len(groups) == 1 else [float(g["lr"]) for g in groups]


@functools.cache
def gradient_label(clipped: bool, accumulated: bool, ranks: str) -> str:
    """Which gradient a record is of, see `Ledger.observe`."""
    parts = ["clipped" if clipped else "raw", "accumulated" if accumulated else "", ranks]
    return checked_gradient("+".join(p for p in parts if p))


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


def probe_of(means: dict[str, float]) -> dict[str, Any]:
    """What was found on the batch that was given."""
    inner = {k.partition(":")[2]: x for k, x in means.items() if k.startswith("probe_inner:")}
    return {"probe_loss": means["probe_loss"], "probe_inner": inner}


def is_bare(seen: Seen) -> bool:
    """Whether nothing but its loss, step size and ``||g||^2`` is recorded."""
    more = seen.whole or seen.count or seen.skipped or seen.clip or seen.means or seen.extra or seen.parts
    return not more and (seen.here is None or seen.here.width == 2)


def means_of(seen: Seen) -> dict[str, float]:
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


def add_unclipped(clip: tuple[Any, float, float], scale: float, record: dict[str, Any]) -> None:
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


def drift_of(eta: float, dots: dict[str, Any], square: float, taken: dict[str, float]) -> float:
    """How far the step taken was from ``eta g``: the larger of the relative gaps of ``||u||^2`` and ``<u, w - v>``."""
    model = eta * eta * dots["grad_sq"]
    worst = abs(square - model) / max(square, model) if max(square, model) > 0 else 0.0
    for c, value in taken.items():
        size = math.sqrt(max(square, model) * dots["dist_sq"][c])
        gap = abs(value - eta * dots["grad_w_minus_v"][c])
        worst = max(worst, gap / size if size > 0 else 0.0)
    return worst


def check_forward(extra: dict[str, Any], loss: float | None) -> None:
    """A tangent loss counts against the step's own loss only if both are of the same forward pass."""
    probe = extra["probe_loss"]
    if loss is not None and abs(probe - loss) > 1e-4 * max(abs(loss), abs(probe)) + 1e-7:
        extra["tangent_loss_other"] = extra.pop("tangent_loss")
