"""Shrinking: simple numbers, few coordinates, and still a violation."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.checks.falsify.posed import problem_of
from proxyconvex.checks.falsify.shrink import Shrinker, cost, costs, simpler_values


def test_the_cost_orders_numbers_as_people_do():
    ordered = [0.0, 1.0, -1.0, 2.0, 3.0, 0.5, 0.25, 0.75, 0.1]
    values = cost(np.array(ordered))
    assert (np.diff(values) >= 0).all()
    assert values[0] == 0
    assert cost(np.array([1e-7, 0.3])).min() > 50
    assert costs(np.array([[0.0, 1.0], [0.5, 0.5]])).tolist() == [1.0, 6.0]


@pytest.mark.parametrize("x", [0.3, -2.718, 1e-9, 700.0])
def test_simpler_values_are_simpler_and_sorted(x):
    values = simpler_values(x, [1.5])
    assert (cost(values) < cost(np.array([x]))).all()
    assert (np.diff(cost(values)) >= 0).all()
    assert 0.0 in values


def _shrunk(f, start, **where):
    condition = pc.BoundedBelow(0, f=f, **where)
    problem = problem_of(condition, like=np.zeros(len(start)))
    shrinker = Shrinker(problem, 20_000)
    point = shrinker.run(np.array(start))
    assert problem.values(point[None]).slack[0] < 0
    return point


def test_needless_coordinates_become_zero():
    # Only the sum of two coordinates matters, and it must be above one.
    point = _shrunk(lambda w: 1 - w[3] - w[7], np.random.default_rng(0).normal(size=20) + 3)
    assert np.count_nonzero(point) == 1
    assert point.max() == 2.0


def test_a_narrow_window_is_kept():
    point = _shrunk(lambda w: jnp.abs(w[0] - 0.3141) - 1e-3, [0.3141592653589793, 5.0])
    assert abs(point[0] - 0.3141) < 1e-3
    assert point[1] == 0
    assert cost(point)[0] < 30  # seventeen digits have become a short binary fraction


def test_the_witness_stays_in_the_region():
    ball = pc.Ball(np.array([3.3, 0.0]), 0.25)
    point = _shrunk(lambda w: -1.0 - 0 * w[0], [3.31, 0.01], region=ball)
    assert ball.contains(point)
    assert point.tolist() == [3.5, 0.0]


def test_nothing_to_shrink_leaves_the_point_alone():
    problem = problem_of(pc.BoundedBelow(0, f=lambda w: w @ w), like=np.zeros(2))
    start = np.array([0.123, 4.5])
    assert Shrinker(problem, 1000).run(start) is start


def test_the_budget_is_kept():
    problem = problem_of(pc.BoundedBelow(0, f=lambda w: 1 - jnp.sum(w**2)), like=np.zeros(50))
    shrinker = Shrinker(problem, 100)
    shrinker.run(np.random.default_rng(0).normal(size=50))
    assert shrinker.evaluations < 100 + 256
