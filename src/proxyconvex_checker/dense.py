"""Deep networks with a smooth activation: margins and gradients at a point, and a bound on the curvature on a ball around it.

``N(W; x) = a' h_L``, ``h_l = phi(W_l h_{l-1})``, ``h_0 = x``, all ``W_l`` trained, ``|phi'| <= 1``, ``|phi''| <= H``. On the ball ``||W - V|| <= rho``
(Frobenius norm over all layers together, so each layer moves by at most rho) and for one row x:

* ``||h_l - h_l(V)|| <= e_l``, ``e_0 = 0``, ``e_l = s_l e_{l-1} + rho ||h_{l-1}(V)||``, ``s_l = ||V_l|| + rho``: indeed
  ``W h - V h^V = W (h - h^V) + (W - V) h^V`` and phi is 1-Lipschitz. Hence ``||h_l|| <= b_l = ||h_l(V)|| + e_l``.
* Along a direction ``U``, ``||U|| = 1``, ``||U_l|| = u_l``: ``z'_l = U_l h_{l-1} + W_l h'_{l-1}``, so ``||z'_l|| <= d_l``, ``||h'_l|| <= d_l``,
  ``d_l = b_{l-1} + s_l d_{l-1}``, ``d_0 = 0`` (with ``u_l <= 1``).
* ``g_l = dN/dh_l``: ``g_L = a``, ``g_{l-1} = W_l' (g_l phi'(z_l))``, so ``||g_l|| <= k_l``, ``k_L = ||a||``, ``k_{l-1} = s_l k_l``, and
  ``||g_l||_inf <= k_l`` but ``||g_L||_inf = max |a_r|``.
* Differentiating twice along U and collecting terms by layer,
  ``N'' = sum_l <g_l phi''(z_l), (z'_l)^2> + 2 sum_{l>=2} <g_l phi'(z_l), U_l h'_{l-1}>``, hence

      |N''| <= M = H sum_l ||g_l||_inf d_l^2 + 2 sum_{l>=2} k_l d_{l-1}.

*Proof of the last identity.* ``z''_l = 2 U_l h'_{l-1} + W_l h''_{l-1}`` and ``h''_l = phi''(z_l) (z'_l)^2 + phi'(z_l) z''_l``; ``N'' = <g_L, h''_L>`` and
``<g_l, phi'(z_l) W_l h''_{l-1}> = <g_{l-1}, h''_{l-1}>``.

With Taylor's formula along the segment from W to V, ``|N(W) + <grad N(W), V - W> - N(V)| <= M rho^2 / 2``, so
``q = y N(V) - M rho^2/2`` is a tangent margin on the whole ball; and ``||grad N(W)|| <= ||grad N(V)|| + M rho``.

Everything is rounded outwards (`rounding`); the rows are handled at once, as vectors of length n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from . import activations
from .rounding import (
    add_up,
    lambda_max_upper,
    matmul_enclosure,
    mul_up,
    product_upper,
    sqrt_bounds,
    sqrt_upper,
    sub_down,
    to_float_up,
)

Array = np.ndarray


@dataclass(frozen=True)
class Curvature:
    """Certified numbers of a deep network around V.

    Attributes:
        margins: ``q_i`` on the ball, shape (n,).
        at_center: lower bounds on ``y_i N(V; x_i)``, shape (n,).
        hessian: ``M_i``, shape (n,).
        gradients: upper bounds on ``||grad N(W; x_i)||`` on the ball, shape (n,).
    """

    margins: Array
    at_center: Array
    hessian: Array
    gradients: Array

    @property
    def gradient(self) -> float:
        """``G``, the largest of `gradients`."""
        return float(self.gradients.max())


@dataclass(frozen=True)
class Center:
    """What is known at V, for balls of any radius around it.

    Attributes:
        margins: lower bounds on ``y_i N(V; x_i)``, shape (n,).
        hidden: upper bounds on ``||h_{l-1}(V)||``, one array of shape (n,) per layer.
        spectral: upper bounds on ``||V_l||``.
        gradients: upper bounds on ``||grad N(V; x_i)||``, shape (n,).
        head: a, shape (m_L,).
        bend: upper bound on ``|phi''|``.
    """

    margins: Array
    hidden: list[Array]
    spectral: list[float]
    gradients: Array
    head: Array
    bend: float

    def on_ball(self, radius: float) -> Curvature:
        """Margins, curvature and gradients on the ball of this radius."""
        curvature = _curvature(self.hidden, self.spectral, self.head, self.bend, radius)
        remainder = mul_up(curvature, to_float_up(Fraction(radius) ** 2 / 2))
        gradients = add_up(self.gradients, mul_up(curvature, radius))
        return Curvature(sub_down(self.margins, remainder), self.margins, curvature, gradients)


def center(x: Array, y: Array, weights: Sequence[Array], head: Array, fields: dict[str, object]) -> Center:
    """The numbers at V that every ball around it needs.

    Args:
        x: rows, shape (n, d).
        y: -1 and +1, shape (n,).
        weights: ``V_1 .. V_L``.
        head: a, shape (m_L,).
        fields: of the activation: name, slope, beta; a smooth one.
    """
    phi = activations.parse(fields)
    bend = to_float_up(phi.curvature)
    state = _forward(x, weights, head, phi)
    norms = [_norm_rows(h, e) for h, e in state.hidden]
    margins = sub_down(np.where(y > 0, state.outputs, -state.outputs), state.error)
    gradients = _gradient_norm(state, norms, weights)
    return Center(margins, norms, [_spectral_norm(w) for w in weights], gradients, head, bend)


def examine(
    x: Array, y: Array, weights: Sequence[Array], head: Array, fields: dict[str, object], radius: float
) -> Curvature:
    """Margins, curvature and gradients on the ball of this radius around the given weights (arguments as for `center`)."""
    return center(x, y, weights, head, fields).on_ball(radius)


@dataclass(frozen=True)
class _State:
    """Enclosures at the centre: layer inputs with errors, slopes with errors, outputs with their error."""

    hidden: list[tuple[Array, Array]]
    slopes: list[tuple[Array, Array]]
    outputs: Array
    error: Array
    head: Array


def _slope(phi: activations.Activation, z: Array, e: Array, bend: float) -> tuple[Array, Array]:
    """``phi'`` with its error: the rounding of the formula is below 64 epsilons (see `activations`), the rest is ``H e``."""
    if phi.name == "softplus":
        with np.errstate(under="ignore"):
            small = np.exp(-np.abs(phi.beta * z))
        d = np.where(z >= 0, 1.0, small) / (1.0 + small)
    else:
        d = phi.slope + (1 - phi.slope) * np.clip(z * (phi.beta / 4) + 0.5, 0.0, 1.0)
    return d, add_up(mul_up(e, bend), 64 * 2.0**-52)


def _norm_rows(value: Array, error: Array) -> Array:
    size = add_up(np.abs(value), error)
    squares = product_upper(mul_up(size, size), np.ones((size.shape[1], 1)))[:, 0]
    return sqrt_bounds(squares)[1]


def _forward(x: Array, weights: Sequence[Array], head: Array, phi: activations.Activation) -> _State:
    h, error = np.asarray(x, float), np.zeros_like(x, dtype=float)
    hidden, slopes = [], []
    bend = to_float_up(phi.curvature)
    for w in weights:
        hidden.append((h, error))
        z, wide = matmul_enclosure(h, np.ascontiguousarray(w.T), a_error=error)
        slopes.append(_slope(phi, z, wide, bend))
        h, error = phi.value(z, wide)
    outputs, wide = matmul_enclosure(h, head, a_error=error)
    return _State(hidden, slopes, outputs, wide, head)


def _spectral_norm(w: Array) -> float:
    """Upper bound on the largest singular value."""
    a = np.ascontiguousarray(w if w.shape[0] <= w.shape[1] else w.T)
    gram, wide = matmul_enclosure(a, np.ascontiguousarray(a.T))
    return to_float_up(sqrt_upper(Fraction(lambda_max_upper(gram, wide))))


def _curvature(hidden: list[Array], spectral: list[float], head: Array, bend: float, rho: float) -> Array:
    depth = len(spectral)
    s = [to_float_up(Fraction(t) + Fraction(rho)) for t in spectral]
    k = [0.0] * (depth + 1)
    k[depth] = _vector_norm(head)
    for layer in range(depth, 1, -1):
        k[layer - 1] = to_float_up(Fraction(s[layer - 1]) * Fraction(k[layer]))
    top = float(np.abs(head).max())
    e, d = np.zeros_like(hidden[0]), np.zeros_like(hidden[0])
    total = np.zeros_like(hidden[0])
    for layer in range(1, depth + 1):
        center = hidden[layer - 1]
        reached = add_up(center, e)
        if layer >= 2:
            total = add_up(total, mul_up(2 * k[layer], d))
        d_next = add_up(reached, mul_up(s[layer - 1], d))
        total = add_up(
            total,
            mul_up(
                to_float_up(Fraction(bend) * Fraction(top if layer == depth else k[layer])),
                mul_up(d_next, d_next),
            ),
        )
        e = add_up(mul_up(s[layer - 1], e), mul_up(rho, center))
        d = d_next
    return total


def _gradient_norm(state: _State, norms: list[Array], weights: Sequence[Array]) -> Array:
    """``||grad N(V; x_i)|| = (sum_l ||delta_l||^2 ||h_{l-1}||^2)^(1/2)`` from an enclosed backward pass, rounded up."""
    total = np.zeros_like(norms[0])
    signal, error = np.broadcast_to(state.head, state.slopes[-1][0].shape), np.zeros_like(state.slopes[-1][0])
    for layer in range(len(weights) - 1, -1, -1):
        slope, wide = state.slopes[layer]
        delta = signal * slope
        # |s p - fl(s0 p0)| <= |s0| |p - p0| + |s - s0| (|p0| + |p - p0|), and one rounding of the product.
        gap = add_up(mul_up(np.abs(signal), wide), mul_up(error, add_up(np.abs(slope), wide)))
        gap = add_up(gap, add_up(mul_up(np.abs(delta), 2.0**-52), 2.0**-1022))
        size = _norm_rows(delta, gap)
        total = add_up(total, mul_up(mul_up(size, size), mul_up(norms[layer], norms[layer])))
        if layer:
            signal, error = matmul_enclosure(delta, weights[layer], a_error=gap)
    return sqrt_bounds(total)[1]


def _vector_norm(a: Array) -> float:
    return to_float_up(sqrt_upper(sum((Fraction(float(v)) ** 2 for v in a), Fraction(0))))
