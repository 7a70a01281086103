"""F6: three-layer networks, both hidden layers trained, against a concept class (Allen-Zhu, Li and Liang 2019).

``N(w; x) = s a' phi(W_2 phi(W_1 x))``, a fixed Gaussian, ``W_1`` and ``W_2`` trained. (Biases of the first layer come from the constant feature
of the preprocessing; the random fixed bias of the second layer in the paper is left out.) Concept classes are compositions of
smooth functions, ``y = Phi(sum_j psi_j(<u_j, x>))`` (`teacher`).

**The promise** is U1 with T4: for every comparator V, if over the run (a) the loss falls by at least ``(eta/2) sum_{t<T} ||grad f_t||^2``
in all and (b) ends no higher than its average, then

    f(w_T) <= (1/T) sum_{t<T} h(V; w_t) + ||w_0 - V||^2 / (2 eta T),

where ``h(V; w)`` is the loss of the tangent model at w evaluated at V. *Proof.* U1 at every step and the expansion of
``||w_{t+1} - V||^2`` give ``sum_{t<T} (f_t - h_t) <= R^2/(2 eta) + (eta/2) sum ||grad f_t||^2``; (a) bounds the last term by ``f_0 - f_T``, so
``sum_{1<=t<=T} f_t <= sum_{t<T} h_t + R^2/(2 eta)``, and (b) is ``f_T <= (1/T) sum_{1<=t<=T} f_t``. Steps with
``f_t - f_{t+1} >= (eta/2) ||grad f_t||^2`` (smooth, ``eta <= 1/L``) satisfy both.

V minimises the right side at initialisation: regularised regression on the tangent features of both layers. Being small *there* says nothing
about ``h(V; w_t)`` later (a comparator that is good at ``w_0`` only gives the average of ``h(V; w_t)``, never a uniform bound), so ``h(V; w_t) <= OPT +
eps`` on average is a premise: ASSUMED before training, ON_TRACE after. OPT is the loss of the teacher on the labels as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ..core.errors import InvalidInputError
from ..core.references import ALLENZHU_LI_LIANG_2019, FREI_GU_2021, PROXYCONVEX_NOTES, Reference
from .activations import Activation
from .dense import DenseNetwork
from .dense_family import DenseFamily


@dataclass(frozen=True)
class ThreeLayer(DenseFamily):
    """Three-layer network with both hidden layers trained."""

    name: ClassVar[str] = "three-layer"
    title: ClassVar[str] = "Three-layer networks against a concept class (Allen-Zhu, Li and Liang 2019)"
    references: ClassVar[tuple[Reference, ...]] = (ALLENZHU_LI_LIANG_2019, FREI_GU_2021, PROXYCONVEX_NOTES)
    tasks: ClassVar[tuple[str, ...]] = ("binary", "multiclass", "regression")


def network(
    width: int, outputs: int, activation: Activation, scale: float = 1.0, paired: bool = False, seed: int = 0
) -> DenseNetwork:
    """Two hidden layers of equal width, weights ``N(0, 2/m)``, Gaussian output weights ``N(0, 1)`` times ``scale``.

    The published hidden variance is ``1/m``; ``2/m`` keeps the size of the layers for ReLU.
    """
    return DenseNetwork((width, width), outputs, activation, 2.0, "gaussian", scale, paired, seed)


CONCEPTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "sine-of-squares": (lambda t: np.square(t), lambda s: np.sin(3 * s)),
    "tanh-of-sines": (lambda t: np.sin(2 * t), lambda s: np.tanh(2 * s)),
    "product-of-cosines": (lambda t: np.cos(2 * t), lambda s: s * s - 0.5),
}
"""Concept classes by name: inner functions psi and outer function Phi, both smooth."""


def teacher(
    name: str, x: Float[np.ndarray, "n d"], terms: int = 4, noise: float = 0.0, seed: int = 0
) -> tuple[Float[np.ndarray, " n"], float]:
    """Labels ``Phi(k^{-1/2} sum_{j<=k} +-psi(<u_j, x>)) + noise`` of a composition of smooth functions.

    Args:
        name: one of `CONCEPTS`.
        x: rows.
        terms: k >= 1.
        noise: standard deviation of Gaussian label noise, ``>= 0``.
        seed: of the directions (uniform on the unit sphere), signs and noise.

    Returns:
        The labels, shape (n,), and OPT, the teacher's own mean loss ``(q - y)^2 / 2`` on them.

    Raises:
        InvalidInputError: for an unknown concept, or numbers out of range.
    """
    if name not in CONCEPTS:
        raise InvalidInputError("concept", name, ", ".join(CONCEPTS))
    if terms < 1 or noise < 0:
        raise InvalidInputError("terms, noise", (terms, noise), "terms >= 1 and noise >= 0")
    rng = np.random.Generator(np.random.PCG64(seed))
    u = rng.standard_normal((terms, x.shape[1]))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    psi, phi = CONCEPTS[name]
    clean = phi(psi(x @ u.T) @ rng.choice([-1.0, 1.0], terms) / np.sqrt(terms))
    y = clean + noise * rng.standard_normal(len(x))
    return y, float(np.mean((y - clean) ** 2) / 2)
