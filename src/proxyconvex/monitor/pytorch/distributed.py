"""Several processes: sums of shards are added over exactly the groups that hold the shards, in one exchange per flush.

What each kind of training means here:

- one process: nothing to exchange.
- ``DistributedDataParallel``: weights and reduced gradients are the same on every rank, so their sums are whole already; losses
  and proxies are those of a rank's share of the batch and are averaged over ranks.
- FSDP2 (``fully_shard``): every rank holds shards; each rank forms the sums of its shards, and these are added;
  losses and proxies are averaged. For probes the whole model is gathered on every rank, see `sharded`.
- several processes, neither of the two: what a rank sees is called rank-local.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...core.errors import InvalidInputError

KINDS = ("single", "ddp", "fsdp", "rank-local")


def _inside(model: nn.Module) -> Any:
    while hasattr(model, "_orig_mod"):
        model = model._orig_mod
    return model


def kind_of(model: nn.Module) -> str:
    """Which of `KINDS` a model is trained as."""
    if not (dist.is_available() and dist.is_initialized()):
        return "single"
    model = _inside(model)
    # Also on a single process: its parameters are not where the model computes with them.
    if any(hasattr(p, "device_mesh") for p in model.parameters()):
        return "fsdp"
    if dist.get_world_size() == 1:
        return "single"
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return "ddp"
    name = type(model).__name__
    if name == "FullyShardedDataParallel":
        raise InvalidInputError(
            "model", name, "DistributedDataParallel or FSDP2", "Use torch.distributed.fsdp.fully_shard."
        )
    return "rank-local"


@final
class Exchange:
    """Combines what the ranks saw.

    Args:
        model: the model as trained (with its DDP wrapper, or after ``fully_shard``).
        groups: the process groups of each row of the sums (see `vector.shard_groups`).
        device: where the scalars are exchanged.
    """

    def __init__(self, model: nn.Module, groups: list[tuple[Any, ...]], device: torch.device) -> None:
        self.kind = kind_of(model)
        self.groups, self.device = groups, device
        self.ranks = dist.get_world_size() if self.kind in ("ddp", "fsdp") else 1
        self.several = self.kind in ("ddp", "fsdp")
        self.writer = self.kind == "single" or dist.get_rank() == 0
        # What the gradient's label says about ranks.
        self.label = {"single": "", "ddp": "global", "fsdp": "global", "rank-local": "rank-local"}[self.kind]

    def whole(self, sums: np.ndarray) -> np.ndarray:
        """Sums of whole vectors from those of this rank's shards, shape [..., ways of sharding, columns] -> [..., columns]."""
        if self.kind == "fsdp":
            rows = []
            for i, groups in enumerate(self.groups):
                part = torch.as_tensor(sums[..., i, :].copy(), dtype=torch.float64, device=self.device)
                for group in groups:
                    dist.all_reduce(part, group=group)
                rows.append(part.cpu().numpy())
            return np.sum(rows, axis=0)
        return sums.sum(axis=-2)

    def added(self, values: np.ndarray) -> np.ndarray:
        """The sum over ranks of an array of the same shape on every rank."""
        if not self.several:
            return values
        total = torch.as_tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.cpu().numpy()


def scalar(value: Any) -> float:
    """A float from a number or a tensor of one element, sharded or not."""
    if isinstance(value, Tensor):
        value = value.detach()
        if hasattr(value, "full_tensor"):
            value = value.full_tensor()
        return float(value)
    return float(value)
