"""The network that a condition is about; loads nothing, because most conditions are about none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ...core.premises import Premise

if TYPE_CHECKING:
    from .space import WeightSpace


def network_of(condition: Premise) -> WeightSpace | None:
    """The weight space of the network that a condition is about, or None."""
    functions = sys.modules.get(f"{__package__}.functions")
    if functions is None:
        return None  # no object of its classes exists
    for what in ("f", "model"):
        function = getattr(condition, what, None)
        if isinstance(function, functions.NetworkLoss | functions.NetworkOutputs):
            return function.space
    return None
