"""Descriptions of training methods: what theorems reason about and `descent` executes.

These are plain immutable descriptions (no arrays, no JAX), so that a theorem can look at a method without
importing the code that runs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .errors import InvalidInputError

Sampling = Literal["with-replacement", "one-pass", "cyclic"]


def _positive(what: str, value: float) -> None:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise InvalidInputError(what, value, "a finite number > 0", "Give a positive step size.")


@dataclass(frozen=True)
class ConstantStep:
    """``eta_t = eta``."""

    eta: float

    def __post_init__(self) -> None:
        _positive("eta", self.eta)


@dataclass(frozen=True)
class PolynomialStep:
    """``eta_t = eta / (1 + t / scale) ** power`` (t = 0, 1, ...)."""

    eta: float
    power: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        _positive("eta", self.eta)
        _positive("scale", self.scale)
        if not 0 <= self.power <= 1:
            raise InvalidInputError("power", self.power, "a number in [0, 1]")


@dataclass(frozen=True)
class NormalisedStep:
    """``eta_t = c / max(P_t, floor)``, where ``P_t = mean_i |loss'_i(w_t)|`` (normalised gradient descent).

    The floor keeps the step finite once the loss is tiny; theorem T8 needs ``floor <= k/(2n)``.
    """

    c: float
    floor: float

    def __post_init__(self) -> None:
        _positive("c", self.c)
        _positive("floor", self.floor)


Step = ConstantStep | PolynomialStep | NormalisedStep


@dataclass(frozen=True)
class BallProjection:
    """Project every iterate onto the Euclidean ball of this radius around the origin of parameter space."""

    radius: float

    def __post_init__(self) -> None:
        _positive("radius", self.radius)


def _check_steps(steps: int) -> None:
    if not (isinstance(steps, int) and steps >= 1):
        raise InvalidInputError("steps", steps, "a whole number >= 1", "Pass e.g. --steps 10000.")


@dataclass(frozen=True)
class GradientDescent:
    """Full-batch gradient descent, ``w_{t+1} = w_t - eta_t grad f(w_t)`` for ``t = 0 .. steps-1``."""

    step: Step
    steps: int
    projection: BallProjection | None = None

    def __post_init__(self) -> None:
        _check_steps(self.steps)

    @property
    def name(self) -> str:
        """Short name used by the command line."""
        return "normalised-gd" if isinstance(self.step, NormalisedStep) else "gd"


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with the given sampling of rows.

    ``with-replacement``: uniform fresh draws. ``one-pass``: a random permutation drawn once from the seed, each
    row at most once. ``cyclic``: the rows in their given order, again and again.
    """

    step: Step
    steps: int
    batch_size: int = 1
    sampling: Sampling = "with-replacement"
    projection: BallProjection | None = None

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if not (isinstance(self.batch_size, int) and self.batch_size >= 1):
            raise InvalidInputError("batch_size", self.batch_size, "a whole number >= 1")
        if self.sampling not in ("with-replacement", "one-pass", "cyclic"):
            raise InvalidInputError("sampling", self.sampling, "'with-replacement', 'one-pass' or 'cyclic'")
        if isinstance(self.step, NormalisedStep):
            raise InvalidInputError(
                "step",
                self.step,
                "ConstantStep or PolynomialStep",
                "A normalised step needs full-batch gradients.",
            )

    @property
    def name(self) -> str:
        """Short name used by the command line."""
        return "sgd"


Method = GradientDescent | SGD
