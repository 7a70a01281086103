"""Bounds on balls of weights: seconds and tightness; raw numbers to results/weight_space.json.

    python benchmarks/weight_space.py

* joint: the joint flip bound at n = 1000, m = 4096, d = 64, the optimisation of nu included, against row by row;
* attacks: certified bounds beside what a projected gradient attack reaches;
* layers: the Hessian bound of a deep net on a ball, width by width, and the largest radius with certified tangent margins.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import proxyconvex as pc
from environment import environment
from proxyconvex.checks.weights import attack as weight_attack
from proxyconvex_checker.weights import point as weight_point

ROUNDS = 7


def rows(n: int, d: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit rows labelled by a random direction, which is returned too."""
    x, u = rng.standard_normal((n, d)), rng.standard_normal(d)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, np.sign(x @ u), u


def joint(activation: pc.Activation, n: int = 1000, m: int = 4096, d: int = 64) -> dict[str, Any]:
    """Seconds of the whole call, and how much tighter than row by row, at several radii."""
    rng = np.random.default_rng(0)
    x, y, _ = rows(n, d, rng)
    half = rng.standard_normal((m // 2, d))
    v = np.concatenate([half, half])
    out = []
    for radius in (0.5, 2.0, 8.0, 32.0):
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            bound = pc.joint_flip_bound(v, activation, x, y, radius)
            seconds.append(time.perf_counter() - started)
        out.append(
            {
                "radius": radius,
                "seconds": seconds,
                "median": statistics.median(seconds),
                "joint": bound.value,
                "row_by_row": bound.row_by_row,
                "gain": bound.gain,
                "nu": bound.nu,
            }
        )
    return {"activation": activation.name, "n": n, "m": m, "d": d, "results": out}


def attacks() -> list[dict[str, Any]]:
    """Certified, reached and central values for every claim that can be attacked."""
    rng = np.random.default_rng(0)
    x, y, u = rows(50, 8, rng)
    half = rng.standard_normal((64, 8))
    v = np.concatenate([half + 0.5 * u, half - 0.5 * u])
    out = []
    for activation in (pc.Activation("relu"), pc.Activation("softplus", 0.0, 2.0)):
        space = pc.WeightSpace(pc.TwoLayerNetwork(activation), pc.Ball(v, 0.5), x, y)
        for quantity in weight_attack.ATTACKED:
            bound = space.bound(quantity)
            found = weight_attack.attack(space.subject, quantity, bound, effort=200)
            center = weight_point.value(space.subject, quantity, space.subject.weights)[0]
            out.append(
                {
                    "activation": activation.name,
                    "quantity": quantity,
                    "certified": bound,
                    "reached": found.value,
                    "center": center,
                    "reached_share": (found.value - center) / (bound - center),
                }
            )
    return out


def layers(depth: int = 3) -> list[dict[str, Any]]:
    """A random dense softplus net on 20 unit rows, hidden layers trained, N(0, 1) entries with factors 1 / sqrt(width)."""
    out = []
    for width in (64, 256, 1024):
        rng = np.random.default_rng(1)
        x, _, _ = rows(20, 8, rng)
        sizes = [8, *[width] * (depth - 1), 1]
        w = [rng.standard_normal((b, a)) for a, b in itertools.pairwise(sizes)]
        scales = (1.0, *[1 / np.sqrt(width)] * (depth - 1))
        started = time.perf_counter()
        net = pc.Layers(w, pc.Activation("softplus"), x, scales, (True,) * (depth - 1) + (False,))
        first = time.perf_counter() - started
        started = time.perf_counter()
        bounds = net.bounds(1.0)
        second = time.perf_counter() - started
        y = np.sign(net.center.low)
        out.append(
            {
                "depth": depth,
                "width": width,
                "seconds_center": first,
                "seconds_ball": second,
                "hessian_on_unit_ball": float(bounds.hessian.max()),
                "hessian_at_center": float(net.bounds(0.0).hessian.max()),
                "largest_radius": net.largest_radius(y),
            }
        )
    return out


def main() -> None:
    """Run everything and write the raw numbers."""
    result = {
        "environment": environment(),
        "joint": [joint(pc.Activation("relu")), joint(pc.Activation("leaky-relu", 0.3))],
        "attacks": attacks(),
        "layers": layers(),
    }
    path = Path(__file__).parent / "results" / "weight_space.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for case in result["joint"]:
        for r in case["results"]:
            print(
                f"{case['activation']:<12} radius {r['radius']:<5} {r['median']:.2f} s, {r['gain']:.1f} times tighter than row by row"
            )
    for r in result["attacks"]:
        print(
            f"{r['activation']:<10} {r['quantity']:<16} certified {r['certified']:.5f}, reached {r['reached']:.5f}, centre {r['center']:.5f}"
        )
    for r in result["layers"]:
        print(
            f"depth {r['depth']} width {r['width']:<5} Hessian {r['hessian_on_unit_ball']:.4f} on the unit ball, largest radius "
            f"{r['largest_radius']:.3f}, {r['seconds_center']:.2f} s + {r['seconds_ball']:.3f} s"
        )


if __name__ == "__main__":
    main()
