"""Twenty seeds of initial weights for the dense families: is anything violated? Raw numbers to results/families_seeds_dense.json.

python benchmarks/families_seeds_dense.py [--seeds 20] [--first 0] [--only TEXT]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import proxyconvex as pc
from environment import environment

OUT = Path(__file__).parent / "results" / "families_seeds_dense.json"
CASES = (
    ("tangent", "digits:0,1", {}),
    ("tangent", "breast-cancer", {}),
    ("tangent", "diabetes", {}),
    ("deep-relu", "digits:0,1", {}),
    ("deep-relu", "breast-cancer", {}),
    ("deep-relu", "wine", {}),
    ("deep-relu", "digits:0,1", {"method": "gd-slope", "steps": 500}),
    ("three-layer", "breast-cancer", {}),
    ("three-layer", "wine", {}),
    ("three-layer", "diabetes", {}),
)


def one(family: str, data: str, settings: dict, seed: int) -> dict:
    started = time.perf_counter()
    plan = pc.plan(data, family=family, seed=seed, **settings)
    audit = pc.audit(plan, pc.run(plan))
    g, after = plan.guarantee, audit.after_run
    return {
        "seed": seed,
        "theorem": g.theorem,
        "bound": g.bound,
        "error_bound": g.error_bound,
        "vacuous": g.vacuous,
        "steps": plan.method.steps,
        "measured": audit.measured,
        "consistent": audit.consistent,
        "after_run": None if after is None else after.evidence.name,
        "violated": [c.name + ": " + c.sentence for c in audit.checks if not c.ok],
        "margins": {c.name: c.margin for c in audit.checks if c.margin is not None},
        "seconds": round(time.perf_counter() - started, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    stored = json.loads(OUT.read_text())["results"] if OUT.exists() else []
    for family, data, settings in CASES:
        name = f"{family} {data} {settings}"
        if arguments.only not in name:
            continue
        rows = []
        stored = [r for r in stored if r["name"] != name]
        stored.append({"name": name, "family": family, "data": data, "settings": settings, "runs": rows})
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            rows.append(one(family, data, settings, seed))
            # Written after every seed, so that an interrupted benchmark keeps what it has.
            OUT.parent.mkdir(parents=True, exist_ok=True)
            OUT.write_text(json.dumps({"environment": environment(), "results": stored}, indent=1) + "\n")
        kept, empty = sum(r["consistent"] for r in rows), sum(r["vacuous"] for r in rows)
        print(
            f"{name}: nothing violated {kept}/{len(rows)}, vacuous {empty}, worst bound {max(r['bound'] for r in rows):.4g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
