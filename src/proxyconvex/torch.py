"""Watch a PyTorch training loop: ``from proxyconvex.torch import Monitor``.

monitor = Monitor(model, comparator="checkpoint.pt", log_dir="runs/x")
with monitor:
    ...                       # your loop; tell it monitor.loss(loss) before optimizer.step()
monitor.report("report.html")
"""

from __future__ import annotations

import os
from pathlib import Path

from .monitor.conditions import WatchConvexity, WatchPL
from .monitor.log import RunLog
from .monitor.pytorch.average import AverageResult
from .monitor.pytorch.monitor import TorchMonitor
from .monitor.summary import Summary, summarise

__all__ = ["AverageResult", "Monitor", "Summary", "WatchConvexity", "WatchPL"]


class Monitor(TorchMonitor):
    """See `proxyconvex.monitor.pytorch.monitor.TorchMonitor` for the arguments."""

    def summary(self) -> Summary:
        """What the run has shown so far; `str` of it is plain text. Before `close` in a distributed run: call it on every rank."""
        return summarise(self._log())

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the HTML report of the run so far and return its path; only rank 0 writes it.

        Before `close` in a distributed run: call it on every rank.
        """
        log = self._log()
        if self.writes:
            from .report.monitor_html import write_monitor_report

            return write_monitor_report(log, path)
        return Path(path)

    def _log(self) -> RunLog:
        self.settle()
        return self.ledger.log()
