"""Single rows of a problem that sees its weights through ``<w, x>`` alone: one pass over them measures the whole step.

With ``a = <w, x>`` the gradient on a row is ``c x``, ``c = loss'(q(a), y) q'(a)``, so ``<grad, w - v> = c <x, w - v>`` and
``||grad||^2 = c^2 ||x||^2``. A step needs the sum ``<w, x>`` anyway; ``<x, w - v>`` and ``||w - v||^2`` come out of the same
loop over the weights. Both are taken from the weights themselves (no difference of large numbers, no recursion from step
to step), so that T7 stays a check of the recorded run.

Every operation in the loop costs a tenth of such a step or more. There are two here beside those of an unrecorded step: the
sums come as one operation, and the three numbers are added up where they are stored. `columns` does the rest for a whole
chunk at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..families.base import Problem
from .compilation import Compiled

# Terms of a partial sum: short enough for the compiler to write the additions out, which it does for no length but this
# (measured: 12 to 32, and lengths that do not divide the weights, take 1.2 to 1.7 times as long a step).
CHAIN = 16


_RESTATED = ("output", "proxy_at", "predict", "proxy", "loss_grad")


class RowTable(NamedTuple):
    """What the loop reads of the data.

    Attributes:
        features: rows filled up with zeros to a multiple of `CHAIN`.
        norm_sq: ``||x_i||^2``.
        ahead: ``<v, x_i>``.
    """

    features: Float[Array, "n k"]
    norm_sq: Float[Array, " n"]
    ahead: Float[Array, " n"]


@Compiled
def _row_table(x: Array, v: Array) -> RowTable:
    padded = jnp.pad(x, ((0, 0), (0, -x.shape[1] % CHAIN)))
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


def partial_sums(w: Array, v: Array, x: Array) -> tuple[Array, Array, Array]:
    """Partial sums of ``<w, x>``, ``<x, w - v>`` and ``||w - v||^2``, shape (lanes,) each, from one loop."""
    r, zero = w - v, jnp.zeros((), w.dtype)
    sums = lax.reduce(
        tuple(p.reshape(CHAIN, -1) for p in (x * w, x * r, r * r)),
        (zero, zero, zero),
        lambda a, b: tuple(s + t for s, t in zip(a, b, strict=True)),
        (0,),
    )
    return lax.optimization_barrier(tuple(sums))


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
        x = table.features.at[i].get(mode="promise_in_bounds")
        y = problem.targets.at[i].get(mode="promise_in_bounds")
        ahead, inner, far = partial_sums(w, v, x)
        a = jnp.sum(ahead)
        c = lax.optimization_barrier(output_and_pull(problem, a[None], y[None])[1])
        return c * x, jnp.stack([jnp.sum(inner), jnp.sum(far), a])

    return measure


def columns(
    problem: Problem, table: RowTable, raw: Float[Array, "c 3"], rows: Int[Array, " c"]
) -> tuple[Array, ...]:
    """Predictions, ``<grad, w - v>``, ``||grad||^2``, ``||w - v||^2`` and the proxies of every step, shape (c,) each."""
    inner, far, a = raw[:, 0], raw[:, 1], raw[:, 2]
    y = problem.targets[rows]
    q, c = output_and_pull(problem, a, y)
    return q, c * inner, c * c * table.norm_sq[rows], far, *problem.proxy_at(a, table.ahead[rows], q, y)
