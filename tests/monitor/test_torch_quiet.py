"""Steps at which nothing is measured: whatever the loop does there, the ledger and the log are as if each step had been looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_torch_sparse import data, mlp
from torch import nn
from torch_loops import Kept, shifted, watched_and_plain

from proxyconvex.monitor.log import read_log
from proxyconvex.monitor.pytorch.monitor import TorchMonitor
from proxyconvex.monitor.pytorch.steps import Recorder
from proxyconvex.torch import Monitor

F = nn.functional
STEPS = 75
pytestmark = pytest.mark.usefixtures("one_thread")
Told = Callable[[int, nn.Module, torch.optim.Optimizer, Any, torch.Tensor, torch.Tensor], None]


def usual(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    monitor.loss(loss)
    optimizer.step()


def clipped(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    monitor.loss(loss)
    if t % 4 == 1:
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    if t % 4 == 2:
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
    optimizer.step()


def accumulated(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: Any, y: Any) -> None:
    optimizer.zero_grad()
    for rows in (slice(0, 6), slice(6, 12)) if t % 3 == 1 else (slice(0, 12),):
        loss = F.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        monitor.loss(loss)
    optimizer.step()


def untold(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: Any, y: Any) -> None:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    if t % 3:
        monitor.loss(loss.item() if t % 2 else float("nan") if t == 46 else loss)
    optimizer.step()


def with_closures(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: Any, y: Any) -> None:
    if t % 3:
        usual(t, model, optimizer, monitor, x, y)
        return

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)


def scaled(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: Any, y: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=t % 3 == 0)
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    scaler.scale(loss * (float("inf") if t == 45 else 1.0)).backward()
    monitor.loss(loss)
    scaler.step(optimizer)
    scaler.update()


def rewritten(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: Any, y: Any) -> None:
    usual(t, model, optimizer, monitor, x, y)
    if t == 43:
        with torch.no_grad():
            model[2].weight += 0.01  # type: ignore[index]


def with_outputs(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: Any, y: Any) -> None:
    usual(t, model, optimizer, monitor, x, y)
    monitor.outputs(model(x).detach(), y)


def with_batches(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: Any, y: Any) -> None:
    monitor.batch(x, y, F.cross_entropy)
    usual(t, model, optimizer, monitor, x, y)


def with_decay(t: int, model: nn.Module, optimizer: Any, monitor: Any, x: Any, y: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= 0.99
    usual(t, model, optimizer, monitor, x, y)


WAYS: dict[str, tuple[Told, dict[str, Any]]] = {
    "usual": (usual, {}),
    "clipped": (clipped, {}),
    "accumulated": (accumulated, {}),
    "untold": (untold, {}),
    "closures": (with_closures, {}),
    "scaled": (scaled, {}),
    "rewritten": (rewritten, {}),
    "outputs": (with_outputs, {"loss_name": "cross-entropy", "schedule": {"proxies": 7}}),
    "batches": (with_batches, {"preset": "standard", "schedule": {"smoothness": 7, "tangent-margin": 9}}),
    "decay": (with_decay, {}),
    "full batch": (usual, {"meta": {"full_batch": True}}),
}
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.05),
    "groups": lambda m: torch.optim.SGD(
        [{"params": m[0].parameters(), "lr": 0.05}, {"params": m[2].parameters(), "lr": 0.01}]  # type: ignore[index]
    ),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), lr=1e-3),
}


def run(way: str, optimizer: str, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
    torch.manual_seed(0)
    model, (each, options) = mlp(), WAYS[way]
    x, y = data()
    probe = {"probe": (x[:4], y[:4])} if way == "batches" else {}
    monitor = Monitor(model, shifted(model), folder, **options, **probe)
    monitor.attach(chosen := OPTIMIZERS[optimizer](model))
    seen = []
    for t in range(STEPS):
        each(t, model, chosen, monitor, x, y)
        seen.append(monitor.step)
    last = monitor.ledger.record
    monitor.close()
    return monitor.ledger.totals(), read_log(folder).records, (seen, last)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("way", WAYS)
def test_totals_and_log_are_those_of_steps_looked_at(
    way: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[bool] = []
    one = TorchMonitor._pass_over
    monkeypatch.setattr(TorchMonitor, "_pass_over", lambda *a: (passed.append(one(*a)), passed[-1])[1])
    quick = run(way, optimizer, tmp_path / "quick")
    if way != "full batch":
        assert sum(passed) >= 10, "steps that were passed over"
    monkeypatch.setattr(Recorder, "quiet_until", lambda self, step: step)
    passed.clear()
    slow = run(way, optimizer, tmp_path / "slow")
    assert not passed
    assert json.dumps(quick, allow_nan=True) == json.dumps(slow, allow_nan=True)
    assert quick[2][0] == list(range(1, STEPS + 1))


def test_step_sizes_of_groups_are_recorded_beyond_the_first_steps() -> None:
    kept = Kept()
    model = mlp()
    optimizer = OPTIMIZERS["groups"](model)
    x, y = data()
    with Monitor(model, sinks=[kept]) as monitor:
        for t in range(70):
            usual(t, model, optimizer, monitor, x, y)
            if t == 66:
                assert monitor.ledger.record is not None
                assert monitor.ledger.record["eta"] == [0.05, 0.01]
        optimizer.param_groups[1]["lr"] = 0.05
        for t in range(70, 75):
            usual(t, model, optimizer, monitor, x, y)
    assert [r["eta"] for r in kept.records if r["step"] == 60] == [[0.05, 0.01]]
    # There is one step size only from step 70 on.
    assert monitor.ledger.totals()["eta"] == pytest.approx(5 * 0.05)


def test_training_beyond_the_first_steps_is_the_same_bit_for_bit() -> None:
    x, y = data()

    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        for t in range(STEPS):
            with_batches(t, model, optimizer, monitor, x, y)

    for make in (lambda p: torch.optim.SGD(p, lr=0.05), lambda p: torch.optim.Adam(p, lr=1e-3)):
        monitor, records, *_ = watched_and_plain(mlp, make, loop, preset="standard", schedule={})
        assert [r["step"] for r in records if "tangent_loss" in r] == list(range(0, STEPS, 10))
        assert [r["step"] for r in records if "parts" in r] == list(range(0, STEPS, 10))
        assert monitor.verdict().status.name == "HOLDS"
