"""Watch a JAX/Optax training loop: a two-layer network on handwritten digits.

    python examples/monitor_jax_optax.py                      # about ten seconds
    python examples/monitor_jax_optax.py --steps 100 --width 16 --out runs/digits-jax

Four lines are the monitor's: making it, wrapping the optimiser, telling it that a step was taken, closing it. The rest is an ordinary loop. The comparator is
where a first, unwatched run from the same start ended. The step also computes the tangent loss at the comparator (one jvp) and gradients of the two
halves of the batch, so that conditions and PL can be judged.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from proxyconvex.jax import Monitor, split_gradients, tangent_loss
from proxyconvex.monitor.proxies import proxies

BATCH = 64
VALUES = ("slope", "error", "tangent_loss", "parts", "parts_total_sq", "parts_sum_sq", "part_size")


def entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def model(w: Any, x: jax.Array) -> jax.Array:
    """A two-layer ReLU network."""
    return jax.nn.relu(x @ w["in"] + w["bias"]) @ w["out"]


def main() -> None:
    """Train, then print what the run has shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--out", default="runs/digits-jax")
    options = parser.parse_args()
    data = load_digits()
    x, y = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    keys = jax.random.split(jax.random.key(0))
    w0 = {
        "in": jax.random.normal(keys[0], (64, options.width)) / 8,
        "bias": jnp.zeros(options.width),
        "out": jax.random.normal(keys[1], (options.width, 10)) / options.width**0.5,
    }

    gradient = jax.jit(jax.grad(lambda w, x, y: entropy(model(w, x), y)))
    v = w0
    for rows in np.random.default_rng(1).integers(0, len(x), (options.steps, BATCH)):
        v = jax.tree.map(lambda w, g: w - 0.2 * g, v, gradient(v, x[rows], y[rows]))

    monitor = Monitor(
        log_dir=options.out, comparators={"first run": v}, learning_rate=0.2, preset="full", loss="cross-entropy", values=VALUES
    )  # fmt: skip
    optimizer = monitor.wrap(optax.sgd(0.2))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(w: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        loss, tangent = tangent_loss(lambda u: model(u, x), lambda z: entropy(z, y), w, v)
        halves = [gradient(w, x[k::2], y[k::2]) for k in range(2)]
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
        values = proxies("cross-entropy", jnp, model(w, x), y) | split_gradients(halves, BATCH // 2)
        values["tangent_loss"] = tangent
        updates, state = optimizer.update(
            mean, state, w, value=loss, monitor_values={k: values[k] for k in VALUES}
        )
        return optax.apply_updates(w, updates), state

    w, state = w0, optimizer.init(w0)
    for rows in np.random.default_rng(0).integers(0, len(x), (options.steps, BATCH)):
        w, state = step(w, state, x[rows], y[rows])
        state = monitor.after_step(state)
    monitor.close(state, w)

    print(monitor.summary())
    print(f"Report: {monitor.report(f'{options.out}/report.html')}")
    print(f"See it again: proxyconvex watch {options.out} --once")


if __name__ == "__main__":
    main()
