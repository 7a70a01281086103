"""The monitor of a PyTorch loop: three lines around it, nothing inside it changes."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ...core.errors import InvalidInputError
from ...core.evidence import Verdict
from ..conditions import Watch
from ..ledger import Ledger
from ..log import Sink
from ..schedule import Every, Never, Together
from . import hooks
from .assembly import assemble, is_word, torch_optimizer
from .average import AverageResult, RunningAverage
from .comparators import named_sources, resolve, trained_parameters, unwrap
from .distributed import kind_of, scalar
from .functional import Forward
from .passes import Passes
from .probing import DONE, BatchProbing, Probing
from .proxies import Proxies
from .seen import Seen, gradient_label, step_sizes
from .settings import refuse_sharded, schedules
from .sharded import ShardedProbing, at_rest, why_not
from .steps import Recorder
from .told import Told


class TorchMonitor(Told):
    """Records what a training run does, against one or several comparators ``v``.

    Example:
        >>> import torch
        >>> from proxyconvex.torch import Monitor
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> monitor = Monitor(model, comparator="init")
        >>> with monitor:
        ...     for _ in range(4):
        ...         optimizer.zero_grad()
        ...         loss = model(torch.ones(2, 3)).square().mean()
        ...         loss.backward()
        ...         monitor.loss(loss)
        ...         optimizer.step()
        >>> monitor.verdict().status.name
        'HOLDS'

    Args:
        model: the model that is trained, as it is trained (compiled, in its DDP wrapper, after ``fully_shard``).
        comparator: ``"init"`` (the weights at the first step), a state dict, a module, the path of a checkpoint, ``"average"`` (the
            average of this run's iterates, judged at its end), or a list or dict of these.
        log_dir: folder of the log, or None to keep nothing on disk.
        preset: ``"light"``, ``"standard"``, ``"full"``, or a mapping from quantity to schedule.
        schedule: schedules that replace those of the preset.
        loss_name: ``"cross-entropy"``, ``"logistic"``, ``"binary-cross-entropy"``, ``"hinge"`` or ``"squared"``: which proxies `outputs` computes.
        proxies: further proxies, ``name -> function(outputs, targets)`` returning a scalar.
        forward: how `batch` calls the model, ``forward(model, inputs) -> outputs``; by default ``model(*inputs)`` for a tuple,
            ``model(**inputs)`` for a mapping, else ``model(inputs)``.
        probe: ``(inputs, targets)`` of a few fixed rows for the tangent kernel and margin.
        gather: whether the whole model may be gathered on every rank for probes of a model sharded by ``fully_shard``; False refuses these.
        precision: ``"float32"``, or ``"float64"`` to form every difference and product in float64.
        watches: further conditions to watch.
        meta: what a reader of the log should know; ``full_batch=True`` if every gradient is that of the whole objective.
        sinks: further receivers of the records, such as a TensorBoard writer.

    Raises:
        InvalidInputError: for a comparator that lacks a trained parameter, an unknown preset, a model without parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        comparator: Any = "init",
        log_dir: str | os.PathLike[str] | None = None,
        preset: str | Mapping[str, Any] = "light",
        *,
        schedule: Mapping[str, Any] | None = None,
        loss_name: str | None = None,
        proxies: Mapping[str, Callable[[Tensor, Any], Any]] | None = None,
        forward: Forward | None = None,
        probe: tuple[Any, Any] | None = None,
        gather: bool = True,
        precision: str = "float32",
        watches: Iterable[Watch] = (),
        meta: Mapping[str, Any] | None = None,
        sinks: Iterable[Sink] = (),
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidInputError("model", type(model).__name__, "a torch.nn.Module")
        self.model, self.log_dir, self.precision = model, log_dir, precision
        self.sources = named_sources(comparator)
        at_rest(model)
        trained = trained_parameters(model)
        if not trained:
            raise InvalidInputError("model", "no parameter that requires a gradient", "at least one")
        for source in self.sources.values():
            if not isinstance(source, str) or source not in ("init", "average"):
                resolve(source, trained)
        self.schedules = schedules(preset, schedule, bool(dict(meta or {}).get("full_batch")))
        if any(is_word(s, "average") for s in self.sources.values()):
            # The average is known at the end only: its sums need every step.
            self.schedules |= dict.fromkeys(("inner-product", "distance", "update"), Every(1))
        if kind_of(model) == "fsdp":
            refuse_sharded(self.schedules, why_not(model) if gather else "gather=False was given.")
        self._probes = [q for q in DONE if not isinstance(self.schedules[q], Never)]
        self._probe_due = Together(self.schedules[q] for q in self._probes)
        self.proxies = Proxies(loss_name, proxies or {}, ranks=kind_of(model) != "single")
        self.forward, self.probe = forward, probe
        self._options: dict[str, Any] = {"watches": tuple(watches), "sinks": tuple(sinks)}
        self.meta = {
            "adapter": "torch",
            "torch": torch.__version__,
            "model": type(unwrap(model)).__name__,
            "loss": loss_name,
        }
        self.meta |= dict(meta or {})
        # Steps before the second of these need not `_arrive`.
        self.step = self._quiet_until = 0
        self.recorder: Recorder | None = None
        self._main: Any = None
        self._counted: list[Any] = []
        self._due_parts = Together([self.schedules["half-batch"]])
        self._optimizers: list[Any] = []
        self._owned: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        self._handles: list[Any] = []
        self._saved: Mapping[str, Any] | None = None
        self._passes = Passes()
        self._versions: list[int] | None = None
        self._average: RunningAverage | None = None
        self._probing: BatchProbing | None = None
        self._early: Any = None
        self._closed = False
        self._clear()

    # -- where it is attached

    def attach(self, *optimizers: Any) -> Self:
        """Watch these optimizers from now on; `close` ends it. With several, a step runs from one step of the first to its next.

        Raises:
            InvalidInputError: if they update none of the model's trained parameters.
        """
        self._open()
        inside = [torch_optimizer(o) for o in optimizers]
        if not inside:
            raise InvalidInputError("optimizers", optimizers, "at least one torch.optim.Optimizer")
        self._optimizers += inside
        self._build()
        self._handles += [o.register_step_pre_hook(self._before_step) for o in inside]
        self._handles += [o.register_step_post_hook(self._after_step) for o in inside]
        hooks.listen(self)
        return self

    def __enter__(self) -> Self:
        self._open()
        if not self._handles:
            self._handles.append(register_optimizer_step_pre_hook(self._before_step))
            self._handles.append(register_optimizer_step_post_hook(self._after_step))
            hooks.listen(self)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
            return
        # The user's exception goes on; what the monitor still had to say must not replace it.
        with contextlib.suppress(Exception):
            self.close(f"stopped by {kind.__name__}", complete=False)

    def close(self, reason: str = "closed", *, complete: bool = True) -> None:
        """Stop watching, complete the last step and close the log. Safe to call twice; on every rank.

        Args:
            reason: why, for the log.
            complete: False if other ranks may not be here (after an exception): then nothing is exchanged.
        """
        if self._closed:
            return
        self._closed = True
        for handle in self._handles:
            handle.remove()
        self._passes.remove()
        if self._probing is not None:
            self._probing.release()
        hooks.forget(self)
        if self.recorder is not None:
            average, recorder = self._average, self.recorder
            self.recorder.finish(
                reason,
                exchange=complete,
                conclude=None if average is None else lambda: average.finish(recorder, self.log_dir),
            )

    def _open(self) -> None:
        if self._closed:
            raise InvalidInputError(
                "monitor", "closed", "a monitor that was not used before",
                "Put `with monitor:` around the whole run, or use monitor.attach(optimizer) and monitor.close().",
            )  # fmt: skip

    def _build(self) -> Recorder:
        """Fix the vector, at the first step (or when attached): ``w_0`` and the parameters that the optimizers update."""
        if self.recorder is not None:
            return self.recorder
        at_rest(self.model)
        self.recorder = recorder = assemble(
            self.model,
            self._optimizers,
            self.sources,
            self._saved["init"] if self._saved else None,
            self.precision,
            self.meta,
            log_dir=self.log_dir,
            preset=self.schedules,
            **self._options,
        )
        vector, exchange = recorder.vector, recorder.exchange
        recorder.also_average(self.proxies.names)
        self._main = self._optimizers[0]
        self._counted = vector.params if recorder.plain and vector.plain else []
        probing = ShardedProbing if exchange.kind == "fsdp" else Probing
        self._probing = probing(recorder, self.model, self.forward, self.probe)
        self._passes.watch(vector.params, exchange.kind)
        if any(is_word(s, "average") for s in self.sources.values()):
            self._average = RunningAverage(vector)
        if self._saved:
            recorder.ledger.load_state_dict(self._saved["ledger"])
            if self._average is not None and "average" in self._saved:
                self._average.restore(self._saved["average"])
        return recorder

    # -- what torch tells ---------------------------------------------------------------------------------------------

    def _owns(self, optimizer: Any) -> bool:
        known = self._owned.get(optimizer)
        if known is None:
            ids = {id(p) for _, p in trained_parameters(self.model)}
            known = any(id(p) in ids for g in optimizer.param_groups for p in g["params"])
            if known and not self._optimizers:
                self._optimizers.append(optimizer)
            elif known and optimizer not in self._optimizers:
                self.meta["not watched"] = type(optimizer).__name__
            known = known and optimizer is self._optimizers[0]
            self._owned[optimizer] = known
        return known

    def _before_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if optimizer is not self._main and not self._owns(optimizer):
            return None
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if not callable(closure):
            if self.step >= self._quiet_until or not self._pass_over(optimizer):
                self._arrive(optimizer)
            return None
        return hooks.with_closure(
            args,
            kwargs,
            hooks.around_first(closure, self._passes.restart, lambda loss: self._evaluated(optimizer, loss)),
        )

    def _after_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Between here and the next call nothing but other code writes to the weights; torch counts writes in place."""
        if optimizer is self._main and self._counted:
            self._versions = [p._version for p in self._counted]

    def _evaluated(self, optimizer: Any, loss: Any) -> None:
        """A closure was evaluated for the first time in a step: at ``w_t``."""
        if not self._losses and isinstance(loss, (Tensor, float)):
            self.loss(loss)
        self._arrive(optimizer)

    def scaler_begins(self, optimizer: Any, scaler: Any) -> None:
        """Told by `hooks`."""
        if self._owns(optimizer):
            self._arrived, self._more, self._passes.scale = False, True, float(scaler.get_scale())

    def scaler_ends(self, optimizer: Any, scaler: Any) -> None:
        """Told by `hooks`: the optimizer was not called, so the scaler skipped the step."""
        if self._owns(optimizer) and not self._arrived:
            self._arrive(optimizer, skipped=True)
        self._arrived = False

    def _pass_over(self, optimizer: Any) -> bool:
        """`_arrive` at a step at which nothing is measured, if nothing but one loss was told; most steps are such, so it does little."""
        recorder, losses, passes, own = self.recorder, self._losses, self._passes, vars(optimizer)
        if self._more or len(losses) > 1 or passes.seen > 1 or passes.asked or recorder is None:
            return False
        if "found_inf" in own or "grad_scale" in own:
            return False
        step = self.step
        if self._versions is not None:
            self._look_for_writes(step)
        recorder.pass_over((step, step_sizes(optimizer), losses.pop() if losses else None))
        self.step = step + 1
        passes.begin()
        return True

    def _look_for_writes(self, step: int) -> None:
        """Whether something else has written to the weights since the optimizer did, where the ledger itself does not see it."""
        if self._versions == [p._version for p in self._counted]:
            return
        recorder = self.recorder
        if recorder is not None and recorder.waiting is not None and not recorder.judges:
            recorder.ledger.written(step)

    def _arrive(self, optimizer: Any, skipped: bool = False) -> None:
        """``w_t`` and the gradient are here, the step is not."""
        recorder = self.recorder or self._build()
        # A scaler leaves these two only while an optimizer that unscales inside its step is called.
        own, factor = vars(optimizer), 1.0
        if "found_inf" in own or "grad_scale" in own:
            found, scale = own.get("found_inf"), own.get("grad_scale")
            skipped = skipped or (found is not None and scalar(found) > 0)
            factor = 1.0 if scale is None else scalar(scale)
        accumulated = self._passes.count(len(self._losses)) > 1
        label = gradient_label(self._clipped, accumulated, recorder.exchange.label)
        short = None
        if self._given or (self._probing is not None and self._probing.kept is not None):
            short = self._before_measuring(label == "raw" and factor == 1.0 and not skipped)
        step, passes, losses = self.step, self._passes, self._losses
        if self._versions is not None:
            self._look_for_writes(step)
        seen = Seen(
            step, step_sizes(optimizer), label, losses, factor, self._clip, skipped,
            self._means, self._extra, passes.take() if passes.asked else None, short,
        )  # fmt: skip
        if self._average is not None and not skipped:
            self._average.add()
        recorder.arrive(seen, gradient=not skipped)
        self._clear()
        self._arrived = True
        self.step = step + 1
        passes.begin(self._due_parts(self.step))
        # A step whose arrival is owed, or a batch kept for the secant, needs the next one.
        owed = seen.kept or (self._probing is not None and self._probing.kept is not None)
        self._quiet_until = 0 if owed or self._average is not None else recorder.quiet_until(self.step)

    # -- what it says -------------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The ledger with everything up to the last completed step (in a distributed run: that the ranks have exchanged).

        Raises:
            InvalidInputError: before the first step.
        """
        if self.recorder is None:
            raise InvalidInputError("monitor", "no step yet", "a monitor that has seen a step")
        if not self.recorder.exchange.several:
            self.recorder.flush()
        return self.recorder.ledger

    def verdict(self, comparator: str | None = None) -> Verdict:
        """Whether T7 held along the run, to rounding."""
        return self.ledger.verdict(comparator)

    @property
    def average(self) -> AverageResult | None:
        """T7 against the average of the iterates, once the run was closed with the comparator ``"average"``."""
        return None if self._average is None else self._average.result

    @property
    def writes(self) -> bool:
        """Whether this process writes the log (rank 0 of a distributed run)."""
        return self.recorder is None or self.recorder.exchange.writer

    def settle(self) -> None:
        """Complete the last step at the weights as they are now; `state_dict` and the report do it. On every rank."""
        if self.recorder is not None and not self._closed:
            self.recorder.settle()

    def state_dict(self) -> dict[str, Any]:
        """What to put into a checkpoint, after ``optimizer.step``; on every rank (each keeps its own)."""
        if self.recorder is None:
            return {"step": 0, "ledger": None}
        self.recorder.settle()
        vector = self.recorder.vector
        start = dict(zip(vector.names, vector.reference("init"), strict=True))
        state = {"step": self.step, "ledger": self.ledger.state_dict(), "init": start}
        return state | ({"average": self._average.state()} if self._average is not None else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, after the model and the optimizer were loaded and before the first step.

        Raises:
            InvalidInputError: after the first step.
        """
        if self.recorder is not None:
            raise InvalidInputError("state", f"step {self.step}", "a monitor that has not seen a step yet")
        self.step = int(state["step"])
        self._saved = state if state["ledger"] is not None else None
