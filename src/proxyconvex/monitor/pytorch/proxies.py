"""Proxies of a step's outputs and targets, as tensors that are read when the step is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from ...core.errors import InvalidInputError
from ..proxies import BUILT_IN, NAMES, proxies

# Targets that torch's cross-entropy leaves out.
IGNORE = -100


@final
class Proxies:
    """The built-in proxies of a loss, and the user's.

    Args:
        loss: name of the loss, or None for the user's proxies alone.
        own: ``name -> function(outputs, targets)``.
        ranks: whether ranks will be averaged; the smallest margin has no such average and is left out.
    """

    def __init__(self, loss: str | None, own: Mapping[str, Callable[..., Any]], ranks: bool = False) -> None:
        if loss is not None and loss not in BUILT_IN:
            raise InvalidInputError("loss_name", loss, ", ".join(map(repr, BUILT_IN)))
        self.loss, self.own, self.ranks = loss, dict(own), ranks
        built_in = [n for n in NAMES if not (ranks and n == "margin_min")] if loss else []
        self.names = [*built_in, *self.own]

    def __call__(self, outputs: Tensor, targets: Any) -> dict[str, Any]:
        """All proxies of a batch."""
        with torch.no_grad():
            out = outputs.detach()
            found: dict[str, Any] = {}
            if self.loss is not None:
                out = out if out.dtype == torch.float64 else out.float()
                found = self._built_in(out, targets)
            return found | {name: function(outputs.detach(), targets) for name, function in self.own.items()}

    def _built_in(self, out: Tensor, targets: Tensor) -> dict[str, Any]:
        mask = None
        if self.loss == "cross-entropy":
            if out.shape[:-1] != targets.shape and out.dim() > 2:
                out = out.movedim(1, -1)
            mask = (targets != IGNORE).to(out.dtype)
            targets = targets.clamp(min=0)
        found = proxies(self.loss or "", torch, out, targets, mask)
        return {k: v for k, v in found.items() if k in self.names}
