"""The compiled loops. One call runs a chunk of steps and returns the new weights and one row of numbers per step.

The number of steps of a call is an *argument* (a loop with a dynamic bound into a buffer of fixed size), so a run of
any length compiles once, and so does a second run with the same shapes. Sums and minima are taken outside, in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..families.base import Problem
from . import ridge
from .compilation import Compiled, one_function, small_products
from .trace import COLUMNS

FULL_COLUMNS = ("loss", "g", "h", "error", "slope")
WIDTH = len(COLUMNS)
# Entries from which sums leave the step's own kernels (see `full_sum`), and pieces `distance_sq` folds into one.
LARGE = 2048
FOLD = 8


class Rule(NamedTuple):
    """What a step needs beside the gradient: None stands for "not used" and is resolved at compile time.

    Attributes:
        c: constant of the normalised step.
        floor: least mean slope the normalised step divides by.
        radius: radius of the ball around the origin to project onto.
    """

    c: Float[Array, ""] | None = None
    floor: Float[Array, ""] | None = None
    radius: Float[Array, ""] | None = None


def full_sum(p: Array) -> Float[Array, ""]:
    """Sum of all entries.

    From `LARGE` entries on XLA hands a plain sum to a vectorised library. The call to it costs more than a short sum,
    which goes through 8 or 16 independent lanes inside the step's own kernels instead; the barrier keeps XLA from
    merging the stages back into one chain of additions. (Shorter chains are also more accurate.)
    """
    if p.size >= LARGE:
        return jnp.sum(p)
    p = p.reshape(-1)
    lanes = 16 if p.size >= 256 else 8
    whole = p.size // lanes * lanes
    if whole <= lanes:
        return jnp.sum(p)
    head = jnp.sum(lax.optimization_barrier(jnp.sum(p[:whole].reshape(-1, lanes), axis=0)))
    return head if whole == p.size else head + jnp.sum(p[whole:])


def distance_sq(w: Array, v: Array) -> Float[Array, ""]:
    """``||w - v||^2``, always from the weights themselves.

    Large arrays are folded in eighths first: one loop over both arrays, where `full_sum` would store ``w - v``.
    """
    w, v = w.reshape(-1), v.reshape(-1)
    part = w.size // FOLD
    if w.size < LARGE:
        return full_sum((w - v) * (w - v))
    pieces = [w[k * part : (k + 1) * part] - v[k * part : (k + 1) * part] for k in range(FOLD)]
    rest = w[FOLD * part :] - v[FOLD * part :]
    folded = lax.optimization_barrier(sum(r * r for r in pieces))
    return jnp.sum(folded) if not rest.size else jnp.sum(folded) + jnp.sum(rest * rest)


def gradient_products(grad: Array, w: Array, v: Array) -> list[Float[Array, ""]]:
    """``<grad, w - v>``, ``||grad||^2`` and ``||w - v||^2``, each from the arrays themselves.

    Large arrays are folded in eighths by one reduction with three results, which reads each of the three arrays once;
    three separate sums read six and write ``w - v``.
    """
    grad, r = grad.reshape(-1), w.reshape(-1) - v.reshape(-1)
    terms = (grad * r, grad * grad, r * r)
    if w.size < LARGE:
        return [full_sum(p) for p in terms]
    whole = w.size // FOLD * FOLD
    zero = jnp.zeros((), w.dtype)
    folded = lax.reduce(
        tuple(p[:whole].reshape(FOLD, -1) for p in terms),
        (zero, zero, zero),
        lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
        (0,),
    )
    sums = [jnp.sum(p) for p in lax.optimization_barrier(folded)]
    return sums if whole == w.size else [s + jnp.sum(p[whole:]) for s, p in zip(sums, terms, strict=True)]


def _products(
    problem: Problem, w: Array, x: Array, y: Array, known: Array | None
) -> tuple[Array, Array, Array, list[Array]]:
    """Loss, predictions and gradient on a batch; then ``<grad, w - v>``, ``||grad||^2`` and ``||w - v||^2``."""
    v = problem.comparator
    if known is not None:
        loss, q, grad, inner, grad_sq = problem.loss_grad_products(w, x, y, known)
        return loss, q, grad, [inner, grad_sq, distance_sq(w, v)]
    loss, q, grad = problem.loss_grad(w, x, y)
    return loss, q, grad, gradient_products(grad, w, v)


def _measure(problem: Problem, w: Array, x: Array, y: Array) -> tuple[Array, list[Array]]:
    """Gradient on a batch and the numbers of one row, in the order of `COLUMNS` without ``eta``."""
    loss, q, grad, products = _products(problem, w, x, y, None)
    g, h = problem.proxy(w, q, x, y)
    row = [
        loss, jnp.mean(g), jnp.mean(h), *products, jnp.mean(problem.error(q, y)), jnp.mean(problem.slope(q, y)),
    ]  # fmt: skip
    return grad, row


def _advance(w: Array, grad: Array, eta: Array, products: list[Array], rule: Rule) -> Array:
    """One step and, if asked for, the projection.

    Adding zero times the measured numbers makes a step of large weights wait for them, so that XLA updates the
    weights in place; otherwise it copies them first. (If a number is not finite the run ends here anyway.)
    """
    if w.size >= LARGE and products:
        eta = eta + 0.0 * (products[0] + products[2])
    w = w - eta * grad
    if rule.radius is not None:
        norm = jnp.sqrt(full_sum(w * w))
        w = w * jnp.where(norm > rule.radius, rule.radius / norm, 1.0)
    return w


def _store(buffer: Array, row: list[Array], t: Array) -> Array:
    return lax.dynamic_update_slice(buffer, jnp.stack(row)[None], (t, jnp.zeros_like(t)))


def _full_batch(problem: Problem, w: Array, eta: Array, count: Array, rule: Rule) -> tuple[Array, Array]:
    def body(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        w, buffer = carry
        grad, row = _measure(problem, w, problem.features, problem.targets)
        size = eta[t] if rule.c is None else rule.c / jnp.maximum(row[-1], rule.floor)
        return _advance(w, grad, size, row[3:6], rule), _store(buffer, [*row, size], t)

    return lax.fori_loop(0, count, body, (w, jnp.zeros((eta.shape[0], WIDTH))))


def _full_row(problem: Problem, w: Array) -> list[Array]:
    x, y = problem.features, problem.targets
    q = problem.predict(w, x)
    g, h = problem.proxy(w, q, x, y)
    values = (problem.pointwise_loss(q, y), g, h, problem.error(q, y), problem.slope(q, y))
    return [jnp.mean(v) for v in values]


def proxy_uses_weights(problem: Problem, w: Array, batch: int) -> bool:
    """Whether the proxies look at the weights themselves and not only at predictions and data.

    If they do not (the common case), they are evaluated for a whole chunk at once, outside the loop. Passing ``w``
    to any operation counts as a use, whether or not the result matters.
    """
    x, y = problem.features[:1].repeat(batch, 0), problem.targets[:1].repeat(batch)
    jaxpr = jax.make_jaxpr(lambda w, q: problem.proxy(w, q, x, y))(w, jnp.zeros(batch)).jaxpr
    used = {id(a) for eqn in jaxpr.eqns for a in eqn.invars} | {id(a) for a in jaxpr.outvars}
    return id(jaxpr.invars[0]) in used


# What `Engine.tabulate` found: `Problem.comparator_rows`, a `RowTable`, or nothing.
Table = Array | ridge.RowTable | None


def _step(
    problem: Problem, rows: Int[Array, "c b"], table: Table, inside: bool
) -> Callable[[Array, Array], tuple[Array, Array, list[Array]]]:
    """The part of a step of SGD that reads the weights: gradient, raw numbers for `complete`, products for `_advance`."""
    features, targets = problem.features, problem.targets
    if isinstance(table, ridge.RowTable):
        row = lambda t: rows.at[t, 0].get(mode="promise_in_bounds")  # noqa: E731
        measure = ridge.step(problem, table, row, ridge.pad(problem.comparator, table))
        return lambda t, w: (*measure(t, w), [])

    def general(t: Array, w: Array) -> tuple[Array, Array, list[Array]]:
        drawn = rows.at[t].get(mode="promise_in_bounds")
        x, y = (
            features.at[drawn].get(mode="promise_in_bounds"),
            targets.at[drawn].get(mode="promise_in_bounds"),
        )
        known = None if table is None else table.at[drawn].get(mode="promise_in_bounds")
        _, q, grad, products = _products(problem, w, x, y, known)
        proxies = [jnp.mean(p) for p in problem.proxy(w, q, x, y)] if inside else []
        return grad, jnp.concatenate([jnp.stack(products + proxies), q]), products

    return general


def _steps(
    start: Array, stop: Array, w: Array, raw: Array, data: tuple[Any, ...], inside: bool
) -> tuple[Array, Array]:
    """Steps ``start .. stop - 1``: weights, and the numbers of every step in their places."""
    problem, rows, eta, table, rule = data
    measure = _step(problem, rows, table, inside)

    def step(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        w, raw = carry
        grad, row, products = measure(t, w)
        return _advance(w, grad, eta[t], products, rule), lax.dynamic_update_slice(
            raw, row[None], (t, jnp.zeros_like(t))
        )

    return lax.fori_loop(start, stop, step, (w, raw))


def _steps_of_one_function(
    start: Array, stop: Array, w: Array, raw: Array, data: tuple[Any, ...], inside: bool
) -> tuple[Array, Array]:
    """`_steps`, compiled into one function, which has to be handed all arrays."""
    arrays, fixed = eqx.partition(data, eqx.is_array)

    def steps(start: Array, stop: Array, w: Array, raw: Array, arrays: Any) -> tuple[Array, Array]:
        return _steps(start, stop, w, raw, eqx.combine(arrays, fixed), inside)

    return one_function(steps)(start, stop, w, raw, arrays)


def _stochastic(
    problem: Problem,
    w: Array,
    rows: Int[Array, "c b"],
    eta: Float[Array, " c"],
    bounds: Int[Array, " r"],
    measured: Int[Array, " r"],
    blocks: Array,
    rule: Rule,
    table: Table,
    native: bool,
) -> tuple[Array, Array, Array]:
    shape, whole = w.shape, isinstance(table, ridge.RowTable)
    inside = not whole and proxy_uses_weights(problem, w, rows.shape[1])
    data = (problem, rows, eta, table, rule)
    steps = _steps_of_one_function if native else _steps

    def restore(w: Array) -> Array:
        return w[: problem.comparator.size].reshape(shape) if whole else w

    def block(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        w, raw, full = carry
        # A loop of no or one turn: a pass over all data costs as much as many steps, so only where a record is due.
        full = lax.fori_loop(
            0, measured[j], lambda _, rows: _store(rows, _full_row(problem, restore(w)), j), full
        )
        w, raw = steps(bounds[j], bounds[j + 1], w, raw, data, inside)
        return w, raw, full

    columns = ridge.RAW if whole else (5 if inside else 3) + rows.shape[1]
    raw = jnp.zeros((eta.shape[0], columns))
    full = jnp.zeros((bounds.shape[0] - 1, len(FULL_COLUMNS)))
    start = ridge.pad(w, table) if whole else w
    w, raw, full = lax.fori_loop(0, blocks, block, (start, raw, full))
    return restore(w), raw, full


def _complete(
    problem: Problem, raw: Float[Array, "c k"], rows: Int[Array, "c b"], eta: Float[Array, " c"], table: Table
) -> Array:
    y = problem.targets[rows]
    if isinstance(table, ridge.RowTable):
        q, *products, g, h = ridge.columns(problem, table, raw, rows[:, 0])
        q = q[:, None]
    else:
        q, products = raw[:, raw.shape[1] - rows.shape[1] :], [raw[:, k] for k in range(3)]
        g, h = (raw[:, 3], raw[:, 4]) if raw.shape[1] - rows.shape[1] == 5 else _proxies(problem, q, rows)
    loss, error, slope = (
        jnp.mean(jax.vmap(f)(q, y), axis=1) for f in (problem.pointwise_loss, problem.error, problem.slope)
    )
    return jnp.stack([loss, g, h, *products, error, slope, eta])


def _proxies(problem: Problem, q: Float[Array, "c b"], rows: Int[Array, "c b"]) -> tuple[Array, Array]:
    def proxies(a: tuple[Array, Array]) -> tuple[Array, Array]:
        g, h = problem.proxy(problem.comparator, a[0], problem.features[a[1]], problem.targets[a[1]])
        return jnp.mean(g), jnp.mean(h)

    return lax.map(proxies, (q, rows), batch_size=min(512, len(rows)))


@Compiled
def full_batch_chunk(
    problem: Problem, w: Array, eta: Float[Array, " c"], count: Int[Array, ""], rule: Rule
) -> tuple[Array, Float[Array, "c 9"]]:
    """``count`` steps of full-batch descent (``count <= c``): new weights, and `COLUMNS` of every step."""
    return _full_batch(problem, w, eta, count, rule)


@Compiled
def full_batch_many(
    problem: Problem, w: Array, eta: Array, count: Array, rule: Rule
) -> tuple[Array, Float[Array, "s c 9"]]:
    """`full_batch_chunk` from many initial weights at once (leading axis of ``w``)."""
    return jax.vmap(lambda w: _full_batch(problem, w, eta, count, rule))(w)


@small_products
def stochastic_chunk(
    problem: Problem,
    w: Array,
    rows: Int[Array, "c b"],
    eta: Float[Array, " c"],
    bounds: Int[Array, " r"],
    measured: Int[Array, " r"],
    blocks: Int[Array, ""],
    rule: Rule,
    table: Table,
    native: bool,
) -> tuple[Array, Float[Array, "c k"], Float[Array, "r 5"]]:
    """Steps of SGD in blocks: block j runs steps ``bounds[j] .. bounds[j+1]-1``.

    Before it all data are measured if ``measured[j]`` is 1 (0: not).
    ``table`` is what `Engine.tabulate` found for single rows; ``native`` asks for `one_function`, and needs a `RowTable`.

    Returns:
        New weights; the raw numbers of every step, for `complete`; `FULL_COLUMNS` on all data before every measured block.
    """
    return _stochastic(problem, w, rows, eta, bounds, measured, blocks, rule, table, native)


@small_products
def stochastic_many(
    problem: Problem,
    w: Array,
    rows: Int[Array, "s c b"],
    eta: Array,
    bounds: Array,
    measured: Array,
    blocks: Array,
    rule: Rule,
    table: Table,
) -> tuple[Array, Float[Array, "s c k"], Float[Array, "s r 5"]]:
    """`stochastic_chunk` for many seeds at once (leading axis of ``w`` and ``rows``)."""
    return jax.vmap(
        lambda w, rows: _stochastic(problem, w, rows, eta, bounds, measured, blocks, rule, table, False)
    )(w, rows)


@Compiled
def comparator_rows(problem: Problem) -> Float[Array, "n k"] | None:
    """`Problem.comparator_rows`, compiled."""
    return problem.comparator_rows()


@Compiled
def complete(
    problem: Problem, raw: Float[Array, "c k"], rows: Int[Array, "c b"], eta: Array, table: Table
) -> Float[Array, "9 c"]:
    """`COLUMNS` of every step of SGD from its raw numbers, column by column.

    What depends on predictions and data alone is left out of the loop, where every small operation costs as much as
    a tenth of a step, and done here for the whole chunk at once.
    """
    return _complete(problem, raw, rows, eta, table)


@Compiled
def complete_many(
    problem: Problem, raw: Array, rows: Array, eta: Array, table: Table
) -> Float[Array, "s 9 c"]:
    """`complete` for many seeds at once."""
    return jax.vmap(lambda raw, rows: _complete(problem, raw, rows, eta, table))(raw, rows)
