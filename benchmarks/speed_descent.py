"""Speed of the recorded descent, in paired runs; raw numbers to results/speed.json.

    python benchmarks/speed_descent.py            # about two minutes
    python benchmarks/speed_descent.py --quick    # three rounds, for a look

Ratios are medians over rounds of (time of the competitor) / (our time), or the reverse for overheads; the two times
of a round are taken one after the other on the same machine. Compilation is not in the paired times and is reported
on its own (`first_call_seconds`).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from environment import environment
from proxyconvex.core.methods import SGD, ConstantStep, GradientDescent, NormalisedStep
from proxyconvex.descent.compilation import one_function
from proxyconvex.descent.run import train
from proxyconvex.families.activations import Activation
from speed_problems import (
    FastTwoLayer,
    TwoLayer,
    neuron,
    paired,
    seconds,
    torch_neuron,
    torch_two_layer,
    two_layer,
    untraced,
)

RESULTS = Path(__file__).parent / "results" / "speed.json"
# Steps per call of the untraced loops: more do not make them faster.
CHUNK = 8192


def ratio(times: dict[str, list[float]], above: str, below: str, scale: float = 1.0) -> dict[str, float]:
    """Median, least and largest ratio of paired times."""
    r = scale * np.array(times[above]) / np.array(times[below])
    return {"median": float(np.median(r)), "min": float(r.min()), "max": float(r.max())}


def neuron_sgd(rounds: int) -> dict[str, Any]:
    """(a) Batch 1, 1e5 steps, six scalars in every step; PyTorch runs 5e3 steps and is scaled up."""
    steps, torch_steps, eta, out = 100_000, 5_000, 0.1, {}
    for d in (16, 64, 256):
        problem, w = neuron(500, d)
        ours = functools.partial(
            train, problem, w, SGD(ConstantStep(eta), steps), record_every=steps, online=True
        )
        first = seconds(ours)
        times = paired({"ours": ours, "torch": torch_neuron(problem, w, eta, torch_steps)}, rounds)
        out[f"d={d}"] = {
            "first_call_seconds": first, "seconds": times, "torch_steps": torch_steps, "our_steps": steps,
            "speedup": ratio(times, "torch", "ours", steps / torch_steps),
        }  # fmt: skip
    return {"target": "speedup >= 100", "cases": out}


def two_layer_sgd(rounds: int) -> dict[str, Any]:
    """(b) m=512, d=64, batch 32, softplus, float64, six scalars in every step."""
    steps, eta, out = 3000, 0.1, {}
    for name, cls in (("autodiff", TwoLayer), ("hand-written", FastTwoLayer)):
        problem, w = two_layer(cls, 2000, 64, 512, Activation("softplus"))
        ours = functools.partial(
            train, problem, w, SGD(ConstantStep(eta), steps, 32), record_every=steps, online=True
        )
        first = seconds(ours)
        times = paired({"ours": ours, "torch": torch_two_layer(problem, w, eta, steps, 32)}, rounds)
        out[f"gradient: {name}"] = {
            "first_call_seconds": first, "seconds": times, "steps": steps, "speedup": ratio(times, "torch", "ours"),
        }  # fmt: skip
    return {"target": "speedup >= 3 (hand-written is what the families use)", "cases": out}


def recording(rounds: int) -> dict[str, Any]:
    """(c) Every step recorded, against the same JAX training with nothing recorded."""
    eta, out = 0.1, {}
    cases: list[tuple[str, Any, int, int]] = [
        (f"neuron d={d}, batch 1", lambda cls, d=d: neuron(500, d), 100_000, 1) for d in (64, 256)
    ]
    for m, b, steps in ((64, 1, 20_000), (512, 32, 3000)):
        make = lambda cls, m=m: two_layer(cls, 2000, 64, m, Activation("softplus"))  # noqa: E731
        cases.append((f"two-layer m={m} d=64, batch {b}", make, steps, b))
    for name, make, steps, b in cases:
        problem, w = make(FastTwoLayer)
        plain, _ = make(TwoLayer)
        ours = functools.partial(
            train, problem, w, SGD(ConstantStep(eta), steps, b), record_every=steps, online=True
        )
        runs = {"recorded": ours, "untraced": untraced(problem, w, eta, steps, b, CHUNK)}
        if isinstance(problem, FastTwoLayer):
            runs["untraced autodiff"] = untraced(plain, w, eta, steps, b, CHUNK)
        else:
            # Ours is compiled so; few would think of it, so it is not the loop of the target.
            runs["untraced as one function"] = untraced(problem, w, eta, steps, b, CHUNK, one_function)
        times = paired(runs, rounds)
        out[name] = {"seconds": times, "steps": steps}
        out[name] |= {f"overhead against {k}": ratio(times, "recorded", k) for k in runs if k != "recorded"}
    return {"target": "overhead <= 1.3", "cases": out}


def full_batch(rounds: int) -> dict[str, Any]:
    """(d) A recorded normalised step at m=1024, n=360, d=65 against its two matrix products alone."""
    steps, out = 100, {}
    for activation in (Activation("softplus", beta=0.25), Activation("smooth-leaky", slope=0.1)):
        problem, w = two_layer(FastTwoLayer, 360, 65, 1024, activation)
        ours = functools.partial(train, problem, w, GradientDescent(NormalisedStep(0.1, 1e-3), steps))
        with jax.enable_x64(True):
            x, weights = jnp.asarray(problem.features), jnp.asarray(w)
            row_major, neuron_major = (
                jnp.asarray(np.random.default_rng(0).normal(size=s)) for s in ((360, 1024), (1024, 360))
            )
            # X W^T and G^T X in the two layouts; each product is its own compiled call, so XLA cannot drop one.
            row = jax.jit(lambda x, w: x @ w.T), jax.jit(lambda g, x: g.T @ x)
            col = jax.jit(lambda x, w: w @ x.T), jax.jit(lambda g, x: g @ x)

        def products(pair: Any, g: Any, x: Any = x, weights: Any = weights) -> None:
            with jax.enable_x64(True):
                for _ in range(steps):
                    jax.block_until_ready((pair[0](x, weights), pair[1](g, x)))

        times = paired(
            {
                "step": ours,
                "X W^T, G^T X": functools.partial(products, row, row_major),
                "W X^T, G X": functools.partial(products, col, neuron_major),
            },
            rounds,
        )
        out[f"{activation.name}"] = {
            "seconds": times, "steps": steps,
            "against X W^T and G^T X": ratio(times, "step", "X W^T, G^T X"),
            "against the same products stored neuron by neuron (the faster layout)": ratio(times, "step", "W X^T, G X"),
        }  # fmt: skip
    return {"target": "ratio <= 1.5", "cases": out}


def main() -> None:
    """Run all four and write the raw numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine")
    rounds = 3 if parser.parse_args().quick else 9
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    document = {"environment": environment(), "load_before": os.getloadavg(), "rounds": rounds}
    for name, run in (
        ("neuron_sgd_against_torch", neuron_sgd), ("two_layer_sgd_against_torch", two_layer_sgd),
        ("recording_overhead", recording), ("full_batch_step", full_batch),
    ):  # fmt: skip
        document[name] = run(rounds)
        print(f"{name} ({document[name]['target']})")
        for case, numbers in document[name]["cases"].items():
            for key, value in numbers.items():
                if isinstance(value, dict) and "median" in value:
                    print(
                        f"  {case}: {key}: {value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})"
                    )
    document["load_after"] = os.getloadavg()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
