"""The command line and the example, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from monitored_runs import train
from typer.testing import CliRunner

from proxyconvex.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_watch_once_summary_and_report(tmp_path) -> None:
    train(log_dir=tmp_path / "run", steps=40)
    runner = CliRunner()
    once = runner.invoke(app, ["watch", str(tmp_path / "run"), "--once"])
    assert once.exit_code == 0
    assert "step 39 ended: closed" in once.output
    followed = runner.invoke(app, ["watch", str(tmp_path / "run"), "--interval", "0.05"])
    assert followed.exit_code == 0
    assert "adds up" in followed.output
    words = runner.invoke(app, ["watch", str(tmp_path / "run"), "--summary"])
    assert "What theorems would then have promised, for this run only" in words.output
    made = runner.invoke(app, ["watch", str(tmp_path / "run"), "--report", str(tmp_path / "r.html")])
    assert made.exit_code == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_watch_says_what_is_missing(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxyconvex.cli", "watch", str(tmp_path), "--once"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "monitor.jsonl" in done.stderr


def test_the_jax_example_prints_its_summary(tmp_path) -> None:
    pytest.importorskip("optax")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "monitor_jax_optax.py"), "--steps", "60", "--width", "16", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "T7 held at all 60 steps" in done.stdout
    assert "tangent proxy (U1), v = first run [ON_TRACE]" in done.stdout
    assert "T3-samples" in done.stdout
    assert (tmp_path / "run" / "report.html").exists()
