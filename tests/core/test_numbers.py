"""Exact numbers against python-flint's ball arithmetic (an independent implementation)."""

import math
from fractions import Fraction as F

import numpy as np
import pytest
from flint import arb, ctx, fmpq

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.exponential import exp_ends
from proxyconvex.core.numbers import (
    Interval,
    exact,
    exp,
    inner,
    log,
    lower_float,
    maximum,
    minimum,
    norm_upper,
    power,
    sqrt,
    subtract,
    upper,
    upper_float,
)  # fmt: skip

POINTS = [
    F(1, 3),
    F(7),
    F(10**20 + 1),
    F(1, 10**15),
    F(2),
    F(3, 2),
    F(1) + F(1, 2**40),
    F(0.1),
    F(123457, 1000),
]


def oracle(name, x, e=None):
    old, ctx.prec = ctx.prec, 600
    try:
        ball = arb(fmpq(x.numerator, x.denominator))
        value = (
            {"exp": ball.exp, "log": ball.log}[name]()
            if e is None
            else ball ** arb(fmpq(e.numerator, e.denominator))
        )
        mid, _, exponent = value.mid_rad_10exp(120)
        return F(int(mid)) * F(10) ** int(exponent)
    finally:
        ctx.prec = old


@pytest.mark.parametrize("x", POINTS, ids=float)
def test_log_encloses_and_is_tight(x):
    r, true = log(x), oracle("log", x)
    assert r.lo - F(1, 10**100) <= true <= r.hi + F(1, 10**100)
    assert r.hi - r.lo < F(1, 2**190)


@pytest.mark.parametrize("x", [p for p in POINTS if p < 200] + [F(-5), F(-1, 7), F(700)], ids=float)
def test_exp_encloses_and_is_tight(x):
    r, true = exp(x), oracle("exp", x)
    assert r.lo * (1 - F(1, 10**100)) <= true <= r.hi * (1 + F(1, 10**100))
    assert (r.hi - r.lo) / r.lo < F(1, 2**180)


@pytest.mark.parametrize("bits", [24, 53, 224])
def test_exp_ends_contain_the_true_value(bits):
    rng = np.random.default_rng(3)
    points = [
        F(0),
        F(10**6),
        F(-(10**6)),
        F(5, 7) / 2**900,
        *(F(int(n)) for n in rng.integers(-900, 900, 20)),
    ]
    points += [F(x) for x in rng.normal(size=60) * 10.0 ** rng.integers(-18, 5, 60)]
    points += [F(int(n), int(d)) for n, d in rng.integers(1, 10**9, (60, 2))]
    with ctx.workprec(1200):
        for x in points:
            lo, hi = exp_ends(x, bits)
            true = arb(fmpq(x.numerator, x.denominator)).exp()
            low, high = (
                F(int(m)) * F(2) ** int(e) for m, e in (true.lower().man_exp(), true.upper().man_exp())
            )
            assert lo <= low, x
            assert high <= hi, x
            assert (hi - lo) / lo <= F(4, 2**bits), x
            assert all(odd_part(end.numerator) < 2**bits for end in (lo, hi))


def odd_part(n):
    return n // (n & -n)


@pytest.mark.parametrize("e", [F(1, 2), F(1, 3), F(5, 2), F(0.3), F(0.7) + 3, F(22, 7) * F(1, 97)], ids=float)
@pytest.mark.parametrize("x", POINTS, ids=float)
def test_power_encloses_and_is_tight(x, e):
    r = power(x, e)
    lo, hi = (r.lo, r.hi) if isinstance(r, Interval) else (r, r)
    true = oracle("power", x, e)
    assert lo * (1 - F(1, 10**100)) <= true <= hi * (1 + F(1, 10**100))
    assert (hi - lo) / lo < F(1, 2**55)
    assert power(float(x), float(e)) == pytest.approx(float(true), rel=1e-13)


def test_rational_roots_stay_exact():
    assert power(F(4, 9), F(3, 2)) == F(8, 27) and isinstance(sqrt(F(4, 9)), F)
    assert sqrt(F(2)).lo ** 2 < 2 < sqrt(F(2)).hi ** 2


def test_rounding_to_float_is_the_nearest_on_that_side():
    third = F(1, 3)
    up, down = upper_float(third), lower_float(third)
    assert F(down) < third < F(up) and math.nextafter(down, 1) == up
    assert upper_float(F(1, 2)) == lower_float(F(1, 2)) == 0.5
    assert upper_float(F(10) ** 400) == math.inf and lower_float(F(10) ** 400) == np.finfo(float).max
    assert upper_float(F(1, 10**400)) == math.nextafter(0, 1) and lower_float(F(1, 10**400)) == 0.0


def test_interval_operations_contain_every_combination():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b, c, d = (F(int(v), 8) for v in rng.integers(-40, 40, 4))
        x, y = Interval(min(a, b), max(a, b)), Interval(min(c, d), max(c, d))
        for s in (x.lo, x.hi, (x.lo + x.hi) / 2):
            for t in (y.lo, y.hi, (y.lo + y.hi) / 2):
                assert s + t in x + y and s - t in x - y and s * t in x * y
                assert max(s, t) in maximum(x, y) and min(s, t) in minimum(x, y)
                assert abs(s) in abs(x) and s**2 in x**2 and s**3 in x**3
                if y.lo > 0 or y.hi < 0:
                    assert s / t in x / y


def test_interval_mixes_with_floats_exactly_and_numpy_scalars():
    x = Interval(F(1, 3))
    assert (x + 0.1).lo == F(1, 3) + F(0.1)
    assert (np.float64(0.1) * x).hi == F(0.1) / 3


def test_undecidable_comparison_is_refused():
    with pytest.raises(InvalidInputError, match="do not overlap"):
        _ = Interval(0, 2) < Interval(1, 3)
    with pytest.raises(InvalidInputError, match="without zero"):
        _ = 1 / Interval(-1, 1)
    assert Interval(0, 1) < Interval(2, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, True, "1", None, 1j], ids=repr)
def test_exact_refuses_what_is_no_real_number(bad):
    with pytest.raises(InvalidInputError, match="number"):
        exact(bad)


def test_points_and_norms():
    a, b = {"x": [F(1), F(2)], "y": F(3)}, {"x": [F(0), F(5)], "y": F(1)}
    assert inner(a, b) == 13 and subtract(a, b) == {"x": [1, -3], "y": 2}
    assert norm_upper([3.0, 4.0]) == 5 and norm_upper(np.zeros(3)) == 0
    rng = np.random.default_rng(1)
    v = rng.standard_normal(1000) * 10.0 ** rng.integers(-200, 200, 1000)
    true_sq = sum(F(x) ** 2 for x in v.tolist())
    assert true_sq <= norm_upper(v) ** 2 <= true_sq * (1 + F(1, 10**14))
    assert upper(sqrt(true_sq)) <= norm_upper(v)
