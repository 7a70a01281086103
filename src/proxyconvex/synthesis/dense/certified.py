"""Deep networks with a smooth activation: the promise of T8 certified on a ball, before training.

The last hidden layer starts in opposite pairs, so the outputs are zero at w0. With outputs ``s N`` the comparator's distance R falls like
``1/s`` for given margins while the Hessian grows like s only: the remainder ``M R^2 / 2`` falls like ``1/s``. (For homogeneous layers of
weights ``t`` times larger and sharpness adapted, ``s = t^L``: this is the initial-scale trick of the two-layer family.) The planner finds about
the smallest s at which the certified bound says something, and prints it. It is the lazy regime, and is labelled so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import CheckError, dense, margins
from proxyconvex_checker.claims.promise import show
from proxyconvex_checker.rounding import to_float_down, to_float_up

from ...core.errors import InvalidInputError
from ...core.evidence import Evidence
from ...core.guarantee import Alternative, Guarantee, PremiseRecord
from ...core.methods import GradientDescent, NormalisedStep
from ...core.references import CAO_GU_2020, CHIZAT_BACH_2019, PROXYCONVEX_NOTES
from ...families import deep_relu
from ...families.activations import Activation
from ..plan_types import Plan
from .directions import Setting, separators
from .promise import distance_upper, percent

if TYPE_CHECKING:
    from ...data import Dataset, Preprocessing

MOST_STEPS = 3000
LARGEST_SCALE = 1e12


def certified_plan(
    dataset: Dataset,
    preprocessing: Preprocessing,
    x: Float[np.ndarray, "n d"],
    width: int,
    depth: int,
    phi: Activation,
    output_scale: float | None,
    steps: int | None,
    seed: int,
) -> Plan:
    """Plan T8 with premises certified on ``Ball(V, R)``.

    Args:
        dataset: two classes.
        preprocessing: as recorded.
        x: features.
        width: neurons per hidden layer.
        depth: hidden layers.
        phi: a smooth activation.
        output_scale: s; by default about the smallest at which fewer than half of the promised error is lost to curvature.
        steps: T; by default what is needed, at most `MOST_STEPS`.
        seed: of the weights.

    Raises:
        InvalidInputError: if no direction separates any row.
    """
    y, limit = dataset.targets, steps or MOST_STEPS
    unit = Setting(deep_relu.network(width, depth, 1, phi, 1.0, True, seed), "logistic", x, y)
    lines = separators(unit)
    if not lines:
        raise InvalidInputError("data", dataset.name, "rows that some tangent direction separates")
    direction = lines[-1]
    gain = y * unit.push(direction)
    scale = 1.0 if output_scale is None else float(output_scale)
    found, tried = None, []
    while True:
        network = replace(unit.network, output_scale=scale)
        made = _attempt(network, x, y, direction, gain * scale, limit)
        tried.append((scale, made[1]))
        if made[1] == 1 or output_scale is not None or scale > LARGEST_SCALE:
            found = made
            break
        found, scale = made, scale * 4
    return _plan(dataset, preprocessing, x, network, found, tried, limit, steps is None)


_Made = tuple[Float[np.ndarray, " p"], int, float, float, float, float, int]


def _attempt(network, x, y, direction, gain, limit: int) -> _Made:  # type: ignore[no-untyped-def]
    """The best ``(V, k, S, c, R, G, steps needed)`` over a few distances; k = n + 1 if nothing is proved."""
    n, start, head = len(y), network.initial(x.shape[1]), network.output_weights()[:, 0]
    positive = gain[gain > 0]
    least = float(np.median(positive)) if positive.size else 1.0
    best: _Made = (
        start + direction, n + 1, 0.0, 0.0, distance_upper(start, start + direction), math.inf, limit + 1,
    )  # fmt: skip
    for factor in (2.0, 5.0, 12.0, 30.0):
        v = start + direction * (factor * math.log(2 * n) / least)
        radius = distance_upper(start, v)
        found = dense.examine(
            x, y, network.layers(v, x.shape[1]), head, network.activation.describe(), radius
        )
        made = _fewest(v, found.margins, found.gradient, radius, limit)
        if made is not None and (made[1], made[6]) < (best[1], best[6]):
            best = made
    return best


def _fewest(v: np.ndarray, q: np.ndarray, gradient: float, radius: float, limit: int) -> _Made | None:
    """The smallest k that T8 proves within the limit, by bisection (S_k grows with k)."""

    def proved(k: int) -> _Made | None:
        try:
            level = margins.margin_floor(q, k)
            if not level > 0:
                return None
            c = margins.best_step(level, Fraction(gradient) ** 2)
            needed = margins.steps_needed(level, c, Fraction(gradient) ** 2, Fraction(radius) ** 2)
        except CheckError:
            return None
        return (v, k, level, c, radius, gradient, needed) if needed <= limit else None

    low, high = 0, len(q)
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


def _plan(dataset, preprocessing, x, network, made: _Made, tried, limit: int, free: bool) -> Plan:  # type: ignore[no-untyped-def]
    v, k, level, c, radius, gradient, needed = made
    n, start = len(x), network.initial(x.shape[1])
    proved = k <= n
    k = min(k, n)
    steps = needed if free and proved else limit
    bound = to_float_up(Fraction(k - 1, n)) if proved else 1.0
    method = GradientDescent(NormalisedStep(c or 1e-3, to_float_down(Fraction(k, 2 * n))), int(steps))
    lazy = (2 * radius) / float(np.linalg.norm(start))
    text = (
        f"The best of the first {steps:,} iterates of normalised gradient descent makes at most {k - 1} of {n} training errors "
        f"({percent(bound)}). The promise lives in the lazy regime: its proof uses proxy convexity only within "
        f"{show(100 * lazy, digits=3)}% of the initial norm of the weights from where they started."
        if proved
        else f"Nothing is proved for this network at output scale {network.output_scale:g}: every row may be wrong."
    )
    distance = PremiseRecord(
        "start-distance", f"||w_0 - V|| <= R = {show(radius)}.", Evidence.CERTIFIED, PROXYCONVEX_NOTES, radius
    )
    # Where nothing is proved, nothing but the distance is claimed; an error of at most 100% needs no premise.
    premises = (distance,) if not proved else (
        distance,
        PremiseRecord(
            "tangent-margins", f"On Ball(V, R) the tangent margins against V are at least q_i, with S_k(q) >= {show(level, lower=True)} for k = {k} "
            "(Hessian bound by recursion over the layers).", Evidence.CERTIFIED, PROXYCONVEX_NOTES, level,
        ),
        PremiseRecord("gradient-norm", f"On Ball(V, R) ||grad N|| <= G = {show(gradient)} for every row.", Evidence.CERTIFIED, PROXYCONVEX_NOTES, gradient),
        PremiseRecord("few-errors", f"T c (2 S_k - c G^2) > R^2 for T = {steps:,}.", Evidence.CERTIFIED, PROXYCONVEX_NOTES),
    )  # fmt: skip
    guarantee = Guarantee(
        "T8", "best-iterate-error", text, bound, bound, "every-run", premises, method, (PROXYCONVEX_NOTES, CAO_GU_2020, CHIZAT_BACH_2019),
        {"S": level, "k": k, "c": c, "R": radius, "G": gradient, "n": n},
    )  # fmt: skip
    derived = {
        "R": radius,
        "radius": radius,
        "G": gradient,
        "S": level,
        "c": c,
        "k": float(k),
        "bound": bound,
        "error_bound": bound,
    }
    return Plan(
        dataset=dataset, preprocessing=preprocessing, features=x, family=deep_relu.DeepReLU(network, "logistic"), initial=start,
        comparator=v, certificate_comparator=v, method=method, guarantee=guarantee, derived=derived, theorem_params={},
        proxy={"theorem": "T8", "level": level if proved else 0.0}, seed=network.seed, notes=_notes(network, tried, n),
        alternatives=(Alternative("T8", proved, "certified on the ball" if proved else "not proved at this output scale", bound, bound),),
    )  # fmt: skip


def _notes(network, tried, n: int) -> tuple[str, ...]:  # type: ignore[no-untyped-def]
    path = ", ".join(f"{scale:g}: {'nothing' if k > n else f'{k - 1} errors'}" for scale, k in tried)
    first = next((scale for scale, k in tried if 2 * (k - 1) < n), None)
    said = f"What the certified bound promises at each output scale tried: {path}."
    if first is None:
        return (said, "It is vacuous at all of them; a larger --output-scale makes it say something.")
    if first == tried[0][0]:
        return (said,)
    return (
        said,
        f"It stops being vacuous at output scale {first:g} or between that and the one before. At output scale 1 the same bound would need "
        f"a width of the order of {network.hidden[-1] * first**2:.2g}, because margins and Hessian both grow like the square root of the width.",
        "No certificate file is written: the independent checker computes these numbers, but its certificate format has no deep networks yet.",
    )
