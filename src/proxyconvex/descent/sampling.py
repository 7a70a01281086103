"""Which rows, which step sizes and which records: everything about step ``t`` that does not depend on the iterate.

The rows of step ``t`` are a function of ``(seed, t)`` alone, so that chunking, interruption and resumption cannot
change them and 10^7 steps need no memory.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from ..core.errors import InvalidInputError
from ..core.methods import SGD, ConstantStep, Method, PolynomialStep

# Rows are drawn in blocks of this many steps, each from its own Philox counter range.
BLOCK = 4096


def check_seed(seed: int) -> int:
    """A sampling seed as an int.

    Raises:
        InvalidInputError: if it is not a whole number in [0, 2^64).
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise InvalidInputError("seed", seed, "a whole number in [0, 2^64)")
    return int(seed)


class RowSampler:
    """The rows that SGD uses, by step.

    Args:
        method: the method; its sampling and batch size matter.
        n: number of rows, >= 1.
        seed: sampling seed in [0, 2^64).

    Raises:
        InvalidInputError: if one pass over the rows is shorter than the method.
    """

    def __init__(self, method: SGD, n: int, seed: int) -> None:
        self.method, self.n, self.seed = method, n, check_seed(seed)
        if method.sampling == "one-pass":
            if method.steps * method.batch_size > n:
                raise InvalidInputError(
                    "steps", method.steps, f"at most n / batch_size = {n // method.batch_size} for one pass over "
                    f"{n} rows", "Lower --steps, or sample with replacement.",
                )  # fmt: skip
            self._order = np.random.Generator(np.random.PCG64(self.seed)).permutation(n)

    def rows(self, start: int, count: int) -> Int[np.ndarray, "count b"]:
        """Row indices of steps ``start .. start + count - 1``."""
        b = self.method.batch_size
        if self.method.sampling == "with-replacement":
            blocks = range(start // BLOCK, (start + count - 1) // BLOCK + 1)
            drawn = np.concatenate([self._block(j) for j in blocks])
            offset = start - blocks[0] * BLOCK
            return drawn[offset : offset + count]
        flat = np.arange(start * b, (start + count) * b).reshape(count, b)
        return self._order[flat] if self.method.sampling == "one-pass" else flat % self.n

    def _block(self, j: int) -> Int[np.ndarray, "block b"]:
        # The block number is the high word of the counter: no block can run into the next one.
        bits = np.random.Philox(key=self.seed, counter=[0, 0, 0, j])
        return np.random.Generator(bits).integers(0, self.n, size=(BLOCK, self.method.batch_size))


def step_sizes(method: Method, start: int, count: int) -> Float[np.ndarray, " count"]:
    """Step sizes of steps ``start .. start + count - 1``; NaN where they depend on the iterate (normalised)."""
    step = method.step
    if isinstance(step, ConstantStep):
        return np.full(count, float(step.eta))
    if isinstance(step, PolynomialStep):
        t = np.arange(start, start + count, dtype=np.float64)
        return step.eta / (1.0 + t / step.scale) ** step.power
    return np.full(count, np.nan)


def record_steps(steps: int, every: int | None) -> Int[np.ndarray, " k"]:
    """The steps to record, always with 0 and ``steps``.

    Args:
        steps: number of steps of the run.
        every: spacing; None takes every step of a short run (at most 2000) and otherwise about 2000 points, a
            quarter of them spread evenly over log t so that the beginning is seen too.

    Raises:
        InvalidInputError: if the spacing is not a whole number >= 1.
    """
    if every is not None:
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise InvalidInputError("record_every", every, "a whole number >= 1, or None")
        return np.append(np.arange(0, steps, int(every), dtype=np.int64), np.int64(steps))
    if steps <= 2000:
        return np.arange(steps + 1, dtype=np.int64)
    even = np.arange(0, steps, math.ceil(steps / 1500), dtype=np.int64)
    early = np.geomspace(1, steps, 480).astype(np.int64)
    return np.unique(np.concatenate([even, early, [steps]])).astype(np.int64)
