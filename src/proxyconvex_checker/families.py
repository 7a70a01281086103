"""How each family of a certificate is rebuilt: initial weights, shape of the comparator, and the numbers it certifies."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import initial

Derive = Callable[..., dict[str, float]]
Shape = Callable[[dict[str, Any], int], tuple[int, ...]]


def _lazily(module: str) -> Derive:
    """The ``derive`` function of a sibling module, imported on first use."""

    def derive(*arguments: Any) -> dict[str, float]:
        return importlib.import_module(f".{module}", __package__).derive(*arguments)

    return derive


def _matrix(family: dict[str, Any], d: int) -> tuple[int, ...]:
    return family["width"], d


def _with_output(family: dict[str, Any], d: int) -> tuple[int, ...]:
    return family["width"], d + 1


def _vector(family: dict[str, Any], d: int) -> tuple[int, ...]:
    return (d,)


def _flat(family: dict[str, Any], d: int) -> tuple[int, ...]:
    return (initial.dense_size(family, d),)


@dataclass(frozen=True)
class FamilyRules:
    """How a family is rebuilt.

    Attributes:
        derive: ``(theorem, X, y, W0, network, comparator, params) -> certified numbers``.
        initial: ``(family fields, d) -> W0``, the initial weights.
        comparator_shape: ``(family fields, d) -> shape`` of the stored comparator.
        tasks: the kinds of targets it speaks of: ``"binary"``, ``"regression"``, ``"multiclass"``.
        from_rows: ``(family fields, X, y) -> W0`` in place of ``initial``, where they depend on the rows.
        weights: ``(family fields, d) -> shape`` of the initial weights; refused before they are drawn if there are too many.
        whole: whether ``derive`` is given all family fields as ``network``, not only those of the activation.
    """

    derive: Derive
    initial: Callable[[dict[str, Any], int], np.ndarray]
    comparator_shape: Shape
    tasks: tuple[str, ...] = ("binary",)
    from_rows: Callable[[dict[str, Any], np.ndarray, np.ndarray], np.ndarray] | None = None
    weights: Shape = _matrix
    whole: bool = False

    def start(self, family: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The initial weights for these rows."""
        return self.initial(family, x.shape[1]) if self.from_rows is None else self.from_rows(family, x, y)


_NUMERIC, _EITHER = ("regression",), ("regression", "binary")
_DENSE = FamilyRules(_lazily("dense_promise"), initial.dense, _flat, weights=_flat, whole=True)

FAMILIES: dict[str, FamilyRules] = {
    "leaky-relu-noise": FamilyRules(_lazily("leaky_relu_noise"), initial.normal, _vector),
    "classical": FamilyRules(_lazily("classical"), initial.normal, _matrix, _EITHER),
    "rank-one": FamilyRules(_lazily("secant"), initial.normal, _matrix, _NUMERIC, initial.leading_direction),
    "phase-retrieval": FamilyRules(
        _lazily("secant"), initial.normal, _matrix, _NUMERIC, initial.from_intensities
    ),
    "linear-network": FamilyRules(
        _lazily("linear_network"), initial.second_layer, _with_output, _EITHER, weights=_with_output
    ),
    "leaky-relu-hinge": FamilyRules(_lazily("leaky_relu_hinge"), initial.normal, _vector),
    "single-neuron": FamilyRules(_lazily("single_neuron"), initial.normal, _matrix, _EITHER),
    "two-layer-ntk": FamilyRules(_lazily("two_layer_ntk"), initial.paired_normal, _matrix),
    "deep-relu": _DENSE,
    "tangent": _DENSE,
    "three-layer": _DENSE,
}
