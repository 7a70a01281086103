"""Fast lower bounds: against exact rationals, 300-bit balls, and the enclosures with outward rounding."""

from __future__ import annotations

import pickle
from fractions import Fraction

import condition_zoo as zoo
import flint
import numpy as np
import pytest
from test_intervals import random_expression

import proxyconvex as pc
from proxyconvex.checks.certify import boxes as certify_boxes
from proxyconvex.checks.certify.certify import Problem, certify
from proxyconvex.checks.certify.lattice import Axes, Boxes, compact, doubled, largest
from proxyconvex.checks.certify.program import Program
from proxyconvex.checks.certify.quick import Quick
from proxyconvex.checks.certify.search import Limits, State, search
from proxyconvex.checks.certify.ways import Way
from proxyconvex.checks.intervals.choose import arithmetic
from proxyconvex.core.arithmetics import evaluate
from proxyconvex.core.evidence import Status
from proxyconvex.core.expressions import HELPERS, Expression, names, topological, variable

NAMES = ("a", "b", "c")
A, B, C = (variable(n) for n in NAMES)


def boxes_inside(rng, lo, hi, n):
    """Boxes of all sizes in a region: some are points, some reach its ends."""
    a, b = rng.uniform(lo, hi, (2, n, lo.shape[1]))
    size = 10.0 ** rng.uniform(-14, 0, (n, 1))
    b = np.clip(a + size * (b - a), lo, hi)
    low, high = np.minimum(a, b), np.maximum(a, b)
    pick = rng.integers(0, 6, low.shape)
    low = np.where(pick == 0, lo, low)
    high = np.where(pick == 1, hi, np.where(pick == 2, low, high))
    return low, high


def polynomial(rng, depth):
    """Ring operations, minima and maxima."""
    if depth == 0:
        leaf = [A, B, C, variable("a") + Fraction(1, 3), HELPERS["square"](B)]
        return leaf[rng.integers(len(leaf))]
    x, y = polynomial(rng, depth - 1), polynomial(rng, depth - 1)
    op = rng.integers(9)
    if op < 6:
        return (x + y, x - y, x * y, x * y, x * Fraction(int(rng.integers(-9, 9)), 7), y - x)[op]
    if op == 6:
        return x ** int(rng.integers(2, 5))
    return HELPERS["maximum" if op == 7 else "minimum"](x, y)


def exact_range(e, ends):
    """The natural extension in exact arithmetic from the ends of some nodes: an implementation that shares nothing."""
    if e in ends:
        return ends[e]
    if e.op == "const":
        return e.args[0], e.args[0]
    xs = [exact_range(x, ends) for x in e.args if isinstance(x, Expression)]
    (a, b), (c, d) = xs[0], xs[-1]
    if e.op == "add":
        return a + c, b + d
    if e.op == "sub":
        return a - d, b - c
    if e.op == "neg":
        return -b, -a
    if e.op in ("max", "min"):
        pick = max if e.op == "max" else min
        return pick(a, c), pick(b, d)
    least = Fraction(0) if a <= 0 <= b else min(abs(a), abs(b))
    power = e.args[1] if e.op == "pow" else 2
    if e.op == "pow" or e.args[0] == e.args[1]:
        return (least**power, max(abs(a), abs(b)) ** power) if power % 2 == 0 else (a**power, b**power)
    products = [p * q for p in (a, b) for q in (c, d)]
    return min(products), max(products)


def tables_of(e, low, high):
    """The ends of all nodes in one coordinate, rounded outward: what is looked up, not computed."""
    found = {}
    for node in topological(e):
        if len(names(node)) == 1:
            found[node] = Program([node], NAMES, arithmetic()).values(low, high)[0]
    return [
        {n: (Fraction(float(x[0][i])), Fraction(float(x[1][i]))) for n, x in found.items()}
        for i in range(len(low))
    ]


def test_errors_stay_below_the_bound_and_are_not_zero():
    """Computed lower ends against the natural extension in exact rationals."""
    rng = np.random.default_rng(11)
    above = tested = 0
    worst = 0.0
    for scale in (1.0, 2.0**-300, 2.0**100):
        for _ in range(40):
            e = polynomial(rng, 3)
            lo, hi = np.full((1, 3), -1.7) * scale, np.full((1, 3), 2.3) * scale
            quick = Quick(Program([e], NAMES, arithmetic()), lo, hi)
            if quick.natural is None:  # sizes beyond 2^500, or nothing but rounding errors
                continue
            low, high = boxes_inside(rng, lo, hi, 60)
            found = quick.lower(Boxes.of(low, high)).low
            margin = Fraction(quick.margins[0])
            for i, ends in enumerate(tables_of(e, low, high)):
                true = exact_range(e, ends)[0]
                assert Fraction(float(found[i])) <= true, e
                # The margin is subtracted, rounded, and covers an error of either sign.
                off = Fraction(float(found[i])) + margin - true
                assert abs(off) <= margin, e
                above += off > 0
                tested += 1
                worst = max(worst, float(abs(off) / margin))
    # Without the margin many of these would be wrong, and it is not absurdly large.
    assert tested > 4_000 and above > 100 and worst > 0.1


@pytest.mark.parametrize("which", ["own", "crival"])
def test_bounds_hold_for_random_expressions(which):
    if which == "crival":
        pytest.importorskip("ival", reason="crival is not installed")
    rng = np.random.default_rng(7)
    counts = {"natural": 0, "centred": 0}
    for _ in range(60):
        e = random_expression(rng, 4, NAMES)
        lo, hi = rng.uniform(-3, 0, (1, 3)), rng.uniform(0.5, 3, (1, 3))
        program = Program([e], NAMES, arithmetic(which))
        quick = Quick(program, lo, hi)
        if quick.natural is None:
            continue
        low, high = boxes_inside(rng, lo, hi, 40)
        boxes = Boxes.of(low, high)
        natural = quick.lower(boxes)
        bounds = [natural.low]
        counts["natural"] += 1
        plain = program.values(low, high)[0][0]
        # As tight as outward rounding, but for the errors: what is farther below zero than them need not be looked at again.
        assert (natural.low >= np.fmax(plain, -np.inf) - natural.close).all()
        if quick.centred is not None:
            counts["centred"] += 1
            mean, at_centre, score = quick.mean_value(boxes)
            bounds.append(mean.low)
            assert score.shape == (3, 40) and (score >= 0).all()
        centre = low + 0.5 * (high - low)
        points = [low, high, centre, *(low + rng.random(low.shape) * (high - low) for _ in range(3))]
        with flint.ctx.workprec(300):
            for x in points:
                x = np.clip(x, low, high)
                for i in range(40):
                    value = evaluate(e, {n: flint.arb(float(v)) for n, v in zip(NAMES, x[i], strict=True)})
                    for below in bounds:
                        assert np.isnan(below[i]) or not value < flint.arb(float(below[i])), (e, x[i])
                    if x is points[2] and quick.centred is not None and np.isfinite(at_centre[i]):
                        assert not value > flint.arb(float(at_centre[i])), (e, x[i])
    assert counts["natural"] > 40 and counts["centred"] > 25


@pytest.mark.parametrize("f", ["exp", "softplus", "sigmoid", "tanh", "bump", "relu", "abs"])
def test_operations_left_to_intervals_are_bounded(f):
    """Divided differences, functions of sums and quotients, between ring operations."""
    rng = np.random.default_rng(2)
    g = {"abs": "absolute"}.get(f, f)
    inner = HELPERS[g](A * B + Fraction(1, 3) * C)
    cases = [inner * A - B * inner, inner / (2 + A * A + C * C), HELPERS["minimum"](inner, A + B)]
    if f != "bump":
        cases.append(Expression("dd", f, 1, A, B) * C + A * B)
    for e in cases:
        lo, hi = np.full((1, 3), -1.5), np.full((1, 3), 1.25)
        quick = Quick(Program([e], NAMES, arithmetic()), lo, hi)
        # The second differences of a kink are not bounded.
        kink = e.op == "add" and f in ("relu", "abs")
        assert quick.natural is not None and (quick.centred is None) == kink
        low, high = boxes_inside(rng, lo, hi, 60)
        boxes = Boxes.of(low, high)
        bounds = [quick.lower(boxes).low] + ([] if kink else [quick.mean_value(boxes)[0].low])
        assert all(np.isfinite(b).mean() > 0.9 for b in bounds), [np.isfinite(b).mean() for b in bounds]
        with flint.ctx.workprec(300):
            for i in range(60):
                for t in (0.0, 1.0, *rng.random(3)):
                    x = np.clip(low[i] + t * (high[i] - low[i]), low[i], high[i])
                    at = {n: flint.arb(float(v)) for n, v in zip(NAMES, x, strict=True)}
                    if e.op == "add" and x[0] != x[1]:
                        fa, fb = (evaluate(Expression(f, A), {"a": at[n]}) for n in "ab")
                        value = (fa - fb) / (at["a"] - at["b"]) * at["c"] + at["a"] * at["b"]
                    elif e.op == "add":
                        continue
                    else:
                        value = evaluate(e, at)
                    for b in bounds:
                        assert np.isnan(b[i]) or not value < flint.arb(float(b[i])), (e, x)


def test_large_values_elsewhere_do_not_widen_bounds():
    """A divisor that reaches 1e17 on the region, and is near 1 on some boxes."""
    e = Fraction(1, 4) / (1 + (A * HELPERS["exp"](HELPERS["exp"](B)) - C) ** 2) + A * B
    quick = Quick(Program([e], NAMES, arithmetic()), np.full((1, 3), -3.0), np.full((1, 3), 3.0))
    low = np.array([[1e-3, -3.0, 0.0]])
    boxes = Boxes.of(low, low + 1e-3)
    assert max(quick.margins) < 1e-13 and quick.lower(boxes).low[0] > 0.24
    assert quick.centred is None  # the derivatives are too large on the region


def test_no_bound_where_the_region_gives_none():
    box = np.array([[-1.0, -1.0, -1.0]]), np.array([[1.0, 1.0, 1.0]])
    for e in (A / (B + C), HELPERS["log"](A + B), HELPERS["exp"](1000 * A) * B):
        assert Quick(Program([e], NAMES, arithmetic()), *box).natural is None
    # A derivative that is not bounded leaves the natural extension.
    root = Quick(Program([HELPERS["sqrt"](A + 1) * B], NAMES, arithmetic()), *box)
    assert root.natural is not None and root.centred is None
    assert Quick(Program([A * B, B - C], NAMES, arithmetic()), *box).centred is None


def test_bounds_near_zero_are_computed_anew(monkeypatch):
    """A slack whose lower end is exactly zero closes, although the errors would decide it."""
    monkeypatch.setattr(certify_boxes, "MANY", 1)
    cond = pc.reduced(lambda a, b: (a - b) ** 2 * (a + 1) ** 2, a=(-1, 1), b=(-1, 1))
    verdict = certify(cond, solver="boxes")
    assert verdict.status is Status.HOLDS and verdict.boxes == 1


def searched(condition, limit, many, monkeypatch):
    monkeypatch.setattr(certify_boxes, "MANY", many)
    problem = Problem.make(condition, 0, "own")
    state = search(problem.task(Way()), State.whole(problem.lo, problem.hi), Limits(600, limit))
    return state


def three_sigmoids():
    return pc.reduced(
        lambda a, b, c, s: 2.0001 - s(a) * s(b) * s(c) - s(a) - s(b) * (1 - s(c)),
        activation="sigmoid", a=(-8, 8), b=(-8, 8), c=(-8, 8),
    )  # fmt: skip


def two_tanhs():
    return pc.reduced(
        lambda a, b, s: 0.929343 - s(a) * s(b) * (1 + (a - b) ** 2 / 8),
        activation="tanh",
        a=(-2, 2),
        b=(-2, 2),
    )


@pytest.mark.parametrize("make", [three_sigmoids, two_tanhs], ids=["sigmoids", "tanh"])
def test_the_tree_is_that_of_outward_rounding(make, monkeypatch):
    fast, slow = (searched(make(), 60_000, many, monkeypatch) for many in (1, 10**9))
    assert len(fast.tree) == len(slow.tree) > 5
    assert all(np.array_equal(a, b) for a, b in zip(fast.tree, slow.tree, strict=True))
    assert fast.boxes > 200
    # Bounds on open boxes agree but for rounding.
    assert np.allclose(fast.floor, slow.floor, atol=1e-9)


def test_a_search_that_uses_them_gives_a_certificate(tmp_path, monkeypatch):
    monkeypatch.setattr(certify_boxes, "MANY", 1)
    verdict = certify(three_sigmoids())
    assert verdict.status is Status.HOLDS and verdict.boxes > 1_000
    from proxyconvex_checker import verify

    assert verify(verdict.write(tmp_path / "out.json")).accepted


def test_a_violation_is_met(monkeypatch):
    monkeypatch.setattr(certify_boxes, "MANY", 1)
    verdict = certify(zoo.p2("0.6"))
    assert verdict.status is Status.FALSIFIED
    cond = pc.reduced(lambda a, b, s: 0.99 - s(a) * s(b), activation="sigmoid", a=(-9, 9), b=(-9, 9))
    state = searched(cond, 10**5, 1, monkeypatch)
    assert state.witness is not None and cond.slack(dict(zip("ab", state.witness.tolist(), strict=True))) < 0


# --- boxes by number ------------------------------------------------------------------------------------------------


def test_halves_are_those_of_the_checker():
    from proxyconvex_checker.boxes import tree

    rng = np.random.default_rng(0)
    low, high = np.array([[-3.0, 0.1, -1e-3]]), np.array([[2.0, 0.7, 5.0]])
    boxes = Boxes.of(low, high)
    for _ in range(9):
        split = rng.integers(0, 3, len(boxes)).astype(np.uint8)
        boxes = boxes.halved(split)
        low, high = tree.halves(low, high, split.astype(np.intp))
        assert np.array_equal(boxes.lo, low) and np.array_equal(boxes.hi, high)
    # Every interval is kept once.
    assert all(len(x) < 300 for x in boxes.axes.lo)
    few = boxes.part(rng.integers(0, len(boxes), 20))
    small, rest = compact([few, boxes.part(slice(3, 5))])
    assert np.array_equal(small.lo, few.lo) and np.array_equal(small.hi, few.hi)
    assert np.array_equal(rest.hi, boxes.hi[3:5]) and rest.axes is small.axes
    assert all(len(x) <= 22 for x in small.axes.lo)
    copy = Axes(*boxes.axes.since([0, 0, 0]))
    sizes = boxes.axes.sizes()
    more = boxes.halved(np.zeros(len(boxes), np.uint8))
    copy.extend(*more.axes.since(sizes))
    assert np.array_equal(Boxes(copy, more.ids).lo, more.lo)
    again = pickle.loads(pickle.dumps(few))
    assert np.array_equal(again.lo, few.lo) and again.axes.tables == {}


def test_columns_of_new_intervals_are_added():
    program = Program([HELPERS["sigmoid"](A) * B - B * C], NAMES, arithmetic())
    lo, hi = np.full((1, 3), -2.0), np.full((1, 3), 2.0)
    quick, boxes = Quick(program, lo, hi), Boxes.of(lo, hi)
    rng = np.random.default_rng(1)
    for _ in range(8):
        grown, fresh = quick.lower(boxes).low, quick.lower(compact([boxes])[0]).low
        assert np.array_equal(grown, fresh)
        boxes = boxes.halved(rng.integers(0, 3, len(boxes)).astype(np.uint8))
    again = pickle.loads(pickle.dumps(quick))
    assert np.array_equal(again.lower(boxes).low, quick.lower(boxes).low)


def test_small_helpers():
    assert doubled(np.array([[1, 2], [3, 4]])).tolist() == [[1, 1, 2, 2], [3, 3, 4, 4]]
    rng = np.random.default_rng(4)
    score = rng.integers(0, 4, (6, 500)).astype(np.float32)
    assert np.array_equal(largest(score), np.argmax(score, axis=0))
    axes = Axes([np.array([0.0])], [np.array([1.0])])
    assert axes.halves(0, np.array([0, 0])).tolist() == [1, 1] and len(axes.lo[0]) == 3
