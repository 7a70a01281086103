"""One rank of runs with probes of a model sharded by ``fully_shard``, started by test_torch_sharded.py."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch_loops import Kept, shifted
from torch_ranks import RANKS, data, mlp, run_cases

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.torch import Monitor

F = nn.functional
STEPS = 6


class Net(nn.Module):
    """Weights used twice, a frozen one, a parameter of its own, dropout, statistics, a method that computes with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 33, bias=False)
        self.norm, self.drop = nn.BatchNorm1d(33), nn.Dropout(0.3)
        self.body = Body()
        self.last = nn.Linear(33, 3)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 33))
        self.last.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.embed(x)) * self.scale
        h = self.drop(h + self.body(h) + self.body.again(h))
        return self.last(torch.tanh(h)) + (h @ self.embed.weight)[:, :3]


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(33, 33)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inside(x))

    def again(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.inside(x))


def make(case: str) -> nn.Module:
    torch.manual_seed(0)
    return Net() if "net" in case else mlp()


def sharded(case: str) -> nn.Module:
    model, how = make(case), {}
    if "bf16" in case:
        how["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32)
    if "replicated" in case:
        how["mesh"] = init_device_mesh("cpu", (RANKS, 1), mesh_dim_names=("replicate", "shard"))
    if "together" in case:
        fully_shard([model[0], model[2]], **how)
    elif isinstance(model, Net):
        fully_shard(model.body, **how)
        register_fsdp_forward_method(model.body, "again")
    else:
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, **how)
    return fully_shard(model, **how)


def whole(tensors: Any) -> list[torch.Tensor]:
    return [(t.full_tensor() if hasattr(t, "full_tensor") else t).detach().clone() for t in tensors]


def rows_of(case: str, rank: int) -> slice:
    """A rank's share of the batch."""
    if "uneven" in case:
        return slice(0, 6) if rank == 0 else slice(6, 16)
    rows = 16 // int(os.environ.get("WORLD_SIZE", RANKS))
    return slice(rows * rank, rows * rank + rows)


def train(case: str, rank: int, watched: bool) -> tuple[nn.Module, list[Any], list[Any], list[Any]]:
    """A run; returns the model, its records, the weights of each step and the state at the end."""
    model, kept, weights = sharded(case), Kept(), []
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(named.values(), lr=0.1)
    x, y = (t[rows_of(case, rank)] for t in data())
    if "net" in case:
        # A look at the model before it is trained leaves the parameters of the outermost module gathered.
        with torch.no_grad():
            model(x)
    v, monitor = shifted(make(case)), None
    torch.manual_seed(10 + rank)
    if watched:
        monitor = Monitor(
            model, {"v": v, "init": "init"}, preset="full", sinks=[kept], probe=tuple(t[:5] for t in data()),
            schedule={"record": 1, "tangent-margin": 3},
        )  # fmt: skip
        if "net" in case:
            monitor.attach(optimizer)
    with contextlib.nullcontext() if monitor is None or "net" in case else monitor:
        for _ in range(STEPS):
            optimizer.zero_grad()
            if monitor is not None:
                monitor.batch(x, y, F.cross_entropy)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            if monitor is not None:
                monitor.loss(loss)
            weights.append([t.tolist() for t in whole(named.values())])
            optimizer.step()
    if monitor is not None:
        monitor.close()
    weights.append([t.tolist() for t in whole(named.values())])
    end = [*whole(model.state_dict().values()), torch.get_rng_state()]
    return model, kept.records, weights, end


def one_case(case: str, rank: int, folder: Path) -> None:
    if case == "refused":
        out: dict[str, Any] = refusals()
    elif case == "raises":
        out = {"alike": put_back_after_an_error()}
    else:
        plain, _, _, end = train(case, rank, False)
        model, records, weights, watched_end = train(case, rank, True)
        out = {"records": records, "weights": weights}
        out["same"] = all(map(torch.equal, end, watched_end))
        out["alike"] = look_of(model) == look_of(plain)
        out["sharded"] = all(hasattr(p, "device_mesh") for p in model.parameters())
    (folder / f"rank-{rank}.json").write_text(json.dumps(out))
    dist.barrier()


def look_of(model: nn.Module) -> list[Any]:
    """What fully_shard has left on the modules."""
    return [
        (type(m).__name__, sorted(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks))
        for m in model.modules()
    ]  # fmt: skip


def put_back_after_an_error() -> bool:
    """A loss of the user's that fails while the model is whole."""
    model = sharded("net")
    before, own = look_of(model), list(map(id, model.parameters()))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    monitor = Monitor(model, "init", preset="standard").attach(optimizer)

    def fails(outputs: Any, targets: Any) -> Any:
        raise ValueError("the loss fails")

    try:
        monitor.batch(*data(), fails)
    except ValueError:
        return before == look_of(model) and own == list(map(id, model.parameters()))
    return False


def refusals() -> dict[str, str]:
    """What is said of models that cannot be made whole."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    found = {}

    def refused(name: str, model: nn.Module, **options: Any) -> None:
        Monitor(model, "init")  # the training itself can be watched
        try:
            Monitor(model, "init", preset="standard", **options)
        except InvalidInputError as error:
            found[name] = str(error)

    refused("not wanted", sharded("mlp"), gather=False)
    ignoring = mlp()
    refused("ignored", fully_shard(ignoring, ignored_params={ignoring[0].weight}))
    mesh = init_device_mesh("cpu", (1, RANKS), mesh_dim_names=("data", "tensor"))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    two = parallelize_module(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)), mesh["tensor"], plan)
    refused("two kinds", fully_shard(two, mesh=mesh["data"]))
    one = parallelize_module(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)), mesh["tensor"], plan)
    refused("another kind", one)
    return found


if __name__ == "__main__":
    run_cases(one_case)
