"""How each family is rebuilt from a certificate: its numbers, its initial weights, the shape of its comparator."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import initial

Derive = Callable[..., dict[str, float]]


def _lazily(module: str) -> Derive:
    """The ``derive`` function of a sibling module, imported on first use."""

    def derive(*arguments: Any) -> dict[str, float]:
        return importlib.import_module(f".{module}", __package__).derive(*arguments)

    return derive


@dataclass(frozen=True)
class FamilyRules:
    """How a family is rebuilt.

    Attributes:
        derive: ``(theorem, X, y, W0, activation, comparator, params) -> certified numbers``.
        initial: ``(family fields, d) -> W0``, the initial weights.
        from_rows: ``(family fields, X, y) -> W0`` in place of ``initial``, where they depend on the rows.
        comparator_shape: ``(width, d) -> shape`` of the stored comparator.
        tasks: the kinds of targets it speaks of: ``"binary"``, ``"regression"``, ``"multiclass"``.
    """

    derive: Derive
    initial: Callable[[dict[str, Any], int], np.ndarray]
    comparator_shape: Callable[[int, int], tuple[int, ...]]
    tasks: tuple[str, ...] = ("binary",)
    from_rows: Callable[[dict[str, Any], np.ndarray, np.ndarray], np.ndarray] | None = None

    def start(self, family: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The initial weights for these rows."""
        return self.initial(family, x.shape[1]) if self.from_rows is None else self.from_rows(family, x, y)


FAMILIES = {
    "leaky-relu-noise": FamilyRules(_lazily("leaky_relu_noise"), initial.normal, lambda width, d: (d,)),
    "classical": FamilyRules(
        _lazily("classical"), initial.normal, lambda width, d: (width, d), ("regression", "binary")
    ),
    "rank-one": FamilyRules(
        _lazily("secant"),
        initial.normal,
        lambda width, d: (width, d),
        ("regression",),
        initial.leading_direction,
    ),
    "phase-retrieval": FamilyRules(
        _lazily("secant"),
        initial.normal,
        lambda width, d: (width, d),
        ("regression",),
        initial.from_intensities,
    ),
    "linear-network": FamilyRules(
        _lazily("linear_network"),
        initial.second_layer,
        lambda width, d: (width, d + 1),
        ("regression", "binary"),
    ),
    "leaky-relu-hinge": FamilyRules(_lazily("leaky_relu_hinge"), initial.normal, lambda width, d: (d,)),
    "single-neuron": FamilyRules(
        _lazily("single_neuron"), initial.normal, lambda width, d: (width, d), ("regression", "binary")
    ),
    "two-layer-ntk": FamilyRules(
        _lazily("two_layer_ntk"), initial.paired_normal, lambda width, d: (width, d)
    ),
}
