"""The ledger against exact arithmetic, against the core's identity, and against runs that are not what they say."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from monitored_runs import FEATURES, dots_of, loss_and_gradient, problem, train

from proxyconvex import InvalidInputError, Status, trace_identity
from proxyconvex.monitor.ledger import Ledger
from proxyconvex.monitor.passing import pass_over_all
from proxyconvex.monitor.sums import RunningSum
from proxyconvex.monitor.track import Rounding, Track


def test_running_sum_is_exact_where_a_plain_sum_is_not() -> None:
    terms = [1e16, 1.0, -1e16, 1e-3] * 1000
    total = RunningSum()
    for x in terms:
        total.add(x)
    at_once = RunningSum()
    at_once.add_all(terms)
    assert total.state() == at_once.state()
    assert total.value == pytest.approx(math.fsum(terms), rel=1e-12)
    assert sum(terms) != pytest.approx(math.fsum(terms), rel=1e-3)


@pytest.mark.parametrize("rule", ["sgd", "heavy-ball", "random"])
def test_both_sides_are_those_of_exact_arithmetic(rule: str) -> None:
    rng = np.random.default_rng(3)
    v = [Fraction(int(k), 8) for k in rng.integers(-20, 20, 4)]
    w = [Fraction(int(k), 8) for k in rng.integers(-20, 20, 4)]
    start, left, squares = list(w), Fraction(0), Fraction(0)
    m = [Fraction(0)] * 4
    ledger = Ledger(comparators=("v",), precision="float64")

    def inner(a: list[Fraction], b: list[Fraction]) -> Fraction:
        return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))

    for t in range(20):
        g = [(k + 1) * x / 16 for k, x in enumerate(w)]
        m = [x / 2 + y for x, y in zip(m, g, strict=True)]
        u = {"sgd": g, "heavy-ball": m, "random": [Fraction(int(k), 64) for k in rng.integers(-9, 9, 4)]}[
            rule
        ]
        far = [a - b for a, b in zip(w, v, strict=True)]
        left += inner(u, far)
        squares += inner(u, u)
        dots = {
            "grad_sq": float(inner(g, g)), "grad_w_minus_v": {"v": float(inner(g, far))}, "dist_sq": {"v": float(inner(far, far))},
            "update_sq": float(inner(u, u)), "update_dot": {"v": float(inner(u, far))},
        }  # fmt: skip
        ledger.observe(t, eta=1.0, loss=0.0, dots=dots)
        w = [a - b for a, b in zip(w, u, strict=True)]
    far0, far = ([a - b for a, b in zip(p, v, strict=True)] for p in (start, w))
    right = (inner(far0, far0) - inner(far, far)) / 2 + squares / 2
    assert left == right  # T7 itself, in exact arithmetic
    ledger.close(dist_sq={"v": float(inner(far, far))})
    verdict = ledger.verdict("v")
    assert verdict.status is Status.HOLDS
    assert verdict.witness["left"] == pytest.approx(float(left), rel=1e-14)
    assert verdict.witness["right"] == pytest.approx(float(right), rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_agrees_with_the_identity_of_the_core(momentum: float) -> None:
    ledger, (w, _) = train(momentum=momentum)
    track = ledger.tracks["teacher"]
    _, _, v = problem()
    verdict = trace_identity(
        track.dot.value, float(v @ v), float((w - v) @ (w - v)), track.update_sq.value, track.absolute.value
    )
    assert verdict.status is Status.HOLDS
    mine = ledger.verdict("teacher")
    assert mine.status is Status.HOLDS
    assert mine.witness["left"] == pytest.approx(verdict.witness["left"], rel=1e-13)
    assert mine.witness["right"] == pytest.approx(verdict.witness["right"], rel=1e-11)
    assert track.checks == 150


def test_plain_sgd_form_needs_no_update() -> None:
    x, y, v = problem()
    w, w0 = np.zeros(FEATURES), np.zeros(FEATURES)
    ledger = Ledger(comparators=("teacher",), precision="float64")
    for t in range(60):
        f, g, _ = loss_and_gradient(w, x, y)
        dots = {
            k: d for k, d in dots_of(w, g, 0.1 * g, {"teacher": v}, w0).items() if not k.startswith("update")
        }
        ledger.observe(t, eta=0.1, loss=f, dots=dots)
        w = w - 0.1 * g
    ledger.close(dist_sq={"teacher": float((w - v) @ (w - v))})
    assert ledger.form == "sgd"
    assert ledger.verdict().status is Status.HOLDS
    assert "sum eta_t <d_t, w_t - v>" in ledger.verdict().sentence


@pytest.mark.parametrize("what", ["moved", "wrong-update", "wrong-gradient"])
def test_a_record_that_is_not_of_this_run_is_found_with_its_step(what: str) -> None:
    x, y, v = problem()
    w, w0 = np.zeros(FEATURES), np.zeros(FEATURES)
    ledger = Ledger(comparators=("teacher",), precision="float64")
    for t in range(40):
        f, g, _ = loss_and_gradient(w, x, y)
        u = 0.1 * g
        dots = dots_of(w, g, u, {"teacher": v}, w0)
        if t == 20 and what == "wrong-update":
            dots["update_dot"] = {"teacher": dots["update_dot"]["teacher"] * (1 + 1e-6)}
        if what == "wrong-gradient":
            dots = {k: d for k, d in dots.items() if not k.startswith("update")}
            dots["grad_w_minus_v"] = {"teacher": dots["grad_w_minus_v"]["teacher"] * (1 + (t == 20))}
        ledger.observe(t, eta=0.1, loss=f, dots=dots)
        w = w - u
        if t == 20 and what == "moved":
            w = w + 1e-4
    ledger.close(dist_sq={"teacher": float((w - v) @ (w - v))})
    verdict = ledger.verdict()
    assert verdict.status is Status.FALSIFIED
    assert verdict.witness["step"] == 21
    assert "between step 20 and step 21" in verdict.sentence


def test_rounding_of_stored_weights_is_allowed_for_and_no_more() -> None:
    """float16 weights round the intended step; with the unit roundoff of float16 the ledger still adds up."""
    rng = np.random.default_rng(0)
    results = {}
    for unit in (2.0**-11, 0.0):
        w = rng.normal(size=300).astype(np.float16)
        v = np.zeros(300)
        ledger = Ledger(
            comparators=("zero",), precision="float64", weight_unit=unit, comparator_norms={"zero": 0.0}
        )
        for t in range(50):
            g = w.astype(float)
            dots = {"grad_sq": g @ g, "grad_w_minus_v": {"zero": g @ g}, "dist_sq": {"zero": g @ g}}
            ledger.observe(t, eta=0.01, loss=g @ g / 2, dots=dots)
            w = (w.astype(float) - 0.01 * g).astype(np.float16)
        z = w.astype(float) - v
        ledger.close(dist_sq={"zero": z @ z})
        results[unit] = ledger.verdict().status
    assert results == {2.0**-11: Status.HOLDS, 0.0: Status.FALSIFIED}


def test_drift_bound_of_one_step() -> None:
    """||w+ - v||^2 with w+ = w - u + e, ||e|| <= unit ||w+||: the gap is at most ||e|| ||w+ - v|| + ||e||^2/2."""
    rng = np.random.default_rng(1)
    unit = 2.0**-8
    for _ in range(200):
        w, v, u = rng.normal(size=(3, 6))
        e = rng.choice([-1.0, 1.0], 6) * unit * np.abs(w - u) / (1 + unit)
        after = w - u + e
        track = Track(Rounding(1e-13, unit, float(np.linalg.norm(v))))
        track.arrive(0, float((w - v) @ (w - v)))
        track.leave(float(u @ (w - v)), float(u @ u), math.nan)
        track.arrive(1, float((after - v) @ (after - v)))
        assert track.broken_step < 0
        assert track.worst > 0


@pytest.mark.parametrize("by", ["drop", "distance"])
def test_stretches_of_measured_steps_telescope_by_themselves(by: str) -> None:
    """Exact fractions: both sides are the sums over the measured steps, whatever happened at the others."""
    rng = np.random.default_rng(5)
    w, v = (np.array([Fraction(int(k), 16) for k in rng.integers(-30, 30, 3)]) for _ in range(2))
    track = Track(Rounding(1e-14))
    left, right, measured = Fraction(0), Fraction(0), [0, 1, 2, 6, 10, 11, 15]
    for t in range(18):
        u = np.array([Fraction(int(k), 64) for k in rng.integers(-9, 9, 3)])
        after = w - u
        near, far = (w - v) @ (w - v), (after - v) @ (after - v)
        if t in measured or (by == "distance" and t - 1 in measured):
            track.arrive(t, float(near))
        if t in measured:
            drop = float(near - far) if by == "drop" and t + 1 not in measured else None
            track.leave(float(u @ (w - v)), float(u @ u), math.nan, drop)
            left += u @ (w - v)
            right += (near - far) / 2 + u @ u / 2
        else:
            track.skip(t)
        w = after
    assert left == right
    assert track.checks == len(measured)
    assert track.unmeasured == 18 - len(measured)
    found = track.sides()
    assert found == pytest.approx((float(left), float(right)), rel=1e-14)
    verdict = track.verdict("update")
    assert verdict.status is Status.HOLDS
    assert f"at all {len(measured)} steps compared ({18 - len(measured)} other steps" in verdict.sentence


@pytest.mark.parametrize("wrong", [1e-9, -1e-9])
def test_a_drop_that_is_not_that_of_the_step_is_found(wrong: float) -> None:
    # The step is 1e-6 of the distance: a comparison of distances in double precision would not see it.
    a, u = 1.0, 1e-6
    for error, status in ((0.0, Status.HOLDS), (wrong, Status.FALSIFIED)):
        track = Track(Rounding(1e-11))
        track.arrive(3, a * a)
        track.leave(u * a, u * u, math.nan, 2 * u * a * (1 + error) - u * u)
        track.skip(4)
        assert track.verdict("sgd").status is status
    assert "between step 3 and step 4" in track.verdict("sgd").sentence


def test_a_step_without_its_end_is_left_out() -> None:
    track = Track(Rounding(1e-12))
    for t in range(0, 100, 20):
        track.arrive(t, 1.0)
        track.leave(0.5, 0.25, math.nan)
        for k in range(1, 20):
            track.skip(t + k)
    assert track.checks == 0
    assert track.sides() == (0.0, 0.0)
    assert track.verdict("update").status is Status.INCONCLUSIVE


def test_steps_passed_over_are_those_taken_in() -> None:
    """The fast way of a step that has only loss, step size and gradient norm leaves the same state and log."""
    rng = np.random.default_rng(2)
    preset = {"loss": 1, "gradient-norm": 1, "inner-product": 7, "distance": 7, "update": 7, "record": 14}
    slow, fast = (Ledger(comparators=("v",), preset=preset, precision="float64") for _ in range(2))
    passed = 0
    for t in range(100):
        square, loss = float(rng.exponential()), float(rng.normal())
        dots = {"grad_sq": square}
        if t % 7 == 0:
            dots |= {"grad_w_minus_v": {"v": 0.1}, "dist_sq": {"v": 2.0}, "drop": {"v": 0.02 - 0.01 * square}}
        slow.observe(t, eta=0.1, loss=loss, dots=dots)
        if fast.wants(t):
            fast.observe(t, eta=0.1, loss=loss, dots=dots)
        else:
            passed += 1
            fast.pass_over(t, 0.1, loss, "raw", square)
    assert passed == 85
    assert slow.state_dict() == fast.state_dict()
    for ledger in (slow, fast):
        ledger.close()
    a, b = slow.log(), fast.log()
    assert a.records == b.records
    assert a.totals == b.totals
    assert a.records[-1]["step"] == 99


@pytest.mark.parametrize("bad", [None, 17])
def test_steps_passed_over_at_once_are_those_passed_over_one_by_one(bad: int | None) -> None:
    rng = np.random.default_rng(2)
    preset = {"loss": 1, "inner-product": 7, "distance": 7, "update": 7, "record": 14}
    each, block = (Ledger(comparators=("v",), preset=preset, precision="float64") for _ in range(2))
    losses = [float(x) if t % 5 else None for t, x in enumerate(10.0 ** rng.uniform(-8, 8, 100))]
    etas = [0.1 + 1e-17 * t if t % 7 != 2 else None for t in range(100)]
    if bad is not None:
        losses[bad] = math.inf
    dots = {"grad_sq": 1.0, "grad_w_minus_v": {"v": 0.1}, "dist_sq": {"v": 2.0}, "drop": {"v": 0.01}}
    first = 0
    for t in range(100):
        if t % 7 == 0 or t == 99:
            if t > first:
                pass_over_all(block, first, etas[first:t], losses[first:t], "raw")
            if t % 7 == 0:
                for ledger in (each, block):
                    ledger.observe(t, eta=etas[t], loss=losses[t], dots=dots)
            first = t + 1
        elif not 50 <= t < 53:  # steps that nobody saw
            each.pass_over(t, etas[t], losses[t], "raw", None)
        if t == 49:
            first = 53
    assert each.state_dict() == block.state_dict()
    assert (each.first_nonfinite, each.first_missed) == (-1 if bad is None else bad, 53)
    for ledger in (each, block):
        ledger.close()
    assert each.log().records == block.log().records
    assert each.log().totals == block.log().totals


def test_skipped_steps_are_recorded_and_not_summed() -> None:
    ledger = Ledger(comparators=("zero",), precision="float64")
    w = 1.0
    for t in range(10):
        bad = t == 4
        g = math.inf if bad else w
        dots = {"grad_sq": g * g, "grad_w_minus_v": {"zero": g * w}, "dist_sq": {"zero": w * w}}
        ledger.observe(t, eta=0.1, loss=w * w / 2, dots=dots, skipped=bad)
        w -= 0.0 if bad else 0.1 * w
    ledger.close(dist_sq={"zero": w * w})
    assert (ledger.steps, ledger.skipped) == (9, 1)
    assert ledger.verdict().status is Status.HOLDS
    assert ledger.log().records[4]["skipped"]


def test_values_that_are_not_finite_and_missed_steps_are_said() -> None:
    ledger = Ledger(comparators=("zero",), precision="float64")
    dots = {"grad_sq": 1.0, "grad_w_minus_v": {"zero": 1.0}, "dist_sq": {"zero": 1.0}}
    ledger.observe(0, eta=0.0, loss=1.0, dots=dots)
    ledger.observe(5, eta=0.0, loss=1.0, dots=dots)
    assert ledger.first_missed == 5
    ledger.observe(6, eta=0.0, loss=math.nan, dots={**dots, "grad_w_minus_v": {"zero": math.nan}})
    assert ledger.first_nonfinite == 6
    assert math.isfinite(ledger.totals()["loss"])


def test_groups_with_different_step_sizes_have_no_step_size() -> None:
    ledger = Ledger(comparators=("zero",), precision="float64")
    dots = {
        "grad_sq": 1.0,
        "grad_w_minus_v": {"zero": 1.0},
        "dist_sq": {"zero": 1.0},
        "update_sq": 0.0,
        "update_dot": {"zero": 0.0},
    }
    ledger.observe(0, eta=[0.1, 0.2], loss=1.0, dots=dots)
    ledger.observe(1, eta=[0.1, 0.1], loss=1.0, dots=dots)
    etas = [r["eta"] for r in ledger.log().records]
    assert etas == [[0.1, 0.2], 0.1]


@pytest.mark.parametrize("k", [1, 37, 149])
def test_resume_gives_the_same_sums_bit_for_bit(k: int, tmp_path) -> None:
    whole, _ = train(log_dir=tmp_path / "whole")
    first, state = train(log_dir=tmp_path / "parts", steps=k, close=False)
    saved = json.loads(json.dumps(first.state_dict()))
    train(first, steps=150, start=k, state=state, close=False)  # steps that a crash will lose
    first.writer.close()
    second, _ = train(None, log_dir=tmp_path / "parts", steps=0, close=False)
    second.load_state_dict(saved)
    train(second, steps=150, start=k, state=state)
    assert second.totals() == whole.totals()
    assert second.state_dict() == whole.state_dict()
    a, b = whole.log(), second.log()
    assert [r["step"] for r in b.records] == list(range(150))
    assert a.records == b.records


def test_a_state_of_another_ledger_is_refused() -> None:
    saved = train(steps=3)[0].state_dict()
    other = Ledger(comparators=("init",))
    with pytest.raises(InvalidInputError, match="comparators"):
        other.load_state_dict(saved)
    used, _ = train(steps=3)
    with pytest.raises(InvalidInputError, match="has not observed"):
        used.load_state_dict(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gradient": "mean"}, "before or after clipping"),
        ({"gradient": "raw+clipped"}, "'clipped'"),
        ({"dots": {"norm": 1.0}}, "Other values go into extra"),
        ({"dots": {"dist_sq": {"w1": 1.0}}}, "the comparators init"),
        ({"dots": {"dist_sq": 1.0}}, "mapping from comparator"),
        ({"step": -1}, "whole number > -1"),
    ],
)
def test_what_an_adapter_may_not_say(change: dict, words: str) -> None:
    good = {"step": 0, "eta": 0.1, "loss": 1.0, "dots": {}} | change
    with pytest.raises(InvalidInputError, match=words):
        Ledger().observe(good.pop("step"), **good)


def test_float32_sums_are_within_the_tolerance() -> None:
    """Dot products of 10^5 entries summed in float32 stay far below the allowance for them."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=100_000).astype(np.float32)
    v = w + rng.normal(size=w.size).astype(np.float32) * np.float32(0.1)
    ledger = Ledger(comparators=("v",), precision="float32")
    for t in range(30):
        g = (w * np.linspace(0.1, 1, w.size)).astype(np.float32)
        after = w - np.float32(0.05) * g
        u, z = w - after, w - v
        dots = {
            "grad_sq": g @ g,
            "grad_w_minus_v": {"v": g @ z},
            "dist_sq": {"v": z @ z},
            "update_sq": u @ u,
            "update_dot": {"v": u @ z},
        }
        ledger.observe(t, eta=0.05, loss=1.0, dots=dots)
        w = after
    ledger.close(dist_sq={"v": float((w - v) @ (w - v))})
    assert ledger.verdict().status is Status.HOLDS
    assert 0 < ledger.verdict().witness["share"] < 0.2
