"""The dense families from plan to audit: sentences, evidence before and after, and premises that fail when they must."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence
from proxyconvex.data import Dataset
from proxyconvex.families.three_layer import CONCEPTS, teacher
from proxyconvex.report.on_trace import failed_conditions
from proxyconvex.report.session import audit_folder
from proxyconvex_checker import verify

FAST = {"width": 32, "steps": 150}


def toy(task, n=40, d=4):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((n, d))
    if task == "binary":
        return Dataset("toy", x, np.where(x[:, 0] + 0.3 * x[:, 1] > 0, 1.0, -1.0))
    if task == "multiclass":
        return Dataset("toy", x, np.argmax(x[:, :3], axis=1) * 1.0, task="multiclass")
    return Dataset("toy", x, teacher("tanh-of-sines", x)[0], task="regression")


CASES = [
    ("tangent", "binary", {"method": "normalised-gd", "width": 128, "steps": 600}, "T8"),
    ("tangent", "regression", {}, "T4"),
    ("tangent", "multiclass", {"method": "gd"}, "T4"),
    ("deep-relu", "binary", {"depth": 2, "method": "gd-slope"}, "T1"),
    ("deep-relu", "multiclass", {"depth": 2, "method": "normalised-gd"}, "T8"),
    ("three-layer", "binary", {}, "T4"),
]


@pytest.mark.parametrize(("family", "task", "settings", "theorem"), CASES)
def test_a_conditional_promise_is_assumed_before_and_seen_after(family, task, settings, theorem, tmp_path):
    made = pc.plan(toy(task), family=family, **{**FAST, **settings})
    g = made.guarantee
    assert g.theorem == theorem and made.conditional
    assert g.evidence is Evidence.ASSUMED and g.sentence.startswith("If ") and made.consequence in g.sentence
    result = audit_folder(made, tmp_path)
    assert result.consistent, [c.sentence for c in result.checks if not c.ok]
    after = result.after_run
    assert after is not None and after.evidence is Evidence.ON_TRACE
    assert (
        after.sentence.startswith("On this run, and only on this run")
        and "Another run may differ" in after.sentence
    )
    assert after.bound == g.bound
    assert result.measured["value"] <= g.bound * (1 + 1e-9)
    document = result.summary()
    assert document["guarantee"]["conditional"] and document["after_run"]["evidence"] == "ON_TRACE"
    text = (tmp_path / "report.html").read_text()
    assert "only on this run" in text and "The promise was kept." not in text
    assert (tmp_path / "promise.json").exists() and not (tmp_path / "certificate.json").exists()
    assert len(result.trace.watched["step"]) >= 2


@pytest.mark.parametrize(
    ("family", "settings", "name", "key", "factor"),
    [
        ("deep-relu", {"depth": 2, "method": "gd-slope"}, "proxy-pl", "gamma", 100.0),
        ("three-layer", {}, "comparator-loss", "h", 1e-3),
        ("three-layer", {}, "sufficient-decrease", "eta", 1e-2),
    ],
)
def test_near_misses_show_up(family, settings, name, key, factor):
    made = pc.plan(toy("binary"), family=family, **{**FAST, **settings})
    run = pc.run(made)
    # A constant that the run cannot satisfy: the condition fails, and the promise says nothing (instead of being "kept").
    wrong = dataclasses.replace(made, derived={**made.derived, key: made.derived[key] * factor})
    result = pc.audit(wrong, run)
    assert [c.name for c in failed_conditions(wrong, result.checks)] == [name]
    assert not result.consistent and result.after_run is None
    assert "says nothing" in next(c.sentence for c in result.checks if c.name == "promise")


def test_progress_near_miss():
    made = pc.plan(toy("binary"), family="tangent", method="normalised-gd", width=128, steps=600)
    run = pc.run(made)
    stop = run.first_step_with_error(made.guarantee.bound)[0]
    assert stop > 0
    rate = (run.dist_sq[0] - run.dist_sq[stop]) / stop
    for factor, ok in ((0.99, True), (1.01, False)):
        changed = dataclasses.replace(made, derived={**made.derived, "rate": float(rate * factor)})
        assert pc.audit(changed, run).consistent is ok


def test_where_nothing_is_certified_nothing_but_the_distance_is_claimed():
    made = pc.plan(
        toy("binary"), family="deep-relu", activation="softplus", depth=2, width=16, output_scale=1.0, steps=5
    )
    assert made.guarantee.vacuous
    assert made.guarantee.bound == 1.0
    (premise,) = made.guarantee.premises
    assert premise.name == "start-distance"
    assert premise.value >= np.linalg.norm(made.initial - made.comparator) > 0
    assert pc.audit(made, pc.run(made)).consistent


def test_certified_promise_of_a_smooth_deep_network(tmp_path):
    made = pc.plan(toy("binary"), family="deep-relu", activation="softplus", depth=2, width=16)
    g = made.guarantee
    assert not made.conditional and g.evidence is Evidence.CERTIFIED and not g.vacuous
    result = audit_folder(made, tmp_path)
    assert result.consistent and result.after_run is None
    assert verify(tmp_path / "certificate.json").accepted
    # At the published scale the same bound says nothing, and says so.
    vacuous = pc.plan(
        toy("binary"), family="deep-relu", activation="softplus", depth=2, width=16, output_scale=1.0
    )
    assert vacuous.guarantee.vacuous and any("vacuous" in n for n in vacuous.notes)


def test_regression_is_set_against_the_mean():
    made = pc.plan(toy("regression"), family="three-layer", **FAST)
    assert made.guarantee.baseline == pytest.approx(np.var(made.targets) / 2)
    few = pc.plan(toy("regression"), family="three-layer", width=32, steps=1)
    assert few.guarantee.vacuous and any("steps" in n for n in few.notes if "vacuous" in n)


@pytest.mark.parametrize("name", CONCEPTS)
def test_teachers(name):
    x = np.random.default_rng(0).standard_normal((50, 5))
    clean, none = teacher(name, x)
    noisy, opt = teacher(name, x, noise=0.1)
    assert none == 0 and opt == pytest.approx(np.mean((noisy - clean) ** 2) / 2) and 0.002 < opt < 0.01
    assert np.array_equal(clean, teacher(name, x)[0])
    with pytest.raises(InvalidInputError, match="concept"):
        teacher("linear", x)


def test_a_teacher_gives_opt_plus_eps():
    x = np.random.default_rng(0).standard_normal((40, 4))
    y, opt = teacher("tanh-of-sines", x, noise=0.05)
    made = pc.plan(Dataset("teacher", x, y, task="regression"), family="three-layer", opt=opt, **FAST)
    assert "OPT + eps" in made.guarantee.sentence


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "sgd"},
        {"layers": "first"},
        {"width": 31},
        {"depth": 0},
        {"steps": 0},
        {"output_scale": -1.0},
    ],
    ids=str,
)
def test_bad_settings(settings):
    with pytest.raises(InvalidInputError):
        pc.plan(toy("binary"), family="deep-relu", **{"width": 32, **settings})


def test_methods_that_do_not_fit_the_data():
    with pytest.raises(InvalidInputError, match="gd for numeric targets"):
        pc.plan(toy("regression"), family="tangent", method="normalised-gd", width=16)
    with pytest.raises(InvalidInputError, match="method"):
        pc.plan(toy("binary"), family="three-layer", method="normalised-gd", width=16)
    with pytest.raises(InvalidInputError, match="binary or multiclass"):
        pc.plan("diabetes", family="deep-relu")
