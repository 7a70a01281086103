"""The framework-neutral heart of every monitor: takes plain numbers a step, keeps the T7 ledger, writes the log."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

from ..core.errors import InvalidInputError
from ..core.evidence import Verdict
from . import state
from .conditions import DEFAULT_WATCHES, Watch
from .descent import StepTally
from .intake import checked_comparators, checked_dots, checked_gradient, checked_watches, single
from .log import LogWriter, RunLog, Sink, read_log
from .quantity import Quantity, quantities
from .schedule import Together
from .sums import RunningSum
from .tallies import Tallies
from .track import Rounding, Track

TOLERANCES = {"float64": 1e-11, "float32": 1e-5}
# A step that carries one of these is always a line of the log: estimates are made from them.
_KEEP = frozenset(
    ("parts_total_sq", "tangent_loss", "secant_smoothness", "descent_smoothness", "tangent_margin", "ntk_eigenvalue")
)  # fmt: skip
_MAXIMA = ("grad_sq", "secant_smoothness", "descent_smoothness")
# The running sums are written again after this factor of steps: a killed run loses less than 3% of them.
_TOTALS = 1.03


@final
class Ledger:
    """Sums what theory T7 speaks of at every step and records the run.

    Example:
        >>> ledger = Ledger(comparators=("zero",), precision="float64")
        >>> w = 1.0
        >>> for step in range(3):  # f = w^2/2, eta = 0.1, v = 0
        ...     dots = {"grad_sq": w * w, "grad_w_minus_v": {"zero": w * w}, "dist_sq": {"zero": w * w}}
        ...     ledger.observe(step, eta=0.1, loss=w * w / 2, dots=dots)
        ...     w -= 0.1 * w
        >>> ledger.close(dist_sq={"zero": w * w})
        >>> ledger.verdict("zero").status.name
        'HOLDS'

    Args:
        log_dir: folder of the log, or None to keep nothing on disk.
        comparators: names of the fixed points v.
        preset: ``"light"``, ``"standard"``, ``"full"`` or a mapping from quantity to schedule; see `quantities`.
        meta: what a reader should know of the run, JSON values. ``full_batch: True`` says that every gradient is that of the whole
            objective; only then are PL and the theorems on gradient descent read off the steps. ``loss``: name of the loss.
            ``f_star``: a lower bound on the loss (0 if left out).
        watches: conditions to watch (beside U1 and PL).
        precision: type in which the adapter summed the dot products.
        tolerance: relative error of the dot products, ``|computed <a,b> - <a,b>| <= tolerance ||a|| ||b||``; by ``precision``.
        weight_unit: unit roundoff of the weights if ``update_*`` (or ``eta d``) is the intended step, which the weights then round;
            0 if the update was measured on the weights as ``w_t - w_{t+1}``.
        comparator_norms: ``||v||`` by comparator, needed with ``weight_unit``.
        sinks: further receivers of the records.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comparators: Sequence[str] = ("init",),
        preset: str | Mapping[str, Any] = "light",
        meta: Mapping[str, Any] | None = None,
        *,
        watches: Iterable[Watch] = (),
        precision: str = "float32",
        tolerance: float | None = None,
        weight_unit: float = 0.0,
        comparator_norms: Mapping[str, float] | None = None,
        sinks: Iterable[Sink] = (),
    ) -> None:
        self.comparators = checked_comparators(comparators)
        if precision not in TOLERANCES:
            raise InvalidInputError("precision", precision, " or ".join(map(repr, TOLERANCES)))
        self.tolerance = TOLERANCES[precision] if tolerance is None else float(tolerance)
        norms = dict(comparator_norms or {})
        if weight_unit and any(c not in norms for c in self.comparators):
            raise InvalidInputError(
                "comparator_norms",
                norms,
                "||v|| of every comparator",
                "Needed to bound the rounding of the weights.",
            )
        self.meta = dict(meta or {})
        self.quantities: dict[str, Quantity] = quantities(preset)
        self.watches = checked_watches([*DEFAULT_WATCHES, *watches])
        self.precision, self.weight_unit, self.norms = precision, weight_unit, norms
        self.tracks = {
            c: Track(Rounding(self.tolerance, weight_unit, norms.get(c, 0.0))) for c in self.comparators
        }
        self._conditions = Tallies(self.watches, self.comparators, self.tolerance)
        self.tallies, self.pl_tallies = self._conditions.convexity, self._conditions.pl
        self.step_tally = StepTally(2.0**-53 if precision == "float64" else 2.0**-24)
        self.form: str | None = None
        self.steps = self.skipped = 0
        self.last_step = -1
        self.first_missed = self.first_nonfinite = self.first_written = -1
        self.eta_sum, self.loss_sum = RunningSum(), RunningSum()
        self.maxima: dict[str, float] = {}
        due = {q: self.quantities[q].schedule for q in ("record", "update", "inner-product")}
        self._line_due, self._update_due, self._inner_due = (Together([s]) for s in due.values())
        self._wanted = Together([due["record"], due["update"]])
        self.writer = None if log_dir is None else LogWriter(log_dir)
        self.sinks = tuple(sinks)
        self.resumed_at: int | None = None
        self._totals_at = 0
        self._kept: list[dict[str, Any]] = []
        self._ended: dict[str, Any] | None = None
        self._record: dict[str, Any] | None = None
        self._passed: tuple[Any, ...] | None = None
        self._recorded = self._closed = self._closing = False

    @property
    def record(self) -> dict[str, Any] | None:
        """The record of the last step."""
        if self._passed is not None:
            step, loss, eta, gradient, grad_sq = self._passed
            self._record = {"step": step, "loss": loss, "eta": eta, "gradient": gradient}
            self._record |= {} if grad_sq is None else {"grad_sq": grad_sq}
            self._passed = None
        return self._record

    @property
    def _full_batch(self) -> bool:
        return bool(self.meta.get("full_batch"))

    # --- what adapters call ---

    def due(self, quantity: str, step: int) -> bool:
        """Whether a quantity is due at a step (so that an adapter can do the work only then)."""
        return self.quantities[quantity].due(step)

    def observe(
        self,
        step: int,
        *,
        eta: float | Sequence[float] | None,
        loss: float | None,
        dots: Mapping[str, Any],
        gradient: str = "raw",
        skipped: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in one step, from ``w_step`` to ``w_{step+1}``.

        Args:
            step: number of the step, increasing.
            eta: step size; a sequence for parameter groups (equal entries count as one), None if there is none.
            loss: loss of the step's batch at ``w_step``, None if unknown.
            dots: plain floats, of `intake.DOT_KEYS`: ``grad_sq = ||d||^2`` of the gradient named by ``gradient``; by comparator
                ``grad_w_minus_v = <d, w - v>``, ``dist_sq = ||w - v||^2``; ``dist0_sq = ||w - w_0||^2``; of the step taken, ``u = w_t - w_{t+1}``:
                ``update_sq = ||u||^2``, ``update_grad = <d, u>``, by comparator ``update_dot = <u, w - v>``. After clipping by norm also ``clip`` (the factor <= 1) and
                ``raw_grad_sq``, ``raw_grad_w_minus_v`` of the gradient before it. Where the step itself is not given and is meant to be ``eta d``, ``drop`` may give
                ``||w_t - v||^2 - ||w_{t+1} - v||^2`` by comparator, formed from the difference of the weights (see `Track`).
            gradient: which gradient ``grad_*`` is: one of `intake.GRADIENTS`, or several joined by ``+`` such as ``"accumulated+clipped"``.
            skipped: no step was taken (a scaler found infinities); nothing is summed.
            extra: further values of this step by name, a float or one by comparator: proxies, ``tangent_loss``,
                ``parts``, ``parts_total_sq``, ``parts_sum_sq``, ``part_size``, ``secant_smoothness``, ``descent_smoothness`` ...

        Raises:
            InvalidInputError: for a step that does not increase, an unknown gradient kind or key.
        """
        if self._closed or step <= self.last_step:
            raise InvalidInputError(
                "step", step, f"a whole number > {self.last_step} on an open ledger",
                "After a resume, call load_state_dict first.",
            )  # fmt: skip
        gradient = checked_gradient(gradient)
        size = eta if eta is None or isinstance(eta, int | float) else single(eta)
        record: dict[str, Any] = {
            "step": step,
            "loss": loss,
            "eta": size if size is not None or eta is None else list(eta),
        }
        record |= {"gradient": gradient, **checked_dots(dots, self.comparators), **(extra or {})}
        if skipped:
            record["skipped"] = True
        self.take(record, size)

    def take(self, record: dict[str, Any], eta: float | None) -> None:
        """`observe` for an adapter that builds the record itself: its keys as there, values plain floats, ``eta`` the one step size.

        Nothing is checked. ``record`` holds ``step`` (increasing), ``loss``, ``eta``, ``gradient`` and, for a step that was not taken,
        ``skipped: True``; it becomes the ledger's own.
        """
        step, skipped = record["step"], "skipped" in record
        if 0 <= self.last_step < step - 1 and self.steps > 0:
            self._missed(step)
        self.last_step = step
        self._add(record, eta, skipped)
        self._recorded, self._passed = False, None
        self._record = record
        if skipped or self._line_due(step) or not _KEEP.isdisjoint(record):
            self._write(record)

    def pass_over(
        self, step: int, eta: float | Sequence[float] | None, loss: float | None, gradient: str, grad_sq: float | None
    ) -> None:  # fmt: skip
        """`take` of a step of which nothing else is known, in a fraction of the time. Not where `wants` says that more is to be done."""
        if step != self.last_step + 1 and self.steps > 0:
            self._missed(step)
        self.last_step = step
        self.steps += 1
        if loss is not None:
            if math.isfinite(loss):
                self.loss_sum.add(loss)
            elif self.first_nonfinite < 0:
                self.first_nonfinite = step
        size = eta if eta is None or isinstance(eta, int | float) else single(eta)
        if size is not None and math.isfinite(size):
            self.eta_sum.add(size)
        if grad_sq is not None and grad_sq > self.maxima.get("grad_sq", -math.inf):
            self.maxima["grad_sq"] = grad_sq
        for track in self.tracks.values():
            track.skip(step)
        self.step_tally.see(loss, size)
        self._recorded = False
        self._passed = (step, loss, eta if size is None else size, gradient, grad_sq)

    def wants(self, step: int) -> bool:
        """Whether a step has to go through `take` even if only its loss, step size and gradient norm are known."""
        return self._full_batch or self._wanted(step)

    def written(self, step: int) -> None:
        """The weights were written to before this step by something other than the optimizer, where no step is compared."""
        if self.first_written < 0:
            self.first_written = step

    def close(
        self,
        *,
        dist_sq: Mapping[str, float] | None = None,
        dist0_sq: float | None = None,
        reason: str = "closed",
        conclude: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """End the run: closes the ledger at ``w_T`` if its distances are given, and writes the last lines. Safe to call twice.

        Args:
            dist_sq: ``||w_T - v||^2`` by comparator after the last step.
            dist0_sq: ``||w_T - w_0||^2``.
            reason: why the run ended, for the log.
            conclude: called once the ledger has arrived at ``w_T``; what it returns goes into the last line.
        """
        if self._closed:
            return
        self._closing = True
        if self.record is not None and not self._recorded:
            self._write(self.record)
        if dist_sq is not None and self.steps:
            for c, track in self.tracks.items():
                if c in dist_sq and track.pending is not None and math.isfinite(dist_sq[c]):
                    track.arrive(self.last_step + 1, float(dist_sq[c]))
        self._closed = True
        end = {"event": "end", "step": self.last_step, "reason": reason, "final": self.totals()}
        if dist_sq is not None:
            end |= {"dist_sq": dict(dist_sq), "dist0_sq": dist0_sq}
        end |= {} if conclude is None else conclude()
        self._ended = end
        if self.writer is not None and self.steps + self.skipped:
            self._open()
            self.writer.line(end)
            self.writer.close()
        for sink in self.sinks:
            sink.close()

    # --- sums ---

    def _missed(self, step: int) -> None:
        """Steps before this one were not observed."""
        if self.first_missed < 0:
            self.first_missed = step
        for track in self.tracks.values():
            track.restart()

    def _add(self, record: dict[str, Any], eta: float | None, skipped: bool) -> None:
        step = record["step"]
        if skipped:
            self.skipped += 1
            self._arrive(step, record)
            for track in self.tracks.values():
                if track.here:
                    track.pending = (0.0, 0.0, None)
                else:
                    track.skip(step)
            return
        self.steps += 1
        loss = record["loss"]
        if loss is not None:
            if math.isfinite(loss):
                self.loss_sum.add(loss)
            elif self.first_nonfinite < 0:
                self.first_nonfinite = step
        if eta is not None and math.isfinite(eta):
            self.eta_sum.add(eta)
        for key in _MAXIMA:
            if key in record:
                value = record[key]
                if value is not None and value > self.maxima.get(key, -math.inf):
                    self.maxima[key] = value
        if "dist_sq" in record:
            self._arrive(step, record)
        self._leave(step, record, eta)
        self.step_tally.add(record, eta, self._full_batch, self.form or "sgd")
        self._conditions.take(record, eta, self._full_batch)

    def _arrive(self, step: int, record: dict[str, Any]) -> None:
        distances = record.get("dist_sq")
        if distances is None:
            return
        for c, track in self.tracks.items():
            value = distances.get(c)
            if value is not None and math.isfinite(value):
                track.arrive(step, value)

    def _leave(self, step: int, record: dict[str, Any], eta: float | None) -> None:
        """Add the step to the ledger, in the form fixed by the first one: the update itself, or ``eta d``."""
        if not (self._update_due(step) and self._inner_due(step)):
            for track in self.tracks.values():
                track.skip(step)
            return
        drops = record.get("drop") or {}
        square, inner = record.get("update_sq"), record.get("grad_w_minus_v") or {}
        grad_sq = record.get("grad_sq")
        if self.form is None:
            self.form = "update" if square is not None else "sgd"
        if self.form == "sgd":
            local = "rank-local" in record["gradient"]
            usable = eta is not None and grad_sq is not None and not local
            square = eta * eta * grad_sq if usable else None
        for c, track in self.tracks.items():
            g = inner.get(c)
            eta_inner = eta * g if eta is not None and g is not None else math.nan
            dot = (record.get("update_dot") or {}).get(c) if self.form == "update" else eta_inner
            finite = square is not None and dot is not None and math.isfinite(square + dot)
            if finite and track.here:
                track.leave(dot, square, eta_inner, drops.get(c))
            else:
                nonfinite = square is not None and dot is not None
                if nonfinite and self.first_nonfinite < 0 and track.here:
                    self.first_nonfinite = step
                elif not nonfinite and self.first_missed < 0:
                    self.first_missed = step
                track.restart()

    # --- results ---

    def _write(self, record: dict[str, Any]) -> None:
        self._recorded = True
        line = record
        if record["step"] >= _TOTALS * self._totals_at or self._closing:
            self._totals_at = record["step"] + 1
            line = {**record, "totals": self.totals()}
        if self.writer is not None:
            self._open()
            self.writer.line(line)
        else:
            self._kept.append(line)
        for sink in self.sinks:
            sink.record(line)

    def _open(self) -> None:
        if self.writer is not None and not self.writer.is_open:
            self.writer.open(state.header(self), self.resumed_at)

    def verdict(self, comparator: str | None = None) -> Verdict:
        """T7 against one comparator (the first if left out): HOLDS, FALSIFIED, or INVALID_INPUT if it could not be checked."""
        name = self.comparators[0] if comparator is None else comparator
        if name not in self.tracks:
            raise InvalidInputError("comparator", name, ", ".join(self.comparators))
        return self.tracks[name].verdict(self.form or "sgd")

    def log(self) -> RunLog:
        """The records so far, with the sums as they stand: what `summarise` and the report take."""
        if self.writer is not None and self.writer.started:
            found = read_log(self.writer.path)
        else:
            found = RunLog(header={"event": "start", **state.header(self)})
            for line in self._kept:
                found.take(line)
        if self.record is not None and (not found.records or found.records[-1]["step"] < self.last_step):
            found.take(self.record)
        if self.steps + self.skipped:
            found.totals = self.totals()
            found.history.append((self.last_step, found.totals))
        found.ended = self._ended
        return found

    def totals(self) -> dict[str, Any]:
        """All running sums and extremes so far, as JSON values; what a summary is made of."""
        return state.totals(self)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after the last observed step, as JSON values; put it into the checkpoint."""
        return state.dump(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`: the sums go on bit for bit, and the log drops the steps that will be taken again.

        Raises:
            InvalidInputError: for another version, other comparators or watches, or after the first observed step.
        """
        if self.last_step >= 0:
            raise InvalidInputError(
                "state", f"step {self.last_step}", "a ledger that has not observed a step yet"
            )
        state.load(self, saved)
        self.resumed_at = self.last_step + 1
