"""F1 and F3 on real data over seeds: plan, certify, train, audit, verify; raw numbers to results/families_seeds_scalar.json.

    python benchmarks/families_seeds_scalar.py              # 20 seeds each
    python benchmarks/families_seeds_scalar.py --seeds 2    # a quick look

A seed changes the initial weights (for a single neuron with --init-scale 0.1; by default it starts at the origin) and,
under uniform draws, the order of the rows. The preprocessing is chosen once: it does not depend on the seed.
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
    {"data": "wine:0,1", "family": "leaky-relu-hinge", "settings": {}},
    {"data": "digits:0,1", "family": "leaky-relu-hinge", "settings": {}},
    {"data": "breast-cancer", "family": "leaky-relu-hinge", "settings": {"steps": 300_000}},
    {"data": "diabetes", "family": "single-neuron", "settings": {"init_scale": 0.1}},
    {
        "data": "diabetes",
        "family": "single-neuron",
        "settings": {"init_scale": 0.1, "activation": "leaky-relu"},
    },
    {
        "data": "linnerud:waist",
        "family": "single-neuron",
        "settings": {"init_scale": 0.1, "activation": "leaky-relu"},
    },
    {"data": "wine:0,1", "family": "single-neuron", "settings": {"init_scale": 0.1}},
    {"data": "digits:0,1", "family": "single-neuron", "settings": {"init_scale": 0.1}},
    {
        "data": "digits:pixel-27",
        "family": "single-neuron",
        "settings": {"init_scale": 0.1, "activation": "leaky-relu", "steps": 50_000},
    },
]


def one(target: dict[str, Any], seed: int, preprocessing: Any) -> dict[str, Any]:
    """Plan, certify, train, audit and verify once."""
    started = time.perf_counter()
    plan = pc.plan(
        target["data"], family=target["family"], seed=seed, preprocessing=preprocessing, **target["settings"]
    )
    planned = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        accepted = verify(pc.write_certificate(plan, folder)).accepted
    trace = pc.run(plan)
    audit = pc.audit(plan, trace)
    g = plan.guarantee
    return {
        "seed": seed,
        "theorem": g.theorem,
        "quantity": g.quantity,
        "bound": g.bound,
        "error_bound": g.error_bound,
        "baseline": g.baseline,
        "vacuous": g.vacuous,
        "constants": plan.derived,
        "measured": audit.measured,
        "consistent": audit.consistent,
        "verified": accepted,
        "steps": plan.method.steps,
        "preprocessing": plan.preprocessing.describe(),
        "seconds": {"plan": planned - started, "all": time.perf_counter() - started},
    }


def main() -> None:
    """Run every target over the seeds and write the raw numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "families_seeds_scalar.json"
    )
    arguments = parser.parse_args()
    results = []
    for target in TARGETS:
        preprocessing = pc.plan(target["data"], family=target["family"], **target["settings"]).preprocessing
        rows = [one(target, seed, preprocessing) for seed in range(arguments.seeds)]
        worst, kept = (
            max(row["bound"] for row in rows),
            sum(row["consistent"] and row["verified"] for row in rows),
        )
        most = max(row["measured"]["value"] for row in rows)
        print(
            f"{target['data']:16} {target['family']:17} {rows[0]['quantity']:14} promised <= {worst:.5g} measured <= {most:.5g} "
            f"baseline {rows[0]['baseline']} kept {kept}/{len(rows)} slowest {max(r['seconds']['all'] for r in rows):.1f} s",
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
