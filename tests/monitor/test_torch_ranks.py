"""Two gloo processes: what rank 0 writes is what one process on the whole batch would have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_ranks
from torch import nn
from torch_loops import Spy, check_steps, close, shifted
from torch_ranks import results, start

pytestmark = pytest.mark.slow
CASES = ("ddp", "ddp-accumulated", "fsdp", "fsdp-adam-clipped", "bare")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases that end well, in one pair of processes."""
    folder = tmp_path_factory.mktemp("ranks")
    for rank in start("torch_ranks.py", ",".join(CASES), folder):
        assert rank.returncode == 0, rank.stderr.decode()[-3000:]
    return folder


def one_process(case: str) -> tuple[Spy, torch.Tensor]:
    """The same training on the whole batch, with clones of everything."""
    model = torch_ranks.mlp()
    v = shifted(model)
    optimizer = torch_ranks.make_optimizer(case, model.parameters())
    spy = Spy(model, optimizer)
    x, y = torch_ranks.data()
    for _ in range(torch_ranks.STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if "clipped" in case:
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
    spy.end()
    return spy, spy.flat(v)


@pytest.mark.parametrize("case", CASES[:4])
def test_the_whole_not_a_share(case: str, runs: Path) -> None:
    folder = runs / case
    first, second = results(folder)
    spy, v = one_process(case)
    assert first["verdict"] == second["verdict"] == "HOLDS", first["sentence"]
    records = first["records"]
    check_steps(records, spy, v, tolerance=2e-3 if "adam" in case else 2e-4)
    assert first["final"] == pytest.approx(
        spy.weights[-1].tolist()[:500], abs=1e-3 if "adam" in case else 1e-5
    )
    assert {r["gradient"] for r in records} == {
        {"ddp": "raw+global", "ddp-accumulated": "raw+accumulated+global", "fsdp": "raw+global"}.get(
            case, "clipped+global"
        )
    }
    x, y = torch_ranks.data()
    model = torch_ranks.mlp()
    for t, r in enumerate(records):
        start = 0
        for p in model.parameters():
            p.data.copy_(spy.weights[t][start : start + p.numel()].view_as(p))
            start += p.numel()
        with torch.no_grad():
            out = model(x)
            # The loss and the proxies are those of all rows, not of rank 0's.
            assert close(r["loss"], nn.functional.cross_entropy(out, y).item(), 1e-3)
            if "accumulated" not in case:
                assert close(r["slope"], (1 - out.softmax(-1)[torch.arange(16), y]).mean().item(), 1e-3)
    if case.startswith("ddp"):
        check_parts(records, spy, 4 if "accumulated" in case else 2)
    if case == "ddp":
        assert all(r["tangent_loss"]["v"] > 0 for r in records[::5])
    # Only rank 0 writes: one log, one report, no records on rank 1.
    assert second["records"] == []
    assert [p.name for p in (folder / "log").iterdir()] == ["monitor.jsonl"]
    assert (folder / "report-0.html").exists()
    assert not (folder / "report-1.html").exists()
    assert second["steps"] == first["steps"] == torch_ranks.STEPS
    assert second["totals"] == pytest.approx(first["totals"])


def check_parts(records: list[dict[str, Any]], spy: Spy, parts: int) -> None:
    """Unbiased norms from the ranks' own gradients, against autograd on the same rows."""
    x, y = torch_ranks.data()
    seen = [r for r in records if "parts_sum_sq" in r]
    assert len(seen) >= 4
    model = torch_ranks.mlp()
    rows = 16 // parts
    for r in seen:
        start = 0
        for p in model.parameters():
            p.data.copy_(spy.weights[r["step"]][start : start + p.numel()].view_as(p))
            start += p.numel()
        g = []
        for i in range(parts):
            loss = nn.functional.cross_entropy(
                model(x[rows * i : rows * (i + 1)]), y[rows * i : rows * (i + 1)]
            )
            g.append(
                torch.cat(
                    [t.reshape(-1) for t in torch.autograd.grad(loss, list(model.parameters()))]
                ).double()
            )
        total = sum(g)
        assert r["parts"] == parts
        assert close(r["parts_total_sq"], float(total @ total), 2e-3)
        assert close(r["parts_sum_sq"], float(sum(t @ t for t in g)), 2e-3)


def test_a_rank_that_stops_does_not_hang_the_monitor(tmp_path: Path) -> None:
    start("torch_ranks.py", "fsdp-stopped", tmp_path)
    folder = tmp_path / "fsdp-stopped"
    assert json.loads((folder / "rank-1.json").read_text())["error"] == "rank 1 stops"
    # The steps exchanged before are in the log.
    assert len((folder / "log" / "monitor.jsonl").read_text().splitlines()) > 16


def test_without_ddp_what_one_rank_sees_is_called_rank_local(runs: Path) -> None:
    first, _ = results(runs / "bare")
    assert {r["gradient"] for r in first["records"]} == {"raw+rank-local"}
