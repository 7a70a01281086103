"""What watching costs inside the jitted step, in paired rounds; raw numbers to results/monitor_jax.json.

    python benchmarks/monitor_jax.py            # about six minutes
    python benchmarks/monitor_jax.py --rounds 5

A 784-256-10 ReLU network, batch 128, in Optax with donated arguments, the loop in Python, the loss returned. Every loop is one long run, gone on with block by block;
all blocks begin and end with parameters and state ready. A pair is four blocks next to each other, plain - watched - watched - plain, and its ratio that of the sums, so that what drifts
slowly hits both alike; the pairs of a round come in changing order. Printed are medians of the ratios of a kind over the rounds with a 95% interval (between order statistics). "plain again" is
the plain loop in the place of a watched one: how far its ratio is from 1, and how wide its interval, is the noise. A watched block holds whole periods of the schedule and ends
with a flush of its rows to the ledger and the log (with the default buffer there is one in 512 steps). Compiling and opening the log come before the first round. "decided in the step" does
not use what `Monitor.after_step` returns, as inside `jax.lax.scan`. Processor time of all threads is taken as well: on a machine shared with others it moves less than the clock.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import binom

from environment import environment
from proxyconvex.jax import Monitor
from proxyconvex.monitor.jax_monitor import EVERY

RESULTS = Path(__file__).parent / "results" / "monitor_jax.json"
SIZES, BATCH, STEPS = (784, 256, 10), 128, 500


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


class Loop:
    """One run, gone on with block by block.

    Args:
        optimizer: an Optax transformation.
        monitor: None for the plain loop.
        inside: do not use what `Monitor.after_step` returns.
    """

    def __init__(self, optimizer: Any, monitor: Monitor | None = None, inside: bool = False) -> None:
        params, x, y = setup()
        watched = optimizer if monitor is None else monitor.wrap(optimizer)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(w: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
            f, g = jax.value_and_grad(loss)(w, x, y)
            updates, state = watched.update(g, state, w, **({} if monitor is None else {"value": f}))
            return optax.apply_updates(w, updates), state, f

        self.step, self.monitor, self.inside, self.batch = step, monitor, inside, (x, y)
        self.at = params, watched.init(params)
        self.block()

    def block(self) -> tuple[float, float]:
        """Seconds and processor seconds a step, over `STEPS` steps; a watched one flushes in its last (its buffer is twice as long)."""
        (w, state), m, inside = self.at, self.monitor, self.inside
        jax.block_until_ready((w, state))
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            w, state, _ = self.step(w, state, *self.batch)
            if m is not None:
                following = m.after_step(state)
                state = state if inside else following
        jax.block_until_ready((w, state))
        taken = (time.perf_counter() - clock) / STEPS, (time.process_time() - processor) / STEPS
        self.at = w, state
        return taken


def pair(plain: Loop, other: Loop) -> np.ndarray:
    """Seconds and processor seconds a step of both, from the blocks plain - other - other - plain; shape [2, 2]."""
    times = np.array([loop.block() for loop in (plain, other, other, plain)])
    return np.array([times[[0, 3]].mean(0), times[[1, 2]].mean(0)])


def median(ratios: np.ndarray) -> dict[str, Any]:
    """Median, quartiles and a 95% interval for the median: order statistics that miss it on either side with at most 2.5% (from six on)."""
    n, low = len(ratios), int(binom.ppf(0.025, len(ratios), 0.5))
    x = np.sort(ratios)
    inside = [float(x[max(low - 1, 0)]), float(x[min(n - low, n - 1)])]
    return {
        "median": float(np.median(x)),
        "interval": inside,
        "quartiles": np.quantile(x, [0.25, 0.75]).tolist(),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=13)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp()

    def watch(**how: Any) -> Monitor:
        return Monitor(log_dir=tempfile.mkdtemp(dir=folder), learning_rate=0.05, buffer=2 * STEPS, **how)

    plain: dict[str, Loop] = {}
    loops: dict[str, Loop] = {}
    for name, make in (("sgd", lambda: optax.sgd(0.05)), ("adam", lambda: optax.adam(1e-3))):
        plain[name] = Loop(make())
        loops[f"{name}, plain again"] = Loop(make())
        loops[f"{name}, light"] = Loop(make(), watch(preset="light"))
        loops[f"{name}, light, not bitwise"] = Loop(make(), watch(preset="light", bitwise=False))
        loops[f"{name}, light, decided in the step"] = Loop(make(), watch(preset="light"), inside=True)
        loops[f"{name}, full (every step)"] = Loop(make(), watch(preset="full"))
    times: dict[str, list[np.ndarray]] = {name: [] for name in loops}
    order = np.random.default_rng(0)
    for _ in range(arguments.rounds):
        for name in map(str, order.permutation(list(loops))):
            times[name].append(pair(plain[name.split(",")[0]], loops[name]))
    table = {}
    for name, found in times.items():
        ratios = np.array(found)[:, 1] / np.array(found)[:, 0]
        table[name] = {"wall": median(ratios[:, 0]), "processor": median(ratios[:, 1])}
        said = (
            f"{what} {m['median']:.3f} ({m['interval'][0]:.3f}-{m['interval'][1]:.3f})"
            for what, m in table[name].items()
        )
        print(f"{name:36}", *said, sep="  ")
    result = {
        "what": f"light: every {EVERY['light']} steps; {'-'.join(map(str, SIZES))} network, batch {BATCH}, {STEPS} steps a block, {arguments.rounds} rounds",
        "environment": environment(),
        "load_average": os.getloadavg(),
        "ratios": table,
        "seconds_per_step": {n: [t[:, 0].tolist() for t in ts] for n, ts in times.items()},
        "processor_seconds_per_step": {n: [t[:, 1].tolist() for t in ts] for n, ts in times.items()},
        "pairs": "[plain, watched] of each round",
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
