"""Certify a condition on the loss of a known network by the bounds of its weight space.

Each condition is implied by one certified number: Smooth(L) by the bound on second derivatives of the loss, growth by that on
``||grad f||^2 / f``, boundedness by the least loss, ``||grad N|| <= G`` by the Lipschitz bound, and proxy convexity with ``g = f`` against the
centre by the bound h on the mean loss of the tangent margins (`certify_on_ball` has the proof).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxyconvex_checker.decimals import show
from proxyconvex_checker.weights import claims as weight_claims
from proxyconvex_checker.weights.claims import QUANTITIES, TWO_LAYER

from ...core.conditions import BoundedBelow, GradientGrowth, ProxyConvexity, Smooth
from ...core.errors import InvalidInputError
from ...core.evidence import Evidence, Status, Verdict
from ...core.intervals import lower_float, upper_float
from ...core.premises import Constant, Premise, same_point
from ...core.regions import WholeSpace
from ...core.setting import OutputGradient, TangentMargins
from .network_of import network_of
from .space import WeightSpace, tangent_margins


@dataclass(frozen=True)
class NetworkVerdict(Verdict):
    """A `Verdict` about a condition on a network, with the claim in weight space that it rests on.

    Attributes:
        space: network, region and rows.
        quantity: the claim.
        level: the number claimed.
    """

    space: WeightSpace | None = None
    quantity: str = ""
    level: float = 0.0

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the certificate: a folder with the document and its arrays.

        A path that ends in ``.json`` stands for the folder of that name without the ending.

        Raises:
            InvalidInputError: if nothing was proved.
        """
        if self.space is None or self.status is not Status.HOLDS:
            raise InvalidInputError(
                "certificate", self.status.name, "a verdict HOLDS", "Only a proof can be written down."
            )
        folder = Path(path).with_suffix("") if Path(path).suffix == ".json" else Path(path)
        return self.space.write_certificate(folder, self.quantity, self.level)


def certify_network(condition: Premise) -> NetworkVerdict:
    """HOLDS where a certified number implies the condition, else INCONCLUSIVE with the number that is certified.

    Args:
        condition: `Smooth`, `GradientGrowth`, `BoundedBelow`, `ProxyConvexity` with ``g = f`` against the centre, or `OutputGradient`, with
            ``f = space.loss`` (``model = space.outputs``).
    """
    space = network_of(condition)
    assert space is not None
    asked = _claim(condition, space)
    if isinstance(asked, str):
        return NetworkVerdict(Status.INCONCLUSIVE, f"Not certified, because {asked}.", Evidence.ASSUMED)
    quantity, level = asked
    everywhere = isinstance(condition.region, WholeSpace)
    global_ = space.subject.kind == TWO_LAYER and quantity in ("smoothness", "growth")
    if everywhere and not global_ and not (quantity == "least-loss" and level <= 0):
        reason = "the bounds of this network hold on a ball; give region=space.region"
        return NetworkVerdict(Status.INCONCLUSIVE, f"Not certified, because {reason}.", Evidence.ASSUMED)
    space = _on(space, condition)
    try:
        certified = space.bound(quantity)
    except InvalidInputError as error:
        reason = f"no finite bound on {quantity} is known here ({error.fix or error.accepted})"
        return NetworkVerdict(Status.INCONCLUSIVE, f"Not certified, because {reason}.", Evidence.ASSUMED)
    about = QUANTITIES[quantity]
    words = f"{quantity} {'at least' if about.lower else 'at most'} {show(certified, lower=about.lower)}"
    witness: dict[str, Any] = {"quantity": quantity, "certified": certified, "asked": level}
    if not weight_claims.implied(quantity, certified, level):
        sentence = f"Neither proved nor refuted: the condition asks for {quantity} {level!r}, and what is certified is {words}."
        return NetworkVerdict(
            Status.INCONCLUSIVE, sentence, Evidence.ASSUMED, witness, space, quantity, level
        )
    where = " (here on the whole space; the certificate states it for the region)" if everywhere else ""
    sentence = f"{condition.record().statement} It follows from {words}{where}. {weight_claims.statement(space.subject, quantity, level)}"
    return NetworkVerdict(Status.HOLDS, sentence, Evidence.CERTIFIED, witness, space, quantity, level)


OTHER_CENTRE = "the bounds of a network are against the centre of its region; make the comparator the centre"


def _is_centre(point: Any, space: WeightSpace) -> bool:
    s = space.subject
    return same_point(point, s.weights[0] if s.kind == TWO_LAYER else tuple(s.weights))


def _margins(condition: TangentMargins, space: WeightSpace) -> tuple[str, float] | str:
    """Row by row against the certified tangent margins; the certificate states the smallest."""
    if not _is_centre(condition.comparator, space):
        return OTHER_CENTRE
    here = _on(space, condition)
    if condition.targets is None or not np.array_equal(condition.targets, here.subject.targets):
        return "its targets are not those of the network's rows"
    certified = tangent_margins(here)
    if condition.margins.shape != certified.shape or (condition.margins > certified).any():
        return "at least one of its margins is larger than the certified one"
    return "tangent-margin", float(condition.margins.min())


def _on(space: WeightSpace, condition: Premise) -> WeightSpace:
    """The weight space with the condition's region."""
    if isinstance(condition.region, WholeSpace) or condition.region is space.region:
        return space
    return WeightSpace(space.network, condition.region, space.inputs, space.targets, space.shells)


def _claim(condition: Premise, space: WeightSpace) -> tuple[str, float] | str:
    """The claim that implies a condition, or why there is none."""
    if getattr(condition, "grad", None) is not None or getattr(condition, "moment", None) is not None:
        return (
            "it has a gradient or a moment of its own; leave them out, so that they are those of the network"
        )
    if isinstance(condition, Smooth):
        return "smoothness", lower_float(condition.L.value)
    if isinstance(condition, OutputGradient):
        return "lipschitz", lower_float(condition.G.value)
    if isinstance(condition, TangentMargins):
        return _margins(condition, space)
    if isinstance(condition, BoundedBelow):
        return "least-loss", upper_float(condition.f_star.value)
    same = (
        condition.f is getattr(condition, "g", None)
        if isinstance(condition, GradientGrowth | ProxyConvexity)
        else False
    )
    if isinstance(condition, GradientGrowth) and same and condition.scope == "full-batch":
        return "growth", lower_float(condition.A.value)
    if (
        isinstance(condition, ProxyConvexity)
        and same
        and isinstance(condition.h, Constant)
        and not condition.samplewise
    ):
        center = space.subject.weights[0] if space.subject.kind == TWO_LAYER else tuple(space.subject.weights)
        if not same_point(condition.comparator, center):
            return (
                "the bounds of a network are against the centre of its region; make the comparator the centre"
            )
        return "tangent-loss", lower_float(condition.h.value)
    return (
        f"no bound of a weight space implies {type(condition).__name__} of this form; known are Smooth, TangentMargins, OutputGradient, BoundedBelow, GradientGrowth and ProxyConvexity with g = f = "
        "space.loss and a number h"
    )
