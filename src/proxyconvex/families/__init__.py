"""The families: one published result per file."""

from .base import Family, MarginProblem, Problem
from .leaky_relu_noise import LeakyReluNoise
from .two_layer_ntk import TwoLayerNTK

FAMILIES: dict[str, type[Family]] = {family.name: family for family in (LeakyReluNoise, TwoLayerNTK)}

__all__ = ["FAMILIES", "Family", "LeakyReluNoise", "MarginProblem", "Problem", "TwoLayerNTK"]
