"""Convex programs that choose the comparator of the leaky-relu-noise family.

Each minimises a guarantee over the vector ``u`` (see `proxyconvex_checker.leaky_relu_noise` for the guarantees) in
the limit of a long comparator (kappa to infinity), where it is jointly convex: ``q(s) = min(s, s/c)`` is concave, the
charges are maxima of affine functions of q, and ``||u||^2 / theta`` is jointly convex.

The solver's output is a hint. The bound of a plan is evaluated at ``u`` by the checker, which never sees the solver.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..core.errors import InvalidInputError

if TYPE_CHECKING:
    import cvxpy as cp

# Clarabel ends at the first of the two gaps, so the absolute one must be out of reach for promises near 1e-5.
_CLARABEL = {
    "tol_gap_abs": 1e-13,
    "tol_gap_rel": 1e-10,
    "tol_feas": 1e-10,
    "tol_ktratio": 1e-8,
    "max_iter": 200,
}
_QUICK = {"tol_gap_abs": 1e-7, "tol_gap_rel": 1e-5, "tol_feas": 1e-8}


@dataclass(frozen=True)
class Solution:
    """A comparator direction and what it is worth.

    Attributes:
        u: the vector, shape (d,).
        theta: the step size in units of ``kappa / growth`` (error form only, else 0).
        value: the objective, re-evaluated at ``u`` in NumPy.
    """

    u: Float[np.ndarray, " d"]
    theta: float
    value: float


@dataclass(frozen=True)
class Rows:
    """Signed data ``y_i x_i``, shape (n, d), and the leak ``c``."""

    z: Float[np.ndarray, "n d"]
    slope: float

    def unit_margins(self, u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
        """``q_i = q(y_i <u, x_i>)``."""
        s = self.z @ u
        return np.minimum(s, s / self.slope)


def error_form(rows: Rows, growth: float, steps: int, quick: bool = False) -> Solution:
    """Least ``mean max(0, 1 + theta/4 - q, 1 + theta - 2 q) + growth ||u||^2 / (T c^2 theta)`` (T3e, T3f, T6e).

    Args:
        rows: the data.
        growth: ``X^2`` (single rows) or ``lambda_max`` (full batch).
        steps: number of steps T.
        quick: three digits are enough (to compare preprocessings).
    """
    import cvxpy as cp

    weight = growth / (steps * rows.slope**2)

    def build(scale: float) -> tuple[cp.Problem, tuple[cp.Variable, ...]]:
        u, theta, slack = cp.Variable(rows.z.shape[1]), cp.Variable(), cp.Variable(len(rows.z), nonneg=True)
        soft, hard, constraints = _margins(rows, u)
        constraints += [slack >= 1 + theta / 4 - soft, slack >= 1 + theta - 2 * hard]
        cost = cp.sum(slack) / len(rows.z) + weight * cp.quad_over_lin(u, theta)
        return cp.Problem(cp.Minimize(cost / scale), constraints), (u, theta)

    def evaluate(u: Any, theta: Any) -> float:
        return error_form_value(rows, growth, steps, u, max(float(theta), 1e-9))

    (u, theta), value = _solved(build, evaluate, quick)
    return Solution(u, max(float(theta), 1e-9), value)


def error_form_value(
    rows: Rows, growth: float, steps: int, u: Float[np.ndarray, " d"], theta: float
) -> float:
    """The objective of `error_form` in NumPy."""
    q = rows.unit_margins(u)
    charge = np.maximum(np.maximum(1 + theta / 4 - q, 1 + theta - 2 * q), 0.0)
    return float(charge.mean() + growth * (u @ u) / (steps * rows.slope**2 * theta))


def update_form(rows: Rows, growth: float, steps: int, quick: bool = False) -> Solution:
    """Least ``mean (1 + theta/2 - q)_+ + growth ||u||^2 / (2 T c^2 theta)`` (T3u of leaky-relu-hinge); as `error_form`."""
    import cvxpy as cp

    weight = growth / (2 * steps * rows.slope**2)

    def build(scale: float) -> tuple[cp.Problem, tuple[cp.Variable, ...]]:
        u, theta, slack = cp.Variable(rows.z.shape[1]), cp.Variable(), cp.Variable(len(rows.z), nonneg=True)
        _, hard, constraints = _margins(rows, u)
        cost = cp.sum(slack) / len(rows.z) + weight * cp.quad_over_lin(u, theta)
        return cp.Problem(cp.Minimize(cost / scale), [*constraints, slack >= 1 + theta / 2 - hard]), (
            u,
            theta,
        )

    def evaluate(u: Any, theta: Any) -> float:
        theta = max(float(theta), 1e-9)
        charge = np.maximum(1 + theta / 2 - rows.unit_margins(u), 0.0)
        return float(charge.mean() + weight * (u @ u) / theta)

    (u, theta), value = _solved(build, evaluate, quick)
    return Solution(u, max(float(theta), 1e-9), value)


def hard_margin(rows: Rows) -> Solution | None:
    """Shortest u with ``y_i <u, x_i> >= 1`` for every row, or None if the solver finds none."""
    import cvxpy as cp

    def build(scale: float) -> tuple[cp.Problem, tuple[cp.Variable, ...]]:
        u = cp.Variable(rows.z.shape[1])
        return cp.Problem(cp.Minimize(cp.sum_squares(u) / scale**2), [rows.z @ u >= 1]), (u,)

    solved = _solve(build, lambda u: float(np.linalg.norm(u)), False)
    if solved is None or not rows.unit_margins(solved[0][0]).min() > 0:
        return None
    return Solution(solved[0][0], 0.0, solved[1])


def count_form(rows: Rows, radius: float, steps: int) -> Solution:
    """Least ``k / n`` that T8 can exclude within T steps, as a real number.

    In the limit ``S_k > tau`` reads ``k > sum_i max(0, 1 - (q_i - tau)/2, 1 - (q_i - tau))`` for some multiple of u (a
    linear program in the k wrong rows, dualised), and T steps suffice if ``tau >= X ||u|| / (c sqrt T)``.
    """
    import cvxpy as cp

    pace = radius / (rows.slope * math.sqrt(steps))

    def build(scale: float) -> tuple[cp.Problem, tuple[cp.Variable, ...]]:
        u, tau, slack = cp.Variable(rows.z.shape[1]), cp.Variable(), cp.Variable(len(rows.z), nonneg=True)
        soft, hard, constraints = _margins(rows, u)
        constraints += [tau >= pace * cp.norm(u), slack >= 1 - (soft - tau) / 2, slack >= 1 - (hard - tau)]
        return cp.Problem(cp.Minimize(cp.sum(slack) / (len(rows.z) * scale)), constraints), (u,)

    def evaluate(u: Any) -> float:
        q = rows.unit_margins(u) - pace * float(np.linalg.norm(u))
        return float(np.maximum(np.maximum(1 - q / 2, 1 - q), 0.0).mean())

    (u,), value = _solved(build, evaluate, False)
    return Solution(u, 0.0, value)


def margin_form(rows: Rows, k: int) -> Solution | None:
    """Shortest u with ``S_k >= 1`` in the limit: the fewest steps that exclude k errors.

    ``S_k >= 1`` iff ``k t - sum_i max(0, t - (q_i - 1)/2, t - (q_i - 1)) >= 0`` for some ``t >= 0``. None if there is
    none.
    """
    import cvxpy as cp

    def build(scale: float) -> tuple[cp.Problem, tuple[cp.Variable, ...]]:
        u, t, slack = (
            cp.Variable(rows.z.shape[1]),
            cp.Variable(nonneg=True),
            cp.Variable(len(rows.z), nonneg=True),
        )
        soft, hard, constraints = _margins(rows, u)
        constraints += [k * t >= cp.sum(slack), slack >= t - (soft - 1) / 2, slack >= t - (hard - 1)]
        return cp.Problem(cp.Minimize(cp.norm(u) / scale), constraints), (u,)

    solved = _solve(build, lambda u: float(np.linalg.norm(u)), False)
    return None if solved is None else Solution(solved[0][0], 0.0, solved[1])


def gradient_form(rows: Rows, gradient: float) -> Solution:
    """Least ``mean max(0, 1 - q, 1 - 2 q) + 2 (||u|| / c) gradient`` (T1): the error where the gradient is this small."""
    import cvxpy as cp

    weight = 2 * gradient / rows.slope

    def build(scale: float) -> tuple[cp.Problem, tuple[cp.Variable, ...]]:
        u, slack = cp.Variable(rows.z.shape[1]), cp.Variable(len(rows.z), nonneg=True)
        soft, hard, constraints = _margins(rows, u)
        constraints += [slack >= 1 - soft, slack >= 1 - 2 * hard]
        cost = cp.sum(slack) / len(rows.z) + weight * cp.norm(u)
        return cp.Problem(cp.Minimize(cost / scale), constraints), (u,)

    def evaluate(u: Any) -> float:
        q = rows.unit_margins(u)
        return float(np.maximum(np.maximum(1 - q, 1 - 2 * q), 0.0).mean() + weight * np.linalg.norm(u))

    (u,), value = _solved(build, evaluate, False)
    return Solution(u, 0.0, value)


def _margins(rows: Rows, u: cp.Variable) -> tuple[Any, Any, list[Any]]:
    """``y <u, x>``, a variable below ``q(y <u, x>)``, and the constraints that make them so.

    For a row with ``q < 0`` the steeper of the two slopes in every charge is the larger one, so that the gentler one
    may use ``y <u, x>`` in place of q. As variables, the data enter the program once.
    """
    import cvxpy as cp

    s = cp.Variable(len(rows.z))
    constraints = [s == rows.z @ u]
    if rows.slope == 1:
        return s, s, constraints
    q = cp.Variable(len(rows.z))
    return s, q, [*constraints, q <= s, q <= s / rows.slope]


def _solved(build: Any, evaluate: Any, quick: bool) -> Any:
    """`_solve` where there is a point, namely zero.

    Raises:
        InvalidInputError: if the solver finds none: numbers beyond its reach.
    """
    found = _solve(build, evaluate, quick)
    if found is None:
        raise InvalidInputError(
            "settings", "numbers beyond the reach of the convex solver", "a leak, sharpness and features of ordinary size",
            "Choose a larger --slope (0.5), a smaller --beta, or rescale the data.",
        )  # fmt: skip
    return found


def _solve(build: Any, evaluate: Any, quick: bool) -> Any:
    """Solve twice: the second time with the objective divided by the first value, so that it is near one.

    Returns:
        The better of the two points as arrays with its value re-evaluated in NumPy, or None if there is no point.
    """
    import cvxpy as cp

    best, scale = None, 1.0
    for _ in range(1 if quick else 2):
        problem, variables = build(scale)
        with warnings.catch_warnings():
            # "Solution may be inaccurate" refers to the tolerances asked for here; the point is re-evaluated anyway.
            warnings.simplefilter("ignore")
            try:
                problem.solve(solver=cp.CLARABEL, **(_QUICK if quick else _CLARABEL))
            except cp.SolverError:
                continue
        if any(v.value is None or not np.isfinite(v.value).all() for v in variables):
            continue
        point = tuple(np.asarray(v.value, dtype=np.float64) for v in variables)
        value = evaluate(*point)
        if best is None or value < best[1]:
            best = (point, value)
        scale = value if value > 0 else 1.0
    return best
