"""Premises that the theorems of several families share."""

from __future__ import annotations

from .promise import Premise

DISTANCE = Premise(
    "distance",
    "The initial weights are within {R} of the comparator (where this is small beside the weights themselves, the "
    "promise lives in the lazy regime).",
    "CERTIFIED",
    "ChizatOyallonBach2019",
    "R",
)


def proxy_convexity(source: str) -> Premise:
    """Proxy convexity on a ball where the tangent margins are certified."""
    return Premise(
        "proxy-convexity",
        "Convexity of the loss in the output and these margins give <grad f(w), w - v> >= f(w) - h on that ball, h = {h}.",
        "CERTIFIED",
        source,
        "h",
    )
