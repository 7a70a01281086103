"""What watching costs inside the jitted step, in paired rounds; raw numbers to results/monitor_jax.json.

    python benchmarks/monitor_jax.py            # about three minutes
    python benchmarks/monitor_jax.py --rounds 5

A 784-256-10 ReLU network, batch 128, in Optax with donated arguments, the loop in Python, the loss returned. Each round times the plain step and every watched one after
the other, in changing order; ratios are medians over rounds of (watched) / (plain) in the same round. The watched loops flush to the host as
`Monitor.after_step` does, so that the ledger's and the log's work is included. Processor time is taken as well: on a machine shared with others it moves less
than the clock.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from environment import environment
from proxyconvex.jax import Monitor

RESULTS = Path(__file__).parent / "results" / "monitor_jax.json"
SIZES, BATCH, STEPS = (784, 256, 10), 128, 200


def setup() -> tuple[Any, jax.Array, jax.Array]:
    """Parameters and one batch."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = [
        (jax.random.normal(k, (a, b)) / a**0.5, jnp.zeros(b))
        for k, a, b in zip(keys, SIZES, SIZES[1:], strict=False)
    ]
    return (
        params,
        jax.random.normal(keys[2], (BATCH, SIZES[0])),
        jax.random.randint(keys[3], (BATCH,), 0, SIZES[-1]),
    )


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """Cross-entropy of the network."""
    (a, b), (c, d) = params
    logits = jax.nn.relu(x @ a + b) @ c + d
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def loop(optimizer: Any, monitor: Callable[[], Monitor] | None) -> Callable[[], tuple[float, float]]:
    """A function that runs the steps and returns seconds and processor seconds a step."""
    params, x, y = setup()
    first = None if monitor is None else monitor()
    watched = optimizer if first is None else first.wrap(optimizer)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        f, g = jax.value_and_grad(loss)(w, x, y)
        updates, state = watched.update(g, state, w, **({} if first is None else {"value": f}))
        return optax.apply_updates(w, updates), state, f

    def run() -> tuple[float, float]:
        m = None if monitor is None else monitor()
        w = jax.tree.map(jnp.copy, params)
        state = watched.init(w)
        jax.block_until_ready(state)
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            w, state, _ = step(w, state, x, y)
            if m is not None:
                state = m.after_step(state)
        if m is not None:
            m.flush(state)
        jax.block_until_ready(w)
        taken = (time.perf_counter() - clock) / STEPS, (time.process_time() - processor) / STEPS
        if m is not None:
            m.close()
        return taken

    run()
    return run


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    folder = tempfile.mkdtemp()
    watch = lambda **how: lambda: Monitor(log_dir=tempfile.mkdtemp(dir=folder), learning_rate=0.05, **how)  # noqa: E731
    loops: dict[str, Callable[[], tuple[float, float]]] = {
        "sgd": loop(optax.sgd(0.05), None),
        "sgd, light (every 20 steps)": loop(optax.sgd(0.05), watch(preset="light")),
        "sgd, light, not bitwise": loop(optax.sgd(0.05), watch(preset="light", bitwise=False)),
        "sgd, full (every step)": loop(optax.sgd(0.05), watch(preset="full")),
        "adam": loop(optax.adam(1e-3), None),
        "adam, light (every 20 steps)": loop(optax.adam(1e-3), watch(preset="light")),
        "adam, light, not bitwise": loop(optax.adam(1e-3), watch(preset="light", bitwise=False)),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(loops)):
            times[str(name)].append(loops[str(name)]())
    table = {}
    for name in loops:
        base = name.split(",")[0]
        if name != base:
            pairs = np.array(times[name]) / np.array(times[base])
            table[name] = {
                "wall": {
                    "median": float(np.median(pairs[:, 0])),
                    "quartiles": np.quantile(pairs[:, 0], [0.25, 0.75]).tolist(),
                },
                "processor": {
                    "median": float(np.median(pairs[:, 1])),
                    "quartiles": np.quantile(pairs[:, 1], [0.25, 0.75]).tolist(),
                },
            }
            print(
                f"{name:32} clock {table[name]['wall']['median']:.3f}  processor {table[name]['processor']['median']:.3f}"
            )
    result = {
        "what": f"{'-'.join(map(str, SIZES))} network, batch {BATCH}, {STEPS} steps a round, {rounds} rounds",
        "environment": environment(),
        "load_average": os.getloadavg(),
        "ratios": table,
        "seconds_per_step": {n: [t[0] for t in ts] for n, ts in times.items()},
        "processor_seconds_per_step": {n: [t[1] for t in ts] for n, ts in times.items()},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
