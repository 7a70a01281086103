"""The audit on real small runs: promises kept, and premises that are one per cent wrong found out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.methods import ConstantStep, GradientDescent
from proxyconvex.data import Dataset
from proxyconvex.report.audit import audit


def separable(n: int = 24, d: int = 3, seed: int = 0) -> Dataset:
    """Two classes with a margin."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    x = rng.standard_normal((n, d))
    x[:, 0] = y * (1 + np.abs(x[:, 0]))
    return Dataset("separable", x, y)


SETTINGS = {
    "ntk-T8": {"family": "two-layer-ntk", "width": 32},
    "ntk-T8-relu": {"family": "two-layer-ntk", "width": 32, "activation": "relu"},
    "ntk-T4T5": {"family": "two-layer-ntk", "width": 32, "method": "gd", "steps": 400},
    "ntk-T3T5": {"family": "two-layer-ntk", "width": 32, "method": "gd", "steps": 400, "activation": "relu"},
    "leaky-T3e": {"family": "leaky-relu-noise", "width": 8, "steps": 3000},
    "leaky-T6e": {"family": "leaky-relu-noise", "width": 8, "one_pass": True},
    "leaky-T8": {"family": "leaky-relu-noise", "width": 8, "method": "normalised-gd"},
    "leaky-T3f": {
        "family": "leaky-relu-noise",
        "width": 8,
        "method": "gd",
        "activation": "smooth-leaky",
        "steps": 300,
    },
    # Three steps promise nothing, but T1 is what says so.
    "leaky-T1": {
        "family": "leaky-relu-noise",
        "width": 8,
        "method": "gd",
        "activation": "smooth-leaky",
        "steps": 3,
    },
}


@pytest.fixture(scope="module")
def made() -> dict:
    """Every plan with its run, made once."""
    out = {}
    for name, settings in SETTINGS.items():
        plan = pc.plan(separable(), **settings)
        out[name] = (plan, pc.run(plan))
    return out


@pytest.mark.parametrize("name", SETTINGS)
def test_promises_are_kept_and_certified(made: dict, name: str, tmp_path) -> None:
    plan, run = made[name]
    result = audit(plan, run)
    assert result.consistent, [c for c in result.checks if not c.ok]
    assert result.measured["value"] <= plan.guarantee.bound
    assert plan.guarantee.theorem == name.split("-")[1]
    assert result.measured["error"] <= plan.guarantee.error_bound
    names = {c.name for c in result.checks}
    assert {"finite", "trace-identity", "promise", "step-size"} <= names
    verdict = pc.verify(pc.write_certificate(plan, tmp_path))
    assert verdict.accepted, verdict.steps[-1]
    document = result.summary()
    assert document["consistent"] is True
    assert document["guarantee"]["theorem"] == plan.guarantee.theorem


@pytest.fixture(scope="module")
def linear() -> tuple:
    """A network without a kink (leak 1), where the tangent margins hold with equality: nothing is left to hide behind."""
    plan = pc.plan(
        separable(), family="leaky-relu-noise", width=4, slope=1.0, method="normalised-gd", init_scale=0.0
    )
    return plan, pc.run(plan)


def violated(plan, run) -> set[str]:
    """Names of the checks that fail."""
    result = audit(plan, run)
    assert not result.consistent
    assert not result.checks[0].ok, "violations come first"
    return {c.name for c in result.checks if not c.ok}


def with_derived(plan, **changes: float):
    """The same plan with some certified numbers changed."""
    return replace(plan, derived={**plan.derived, **changes})


def test_margins_one_per_cent_too_large(linear: tuple) -> None:
    plan, run = linear
    assert audit(plan, run).consistent
    wrong = replace(plan, proxy={**plan.proxy, "u": 1.01 * plan.proxy["u"]})
    assert "proxy-convexity" in violated(wrong, pc.run(wrong))


def test_gradient_bound_one_per_cent_too_small(linear: tuple) -> None:
    plan, run = linear
    largest = run.max_growth
    assert audit(with_derived(plan, G=largest), run).consistent
    assert violated(with_derived(plan, G=0.99 * largest), run) == {"gradient-norm"}


@pytest.mark.parametrize("name", ["ntk-T8", "leaky-T8"])
def test_distance_one_per_cent_too_small(made: dict, name: str) -> None:
    plan, run = made[name]
    assert {"start-distance", "region"} <= violated(with_derived(plan, R=0.99 * plan.derived["R"]), run)


def test_step_size_one_per_cent_off(made: dict) -> None:
    plan, run = made["ntk-T4T5"]
    wrong = replace(plan, method=replace(plan.method, step=ConstantStep(1.01 * plan.method.step.eta)))
    with pytest.raises(InvalidInputError, match="a run of this plan"):
        audit(wrong, run)
    disguised = replace(run, eta=run.eta * 1.01)
    assert {"trace-identity", "step-size"} & violated(plan, disguised)


def test_smoothness_one_per_cent_too_small() -> None:
    """One feature, a linear network, slope 1/2 at the start: the curvature along the first step is exactly L = 1/4."""
    n = 8
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    data = Dataset("line", np.stack([y, y], axis=1), y)
    plain = pc.Preprocessing((0,), center=False, bias=0.0)
    plan = pc.plan(
        data, family="leaky-relu-noise", width=1, slope=1.0, activation="smooth-leaky", method="gd", steps=1,
        init_scale=0.0, preprocessing=plain,
    )  # fmt: skip
    small = replace(
        plan,
        method=GradientDescent(ConstantStep(1e-3), 1),
        guarantee=replace(plan.guarantee, theorem="T1", quantity="best-slope", bound=1.0),
    )
    run = pc.run(small)
    exact = with_derived(small, L=0.25)
    checks = {c.name: c for c in audit(exact, run).checks}
    assert checks["smoothness"].ok, checks["smoothness"]
    checks = {c.name: c for c in audit(with_derived(small, L=0.25 * 0.99), run).checks}
    assert not checks["smoothness"].ok


def test_proxy_pl_one_per_cent_too_strong(made: dict) -> None:
    plan, _ = made["leaky-T1"]
    # A comparator with margins, so that the inequality says something on the run.
    u = np.zeros(plan.features.shape[1])
    u[0] = 4.0
    plan = replace(plan, proxy={**plan.proxy, "u": u})
    run = pc.run(plan)
    # Its length scales the left side: find the length at which the inequality is tight, then go 1% below.
    needed = np.max((run.g - run.h) / np.sqrt(run.grad_sq))
    tight = needed * plan.family.activation.slope
    assert 0 < tight < 4
    assert {c.name: c for c in audit(with_derived(plan, u_norm=tight), run).checks}["proxy-pl"].ok
    assert "proxy-pl" in violated(with_derived(plan, u_norm=0.99 * tight), run)


def test_promise_below_the_outcome(made: dict) -> None:
    plan, run = made["leaky-T6e"]
    measured = audit(plan, run).measured["value"]
    assert measured > 0
    lower = replace(plan, guarantee=replace(plan.guarantee, bound=0.99 * measured, mode="every-run"))
    assert "promise" in violated(lower, run)


def test_a_corrupted_trace_breaks_the_identity(made: dict) -> None:
    plan, run = made["ntk-T8"]
    moved = replace(run, dist_sq=np.where(run.step == run.step[-1], 1.01 * run.dist_sq, run.dist_sq))
    assert "trace-identity" in violated(plan, moved)


def test_means_over_seeds(made: dict) -> None:
    plan, _ = made["leaky-T3e"]
    runs = pc.run_seeds(plan, range(4))
    result = audit(plan, *runs)
    assert result.consistent
    assert result.measured["runs"] == 4
    assert "confidence interval" in {c.name: c for c in result.checks}["promise"].sentence
    spread = np.array(result.measured["per_run"])
    low = replace(
        plan, guarantee=replace(plan.guarantee, bound=float(spread.mean() - 10 * spread.std() - 1e-6))
    )
    assert not audit(low, *runs).consistent


def test_gd_has_no_seeds(made: dict) -> None:
    with pytest.raises(InvalidInputError, match="no randomness"):
        pc.run_seeds(made["ntk-T8"][0], [1, 2])


def test_unfinished_runs_owe_nothing_yet(made: dict) -> None:
    plan, run = made["leaky-T3e"]
    half = replace(run, steps_done=run.steps_done // 2, interrupted=True)
    promise = {c.name: c for c in audit(plan, half).checks}["promise"]
    assert promise.ok
    assert "--resume" in promise.sentence


def test_one_run_above_a_mean_refutes_nothing_but_far_above_does(made: dict) -> None:
    plan, run = made["leaky-T3e"]
    value = audit(plan, run).measured["value"]
    assert value > 0

    def promise(bound: float):
        low = replace(plan, guarantee=replace(plan.guarantee, bound=bound))
        return {c.name: c for c in audit(low, run).checks}["promise"]

    assert promise(value / 2).ok
    assert "may lie above a mean" in promise(value / 2).sentence
    assert not promise(value / 21).ok


def test_estimates_are_called_estimates_and_promises_are_rounded_up(made: dict) -> None:
    sentence = {c.name: c for c in audit(*made["leaky-T6e"]).checks}["promise"].sentence
    assert "an estimate" in sentence
    sentence = {c.name: c for c in audit(*made["leaky-T3e"]).checks}["promise"].sentence
    assert "estimated from" in sentence
    plan, run = made["ntk-T4T5"]
    plan = replace(plan, guarantee=replace(plan.guarantee, bound=0.12345600001))
    assert "promised at most 0.123457" in {c.name: c for c in audit(plan, run).checks}["promise"].sentence


def test_a_projected_run_owes_no_identity(made: dict) -> None:
    plan, _ = made["ntk-T4T5"]
    radius = 2 * float(np.linalg.norm(plan.comparator) + np.linalg.norm(plan.initial))
    projected = replace(plan, method=replace(plan.method, projection=pc.BallProjection(radius)))
    result = audit(projected, pc.run(projected))
    assert result.consistent
    assert "trace-identity" not in {c.name for c in result.checks}
