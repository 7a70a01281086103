"""Comparators in the tangent features of a dense network at its initial weights: proposals in floating point, any of them valid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from ...families import losses
from ...families.class_margin import class_svm, root
from ...families.dense import DenseNetwork, Features
from ...families.tangent_kernels import layerwise, mean_over_outputs
from ...families.tangent_margin import HARD, soft_margin

PENALTIES = (1e2, 1e4, 1e6, HARD)


@dataclass(frozen=True, eq=False)
class Setting:
    """A network, its data, and its tangent model at the initial weights.

    Attributes:
        network: the architecture.
        loss: name of the loss.
        x: features, shape (n, d).
        y: targets, shape (n,).
        layers: hidden layers whose tangent features may be used (None: all).
    """

    network: DenseNetwork
    loss: str
    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, " n"]
    layers: tuple[int, ...] | None = None

    @cached_property
    def start(self) -> Float[np.ndarray, " p"]:
        """w0."""
        return self.network.initial(self.x.shape[1])

    @cached_property
    def features(self) -> Features:
        """Tangent features at w0."""
        return self.network.features(self.start, self.x)

    @cached_property
    def kernel(self) -> Float[np.ndarray, "n n"]:
        """The tangent kernel at w0, averaged over the outputs."""
        return mean_over_outputs(self.features, self.layers)

    def direction(self, coefficients: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " p"]:
        """``sum_ic coefficients_ic grad N_c(x_i)``."""
        return self.features.combine(coefficients, self.layers)

    def push(self, v: Float[np.ndarray, " p"], at: Features | None = None) -> np.ndarray:
        """``<grad N(w; x_i), v>`` at w0 or at another point's features, shape (n,) or (n, classes)."""
        out = (at or self.features).directional(self.network.layers(v, self.x.shape[1]))
        return out[:, 0] if self.network.outputs == 1 else out

    def tangent_outputs(self, w: Float[np.ndarray, " p"], v: Float[np.ndarray, " p"]) -> np.ndarray:
        """``N(w; x_i) + <grad N(w; x_i), v - w>``."""
        at = self.features if w is self.start else self.network.features(w, self.x)
        outputs = at.outputs[:, 0] if self.network.outputs == 1 else at.outputs
        return outputs + self.push(v - w, at)

    def margins(self, w: Float[np.ndarray, " p"], v: Float[np.ndarray, " p"]) -> np.ndarray:
        """Tangent margins at w against v: shape (n,), or (n, classes) with infinity for the row's own class."""
        return losses.tangent_margins(self.loss, self.tangent_outputs(w, v), self.y)

    def steepest(self) -> float:
        """Largest norm of the gradient of a margin at w0: ``||grad N||`` or ``||grad (N_y - N_c)||``."""
        return float(np.sqrt(self.gradient_squares().max()))

    def gradient_squares(self) -> Float[np.ndarray, "n c"]:
        """``||grad N_i||^2``, for several classes ``||grad (N_y - N_c)(x_i)||^2``."""
        if self.network.outputs == 1:
            return self.features.gradient_norms() ** 2
        own, rows = self.y.astype(int), np.arange(len(self.y))
        total = np.zeros((len(rows), self.network.outputs))
        for k, h in enumerate(self.features.inputs):
            signals = np.stack([s[k] for s in self.features.signals], axis=1)
            gaps = signals[rows, own][:, None, :] - signals
            total += np.einsum("icm,icm->ic", gaps, gaps) * np.einsum("im,im->i", h, h)[:, None]
        return total


def separators(setting: Setting) -> list[Float[np.ndarray, " p"]]:
    """Unit directions with large tangent margins, for growing penalties of the slack."""
    out, kernel = [], setting.kernel
    if setting.network.outputs > 1:
        out = [setting.direction(class_svm(kernel, setting.y, setting.network.outputs, c)) for c in (1e2,)]
    else:
        signed, alpha = kernel * setting.y[:, None] * setting.y, None
        for penalty in PENALTIES:
            alpha = soft_margin(signed, penalty / float(np.mean(np.diag(kernel))), alpha)
            out.append(setting.direction((alpha * setting.y)[:, None]))
    sizes = [float(np.linalg.norm(v)) for v in out]
    return [v / size for v, size in zip(out, sizes, strict=True) if size > 0]


def regression(setting: Setting, weight: float) -> Float[np.ndarray, " p"]:
    """``v - w0`` for the v that minimises ``h(v; w0) + weight ||v - w0||^2``, exactly so where all outputs share one kernel.

    Args:
        setting: network, data and loss.
        weight: ``1 / (2 eta T)``, which makes this what T4 promises.
    """
    n, c = len(setting.y), setting.network.outputs
    first, kernel = setting.features.outputs, setting.kernel
    if setting.loss == "squared":
        system = kernel / n + 2 * weight * np.eye(n)
        return setting.direction(np.linalg.solve(system, (setting.y[:, None] - first) / n))
    factor = root(kernel)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        b = flat.reshape(n, c)
        value, slope = _loss(setting.loss, first + factor @ b, setting.y)
        return value + weight * float((b * b).sum()), (factor.T @ slope + 2 * weight * b).reshape(-1)

    found = minimize(objective, np.zeros(n * c), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return setting.direction(solve_triangular(factor, found.x.reshape(n, c), lower=True, trans="T"))


def _loss(
    name: str, q: Float[np.ndarray, "n c"], y: Float[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, "n c"]]:
    """Mean loss and its derivative in the outputs, in NumPy."""
    if name == "logistic":
        m = y * q[:, 0]
        return float(np.mean(np.logaddexp(0, -m))), (-y * expit(-m) / len(y))[:, None]
    rows, own = np.arange(len(y)), y.astype(int)
    total = logsumexp(q, axis=1)
    p = np.exp(q - total[:, None])
    p[rows, own] -= 1
    return float(np.mean(total - q[rows, own])), p / len(y)


def mean_loss(name: str, q: np.ndarray, y: Float[np.ndarray, " n"]) -> float:
    """Mean loss of outputs of shape (n,) or (n, classes)."""
    if name == "squared":
        return float(np.mean((q - y) ** 2) / 2)
    return _loss(name, q if q.ndim == 2 else q[:, None], y)[0]


def largest_eigenvalue(setting: Setting, iterations: int = 60) -> float:
    """About the largest eigenvalue of the full tangent kernel of all outputs at w0 (power iteration; an estimate)."""
    if setting.network.outputs == 1:
        return float(np.linalg.eigvalsh(layerwise(setting.features))[-1])
    v = np.random.Generator(np.random.PCG64(0)).standard_normal((len(setting.y), setting.network.outputs))
    size = 1.0
    for _ in range(iterations):
        v /= np.linalg.norm(v)
        v = setting.push(setting.features.combine(v))
        before, size = size, float(np.linalg.norm(v))
        if abs(size - before) <= 1e-4 * size:
            break
    return size
