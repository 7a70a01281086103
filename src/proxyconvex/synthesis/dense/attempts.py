"""What the independent checker proves about one smooth dense network before training; the planners look for a network where it says something."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import CheckError, dense, dense_promise, margins
from proxyconvex_checker.rounding import softplus_bounds, to_float_down

from ...core.methods import ConstantStep, GradientDescent, NormalisedStep
from ...families.dense_family import DenseFamily
from .directions import Setting, regression, separators

LENGTHS = (2.0, 5.0, 12.0, 30.0)
"""Comparators of T8 that are tried: their median margin, in units of log 2n."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """One network with its best certified promise.

    Attributes:
        family: the network.
        theorem: ``"T8"`` or ``"T4T5"``.
        comparator: V, flat.
        method: the method the promise speaks of; None where nothing is proved.
        params: parameters of the theorem.
        derived: the checker's numbers; empty where nothing is proved.
    """

    family: DenseFamily
    theorem: str
    comparator: Float[np.ndarray, " p"]
    method: GradientDescent | None
    params: dict[str, Any]
    derived: dict[str, float]

    @property
    def error(self) -> float:
        """The promised error; 1 where nothing is proved."""
        return min(1.0, self.derived.get("error_bound", 1.0))

    @property
    def bound(self) -> float:
        """The promised quantity; infinite where nothing is proved."""
        return self.derived.get("bound", math.inf)


@dataclass(frozen=True, eq=False)
class Search:
    """Data and a family at output scale 1, with what does not depend on the scale.

    Attributes:
        family: smooth activation, last hidden layer in opposite pairs.
        x: features, shape (n, d).
        y: -1 and +1, shape (n,).
        limit: largest T.
        unit: the direction of T8's comparator; None for T4T5.
        fixed: whether T is to be the limit even if fewer steps do.
    """

    family: DenseFamily
    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, " n"]
    limit: int
    unit: Float[np.ndarray, " p"] | None
    fixed: bool = False

    def at(self, scale: float) -> Attempt:
        """The best promise found at this output scale."""
        family = self.family.rescaled(scale)
        return _few_errors(self, family) if self.unit is not None else _small_loss(self, family)


def search(
    family: DenseFamily, x: np.ndarray, y: np.ndarray, theorem: str, limit: int, fixed: bool = False
) -> Search:
    """Prepare the attempts; ``theorem`` is ``"T8"`` or ``"T4T5"``."""
    unit = None
    if theorem == "T8":
        lines = separators(Setting(family.rescaled(1.0).network, "logistic", x, y))
        unit = lines[-1] if lines else None
    return Search(family, x, y, limit, unit, fixed)


def _derive(
    family: DenseFamily, theorem: str, s: Search, v: np.ndarray, params: dict[str, Any]
) -> dict[str, float]:
    """The checker's numbers, or none if it refuses."""
    start = family.initial(s.x.shape[1])
    try:
        return dense_promise.derive(theorem, s.x, s.y, start, family.certificate_fields(), v, params)
    except CheckError:
        return {}


# --- T8 ------------------------------------------------------------------------------------------------------------


def _few_errors(s: Search, family: DenseFamily) -> Attempt:
    assert s.unit is not None
    network, n = family.network, len(s.y)
    start = network.initial(s.x.shape[1])
    gain = s.y * Setting(network, "logistic", s.x, s.y).push(s.unit)
    typical = float(np.median(gain[gain > 0])) if np.any(gain > 0) else 1.0
    best: tuple[int, int, np.ndarray, float] | None = None
    for factor in LENGTHS:
        v = start + s.unit * (factor * math.log(2 * n) / typical)
        near = dense_promise.prepare(s.x, s.y, start, family.certificate_fields(), v)
        made = _fewest(near.on_ball(near.distance), near.distance, s.limit)
        if made is not None and (best is None or made[:2] < best[:2]):
            best = made[0], made[1], v, made[2]
    if best is None:
        return Attempt(family, "T8", start + s.unit, None, {}, {})
    k, needed, v, c = best
    floor, steps = to_float_down(Fraction(k, 2 * n)), s.limit if s.fixed else needed
    params = {"T": steps, "k": k, "c": c, "floor": floor}
    method = GradientDescent(NormalisedStep(c, floor), steps)
    return Attempt(family, "T8", v, method, params, _derive(family, "T8", s, v, params))


def _fewest(found: dense.Curvature, radius: float, limit: int) -> tuple[int, int, float] | None:
    """The smallest k that T8 proves within the limit, the steps it needs and c, by bisection (S_k grows with k)."""

    def proved(k: int) -> tuple[int, int, float] | None:
        try:
            level = margins.margin_floor(found.margins, k)
            if not level > 0:
                return None
            c = margins.best_step(level, Fraction(found.gradient) ** 2)
            needed = margins.steps_needed(level, c, Fraction(found.gradient) ** 2, Fraction(radius) ** 2)
        except CheckError:
            return None
        return (k, needed, c) if needed <= limit else None

    low, high = 0, len(found.margins)
    best = proved(high)
    if best is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        made = proved(middle)
        if made is None:
            low = middle
        else:
            high, best = middle, made
    return best


# --- T4 + T5 -------------------------------------------------------------------------------------------------------


def _small_loss(s: Search, family: DenseFamily) -> Attempt:
    """A few comparators, from the best of the tangent model to nearer ones; for each the ball on which the proof closes."""
    start, best = family.network.initial(s.x.shape[1]), None
    setting = Setting(family.network, "logistic", s.x, s.y)
    smooth = float(np.mean(setting.gradient_squares())) / 4
    for factor in (1.0, 4.0, 16.0):
        v = start + regression(setting, factor * smooth / (2 * s.limit))
        made = _closed(s, family, v)
        if made is not None and (best is None or made.bound < best.bound):
            best = made
    return best or Attempt(family, "T4T5", v, None, {}, {})


def _closed(s: Search, family: DenseFamily, v: np.ndarray) -> Attempt | None:
    """Grow the ball until the iterates are proved to stay in it; None if that does not end soon."""
    start = family.initial(s.x.shape[1])
    near = dense_promise.prepare(s.x, s.y, start, family.certificate_fields(), v)
    rho = near.distance * 1.5
    for _ in range(8):
        found = near.on_ball(rho)
        smooth = float(np.mean(found.gradients**2) / 4 + np.mean(found.hessian)) * (1 + 1e-9)
        eta, h = 1 / smooth, float(np.mean(softplus_bounds(-found.margins)[1]))
        reach = math.sqrt(near.distance**2 + 2 * eta * (s.limit * h + 2 * math.log(2))) + eta * float(
            found.gradients.mean()
        )
        if not math.isfinite(reach) or h > 1.0:
            return None
        if reach * (1 + 1e-6) <= rho:
            params = {"T": s.limit, "eta": eta, "rho": rho}
            derived = _derive(family, "T4T5", s, v, params)
            method = GradientDescent(ConstantStep(eta), s.limit)
            return Attempt(family, "T4T5", v, method, params, derived) if derived else None
        rho = max(rho * 1.05, reach * 1.02)
    return None
