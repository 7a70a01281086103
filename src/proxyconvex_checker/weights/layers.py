"""Deep dense networks near given weights: how far outputs, gradients and Hessians can go on a ball, layer by layer.

Network: ``h_0 = x``, ``z_l = s_l W_l h_l``, ``h_{l+1} = phi(z_l)`` for ``l < L - 1``, output ``N = z_{L-1}`` (one row of the last
matrix). Every activation here has ``0 <= phi' <= 1``; smooth ones ``|phi''| <= H``. Around a centre (superscript 0) the weights of the
trained layers move by ``D_l = W_l - W_l^0`` with ``sum_l ||D_l||_F^2 <= rho^2`` (joint ball) or ``||D_l||_F <= r_l`` (ball per layer).
``omega_l >= ||W_l^0||_2``. The recursion, each line by the triangle inequality from the line's exact identity:

* forward, ``z_l - z_l^0 = s_l (D_l h_l + W_l^0 (h_l - h_l^0))``: ``||z_l - z_l^0|| <= sum_k c_lk ||D_k|| =: zeta_l``,
  ``c_l = s_l (A_l e_l + omega_l c_{l-1})``, ``A_l = ||h_l^0|| + zeta_{l-1}``;
* backward, ``b_l = dN/dh_{l+1}``, ``g_l = dN/dz_l = phi'(z_l) b_l``, ``b_{l-1} = s_l W_l' g_l``:
  ``||g_l - g_l^0|| <= eta_l = eps_l + min(H zeta_l ||b_l^0||_inf, (1 - c) ||b_l^0||)``,
  ``||b_{l-1} - b_{l-1}^0|| <= eps_{l-1} = s_l (r_l (||g_l^0|| + eta_l) + omega_l eta_l)``;
* along a direction U: ``z_l' = s_l (U_l h_l + W_l h_l')``, so ``||z_l'|| <= sum_k p_lk ||U_k||``, ``p_l = s_l (A_l e_l + (omega_l + r_l) p_{l-1})``;
* ``N'' = sum_l <b_l, phi''(z_l) z_l'^2> + 2 sum_l s_l <g_l, U_l h_l'>``, hence ``|N''| <= sum_{jk} M_jk ||U_j|| ||U_k||`` with
  ``M = sum_l H ||b_l||_inf p_l p_l' + sum_l s_l ||g_l|| (e_l p_{l-1}' + p_{l-1} e_l')``.

``||b_l||_inf`` is what makes the bound fall with the width: it is about ``1 / sqrt m`` where the Euclidean norm is about one.
The full proof is in the documentation, page 'Certificates in weight space'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..activations import Activation
from ..errors import CheckError
from ..rounding import (
    Array,
    add_up,
    finite,
    matmul_enclosure,
    mul_up,
    next_down,
    next_up,
    norm_upper,
    product_upper,
    sub_down,
    to_float_up,
)
from ..two_layer_ntk import blocks
from .norms import quadratic_upper, spectral_norm_upper

STEP = "network"


@dataclass(frozen=True)
class Center:
    """Everything at the centre: independent of the radius. Upper bounds unless said otherwise; L layers, n rows.

    Attributes:
        activation: of the hidden layers.
        scales: ``s_l``, exact.
        trained: which layers move.
        omega: ``||W_l^0||_2``, shape (L,); the first is not needed and infinite.
        sizes: ``||h_l^0||``, shape (n, L).
        pulls: ``||g_l^0||``, shape (n, L).
        back: ``||b_l^0||``, shape (n, L - 1).
        back_max: ``||b_l^0||_inf``, shape (n, L - 1).
        low: lower bounds on ``N(x_i)``, shape (n,).
        high: upper bounds on ``N(x_i)``, shape (n,).
    """

    activation: Activation
    scales: tuple[float, ...]
    trained: tuple[bool, ...]
    omega: tuple[float, ...]
    sizes: Array
    pulls: Array
    back: Array
    back_max: Array
    low: Array
    high: Array

    @property
    def gradient(self) -> Array:
        """Upper bounds on ``||grad N||`` at the centre, shape (n,): block l is ``s_l g_l h_l'``."""
        return _gradient(self, self.pulls, self.sizes)


@dataclass(frozen=True)
class Local:
    """Upper bounds that hold everywhere on the region, one row per sample.

    Attributes:
        change: ``|N(w) - N(center)|`` from the forward recursion, shape (n,).
        gradient: ``||grad N(w)||``, shape (n,).
        matrix: ``M``: ``|N''| <= sum_jk M_jk ||U_j|| ||U_k||``, shape (n, L, L); infinite where phi is not smooth.
    """

    change: Array
    gradient: Array
    matrix: Array


def examine(
    weights: Sequence[Array],
    activation: Activation,
    x: Array,
    scales: Sequence[float],
    trained: Sequence[bool],
    output: int = 0,
) -> Center:
    """Forward and backward pass at the centre, enclosed.

    Args:
        weights: ``W_l``, shapes (m_1, d), (m_2, m_1), ..., (k, m_{L-1}); at least two.
        activation: of the hidden layers.
        x: inputs, shape (n, d).
        scales: ``s_l > 0``.
        trained: which layers move.
        output: row of the last matrix that is the output.

    Raises:
        CheckError: for shapes that do not fit.
    """
    weights = [finite(w, "a weight matrix") for w in weights]
    x = finite(x, "the inputs")
    _check_shapes(weights, x, scales, trained, output)
    last = weights[-1][output : output + 1]
    weights = [*weights[:-1], last]
    omega = (np.inf, *(spectral_norm_upper(w) for w in weights[1:]))
    n, count = len(x), len(weights)
    sizes, pulls = np.empty((n, count)), np.ones((n, count))
    back, back_max, ends = np.empty((n, count - 1)), np.empty((n, count - 1)), np.empty((n, 2))
    for rows in blocks(n, max(w.shape[0] for w in weights)):
        slopes, value, error = _forward(weights, activation, x[rows], scales, sizes[rows])
        ends[rows] = np.column_stack([sub_down(value, error), add_up(value, error)])
        _backward(weights, slopes, scales, pulls[rows], back[rows], back_max[rows])
    return Center(
        activation,
        tuple(map(float, scales)),
        tuple(map(bool, trained)),
        omega,
        sizes,
        pulls,
        back,
        back_max,
        ends[:, 0],
        ends[:, 1],
    )


def _check_shapes(
    weights: list[Array], x: Array, scales: Sequence[float], trained: Sequence[bool], output: int
) -> None:
    if len(weights) < 2 or any(w.ndim != 2 or not w.size for w in weights) or x.ndim != 2 or not x.size:
        raise CheckError(STEP, "at least two weight matrices and a matrix of inputs are needed")
    widths = [x.shape[1], *(w.shape[0] for w in weights)]
    if any(w.shape[1] != widths[i] for i, w in enumerate(weights)):
        raise CheckError(
            STEP, f"weights {[w.shape for w in weights]} and inputs {x.shape} do not fit together"
        )
    if len(scales) != len(weights) or not all(np.isfinite(s) and s > 0 for s in scales):
        raise CheckError(STEP, f"scales {list(scales)} are not {len(weights)} numbers > 0")
    if len(trained) != len(weights) or not any(trained):
        raise CheckError(STEP, "trained must name for each layer whether it moves, and one must")
    if not 0 <= output < len(weights[-1]):
        raise CheckError(STEP, f"there is no output {output}")


def slope_enclosure(phi: Activation, z: Array, e: Array) -> tuple[Array, Array]:
    """``(d, error)`` with ``|phi'(t) - d| <= error`` for every ``t`` with ``|t - z| <= e``.

    Smooth activations have ``phi'(-t) = 1 + c - phi'(t)``, which turns the upper bound into a lower one.
    """
    upper = phi.derivative_upper(z, e)
    if phi.smooth:
        lower = np.maximum(sub_down(next_down(1.0 + phi.slope), phi.derivative_upper(-z, e)), phi.slope)
    else:
        lower = np.where(z > e, 1.0, phi.slope)
    middle = (upper + lower) / 2
    return middle, np.maximum(next_up(np.maximum(upper - middle, middle - lower)), 0.0)


def _scaled(value: Array, error: Array, s: float) -> tuple[Array, Array]:
    product = value * s
    return product, add_up(mul_up(error, s), np.abs(product) * 2.0**-52)


def _forward(
    weights: Sequence[Array], phi: Activation, x: Array, scales: Sequence[float], sizes: Array
) -> tuple[list[tuple[Array, Array]], Array, Array]:
    """Slopes of the hidden layers and the output, with errors; ``sizes`` is filled."""
    h, h_error, slopes = x, None, []
    for layer, w in enumerate(weights):
        sizes[:, layer] = norm_upper(np.abs(h) if h_error is None else add_up(np.abs(h), h_error), axis=1)
        z, e = _scaled(*matmul_enclosure(h, w.T, a_error=h_error), scales[layer])
        if layer < len(weights) - 1:
            slopes.append(slope_enclosure(phi, z, e))
            h, h_error = phi.value(z, e)
    return slopes, z[:, 0], e[:, 0]


def _backward(
    weights: Sequence[Array],
    slopes: list[tuple[Array, Array]],
    scales: Sequence[float],
    pulls: Array,
    back: Array,
    back_max: Array,
) -> None:
    """Fills the norms of ``b_l`` and ``g_l``."""
    n = len(pulls)
    b, b_error = _scaled(weights[-1], np.zeros_like(weights[-1]), scales[-1])
    b, b_error = np.broadcast_to(b, (n, b.shape[1])), np.broadcast_to(b_error, (n, b.shape[1]))
    for layer in range(len(weights) - 2, -1, -1):
        whole = add_up(np.abs(b), b_error)
        back[:, layer], back_max[:, layer] = norm_upper(whole, axis=1), whole.max(axis=1)
        d, d_error = slopes[layer]
        g = d * b
        g_error = add_up(mul_up(add_up(d, d_error), b_error), mul_up(d_error, np.abs(b)))
        g_error = add_up(g_error, np.abs(g) * 2.0**-52 + 2.0**-1022)
        pulls[:, layer] = norm_upper(add_up(np.abs(g), g_error), axis=1)
        if layer:
            b, b_error = _scaled(*matmul_enclosure(g, weights[layer], a_error=g_error), scales[layer])


def _gradient(center: Center, pulls: Array, sizes: Array) -> Array:
    blocks = mul_up(mul_up(pulls, sizes), np.array(center.scales))
    return np.asarray(norm_upper(np.where(center.trained, blocks, 0.0), axis=1))


# --- on the region ---------------------------------------------------------------------------------------------


def local(center: Center, radius: float | Sequence[float]) -> Local:
    """Bounds on the whole region.

    Args:
        center: what `examine` found.
        radius: ``rho`` of the joint ball, or one ``r_l`` per layer (only those of trained layers count).

    Raises:
        CheckError: for a radius that is not finite and >= 0.
    """
    joint = np.ndim(radius) == 0
    radii = np.broadcast_to(np.asarray(radius, float), (len(center.scales),))
    if not (np.isfinite(radii).all() and (radii >= 0).all()):
        raise CheckError(STEP, f"radius {radius!r} is not finite and >= 0")
    radii = np.where(center.trained, radii, 0.0)
    sizes, shifts, change = _forward_reach(center, radii, joint)
    pulls, back_max = _backward_reach(center, radii, shifts)
    return Local(change, _gradient(center, pulls, sizes), _curvature(center, radii, sizes, pulls, back_max))


def _forward_reach(center: Center, radii: Array, joint: bool) -> tuple[Array, Array, Array]:
    """``A_l``, ``zeta_l`` of the hidden layers and ``zeta`` of the output."""
    n, count = center.sizes.shape
    sizes, c, shifts = center.sizes.copy(), np.zeros((n, count)), []
    for layer, s in enumerate(center.scales):
        if layer:
            sizes[:, layer] = add_up(sizes[:, layer], shifts[-1])
            c = mul_up(c, mul_up(center.omega[layer], s))
        if center.trained[layer]:
            c[:, layer] = mul_up(sizes[:, layer], s)
        if joint:
            shifts.append(mul_up(norm_upper(c, axis=1), radii.max()))
        else:
            shifts.append(product_upper(c, radii[:, None])[:, 0])
    return sizes, np.array(shifts[:-1]).T, shifts[-1]


def _backward_reach(center: Center, radii: Array, shifts: Array) -> tuple[Array, Array]:
    """Upper bounds on ``||g_l||`` and ``||b_l||_inf`` over the region."""
    pulls, back_max = center.pulls.copy(), center.back_max.copy()
    phi, change = center.activation, np.zeros(len(pulls))
    for layer in range(len(center.scales) - 1, 0, -1):
        s, omega = center.scales[layer], center.omega[layer]
        moved = mul_up(add_up(mul_up(pulls[:, layer], radii[layer]), mul_up(change, omega)), s)
        here = layer - 1
        whole = add_up(center.back[:, here], moved)
        whole = np.minimum(whole, mul_up(pulls[:, layer], mul_up(add_up(omega, radii[layer]), s)))
        back_max[:, here] = np.minimum(add_up(center.back_max[:, here], moved), whole)
        jump = mul_up(center.back[:, here], to_float_up(1 - Fraction(phi.slope)))
        if phi.smooth:
            bent = mul_up(mul_up(shifts[:, here], center.back_max[:, here]), to_float_up(phi.curvature))
            jump = np.minimum(jump, bent)
        change = add_up(moved, jump)
        pulls[:, here] = np.minimum(add_up(center.pulls[:, here], change), whole)
    return pulls, back_max


def _curvature(center: Center, radii: Array, sizes: Array, pulls: Array, back_max: Array) -> Array:
    n, count = sizes.shape
    if not center.activation.smooth:
        return np.full((n, count, count), np.inf)
    bend, m, p = to_float_up(center.activation.curvature), np.zeros((n, count, count)), np.zeros((n, count))
    for layer, s in enumerate(center.scales):
        if layer:
            if center.trained[layer]:
                mixed = mul_up(mul_up(p, pulls[:, layer, None]), s)
                m[:, layer, :] = add_up(m[:, layer, :], mixed)
                m[:, :, layer] = add_up(m[:, :, layer], mixed)
            p = mul_up(p, mul_up(add_up(center.omega[layer], radii[layer]), s))
        if center.trained[layer]:
            p[:, layer] = mul_up(sizes[:, layer], s)
        if layer < count - 1:
            weight = mul_up(back_max[:, layer], bend)
            m = add_up(m, mul_up(mul_up(p[:, :, None], p[:, None, :]), weight[:, None, None]))
    # Rounding upwards must not make a fixed layer look as if it moved.
    moving = np.array(center.trained, float)
    return m * moving[:, None] * moving[None, :]


def hessian_upper(center: Center, radius: float | Sequence[float]) -> Array:
    """Upper bounds on ``sup |N''[u, u]| / ||u||^2`` over the region, shape (n,)."""
    return quadratic_upper(local(center, radius).matrix)


def second_order(center: Center, radius: float | Sequence[float], shells: int = 8) -> tuple[Array, Array]:
    """Upper bounds on two Taylor remainders between the centre and every point of the region, shape (n,) each.

    Returns:
        ``|N(w) + <grad N(w), center - w> - N(center)|`` (tangent model at w) and
        ``|N(center) + <grad N(center), w - center> - N(w)|`` (tangent model at the centre).

    With ``delta = w - center`` they are ``int_0^1 s N''(center + s delta) ds`` and the same with weight ``1 - s``; on the shell
    ``s`` in ``[t_{j-1}, t_j]`` the second derivative is bounded on the region shrunk by ``t_j``.
    """
    joint, radii = np.ndim(radius) == 0, np.asarray(radius, float)
    at_w = at_center = np.zeros(len(center.sizes))
    for j in range(1, shells + 1):
        # j / shells is rounded up, so that consecutive shells overlap rather than leave a gap.
        outer = min(float(next_up(j / shells)), 1.0)
        inner = max(float(next_down((j - 1) / shells)), 0.0)
        m = local(center, np.minimum(mul_up(radii, outer), radii)[()]).matrix
        if joint:
            bound = mul_up(quadratic_upper(m), mul_up(radii, radii))
        else:
            bound = quadratic_upper(m, np.where(center.trained, radii, 0.0))
        at_w = add_up(at_w, mul_up(bound, next_up((outer * outer - inner * inner) / 2 + 1e-15)))
        weight = (outer - inner) - (outer * outer - inner * inner) / 2
        at_center = add_up(at_center, mul_up(bound, next_up(weight + 1e-15)))
    return at_w, at_center


def total_radius(center: Center, radius: float | Sequence[float]) -> float:
    """Upper bound on the Euclidean distance from the centre."""
    radii = np.where(center.trained, np.asarray(radius, float), 0.0)
    return float(radii.max() if np.ndim(radius) == 0 else norm_upper(radii))


def remainder_upper(center: Center, radius: float | Sequence[float], shells: int = 8) -> Array:
    """Upper bounds on ``|N(w) + <grad N(w), center - w> - N(center)|`` over the region, shape (n,).

    Also at most ``2 G rho`` with the Lipschitz constant G, which is all there is where phi is not smooth.
    """
    rough = mul_up(2 * total_radius(center, radius), local(center, radius).gradient)
    if not center.activation.smooth:
        return rough
    return np.minimum(second_order(center, radius, shells)[0], rough)


def output_range(center: Center, radius: float | Sequence[float], shells: int = 8) -> tuple[Array, Array]:
    """(lower, upper) bounds on ``N(w; x_i)`` over the region, shape (n,) each: the best of three arguments."""
    here = local(center, radius)
    change = np.minimum(here.change, mul_up(here.gradient, total_radius(center, radius)))
    if center.activation.smooth:
        linear = mul_up(center.gradient, total_radius(center, radius))
        change = np.minimum(change, add_up(linear, second_order(center, radius, shells)[1]))
    return sub_down(center.low, change), add_up(center.high, change)
