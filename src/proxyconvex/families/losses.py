"""Convex losses of the outputs of a network: value, derivative, slope and error, for one or several outputs.

For several outputs (cross-entropy) the *class margins* of row i are ``m_ic = N_y - N_c``, ``c != y``, and
``p_c = softmax(N)_c``. Then ``l = log(1 + sum_{c != y} exp(-m_ic))``, the slope is ``u = 1 - p_y = sum_{c != y} p_c``, and for any
direction ``V`` of the parameters

    -<d l(N(w)), V> = sum_{c != y} p_c <grad (N_y - N_c), V>,

exactly as ``p y <grad N, V>`` for the logistic loss of one output. A row is an error when some other class scores at least as
high; then ``p_y <= p_c <= 1 - p_y``, so ``u >= 1/2``: the link between slope and error is the same factor 2.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.errors import InvalidInputError

LOSSES = ("logistic", "cross-entropy", "squared")
OF_TASK = {"binary": "logistic", "multiclass": "cross-entropy", "regression": "squared"}


def check_loss(name: str) -> str:
    """The name of a loss.

    Raises:
        InvalidInputError: if it is none of `LOSSES`.
    """
    if name not in LOSSES:
        raise InvalidInputError("loss", name, ", ".join(LOSSES))
    return name


def value(name: str, q: Float[Array, "k *c"], y: Float[Array, " k"]) -> Float[Array, " k"]:
    """Loss per row: ``log(1+e^{-yq})``, ``-log softmax(q)_y`` or ``(q - y)^2 / 2``."""
    if name == "logistic":
        return jax.nn.softplus(-y * q)
    if name == "squared":
        return 0.5 * (q - y) ** 2
    return jax.nn.logsumexp(q, axis=1) - _chosen(q, y)


def derivative(name: str, q: Float[Array, "k *c"], y: Float[Array, " k"]) -> Float[Array, "k *c"]:
    """Derivative of the loss in the outputs, of their shape."""
    if name == "logistic":
        return -y * jax.nn.sigmoid(-y * q)
    if name == "squared":
        return q - y
    return jax.nn.softmax(q, axis=1) - jax.nn.one_hot(y.astype(int), q.shape[1], dtype=q.dtype)


def slope(name: str, q: Float[Array, "k *c"], y: Float[Array, " k"]) -> Float[Array, " k"]:
    """``|loss'|``; for cross-entropy ``1 - p_y``, summed over the other classes so that it keeps its precision."""
    if name == "logistic":
        return jax.nn.sigmoid(-y * q)
    if name == "squared":
        return jnp.abs(q - y)
    return jnp.sum(others(jax.nn.softmax(q, axis=1), y), axis=1)


def error(name: str, q: Float[Array, "k *c"], y: Float[Array, " k"]) -> Float[Array, " k"]:
    """One where the row is wrong (a tie counts as wrong); for regression the squared residual ``(q - y)^2``."""
    if name == "logistic":
        return (y * q <= 0).astype(q.dtype)
    if name == "squared":
        return (q - y) ** 2
    own = _chosen(q, y)[:, None]
    return jnp.any(others(jnp.where(q >= own, 1.0, 0.0), y) > 0, axis=1).astype(q.dtype)


def class_margins(q: Float[Array, "k c"], y: Float[Array, " k"]) -> Float[Array, "k c"]:
    """``N_y - N_c``; zero in the column of the row's own class."""
    return _chosen(q, y)[:, None] - q


def others(a: Float[Array, "k c"], y: Float[Array, " k"]) -> Float[Array, "k c"]:
    """``a`` with zeros in the column of the row's own class."""
    return jnp.where(jnp.arange(a.shape[1]) == y.astype(int)[:, None], 0.0, a)


def proxy_convexity(
    name: str, q: Float[Array, "k *c"], y: Float[Array, " k"], margins: Float[Array, "k *c"]
) -> Float[Array, " k"]:
    """``g_i`` of T8: ``p_i (q_i - m_i)``, for several classes ``sum_{c != y} p_c (q_ic - m_ic)``; ``h = 0``.

    Args:
        name: ``"logistic"`` or ``"cross-entropy"``.
        q: outputs.
        y: targets.
        margins: lower bounds on the tangent margins, shape (k,) or (k, classes).
    """
    if name == "logistic":
        return jax.nn.sigmoid(-y * q) * (margins - y * q)
    gaps = margins - class_margins(q, y)
    return jnp.sum(others(jax.nn.softmax(q, axis=1) * gaps, y), axis=1)


def tangent_margins(name: str, lin: np.ndarray, y: Float[np.ndarray, " k"]) -> np.ndarray:
    """Margins of outputs of the tangent model: ``y N`` or ``N_y - N_c`` (infinite for the row's own class)."""
    if name == "logistic":
        return y * lin
    rows, own = np.arange(len(y)), y.astype(int)
    out = lin[rows, own][:, None] - lin
    out[rows, own] = np.inf
    return out


def effective_margins(name: str, margins: np.ndarray) -> Float[np.ndarray, " k"]:
    """One margin per row for T8: ``q_i``, for several classes ``-log sum_{c != y} exp(-q_ic)``.

    Proof that this is the right number: with ``p_c = u s_c`` and ``-m_ic = log(p_c / p_y)``,
    ``sum_c p_c (q_ic - m_ic) = u log(u/(1-u)) + u sum_c s_c (q_ic + log s_c)``, and the least value of the last sum over
    distributions s is ``-log sum_c exp(-q_ic)`` (Gibbs). So the bracket of T8 is at least ``u q_i + psi(u)``.
    """
    if name == "logistic":
        return margins
    low = margins.min(axis=1)
    with np.errstate(over="ignore"):
        return low - np.log(np.exp(-(margins - low[:, None])).sum(axis=1))


def _chosen(q: Any, y: Any) -> Any:
    return jnp.take_along_axis(q, y.astype(int)[:, None], axis=1)[:, 0]
