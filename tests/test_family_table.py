"""The table of families: written between markers, checked against raw summaries, honest about what is vacuous."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "family_table.py"
spec = importlib.util.spec_from_file_location("family_table", SCRIPT)
assert spec and spec.loader
family_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(family_table)


def summary(**changes):
    guarantee = {
        "theorem": "T8", "quantity": "best-iterate-error", "mode": "every-run", "bound": 0.0123456, "error_bound": 0.0123456,
        "vacuous": False, "evidence": "CERTIFIED",
    }  # fmt: skip
    document = {
        "family": "two-layer-ntk", "data": {"name": "toy", "n": 9}, "steps": 1200, "step_size": 0.5, "consistent": True,
        "measured": {"value": 0.001, "error": 0.001}, "guarantee": guarantee | changes.pop("guarantee", {}),
    }  # fmt: skip
    return document | changes


def test_promises_are_rounded_up_and_outcomes_to_nearest():
    line = family_table.row(summary())
    assert "| 1.24% | 0.1% |" in line and "| 0.081 |" in line and "| 1,200 |" in line


def test_conditional_promises_show_both_kinds_of_evidence():
    conditional = {"conditional": True, "evidence": "ASSUMED"}
    met = family_table.row(summary(guarantee=conditional, after_run={"evidence": "ON_TRACE"}))
    unmet = family_table.row(summary(guarantee=conditional, after_run=None))
    assert "conditional (ASSUMED); then ON_TRACE" in met and "not met on this run" in unmet


def test_vacuous_promises_say_so_and_what_would_help():
    document = summary(
        guarantee={"vacuous": True, "bound": 0.9, "error_bound": 0.9},
        notes=["The promise is vacuous; more steps."],
    )
    text = family_table.table([document])
    assert "**vacuous**" in text and "two-layer-ntk on toy: The promise is vacuous; more steps." in text


def test_markers_are_added_once_and_replaced():
    first = family_table.replaced("# Title\n\ntext\n", "one")
    second = family_table.replaced(first, "two \\1")
    assert first.count(family_table.BEGIN) == second.count(family_table.BEGIN) == 1
    assert "two \\1" in second and "one" not in second and second.startswith("# Title\n\ntext\n")


def test_check_fails_on_an_old_table(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("# A\n")

    def run(*options):
        command = [sys.executable, str(SCRIPT), *options, "--documents", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("--check").returncode == 1
    assert run("--write").returncode == 0 and run("--check").returncode == 0
    path.write_text(path.read_text().replace("| family |", "| Family |"))
    done = run("--check")
    assert done.returncode == 1 and "make table" in done.stderr


@pytest.mark.parametrize("path", sorted(family_table.RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_stored_summaries_are_complete(path):
    document = json.loads(path.read_text())
    assert family_table.row(document).count(" | ") == len(family_table.HEAD) - 1
    assert document["consistent"] is True
