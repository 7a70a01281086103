"""When a batch is given: which of its quantities are due, and what is kept of it until the next step."""

from __future__ import annotations

import contextlib
from typing import Any, final

from . import probes
from .dense import chain
from .functional import Forward, Functional, random_state, set_random_state, untouched_random_state
from .gathered import Gathered, OverRanks
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
        self.device = recorder.vector.params[0].device
        self.gathered = Gathered(model, recorder, forward) if kind == "fsdp" else None
        self.model = None if self.gathered else Functional(model, recorder.vector.names, forward)
        # Under DDP the ranks' own gradients are the parts, and no norm is taken of a rank's share.
        self.halves = Halves(self.model) if self.model is not None and kind == "single" else None
        self.kept: probes.Batch | None = None

    def _whole(self) -> contextlib.AbstractContextManager[Functional]:
        """The model as a function; one that is sharded is gathered for as long as it is used, by all ranks together."""
        return contextlib.nullcontext(self.model) if self.model is not None else self.gathered.whole()  # type: ignore[union-attr]

    def _together(self, model: Functional) -> Functional | OverRanks | None:
        """What takes gradients whose norms are those of the whole objective."""
        if self.gathered is not None:
            return OverRanks(model, self.recorder)
        return model if self.halves is not None else None

    def run(
        self, wanted: list[str], step: int, batch: tuple[Any, Any, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values that ranks average, and the others, for the quantities that are wanted."""
        # Around everything: a loss may draw random numbers, too.
        with untouched_random_state(self.device), self._whole() as model:
            return self._run(model, wanted, step, batch)

    def _run(
        self, model: Functional, wanted: list[str], step: int, batch: tuple[Any, Any, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        means: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        together = self._together(model)
        model.first.clear()
        self._secant(model, step)
        tangent, halves = "tangent-loss" in wanted, "half-batch" in wanted and self.halves is not None
        dense = chain(model, batch[0]) if tangent or halves else None
        if tangent:
            # One at a time: gathered ones are let go before the next.
            reference = (self.gathered or self.recorder.vector).reference
            references = ((c, reference(c)) for c in self.recorder.comparators)
            means |= probes.tangent_loss(dense or model, *batch, references)
        if self.halves is not None and halves:
            extra |= self.halves.start(step, batch, tangent, dense)
        elif isinstance(together, OverRanks) and "half-batch" in wanted:
            extra |= together.parts(*batch)
        if "smoothness" in wanted and together is not None:
            self.kept = probes.keep_for_secant(together, *batch, step)
        model.first.clear()
        if "tangent-margin" in wanted and self.probe is not None:
            extra |= probes.tangent_kernel(model, *self.probe)
        return means, extra

    def late(
        self, wanted: list[str], step: int, batch: tuple[Any, ...]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `run`, with the random state of the moment at which the batch was given, its last entry."""
        with untouched_random_state(self.device):
            set_random_state(batch[3], self.device)
            return self.run(wanted, step, batch[:3])

    def finish(self, step: int, usable: bool) -> tuple[dict[str, float], Short | None]:
        """At the step's hook, see `Halves.finish`."""
        return ({}, None) if self.halves is None else self.halves.finish(step, usable)

    def secant(self, step: int) -> None:
        """At ``w_{t+1}``: smoothness on the batch kept at ``w_t``, added to the record of step t."""
        if self.kept is not None and self.kept.step < step:
            with self._whole() as model:
                self._secant(model, step)

    def _secant(self, model: Functional, step: int) -> None:
        if self.kept is None or self.kept.step >= step:
            return
        kept, self.kept = self.kept, None
        waiting, together = self.recorder.waiting, self._together(model)
        if together is not None and waiting is not None and waiting.step == kept.step == step - 1:
            waiting.extra |= probes.secant(together, kept)


def now(model: Any) -> Any:
    """The random state of this moment on the CPU and the model's device."""
    return random_state(next(model.parameters()).device)
