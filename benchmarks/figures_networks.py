"""Pictures of the documentation pages of F2, F4, F6 and U, each from plans and runs made here (about two minutes).

    python benchmarks/figures_networks.py [--only leaky-relu-noise]

Writes docs/images/{leaky-relu-noise,two-layer-ntk,three-layer,tangent-run}.svg.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import proxyconvex as pc
from drawing import BLUE, GREEN, IMAGES, ORANGE, VIOLET, Axis, Curve, chart
from proxyconvex.families.three_layer import teacher


def promised_and_reached(steps: list[int], outcome: Callable[[Any], float], **settings: Any) -> str:
    """The promised error and the outcome against the number of steps, planned and run afresh for each."""
    promises, outcomes = [], []
    for count in steps:
        plan = pc.plan("breast-cancer", steps=count, **settings)
        promises.append(plan.guarantee.error_bound)
        outcomes.append(outcome(pc.run(plan)))
    x = np.array(steps, float)
    curves = (
        Curve("promised before training", x, np.array(promises), ORANGE),
        Curve("reached", x, np.array(outcomes), GREEN),
    )
    return chart(
        curves,
        Axis(x[0], x[-1], True),
        Axis(1e-3 if settings["family"] == "two-layer-ntk" else 1e-4, 1.0, True, True),
        "steps T",
        180,
    )


def leaky_relu_noise() -> str:
    """Average error of SGD on breast cancer, in expectation and on one run."""
    steps = [int(s) for s in np.geomspace(1e3, 1e6, 10)]
    settings = {"family": "leaky-relu-noise", "width": 64, "slope": 0.5, "method": "sgd"}
    return promised_and_reached(steps, lambda trace: trace.online_error, **settings)


def two_layer_ntk() -> str:
    """Error of the best iterate on breast cancer."""
    steps = [30, 50, 70, 100, 140, 200, 230, 260, 290, 350, 500]
    return promised_and_reached(
        steps, lambda trace: float(trace.min_error), family="two-layer-ntk", width=1024
    )


def three_layer() -> str:
    """A network learns a teacher of the concept class: loss and comparator loss along the run, against the promise."""
    x = np.random.default_rng(0).standard_normal((200, 5))
    y, opt = teacher("sine-of-squares", x, noise=0.05)
    plan = pc.plan(pc.Dataset("teacher", x, y, task="regression"), family="three-layer", opt=opt)
    trace = pc.run(plan)
    step = np.maximum(trace.step.astype(float), 1.0)
    ends = np.array([1.0, step[-1]])
    curves = (
        Curve("loss f(w)", step, trace.loss, GREEN),
        Curve("loss of V in the tangent model at w", step, trace.h, BLUE),
        Curve("promised for the last iterate", ends, np.full(2, plan.guarantee.bound), ORANGE, "6 4"),
        Curve("OPT: loss of the teacher", ends, np.full(2, opt), VIOLET, "2 4"),
    )
    return chart(curves, Axis(1.0, step[-1], True), Axis(0.0, 1.05 * float(trace.loss.max())), "step", 240)


def tangent_run() -> str:
    """Proxy PL and tangent margins along one run of a deep network."""
    plan = pc.plan("digits:0,1", family="deep-relu", method="gd-slope", steps=400)
    trace = pc.run(plan)
    step, seen = trace.step.astype(float), trace.watched
    ratio = np.sqrt(trace.grad_sq) / trace.slope
    gamma = np.full(2, plan.derived["gamma"])
    curves = (
        Curve("‖grad f‖ / mean|loss'|, every step", step, ratio, BLUE),
        Curve("tangent margin, all hidden layers", seen["step"], seen["margin_all"], GREEN),
        Curve("tangent margin, last hidden layer", seen["step"], seen["margin_last"], VIOLET),
        Curve("gamma asked for before training", step[[0, -1]], gamma, ORANGE, "6 4"),
    )
    return chart(curves, Axis(0.0, step[-1]), Axis(0.0, 1.15 * float(ratio.max())), "step")


PICTURES = {
    "leaky-relu-noise": leaky_relu_noise,
    "two-layer-ntk": two_layer_ntk,
    "three-layer": three_layer,
    "tangent-run": tangent_run,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", choices=("", *PICTURES))
    only = parser.parse_args().only
    for name, draw in PICTURES.items():
        if only in ("", name):
            path = IMAGES / f"{name}.svg"
            path.write_text(draw(), encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
