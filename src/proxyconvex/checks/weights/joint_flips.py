"""The joint flip bound for (leaky) ReLU networks: the scalar nu is found here and proved in `proxyconvex_checker.weights.flips`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.activations import Activation as CheckedActivation
from proxyconvex_checker.directed import quiet
from proxyconvex_checker.errors import CheckError
from proxyconvex_checker.rounding import norm_upper
from proxyconvex_checker.weights import flips as weight_flips
from proxyconvex_checker.weights import two_layer as weight_two_layer

from ...core.errors import InvalidInputError
from ...families.activations import Activation
from ...families.two_layer_ntk import paired_signs
from .layer_bounds import checked_activation

Array = np.ndarray


@dataclass(frozen=True)
class JointFlipBound:
    """How much the tangent margins of all rows together can fall short of the margins at the centre.

    Attributes:
        value: certified upper bound on ``sum_i c_i Delta_i^+`` over the ball.
        nu: the scalar that proves it.
        weights: ``c_i``, shape (n,).
        arrays: inputs, targets, centre and signs.
        slope: the leak c of the activation.
        radius: of the ball.
    """

    value: float
    nu: float
    weights: Float[Array, " n"]
    arrays: tuple[Array, Array, Array, Array] = field(repr=False)
    slope: float = field(repr=False)
    radius: float = field(repr=False)

    @cached_property
    @quiet
    def decreases(self) -> Float[Array, " n"]:
        """``D_i``, the certified bound for row i alone (fractional knapsack), shape (n,); computed when asked for."""
        network = weight_two_layer.examine(*self.arrays, CheckedActivation("leaky-relu", self.slope, 1.0))
        return weight_two_layer.tangent_decrease(network, weight_two_layer.Region(self.radius))

    @property
    def row_by_row(self) -> float:
        """The same sum bounded one row at a time, ``sum_i c_i D_i``, for comparison."""
        return float(np.dot(self.weights, self.decreases))

    @property
    def gain(self) -> float:
        """How many times the joint bound is tighter than the one row by row."""
        return self.row_by_row / self.value if self.value > 0 else float("inf")

    def __str__(self) -> str:
        return (
            f"all rows together lose at most {self.value:.6g} (nu = {self.nu:.6g}); "
            f"row by row the bound is {self.row_by_row:.6g}, {self.gain:.3g} times as much"
        )


@quiet
def joint_flip_bound(
    center: Float[Array, "m d"],
    activation: Activation,
    inputs: Float[Array, "n d"],
    targets: Float[Array, " n"],
    radius: float,
    *,
    signs: Float[Array, " m"] | None = None,
    weights: Float[Array, " n"] | None = None,
    nu: float | None = None,
) -> JointFlipBound:
    """Certify the joint flip bound on the Frobenius ball of this radius around a (leaky) ReLU network.

    Args:
        center: V, shape (m, d).
        activation: relu or leaky-relu.
        inputs: shape (n, d).
        targets: in {-1, +1}, shape (n,).
        radius: ``>= 0``.
        signs: output signs, shape (m,); by default +1 for the first half of the neurons and -1 for the second.
        weights: ``c_i >= 0``; by default ``1 / n``, which bounds the mean.
        nu: by default the best one is found; any number ``>= 0`` gives a valid bound.

    Raises:
        InvalidInputError: for a smooth activation (use the quadratic remainder) or arrays that do not fit together.
    """
    if activation.smooth:
        raise InvalidInputError(
            "activation",
            activation.name,
            "relu or leaky-relu",
            "Smooth networks have the quadratic remainder.",
        )
    n = len(inputs)
    c = np.full(n, np.nextafter(1 / n, 1.0)) if weights is None else np.asarray(weights, float)
    slope = checked_activation(activation).slope
    try:
        x, y, v, a = weight_two_layer.checked(
            inputs, targets, center, paired_signs(len(center)) if signs is None else signs
        )
        weight_two_layer.Region(float(radius))
        flips = weight_flips.tabulate(x, y, v, a, slope, np.asarray(norm_upper(x, axis=1)), c)
        nu = weight_flips.best_nu(flips, float(radius)) if nu is None else float(nu)
        value = weight_flips.total_decrease(flips, nu, float(radius))
    except CheckError as error:
        raise InvalidInputError(
            error.step, "these arguments", "arrays and numbers that fit together", error.message
        ) from error
    return JointFlipBound(value, nu, c, (x, y, v, a), slope, float(radius))
