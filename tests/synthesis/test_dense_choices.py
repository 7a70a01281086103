"""What the planners of dense networks choose: rehearsals, architectures, scales, class margins and the search before training."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

import proxyconvex as pc
from proxyconvex.cli_output import print_audit
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.data import Dataset
from proxyconvex.families import class_margin, deep_relu, three_layer
from proxyconvex.families.activations import Activation
from proxyconvex.families.dense import DenseNetwork, jax_outputs
from proxyconvex.families.tangent import Tangent
from proxyconvex.report.certificate import certifiable, no_certificate
from proxyconvex.synthesis.dense import apriori, attempts
from proxyconvex.synthesis.dense.choose import best_promise
from proxyconvex.synthesis.dense.directions import Setting
from proxyconvex.synthesis.dense.rehearsal import approach


def toy(classes=2, n=40, d=4):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((n, d))
    if classes == 2:
        return Dataset("toy", x, np.where(x[:, 0] + 0.3 * x[:, 1] > 0, 1.0, -1.0))
    return Dataset("toy", x, np.argmax(x[:, :classes], axis=1) * 1.0, task="multiclass")


def test_the_rehearsed_approach_is_the_run_of_the_tangent_model():
    data = toy()
    network = deep_relu.network(16, 2, 1, Activation("relu"), 2.0, False, 1)
    setting = Setting(network, "logistic", data.raw, data.targets)
    rng = np.random.default_rng(0)
    unit = rng.standard_normal(setting.start.size)
    unit /= np.linalg.norm(unit)
    c, floor, length = 1e-3, 0.01, 0.7
    seen = approach(setting, c, floor, 30, [setting.push(unit)])
    v, w, y = setting.start + length * unit, setting.start.copy(), data.targets
    first = np.sum((w - v) ** 2)
    for t in range(30):
        q = setting.features.outputs[:, 0] + setting.push(w - setting.start)
        p = 1 / (1 + np.exp(y * q))
        assert seen.errors[t] == np.sum(y * q <= 0)
        grad = setting.direction((-y * p / len(y))[:, None])
        assert seen.steepness[t] == pytest.approx(float(grad @ grad) / p.mean() ** 2)
        w = w - c / max(p.mean(), floor) * grad
        assert seen.fixed[t] - length * seen.pulls[0][t] == pytest.approx(
            np.sum((w - v) ** 2) - first, abs=1e-10
        )


def test_the_rehearsal_promises_no_error_where_the_least_favourable_slopes_do_not():
    made = pc.plan(toy(3), family="tangent", width=128, steps=2500)
    (progress,) = (p for p in made.guarantee.premises if p.name == "progress")
    assert made.guarantee.theorem == "T8" and "rehearsal" in progress.statement
    steps, rate, radius = made.method.steps, made.derived["rate"], made.derived["R"]
    assert steps * rate > radius**2  # the implication itself
    c, level, growth = made.method.step.c, made.derived["S"], made.derived["G"]
    assert c * (2 * level - c * growth**2) == pytest.approx(rate, rel=1e-6)
    audit = pc.audit(made, pc.run(made))
    assert audit.consistent and audit.measured["value"] <= made.guarantee.bound
    by_class = [k for k in audit.trace.watched if k.startswith("margin_class_")]
    assert len(by_class) == 3
    least = np.min([audit.trace.watched[k] for k in by_class], axis=0)
    assert np.array_equal(least, audit.trace.watched["margin_all"])
    assert "class 2" in next(c.sentence for c in audit.checks if c.name == "tangent-margin")


def test_class_margins_are_lower_bounds_and_get_better():
    data = toy(3)
    network = DenseNetwork((64, 64), 3, Activation("relu"), 2.0, "gaussian", 1.0, True, 0)
    start = network.initial(4)
    features, y = network.features(start, data.raw), data.targets
    proposal = features.combine(
        class_margin.class_svm(class_margin.mean_over_outputs(features), y, 3, 1e4, 30)
    )
    better = class_margin.sharpened(network, features, y, 4, proposal, 1e4, 60)
    model = Tangent(jax_outputs(network), start, data.raw, y, loss="cross-entropy")
    least = []
    for v in (proposal, better, np.random.default_rng(0).standard_normal(start.size)):
        low, seen = (
            class_margin.certified_class_margins(features, y, network.layers(v, 4)),
            model.class_margins(start, v),
        )
        others = np.isfinite(seen)
        assert np.array_equal(others, np.isfinite(low))
        assert (low[others] <= seen[others] + 1e-13).all() and (low[others] >= seen[others] - 1e-10).all()
        least.append(low.min())
    assert least[1] >= least[0] and least[1] > 0 > least[2]
    by_class = class_margin.margins_by_class(network, features, y, 4, 60)
    assert by_class.shape == (3,) and by_class.min() == pytest.approx(least[1], rel=0.2)


# --- choosing ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan():
    return pc.plan(toy(), family="deep-relu", width=32, depth=1, steps=200, method="gd")


def sized(plan, error):
    return dataclasses.replace(
        plan, guarantee=dataclasses.replace(plan.guarantee, bound=error, error_bound=error)
    )


@pytest.mark.parametrize(
    ("errors", "chosen", "tried"),
    [
        ([0.2, 0.0, 0.0], 1, 2),  # nothing is tried after a promise of no error
        ([0.2, 0.19, 0.3], 0, 3),  # nearly as good: the preferred one
        ([0.2, 0.1, 0.3], 1, 3),
        ([0.52, 0.49, 0.9], 1, 3),  # a vacuous promise is never nearly as good
        ([None, 0.3, 0.2], 2, 3),  # one that cannot be planned
    ],
)
def test_the_best_promise_wins(plan, errors, chosen, tried):
    asked = []

    def make(k):
        asked.append(k)
        if errors[k] is None:
            raise InvalidInputError("steps", 1, "more")
        return sized(plan, errors[k])

    found = best_promise([(f"net {k}", lambda k=k: make(k)) for k in range(3)], "which net")
    assert found.guarantee.error_bound == errors[chosen]
    assert asked == list(range(tried))
    assert f"Chosen is net {chosen}" in found.notes[0] and "net 0" in found.notes[0]


def test_a_fixed_architecture_is_not_compared(plan):
    assert plan.family.network.hidden == (32,) and not any("Compared" in n for n in plan.notes)


def test_the_scale_is_the_planners_and_1_is_the_published_network():
    free = pc.plan(toy(), family="three-layer", width=32, steps=300)
    assert any("output scale" in n and "Chosen" in n for n in free.notes)
    published = pc.plan(toy(), family="three-layer", width=32, steps=300, output_scale=1.0)
    assert not published.family.network.paired and published.family.network.output_scale == 1
    assert free.guarantee.bound < published.guarantee.bound


# --- before training -------------------------------------------------------------------------------------------------


def smooth(theorem, width=16):
    network = DenseNetwork((width, width), 1, Activation("softplus", 0.0, 1.0), 2.0, "gaussian", 1.0, True, 0)
    data = toy()
    return attempts.search(three_layer.ThreeLayer(network, "logistic"), data.raw, data.targets, theorem, 3000)


@pytest.mark.parametrize("theorem", ["T8", "T4T5"])
def test_the_threshold_is_where_the_bound_stops_being_vacuous(theorem):
    s = smooth(theorem)
    for first in (1.0, 1e6):
        found = apriori.threshold(s, first)
        assert s.at(found.scale).error < 0.5 <= s.at(found.below).error
        assert found.below < found.scale <= apriori.CLOSE * found.below


def test_the_width_is_said_to_be_extrapolated():
    s = smooth("T8")
    (said,) = apriori.enough_width(apriori.threshold(s, 1e3), s)
    assert "at width 64" in said and "extrapolated, not evaluated" in said


def test_vacuous_promises_say_what_would_be_certified():
    made = pc.plan(toy(), family="tangent", width=16, steps=2, method="gd", output_scale=8.0)
    assert made.guarantee.vacuous
    assert any("Certified before training" in n for n in made.notes)


# --- words -----------------------------------------------------------------------------------------------------------


def test_why_there_is_no_certificate(plan):
    assert not certifiable(plan) and "only the run can show" in no_certificate(plan)
    nothing = pc.plan(toy(), family="deep-relu", activation="softplus", width=16, depth=2, output_scale=1.0)
    assert "nothing was proved" in no_certificate(nothing)
    proved = pc.plan(
        toy(), family="deep-relu", activation="softplus", width=16, depth=2, output_scale=2.0**20
    )
    assert certifiable(proved) and no_certificate(proved) is None


def test_an_unmet_condition_is_not_called_a_violated_promise(plan, tmp_path):
    run = pc.run(plan)
    wrong = dataclasses.replace(plan, derived={**plan.derived, "h": plan.derived["h"] * 1e-3})
    audit = pc.audit(wrong, run)
    text = io.StringIO()
    print_audit(Console(file=text, width=200), audit, tmp_path)
    assert "CONDITION NOT MET comparator-loss" in text.getvalue()
    assert "nothing was promised for this run" in text.getvalue() and "VIOLATED" not in text.getvalue()
    assert not audit.consistent  # and the exit code stays 1
