"""T8: normalised gradient descent on the logistic loss reaches an iterate with fewer than k training errors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, final

import numpy as np
from jaxtyping import Float

from ..errors import InvalidInputError
from ..methods import GradientDescent, Method, NormalisedStep
from ..numbers import exact, lower, upper, upper_float
from ..premises import Premise
from ..references import JI_TELGARSKY_2020, PROXYCONVEX_NOTES
from ..setting import OutputGradient, Start, TangentMargins
from .base import Accepted, Answer, Rejected, Theorem, check_range, check_steps
from .intake import Intake

# NumPy's exp and log are trusted to 8 units in the last place (as in the checker); 2^-46 covers that and the few
# roundings around them, relative to the sum of absolute values.
_MARGIN = 2.0**-46


def _lambert_upper(theta: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Upper bounds on ``W(e^(-theta - 1))``, the solution x of ``x + log x = -theta - 1``.

    The returned x satisfies ``x + log x >= -theta - 1`` with room for rounding, which proves that it is an upper bound.
    """
    from scipy.special import wrightomega

    target = -theta - 1.0
    x = np.maximum(wrightomega(target), 1e-290)
    for _ in range(60):
        excess = x + np.log(x) - target
        short = excess < _MARGIN * (x + np.abs(np.log(x)) + np.abs(target) + 1)
        if not short.any():
            return x
        x = np.where(short, x * (1 + 2.0**-40), x)
    raise InvalidInputError("margins", float(theta.min()), "numbers of moderate size (|q_i| < 600)")


def reaches(q: Float[np.ndarray, " n"], k: int, tau: float) -> bool:
    """Whether ``S_k >= tau`` is proved: ``sum_i p_i (q_i - tau) + psi(p_i) >= 0`` for all p with at least k entries >= 1/2.

    ``psi(p) = p log(p/(1-p))`` is convex with conjugate ``W(e^(s-1))``. With ``theta = q - tau``, a sample that must be an error contributes at least
    ``a = theta/2`` if ``theta >= -2`` else ``-W(e^(-theta-1))``; any other at least ``b = min(a, -W(e^(-theta-1)))`` (the minimum over all p).
    """
    theta = q - tau
    free = -_lambert_upper(theta)
    forced = np.where(theta >= -2.0, theta / 2, free)
    free = np.minimum(free, forced)
    cost = np.sort(forced - free)[:k]
    terms = np.concatenate([free, cost])
    room = _MARGIN * (float(np.abs(terms).sum()) + float(np.abs(theta).sum()) + len(q) * (1 + abs(tau)))
    return math.fsum(terms.tolist()) >= room


def error_level(q: Float[np.ndarray, " n"], k: int) -> float:
    """A proved lower bound on ``S_k``, found by bisection on `reaches`.

    Args:
        q: tangent margins, shape (n,).
        k: number of errors, 1 <= k <= n.
    """
    q = np.asarray(q, float)
    if not 1 <= k <= q.size:
        raise InvalidInputError("k", k, f"a whole number from 1 to {q.size}")
    low = float(q.min()) - math.log(2 * q.size / k) - 2.0
    high = float(q.max()) + 1.0
    while not reaches(q, k, low):
        low -= 1.0 + abs(low)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if reaches(q, k, middle) else (low, middle)
    return low


@final
class NormalisedErrors(Theorem):
    """T8 (normalised gradient descent reaches fewer than k errors).

    **Premises.** Full batch, ``w_{t+1} = w_t - (c / max(P_t, floor)) grad f(w_t)``, ``P_t = mean |loss'|``, logistic loss, ``floor <= k/(2n)``. On
    Ball(V, R), ``R >= ||w_0 - V||``: tangent margins at least ``q_i``; ``||grad N(w; x_i)|| <= G``. With ``S_k`` the minimum of
    ``[sum p_i q_i + psi(p_i)] / sum p_i`` over p in (0,1)^n with at least k entries >= 1/2: ``S_k > 0``, ``0 < c < 2 S_k/G^2`` and
    ``T c (2 S_k - c G^2) > R^2``.
    **Promise.** Some ``w_t``, t < T, has fewer than k training errors: error at most (k-1)/n.
    **Proof.** While there are k errors, ``P_t >= k/(2n) >= floor``, so the step is c/P_t. ``<grad f, w - V> = mean p_i y_i <grad N_i, V - w> >= mean p_i (q_i - m_i)
    = mean (p_i q_i + psi(p_i)) >= S_k P_t`` and ``||grad f|| <= G P_t``, so ``||w - V||^2`` falls by at least ``c (2 S_k - c G^2)`` each step: the iterates stay in
    the ball, and after T such steps it would be negative.
    **Steps.** Best c = S_k/G^2; then any ``T > R^2 G^2/S_k^2``.
    **Source.** This library's notes; the setting is that of Ji & Telgarsky 2020.
    """

    id = "T8"
    title = "Normalised gradient descent reaches fewer than k errors"
    statement = (
        "Tangent margins q_i and ||grad N|| <= G on Ball(V, R), S_k > 0, 0 < c < 2 S_k/G^2, T c (2 S_k - c G^2) > R^2, floor <= k/(2n): "
        "some w_t with t < T makes fewer than k training errors."
    )
    references = (PROXYCONVEX_NOTES, JI_TELGARSKY_2020)

    def bound(self, T: int, *, c: Any, R: Any, G: Any, S: Any, k: int, n: int) -> Any:
        """``(k - 1)/n``, after checking the inequality of the theorem.

        Raises:
            InvalidInputError: if ``T c (2 S - c G^2) > R^2`` is not certainly true.
        """
        check_steps(T)
        check_range("S", S, above=0)
        check_range("c", c, above=0)
        check_range("T c (2 S - c G^2)", self.progress(T, c=c, G=G, S=S), above=R * R)
        return exact(k - 1) / n

    @staticmethod
    def progress(T: int, *, c: Any, G: Any, S: Any) -> Any:
        """``T c (2 S - c G^2)``: how far the squared distance falls while there are k errors."""
        return T * c * (2 * S - c * G * G)

    def step_size(self, T: int, *, S: Any, G: Any, **_: Any) -> float:
        """``c = S/G^2``."""
        return float(exact(S) / exact(G) ** 2)

    def steps(self, eps: Any = None, *, R: Any, G: Any, S: Any, c: Any = None, **_: Any) -> int | None:
        """The smallest T with ``T c (2 S - c G^2) > R^2`` (best c unless one is given); None if there is none.

        ``eps`` plays no role: the promise is about k, which is fixed by ``S = S_k``.
        """
        radius, size, level = upper(R), upper(G), lower(S)
        step = level / size**2 if c is None else exact(c)
        if level <= 0:
            return None
        gain = lower(self.progress(1, c=step, G=size, S=level))
        return math.floor(radius**2 / gain) + 1 if gain > 0 else None

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """Finds the smallest k for which the theorem applies (S_k grows with k)."""
        take = Intake(self, premises, method)
        margins, growth, start = (
            take.find(TangentMargins),
            take.find(OutputGradient, "OutputGradient(G)"),
            take.find(Start),
        )
        G, R = take.number(growth, "G", "upper"), take.distance(margins, start)
        if not isinstance(method, GradientDescent) or not isinstance(method.step, NormalisedStep):
            take.fail(
                "speaks of normalised full-batch steps c/max(P, floor)",
                method.name,
                "NormalisedStep(c, floor)",
            )
        if method.projection is not None:
            take.fail(
                "speaks of unprojected steps, and this method projects its iterates", "projection", "none"
            )
        if R is not None and margins is not None:
            for premise in (margins, growth):
                take.within_reach(premise, margins.comparator, R, "v")
        if (
            take.failures
            or margins is None
            or G is None
            or R is None
            or not isinstance(method.step, NormalisedStep)
        ):
            return take.finish("best-iterate-error")
        return self._smallest_k(take, margins.margins, method.step, method.steps, G, R)

    def _smallest_k(
        self, take: Intake, q: np.ndarray, step: NormalisedStep, T: int, G: Fraction, R: Fraction
    ) -> Answer:
        n, c, floor = q.size, Fraction(step.c), Fraction(step.floor)
        first = max(1, math.ceil(2 * n * floor))

        def fits(k: int) -> bool:
            S = Fraction(error_level(q, k))
            return S > 0 and self.progress(T, c=c, G=G, S=S) > R**2

        if first > n or not fits(n):
            S = error_level(q, n)
            found = float(self.progress(T, c=c, G=G, S=Fraction(S)))
            take.fail(
                f"needs T c (2 S_k - c G^2) > R^2 = {float(R * R):.6g} for some k with floor <= k/(2n), and even for k = n = {n} "
                f"it is {found:.6g} (S_n = {S:.6g})",
                found,
                f"> {float(R * R):.6g}: more steps, a smaller floor, or a better comparator",
            )
            return take.finish("best-iterate-error")
        low, high = first - 1, n
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        answer = take.finish("best-iterate-error", c=c, R=R, G=G, S=Fraction(error_level(q, high)))
        assert isinstance(answer, Accepted)
        answer.constants.update(k=high, n=n)
        return answer

    def error_bound(self, answer: Accepted, method: Method) -> float | None:
        """The bound itself is about the error."""
        return upper_float(self.bound(method.steps, **answer.constants))


__all__ = ["NormalisedErrors", "Rejected", "error_level", "reaches"]
