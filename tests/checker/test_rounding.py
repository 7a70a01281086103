"""Containment: every enclosure of `rounding` against 300-bit balls or exact rationals, adversarial points."""

from __future__ import annotations

import math
from fractions import Fraction

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyconvex_checker import rounding as r
from proxyconvex_checker.errors import CheckError

SUBNORMAL, HUGE = 5e-324, 1.7976931348623157e308
EDGES = [0.0, SUBNORMAL, 2.0**-1022, 1e-300, 1e-17, 2.0**-53, 1e-8, 0.1, 0.5, 1.0 - 2**-53, 1.0, 1.0 + 2**-52]
EDGES += [2.0, math.e, 10.0, 37.0, 709.0, 709.78, 745.0, 746.0, 1e4, 1e16, 1e300, HUGE]
SIGNED = sorted({s * e for s in (1.0, -1.0) for e in EDGES})


@pytest.fixture(autouse=True)
def _three_hundred_bits():
    before, flint.ctx.prec = flint.ctx.prec, 300
    yield
    flint.ctx.prec = before


def ball(x: float) -> flint.arb:
    return flint.arb(float(x)) if math.isfinite(x) else flint.arb("inf") * (1 if x > 0 else -1)


def inside(low: float, value: flint.arb, high: float) -> bool:
    """Whether the 300-bit value is not certainly outside [low, high] (its own radius is below 1e-80)."""
    return not value < ball(low) and (math.isinf(high) or not value > ball(high))


def points(rng: np.random.Generator, low: float, high: float, count: int = 300) -> list[float]:
    return list(rng.uniform(low, high, count))


def assert_contains(bounds, oracle, xs: list[float], width: float) -> None:
    """Every true value lies inside, and the enclosure is tight (relative ``width``, plus 2^-1017)."""
    low, high = bounds(np.array(xs))
    many_low, many_high = bounds(np.resize(xs, 5000))  # large arrays take a faster path
    low = np.maximum(low, many_low[: len(xs)])
    high = np.minimum(high, many_high[: len(xs)])
    for x, a, b in zip(xs, low, high, strict=True):
        truth = oracle(ball(x))
        assert inside(float(a), truth, float(b)), f"{bounds.__name__}({x!r}) = [{a!r}, {b!r}] misses {truth}"
        if math.isfinite(b):
            assert b - a <= width * abs(b) + 2.0**-1017, f"{bounds.__name__}({x!r}) is {b - a} wide"


@pytest.mark.parametrize(
    ("bounds", "oracle", "low"),
    [
        pytest.param(r.exp_bounds, lambda x: x.exp(), None, id="exp"),
        pytest.param(r.expm1_bounds, lambda x: x.expm1(), None, id="expm1"),
        pytest.param(r.log_bounds, lambda x: x.log(), 0.0, id="log"),
        pytest.param(r.log1p_bounds, lambda x: x.log1p(), -1.0, id="log1p"),
        pytest.param(r.sqrt_bounds, lambda x: x.sqrt(), -SUBNORMAL, id="sqrt"),
        pytest.param(
            r.softplus_bounds, lambda x: (-abs(x)).exp().log1p() + (x + abs(x)) / 2, None, id="softplus"
        ),
        pytest.param(r.sigmoid_bounds, lambda x: 1 / (1 + (-x).exp()), None, id="sigmoid"),
    ],
)
def test_elementary_functions_contain_the_truth(bounds, oracle, low):
    rng = np.random.default_rng(1)
    xs = (
        SIGNED
        + points(rng, -1, 1)
        + points(rng, -800, 800)
        + list(rng.choice([-1, 1], 300) * 10 ** rng.uniform(-320, 5, 300))
    )
    xs = [x for x in xs if low is None or x > low]
    assert_contains(bounds, oracle, xs, 1e-14)


def test_bounds_on_an_interval_use_both_ends():
    low, high = r.softplus_bounds(-1.0, 2.0)
    assert low <= math.log1p(math.exp(-1)) < math.log1p(math.exp(2)) <= high
    low, high = r.sigmoid_bounds(-3.0, 4.0)
    assert low <= 1 / (1 + math.exp(3)) < 1 / (1 + math.exp(-4)) <= high


@pytest.mark.parametrize(
    "scale_left, scale_right",
    [(1.0, 1.0), (1e-200, 1e-200), (1e-308, 1e-3), (5e-324, 1.0), (1e150, 1e150), (1e300, 1e-300)],
    ids=["plain", "underflow", "subnormal", "smallest", "huge", "mixed"],
)
@pytest.mark.parametrize("k", [1, 7, 300])
def test_matrix_products_contain_the_truth(k, scale_left, scale_right):
    rng = np.random.default_rng(k)
    a, b = rng.standard_normal((3, k)) * scale_left, rng.standard_normal((k, 4)) * scale_right
    a[1], b[:, 2] = np.repeat(a[1, : (k + 1) // 2], 2)[:k], 0.0
    if k > 1:
        b[:, 1] = np.resize(
            [scale_right, -scale_right], k
        )  # row 1 times column 1 cancels (almost) completely
    value, error = r.matmul_enclosure(a, b)
    vector, vector_error = r.matmul_enclosure(a, b[:, 0])
    assert np.allclose(vector, value[:, 0], rtol=1e-12, atol=0)
    for i in range(3):
        for j in range(4):
            truth = sum((Fraction(x) * Fraction(y) for x, y in zip(a[i], b[:, j], strict=True)), Fraction(0))
            assert abs(truth - Fraction(value[i, j])) <= Fraction(error[i, j])
        truth = sum((Fraction(x) * Fraction(y) for x, y in zip(a[i], b[:, 0], strict=True)), Fraction(0))
        assert abs(truth - Fraction(vector[i])) <= Fraction(vector_error[i])
    absolute = np.abs(a) @ np.abs(b)
    assert np.all(error <= 4 * k * 2.0**-53 * absolute + (16 * k + 16) * 2.0**-1022)


def test_matrix_products_carry_the_errors_of_their_factors():
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((4, 9)), rng.standard_normal((9, 5))
    da, db = np.abs(rng.standard_normal(a.shape)) * 1e-3, np.abs(rng.standard_normal(b.shape)) * 1e-2
    value, error = r.matmul_enclosure(a, b, da, db)
    for _ in range(20):  # corners of the box are where the bound is tightest
        moved = (a + da * rng.choice([-1, 1], a.shape)) @ (b + db * rng.choice([-1, 1], b.shape))
        assert np.all(np.abs(moved - value) <= error * (1 + 1e-12))
    worst = (np.abs(a) + da) @ (np.abs(b) + db) - np.abs(a) @ np.abs(b)
    assert np.all(error <= worst * (1 + 1e-9))


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_the_product_bound_holds_for_every_order_of_summation(order):
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal(2000) * 10 ** rng.uniform(-8, 8, 2000), rng.standard_normal(2000)
    index = {
        "forward": np.arange(2000),
        "backward": np.arange(2000)[::-1],
        "shuffled": rng.permutation(2000),
    }[order]
    total = 0.0
    for i in index:
        total += float(x[i]) * float(y[i])
    truth = sum((Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True)), Fraction(0))
    value, error = r.dot(x, y)
    assert abs(truth - Fraction(float(value))) <= Fraction(float(error))
    assert abs(truth - Fraction(total)) <= Fraction(float(error))


def test_sums_contain_the_truth_under_cancellation():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((50, 6)) * 10 ** rng.uniform(-12, 12, (50, 6))
    x = np.concatenate([x, -x + 1e-9 * rng.standard_normal(x.shape)])
    truth = [sum(map(Fraction, column), Fraction(0)) for column in x.T]
    value, error = r.sum_enclosure(x, axis=0)
    assert all(abs(t - Fraction(v)) <= Fraction(e) for t, v, e in zip(truth, value, error, strict=True))
    low, high = r.sum_bounds(x)
    assert Fraction(low) <= sum(truth) <= Fraction(high)
    low, high = r.mean_bounds(x)
    assert Fraction(low) <= sum(truth) / x.size <= Fraction(high)
    value, error = r.sum_enclosure(x, x_error=np.full(x.shape, 1e-3))
    assert abs(sum(truth) - Fraction(float(value))) + x.size * Fraction(1e-3) <= Fraction(float(error))


@pytest.mark.parametrize("scale", [1.0, 1e-300, 5e-324, 1e-160, 1e160, 1e306], ids=lambda s: f"{s:g}")
def test_norms_contain_the_truth(scale):
    x = np.ceil(np.random.default_rng(3).uniform(1, 9, (5, 8))) * scale
    exact = [sum((Fraction(v) ** 2 for v in row), Fraction(0)) for row in x]
    for lower, upper, square in zip(r.norm_lower(x, axis=1), r.norm_upper(x, axis=1), exact, strict=True):
        assert Fraction(lower) ** 2 <= square <= Fraction(upper) ** 2
        assert upper <= lower * (1 + 1e-12) + 1e-320
    assert Fraction(r.norm_lower(x)) ** 2 <= sum(exact) <= Fraction(r.norm_upper(x)) ** 2
    assert r.norm_lower(np.zeros(3)) == 0 <= r.norm_upper(np.zeros(3)) < 1e-150


@pytest.mark.parametrize("kind", ["random", "rank-one", "diagonal", "clustered", "zero"])
def test_largest_eigenvalue_is_bounded_above(kind):
    rng = np.random.default_rng(4)
    g = rng.integers(-5, 6, (6, 9)).astype(float)
    c = {
        "random": g @ g.T,
        "rank-one": np.outer(g[:, 0], g[:, 0]),
        "diagonal": np.diag([1.0, 2.0, 3.0, 3.0, 1e-30, 7.0]),
        "clustered": np.eye(6) + 1e-14 * (g @ g.T),
        "zero": np.zeros((6, 6)),
    }[kind]
    bound = r.lambda_max_upper(c)
    # bound * I - C is positive semidefinite iff all leading minors of a slightly raised matrix are positive
    # (Sylvester).
    raised = Fraction(bound) + Fraction(1, 10**40)
    for k in range(1, 7):
        minor = [[(raised if i == j else 0) - Fraction(c[i, j]) for j in range(k)] for i in range(k)]
        assert _determinant(minor) > 0
    assert bound <= max(np.linalg.eigvalsh(c)[-1], 0) * (1 + 1e-11) + 1e-12


def _determinant(rows: list[list[Fraction]]) -> Fraction:
    rows, result = [list(row) for row in rows], Fraction(1)
    for i in range(len(rows)):
        pivot = rows[i][i]
        if pivot == 0:
            return Fraction(0)
        result *= pivot
        for j in range(i + 1, len(rows)):
            factor = rows[j][i] / pivot
            rows[j] = [x - factor * y for x, y in zip(rows[j], rows[i], strict=True)]
    return result


def test_lambert_w_is_bounded_above_and_tightly():
    rng = np.random.default_rng(6)
    xs = np.array([*EDGES, *10 ** rng.uniform(-320, 308, 300), *rng.uniform(0, 5, 200), math.exp(-1)])
    for x, w in zip(xs, r.lambert_w_upper(xs), strict=True):
        truth = ball(x).lambertw() if x > 0 else flint.arb(0)
        assert not truth > ball(w), f"W({x!r}) = {truth} > {w!r}"
        assert w <= float(truth) * (1 + 2e-11) + 2.0**-1020
    s = np.array([*SIGNED, *rng.uniform(-700, 700, 200)])
    for t, w in zip(s, r.lambert_w_exp_upper(s), strict=True):
        assert not ball(w) + ball(w).log() < ball(t), f"w = {w!r} is below W(exp({t!r}))"
    assert r.lambert_w_upper(math.exp(-1)) == pytest.approx(0.2784645427610738, rel=1e-13)


@settings(max_examples=200, deadline=None)
@given(st.fractions(min_value=0), st.integers(-2000, 2000))
def test_rationals_round_outward(x, shift):
    x = x * (Fraction(2) ** shift)
    low, high = r.to_float_down(x), r.to_float_up(x)
    assert math.isinf(high) or Fraction(high) >= x
    assert Fraction(low) <= x
    assert high in (low, math.nextafter(low, math.inf))
    assert r.to_float_up(-x) == -low
    lower, upper = r.sqrt_lower(x), r.sqrt_upper(x)
    assert lower * lower <= x <= upper * upper
    assert upper - lower <= upper * Fraction(1, 2**90)


def test_square_roots_of_squares_are_exact():
    assert r.sqrt_upper(Fraction(9, 4)) == r.sqrt_lower(Fraction(9, 4)) == Fraction(3, 2)
    assert r.sqrt_upper(0) == 0


@pytest.mark.parametrize("x", [Fraction(1, 3), Fraction(2), Fraction(10**40), Fraction(1, 10**40)], ids=str)
def test_logarithms_and_exponentials_of_rationals(x):
    low, high = r.log_rational(x)
    truth = flint.arb(flint.fmpq(x.numerator, x.denominator)).log()
    assert flint.arb(flint.fmpq(low.numerator, low.denominator)) < truth
    assert truth < flint.arb(flint.fmpq(high.numerator, high.denominator))
    low, high = r.exp_rational(1 / (1 + x))
    assert float(low) < math.exp(1 / (1 + x)) < float(high)


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: r.matmul_enclosure(np.array([[bad]]), np.ones((1, 1))),
        lambda bad: r.dot([bad], [1.0]),
        lambda bad: r.sum_enclosure([bad]),
        lambda bad: r.sum_bounds([1.0, bad]),
        lambda bad: r.norm_upper([bad]),
        lambda bad: r.exp_bounds(bad),
        lambda bad: r.softplus_bounds(0.0, bad),
        lambda bad: r.sigmoid_bounds(bad),
        lambda bad: r.lambert_w_upper(bad),
        lambda bad: r.rational(bad),
    ],
    ids=["matmul", "dot", "sum", "sum-bounds", "norm", "exp", "softplus", "sigmoid", "lambert", "rational"],
)
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
def test_nan_and_infinity_are_refused(call, bad):
    with pytest.raises(CheckError, match="arithmetic"):
        call(bad)


@pytest.mark.parametrize(
    "call",
    [
        lambda: r.matmul_enclosure(np.full((2, 2), 1e200), np.full((2, 2), 1e200)),
        lambda: r.norm_upper(np.full(4, HUGE)),
        lambda: r.sum_bounds([HUGE, HUGE]),
        lambda: r.log_bounds(0.0),
        lambda: r.log1p_bounds(-1.0),
        lambda: r.sqrt_bounds(-1e-300),
        lambda: r.lambert_w_upper(-1e-9),
        lambda: r.sqrt_upper(Fraction(-1)),
        lambda: r.gamma_upper(2**50),
        lambda: r.mean_bounds([]),
    ],
    ids=["product", "norm", "sum", "log", "log1p", "sqrt", "lambert", "rational-sqrt", "gamma", "empty-mean"],
)
def test_overflow_and_wrong_domains_are_refused(call):
    with pytest.raises(CheckError, match="arithmetic"):
        call()


@pytest.mark.parametrize("count", [400, 6000], ids=["small-array", "large-array"])
def test_directed_operations_lie_on_their_side(count):
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal(count) * 10 ** rng.uniform(-320, 300, count), rng.standard_normal(count)
    a[: len(EDGES) - 1] = EDGES[:-1]
    exact = {
        "add": [Fraction(x) + Fraction(y) for x, y in zip(a, b, strict=True)],
        "sub": [Fraction(x) - Fraction(y) for x, y in zip(a, b, strict=True)],
        "mul": [Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True)],
        "div": [Fraction(x) / Fraction(y) for x, y in zip(a, b, strict=True)],
    }
    for name, truth in exact.items():
        up, down = getattr(r, f"{name}_up")(a, b), getattr(r, f"{name}_down")(a, b)
        assert all(Fraction(d) <= t <= Fraction(u) for d, t, u in zip(down, truth, up, strict=True)), name
        assert np.all(up - down <= 5 * np.spacing(np.abs(up)) + 2.0**-1020)


def test_large_arrays_near_the_end_of_the_range_keep_their_side():
    x = np.full(5000, HUGE)
    assert np.all(r.next_up(x) == np.inf) and np.all(r.next_down(x) < HUGE)
    assert np.all(r.next_down(np.full(5000, np.inf)) == HUGE) and np.all(r.next_up(-x) > -HUGE)
