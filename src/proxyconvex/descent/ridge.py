"""Single rows of a problem that sees its weights through ``<w, x>`` alone: one pass over them measures the whole step.

With ``a = <w, x>`` the gradient on a row is ``c x``, ``c = loss'(q(a), y) q'(a)``, so ``<grad, w - v> = c <x, w - v>`` and
``||grad||^2 = c^2 ||x||^2``. A step needs the sum ``<w, x>`` anyway; ``<x, w - v>`` and ``||w - v||^2`` come out of the same
loop over the weights. Both are taken from the weights themselves (no difference of large numbers, no recursion from step
to step), so that T7 stays a check of the recorded run.

The loop is one native function (`compilation.one_function`) and stores a few numbers a step; `columns` does the rest for a
whole chunk at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..families.base import Problem
from .compilation import Compiled

# Rows are filled up with zeros to a multiple of this, so that `sums` can add half onto half down to a few terms.
PAD = 16
# Numbers a step stores.
RAW = 5

_RESTATED = ("output", "proxy_at", "predict", "proxy", "loss_grad")


class RowTable(NamedTuple):
    """What the loop reads of the data.

    Attributes:
        features: rows filled up with zeros to a multiple of `PAD`.
        norm_sq: ``||x_i||^2``.
        ahead: ``<v, x_i>``.
    """

    features: Float[Array, "n k"]
    norm_sq: Float[Array, " n"]
    ahead: Float[Array, " n"]


@Compiled
def _row_table(x: Array, v: Array) -> RowTable:
    padded = jnp.pad(x, ((0, 0), (0, -x.shape[1] % PAD)))
    return RowTable(padded, jnp.sum(x * x, axis=1), x @ v.reshape(-1))


def row_table(problem: Problem) -> RowTable | None:
    """The table of a problem that has this structure (made once per run), or None."""
    if not _declared(type(problem)) or problem.comparator.size != problem.features.shape[1]:
        return None
    return _row_table(problem.features, problem.comparator)


def _declared(kind: type[Problem]) -> bool:
    """Whether `output` and `proxy_at` are given, and no subclass has since changed what they restate."""
    age = {name: next(k for k, c in enumerate(kind.__mro__) if name in vars(c)) for name in _RESTATED}
    base = kind.__mro__.index(Problem)
    told = max(age["output"], age["proxy_at"])
    return told < base and all(age[name] >= told for name in ("predict", "proxy", "loss_grad"))


def pad(w: Array, table: RowTable) -> Float[Array, " k"]:
    """Weights as the loop has them."""
    w = w.reshape(-1)
    return jnp.pad(w, (0, table.features.shape[1] - w.size))


def sums(w: Array, v: Array, x: Array) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """``<w, x>``, ``<x, w - v>`` and ``||w - v||^2``."""
    r = w - v
    return _sum(x * w), _sum(x * r), _sum(r * r)


def _sum(p: Float[Array, " k"]) -> Float[Array, ""]:
    """Sum of a vector, half onto half: vectors all the way down, and more accurate than one chain of additions."""
    while p.size % 2 == 0 and p.size > 4:
        p = lax.optimization_barrier(p[: p.size // 2] + p[p.size // 2 :])
    terms = [p[k] for k in range(p.size)]
    while len(terms) > 1:
        terms = [functools.reduce(jnp.add, terms[k : k + 2]) for k in range(0, len(terms), 2)]
    return terms[0]


def output_and_pull(problem: Problem, a: Array, y: Array) -> tuple[Array, Array]:
    """Predictions and ``c``, the derivatives of the loss in ``a``, entry by entry."""
    q, slope = problem.output(a)
    (pull,) = jax.vjp(lambda q: problem.pointwise_loss(q, y), q)[1](jnp.ones_like(q))
    return q, pull * slope


def step(
    problem: Problem, table: RowTable, row: Callable[[Array], Array], v: Array
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """The part of a step that reads the weights.

    Args:
        problem: one that has a table.
        table: its table.
        row: number of a step -> row of the data.
        v: the comparator, from `pad`.

    Returns:
        A function from step and padded weights to the gradient and the raw numbers of the step, for `columns`.
    """

    def measure(t: Array, w: Array) -> tuple[Array, Array]:
        i = row(t)
        x, y = _at(table.features, i), _at(problem.targets, i)
        a, inner, far = sums(w, v, x)
        q, c = lax.optimization_barrier(output_and_pull(problem, a[None], y[None]))
        return c * x, jnp.stack([inner, far, a, q[0], c[0]])

    return measure


def columns(
    problem: Problem, table: RowTable, raw: Float[Array, "c 5"], rows: Int[Array, " c"]
) -> tuple[Array, ...]:
    """Predictions, ``<grad, w - v>``, ``||grad||^2``, ``||w - v||^2`` and the proxies of every step, shape (c,) each."""
    inner, far, a, q, c = (raw[:, k] for k in range(RAW))
    proxies = problem.proxy_at(a, _at(table.ahead, rows), q, _at(problem.targets, rows))
    return q, c * inner, c * c * _at(table.norm_sq, rows), far, *proxies


def _at(a: Array, rows: Array) -> Array:
    return a.at[rows].get(mode="promise_in_bounds")
