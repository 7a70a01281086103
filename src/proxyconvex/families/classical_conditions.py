"""Classical conditions on classical problems, with exact constants and their short proofs.

Every function returns premises by name, made with the constructors of `proxyconvex.core.classical`; they can be checked
point by point (`slack`), handed to `proxyconvex.guarantee` and `explain`, and are tested against closed forms. Constants
of data are in plain floating point, moved to their safe side by a relative 1e-9; the certified ones of the two problems
that the command line trains are computed by `proxyconvex_checker.classical`.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..core.classical import (
    convex,
    kurdyka_lojasiewicz,
    polyak_lojasiewicz,
    quasar_convex,
    restricted_secant,
    star_convex,
    strongly_convex,
)
from ..core.conditions import Smooth
from ..core.errors import InvalidInputError
from ..core.evidence import Evidence
from ..core.premises import Constant, Premise
from ..core.regions import Ball

SAFE = 1e-9
Premises = dict[str, Premise]


def least_squares(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> Premises:
    """``f(w) = ||X w - y||^2 / (2n)``; ``C = X^T X / n`` with smallest nonzero eigenvalue ``l`` and largest ``L``.

    With a minimiser w*, ``f - f* = (w-w*)^T C (w-w*) / 2`` and ``grad f = C (w - w*)``. On the range of C,
    ``||grad f||^2 >= l (w-w*)^T C (w-w*) = 2 l (f - f*)``: PL with exactly m = l, hence KL with theta = 1/2, c = sqrt(2 l);
    ``<grad f, w - w*> = 2 (f - f*)``, so star-convexity and quasar-convexity with zeta = 1 hold with room to spare, and
    ``>= l dist^2(w, minimisers)``: RSI with exactly l; strongly convex with the smallest eigenvalue (0 if it is singular).

    Returns:
        ``convex, strongly convex, star-convex, quasar-convex, rsi, pl, kl, smooth``.
    """
    c, n = x.T @ x / len(x), len(x)
    values, vectors = np.linalg.eigh(c)
    kept = values > values[-1] * len(values) * 1e-13
    low, top = float(values[kept][0]) * (1 - SAFE), float(values[-1]) * (1 + SAFE)
    basis = vectors[:, kept]
    star = basis @ ((basis.T @ (x.T @ y / n)) / values[kept])
    least = float(np.sum((x @ star - y) ** 2)) / (2 * n)

    def f(w: Any) -> Any:
        r = x @ w - y
        return r @ r / (2 * n)

    def grad(w: Any) -> Any:
        return x.T @ (x @ w - y) / n

    def distance(w: Any) -> Any:
        e = basis.T @ (w - star)
        return e @ e

    full = low if kept.all() else 0.0
    where: dict[str, Any] = {"grad": grad, "evidence": Evidence.PROVED}
    # PL and KL stay true for a level a little above the infimum, and the float may lie on either side of it.
    least *= 1 + SAFE
    return {
        "convex": convex(f, comparator=star, **where),
        "strongly convex": strongly_convex(f, Constant(full, "lower"), comparator=star, **where),
        "star-convex": star_convex(f, minimiser=star, **where),
        "quasar-convex": quasar_convex(f, 1, minimiser=star, **where),
        "rsi": restricted_secant(f, Constant(low, "lower"), comparator=star, distance_sq=distance, **where),
        "pl": polyak_lojasiewicz(f, Constant(low, "lower"), least, **where),
        "kl": kurdyka_lojasiewicz(
            f, Constant(float(np.sqrt(2 * low)) * (1 - SAFE), "lower"), 0.5, least, **where
        ),
        "smooth": Smooth(Constant(top, "upper"), f, grad, evidence=Evidence.PROVED),
    }


def logistic_regression(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], v: Float[np.ndarray, " d"], radius: float
) -> Premises:
    """``f(w) = mean log(1 + exp(-y <w, x>))``: convex, ``L = lambda_max / 4``; strongly convex on a ball around v.

    The second derivative is ``C(p) = mean p(1-p) x x^T``, ``p = 1/(1 + exp(y <w, x>))``, between
    ``min_i p_i (1 - p_i) C`` and ``C / 4``. On ``||w - v|| <= radius`` row i has ``|<w, x_i>| <= |<v, x_i>| + radius ||x_i||``,
    where ``p (1-p) = 1 / (4 cosh^2(t/2))`` is least, so ``m = lambda_min(C) min_i 1/(4 cosh^2((|<v,x_i>| + radius ||x_i||)/2))``.
    For v itself only the ball matters: a ball is convex, so the segment from w to v stays in it.

    Returns:
        ``convex``, ``strongly convex`` (on the ball) and ``smooth``.
    """
    if not radius > 0:
        raise InvalidInputError("radius", radius, "a finite number > 0")
    values = np.linalg.eigvalsh(x.T @ x / len(x))
    reach = np.abs(x @ v) + radius * np.linalg.norm(x, axis=1)
    least = float(np.min(1 / (4 * np.cosh(np.minimum(reach, 700) / 2) ** 2)))
    m = max(float(values[0]), 0.0) * least * (1 - SAFE)

    def f(w: Any) -> Any:
        return jnp.mean(jnp.logaddexp(0.0, -y * (x @ w)))

    where: dict[str, Any] = {"evidence": Evidence.PROVED}
    return {
        "convex": convex(f, comparator=v, **where),
        "strongly convex": strongly_convex(
            f, Constant(m, "lower"), comparator=v, region=Ball(v, radius), **where
        ),
        "smooth": Smooth(Constant(float(values[-1]) / 4 * (1 + SAFE), "upper"), f, evidence=Evidence.PROVED),
    }


def rank_one(z: Float[np.ndarray, " d"], radius: float) -> Premises:
    """``f(u) = ||u u^T - z z^T||_F^2 / 4``: RSI towards z on a ball of radius rho, ``m = ||z||^2 - (5/4) rho^2``.

    ``grad f(u) = ||u||^2 u - <z, u> z``. With ``u = z + e``, ``p = <e, z>``, ``s = ||e||^2``, ``Z = ||z||^2``:
    ``<grad f, e> = p^2 + 3 p s + s Z + s^2 = (p + 3s/2)^2 + s (Z - 5s/4)``. The square vanishes at ``p = -3s/2``, possible
    for ``sqrt s <= (2/3) ||z||``: there the constant is exact. The ball must not reach ``-z``, nor ``rho >= sqrt(4/5) ||z||``.
    On it RSI gives PL-like growth too: ``||grad f|| >= m ||e||`` (Cauchy and Schwarz).

    Returns:
        ``rsi``.

    Raises:
        InvalidInputError: if the ball is too large for the constant to be positive.
    """
    size = float(z @ z)
    m = size - 1.25 * radius**2

    def f(u: Any) -> Any:
        square = u @ u
        return (square**2 - 2 * (u @ z) ** 2 + size**2) / 4

    def grad(u: Any) -> Any:
        return (u @ u) * u - (u @ z) * z

    return {"rsi": _secant(f, grad, z, m, radius, 0.894 * size**0.5)}


def phase_retrieval(z: Float[np.ndarray, " d"], radius: float) -> Premises:
    """``f(w) = E (<x, w>^2 - <x, z>^2)^2 / 4``, x standard normal: RSI towards z, ``m = 2 ||z||^2 - (33/16) rho^2``.

    Gaussian moments give ``f = (3 ||w||^4 + 3 ||z||^4 - 2 ||w||^2 ||z||^2 - 4 <w, z>^2) / 4`` and
    ``grad f = (3 ||w||^2 - ||z||^2) w - 2 <w, z> z``. With ``w = z + e`` and p, s, Z as in `rank_one`:
    ``<grad f, e> = 2 Z s + 4 p^2 + 9 p s + 3 s^2 = (2p + 9s/4)^2 + s (2 Z - (33/16) s)``, exact where ``p = -9s/8`` is
    possible (``sqrt s <= (8/9) ||z||``).

    Returns:
        ``rsi``.

    Raises:
        InvalidInputError: if the ball is too large for the constant to be positive.
    """
    size = float(z @ z)
    m = 2 * size - 33 / 16 * radius**2

    def f(w: Any) -> Any:
        square = w @ w
        return (3 * square**2 + 3 * size**2 - 2 * square * size - 4 * (w @ z) ** 2) / 4

    def grad(w: Any) -> Any:
        return (3 * (w @ w) - size) * w - 2 * (w @ z) * z

    return {"rsi": _secant(f, grad, z, m, radius, 0.984 * size**0.5)}


def linear_network(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    width: int,
    start: Float[np.ndarray, " p"],
    radius: float,
) -> Premises:
    """Two-layer linear network ``f(W, a) = ||X W^T a - y||^2 / (2n)``: PL around a start with a large second layer.

    Let ``g = X^T (X W^T a - y) / n`` be the least-squares gradient at ``W^T a``. Then ``grad_W f = a g^T`` and
    ``grad_a f = W g``, so ``||grad f||^2 = ||a||^2 ||g||^2 + ||W g||^2 >= ||a||^2 2 l (f - f*)`` by the PL inequality of least
    squares, with f* its minimum: ``m = l (||a_0|| - radius)^2`` on the ball of that radius around the start.

    Args:
        x: shape (n, d).
        y: shape (n,).
        width: number of hidden units.
        start: W (row by row), then a, shape (width d + width,).
        radius: of the ball, less than ``||a_0||``.

    Returns:
        ``pl``.

    Raises:
        InvalidInputError: if the second layer may vanish on the ball.
    """
    n, d = x.shape
    reach = float(np.linalg.norm(start[width * d :])) - radius
    if not reach > 0:
        raise InvalidInputError(
            "radius", radius, f"less than the norm {reach + radius:.6g} of the second layer"
        )
    plain = least_squares(x, y)["pl"]
    low, least = float(plain.mu) / 4, plain.xi  # type: ignore[attr-defined]

    def f(p: Any) -> Any:
        w, a = p[: width * d].reshape(width, d), p[width * d :]
        r = x @ (w.T @ a) - y
        return r @ r / (2 * n)

    m = low * reach**2 * (1 - SAFE)
    return {
        "pl": polyak_lojasiewicz(
            f, Constant(m, "lower"), least, region=Ball(start, radius), evidence=Evidence.PROVED
        )
    }


def _secant(f: Any, grad: Any, z: np.ndarray, m: float, radius: float, limit: float) -> Premise:
    if not (radius > 0 and m > 0):
        raise InvalidInputError(
            "radius", radius, f"a number in (0, {limit:.6g})", "The constant would not be positive."
        )
    return restricted_secant(
        f, Constant(m * (1 - SAFE), "lower"), comparator=z, unique=True, grad=grad, region=Ball(z, radius),
        evidence=Evidence.PROVED,
    )  # fmt: skip
