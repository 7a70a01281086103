"""Watch a small character transformer with AdamW, clipping and a schedule; the text is the licence in this repository.

python examples/monitor_transformer.py --steps 400 --out runs/transformer
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from proxyconvex.torch import Monitor

LENGTH = 64


def text() -> str:
    """The text to learn."""
    return (Path(__file__).parents[1] / "LICENSE").read_text(encoding="utf-8")


class CharacterTransformer(nn.Module):
    """Two layers, causal attention, tied embedding and head."""

    def __init__(self, vocabulary: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next character, shape [batch, time, vocabulary]."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.body(self.embed(tokens) + self.place, mask=mask, is_causal=True))


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of all characters."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main(arguments: list[str] | None = None) -> None:
    """Train, then write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/transformer"))
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    letters = sorted(set(text()))
    data = torch.tensor([letters.index(c) for c in text()])
    model = CharacterTransformer(len(letters))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    monitor = Monitor(model, ["init", "average"], options.out, "standard", loss_name="cross-entropy")
    with monitor:
        for _ in range(options.steps):
            starts = torch.randint(0, len(data) - LENGTH - 1, (options.batch,))
            windows = torch.stack([data[i : i + LENGTH + 1] for i in starts])
            x, y = windows[:, :-1], windows[:, 1:]
            monitor.batch(x, y, loss_of)
            logits = model(x)
            loss = loss_of(logits, y)
            monitor.loss(loss)
            monitor.outputs(logits, y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    print(monitor.summary())
    if monitor.average is not None:
        print(monitor.average.verdict.sentence)
    print(f"Open {monitor.report(options.out / 'report.html')}")


if __name__ == "__main__":
    main()
