"""Watch the Hugging Face Trainer on a tiny, randomly initialised GPT-2 (nothing is downloaded).

python examples/monitor_huggingface.py --steps 200 --out runs/huggingface
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from monitor_transformer import text
from proxyconvex.huggingface import MonitorCallback

LENGTH = 32


class Characters(torch.utils.data.Dataset):
    """Windows of a text, one byte a token."""

    def __init__(self) -> None:
        self.data = torch.tensor(list(text().encode("ascii", "replace")))

    def __len__(self) -> int:
        return (len(self.data) - 1) // LENGTH

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        window = self.data[i * LENGTH : (i + 1) * LENGTH]
        return {"input_ids": window, "labels": window}


def main(arguments: list[str] | None = None) -> None:
    """Train, then write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/huggingface"))
    options = parser.parse_args(arguments)
    set_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=128, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )
    watch = MonitorCallback(log_dir=options.out / "log", report=options.out / "report.html")
    settings = TrainingArguments(
        output_dir=str(options.out), max_steps=options.steps, per_device_train_batch_size=8, gradient_accumulation_steps=2,
        learning_rate=1e-3, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(model, settings, train_dataset=Characters(), callbacks=[watch]).train()
    assert watch.monitor is not None
    print(watch.monitor.summary())
    print(f"Open {options.out / 'report.html'}")


if __name__ == "__main__":
    main()
