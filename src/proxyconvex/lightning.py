"""Watch Lightning training: ``Trainer(callbacks=[MonitorCallback(comparator="checkpoint.ckpt", log_dir="runs/x")])``.

Lightning clips after ``on_before_optimizer_step``; the monitor records both gradients of every step, ``raw_*`` as it was at that
hook (before clipping) and ``grad_*`` as the optimizer got it.
"""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import Callback

from .torch import Monitor

__all__ = ["MonitorCallback"]


class MonitorCallback(Callback):
    """A `proxyconvex.torch.Monitor` that lives as long as ``trainer.fit``.

    Its state goes into Lightning's checkpoints, so a resumed fit goes on in the same ledger.

    Args:
        comparator: as for `Monitor`.
        report: where to write the HTML report at the end, or None.
        options: further arguments of `Monitor`.

    Attributes:
        monitor: the monitor of the last fit, None before.
    """

    def __init__(
        self, comparator: Any = "init", *, report: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        self.comparator, self.report, self.options = comparator, report, options
        self.monitor: Monitor | None = None
        self._saved: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach to the optimizers."""
        model = trainer.strategy.model if trainer.strategy.model is not None else pl_module
        meta = {"adapter": "lightning", **self.options.get("meta", {})}
        self.monitor = Monitor(model, self.comparator, **{**self.options, "meta": meta})
        if self._saved:
            self.monitor.load_state_dict(self._saved)
            self._saved = None
        self.monitor.attach(*trainer.optimizers)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """The loss of a (micro-)batch, already divided by ``accumulate_grad_batches``."""
        if self.monitor is not None:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            self.monitor.loss(
                loss.detach() / scaler.get_scale() if scaler is not None and scaler.is_enabled() else loss
            )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the log and write the report."""
        if self.monitor is not None:
            self.monitor.close()
            if self.report is not None and self.monitor.step:
                self.monitor.report(self.report)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the log; the exception goes on."""
        if self.monitor is not None:
            self.monitor.close(f"stopped by {type(exception).__name__}", complete=False)

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoint."""
        return self.monitor.state_dict() if self.monitor is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From Lightning's checkpoint."""
        self._saved = state_dict or None
