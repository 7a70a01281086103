"""Choices a monitor makes for PyTorch: schedules of the presets, the rounding of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...core.errors import InvalidInputError
from ..quantity import CATALOGUE
from ..schedule import PRESETS, Every, Never, Opening, Schedule, Thinned, check_schedule
from .vector import ParameterVector

# Each of the first steps is measured in full. Afterwards the gradient and the products with w - v are looked at once in EVERY steps, the
# step taken is compared with the ledger once in COMPARE, and lines of the log are written for steps that were looked at.
FIRST, EVERY, COMPARE = 32, 10, 50
_SPARSE: dict[str, Any] = {
    **dict.fromkeys(("gradient-norm", "inner-product", "distance", "proxies"), Opening(FIRST, Every(EVERY))),
    "update": Opening(FIRST, Every(COMPARE)),
    "record": Opening(FIRST, Thinned(EVERY, 300)),
}
# Two further gradients of the whole batch each time: log-spaced, steps 0, 200, 400, 900, 2100, 4600 ...
_TORCH: dict[str, dict[str, Any]] = {
    "light": _SPARSE,
    "standard": {**_SPARSE, "smoothness": Thinned(100, 3)},
}


def schedules(
    preset: str | Mapping[str, Any], overrides: Mapping[str, Any] | None, full_batch: bool = False
) -> dict[str, Schedule]:
    """A schedule for every quantity of the catalogue.

    Args:
        preset: name, or quantity -> schedule.
        overrides: schedules that replace those of the preset.
        full_batch: the gradients are those of the whole objective; PL and smoothness are then read off the gradient norms of all steps.

    Raises:
        InvalidInputError: for an unknown preset or quantity.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise InvalidInputError("preset", preset, ", ".join(map(repr, PRESETS)), "Or pass a mapping.")
        chosen: dict[str, Any] = {**PRESETS[preset], **_TORCH.get(preset, {})}
        if full_batch:
            chosen["gradient-norm"] = Every(1)
    else:
        chosen = {"record": PRESETS["light"]["record"], **preset}
    chosen |= dict(overrides or {})
    for name in chosen:
        if name not in CATALOGUE:
            raise InvalidInputError("schedule", name, ", ".join(map(repr, CATALOGUE)))
    return {name: check_schedule(name, chosen.get(name, Never())) for name in CATALOGUE}


# What is evaluated on a model beside its training.
PROBES = ("tangent-loss", "half-batch", "smoothness", "tangent-margin")


def refuse_sharded(schedules: Mapping[str, Schedule], reason: str | None) -> None:
    """Refuse what is evaluated beside the training where the model cannot be made whole for it.

    Args:
        schedules: by quantity.
        reason: why it cannot, None if it can.

    Raises:
        InvalidInputError: naming the quantities and the reason.
    """
    asked = [q for q in PROBES if not isinstance(schedules[q], Never)]
    if reason is not None and asked:
        raise InvalidInputError(
            "schedule", ", ".join(asked), "quantities that are recorded from the training itself, for this sharded model",
            f'The others need the whole model beside the training. {reason} Use preset="light", or set these to None in schedule.',
        )  # fmt: skip


def weight_unit(vector: ParameterVector) -> float:
    """Unit roundoff of the coarsest stored weights."""
    return max(torch.finfo(p.dtype).eps / 2 for p in vector.params)
