"""Many steps of which only loss and step size are known, handed to the ledger at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .ledger import Ledger


def pass_over_all(
    ledger: Ledger, first: int, etas: Sequence[float | None], losses: Sequence[float | None], gradient: str
) -> None:
    """`Ledger.pass_over` of steps ``first``, ``first + 1``, ...: the same state to the last bit, in a fraction of the time.

    Args:
        ledger: an open one.
        first: number of the first of the steps.
        etas: their step sizes, None where there is none.
        losses: their losses, as many; at least one.
        gradient: see `Ledger.observe`.
    """
    steps = len(losses)
    if first != ledger.last_step + 1 and ledger.steps > 0:
        ledger._missed(first)
    ledger.last_step = first + steps - 1
    ledger.steps += steps
    if ledger.first_nonfinite < 0:
        wild = (first + i for i, x in enumerate(losses) if x is not None and not math.isfinite(x))
        ledger.first_nonfinite = next(wild, -1)
    ledger.loss_sum.add_all(x for x in losses if x is not None and math.isfinite(x))
    ledger.eta_sum.add_all(x for x in etas if x is not None and math.isfinite(x))
    for track in ledger.tracks.values():
        track.skip(first, steps)
    for loss, eta in zip(losses, etas, strict=True):
        ledger.step_tally.see(loss, eta)
    ledger._recorded = False
    ledger._passed = (ledger.last_step, losses[-1], etas[-1], gradient, None)
