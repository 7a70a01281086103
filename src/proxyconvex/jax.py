"""Watch training in JAX and Optax: ``from proxyconvex.jax import Monitor``."""

from __future__ import annotations

import os
from pathlib import Path

from .monitor.conditions import WatchConvexity, WatchPL
from .monitor.jax_monitor import JaxMonitor, split_gradients, tangent_loss
from .monitor.log import RunLog
from .monitor.summary import Summary, summarise

__all__ = ["Monitor", "Summary", "WatchConvexity", "WatchPL", "split_gradients", "tangent_loss"]


class Monitor(JaxMonitor):
    """See `proxyconvex.monitor.jax_monitor.JaxMonitor` for the arguments."""

    def summary(self) -> Summary:
        """What the run has shown so far; `str` of it is plain text."""
        return summarise(self._log())

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the HTML report of the run so far and return its path."""
        from .report.monitor_html import write_monitor_report

        return write_monitor_report(self._log(), path)

    def _log(self) -> RunLog:
        return self.ledger.log()
