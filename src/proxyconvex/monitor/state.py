"""A ledger as JSON values: the head of its log, its totals, and the state that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidInputError
from .sums import RunningSum

if TYPE_CHECKING:
    from .ledger import Ledger

VERSION = 2
_PLAIN = ("form", "steps", "skipped", "last_step", "first_missed", "first_nonfinite", "first_written")
_SUMS = ("eta_sum", "loss_sum")


def header(ledger: Ledger) -> dict[str, Any]:
    """What a log says about its run at its head."""
    return {
        "comparators": list(ledger.comparators),
        "quantities": {n: str(q.schedule) for n, q in ledger.quantities.items()},
        "precision": ledger.precision,
        "tolerance": ledger.tolerance,
        "weight_unit": ledger.weight_unit,
        "watches": [{"kind": type(w).__name__, **vars(w)} for w in ledger.watches],
        "meta": ledger.meta,
    }


def totals(ledger: Ledger) -> dict[str, Any]:
    """All running sums and extremes so far."""
    form = ledger.form or "sgd"
    return {
        "steps": ledger.steps,
        "skipped": ledger.skipped,
        "eta": ledger.eta_sum.value,
        "loss": ledger.loss_sum.value,
        "form": ledger.form,
        "first_missed": ledger.first_missed,
        "first_nonfinite": ledger.first_nonfinite,
        "first_written": ledger.first_written,
        "maxima": dict(ledger.maxima),
        "taken": ledger.step_tally.summary(),
        "tracks": {c: t.summary(form) for c, t in ledger.tracks.items()},
        "convexity": [
            {"watch": name, "comparator": c, **tally.summary()}
            for (name, c), tally in ledger.tallies.items()
            if tally.checks
        ],
        "pl": [{"watch": name, **tally.state()} for name, tally in ledger.pl_tallies.items() if tally.checks],
    }


def _identity(ledger: Ledger) -> dict[str, Any]:
    return {
        "version": VERSION,
        "comparators": list(ledger.comparators),
        "watches": [repr(w) for w in ledger.watches],
    }


def dump(ledger: Ledger) -> dict[str, Any]:
    """Everything needed to go on after the last observed step."""
    return {
        **_identity(ledger),
        "plain": {k: getattr(ledger, k) for k in _PLAIN},
        "sums": {k: getattr(ledger, k).state() for k in _SUMS},
        "maxima": dict(ledger.maxima),
        "taken": ledger.step_tally.state(),
        "tracks": {c: t.state() for c, t in ledger.tracks.items()},
        "tallies": [[*key, tally.state()] for key, tally in ledger.tallies.items()],
        "pl": {name: tally.state() for name, tally in ledger.pl_tallies.items()},
    }


def load(ledger: Ledger, saved: Mapping[str, Any]) -> None:
    """Take over a `dump`; refused for another version, other comparators or other watches."""
    for key, value in _identity(ledger).items():
        if saved.get(key) != value:
            raise InvalidInputError(
                key, saved.get(key), f"{value}, as this ledger", "Build it with the same arguments."
            )
    for k in _PLAIN:
        setattr(ledger, k, saved["plain"][k])
    for k in _SUMS:
        setattr(ledger, k, RunningSum(*saved["sums"][k]))
    ledger.maxima = dict(saved["maxima"])
    ledger.step_tally.restore(saved["taken"])
    for c, track in ledger.tracks.items():
        track.restore(saved["tracks"][c])
    for name, c, tally in saved["tallies"]:
        ledger.tallies[name, c].restore(tally)
    for name, tally in ledger.pl_tallies.items():
        tally.restore(saved["pl"][name])
