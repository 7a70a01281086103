"""The log: schedules, killed runs, torn lines, receivers."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from monitored_runs import train

from proxyconvex import InvalidInputError
from proxyconvex.monitor.log import LOG_NAME, read_log
from proxyconvex.monitor.quantity import CATALOGUE, quantities
from proxyconvex.monitor.schedule import Every, LogSpaced, Never, Opening, Thinned, Together, WithNext
from proxyconvex.monitor.sinks import ParquetSink, TensorBoardSink, write_parquet
from proxyconvex.monitor.summary import summarise


def test_schedules() -> None:
    assert [t for t in range(9) if Every(4).due(t)] == [0, 4, 8]
    assert not any(Never().due(t) for t in range(9))
    due = [t for t in range(100_000) if LogSpaced(100).due(t)]
    assert due[:30] == list(range(30))
    assert all(b - a < (10**0.01 - 1) * (a + 1) + 1 for a, b in zip(due, due[1:], strict=False))
    assert 90 <= sum(1000 <= t < 10_000 for t in due) <= 101
    thin = [t for t in range(100_000) if Thinned(10, 100).due(t)]
    assert all(t % 10 == 0 for t in thin)
    assert thin == [10 * t for t in due if 10 * t < 100_000]
    assert [t for t in range(11) if WithNext(4).due(t)] == [0, 1, 4, 5, 8, 9]
    assert str(WithNext(4)) == "every 4 steps and at the step after each"
    assert all(WithNext(k).due(t) for k in (1, 2) for t in range(9))
    assert str(WithNext(1)) == "every step"


def test_an_opening_and_schedules_together() -> None:
    opening = Opening(5, Every(4))
    assert [t for t in range(14) if opening.due(t)] == [0, 1, 2, 3, 4, 8, 12]
    assert str(opening) == "each of the first 5 steps, then every 4 steps"
    schedules = [Opening(3, Every(50)), Every(7), Never(), LogSpaced(2)]
    expected = [any(s.due(t) for s in schedules) for t in range(3000)]
    together = Together(schedules)
    assert [together(t) for t in range(3000)] == expected
    order = np.random.default_rng(0).integers(0, 3000, 5000).tolist()  # asked in any order
    assert [together(t) for t in order] == [expected[t] for t in order]
    assert not any(Together([Never()])(t) for t in range(300))
    # The next step is found only so far ahead.
    for t in order[:500]:
        ahead = [s for s in range(t, min(t + Together.AHEAD, 3000)) if expected[s]]
        if ahead or t + Together.AHEAD <= 3000:
            assert together.next(t) == (ahead[0] if ahead else t + Together.AHEAD)
    with pytest.raises(InvalidInputError, match="whole number of steps"):
        Opening(0, Every(2))
    with pytest.raises(InvalidInputError, match="then"):
        Opening(3, "often")


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_bad_schedules_are_refused(bad: object) -> None:
    with pytest.raises(InvalidInputError):
        Every(bad)
    with pytest.raises(InvalidInputError):
        LogSpaced(bad)
    with pytest.raises(InvalidInputError):
        WithNext(bad)


def test_presets_name_known_quantities_and_can_be_changed() -> None:
    for preset in ("light", "standard", "full"):
        assert set(quantities(preset)) == set(CATALOGUE)
    assert not quantities("light")["half-batch"].due(0)
    standard = quantities("standard", {"half-batch": 7, "tangent-loss": None})
    assert [t for t in range(20) if standard["half-batch"].due(t)] == [0, 7, 14]
    assert not standard["tangent-loss"].due(0)
    with pytest.raises(InvalidInputError, match="'light', 'standard', 'full'"):
        quantities("heavy")
    with pytest.raises(InvalidInputError, match="half-batch"):
        quantities({"half batch": 3})


def test_light_writes_few_lines_and_the_last_one(tmp_path) -> None:
    train(log_dir=tmp_path, steps=400, full_batch=True, preset="light")
    log = read_log(tmp_path)
    assert log.records[-1]["step"] == 399
    assert log.ended["reason"] == "closed"
    assert log.totals["steps"] == 400
    train(log_dir=tmp_path, steps=3, full_batch=True)  # another run in the same folder keeps the first log
    assert (tmp_path / "monitor-1.jsonl").exists()
    assert read_log(tmp_path / "monitor-1.jsonl").records == log.records


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from monitored_runs import train
ledger, state = train(log_dir=sys.argv[1], steps=300, close=False, preset="light", full_batch=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_keeps_the_log(tmp_path) -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), here], check=False)
    assert done.returncode == -signal.SIGKILL
    log = read_log(tmp_path)
    assert log.ended is None
    assert log.torn == 0
    whole, _ = train(steps=log.records[-1]["step"] + 1, full_batch=True, close=False, preset="light")
    assert log.records[-1]["step"] >= 297
    assert log.history[-1][0] >= 294
    assert "was killed" in str(summarise(tmp_path))
    step, totals = log.history[-1]
    again, _ = train(steps=step + 1, full_batch=True, close=False, preset="light")
    assert json.dumps(totals["tracks"]) == json.dumps(again.totals()["tracks"])
    assert whole.last_step == log.records[-1]["step"]


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_last_line_is_tolerated_and_a_resume_starts_a_new_line(cut: int, tmp_path) -> None:
    first, state = train(log_dir=tmp_path, steps=20, close=False)
    saved = first.state_dict()
    first.writer.close()
    path = tmp_path / LOG_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    log = read_log(tmp_path)
    assert log.torn == (0 if cut == 1 else 1)
    assert log.records[-1]["step"] == (19 if cut == 1 else 18)
    again, _ = train(None, log_dir=tmp_path, steps=0, close=False)
    again.load_state_dict(saved)
    train(again, steps=30, start=20, state=state)
    assert read_log(tmp_path).records[-1]["step"] == 29
    assert read_log(tmp_path).totals["steps"] == 30


def test_what_is_no_log_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidInputError, match="log_dir"):
        read_log(tmp_path)
    (tmp_path / LOG_NAME).write_text("hello\nworld\n")
    with pytest.raises(InvalidInputError, match="2 lines could not be read"):
        read_log(tmp_path)


def test_values_that_are_not_finite_survive_the_log(tmp_path) -> None:
    ledger, _ = train(log_dir=tmp_path, steps=2, close=False)
    record = ledger.log().records[-1]
    dots = {k: record[k] for k in ("grad_sq", "grad_w_minus_v", "dist_sq", "update_sq", "update_dot")}
    ledger.observe(2, eta=0.1, loss=math.inf, dots=dots, extra={"slope": np.float32(math.nan)})
    ledger.close()
    for line in (tmp_path / LOG_NAME).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    last = read_log(tmp_path).records[-1]
    assert last["loss"] == math.inf
    assert math.isnan(last["slope"])


def test_tensorboard_and_parquet(tmp_path) -> None:
    class Writer:
        def __init__(self) -> None:
            self.seen: dict[str, list[tuple[int, float]]] = {}

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.seen.setdefault(tag, []).append((step, value))

    writer = Writer()
    file = tmp_path / "run.parquet"
    ledger, _ = train(log_dir=tmp_path, steps=25, sinks=[TensorBoardSink(writer), ParquetSink(file)])
    records = ledger.log().records
    assert writer.seen["proxyconvex/loss"] == [(r["step"], r["loss"]) for r in records]
    assert writer.seen["proxyconvex/raw/grad_w_minus_v/teacher"][3] == (
        3,
        records[3]["grad_w_minus_v"]["teacher"],
    )
    table = pl.read_parquet(file)
    assert table["dist_sq/teacher"].to_list() == [r["dist_sq"]["teacher"] for r in records]
    assert set(table["gradient"]) == {"raw"}
    again = pl.read_parquet(write_parquet(read_log(tmp_path), tmp_path / "again.parquet"))
    assert again["loss"].to_list() == table["loss"].to_list()
    with pytest.raises(InvalidInputError, match="add_scalar"):
        TensorBoardSink(object())


def test_the_log_is_written_as_the_run_goes(tmp_path) -> None:
    ledger, _ = train(log_dir=tmp_path, steps=10, close=False)
    assert read_log(tmp_path).records[-1]["step"] == 9
    assert ledger.writer.is_open
    assert os.path.getsize(tmp_path / LOG_NAME) > 0
    ledger.close()
    ledger.close()
    assert (tmp_path / LOG_NAME).read_text().count('"end"') == 1
