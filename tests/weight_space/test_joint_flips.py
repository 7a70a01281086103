"""The joint flip bound: brute force over flip patterns, the linear program it is the dual of, adversarial weights, any nu."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import weight_oracles as oracle
from scipy.optimize import linprog

import proxyconvex as pc
from proxyconvex_checker.errors import CheckError
from proxyconvex_checker.weights import flips as weight_flips

RELUS = [pc.Activation("relu"), pc.Activation("leaky-relu", 0.3)]
named = pytest.mark.parametrize("act", RELUS, ids=lambda a: a.name)


def problem(n, m, d, seed=0):
    rng = np.random.default_rng(seed)
    x, v = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    y, signs = rng.choice([-1.0, 1.0], n), rng.choice([-1.0, 1.0], m)
    return x, y, v, signs, rng


def hurt(w, v, signs, x, y, c, act):
    """``sum_i c_i (y N(V) - tangent margin at w)^+`` at given weights."""
    gap = y * oracle.two_layer(v, signs, x, act) - y * oracle.two_layer_tangent(w, v, signs, x, act)
    return float(c @ np.maximum(gap, 0))


def flips_of(x, y, v, signs, act, c):
    return weight_flips.tabulate(x, y, v, signs, act.slope, np.linalg.norm(x, axis=1), c)


@named
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [0.3, 1.0, 3.0])
def test_never_below_brute_force_over_all_flip_patterns(act, seed, radius):
    x, y, v, signs, rng = problem(4, 3, 3, seed)
    c = rng.random(4)
    bound = pc.joint_flip_bound(v, act, x, y, radius, signs=signs, weights=c)
    exact = oracle.flip_patterns(v, x, y, signs, c, act.slope, radius)
    assert exact <= bound.value * (1 + 1e-12) + 1e-15
    if radius == 3.0:
        assert exact >= 0.3 * bound.value


@named
def test_equals_brute_force_where_nothing_is_relaxed(act):
    """One feature: all samples of a neuron flip together, and a budget that pays for exactly two neurons."""
    x, y = np.array([[1.0], [2.0], [0.5]]), np.ones(3)
    v, signs = np.array([[0.5], [-0.5], [0.5], [9.0]]), np.ones(4)
    c = np.array([0.2, 0.3, 0.5])
    bound = pc.joint_flip_bound(v, act, x, y, np.sqrt(0.5), signs=signs, weights=c)
    exact = oracle.flip_patterns(v, x, y, signs, c, act.slope, np.sqrt(0.5) * (1 + 1e-12))
    assert bound.value == pytest.approx(exact, rel=1e-3)
    assert bound.value >= exact


@named
@pytest.mark.parametrize("radius", [0.2, 1.0, 2.5])
def test_best_nu_reaches_the_linear_program(act, radius):
    """Its dual: choose a prefix per neuron with fractional multiplicity, budget rho^2. Solved by an independent LP solver."""
    x, y, v, signs, rng = problem(7, 6, 3, 4)
    c = rng.random(7)
    gains, costs, rows = [], [], []
    for r in range(len(v)):
        z = np.abs(x @ v[r])
        hurting = np.flatnonzero(y * signs[r] > 0)
        cost = z[hurting] / np.linalg.norm(x[hurting], axis=1)
        order = hurting[np.argsort(cost)]
        for k in range(1, len(order) + 1):
            if np.sort(cost)[k - 1] <= radius:
                gains.append((c[order[:k]] * z[order[:k]]).sum() * (1 - act.slope) / np.sqrt(len(v)))
                costs.append(np.sort(cost)[k - 1] ** 2)
                rows.append(r)
    pick = np.array([[float(r == q) for r in rows] for q in range(len(v))])
    solved = linprog(-np.array(gains), np.vstack([costs, pick]), [radius**2, *np.ones(len(v))])
    bound = pc.joint_flip_bound(v, act, x, y, radius, signs=signs, weights=c)
    assert -solved.fun <= bound.value * (1 + 1e-9)
    assert bound.value <= -solved.fun * (1 + 2e-4)


@named
def test_any_nu_is_valid_and_none_beats_the_best_by_much(act):
    x, y, v, signs, _ = problem(9, 8, 3, 1)
    c = np.full(9, 1 / 9)
    best = pc.joint_flip_bound(v, act, x, y, 1.0, signs=signs, weights=c)
    exact = max(
        hurt(v + move[0], v, signs, x, y, c, act)
        for move in oracle.points_in_ball(np.random.default_rng(0), [v.shape], 1.0, 300)
    )
    for nu in (0.0, best.nu / 3, best.nu, 2 * best.nu, 10.0):
        value = pc.joint_flip_bound(v, act, x, y, 1.0, signs=signs, weights=c, nu=nu).value
        assert exact <= value
        assert value >= best.value * (1 - 2e-4)


@named
@pytest.mark.parametrize("radius", [0.1, 0.7, 2.0])
def test_no_weights_in_the_ball_beat_the_bound(act, radius):
    x, y, v, signs, rng = problem(12, 10, 4, 2)
    c = rng.random(12)
    bound = pc.joint_flip_bound(v, act, x, y, radius, signs=signs, weights=c)
    reached = [
        hurt(v + m[0], v, signs, x, y, c, act) for m in oracle.points_in_ball(rng, [v.shape], radius, 600)
    ]
    # Greedy: spend the budget on the flips with the best gain per cost, row by row.
    z = x @ v.T
    for i in range(12):
        w, left = v.copy(), radius**2
        for r in np.argsort(np.abs(z[i])):
            cost = (z[i, r] / np.linalg.norm(x[i])) ** 2 * (1 + 1e-9)
            if signs[r] * y[i] > 0 and cost <= left:
                w[r] -= z[i, r] * (1 + 1e-10) * x[i] / (x[i] @ x[i])
                left -= cost
        assert np.linalg.norm(w - v) <= radius
        reached.append(hurt(w, v, signs, x, y, c, act))
    assert 0 < max(reached) <= bound.value


def test_unsound_weights_are_refuted():
    """c_i = |loss'(m_i)| / n does not bound the mean loss: the loss is convex, so losing a margin costs more and more.

    One neuron, one row: margin 3, a flip loses all of it; loss(0) - loss(3) = 0.64 but |loss'(3)| * 3 = 0.14.
    """
    v, x, y, act = np.array([[3.0]]), np.array([[1.0]]), np.ones(1), RELUS[0]
    slope = np.array([1 / (1 + np.exp(3.0))])
    wrong = (
        np.log1p(np.exp(-3.0)) + pc.joint_flip_bound(v, act, x, y, 3.0, signs=np.ones(1), weights=slope).value
    )
    space = pc.WeightSpace(pc.TwoLayerNetwork(act, np.ones(1)), pc.Ball(v, 3.0), x, y)
    truth = np.log(2.0)  # at w = 0 the derivative is that of the left side, 0
    assert wrong < truth <= space.bound("tangent-loss")
    assert space.bound("tangent-loss") == pytest.approx(truth, rel=1e-6)


def test_the_maximum_includes_no_flip_at_all():
    """Neurons far from every kink contribute nothing; without k = 0 each would contribute something negative."""
    x, y = np.eye(2), np.ones(2)
    v = np.array([[5.0, 5.0]] * 8)
    bound = pc.joint_flip_bound(v, RELUS[0], x, y, 0.1, signs=np.ones(8), nu=1.0)
    assert bound.value == pytest.approx(0.01, rel=1e-9)
    assert pc.joint_flip_bound(v, RELUS[0], x, y, 0.1, signs=np.ones(8)).value == pytest.approx(
        0.0, abs=1e-12
    )


def test_many_samples_share_buckets_without_losing_soundness(monkeypatch):
    x, y, v, signs, rng = problem(60, 5, 3, 3)
    c = rng.random(60)
    fine = pc.joint_flip_bound(v, RELUS[0], x, y, 1.0, signs=signs, weights=c)
    monkeypatch.setattr(weight_flips, "BUCKETS", 7)
    coarse = pc.joint_flip_bound(v, RELUS[0], x, y, 1.0, signs=signs, weights=c)
    assert fine.value <= coarse.value <= 3 * fine.value


def test_blocks_do_not_matter(monkeypatch):
    x, y, v, signs, rng = problem(20, 30, 3, 3)
    whole = pc.joint_flip_bound(v, RELUS[1], x, y, 1.0, signs=signs)
    monkeypatch.setattr(weight_flips, "BLOCK", 64)
    assert pc.joint_flip_bound(v, RELUS[1], x, y, 1.0, signs=signs).value == pytest.approx(
        whole.value, rel=2e-4
    )
    assert whole.gain > 1
    assert "row by row" in str(whole)


def test_prefix_sums_are_rounded_up():
    x, y, v, signs, rng = problem(40, 6, 3, 5)
    c = rng.random(40)
    table = flips_of(x, y, v, signs, RELUS[0], c)
    for rows, gains, costs in zip(table.neurons, table.gains, table.costs, strict=True):
        assert (np.diff(costs, axis=1) >= 0).all()
        for r, gain, cost in zip(rows, gains, costs, strict=True):
            hurting = [i for i in range(40) if y[i] * signs[r] > 0]
            flips = sorted(
                (abs(v[r] @ x[i]) / np.linalg.norm(x[i]), c[i] * abs(v[r] @ x[i])) for i in hurting
            )
            exact = np.array(list(itertools.accumulate(g for _, g in flips))) / np.sqrt(6)
            assert (gain >= exact * (1 - 1e-15)).all()
            assert gain == pytest.approx(exact, rel=1e-10)
            assert (cost <= np.array([d * d for d, _ in flips]) * (1 + 1e-15)).all()


@pytest.mark.parametrize("nu", [-1e-9, np.nan, np.inf])
def test_a_bad_nu_is_refused(nu):
    x, y, v, signs, _ = problem(4, 3, 2)
    with pytest.raises(CheckError, match="nu"):
        weight_flips.total_decrease(flips_of(x, y, v, signs, RELUS[0], np.ones(4)), nu, 1.0)


def test_refusals():
    x, y, v, signs, _ = problem(4, 3, 2)
    with pytest.raises(pc.InvalidInputError, match="relu or leaky-relu"):
        pc.joint_flip_bound(v, pc.Activation("softplus"), x, y, 1.0, signs=signs)
    with pytest.raises(pc.InvalidInputError, match=">= 0"):
        pc.joint_flip_bound(v, RELUS[0], x, y, 1.0, signs=signs, weights=-np.ones(4))
    with pytest.raises(pc.InvalidInputError, match="targets"):
        pc.joint_flip_bound(v, RELUS[0], x, 2 * y, 1.0, signs=signs)
