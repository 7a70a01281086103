"""Gradients of parts of a batch for the unbiased ``||grad f||^2``, without evaluating what the loop has computed."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from .dense import SAME, Chain, Rows
from .functional import Functional, inner, rows_of, split_batch


@final
class Halves:
    """Gradients ``g_1, g_2`` of the mean loss on two halves of a batch: ``E <g_1, g_2> = ||grad f||^2`` for independent rows.

    Where the loss is a mean over rows that do not influence each other, the gradient ``g`` of the whole batch is their mean. The loop
    computes ``g`` anyway; with ``g_2 = 2 g - g_1`` only one half has to be evaluated:

        ||g_1 + g_2||^2 = 4 ||g||^2 ,   ||g_1||^2 + ||g_2||^2 = 2 ||g_1||^2 + 4 ||g||^2 - 4 <g_1, g> .

    A chain of dense layers under a known mean loss gives the norm of every row's gradient: then the rows are the parts, all pairs of rows
    enter the estimate instead of those of different halves, and of the gradients themselves only ``||sum_i g_i||^2 = n^2 ||g||^2`` is needed.

    Whether ``g`` is so is not guessed from the loop (BatchNorm, dropout, another loss, a gradient that was changed): the first `ALWAYS`
    times and once in `AGAIN` all parts are evaluated and compared with it; the short way is taken only after
    they agreed, and each time it is taken the loss and ``<g, w - v>`` of the step must be those of the batch that was given (both are
    known where the tangent loss is due; elsewhere all parts are evaluated). If they are not, nothing is recorded for that step.

    Args:
        model: the trained model, whose parameters hold the loop's gradients.
    """

    ALWAYS, AGAIN = 3, 10

    def __init__(self, model: Functional) -> None:
        self.model = model
        self.count, self.trusted = 0, False
        # Of the step being prepared: what is completed with the loop's gradient, or what that is compared with.
        self._short: tuple[int, Any, Any] | None = None
        self._sum: tuple[int, Any, float] | None = None

    def start(
        self, step: int, batch: tuple[Any, Any, Any], known: bool, dense: Chain | None = None
    ) -> dict[str, float]:
        """Before the loop's own forward pass.

        With an odd number of rows two halves leave the last one out. Dropout draws its masks anew on each half.

        Args:
            step: its number.
            batch: inputs, targets and loss function.
            known: whether the tangent loss is evaluated at this step, too.
            dense: the model as a chain on this batch, where it is one.
        """
        self._short = self._sum = None
        count = rows_of(batch[0])
        if count < 2:
            return {}
        again = self.count < self.ALWAYS or self.count % self.AGAIN == 0
        self.count += 1
        short = self.trusted and known and not again
        rows = None if dense is None else dense.rows(*batch[1:])
        if rows is not None:
            if short:
                self._short = step, None, rows
                return {}
            return self._all_rows(step, rows)
        if dense is not None:
            self.trusted = False
            return record(*dense.halves(*batch[1:]), 2, count // 2)
        g = self._gradient(batch, 0)
        if short and count % 2 == 0:
            self._short = step, batch, g
            return {}
        found, total = self._direct(batch, g)
        self._sum = step, total, found["parts_sum_sq"]
        if count % 2:
            self._sum, self.trusted = None, False
        return found

    def finish(self, step: int, usable: bool) -> tuple[dict[str, float], Short | None]:
        """At the step's hook; ``usable``: the gradients are those of the loop's own loss, once, neither scaled nor clipped."""
        if self._short is None and self._sum is None:
            return {}, None
        short, whole, self._short, self._sum = self._short, self._sum, None, None
        grads = [p.grad for p in self.model.params]
        usable = usable and all(
            type(g) is Tensor and g.layout is torch.strided and not g.is_complex() for g in grads
        )
        if whole is not None and whole[0] == step:
            self.trusted = usable and _agree(whole[1], whole[2], grads)
        if short is None or short[0] != step:
            return {}, None
        _, batch, g = short
        if not usable:
            self.trusted = False
            if isinstance(g, Rows):
                return self._all_rows(step, g), None
            return self._direct(batch, g)[0], None
        if isinstance(g, Rows):
            return {}, Short(self, g.squares, g.count)
        n = rows_of(batch[0]) // 2
        with torch.no_grad():
            return {}, Short(self, _dots(g, g), 2, n, _dots(g, grads))  # type: ignore[arg-type]

    def _gradient(self, batch: tuple[Any, Any, Any], which: int) -> list[Tensor]:
        inputs, targets, loss_fn = batch
        n = rows_of(inputs) // 2
        part = (split_batch(x, which * n, which * n + n) for x in (inputs, targets))
        return self.model.gradient(*part, loss_fn)[1]

    def _direct(self, batch: tuple[Any, Any, Any], g: list[Tensor]) -> tuple[dict[str, float], list[Tensor]]:
        """The record from both halves, and the sum of their gradients."""
        h = self._gradient(batch, 1)
        each = inner(g, g) + inner(h, h)
        found = record(each + 2 * inner(g, h), each, 2, rows_of(batch[0]) // 2)
        return found, [a + b for a, b in zip(g, h, strict=True)]

    def _all_rows(self, step: int, rows: Rows) -> dict[str, float]:
        """The record from the rows alone."""
        total, n = rows.total(), rows.count
        if total is None:
            return {}
        each = n * n * sum(float(s) for s in rows.squares)
        self._sum = step, n, total
        return record(total, each, n, 1)


def _agree(total: Any, size: float, grads: list[Any]) -> bool:
    """Whether the loop's gradient is the mean of the parts: of two halves with this sum and ``||g_1||^2 + ||g_2||^2``, or of rows."""
    if isinstance(total, int):
        return abs(size - total**2 * inner(grads, grads)) <= SAME * size
    gap = [t - 2 * g for t, g in zip(total, grads, strict=True)]
    return math.sqrt(inner(gap, gap)) <= SAME * math.sqrt(2 * size)


@final
class Short:
    """The short way at one step, to be completed when its other products are read.

    Attributes:
        square: tensors that add up to ``||g_1||^2``, or to the mean over rows of ``||g_i||^2 / n``.
        parts, size: number of parts and the rows of each.
        cross: for two halves, tensors that add up to ``<g_1, g>``.
    """

    def __init__(
        self,
        owner: Halves,
        square: list[Tensor],
        parts: int,
        size: int = 1,
        cross: list[Tensor] | None = None,
    ) -> None:
        self.owner, self.square, self.parts, self.size, self.cross = owner, square, parts, size, cross

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
        k, total = self.parts, self.parts**2 * g
        if self.cross is None:
            return record(total, k * k * sum(numbers(self.square)), k, self.size)
        found = numbers([*self.cross, *self.square])
        cross, square = sum(found[: len(self.cross)]), sum(found[len(self.cross) :])
        return record(total, 2 * square + total - 4 * cross, k, self.size)


def record(total_sq: float, sum_sq: float, parts: int, size: int) -> dict[str, float]:
    """Parts as the log has them."""
    return {
        "parts": float(parts),
        "parts_total_sq": total_sq,
        "parts_sum_sq": sum_sq,
        "part_size": float(size),
    }


def _dots(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return [torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in zip(a, b, strict=True)]
