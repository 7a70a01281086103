"""What the families of dense networks share: architecture, initial weights and the problem posed on data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float

from ..core.errors import InvalidInputError
from . import losses
from .base import Family
from .dense import DenseNetwork
from .dense_problem import THEOREMS, DenseProblem, bind


@dataclass(frozen=True)
class DenseFamily(Family):
    """A dense network with a loss; concrete families fix the initialisation and say which result they make executable.

    Attributes:
        network: the architecture.
        loss: ``"logistic"``, ``"cross-entropy"`` or ``"squared"``.
    """

    network: DenseNetwork
    loss: str

    tasks: ClassVar[tuple[str, ...]] = ("binary", "multiclass", "regression")

    def __post_init__(self) -> None:
        losses.check_loss(self.loss)
        if (self.loss == "cross-entropy") != (self.network.outputs > 1):
            raise InvalidInputError(
                "outputs", self.network.outputs, "one output, or one per class with the cross-entropy loss"
            )

    def initial(self, d: int) -> Float[np.ndarray, " p"]:
        """Initial weights, flat."""
        return self.network.initial(d)

    def problem(
        self,
        features: Float[np.ndarray, "n d"],
        targets: Float[np.ndarray, " n"],
        comparator: Float[np.ndarray, " p"],
        *,
        theorem: str = "T4",
        level: float = 0.0,
        **proxy: Any,
    ) -> DenseProblem:
        """Bind the network to data.

        Args:
            features: shape (n, d), float64.
            targets: shape (n,): -1 and +1, class numbers, or numbers, as the loss has it.
            comparator: flat parameters, shape (p,).
            theorem: whose proxies to record: ``"T8"``, ``"T4"`` or ``"T1"``.
            level: S of T8, xi of T1.
            **proxy: nothing else is accepted.

        Raises:
            InvalidInputError: for an unknown theorem or shapes and targets that do not fit.
        """
        if proxy:
            raise InvalidInputError("proxy", sorted(proxy), "theorem and level")
        if theorem not in THEOREMS or (theorem != "T4" and self.loss == "squared"):
            raise InvalidInputError(
                "theorem", theorem, "T4 for the squared loss, else " + ", ".join(THEOREMS)
            )
        check_rows(features, targets, self.loss, self.network.outputs)
        if np.shape(comparator) != (self.network.size(features.shape[1]),):
            raise InvalidInputError(
                "comparator",
                np.shape(comparator),
                f"shape ({self.network.size(features.shape[1])},): the flat parameters",
            )
        return bind(self.network, features, targets, comparator, self.loss, theorem, level)

    def describe(self) -> dict[str, Any]:
        """JSON-ready description."""
        return {"name": self.name, "loss": self.loss, **self.network.describe()}

    def certificate_fields(self) -> dict[str, Any]:
        """The fields that fix the network: what a certificate stores under ``family``."""
        network = self.network
        return {
            "name": self.name,
            "hidden": list(network.hidden),
            "activation": network.activation.describe(),
            "gain": float(network.gain),
            "head": network.head,
            "output_scale": float(network.output_scale),
            "paired": network.paired,
            "seed": network.seed,
        }

    def rescaled(self, output_scale: float) -> Self:
        """The same family at another output scale."""
        return replace(self, network=replace(self.network, output_scale=output_scale))


def check_rows(features: Any, targets: Any, loss: str, outputs: int) -> None:
    """Refuse features or targets that a network of this kind cannot be trained on.

    Raises:
        InvalidInputError: naming what was found.
    """
    for what, array in (("features", features), ("targets", targets)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or not np.isfinite(array).all():
            kind = getattr(array, "dtype", type(array).__name__)
            raise InvalidInputError(what, str(kind), "a NumPy array of finite float64 numbers")
    if features.ndim != 2 or features.shape[1] == 0 or targets.shape != features.shape[:1]:
        raise InvalidInputError(
            "targets", targets.shape, f"shape (n,) for features of shape {features.shape}"
        )
    found = set(np.unique(targets).tolist()) if loss != "squared" else set()
    wanted = {"logistic": {-1.0, 1.0}, "cross-entropy": set(map(float, range(outputs))), "squared": set()}[
        loss
    ]
    if found - wanted or (loss == "logistic" and found != wanted):
        raise InvalidInputError("targets", sorted(found)[:5], f"{sorted(wanted)[:12]} for the {loss} loss")
