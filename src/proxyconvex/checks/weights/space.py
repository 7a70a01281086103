"""Certify a network on a whole ball of weights: margins, tangent margins, losses, gradients, Hessians.

    space = pc.WeightSpace(pc.TwoLayerNetwork(pc.Activation("relu")), pc.Ball(V, 0.5), x, y)
    space.bound("tangent-loss")                      # a certified number
    space.certify("tangent-margin", 0.1)             # HOLDS, FALSIFIED (with weights that show it) or INCONCLUSIVE
    space.write_certificate("out", "tangent-loss")   # python -m proxyconvex_checker out

The centre of the region is the network; every number is computed by `proxyconvex_checker` with outward rounding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.decimals import show
from proxyconvex_checker.directed import quiet
from proxyconvex_checker.errors import CheckError
from proxyconvex_checker.weights import claims as weight_claims
from proxyconvex_checker.weights import flips as weight_flips
from proxyconvex_checker.weights import layers as weight_layers
from proxyconvex_checker.weights import two_layer as weight_two_layer
from proxyconvex_checker.weights.claims import DENSE, QUANTITIES, TWO_LAYER, Subject

from ...core.errors import InvalidInputError
from ...core.evidence import Evidence, Status, Verdict
from ...core.numbers import lower
from ...core.regions import Ball, Intersection, PerNeuronBalls, Product, Region
from ...families.activations import Activation
from ...families.two_layer_ntk import paired_signs
from .attack import attack
from .files import write
from .functions import NetworkLoss, NetworkOutputs
from .layer_bounds import checked_activation, checked_targets

Array = np.ndarray


@final
@dataclass(frozen=True, eq=False)
class TwoLayerNetwork:
    """``N(W; x) = m^{-1/2} sum_r a_r phi(<w_r, x>)``; the weights W, shape (m, d), are the region's.

    Attributes:
        activation: phi.
        signs: ``a_r`` in {-1, +1}, shape (m,); by default +1 for the first half of the neurons and -1 for the second.
    """

    activation: Activation
    signs: Float[Array, " m"] | None = None


@final
@dataclass(frozen=True, eq=False)
class DenseNetwork:
    """``z_l = scales_l W_l h_l``, ``h_{l+1} = phi(z_l)``, last layer linear; the weights, a tuple of matrices, are the region's.

    Attributes:
        activation: phi.
        scales: exact float factors, one per layer; by default 1.
        trained: which layers move; by default all.
        output: which row of the last matrix is the output.
    """

    activation: Activation
    scales: tuple[float, ...] | None = None
    trained: tuple[bool, ...] | None = None
    output: int = 0


@final
@dataclass(frozen=True, eq=False)
class WeightSpace:
    """A network, a region of weights around it, and the rows it is judged on.

    Attributes:
        network: the architecture.
        region: `Ball`, `PerNeuronBalls` or their intersection around the weights V, shape (m, d), of a two-layer network; `Ball`
            around the tuple of matrices of a dense one, or a `Product` of one `Ball` per layer.
        inputs: shape (n, d).
        targets: in {-1, +1}, shape (n,); not needed for ``"lipschitz"`` and ``"hessian"``.
        shells: into how many shells the Taylor remainder of a dense network is cut.
    """

    network: TwoLayerNetwork | DenseNetwork
    region: Region
    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"] | None = None
    shells: int = 8
    subject: Subject = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.shells, bool) or not isinstance(self.shells, int) or not 1 <= self.shells <= 1000:
            raise InvalidInputError("shells", self.shells, "a whole number from 1 to 1000")
        x = np.ascontiguousarray(self.inputs, dtype=float)
        if x.ndim != 2 or not x.size or not np.isfinite(x).all():
            raise InvalidInputError("inputs", np.shape(self.inputs), "finite numbers of shape (n, d)")
        arrays = {"inputs": x}
        if self.targets is not None:
            arrays["targets"] = checked_targets(self.targets, len(x))
        if isinstance(self.network, TwoLayerNetwork):
            subject = _two_layer(self.network, self.region, arrays)
        elif isinstance(self.network, DenseNetwork):
            subject = _dense(self.network, self.region, arrays)
        else:
            raise InvalidInputError("network", self.network, "a TwoLayerNetwork or a DenseNetwork")
        object.__setattr__(self, "subject", subject)
        self._evaluator  # noqa: B018 - shapes that do not fit are refused here

    @cached_property
    @quiet
    def nu(self) -> float | None:
        """The best scalar of the joint flip bound for ``"tangent-loss"``; None where none is needed."""
        if self.subject.kind != TWO_LAYER or self.subject.activation.smooth or self.subject.radius is None:
            return None
        if self.targets is None:
            return None
        c, region = self._two_layer
        alone = weight_two_layer.tangent_decrease(c, region)
        flips = weight_two_layer.tabulate(c, weight_two_layer.chord_weights(c.low, alone))
        return weight_flips.best_nu(flips, self.subject.radius)

    @cached_property
    @quiet
    def _nu_of_mean(self) -> float | None:
        if self.nu is None or self.subject.radius is None:
            return None
        c, _ = self._two_layer
        flips = weight_two_layer.tabulate(c, np.full(len(c.x), 1 / len(c.x)))
        return weight_flips.best_nu(flips, self.subject.radius)

    @cached_property
    @quiet
    def _two_layer(self) -> tuple[weight_two_layer.Center, weight_two_layer.Region]:
        s = self.subject
        c = weight_two_layer.examine(
            s.arrays["inputs"], s.targets, s.weights[0], s.arrays["signs"], s.activation
        )
        return c, weight_two_layer.Region(s.radius, s.arrays.get("radii"))

    @cached_property
    def _evaluator(self) -> weight_claims.Numbers:
        try:
            return weight_claims.evaluator(self.subject, None, self.shells)
        except CheckError as error:
            raise InvalidInputError(
                "network", self.region, "weights, signs and inputs that fit together", error.message
            ) from error

    @property
    def quantities(self) -> tuple[str, ...]:
        """What can be claimed about this network."""
        known = (q for q, about in QUANTITIES.items() if self.subject.kind in about.kinds)
        smooth = self.subject.activation.smooth
        return tuple(
            q
            for q in known
            if (self.targets is not None or not QUANTITIES[q].targets)
            and (smooth or q not in ("hessian", "smoothness"))
        )

    @cached_property
    def outputs(self) -> NetworkOutputs:
        """The outputs at every row, a JAX function of the weights."""
        return NetworkOutputs(self)

    @cached_property
    def loss(self) -> NetworkLoss:
        """The mean logistic loss, a JAX function of the weights; conditions on it can be certified (`pc.certify`).

        Example: ``pc.certify(pc.Smooth(4.0, f=space.loss, region=space.region))``.
        """
        if self.targets is None:
            raise InvalidInputError("targets", None, "numbers -1 or +1, one per row")
        return NetworkLoss(self)

    def proof(self, quantity: str) -> float | None:
        """The nu that goes with a claim, or None where the claim needs none."""
        if quantity == "tangent-loss":
            return self.nu
        return self._nu_of_mean if quantity == "mean-tangent-decrease" else None

    def bound(self, quantity: str) -> float:
        """The certified number: a lower bound for margins, an upper bound for everything else.

        Args:
            quantity: one of `quantities`.

        Raises:
            InvalidInputError: for another name, or where no finite bound is known.
        """
        self._known(quantity)
        nu = self.proof(quantity)
        try:
            run = self._evaluator if nu is None else weight_claims.evaluator(self.subject, nu, self.shells)
            return run(quantity)
        except CheckError as error:
            raise InvalidInputError(
                "quantity", quantity, "one with a finite bound here", error.message
            ) from error

    def bounds(self) -> dict[str, float]:
        """Every certified number."""
        return {q: self.bound(q) for q in self.quantities}

    def certify(
        self, quantity: str, level: float | None = None, *, seed: int = 0, effort: int = 200
    ) -> Verdict:
        """Whether a quantity stays on the right side of a level on the whole region.

        Args:
            quantity: one of `quantities`.
            level: margins are claimed to be at least, everything else at most this; by default the certified number itself.
            seed: of the attack that runs if the certificate does not reach the level.
            effort: steps of the attack (0: none).

        Returns:
            HOLDS (evidence CERTIFIED), FALSIFIED with weights that show it (confirmed with outward rounding), or INCONCLUSIVE.
        """
        certified = self.bound(quantity)
        level = certified if level is None else float(level)
        if not np.isfinite(level):
            raise InvalidInputError("level", level, "a finite number")
        about = QUANTITIES[quantity]
        side = "at least" if about.lower else "at most"
        witness: dict[str, Any] = {"certified": certified, "nu": self.proof(quantity)}
        if weight_claims.implied(quantity, certified, level):
            sentence = weight_claims.statement(self.subject, quantity, level)
            return Verdict(Status.HOLDS, sentence, Evidence.CERTIFIED, witness)
        found = attack(self.subject, quantity, level, seed=seed, effort=effort)
        wanted = f"{quantity} {side} {level:.6g}"
        if found.refutes:
            says = show(found.value, lower=not about.lower)
            sentence = f"{wanted} is false: at weights inside the region it is {'at most' if about.lower else 'at least'} {says}."
            return Verdict(
                Status.FALSIFIED,
                sentence,
                Evidence.CERTIFIED,
                {**witness, "weights": found.weights, "value": found.value},
            )
        reach = "" if found.value is None else f", the attack reached {found.value:.6g}"
        sentence = (
            f"{wanted} is neither shown nor refuted: certified is {certified:.6g}{reach} ({found.tried}). That the attack found nothing "
            "worse does not show that there is nothing worse."
        )
        return Verdict(Status.INCONCLUSIVE, sentence, Evidence.SAMPLED, {**witness, "value": found.value})

    def write_certificate(
        self, folder: str | os.PathLike[str], quantity: str, level: float | None = None
    ) -> Path:
        """Write a claim so that ``python -m proxyconvex_checker FOLDER`` re-verifies it from the arrays.

        Args:
            folder: created if needed; receives ``certificate.json`` and one ``.npy`` file per array.
            quantity: one of `quantities`.
            level: by default the certified number, moved by 1e-10 of its size to its safe side.

        Raises:
            InvalidInputError: for a level that is not certified.
        """
        certified = self.bound(quantity)
        lower_side = QUANTITIES[quantity].lower
        if level is None:
            shift = max(abs(certified), 1e-12) * 1e-10
            level = certified - shift if lower_side else certified + shift
        if not weight_claims.implied(quantity, certified, float(level)):
            raise InvalidInputError("level", level, f"a number that the certified {certified!r} implies")
        return write(self.subject, folder, quantity, float(level), self.proof(quantity), self.shells)

    def _known(self, quantity: str) -> None:
        if quantity not in self.quantities:
            fix = "Give targets for margins and losses." if self.targets is None else ""
            raise InvalidInputError("quantity", quantity, ", ".join(self.quantities), fix)

    def __str__(self) -> str:
        lines = [f"{weight_claims.network_words(self.subject)}, {weight_claims.region_words(self.subject)}:"]
        for q, value in self.bounds().items():
            side = ">=" if QUANTITIES[q].lower else "<="
            lines.append(f"  {q:<22} {side} {show(value, lower=QUANTITIES[q].lower)}")
        return "\n".join(lines)


@quiet
def tangent_margins(space: WeightSpace) -> Array:
    """Certified tangent margins of every row, towards the centre of the region."""
    s = space.subject
    if s.kind == TWO_LAYER:
        c, region = space._two_layer
        return weight_two_layer.sub_down(c.low, weight_two_layer.tangent_decrease(c, region))
    radius: Any = s.radius if s.radius is not None else s.arrays["radii"]
    c = weight_layers.examine(s.weights, s.activation, s.arrays["inputs"], s.scales, s.trained, s.output)
    low = np.where(s.targets > 0, c.low, -c.high)
    return weight_layers.sub_down(low, weight_layers.remainder_upper(c, radius, space.shells))


def _two_layer(network: TwoLayerNetwork, region: Region, arrays: dict[str, Array]) -> Subject:
    radius, radii, center = None, None, None
    for part in region.parts if isinstance(region, Intersection) else (region,):
        if not isinstance(part, Ball | PerNeuronBalls) or np.ndim(part.center) != 2:
            raise InvalidInputError(
                "region", part, "a Ball or PerNeuronBalls around a matrix with one row per neuron"
            )
        if center is not None and not np.array_equal(center, part.center):
            raise InvalidInputError("region", region, "parts with the same centre")
        center = np.ascontiguousarray(part.center, dtype=float)
        if isinstance(part, Ball):
            radius = _radius(part.radius) if radius is None else min(radius, _radius(part.radius))
        else:
            radii = part.radii if radii is None else np.minimum(radii, part.radii)
    if center is None or center.shape[1] != arrays["inputs"].shape[1]:
        raise InvalidInputError(
            "region", np.shape(center), f"a centre of shape (m, {arrays['inputs'].shape[1]})"
        )
    signs = paired_signs(len(center)) if network.signs is None else np.asarray(network.signs, float)
    if signs.shape != (len(center),) or not np.isin(signs, (-1.0, 1.0)).all():
        raise InvalidInputError(
            "signs", signs, f"{len(center)} numbers, each -1 or +1", "An odd width has no default signs."
        )
    arrays = {**arrays, "weight_0": center, "signs": signs}
    if radii is not None:
        arrays["radii"] = np.ascontiguousarray(radii, dtype=float)
    return Subject(TWO_LAYER, checked_activation(network.activation), arrays, radius)


def _dense(network: DenseNetwork, region: Region, arrays: dict[str, Array]) -> Subject:
    radius = None
    if isinstance(region, Ball) and isinstance(region.center, list | tuple):
        weights, radius = list(region.center), _radius(region.radius)
    elif isinstance(region, Product) and all(isinstance(p, Ball) for p in region.parts):
        weights = [p.center for p in region.parts if isinstance(p, Ball)]
        arrays = {
            **arrays,
            "radii": np.array([_radius(p.radius) for p in region.parts if isinstance(p, Ball)]),
        }
    else:
        raise InvalidInputError(
            "region", region, "a Ball around a tuple of matrices, or a Product of one Ball per layer"
        )
    count = len(weights)
    scales = (1.0,) * count if network.scales is None else tuple(float(s) for s in network.scales)
    trained = (True,) * count if network.trained is None else tuple(bool(t) for t in network.trained)
    stacked = {f"weight_{i}": np.ascontiguousarray(w, dtype=float) for i, w in enumerate(weights)}
    return Subject(
        DENSE,
        checked_activation(network.activation),
        {**arrays, **stacked},
        radius,
        scales,
        trained,
        network.output,
    )


def _radius(radius: Any) -> float:
    """The radius as a float, rounded up so that the region is covered."""
    value = float(lower(radius))
    return value if value >= radius else float(np.nextafter(value, np.inf))
