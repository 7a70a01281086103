"""The host side of monitoring JAX: takes the rows of the jitted step to the ledger. Also a plain-JAX tangent loss."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.errors import InvalidInputError
from . import optax_adapter
from .conditions import Watch
from .ledger import Ledger
from .log import Sink
from .optax_adapter import ALL, NOTHING, Params, changed, columns, dot, find_state, minus, new_rows
from .passing import pass_over_all
from .schedule import Thinned, WithNext

EVERY = {"light": 50, "full": 1}


class JaxMonitor:
    """Watches training in JAX: wraps an Optax optimiser, or is given gradients by hand.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> monitor = JaxMonitor(learning_rate=0.1, full_batch=True)
        >>> optimizer = monitor.wrap(optax.sgd(0.1))
        >>> w = jnp.ones(3)
        >>> state = optimizer.init(w)
        >>> for _ in range(5):
        ...     updates, state = optimizer.update(w, state, w, value=w @ w / 2)
        ...     w = optax.apply_updates(w, updates)
        ...     state = monitor.after_step(state)
        >>> monitor.close(state, w)
        >>> monitor.ledger.steps
        5

    Args:
        comparator: ``"init"`` (the parameters at ``optimizer.init``), or a pytree like the parameters (called ``"v"``).
        comparators: several, ``{name: "init" or pytree}``, in place of ``comparator``.
        log_dir: folder of the log, or None.
        learning_rate: number or schedule ``count -> eta``; None reads ``optax.inject_hyperparams``.
        preset: ``"light"`` (loss and step size at each step; gradient, inner products, distances and the update every 50 steps, each of which is
            compared with T7) or ``"full"`` (all of it at every step: then T7 is checked for the whole run).
        every: replaces the preset's number of steps.
        full_batch: whether every gradient is that of the whole objective.
        gradient: which gradient the optimiser is given: ``"raw"``, ``"clipped"``, ``"accumulated"``, ``"global"``, or several joined by ``+``.
        loss: name of the loss (`proxies.BUILT_IN`), so that readers know that it is >= 0.
        values: names of further scalars, passed to ``optimizer.update(..., monitor_values={...})``; ``"tangent_loss:v"`` belongs to the comparator
            ``v``. NaN means that the step did not record it.
        watches: conditions on ``loss``, ``values`` and what `record` was given.
        buffer: rows kept on the device between two flushes.
        bitwise: see `optax_adapter.watching`: True trains bit for bit as without the monitor, False is faster where parameters are donated.
        meta: further facts for the log.
        sinks: further receivers of the records.
    """

    def __init__(
        self,
        comparator: str | Params = "init",
        log_dir: str | os.PathLike[str] | None = None,
        *,
        comparators: Mapping[str, str | Params] | None = None,
        learning_rate: float | Callable[[Any], Any] | None = None,
        preset: str = "light",
        every: int | None = None,
        full_batch: bool = False,
        gradient: str = "raw",
        loss: str | None = None,
        values: Iterable[str] = (),
        watches: Iterable[Watch] = (),
        buffer: int = 1024,
        bitwise: bool = True,
        meta: Mapping[str, Any] | None = None,
        sinks: Iterable[Sink] = (),
    ) -> None:
        if preset not in EVERY:
            raise InvalidInputError("preset", preset, ", ".join(map(repr, EVERY)), "Or pass every=k.")
        self.points = _comparators(comparator, comparators)
        self.learning_rate, self.gradient, self.buffer = learning_rate, gradient, buffer
        self.bitwise = bitwise
        self.every = EVERY[preset] if every is None else every
        self.values = tuple(values)
        self._arguments = {"log_dir": log_dir, "watches": tuple(watches), "sinks": tuple(sinks)}
        self._meta = {
            "framework": "jax",
            "full_batch": full_batch,
            **({"loss": loss} if loss else {}),
            **dict(meta or {}),
        }
        self._ledger: Ledger | None = None
        self._saved: Mapping[str, Any] | None = None
        self._unflushed = 0
        # The host chooses when to look if the first three calls of `after_step` were one step apart; afterwards it counts the calls.
        self._first_counts: list[int] = []
        self._count, self._stride, self._steps_a_call = -1, 0, 1
        self._paced: Any = "not known"
        # w_0 and the comparators while the state does not carry them.
        self._aside: tuple[Params, tuple[Params, ...]] | None = None
        self._extra: dict[int, dict[str, Any]] = {}

    @property
    def ledger(self) -> Ledger:
        """The ledger; it exists from the first `flush` on."""
        if self._ledger is None:
            raise InvalidInputError(
                "ledger", None, "a monitor that has been flushed once", "Call monitor.flush(state)."
            )
        return self._ledger

    def wrap(self, optimizer: Any) -> Any:
        """The optimiser, watched; see `optax_adapter.watching`. It must be the outermost transformation."""
        return optax_adapter.watching(
            optimizer, self.points, learning_rate=self.learning_rate, every=self.every, buffer=self.buffer, values=self.values, bitwise=self.bitwise
        )  # fmt: skip

    def after_step(self, state: Any) -> Any:
        """Call it after every step, and give what it returns to the next one: ``state = monitor.after_step(state)``.

        It flushes whenever half of the buffer is new; otherwise it does not touch the device (but for the first three calls, which read the count of
        steps). By the structure of the state that it returns a jitted step is compiled twice: once for steps that may look, and once for
        the others, which then cost next to nothing more than without a monitor (see `optax_adapter.WatchState.pace`); these do not carry the comparators. Where the returned state is not used, or
        calls are not single steps (`jax.lax.scan`, gradient accumulation in Optax), each step decides by itself: the same numbers, more slowly.
        """
        if len(self._first_counts) < 3:
            self._count = int(find_state(state).count)
            self._first_counts.append(self._count)
            apart = np.diff(self._first_counts).tolist()
            self._stride = 1 if apart == [1, 1] else 0
            self._steps_a_call = max([1, *apart])
        else:
            self._count += self._stride
        self._unflushed += self._steps_a_call
        if self._unflushed >= self.buffer // 2:
            self.flush(state)
            if self._count != self.ledger.last_step + 1:
                self._stride = 0  # calls are no longer steps: from here on each step decides by itself
        pace = () if self._stride == 1 and self._count % self.every > 1 else None
        if pace == self._paced:
            return state
        self._paced = pace
        return changed(state, self._with if pace is None else self._without)

    def for_checkpoint(self, state: Any) -> Any:
        """The state with the structure that ``optimizer.init`` gives it and with the comparators; save this one, not what `after_step` returns."""
        return changed(state, self._with)

    def _without(self, watch: optax_adapter.WatchState) -> optax_adapter.WatchState:
        """For steps that do not look: the comparators are kept here."""
        if watch.points:
            self._aside = watch.start, watch.points
        return watch._replace(start=None, points=(), pace=())

    def _with(self, watch: optax_adapter.WatchState) -> optax_adapter.WatchState:
        """For steps that may look."""
        start, points = (watch.start, watch.points) if watch.points or self._aside is None else self._aside
        if not points:
            raise InvalidInputError("state", "one without its comparators", optax_adapter.WITH_COMPARATORS)
        return watch._replace(start=start, points=points, pace=None)

    def record(self, step: int, **values: Any) -> None:
        """Further values of a step that has not been flushed yet, such as ``tangent_loss={"init": ...}`` or split gradients."""
        self._extra.setdefault(step, {}).update(values)

    def flush(self, state: Any) -> None:
        """Take the new rows from the device to the ledger and the log."""
        self._unflushed = 0
        watch = find_state(state)
        if self._ledger is None:
            self._open(self._with(watch))
        names = columns(tuple(self.points), self.values)
        first, rows = new_rows(watch, self.ledger.last_step + 1)
        start = 0
        for stop in [*self._rich(first, rows, names), len(rows)]:
            if start < stop:
                etas, losses = (rows[start:stop, names.index(k)].tolist() for k in ("eta", "value"))
                pass_over_all(self.ledger, first + start, *map(_known, (etas, losses)), self.gradient)
            if stop < len(rows):
                self._observe(first + stop, dict(zip(names, rows[stop].tolist(), strict=True)))
            start = stop + 1

    def _rich(self, first: int, rows: np.ndarray, names: tuple[str, ...]) -> list[int]:
        """Rows, the first of which is that of step ``first``, with more than loss and step size known or to be recorded."""
        rich = rows[:, names.index("look")] != NOTHING
        if self.values:
            rich |= ~np.isnan(rows[:, -len(self.values) :]).all(axis=1)
        wants, extra = self.ledger.wants, self._extra
        # What the ledger's schedules ask for, they ask for at multiples of `every`; the whole objective's gradients at every step.
        k = 1 if self._meta["full_batch"] else self.every
        return [
            i
            for i, r in enumerate(rich.tolist())
            if r or first + i in extra or ((first + i) % k == 0 and wants(first + i))
        ]

    def _open(self, watch: optax_adapter.WatchState) -> None:
        sizes = [float(jnp.sqrt(dot(v, v))) for v in watch.points]
        weights = jax.tree.leaves(watch.points[0])
        types = {str(x.dtype) for x in weights}
        unit = max(float(jnp.finfo(x.dtype).eps) / 2 for x in weights)
        self._ledger = Ledger(
            comparators=tuple(self.points),
            preset={"record": Thinned(self.every, 300), **dict.fromkeys(("loss", "step-size"), 1),
                    **dict.fromkeys(("gradient-norm", "inner-product", "update"), self.every),
                    "distance": WithNext(self.every)},
            meta={**self._meta, "weights": sorted(types)},
            precision="float64" if watch.rows.dtype == np.float64 and types == {"float64"} else "float32",
            weight_unit=unit,
            comparator_norms=dict(zip(self.points, sizes, strict=True)),
            **self._arguments,
        )  # fmt: skip
        if self._saved is not None:
            self._ledger.load_state_dict(self._saved)
        self._ledger.form = "update"  # whichever step is the first to be looked at

    def _observe(self, step: int, row: dict[str, float]) -> None:
        look = row["look"]
        eta, loss = _known([row["eta"], row["value"]])
        extra = _named({v: row[f"value:{v}"] for v in self.values}) | self._extra.pop(step, {})
        scalars = ("grad_sq", "dist0_sq", "update_sq", "update_grad")
        dots: dict[str, Any] = {k: row[k] for k in scalars if not math.isnan(row[k])}
        if look != NOTHING:
            for key in optax_adapter.PER_COMPARATOR if look == ALL else ("dist_sq",):
                dots[key] = {c: row[f"{key}:{c}"] for c in self.points}
        self.ledger.observe(step, eta=eta, loss=loss, dots=dots, gradient=self.gradient, extra=extra)

    def close(self, state: Any = None, params: Params = None, reason: str = "closed") -> None:
        """Flush what is new and end the log; with the final parameters the ledger is closed at ``w_T``."""
        if state is None:
            if self._ledger is not None:
                self._ledger.close(reason=reason)
            return
        self.flush(state)
        if params is None:
            self.ledger.close(reason=reason)
            return
        watch = self._with(find_state(state))
        far = [minus(params, v) for v in watch.points]
        first = next(
            (v for c, v in zip(self.points, watch.points, strict=True) if self.points[c] is None), watch.start
        )
        start = minus(params, first)
        self.ledger.close(
            dist_sq={c: float(dot(d, d)) for c, d in zip(self.points, far, strict=True)},
            dist0_sq=float(dot(start, start)),
            reason=reason,
        )

    def state_dict(self, state: Any) -> dict[str, Any]:
        """Flush, and the ledger's state for a checkpoint (beside the optimiser state, which holds the comparators)."""
        self.flush(state)
        return self.ledger.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue a monitored run: pass it before the first flush, with the optimiser state of the same step."""
        self._saved = saved


def _known(values: list[float]) -> list[float | None]:
    """None for what was not recorded."""
    return [None if math.isnan(x) else x for x in values]


def _named(values: Mapping[str, float]) -> dict[str, Any]:
    """Values by name, ``name:comparator`` one level down; NaN is left out."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        key, _, comparator = name.partition(":")
        if not math.isnan(value):
            if comparator:
                out.setdefault(key, {})[comparator] = value
            else:
                out[key] = value
    return out


def tangent_loss(
    model: Callable[[Params], Any], loss: Callable[[Any], Any], params: Params, comparator: Params
) -> tuple[jax.Array, jax.Array]:
    """U1 by one jvp: the loss at ``params`` and the loss of the tangent model there at ``comparator``.

    ``N_w^lin(v) = N(w) + <grad N(w), v - w>``. For a loss that is convex in the outputs,
    ``<grad f(w), w - v> >= f(w) - loss(N_w^lin(v))`` holds at every ``w``: proxy convexity with ``g = f`` and this pointwise ``h``.
    *Proof.* Convexity of the loss at ``N(w)`` in the direction ``N_w^lin(v) - N(w) = <grad N(w), v - w>``, and the chain rule.

    Args:
        model: parameters -> outputs on one batch (data closed over).
        loss: outputs -> mean loss on the same batch, convex.
        params: ``w``.
        comparator: ``v``, a pytree like ``params``.
    """
    direction = jax.tree.map(lambda v, w: (v - w).astype(w.dtype), comparator, params)
    outputs, change = jax.jvp(model, (params,), (direction,))
    return loss(outputs), loss(outputs + change)


def split_gradients(grads: Iterable[Params], part_size: int | None = None) -> dict[str, Any]:
    """What the ledger wants of k independent part gradients (mean over each part), for `JaxMonitor.record`.

    Args:
        grads: k >= 2 gradients of parts of equal size that do not overlap.
        part_size: rows in a part.
    """
    parts = list(grads)
    if len(parts) < 2:
        raise InvalidInputError("grads", len(parts), "at least two part gradients")
    total = jax.tree.map(lambda *xs: sum(xs), *parts)
    out = {
        "parts": len(parts),
        "parts_total_sq": dot(total, total),
        "parts_sum_sq": sum(dot(g, g) for g in parts),
    }
    return out if part_size is None else {**out, "part_size": part_size}


def _comparators(one: Any, several: Mapping[str, Any] | None) -> dict[str, Params | None]:
    if several is None:
        several = {one: one} if isinstance(one, str) else {"v": one}
    out: dict[str, Params | None] = {}
    for name, v in several.items():
        if isinstance(v, str) and v != "init":
            raise InvalidInputError("comparator", v, "'init' or a pytree like the parameters")
        out[name] = None if isinstance(v, str) else v
    return out
