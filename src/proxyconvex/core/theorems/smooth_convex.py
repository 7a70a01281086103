"""T4 and T5: proxy convexity under smoothness, and both theorems with conditions that hold only on a ball around v."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, final

from ..conditions import BoundedBelow, ProxyConvexity
from ..methods import GradientDescent, Method
from ..numbers import exact, maximum, minimum, sqrt, upper
from ..premises import Premise
from ..references import FREI_GU_2021, JI_TELGARSKY_2020, PROXYCONVEX_NOTES
from ..regions import WholeSpace
from ..setting import Start
from .base import Answer, Theorem, check_range, check_steps
from .intake import Intake, gap, smoothness, step_below
from .proxy_convex import best_step, collect, convexity_level, growth_bound, small_step, virtual_bound


def smooth_step(*, R: Any, L: Any, Delta: Any) -> float:
    """Minimiser of T4's bound: ``1 / (L/2 + sqrt(L Delta/2) / R)``; between 0 and 2/L."""
    check_range("R", R, above=0)
    size, smooth, drop = (float(exact(x)) for x in (R, L, Delta))
    return 1 / (smooth / 2 + math.sqrt(smooth * drop / 2) / size) * (1 if drop > 0 else 1 - 2**-20)


def local_radius(*, eta: Any, R: Any, L: Any, Delta: Any) -> Any:
    """``R' = sqrt(R^2 + eta Delta / (1 - L eta/2))``, at most ``sqrt(R^2 + 2 eta Delta)`` for eta <= 1/L."""
    return sqrt(R * R + eta * Delta / (1 - L * eta / 2))


def _collect(theorem: Theorem, premises: Iterable[Premise], method: Method) -> tuple[Intake, dict[str, Any]]:
    """PC, smoothness, lower bound, start and a step below 2/L."""
    take = Intake(theorem, premises, method)
    eta = take.constant_step(GradientDescent)
    pc, below, start = (
        take.find(ProxyConvexity),
        take.find(BoundedBelow, "BoundedBelow(f_star)"),
        take.find(Start),
    )
    smooth, L = smoothness(take, trace=True)
    take.same_objective(pc, smooth, below)
    for premise in (smooth, below):
        if premise is None or premise.on_trace or isinstance(premise.region, WholeSpace):
            continue
        take.fail(
            f"needs {premise.name} on all of R^p, not only on {premise.region}",
            str(premise.region),
            "WholeSpace()",
        )
    h, R = convexity_level(take, pc), take.distance(pc, start)
    Delta = gap(take.number(start, "value", "upper"), take.number(below, "f_star", "lower"), take)
    step_below(take, eta, None if L is None else 2 / L, "2/L")
    return take, {"eta": eta, "R": R, "L": L, "Delta": Delta, "h": h}


class _SmoothForm(Theorem):
    """The formula and the step shared by T4 and T4T5."""

    references = (FREI_GU_2021, JI_TELGARSKY_2020, PROXYCONVEX_NOTES)

    def bound(self, T: int, *, eta: Any, R: Any, L: Any, Delta: Any, h: Any) -> Any:
        """``h + R^2/(2 eta T) + Delta / (2 T (1 - L eta/2))``."""
        check_steps(T)
        check_range("L eta", L * eta, above=0, below=2)
        return h + R * R / (2 * eta * T) + Delta / (2 * T * (1 - L * eta / 2))

    def step_size(self, T: int, *, R: Any, L: Any, Delta: Any, **_: Any) -> float:
        """See `smooth_step`."""
        return smooth_step(R=R, L=L, Delta=Delta)


@final
class SmoothConvex(_SmoothForm):
    """T4 (proxy convexity and smoothness, gradient descent: no noise floor).

    **Premises.** PC(g, h) wherever the run goes; f L-smooth (ON_TRACE: the measured descent inequality at each step) and f >= f_star;
    0 < eta < 2/L.
    **Promise.** ``(1/T) sum_{t<T} g(w_t) <= h(v) + R^2/(2 eta T) + Delta/(2 T (1 - L eta/2))``; for eta <= 1/L the last term is at most
    ``Delta/T`` (the published form). If g = f the final loss ``f(w_T)`` obeys it, because f decreases.
    **Proof.** ``eta^2 ||grad f(w_t)||^2 <= eta (f(w_t) - f(w_{t+1}))/(1 - L eta/2)`` by smoothness; insert it, and PC, into the expansion of
    ``||w_{t+1} - v||^2``; sum.
    **Source.** Frei & Gu 2021 (v3); Ji & Telgarsky 2020, Lemma 2.6.
    """

    id = "T4"
    title = "Proxy convexity with smoothness, no noise floor"
    statement = (
        "Proxy convexity, Smooth(L), f >= f_star, eta < 2/L: the average of g(w_t) over t < T is at most "
        "h + R^2/(2 eta T) + Delta/(2 T (1 - L eta/2)); if g = f this bounds the final loss."
    )

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, found = _collect(self, premises, method)
        pc = take.found(ProxyConvexity)
        take.everywhere(pc)
        quantity = take.quantity("average", pc)
        quantity = "final-loss" if quantity == "average-loss" else quantity
        return take.finish(quantity, **({} if take.failures else found))


@final
class LocalSmoothConvex(_SmoothForm):
    """T4T5 (T4 with proxy convexity on a ball around v only).

    **Premises.** As T4, but PC only on Ball(v, R'), ``R'^2 = R^2 + eta Delta/(1 - L eta/2)``; smoothness and f >= f_star on all of R^p.
    **Promise.** ``min_{t<T} g(w_t) <= h(v) + R^2/(2 eta T) + Delta/(2 T (1 - L eta/2))`` (the minimum, never the average). If g = f the final
    loss ``f(w_T)`` obeys it.
    **Proof.** While PC held so far, ``||w_t - v||^2 <= R^2 - 2 eta sum_{s<t} (g_s - h) + eta Delta/(1 - L eta/2)``. Until the partial sum first
    turns negative the iterates are in the ball. If it turns negative, some ``g_s < h``; afterwards they may leave. If it does not, T4.
    **Source.** Theory T5 after Frei & Gu 2021 and Ji & Telgarsky 2020.
    """

    id = "T4T5"
    title = "Proxy convexity on a ball, with smoothness"
    statement = (
        "Proxy convexity on Ball(v, R'), R'^2 = R^2 + eta Delta/(1 - L eta/2), Smooth(L) and f >= f_star everywhere, eta < 2/L: "
        "min_{t<T} g(w_t) <= h + R^2/(2 eta T) + Delta/(2 T (1 - L eta/2)); if g = f this bounds the final loss."
    )

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, found = _collect(self, premises, method)
        pc = take.found(ProxyConvexity)
        eta, R, L, Delta = (found[k] for k in ("eta", "R", "L", "Delta"))
        if None not in (eta, R, L, Delta) and eta * L < 2:
            radius = upper(local_radius(eta=eta, R=R, L=L, Delta=Delta))
            take.within_reach(pc, pc.comparator if pc else None, radius, "v")
        quantity = take.quantity("best", pc)
        quantity = "final-loss" if quantity == "best-loss" else quantity
        return take.finish(quantity, **({} if take.failures else found))


@final
class LocalGrowth(Theorem):
    """T3T5 (proxy convexity and growth on a ball around v only, gradient descent, best iterate).

    **Premises.** PC(g, h) and growth (A, C) on Ball(v, R), ``R >= ||w_0 - v||``; 0 < eta < 2/A; full-batch, unprojected.
    **Promise.** ``min_{t<T} g(w_t) <= max(T3-virtual's bound, (h + eta C/2)/(1 - eta A/2))``, which is at most T3's bound (or the one-step bound, if
    that is smaller). The minimum only, never the average.
    **Proof.** ``||w_{t+1} - v||^2 <= ||w_t - v||^2 - 2 eta [(1 - eta A/2) g_t - h - eta C/2]``. If the bracket is negative for some t < T, that g_t is
    below the second number. Otherwise all iterates stay in the ball and T3-virtual applies. A last-iterate claim (g = f) would also need
    Smooth(L), eta <= 2/L.
    **Source.** Theory T5 after Frei & Gu 2021.
    """

    id = "T3T5"
    title = "Proxy convexity with gradient growth on a ball"
    statement = (
        "Proxy convexity and growth (A, C) on Ball(v, R), eta < 2/A: min_{t<T} g(w_t) is at most the larger of T3-virtual's bound and "
        "(h + eta C/2)/(1 - eta A/2)."
    )
    references = (FREI_GU_2021, PROXYCONVEX_NOTES)

    def bound(self, T: int, *, eta: Any, R: Any, A: Any, C: Any, h: Any) -> Any:
        """See the class docstring."""
        check_steps(T)
        check_range("eta", eta, above=0)
        check_range("eta A", eta * A, below=2)
        drift = (h + eta * C / 2) / (1 - eta * A / 2)
        long = maximum(virtual_bound(T, eta=eta, R=R, A=A, C=C, h=h), drift)
        plain = growth_bound(T * eta, T * eta * eta, R=R, A=A, C=C, h=h)
        return minimum(minimum(long, plain), virtual_bound(1, eta=eta, R=R, A=A, C=C, h=h))

    def step_size(self, T: int, *, R: Any, A: Any, C: Any, h: Any, **_: Any) -> float:
        """T3's best step."""
        return best_step(T, R=R, A=A, C=C, h=h)

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, pc, growth, found = collect(self, premises, method)
        eta: Fraction | None = take.constant_step(GradientDescent)
        small_step(take, eta, found["A"])
        if found["R"] is not None:
            for premise in (pc, growth):
                take.within_reach(premise, pc.comparator if pc else None, found["R"], "v")
        return take.finish(take.quantity("best", pc), **({} if take.failures else {"eta": eta, **found}))


__all__ = ["LocalGrowth", "LocalSmoothConvex", "SmoothConvex", "local_radius", "smooth_step"]
