"""When a batch is given: which of its quantities are due, and what is kept of it until the next step."""

from __future__ import annotations

import contextlib
from typing import Any, final

import torch

from . import probes
from .dense import Chain, chain, is_known
from .functional import Forward, Functional, random_state, set_random_state, untouched_random_state
from .halves import Halves, Short
from .ride import Ride, can_ride
from .seen import Seen
from .settings import PROBES
from .steps import Recorder

DONE = PROBES


class BatchProbing:
    """Evaluates batches for one run.

    Args:
        recorder: of the run.
        probe: fixed rows for the tangent kernel, or None.
        device: of the trained model.
    """

    def __init__(self, recorder: Recorder, probe: Any, device: torch.device) -> None:
        self.recorder, self.probe, self.device = recorder, probe, device
        self.kept: probes.Batch | None = None

    def run(
        self, wanted: list[str], step: int, batch: tuple[Any, Any, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values that ranks average, and the others, for the quantities that are wanted."""
        raise NotImplementedError

    def late(
        self, wanted: list[str], step: int, batch: tuple[Any, ...]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `run`, with the random state of the moment at which the batch was given, its last entry."""
        with untouched_random_state(self.device):
            set_random_state(batch[3], self.device)
            return self.run(wanted, step, batch[:3])

    def finish(self, step: int, usable: bool) -> tuple[dict[str, Any], dict[str, Any], Short | None]:
        """At the step's hook: what was found since `run`, as there, and the norms of parts; ``usable``: see `Halves.finish`."""
        return {}, {}, None

    def release(self) -> None:
        """No longer wait for a forward pass."""

    def secant(self, step: int) -> None:
        """`pay` what is owed at ``w_step``."""
        raise NotImplementedError

    def owes(self, step: int) -> bool:
        """Whether a batch was kept before ``w_step``, for a secant."""
        return self.kept is not None and self.kept.step < step

    def pay(self, model: probes.Evaluated, step: int) -> None:
        """At ``w_{t+1}``: smoothness on the batch kept at ``w_t``, added to the record of step t."""
        if self.kept is None or not self.owes(step):
            return
        kept, self.kept = self.kept, None
        waiting = self.recorder.waiting
        if isinstance(waiting, Seen) and waiting.step == kept.step == step - 1:
            waiting.extra |= probes.secant(model, kept)


@final
class Probing(BatchProbing):
    """`BatchProbing` of a model that is whole on every rank.

    Args:
        recorder: of the run.
        model: the trained model.
        forward: how to call it.
        probe: fixed rows for the tangent kernel, or None.
    """

    def __init__(self, recorder: Recorder, model: Any, forward: Forward | None, probe: Any) -> None:
        self.model = Functional(model, recorder.vector.names, forward)
        super().__init__(recorder, probe, self.model.device)
        # The norm of a mean gradient over ranks is not the mean of norms: those two are for one process.
        self.alone = recorder.exchange.kind == "single"
        self.halves = Halves(self.model) if self.alone else None
        # The batch that waits for the loop's forward pass, and what was found in it.
        self.watched = model
        self._ride: Ride | None = None
        self._found: tuple[dict[str, Any], dict[str, Any]] = {}, {}

    def run(
        self, wanted: list[str], step: int, batch: tuple[Any, Any, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values that ranks average, and the others, for the quantities that are wanted; what needs the loop's own forward pass comes with `finish`."""
        model = self.model
        means: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        model.first.clear()
        self.release()
        self.secant(step)
        tangent, halves = "tangent-loss" in wanted, "half-batch" in wanted and self.halves is not None
        dense = chain(model, batch[0]) if tangent or halves else None
        ride = dense is not None and can_ride(dense, self.watched, batch[1])
        if not ride and (tangent or halves):
            means, extra = self._evaluate(model, step, batch, tangent, halves, dense)
        if "smoothness" in wanted and self.alone:
            self.kept = probes.keep_for_secant(model, *batch, step)
        model.first.clear()
        if "tangent-margin" in wanted and self.probe is not None:
            extra |= probes.tangent_kernel(model, *self.probe)
        if ride:
            # The last thing, so that it does not see what is evaluated here. A loss of the user's draws what it would draw now.
            state = None if is_known(batch[2]) else random_state(model.device)

            def use(dense: Chain) -> None:
                with contextlib.nullcontext() if state is None else untouched_random_state(model.device):
                    if state is not None:
                        set_random_state(state, model.device)
                    self._found = self._evaluate(model, step, batch, tangent, halves, dense)

            self._ride = Ride(dense, batch[1], use)
        return means, extra

    def _evaluate(
        self,
        model: Functional,
        step: int,
        batch: tuple[Any, Any, Any],
        tangent: bool,
        halves: bool,
        dense: Chain | None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Tangent loss and parts of one batch."""
        means: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        # Around everything: a loss of the user's may draw random numbers, too.
        drawn = dense is None or not is_known(batch[2])
        with untouched_random_state(model.device) if drawn else contextlib.nullcontext():
            if tangent:
                vector = self.recorder.vector
                references = {c: vector.reference(c) for c in self.recorder.comparators}
                means = probes.tangent_loss(dense or model, *batch, references)
            if self.halves is not None and halves:
                extra = self.halves.start(step, batch, tangent, dense)
        return means, extra

    def release(self) -> None:
        """No longer wait for a forward pass."""
        if self._ride is not None:
            self._ride.release()
        self._ride, self._found = None, ({}, {})

    def finish(self, step: int, usable: bool) -> tuple[dict[str, Any], dict[str, Any], Short | None]:
        """As `BatchProbing.finish`."""
        if self._ride is not None:
            self._ride.finish()
        means, extra = self._found
        self.release()
        found, short = ({}, None) if self.halves is None else self.halves.finish(step, usable)
        return means, extra | found, short

    def secant(self, step: int) -> None:
        """`pay` what is owed."""
        self.pay(self.model, step)


def now(model: Any) -> Any:
    """The random state of this moment on the CPU and the model's device."""
    return random_state(next(model.parameters()).device)
