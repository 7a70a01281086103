"""Planning F1: the comparators are optimal, the promise does not grow with the width, runs keep it, near misses are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.methods import ConstantStep
from proxyconvex.data import Dataset
from proxyconvex.report.audit import audit
from proxyconvex.synthesis.convex_comparator import Rows, hard_margin, update_form


def clouds(flipped: int = 0, n: int = 60, seed: int = 0) -> Dataset:
    """Two clouds, a few labels flipped."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    x = rng.standard_normal((n, 4)) + 2.5 * y[:, None] * np.array([1.0, 0.5, 0, 0])
    y[:flipped] *= -1
    return Dataset("clouds", x, y)


def signed(data: Dataset) -> np.ndarray:
    x = np.column_stack([data.raw, np.ones(len(data.raw))])
    return data.targets[:, None] * x / np.linalg.norm(x, axis=1, keepdims=True)


def test_hard_margin_is_the_support_vector_machine():
    from sklearn.svm import SVC

    rng = np.random.default_rng(3)
    z = rng.standard_normal((40, 4)) + np.array([2.0, 1, 0, 0])
    z = z[z[:, 0] > 0.3]
    best = hard_margin(Rows(z, 0.5))
    assert best is not None and (z @ best.u).min() >= 1 - 1e-7
    # Through the origin: rows z with label +1 and -z with label -1.
    machine = SVC(kernel="linear", C=1e8, tol=1e-9).fit(np.vstack([z, -z]), np.repeat([1, -1], len(z)))
    assert np.linalg.norm(best.u) == pytest.approx(np.linalg.norm(machine.coef_), rel=1e-4)
    assert hard_margin(Rows(np.vstack([z, -z]), 0.5)) is None


@pytest.mark.parametrize("slope", [0.3, 1.0])
def test_update_form_is_optimal(slope):
    """No direction nearby and no multiple does better; the value is the formula."""
    z, steps = signed(clouds(6)), 2000
    best = update_form(Rows(z, slope), 1.0, steps)

    def value(u, theta):
        s = z @ u
        q = np.where(s < 0, s / slope, s)
        return np.mean(np.maximum(1 + theta / 2 - q, 0)) + u @ u / (2 * steps * slope**2 * theta)

    assert best.value == pytest.approx(value(best.u, best.theta), rel=1e-12)
    rng = np.random.default_rng(0)
    for size in (1e-4, 1e-2, 0.3):
        for _ in range(60):
            u = best.u + size * np.linalg.norm(best.u) * rng.standard_normal(len(best.u)) / 2
            theta = best.theta * np.exp(size * rng.standard_normal())
            assert value(u, theta) >= best.value * (1 - 1e-6)


@pytest.fixture(scope="module")
def counted() -> tuple:
    made = pc.plan(clouds(), family="leaky-relu-hinge", width=8)
    return made, pc.run(made)


def test_mistake_bound_and_what_happened(counted):
    made, run = counted
    g = made.guarantee
    assert (g.theorem, g.quantity, g.mode, g.error_bound) == ("T3m", "updates", "every-run", 0.0)
    assert not g.vacuous and made.method.sampling == "cyclic"
    result = audit(made, run)
    assert result.consistent, [c for c in result.checks if not c.ok]
    # Count the updates again, from the recorded slopes of every step.
    again = pc.train(made.problem(), made.initial, made.method, seed=0, online=True)
    assert result.measured["value"] == again.online["slope"].sum() <= g.bound
    assert again.online["slope"][-len(made.targets) :].sum() == 0, "the last pass changes nothing"
    assert result.measured["error"] == 0.0
    assert {a.theorem for a in made.alternatives} >= {"T3u", "T1", "T3", "T5", "T8"}


def test_the_promise_does_not_grow_with_the_width():
    bounds = {
        m: pc.plan(clouds(), family="leaky-relu-hinge", width=m).guarantee.bound for m in (1, 2, 64, 512)
    }
    assert max(bounds.values()) <= 1.002 * min(bounds.values()) + 1, bounds


def test_rows_that_nothing_separates_get_the_share(tmp_path):
    for sampling, quantity, mode in (
        (None, "average-error", "expectation"),
        ("cyclic", "online-error", "every-run"),
    ):
        made = pc.plan(clouds(5), family="leaky-relu-hinge", width=8, steps=6000, sampling=sampling)
        g = made.guarantee
        assert (g.theorem, g.quantity, g.mode) == ("T3u", quantity, mode)
        assert g.error_bound < 0.5
        result = audit(made, pc.run(made))
        assert result.consistent, [c for c in result.checks if not c.ok]
        assert result.measured["value"] <= g.bound
        assert pc.verify(pc.write_certificate(made, tmp_path / quantity)).accepted
        assert (
            "needs rows that a vector u separates" in {a.theorem: a.reason for a in made.alternatives}["T3m"]
        )


def test_means_over_seeds_keep_the_share():
    made = pc.plan(clouds(5), family="leaky-relu-hinge", width=4, steps=3000)
    runs = [pc.run(made), *pc.run_seeds(made, [1, 2, 3, 4])]
    result = audit(made, *runs)
    assert result.consistent and result.measured["value"] <= made.guarantee.bound


def violated(plan, run) -> set[str]:
    result = audit(plan, run)
    return {c.name for c in result.checks if not c.ok}


def test_near_misses_are_reported(counted):
    made, run = counted
    derived = made.derived
    short = replace(made, derived={**derived, "R": 0.99 * derived["R"]})
    assert violated(short, run) == {"start-distance"}
    count = run.total("sum_slope")
    fewer = replace(
        made, derived={**derived, "updates": count - 1}, guarantee=replace(made.guarantee, bound=count - 1)
    )
    assert violated(fewer, run) == {"updates", "promise"}
    slower = replace(made, method=replace(made.method, step=ConstantStep(made.method.step.eta * 1.01)))
    assert "step-size" in violated(slower, replace(run, method=slower.method))


def test_gradient_bound_and_margins_one_percent_off_are_reported():
    """A linear network on few rows, where both premises are equalities."""
    made = pc.plan(clouds(), family="leaky-relu-hinge", width=3, slope=1.0, init_scale=0.0)
    run = pc.run(made)
    assert audit(made, run).consistent
    assert run.max_growth == pytest.approx(made.derived["X"], rel=1e-9)
    assert violated(replace(made, derived={**made.derived, "X": 0.99 * made.derived["X"]}), run) == {
        "gradient-norm"
    }
    # With init 0 and slope 1 the first row's inequality is an equality: <grad, w_0 - v> = kappa q.
    first = float(made.features[0] @ made.certificate_comparator * made.targets[0])
    for level, holds in ((first, True), (1.01 * first, False)):
        proxy = {**made.proxy, "u": made.proxy["u"] * level / first, "level": level}
        other = replace(made, proxy=proxy)
        assert ("proxy-convexity" not in violated(other, pc.run(other))) is holds


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"method": "gd"}, "sgd"),
        ({"sampling": "one-pass"}, "cyclic or with-replacement"),
        ({"steps": 0}, "steps"),
        ({"slope": 0.0}, "slope"),
        ({"width": 0}, "width"),
        ({"beta": 2.0}, "an option of the family"),
    ],
)
def test_bad_arguments_are_refused(options, word):
    with pytest.raises(InvalidInputError, match=word):
        pc.plan(clouds(), family="leaky-relu-hinge", **options)


def test_regression_data_is_refused_with_a_way_out():
    with pytest.raises(InvalidInputError, match="above and below its median"):
        pc.plan("diabetes", family="leaky-relu-hinge")
