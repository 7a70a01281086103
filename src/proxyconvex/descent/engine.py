"""One run as a sequence of chunks: prepares the inputs of the compiled loop and launches it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..core.errors import InvalidInputError
from ..core.methods import SGD, Method, NormalisedStep
from ..families.base import Problem
from . import kernels, ridge
from .sampling import RowSampler, step_sizes
from .trace import COLUMNS

# A chunk is sized to about this many floating point operations (some tenths of a second), so that progress is live.
CHUNK_WORK = 2.5e9
CHUNK_MEMORY = 2**25
# Limits of `Engine.tabulate`: bytes of the table, and how much larger than its distance the comparator may be.
TABLE_MEMORY = 2**28
TABLE_RATIO = 1e3
# Problems whose loops cannot become one function, because they call something outside it (Python, a library).
_CALLS_OUT: set[type[Problem]] = set()


@dataclass(frozen=True)
class Flight:
    """A chunk of steps that was run.

    Attributes:
        start: first step.
        count: number of steps.
        before: weights before the chunk, shape (s, ...) or without the first axis.
        after: weights after it.
        raw: numbers of every step as they left the loop (in the first ``count`` places).
        full: for SGD: one row of `kernels.FULL_COLUMNS` per block that begins at a scheduled step.
        drawn: for SGD: rows used by each step.
        eta: step sizes.
        at: scheduled steps in the chunk.
        blocks: for SGD: which block starts at each scheduled step.
    """

    start: int
    count: int
    before: jax.Array
    after: jax.Array
    raw: jax.Array
    full: jax.Array | None
    drawn: Int[np.ndarray, "..."] | None
    eta: Float[np.ndarray, " c"]
    at: Int[np.ndarray, " r"]
    blocks: Int[np.ndarray, " r"]


def prepare(problem: Problem) -> Problem:
    """The problem with its arrays as float64 JAX arrays (call inside the x64 scope).

    Raises:
        InvalidInputError: if an array is not float64, or data or comparator have the wrong shape or are not finite.
    """
    x, y, v = (np.asarray(a) for a in (problem.features, problem.targets, problem.comparator))
    for name, a in (("features", x), ("targets", y), ("comparator", v)):
        if a.dtype != np.float64:
            raise InvalidInputError(
                f"problem.{name}", a.dtype, "float64", "Build the problem from NumPy float64 arrays."
            )
        if not np.isfinite(a).all():
            raise InvalidInputError(f"problem.{name}", a, "finite numbers")
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(y):
        raise InvalidInputError("problem.targets", y.shape, f"shape (n,) for features {x.shape}, n >= 1")

    def convert(leaf: Any) -> Any:
        return jnp.asarray(leaf) if isinstance(leaf, (np.ndarray, np.generic, jax.Array)) else leaf

    return jax.tree.map(convert, problem)


def check_weights(initial: Any, comparator: np.ndarray, name: str = "initial") -> Float[np.ndarray, "..."]:
    """Weights as a float64 copy.

    Raises:
        InvalidInputError: if the shape is not the comparator's or an entry is not finite.
    """
    w = np.array(initial, dtype=np.float64)
    if w.shape != comparator.shape:
        raise InvalidInputError(name, w.shape, f"the shape {comparator.shape} of the comparator")
    if not np.isfinite(w).all():
        raise InvalidInputError(name, w, "finite numbers")
    return w


def chunk_length(rows: int, weights: int, copies: int, stochastic: bool) -> int:
    """Steps per chunk, a power of two in [8, 16384], from the size of one step; a function of the shapes alone."""
    work = copies * (6.0 * rows * weights + 4e3)
    memory = copies * 8 * (32 + (rows if stochastic else 0))
    fits = min(CHUNK_WORK / work, CHUNK_MEMORY / memory, 16384)
    return max(8, 1 << int(np.log2(max(fits, 1))))


class Engine:
    """Launches chunks of one run, or of many at once.

    Args:
        problem: from `prepare`.
        method: what to run.
        seeds: sampling seeds; their number is the number of runs.
        many: whether weights have a leading axis (one entry per seed).
        chunk: steps per compiled call; None chooses it.
    """

    def __init__(
        self, problem: Problem, method: Method, seeds: list[int], many: bool, chunk: int | None
    ) -> None:
        self.problem, self.method, self.many, self.seeds = problem, method, many, seeds
        self.stochastic = isinstance(method, SGD)
        n, used = len(problem.targets), method.batch_size if isinstance(method, SGD) else len(problem.targets)
        self.samplers = [RowSampler(method, n, s) for s in seeds] if isinstance(method, SGD) else []
        if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
            raise InvalidInputError("chunk", chunk, "a whole number >= 1, or None")
        self.chunk = chunk or chunk_length(used, problem.comparator.size, len(seeds), self.stochastic)
        self.table: kernels.Table = None
        step, radius = (
            method.step,
            None if method.projection is None else jnp.asarray(method.projection.radius),
        )
        self.rule = kernels.Rule(radius=radius)
        if isinstance(step, NormalisedStep):
            self.rule = kernels.Rule(jnp.asarray(step.c), jnp.asarray(step.floor), radius)

    def tabulate(self, initial: Float[np.ndarray, "..."]) -> None:
        """Let the problem use the structure of single-row gradients, where that is exact enough.

        ``<grad, w - v>`` as a difference of products with w and v loses a factor ``||v|| / ||w - v||`` of precision;
        with a comparator that is too close for its size it is computed on ``w - v`` itself.
        """
        (n, d), v = self.problem.features.shape, np.asarray(self.problem.comparator)
        if not isinstance(self.method, SGD) or self.method.batch_size != 1:
            return
        if v.size < kernels.LARGE:
            # Many runs at once share the cost of an operation already.
            if not self.many and 8 * n * (d + ridge.PAD) <= TABLE_MEMORY:
                self.table = ridge.row_table(self.problem)
            return
        runs = initial.reshape(len(self.seeds) if self.many else 1, -1)
        near = np.linalg.norm(runs - v.reshape(-1), axis=1).min()
        if 8 * n * v.shape[0] <= TABLE_MEMORY and np.linalg.norm(v) <= TABLE_RATIO * near:
            self.table = kernels.comparator_rows(self.problem)

    def launch(self, w: jax.Array, start: int, count: int, at: Int[np.ndarray, " r"]) -> Flight:
        """Start ``count`` steps from ``w``; ``at`` are the scheduled steps among them.

        Nothing is waited for: ``w`` may be the result of a flight that is still on its way, and so may the arrays of
        this one, until `numbers` is asked for them.
        """
        # NumPy arrays go straight into the compiled call: converting each one first takes as long as hundreds of small steps.
        with jax.enable_x64(True):
            eta = np.zeros(self.chunk)
            eta[:count] = step_sizes(self.method, start, count)
            if not self.stochastic:
                run = kernels.full_batch_many if self.many else kernels.full_batch_chunk
                after, raw = run(self.problem, w, eta, np.array(count), self.rule)
                return Flight(start, count, w, after, raw, None, None, eta, at, at - start)
            cuts = np.unique(np.append(at - start, 0))
            bounds = np.full(self.chunk + 1, count)
            bounds[: len(cuts)] = cuts
            # Every block begins at a scheduled step, but for the first one of a chunk, which may just go on.
            measured = np.ones(self.chunk + 1, np.int64)
            measured[0] = len(at) and at[0] == start
            drawn = self._draw(start, count)
            given = (
                self.problem,
                w,
                drawn,
                eta,
                bounds,
                measured,
                np.array(len(cuts)),
                self.rule,
                self.table,
            )
            after, raw, full = kernels.stochastic_many(*given) if self.many else self._run(*given)
            return Flight(
                start, count, w, after, raw, full, drawn, eta, at, np.searchsorted(cuts, at - start)
            )

    def _run(self, *given: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        kind = type(self.problem)
        # The mark is one of the compiler for CPUs.
        on_cpu = jax.default_backend() == "cpu"
        if on_cpu and isinstance(self.table, ridge.RowTable) and kind not in _CALLS_OUT:
            try:
                return kernels.stochastic_chunk(*given, True)
            except jax.errors.JaxRuntimeError:
                _CALLS_OUT.add(kind)
        return kernels.stochastic_chunk(*given, False)

    def _draw(self, start: int, count: int) -> Int[np.ndarray, "..."]:
        drawn = np.zeros((len(self.seeds), self.chunk, self.samplers[0].method.batch_size), np.int64)
        # The measurement after the last step has no rows of its own; row 0 stands in, and what is found with it is dropped.
        if start + count <= self.method.steps:
            for i, sampler in enumerate(self.samplers):
                drawn[i, :count] = sampler.rows(start, count)
        return drawn if self.many else drawn[0]

    def numbers(self, flight: Flight) -> tuple[Float[np.ndarray, "s 9 c"], Float[np.ndarray, "s r 5"] | None]:
        """`trace.COLUMNS` of every step, and for SGD the values on all data at the scheduled steps. Any thread may ask."""
        if flight.full is None:
            rows = np.asarray(flight.raw)
            return rows.reshape(-1, *rows.shape[-2:])[:, : flight.count].transpose(0, 2, 1), None
        finish = kernels.complete_many if self.many else kernels.complete
        with jax.enable_x64(True):
            columns = np.asarray(finish(self.problem, flight.raw, flight.drawn, flight.eta, self.table))
        full = np.asarray(flight.full)
        return (
            columns.reshape(-1, *columns.shape[-2:])[..., : flight.count],
            full.reshape(-1, *full.shape[-2:])[:, flight.blocks],
        )

    def measure(self, w: jax.Array, step: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Columns at ``w`` as the iterate of ``step``: shape (s, 9), and (s, 5) on all data for SGD.

        SGD draws no rows there: only the distance is a number then, the others are NaN.
        """
        flight = self.launch(w, step, 1, np.array([step]))
        if flight.full is None:
            return self.numbers(flight)[0][:, :, 0], None
        columns = np.full((len(self.seeds), len(COLUMNS)), np.nan)
        with np.errstate(all="ignore"):  # a run that overflowed
            away = np.asarray(w) - np.asarray(self.problem.comparator)
            columns[:, COLUMNS.index("dist_sq")] = np.sum((away * away).reshape(len(self.seeds), -1), axis=1)
        return columns, np.asarray(flight.full).reshape(len(self.seeds), -1, len(kernels.FULL_COLUMNS))[:, 0]

    def fingerprint(self, initial: np.ndarray, schedule: np.ndarray, online: bool) -> str:
        """Hash of everything that determines the run, so that a checkpoint is not resumed by another one."""
        arrays, static = eqx.partition(self.problem, eqx.is_array)
        # Addresses of functions differ between processes.
        text = re.sub(
            r"0x[0-9a-f]+", "", f"{type(self.problem).__qualname__} {static!r} {self.method!r} {self.seeds}"
        )
        digest = hashlib.sha256(f"{text} {self.chunk} {online} {self.many}".encode())
        for a in (*jax.tree.leaves(arrays), initial, schedule):
            a = np.ascontiguousarray(a)
            digest.update(f"{a.dtype} {a.shape}".encode() + a.tobytes())
        return digest.hexdigest()
