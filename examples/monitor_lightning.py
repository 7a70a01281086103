"""Watch a Lightning fit: accumulation, clipping and a report, by one callback.

python examples/monitor_lightning.py --epochs 20 --out runs/lightning
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning as lightning_package
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from proxyconvex.lightning import MonitorCallback


class Digits(lightning_package.LightningModule):
    """A two-layer network on the digits of scikit-learn."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Cross-entropy of a batch."""
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(arguments: list[str] | None = None) -> None:
    """Train, then write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1797)
    parser.add_argument("--out", type=Path, default=Path("runs/lightning"))
    options = parser.parse_args(arguments)
    lightning_package.seed_everything(0, verbose=False)
    x, y = load_digits(return_X_y=True)
    rows = TensorDataset(
        torch.tensor(x[: options.rows] / 16, dtype=torch.float32), torch.tensor(y[: options.rows])
    )
    watch = MonitorCallback(
        log_dir=options.out, loss_name="cross-entropy", report=options.out / "report.html"
    )
    trainer = lightning_package.Trainer(
        max_epochs=options.epochs, accelerator="cpu", devices=1, gradient_clip_val=1.0, accumulate_grad_batches=2,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[watch],
    )  # fmt: skip
    trainer.fit(Digits(), DataLoader(rows, batch_size=64, shuffle=True))
    assert watch.monitor is not None
    print(watch.monitor.summary())
    print(f"Open {options.out / 'report.html'}")


if __name__ == "__main__":
    main()
