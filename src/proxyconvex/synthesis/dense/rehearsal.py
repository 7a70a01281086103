"""Gradient descent on the tangent model at w0, in the n coefficients of the kernel: a rehearsal that costs n^2 a step.

It tells the planner how steep gradients get and where the weights go before anything is trained. Nothing that is promised rests on it:
the constants it suggests are premises, which the run confirms or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ...core.methods import ConstantStep, NormalisedStep
from .directions import Setting, _loss

MOST = 2000
"""Steps rehearsed; the steepest gradients and most of the way come early."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What happened to the tangent model.

    Attributes:
        growth: root mean square of ``||grad f|| / mean|loss'|`` until the error first went below the target (else over all steps).
        reached: step at which that happened, None if it did not.
        points: weights ``w0 + sum_i a_i grad N_i`` at a few steps, the last one included.
        losses: loss at every step.
    """

    growth: float
    reached: int | None
    points: tuple[Float[np.ndarray, " p"], ...]
    losses: Float[np.ndarray, " t"]


def rehearse(
    setting: Setting, step: ConstantStep | NormalisedStep, steps: int, errors_below: int = 0
) -> Rehearsal:
    """Run the tangent model (several outputs share their mean kernel).

    Args:
        setting: network and data.
        step: the rule.
        steps: how many steps; at most `MOST` are taken.
        errors_below: stop once fewer rows than this are wrong; 0 never stops.
    """
    kernel, n, y = setting.kernel, len(setting.y), setting.y
    outputs = setting.features.outputs.copy()
    moved = np.zeros_like(outputs)
    steps = min(steps, MOST)
    keep = {max(1, steps // 8), max(1, steps // 3), steps}
    points, values, squares, reached = [], [], [0.0], None
    for t in range(1, steps + 1):
        value, slope, mean_slope, errors = _measure(setting, outputs)
        values.append(value)
        if errors < errors_below:
            reached = t - 1
            break
        push = kernel @ slope
        if mean_slope > 0:
            squares.append(max(float(np.sum(slope * push)), 0.0) / mean_slope**2)
        size = step.eta if isinstance(step, ConstantStep) else step.c / max(mean_slope, step.floor)
        outputs -= size * push
        moved -= size * slope
        if not np.isfinite(outputs).all():
            break
        if t in keep:
            points.append(setting.start + setting.direction(moved))
    if reached is not None or not points:
        points.append(setting.start + setting.direction(np.nan_to_num(moved)))
    assert len(y) == n
    growth = float(np.sqrt(sum(squares) / max(1, len(squares) - 1)))
    return Rehearsal(growth, reached, tuple(points), np.array(values))


@dataclass(frozen=True, eq=False)
class Approach:
    """How the tangent model's run approaches comparators ``V = w0 + length unit``, one unit direction per line.

    Attributes:
        errors: wrong rows at every step, the last point included, shape (t + 1,).
        fixed: see `pulls`, shape (t,).
        pulls: per line, shape (t,): after t steps ``||w - V||^2`` has changed by ``fixed - length * pull`` in all.
        steepness: ``||grad f||^2 / (mean|loss'|)^2`` at every step, shape (t,).
    """

    errors: Float[np.ndarray, " s"]
    fixed: Float[np.ndarray, " t"]
    pulls: tuple[Float[np.ndarray, " t"], ...]
    steepness: Float[np.ndarray, " t"]


def approach(setting: Setting, c: float, floor: float, steps: int, pushes: Sequence[np.ndarray]) -> Approach:
    """Run the tangent model with normalised steps until no row is wrong.

    ``||w - eta grad f - V||^2 - ||w - V||^2 = -2 eta <grad f, w - V> + eta^2 ||grad f||^2``, and in the tangent model
    ``<grad f, w - V>`` is the sum of the loss's derivatives times the outputs of w minus those of V.

    Args:
        setting: network and data, all layers.
        c: constant of the step ``c / max(mean|loss'|, floor)``.
        floor: its floor.
        steps: at most; at most `MOST` are taken.
        pushes: ``<grad N(w0; x_i), unit>`` per line, shape (n,) or (n, classes).
    """
    kernel, n = setting.kernel, len(setting.y)
    first = setting.features.outputs
    units = np.stack([p.reshape(n, -1) for p in pushes])
    q, errors, fixed, pulls, steepness = first.copy(), [], [], [], []
    for _ in range(min(steps, MOST)):
        _, slope, mean_slope, wrong = _measure(setting, q)
        errors.append(wrong)
        if wrong == 0 or not mean_slope > 0:
            break
        push, eta = kernel @ slope, c / max(mean_slope, floor)
        square = float(np.sum(slope * push))
        fixed.append(eta * eta * square - 2 * eta * float(np.sum(slope * (q - first))))
        pulls.append(-2 * eta * np.einsum("inc,nc->i", units, slope))
        steepness.append(square / mean_slope**2)
        q -= eta * push
        if not np.isfinite(q).all():
            break
    else:
        errors.append(_measure(setting, q)[3])
    errors += [n] * (len(fixed) + 1 - len(errors))
    return Approach(
        np.array(errors, float),
        np.cumsum(fixed),
        tuple(np.cumsum(np.reshape(pulls, (len(fixed), len(units))), axis=0).T),
        np.array(steepness),
    )


def _measure(
    setting: Setting, q: Float[np.ndarray, "n c"]
) -> tuple[float, Float[np.ndarray, "n c"], float, int]:
    """Loss, its derivative in the outputs (over n), mean slope and number of errors."""
    n, y = len(q), setting.y
    if setting.loss == "squared":
        r = q - y[:, None]
        return float(np.mean(r * r) / 2), r / n, float(np.mean(np.abs(r))), n
    value, slope = _loss(setting.loss, q, y)
    if setting.loss == "logistic":
        return value, slope, float(np.abs(slope).sum()), int(np.sum(y * q[:, 0] <= 0))
    rows, own = np.arange(n), y.astype(int)
    mine = q[rows, own]
    rest = q.copy()
    rest[rows, own] = -np.inf
    return value, slope, float(-slope[rows, own].sum()), int(np.sum(rest.max(axis=1) >= mine))
