"""T3: proxy convexity under gradient growth (Frei & Gu 2021, Theorem 3.2, with explicit constants)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, final

import numpy as np

from ..conditions import GradientGrowth, ProxyConvexity
from ..errors import InvalidInputError
from ..methods import SGD, ConstantStep, GradientDescent, Method, PolynomialStep
from ..numbers import Interval, exact, lower, minimum, upper
from ..premises import Premise
from ..references import FREI_GU_2021, PROXYCONVEX_NOTES
from ..setting import Start
from .base import Answer, Theorem, check_range, check_steps
from .intake import Intake, step_below


def convexity_level(take: Intake, pc: ProxyConvexity | None) -> Fraction | None:
    """An upper bound on ``h(v)``; a failure for a pointwise ``h`` that has none."""
    if pc is None:
        return None
    level = pc.level
    if level is None:
        take.fail(
            "needs h uniform on the region, and this h depends on w",
            "pointwise h",
            "h_max, an upper bound on h(v, w) over the region",
        )
        return None
    if level.evidence is not None and level.evidence < pc.weakest():
        take.notes.append("h(v) was evaluated in floating point; its rounding error is not bounded.")
    return take.side(level, "h(v)", "upper")


def growth_bound(S: Any, Q: Any, *, R: Any, A: Any, C: Any, h: Any) -> Any:
    """``[h + (R^2 + Q C)/(2 S)] / (1 - A Q/(2 S))``: the one formula behind every form of T3.

    ``S = sum of steps``, ``Q = sum of squared steps``. It follows from ``0 <= R^2 - 2 sum eta_t (g_t - h) + sum eta_t^2 (A g_t + C)``.
    """
    check_range("A Q/(2 S)", A * Q / (2 * S), below=1)
    return (h + (R * R + Q * C) / (2 * S)) / (1 - A * Q / (2 * S))


def virtual_step(T: int, *, eta: Any, R: Any, A: Any, C: Any, h: Any) -> Fraction:
    """The virtual last step ``s`` in (0, 1/A] that minimises T3's bound, rounded to a float (any such s is valid).

    With ``K = C + A h``, ``S_1 = (T-1) eta``, ``Q_1 = (T-1) eta^2``, the derivative vanishes where
    ``K s^2 + (A R^2 + 2 K S_1) s = R^2 + K Q_1``; the root is at most 1/A for eta <= 2/A.
    """
    e, r, a = float(exact(eta)), float(exact(R)), float(exact(A))
    k = max(float(exact(C)) + a * float(exact(h)), 0.0)
    s1, q1 = (T - 1) * e, (T - 1) * e * e
    b, c = a * r * r + 2 * k * s1, r * r + k * q1
    root = b + math.sqrt(b * b + 4 * k * c)
    s = 2 * c / root if root > 0 else e
    if not (math.isfinite(s) and s > 0):
        s = e
    return min(Fraction(s), 1 / upper(A)) if a > 0 else Fraction(s)


def virtual_bound(T: int, *, eta: Any, R: Any, A: Any, C: Any, h: Any, s: Any = None) -> Any:
    """T3's bound when the last of the ``T`` evaluated gradients takes the virtual step ``s``."""
    if s is None:
        s = virtual_step(T, eta=_point(eta), R=_point(R), A=_upper(A), C=_point(C), h=_point(h))
    check_range("s A", s * A, above=None, at_most=2)
    if not any(isinstance(x, Fraction | Interval) for x in (eta, R, A, C, h)):
        s = float(s)
    return growth_bound((T - 1) * eta + s, (T - 1) * eta * eta + s * s, R=R, A=A, C=C, h=h)


def _point(x: Any) -> Fraction:
    return (lower(x) + upper(x)) / 2


def _upper(x: Any) -> Fraction:
    return upper(x)


def best_step(T: int, *, R: Any, A: Any, C: Any, h: Any) -> float:
    """Minimiser of T3's bound: ``1 / (A/2 + sqrt(A^2/4 + (C + A h) T / R^2))``.

    Raises:
        InvalidInputError: if the growth bound is (0, 0), which says that the gradient vanishes.
    """
    r2, a, c, level = (float(exact(x)) for x in (R * R, A, C, h))
    check_range("R", R, above=0)
    root = a * a / 4 + (c + a * level) * T / r2
    if root < 0 or (a == 0 and root == 0):
        raise InvalidInputError(
            "(A, C, h)",
            (a, c, level),
            "A g + C > 0",
            "With such constants the gradient vanishes or h lies below g.",
        )
    return 1 / (a / 2 + math.sqrt(root))


def collect(
    theorem: Theorem, premises: Iterable[Premise], method: Method
) -> tuple[Intake, Any, Any, dict[str, Any]]:
    """PC, growth, start: shared by every form of T3 (regions and step sizes are checked by the caller)."""
    take = Intake(theorem, premises, method)
    pc, growth, start = (
        take.find(ProxyConvexity),
        take.find(GradientGrowth, "GradientGrowth(A, C)"),
        take.find(Start),
    )
    take.same_proxy(pc, growth)
    take.same_objective(pc, growth)
    h = convexity_level(take, pc)
    A, C = take.number(growth, "A", "upper"), take.number(growth, "C", "upper")
    R = take.distance(pc, start)
    return take, pc, growth, {"R": R, "A": A, "C": C, "h": h}


def collect_everywhere(
    theorem: Theorem, premises: Iterable[Premise], method: Method
) -> tuple[Intake, dict[str, Any]]:
    """As `collect`, for conditions that hold wherever the run goes, for GD or for SGD with fresh samples."""
    take, pc, growth, found = collect(theorem, premises, method)
    stochastic = isinstance(method, SGD)
    why = "it speaks of one run, and this bound of the mean over runs"
    for premise in (pc, growth):
        take.everywhere(premise, trace=not stochastic, why=why)
    take.projection_contains(pc)
    if stochastic:
        take.fresh_samples()
        if growth is not None:
            take.require(
                growth.scope != "full-batch",
                "needs growth of the stochastic gradient, and this growth bound is about the full gradient",
                growth.scope,
                "scope 'expectation' or 'sample-wise'",
            )
    return take, found


def small_step(take: Intake, eta: Fraction | None, A: Fraction | None) -> None:
    """``eta < 2/A``."""
    if A is not None and A > 0:
        step_below(take, eta, 2 / A, "2/A")


@final
class AverageGrowth(Theorem):
    """T3 (proxy convexity and growth, GD or SGD, average).

    **Premises.** PC(g, h) and GradientGrowth(A, C) wherever the run goes; 0 < eta < 2/A. For SGD: samples fresh given the past (not
    shuffled or cyclic epochs) and growth of the second moment. Projection onto a ball that contains v is allowed.
    **Promise.** ``(1/T) sum_{t<T} E g(w_t) <= [h(v) + R^2/(2 eta T) + eta C/2] / (1 - eta A/2)`` (no E for GD).
    **Proof.** ``||w_{t+1} - v||^2 <= ||w_t - v||^2 - 2 eta <d_t, w_t - v> + eta^2 ||d_t||^2``; insert PC and growth, sum, divide.
    **Source.** Frei & Gu 2021, Theorem 3.2.
    """

    id = "T3"
    title = "Proxy convexity with gradient growth"
    statement = (
        "Proxy convexity, growth (A, C), eta < 2/A: the average of (E) g(w_t) over t < T is at most "
        "[h + R^2/(2 eta T) + eta C/2] / (1 - eta A/2)."
    )
    references = (FREI_GU_2021, PROXYCONVEX_NOTES)

    def bound(self, T: int, *, eta: Any, R: Any, A: Any, C: Any, h: Any) -> Any:
        """``[h + R^2/(2 eta T) + eta C/2] / (1 - eta A/2)``."""
        check_steps(T)
        check_range("eta", eta, above=0)
        return growth_bound(T * eta, T * eta * eta, R=R, A=A, C=C, h=h)

    def step_size(self, T: int, *, R: Any, A: Any, C: Any, h: Any, **_: Any) -> float:
        """See `best_step`."""
        return best_step(T, R=R, A=A, C=C, h=h)

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, found = collect_everywhere(self, premises, method)
        eta = take.constant_step(SGD if isinstance(method, SGD) else GradientDescent, projection=True)
        small_step(take, eta, found["A"])
        return take.finish(
            take.quantity("average", take.found(ProxyConvexity)),
            **({} if take.failures else {"eta": eta, **found}),
        )


@final
class BestGrowth(Theorem):
    """T3-virtual (proxy convexity and growth, best iterate).

    **Premises.** As T3.
    **Promise.** With ``S = (T-1) eta + s``, ``Q = (T-1) eta^2 + s^2``: ``min_{t<T} (E) g(w_t) <= min_s [h + (R^2 + Q C)/(2 S)] / (1 - A Q/(2 S))`` over
    0 < s <= 1/A, or the same with T = 1 if that is smaller.
    **Proof.** The last of the T evaluated gradients is never stepped along, so give it any virtual step s: the proof of T3 needs only
    ``0 <= ||w_{T-1} - s d - v||^2``, and every ``2 eta_t - A eta_t^2 >= 0``. The minimum over fewer iterates is not smaller. Exactly the worst case
    if and only if ``(1 - eta A/2) bound >= h + eta C/2``. For A = 0, C = G^2: ``h + sqrt(G^2 R^2 + T(T-1) eta^2 G^4) - (T-1) eta G^2``.
    **Source.** This library's notes, sharpening Frei & Gu 2021, Theorem 3.2.
    """

    id = "T3-virtual"
    title = "Proxy convexity with gradient growth, best iterate"
    statement = (
        "T3's premises: min_{t<T} (E) g(w_t) <= min over 0 < s <= 1/A of [h + (R^2 + Q C)/(2 S)] / (1 - A Q/(2 S)), "
        "S = (T-1) eta + s, Q = (T-1) eta^2 + s^2."
    )
    references = (PROXYCONVEX_NOTES, FREI_GU_2021)

    def bound(self, T: int, *, eta: Any, R: Any, A: Any, C: Any, h: Any, s: Any = None) -> Any:
        """The smaller of the bounds for ``T`` steps and for one step; ``s`` is optimised unless it is given."""
        check_steps(T)
        check_range("eta", eta, above=0)
        check_range("eta A", eta * A, at_most=2)
        long = virtual_bound(T, eta=eta, R=R, A=A, C=C, h=h, s=s)
        return minimum(long, virtual_bound(1, eta=eta, R=R, A=A, C=C, h=h))

    def step_size(self, T: int, *, R: Any, A: Any, C: Any, h: Any, **_: Any) -> float:
        """T3's best step (within a factor 1 + O(1/T) of optimal here)."""
        return best_step(T, R=R, A=A, C=C, h=h)

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, found = collect_everywhere(self, premises, method)
        eta = take.constant_step(SGD if isinstance(method, SGD) else GradientDescent, projection=True)
        small_step(take, eta, found["A"])
        return take.finish(
            take.quantity("best", take.found(ProxyConvexity)),
            **({} if take.failures else {"eta": eta, **found}),
        )


def schedule_sums(step: ConstantStep | PolynomialStep, T: int) -> tuple[Any, Any, Fraction]:
    """Enclosures of ``sum eta_t`` and ``sum eta_t^2`` for t < T, and the largest step.

    `math.fsum` is correctly rounded; ``(1 + t/scale)^power`` in float64 is trusted to 32 units in the last place.
    """
    if isinstance(step, ConstantStep):
        eta = Fraction(step.eta)
        return T * eta, T * eta * eta, eta
    if T > 10**8:
        raise InvalidInputError("steps", T, "at most 10^8 steps of a decreasing schedule")
    first, second = [], []
    for start in range(0, T, 2**18):
        t = np.arange(start, min(T, start + 2**18), dtype=float)
        eta = step.eta / (1 + t / step.scale) ** step.power
        first.append(math.fsum(eta.tolist()))
        second.append(math.fsum((eta * eta).tolist()))
    error = Fraction(1, 2**44)
    S, Q = (Fraction(math.fsum(x)) for x in (first, second))
    return (
        Interval(S * (1 - error), S * (1 + error)),
        Interval(Q * (1 - error), Q * (1 + error)),
        Fraction(step.eta),
    )


@final
class ScheduleGrowth(Theorem):
    """T3-steps (proxy convexity and growth, any step sizes).

    **Premises.** As T3, with step sizes eta_t <= 2/A.
    **Promise.** ``sum eta_t (1 - eta_t A/2) g_t <= h sum eta_t + R^2/2 + (C/2) sum eta_t^2``, so
    ``min_{t<T} (E) g(w_t) <= [h + (R^2 + Q C)/(2 S)] / (1 - A Q/(2 S))``, ``S = sum eta_t``, ``Q = sum eta_t^2``.
    **Proof.** As T3, before the division; the weights ``eta_t (1 - eta_t A/2)`` are not negative.
    **Source.** Frei & Gu 2021, Theorem 3.2, for varying steps.
    """

    id = "T3-steps"
    title = "Proxy convexity with gradient growth, any step sizes"
    statement = (
        "Proxy convexity, growth (A, C), steps eta_t <= 2/A, S = sum eta_t, Q = sum eta_t^2: min_{t<T} (E) g(w_t) <= "
        "[h + (R^2 + Q C)/(2 S)] / (1 - A Q/(2 S))."
    )
    references = (FREI_GU_2021, PROXYCONVEX_NOTES)

    def bound(self, T: int, *, S: Any, Q: Any, R: Any, A: Any, C: Any, h: Any) -> Any:
        """The bound for given sums of the steps and of their squares (``T`` enters through them)."""
        check_steps(T)
        check_range("S", S, above=0)
        return growth_bound(S, Q, R=R, A=A, C=C, h=h)

    def step_size(self, T: int, *, R: Any, A: Any, C: Any, h: Any, **_: Any) -> float:
        """The best constant step; by convexity no other schedule of T steps has a smaller bound."""
        return best_step(T, R=R, A=A, C=C, h=h)

    def steps(self, eps: Any, **constants: Any) -> int | None:
        """Refused: the sums belong to one number of steps.

        Raises:
            InvalidInputError: always; evaluate `bound` with the sums of each candidate.
        """
        raise InvalidInputError("T3-steps", "steps", "a theorem with a constant step", "Use T3.steps.")

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, found = collect_everywhere(self, premises, method)
        if not isinstance(method.step, ConstantStep | PolynomialStep):
            take.fail(
                "needs steps fixed in advance, and these depend on the iterates", method.step, "a schedule"
            )
            return take.finish("best-proxy")
        S, Q, largest = schedule_sums(method.step, method.steps)
        if found["A"]:
            limit = 2 / found["A"]
            take.require(
                largest <= limit,
                f"needs every step at most 2/A = {float(limit):.6g}, and the first is {float(largest):.6g}",
                float(largest),
                f"eta_0 <= {float(limit):.6g}",
            )
            if not take.failures and not upper(found["A"] * Q / (2 * S)) < 1:
                take.fail("needs A sum eta_t^2 < 2 sum eta_t", float(largest), "smaller steps")
        return take.finish(
            take.quantity("best", take.found(ProxyConvexity)),
            **({} if take.failures else {"S": S, "Q": Q, **found}),
        )


@final
class SampleGrowth(Theorem):
    """T3-samples (sample-wise proxy convexity and growth, SGD, every single run, any order of samples).

    **Premises.** PC and growth for every single sample; ``h_z(v) <= h_max``; 0 < eta < 2/A; batch size one.
    **Promise.** ``(1/T) sum_t g_{z_t}(w_t) <= [h_max + R^2/(2 eta T) + eta C/2] / (1 - eta A/2)``, for every run and every order.
    **Proof.** As T3 with the sample's own inequality at each step; nothing random is used.
    **Source.** Frei & Gu 2021 (v1), proof of Theorem 3.2, before taking expectations.
    """

    id = "T3-samples"
    title = "Sample-wise proxy convexity, every run and every order"
    statement = (
        "Sample-wise proxy convexity and growth, eta < 2/A, samples in any order: (1/T) sum g_{z_t}(w_t) <= "
        "[h_max + R^2/(2 eta T) + eta C/2] / (1 - eta A/2), on every run."
    )
    references = (FREI_GU_2021, PROXYCONVEX_NOTES)

    def bound(self, T: int, *, eta: Any, R: Any, A: Any, C: Any, h: Any) -> Any:
        """T3's formula; ``h`` bounds the average of ``h_{z_t}(v)``."""
        check_steps(T)
        check_range("eta", eta, above=0)
        return growth_bound(T * eta, T * eta * eta, R=R, A=A, C=C, h=h)

    def step_size(self, T: int, *, R: Any, A: Any, C: Any, h: Any, **_: Any) -> float:
        """See `best_step`."""
        return best_step(T, R=R, A=A, C=C, h=h)

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, found = collect_samplewise(self, premises, method)
        return take.finish("online-proxy", mode="every-run", **({} if take.failures else found))


def collect_samplewise(
    theorem: Theorem, premises: Iterable[Premise], method: Method
) -> tuple[Intake, dict[str, Any]]:
    """The premises of the sample-wise form, including the step size."""
    take, pc, growth, found = collect(theorem, premises, method)
    eta = take.constant_step(SGD, projection=True)
    for premise in (pc, growth):
        take.everywhere(premise)
    take.projection_contains(pc)
    if isinstance(method, SGD):
        take.require(
            method.batch_size == 1, f"speaks of single samples, and the batch size is {method.batch_size}",
            method.batch_size, "batch_size = 1",
        )  # fmt: skip
    if pc is not None:
        take.require(
            pc.samplewise, "needs proxy convexity for every single sample", "in the mean", "samplewise=True"
        )
        if pc.h_max is None:
            take.fail(
                "needs h_max, an upper bound on every sample's h_z(v)", None, "ProxyConvexity(..., h_max=...)"
            )
            found["h"] = None
        else:
            found["h"] = take.side(pc.h_max, "h_max", "upper")
    if growth is not None:
        take.require(
            growth.scope == "sample-wise",
            "needs growth for every single sample",
            growth.scope,
            "scope 'sample-wise'",
        )
    small_step(take, eta, found["A"])
    return take, {"eta": eta, **found}


__all__ = [
    "AverageGrowth", "BestGrowth", "SampleGrowth", "ScheduleGrowth", "best_step", "collect", "collect_samplewise",
    "convexity_level", "growth_bound", "virtual_bound",
]  # fmt: skip
