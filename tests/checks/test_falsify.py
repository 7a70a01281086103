"""The falsifier: what it finds is false, what it does not find it does not call true."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.checks.falsify.falsify import default_budget
from proxyconvex.checks.falsify.posed import problem_of
from proxyconvex.checks.falsify.search import Search
from proxyconvex.core.evidence import Evidence, Status
from proxyconvex.core.numbers import inner

TANH = pc.ProxyConvexity.pointwise(
    lambda a, b, y, s, ds: (s(a) - y) * ds(a) * (a - b) - (s(a) - y) ** 2 / 2 + (s(b) - y) ** 2 / 2,
    activation="tanh", a=(-3, 3), b=(-3, 3), y=(-1, 1),
)  # fmt: skip


def _quadratic(w):
    return (w * w * jnp.arange(1, w.size + 1)).sum() / 2


def test_the_tanh_neuron_is_refuted_with_a_simple_witness():
    verdict = pc.falsify(TANH)
    assert verdict.status is Status.FALSIFIED
    assert verdict.evidence is Evidence.CERTIFIED
    assert all(2 * x == int(2 * x) for x in verdict.witness["point"].values())  # integers and halves
    # An independent arithmetic: rational intervals of the core.
    exact = TANH.slack(**{k: Fraction(v) for k, v in verdict.witness["point"].items()})
    assert exact.hi < 0
    assert float(exact.hi) <= verdict.witness["slack_upper"]
    assert eval(verdict.witness["reproduce"], {"cond": TANH}) < 0


def test_same_seed_same_answer():
    first, second = (pc.falsify(pc.Smooth(2.9, f=_quadratic), like=np.zeros(3), seed=4) for _ in range(2))
    assert first.sentence == second.sentence
    assert np.array_equal(first.witness["flat"], second.witness["flat"])


def test_the_first_counterexample_is_reported_before_it_is_made_simpler():
    seen = []
    verdict = pc.falsify(pc.Smooth(2.9, f=_quadratic), like=np.zeros(3), on_first=seen.append)
    (first,) = seen
    assert first.status is Status.FALSIFIED
    assert first.witness["slack_upper"] < 0
    bits = [len(repr(v.witness["flat"].tolist())) for v in (first, verdict)]
    assert bits[1] < bits[0]


def test_not_found_is_not_called_true():
    verdict = pc.falsify(pc.Smooth(3.0, f=_quadratic), like=np.zeros(3), budget=3000)
    assert verdict.status is Status.NOT_FALSIFIED
    assert verdict.evidence is Evidence.SAMPLED
    assert "does not show that none exists" in verdict.sentence
    for part in ("structured points", "random points", "gradient ascent"):
        assert part in verdict.sentence
    with pytest.raises(TypeError, match="no truth value"):
        bool(verdict)


def test_coordinates_that_do_not_matter_are_named():
    condition = pc.BoundedBelow(
        0, f=lambda w: w[0] ** 2 - 1 + 0.0 * w[1] * w[2], region=pc.Ball(np.zeros(3), 5.0)
    )
    verdict = pc.falsify(condition)
    assert verdict.witness["does_not_matter"] == ["w[1]", "w[2]"]
    assert verdict.witness["point"]["w"].tolist() == [0.0, 0.0, 0.0]
    assert "does not seem to matter what w[1], w[2] are" in verdict.sentence


def test_one_coordinate_of_thirty_thousand_is_at_fault():
    size = 30_000
    curvature = np.full(size, 2.0)
    curvature[7_777] = 0.5
    condition = pc.strongly_convex(lambda w: jnp.sum(curvature * w * w) / 2, 1.0, comparator=np.zeros(size))
    verdict = pc.falsify(condition)
    assert verdict.status is Status.FALSIFIED
    assert np.flatnonzero(verdict.witness["flat"]).tolist() == [7_777]
    assert "1 of 30000 coordinates" in verdict.sentence
    assert "w.flat[[7777]]" in verdict.witness["reproduce"]


def test_counterexamples_lie_in_the_region():
    # |w|^4 / 4 is 12-smooth on the ball of radius 2 and not beyond; just below 12 the violation sits at the boundary.
    center = np.array([1.0, -1.0])
    condition = pc.Smooth(
        11.5, f=lambda w: ((w - center) @ (w - center)) ** 2 / 4, region=pc.Ball(center, 2.0)
    )
    verdict = pc.falsify(condition)
    assert verdict.status is Status.FALSIFIED
    for point in verdict.witness["arguments"]:
        assert sum((Fraction(x) - Fraction(c)) ** 2 for x, c in zip(point.tolist(), center, strict=True)) <= 4


REGIONS = {
    "rows": pc.PerNeuronBalls(np.zeros((2, 2)), np.array([1.0, 2.0])),
    "lens": pc.intersect(pc.Ball(np.zeros((2, 2)), 2.0), pc.Ball(np.ones((2, 2)), 1.5)),
}


@pytest.mark.parametrize("name", REGIONS)
def test_other_regions(name):
    region = REGIONS[name]
    verdict = pc.falsify(
        pc.GradientGrowth(0, 1.0, g=lambda w: 0.0 * w.sum(), f=lambda w: (w * w).sum() / 2, region=region)
    )
    assert verdict.status is Status.FALSIFIED
    assert region.contains(verdict.witness["point"]["w"])
    assert np.sum(verdict.witness["point"]["w"] ** 2) > 1


def test_pytrees_products_and_pulled_back_regions():
    def f(w):
        return (w["a"] ** 2).sum() + jnp.sin(w["b"]).sum()

    verdict = pc.falsify(pc.BoundedBelow(0, f=f), like={"a": np.zeros(2), "b": np.zeros((2, 1))})
    assert verdict.status is Status.FALSIFIED
    assert set(verdict.witness["point"]["w"]) == {"a", "b"}
    ball = pc.Ball(np.zeros(2), 1.0)
    product = pc.Product((ball, ball))
    verdict = pc.falsify(pc.BoundedBelow(-0.5, f=lambda w: w[0].sum() + w[1].sum(), region=product))
    assert verdict.status is Status.FALSIFIED
    assert product.contains(verdict.witness["point"]["w"])
    pulled = ball.pullback(np.array([[2.0, 0.0], [0.0, 0.5]]), np.zeros(2))
    verdict = pc.falsify(pc.BoundedBelow(-0.4, f=lambda w: w[0], region=pulled))
    assert verdict.status is Status.FALSIFIED
    assert -0.5 <= verdict.witness["point"]["w"][0] < -0.4
    assert (
        pc.falsify(pc.BoundedBelow(-0.5, f=lambda w: w[0], region=pulled), budget=4000).status
        is Status.NOT_FALSIFIED
    )


def test_exact_fractions_confirm_where_the_formula_runs_on_them():
    condition = pc.ProxyConvexity(
        lambda w: inner(w, w) / 2, lambda w: inner(w, w) * 2, 0, comparator=[0.0, 0.0], grad=lambda w: w
    )
    verdict = pc.falsify(condition)
    assert verdict.witness["confirmed_by"] == "exact fractions"


def test_rounding_alone_is_not_a_counterexample():
    """In float64 the slack is often negative by rounding; exactly it is zero everywhere."""
    c = np.array([0.1, 0.7, 1.3])
    condition = pc.ProxyConvexity(
        lambda w: jnp.sum(c * w * w) / 2, lambda w: jnp.sum(c * (w * w)), 0, comparator=np.zeros(3)
    )
    problem = problem_of(condition)
    points = np.random.default_rng(0).normal(size=(4000, 3))
    assert (problem.values(points).slack < 0).any()
    assert pc.falsify(condition, budget=20_000).status is Status.NOT_FALSIFIED


def test_what_only_float64_saw_is_not_called_false():
    """Float32 inside f cannot be confirmed: the verdict is INCONCLUSIVE, with the margin over a rounding estimate."""
    condition = pc.BoundedBelow(
        1, f=lambda w: jnp.sum(w.astype(jnp.float32)).astype(jnp.float64), region=pc.Ball(np.zeros(2), 1.0)
    )
    verdict = pc.falsify(condition, budget=2000)
    assert verdict.status is Status.INCONCLUSIVE
    assert "float64 only" in verdict.sentence
    assert "times an estimate of its rounding error, which is not a bound" in verdict.sentence
    assert verdict.witness["confirmed_by"] == "float64 only"


def test_a_huge_cancellation_is_not_a_counterexample():
    """``(1e16 + w) - 1e16 - w + 0`` is zero over the reals and up to one in float64."""
    condition = pc.BoundedBelow(0, f=lambda w: (w[0] + 1e16) - 1e16 - w[0], region=pc.Ball(np.zeros(1), 1.0))
    with jax.enable_x64(True):
        assert float(condition.f(jnp.array([0.9]))) != 0
    assert pc.falsify(condition, budget=2000).status is Status.NOT_FALSIFIED


def test_kinks_are_found_by_bisection():
    """False only within one percent before a jump."""
    condition = pc.BoundedBelow(
        0,
        f=lambda w: jnp.where((w[0] > 0.777) & (w[0] < 0.7785), -1.0, w[0] ** 2),
        region=pc.Ball(np.zeros(1), 1.0),
    )
    verdict = pc.falsify(condition)
    assert verdict.status is Status.FALSIFIED
    assert 0.777 < verdict.witness["point"]["w"][0] < 0.7785


def test_a_search_continues_from_its_checkpoint(tmp_path):
    problem = problem_of(pc.Smooth(3.0, f=_quadratic), np.zeros(3))
    path = tmp_path / "state.npz"
    first = Search(problem, 0, 4000, checkpoint=path)
    first.run()
    second = Search(problem, 0, 9000, checkpoint=path)
    second.run()
    whole = Search(problem, 0, 9000)
    whole.run()
    assert 0 < first.rounds < second.rounds
    assert second.tried["structured points"] == whole.tried["structured points"]
    other = Search(problem, 1, 100, checkpoint=path)
    assert other._resumed() == 0  # another seed is another search


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pc.falsify("convex"), "a condition such as"),
        (lambda: pc.falsify(pc.Smooth(1.0, f=_quadratic)), "pass like=w0"),
        (lambda: pc.falsify(pc.Smooth(1.0), like=np.zeros(2)), "constants alone"),
        (lambda: pc.falsify(TANH, budget=0), "evaluations > 0"),
        (lambda: pc.falsify(TANH, seconds=-1), "a time > 0"),
        (lambda: pc.falsify(pc.Smooth(1.0, f=lambda w: np.exp(np.asarray(w)).sum()), like=np.zeros(2)), "Use jax.numpy"),
        (lambda: pc.falsify(pc.ProxyConvexity(_quadratic, _quadratic, 0, comparator=np.full(2, 9.0), region=pc.intersect(pc.Ball(np.zeros(2), 1.0), pc.Ball(np.array([2.5, 0.0]), 1.0))), like=np.full(2, 7.0)), "known inner point"),
    ],
    ids=["no condition", "no shape", "no function", "budget", "seconds", "numpy inside", "an empty region"],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(pc.InvalidInputError, match=message):
        call()


def test_budget_shrinks_with_the_number_of_parameters():
    assert default_budget(3) == 60_000
    assert default_budget(1_000_000) == 200


ROWS = np.random.default_rng(0).normal(size=(12, 4))


def _on_rows(w):
    """With NumPy data, so that ``f(v)`` of a NumPy comparator would be rounded by NumPy if it were not traced."""
    return jnp.mean(jax.nn.softplus(-(ROWS @ w)))


def test_the_level_h_of_v_is_enclosed_not_rounded():
    """A convex function has slack zero at w = v; rounding f(v) by one unit would 'refute' convexity there."""
    problem = problem_of(pc.convex(_on_rows, comparator=np.ones(4)))
    for scale in (0.0, 1e-12, 1e-9):
        for seed in range(20):
            w = np.ones(4) + scale * np.random.default_rng(seed).normal(size=4)
            assert not problem.confirm(w).holds


def test_the_level_is_enclosed_in_fractions_too():
    """Floats in the user's functions: ``Fraction * float`` would round."""

    def f(w):
        return sum((0.1 * x * x for x in w), 0) / 2

    def grad(w):
        return [0.1 * x for x in w] if isinstance(w, list) else 0.1 * w

    v = np.array([0.3, 0.7])
    exact = pc.ProxyConvexity(f, f, lambda u: f(u), comparator=v, grad=grad)
    assert exact.slack([Fraction(x) for x in v.tolist()]) == 0
    assert not problem_of(exact).confirm(v).holds


def test_constants_that_are_no_float_are_taken_exactly():
    # The best constant is exactly 1/3; as a float it is a little below 1/3 or above, and the float above is false.
    third = Fraction(1, 3)

    condition = pc.ProxyPL(lambda w: jnp.sum(w**2) / 2, lambda w: 3 * jnp.sum(w**2), 0, 2, 2 * third)
    assert not problem_of(condition, np.zeros(2)).confirm(np.array([1.0, 0.5])).holds
    larger = pc.ProxyPL(
        lambda w: jnp.sum(w**2) / 2, lambda w: 3 * jnp.sum(w**2), 0, 2, 2 * third + Fraction(1, 10**12)
    )
    assert problem_of(larger, np.zeros(2)).confirm(np.array([1.0, 0.5])).holds
    # Hidden inside a function it cannot be replaced by its neighbours: then nothing is claimed.
    hidden = pc.strongly_convex(lambda w: jnp.sum(w**2) / 7, Fraction(3, 7), comparator=np.zeros(2))
    confirmation = problem_of(hidden).confirm(np.array([1.0, 0.5]))
    assert not confirmation.holds
    assert "is no float64" in confirmation.note
