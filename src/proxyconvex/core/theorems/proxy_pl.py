"""T1 and T2: the proxy PL inequality under smoothness (Frei & Gu 2021, Theorem 3.1, with explicit constants)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, final

from ..conditions import BoundedBelow, Noise, ProxyPL
from ..methods import SGD, GradientDescent, Method
from ..numbers import exact, minimum, power, sqrt, upper
from ..premises import Premise
from ..references import ABBASZADEHPEIVASTI_2021, FREI_GU_2021, PROXYCONVEX_NOTES
from ..regions import WholeSpace
from ..setting import Start
from .base import Accepted, Answer, Rejected, Theorem, check_range, check_steps
from .intake import Intake, gap, smoothness, step_below


def reach(T: int, eta: Any, L: Any, Delta: Any) -> Any:
    """``sqrt(eta T Delta / (1 - L eta/2))``: no iterate of T1 is farther from ``w_0``.

    Proof: ``||w_t - w_0|| <= eta sum ||grad|| <= eta (T sum ||grad||^2)^(1/2)`` and ``sum ||grad||^2 <= Delta/(eta(1-L eta/2))``.
    The same estimate along a partial step shows that smoothness is needed on that ball only.
    """
    return sqrt(eta * T * Delta / (1 - L * eta / 2))


def _collect(
    theorem: Theorem, premises: Iterable[Premise], method: Method, sharp: bool
) -> tuple[Intake, dict[str, Any]]:
    """Premises shared by the three forms of T1; ``sharp`` asks for smoothness and the lower bound on all of R^p."""
    take = Intake(theorem, premises, method)
    eta = take.constant_step(GradientDescent)
    pl, below, start = take.find(ProxyPL), take.find(BoundedBelow, "BoundedBelow(f_star)"), take.find(Start)
    smooth, L = smoothness(take, trace=not sharp)
    take.same_objective(pl, smooth, below)
    mu, xi, alpha = (take.number(pl, n, s) for n, s in (("mu", "lower"), ("xi", "upper"), ("alpha", "lower")))
    Delta = gap(take.number(start, "value", "upper"), take.number(below, "f_star", "lower"), take)
    step_below(take, eta, None if L is None else 2 / L, "2/L")
    if sharp and below is not None and below.on_trace:
        take.fail(
            "needs f >= f_star on all of R^p, not only on the trace",
            "ON_TRACE",
            "BoundedBelow on the whole space",
        )
    if eta is not None and L is not None and Delta is not None and eta * L < 2:
        radius = upper(reach(method.steps, eta, L, Delta))
        for premise in (pl, *(() if sharp else (smooth, below))):
            take.within_reach(premise, start.point if start else None, radius, "w_0")
    if sharp:
        for premise in (smooth, below):
            if premise is not None and not isinstance(premise.region, WholeSpace):
                take.fail(
                    f"needs {premise.name} on all of R^p, not only on {premise.region}",
                    str(premise.region),
                    "WholeSpace()",
                )
    return take, {"eta": eta, "L": L, "Delta": Delta, "mu": mu, "xi": xi, "alpha": alpha}


class _T1Form(Theorem):
    """What plain and sharp T1 share: the shape of the bound and the choice of the step."""

    limit_name = "xi"

    def bracket(self, T: int, *, eta: Any, L: Any, Delta: Any) -> Any:
        """Bound on ``min_t ||grad f(w_t)||^2``."""
        raise NotImplementedError

    def bound(self, T: int, *, eta: Any, L: Any, Delta: Any, mu: Any, xi: Any, alpha: Any) -> Any:
        """``xi + (2/mu) bracket^(alpha/2)``."""
        check_steps(T)
        check_range("mu", mu, above=0)
        check_range("alpha", alpha, above=0)
        return xi + 2 / mu * power(self.bracket(T, eta=eta, L=L, Delta=Delta), alpha / 2)


@final
class PlainProxyPL(_T1Form):
    """T1 (proxy PL, gradient descent).

    **Premises.** PPL(g, xi, alpha, mu) at the iterates; f L-smooth on the step segments and f >= f_star; 0 < eta < 2/L.
    **Promise.** ``min_{t<T} g(w_t) <= xi + (2/mu) [Delta / (eta (1 - L eta/2) T)]^(alpha/2)``, ``Delta = f(w_0) - f_star``;
    for alpha <= 2 the average of ``(g(w_t) - xi)_+`` obeys the same bound (`average_bound`).
    **Proof.** Smoothness gives ``f(w_{t+1}) <= f(w_t) - eta (1 - L eta/2) ||grad f(w_t)||^2``; sum over t < T. The smallest squared
    gradient is at most the average, and PPL turns it into g. For alpha <= 2, ``x^(alpha/2)`` is concave (Jensen).
    PPL, smoothness and the lower bound are needed only on the ball of radius `reach` around w_0.
    **Source.** Frei & Gu 2021, Theorem 3.1.
    """

    id = "T1"
    title = "Proxy PL, gradient descent"
    statement = "Smooth(L), f >= f_star, proxy PL, eta < 2/L: min_{t<T} g(w_t) <= xi + (2/mu) [Delta / (eta (1 - L eta/2) T)]^(alpha/2)."
    references = (FREI_GU_2021, PROXYCONVEX_NOTES)

    def bracket(self, T: int, *, eta: Any, L: Any, Delta: Any) -> Any:
        """``Delta / (eta (1 - L eta/2) T)``."""
        check_range("L eta", L * eta, above=0, below=2)
        return Delta / (eta * (1 - L * eta / 2) * T)

    def average_bound(self, T: int, *, eta: Any, L: Any, Delta: Any, mu: Any, xi: Any, alpha: Any) -> Any:
        """The same bound, for the average of ``xi + (g(w_t) - xi)_+``; needs alpha <= 2."""
        check_range("alpha", alpha, above=0, at_most=2)
        return self.bound(T, eta=eta, L=L, Delta=Delta, mu=mu, xi=xi, alpha=alpha)

    def step_size(self, T: int, *, L: Any, **_: Any) -> float:
        """``1/L`` maximises ``eta (1 - L eta/2)``."""
        return float(1 / exact(L))

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, constants = _collect(self, premises, method, sharp=False)
        return take.finish(take.quantity("best", take.found(ProxyPL)), **_complete(take, constants))


@final
class SharpProxyPL(_T1Form):
    """T1-sharp (proxy PL, gradient descent, exact worst case for eta <= 1/L).

    **Premises.** As T1, with f L-smooth *and* >= f_star on all of R^p (a region or ON_TRACE does not suffice); 0 < eta < sqrt(3)/L.
    **Promise.** ``min_{t<T} g(w_t) <= xi + (2/mu) [4 Delta / ((T-1) eta min(4 - L eta, 4 - L^2 eta^2) + 2/L)]^(alpha/2)``. For the minimum
    only: the average may exceed it.
    **Proof.** Abbaszadehpeivasti, de Klerk, Zamani: smooth interpolation inequalities between consecutive iterates, and between the
    last one and f_star; at most 3/2 better than T1 at eta = 1/L. It is attained (eta <= 1/L) in one dimension by a function whose
    derivative is U at all iterates, dips linearly with slopes -L, L in between, and falls to 0 with slope -L after the last.
    **Steps.** ``T >= 1 + [4 Delta (mu eps/2)^(-2/alpha) - 2/L] / (eta (4 - L eta))`` for eta <= 1/L.
    **Source.** Abbaszadehpeivasti, de Klerk & Zamani 2021, Theorem 2, with PPL as in Frei & Gu 2021.
    """

    id = "T1-sharp"
    title = "Proxy PL, gradient descent, exact worst case"
    statement = (
        "Smooth(L) and f >= f_star on all of R^p, proxy PL, eta < sqrt(3)/L: min_{t<T} g(w_t) <= xi + (2/mu) "
        "[4 Delta / ((T-1) eta min(4 - L eta, 4 - L^2 eta^2) + 2/L)]^(alpha/2)."
    )
    references = (ABBASZADEHPEIVASTI_2021, FREI_GU_2021)

    def bracket(self, T: int, *, eta: Any, L: Any, Delta: Any) -> Any:
        """``4 Delta / ((T-1) eta min(4 - L eta, 4 - L^2 eta^2) + 2/L)``."""
        x = L * eta
        check_range("L eta", x, above=0)
        check_range("(L eta)^2", x * x, below=3)
        return 4 * Delta / ((T - 1) * eta * minimum(4 - x, 4 - x * x) + 2 / L)

    def step_size(self, T: int, *, L: Any, **_: Any) -> float:
        """``(2/sqrt 3)/L`` maximises ``eta min(4 - L eta, 4 - L^2 eta^2)``; the bound is known to be exact up to ``1/L``."""
        return 2 / math.sqrt(3) / float(exact(L))

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take, constants = _collect(self, premises, method, sharp=True)
        eta, L = constants["eta"], constants["L"]
        if eta is not None and L is not None:
            take.require(
                (eta * L) ** 2 < 3,
                f"needs a step size below sqrt(3)/L = {math.sqrt(3) / float(L):.6g}, and eta = {float(eta):.6g}",
                float(eta),
                "eta < sqrt(3)/L",
            )
        return take.finish(take.quantity("best", take.found(ProxyPL)), **_complete(take, constants))


@final
class LinearProxyPL(Theorem):
    """T1-last (PL, gradient descent, last iterate).

    **Premises.** As T1, with alpha = 2, g = f and xi <= f_star (the PL inequality for f itself); 0 < eta < 2/L.
    **Promise.** ``f(w_T) <= f_star + (1 - eta (1 - L eta/2) mu/2)_+^T Delta``.
    **Proof.** ``Delta_{t+1} <= Delta_t - eta (1 - L eta/2) ||grad||^2`` and ``||grad||^2 >= (mu/2)(f - xi) >= (mu/2) Delta_t``.
    **Source.** Polyak's linear rate in the form of theory T1 (Frei & Gu 2021, section 2, relate PL and proxy PL).
    """

    id = "T1-last"
    title = "PL, gradient descent, linear rate of the last iterate"
    statement = "T1's premises with alpha = 2, g = f, xi <= f_star: f(w_T) <= f_star + (1 - eta (1 - L eta/2) mu/2)_+^T Delta."
    references = (FREI_GU_2021, PROXYCONVEX_NOTES)
    limit_name = "f_star"

    def bound(self, T: int, *, eta: Any, L: Any, Delta: Any, mu: Any, f_star: Any) -> Any:
        """``f_star + (1 - eta (1 - L eta/2) mu/2)_+^T Delta``."""
        check_steps(T)
        check_range("L eta", L * eta, above=0, below=2)
        rate = 1 - eta * (1 - L * eta / 2) * mu / 2
        return f_star + power(rate if upper(rate) > 0 else exact(0) * rate, T) * Delta

    def step_size(self, T: int, *, L: Any, **_: Any) -> float:
        """``1/L``."""
        return float(1 / exact(L))

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        premises = tuple(premises)
        take, c = _collect(self, premises, method, sharp=False)
        pl = next((p for p in premises if isinstance(p, ProxyPL)), None)
        below = next((p for p in premises if isinstance(p, BoundedBelow)), None)
        f_star = take.number(below, "f_star", "lower")
        if pl is not None:
            take.require(
                pl.g is not None and pl.g is pl.f,
                "needs g = f (the same function object)",
                "another g",
                "g is f",
            )
            take.require(
                c["alpha"] == 2, f"needs alpha = 2, and alpha = {pl.alpha}", float(pl.alpha), "alpha = 2"
            )
            if f_star is not None and c["xi"] is not None:
                take.require(
                    c["xi"] <= f_star, f"needs xi <= f_star, and xi = {pl.xi}", float(pl.xi), "xi <= f_star"
                )
        kept = {k: c[k] for k in ("eta", "L", "Delta", "mu")}
        return take.finish("final-loss", **_complete(take, {**kept, "f_star": f_star}))


@final
class NoisyProxyPL(Theorem):
    """T2 (proxy PL, stochastic gradients).

    **Premises.** Smooth(L) on the whole space, f >= f_star, Noise(rho, sigma2), samples fresh given the past with
    ``E grad f(w; z) = grad f(w)`` (not shuffled or cyclic epochs), PPL with alpha <= 2, 0 < eta < 2/(L rho).
    **Promise.** ``min_{t<T} E g(w_t) <= xi + (2/mu) [(Delta/(eta T) + L eta sigma2/2) / (1 - L eta rho/2)]^(alpha/2)``: the smallest of the mean
    values, not the mean of the smallest.
    **Proof.** ``E f(w_{t+1}) <= E f(w_t) - eta (1 - L eta rho/2) E||grad f(w_t)||^2 + L eta^2 sigma2/2``; sum; Jensen for ``x^(alpha/2)``.
    **Source.** Frei & Gu 2021 (v1), Theorem 3.1 for SGD.
    """

    id = "T2"
    title = "Proxy PL, stochastic gradient descent"
    statement = (
        "Smooth(L), Noise(rho, sigma2), fresh samples, proxy PL with alpha <= 2, eta < 2/(L rho): min_{t<T} E g(w_t) <= xi + "
        "(2/mu) [(Delta/(eta T) + L eta sigma2/2) / (1 - L eta rho/2)]^(alpha/2)."
    )
    references = (FREI_GU_2021, PROXYCONVEX_NOTES)
    limit_name = "xi"

    def bound(
        self, T: int, *, eta: Any, L: Any, Delta: Any, mu: Any, xi: Any, alpha: Any, rho: Any, sigma2: Any
    ) -> Any:
        """See the class docstring."""
        check_steps(T)
        check_range("alpha", alpha, above=0, at_most=2)
        check_range("eta", eta, above=0)
        check_range("L eta rho", L * eta * rho, below=2)
        square = (Delta / (eta * T) + L * eta * sigma2 / 2) / (1 - L * eta * rho / 2)
        return xi + 2 / mu * power(square, alpha / 2)

    def step_size(self, T: int, *, L: Any, Delta: Any, rho: Any, sigma2: Any, **_: Any) -> float:
        """``1 / (L rho/2 + sqrt((L rho/2)^2 + L sigma2 T/(2 Delta)))``, the root of the derivative."""
        check_range("Delta", Delta, above=0)
        half = float(L) * float(rho) / 2
        return 1 / (half + math.sqrt(half * half + float(L) * float(sigma2) * T / (2 * float(Delta))))

    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """See the class docstring for the premises."""
        take = Intake(self, premises, method)
        eta = take.constant_step(SGD)
        take.fresh_samples()
        pl, below, start, noise = (take.find(k) for k in (ProxyPL, BoundedBelow, Start, Noise))
        smooth, L = smoothness(take, trace=True)
        take.same_objective(pl, smooth, below, noise)
        for premise in (pl, below, noise, smooth):
            take.everywhere(
                premise, trace=False, why="it speaks of one run, and this bound of the mean over runs"
            )
        mu, xi, alpha = (
            take.number(pl, n, s) for n, s in (("mu", "lower"), ("xi", "upper"), ("alpha", "lower"))
        )
        rho, sigma2 = take.number(noise, "rho", "upper"), take.number(noise, "sigma2", "upper")
        Delta = gap(take.number(start, "value", "upper"), take.number(below, "f_star", "lower"), take)
        if alpha is not None:
            take.require(
                alpha <= 2, f"needs alpha <= 2, and alpha = {float(alpha):.6g}", float(alpha), "alpha <= 2"
            )
        if L is not None and rho is not None and rho > 0:
            step_below(take, eta, 2 / (L * rho), "2/(L rho)")
        found = {
            "eta": eta,
            "L": L,
            "Delta": Delta,
            "mu": mu,
            "xi": xi,
            "alpha": alpha,
            "rho": rho,
            "sigma2": sigma2,
        }
        return take.finish(take.quantity("best", take.found(ProxyPL)), **_complete(take, found))


def _complete(take: Intake, constants: dict[str, Fraction | None]) -> dict[str, Any]:
    """The constants, or none of them when something is missing (then a failure has been recorded)."""
    return {} if take.failures else constants


__all__ = ["Accepted", "LinearProxyPL", "NoisyProxyPL", "PlainProxyPL", "Rejected", "SharpProxyPL", "reach"]
