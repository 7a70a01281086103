"""The watched conditions of a run, judged step by step with the gradients that may be used for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, final

from .conditions import ConvexityTally, PLTally, Watch, WatchConvexity, WatchPL, lookup


@final
class Tallies:
    """One tally for each watch (and comparator).

    Args:
        watches: what to watch.
        comparators: names of the fixed points v.
        tolerance: relative error of the dot products.
    """

    def __init__(self, watches: Iterable[Watch], comparators: tuple[str, ...], tolerance: float) -> None:
        watches = tuple(watches)
        self._convexity = [w for w in watches if isinstance(w, WatchConvexity)]
        self._pl = [w for w in watches if isinstance(w, WatchPL)]
        self.comparators = comparators
        self.convexity = {
            (w.name, c): ConvexityTally(tolerance) for w in self._convexity for c in comparators
        }
        self.pl = {w.name: PLTally() for w in self._pl}

    def take(self, record: Mapping[str, Any], eta: float | None, full_batch: bool) -> None:
        """Judge one step that was taken; see `Ledger.observe` for its record.

        A clipped gradient is not the gradient that a condition speaks of, and a rank's own is not that of the batch.
        """
        if not (full_batch or "grad_w_minus_v" in record):
            return
        raw = record.get("raw_grad_w_minus_v") is not None
        raw_square = "raw_grad_sq" in record
        inner = record.get("raw_grad_w_minus_v" if raw else "grad_w_minus_v")
        grad_sq = record.get("raw_grad_sq" if raw_square else "grad_sq")
        kind = record["gradient"]
        if grad_sq is None or "rank-local" in kind:
            return
        if full_batch and (raw_square or "clipped" not in kind):
            for watch in self._pl:
                g = lookup(watch.g, record, "")
                if g is not None:
                    self.pl[watch.name].add(record["step"], grad_sq, g - watch.xi, watch.alpha)
        if inner is None or ("clipped" in kind and not raw):
            return
        weight = eta
        if "clipped" in kind:
            weight = eta * record["clip"] if eta is not None and record.get("clip") is not None else None
        for watch in self._convexity:
            for c in self.comparators:
                g, h = lookup(watch.g, record, c), lookup(watch.h, record, c)
                if g is None or h is None or c not in inner:
                    continue
                size = math.sqrt(max(grad_sq, 0.0) * max(record.get("dist_sq", {}).get(c, 0.0), 0.0))
                self.convexity[watch.name, c].add(
                    record["step"], inner[c], g, h, size=size, grad_sq=grad_sq, weight=weight
                )
