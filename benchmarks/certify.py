"""Certification: times of the issue's problems, boxes per second, containment, checker; raw numbers to results/certify.json.

    python benchmarks/certify.py            # everything, about three minutes
    python benchmarks/certify.py --quick    # fewer repetitions

Times are given cold (first call in a fresh process, imports of the package included and not) and warm (median of repeated calls), wall
clock and CPU: on a busy machine the wall clock measures the others too.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import proxyconvex as pc
from environment import environment
from proxyconvex.checks.certify.boxes import CHUNK
from proxyconvex.checks.certify.certify import Problem, certify
from proxyconvex.checks.certify.search import Limits, State, search, serial
from proxyconvex.checks.certify.ways import Way
from proxyconvex.checks.certify.workers import Workers
from proxyconvex_checker import verify


def p1() -> pc.ReducedCondition:
    return pc.ProxyConvexity.pointwise(
        lambda a, b, s: (s(a) - s(b)) * (a - b) - 4 * (s(a) - s(b)) ** 2,
        activation="sigmoid",
        a=(-4, 4),
        b=(-4, 4),
    )


def p2(C: Any = "0.721") -> pc.ReducedCondition:
    return pc.ProxyConvexity.pointwise(
        lambda a, b, y, s, ds, C: (
            (s(a) - y) * ds(a) * (a - b) - (s(a) - s(b)) ** 2 * ds(a) / 2 + C * (s(b) - y) ** 2
        ),
        activation="softplus",
        a=(-3, 3),
        b=(-3, 3),
        y=(0, 3),
        C=C,
    )


def flat(most: float = 2.00001) -> pc.ReducedCondition:
    """Plain enclosures do most of the work; with this constant more boxes than the budget allows, with 2.05 some 2.4 million."""
    return pc.reduced(
        lambda a, b, c, d, s: (
            most - s(a) * s(b) * s(c) - s(a) - s(b) * (1 - s(c)) + (a - b) ** 2 * (c - d) ** 2
        ),
        activation="sigmoid",
        a=(-11, 11),
        b=(-11, 11),
        c=(-11, 11),
        d=(-11, 11),
    )


def steep(most: float = 2.0000001) -> pc.ReducedCondition:
    """Gradients close a third of the boxes; with this constant more than the budget allows, with 2.0001 some 3.4 million."""
    return pc.reduced(
        lambda a, b, c, s: most - s(a) * s(b) * s(c) - s(a) - s(b) * (1 - s(c)) + (a - b) ** 2 * (b - c) ** 2,
        activation="sigmoid",
        a=(-9, 9),
        b=(-9, 9),
        c=(-9, 9),
    )


def moderate() -> pc.ReducedCondition:
    """A few thousand boxes, by subdivision alone."""
    return pc.reduced(
        lambda a, b, c, s: 2.0001 - s(a) * s(b) * s(c) - s(a) - s(b) * (1 - s(c)),
        activation="sigmoid",
        a=(-8, 8),
        b=(-8, 8),
        c=(-8, 8),
    )


def repeated(call: Callable[[], Any], times: int) -> dict[str, float]:
    """Median wall and CPU seconds of several calls, and of the first."""
    wall, cpu = [], []
    for _ in range(times):
        a, b = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
    return {
        "first_wall": wall[0],
        "median_wall": statistics.median(wall[1:] or wall),
        "least_wall": min(wall),
        "median_cpu": statistics.median(cpu[1:] or cpu),
        "repetitions": times,
    }


COLD = """
import time
start = time.perf_counter()
import sys
sys.path.insert(0, {folder!r})
import proxyconvex as pc
import certify as bench
imported = time.perf_counter()
bench.certify(bench.{problem}(), jobs=1)
print(imported - start, time.perf_counter() - imported)
"""


def cold(problem: str, times: int) -> dict[str, float]:
    """Imports and first call in fresh processes."""
    code = COLD.format(folder=str(Path(__file__).parent), problem=problem)
    runs = [
        [
            float(x)
            for x in subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout.split()
        ]
        for _ in range(times)
    ]
    return {
        "imports": statistics.median(r[0] for r in runs),
        "first_call": statistics.median(r[1] for r in runs),
    }


def throughput(times: int) -> dict[str, Any]:
    """Boxes per second: the natural extension with outward rounding alone, and whole searches.

    The box budget of the searches ends them before they are done; `finished` has searches to the end.
    """
    problem = Problem.make(p2(), 0, "own")
    rng = np.random.default_rng(0)
    lo = rng.uniform(-3, 2.9, (CHUNK, 3))
    hi = lo + 0.01
    result: dict[str, Any] = {"chunk": CHUNK}
    for name, way in (("slack", Way()), ("quadratic_form", problem.ways()[0])):
        task = problem.task(way)
        program = task.slack if way.plan is None else task.form
        for workers in (1, 2):
            with ThreadPoolExecutor(workers) as pool:
                best: list[tuple[float, float]] = []
                for _ in range(7):
                    a, b = time.perf_counter(), time.process_time()
                    list(pool.map(lambda _, program=program: program.values(lo, hi), range(40)))
                    n = 40 * CHUNK
                    best.append((n / (time.perf_counter() - a), n / (time.process_time() - b)))
            result[f"{name}_natural_{workers}_threads"] = {
                "boxes_per_second_median": statistics.median(w for w, _ in best),
                "boxes_per_second_best": max(w for w, _ in best),
                "boxes_per_cpu_second_median": statistics.median(c for _, c in best),
            }
    # Mostly plain enclosures, and a problem in which mean-value forms close a third of the boxes.
    for name, condition in (("branch_and_bound", flat()), ("branch_and_bound_gradients", steep())):
        for jobs in (1, 2):
            runs = [whole_search(condition, jobs) for _ in range(times)]
            rates = [run["boxes_per_second"] for run in runs]
            result[name if jobs == 1 else f"{name}_2_processes"] = {
                **runs[0],
                "boxes_per_second": statistics.median(rates),
                "boxes_per_second_least": min(rates),
                "boxes_per_second_best": max(rates),
                "boxes_per_cpu_second_of_this_process": statistics.median(
                    run["boxes_per_cpu_second_of_this_process"] for run in runs
                ),
                "repetitions": times,
            }
    return result


def finished(times: int, folder: Path) -> dict[str, Any]:
    """Whole certifications to the end: the nodes of the finished tree by the time of all of `certify`, other ways tried and code written included.

    Then what follows for others: writing the certificate, for which every leaf is proved again by the checker's arithmetic, and verification.
    """
    results = {}
    for name, condition in (("plain", flat(2.05)), ("gradients", steep(2.0001))):
        seconds = repeated(lambda c=condition: certify(c, seconds=600), times)
        verdict = certify(condition, seconds=600)
        nodes = len(verdict.codes)
        begin = time.perf_counter()
        path = verdict.write(folder / f"{name}.json")
        written = time.perf_counter()
        accepted = verify(path).accepted
        results[name] = {
            **seconds,
            "status": verdict.status.name,
            "boxes_examined_by_the_way_that_closed": verdict.boxes,
            "nodes": nodes,
            "leaves": int((verdict.codes >= 8).sum()),
            "nodes_per_second": nodes / seconds["median_wall"],
            "nodes_per_cpu_second": nodes / seconds["median_cpu"],
            "write_seconds": written - begin,
            "verify_seconds": time.perf_counter() - written,
            "accepted": accepted,
        }
    return results


def whole_search(condition: pc.ReducedCondition, jobs: int, boxes: int = 3_000_000) -> dict[str, Any]:
    """A search by subdivision and gradients that does not end, book-keeping included.

    Boxes are counted when they have been examined: every one by a rigorous lower bound on the slack. With one job the processor time is what can be compared on a busy machine; with two it counts what is not shared out.
    The workers load during a search before the one that is measured.
    """
    problem, workers = Problem.make(condition, 0, "own"), Workers(jobs)
    runner = workers if jobs > 1 else serial
    task = problem.task(Way())
    until = time.perf_counter() + 60
    while jobs > 1 and not (workers.workers and all(w.is_ready() for w in workers.workers)):
        search(task, State.whole(problem.lo, problem.hi), Limits(20, 200_000, runner))
        if time.perf_counter() > until:
            raise RuntimeError("the workers did not start")
    before = os.times()
    started = time.perf_counter()
    state = search(task, State.whole(problem.lo, problem.hi), Limits(60, boxes, runner))
    wall = time.perf_counter() - started
    used = sum(os.times()[:2]) - sum(before[:2])
    workers.close()
    return {
        "jobs": jobs,
        "boxes": state.boxes,
        "open": len(state.open),
        "boxes_per_second": state.boxes / wall,
        "boxes_per_cpu_second_of_this_process": state.boxes / used,
    }


def parameters() -> dict[str, Any]:
    """Conditions on parameters of ``tests/checks/parameter_conditions.py``: translation and proof together, and verification."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "checks"))
    import parameter_conditions as zoo

    results = {}
    for name, (condition, options) in zoo.TRUE.items():
        seconds = repeated(lambda c=condition, o=options: certify(c, seconds=60, **o), 3)
        verdict = certify(condition, seconds=60, **options)
        results[name] = {**seconds, "status": verdict.status.name, "boxes": verdict.boxes}
    return results


def checker(folder: Path) -> dict[str, Any]:
    """Verification time of certificates with many boxes: one by subdivision alone, one with a quadratic form."""
    results = {}
    for name, condition, splits in (("subdivision", moderate(), 17), ("quadratic_form", p2(), 17)):
        verdict = certify(condition, seconds=60)
        codes = (
            refined(verdict.codes, condition.dimension, 2**splits)
            if len(verdict.codes) < 2 * 10**5
            else verdict.codes
        )
        from proxyconvex.checks.certify import document as certify_document

        raw = certify_document.accepted(condition, verdict.way, codes, verdict.delta)
        path = certify_document.write(raw, folder / f"{name}.json")
        a, b = time.perf_counter(), time.process_time()
        accepted = verify(path).accepted
        results[name] = {
            "leaves": raw["tree"]["leaves"],
            "nodes": raw["tree"]["nodes"],
            "bytes": path.stat().st_size,
            "bytes_per_node": len(raw["tree"]["data"]) / raw["tree"]["nodes"],
            "accepted": accepted,
            "wall": time.perf_counter() - a,
            "cpu": time.process_time() - b,
        }
    return results


def refined(codes: np.ndarray, dimension: int, least: int) -> np.ndarray:
    """The same proof on smaller boxes: leaves are bisected, coordinate by coordinate, until there are enough of them."""
    while int((codes >= 8).sum()) < least:
        new, position, width = [], 0, 1
        waiting = np.zeros(1, np.int64)  # 0: from the old tree; else the test of a half
        while width:
            level = np.where(waiting > 0, waiting, 0)
            old = waiting == 0
            level[old] = codes[position : position + int(old.sum())]
            position += int(old.sum())
            leaf_of_old = old & (level >= 8)
            out = np.where(leaf_of_old, len(new) % dimension, level)
            new.append(out.astype(np.uint8))
            children = np.where(leaf_of_old, level, 0)
            split = out < 8
            waiting = np.repeat(children[split], 2)
            width = len(waiting)
        codes = np.concatenate(new)
    return codes


def containment(points: int) -> dict[str, Any]:
    """Enclosures against 300-bit values: how many arguments were outside (none may be)."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "checks"))
    import test_intervals as tests

    outside, tested, started = 0, 0, time.perf_counter()
    for i, name in enumerate(tests.NAMES):
        x = tests.arguments(points // len(tests.NAMES), seed=100 + i)
        lo, hi = tests.bounds("own", name, x)
        good = tests.in_domain(name, x)
        outside += len(tests.outside(name, x[good], lo[good], hi[good]))
        tested += int(good.sum())
    return {"arguments": tested, "outside": outside, "seconds": time.perf_counter() - started}


def main() -> None:
    """Run everything and write the raw numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "certify.json")
    arguments = parser.parse_args()
    times = 5 if arguments.quick else 21
    bracket = pc.tightest(p2(1), "C")
    results = {
        "load_average_at_start": os.getloadavg(),
        "P1": {
            "status": certify(p1()).status.name,
            "warm": repeated(lambda: certify(p1(), jobs=1), times),
            "cold": cold("p1", 3),
        },
        "P2": {
            "status": certify(p2()).status.name,
            "warm": repeated(lambda: certify(p2(), jobs=1), times),
            "cold": cold("p2", 3),
        },
        "P2_tightest": {
            "certified": float(bracket.certified),
            "refuted": float(bracket.refuted),
            "relative_width": bracket.relative_width,
            "warm": repeated(lambda: pc.tightest(p2(1), "C", jobs=1), 3 if arguments.quick else 7),
        },
        "throughput": throughput(3 if arguments.quick else 7),
        "parameters": parameters(),
        "containment": containment(100_000 if arguments.quick else 1_200_000),
    }
    with tempfile.TemporaryDirectory() as folder:
        results["finished"] = finished(2 if arguments.quick else 5, Path(folder))
        results["checker"] = checker(Path(folder))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"environment": environment(), "results": results}, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
