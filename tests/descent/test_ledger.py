"""T7 holds on every genuine trace and fails on a damaged one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toy_problems import neuron, two_layer

from proxyconvex.core.evidence import Evidence, Status
from proxyconvex.core.methods import SGD, BallProjection, ConstantStep, GradientDescent, NormalisedStep
from proxyconvex.descent.ledger import average_slack, ledger_sides, trace_identity
from proxyconvex.descent.run import train

RUNS = {
    "sgd-1e5": (neuron, SGD(ConstantStep(0.1), 100_000)),
    "gd": (two_layer, GradientDescent(ConstantStep(0.2), 3000)),
    "normalised": (two_layer, GradientDescent(NormalisedStep(0.2, 0.001), 3000)),
    "relu-batch": (lambda: two_layer("relu"), SGD(ConstantStep(0.5), 20_000, batch_size=3)),
}


@pytest.mark.parametrize(("make", "method"), RUNS.values(), ids=RUNS.keys())
def test_holds_to_rounding(make, method):
    problem, w0 = make()
    trace = train(problem, w0, method)
    verdict = trace_identity(trace)
    assert verdict.status is Status.HOLDS, verdict.sentence
    assert verdict.evidence is Evidence.ON_TRACE
    left, right, _ = ledger_sides(trace)
    scale = trace.sum_abs + trace.max_dist_sq
    assert np.abs(left - right).max() < 1e-11 * scale


def _column(name, k, factor):
    def damage(trace):
        values = getattr(trace, name).copy()
        values[k] *= factor
        return dataclasses.replace(trace, **{name: values})

    return damage


def _sum(name, factor):
    def damage(trace):
        return dataclasses.replace(trace, sums=trace.sums | {name: trace.sums[name] * factor})

    return damage


DAMAGE = {
    "one distance": _column("dist_sq", 37, 1 + 1e-6),
    "the first distance": _column("dist_sq", 0, 1 + 1e-6),
    "the last distance": _column("dist_sq", -1, 1 + 1e-6),
    "one inner product": _column("inner", 50, 1 + 1e-6),
    "one gradient norm": _column("grad_sq", 50, 1 + 1e-6),
    "one step size": _column("eta", 20, 1 + 1e-6),
    "one loss": _column("loss", 20, 1 + 1e-6),
    "the sum of inner products": _sum("sum_eta_inner", 1 + 1e-6),
    "the sum of squares": _sum("sum_eta2_grad_sq", 1 + 1e-6),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_trace_is_caught(damage):
    problem, w0 = two_layer()
    trace = train(problem, w0, GradientDescent(ConstantStep(0.5), 100))
    assert trace_identity(trace).status is Status.HOLDS
    verdict = trace_identity(damage(trace))
    assert verdict.status is Status.FALSIFIED
    assert "not the record of such a run" in verdict.sentence


def test_a_run_with_another_step_size_is_caught():
    problem, w0 = neuron()
    trace = train(problem, w0, SGD(ConstantStep(0.1), 5000))
    scaled = {
        k: v * {"sum_eta_inner": 1.01, "sum_eta2_grad_sq": 1.01**2}.get(k, 1) for k, v in trace.sums.items()
    }
    assert trace_identity(dataclasses.replace(trace, sums=scaled)).status is Status.FALSIFIED


def test_says_nothing_under_projection_or_overflow():
    problem, w0 = neuron()
    trace = train(problem, w0, GradientDescent(ConstantStep(0.1), 50, BallProjection(0.5)))
    assert trace_identity(trace).status is Status.INVALID_INPUT
    trace = train(problem, w0, GradientDescent(ConstantStep(0.1), 50))
    assert trace_identity(dataclasses.replace(trace, finite=False)).status is Status.INVALID_INPUT


def test_the_a_posteriori_slack_is_the_weighted_mean_of_the_premise_slack():
    problem, w0 = neuron()
    trace = train(problem, w0, SGD(ConstantStep(0.1), 500), online=True)
    o = trace.online
    slack = np.average(o["inner"] - o["g"] + o["h"], weights=o["eta"])
    assert average_slack(trace) == pytest.approx(slack, rel=1e-9)


def test_agrees_with_the_pure_formula_of_the_core():
    core = pytest.importorskip("proxyconvex.core.trace_identity")
    problem, w0 = two_layer()
    trace = train(problem, w0, SGD(ConstantStep(0.2), 1000))
    sides = trace.sum_eta_inner, trace.dist_sq[0], trace.dist_sq[-1], trace.sum_eta2_grad_sq
    verdict = core.trace_identity(*sides, trace.sum_abs)
    assert verdict.status is trace_identity(trace).status is Status.HOLDS
