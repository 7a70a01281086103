"""The search on a Dask cluster of two processes gives a confirmed counterexample, and counts what the workers did."""

from __future__ import annotations

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.evidence import Status

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


# Negative only in a small ball far from everything that is tried first, with a flat surrounding.
def _hidden(w):
    center = np.array([1.237, -2.113, 0.871])
    distance = jnp.sum((w - center) ** 2)
    return jnp.where(distance < 0.09, distance - 0.04, 1.0)


@pytest.mark.filterwarnings("ignore")
def test_found_on_workers(client):
    condition = pc.BoundedBelow(0, f=_hidden, region=pc.Ball(np.zeros(3), 4.0))
    verdict = pc.falsify(condition, scheduler=client, seed=1)
    assert verdict.status is Status.FALSIFIED
    assert verdict.witness["confirmed_by"] == "ball arithmetic"
    again = pc.falsify(condition, scheduler=client, seed=1)
    assert again.sentence == verdict.sentence  # whichever worker is first


@pytest.mark.filterwarnings("ignore")
def test_not_found_counts_the_work_of_all_workers(client):
    condition = pc.BoundedBelow(-1, f=_hidden, region=pc.Ball(np.zeros(3), 4.0))
    verdict = pc.falsify(condition, scheduler=client, budget=24_000)
    assert verdict.status is Status.NOT_FALSIFIED
    assert verdict.witness["evaluations"] >= 20_000


def test_without_dask_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    condition = pc.BoundedBelow(-1, f=_hidden, region=pc.Ball(np.zeros(3), 4.0))
    with pytest.raises(pc.InvalidInputError, match=r"proxyconvex\[dask\]"):
        pc.falsify(condition, jobs=2, budget=20_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("pc.reduced(lambda a, b, s: (s(a) - s(b)) * (a - b), activation='tanh', a=(-4, 4), b=(-4, 4))", "HOLDS", 0),
        ("pc.BoundedBelow(1, f=lambda w: w @ w, region=pc.Ball(np.zeros(3), 4.0))", "FALSIFIED", 1),
    ],
    ids=["branch and bound", "search"],
)  # fmt: skip
def test_the_command_runs_on_a_cluster(client, tmp_path, body, status, code):
    (tmp_path / "mine.py").write_text(f"import numpy as np\nimport proxyconvex as pc\n\ncond = {body}\n")
    address = client.scheduler.address
    run = subprocess.run(
        [sys.executable, "-m", "proxyconvex.cli", "check", "mine.py:cond", "--scheduler", address, "--json"],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == code, run.stderr
    assert json.loads(run.stdout)["status"] == status
