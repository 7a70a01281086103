"""Proxy convexity itself, certified on a ball of weights: the premises a theorem asks for, from one network, region and data set.

With the centre V as the comparator, ``f`` the mean logistic loss and ``N^lin_i(W) = N(W; x_i) + <grad N(W; x_i), V - W>``, convexity of the
loss gives ``<grad f(W), W - V> >= f(W) - mean_i loss(y_i N^lin_i(W))`` for every W (Frei and Gu 2021; Ji and Telgarsky 2020), so f is
proxy convex on the region with ``g = f`` and ``h`` the certified bound on the mean loss of the tangent margins there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.decimals import show
from proxyconvex_checker.weights.claims import TWO_LAYER, region_words

from ...core.conditions import BoundedBelow, GradientGrowth, ProxyConvexity, Smooth
from ...core.errors import InvalidInputError
from ...core.evidence import Evidence, Status, Verdict
from ...core.premises import Constant, Premise
from ...core.references import JI_TELGARSKY_2020, PROXYCONVEX_NOTES
from ...core.regions import Region
from ...core.setting import OutputGradient, TangentMargins
from .space import DenseNetwork, TwoLayerNetwork, WeightSpace, tangent_margins

Array = np.ndarray


@dataclass(frozen=True)
class OnBall:
    """Proxy convexity on a region, with what else the theorems need.

    Attributes:
        verdict: HOLDS, with the inequality and its number h.
        h: the certified bound on the mean loss of the tangent margins.
        premises: `ProxyConvexity` with ``g = f``, `TangentMargins`, `OutputGradient`, `GradientGrowth`, `BoundedBelow` and, for smooth
            activations, `Smooth`; add a `Start` and give them to `guarantee` or `explain`.
        space: all other bounds.
    """

    verdict: Verdict
    h: float
    premises: tuple[Premise, ...]
    space: WeightSpace

    def write_certificate(self, folder: str | os.PathLike[str]) -> Path:
        """Write the claim about h so that ``python -m proxyconvex_checker FOLDER`` re-verifies it."""
        return self.space.write_certificate(folder, "tangent-loss")

    def __str__(self) -> str:
        return "\n".join([str(self.verdict), *(f"  {p.record().statement}" for p in self.premises[1:])])


def certify_on_ball(
    network: TwoLayerNetwork | DenseNetwork,
    region: Region,
    inputs: Float[Array, "n d"],
    targets: Float[Array, " n"],
) -> OnBall:
    """Certify that the mean logistic loss is proxy convex on a region around the comparator V, the centre of the region.

    Args:
        network: the architecture.
        region: as for `WeightSpace`.
        inputs: shape (n, d).
        targets: in {-1, +1}, shape (n,).

    Returns:
        The verdict, h, and premises whose constants are CERTIFIED.

    Raises:
        InvalidInputError: for arrays that do not fit together, or where no finite h is known.
    """
    if targets is None:
        raise InvalidInputError("targets", None, "numbers -1 or +1, one per row")
    space = WeightSpace(network, region, inputs, targets)
    two_layer = space.subject.kind == TWO_LAYER
    comparator: Any = space.subject.weights[0] if two_layer else tuple(space.subject.weights)
    h = space.bound("tangent-loss")
    model, loss = space.outputs, space.loss
    margins, steepest = tangent_margins(space), space.bound("lipschitz")
    certified: dict[str, Any] = {"region": region, "evidence": Evidence.CERTIFIED}
    premises: list[Premise] = [
        ProxyConvexity(
            loss,
            loss,
            Constant(h, "upper", Evidence.CERTIFIED),
            comparator,
            reference=JI_TELGARSKY_2020,
            **certified,
        ),
        TangentMargins(margins, comparator, model, space.subject.targets, **certified),
        OutputGradient(Constant(steepest, "upper"), model, **certified),
        BoundedBelow(0, loss, evidence=Evidence.PROVED),
        *_curvature(space, region, two_layer),
    ]
    sentence = (
        f"The mean logistic loss f over {len(margins)} rows is proxy convex against the centre V: <grad f(W), W - V> >= f(W) - h with "
        f"h = {show(h)} for every W with {region_words(space.subject)}."
    )
    return OnBall(
        Verdict(Status.HOLDS, sentence, Evidence.CERTIFIED, {"h": h, "nu": space.nu}),
        h,
        tuple(premises),
        space,
    )


def _curvature(space: WeightSpace, region: Region, two_layer: bool) -> list[Premise]:
    """Growth ``||grad f||^2 <= A f`` and, for smooth activations, smoothness: two-layer on the whole space, dense on the region."""
    where: dict[str, Any] = {"evidence": Evidence.CERTIFIED}
    if not two_layer:
        where["region"] = region
    loss, growth = space.loss, Constant(space.bound("growth"), "upper")
    found: list[Premise] = [GradientGrowth(growth, 0, loss, loss, reference=PROXYCONVEX_NOTES, **where)]
    if space.subject.activation.smooth:
        found.append(Smooth(Constant(space.bound("smoothness"), "upper"), loss, **where))
    return found
