"""How fast and how reliably false conditions are refuted; raw numbers to results/falsify.json.

    python benchmarks/falsify.py              # about five minutes
    python benchmarks/falsify.py --seeds 3    # a quick look

* the tanh neuron: milliseconds to a confirmed, simple witness, in a warm process and in a fresh one;
* the zoo: every condition one percent beyond its best constant, with many seeds: how many were missed (a miss is reported, not
  hidden), evaluations and seconds; and the true conditions, of which none may be refuted;
* one bad coordinate among 1 to 10^6 parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import proxyconvex as pc
from environment import environment
from proxyconvex.checks.falsify.posed import problem_of
from proxyconvex.checks.falsify.search import Search
from proxyconvex.checks.zoo import Specimen, zoo

FRESH = """
import time
started = time.perf_counter(), time.process_time()
import proxyconvex as pc
imported = time.perf_counter() - started[0], time.process_time() - started[1]
cond = pc.ProxyConvexity.pointwise(
    lambda a, b, y, s, ds: (s(a) - y) * ds(a) * (a - b) - (s(a) - y) ** 2 / 2 + (s(b) - y) ** 2 / 2,
    activation="tanh", a=(-3, 3), b=(-3, 3), y=(-1, 1))
started = time.perf_counter(), time.process_time()
verdict = pc.falsify(cond)
called = time.perf_counter() - started[0], time.process_time() - started[1]
print(*(1e3 * x for x in (*called, *imported)))
"""


def neuron(rounds: int = 21) -> dict[str, Any]:
    """Milliseconds of `falsify` on the tanh neuron, shrinking and confirmation included."""
    condition = pc.ProxyConvexity.pointwise(
        lambda a, b, y, s, ds: (s(a) - y) * ds(a) * (a - b) - (s(a) - y) ** 2 / 2 + (s(b) - y) ** 2 / 2,
        activation="tanh", a=(-3, 3), b=(-3, 3), y=(-1, 1),
    )  # fmt: skip
    warm, warm_cpu = [], []
    for seed in range(rounds):
        started = time.perf_counter(), time.process_time()
        verdict = pc.falsify(condition, seed=seed)
        warm.append(1e3 * (time.perf_counter() - started[0]))
        warm_cpu.append(1e3 * (time.process_time() - started[1]))
    fresh = first_calls(11)
    return {
        "target_ms": 50,
        "load": os.getloadavg(),
        "warm_ms": warm,
        "warm_ms_median": statistics.median(warm),
        "warm_cpu_ms_median": statistics.median(warm_cpu),
        "fresh_process_ms_median": statistics.median(x[0] for x in fresh),
        "fresh_process_cpu_ms_median": statistics.median(x[1] for x in fresh),
        "import_ms_median": statistics.median(x[2] for x in fresh),
        "import_cpu_ms_median": statistics.median(x[3] for x in fresh),
        "witness": verdict.witness["point"],
        "slack_upper": verdict.witness["slack_upper"],
        "confirmed_by": verdict.witness["confirmed_by"],
    }


def first_calls(times: int) -> list[list[float]]:
    """Wall and processor milliseconds of the first call, and of ``import proxyconvex``, in fresh processes.

    With byte code on disk, as an installed package has it: a process that is not measured writes it.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
            "PYTHONPYCACHEPREFIX": folder
        }
        runs = [
            subprocess.run(
                [sys.executable, "-c", FRESH], check=True, capture_output=True, text=True, env=place
            )
            for _ in range(times + 1)
        ]
    return [[float(x) for x in done.stdout.split()] for done in runs[1:]]


def specimen(one: Specimen, seeds: int) -> dict[str, Any]:
    """One condition of the zoo, planted and true."""
    problem = problem_of(one.planted(), one.like)
    seconds, evaluations, missed = [], [], []
    for seed in range(seeds):
        search = Search(problem, seed, 60_000)
        started = time.perf_counter()
        found = search.run()
        seconds.append(time.perf_counter() - started)
        evaluations.append(search.evaluations)
        if found is None:
            missed.append(seed)
    true = Search(problem_of(one.true(), one.like), 0, 60_000)
    return {
        "name": one.name, "family": one.family, "truth": one.truth, "why": one.why, "seeds": seeds, "missed": missed,
        "evaluations": evaluations, "seconds_first_with_compilation": seconds[0],
        "seconds_median": statistics.median(seconds[1:] or seconds),
        "true_version_refuted": true.run() is not None, "true_version_evaluations": true.evaluations,
    }  # fmt: skip


def sizes() -> list[dict[str, Any]]:
    """Strong convexity that fails in one coordinate of p."""
    rows = []
    for p in (1, 10, 1_000, 100_000, 1_000_000):
        curvature = np.full(p, 2.0)
        curvature[p // 3] = 0.99
        condition = pc.strongly_convex(
            lambda w, c=curvature: jnp.sum(c * w * w) / 2, 1.0, comparator=np.zeros(p)
        )
        started = time.perf_counter()
        cpu = time.process_time()
        verdict = pc.falsify(condition)
        w = verdict.witness
        rows.append({
            "parameters": p, "status": verdict.status.name, "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu,
            "coordinates_in_the_witness": w.get("nonzero"), "confirmed_by": w.get("confirmed_by"), "evaluations": w["evaluations"],
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run everything and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--parts", nargs="+", default=["neuron", "sizes", "zoo"], help="the other parts are kept as they are"
    )
    given = parser.parse_args()
    path = Path(__file__).parent / "results" / "falsify.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    result["environment"] = environment()
    if "neuron" in given.parts:
        result["neuron"] = neuron()
        print({k: v for k, v in result["neuron"].items() if "median" in k}, flush=True)
    if "sizes" in given.parts:
        result["sizes"] = sizes()
    if "zoo" in given.parts:
        result |= all_specimens(given.seeds)
    path.write_text(json.dumps(result, indent=1) + "\n")


def all_specimens(seeds: int) -> dict[str, Any]:
    """The zoo and its summary."""
    rows = []
    for one in zoo():
        row = specimen(one, seeds)
        rows.append(row)
        print(
            f"{row['name']:48} missed {len(row['missed'])}/{seeds}, {row['seconds_median'] * 1e3:.1f} ms",
            flush=True,
        )
    summary = {
        "conditions": len(rows),
        "searches": seeds * len(rows),
        "missed": sum(len(r["missed"]) for r in rows),
        "true_versions_refuted": sum(r["true_version_refuted"] for r in rows),
        "seconds_median": statistics.median(r["seconds_median"] for r in rows),
        "seconds_max": max(r["seconds_median"] for r in rows),
    }
    print(summary)
    return {"zoo": rows, "zoo_summary": summary}


if __name__ == "__main__":
    main()
