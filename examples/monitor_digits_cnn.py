"""Watch a convolutional network on scikit-learn's digits: a first run gives the comparator, a second is judged against it.

python examples/monitor_digits_cnn.py --steps 600 --out runs/digits-cnn
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from proxyconvex.torch import Monitor

cross_entropy = nn.functional.cross_entropy


def network() -> nn.Module:
    """Two convolutions with batch normalisation, dropout, ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 10),
    )  # fmt: skip


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, monitor: Monitor) -> None:
    """An ordinary loop; the lines with ``monitor`` are the only ones added."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with monitor:
        for _ in range(steps):
            rows = torch.randint(0, len(x), (128,))
            monitor.batch(x[rows], y[rows], cross_entropy)
            outputs = model(x[rows])
            loss = cross_entropy(outputs, y[rows])
            monitor.loss(loss)
            monitor.outputs(outputs, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main(arguments: list[str] | None = None) -> None:
    """Train twice, then write the report of the second run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/digits-cnn"))
    options = parser.parse_args(arguments)
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)
    torch.manual_seed(0)
    start = network()
    first = network()
    first.load_state_dict(start.state_dict())
    train(first, x, y, options.steps, Monitor(first))
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "first.pt"
    torch.save(first.state_dict(), checkpoint)
    second = network()
    second.load_state_dict(start.state_dict())
    monitor = Monitor(
        second, {"first run": checkpoint, "init": "init"}, options.out, "standard",
        loss_name="cross-entropy", probe=(x[:6], y[:6]), schedule={"tangent-margin": 200},
    )  # fmt: skip
    train(second, x, y, options.steps, monitor)
    print(monitor.summary())
    print(f"Open {monitor.report(options.out / 'report.html')}")


if __name__ == "__main__":
    main()
