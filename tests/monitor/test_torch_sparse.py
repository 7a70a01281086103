"""The light preset beyond its first steps: what is measured, compared and said, and that nothing is lost by reading in blocks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_loops import Kept, close, shifted, watched_and_plain

from proxyconvex.core.evidence import Status
from proxyconvex.monitor.log import read_log
from proxyconvex.monitor.pytorch import steps as recording
from proxyconvex.monitor.pytorch.settings import COMPARE, EVERY, FIRST
from proxyconvex.monitor.summary import summarise
from proxyconvex.report.format import number
from proxyconvex.report.monitor_html import monitor_html
from proxyconvex.torch import Monitor

F = nn.functional
STEPS = 115
COMPARED = [t for t in range(STEPS) if t < FIRST or t % COMPARE == 0]
MEASURED = [t for t in range(STEPS) if t < FIRST or t % EVERY == 0]
pytestmark = pytest.mark.usefixtures("one_thread")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 160), nn.ReLU(), nn.Linear(160, 120), nn.Tanh(), nn.Linear(120, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(12, 5, generator=generator), torch.randint(0, 3, (12,), generator=generator)


def train(model: nn.Module, optimizer: Any, monitor: Any, steps: int = STEPS, between: Any = None) -> None:
    x, y = data()
    for t in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        monitor.loss(loss)
        optimizer.step()
        if between is not None:
            between(t)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
}


def started(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = mlp()
    return model, OPTIMIZERS[name](model.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_light_records_and_compares(name: str) -> None:
    monitor, records, spy, v = watched_and_plain(mlp, OPTIMIZERS[name], train)
    assert [r["step"] for r in records] == list(range(STEPS))
    assert [r["step"] for r in records if "grad_w_minus_v" in r] == MEASURED
    for t, r in enumerate(records):
        w, g, after = spy.weights[t], spy.grads[t], spy.weights[t + 1]
        a, u = w - v, w - after
        assert ("grad_sq" in r) == (t in MEASURED)
        if t in MEASURED:
            assert close(r["grad_sq"], float(g @ g), 2e-5)
            assert close(r["dist_sq"]["v"], float(a @ a), 2e-5)
            assert close(r["grad_w_minus_v"]["v"], float(g @ a), 2e-5, float(g.norm() * a.norm()))
        drop = float(a @ a) - float((after - v) @ (after - v))
        size = float(u.norm() * a.norm())
        if name == "SGD":
            # Where the next step is not measured the step is compared by its own difference, sharply.
            assert ("drop" in r) == (t in COMPARED and (t + 1 not in COMPARED or t % 10 == 0))
            if "drop" in r:
                assert close(r["drop"]["v"], drop, 2e-5, size)
        elif t in COMPARED:
            assert close(r["update_sq"], float(u @ u), 2e-5)
            assert close(r["update_dot"]["v"], float(u @ a), 2e-5, size)
    track = monitor.ledger.tracks["v"]
    assert (track.checks, track.unmeasured) == (len(COMPARED), STEPS - len(COMPARED))
    verdict = monitor.verdict()
    assert verdict.status is Status.HOLDS, verdict.sentence
    assert f"{STEPS - len(COMPARED)} other steps were not compared" in verdict.sentence
    left = sum(
        float((spy.weights[t] - spy.weights[t + 1]) @ (spy.weights[t] - v))
        if name != "SGD"
        else 0.05 * float(spy.grads[t] @ (spy.weights[t] - v))
        for t in COMPARED
    )
    assert close(track.dot.value, left, 1e-4)
    assert monitor.ledger.first_written == -1


def test_full_batch_gradients_are_measured_at_every_step() -> None:
    monitor, records, spy, _ = watched_and_plain(mlp, OPTIMIZERS["SGD"], train, meta={"full_batch": True})
    squares = [float(g @ g) for g in spy.grads]
    assert [r["grad_sq"] for r in records] == pytest.approx(squares, rel=2e-5)
    assert [r["step"] for r in records if "grad_w_minus_v" in r] == MEASURED
    totals = monitor.ledger.totals()
    least = min(2 * g / r["loss"] for g, r in zip(squares, records, strict=True))
    assert totals["pl"][0]["checks"] == STEPS
    assert close(totals["pl"][0]["least"], least, 1e-4)
    assert totals["maxima"]["grad_sq"] == pytest.approx(max(squares), rel=2e-5)


def run(name: str, between: Any, **options: Any) -> Monitor:
    model, optimizer = started(name)
    with Monitor(model, shifted(model), loss_name="cross-entropy", **options) as monitor:
        train(model, optimizer, monitor, between=lambda t: between(t, model))
    return monitor


@pytest.mark.parametrize("through", ["in place", "data"])
def test_a_small_change_behind_the_optimizer_at_a_compared_step_is_found(through: str) -> None:
    def between(t: int, model: nn.Module) -> None:
        if t == 100:
            weight = model[2].weight.data if through == "data" else model[2].weight
            with torch.no_grad():
                weight += 1e-4

    monitor = run("SGD", between)
    assert monitor.verdict().status is Status.FALSIFIED
    assert "between step 100 and step 101" in monitor.verdict().sentence
    assert "does not add up" in monitor.summary().why_not


def test_a_write_between_steps_that_are_not_compared_is_said_and_no_theorem_is_applied() -> None:
    def between(t: int, model: nn.Module) -> None:
        if t == 44:
            with torch.no_grad():
                model[2].weight += 0.01

    monitor = run("SGD", between, meta={"full_batch": True})
    assert monitor.verdict().status is Status.HOLDS, "at the steps that were compared"
    assert monitor.ledger.first_written == 45
    summary = monitor.summary()
    assert "before step 45" in summary.why_not
    assert any("step 45" in note for note in summary.notes)
    untouched = run("SGD", lambda t, model: None, meta={"full_batch": True})
    assert untouched.summary().why_not == ""
    assert untouched.summary().promises, "PL and smoothness were seen at every step"


def test_weights_swapped_out_and_back_break_nothing() -> None:
    def between(t: int, model: nn.Module) -> None:
        if t in (20, 60):
            kept = model[0].weight.detach().clone()
            with torch.no_grad():
                model[0].weight.zero_()
                model[0].weight.copy_(kept)

    monitor = run("SGD", between)
    assert monitor.verdict().status is Status.HOLDS
    assert monitor.ledger.first_written == 61, (
        "step 20 is compared: there the ledger itself says that nothing moved"
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("stop", [31, 32, 33, 45, 50, 51, 52])
def test_resume_between_measured_steps(name: str, stop: int) -> None:
    model, optimizer = started(name)
    v = shifted(model)
    with Monitor(model, v) as whole:
        train(model, optimizer, whole)
    model, optimizer = started(name)
    first = Monitor(model, v).attach(optimizer)
    train(model, optimizer, first, stop)
    saved = first.state_dict()
    first.close()
    with Monitor(model, v) as second:
        second.load_state_dict(saved)
        train(model, optimizer, second, STEPS - stop)
    a, b = whole.ledger.totals(), second.ledger.totals()
    assert second.verdict().status is Status.HOLDS
    for key in ("checks", "unmeasured", "status"):
        assert a["tracks"]["v"][key] == b["tracks"]["v"][key], key
    for key in ("left", "right", "update_sq"):
        assert close(a["tracks"]["v"][key], b["tracks"]["v"][key], 1e-6, 1e-6), key
    assert close(a["loss"], b["loss"], 1e-12)


def test_an_exception_loses_nothing() -> None:
    kept, (model, optimizer) = Kept(), started("SGD")

    def between(t: int) -> None:
        if t == 77:
            raise ZeroDivisionError("mine")

    with (
        pytest.raises(ZeroDivisionError),
        Monitor(model, sinks=[kept], schedule={"record": 1}) as monitor,
    ):
        train(model, optimizer, monitor, between=between)
    assert [r["step"] for r in kept.records] == list(range(78))
    assert monitor.ledger.totals()["steps"] == 78


def test_reading_the_ledger_reads_what_waits() -> None:
    model, optimizer = started("SGD")
    monitor = Monitor(model).attach(optimizer)
    for n in range(1, 9):
        train(model, optimizer, monitor, 1)
        assert monitor.ledger.steps == n - 1, "the last step has not arrived anywhere"
    monitor.close()
    assert monitor.ledger.steps == 8


KILLED = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[2])
from test_torch_sparse import started, train, Monitor
model, optimizer = started("Adam")
def between(t):
    if t == 90:
        os.kill(os.getpid(), signal.SIGKILL)
train(model, optimizer, Monitor(model, log_dir=sys.argv[1], schedule={"record": 1}).attach(optimizer), between=between)
"""


def test_a_killed_run_loses_less_than_a_block(tmp_path: Path) -> None:
    here = Path(__file__).parent
    env = os.environ | {
        "PYTHONPATH": f"{here.parents[1] / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(here)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    steps = [r["step"] for r in read_log(tmp_path).records]
    assert steps == list(range(len(steps)))
    assert 90 - recording.FLUSH_EVERY <= steps[-1] <= 90


def test_slow_steps_reach_the_log_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "FLUSH_SECONDS", 0.0)
    model, optimizer = started("SGD")
    monitor = Monitor(model, log_dir=tmp_path, schedule={"record": 1}).attach(optimizer)
    train(model, optimizer, monitor, 5)
    assert [r["step"] for r in read_log(tmp_path).records] == [0, 1, 2, 3]
    monitor.close()


def test_what_the_loop_does_to_its_loss_later_is_not_recorded() -> None:
    kept, (model, optimizer) = Kept(), started("SGD")
    x, y = data()
    told = []
    with Monitor(model, sinks=[kept], schedule={"record": 1}) as monitor:
        for _ in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            told.append(loss.item())
            monitor.loss(loss)
            optimizer.step()
            with torch.no_grad():
                loss.mul_(0)
    assert [r["loss"] for r in kept.records] == told


def test_the_average_measures_every_step() -> None:
    monitor, _, spy, _ = watched_and_plain(mlp, OPTIMIZERS["SGD"], train, comparator="average")
    w = torch.stack(spy.weights)
    v = w[:-1].mean(0)
    result = monitor.average
    assert result is not None
    assert result.verdict.status is Status.HOLDS
    left = sum(0.05 * float(spy.grads[t] @ (w[t] - v)) for t in range(STEPS))
    assert close(result.update_dot, left, 1e-3)
    assert monitor.ledger.tracks["init"].unmeasured == 0


def test_the_average_is_in_the_log_the_words_and_the_report(tmp_path: Path) -> None:
    model, optimizer = started("Adam")
    with Monitor(model, ["average"], log_dir=tmp_path) as monitor:
        train(model, optimizer, monitor, 12)
    assert monitor.average is not None
    log = read_log(tmp_path)
    assert log.ended is not None
    assert log.ended["average"]["left"] == monitor.average.update_dot
    assert log.ended["average"]["status"] == "HOLDS"
    page = monitor_html(summarise(tmp_path))
    assert "average of 12 iterates" in page
    assert number(monitor.average.update_dot, 9) in page
    text = str(monitor.summary())
    assert "v = average: HOLDS" in text.replace("\n", " ")
    assert "the average of 12 iterates" in " ".join(text.split())
    other = Monitor(*started("SGD")[:1], "init")
    with other:
        train(other.model, torch.optim.SGD(other.model.parameters(), lr=0.1), other, 3)
    assert "average of" not in monitor_html(other.summary())
