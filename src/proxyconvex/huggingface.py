"""Watch the Hugging Face Trainer: ``Trainer(..., callbacks=[MonitorCallback(comparator="init", log_dir="runs/x")])``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from .torch import Monitor

__all__ = ["MonitorCallback"]

STATE = "proxyconvex-monitor.pt"


class MonitorCallback(TrainerCallback):
    """A `proxyconvex.torch.Monitor` that lives as long as ``trainer.train``.

    The trainer clips before the optimizer's step; both gradients are recorded. The loss is read from the model's output
    (``output.loss``). With every checkpoint the state is saved beside the model, and a resumed training goes on in the same ledger.
    Under several processes the trainer shows callbacks the model without its wrapper, so what is seen is called rank-local.

    Args:
        comparator: as for `Monitor`.
        report: where to write the HTML report at the end, or None.
        options: further arguments of `Monitor`.

    Attributes:
        monitor: the monitor of the last training, None before.
    """

    def __init__(
        self, comparator: Any = "init", *, report: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        self.comparator, self.report, self.options = comparator, report, options
        self.monitor: Monitor | None = None
        self._hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach to the model's output and the optimizer."""
        self._release()
        model = kwargs["model"]
        meta = {"adapter": "huggingface", **self.options.get("meta", {})}
        self.monitor = Monitor(model, self.comparator, **{**self.options, "meta": meta})
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE
        if state.global_step and saved.exists():
            self.monitor.load_state_dict(torch.load(saved, weights_only=True))
        self.monitor.attach(kwargs["optimizer"])
        parts = max(1, args.gradient_accumulation_steps)

        def told(module: Any, inputs: Any, given: dict[str, Any], output: Any) -> None:
            loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
            if loss is not None and module.training and torch.is_grad_enabled() and self.monitor is not None:
                # The trainer divides by the number of micro-batches unless the model was told the number of items of them all.
                self.monitor.loss(
                    loss if given.get("num_items_in_batch") is not None else loss.detach() / parts
                )

        self._hook = model.register_forward_hook(told, with_kwargs=True)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the state with the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.monitor is not None and folder.is_dir():
            saved = self.monitor.state_dict()
            if self.monitor.writes:
                torch.save(saved, folder / STATE)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the log and write the report."""
        self._release()
        if self.monitor is not None and self.report is not None and self.monitor.step:
            self.monitor.report(self.report)

    def _release(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self.monitor is not None:
            self.monitor.close()
