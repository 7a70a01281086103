"""Optax: a gradient transformation that watches another one from inside the jitted step.

The state carries a ring buffer of scalars; nothing leaves the device until `JaxMonitor.flush`. What costs a pass over the parameters
against a comparator is done every few steps inside `jax.lax.switch`, branches that the compiler does not merge with the step.

A branch that *may* read the parameters makes every step pay for it: donated parameters are copied, because the new ones are written over
what the branch might read, and the updates are written out instead of being added on the fly. So the state says, by its structure, whether the
next step may look (`WatchState.pace`): a step compiled for a state that says no has no branch at all, and is not handed the comparators: each array that a
step is given and returns costs time. `JaxMonitor.after_step` sets it, from a count kept on the host, and keeps the comparators meanwhile. What is recorded does not depend on it being set: left alone, each step decides by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.errors import InvalidInputError
from .schedule import Every

Params = Any
# What a step looked at, column "look": nothing that reads the parameters, all of it, or only the distances.
NOTHING, ALL, DISTANCES = 0, 1, 2
FIXED = ("step", "value", "eta", "look", "grad_sq", "update_sq", "update_grad", "dist0_sq")
WITH_COMPARATORS = "what optimizer.init, monitor.after_step or monitor.for_checkpoint returned"
# Entries that are added one after the other.
BLOCK = 128
PER_COMPARATOR = ("grad_w_minus_v", "dist_sq", "update_dot")


class WatchState(NamedTuple):
    """State of the watching transformation.

    Attributes:
        inner: state of the watched transformation.
        count: steps so far, int32.
        rows: ring buffer of scalars, shape (buffer, columns), float32 (float64 with x64).
        start: ``w_0``, or None where it is one of the comparators.
        points: the comparators, in the order of their names; none for a step that does not look.
        pace: None where the step decides by ``count`` whether it looks; ``()`` where it does not look. Neither has leaves, but they are different
            structures, so that ``jax.jit`` compiles a step for each.
    """

    inner: Any
    count: jax.Array
    rows: jax.Array
    start: Params
    points: tuple[Params, ...]
    pace: tuple[()] | None = None


def dot(a: Params, b: Params) -> jax.Array:
    """``<a, b>`` over two pytrees, summed at least in float32."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.sum(_wide(x) * _wide(y)) for x, y in pairs), jnp.zeros((), _row_type()))


def _totals(products: Sequence[jax.Array]) -> list[jax.Array]:
    """The sums of arrays of one shape, in one pass over the memory they are computed from; in blocks, so that rounding does not add up."""
    flat = [x.reshape(-1) for x in products]
    whole = flat[0].size // BLOCK * BLOCK
    out = [jnp.zeros((), x.dtype) for x in flat]
    if whole:
        blocks = _reduced([x[:whole].reshape(-1, BLOCK) for x in flat], 1)
        out = [jnp.sum(x) for x in blocks]
    if whole < flat[0].size:
        out = [a + b for a, b in zip(out, _reduced([x[whole:] for x in flat], 0), strict=True)]
    return out


def _reduced(values: list[jax.Array], axis: int) -> Sequence[jax.Array]:
    """Their sums over an axis by one loop."""
    zeros = tuple(jnp.zeros((), x.dtype) for x in values)
    return jax.lax.reduce(
        tuple(values), zeros, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), (axis,)
    )


def _wide(x: jax.Array) -> jax.Array:
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


def _row_type() -> Any:
    return jax.dtypes.canonicalize_dtype(jnp.float64)


def minus(a: Params, b: Params) -> Params:
    """``a - b``, in at least float32."""
    return jax.tree.map(lambda x, y: _wide(x) - _wide(y), a, b)


def columns(comparators: Sequence[str], values: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of the ring buffer."""
    pairs = [f"{key}:{c}" for c in comparators for key in PER_COMPARATOR]
    return (*FIXED, *pairs, *(f"value:{v}" for v in values))


def learning_rate_of(rate: float | Callable[[Any], Any] | None, count: jax.Array, inner: Any) -> Any:
    """The step size of a step: a number, a schedule of the count, or the one in an injected hyperparameter."""
    if callable(rate):
        return rate(count)
    if rate is not None:
        return rate
    found = [
        s.hyperparams["learning_rate"]
        for s in jax.tree.leaves(inner, is_leaf=lambda x: hasattr(x, "hyperparams"))
        if hasattr(s, "hyperparams") and "learning_rate" in s.hyperparams
    ]
    return found[0] if len(found) == 1 else jnp.nan


def watching(
    inner: Any,
    comparators: Mapping[str, Params | None],
    *,
    learning_rate: float | Callable[[Any], Any] | None = None,
    every: int = 10,
    buffer: int = 1024,
    values: Sequence[str] = (),
    bitwise: bool = True,
) -> Any:
    """Wrap an Optax transformation so that its state also records the step.

    Args:
        inner: the transformation to watch, the outermost one: its updates must be what is added to the parameters.
        comparators: ``{name: v}``; None stands for the parameters at ``init``.
        learning_rate: number, schedule, or None to read ``optax.inject_hyperparams``.
        every: what reads the parameters (all but loss, step size and ``values``) is recorded at steps 0, every, 2 every, ...; the distances to the
            comparators also one step later, so that T7 can be checked for each step looked at.
        buffer: rows of the ring buffer; flush at least that often.
        values: names of scalars that ``update`` is given in ``monitor_values``.
        bitwise: leave the arithmetic of the step alone. False spares a copy of donated parameters at each step; the compiler may then round some
            optimisers (momentum, Adam) differently in the last place.

    Returns:
        An ``optax.GradientTransformationExtraArgs``. Its ``update`` takes ``value=loss`` and ``monitor_values={name: scalar}``.
    """
    import optax

    Every(every)
    if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 2:
        raise InvalidInputError("buffer", buffer, "a whole number of rows >= 2")
    inner = optax.with_extra_args_support(inner)
    names, wanted = tuple(comparators), tuple(values)
    width = len(columns(names, wanted))
    at_start = next((k for k, v in enumerate(comparators.values()) if v is None), -1)

    def init(params: Params) -> WatchState:
        # Copies: the step may be compiled with donated arguments, and a buffer can be donated once.
        start = None if None in comparators.values() else jax.tree.map(jnp.copy, params)
        points = tuple(
            jax.tree.map(jnp.copy, params if v is None else _like(v, params, c))
            for c, v in comparators.items()
        )
        rows = jnp.full((buffer, width), jnp.nan, _row_type())
        return WatchState(inner.init(params), jnp.zeros((), jnp.int32), rows, start, points)

    def update(
        grads: Params, state: WatchState, params: Params = None, **extra: Any
    ) -> tuple[Params, WatchState]:
        if params is None:
            raise InvalidInputError(
                "params", None, "the parameters", "Call update(grads, state, params, value=loss)."
            )
        given = dict(extra.pop("monitor_values", {}) or {})
        if set(given) != set(wanted):
            raise InvalidInputError("monitor_values", sorted(given), f"exactly the names {list(wanted)}")

        updates, after = inner.update(grads, state.inner, params, **extra)
        look, seen = jnp.int32(NOTHING), _nothing(len(names))
        if state.pace is None:
            if not state.points:
                raise InvalidInputError("state", "one without its comparators", WITH_COMPARATORS)
            # The look reads the updates and not the optimiser's state, which would be copied at each step if it were donated and read here.
            look = what_is_due(state.count, every)
            seen = _look(look, state, every, grads, updates, params, at_start)
        if state.pace is None and not bitwise:
            # The updates are made to depend on the look, by a selection that always takes them (``||grad||^2`` is not negative, which the
            # compiler does not know): then donated parameters need not be copied for the look.
            updates = jax.tree.map(lambda u: jnp.where(seen[0] < 0, jnp.zeros_like(u), u), updates)
        rate = learning_rate_of(learning_rate, state.count, after)  # an injected one is stored by the update
        head = [state.count, extra.get("value", jnp.nan), rate, look]
        row = jnp.concatenate(
            [_vector(head), seen, _vector([given[v] for v in wanted])] if wanted else [_vector(head), seen]
        )
        rows = jax.lax.dynamic_update_slice(
            state.rows, row[None], (state.count % buffer, jnp.zeros((), jnp.int32))
        )
        return updates, state._replace(inner=after, count=state.count + 1, rows=rows)

    return optax.GradientTransformationExtraArgs(init, update)


def _nothing(comparators: int) -> jax.Array:
    """Not looked at, in the order of `columns`, shape (4 + 3 comparators,)."""
    return jnp.full((4 + 3 * comparators,), jnp.nan, _row_type())


def what_is_due(count: Any, every: int) -> Any:
    """`ALL` at steps 0, every, 2 every, ..., `DISTANCES` one step later (where that is not one of them), else `NOTHING`."""
    if every == 1:
        return jnp.where(count >= 0, ALL, NOTHING)  # always; the compiler does not know it
    phase = count % every
    return jnp.where(phase == 0, ALL, jnp.where(phase == 1, DISTANCES, NOTHING))


def _look(
    look: jax.Array,
    state: WatchState,
    every: int,
    grads: Params,
    updates: Params,
    params: Params,
    at_start: int,
) -> jax.Array:
    """The scalars that read the parameters, NaN where they are not due; in branches, which the compiler does not merge with the step."""

    def nothing() -> jax.Array:
        return _nothing(len(state.points))

    def everything() -> jax.Array:
        return _dots(grads, updates, params, state, at_start)

    def distances() -> jax.Array:
        # Where the step before, which was looked at, has led: what T7 is checked with.
        out = nothing()
        for k, v in enumerate(state.points):
            far = minus(params, v)
            out = out.at[5 + 3 * k].set(dot(far, far))
        return out

    if every == 1:
        return jax.lax.cond(look == ALL, everything, nothing)
    return jax.lax.switch(look, (nothing, everything, distances))


def _dots(grads: Params, updates: Params, params: Params, state: WatchState, at_start: int) -> jax.Array:
    """The scalars that read the parameters, in the order of `columns`, shape (4 + 3 comparators,)."""
    count = len(state.points)
    others = state.points if state.start is None else (*state.points, state.start)
    total = jnp.zeros((4 + 3 * count,), _row_type())
    for g, u, w, *vs in zip(*map(jax.tree.leaves, (grads, updates, params, *others)), strict=True):
        g, u = _wide(g), -_wide(u)
        far = [_wide(w) - _wide(v) for v in vs]
        products = [g * g, u * u, g * u]
        for x in far[:count]:
            products += [g * x, x * x, u * x]
        products += [x * x for x in far[count:]]
        sums = [x.astype(_row_type()) for x in _totals(products)]
        dist0 = sums[4 + 3 * at_start] if state.start is None else sums[-1]
        total = total + jnp.stack([*sums[:3], dist0, *sums[3 : 3 + 3 * count]])
    return total


def _vector(scalars: Sequence[Any]) -> jax.Array:
    return jnp.stack([jnp.asarray(s, _row_type()).reshape(()) for s in scalars])


def _like(v: Params, params: Params, name: str) -> Params:
    shapes = jax.tree.map(jnp.shape, v), jax.tree.map(jnp.shape, params)
    if jax.tree.structure(v) != jax.tree.structure(params) or shapes[0] != shapes[1]:
        raise InvalidInputError(f"comparator {name}", shapes[0], f"a pytree like the parameters, {shapes[1]}")
    return jax.tree.map(jnp.asarray, v)


def find_state(state: Any) -> WatchState:
    """The watching state inside any optimiser state.

    Raises:
        InvalidInputError: if there is not exactly one.
    """
    found = [
        s
        for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, WatchState))
        if isinstance(s, WatchState)
    ]
    if len(found) != 1:
        raise InvalidInputError(
            "state",
            f"{len(found)} watching states",
            "the state of an optimiser made by monitor.wrap(optimizer)",
        )
    return found[0]


def changed(state: Any, change: Callable[[WatchState], WatchState]) -> Any:
    """The same optimiser state with another watching state in it; no array is touched."""
    if isinstance(state, WatchState):
        return change(state)
    is_watch = lambda s: isinstance(s, WatchState)  # noqa: E731
    return jax.tree.map(lambda s: change(s) if is_watch(s) else s, state, is_leaf=is_watch)


def new_rows(state: WatchState, since: int) -> tuple[int, np.ndarray]:
    """The rows recorded from step ``since`` on that the buffer still holds, shape (k, columns), and the step of the first."""
    count = int(state.count)
    rows = np.asarray(state.rows)
    first = max(since, count - rows.shape[0])
    return first, rows[np.arange(first, count) % rows.shape[0]].astype(float)
