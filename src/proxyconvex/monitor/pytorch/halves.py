"""Two half-batch gradients for the unbiased ``||grad f||^2``, at the cost of one where the loop has computed the other."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from .functional import Functional, inner, rows_of, split_batch

# Relative gap of two float32 computations of the same gradient, inner product or loss.
SAME = 1e-4


@final
class Halves:
    """Gradients ``g_1, g_2`` of the mean loss on two halves of a batch: ``E <g_1, g_2> = ||grad f||^2`` for independent rows.

    Where the loss is a mean over rows that do not influence each other, the gradient ``g`` of the whole batch is their mean. The loop
    computes ``g`` anyway; with ``g_2 = 2 g - g_1`` only one half has to be evaluated:

        ||g_1 + g_2||^2 = 4 ||g||^2 ,   ||g_1||^2 + ||g_2||^2 = 2 ||g_1||^2 + 4 ||g||^2 - 4 <g_1, g> .

    Whether it is so is not guessed from the model (BatchNorm, dropout, another loss, a gradient that was changed): the first `ALWAYS`
    times and once in `AGAIN` both halves are evaluated and ``g_1 + g_2`` is compared with ``2 g``; the short way is taken only after
    they agreed, and each time it is taken the loss and ``<g, w - v>`` of the step must be those of the batch that was given (both are
    known where the tangent loss is due; elsewhere both halves are evaluated). If they are not, nothing is recorded for that step.

    Args:
        model: the trained model, whose parameters hold the loop's gradients.
    """

    ALWAYS, AGAIN = 3, 10

    def __init__(self, model: Functional) -> None:
        self.model = model
        self.count, self.trusted = 0, False
        self._first: tuple[int, Any, list[Tensor]] | None = None
        self._both: tuple[int, list[Tensor], float] | None = None

    def start(self, step: int, batch: tuple[Any, Any, Any], known: bool) -> dict[str, float]:
        """Before the loop's own forward pass; ``known`` says whether the tangent loss is evaluated at this step, too.

        With an odd number of rows the last one is left out. Dropout draws its masks anew on each half.
        """
        self._first = self._both = None
        rows = rows_of(batch[0])
        if rows < 2:
            return {}
        again = self.count < self.ALWAYS or self.count % self.AGAIN == 0
        self.count += 1
        g = self._gradient(batch, 0)
        if self.trusted and known and not again and rows % 2 == 0:
            self._first = step, batch, g
            return {}
        found, total = self._direct(batch, g)
        self._both = step, total, found["parts_sum_sq"]
        if rows % 2:
            self._both, self.trusted = None, False
        return found

    def finish(self, step: int, usable: bool) -> tuple[dict[str, float], Short | None]:
        """At the step's hook; ``usable``: the gradients are those of the loop's own loss, once, neither scaled nor clipped."""
        if self._first is None and self._both is None:
            return {}, None
        first, both, self._first, self._both = self._first, self._both, None, None
        grads = [p.grad for p in self.model.params]
        usable = usable and all(
            type(g) is Tensor and g.layout is torch.strided and not g.is_complex() for g in grads
        )
        if both is not None and both[0] == step:
            gap = [t - 2 * g for t, g in zip(both[1], grads, strict=True)] if usable else []  # type: ignore[operator]
            self.trusted = usable and math.sqrt(inner(gap, gap)) <= SAME * math.sqrt(2 * both[2])
        if first is None or first[0] != step:
            return {}, None
        if not usable:
            self.trusted = False
            return self._direct(first[1], first[2])[0], None
        g = first[2]
        with torch.no_grad():
            return {}, Short(self, _dots(g, grads), _dots(g, g), rows_of(first[1][0]) // 2)  # type: ignore[arg-type]

    def _gradient(self, batch: tuple[Any, Any, Any], which: int) -> list[Tensor]:
        inputs, targets, loss_fn = batch
        n = rows_of(inputs) // 2
        part = (split_batch(x, which * n, which * n + n) for x in (inputs, targets))
        return self.model.gradient(*part, loss_fn)[1]

    def _direct(self, batch: tuple[Any, Any, Any], g: list[Tensor]) -> tuple[dict[str, float], list[Tensor]]:
        """The record from both halves, and the sum of their gradients."""
        h = self._gradient(batch, 1)
        square = inner(g, g) + inner(h, h)
        found = record(square + 2 * inner(g, h), square, rows_of(batch[0]) // 2)
        return found, [a + b for a, b in zip(g, h, strict=True)]


@final
class Short:
    """The short way at one step, to be completed when its other products are read.

    Attributes:
        cross, square: tensors that add up to ``<g_1, g>`` and ``||g_1||^2``.
        size: rows of a half.
    """

    def __init__(self, owner: Halves, cross: list[Tensor], square: list[Tensor], size: int) -> None:
        self.owner, self.cross, self.square, self.size = owner, cross, square, size

    def complete(
        self, step: dict[str, Any], loss: float, probe: dict[str, Any], numbers: Any
    ) -> dict[str, float]:
        """The record, or nothing if the step's gradient is not that of the batch.

        Args:
            step: the step's record with ``grad_sq``, and by comparator ``grad_w_minus_v`` and ``dist_sq``.
            loss: its loss, or that of the batch if it was not told.
            probe: ``probe_loss`` and ``probe_inner`` of the batch.
            numbers: reads a list of tensors.
        """
        g = step["grad_sq"]
        same = abs(loss - probe["probe_loss"]) <= SAME * max(abs(loss), abs(probe["probe_loss"])) + 1e-7
        for c, value in probe["probe_inner"].items():
            size = math.sqrt(max(g * step["dist_sq"][c], 0.0))
            same = same and abs(value - step["grad_w_minus_v"][c]) <= SAME * size
        if not same:
            self.owner.trusted = False
            return {}
        found = numbers([*self.cross, *self.square])
        cross, square = sum(found[: len(self.cross)]), sum(found[len(self.cross) :])
        return record(4 * g, 2 * square + 4 * g - 4 * cross, self.size)


def record(total_sq: float, sum_sq: float, size: int) -> dict[str, float]:
    """Two parts as the log has them."""
    return {
        "parts": 2.0,
        "parts_total_sq": total_sq,
        "parts_sum_sq": sum_sq,
        "part_size": float(size),
    }


def _dots(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return [torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in zip(a, b, strict=True)]
