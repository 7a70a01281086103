"""A zoo of conditions whose best constant is known: true up to it, false one percent beyond it.

It measures the falsifier: at the truth nothing may be found, one percent beyond it the violation must be found with every
seed. Each truth comes from a closed form, or from a one-dimensional problem solved to high accuracy; never from the falsifier.
"""

from __future__ import annotations

from .classical import CLASSICAL, SIDE
from .families import FAMILIES
from .reduced import REDUCED
from .specimen import Condition, Specimen

__all__ = ["Condition", "Specimen", "zoo"]


def zoo() -> list[Specimen]:
    """All specimens."""
    return [*CLASSICAL, *SIDE, *FAMILIES, *REDUCED]
