"""Fully connected networks with trained hidden layers and a fixed output layer, as one flat vector of parameters.

``h_0 = x``, ``z_l = W_l h_{l-1}``, ``h_l = phi(z_l)``, ``l = 1 .. L``; outputs ``N_c = s sum_r A_rc h_{L,r}``, with A fixed and s the output
scale. The gradient of an output in ``W_l`` is the outer product ``delta_l h_{l-1}^T``, where ``delta_L = s A_c phi'(z_L)`` and
``delta_l = (W_{l+1}^T delta_{l+1}) phi'(z_l)``; this is what makes tangent kernels cheap (`tangent_kernels`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.errors import InvalidInputError
from .activations import Activation


@dataclass(frozen=True)
class DenseNetwork:
    """Architecture and initialisation.

    Attributes:
        hidden: widths of the hidden layers, at least one.
        outputs: number of outputs; 1 gives outputs of shape (n,), more give (n, outputs).
        activation: of every hidden layer.
        gain: hidden weights start as ``N(0, gain / m_l)``, ``m_l`` the width of the layer they lead to.
        head: ``"signs"`` (entries +-1, as many of each) or ``"gaussian"`` (standard normal).
        output_scale: s, ``> 0``.
        paired: whether the last hidden layer consists of two equal halves with opposite output weights, so that the outputs
            start at zero.
        seed: of the initial weights and the output layer.
    """

    hidden: tuple[int, ...]
    outputs: int
    activation: Activation
    gain: float = 2.0
    head: str = "signs"
    output_scale: float = 1.0
    paired: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.hidden or any(
            isinstance(m, bool) or not isinstance(m, int) or m < 2 for m in self.hidden
        ):
            raise InvalidInputError(
                "hidden", self.hidden, "at least one hidden layer of at least 2 neurons each"
            )
        if self.hidden[-1] % 2:
            raise InvalidInputError(
                "width", self.hidden[-1], "an even number of neurons in the last hidden layer",
                f"Use {self.hidden[-1] + 1}.",
            )  # fmt: skip
        if isinstance(self.outputs, bool) or not isinstance(self.outputs, int) or self.outputs < 1:
            raise InvalidInputError("outputs", self.outputs, "a whole number >= 1")
        if self.head not in ("signs", "gaussian"):
            raise InvalidInputError("head", self.head, "'signs' or 'gaussian'")
        if not isinstance(self.activation, Activation):
            raise InvalidInputError("activation", self.activation, "an Activation")
        for name in ("gain", "output_scale"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
                raise InvalidInputError(name, number, "a finite number > 0")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InvalidInputError("seed", self.seed, "a whole number >= 0")

    def shapes(self, d: int) -> list[tuple[int, int]]:
        """Shapes of the hidden weight matrices for ``d`` features."""
        return list(zip(self.hidden, (d, *self.hidden[:-1]), strict=True))

    def size(self, d: int) -> int:
        """Number of trained parameters."""
        return sum(a * b for a, b in self.shapes(d))

    def initial(self, d: int) -> Float[np.ndarray, " p"]:
        """Initial hidden weights, one layer after the other, flat."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        out = []
        for k, (rows, columns) in enumerate(self.shapes(d)):
            last = self.paired and k == len(self.hidden) - 1
            block = rng.standard_normal((rows // 2 if last else rows, columns)) * math.sqrt(self.gain / rows)
            out.append(np.concatenate([block, block]) if last else block)
        return np.concatenate([b.reshape(-1) for b in out])

    def output_weights(self) -> Float[np.ndarray, "m c"]:
        """``s A``, shape (m_L, outputs)."""
        m = self.hidden[-1]
        rng = np.random.Generator(np.random.PCG64([self.seed, 1]))
        count = m // 2 if self.paired else m
        if self.head == "gaussian":
            a = rng.standard_normal((count, self.outputs))
        else:
            # As many of each sign; one output needs no shuffling, several must not have equal columns.
            a = np.repeat([1.0, -1.0], (count - count // 2, count // 2))[:, None].repeat(self.outputs, axis=1)
            a = rng.permuted(a, axis=0) if self.outputs > 1 else a
            a = np.ones_like(a) if self.paired and self.outputs == 1 else a
        return self.output_scale * (np.concatenate([a, -a]) if self.paired else a)

    def layers(self, w: Any, d: int) -> list[Any]:
        """The hidden weight matrices of a flat vector (NumPy or JAX)."""
        out, start = [], 0
        for rows, columns in self.shapes(d):
            out.append(w[start : start + rows * columns].reshape(rows, columns))
            start += rows * columns
        return out

    def apply(self, w: Float[Array, " p"], x: Float[Array, "n d"], head: Float[Array, "m c"]) -> Array:
        """Outputs under JAX, shape (n,) or (n, outputs)."""
        h = x
        for weight in self.layers(w, x.shape[1]):
            h = self.activation(h @ weight.T)
        out = h @ head
        return out[:, 0] if self.outputs == 1 else out

    def features(self, w: Float[np.ndarray, " p"], x: Float[np.ndarray, "n d"]) -> Features:
        """Layer inputs, backward signals and outputs at ``w`` in NumPy float64."""
        weights = self.layers(np.asarray(w, float), x.shape[1])
        inputs, slopes, h = [], [], np.asarray(x, float)
        for weight in weights:
            inputs.append(h)
            z = h @ weight.T
            slopes.append(self.activation.derivative(z))
            h = self.activation.numpy(z)
        head = self.output_weights()
        signals: list[list[np.ndarray]] = []
        for c in range(self.outputs):
            delta, back = slopes[-1] * head[:, c], []
            for k in range(len(weights) - 1, -1, -1):
                back.append(delta)
                if k:
                    delta = (delta @ weights[k]) * slopes[k - 1]
            signals.append(back[::-1])
        return Features(tuple(inputs), tuple(tuple(s) for s in signals), h @ head)

    def describe(self) -> dict[str, Any]:
        """JSON-ready description."""
        return {
            "hidden": "-".join(str(m) for m in self.hidden),
            "outputs": self.outputs,
            "activation": self.activation.describe(),
            "initial_variance": f"{self.gain:g}/width",
            "output_layer": f"fixed, {self.head}{', in opposite pairs' if self.paired else ''}",
            "output_scale": float(self.output_scale),
            "seed": self.seed,
        }


@dataclass(frozen=True, eq=False)
class Features:
    """What the tangent model of a dense network is made of, at one point and on n rows.

    Attributes:
        inputs: ``h_{l-1}``, one array of shape (n, m_{l-1}) per hidden layer.
        signals: ``delta_l`` per output and hidden layer, each of shape (n, m_l).
        outputs: shape (n, outputs).
    """

    inputs: tuple[Float[np.ndarray, "n m"], ...]
    signals: tuple[tuple[Float[np.ndarray, "n m"], ...], ...]
    outputs: Float[np.ndarray, "n c"]

    def directional(self, directions: Sequence[Float[np.ndarray, "m k"]]) -> Float[np.ndarray, "n c"]:
        """``<grad N_c(x_i), V>`` for a direction given layer by layer."""
        pushed = [h @ v.T for h, v in zip(self.inputs, directions, strict=True)]
        return np.stack(
            [sum(np.einsum("im,im->i", d, p) for d, p in zip(s, pushed, strict=True)) for s in self.signals],
            axis=1,
        )

    def combine(
        self, coefficients: Float[np.ndarray, "n c"], only: Sequence[int] | None = None
    ) -> Float[np.ndarray, " p"]:
        """``sum_ic coefficients_ic grad N_c(x_i)`` as a flat vector; zero outside the layers ``only``."""
        out = []
        for k, h in enumerate(self.inputs):
            if only is not None and k not in only:
                out.append(np.zeros(self.signals[0][k].shape[1] * h.shape[1]))
                continue
            delta = sum(s[k] * coefficients[:, c : c + 1] for c, s in enumerate(self.signals))
            out.append((delta.T @ h).reshape(-1))  # type: ignore[union-attr]
        return np.concatenate(out)

    def gradient_norms(self) -> Float[np.ndarray, "n c"]:
        """``||grad N_c(x_i)||``."""
        sizes = [np.einsum("im,im->i", h, h) for h in self.inputs]
        return np.sqrt(
            np.stack(
                [
                    sum(n * np.einsum("im,im->i", d, d) for n, d in zip(sizes, s, strict=True))
                    for s in self.signals
                ],
                axis=1,
            )
        )


def jax_outputs(network: DenseNetwork) -> Any:
    """``(w, x) -> outputs`` with the output layer bound, for use as a plain JAX model."""
    head = network.output_weights()
    return lambda w, x: network.apply(w, x, jnp.asarray(head))
