"""Every bound against an independent oracle: explicit worst cases, exact expectations, closed forms, number types."""

import math
from fractions import Fraction as F

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.numbers import Interval, lower, upper
from proxyconvex.core.theorems import (
    T1,
    T1_LAST,
    T1_SHARP,
    T2,
    T3,
    T3_SAMPLES,
    T3_STEPS,
    T3_VIRTUAL,
    T3T5,
    T4,
    T4T5,
    T6,
    T6_AZUMA,
    T8,
    THEOREMS,
)  # fmt: skip

PL = {"eta": F(1, 2), "L": F(3, 2), "Delta": F(5, 3), "mu": F(1, 4), "xi": F(1, 10), "alpha": F(2)}
PC = {"eta": F(1, 5), "R": F(7, 3), "A": F(3), "C": F(1, 8), "h": F(1, 9)}
SMOOTH = {"eta": F(1, 2), "R": F(7, 3), "L": F(3, 2), "Delta": F(5, 3), "h": F(1, 9)}
CASES = {
    "T1": (T1, PL),
    "T1 alpha 1": (T1, {**PL, "alpha": F(1)}),
    "T1-sharp": (T1_SHARP, PL),
    "T1-sharp alpha 2/3": (T1_SHARP, {**PL, "alpha": F(2, 3)}),
    "T1-sharp beyond 1/L": (T1_SHARP, {**PL, "eta": F(1)}),
    "T1-last": (T1_LAST, {k: PL[k] for k in ("eta", "L", "Delta", "mu")} | {"f_star": F(1, 3)}),
    "T2": (T2, {**PL, "rho": F(2), "sigma2": F(1, 3)}),
    "T3": (T3, PC),
    "T3-virtual": (T3_VIRTUAL, PC),
    "T3-samples": (T3_SAMPLES, PC),
    "T3-steps": (T3_STEPS, {"S": F(4), "Q": F(1), **{k: PC[k] for k in "RACh"}}),
    "T3T5": (T3T5, PC),
    "T4": (T4, SMOOTH),
    "T4T5": (T4T5, SMOOTH),
    "T6": (T6, {**PC, "M": F(2), "delta": F(1, 20), "u": F(1)}),
    "T6 with mean": (T6, {**PC, "M": F(2), "delta": F(1, 20), "u": F(1), "h_mean": F(1, 50)}),
    "T6-azuma": (
        T6_AZUMA,
        {"eta": F(1, 5), "R": F(7, 3), "C": F(4), "D": F(5), "h": F(1, 9), "delta": F(1, 20)},
    ),
}


@pytest.mark.parametrize("T", [1, 2, 17, 1000])
@pytest.mark.parametrize("name", CASES, ids=str)
def test_float_fraction_and_interval_agree(name, T):
    theorem, c = CASES[name]
    exact = theorem.bound(T, **c)
    thin = theorem.bound(T, **{k: Interval(v) for k, v in c.items()})
    in_float = theorem.bound(T, **{k: float(v) for k, v in c.items()})
    assert isinstance(in_float, float) and in_float == pytest.approx(float(upper(exact)), rel=1e-12)
    assert lower(thin) <= upper(exact) and lower(exact) <= upper(thin)
    assert upper(exact) - lower(exact) <= F(1, 2**100) * (1 + upper(exact))


@pytest.mark.parametrize("name", CASES, ids=str)
def test_wide_intervals_contain_the_exact_value(name):
    theorem, c = CASES[name]
    wide = {
        k: v if k in ("alpha", "u", "delta") else Interval(v * F(999, 1000), v * F(1001, 1000))
        for k, v in c.items()
    }
    box, exact = theorem.bound(25, **wide), theorem.bound(25, **c)
    assert lower(box) <= lower(exact) and upper(exact) <= upper(box)


@pytest.mark.parametrize("name", [n for n in CASES if n != "T3-steps"], ids=str)
def test_steps_is_the_first_that_reaches_eps(name):
    theorem, c = CASES[name]
    big = {**c, "eta": c["eta"] / 100} if "C" in c or "sigma2" in c else c
    eps = F(1, 2)
    T = theorem.steps(eps, **big)
    assert T is not None
    target = lower(theorem.level(**big)) + eps
    assert upper(theorem.bound(T, **big)) <= target
    assert T == 1 or upper(theorem.bound(T - 1, **big)) > target


def test_steps_closed_forms():
    # theory section 0: T >= 1 + [4 Delta (mu eps/2)^(-2/alpha) - 2/L] / (eta (4 - L eta)); T1: T >= Delta/(eta(1-L eta/2)) (...)
    for alpha in (F(1), F(2), F(2, 3)):
        c = {**PL, "alpha": alpha}
        for eps in (F(1, 2), F(1, 20), F(1, 300)):
            need = float(c["mu"] * eps / 2) ** (-2 / float(alpha))
            sharp = 1 + (4 * float(c["Delta"]) * need - 2 / 1.5) / (0.5 * (4 - 0.75))
            plain = float(c["Delta"]) * need / (0.5 * (1 - 0.375))
            assert T1_SHARP.steps(eps, **c) == max(1, math.ceil(sharp - 1e-6))
            assert T1.steps(eps, **c) == max(1, math.ceil(plain - 1e-6))


def test_steps_says_none_when_the_noise_floor_is_too_high():
    assert T3.steps(F(1, 1000), **{**PC, "C": F(9)}) is None
    with pytest.raises(InvalidInputError, match="eps"):
        T3.steps(0, **PC)


@pytest.mark.parametrize(
    ("theorem", "c", "top"),
    [
        (T1, PL, 2 / 1.5),
        (T1_SHARP, PL, math.sqrt(3) / 1.5),
        (T2, {**PL, "rho": F(2), "sigma2": F(1, 3)}, 2 / 3.0),
        (T3, PC, 2 / 3),
        (T3, {**PC, "h": F(0), "C": F(0)}, 2 / 3),
        (T4, SMOOTH, 2 / 1.5),
        (T6_AZUMA, CASES["T6-azuma"][1], 50.0),
    ],
    ids=["T1", "T1-sharp", "T2", "T3", "T3 noiseless", "T4", "T6-azuma"],
)
def test_best_step_matches_numerical_minimisation(theorem, c, top):
    T = 200
    f = {k: float(v) for k, v in c.items() if k != "eta"}
    best = minimize_scalar(
        lambda eta: theorem.bound(T, eta=eta, **f),
        bounds=(1e-9, top * (1 - 1e-9)),
        method="bounded",
        options={"xatol": 1e-11},
    )
    eta = theorem.step_size(T, **c)
    assert theorem.bound(T, eta=eta, **f) <= best.fun * (1 + 1e-9)


# --- explicit worst cases ------------------------------------------------------------------------------------------


class TentDerivative:
    """f' = U at every iterate, dipping with slopes -L, +L in between, and falling to 0 with slope -L after the last."""

    def __init__(self, T, eta, L, U):
        self.T, self.eta, self.L, self.U = T, eta, L, U
        self.step = eta * U

    def slope(self, x):  # x = distance travelled downhill
        last = (self.T - 1) * self.step
        if x >= last:
            return max(self.U - self.L * (x - last), F(0))
        inside = x % self.step
        return self.U - self.L * min(inside, self.step - inside)

    def drop(self):  # f(w_0) - inf f: exact integral of the piecewise linear slope
        tent = self.step * self.U - self.L * self.step**2 / 4
        return (self.T - 1) * tent + self.U**2 / (2 * self.L)


@pytest.mark.parametrize("T", [1, 2, 5, 40])
@pytest.mark.parametrize("eta", [F(1, 10), F(1, 2), F(1)], ids=str)
def test_t1_sharp_is_attained_exactly(T, eta):
    L, U = F(1), F(3, 7)
    f = TentDerivative(T, eta, L, U)
    x, slopes = F(0), []
    for _ in range(T):
        slopes.append(f.slope(x))
        x += eta * f.slope(x)
    assert set(slopes) == {U}
    worst = min(s**2 for s in slopes)  # g = ||grad||^2, xi = 0, mu = 2, alpha = 2 holds with equality
    assert T1_SHARP.bound(T, eta=eta, L=L, Delta=f.drop(), mu=F(2), xi=F(0), alpha=F(2)) == worst
    assert T1.bound(T, eta=eta, L=L, Delta=f.drop(), mu=F(2), xi=F(0), alpha=F(2)) >= worst
    if T > 1:  # a constant 1% better would be false
        assert (
            T1_SHARP.bound(T, eta=eta, L=L, Delta=f.drop(), mu=F(2), xi=F(0), alpha=F(2)) * F(99, 100) < worst
        )


def test_the_sharp_bracket_is_false_for_the_average():
    # One step with a huge first gradient: f quadratic, average of ||grad||^2 exceeds the sharp bracket.
    eta, L, T = F(1), F(1), 2
    x, grads = F(1), []
    for _ in range(T):
        grads.append(x * x)
        x -= eta * x
    average = sum(grads, F(0)) / T
    c = {"eta": eta, "L": L, "Delta": F(1, 2), "mu": F(2), "xi": F(0), "alpha": F(2)}
    assert average > T1_SHARP.bound(T, **c) and average <= T1.average_bound(T, **c)


@pytest.mark.parametrize("T", [1, 2, 7, 60])
@pytest.mark.parametrize(
    ("A", "C", "h", "eta", "s"),
    [
        (0.0, 4.0, 0.0, 0.1, 0.2),
        (0.0, 4.0, 0.3, 0.1, 0.05),
        (2.0, 0.0, 0.1, 0.3, 0.4),
        (2.0, 1.0, 0.1, 0.2, 0.11),
        (1.0, 0.5, 0.0, 0.9, 0.5),
    ],
)
def test_t3_virtual_is_attained_by_an_explicit_run(T, A, C, h, eta, s):
    """Backwards from w_{T-1} - s d = v in the plane, every PC and growth inequality an equality, all g_t equal."""
    gamma = (h + C * s) / (1 - A * s)
    G2 = A * gamma + C
    points, grads = [np.array([s * math.sqrt(G2), 0.0])], [np.array([math.sqrt(G2), 0.0])]
    for _ in range(T - 1):
        after = points[0]
        along = (s - eta) * G2 / np.linalg.norm(after)  # component of d along the next iterate
        unit = after / np.linalg.norm(after)
        d = along * unit + math.sqrt(max(G2 - along**2, 0.0)) * np.array([-unit[1], unit[0]])
        points.insert(0, after + eta * d)
        grads.insert(0, d)
    for t, (x, d) in enumerate(zip(points, grads, strict=True)):
        assert d @ x == pytest.approx(gamma - h, rel=1e-9)  # PC with v = 0
        assert d @ d == pytest.approx(A * gamma + C, rel=1e-9)  # growth
        if t + 1 < T:
            assert np.allclose(x - eta * d, points[t + 1], atol=1e-9)
    R = float(np.linalg.norm(points[0]))
    bound = T3_VIRTUAL.bound(T, eta=eta, R=R, A=A, C=C, h=h)
    assert bound == pytest.approx(gamma, rel=1e-9)
    assert bound <= T3.bound(T, eta=eta, R=R, A=A, C=C, h=h) * (1 + 1e-12)


def test_t3_virtual_closed_form_for_bounded_gradients():
    for T in (1, 3, 100):
        for eta in (0.01, 0.3):
            G, R, h = 1.7, 2.0, 0.4
            closed = h + math.sqrt(G**2 * R**2 + T * (T - 1) * eta**2 * G**4) - (T - 1) * eta * G**2
            one = h + G * R
            assert T3_VIRTUAL.bound(T, eta=eta, R=R, A=0.0, C=G**2, h=h) == pytest.approx(
                min(closed, one), rel=1e-12
            )


def test_t3_virtual_step_minimises():
    rng = np.random.default_rng(0)
    for _ in range(50):
        A, C, h, R = rng.uniform(0.1, 3), rng.uniform(0, 2), rng.uniform(0, 1), rng.uniform(0.1, 5)
        T, eta = int(rng.integers(2, 40)), rng.uniform(0.01, 1.9) / A
        ours = T3_VIRTUAL.bound(T, eta=eta, R=R, A=A, C=C, h=h)
        for s in np.linspace(1e-3, 1, 200) / A:
            S, Q = (T - 1) * eta + s, (T - 1) * eta**2 + s**2
            assert ours <= (h + (R * R + Q * C) / (2 * S)) / (1 - A * Q / (2 * S)) * (1 + 1e-12)


def test_any_virtual_step_is_an_upper_bound_in_exact_arithmetic():
    for s in (F(1, 100), F(1, 10), F(1, 3)):
        assert T3_VIRTUAL.bound(9, s=s, **PC) >= T3_VIRTUAL.bound(9, **PC) * (1 - F(1, 10**12))


def test_published_forms_follow():
    # theory T4 as published, for eta <= 1/L: h + R^2/(2 eta T) + Delta/T; ours is not larger
    for T in (1, 10, 1000):
        published = SMOOTH["h"] + SMOOTH["R"] ** 2 / (2 * SMOOTH["eta"] * T) + SMOOTH["Delta"] / T
        assert T4.bound(T, **SMOOTH) <= published
    at_edge = {**SMOOTH, "eta": 1 / SMOOTH["L"]}
    assert (
        T4.bound(7, **at_edge) == at_edge["h"] + at_edge["R"] ** 2 * at_edge["L"] / 14 + at_edge["Delta"] / 7
    )
    # T3 with theta: eta = theta/A and C = 0 gives [h + A R^2/(2 theta T)]/(1 - theta/2)
    theta = F(2, 3)
    assert T3.bound(50, eta=theta / 3, R=F(2), A=F(3), C=F(0), h=F(1, 7)) == (
        F(1, 7) + F(12) / (2 * theta * 50)
    ) / (1 - theta / 2)
    # T6 with u = 1: factor 1/(1 - 1/e)
    t6 = T6.bound(100, eta=0.1, R=1.0, A=1.0, C=0.0, h=0.02, M=1.0, delta=0.05)
    observed = (0.02 + 1 / 20) / 0.95
    assert t6 == pytest.approx((observed + math.log(20) / 100) / (1 - math.exp(-1)), rel=1e-12)
    az = T6_AZUMA.bound(100, eta=0.1, R=1.0, C=4.0, D=3.0, h=0.02, delta=0.05)
    assert az == pytest.approx(0.02 + 0.05 + 0.2 + 6 * math.sqrt(2 * math.log(20) / 100), rel=1e-12)


OUT_OF_RANGE = {
    "T1 eta = 2/L": lambda: T1.bound(5, **{**PL, "eta": F(4, 3)}),
    "T1 mu = 0": lambda: T1.bound(5, **{**PL, "mu": F(0)}),
    "T1 no steps": lambda: T1.bound(0, **PL),
    "T1 fractional steps": lambda: T1.bound(2.5, **PL),
    "T1 average alpha 3": lambda: T1.average_bound(5, **{**PL, "alpha": F(3)}),
    "T1-sharp eta = sqrt 3/L": lambda: T1_SHARP.bound(5, **{**PL, "eta": F(1155, 1000)}),
    "T2 eta = 2/(L rho)": lambda: T2.bound(5, **{**PL, "eta": F(2, 3), "rho": F(2), "sigma2": F(0)}),
    "T2 alpha 3": lambda: T2.bound(5, **{**PL, "alpha": F(3), "rho": F(1), "sigma2": F(0)}),
    "T3 eta = 2/A": lambda: T3.bound(5, **{**PC, "eta": F(2, 3)}),
    "T3 eta negative": lambda: T3.bound(5, **{**PC, "eta": F(-1, 3)}),
    "T3T5 eta = 2/A": lambda: T3T5.bound(5, **{**PC, "eta": F(2, 3)}),
    "T3-virtual s beyond 2/A": lambda: T3_VIRTUAL.bound(5, s=F(1), **PC),
    "T4 eta = 2/L": lambda: T4.bound(5, **{**SMOOTH, "eta": F(4, 3)}),
    "T6 delta = 1": lambda: T6.bound(5, **PC, M=F(1), delta=F(1)),
    "T6 u = 0": lambda: T6.bound(5, **PC, M=F(1), delta=F(1, 2), u=F(0)),
    "T8 too few steps": lambda: T8.bound(99, c=F(1), R=F(10), G=F(1), S=F(1), k=1, n=10),
    "T8 negative level": lambda: T8.bound(10**9, c=F(1), R=F(10), G=F(1), S=F(-1), k=1, n=10),
    "T3 vanishing gradient": lambda: T3.step_size(5, R=F(1), A=F(0), C=F(0), h=F(1)),
}


@pytest.mark.parametrize("case", OUT_OF_RANGE, ids=str)
def test_out_of_range_is_refused(case):
    with pytest.raises(InvalidInputError, match="is not accepted; accepted:"):
        OUT_OF_RANGE[case]()


@pytest.mark.parametrize("theorem", THEOREMS, ids=lambda t: t.id)
def test_every_theorem_states_itself(theorem):
    for section in ("**Premises.**", "**Promise.**", "**Proof.**", "**Source.**"):
        assert section in type(theorem).__doc__
    assert theorem.reference is theorem.references[0] and theorem.statement and theorem.title
    assert len({t.id for t in THEOREMS}) == len(THEOREMS)
