"""When a batch is given: which of its quantities are due, and what is kept of it until the next step."""

from __future__ import annotations

from typing import Any, final

from . import probes
from .dense import chain
from .functional import Forward, Functional, random_state, set_random_state, untouched_random_state
from .halves import Halves, Short
from .settings import PROBES
from .steps import Recorder

DONE = PROBES


@final
class Probing:
    """Evaluates batches for one run.

    Args:
        recorder: of the run.
        model: the trained model.
        forward: how to call it.
        probe: fixed rows for the tangent kernel, or None.
    """

    def __init__(self, recorder: Recorder, model: Any, forward: Forward | None, probe: Any) -> None:
        self.recorder, self.probe = recorder, probe
        kind = recorder.exchange.kind
        self.model = Functional(model, recorder.vector.names, forward) if kind != "fsdp" else None
        # The norm of a mean gradient over ranks is not the mean of norms: those two are for one process.
        self.alone = kind == "single"
        self.halves = Halves(self.model) if self.model is not None and self.alone else None
        self.kept: probes.Batch | None = None

    def run(
        self, wanted: list[str], step: int, batch: tuple[Any, Any, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values that ranks average, and the others, for the quantities that are wanted."""
        if self.model is None:
            return {}, {}
        # Around everything: a loss may draw random numbers, too.
        with untouched_random_state(self.model.device):
            return self._run(self.model, wanted, step, batch)

    def _run(
        self, model: Functional, wanted: list[str], step: int, batch: tuple[Any, Any, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        means: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        model.first.clear()
        self.secant(step)
        tangent, halves = "tangent-loss" in wanted, "half-batch" in wanted and self.halves is not None
        dense = chain(model, batch[0]) if tangent or halves else None
        if tangent:
            vector = self.recorder.vector
            references = {c: vector.reference(c) for c in self.recorder.comparators}
            means |= probes.tangent_loss(dense or model, *batch, references)
        if self.halves is not None and halves:
            extra |= self.halves.start(step, batch, tangent, dense)
        if "smoothness" in wanted and self.alone:
            self.kept = probes.keep_for_secant(model, *batch, step)
        model.first.clear()
        if "tangent-margin" in wanted and self.probe is not None:
            extra |= probes.tangent_kernel(model, *self.probe)
        return means, extra

    def late(
        self, wanted: list[str], step: int, batch: tuple[Any, ...]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `run`, with the random state of the moment at which the batch was given, its last entry."""
        if self.model is None:
            return {}, {}
        with untouched_random_state(self.model.device):
            set_random_state(batch[3], self.model.device)
            return self.run(wanted, step, batch[:3])

    def finish(self, step: int, usable: bool) -> tuple[dict[str, float], Short | None]:
        """At the step's hook, see `Halves.finish`."""
        return ({}, None) if self.halves is None else self.halves.finish(step, usable)

    def secant(self, step: int) -> None:
        """At ``w_{t+1}``: smoothness on the batch kept at ``w_t``, added to the record of step t."""
        if self.kept is None or self.model is None or self.kept.step >= step:
            return
        kept, self.kept = self.kept, None
        waiting = self.recorder.waiting
        if waiting is not None and waiting.step == kept.step == step - 1:
            waiting.extra |= probes.secant(self.model, kept)


def now(model: Any) -> Any:
    """The random state of this moment on the CPU and the model's device."""
    return random_state(next(model.parameters()).device)
