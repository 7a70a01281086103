"""Rank one, phase retrieval, linear networks: certified numbers against NumPy gradients, Hessians and descent by hand; near misses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.data import Dataset
from proxyconvex.families import PROBLEMS, LinearNetwork, PhaseRetrieval, RankOne
from proxyconvex.preprocessing import Preprocessing
from proxyconvex.report.audit import audit
from proxyconvex_checker import linear_network, secant
from proxyconvex_checker.enclosed import Enclosed, moments
from proxyconvex_checker.errors import CheckError
from proxyconvex_checker.single_neuron import neuron_of

IDENTITY = {"name": "leaky-relu", "slope": 1.0, "beta": 1.0}
AS_IT_IS = {"center": False, "unit_norm": False, "bias": 0.0}


def rank_one_formulas(x, y):
    """f, gradient and second derivative of ``||u u^T - M||^2 / 4``, from the matrix."""
    second = x.T @ x / len(x)
    gap = lambda u: np.outer(u, u) - second  # noqa: E731
    return SimpleNamespace(
        f=lambda u: np.sum(gap(u) ** 2) / 4,
        grad=lambda u: gap(u) @ u,
        hess=lambda u: gap(u) + np.outer(u, u) + (u @ u) * np.eye(len(u)),
    )


def phase_formulas(x, y):
    """f, gradient and second derivative of ``mean (<x, w>^2 - y)^2 / 4``, row by row."""
    n = len(x)
    return SimpleNamespace(
        f=lambda w: np.mean(((x @ w) ** 2 - y) ** 2) / 4,
        grad=lambda w: sum(((r @ w) ** 2 - t) * (r @ w) * r for r, t in zip(x, y, strict=True)) / n,
        hess=lambda w: sum((3 * (r @ w) ** 2 - t) * np.outer(r, r) for r, t in zip(x, y, strict=True)) / n,
    )


def rank_one_case(offset=0.0):
    """Rows with a gap in their moments; v is the leading direction, or a point beside it (then grad f(v) is not 0)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 4)) * np.array([2.0, 1.2, 0.7, 0.3])
    values, vectors = np.linalg.eigh(x.T @ x / 30)
    v = np.sqrt(values[-1]) * vectors[:, -1] + offset * vectors[:, 0]
    start = v + 0.4 * np.sqrt(values[-1]) * rng.standard_normal(4) / 2
    return x, np.zeros(30), v, start, {"tau": float(values[-2] / values[-1])}


def phase_case(noise=0.0):
    """Gaussian rows, intensities of v with or without noise."""
    rng = np.random.default_rng(1)
    x, v = rng.standard_normal((900, 3)), np.array([0.7, -0.4, 0.5])
    y = (x @ v) ** 2 + noise * rng.standard_normal(900)
    return x, y, v, v + np.array([0.08, 0.05, -0.03]), {"tau": 1.5, "c": 2.9}


CASES = {
    "rank-one": ("RSIrank", secant.rank_one, rank_one_formulas, rank_one_case()),
    "rank-one-beside": ("RSIrank", secant.rank_one, rank_one_formulas, rank_one_case(0.02)),
    "phase": ("RSIphase", secant.phase_retrieval, phase_formulas, phase_case()),
    "phase-noisy": ("RSIphase", secant.phase_retrieval, phase_formulas, phase_case(1e-3)),
}


@pytest.mark.parametrize("name", CASES)
def test_curvature_on_the_ball_against_second_derivatives_by_hand(name):
    """Secant, mu and L for mean second derivatives between v and points of the ball; the contraction of one step; the value bound."""
    theorem, curvature, formulas, (x, y, v, start, fixed) = CASES[name]
    by_hand, rng = formulas(x, y), np.random.default_rng(2)
    found = curvature(neuron_of(x, y, start[None], IDENTITY, v[None]), fixed)
    m, L, mu = float(found.m), float(found.L), float(found.mu)
    gamma, R = by_hand.grad(v), float(np.linalg.norm(start - v))
    assert m > 0 and found.noise >= np.linalg.norm(gamma) * (1 - 1e-9)
    assert found.opt >= by_hand.f(v) * (1 - 1e-12) and found.opt == pytest.approx(
        by_hand.f(v), rel=1e-6, abs=1e-20
    )
    eta = m / ((L - mu) * m + L * mu)
    made = secant.derive(theorem, x, y, start[None], IDENTITY, v[None], {"T": 50, "eta": eta, **fixed})
    nodes = np.array(
        [0.5 - np.sqrt(3) / 6, 0.5 + np.sqrt(3) / 6]
    )  # exact: second derivatives are quadratic along a line
    points = [
        R * share * e / np.linalg.norm(e)
        for share in (1e-3, 0.3, 0.8, 1)
        for e in rng.standard_normal((12, len(v)))
    ]
    # The worst directions of the formulas: <e, v> = -kappa ||e||^2, towards and away from the other eigenvectors.
    for kappa in (1.5, 1.5 / (1 + fixed["tau"]), 1.125):
        cosine = max(-1.0, -kappa * R / np.linalg.norm(v))
        for other in np.linalg.qr(np.column_stack([v, np.eye(len(v))]))[0].T[1:]:
            e = R * (cosine * v / np.linalg.norm(v) + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other))
            points += [e * (1 - 1e-12)]
    for e in points:
        mean = sum(by_hand.hess(v + t * e) for t in nodes) / 2
        change, s = by_hand.grad(v + e) - gamma, e @ e
        np.testing.assert_allclose(mean @ e, change, rtol=1e-9, atol=1e-12)
        assert change @ e >= m * s * (1 - 1e-12)
        values = np.linalg.eigvalsh(mean)
        assert values[0] >= -mu - 1e-12 and values[-1] <= L + 1e-12
        moved = e - eta * (change + gamma)
        assert np.linalg.norm(moved) <= np.sqrt(made["contraction"]) * np.sqrt(s) + eta * found.noise + 1e-14
        assert by_hand.f(v + e) <= found.opt + found.noise * np.sqrt(s) + L / 2 * s + 1e-15
    w = start.copy()
    for _ in range(50):
        w = w - eta * by_hand.grad(w)
        assert np.linalg.norm(w - v) <= R * (1 + 1e-12)
    assert by_hand.f(w) <= made["bound"] * (1 + 1e-12) and np.linalg.norm(w - v) <= made["reach"] * (1 + 1e-9)


def test_secant_constant_of_rank_one_is_attained():
    """``<e, v> = -(3/2) ||e||^2 / (1 + tau)`` and the second eigenvector: one per cent more is false."""
    values, rho = np.array([2.0, 0.8, 0.3]), 0.5
    x = np.sqrt(3 * values)[:, None] * np.eye(3)
    v, tau = np.array([np.sqrt(2.0), 0.0, 0.0]), 0.4
    p = -1.5 * rho**2 / (1 + tau)
    e = np.array([p / np.sqrt(2.0), np.sqrt(rho**2 - p * p / 2), 0.0])
    found = secant.rank_one(neuron_of(x, np.zeros(3), (v + e)[None], IDENTITY, v[None]), {"tau": tau})
    by_hand = rank_one_formulas(x, None)
    ratio = (by_hand.grad(v + e) - by_hand.grad(v)) @ e / (e @ e)
    assert float(found.m) <= ratio * (1 + 1e-12)
    assert float(found.m) == pytest.approx(ratio, rel=1e-9)
    assert ratio < 1.01 * float(found.m)


def test_secant_constant_of_phase_retrieval_is_nearly_attained():
    """Rows evenly on a circle have Gaussian moments up to a factor: only ``(1/n) sum b^4`` is then bounded with room to spare."""
    angles = 2 * np.pi * np.arange(12) / 12
    x, v, rho = np.column_stack([np.cos(angles), np.sin(angles)]), np.array([1.0, 0.0]), 0.1
    p = -1.125 * rho**2
    e = np.array([p, np.sqrt(rho**2 - p * p)])
    neuron = neuron_of(x, (x @ v) ** 2, (v + e)[None], IDENTITY, v[None])
    found = secant.phase_retrieval(neuron, {"tau": 0.25, "c": 0.375})
    ratio = phase_formulas(x, (x @ v) ** 2).grad(v + e) @ e / (e @ e)
    assert ratio / 1.01 < float(found.m) <= ratio
    assert secant.third_moments(neuron, Enclosed.exactly(x @ v), 0.375) < 1e-12


def test_third_moments_against_the_whole_tensor():
    x, _, v, _, _ = phase_case()
    n, d, c = len(x), 3, 2.0
    tensor = np.einsum("n,ni,nj,nk->ijk", x @ v, x, x, x) / n
    pairs = [np.einsum(f"{a},{b}->ijk", v, np.eye(d)) for a, b in (("i", "jk"), ("j", "ik"), ("k", "ij"))]
    truth = np.linalg.svd((tensor - c / 3 * sum(pairs)).reshape(d, d * d))[1][0]
    neuron = neuron_of(x, (x @ v) ** 2, v[None], IDENTITY, v[None])
    found = secant.third_moments(neuron, Enclosed.exactly(x @ v), c)
    assert truth <= found <= truth * (1 + 1e-9)
    # and it is what bounds |Delta(e, e, e)| and ||Delta(e, ., .)||
    delta, e = tensor - c / 3 * sum(pairs), np.array([0.2, -0.9, 0.4])
    assert np.linalg.norm(np.einsum("ijk,i->jk", delta, e), 2) <= found * np.linalg.norm(e)


def test_enclosed_matrices_contain_exact_results():
    from fractions import Fraction

    rng = np.random.default_rng(3)
    x, c = rng.standard_normal((7, 3)), 1 / 3
    exact = [
        [sum(Fraction(r[i]) * Fraction(r[j]) for r in x.tolist()) / 7 for j in range(3)] for i in range(3)
    ]
    made = (moments(Enclosed.exactly(x)) - Enclosed.outer(x[0])) * c
    for i in range(3):
        for j in range(3):
            truth = (exact[i][j] - Fraction(x[0, i]) * Fraction(x[0, j])) * Fraction(c)
            assert abs(truth - Fraction(made.value[i, j])) <= Fraction(made.error[i, j])
    values = np.linalg.eigvalsh(moments(Enclosed.exactly(x)).value)
    assert values[0] * (1 - 1e-9) <= moments(Enclosed.exactly(x)).bottom() <= values[0]
    shifted = Enclosed.exactly(np.diag([1.0, -2.0, 0.5]))
    assert -2 - 1e-9 <= shifted.bottom() <= -2 and 1 <= shifted.top() <= 1 + 1e-9


# --- linear networks -------------------------------------------------------------------------------------------------


def network_case():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((25, 3)) @ np.diag([1.0, 0.7, 0.5])
    y = x @ np.array([0.4, -0.3, 0.2]) + 0.1 * rng.standard_normal(25)
    return Dataset("numbers", x, y, task="regression")


def network_formulas(x, y, w):
    layer, a = w[:, :-1], w[:, -1]
    r = x @ (layer.T @ a) - y
    g = x.T @ r / len(x)
    return r @ r / (2 * len(x)), np.column_stack([np.outer(a, g), layer @ g])


def test_linear_network_on_its_ball():
    """PL at random points of the ball, curvature by finite differences where f is small, the path of a run, the promise."""
    data = network_case()
    plan = pc.plan(data, family="classical", problem="linear-network", width=4, steps=3000,
                   preprocessing=Preprocessing((0, 1, 2), scale="none", **AS_IT_IS))  # fmt: skip
    x, y, w0, d = plan.features, data.targets, plan.initial, plan.derived
    radius = plan.theorem_params["radius"]
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    least = np.mean((x @ best - y) ** 2) / 2
    assert d["gap"] >= network_formulas(x, y, w0)[0] - least > 0.9 * d["gap"]
    np.testing.assert_allclose(plan.comparator[:, :-1].T @ plan.comparator[:, -1], best, rtol=1e-9)
    rng = np.random.default_rng(5)
    for k in range(200):
        e = rng.standard_normal(w0.shape)
        w = w0 + radius * (1.0 if k % 2 else rng.random() ** 3) * e / np.linalg.norm(e)
        value, grad = network_formulas(x, y, w)
        assert np.sum(grad**2) >= 2 * d["m"] * (value - least) * (1 - 1e-9)
        if value <= d["initial_loss"]:
            u, h = rng.standard_normal(w0.shape), 1e-4
            u /= np.linalg.norm(u)
            bend = np.sum(
                u * (network_formulas(x, y, w + h * u)[1] - network_formulas(x, y, w - h * u)[1])
            ) / (2 * h)
            assert abs(bend) <= d["L"] * (1 + 1e-6)
    w, path, eta = w0.copy(), 0.0, plan.method.step.eta
    for t in range(3000):
        value, grad = network_formulas(x, y, w)
        assert value - least <= np.exp(-eta * d["m"] * t) * d["gap"] * (1 + 1e-9) + 1e-15
        path += eta * np.linalg.norm(grad)
        w = w - eta * grad
    assert path < radius and 2 * network_formulas(x, y, w)[0] <= plan.guarantee.bound * (1 + 1e-12)
    run = pc.run(plan)
    np.testing.assert_allclose(run.final_w, w, rtol=1e-9, atol=1e-12)


def test_pl_constant_of_the_network_is_attained_at_the_inner_end_of_the_ball():
    """One feature, hidden weights zero: ``||grad f||^2 = 2 l a^2 (f - f*)``, and a may shrink by the radius."""
    x, y = np.array([[1.0], [-2.0], [0.5]]), np.array([0.3, -0.6, 0.15])
    w0, params = np.array([[0.0, 6.0]]), {"T": 10, "eta": 1e-3, "radius": 1.5}
    made = linear_network.derive("PLnet", x, y, w0, IDENTITY, np.array([[0.05, 6.0]]), params)
    value, grad = network_formulas(x, y, np.array([[0.0, 4.5]]))
    assert np.sum(grad**2) == pytest.approx(2 * made["m"] * value, rel=1e-8)
    assert np.sum(grad**2) < 2 * 1.01 * made["m"] * value
    short = {**params, "radius": 0.01}
    with pytest.raises(CheckError, match="is not above 8"):
        linear_network.derive("PLnet", x, y, w0, IDENTITY, w0, short)


# --- plans, runs, audits, certificates -----------------------------------------------------------------------------


def rows():
    rng = np.random.default_rng(6)
    y = np.where(np.arange(40) % 2, 1.0, -1.0)
    return Dataset("classes", rng.standard_normal((40, 3)) + y[:, None] * np.array([1.0, 0.2, 0]), y)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_plans_runs_and_certificates(problem, tmp_path):
    data = rows()
    plan = pc.plan(data, family="classical", problem=problem, seed=3)
    run = pc.run(plan)
    result, g = audit(plan, run), plan.guarantee
    assert result.consistent, [c for c in result.checks if not c.ok]
    assert plan.alternatives and all(a.reason and not a.accepted for a in plan.alternatives)
    assert not g.vacuous and g.evidence.name == "CERTIFIED"
    x, y, w = plan.features, plan.targets, run.final_w
    if problem == "linear-network":
        value = np.mean((x @ (w[:, :-1].T @ w[:, -1]) - y) ** 2)
    else:
        value = (rank_one_formulas if problem == "rank-one" else phase_formulas)(x, y).f(w[0])
    assert result.measured["value"] == pytest.approx(value, rel=1e-9, abs=1e-18) and value <= g.bound
    if problem == "rank-one":  # Eckart and Young: nothing of rank one is nearer
        second = x.T @ x / len(x)
        assert value >= np.sum(np.linalg.eigvalsh(second)[:-1] ** 2) / 4 * (1 - 1e-12)
    verdict = pc.verify(pc.write_certificate(plan, tmp_path))
    assert verdict.accepted, verdict.steps[-1]
    again = pc.plan(data, family="classical", problem=problem, seed=3)
    assert again.initial.tobytes() == plan.initial.tobytes() and again.dataset.digest == plan.dataset.digest
    other = pc.plan(data, family="classical", problem=problem, seed=4)
    assert other.initial.tobytes() != plan.initial.tobytes()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_gradients_are_those_of_the_formulas(problem):
    """Autodiff of the recorded problem against NumPy, and the recorded proxies."""
    plan = pc.plan(rows(), family="classical", problem=problem, seed=1, steps=5)
    made, w = plan.problem(), plan.initial + 0.01
    with jax.enable_x64(True):
        loss, q, grad = made.loss_grad(w, plan.features, plan.targets)
        g, h = (np.asarray(part) for part in made.proxy(w, q, plan.features, plan.targets))
    if problem == "linear-network":
        value, slope = network_formulas(plan.features, plan.targets, w)
        assert np.mean(g) == pytest.approx(value) and np.mean(h) == pytest.approx(
            plan.derived["opt"], rel=1e-6
        )
    else:
        by_hand = (rank_one_formulas if problem == "rank-one" else phase_formulas)(
            plan.features, plan.targets
        )
        value, slope = by_hand.f(w[0]), by_hand.grad(w[0])[None]
        distance = np.linalg.norm(w - plan.comparator)
        np.testing.assert_allclose(g, plan.derived["m"] * distance**2, rtol=1e-12)
        np.testing.assert_allclose(h, plan.derived["noise"] * distance, rtol=1e-12)
    assert float(loss) == pytest.approx(value, rel=1e-11)
    np.testing.assert_allclose(grad, slope, rtol=1e-9, atol=1e-12)


def line_plan():
    """One feature, start at a third of the solution: there ``<e, v> = -(3/2) ||e||^2``, and the secant inequality is an equality."""
    x = np.array([[1.0], [-2.0], [0.5]])
    data = Dataset("line", x, np.array([1.0, 2.0, 3.0]), task="regression")
    return pc.plan(data, family="classical", problem="rank-one", init_scale=1 / 3, steps=40,
                   preprocessing=Preprocessing((0,), scale="none", **AS_IT_IS))  # fmt: skip


def test_constants_one_per_cent_off_are_reported():
    plan = line_plan()
    run = pc.run(plan)
    assert audit(plan, run).consistent
    stronger = {**plan.proxy, "secant": 1.01 * plan.proxy["secant"]}
    wrong = replace(plan, proxy=stronger)
    assert {c.name for c in audit(wrong, pc.run(wrong)).checks if not c.ok} == {"proxy-convexity"}
    nearer = replace(plan, derived={**plan.derived, "R": 0.99 * plan.derived["R"]})
    assert {c.name for c in audit(nearer, run).checks if not c.ok} >= {"start-distance", "region"}
    distance = np.sqrt(run.dist_sq)
    faster = {**plan.derived, "contraction": 0.99 * float(np.max((distance[1:8] / distance[:7]) ** 2))}
    assert "region" in {c.name for c in audit(replace(plan, derived=faster), run).checks if not c.ok}


def test_network_constants_off_are_reported():
    plan = pc.plan(rows(), family="classical", problem="linear-network", steps=400)
    run = pc.run(plan)
    pl = run.grad_sq / 2 / (run.loss - plan.derived["opt"])
    too_strong = {**plan.derived, "m": 1.01 * float(np.nanmin(pl[:-1]))}
    assert "proxy-pl" in {c.name for c in audit(replace(plan, derived=too_strong), run).checks if not c.ok}
    moved = float(np.linalg.norm(run.final_w - run.initial))
    small = replace(plan, theorem_params={**plan.theorem_params, "radius": 0.99 * moved})
    assert {c.name for c in audit(small, run).checks if not c.ok} == {"region"}


def test_starts_are_what_they_say():
    data = rows()
    x = Preprocessing((0, 1, 2), scale="none", **AS_IT_IS).apply(data.raw)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    start = RankOne(0.5, 7).start(x, data.targets)[0]
    assert abs(start @ vectors[:, -1]) == pytest.approx(0.5 * np.sqrt(values[-1]), rel=1e-9)
    y = (x @ np.array([1.0, 2.0, 0.5])) ** 2
    top = np.linalg.eigh((x * y[:, None]).T @ x)[1][:, -1]
    start = PhaseRetrieval(1.0, 7).start(x, y)[0]
    assert np.linalg.norm(start) == pytest.approx(np.sqrt(np.mean(y))) and abs(start @ top) == pytest.approx(
        np.linalg.norm(start), rel=1e-6
    )
    weights = LinearNetwork(2.0, 7, 5).initial(3)
    assert weights.shape == (5, 4) and not weights[:, :-1].any()
    np.testing.assert_array_equal(
        weights[:, -1], 2 * np.random.Generator(np.random.PCG64(7)).standard_normal(5)
    )


def test_why_other_theorems_do_not_apply():
    """At zero the gradients vanish and the second derivatives are not positive semidefinite."""
    x, y, v, *_ = phase_case()
    zero = np.zeros(3)
    for by_hand, curvature in (
        (rank_one_formulas(x, y), -x.T @ x / len(x)),
        (phase_formulas(x, y), -(x * y[:, None]).T @ x / len(x)),
    ):
        assert not by_hand.grad(zero).any() and by_hand.f(zero) > by_hand.f(v)
        np.testing.assert_allclose(by_hand.hess(zero), curvature, rtol=1e-9)
    assert not network_formulas(x, y, np.zeros((2, 4)))[1].any()


def test_what_cannot_be_certified_is_refused():
    tied = Dataset("tied", np.vstack([np.eye(3), -np.eye(3)]), np.arange(6.0), task="regression")
    keep = Preprocessing((0, 1, 2), scale="none", **AS_IT_IS)
    wide = Dataset(
        "wide", np.random.default_rng(8).standard_normal((4, 300)), np.arange(4.0), task="regression"
    )
    thin = Dataset("thin", np.array([[1.0, 1.0], [2.0, 2.0], [0.5, 0.5]]), np.arange(3.0), task="regression")
    for data, options, word in (
        (tied, {"problem": "rank-one", "preprocessing": keep}, "two largest eigenvalues"),
        (rows(), {"problem": "rank-one", "init_scale": 1e-6}, "two largest eigenvalues"),
        (rows(), {"problem": "rank-one", "init_scale": 0.0}, "a finite number > 0"),
        (rows(), {"problem": "phase-retrieval", "measurements": 8}, "double the number"),
        (wide, {"problem": "phase-retrieval"}, "at most 200"),
        (rows(), {"problem": "linear-network", "init_scale": 0.1}, "no ball around the start"),
        (rows(), {"problem": "linear-network", "width": 0}, "width"),
        (thin, {"problem": "linear-network"}, "certainly not singular"),
        (rows(), {"problem": "matrix"}, "rank-one, phase-retrieval, linear-network"),
        (rows(), {"width": 3}, "except for --problem linear-network"),
        (rows(), {"problem": "rank-one", "measurements": 3}, "except for --problem phase-retrieval"),
    ):
        with pytest.raises(InvalidInputError, match=word):
            pc.plan(data, family="classical", **options)


def test_the_checker_refuses_steps_and_starts_outside_its_theorems():
    x, y, v, start, fixed = rank_one_case()
    good = {"T": 20, "eta": 0.05, **fixed}
    secant.derive("RSIrank", x, y, start[None], IDENTITY, v[None], good)
    for change, w, word in (
        ({"eta": 2.0}, start, "too long"),
        ({"tau": -0.1}, start, "negative"),
        ({"eta": -1.0}, start, "not a positive"),
        ({}, 0 * start, "is not positive"),
    ):
        with pytest.raises(CheckError, match=word):
            secant.derive("RSIrank", x, y, w[None], IDENTITY, v[None], {**good, **change})
    beside = v + 0.3
    with pytest.raises(CheckError, match="stay in the ball"):
        secant.derive("RSIrank", x, y, (beside + 1e-3)[None], IDENTITY, beside[None], good)
    with pytest.raises(CheckError, match="no theorem"):
        secant.derive("T3", x, y, start[None], IDENTITY, v[None], good)
