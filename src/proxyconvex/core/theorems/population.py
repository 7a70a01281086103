"""T6: from the samples of one pass to the population, with high probability."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from ..conditions import GradientGrowth, ProxyConvexity
from ..methods import SGD, Method
from ..numbers import exact, exp, log, lower_float, minimum, sqrt, upper
from ..premises import Premise
from ..references import FREEDMAN_1975, FREI_CAO_GU_2021, FREI_GU_2021, PROXYCONVEX_NOTES
from ..setting import BoundedProxy, Confidence, IIDRows, IterateRange, projection_range
from .base import Answer, Theorem, check_range, check_steps
from .proxy_convex import best_step, collect_everywhere, collect_samplewise, growth_bound, small_step


def population_from_observed(T: int, observed: Any, *, M: Any, delta: Any, u: Any = 1) -> Any:
    """``[u observed + M log(1/delta)/T] / (1 - e^-u)``: the step from observed to population averages in T6.

    Args:
        T: number of samples.
        observed: (a bound on) the average of ``g_{z_t}(w_t)``.
        M: ``0 <= g_z <= M``.
        delta: failure probability in (0, 1).
        u: parameter > 0 fixed before the data are seen.
    """
    check_steps(T)
    check_range("M", M, above=0)
    check_range("delta", delta, above=0, below=1)
    check_range("u", u, above=0)
    return (u * observed + M * -log(delta) / T) / (1 - exp(-u))


def bernstein_level(T: int, mean: Any, h_max: Any, delta: Any) -> Any:
    """With probability 1 - delta, ``(1/T) sum h_{z_t} <= m + sqrt(2 m M l/T) + M l/(3 T)``, ``l = log(1/delta)``, ``0 <= h_z <= M``.

    Bernstein's inequality with variance at most ``m M``; for v chosen before the rows are seen.
    """
    ell = -log(delta)
    return mean + sqrt(2 * mean * h_max * ell / T) + h_max * ell / (3 * T)


@final
class FreedmanPopulation(Theorem):
    """T6 (one pass over i.i.d. rows: the population average of g).

    **Premises.** T3-samples' premises; rows i.i.d. and each used at most once (one pass, batch size one); ``0 <= g_z <= M`` surely;
    delta and u > 0 fixed before the data are seen.
    **Promise.** With probability at least 1 - delta, ``(1/T) sum_{t<T} g(w_t) <= [u B + M log(1/delta)/T] / (1 - e^-u)``, ``B`` the bound of T3-samples.
    If v was chosen before the stream is seen and ``h`` is the population mean of ``0 <= h_z(v) <= h_max`` (Confidence(comparator_fixed=True)), B may use the mean plus a Bernstein term,
    each part then holding with probability 1 - delta/2; the smaller bound is taken.
    **Proof.** For e in [0, 1] with mean m given the past, ``E exp(-u e) <= 1 - (1 - e^-u) m <= exp(-(1 - e^-u) m)`` by convexity, so
    ``exp(sum [(1 - e^-u) m_t - u e_t])`` is a supermartingale starting at 1; Markov. Take ``e = g_z/M``.
    **Source.** Theory T6 (a one-sided form of Freedman's inequality; Frei, Cao & Gu 2021 use it for neural networks).
    """

    id = "T6"
    title = "Population average after one pass, with high probability"
    statement = (
        "T3-samples' premises, i.i.d. rows used once, 0 <= g_z <= M: with probability >= 1 - delta, (1/T) sum g(w_t) <= "
        "[u B + M log(1/delta)/T] / (1 - e^-u), B the bound of T3-samples."
    )
    references = (FREEDMAN_1975, FREI_CAO_GU_2021, FREI_GU_2021, PROXYCONVEX_NOTES)

    def bound(
        self,
        T: int,
        *,
        eta: Any,
        R: Any,
        A: Any,
        C: Any,
        h: Any,
        M: Any,
        delta: Any,
        u: Any = 1,
        h_mean: Any = None,
    ) -> Any:
        """``h`` is ``h_max``; ``h_mean``, where known, the population mean of ``h_z(v)``."""
        check_range("eta", eta, above=0)

        def with_level(level: Any, risk: Any) -> Any:
            observed = growth_bound(T * eta, T * eta * eta, R=R, A=A, C=C, h=level)
            return population_from_observed(T, observed, M=M, delta=risk, u=u)

        sure = with_level(h, delta)
        if h_mean is None:
            return sure
        return minimum(sure, with_level(bernstein_level(T, h_mean, h, delta / 2), delta / 2))

    def level(self, *, h: Any, u: Any = 1, **_: Any) -> Any:
        """``u h / (1 - e^-u)``: the sampling loses this factor even after many steps."""
        return u * h / (1 - exp(-exact(u)))

    def step_size(self, T: int, *, R: Any, A: Any, C: Any, h: Any, **_: Any) -> float:
        """The best step of T3-samples (B is the only part that depends on it)."""
        return best_step(T, R=R, A=A, C=C, h=h)

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, found = collect_samplewise(self, premises, method)
        take.find(IIDRows)
        bounded, sure = take.find(BoundedProxy, "BoundedProxy(M)"), take.find(Confidence, "Confidence(delta)")
        M = take.number(bounded, "M", "upper")
        delta, u = take.number(sure, "delta", "lower"), take.number(sure, "u", "lower")
        take.everywhere(bounded)
        if isinstance(method, SGD):
            take.require(
                method.sampling == "one-pass",
                f"needs each row at most once, and the sampling is {method.sampling}",
                method.sampling,
                "one-pass",
            )
        pc = take.found(ProxyConvexity)
        mean = None
        fixed = sure is not None and sure.comparator_fixed
        if (
            fixed
            and pc is not None
            and not callable(pc.h)
            and pc.h.side in ("exact", "upper")
            and upper(pc.h.value) >= 0
        ):
            mean = upper(pc.h.value)
        if take.failures or delta is None:
            return take.finish("population-proxy")
        extra = {} if mean is None or mean >= found["h"] else {"h_mean": mean}
        return take.finish(
            "population-proxy",
            mode="probability",
            probability=lower_float(1 - delta),
            M=M,
            delta=delta,
            u=u,
            **found,
            **extra,
        )


@final
class AzumaPopulation(Theorem):
    """T6-azuma (bounded stochastic gradients, high probability).

    **Premises.** PC(g, h) for f in the mean; ``||grad f(w; z)|| <= G`` for every sample (growth (0, G^2), sample-wise); ``||w_t - v|| <= D`` surely
    (by projection, or IterateRange); samples fresh given the past: with replacement (f is then the mean over the stored rows) or one pass
    over i.i.d. rows (f is the population objective).
    **Promise.** With probability at least 1 - delta, ``(1/T) sum g(w_t) <= h + R^2/(2 eta T) + eta G^2/2 + G D sqrt(2 log(1/delta)/T)``.
    **Proof.** T3's expansion with ``<grad f(w_t; z_t), w_t - v>``; it differs from ``<grad f(w_t), w_t - v>`` by a martingale difference that, given the
    past, lies in an interval of length 2 G D; Azuma and Hoeffding.
    **Source.** Theory T6.
    """

    id = "T6-azuma"
    title = "Average of g with bounded gradients, with high probability"
    statement = (
        "Proxy convexity, ||grad f(w; z)|| <= G, ||w_t - v|| <= D, fresh samples: with probability >= 1 - delta, (1/T) sum g(w_t) <= "
        "h + R^2/(2 eta T) + eta G^2/2 + G D sqrt(2 log(1/delta)/T)."
    )
    references = (FREI_GU_2021, PROXYCONVEX_NOTES)

    def bound(self, T: int, *, eta: Any, R: Any, C: Any, D: Any, h: Any, delta: Any) -> Any:
        """``C = G^2``; see the class docstring."""
        check_range("eta", eta, above=0)
        check_range("delta", delta, above=0, below=1)
        check_steps(T)
        zero = 0 * C
        return growth_bound(T * eta, T * eta * eta, R=R, A=zero, C=C, h=h) + sqrt(
            C * D * D * 2 * -log(delta) / T
        )

    def step_size(self, T: int, *, R: Any, C: Any, h: Any, **_: Any) -> float:
        """``R / (G sqrt T)``."""
        return best_step(T, R=R, A=0, C=C, h=h)

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, found = collect_everywhere(self, premises, method)
        eta = take.constant_step(SGD, projection=True)
        small_step(take, eta, found["A"])
        growth, pc = take.found(GradientGrowth), take.found(ProxyConvexity)
        if growth is not None:
            take.require(
                found["A"] == 0,
                f"needs A = 0 (bounded gradients), and A = {growth.A}",
                float(growth.A),
                "A = 0",
            )
            take.require(
                growth.scope == "sample-wise",
                "needs every sample's gradient bounded",
                growth.scope,
                "sample-wise",
            )
        sure = take.find(Confidence, "Confidence(delta)")
        delta = take.number(sure, "delta", "lower")
        given = take.find(IterateRange, optional=True)
        D = None if given is None else take.number(given, "D", "upper")
        if given is not None:
            take.require(not given.on_trace, "needs D known before the run", "ON_TRACE", "a sure bound")
        elif method.projection is not None and pc is not None:
            D = upper(projection_range(method.projection.radius, pc.comparator).value)
        else:
            take.fail("needs a sure bound D on ||w_t - v||", None, "IterateRange(D) or a projection")
        if take.failures or delta is None:
            return take.finish("average-proxy")
        found.pop("A")
        quantity = (
            "population-proxy"
            if isinstance(method, SGD) and method.sampling == "one-pass"
            else "average-proxy"
        )
        return take.finish(
            quantity,
            mode="probability",
            probability=lower_float(1 - delta),
            eta=exact(eta),
            D=D,
            delta=delta,
            **found,
        )


__all__ = ["AzumaPopulation", "FreedmanPopulation", "bernstein_level", "population_from_observed"]
