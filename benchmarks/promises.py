"""Promises on real data: plan, certify, train, audit and verify, over many seeds; raw numbers to results/promises.json.

    python benchmarks/promises.py                # everything, 20 seeds each
    python benchmarks/promises.py --seeds 2      # a quick look

For full-batch descent a seed changes the initial weights, so the whole plan is made again; for SGD a seed changes the order
of the samples, and all seeds are trained at once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import proxyconvex as pc
from environment import environment
from proxyconvex_checker import verify

TARGETS: list[dict[str, Any]] = [
    {"data": "digits:0,1", "family": "two-layer-ntk", "settings": {"width": 1024}, "target": 0.008},
    {"data": "breast-cancer", "family": "two-layer-ntk", "settings": {"width": 1024}, "target": 0.105},
    {"data": "wine:0,1", "family": "two-layer-ntk", "settings": {"width": 1024}, "target": None},
    {
        "data": "digits:0,1",
        "family": "leaky-relu-noise",
        "settings": {"width": 64, "slope": 0.5, "method": "sgd", "steps": 1_000_000},
        "target": 0.001,
    },
    {
        "data": "breast-cancer",
        "family": "leaky-relu-noise",
        "settings": {"width": 64, "slope": 0.5, "method": "sgd", "steps": 1_000_000},
        "target": 0.20,
    },
    # Last, because a step takes ten times longer than on the other data.
    {"data": "digits:even-odd", "family": "two-layer-ntk", "settings": {"width": 1024}, "target": 0.45},
]


def one(target: dict[str, Any], seed: int) -> dict[str, Any]:
    """Plan, certify, train, audit and verify once."""
    started = time.perf_counter()
    plan = pc.plan(target["data"], family=target["family"], seed=seed, **target["settings"])
    planned = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        certificate = pc.write_certificate(plan, folder)
        written = time.perf_counter()
        accepted = verify(certificate).accepted
        verified = time.perf_counter()
    trace = pc.run(plan)
    trained = time.perf_counter()
    audit = pc.audit(plan, trace)
    return {
        "seed": seed,
        "promised_error": plan.guarantee.error_bound,
        "bound": plan.guarantee.bound,
        "quantity": plan.guarantee.quantity,
        "theorem": plan.guarantee.theorem,
        "evidence": plan.guarantee.evidence.name,
        "steps": plan.method.steps,
        "measured": audit.measured,
        "consistent": audit.consistent,
        "verified": accepted,
        "seconds": {
            "plan": planned - started,
            "certificate": written - planned,
            "verify": verified - written,
            "train": trained - verified,
            "all": time.perf_counter() - started,
        },
    }


def main() -> None:
    """Run every target over the seeds and write the raw numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "promises.json")
    arguments = parser.parse_args()
    results = []
    for target in TARGETS:
        rows = [one(target, seed) for seed in range(arguments.seeds)]
        worst = max(row["promised_error"] for row in rows)
        kept = sum(row["consistent"] and row["verified"] for row in rows)
        slowest = max(row["seconds"]["all"] for row in rows)
        print(
            f"{target['data']:16} {target['family']:17} promised <= {100 * worst:.4g}%  kept {kept}/{len(rows)}  slowest {slowest:.1f} s",
            flush=True,
        )
        results.append({**target, "runs": rows})
        # Written after every target, so that an interrupted benchmark keeps what it has.
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(
            json.dumps({"environment": environment(), "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
