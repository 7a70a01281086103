"""What is concluded from a run: conditions in closed form, promises above what was measured, honest words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from monitored_runs import dots_of, train
from rich.console import Console

from proxyconvex import Status
from proxyconvex.core.theorems import THEOREMS
from proxyconvex.monitor.conditions import WatchConvexity, WatchPL
from proxyconvex.monitor.ledger import Ledger
from proxyconvex.monitor.live import Follower, sparkline, view
from proxyconvex.monitor.log import LOG_NAME
from proxyconvex.monitor.summary import summarise
from proxyconvex.report.monitor_html import monitor_html, pretty, write_monitor_report


def quadratic(
    steps: int = 80,
    eta: float = 0.4,
    h: float | str = "f_v",
    curvature: tuple[float, ...] = (1.0, 0.25),
    preset: str = "full",
    **meta,
) -> Ledger:
    """f = (1/2) sum c_k w_k^2 by gradient descent against v = (1, -1)."""
    c, v = np.array(curvature), np.array([1.0, -1.0])
    ledger = Ledger(
        comparators=("v",), precision="float64", preset=preset, meta={"full_batch": True, "loss": "squared", **meta},
        watches=[WatchConvexity("convex", "loss", h)],
    )  # fmt: skip
    w = w0 = np.array([3.0, -2.0])
    for t in range(steps):
        g = c * w
        dots = dots_of(w, g, eta * g, {"v": v}, w0)
        ledger.observe(t, eta=eta, loss=float(c @ w**2 / 2), dots=dots, extra={"f_v": float(c @ v**2 / 2)})
        w = w - eta * g
    ledger.close(dist_sq={"v": float((w - v) @ (w - v))})
    return ledger


def test_slack_and_constants_in_closed_form() -> None:
    """Here f = (1/2)<w, Cw>, so the slack of PC(f, f) is exactly (1/2)<w - v, C(w - v)>, and mu -> 4 min c (PL: m = min c)."""
    ledger = quadratic()
    c, v = np.array([1.0, 0.25]), np.array([1.0, -1.0])
    path = [np.array([3.0, -2.0]) * (1 - 0.4 * c) ** t for t in range(80)]
    slack = [float((w - v) @ (c * (w - v))) / 2 for w in path]
    tally = ledger.tallies["convex", "v"]
    assert tally.least == pytest.approx(min(slack), rel=1e-10)
    assert tally.least_step == int(np.argmin(slack))
    mu = [2 * float((c * w) @ (c * w)) / float(c @ w**2 / 2) for w in path]
    assert ledger.pl_tallies["PL"].least == pytest.approx(min(mu), rel=1e-10)
    assert ledger.pl_tallies["PL"].least == pytest.approx(4 * 0.25, rel=1e-6)
    assert ledger.step_tally.smoothness <= 1.0 + 1e-9  # the largest curvature
    assert ledger.step_tally.smoothness == pytest.approx(
        max(float((c * w) @ (c * (c * w))) / float((c * w) @ (c * w)) for w in path[:-1]), rel=1e-6
    )


def test_violations_are_counted_with_their_steps() -> None:
    """h = 0.3 is too small while w is near v = (1, -1), where f is 0.625."""
    ledger = quadratic(h=0.3)
    c, v = np.array([1.0, 0.25]), np.array([1.0, -1.0])
    path = [np.array([3.0, -2.0]) * (1 - 0.4 * c) ** t for t in range(80)]
    bad = [t for t, w in enumerate(path) if float((c * w) @ (w - v)) - float(c @ w**2 / 2) + 0.3 < 0]
    assert 0 < len(bad) < 80
    s = summarise(ledger.log())
    finding = next(f for f in s.findings if f.condition == "convex")
    assert finding.status is Status.FALSIFIED
    assert f"violated at {len(bad)} of" in finding.sentence
    assert finding.since == (bad[-1] + 1 if bad[-1] < 79 else -1)
    assert not any(p.condition == "convex" for p in s.promises)


@pytest.mark.parametrize("full_batch", [True, False], ids=["full-batch", "mini-batch"])
@pytest.mark.parametrize("seed", range(4))
def test_promises_lie_above_what_was_measured(full_batch: bool, seed: int) -> None:
    s = summarise(train(full_batch=full_batch, seed=seed, steps=120)[0].log())
    theorems = {p.theorem for p in s.promises}
    assert theorems >= ({"T7", "T3", "T4", "T1"} if full_batch else {"T7", "T3-samples"})
    for p in s.promises:
        assert p.evidence.name == "ON_TRACE"
        assert math.isnan(p.measured) or p.measured <= p.bound * (1 + 1e-9) + 1e-12, p
        assert p.bound >= 0


def test_a_promise_is_the_theorems_own_number() -> None:
    ledger = quadratic()
    s = summarise(ledger.log())
    p = next(p for p in s.promises if p.theorem == "T4" and p.condition == "convex")
    t4 = next(t for t in THEOREMS if t.id == "T4")
    start, v = np.array([3.0, -2.0]), np.array([1.0, -1.0])
    f0 = float(np.array([1.0, 0.25]) @ start**2 / 2)
    by_hand = t4.bound(
        79,
        eta=0.4,
        R=float(np.linalg.norm(start - v)),
        L=ledger.step_tally.smoothness_upper,
        Delta=f0,
        h=0.625,
    )
    assert p.bound == pytest.approx(by_hand, rel=1e-6)
    assert p.bound >= by_hand
    assert "After 79 steps" in p.sentence  # the arrival of the last step has no loss


def test_the_posterior_promise_is_the_right_side_of_t7() -> None:
    ledger = quadratic()
    s = summarise(ledger.log())
    p = next(p for p in s.promises if p.theorem == "T7" and p.condition == "convex")
    c, v = np.array([1.0, 0.25]), np.array([1.0, -1.0])
    path = [np.array([3.0, -2.0]) * (1 - 0.4 * c) ** t for t in range(81)]
    squares = sum(float((0.4 * c * w) @ (0.4 * c * w)) for w in path[:-1])
    right = (float((path[0] - v) @ (path[0] - v)) - float((path[-1] - v) @ (path[-1] - v))) / 2 + squares / 2
    assert p.bound == pytest.approx(0.625 + right / (80 * 0.4), rel=1e-9)
    assert p.measured == pytest.approx(np.mean([float(c @ w**2 / 2) for w in path[:-1]]), rel=1e-9)


def test_other_optimisers_get_no_theorem_on_sgd() -> None:
    s = summarise(train(momentum=0.9)[0].log())
    assert {p.theorem for p in s.promises} == {"T7"}
    assert all("as measured" in p.sentence for p in s.promises)
    assert "not eta times the gradient" in s.why_not
    assert all(t["status"] == "HOLDS" for t in s.totals["tracks"].values())


def test_a_varying_step_and_too_long_a_step_are_said() -> None:
    ledger = quadratic(eta=1.9, steps=30)  # below 2/L = 2, above 1/L
    assert any(p.theorem == "T4" for p in summarise(ledger.log()).promises)
    ledger = quadratic(eta=2.1, steps=12)
    s = summarise(ledger.log())
    assert not any(p.theorem in ("T4", "T1") for p in s.promises)
    assert any("2/L" in r.reason for rows in s.alternatives.values() for r in rows if r.theorem == "T4")


def test_a_clipped_gradient_is_not_the_gradient_of_the_condition() -> None:
    w, v = np.array([3.0, 1.0]), np.zeros(2)
    ledger = Ledger(comparators=("zero",), precision="float64", watches=[WatchConvexity("own", "loss", 0.0)])
    raw = Ledger(comparators=("zero",), precision="float64", watches=[WatchConvexity("own", "loss", 0.0)])
    for t in range(20):
        g, clip = w, min(1.0, 0.5 / float(np.linalg.norm(w)))
        u = 0.1 * clip * g
        dots = dots_of(w, clip * g, u, {"zero": v}, v)
        ledger.observe(t, eta=0.1, loss=float(w @ w / 2), dots=dots, gradient="clipped")
        before = {"raw_grad_sq": float(g @ g), "raw_grad_w_minus_v": {"zero": float(g @ w)}, "clip": clip}
        raw.observe(t, eta=0.1, loss=float(w @ w / 2), dots={**dots, **before}, gradient="clipped")
        w = w - u
    ledger.close(dist_sq={"zero": float(w @ w)})
    raw.close(dist_sq={"zero": float(w @ w)})
    assert not summarise(ledger.log()).findings
    s = summarise(raw.log())
    assert [f.status for f in s.findings] == [Status.HOLDS]
    tally = s.totals["convexity"][0]
    track = s.totals["tracks"]["zero"]
    assert tally["inner"] == pytest.approx(
        track["right"], rel=1e-9
    )  # clip weights the steps: T7 bounds the clipped sum
    assert "clipped (after clipping)" in str(s)


def test_rank_local_gradients_are_not_used_for_conditions() -> None:
    ledger = Ledger(comparators=("zero",), precision="float64", watches=[WatchConvexity("own", "loss", 0.0)])
    dots = {"grad_sq": 1.0, "grad_w_minus_v": {"zero": -1.0}, "dist_sq": {"zero": 1.0}}
    for t in range(3):
        ledger.observe(t, eta=0.1, loss=1.0, dots=dots, gradient="rank-local")
    s = summarise(ledger.log())
    assert not s.findings
    assert "of one rank only" in str(s)


def test_words_for_nothing_yet(tmp_path) -> None:
    ledger = Ledger()
    s = summarise(ledger.log())
    assert str(s) == "Nothing was recorded yet."
    assert "Nothing was recorded yet" in monitor_html(s)


@pytest.mark.parametrize("watch", [WatchConvexity, WatchPL])
def test_bad_watches_are_refused(watch) -> None:
    with pytest.raises(ValueError, match="accepted"):
        watch("x", g=None)


# --- what people look at ---


def test_report_is_one_file_and_names_the_gradient(tmp_path) -> None:
    train(log_dir=tmp_path / "run", steps=120)
    path = write_monitor_report(tmp_path / "run", tmp_path / "out")
    (tmp_path / "folder").mkdir()
    assert write_monitor_report(tmp_path / "run", tmp_path / "folder").name == "report.html"
    text = path.read_text()
    assert "raw (as computed, before any clipping)" in text
    assert "unbiased" in text
    assert "The record adds up at every step." in text
    for outside in ("<link", "src=", "@import", "url(", "https://fonts"):
        assert outside not in text
    assert text.count("<svg") >= 12
    assert text == monitor_html(summarise(tmp_path / "run"))


def test_report_of_a_broken_ledger_says_so_first(tmp_path) -> None:
    ledger, (w, _) = train(steps=20, close=False)
    ledger.close(dist_sq={c: 5.0 for c in ledger.comparators})
    text = monitor_html(summarise(ledger.log()))
    assert text.index("The record does not add up.") < text.index("Which conditions held")
    assert "between step 19 and step 20" in text
    assert "BROKEN" in _drawn(ledger.log())


def test_formulas_are_pretty_in_html() -> None:
    assert pretty("||grad||^2 >= (mu/2)(loss - 0)") == "‖∇‖² ≥ (μ/2)(loss - 0)"


def _drawn(log) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"), force_terminal=False)  # noqa: SIM115
    console.print(view(log))
    console.file.close()
    return console.export_text()


def test_follower_reads_what_is_added(tmp_path) -> None:
    ledger, state = train(log_dir=tmp_path / "a", steps=30, close=False)
    train(ledger, steps=60, start=30, state=state)
    lines = (tmp_path / "a" / LOG_NAME).read_bytes().splitlines(keepends=True)
    follower = Follower(tmp_path / "b")
    assert not follower.poll()
    assert "waiting" in _drawn(follower.log)
    (tmp_path / "b").mkdir()
    with (tmp_path / "b" / LOG_NAME).open("ab", buffering=0) as file:
        for line in lines[:-1]:
            file.write(line[:7])
            follower.poll()
            file.write(line[7:])
        assert follower.poll()
        assert follower.log.ended is None
        assert follower.log.torn == 0
        text = _drawn(follower.log)
        assert "step 59 running (or killed)" in text
        assert "raw gradient" in text
        file.write(lines[-1])
        follower.poll()
    assert follower.log.ended["reason"] == "closed"
    assert "ledger T7, v = teacher: adds up" in _drawn(follower.log)
    assert follower.log.records == ledger.log().records


def test_sparkline() -> None:
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([math.nan]) == ""
    assert len(sparkline(list(range(1000)))) == 60
    assert sparkline([2.0, 2.0]) == "▁▁"
