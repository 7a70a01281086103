"""Containment of every enclosure against python-flint, on adversarial arguments."""

from __future__ import annotations

from fractions import Fraction

import flint
import numpy as np
import pytest

from proxyconvex.checks.certify.program import Program
from proxyconvex.checks.intervals import elementary
from proxyconvex.checks.intervals.choose import arithmetic
from proxyconvex.core.arithmetics import evaluate
from proxyconvex.core.expressions import HELPERS, Expression, variable
from proxyconvex_checker.boxes import evaluation as their_expressions
from proxyconvex_checker.boxes import intervals as theirs

NAMES = ("exp", "log", "log1p", "softplus", "sigmoid", "bump", "tanh")
LOG2_16 = float(np.log(2) / 16)
SPECIAL = [
    0.0, -0.0, 5e-324, -5e-324, 2.0**-1022, -(2.0**-1022), 2.0**-1074 * 3, 1.0, -1.0, 2.0**-53, 1 + 2.0**-52, 1 - 2.0**-53,
    709.782712893384, 709.7827128933841, 709.79, -745.13, -745.14, -746.0, -746.1, 1e300, -1e300, 1.7e308, -1.7e308,
    np.inf, -np.inf, np.nan, -1 + 2.0**-53, 0.7071067811865475, 0.7071067811865476, 36.7, -36.7, 2.0**60,
]  # fmt: skip


def arguments(n: int, seed: int = 0) -> np.ndarray:
    """Arguments of all sizes: subnormal, huge, near the ends of table cells, near 1 (cancellation in log)."""
    rng = np.random.default_rng(seed)
    k = n // 6
    return np.concatenate([
        np.array(SPECIAL),
        rng.uniform(-30, 30, k),
        rng.normal(size=k) * 10.0 ** rng.uniform(-323, 3, k),
        rng.uniform(-746, 746, k),
        rng.integers(-17_000, 17_000, k) * (LOG2_16 / 2) * (1 + rng.integers(-3, 4, k) * 2.0**-52),
        1 + rng.integers(-4_000, 4_000, k) * 2.0**-53,
        np.abs(rng.normal(size=k)) * 10.0 ** rng.uniform(-323, 307, k),
    ])  # fmt: skip


def ball(name: str, x):
    """The true value in 300-bit ball arithmetic, by formulas that are not those of the code."""
    if name == "sigmoid":
        return ((x / 2).tanh() + 1) / 2 if x > -30 else x.exp() / (1 + x.exp())
    if name == "bump":
        return 1 / (2 + x.exp() + (-x).exp())
    if name == "softplus":
        return (1 + x.exp()).log() if abs(x) < 50 else (x.exp().log1p() if x < 0 else x + (-x).exp().log1p())
    return getattr(x, name)()


def outside(name: str, x: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> list[tuple]:
    """Arguments whose true value is certainly not inside."""
    wrong = []
    with flint.ctx.workprec(300):
        for point, low, high in zip(x.tolist(), lo.tolist(), hi.tolist(), strict=True):
            value = ball(name, flint.arb(point))
            if low == low and value < flint.arb(low) or high == high and value > flint.arb(high):
                wrong.append((point, low, high, value))
    return wrong


def in_domain(name: str, x: np.ndarray) -> np.ndarray:
    lowest = {"log": 0.0, "log1p": -1.0}.get(name, -np.inf)
    return np.isfinite(x) & (x > lowest)


def bounds(which: str, name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(all="ignore"):
        if which == "checker":
            if name == "bump" or name in theirs.MONOTONE:
                return theirs._at(name, x)
            raise AssertionError(name)
        return arithmetic(which).both(name, x)


@pytest.mark.parametrize("which", ["own", "crival", "checker"])
@pytest.mark.parametrize("name", NAMES)
def test_elementary_functions_contain_the_true_value(which, name):
    if which == "crival":
        pytest.importorskip("ival", reason="crival is not installed")
    x = arguments(6_000)
    lo, hi = bounds(which, name, x)
    good = in_domain(name, x)
    assert not outside(name, x[good], lo[good], hi[good])
    # Outside the domain nothing is claimed.
    bad = ~good & np.isfinite(x)
    assert not (np.isfinite(lo[bad]) & np.isfinite(hi[bad])).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_million_points(name):
    """150,000 arguments for each of seven functions, against 300-bit values."""
    x = arguments(150_000, seed=NAMES.index(name) + 1)
    lo, hi = bounds("own", name, x)
    good = in_domain(name, x)
    assert good.sum() > 60_000
    assert not outside(name, x[good], lo[good], hi[good])


@pytest.mark.parametrize("name", NAMES)
def test_proven_errors_are_not_exceeded_and_not_idle(name):
    """The measured error is below half the width that is added, and the width is a few dozen units at most."""
    x = arguments(6_000)
    x = x[in_domain(name, x) & (np.abs(x) < 700)]
    with np.errstate(all="ignore"):
        v = elementary.KERNELS[name](x)
    worst = 0.0
    with flint.ctx.workprec(300):
        for point, value in zip(x.tolist(), v.tolist(), strict=True):
            true = ball(name, flint.arb(point))
            if abs(value) > 1e-290:
                worst = max(worst, float(abs(true / flint.arb(value) - 1).upper()))
    assert worst < elementary.RELATIVE[name] / 2
    assert elementary.RELATIVE[name] <= 2.0**-47


@pytest.mark.parametrize("name", NAMES)
def test_infinite_arguments(name):
    x = np.array([np.inf, -np.inf])
    with np.errstate(all="ignore"):
        lo, hi = arithmetic().both(name, x)
    limits = {
        "exp": (np.inf, 0.0), "log": (np.inf, None), "log1p": (np.inf, None), "softplus": (np.inf, 0.0),
        "sigmoid": (1.0, 0.0), "bump": (0.0, 0.0), "tanh": (1.0, -1.0),
    }[name]  # fmt: skip
    for low, high, limit in zip(lo, hi, limits, strict=True):
        assert limit is None or not (low > limit or high < limit)
        assert limit is not None or np.isnan(low) or np.isnan(high)


# --- ring operations against fractions -----------------------------------------------------------------------------


def numbers(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n) * 2.0 ** rng.integers(-40, 40, n)
    pick = rng.integers(0, 8, n)
    x = np.where(pick == 0, 0.0, x)
    x = np.where(pick == 1, rng.integers(-8, 8, n) / 4, x)
    x = np.where(pick == 2, x * 2.0**-1030, x)
    return np.where(pick == 3, x * 2.0**500, x)


def pairs(n: int, seed: int):
    a, b = numbers(n, seed), numbers(n, seed + 1)
    return np.minimum(a, b), np.maximum(a, b)


def inside(value: Fraction, lo: float, hi: float) -> bool:
    below = not np.isfinite(lo) or Fraction(lo) <= value
    return below and (not np.isfinite(hi) or value <= Fraction(hi))


@pytest.mark.parametrize("which", ["own", "crival", "checker"])
def test_ring_operations_contain_exact_results(which):
    if which == "crival":
        pytest.importorskip("ival", reason="crival is not installed")
    a = theirs if which == "checker" else arithmetic(which)
    x, y = pairs(1_200, 1), pairs(1_200, 7)
    cs = [3.0, -0.5, 0.1, -4.0, 0.0, 1e-3]
    with np.errstate(all="ignore"):
        results = {
            "add": (a.add(x, y), lambda p, q: p + q), "sub": (a.sub(x, y), lambda p, q: p - q),
            "mul": (a.mul(x, y), lambda p, q: p * q), "square": (a.square(x), lambda p, q: p * p),
            **{f"scale {c}": (a.scale(x, c), lambda p, q, c=c: p * Fraction(c)) for c in cs},
            **{f"pow {n}": ((a.power if which == "checker" else a.pow)(x, n), lambda p, q, n=n: p**n) for n in (2, 3, 4, 5)},
        }  # fmt: skip
        quotient = a.div(x, y)
    for name, (got, true) in results.items():
        for i in range(1_200):
            for p in (x[0][i], x[1][i]):
                for q in (y[0][i], y[1][i]):
                    assert inside(true(Fraction(p), Fraction(q)), got[0][i], got[1][i]), (name, i, p, q)
    for i in range(1_200):
        if y[0][i] <= 0 <= y[1][i]:
            assert not np.isfinite(quotient[0][i]) and not np.isfinite(quotient[1][i])
            continue
        for p in (x[0][i], x[1][i]):
            for q in (y[0][i], y[1][i]):
                assert inside(Fraction(p) / Fraction(q), quotient[0][i], quotient[1][i])


def test_what_floats_can_express_stays_exact():
    a = arithmetic()
    quarter = np.array([0.25])
    assert a.scale((quarter, quarter), 4.0) == (1.0, 1.0)
    assert a.sub((np.array([1.0]), np.array([1.0])), a.scale((quarter, quarter), 4.0)) == (0.0, 0.0)
    assert a.add((quarter, quarter), (quarter, quarter)) == (0.5, 0.5)
    assert a.mul((np.array([0.0]), np.array([0.5])), (quarter, quarter))[0] == 0.0


def test_overflow_claims_nothing():
    a = arithmetic()
    big = np.array([1e308])
    with np.errstate(all="ignore"):
        for lo, hi in (
            a.add((big, big), (big, big)),
            a.mul((big, big), (big, big)),
            a.scale((big, big), 3.0),
        ):
            assert not lo >= 0
            assert not np.isfinite(hi)


# --- whole expressions ---------------------------------------------------------------------------------------------


def random_expression(rng: np.random.Generator, depth: int, names: tuple[str, ...]) -> Expression:
    if depth == 0:
        return (
            variable(str(rng.choice(names)))
            if rng.random() < 0.8
            else HELPERS["square"](Fraction(int(rng.integers(1, 9)), 7))
        )
    op = str(rng.choice(["add", "sub", "mul", "unary", "unary", "pow", "div", "max"]))
    x = random_expression(rng, depth - 1, names)
    y = random_expression(rng, depth - 1, names)
    if op == "unary":
        return HELPERS[str(rng.choice(["tanh", "sigmoid", "softplus", "bump", "relu", "absolute", "exp"]))](x)
    if op == "pow":
        return x ** int(rng.integers(2, 4))
    if op == "div":
        return x / (1 + y * y)
    return HELPERS["maximum"](x, y) if op == "max" else {"add": x + y, "sub": x - y, "mul": x * y}[op]


@pytest.mark.parametrize("which", ["own", "crival"])
def test_values_and_mean_value_forms_bound_random_expressions(which):
    if which == "crival":
        pytest.importorskip("ival", reason="crival is not installed")
    rng = np.random.default_rng(5)
    names = ("a", "b", "c")
    checked = 0
    for _ in range(60):
        e = random_expression(rng, 4, names)
        lo = rng.uniform(-3, 3, (12, 3))
        hi = lo + 10.0 ** rng.uniform(-6, 0.5, (12, 3))
        program = Program([e], names, arithmetic(which))
        low, high = (np.broadcast_to(end, 12) for end in program.values(lo, hi)[0])
        better = np.broadcast_to(program.centred(lo, hi)[0][0], 12)
        for i in range(12):
            for _ in range(4):
                x = {
                    n: lo[i, k] + rng.choice([0.0, 1.0, rng.random()]) * (hi[i, k] - lo[i, k])
                    for k, n in enumerate(names)
                }
                x = {n: min(max(v, lo[i, k]), hi[i, k]) for k, (n, v) in enumerate(x.items())}
                with flint.ctx.workprec(200):
                    value = evaluate(e, {n: flint.arb(float(v)) for n, v in x.items()})
                    for end in (low[i], better[i]):
                        assert not np.isfinite(end) or not value < flint.arb(float(end)), (e, x)
                    assert not np.isfinite(high[i]) or not value > flint.arb(float(high[i])), (e, x)
                checked += 1
    assert checked > 2_000


@pytest.mark.parametrize("f", ["exp", "softplus", "sigmoid", "tanh", "log", "bump", "sqrt", "relu"])
@pytest.mark.parametrize("order", [1, 2])
def test_divided_differences_are_enclosed(f, order):
    """At random points of random boxes, near the diagonal and away from it, by library and checker."""
    if f == "relu" and order == 2:
        pytest.skip("relu has no second differences")
    rng = np.random.default_rng(3)
    n = 400
    centre = rng.uniform(-4, 4, (n, 2)) if f not in ("log", "sqrt") else rng.uniform(0.2, 4, (n, 2))
    centre[: n // 2, 1] = centre[: n // 2, 0] + rng.normal(size=n // 2) * 10.0 ** rng.uniform(-8, -1, n // 2)
    centre = np.abs(centre) + 0.01 if f in ("log", "sqrt") else centre
    size = (
        np.abs(rng.normal(size=(n, 2)))
        * 10.0 ** rng.uniform(-9, -0.5, (n, 1))
        * (0.01 if f in ("log", "sqrt") else 1)
    )
    lo, hi = centre - size * (f not in ("log", "sqrt")), centre + size
    u, v = variable("u"), variable("v")
    e = Expression("dd", f, order, u, v)
    program = Program([e], ("u", "v"), arithmetic())
    low, high = program.values(lo, hi)[0]
    better = program.centred(lo, hi)[0][0]
    rows = [("var", "u"), ("var", "v"), ("dd", f, order, 0, 1)]
    with np.errstate(all="ignore"):
        other = their_expressions.evaluate(rows, lo, hi, {"u": 0, "v": 1})
        other_low = their_expressions.evaluate_centred(rows, lo, hi, {"u": 0, "v": 1})
    known = 0
    with flint.ctx.workprec(400):
        for i in range(n):
            for _ in range(3):
                x, y = (flint.arb(float(t)) for t in lo[i] + rng.random(2) * (hi[i] - lo[i]))
                if x == y:
                    continue
                fx, fy = (evaluate(Expression(f, u), {"u": t}) for t in (x, y))
                value = (fx - fy) / (x - y)
                if order == 2:
                    from proxyconvex.core.expressions import derivative

                    value = (value - evaluate(derivative(Expression(f, v), "v"), {"v": y})) / (x - y)
                for below in (low[i], better[i], other[0][i], other_low[i]):
                    assert np.isnan(below) or not value < flint.arb(float(below)), (i, below, value)
                for above in (high[i], other[1][i]):
                    assert np.isnan(above) or not value > flint.arb(float(above)), (i, above, value)
                known += bool(np.isfinite(low[i]))
    assert known > n  # most are bounded, not merely unclaimed
