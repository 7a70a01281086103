"""How many backward passes a step's gradient is the sum of, and the squared norm of each: parts for unbiased estimates.

A hook on a leaf sees the gradient of one backward pass on this rank before it is added to ``.grad`` and before DDP averages it.
One hook counts; on the steps where half-batch norms are due and there is something to add up, every parameter has one.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor


@final
class Passes:
    """Counts backward passes and, when asked, sums the squared norms of their gradients."""

    def __init__(self) -> None:
        self.seen = self.last = 0
        self.scale = 1.0
        self.ranks = False
        self._params: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._counter: Any = None
        self._handles: list[Any] = []

    def watch(self, params: list[Tensor], kind: str) -> None:
        """Start with these parameters; sharded ones (FSDP) have no such hook."""
        if kind == "fsdp":
            return
        self._params, self.ranks = params, kind == "ddp"
        self._counter = params[0].register_hook(self._one_more)

    def _one_more(self, grad: Tensor) -> None:
        self.seen += 1

    def _add(self, grad: Tensor) -> None:
        g = torch.view_as_real(grad) if grad.is_complex() else grad
        g = (g.to_dense() if g.layout != torch.strided else g).detach().reshape(-1)
        g = g if g.dtype == torch.float64 else g.float()
        self._squares.append(torch.dot(g, g))

    def begin(self, parts: bool = False) -> None:
        """A new step starts; ``parts`` asks for the norms of its passes, if it has several or other ranks have theirs."""
        self.last, self.seen = self.seen or 1, 0
        if not (parts or self._handles):
            return
        self._squares, self.scale = [], 1.0
        wanted = parts and (self.last > 1 or self.ranks)
        if wanted and not self._handles:
            self._handles = [p.register_hook(self._add) for p in self._params]
        elif not wanted and self._handles:
            self._release()

    @property
    def asked(self) -> bool:
        """Whether the norms of this step's passes are taken."""
        return bool(self._handles)

    def restart(self) -> None:
        """Forget passes made so far (an optimizer evaluates its closure anew)."""
        self.seen, self._squares = 0, []

    def count(self, losses: int) -> int:
        """Backward passes since `begin`; at least the number of losses that were told."""
        return max(self.seen, losses)

    def take(self) -> tuple[int, list[float | Tensor]] | None:
        """Number of passes and the squared norms of the parts, unscaled; None if they were not asked for."""
        if not self._handles or not self._squares:
            return None
        return self.seen, [s / self.scale**2 for s in self._squares]

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def remove(self) -> None:
        """Take all hooks away."""
        self._release()
        if self._counter is not None:
            self._counter.remove()
            self._counter = None
