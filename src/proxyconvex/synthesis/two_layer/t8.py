"""Choosing comparator, initial scale and sharpness for theorem T8: normalised gradient descent reaches few errors.

With ``T`` steps the theorem needs ``S_k(q) > R G / sqrt T``. For a direction with margins mu and norm nu, placed at distance R,
``q = R mu / nu - remainder(R, s)``. The planner takes, in this order: the smallest k that any sharpness, direction, distance
and initial scale reaches in T steps, and for that k the smallest initial scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import CheckError, margins, two_layer_ntk
from proxyconvex_checker.rounding import to_float_down

from ..tangent_svm import HARD, Direction, margin_path
from .tangent import Tangent, largest_level, least_k

SPARE = 1.0 + 1e-4
"""Factor kept between the two sides of T8's inequality while planning in floating point."""
PATIENCE = 4.0
"""Steps taken, as a multiple of the least number with which the target could be promised at any scale: with that many, half
of the margin may go to the curvature and the logarithm, so that the initial scale need not be huge."""
SOFT = (1.0, 10.0, 1e2, 1e3, 1e4, 1e6, HARD)


@dataclass(frozen=True)
class Proposal:
    """What T8 could promise, in floating point.

    Attributes:
        tangent: features and sharpness.
        direction: of the comparator.
        radius: its distance from the initial weights.
        scale: initial scale.
        k: fewer than this many errors.
        steps: number of steps T.
    """

    tangent: Tangent
    direction: Direction
    radius: float
    scale: float
    k: int
    steps: int


@dataclass(frozen=True)
class Certified:
    """A proposal with the checker's numbers.

    Attributes:
        proposal: as certified (its scale may have grown).
        initial: W0, shape (m, d).
        comparator: V, shape (m, d).
        q: certified tangent margins, shape (n,).
        params: T, k, c, floor.
        derived: what the checker returned.
    """

    proposal: Proposal
    initial: Float[np.ndarray, "m d"]
    comparator: Float[np.ndarray, "m d"]
    q: Float[np.ndarray, " n"]
    params: dict[str, float]
    derived: dict[str, float]


def _moves(direction: Direction) -> bool:
    """Whether there is a direction at all: rows that contradict each other exactly leave none."""
    return direction.norm > 0


def radii(n: int, direction: Direction) -> Float[np.ndarray, " r"]:
    """Distances to try: the typical margin runs from about ``log n`` to a hundred times that."""
    return direction.norm * np.log(2 * n) * np.geomspace(0.5, 200.0, 28)


def _k_at(tangent: Tangent, direction: Direction, radius: float, scale: float, steps: int) -> int:
    """The smallest k that T8 promises at this point, in the tangent model."""
    q = direction.margins * (radius / direction.norm) - tangent.remainder(radius, scale)
    level = SPARE * radius * tangent.gradient_norm(radius, scale) / np.sqrt(steps)
    return least_k(q, level)


def least_steps(tangents: Sequence[Tangent], directions: Sequence[Sequence[Direction]], k: int) -> float:
    """The least T for which T8 could promise fewer than k errors at the largest initial scale (infinity if never)."""
    best = np.inf
    for tangent, path in zip(tangents, directions, strict=True):
        for direction in filter(_moves, path):
            for radius in radii(len(tangent.y), direction)[12::5]:
                scale = tangent.scales[1]
                q = direction.margins * (radius / direction.norm) - tangent.remainder(radius, scale)
                level = largest_level(q, k)
                if level > 0:
                    best = min(best, (radius * tangent.gradient_norm(radius, scale) / level) ** 2)
    return float(best)


def propose(
    tangents: Sequence[Tangent], directions: Sequence[Sequence[Direction]], steps: int, least: int = 1
) -> Proposal | None:
    """The best proposal for T steps; errors below ``least`` are not asked for. None if every k fails."""
    points = [
        (tangent, direction, float(radius))
        for tangent, path in zip(tangents, directions, strict=True)
        for direction in filter(_moves, path)
        for radius in radii(len(tangent.y), direction)
    ]
    if not points:
        return None
    reach = [_k_at(t, d, r, t.scales[1], steps) for t, d, r in points]
    k = max(min(reach), least)
    if k > len(tangents[0].y):
        return None
    best: Proposal | None = None
    for (tangent, direction, radius), reached in zip(points, reach, strict=True):
        if reached > k:
            continue
        ceiling = tangent.scales[1] if best is None else min(tangent.scales[1], best.scale * 0.99)
        if ceiling < tangent.scales[0] or _k_at(tangent, direction, radius, ceiling, steps) > k:
            continue
        scale = _smallest_scale(tangent, direction, radius, ceiling, steps, k)
        best = Proposal(tangent, direction, radius, scale, k, steps)
    return best


def _smallest_scale(
    tangent: Tangent, direction: Direction, radius: float, ceiling: float, steps: int, k: int
) -> float:
    low, high = np.log(tangent.scales[0]), np.log(ceiling)
    if _k_at(tangent, direction, radius, float(np.exp(low)), steps) <= k:
        return tangent.scales[0]
    while high - low > 0.01:
        middle = (low + high) / 2
        good = _k_at(tangent, direction, radius, float(np.exp(middle)), steps) <= k
        low, high = (low, middle) if good else (middle, high)
    return float(np.exp(high))


def search(
    tangents: Sequence[Tangent], steps: int | None, most_steps: int, least: int
) -> tuple[Proposal | None, float]:
    """The best proposal within the steps allowed, and the least T that could promise the target at all.

    Args:
        tangents: one per sharpness.
        steps: T, or None to choose it (at most ``most_steps``).
        most_steps: largest T to choose.
        least: k of the target (1: no errors).
    """
    hard = [margin_path(t.gram)[-1:] for t in tangents]
    ideal = least_steps(tangents, hard, least)
    allowed = steps or int(min(max(np.ceil(PATIENCE * ideal), 100), most_steps))
    found = propose(tangents, hard, allowed, least)
    if found is not None and found.k <= least:
        return found, ideal
    # Fewer errors with some rows given up. Where the scale is free only the sharpnesses with the largest margins are
    # worth the time; at a given scale the gentler ones may win.
    free = tangents[0].scales[0] < tangents[0].scales[1]
    order = np.argsort([h[0].norm * t.steepest for h, t in zip(hard, tangents, strict=True)])
    order = order[:2] if free else order
    chosen = [tangents[i] for i in order]
    soft = [margin_path(t.gram, SOFT) for t in chosen]
    if steps is None and least > 1:
        ideal = min(ideal, least_steps(chosen, soft, least))
        allowed = int(min(max(np.ceil(PATIENCE * ideal), 100), most_steps))
    other = propose(chosen, soft, allowed, least)
    if found is None or (other is not None and (other.k, other.scale) < (found.k, found.scale)):
        found = other
    return found, ideal


def certify(proposal: Proposal, seed: int, free_steps: bool) -> Certified:
    """Build the comparator and let the checker compute the promise.

    Where the tangent model was too hopeful the initial scale grows, and, once it may not, the number of errors.

    Args:
        proposal: what to certify.
        seed: of the initial weights.
        free_steps: whether T may be lowered to what is needed.

    Raises:
        CheckError: if nothing better than an error of one half can be certified.
    """
    while True:
        try:
            return _certify_once(proposal, seed, free_steps)
        except CheckError:
            scale, k = proposal.scale * 1.1, proposal.k + 1 + proposal.k // 50
            if scale <= proposal.tangent.scales[1]:
                proposal = replace(proposal, scale=scale)
            elif 2 * k <= len(proposal.tangent.y):
                proposal = replace(proposal, k=k)
            else:
                raise


def _certify_once(proposal: Proposal, seed: int, free_steps: bool) -> Certified:
    tangent, scale = proposal.tangent, proposal.scale
    family = tangent.family(scale, seed)
    initial = family.initial(tangent.x.shape[1])
    comparator = tangent.comparator(proposal.direction, proposal.radius, scale)
    fields = family.activation.describe()
    network = two_layer_ntk.examine(tangent.x, tangent.y, initial, fields, comparator)
    q = network.tangent_margins(network.distance)
    radius_sq = Fraction(network.distance) ** 2
    gradient_sq = Fraction(network.gradient_norm(network.distance)) ** 2
    level = margins.margin_floor(q, proposal.k)
    c = margins.best_step(level, gradient_sq)
    needed = margins.steps_needed(level, c, gradient_sq, radius_sq)
    if needed > proposal.steps:
        raise CheckError(margins.STEP, f"{needed} steps are needed, {proposal.steps} are allowed")
    params = {
        "T": needed if free_steps else proposal.steps,
        "k": proposal.k,
        "c": c,
        "floor": to_float_down(Fraction(proposal.k, 2 * len(tangent.y))),
    }
    derived = two_layer_ntk.derive("T8", tangent.x, tangent.y, initial, fields, comparator, params)
    return Certified(proposal, initial, comparator, q, params, derived)


def measured_k(tangent: Tangent, direction: Direction, radius: float, scale: float, steps: int) -> int:
    """As the planner's tangent model, but with the margins of the network itself at the comparator."""
    comparator = tangent.comparator(direction, radius, scale)
    q = tangent.margins(comparator, scale) - tangent.remainder(radius, scale)
    return least_k(q, SPARE * radius * tangent.gradient_norm(radius, scale) / np.sqrt(steps))
