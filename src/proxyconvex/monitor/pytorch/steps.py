"""From what the hooks see to the ledger: one `Seen` a step, completed when the next one arrives.

At the call of ``optimizer.step`` the gradient and ``w_t`` are there, the step is not yet. Where the step taken is due (it is *judged*),
``w_t`` is kept, and at the next hook ``u = w_t - w_{t+1}`` is formed from the stored weights, whatever moved them. Where neighbouring
steps are both looked at, one pass over memory serves both. Where no products with ``w - v`` are due, nothing but ``||g||^2`` is read; where
nothing is due at all, a step is a loss and a step size (`Quiet`).

Plain SGD (no momentum, no weight decay, one step size) takes the step ``eta g`` up to the rounding of the weights, so its ledger sums
``eta <g, w - v>`` and ``eta^2 ||g||^2`` and compares them with what the weights really did: with the distances where the next step is
judged as well (``u`` then only once in `CHECK_EVERY`), else with ``u`` itself.

Scalars stay where they were computed and are read a block at a time: after `FLUSH_EVERY` steps, after `FLUSH_SECONDS`, or when
somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, final

import numpy as np

from ..intake import single
from ..ledger import Ledger
from .distributed import Exchange
from .reading import numbers, read
from .seen import (
    Due,
    Quiet,
    Seen,
    add_unclipped,
    check_forward,
    drift_of,
    gradient_label,
    is_bare,
    means_of,
    probe_of,
)
from .vector import ParameterVector

CHECK_EVERY = 10
# Steps and seconds after which what was read is handed to the ledger; distributed runs go by steps alone, the same on all ranks.
FLUSH_EVERY, FLUSH_SECONDS = 16, 1.0


@final
class Recorder:
    """Measures steps and hands them to the ledger.

    Args:
        vector: the weights; its reference points are the comparators, then (unless it is one of them) ``w_0``.
        ledger: of this rank; only rank 0's writes.
        exchange: how ranks are combined.
        plain: whether the optimizer takes plain steps.
        due: what is measured when.
        start_every: where all steps are measured, the distance to ``w_0`` is once in this many steps if no comparator is ``w_0``.
    """

    def __init__(
        self,
        vector: ParameterVector,
        ledger: Ledger,
        exchange: Exchange,
        plain: bool,
        due: Due,
        start_every: int = 10,
    ) -> None:
        self.vector, self.ledger, self.exchange, self.plain, self.due = vector, ledger, exchange, plain, due
        self.start_every = start_every
        self.comparators = list(ledger.comparators)
        self.start = vector.labels.index("init")
        self.waiting: Seen | Quiet | None = None
        self.buffer: list[Seen | Quiet] = []
        # Where nothing has to be combined, a step at which nothing is measured is a loss and a step size.
        self._alone = not exchange.several and len(vector.groups) == 1 and not ledger.meta.get("full_batch")
        self._mean_keys: list[str] = []
        self._late = time.monotonic() + FLUSH_SECONDS

    # -- measuring ----------------------------------------------------------------------------------------------------

    def arrive(self, seen: Seen, *, gradient: bool = True) -> None:
        """Measure at ``w_t``; complete and hand on the step before."""
        step, before = seen.step, self.waiting
        seen.whole = self.due.whole(step)
        # After `settle`, a step may have been handed on whose distance at its end is still owed.
        owed = self.owes if before is not None else any(t.pending for t in self.ledger.tracks.values())
        if seen.whole or owed:
            self._measure(seen, before, gradient)
        elif gradient and self.due.square(step):
            seen.here = self.vector.squares()
        if before is not None:
            self._hand_on(before)
        self.waiting = seen

    def quiet_until(self, step: int) -> int:
        """The first step from ``step`` on that has to `arrive`; those before it may be handed to `pass_over` if nothing else is known of them."""
        return self.due.anything.next(step) if self._alone else step

    def pass_over(self, quiet: Quiet) -> None:
        """`arrive` of a step before `quiet_until`."""
        before, self.waiting = self.waiting, quiet
        if before is not None:
            self._hand_on(before)

    def _measure(self, seen: Seen, before: Seen | Quiet | None, gradient: bool) -> None:
        step, whole = seen.step, seen.whole
        update = type(before) is Seen and before.kept
        seen.judged = self.due.update(step)
        seen.kept = seen.judged and not (self.plain and self.due.update(step + 1) and step % CHECK_EVERY)
        # The distance at the end of a step is needed where the step itself is not judged by its own difference.
        distance = whole or not self.plain
        count = products = len(self.comparators)
        if whole and (step % self.start_every == 0 or not self.due.whole(step - 1)):
            count = max(count, self.start + 1)
        gradient = gradient and (whole or self.due.square(step))
        reading = self.vector.sums(
            count=count,
            products=products,
            gradient=gradient,
            update=update,
            keep=seen.kept,
            distance=distance,
        )
        seen.here = reading
        seen.count = count if distance else 0
        if update and isinstance(before, Seen):
            before.after = reading

    @property
    def judges(self) -> bool:
        """Whether the step that waits is compared with the record."""
        return type(self.waiting) is Seen and self.waiting.judged

    @property
    def owes(self) -> bool:
        """Whether the step that waits is compared by the weights at its end."""
        return type(self.waiting) is Seen and self.waiting.kept

    def settle(self) -> None:
        """Complete the step that waits, at the weights as they are now, and hand everything to the ledger."""
        before, self.waiting = self.waiting, None
        if before is not None:
            if isinstance(before, Seen) and before.kept:
                before.after = self.vector.sums(
                    count=len(self.comparators), gradient=False, update=True, distance=False
                )
            self._hand_on(before)
        self.flush()

    def finish(
        self,
        reason: str,
        *,
        exchange: bool = True,
        conclude: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        """Settle and close the ledger at ``w_T``; see `Ledger.close`."""
        if self.exchange.several and not exchange:
            self.buffer.clear()
            self.waiting = None
            self.ledger.close(
                reason=f"{reason}; steps since the last exchange of the ranks are not in the log"
            )
            return
        self.settle()
        sums = self.vector.sums(count=len(self.vector.labels), gradient=False).sums()
        whole = self.exchange.whole(np.array([sums]))[0]
        self.ledger.close(
            dist_sq={c: float(whole[3 + 3 * i]) for i, c in enumerate(self.comparators)},
            dist0_sq=float(whole[3 + 3 * self.start]),
            reason=reason,
            conclude=conclude,
        )

    def _hand_on(self, seen: Seen | Quiet) -> None:
        self.buffer.append(seen)
        late = not self.exchange.several and time.monotonic() > self._late
        if late or len(self.buffer) >= FLUSH_EVERY:
            self.flush()

    # -- handing on ---------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Read what was measured, combine the ranks and hand the buffered steps to the ledger."""
        steps, self.buffer = self.buffer, []
        self._late = time.monotonic() + FLUSH_SECONDS
        if not steps:
            return
        more = [seen for seen in steps if type(seen) is Seen]
        read(r for seen in more for r in (seen.here, seen.after))
        if self.exchange.several or len(self.vector.groups) > 1:
            self._flush_whole(more)
            return
        pass_over, label = self.ledger.pass_over, gradient_label(False, False, self.exchange.label)
        for seen in steps:
            if isinstance(seen, tuple):
                step, eta, loss = seen
                loss = loss if loss is None or type(loss) is float else numbers([loss])[0]
                pass_over(step, eta, loss, label, None)
            elif is_bare(seen) and not self.ledger.wants(seen.step):
                self._pass_over(seen)
            else:
                here, after = (None if r is None else r.sums()[0] for r in (seen.here, seen.after))
                self._observe(seen, here, after, means_of(seen))

    def _pass_over(self, seen: Seen) -> None:
        """A step of which only loss, step size and ``||g||^2`` are known."""
        found, losses = None if seen.here is None else seen.here.found, seen.losses
        grad_sq = None if found is None else sum(found) / (seen.scale * seen.scale)
        loss = sum(numbers(losses)) if losses else None
        self.ledger.pass_over(seen.step, seen.eta, loss, seen.gradient, grad_sq)

    def _flush_whole(self, steps: list[Seen]) -> None:
        """The same where sums of shards, or values of ranks, have to be combined first."""
        width = 2 + 3 * len(self.vector.labels)
        table = np.zeros((len(steps), 2, len(self.vector.groups), width))
        for i, seen in enumerate(steps):
            for j, r in enumerate((seen.here, seen.after)):
                if r is not None:
                    table[i, j, :, : r.width] = r.sums()
        whole = self.exchange.whole(table).tolist()
        means = [means_of(seen) for seen in steps]
        if self.exchange.several:
            means = self._average(steps, means)
        for seen, (here, after), mean in zip(steps, whole, means, strict=True):
            self._observe(seen, here if seen.here else None, after if seen.after else None, mean)

    def _average(self, steps: list[Seen], means: list[dict[str, float]]) -> list[dict[str, float]]:
        """Averages over the ranks that have a value; the layout is the same on all of them, whatever they have."""
        keys = self.mean_keys()
        values = np.zeros((len(steps), len(keys), 2))
        for i, row in enumerate(means):
            for j, key in enumerate(keys):
                if key in row:
                    values[i, j] = row[key], 1.0
        values = self.exchange.added(values)
        return [
            {k: float(values[i, j, 0] / values[i, j, 1]) for j, k in enumerate(keys) if values[i, j, 1]}
            for i in range(len(steps))
        ]

    def mean_keys(self) -> list[str]:
        """Names of everything that is averaged over ranks."""
        each = [
            f"{k}:{c}"
            for k in ("tangent_loss", "tangent_loss_other", "probe_inner")
            for c in self.comparators
        ]
        return ["loss", "probe_loss", "parts_sum_sq", *each, *self._mean_keys]

    def also_average(self, names: list[str]) -> None:
        """Declare further values (proxies) that ranks average."""
        self._mean_keys = names

    def _observe(
        self, seen: Seen, here: list[float] | None, after: list[float] | None, means: dict[str, float]
    ) -> None:
        eta = seen.eta if isinstance(seen.eta, float) else single(seen.eta)
        record: dict[str, Any] = {
            "step": seen.step,
            "loss": means.pop("loss", None),
            "eta": seen.eta if eta is None else eta,
            "gradient": seen.gradient,
        }
        if here is not None:
            if seen.count:
                record["dist_sq"] = {c: here[3 + 3 * i] for i, c in enumerate(self.comparators)}
                if seen.count > self.start:
                    record["dist0_sq"] = here[3 + 3 * self.start]
            if not seen.skipped:
                self._products(seen, here, after, record)
        extra = seen.extra
        if seen.parts is not None and "parts_sum_sq" in means and not seen.skipped:
            self._parts(seen, record, means.pop("parts_sum_sq"), extra)
        if seen.short is not None and not seen.skipped:
            loss = record["loss"]
            extra |= seen.short.complete(
                record, means["probe_loss"] if loss is None else loss, probe_of(means), numbers
            )
        for key, value in means.items():
            name, _, c = key.partition(":")
            if c:
                extra.setdefault(name, {})[c] = value
            elif key != "parts_sum_sq":
                extra[name] = value
        if "tangent_loss" in extra:
            check_forward(extra, record["loss"])
        record |= extra
        if seen.skipped:
            record["skipped"] = True
        self.ledger.take(record, eta)

    def _products(
        self, seen: Seen, here: list[float], after: list[float] | None, record: dict[str, Any]
    ) -> None:
        """The squares and inner products of a step that was taken."""
        s = seen.scale
        if seen.whole or self.due.square(seen.step):
            record["grad_sq"] = here[0] / (s * s)
        if seen.whole:
            record["grad_w_minus_v"] = {c: here[2 + 3 * i] / s for i, c in enumerate(self.comparators)}
        if seen.clip is not None:
            add_unclipped(seen.clip, s, record)
        if after is None:
            return
        # u in the ledger is w_t - w_{t+1}; the pass formed w_{t+1} - w_t and <., w_{t+1} - v>.
        square = after[1]
        taken = {c: square - after[4 + 3 * i] for i, c in enumerate(self.comparators)}
        if self.plain:
            record["drop"] = {c: 2 * x - square for c, x in taken.items()}
            record["update_drift"] = drift_of(
                seen.eta if isinstance(seen.eta, float) else seen.eta[0], record, square, taken
            )
        else:
            record["update_sq"], record["update_dot"] = square, taken

    def _parts(self, seen: Seen, record: dict[str, Any], sum_sq: float, extra: dict[str, Any]) -> None:
        """Gradients that were added up anyway, of micro-batches or ranks, as parts of a mean."""
        assert seen.parts is not None
        each = seen.parts[0]
        ranks = self.exchange.ranks
        parts = each * ranks
        total = record.get("raw_grad_sq", record.get("grad_sq"))
        if total is None or parts < 2 or (seen.clip is None and "clipped" in seen.gradient):
            return
        # The size of parts of the batch that was given is not that of these.
        extra.pop("part_size", None)
        extra["parts"] = float(parts)
        extra["parts_total_sq"] = parts**2 * total
        # The mean over ranks of each rank's sum, as a sum over ranks; each part was a share 1/each of a mean.
        extra["parts_sum_sq"] = ranks * each**2 * sum_sq
