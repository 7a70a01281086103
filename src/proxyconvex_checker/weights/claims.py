"""What can be claimed about a network on a ball in weight space: the number, from arrays, and the sentence, from the number.

The library computes its claims with the functions of this module; a certificate stores the arrays, the region, the claimed number
and at most one scalar (nu), and the checker computes the number again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..activations import Activation
from ..decimals import show
from ..directed import quiet
from ..errors import CheckError
from ..rationals import rational, sqrt_lower, to_float_up
from ..rounding import Array, finite, mean_bounds, mul_up, softplus_bounds, sub_down
from ..two_layer_ntk import SLOPE_SQUARED_OVER_LOSS
from . import layers as weight_layers
from . import loss as weight_loss
from . import margins as weight_margins
from . import two_layer as weight_two_layer
from .norms import quadratic_upper

STEP = "claim"
TWO_LAYER, DENSE = "two-layer", "dense"


@dataclass(frozen=True)
class Quantity:
    """One kind of claim.

    Attributes:
        lower: whether the number is a lower bound ("at least"); otherwise an upper one ("at most").
        words: what is bounded, as the statement says it.
        kinds: networks that have it.
        targets: whether it needs targets.
    """

    lower: bool
    words: str
    kinds: tuple[str, ...] = (TWO_LAYER, DENSE)
    targets: bool = True


QUANTITIES = {
    "margin": Quantity(True, "the margin y N(W; x) of every row"),
    "tangent-margin": Quantity(
        True, "the tangent margin y (N(W; x) + <grad N(W; x), V - W>) of every row, towards the centre V,"
    ),
    "loss": Quantity(False, "the mean logistic loss over the rows"),
    "tangent-loss": Quantity(
        False, "the mean over the rows of log(1 + exp(-q)), q the tangent margin towards the centre V,"
    ),
    "mean-tangent-decrease": Quantity(
        False,
        "the mean over the rows of how far the tangent margin towards the centre V falls short of the margin at V",
        (TWO_LAYER,),
    ),
    "least-loss": Quantity(True, "the mean logistic loss over the rows"),
    "least-output": Quantity(True, "the output N(W; x) at every row", targets=False),
    "largest-output": Quantity(False, "the output N(W; x) at every row", targets=False),
    "lipschitz": Quantity(
        False, "the norm of the gradient of N(W; x) in the weights, at every row,", targets=False
    ),
    "hessian": Quantity(
        False,
        "the absolute second derivative of N(W; x) along every unit direction, at every row,",
        targets=False,
    ),
    "smoothness": Quantity(
        False,
        "the absolute second derivative of the mean logistic loss over the rows along every unit direction",
    ),
    "growth": Quantity(
        False,
        "the squared norm of the gradient of the mean logistic loss over the rows, divided by that loss,",
    ),
}


@dataclass(frozen=True)
class Subject:
    """A network with its rows and its region, ready for any of its claims.

    Attributes:
        kind: ``"two-layer"`` or ``"dense"``.
        activation: of the hidden layers.
        arrays: ``inputs`` (n, d), ``targets`` (n,), ``weight_0`` ..., ``signs`` (m,), ``radii`` (m,) or (L,); those that apply.
        radius: of the Frobenius ball, or None.
        scales: one per layer of a dense network.
        trained: one per layer of a dense network.
        output: which output of a dense network.
    """

    kind: str
    activation: Activation
    arrays: Mapping[str, Array]
    radius: float | None = None
    scales: tuple[float, ...] = ()
    trained: tuple[bool, ...] = ()
    output: int = 0

    @property
    def weights(self) -> list[Array]:
        """The centre, layer by layer."""
        return [self.arrays[f"weight_{i}"] for i in range(sum(k.startswith("weight_") for k in self.arrays))]

    @property
    def targets(self) -> Array:
        """Targets in {-1, +1}.

        Raises:
            CheckError: if they are missing, or not -1 and +1.
        """
        if "targets" not in self.arrays:
            raise CheckError(STEP, "this claim needs targets")
        y = finite(self.arrays["targets"], "the targets")
        if y.shape != (len(self.arrays["inputs"]),) or not np.isin(y, (-1.0, 1.0)).all():
            raise CheckError(STEP, "targets must be -1 or +1, one per row")
        return y


Numbers = Callable[[str], float]


def evaluator(subject: Subject, nu: float | None, shells: int) -> Numbers:
    """``quantity -> certified number``, with the network examined once.

    Args:
        subject: network, rows and region.
        nu: scalar of the joint flip bound, where it is used.
        shells: of the Taylor remainder of dense networks.

    Raises:
        CheckError: for arrays that do not fit together.
    """
    make = {TWO_LAYER: _two_layer, DENSE: _dense}.get(subject.kind)
    if make is None:
        raise CheckError(STEP, f"unknown kind of network {subject.kind!r}")
    # Overflow gives infinities, which are refused below; underflow is covered by the bounds.
    table = quiet(make)(subject, nu, shells)

    @quiet
    def number(quantity: str) -> float:
        if quantity not in table:
            raise CheckError(
                STEP, f"a {subject.kind} network has no claim {quantity!r}; known: {', '.join(table)}"
            )
        value = float(table[quantity]())
        if not np.isfinite(value):
            raise CheckError(STEP, f"no finite bound on {quantity} is known here")
        return value

    return number


def _two_layer(subject: Subject, nu: float | None, shells: int) -> dict[str, Callable[[], Any]]:
    here = weight_two_layer
    region = here.Region(subject.radius, subject.arrays.get("radii"))
    v = subject.weights[0]
    if len(subject.weights) != 1 or "signs" not in subject.arrays:
        raise CheckError(STEP, "a two-layer network has one weight matrix and its signs")
    if region.caps is not None and region.caps.shape != (len(v),):
        raise CheckError(STEP, "radii must be one number per neuron")
    x = subject.arrays["inputs"]
    y = subject.targets if "targets" in subject.arrays else np.ones(len(x))
    c = here.examine(x, y, v, subject.arrays["signs"], subject.activation)

    def supervised(bound: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (subject.targets, bound())[1]

    def hessian() -> float:
        if not c.phi.smooth:
            return np.inf
        factor = to_float_up(c.phi.curvature / sqrt_lower(len(v)))
        return float(mul_up(mul_up(c.norms, c.norms), factor).max())

    share = np.full(len(x), 1 / len(x))

    def spread() -> Fraction:
        return rational(here.spread_upper(c, np.nextafter(share, 1.0)))

    def smoothness() -> float:
        # f'' is a mean of loss'' (N')^2 <= 1/4 (N')^2 and |loss'| |N''| <= H |<direction, x>|^2 / sqrt m.
        return (
            to_float_up(spread() * (Fraction(1, 4) + c.phi.curvature / sqrt_lower(len(v))))
            if c.phi.smooth
            else np.inf
        )

    return {
        "margin": supervised(lambda: weight_margins.margins(c, region).min()),
        "tangent-margin": supervised(lambda: sub_down(c.low, here.tangent_decrease(c, region)).min()),
        "loss": supervised(lambda: weight_loss.loss(c, region)),
        "tangent-loss": supervised(lambda: here.tangent_loss(c, region, nu)),
        # 1 / n rounds by half an ulp; the next float above covers it.
        "mean-tangent-decrease": supervised(
            lambda: here.joint_decrease(c, region, np.nextafter(share, np.inf), nu)
        ),
        "least-loss": supervised(lambda: weight_loss.loss_lower(c, region)),
        "least-output": lambda: weight_margins.output_range(c, region)[0].min(),
        "largest-output": lambda: weight_margins.output_range(c, region)[1].max(),
        "lipschitz": lambda: weight_margins.lipschitz(c, region).max(),
        "hessian": hessian,
        "smoothness": supervised(smoothness),
        # |grad f|^2 <= lambda mean loss'^2, lambda the largest eigenvalue of the second moments of the rows.
        "growth": supervised(lambda: to_float_up(SLOPE_SQUARED_OVER_LOSS * spread())),
    }


def _dense(subject: Subject, nu: float | None, shells: int) -> dict[str, Callable[[], Any]]:
    here = weight_layers
    radii = subject.arrays.get("radii")
    if (subject.radius is None) == (radii is None):
        raise CheckError(STEP, "a dense network has one joint radius, or one radius per layer")
    if radii is not None and radii.shape != (len(subject.weights),):
        raise CheckError(STEP, "radii must be one number per layer")
    radius: Any = subject.radius if radii is None else radii
    c = here.examine(
        subject.weights,
        subject.activation,
        subject.arrays["inputs"],
        subject.scales,
        subject.trained,
        subject.output,
    )

    def margins() -> Array:
        low, high = here.output_range(c, radius, shells)
        return np.where(subject.targets > 0, low, -high)

    def tangents() -> Array:
        at_center = np.where(subject.targets > 0, c.low, -c.high)
        return sub_down(at_center, here.remainder_upper(c, radius, shells))

    def mean_loss(q: Array) -> float:
        return mean_bounds(softplus_bounds(-q)[1])[1]

    def least_loss() -> float:
        low, high = here.output_range(c, radius, shells)
        return max(mean_bounds(softplus_bounds(-np.where(subject.targets > 0, high, -low))[0])[0], 0.0)

    def smoothness() -> float:
        # f'' is a mean of loss'' (N')^2 <= G^2 / 4 and |loss'| |N''| <= K.
        bounds = subject.targets, here.local(c, radius)
        steep, curved = bounds[1].gradient.max(), quadratic_upper(bounds[1].matrix).max()
        if not np.isfinite([steep, curved]).all():
            return np.inf
        return to_float_up(rational(float(steep)) ** 2 / 4 + rational(float(curved)))

    def growth() -> float:
        # |grad f| <= G mean |loss'|, and its square is at most G^2 mean loss'^2 (Jensen).
        steep = float((subject.targets, here.local(c, radius))[1].gradient.max())
        return to_float_up(SLOPE_SQUARED_OVER_LOSS * rational(steep) ** 2) if np.isfinite(steep) else np.inf

    return {
        "margin": lambda: margins().min(),
        "tangent-margin": lambda: tangents().min(),
        "loss": lambda: mean_loss(margins()),
        "tangent-loss": lambda: mean_loss(tangents()),
        "least-loss": least_loss,
        "least-output": lambda: here.output_range(c, radius, shells)[0].min(),
        "largest-output": lambda: here.output_range(c, radius, shells)[1].max(),
        "lipschitz": lambda: here.local(c, radius).gradient.max(),
        "hessian": lambda: quadratic_upper(here.local(c, radius).matrix).max(),
        "smoothness": smoothness,
        "growth": growth,
    }


# --- words -----------------------------------------------------------------------------------------------------


def region_words(subject: Subject) -> str:
    """The region as a sentence says it, with its radii exactly."""
    parts, radii = [], subject.arrays.get("radii")
    if subject.radius is not None:
        parts.append(f"Frobenius distance at most {subject.radius!r} from V")
    if radii is not None:
        low, high = float(radii.min()), float(radii.max())
        span = repr(low) if low == high else f"{low!r} to {high!r}"
        each = "row" if subject.kind == TWO_LAYER else "layer"
        parts.append(f"every {each} within its own radius ({span}) of that of V")
    return " and ".join(parts)


def network_words(subject: Subject) -> str:
    """The network as a sentence says it, with every constant that matters."""
    shapes = ", ".join("x".join(map(str, w.shape)) for w in subject.weights)
    phi = subject.activation
    constants = [f"leak {phi.slope!r}"] * (phi.name in ("leaky-relu", "smooth-leaky"))
    constants += [f"beta {phi.beta!r}"] * phi.smooth
    name = f"{phi.name} ({', '.join(constants)})" if constants else phi.name
    if subject.kind == TWO_LAYER:
        return f"the two-layer {name} network m^(-1/2) sum_r a_r phi(<w_r, x>) and V its {shapes} weights"
    moving = [str(i) for i, t in enumerate(subject.trained) if t]
    fixed = "" if len(moving) == len(subject.trained) else f", of which layers {', '.join(moving)} move"
    scales = ", ".join(map(repr, subject.scales))
    output = f", output {subject.output}" if len(subject.weights[-1]) > 1 else ""
    return (
        f"the dense {name} network with factors {scales}{output} and V its weights of shapes {shapes}{fixed}"
    )


def statement(subject: Subject, quantity: str, value: float) -> str:
    """The claim in one sentence."""
    about = QUANTITIES[quantity]
    side = "at least" if about.lower else "at most"
    rows = len(subject.arrays["inputs"])
    return (
        f"Let N(W; x) be {network_words(subject)}. For every W with {region_words(subject)}, {about.words} is {side} "
        f"{show(value, lower=about.lower, digits=12)} ({rows} row{'s' if rows > 1 else ''})."
    )


def implied(quantity: str, derived: float, value: float) -> bool:
    """Whether the certified number implies the claimed one."""
    return value <= derived if QUANTITIES[quantity].lower else value >= derived
