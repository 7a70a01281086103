"""Options of the two-layer planner: what is accepted, and what they leave open for the planner to choose."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ...core.errors import InvalidInputError
from ...families.activations import NAMES, Activation
from ...families.two_layer_ntk import TwoLayerNTK, check_positive, check_width
from .tangent import GENTLE, SCALES, SHARPNESS, Tangent

METHODS = ("normalised-gd", "gd")
DEFAULT_WIDTH = 1024
MOST_STEPS = 20_000
"""Steps the planner takes at most when neither steps nor a time budget are given."""
TRAINING_SHARE = 0.5
"""Share of a time budget that is meant for the steps themselves."""


@dataclass(frozen=True)
class Options:
    """Checked options.

    Attributes:
        width: m, or None.
        activation: name of the activation.
        slope: leak c.
        beta: sharpness, or None.
        init_scale: or None.
        method: ``"normalised-gd"`` or ``"gd"``.
        steps: T, or None.
        target_errors: errors that are acceptable, or None for none at all.
        seed: of the initial weights.
        budget_seconds: time for training, or None.
        progress: whether to say on standard error what is being done.
    """

    width: int | None
    activation: str
    slope: float
    beta: float | None
    init_scale: float | None
    method: str
    steps: int | None
    target_errors: int | None
    seed: int
    budget_seconds: float | None
    progress: bool

    def __post_init__(self) -> None:
        if self.width is not None:
            check_width(self.width)
        if self.activation not in NAMES:
            raise InvalidInputError("activation", self.activation, ", ".join(NAMES))
        smooth = Activation(self.activation, self.slope).smooth
        if self.slope == 1:
            raise InvalidInputError(
                "slope", self.slope, "a number in [0, 1)", "With slope 1 the network is linear."
            )
        if self.beta is not None:
            check_positive("beta", self.beta)
            if not smooth:
                raise InvalidInputError("beta", self.beta, f"nothing: {self.activation} has no sharpness")
        if self.init_scale is not None:
            check_positive("init_scale", self.init_scale)
        if self.method not in METHODS:
            raise InvalidInputError(
                "method", self.method, " or ".join(METHODS), "This family trains on full batches."
            )
        _whole("steps", self.steps, 1)
        _whole("target_errors", self.target_errors, 0)
        _whole("seed", self.seed, 0)
        if self.budget_seconds is not None:
            check_positive("budget_seconds", self.budget_seconds)

    @property
    def smooth(self) -> bool:
        """Whether the activation is smooth."""
        return Activation(self.activation, self.slope).smooth

    @property
    def least(self) -> int:
        """``k`` of the target: fewer than this many errors."""
        return (self.target_errors or 0) + 1

    def say(self, text: str) -> None:
        """A line of progress on standard error."""
        if self.progress:
            from rich.console import Console

            Console(stderr=True, highlight=False).print(f"[dim]plan:[/dim] {text}")

    def tangents(self, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], width: int) -> list[Tangent]:
        """Every tangent model these options leave open, at one width."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        half = rng.standard_normal((width // 2, x.shape[1]))
        fixed = None if self.init_scale is None else (float(self.init_scale), float(self.init_scale))

        def tangent(sharpness: float, scales: tuple[float, float]) -> Tangent:
            return Tangent(x, y, half, self.activation, self.slope, sharpness, scales)

        if not self.smooth:
            return [tangent(1.0, fixed or SCALES)]
        if self.beta is not None:
            if fixed is not None:
                return [tangent(self.beta * fixed[0], fixed)]
            return [tangent(b, (b / self.beta, b / self.beta)) for b in SHARPNESS]
        if fixed is not None:
            # The scale cannot be enlarged, so a nearly linear network may be all that can be promised anything.
            return [tangent(b, fixed) for b in (*GENTLE, *SHARPNESS)]
        return [tangent(b, SCALES) for b in SHARPNESS]


def _whole(what: str, value: Any, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise InvalidInputError(what, value, f"a whole number >= {least}")


def step_seconds(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], tangent: Tangent) -> float:
    """Measured seconds of one full-batch step with everything that is recorded."""
    from ...core.methods import ConstantStep, GradientDescent
    from ...descent.run import train

    family: TwoLayerNTK = tangent.family(max(1.0, tangent.scales[0]), 0)
    w = family.initial(x.shape[1])
    problem = family.problem(x, y, w)
    times = []
    with jax.enable_x64(True):
        for steps in (8, 8, 16):
            start = time.perf_counter()
            train(problem, w, GradientDescent(ConstantStep(1e-3), steps), chunk=16)
            times.append((time.perf_counter() - start) / steps)
    return min(times[1:])
