"""Reduced (single-index) conditions of the zoo."""

from __future__ import annotations

import math
from typing import Any

from ...core.reduced import ReducedCondition, reduced
from .classical import LOSS_GROWTH
from .specimen import Specimen

PROXY_CONSTANT = 0.278464542761073795  # W(1/e) = max q/(1 + e^q)


def _cocoercive(activation: Any, low: float, high: float) -> Any:
    """``(s(a) - s(b))(a - b) >= c (s(a) - s(b))^2``."""

    def make(c: float) -> ReducedCondition:
        return reduced(
            lambda a, b, s, c: (s(a) - s(b)) * (a - b) - c * (s(a) - s(b)) ** 2,
            activation=activation, a=(low, high), b=(low, high), c=c,
        )  # fmt: skip

    return make


def _neuron(activation: Any, low: float, high: float) -> Any:
    """The same times ``s'(a)``: the single neuron without label noise."""

    def make(c: float) -> ReducedCondition:
        return reduced(
            lambda a, b, s, ds, c: ((s(a) - s(b)) * (a - b) - c * (s(a) - s(b)) ** 2) * ds(a),
            activation=activation, a=(low, high), b=(low, high), c=c,
        )  # fmt: skip

    return make


def _noisy_neuron(c: float) -> ReducedCondition:
    return reduced(
        lambda a, b, y, s, ds, C: (s(a) - y) * ds(a) * (a - b) - (s(a) - s(b)) ** 2 * ds(a) / 2 + C * (s(b) - y) ** 2,
        activation="softplus", a=(-3, 3), b=(-3, 3), y=(0, 3), C=c,
    )  # fmt: skip


REDUCED = [
    Specimen("sigmoid is 4-cocoercive", "reduced", _cocoercive("sigmoid", -4, 4), 4.0, True, "1 / sup s' = 4, in the limit a, b -> 0"),
    Specimen("tanh is 1-cocoercive", "reduced", _cocoercive("tanh", -3, 3), 1.0, True, "1 / sup s' = 1, in the limit a, b -> 0"),
    Specimen("softplus on [-3, 3]", "reduced", _cocoercive("softplus", -3, 3), 1 + math.exp(-3), True, "1 / s'(3), in the limit a, b -> 3"),
    Specimen("leaky ReLU is 1-cocoercive", "reduced", _cocoercive("leaky-relu:1/10", -2, 2), 1.0, True, "1 / sup s'"),
    Specimen("ReLU neuron", "reduced", _neuron("relu", -2, 2), 1.0, True, "1 / sup s', a, b > 0"),
    Specimen("sigmoid neuron", "reduced", _neuron("sigmoid", -4, 4), 4.0, True, "1 / sup s'"),
    Specimen("softplus neuron with label noise", "reduced", _noisy_neuron, 0.68662894, False, "between 0.68662890 and 0.68662898 by two solvers", accuracy=1e-6),
    Specimen("logistic loss growth", "reduced", lambda c: reduced(lambda q, c, softplus, sigmoid: c * softplus(-q) - sigmoid(-q) ** 2, q=(-6, 6), c=c), LOSS_GROWTH, False, "one variable"),
    Specimen("logistic slope times margin", "reduced", lambda c: reduced(lambda q, c, sigmoid: c - q * sigmoid(-q), q=(-8, 8), c=c), PROXY_CONSTANT, False, "W(1/e)"),
]  # fmt: skip
