"""Choosing comparator, step size and initial scale for plain gradient descent: T4 + T5 (smooth) and T3 + T5 (ReLU).

Both bound the mean logistic loss by ``h(V) = mean log(1 + exp(-q_i))`` plus ``R^2 / (2 eta T)`` and small terms. In the tangent
model the best comparator is a kernel logistic regression with weight ``1 / (2 eta T)``; for a network whose scale was fixed by the
user, where the remainder matters, the bound itself is minimised over all weights by L-BFGS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit

from proxyconvex_checker import CheckError, two_layer_ntk

from ...families.two_layer_ntk import paired_signs
from ..tangent_svm import Direction, logistic
from .tangent import Tangent

LOG2 = math.log(2)
USUAL, FRACTIONS = 0.9, (0.3, 0.5, 0.7, 0.8, 0.95, 0.975)
"""Step sizes tried, as fractions of the largest admissible one (2 / L or 2 / A)."""
GIVE = 0.02
"""Relative increase of the loss bound that a smaller initial scale may cost."""


@dataclass(frozen=True)
class Proposal:
    """What constant-step gradient descent could promise, in floating point.

    Attributes:
        tangent: features and sharpness.
        comparator: V, shape (m, d).
        scale: initial scale.
        eta: step size.
        steps: number of steps T.
        bound: on the mean loss.
    """

    tangent: Tangent
    comparator: Float[np.ndarray, "m d"]
    scale: float
    eta: float
    steps: int
    bound: float


@dataclass(frozen=True)
class Law:
    """The arithmetic of T4 + T5 or T3 + T5 for one data set, width and activation.

    Attributes:
        spread: largest eigenvalue of ``(1/n) sum x x'``.
        smooth: whether the activation is smooth (T4 + T5).
    """

    spread: float
    smooth: bool

    @classmethod
    def of(cls, tangent: Tangent) -> Law:
        """The law for a data set."""
        x = tangent.x
        gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
        return cls(float(np.linalg.eigvalsh(gram)[-1]) / len(x), tangent.smooth)

    def largest_step(self, tangent: Tangent, scale: float) -> float:
        """``2 / L``, or ``2 / A``, a little less to leave room for rounding."""
        if not self.smooth:
            return 2 * (1 - 1e-9) / (float(two_layer_ntk.SLOPE_SQUARED_OVER_LOSS) * self.spread)
        curvature = (1 - tangent.slope) * tangent.sharpness / (4 * scale)
        return 2 * (1 - 1e-9) / (self.spread * (0.25 + curvature / math.sqrt(tangent.width)))

    def alpha(self, fraction: float) -> float:
        """``1 / (2 - L eta)`` for ``eta = 2 fraction / L``."""
        return 1 / (2 - 2 * fraction)

    def radius(self, distance: float, eta: float, fraction: float) -> float:
        """Radius of the ball the theorem works in."""
        return math.sqrt(distance**2 + 2 * eta * self.alpha(fraction) * LOG2) if self.smooth else distance

    def bound(self, h: float, distance: float, eta: float, fraction: float, steps: int) -> float:
        """The bound on the mean loss."""
        if not self.smooth:
            return (h + distance**2 / (2 * eta * steps)) / (1 - fraction)
        alpha = self.alpha(fraction)
        return max(h, (steps * h + distance**2 / (2 * eta) + (alpha - 1) * LOG2) / (steps - 1 + alpha))


def mean_loss(q: Float[np.ndarray, " n"]) -> float:
    """``mean log(1 + exp(-q_i))``."""
    return float(np.mean(np.logaddexp(0, -q)))


def propose(tangents: Sequence[Tangent], steps: int) -> Proposal:
    """The proposal with the least bound; among scales within `GIVE` of it, the smallest scale.

    Raises:
        CheckError: if no comparator is better than the initial weights.
    """
    law = Law.of(tangents[0])

    def candidate(
        tangent: Tangent, fraction: float, start: Direction | None
    ) -> tuple[float, Tangent, Direction, float]:
        eta = fraction * law.largest_step(tangent, tangent.scales[1])
        direction = logistic(tangent.gram, 1 / (2 * eta * steps), None if start is None else start.alpha)
        return (
            _predict(law, tangent, direction, fraction, tangent.scales[1], steps),
            tangent,
            direction,
            fraction,
        )

    # The best sharpness hardly depends on the step size: find it at one, then the step size at it.
    best = min((candidate(t, USUAL, None) for t in tangents), key=lambda c: c[0])
    for fraction in FRACTIONS:
        other = candidate(best[1], fraction, best[2])
        best = min(best, other, key=lambda c: c[0])
    value, tangent, direction, fraction = best
    if not direction.norm > 0:
        raise CheckError(
            "comparator", "the rows contradict each other: no weights do better than the initial ones"
        )
    scale = _smallest_scale(law, tangent, direction, fraction, steps, value)
    eta = fraction * law.largest_step(tangent, scale)
    comparator = tangent.comparator(direction, direction.norm, scale)
    return Proposal(tangent, comparator, scale, eta, steps, value)


def _predict(
    law: Law, tangent: Tangent, direction: Direction, fraction: float, scale: float, steps: int
) -> float:
    eta = fraction * law.largest_step(tangent, scale)
    q = direction.margins - tangent.remainder(law.radius(direction.norm, eta, fraction), scale)
    return law.bound(mean_loss(q), direction.norm, eta, fraction, steps)


def _smallest_scale(
    law: Law, tangent: Tangent, direction: Direction, fraction: float, steps: int, least: float
) -> float:
    """The smallest scale that keeps the bound within `GIVE`, and the number of errors it allows."""
    n = len(tangent.y)
    ceiling = min(least * (1 + GIVE), (math.floor(n * least / LOG2) + 1) * LOG2 / n * (1 - 1e-6))

    def good(scale: float) -> bool:
        return _predict(law, tangent, direction, fraction, scale, steps) <= ceiling

    low, high = (math.log(s) for s in tangent.scales)
    if good(tangent.scales[0]):
        return tangent.scales[0]
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if good(math.exp(middle)) else (middle, high)
    return math.exp(high)


def polish(proposal: Proposal, iterations: int = 300) -> Proposal:
    """Minimise the T4 + T5 bound itself over the comparator (smooth activations), for a few step sizes.

    Not convex, and it need not be: whatever comparator is found, the promise is computed for it.
    """
    tangent = proposal.tangent
    law, best = Law.of(tangent), proposal
    ceiling = law.largest_step(tangent, proposal.scale)
    start, initial = proposal.comparator, tangent.half * proposal.scale
    initial = np.concatenate([initial, initial])
    factor = (1 - tangent.slope) * tangent.sharpness / (4 * proposal.scale) / (2 * math.sqrt(tangent.width))
    for fraction in (proposal.eta / ceiling, 0.3, 0.5, 0.8, 0.9):
        eta = fraction * ceiling
        grow = law.radius(0.0, eta, fraction) ** 2
        objective = _objective(tangent, proposal.scale, initial, factor, grow, 1 / (2 * eta * proposal.steps))
        result = minimize(
            objective,
            start.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": iterations, "maxcor": 30, "ftol": 1e-13, "gtol": 1e-12},
        )
        comparator = result.x.reshape(initial.shape)
        distance = float(np.linalg.norm(comparator - initial))
        lost = factor * tangent.norms**2 * (distance**2 + grow)
        h = mean_loss(tangent.margins(comparator, proposal.scale) - lost)
        value = law.bound(h, distance, eta, fraction, proposal.steps)
        if value < best.bound:
            best = replace(proposal, comparator=comparator, eta=eta, bound=value)
            start = comparator
    return best


def _objective(
    tangent: Tangent, scale: float, initial: np.ndarray, factor: float, grow: float, weight: float
):
    """Value and gradient of ``mean log(1 + exp(-q_i(V))) + weight ||V - W0||^2`` with the remainder inside ``q``."""
    x, y, signs = tangent.x, tangent.y, paired_signs(tangent.width) / math.sqrt(tangent.width)
    phi, squares, n = tangent.activation(scale), tangent.norms**2, len(tangent.y)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v = flat.reshape(initial.shape)
        move, z = v - initial, x @ v.T
        distance_sq = float(np.sum(move * move))
        q = y * (phi.numpy(z) @ signs) - factor * squares * (distance_sq + grow)
        p = expit(-q) / n
        gradient = -signs[:, None] * ((phi.derivative(z) * (p * y)[:, None]).T @ x)
        gradient += 2 * (weight + factor * float(p @ squares)) * move
        return mean_loss(q) + weight * distance_sq, gradient.ravel()

    return value
