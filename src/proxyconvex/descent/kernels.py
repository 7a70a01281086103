"""The compiled loops. One call runs a chunk of steps and returns the new weights and one row of numbers per step.

The number of steps of a call is an *argument* (a loop with a dynamic bound into a buffer of fixed size), so a run of
any length compiles once, and so does a second run with the same shapes. Sums and minima are taken outside, in NumPy.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..families.base import Problem
from .trace import COLUMNS

FULL_COLUMNS = ("loss", "g", "h", "error", "slope")
WIDTH = len(COLUMNS)


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


def lane_sum(p: Array) -> Float[Array, ""]:
    """Sum of all entries, over independent lanes first.

    XLA adds the entries of a full reduction one after the other, which takes longer than the gradient step itself.
    A matrix goes through a product with ones, a vector through 8 or 16 lanes; the barrier keeps XLA from merging the
    stages back into one. (Shorter chains are also more accurate.)
    """
    if p.ndim > 1:
        p = lax.optimization_barrier(jnp.ones(p.shape[0]) @ p.reshape(p.shape[0], -1))
    lanes = 16 if p.size >= 256 else 8
    whole = p.size // lanes * lanes
    if whole <= lanes:
        return jnp.sum(p)
    head = jnp.sum(lax.optimization_barrier(jnp.sum(p[:whole].reshape(-1, lanes), axis=0)))
    return head if whole == p.size else head + jnp.sum(p[whole:])


def _measure(problem: Problem, w: Array, x: Array, y: Array) -> tuple[Array, list[Array]]:
    """Gradient on a batch and the numbers of one row, in the order of `COLUMNS` without ``eta``."""
    loss, q, grad = problem.loss_grad(w, x, y)
    g, h = problem.proxy(w, q, x, y)
    r = w - problem.comparator
    row = [
        loss, jnp.mean(g), jnp.mean(h), lane_sum(grad * r), lane_sum(grad * grad), lane_sum(r * r),
        jnp.mean(problem.error(q, y)), jnp.mean(problem.slope(q, y)),
    ]  # fmt: skip
    return grad, row


def _advance(w: Array, grad: Array, eta: Array, rule: Rule) -> Array:
    """One step and, if asked for, the projection."""
    w = w - eta * grad
    if rule.radius is not None:
        norm = jnp.sqrt(lane_sum(w * w))
        w = w * jnp.where(norm > rule.radius, rule.radius / norm, 1.0)
    return w


def _store(buffer: Array, row: list[Array], t: Array) -> Array:
    return lax.dynamic_update_slice(buffer, jnp.stack(row)[None], (t, jnp.zeros_like(t)))


def _full_batch(problem: Problem, w: Array, eta: Array, count: Array, rule: Rule) -> tuple[Array, Array]:
    def body(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        w, buffer = carry
        grad, row = _measure(problem, w, problem.features, problem.targets)
        size = eta[t] if rule.c is None else rule.c / jnp.maximum(row[-1], rule.floor)
        return _advance(w, grad, size, rule), _store(buffer, [*row, size], t)

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


def _stochastic(
    problem: Problem,
    w: Array,
    rows: Int[Array, "c b"],
    eta: Float[Array, " c"],
    bounds: Int[Array, " r"],
    blocks: Array,
    rule: Rule,
) -> tuple[Array, Array, Array]:
    features, targets, v = problem.features, problem.targets, problem.comparator
    inside = proxy_uses_weights(problem, w, rows.shape[1])

    def step(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        w, raw = carry
        drawn = rows.at[t].get(mode="promise_in_bounds")
        x, y = (
            features.at[drawn].get(mode="promise_in_bounds"),
            targets.at[drawn].get(mode="promise_in_bounds"),
        )
        _, q, grad = problem.loss_grad(w, x, y)
        r = w - v
        numbers = [lane_sum(grad * r), lane_sum(grad * grad), lane_sum(r * r)]
        if inside:
            numbers += [jnp.mean(p) for p in problem.proxy(w, q, x, y)]
        row = jnp.concatenate([jnp.stack(numbers), q])
        return _advance(w, grad, eta[t], rule), lax.dynamic_update_slice(
            raw, row[None], (t, jnp.zeros_like(t))
        )

    def block(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        w, raw, full = carry
        full = _store(full, _full_row(problem, w), j)
        w, raw = lax.fori_loop(bounds[j], bounds[j + 1], step, (w, raw))
        return w, raw, full

    raw = jnp.zeros((eta.shape[0], (5 if inside else 3) + rows.shape[1]))
    full = jnp.zeros((bounds.shape[0] - 1, len(FULL_COLUMNS)))
    return lax.fori_loop(0, blocks, block, (w, raw, full))


def _complete(
    problem: Problem, raw: Float[Array, "c k"], rows: Int[Array, "c b"], eta: Float[Array, " c"]
) -> Array:
    q, y = raw[:, raw.shape[1] - rows.shape[1] :], problem.targets[rows]
    if raw.shape[1] - rows.shape[1] == 5:
        g, h = raw[:, 3], raw[:, 4]
    else:

        def proxies(a: tuple[Array, Array]) -> tuple[Array, Array]:
            g, h = problem.proxy(problem.comparator, a[0], problem.features[a[1]], problem.targets[a[1]])
            return jnp.mean(g), jnp.mean(h)

        g, h = lax.map(proxies, (q, rows), batch_size=min(512, len(rows)))
    loss, error, slope = (
        jnp.mean(jax.vmap(f)(q, y), axis=1) for f in (problem.pointwise_loss, problem.error, problem.slope)
    )
    return jnp.stack([loss, g, h, raw[:, 0], raw[:, 1], raw[:, 2], error, slope, eta], axis=1)


@eqx.filter_jit
def full_batch_chunk(
    problem: Problem, w: Array, eta: Float[Array, " c"], count: Int[Array, ""], rule: Rule
) -> tuple[Array, Float[Array, "c 9"]]:
    """``count`` steps of full-batch descent (``count <= c``): new weights, and `COLUMNS` of every step."""
    return _full_batch(problem, w, eta, count, rule)


@eqx.filter_jit
def full_batch_many(
    problem: Problem, w: Array, eta: Array, count: Array, rule: Rule
) -> tuple[Array, Float[Array, "s c 9"]]:
    """`full_batch_chunk` from many initial weights at once (leading axis of ``w``)."""
    return jax.vmap(lambda w: _full_batch(problem, w, eta, count, rule))(w)


@eqx.filter_jit
def stochastic_chunk(
    problem: Problem,
    w: Array,
    rows: Int[Array, "c b"],
    eta: Float[Array, " c"],
    bounds: Int[Array, " r"],
    blocks: Int[Array, ""],
    rule: Rule,
) -> tuple[Array, Float[Array, "c k"], Float[Array, "r 5"]]:
    """Steps of SGD in blocks; before block j, which runs steps ``bounds[j] .. bounds[j+1]-1``, all data are measured.

    Returns:
        New weights; the raw numbers of every step, for `complete`; `FULL_COLUMNS` on all data before every block.
    """
    return _stochastic(problem, w, rows, eta, bounds, blocks, rule)


@eqx.filter_jit
def stochastic_many(
    problem: Problem,
    w: Array,
    rows: Int[Array, "s c b"],
    eta: Array,
    bounds: Array,
    blocks: Array,
    rule: Rule,
) -> tuple[Array, Float[Array, "s c k"], Float[Array, "s r 5"]]:
    """`stochastic_chunk` for many seeds at once (leading axis of ``w`` and ``rows``)."""
    return jax.vmap(lambda w, rows: _stochastic(problem, w, rows, eta, bounds, blocks, rule))(w, rows)


@eqx.filter_jit
def complete(
    problem: Problem, raw: Float[Array, "c k"], rows: Int[Array, "c b"], eta: Array
) -> Float[Array, "c 9"]:
    """`COLUMNS` of every step of SGD from its raw numbers.

    What depends on predictions and data alone is left out of the loop, where every small operation costs as much as
    a tenth of a step, and done here for the whole chunk at once.
    """
    return _complete(problem, raw, rows, eta)


@eqx.filter_jit
def complete_many(problem: Problem, raw: Array, rows: Array, eta: Array) -> Float[Array, "s c 9"]:
    """`complete` for many seeds at once."""
    return jax.vmap(lambda raw, rows: _complete(problem, raw, rows, eta))(raw, rows)
