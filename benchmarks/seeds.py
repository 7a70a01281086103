"""Audits over seeds, resumable: the runner of `families_seeds_scalar` and `families_seeds_dense`.

A run plans, writes and verifies the certificate (where there is one), trains and audits. Every run is written to the JSON
file at once, and one that is there already is skipped, so that an interrupted benchmark continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import proxyconvex as pc
from environment import environment
from proxyconvex.report.certificate import certifiable
from proxyconvex_checker import verify


@dataclass(frozen=True)
class Case:
    """What is repeated over the seeds.

    Attributes:
        family: name of the family.
        data: name of the data set.
        settings: options of `proxyconvex.plan` that differ from the defaults.
        fixed_preprocessing: choose it once, with seed 0 (for families whose planner compares several; it does not depend on the seed).
    """

    family: str
    data: str
    settings: dict[str, Any] = field(default_factory=dict)
    fixed_preprocessing: bool = False

    @property
    def name(self) -> str:
        """Names a case in the file."""
        return f"{self.family} {self.data} {self.settings}"


def one(case: Case, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Plan, certify, train, audit and verify once."""
    started = time.perf_counter()
    plan = pc.plan(case.data, family=case.family, seed=seed, **settings)
    planned, accepted = time.perf_counter(), None
    if certifiable(plan):
        with tempfile.TemporaryDirectory() as folder:
            accepted = verify(pc.write_certificate(plan, folder)).accepted
    audit = pc.audit(plan, pc.run(plan))
    g, after = plan.guarantee, audit.after_run
    return {
        "seed": seed,
        "theorem": g.theorem,
        "quantity": g.quantity,
        "bound": g.bound,
        "error_bound": g.error_bound,
        "baseline": g.baseline,
        "vacuous": g.vacuous,
        "steps": plan.method.steps,
        "constants": plan.derived,
        "measured": audit.measured,
        "consistent": audit.consistent,
        "verified": accepted,
        "after_run": None if after is None else after.evidence.name,
        "violated": [c.name + ": " + c.sentence for c in audit.checks if not c.ok],
        "margins": {c.name: c.margin for c in audit.checks if c.margin is not None},
        "seconds": {"plan": planned - started, "all": time.perf_counter() - started},
    }


def load(out: Path) -> list[dict[str, Any]]:
    """The stored results; those written before cases had names get theirs."""
    stored = json.loads(out.read_text())["results"] if out.exists() else []
    for result in stored:
        result.setdefault("name", Case(result["family"], result["data"], result["settings"]).name)
    return stored


def describe(result: dict[str, Any]) -> str:
    """One line about a case."""
    rows = result["runs"]
    kept = sum(r["consistent"] and r.get("verified") is not False for r in rows)
    empty = sum(r["vacuous"] for r in rows)
    return (
        f"{result['name']}: nothing violated {kept}/{len(rows)}, vacuous {empty}, worst bound {max(r['bound'] for r in rows):.4g}, "
        f"worst outcome {max(r['measured']['value'] for r in rows):.4g}"
    )


def run(cases: tuple[Case, ...], out: Path, description: str) -> None:
    """Run what is missing of every case, with progress; options ``--seeds``, ``--only``, ``--again`` and ``--out``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="", help="only cases whose name contains this text")
    parser.add_argument("--again", action="store_true", help="repeat runs that are in the file already")
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    stored = load(arguments.out)
    chosen = [case for case in cases if arguments.only in case.name]
    if arguments.again:
        stored = [r for r in stored if r["name"] not in {case.name for case in chosen}]
    by_name = {r["name"]: r for r in stored}
    due = []
    for case in chosen:
        done = {r["seed"] for r in by_name.get(case.name, {"runs": []})["runs"]}
        due += [(case, seed) for seed in range(arguments.seeds) if seed not in done]
    started, fixed = time.perf_counter(), {}
    for k, (case, seed) in enumerate(due):
        if case.name not in by_name:
            by_name[case.name] = {
                "name": case.name, "family": case.family, "data": case.data, "settings": case.settings, "runs": [],
            }  # fmt: skip
            stored.append(by_name[case.name])
        if case.name not in fixed:
            settings = dict(case.settings)
            if case.fixed_preprocessing:
                settings["preprocessing"] = pc.plan(case.data, family=case.family, **settings).preprocessing
            fixed[case.name] = settings
        runs = by_name[case.name]["runs"]
        runs.append(one(case, seed, fixed[case.name]))
        runs.sort(key=lambda r: r["seed"])
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        partial = arguments.out.with_suffix(".partial")
        partial.write_text(json.dumps({"environment": environment(), "results": stored}, indent=1) + "\n")
        partial.replace(arguments.out)
        spent = time.perf_counter() - started
        left = spent / (k + 1) * (len(due) - k - 1)
        print(
            f"[{k + 1}/{len(due)}, {left / 60:.0f} min left] {case.name} seed {seed}: {runs[-1]['seconds']['all']:.1f} s",
            flush=True,
        )
    for case in chosen:
        if case.name in by_name:
            print(describe(by_name[case.name]), flush=True)
