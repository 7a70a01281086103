"""Lightning and the Hugging Face Trainer: the training is the same to the bit, losses and both gradients are right, a resume goes on."""

from __future__ import annotations

import json
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_loops import Kept, close

lightning = pytest.importorskip("lightning")
transformers = pytest.importorskip("transformers")
# Warnings of these two packages about themselves are not ours.
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
EXAMPLES = Path(__file__).parents[2] / "examples"


def rows() -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return torch.utils.data.TensorDataset(
        torch.randn(48, 5, generator=generator), torch.randint(0, 3, (48,), generator=generator)
    )


def lightning_fit(
    callbacks: list[Any], epochs: int, folder: Path, resume: str | None = None, save: bool = False
) -> Any:
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 3))
            self.losses: list[float] = []

        def training_step(self, batch: Any, index: int) -> Any:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    lightning.seed_everything(0, verbose=False)
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, gradient_clip_val=0.1, accumulate_grad_batches=2, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(rows(), batch_size=6), ckpt_path=resume)
    if save:
        trainer.save_checkpoint(folder / "last.ckpt")
    return module


def test_lightning(tmp_path: Path) -> None:
    from proxyconvex.lightning import MonitorCallback

    class Before(lightning.pytorch.Callback):
        """What on_before_optimizer_step sees."""

        def __init__(self) -> None:
            self.squares: list[float] = []

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.squares.append(float(sum(p.grad.double().square().sum() for p in pl_module.parameters())))

    before, kept = Before(), Kept()
    plain = lightning_fit([before], 3, tmp_path)
    watch = MonitorCallback(sinks=[kept], schedule={"record": 1}, report=tmp_path / "report.html")
    watched = lightning_fit([watch], 3, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert len(kept.records) == 12
    for r, raw in zip(kept.records, before.squares, strict=True):
        assert r["gradient"] == "clipped+accumulated"
        assert close(r["raw_grad_sq"], raw, 1e-5)
        assert close(r["grad_sq"], min(raw, 0.01), 1e-3)
        pair = plain.losses[2 * r["step"] : 2 * r["step"] + 2]
        assert close(r["loss"], sum(pair) / 2, 1e-5)
    assert watch.monitor is not None
    assert watch.monitor.verdict().status.name == "HOLDS"
    assert (tmp_path / "report.html").exists()


def test_lightning_resumes_in_the_same_ledger(tmp_path: Path) -> None:
    from proxyconvex.lightning import MonitorCallback

    first, second = Kept(), Kept()
    lightning_fit([MonitorCallback(sinks=[first], schedule={"record": 1})], 1, tmp_path, save=True)
    watch = MonitorCallback(sinks=[second], schedule={"record": 1})
    lightning_fit([watch], 3, tmp_path, resume=str(tmp_path / "last.ckpt"))
    assert [r["step"] for r in first.records + second.records] == list(range(12))
    assert watch.monitor is not None
    assert watch.monitor.verdict().status.name == "HOLDS"
    assert second.records[0]["dist_sq"]["init"] > 0, "w_0 is that of the first fit"


def test_tensorboard_reads_what_was_recorded(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    from proxyconvex.monitor.sinks import TensorBoardSink
    from proxyconvex.torch import Monitor

    torch.manual_seed(0)
    model, kept = nn.Linear(5, 3), Kept()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    writer = SummaryWriter(str(tmp_path))
    x, y = rows().tensors
    with Monitor(model, "init", sinks=[TensorBoardSink(writer), kept]) as monitor:
        for _ in range(45):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            monitor.loss(loss)
            optimizer.step()
    # The monitor has flushed the writer; it is the user's to close.
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"proxyconvex/loss", "proxyconvex/dist_sq/init", "proxyconvex/raw/grad_sq"} <= set(
        events.Tags()["scalars"]
    )
    for tag, value in (
        ("loss", lambda r: r["loss"]),
        ("dist_sq/init", lambda r: r["dist_sq"]["init"]),
        ("raw/grad_w_minus_v/init", lambda r: r["grad_w_minus_v"]["init"]),
    ):
        seen = events.Scalars(f"proxyconvex/{tag}")
        records = [r for r in kept.records if tag.rsplit("/", 1)[0].split("/")[-1] in r or tag == "loss"]
        assert [e.step for e in seen] == [r["step"] for r in records]
        assert [e.value for e in seen] == pytest.approx([value(r) for r in records], rel=1e-6)
    assert [r["step"] for r in kept.records] == [*range(32), 40, 44]
    writer.close()


def test_an_exception_in_a_lightning_fit_passes_through(tmp_path: Path) -> None:
    from proxyconvex.lightning import MonitorCallback

    class Stop(lightning.pytorch.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise ZeroDivisionError("mine")

    watch = MonitorCallback(log_dir=tmp_path / "log")
    with pytest.raises(ZeroDivisionError, match="mine"):
        lightning_fit([watch, Stop()], 1, tmp_path)


def huggingface_train(callbacks: list[Any], folder: Path, steps: int, resume: bool = False) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

    class Tokens(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
            window = torch.randint(0, 11, (6,), generator=torch.Generator().manual_seed(i))
            return {"input_ids": window, "labels": window}

    set_seed(0)
    config = GPT2Config(
        vocab_size=11, n_positions=6, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    settings = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, gradient_accumulation_steps=2, learning_rate=1e-2,
        max_grad_norm=0.5, lr_scheduler_type="constant", report_to=[], save_strategy="steps", save_steps=4, logging_strategy="steps",
        logging_steps=1, disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(GPT2LMHeadModel(config), settings, train_dataset=Tokens(), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def test_huggingface(tmp_path: Path, capsys: Any) -> None:
    from proxyconvex.huggingface import MonitorCallback

    plain = huggingface_train([], tmp_path / "plain", 7)
    kept = Kept()
    watch = MonitorCallback(sinks=[kept], schedule={"record": 1}, report=tmp_path / "report.html")
    watched = huggingface_train([watch], tmp_path / "watched", 7)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True)
    )
    logged = [entry for entry in plain.state.log_history if "loss" in entry]
    assert len(kept.records) == len(logged) == 7
    for r, entry in zip(kept.records, logged, strict=True):
        assert r["gradient"] == "clipped+accumulated"
        assert close(r["loss"], entry["loss"], 1e-3), "the loss that the trainer itself logs"
        assert close(r["raw_grad_sq"], float(entry["grad_norm"]) ** 2, 1e-3)
        assert r["grad_sq"] <= 0.2501
    assert watch.monitor is not None
    assert watch.monitor.verdict().status.name == "HOLDS"
    assert (tmp_path / "report.html").exists()
    again = MonitorCallback(sinks=[(more := Kept())], schedule={"record": 1})
    huggingface_train([again], tmp_path / "watched", 9, resume=True)
    assert [r["step"] for r in more.records] == [7, 8]
    assert again.monitor is not None
    assert again.monitor.verdict().status.name == "HOLDS"


SMALL = {
    "monitor_digits_cnn": ["--steps", "12"],
    "monitor_transformer": ["--steps", "12", "--batch", "4"],
    "monitor_lightning": ["--epochs", "2", "--rows", "256"],
    "monitor_huggingface": ["--steps", "4"],
}


@pytest.mark.parametrize("name", SMALL)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [name, *SMALL[name], "--out", str(tmp_path / "out")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "HOLDS" in out
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    logs = list((tmp_path / "out").rglob("monitor.jsonl"))
    assert json.loads(logs[0].read_text().splitlines()[-1])["event"] == "end"
