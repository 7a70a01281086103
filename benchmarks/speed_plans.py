"""Seconds to plan and to verify, at the sizes of the targets; raw numbers to results/plans.json.

    python benchmarks/speed_plans.py

Verification runs as a user runs it, ``python -m proxyconvex_checker``, start-up included.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import proxyconvex as pc
from environment import environment

CASES: list[dict[str, Any]] = [
    {"data": "digits:0,1", "settings": {"family": "two-layer-ntk", "width": 16384}, "plan": 60, "verify": 60},
    {
        "data": "digits:even-odd",
        "settings": {"family": "two-layer-ntk", "width": 1024},
        "plan": 600,
        "verify": 60,
    },
    {
        "data": "breast-cancer",
        "settings": {"family": "two-layer-ntk", "width": 1024},
        "plan": 600,
        "verify": 60,
    },
    {
        "data": "digits:0,1",
        "settings": {"family": "leaky-relu-noise", "slope": 0.5},
        "plan": 600,
        "verify": 5,
    },
    {
        "data": "breast-cancer",
        "settings": {"family": "leaky-relu-noise", "slope": 0.5},
        "plan": 600,
        "verify": 5,
    },
]
ROUNDS = 5


def one(case: dict[str, Any]) -> dict[str, Any]:
    """Plan and verify a case `ROUNDS` times."""
    plans, checks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            started = time.perf_counter()
            plan = pc.plan(case["data"], **case["settings"])
            plans.append(time.perf_counter() - started)
            path = pc.write_certificate(plan, folder)
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "proxyconvex_checker", str(path)], check=True, capture_output=True
            )
            checks.append(time.perf_counter() - started)
    return {
        **case,
        "promised_error": plan.guarantee.error_bound,
        "plan_seconds": plans,
        "verify_seconds": checks,
    }


def main() -> None:
    """Measure every case and write the raw numbers."""
    results = []
    for case in CASES:
        result = one(case)
        plan, check = (statistics.median(result[f"{k}_seconds"]) for k in ("plan", "verify"))
        name = f"{case['data']} {case['settings']['family']} {case['settings'].get('width', '')}"
        print(
            f"{name}: plan {plan:.2f} s (target {case['plan']}), verify {check:.2f} s (target {case['verify']})"
        )
        results.append(result)
    out = Path(__file__).parent / "results" / "plans.json"
    out.write_text(json.dumps({"environment": environment(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
