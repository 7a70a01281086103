"""Tangent margins for several classes: ``min_i min_{c != y_i} <grad (N_{y_i} - N_c)(x_i), V>``, per class and from below.

The direction comes from a support vector machine that treats all outputs as sharing their mean kernel (nearly true in wide networks) and is then
improved in the true features; it is only a proposal. Its margins are then computed in the tangent features themselves, output by output, with outward rounding: whatever
the proposal, they are true lower bounds on the best margins, for the features as computed.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from proxyconvex_checker import rounding

from .dense import DenseNetwork, Features
from .tangent_kernels import mean_over_outputs

PENALTY = 1e4
"""Of the squared slack: close to the hard margin."""


def root(kernel: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """A lower triangular root of the kernel, after a shift that rounding makes necessary."""
    jitter = 1e-10 * float(np.trace(kernel)) / len(kernel)
    while True:
        try:
            return cholesky(kernel + jitter * np.eye(len(kernel)), lower=True)
        except np.linalg.LinAlgError:
            jitter *= 100


def class_svm(
    kernel: Float[np.ndarray, "n n"],
    y: Float[np.ndarray, " n"],
    classes: int,
    penalty: float,
    iterations: int = 150,
) -> Float[np.ndarray, "n c"]:
    """Several classes with one shared kernel: ``min ||B||^2/2 + C sum_{i, c != y} (1 - (m_y - m_c))_+^2 / 2``, squared slack.

    Args:
        kernel: shared by the outputs.
        y: class numbers.
        classes: how many.
        penalty: C, for a kernel of mean diagonal 1.
        iterations: of L-BFGS, at most.

    Returns:
        Coefficients ``a_ic`` of ``V = sum a_ic grad N_c(x_i)``.
    """
    factor = root(kernel / float(np.mean(np.diag(kernel))))
    rows, own = np.arange(len(y)), y.astype(int)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        b = flat.reshape(len(y), classes)
        m = factor @ b
        gap = np.maximum(0.0, 1 - (m[rows, own][:, None] - m))
        gap[rows, own] = 0.0
        pull = gap.copy()
        pull[rows, own] = -gap.sum(axis=1)
        return float(0.5 * (b * b).sum() + 0.5 * penalty * (gap * gap).sum()), (
            b + penalty * (factor.T @ pull)
        ).reshape(-1)

    start, options = np.zeros(len(y) * classes), {"maxiter": iterations}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return solve_triangular(factor, found.x.reshape(len(y), classes), lower=True, trans="T")


def certified_class_margins(
    features: Features, y: Float[np.ndarray, " n"], direction: list[Float[np.ndarray, "m k"]]
) -> Float[np.ndarray, "n c"]:
    """Lower bounds on ``<grad (N_y - N_c)(x_i), V> / ||V||``; infinity for the row's own class.

    Args:
        features: at the point of interest; their entries are taken as exact.
        y: class numbers.
        direction: V, layer by layer.
    """
    rows, own = np.arange(len(y)), y.astype(int)
    pushed = [rounding.matmul_enclosure(h, v.T) for h, v in zip(features.inputs, direction, strict=True)]
    low, high = np.zeros((len(y), len(features.signals))), np.zeros((len(y), len(features.signals)))
    for c, signals in enumerate(features.signals):
        for delta, (value, wide) in zip(signals, pushed, strict=True):
            total, error = rounding.dot(delta, value)
            error = rounding.add_up(error, rounding.add_up(*rounding.dot(np.abs(delta), wide)))
            low[:, c] = rounding.add_down(low[:, c], rounding.sub_down(total, error))
            high[:, c] = rounding.add_up(high[:, c], rounding.add_up(total, error))
    gaps = rounding.sub_down(low[rows, own][:, None], high)
    flat = np.concatenate([v.reshape(-1) for v in direction])
    sizes = rounding.norm_upper(flat), rounding.norm_lower(flat)
    out = np.where(gaps >= 0, rounding.div_down(gaps, sizes[0]), rounding.div_down(gaps, sizes[1]))
    out[rows, own] = np.inf
    return out


def sharpened(
    network: DenseNetwork,
    features: Features,
    y: Float[np.ndarray, " n"],
    d: int,
    start: Float[np.ndarray, " p"],
    penalty: float,
    iterations: int,
) -> Float[np.ndarray, " p"]:
    """The same support vector machine in the true features of all outputs, by L-BFGS on V itself, from a proposal.

    One evaluation costs two passes over ``n p`` numbers: ``h V'`` serves all outputs, and so does ``sum_c a_c delta_c``.

    Args:
        network: several outputs.
        features: of it.
        y: class numbers.
        d: number of features.
        start: V to begin with, not zero.
        penalty: C, for gradients of mean square 1.
        iterations: at most.
    """
    rows, own = np.arange(len(y)), y.astype(int)
    size = float(np.sqrt(np.mean(features.gradient_norms() ** 2)))

    def margins(u: np.ndarray) -> np.ndarray:
        q = features.directional(network.layers(u, d)) / size
        return q[rows, own][:, None] - q

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        gap = np.maximum(0.0, 1 - margins(u))
        gap[rows, own] = 0.0
        pull = gap.copy()
        pull[rows, own] = -gap.sum(axis=1)
        return float(0.5 * u @ u + 0.5 * penalty * (gap * gap).sum()), u + penalty / size * features.combine(
            pull
        )

    seen = margins(start)
    seen[rows, own] = np.nan
    typical = float(np.nanmedian(seen))
    first = start / typical if typical > 0 else start * 0
    found = minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return found.x if found.x.any() else start


def margins_by_class(
    network: DenseNetwork, features: Features, y: Float[np.ndarray, " n"], d: int, iterations: int = 30
) -> Float[np.ndarray, " c"]:
    """The least margin of each class in the direction found, from below; the least of these bounds the best tangent margin.

    Args:
        network: several outputs.
        features: of it at the point of interest.
        y: class numbers; every class has a row.
        d: number of features.
        iterations: of the search for a direction.
    """
    a = class_svm(mean_over_outputs(features), y, network.outputs, PENALTY, iterations)
    v = sharpened(network, features, y, d, features.combine(a), PENALTY, iterations)
    direction = network.layers(v, d)
    least = certified_class_margins(features, y, direction).min(axis=1)
    return np.array([least[y == c].min() for c in range(network.outputs)])
