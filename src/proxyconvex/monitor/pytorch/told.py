"""What the loop, and torch, tell of the step that is being prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ..schedule import Schedule, Together
from .comparators import trained_parameters
from .halves import Short
from .probing import BatchProbing, now
from .proxies import Proxies
from .steps import Recorder


class Told:
    """The part of a monitor that collects what is said before ``optimizer.step``.

    Attributes:
        model: the model that is trained.
        step: number of the step that is being prepared.
        recorder: of the run, None before the first step.
        schedules: by quantity.
        proxies: of outputs and targets.
    """

    model: nn.Module
    step: int
    recorder: Recorder | None
    schedules: Mapping[str, Schedule]
    proxies: Proxies
    # Steps before this one have nothing to measure; what is evaluated on batches, and when one of these is due.
    _quiet_until: int
    _probes: list[str]
    _probe_due: Together
    _probing: BatchProbing | None
    _optimizers: list[Any]
    # A batch given before the vector was known.
    _early: Any

    def _clear(self) -> None:
        """Forget what belonged to the step just measured."""
        self._losses: list[Any] = []
        self._means: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._clip: tuple[Any, float, float] | None = None
        self._clipped = self._arrived = self._given = False
        # Whether anything but one loss was told.
        self._more = False

    def batch(self, inputs: Any, targets: Any, loss_fn: Callable[[Tensor, Any], Tensor]) -> None:
        """The batch of this step, right before your own forward pass (then dropout draws the same masks in both).

        Costs nothing unless the tangent loss, half-batch gradients, smoothness or the tangent kernel are due. With gradient
        accumulation only the first batch of a step is used. A chain of dense layers is evaluated when the loop calls it with these inputs, or
        else at the step, and not at all if the batch was written to before.

        Args:
            inputs: as for the model: a tensor, a tuple, or a mapping of keyword arguments.
            targets: passed on to ``loss_fn``; tensors with one row for each of the inputs'.
            loss_fn: ``loss_fn(outputs, targets)``, the mean loss; the tangent loss bounds only losses convex in the outputs.
        """
        if self.step < self._quiet_until or self._given or not self._probe_due(self.step):
            return
        wanted = [q for q in self._probes if self.due(q)]
        self._given = self._more = True
        if self.recorder is None and not self._optimizers:
            # The first step's optimizer, and so the vector, is not known yet: done when it arrives.
            self._early = (inputs, targets, loss_fn, now(self.model))
            return
        self._build()
        assert self._probing is not None
        self._take(self._probing.run(wanted, self.step, (inputs, targets, loss_fn)))

    def _take(self, found: tuple[dict[str, Any], dict[str, Any]]) -> None:
        self._means |= found[0]
        self._extra |= found[1]

    def _before_measuring(self, usable: bool) -> Short | None:
        """What has to be evaluated at ``w_t`` before the step is measured; ``usable``: see `Halves.finish`."""
        assert self._probing is not None
        self._probing.secant(self.step)
        if self._early is not None:
            self._take(self._probing.late([q for q in self._probes if self.due(q)], self.step, self._early))
            self._early = None
        means, extra, short = self._probing.finish(self.step, usable)
        self._take((means, extra))
        return short

    def _build(self) -> Recorder:
        raise NotImplementedError

    def loss(self, loss: Tensor | float) -> None:
        """The loss of this step: the tensor on which you call ``backward``, before ``optimizer.step``.

        Several calls before a step are added, as their gradients are. With a scaler pass the loss before ``scaler.scale``.
        """
        # What waits to be read must not change with the loop's own tensor.
        if type(loss) is Tensor and loss.is_cpu:
            loss = loss.item()
        elif isinstance(loss, Tensor):
            loss = loss.detach().clone()
        self._losses.append(loss)

    def outputs(self, outputs: Tensor, targets: Any) -> None:
        """Outputs and targets of this step, for proxies (|loss'|, margins, error, your own); done when the schedule says so."""
        if self.due("proxies"):
            self._more = True
            self._means |= self.proxies(outputs, targets)

    def due(self, quantity: str) -> bool:
        """Whether a quantity is due at the step that is being prepared."""
        return self.schedules[quantity].due(self.step) if quantity in self.schedules else False

    def clipped(self, parameters: list[Any], norm: Any, maximum: float, kind: float) -> None:
        """Told by `hooks`."""
        ids = {id(p) for p in parameters}
        mine = (
            self.recorder.vector.params if self.recorder else [p for _, p in trained_parameters(self.model)]
        )
        if not any(id(p) in ids for p in mine):
            return
        whole = not self._clipped and all(id(p) in ids for p in mine if p.grad is not None)
        others = [p for p in parameters if p.grad is not None and id(p) not in {id(q) for q in mine}]
        self._clipped = self._more = True
        # Without a known norm of exactly these gradients, the gradient before clipping was not seen.
        self._clip = (norm, maximum, kind if not others else 0.0) if whole else None

    def clipped_by_value(self, grads: list[Any]) -> None:
        """Told by `hooks`."""
        ids = {id(g) for g in grads}
        if any(id(p.grad) in ids for _, p in trained_parameters(self.model)):
            self._clipped, self._more, self._clip = True, True, None
