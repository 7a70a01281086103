"""Forward and backward pass of ``N(W; x) = m^{-1/2} sum_r a_r phi(<w_r, x>)`` under the logistic loss, by hand.

Autodiff of the same formulas is correct but spends more time in the activation than in the two matrix products:
``jax.nn.softplus`` and its derivative take four transcendental functions per entry, here one exponential serves
both. Layout matters too: pre-activations are stored neuron by row (m, n), where both products are fastest.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev, polynomial

from ..core.errors import InvalidInputError
from .activations import Activation
from .base import MarginProblem


def _atanh_coefficients(degree: int = 10) -> tuple[float, ...]:
    """Coefficients in u of atanh(sqrt u) / sqrt u on [0, 1/9], by interpolation at Chebyshev points.

    The function is analytic with its nearest singularity at u = 1, so the error decays like 34^-degree; degree 10
    leaves rounding error only.
    """
    nodes = (1 + chebyshev.chebpts1(degree + 1)) / 18
    root = np.sqrt(nodes)
    fit = polynomial.Polynomial.fit(
        nodes, np.arctanh(root) / root, degree, domain=[0, 1 / 9], window=[0, 1 / 9]
    )
    return tuple(float(c) for c in fit.coef)


_ATANH = _atanh_coefficients()


def softplus_and_sigmoid(t: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """``log(1 + e^t)`` and its derivative from one exponential, to a few units in the last place (float64).

    With ``e = exp(-|t|)``: ``log(1+e) = 2 atanh(s)``, ``s = e/(2+e)`` in [0, 1/3], as a polynomial in ``s^2``.
    Both quotients come from one division, ``1 / ((1+e)(2+e))``.
    """
    e = jnp.exp(-jnp.abs(t))
    one, two = 1 + e, 2 + e
    reciprocal = 1 / (one * two)
    s = e * one * reciprocal
    u = s * s
    p = jnp.full_like(u, _ATANH[-1])
    for c in _ATANH[-2::-1]:
        p = p * u + c
    inverse = two * reciprocal
    return jnp.maximum(t, 0) + 2 * s * p, jnp.where(t >= 0, inverse, e * inverse)


def value_and_slope(
    activation: Activation, t: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """``phi(t)`` and ``phi'(t)`` under JAX; at a kink the left derivative, as `Activation.derivative` has it."""
    c, beta = activation.slope, activation.beta
    if activation.name == "softplus":
        value, slope = softplus_and_sigmoid(beta * t)
        return value / beta, slope
    if activation.name == "smooth-leaky":
        z = jnp.clip(t * (beta / 4) + 0.5, 0.0, 1.0)
        rho = (2 / beta) * z * z + jnp.maximum(t - 2 / beta, 0.0)
        return c * t + (1 - c) * rho, c + (1 - c) * z
    return jnp.where(t > 0, t, c * t), jnp.where(t > 0, 1.0, c)


def forward(
    w: Float[Array, "m d"], x: Float[Array, "k d"], activation: Activation, signs: Float[Array, " m"]
) -> Float[Array, " k"]:
    """Network outputs; ``signs`` in {-1, +1}."""
    value, _ = value_and_slope(activation, w @ x.T)
    return (signs / np.sqrt(w.shape[0])) @ value


def pre_activations(v: Float[Array, "m d"], x: Float[Array, "n d"]) -> Float[Array, "n m"]:
    """``<v_r, x_i>``, one row per row of ``x``: what `forward_backward_products` asks for."""
    return x @ v.T


def forward_backward(
    w: Float[Array, "m d"],
    x: Float[Array, "k d"],
    y: Float[Array, " k"],
    activation: Activation,
    signs: Float[Array, " m"],
) -> tuple[Float[Array, ""], Float[Array, " k"], Float[Array, "m d"]]:
    """Mean logistic loss ``log(1+exp(-y N))``, outputs ``N`` and the gradient in ``w``; a drop-in for `loss_grad`."""
    return _pass(w, x, y, activation, signs)[:3]


def forward_backward_products(
    w: Float[Array, "m d"],
    x: Float[Array, "1 d"],
    y: Float[Array, " 1"],
    activation: Activation,
    signs: Float[Array, " m"],
    comparator: Float[Array, "1 m"],
) -> tuple[Float[Array, ""], Float[Array, " 1"], Float[Array, "m d"], Float[Array, ""], Float[Array, ""]]:
    """`forward_backward` on one row, and the products of the gradient; a drop-in for `loss_grad_products`.

    On one row the gradient is ``G = D x^T`` with ``D`` of length m, hence ``<G, W - V> = <D, W x - V x>`` and
    ``||G||^2 = ||D||^2 ||x||^2``: no pass over m times d numbers. Rounding moves the first by a few
    ``eps ||G|| (||W|| + ||V||)``, where a product with ``W - V`` itself loses a few ``eps ||G|| ||W - V||``.

    Args:
        w: weights.
        x: one row.
        y: its target.
        activation: of the network.
        signs: output signs.
        comparator: ``V x``, from `pre_activations`.
    """
    loss, q, grad, z, delta = _pass(w, x, y, activation, signs)
    delta = delta[:, 0]
    return loss, q, grad, delta @ (z[:, 0] - comparator[0]), (delta @ delta) * (x[0] @ x[0])


def _pass(
    w: Float[Array, "m d"],
    x: Float[Array, "k d"],
    y: Float[Array, " k"],
    activation: Activation,
    signs: Float[Array, " m"],
) -> tuple[Array, Array, Array, Float[Array, "m k"], Float[Array, "m k"]]:
    """Mean loss, outputs, gradient, pre-activations and the derivative of the mean loss in them.

    The gradient is ``a_r m^{-1/2} mean_i loss'_i phi'(<w_r, x_i>) x_i``: the loss derivative is multiplied into the
    small matrix x, so that the (m, k) matrix of slopes goes into the product as it is.
    """
    a = signs / np.sqrt(w.shape[0])
    z = w @ x.T
    value, slope = value_and_slope(activation, z)
    q = a @ value
    margin = y * q
    pull = -y * jax.nn.sigmoid(-margin) / x.shape[0]
    pulled = pull[:, None] * x
    # The factor a_r goes to the smaller of the two matrices it can multiply.
    grad = (a[:, None] * slope) @ pulled if x.shape[0] < x.shape[1] else a[:, None] * (slope @ pulled)
    return jnp.mean(jax.nn.softplus(-margin)), q, grad, z, a[:, None] * slope * pull


class TwoLayerMarginProblem(MarginProblem):
    """The logistic loss of a two-layer network with fixed output signs; families add their proxies.

    Attributes:
        signs: output signs ``a_r``, shape (m,).
        activation: of the network.
    """

    signs: eqx.AbstractVar[Float[Array, " m"]]
    activation: eqx.AbstractVar[Activation]

    def predict(self, w: Float[Array, "m d"], x: Float[Array, "k d"]) -> Float[Array, " k"]:
        """Network outputs on a batch."""
        return forward(w, x, self.activation, self.signs)

    def loss_grad(
        self, w: Float[Array, "m d"], x: Float[Array, "k d"], y: Float[Array, " k"]
    ) -> tuple[Float[Array, ""], Float[Array, " k"], Float[Array, "m d"]]:
        """Mean loss, outputs and gradient on a batch, from the hand-written backward pass."""
        return forward_backward(w, x, y, self.activation, self.signs)


def check_data(features: Any, targets: Any) -> None:
    """Refuse features or targets that are not finite float64 arrays of matching shapes with both classes present.

    Raises:
        InvalidInputError: naming what was found.
    """
    for what, array in (("features", features), ("targets", targets)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64:
            kind = getattr(array, "dtype", type(array).__name__)
            raise InvalidInputError(
                what, str(kind), "a NumPy array of float64", "Convert with .astype(np.float64)."
            )
        if not np.isfinite(array).all():
            raise InvalidInputError(
                what, "an array with NaN or infinity", "finite numbers", "Drop or fill them."
            )
    if features.ndim != 2 or features.shape[1] == 0 or targets.shape != features.shape[:1]:
        raise InvalidInputError(
            "targets", targets.shape, f"shape (n,) for features of shape {features.shape}"
        )
    if set(np.unique(targets)) != {-1.0, 1.0}:
        found = np.unique(targets)[:5].tolist()
        raise InvalidInputError("targets", found, "both -1 and +1, and nothing else", "Give two classes.")
