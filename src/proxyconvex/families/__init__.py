"""The families: one published result per file."""

from .base import Family, MarginProblem, Problem
from .classical import LinearModel
from .classical_nonconvex import PROBLEMS, LinearNetwork, PhaseRetrieval, RankOne
from .deep_relu import DeepReLU
from .leaky_relu_hinge import LeakyReluHinge
from .leaky_relu_noise import LeakyReluNoise
from .links import Link
from .single_neuron import SingleNeuron
from .tangent_family import TangentFamily
from .three_layer import ThreeLayer
from .two_layer_ntk import TwoLayerNTK

FAMILIES: dict[str, type[Family]] = {
    family.name: family
    for family in (
        LinearModel,
        LeakyReluHinge,
        LeakyReluNoise,
        SingleNeuron,
        TwoLayerNTK,
        TangentFamily,
        DeepReLU,
        ThreeLayer,
    )
}

__all__ = [
    "FAMILIES",
    "PROBLEMS",
    "DeepReLU",
    "Family",
    "LeakyReluHinge",
    "LeakyReluNoise",
    "LinearModel",
    "LinearNetwork",
    "Link",
    "MarginProblem",
    "PhaseRetrieval",
    "Problem",
    "RankOne",
    "SingleNeuron",
    "TangentFamily",
    "ThreeLayer",
    "TwoLayerNTK",
]
