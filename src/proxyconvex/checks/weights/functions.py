"""Outputs and mean logistic loss of a network as JAX functions that remember the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxyconvex_checker.weights.claims import TWO_LAYER

from .attack import outputs

if TYPE_CHECKING:
    from .space import WeightSpace


@dataclass(frozen=True, eq=False, repr=False)
class NetworkOutputs:
    """``w -> N(w; x_1..n)``, shape (n,)."""

    space: WeightSpace

    def __call__(self, w: Any) -> Any:
        """The outputs at weights of the shape of the centre."""
        s = self.space.subject
        return outputs(s, (w,) if s.kind == TWO_LAYER else w, s.arrays["inputs"])

    def __repr__(self) -> str:
        return "outputs of the network"


@dataclass(frozen=True, eq=False, repr=False)
class NetworkLoss:
    """The mean logistic loss over the rows. A condition on it is certified by the bounds of its `WeightSpace`."""

    space: WeightSpace

    def __call__(self, w: Any) -> Any:
        """The loss at weights of the shape of the centre."""
        import jax
        import jax.numpy as jnp

        return jnp.mean(jax.nn.softplus(-self.space.subject.targets * self.space.outputs(w)))

    def __repr__(self) -> str:
        return "mean logistic loss of the network"
