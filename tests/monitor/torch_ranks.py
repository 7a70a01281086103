"""One rank of a distributed run, started by test_torch_ranks.py: ``python torch_ranks.py CASE,CASE,... RANK FOLDER``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch_loops import Kept, shifted

from proxyconvex.torch import Monitor

F = nn.functional
STEPS, RANKS = 21, 2


def start(
    script: str, cases: str, folder: Path, ranks: int = RANKS
) -> list[subprocess.CompletedProcess[bytes]]:
    """Run all ranks of a script beside this one to their end."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(ranks)}
    command = [sys.executable, str(here / script), cases]
    running = [
        subprocess.Popen([*command, str(r), str(folder)], env=env, stderr=subprocess.PIPE)
        for r in range(ranks)
    ]
    try:
        errors = [r.communicate(timeout=300)[1] for r in running]
    finally:
        for r in running:
            r.kill()
    return [
        subprocess.CompletedProcess(command, r.returncode, None, e)
        for r, e in zip(running, errors, strict=True)
    ]


def results(folder: Path) -> list[dict[str, Any]]:
    """What the ranks have written of a case."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("rank-*.json"))]


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 161), nn.ReLU(), nn.Linear(161, 120), nn.Tanh(), nn.Linear(120, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(16, 5, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def make_optimizer(case: str, params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=1e-3) if "adam" in case else torch.optim.SGD(params, lr=0.1)


def wrapped(case: str, model: nn.Module) -> nn.Module:
    if case.startswith("ddp"):
        return nn.parallel.DistributedDataParallel(model)
    if case.startswith("fsdp"):
        from torch.distributed.fsdp import fully_shard

        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        fully_shard(model)
    return model


def train(case: str, model: nn.Module, optimizer: Any, monitor: Any, rank: int, steps: int) -> None:
    x, y = data()
    mine = slice(8 * rank, 8 * rank + 8)
    for t in range(steps):
        optimizer.zero_grad()
        if "accumulated" in case:
            for part in range(2):
                rows = slice(8 * rank + 4 * part, 8 * rank + 4 * part + 4)
                model.require_backward_grad_sync = part == 1
                loss = F.cross_entropy(model(x[rows]), y[rows]) / 2
                loss.backward()
                monitor.loss(loss)
        else:
            monitor.batch(x[mine], y[mine], F.cross_entropy)
            out = model(x[mine])
            loss = F.cross_entropy(out, y[mine])
            loss.backward()
            monitor.loss(loss)
            monitor.outputs(out, y[mine])
        if "clipped" in case:
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        if "stopped" in case and rank == 1 and t == 18:
            raise RuntimeError("rank 1 stops")
        optimizer.step()


def one_case(case: str, rank: int, folder: Path) -> None:
    model = mlp()
    v = shifted(model)
    model = wrapped(case, model)
    optimizer = make_optimizer(case, model.parameters())
    kept = Kept()
    monitor = Monitor(
        model, {"v": v, "init": "init"}, folder / "log", loss_name="cross-entropy", sinks=[kept],
        schedule={"record": 1} if case.startswith("fsdp") else {"record": 1, "half-batch": 5, "tangent-loss": 5},
    )  # fmt: skip
    out: dict[str, Any] = {}
    try:
        with monitor:
            train(case, model, optimizer, monitor, rank, STEPS)
        monitor.report(folder / f"report-{rank}.html")
        final = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
        out["final"] = torch.cat([p.detach().reshape(-1) for p in final]).double().tolist()[:500]
    except RuntimeError as error:
        out["error"] = str(error)
    verdict = monitor.verdict()
    out |= {
        "records": kept.records, "verdict": verdict.status.name, "sentence": verdict.sentence, "steps": monitor.ledger.steps,
        "totals": {c: t.right(t.last_sq) for c, t in monitor.ledger.tracks.items()},
    }  # fmt: skip
    (folder / f"rank-{rank}.json").write_text(json.dumps(out))
    if "error" in out:
        # The other rank waits in an exchange of the training itself; leaving ends its wait with an error of torch's.
        sys.stdout.flush()
        os._exit(0)
    dist.barrier()


def run_cases(one: Callable[[str, int, Path], None]) -> None:
    """All cases of the command line, one after the other, on this rank."""
    cases, rank, folder = sys.argv[1].split(","), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    ranks = int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    for case in cases:
        (folder / case).mkdir(exist_ok=True)
        one(case, rank, folder / case)
    dist.destroy_process_group()


if __name__ == "__main__":
    run_cases(one_case)
