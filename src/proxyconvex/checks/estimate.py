"""Constants from data and from runs, each with the side on which it is known.

What points show is one-sided: no value better than the worst point allows can be true. Such a number is a bound from the side
that theorems do *not* want, and says so (`Constant.side`), so that they refuse it. The only number here that a theorem may
use as a smoothness constant is `smoothness_upper`, which is a proved bound computed with outward rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.conditions import Smooth
from ..core.errors import InvalidInputError
from ..core.evidence import Evidence
from ..core.premises import Constant, Premise
from ..core.regions import checked_point
from .estimate_constants import STRONGER, checked_name, critical_values
from .falsify.candidates import random_points, structured_points
from .falsify.candidates_regions import flat
from .falsify.parameters import ParameterProblem

if TYPE_CHECKING:
    from jaxtyping import Float


def estimate(
    condition: Premise,
    constant: str,
    *,
    points: Sequence[Any] | None = None,
    like: Any = None,
    seed: int = 0,
    evidence: Evidence = Evidence.SAMPLED,
) -> Constant:
    """The best value of a constant that some points allow: a one-sided bound on the true one.

    Example:
        >>> import numpy as np
        >>> from proxyconvex import Smooth, estimate
        >>> square = Smooth(1.0, f=lambda w: 3 * w @ w / 2)
        >>> str(estimate(square, "L", points=[(np.zeros(2), np.array([1.0, 0.0]))]))
        '>= 3'

    Args:
        condition: on parameters, with its functions; its own value of the constant is not used.
        constant: ``mu``, ``xi``, ``L``, ``f_star``, ``A``, ``C`` (or ``B``), ``rho``, ``sigma2`` or ``h``.
        points: parameters ``w`` (for smoothness pairs ``(w, u)``), for example the iterates of a run. If left out,
            structured and random points of the region.
        like: shape of the parameters, where the condition does not show it.
        seed: of the random points.
        evidence: SAMPLED, or ON_TRACE for the iterates of a run.

    Returns:
        A constant with side ``"lower"`` where smaller values claim more (``L``, ``A``, ...: the true value is at least this), else
        ``"upper"`` (``mu``, ``f_star``). Both are the side that theorems refuse. Computed in float64.

    Raises:
        InvalidInputError: for an unknown constant, or if no point says anything about it.
    """
    name = checked_name(condition, constant)
    if name == "alpha":
        raise InvalidInputError(
            "constant",
            constant,
            "a constant with one side",
            "Each point allows an interval of exponents: use pc.tightest.",
        )
    if like is None and points is not None and len(points):
        first = points[0]
        like = (
            first[0]
            if isinstance(condition, Smooth) and isinstance(first, tuple | list) and len(first) == 2
            else first
        )
    problem = ParameterProblem(condition, like)
    if points is None:
        rng = np.random.default_rng([seed, 0])
        rows = np.concatenate([structured_points(problem, lambda: rng), random_points(problem, 4096, rng)])
    else:
        rows = np.stack([_row(p, problem) for p in points]) if len(points) else np.zeros((0, problem.size))
    values = critical_values(condition, name, rows, like) if len(rows) else np.zeros(0)
    values = values[np.isfinite(values)]
    if not values.size:
        raise InvalidInputError(
            "points", len(rows), "points at which the constant has an influence",
            "Smoothness, for example, compares two different points: pass pairs (w, u).",
        )  # fmt: skip
    if STRONGER[type(condition)][name] < 0:
        return Constant(float(values.max()), "lower", evidence)
    return Constant(float(values.min()), "upper", evidence)


def _row(point: Any, problem: ParameterProblem) -> Float[np.ndarray, " p"]:
    parts = tuple(point) if problem.pair and isinstance(point, tuple | list) and len(point) == 2 else (point,)
    row = np.concatenate([flat(checked_point("points", p)) for p in parts])
    if row.size != problem.size:
        accepted = f"{problem.size} numbers" + (", a pair (w, u)" if problem.pair else "")
        raise InvalidInputError("points", row.size, accepted)
    return row


# --- smoothness ----------------------------------------------------------------------------------------------------


def smoothness_upper(features: Float[np.ndarray, "n d"], activation: Any, width: int) -> Constant:
    """A proved smoothness constant of the mean logistic loss of a two-layer network, on all of R^(m d).

    ``N(W; x) = m^(-1/2) sum_r a_r phi(<w_r, x>)`` with ``|a_r| = 1`` and the rows ``w_r`` trained. For a direction V the
    second derivative of the mean loss is ``mean[loss'' <grad N, V>^2 + loss' y V'(Hess N)V]``. There ``0 <= loss'' <= 1/4``,
    ``|loss'| <= 1``, ``<grad N, V>^2 <= sup|phi'|^2 sum_r <V_r, x>^2`` (Cauchy-Schwarz, ``sum a_r^2/m = 1``) and
    ``|V'(Hess N)V| <= (H/sqrt m) sum_r <V_r, x>^2``; the mean of ``sum_r <V_r, x>^2`` is at most ``lambda_max(C) ||V||^2``,
    ``C = (1/n) sum x x'``. So ``L = lambda_max(C) (sup|phi'|^2/4 + H/sqrt m)``; here ``sup|phi'| = 1``. The eigenvalue
    is bounded with outward rounding.

    Args:
        features: rows x, shape (n, d).
        activation: a smooth `families.activations.Activation`, with ``|phi''| <= H``.
        width: m.

    Raises:
        InvalidInputError: for an activation with a kink, or data that are not a finite matrix.
    """
    from fractions import Fraction

    from proxyconvex_checker.rounding import lambda_max_upper, matmul_enclosure

    if not getattr(activation, "smooth", False):
        raise InvalidInputError(
            "activation",
            activation,
            "a smooth activation (softplus, smooth-leaky)",
            "A network with kinks has no smoothness constant.",
        )
    if not isinstance(width, int) or width < 1:
        raise InvalidInputError("width", width, "a whole number >= 1")
    x = checked_point("features", features)
    if np.ndim(x) != 2:
        raise InvalidInputError("features", np.shape(x), "a matrix with one row per sample")
    gram = matmul_enclosure(x.T, x) if x.shape[1] <= len(x) else matmul_enclosure(x, x.T)
    spread = Fraction(lambda_max_upper(*gram)) / len(x)
    # curvature is (1 - c) beta / 4 of floats, rounded at most twice; the factor covers it and the rounded root.
    curvature = Fraction(float(activation.curvature)) * (1 + Fraction(1, 2**50))
    root = Fraction(math.isqrt(width << 100), 1 << 50)  # rounded down
    return Constant(spread * (Fraction(1, 4) + curvature / root), "upper", Evidence.CERTIFIED)


def curvature_lower(f: Callable[[Any], Any], w: Any, *, iterations: int = 50, seed: int = 0) -> Constant:
    """Power iteration for the largest curvature of ``f`` at ``w``: a *lower* bound on every smoothness constant around w.

    Power iteration stops below the largest eigenvalue (and sees one point only), so this can never serve as L; theorems
    refuse it. For its last direction V the quotient ``|V' Hess f(w) V| / ||V||^2`` is enclosed in ball arithmetic; where an
    operation of f has no enclosure it is left in float64, evidence SAMPLED.

    Args:
        f: twice differentiable around ``w``, traceable by JAX.
        w: point, an array or pytree.
        iterations: Hessian-vector products.
        seed: of the first direction.
    """
    import jax
    import jax.flatten_util

    from .falsify.balls import Unsupported, enclose

    point = checked_point("w", w)
    with jax.enable_x64(True):
        x, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda a: np.asarray(a, float), point))

        def quadratic(u: Any, v: Any) -> Any:
            slope = jax.grad(lambda z: f(unravel(z)))
            return jax.numpy.vdot(jax.jvp(slope, (u,), (v,))[1], v)

        product = jax.jit(lambda u, v: jax.grad(quadratic, argnums=1)(u, v) / 2)
        v = np.random.default_rng(seed).normal(size=x.size)
        for _ in range(iterations):
            new = np.asarray(product(x, v / np.linalg.norm(v)))
            if not np.isfinite(new).all() or not np.any(new):
                break
            v = new
        v = v / np.linalg.norm(v)
        try:
            ball = enclose(
                lambda pair: quadratic(pair[0], pair[1]) / jax.numpy.vdot(pair[1], pair[1]),
                (np.asarray(x), v),
            )
            if ball.is_finite():
                low = ball.abs_lower()
                value = float(low.mid())
                value = value if low >= value else float(np.nextafter(value, 0.0))
                return Constant(max(value, 0.0), "lower", Evidence.CERTIFIED)
        except Unsupported:
            pass
        return Constant(abs(float(quadratic(x, v))), "lower", Evidence.SAMPLED)


# --- statistics ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A statistical estimate of a mean, with its confidence interval.

    Attributes:
        value: the sample mean.
        low: lower end.
        high: upper end.
        confidence: probability, over the samples, with which the interval contains the mean.
        samples: how many.
        method: where the interval comes from and what it assumes.
    """

    value: float
    low: float
    high: float
    confidence: float
    samples: int
    method: str

    @property
    def constant(self) -> Constant:
        """As a `Constant` of side "estimate", which no theorem accepts."""
        return Constant(self.value, "estimate", Evidence.SAMPLED)

    def __str__(self) -> str:
        return f"about {self.value:.6g}, between {self.low:.6g} and {self.high:.6g} with confidence {self.confidence:g} ({self.samples} samples; {self.method})"


def estimate_mean(
    samples: Any, *, confidence: float = 0.95, bounds: tuple[float, float] | None = None
) -> Estimate:
    """Mean of independent samples with a confidence interval.

    With known ``bounds`` of a single sample: the empirical Bernstein interval of Maurer and Pontil (2009), valid for every n.
    Without: Student's t interval, which is exact for normal samples only and says so.

    Args:
        samples: shape (n,), n >= 2, independent and identically distributed.
        confidence: in (0, 1).
        bounds: numbers between which every sample surely lies.

    Raises:
        InvalidInputError: for fewer than two samples, values that are not finite or outside the bounds.
    """
    x = np.asarray(samples, float)
    if x.ndim != 1 or x.size < 2 or not np.isfinite(x).all():
        raise InvalidInputError("samples", np.shape(x), "a vector of at least two finite numbers")
    if not 0 < confidence < 1:
        raise InvalidInputError("confidence", confidence, "a number in (0, 1)", "Try 0.95.")
    n, mean, variance = x.size, float(x.mean()), float(x.var(ddof=1))
    if bounds is None:
        from scipy.stats import t

        half = float(t.ppf((1 + confidence) / 2, n - 1)) * math.sqrt(variance / n)
        return Estimate(
            mean, mean - half, mean + half, confidence, n, "Student's t, exact for normal samples only"
        )
    low, high = map(float, bounds)
    if not low < high or x.min() < low or x.max() > high:
        raise InvalidInputError(
            "bounds", bounds, f"bounds of every sample (they span {x.min():.6g} to {x.max():.6g})"
        )
    logarithm = math.log(4 / (1 - confidence))  # two sides, each with half of the failure probability
    half = math.sqrt(2 * variance * logarithm / n) + 7 * (high - low) * logarithm / (3 * (n - 1))
    return Estimate(
        mean,
        max(low, mean - half),
        min(high, mean + half),
        confidence,
        n,
        "empirical Bernstein, for every distribution on the bounds",
    )


def estimate_noise(gradients: Float[np.ndarray, "n p"], *, confidence: float = 0.95) -> Estimate:
    """Variance ``E||grad f(w; z) - grad f(w)||^2`` at one point, from independent stochastic gradients there.

    The squared deviations from the sample mean are rescaled by n/(n-1), which makes the estimate unbiased. It speaks of this
    one point; a `Noise` premise needs a bound on a whole region.

    Args:
        gradients: one stochastic gradient a row.
        confidence: of the interval (Student's t on the squared deviations).

    Raises:
        InvalidInputError: for fewer than two rows.
    """
    g = np.asarray(gradients, float)
    if g.ndim != 2 or len(g) < 2:
        raise InvalidInputError(
            "gradients", g.shape, "a matrix with one stochastic gradient a row, at least two"
        )
    squares = np.sum((g - g.mean(axis=0)) ** 2, axis=1) * len(g) / (len(g) - 1)
    return estimate_mean(squares, confidence=confidence)
