"""The families: one published result per file."""

from .base import Family, MarginProblem, Problem
from .classical import LinearModel
from .leaky_relu_hinge import LeakyReluHinge
from .leaky_relu_noise import LeakyReluNoise
from .links import Link
from .single_neuron import SingleNeuron
from .two_layer_ntk import TwoLayerNTK

FAMILIES: dict[str, type[Family]] = {
    family.name: family for family in (LinearModel, LeakyReluHinge, LeakyReluNoise, SingleNeuron, TwoLayerNTK)
}

__all__ = [
    "FAMILIES",
    "Family",
    "LeakyReluHinge",
    "LeakyReluNoise",
    "LinearModel",
    "Link",
    "MarginProblem",
    "Problem",
    "SingleNeuron",
    "TwoLayerNTK",
]
