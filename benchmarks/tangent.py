"""Tangent kernels: layer by layer against whole Jacobians, on one dense network; raw numbers to results/tangent.json.

python benchmarks/tangent.py            # n = 500, width 512, 3 hidden layers; and layer by layer at n = 2000
python benchmarks/tangent.py --large    # only any-model blocks at n = 2000 and a million parameters, added to the file

The second is a process of its own (some minutes on two cores), so that its peak memory is that of the blocks alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from environment import environment
from proxyconvex.families.activations import Activation
from proxyconvex.families.dense import DenseNetwork, jax_outputs
from proxyconvex.families.tangent_kernels import MEMORY, block_sizes, blockwise, layerwise

OUT = Path(__file__).parent / "results" / "tangent.json"
FEATURES = 64


def network(width: int, depth: int) -> DenseNetwork:
    return DenseNetwork((width,) * depth, 1, Activation("relu"))


def data(n: int) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((n, FEATURES))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_jacobian(net: DenseNetwork, x: np.ndarray, rows: int = 50):
    """The yardstick: every gradient as a row of one Jacobian (filled in blocks, compiled), then one product."""
    apply = jax_outputs(net)
    with jax.enable_x64(True):
        gradients = jax.jit(jax.vmap(jax.grad(lambda w, row: apply(w, row[None])[0]), (None, 0)))
        w = jnp.asarray(net.initial(FEATURES))

        def run() -> np.ndarray:
            with jax.enable_x64(True):
                jacobian = np.concatenate(
                    [np.asarray(gradients(w, x[i : i + rows])) for i in range(0, len(x), rows)]
                )
            return jacobian @ jacobian.T

        gradients(w, x[:rows]).block_until_ready()
    return run


def timed(call) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value


def gap(kernel: np.ndarray, yardstick: np.ndarray) -> float:
    """Largest difference of entries, relative to the largest entry."""
    return float(np.abs(kernel - yardstick).max() / np.abs(yardstick).max())


def progress_line(every: float = 10.0):
    """A `progress` for `blockwise` that prints share, rate and time left every so many seconds."""
    started = last = time.perf_counter()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= every or done == total:
            last, rate = now, done / (now - started)
            print(
                f"{done / total:6.1%} of the matrix, {rate:,.0f} entries/s, {(total - done) / rate:,.0f} s left",
                flush=True,
            )

    return report


def small(pairs_wanted: int) -> dict[str, Any]:
    """Layer by layer against Jacobians, in alternation."""
    net, x = network(512, 3), data(500)
    w = net.initial(FEATURES)
    full = by_jacobian(net, x)
    any_model = jax_outputs(net)
    pairs = []
    for _ in range(pairs_wanted):
        fast, kernel = timed(lambda: layerwise(net.features(w, x)))
        slow, yardstick = timed(full)
        between, blocks = timed(lambda: blockwise(any_model, w, x))
        pairs.append({
            "layerwise": fast, "jacobian": slow, "blockwise": between,
            "ratio": slow / fast, "ratio_to_blockwise": between / fast,
            "relative_difference": gap(kernel, yardstick), "relative_difference_blockwise": gap(kernel, blocks),
        })  # fmt: skip
        print(pairs[-1], flush=True)
    result = {
        "n": 500, "width": 512, "hidden_layers": 3, "parameters": net.size(FEATURES), "pairs": pairs,
        "median_ratio": statistics.median(p["ratio"] for p in pairs),
        "median_ratio_to_blockwise": statistics.median(p["ratio_to_blockwise"] for p in pairs),
    }  # fmt: skip
    wide, rows = network(690, 3), data(2000)
    seconds, _ = timed(lambda: layerwise(wide.features(wide.initial(FEATURES), rows)))
    return {
        "environment": environment(),
        "kernel": result,
        "layerwise_2000": {"n": 2000, "parameters": wide.size(FEATURES), "seconds": seconds},
        "peak_memory_mb": peak_memory_mb(),
    }


def large(memory_mb: int) -> dict[str, Any]:
    """Blocks of Jacobian rows at n = 2000 and a million parameters, compared with the layers at the end."""
    net, rows = network(690, 3), data(2000)
    w = net.initial(FEATURES)
    memory = memory_mb * 2**20
    used = time.process_time()
    seconds, kernel = timed(
        lambda: blockwise(jax_outputs(net), w, rows, memory=memory, progress=progress_line())
    )
    used, peak = time.process_time() - used, peak_memory_mb()
    yardstick = layerwise(net.features(w, rows))
    return {
        "environment": environment(),
        "n": 2000,
        "parameters": net.size(FEATURES),
        "memory_for_blocks_mb": memory_mb,
        "rows_kept_and_passing": block_sizes(len(rows), net.size(FEATURES), memory),
        "seconds": seconds,
        "processor_seconds": used,
        "peak_memory_mb": peak,
        "whole_jacobian_mb": 8 * 2000 * net.size(FEATURES) / 2**20,
        "relative_difference": gap(kernel, yardstick),
    }


def peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument(
        "--memory-mb", type=int, default=MEMORY // 2**20, help="with --large: memory for Jacobian rows"
    )
    arguments = parser.parse_args()
    document = json.loads(OUT.read_text()) if OUT.exists() else {}
    document |= {"blockwise_2000": large(arguments.memory_mb)} if arguments.large else small(arguments.pairs)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({k: v for k, v in document.items() if k != "environment"}, indent=1))


if __name__ == "__main__":
    main()
