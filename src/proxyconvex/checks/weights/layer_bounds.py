"""Deep dense networks on a ball in weight space: certified Hessian, Lipschitz, output and tangent-margin bounds.

The arithmetic is the checker's (`proxyconvex_checker.weights.layers`, with outward rounding); this module takes the user's
objects, refuses what it cannot use and names the results. Proof: documentation, 'Certificates in weight space'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.activations import Activation as CheckedActivation
from proxyconvex_checker.activations import parse
from proxyconvex_checker.directed import mul_up, quiet
from proxyconvex_checker.errors import CheckError
from proxyconvex_checker.weights import layers as weight_layers
from proxyconvex_checker.weights.norms import quadratic_upper

from ...core.errors import InvalidInputError
from ...core.numbers import upper
from ...core.regions import Ball, Product, Region, distance_upper
from ...families.activations import Activation

Array = np.ndarray


@dataclass(frozen=True)
class LayerBounds:
    """What certainly holds for every choice of weights in the region; one entry per row of the inputs.

    Attributes:
        radius: of the joint Frobenius ball over all trained layers, or one radius per layer.
        center_low: lower bounds on the outputs at the centre, shape (n,).
        center_high: upper bounds on them.
        output_low: lower bounds on the outputs over the region.
        output_high: upper bounds on them.
        lipschitz: upper bounds on the norm of the output's gradient in the weights, over the region.
        hessian: upper bounds on ``|d^2 N[u, u]| / ||u||^2`` over the region (infinite for activations with a kink).
        remainder: upper bounds on ``|N(w) + <grad N(w), center - w> - N(center)|`` over the region.
    """

    radius: float | tuple[float, ...]
    center_low: Float[Array, " n"]
    center_high: Float[Array, " n"]
    output_low: Float[Array, " n"]
    output_high: Float[Array, " n"]
    lipschitz: Float[Array, " n"]
    hessian: Float[Array, " n"]
    remainder: Float[Array, " n"]

    def margins(self, targets: Float[Array, " n"]) -> Float[Array, " n"]:
        """Lower bounds on ``y_i N(w; x_i)`` over the region; targets in {-1, +1}."""
        y = checked_targets(targets, len(self.remainder))
        return np.where(y > 0, self.output_low, -self.output_high)

    def tangent_margins(self, targets: Float[Array, " n"]) -> Float[Array, " n"]:
        """Lower bounds on ``y_i (N(w; x_i) + <grad N(w; x_i), center - w>)`` over the region; targets in {-1, +1}.

        These are the ``q_i`` of theorems T8 and T4 + T5 with the centre as the comparator.
        """
        y = checked_targets(targets, len(self.remainder))
        at_center = np.where(y > 0, self.center_low, -self.center_high)
        return np.nextafter(at_center - self.remainder, -np.inf)


@dataclass(frozen=True)
class Layers:
    """A network examined once at its centre; bounds for many radii are then cheap.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> w = [rng.standard_normal((64, 3)), rng.standard_normal((64, 64)), rng.standard_normal((1, 64))]
        >>> net = Layers(w, Activation("softplus"), np.eye(3), scales=(1.0, 1 / 8, 1 / 8))
        >>> bool((net.bounds(0.1).hessian < net.bounds(0.2).hessian).all())
        True

    Attributes:
        weights: the centre, ``W_l`` of shapes (m_1, d), (m_2, m_1), ..., (k, m_{L-1}); at least two layers.
        activation: of the hidden layers.
        inputs: shape (n, d).
        scales: exact float factors: layer l computes ``scales[l] * W_l h``. By default 1.
        trained: which layers move; by default all.
        output: which row of the last matrix is the output.
    """

    weights: Sequence[Array]
    activation: Activation
    inputs: Float[Array, "n d"]
    scales: Sequence[float] | None = None
    trained: Sequence[bool] | None = None
    output: int = 0
    center: weight_layers.Center = field(init=False, repr=False)

    @quiet
    def __post_init__(self) -> None:
        count = len(self.weights)
        scales = (1.0,) * count if self.scales is None else tuple(float(s) for s in self.scales)
        trained = (True,) * count if self.trained is None else tuple(bool(t) for t in self.trained)
        try:
            center = weight_layers.examine(
                [np.asarray(w, float) for w in self.weights],
                checked_activation(self.activation),
                np.asarray(self.inputs, float),
                scales,
                trained,
                self.output,
            )
        except CheckError as error:
            raise InvalidInputError(
                "network",
                [np.shape(w) for w in self.weights],
                "finite matrices (m_1, d), (m_2, m_1), ..., (k, m_last) that fit the inputs (n, d)",
                error.message,
            ) from error
        for name, value in (("scales", scales), ("trained", trained), ("center", center)):
            object.__setattr__(self, name, value)

    def _radius(self, region: Any) -> float | tuple[float, ...]:
        """A radius, radii or a region around exactly these weights, as floats rounded up."""
        if isinstance(region, Region):
            return _region_radius(region, self.weights)
        values = np.asarray(region, float)
        if values.ndim > 1 or (values.ndim == 1 and len(values) != len(self.weights)):
            raise InvalidInputError("radius", region, f"one number, or {len(self.weights)} (one per layer)")
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise InvalidInputError("radius", region, "finite numbers >= 0")
        return float(values) if values.ndim == 0 else tuple(float(v) for v in values)

    @quiet
    def bounds(self, radius: Any, shells: int = 8) -> LayerBounds:
        """Everything for one region.

        Args:
            radius: of the joint Frobenius ball over all trained layers; or one radius per layer; or a `Ball` or `Product` of
                balls whose centre is this network.
            shells: into how many shells the Taylor remainder is cut (more is tighter and slower).

        Raises:
            InvalidInputError: for a radius that is not one of these.
        """
        if isinstance(shells, bool) or not isinstance(shells, int) or not 1 <= shells <= 1000:
            raise InvalidInputError("shells", shells, "a whole number from 1 to 1000")
        rho, c = self._radius(radius), self.center
        here = weight_layers.local(c, rho)
        low, high = weight_layers.output_range(c, rho, shells)
        remainder = weight_layers.remainder_upper(c, rho, shells)
        hessian = quadratic_upper(here.matrix)
        return LayerBounds(rho, c.low, c.high, low, high, here.gradient, hessian, remainder)

    def largest_radius(
        self, targets: Float[Array, " n"], margin: float = 0.0, relative: float = 1e-3
    ) -> float:
        """A radius, within ``relative`` of the largest, whose joint ball has all tangent margins certified ``>= margin``.

        0.0 if there is none. The bounds increase with the radius, so bisection finds it; the returned radius is itself certified.
        """
        y = checked_targets(targets, len(self.center.low))

        def fits(r: float) -> bool:
            try:
                return bool((self.bounds(r).tangent_margins(y) >= margin).all())
            except (CheckError, InvalidInputError):
                return False

        low, high = 0.0, 1e-6
        if not fits(high):
            return 0.0
        while fits(high) and high < 1e12:
            low, high = high, 2 * high
        while high - low > relative * high:
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low


def layer_bounds(
    weights: Sequence[Array],
    activation: Activation,
    inputs: Float[Array, "n d"],
    radius: Any,
    *,
    scales: Sequence[float] | None = None,
    trained: Sequence[bool] | None = None,
    output: int = 0,
    shells: int = 8,
) -> LayerBounds:
    """Certified bounds on a ball around given weights of a dense network; see `Layers` for the arguments.

    Raises:
        InvalidInputError: for arrays that do not fit together or a radius that is not finite and >= 0.
    """
    return Layers(weights, activation, inputs, scales, trained, output).bounds(radius, shells)


@quiet
def hessian_bound(
    weights: Sequence[Array],
    activation: Activation,
    radius: Any,
    inputs: Float[Array, "n d"],
    scales: Sequence[float] | None = None,
    trained: Sequence[bool] | None = None,
    output: int = 0,
) -> Float[Array, " n"]:
    """Upper bounds on ``|d^2 N(w; x_i)[u, u]| / ||u||^2`` for all w in the ball and all u in the trained layers, shape (n,).

    For ``smooth-leaky``, whose second derivative jumps, this is the Lipschitz constant of the output's gradient along lines.

    Raises:
        InvalidInputError: as `layer_bounds`; also for activations with a kink, which have no such bound.
    """
    if not activation.smooth:
        raise InvalidInputError(
            "activation", activation.name, "softplus or smooth-leaky", "A kink has no Hessian bound."
        )
    net = Layers(weights, activation, inputs, scales, trained, output)
    return weight_layers.hessian_upper(net.center, net._radius(radius))


def loss_hessian_bound(bounds: LayerBounds) -> float:
    """Smoothness constant over the region of the mean logistic loss: ``mean_i (G_i^2 / 4 + K_i)``, rounded up.

    ``d^2 loss(yN)[u, u] = loss'' (dN[u])^2 + loss' y d^2 N[u, u]`` with ``loss'' <= 1/4`` and ``|loss'| <= 1``.
    """
    terms = np.nextafter(mul_up(bounds.lipschitz, bounds.lipschitz) / 4 + bounds.hessian, np.inf)
    total = float(np.sum(np.nextafter(terms, np.inf)) / len(terms))
    return float(np.nextafter(total * (1 + 2.0**-50 * len(terms)), np.inf))


def checked_activation(activation: Activation) -> CheckedActivation:
    """The checker's form of an activation.

    Raises:
        InvalidInputError: for anything but an `Activation`, or constants out of the checker's range.
    """
    if not isinstance(activation, Activation):
        raise InvalidInputError("activation", activation, "an Activation", 'E.g. Activation("softplus").')
    try:
        return parse(activation.describe())
    except CheckError as error:
        raise InvalidInputError("activation", activation, "constants in range", error.message) from error


def checked_targets(targets: Any, n: int) -> Float[Array, " n"]:
    """Targets as float64.

    Raises:
        InvalidInputError: unless they are n numbers -1 or +1.
    """
    y = np.asarray(targets, float)
    if y.shape != (n,) or not np.isin(y, (-1.0, 1.0)).all():
        raise InvalidInputError("targets", targets, f"{n} numbers, each -1 or +1")
    return y


def _region_radius(region: Region, weights: Sequence[Array]) -> float | tuple[float, ...]:
    """The radius of a ball around these weights, or the radii of a product of balls, rounded up."""
    if isinstance(region, Ball):
        if not isinstance(region.center, list | tuple) or len(region.center) != len(weights):
            raise InvalidInputError("region", region, "a Ball whose centre is the list of weight matrices")
        gap = distance_upper(tuple(region.center), tuple(np.asarray(w, float) for w in weights))
        return float(np.nextafter(float(upper(region.radius) + gap), np.inf)) if gap else _up(region.radius)
    if isinstance(region, Product) and len(region.parts) == len(weights):
        radii = []
        for part, w in zip(region.parts, weights, strict=True):
            if not isinstance(part, Ball):
                break
            gap = distance_upper(part.center, np.asarray(w, float))
            radii.append(
                float(np.nextafter(float(upper(part.radius) + gap), np.inf)) if gap else _up(part.radius)
            )
        if len(radii) == len(weights):
            return tuple(radii)
    raise InvalidInputError(
        "region",
        region,
        "a Ball around all layers, or a Product of one Ball per layer, centred at the weights",
    )


def _up(radius: Any) -> float:
    value = float(upper(radius))
    return value if value >= upper(radius) else float(np.nextafter(value, np.inf))
