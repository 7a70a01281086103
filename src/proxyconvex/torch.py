"""Watch a PyTorch training loop: which proxy it minimises, and what that would have promised.

    from proxyconvex.torch import Monitor

    monitor = Monitor(model, comparator="checkpoint.pt", log_dir="runs/x")
    with monitor:
        ...                       # your loop; call monitor.loss(loss) before optimizer.step()
    monitor.report("report.html")
"""

from __future__ import annotations

from typing import final

from .monitor.pytorch.monitor import TorchMonitor


@final
class Monitor(TorchMonitor):
    __doc__ = TorchMonitor.__doc__


__all__ = ["Monitor"]
