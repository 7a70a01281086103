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
