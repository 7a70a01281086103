"""The command line as a user meets it: exit codes, JSON, files, errors, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

NTK = ["digits:0,1", "--family", "two-layer-ntk", "--width", "64"]
LEAKY = ["digits:0,1", "--family", "leaky-relu-noise", "--width", "4", "--steps", "2000", "--method", "sgd"]


def call(*arguments: str, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess:
    """Run the command line in a folder and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "proxyconvex.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == expect, (done.stdout, done.stderr)
    return done


@pytest.mark.parametrize("arguments", [NTK, LEAKY], ids=["two-layer-ntk", "leaky-relu-noise"])
def test_audit_then_verify(tmp_path: Path, arguments: list[str]) -> None:
    done = call("audit", *arguments, "--out", "run", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert set(document) >= {
        "family",
        "data",
        "method",
        "step_size",
        "steps",
        "guarantee",
        "measured",
        "consistent",
    }
    assert document["consistent"] is True
    assert set(document["data"]) == {"name", "n", "d", "digest"}
    g = document["guarantee"]
    assert set(g) >= {"theorem", "quantity", "bound", "error_bound", "evidence", "premises"}
    assert set(document["measured"]) >= {"quantity", "final", "min", "average", "error"}
    assert document["measured"]["error"] <= g["error_bound"] < 0.5
    for name in ("certificate.json", "data.npy", "comparator.npy", "trace.npz", "audit.json", "report.html"):
        assert (tmp_path / "run" / name).stat().st_size > 100, name
    assert json.loads((tmp_path / "run" / "audit.json").read_text()) == document
    assert "ACCEPTED" in call("verify", "run/certificate.json", cwd=tmp_path).stdout
    subprocess.run(
        [sys.executable, "-m", "proxyconvex_checker", "run"], cwd=tmp_path, check=True, capture_output=True
    )


def test_classical_problems(tmp_path: Path) -> None:
    """Ten classes are fine where the targets are not used; what is certified is verified; the baseline has its name."""
    arguments = ["wine", "--family", "classical", "--problem", "rank-one"]
    done = call("audit", *arguments, "--out", "run", "-q", cwd=tmp_path)
    assert "zero vector" in done.stdout and "VIOLATED" not in done.stdout
    document = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert document["family"] == "rank-one" and document["guarantee"]["theorem"] == "RSIrank"
    assert document["measured"]["value"] <= document["guarantee"]["bound"] < document["guarantee"]["baseline"]
    assert "ACCEPTED" in call("verify", "run", cwd=tmp_path).stdout
    explained = call("explain", *arguments, "-q", cwd=tmp_path).stdout
    assert "RSIrank" in explained and "CvxSquares" in explained
    refused = call("plan", "wine", "--family", "classical", cwd=tmp_path, expect=2)
    assert "3 classes" in refused.stderr


def test_verify_rejects_and_names_the_step(tmp_path: Path) -> None:
    call("plan", *NTK, "--out", "c", "-q", cwd=tmp_path)
    array = np.load(tmp_path / "c" / "comparator.npy")
    array[3, 2] *= 1 + 1e-6
    np.save(tmp_path / "c" / "comparator.npy", array)
    done = call("verify", "c/certificate.json", cwd=tmp_path, expect=1)
    assert "comparator" in done.stdout
    call("verify", "c/nothing.json", cwd=tmp_path, expect=2)
    (tmp_path / "c" / "broken.json").write_text("{")
    call("verify", "c/broken.json", cwd=tmp_path, expect=2)


def test_plan_prints_one_json_object_and_trains_nothing(tmp_path: Path) -> None:
    document = json.loads(call("plan", *NTK, "--json", cwd=tmp_path).stdout)
    assert document["measured"] is None
    assert document["consistent"] is None
    assert not list(tmp_path.iterdir())


def test_plan_on_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    rows = "\n".join(f"{a},{b},{c},{'up' if a + 0.3 > 0 else 'down'}" for a, b, c in x)
    (tmp_path / "data.csv").write_text("a,b,c,label\n" + rows + "\n")
    document = json.loads(
        call("plan", "data.csv", "--target", "label", "--width", "64", "--json", cwd=tmp_path).stdout
    )
    assert document["data"]["n"] == 40
    assert document["guarantee"]["error_bound"] < 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "digits:0,1", "--family", "two-layer-nkt"], "Did you mean 'two-layer-ntk'"),
        (["plan", "digits:0,1", "--width", "7"], "even whole number"),
        (["plan", "digits:0,1", "--budget", "soon"], "90s, 3min or 1h"),
        (["plan", "digits:0,1", "--activation", "tanh"], "softplus"),
        (["plan", "digits:0,1", "--one-pass"], "Options of two-layer-ntk"),
        (["plan", "digits:0,0"], "two different classes"),
        (["plan", "wine", "--family", "classical", "--problem", "rank-two"], "rank-one, phase-retrieval"),
        (["plan", "missing.csv", "--target", "y"], "Check the path"),
        (["audit", *NTK, "--runs", "3"], "no randomness"),
    ],
    ids=["family", "width", "budget", "activation", "option", "classes", "problem", "file", "seeds"],
)
def test_bad_input_is_one_readable_message(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = call(*arguments, cwd=tmp_path, expect=2)
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_help_and_lists(tmp_path: Path) -> None:
    assert "breast-cancer" in call("audit", "--help", cwd=tmp_path).stdout
    families = call("families", cwd=tmp_path).stdout
    assert "two-layer-ntk" in families
    assert "leaky-relu-noise" in families
    theorems = call("theorems", cwd=tmp_path).stdout
    assert all(name in theorems for name in ("T1", "T2", "T3", "T3e", "T4", "T6", "T6e", "T8"))
    explained = call("explain", *LEAKY, "-q", cwd=tmp_path).stdout
    assert all(name in explained for name in ("T3e", "T8", "T1", "no", "yes"))
    assert call("--version", cwd=tmp_path).stdout.startswith("proxyconvex ")


# With leak 1 the tangent margins of this plan hold with equality, so that margins 1% larger are wrong.
EXACT = [
    "digits:0,1", "--family", "leaky-relu-noise", "--width", "4", "--slope", "1.0", "--method", "normalised-gd",
    "--init-scale", "0.0",
]  # fmt: skip
# The command line itself, in a process whose planner multiplies one constant of the plan by the first argument.
SCRIPT = """
import functools, sys
from dataclasses import replace
from proxyconvex import cli
from proxyconvex.synthesis import plan_leaky_relu_noise as module

honest, factor = module.plan_leaky_relu_noise, float(sys.argv.pop(1))

@functools.wraps(honest)
def edited(*arguments, **options):
    plan = honest(*arguments, **options)
    return replace(plan, proxy={**plan.proxy, "u": factor * plan.proxy["u"]})

module.plan_leaky_relu_noise = edited
cli.main()
"""


@pytest.mark.parametrize(
    ("factor", "code"), [("1.0", 0), ("1.01", 1)], ids=["true", "one-per-cent-too-large"]
)
def test_a_wrong_premise_is_printed_first_in_red_with_exit_code_one(
    tmp_path: Path, factor: str, code: int
) -> None:
    (tmp_path / "edited.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "edited.py", factor, "audit", *EXACT, "--out", "r", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": ""},
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    red = "\x1b[1;31m"
    document = json.loads((tmp_path / "r" / "audit.json").read_text())
    assert document["consistent"] is (code == 0)
    if code:
        assert done.stdout.startswith(f"{red}VIOLATED\x1b[0m proxy-convexity: least slack of")
        assert f"{red}NOT consistent" in done.stdout
        assert [c["name"] for c in document["checks"] if not c["ok"]][:1] == ["proxy-convexity"]
        assert "Violated" in (tmp_path / "r" / "report.html").read_text()
    else:
        assert red not in done.stdout and "consistent" in done.stdout


@pytest.mark.parametrize("name", ["R", "L", "m"])
def test_a_constant_one_per_cent_wrong_in_a_stored_certificate(tmp_path: Path, name: str) -> None:
    """Sealed anew, so that only the mathematics can tell: the constants are re-derived, and the first false one ends it."""
    from proxyconvex_checker import document

    call("plan", "wine", "--family", "classical", "--problem", "rank-one", "--out", "c", "-q", cwd=tmp_path)
    path = tmp_path / "c" / "certificate.json"
    raw = json.loads(path.read_text())
    factor = 1.01 if name == "m" else 0.99
    raw["constants"][name] = (factor * float.fromhex(raw["constants"][name])).hex()
    raw["seal"] = document.seal(raw)
    path.write_text(json.dumps(raw))
    done = call("verify", "c/certificate.json", cwd=tmp_path, expect=1)
    assert f"constants.{name} is stored as" in " ".join(done.stdout.split())


def test_several_seeds(tmp_path: Path) -> None:
    document = json.loads(call("audit", *LEAKY, "--runs", "3", "--out", "r", "--json", cwd=tmp_path).stdout)
    assert document["measured"]["runs"] == 3
    assert document["consistent"] is True


def test_interrupted_audit_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    arguments = ["audit", *LEAKY[:-4], "--steps", "600000", "--method", "sgd", "-q", "--out"]
    command = [sys.executable, "-m", "proxyconvex.cli", *arguments]
    process = subprocess.Popen(
        [*command, "cut"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    checkpoint = tmp_path / "cut" / "checkpoint.npz"
    limit = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    if "--resume" not in output:
        assert process.returncode in (0, 130), errors
    call(*arguments, "cut", "--resume", cwd=tmp_path)
    call(*arguments, "whole", cwd=tmp_path)
    assert (tmp_path / "cut" / "trace.npz").read_bytes() == (tmp_path / "whole" / "trace.npz").read_bytes()
