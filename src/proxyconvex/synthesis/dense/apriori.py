"""From which output scale, activation or width on a certified promise says something before training: a search, and a scaling law that is checked.

For a given width the smallest output scale at which the bound is not vacuous is bracketed and bisected. Margins and Hessian both grow like the
square root of the width, so that scale falls with the width; its exponent is measured between two widths, and the width at which scale 1
would do is extrapolated from it. Nothing is claimed for widths that were not evaluated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ...families.activations import Activation
from ...families.dense_family import DenseFamily
from .attempts import Search, search

LARGEST_SCALE = 1e12
LARGEST_SEARCH = 10**8
"""Rows times weights up to which a plan that did not ask for it makes the search."""
VACUOUS = 0.5
CLOSE = 1.12
"""The smallest scale is found up to this factor."""
BETAS = (1.0, 4.0, 16.0)
"""Sharpness of the activation that is tried where the user left it open."""


@dataclass(frozen=True)
class Threshold:
    """The smallest output scale at which a promise is not vacuous.

    Attributes:
        width: neurons of the hidden layers.
        beta: sharpness of the activation.
        scale: at this scale the bound was evaluated and is not vacuous; infinite if none was found.
        below: at this scale it was evaluated and is vacuous; 0 if scale 1 already is not.
    """

    width: int
    beta: float
    scale: float
    below: float


def threshold(s: Search, first: float = 1.0) -> Threshold:
    """Bracket by factors of 8 from ``first``, downwards as far as scale 1, then bisect."""
    network = s.family.network

    def says(scale: float) -> bool:
        return s.at(scale).error < VACUOUS

    low, high = 0.0, first
    while not says(high):
        low, high = high, high * 8
        if high > LARGEST_SCALE:
            return Threshold(network.hidden[-1], network.activation.beta, math.inf, low)
    while low == 0 and high > 1:
        lower = max(1.0, high / 8)
        low, high = (0.0, lower) if says(lower) else (lower, high)
    while low > 0 and high > CLOSE * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if says(middle) else (middle, high)
    return Threshold(network.hidden[-1], network.activation.beta, high, low)


def at_width(s: Search, width: int) -> Search:
    """The same search with another width."""
    network = replace(s.family.network, hidden=(width,) * len(s.family.network.hidden))
    theorem = "T8" if s.unit is not None else "T4T5"
    return search(replace(s.family, network=network), s.x, s.y, theorem, s.limit, s.fixed)


def enough_width(here: Threshold, s: Search) -> list[str]:
    """Sentences: the smallest scale at this width and at four times this width, and what that means for scale 1.

    Args:
        here: from `threshold` of ``s``.
        s: the search.
    """
    m = here.width
    if not math.isfinite(here.scale):
        return [f"At width {m} the certified bound is vacuous at every output scale up to {LARGEST_SCALE:g}."]
    if here.scale <= 1:
        return [f"At width {m} the certified bound is not vacuous at output scale 1 already."]
    said = f"At width {m} the certified bound stops being vacuous between output scale {here.below:.4g} and {here.scale:.4g}"
    wider = threshold(at_width(s, 4 * m), here.scale)
    if not math.isfinite(wider.scale):
        return [said + "."]
    said += f", at width {4 * m} between {wider.below:.4g} and {wider.scale:.4g}"
    power = math.log(here.scale / wider.scale) / math.log(4)
    if power < 0.1:
        return [f"{said}: no width is foreseen at which output scale 1 would do."]
    needed = m * here.scale ** (1 / power)
    return [
        f"{said}: like width^-{power:.2f}. At output scale 1 it would take a width of the order of {needed:.1g} (extrapolated, not evaluated)."
    ]


def best_sharpness(s: Search, beyond: float = 1.0) -> tuple[Search, Threshold, str]:
    """The sharpness of the activation with the best bound, its threshold, and what was tried in words.

    Args:
        s: the search.
        beyond: the bounds are compared at this multiple of the smallest threshold; with 1 that is the sharpness with the smallest threshold.
    """
    tried = []
    for beta in BETAS:
        activation = replace(s.family.network.activation, beta=beta)
        family = replace(s.family, network=replace(s.family.network, activation=activation))
        one = search(family, s.x, s.y, "T8" if s.unit is not None else "T4T5", s.limit, s.fixed)
        tried.append(
            (one, threshold(one, tried[-1][1].scale if tried and math.isfinite(tried[-1][1].scale) else 64.0))
        )
    least = min(t.scale for _, t in tried)
    compared = beyond > 1 and math.isfinite(least)

    def rank(pair: tuple[Search, Threshold]) -> tuple[float, float]:
        # The sharpness that says something first need not say most once the remainder is small.
        return pair[0].at(beyond * least).bound if compared else 0.0, pair[1].scale

    best = min(tried, key=rank)
    rows = ", ".join(
        f"{t.beta:g}: {t.scale:.4g}" if math.isfinite(t.scale) else f"{t.beta:g}: none" for _, t in tried
    )
    return (
        *best,
        f"Smallest output scale found at which the certified bound is not vacuous, by the sharpness beta of the activation: {rows}."
        + (
            f" The bound is best with {best[1].beta:g} at {beyond:g} times the smallest of them."
            if compared
            else ""
        ),
    )


def smooth_twin(family: DenseFamily) -> DenseFamily:
    """The network with softplus activations, outputs that start at zero and output scale 1: what the search is about."""
    network = replace(family.network, activation=Activation("softplus"), paired=True, output_scale=1.0)
    return replace(family, network=network)


def foreseen(family: DenseFamily, x: np.ndarray, y: np.ndarray, limit: int) -> list[str]:
    """Sentences: with which activation, output scale and width a promise about two classes says something before training.

    Args:
        family: of the network whose promise says nothing.
        x: features.
        y: -1 and +1.
        limit: largest T.
    """
    twin = smooth_twin(family)
    if len(x) * twin.network.size(x.shape[1]) > LARGEST_SEARCH:
        return [
            "The search for a network with a certified promise was not made for a problem of this size; --activation softplus makes it."
        ]
    s = search(twin, x, y, "T4T5" if family.name == "three-layer" else "T8", limit)
    if s.family.name != "three-layer" and s.unit is None:
        return ["No tangent direction separates any row, so that no certified promise is foreseen."]
    s, here, said = best_sharpness(s)
    return [
        f"Certified before training, with --activation softplus and up to {limit:,} steps: {said}",
        *enough_width(here, s),
    ]
