"""Planning F3: the promised risk on numbers and on two classes, kept by runs, certified, near misses found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import proxyconvex as pc
from proxyconvex.cli import app
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.methods import ConstantStep
from proxyconvex.data import Dataset
from proxyconvex.report.audit import audit
from proxyconvex.synthesis import neuron_comparator


def numbers(n: int = 60, noise: float = 0.05, seed: int = 0) -> Dataset:
    """Targets in about [0, 1] that a sigmoid of the rows explains up to noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    y = 1 / (1 + np.exp(-x @ np.array([1.0, -0.5, 0.2]))) + noise * rng.standard_normal(n)
    return Dataset("numbers", x, y, task="regression")


@pytest.fixture(scope="module")
def made() -> tuple:
    plan = pc.plan(numbers(), family="single-neuron", steps=20_000)
    return plan, pc.run(plan)


def test_promise_outcome_certificate(made, tmp_path):
    plan, run = made
    g = plan.guarantee
    assert (g.theorem, g.quantity, g.mode, g.error_bound) == ("T3r", "best-risk", "every-run", None)
    assert g.baseline == pytest.approx(np.var(plan.targets), rel=1e-9) and not g.vacuous
    assert g.bound < 0.5 * g.baseline
    result = audit(plan, run)
    assert result.consistent, [c for c in result.checks if not c.ok]
    # The least risk over the run, from the final weights and from the trace.
    risk = np.mean((1 / (1 + np.exp(-plan.features @ run.final_w[0])) - plan.targets) ** 2)
    assert 2 * run.loss[-1] == pytest.approx(risk, rel=1e-9)
    assert result.measured["value"] <= min(risk * (1 + 1e-12), g.bound)
    verdict = pc.verify(pc.write_certificate(plan, tmp_path))
    assert verdict.accepted, verdict.steps[-1]
    c = plan.derived["C"]
    assert 1 <= c < 2 and f"C = {c:.4}"[:7] in plan.notes[0]
    assert plan.derived["opt"] == pytest.approx(
        np.mean((1 / (1 + np.exp(-plan.features @ plan.comparator[0])) - plan.targets) ** 2), rel=1e-9
    )


def rows_of(plan) -> neuron_comparator.Rows:
    return neuron_comparator.Rows(
        plan.features, plan.targets, plan.initial[0], plan.family.activation, plan.method.steps
    )


def test_the_grid_of_the_planner_agrees_with_branch_and_bound_and_its_gradient_with_differences(made):
    plan, _ = made
    function = neuron_comparator.Promise(rows_of(plan))
    point = np.append(plan.comparator[0], np.log([plan.theorem_params["alpha"], plan.method.step.eta]))
    value, _ = function(point)
    assert value == pytest.approx(plan.guarantee.bound, rel=2e-3) and value <= plan.guarantee.bound
    elsewhere = point + 0.3
    _, gradient = function(elsewhere)
    for k, e in enumerate(np.eye(len(point))):
        slope = (function(elsewhere + 1e-4 * e)[0] - function(elsewhere - 1e-4 * e)[0]) / 2e-4
        assert gradient[k] == pytest.approx(slope, rel=0.03, abs=0.01 * np.abs(gradient).max())


def test_other_comparators_promise_no_less(made):
    """The planner's choice beats the plain fits it started from."""
    plan, _ = made
    rows = rows_of(plan)
    function = neuron_comparator.Promise(rows)
    for v in neuron_comparator.fits(rows, 0):
        assert neuron_comparator.best_constants(v, function)[0] >= 0.999 * plan.guarantee.bound


@pytest.mark.parametrize("activation", ["tanh", "leaky-relu", "softplus", "relu"])
def test_other_activations_are_consistent(activation, tmp_path):
    plan = pc.plan(numbers(30), family="single-neuron", activation=activation, steps=2000)
    assert audit(plan, pc.run(plan)).consistent
    assert pc.verify(pc.write_certificate(plan, tmp_path)).accepted
    if activation == "relu":
        assert plan.guarantee.vacuous and "leak" in plan.notes[-1]


def test_two_classes_promise_an_error(tmp_path):
    rng = np.random.default_rng(1)
    y = np.where(np.arange(40) % 2, 1.0, -1.0)
    x = rng.standard_normal((40, 3)) + 3 * y[:, None] * np.array([1.0, 0, 0])
    plan = pc.plan(Dataset("clouds", x, y), family="single-neuron", steps=20_000)
    g = plan.guarantee
    assert g.error_bound == g.bound < 0.3 and plan.family.activation.name == "tanh"
    result = audit(plan, pc.run(plan))
    assert result.consistent and result.measured["error"] <= g.error_bound


def violated(plan, run) -> set[str]:
    return {c.name for c in audit(plan, run).checks if not c.ok}


def test_near_misses_are_reported(made):
    plan, run = made
    assert {"start-distance", "region"} <= violated(
        replace(plan, derived={**plan.derived, "R": 0.99 * plan.derived["R"]}), run
    )
    wrong = replace(plan, method=replace(plan.method, step=ConstantStep(1.01 * plan.method.step.eta)))
    assert "step-size" in violated(wrong, replace(run, method=wrong.method))
    least = audit(plan, run).measured["value"]
    assert "promise" in violated(replace(plan, guarantee=replace(plan.guarantee, bound=0.99 * least)), run)
    # The level that this run needs, and 1% less.
    h = float(plan.derived["h"])
    need = h - run.min_slack
    for level, holds in ((need * (1 + 1e-6), True), (0.99 * need, False)):
        other = replace(
            plan, proxy={**plan.proxy, "level": level}, guarantee=replace(plan.guarantee, bound=0.0)
        )
        assert ("proxy-convexity" not in violated(other, pc.run(other))) is holds


def test_growth_one_percent_too_small_is_reported():
    """One feature and a linear neuron: ``||grad||^2 = lambda mean r^2`` when every residual is the same multiple of x."""
    x = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    data = Dataset("line", x, np.array([1.0, -1.0, 1.0, -1.0]) * 0.5, task="regression")
    from proxyconvex.preprocessing import Preprocessing

    plan = pc.plan(
        data, family="single-neuron", activation="leaky-relu", slope=1.0, steps=50,
        preprocessing=Preprocessing((0,), center=False, unit_norm=False, bias=0.0),
    )  # fmt: skip
    run = pc.run(plan)
    assert audit(plan, run).consistent
    small = replace(plan, derived={**plan.derived, "lambda_max": 0.99 * plan.derived["lambda_max"]})
    assert violated(small, run) == {"growth"}


def test_a_numeric_column_from_the_command_line(tmp_path: Path):
    path, data = tmp_path / "t.csv", numbers(25)
    pl.DataFrame({**{f"a{j}": data.raw[:, j] for j in range(3)}, "price": 1000 * data.targets}).write_csv(
        path
    )
    out = tmp_path / "run"
    arguments = [
        "audit",
        str(path),
        "--target",
        "price",
        "--family",
        "single-neuron",
        "--steps",
        "3000",
        "--json",
        "-q",
    ]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    import json

    document = json.loads(result.stdout)
    assert document["guarantee"]["quantity"] == "best-risk" and document["consistent"] is True
    assert document["guarantee"]["baseline"] > document["guarantee"]["bound"] > document["measured"]["value"]
    report = (out / "report.html").read_text()
    assert "mean squared error of the best iterate" in report
    refused = CliRunner().invoke(app, [*arguments[:4], "--family", "leaky-relu-hinge"])
    assert isinstance(refused.exception, InvalidInputError)
    assert "A numeric target is a regression" in str(refused.exception)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"method": "sgd"}, "full-batch"),
        ({"activation": "gelu"}, "sigmoid, tanh"),
        ({"activation": "sigmoid", "slope": 0.5}, "slope"),
        ({"steps": 0}, "steps"),
        ({"beta": -1.0}, "beta"),
        ({"init_scale": -1.0}, "init_scale"),
        ({"width": 3}, "an option of the family"),
    ],
)
def test_bad_arguments_are_refused(options, word):
    with pytest.raises(InvalidInputError, match=word):
        pc.plan(numbers(20), family="single-neuron", **options)


def test_several_classes_are_refused():
    with pytest.raises(InvalidInputError, match="Keep two classes|as numbers"):
        pc.plan("wine", family="single-neuron")
