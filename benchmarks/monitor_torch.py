"""What the PyTorch monitor costs; raw numbers to results/monitor_torch.json.

    python benchmarks/monitor_torch.py            # about ten minutes
    python benchmarks/monitor_torch.py --quick    # for a look

Two identical models train on the same batches, one of them watched. Short blocks of steps of the two alternate, and which goes
first alternates too; a round's ratio is (seconds watched) / (seconds plain) of neighbouring blocks, and the reported number is the
median over rounds. The log is written to disk as it would be in use; the first
250 steps of the small model, where all of the first 32 are measured and the log is dense, are left out; a block of it is 50 steps, the period of the
schedules (what comes more rarely, such as secant smoothness, is in the ratio of the means, not in the median). Wall-clock seconds, and processor seconds of all threads
beside them, which suffer less from other programs on the machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from environment import environment
from proxyconvex.torch import Monitor

RESULTS = Path(__file__).parent / "results" / "monitor_torch.json"
cross_entropy = nn.functional.cross_entropy


def mlp() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """784-256-10, batch 128."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    return model, torch.randn(128, 784), torch.randint(0, 10, (128,))


class Block(nn.Module):
    """Basic residual block."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)])
        same = stride == 1 and inside == outside
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Residual sum."""
        y = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(y)) + self.skip(x))


def residual_network() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The 18-layer residual network with 1000 classes (11.7 million parameters), 32 images of 64 x 64."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inside = 64
    for k, outside in enumerate((64, 128, 256, 512)):
        layers += [Block(inside, outside, 1 if k == 0 else 2), Block(outside, outside, 1)]
        inside = outside
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*layers), torch.randn(32, 3, 64, 64), torch.randint(0, 1000, (32,))


class Transformer(nn.Module):
    """Characters in, logits of the next character out."""

    def __init__(self, width: int = 384, layers: int = 6, vocabulary: int = 512) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(
            width, 6, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 1024 if layers == 6 else vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [batch * time, vocabulary]."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.body(self.embed(x), mask=mask, is_causal=True)).flatten(0, 1)


def transformer() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A 6-layer transformer of width 384 (about 11.3 million parameters), 8 sequences of 64."""
    return Transformer(), torch.randint(0, 512, (8, 64)), torch.randint(0, 512, (512,))


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-4),
}


# The ledger in full, as it is in the first steps of every preset.
EVERY_STEP = dict.fromkeys(("loss", "step-size", "gradient-norm", "inner-product", "distance", "update"), 1)


def block(
    model: nn.Module, optimizer: Any, x: Any, y: Any, steps: int, monitor: Monitor | None
) -> tuple[float, float]:
    """Wall-clock and processor seconds of some steps of the usual loop."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        if monitor is not None:
            monitor.batch(x, y, cross_entropy)
        loss = cross_entropy(model(x), y)
        loss.backward()
        if monitor is not None:
            monitor.loss(loss)
        optimizer.step()
    return time.perf_counter() - wall, time.process_time() - cpu


def case(
    make: Callable[[], Any], optimizer: str, preset: Any, steps: int, rounds: int, warm: int = 2
) -> dict[str, Any]:
    """Paired rounds of one model, optimizer and preset."""
    torch.manual_seed(0)
    model, x, y = make()
    other = copy.deepcopy(model)
    comparator = {k: p + 0.01 * torch.randn_like(p) for k, p in model.named_parameters()}
    plain, watched = OPTIMIZERS[optimizer](model.parameters()), OPTIMIZERS[optimizer](other.parameters())
    with tempfile.TemporaryDirectory() as folder:
        monitor = Monitor(other, comparator, folder, preset).attach(watched)
        times: dict[str, list[tuple[float, float]]] = {"plain": [], "watched": []}
        runs = {"plain": (model, plain, x, y, steps, None), "watched": (other, watched, x, y, steps, monitor)}
        for r in range(-warm, rounds):
            for name in ("plain", "watched") if r % 2 else ("watched", "plain"):
                seconds = block(*runs[name])
                if r >= 0:
                    times[name].append(seconds)
        monitor.close()
        verdict = monitor.verdict()
        same = all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    a, b = np.array(times["watched"]), np.array(times["plain"])
    ratio = a / b
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "steps_a_block": steps, "rounds": rounds,
        "plain_ms_a_step": float(1e3 * np.median(b[:, 0]) / steps),
        "ratio": {"median": float(np.median(ratio[:, 0])), "quartiles": np.quantile(ratio[:, 0], (0.25, 0.75)).tolist()},
        "ratio_processor_time": {"median": float(np.median(ratio[:, 1])), "quartiles": np.quantile(ratio[:, 1], (0.25, 0.75)).tolist()},
        "ratio_of_means": {"wall": float(a[:, 0].mean() / b[:, 0].mean()), "processor": float(a[:, 1].mean() / b[:, 1].mean())},
        "weights_bit_identical": same, "trace_identity": verdict.status.name,
        "seconds": {k: [list(t) for t in v] for k, v in times.items()},
    }  # fmt: skip


def main() -> None:
    """Run all cases and write the raw numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch (default 1: steadier on a shared machine)"
    )
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    arguments = parser.parse_args()
    quick = arguments.quick
    torch.set_num_threads(arguments.threads)
    small = (50, 8 if quick else 24, 5)
    # Blocks of a period again, and none of the first steps, which are measured in full.
    large = (10, 2 if quick else 6, 4)
    cases: dict[str, tuple[Any, ...]] = {
        "MLP, SGD, light": (mlp, "SGD", "light", *small),
        "MLP, SGD with momentum, light": (mlp, "SGD with momentum", "light", *small),
        "MLP, Adam, light": (mlp, "Adam", "light", *small),
        "MLP, SGD, standard": (mlp, "SGD", "standard", *small),
        "MLP, Adam, standard": (mlp, "Adam", "standard", *small),
        "MLP, SGD, every step": (mlp, "SGD", EVERY_STEP, *small),
        "MLP, Adam, every step": (mlp, "Adam", EVERY_STEP, *small),
        "residual network, SGD, light": (residual_network, "SGD", "light", *large),
        "residual network, Adam, light": (residual_network, "Adam", "light", *large),
        "transformer, Adam, light": (transformer, "Adam", "light", *large),
    }
    targets = {"light, MLP": 1.10, "standard, MLP": 1.25, "light, large model": 1.03}
    document: dict[str, Any] = {
        "environment": environment(), "threads": torch.get_num_threads(), "load_before": os.getloadavg(), "targets": targets, "cases": {},
    }  # fmt: skip
    if arguments.only and RESULTS.exists():
        document["cases"] = json.loads(RESULTS.read_text())["cases"]
    for name, what in cases.items():
        if arguments.only not in name:
            continue
        found = case(*what)
        document["cases"][name] = found
        print(
            f"{name:34} {found['plain_ms_a_step']:8.2f} ms a step; ratio {found['ratio']['median']:.3f} "
            f"({found['ratio']['quartiles'][0]:.3f}-{found['ratio']['quartiles'][1]:.3f}), processor "
            f"{found['ratio_processor_time']['median']:.3f}; bit-identical: {found['weights_bit_identical']}; T7 {found['trace_identity']}",
            flush=True,
        )
        document["load_after"] = os.getloadavg()
        if not quick:
            # After every case, so that an interrupted run keeps what it measured; with --only the other cases stay.
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
