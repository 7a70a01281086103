"""Regions: membership, distances, intersections, pull-backs and refusals."""

import math
from fractions import Fraction
from fractions import Fraction as F

import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.regions import Ball, Intersection, PerNeuronBalls, Product, WholeSpace

BALL = Ball([1.0, 0.0], 2.0)


def test_ball_contains_and_distance():
    assert BALL.contains([3.0, 0.0]) and not BALL.contains([3.0, 1e-3])
    assert BALL.distance_to_boundary([1.0, 1.5]) == 0.5
    assert BALL.distance_to_boundary([1.0, 3.0]) == -1.0


def test_ball_decides_exact_points_exactly():
    edge = Ball([F(0)], F(1, 3))
    assert edge.contains([F(1, 3)]) and not edge.contains([F(1, 3) + F(1, 10**40)])


def test_covers_ball_is_not_fooled_by_rounding():
    assert Ball([0.0], 1.0).covers_ball([0.25], 0.75)
    assert not Ball([0.0], 1.0).covers_ball([0.25], F(3, 4) + F(1, 10**30))
    big = Ball(np.zeros(10_000), 1.0)
    assert big.covers_ball(np.zeros(10_000), 1.0)
    assert big.covers_ball(np.full(10_000, 1e-3), 0.899) and not big.covers_ball(
        np.full(10_000, 1e-3), 0.9000001
    )


def test_per_neuron_balls():
    region = PerNeuronBalls(np.zeros((2, 2)), [1.0, 2.0])
    assert region.contains([[0.0, 1.0], [2.0, 0.0]]) and not region.contains([[0.0, 1.1], [0.0, 0.0]])
    assert region.distance_to_boundary([[0.5, 0.0], [0.0, 0.0]]) == 0.5
    assert region.covers_ball(np.zeros((2, 2)), 1.0) and not region.covers_ball(np.zeros((2, 2)), 1.1)


def test_product_splits_the_parameters():
    region = Product((Ball([0.0], 1.0), WholeSpace()))
    assert region.contains(([0.5], [9.0])) and not region.contains(([1.5], [0.0]))
    assert region.distance_to_boundary(([0.5], [9.0])) == 0.5


def test_intersections_simplify():
    small = Ball([1.0, 0.0], 1.0)
    assert BALL.intersect(WholeSpace()) is BALL and WholeSpace().intersect(BALL) is BALL
    assert BALL.intersect(small) is small
    both = BALL.intersect(Ball([0.0, 0.0], 2.0))
    assert isinstance(both, Intersection) and both.contains([0.5, 0.0]) and not both.contains([2.5, 0.0])
    assert both.distance_to_boundary([0.0, 0.0]) == 1.0
    assert len(both.intersect(Ball([5.0, 5.0], 9.0)).parts) == 3


def test_pullback_agrees_with_mapping_forward():
    rng = np.random.default_rng(3)
    m, b = rng.standard_normal((2, 3)), rng.standard_normal(2)
    region = BALL.pullback(m, b)
    for u in rng.standard_normal((200, 3)):
        assert region.contains(u) == BALL.contains(m @ u + b)
        inside = region.distance_to_boundary(u)
        if inside > 0:
            around = rng.standard_normal((20, 3))
            around *= inside / np.linalg.norm(around, axis=1, keepdims=True)
            assert all(BALL.distance_to_boundary(m @ (u + e) + b) > -1e-12 for e in around)
    assert region.covers_ball(np.zeros(3), 1e-6) == BALL.contains(b)
    assert WholeSpace().pullback(m, b).distance_to_boundary(b) == math.inf


BAD = {
    "negative radius": lambda: Ball([0.0], -1.0),
    "zero radius": lambda: Ball([0.0], 0),
    "infinite radius": lambda: Ball([0.0], math.inf),
    "NaN centre": lambda: Ball([math.nan], 1.0),
    "text centre": lambda: Ball("here", 1.0),
    "empty centre": lambda: Ball([], 1.0),
    "vector for neurons": lambda: PerNeuronBalls([0.0, 1.0], 1.0),
    "too many radii": lambda: PerNeuronBalls(np.zeros((2, 2)), [1.0, 1.0, 1.0]),
    "no parts": lambda: Product(()),
    "not a region": lambda: BALL.intersect(3),
    "map of wrong shape": lambda: BALL.pullback(np.eye(2), [0.0]),
    "point of wrong length": lambda: Product((BALL,)).contains(([0.0], [1.0])),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_is_refused_with_what_is_accepted(case):
    with pytest.raises(InvalidInputError, match="is not accepted; accepted:"):
        BAD[case]()


def test_boxes_are_decided_exactly_and_cover_what_fits():
    box = pc.Box([0.0, -1.0], [1.0, 3.0])
    assert box.contains([1.0, 3.0]) and not box.contains([np.nextafter(1.0, 2.0), 0.0])
    assert box.contains([Fraction(1), Fraction(-1)]) and not box.contains([Fraction(10**20 + 1, 10**20), 0])
    assert box.distance_to_boundary([0.5, 1.0]) == 0.5
    assert box.distance_to_boundary([4.0, 7.0]) == -5.0
    assert box.covers_ball([0.5, 1.0], 0.5) and not box.covers_ball([0.5, 1.0], 0.5000001)
    assert not box.covers_ball([0.5], 0.1)
    assert np.array_equal(box.center, [0.5, 1.0])
    assert str(box) == "the box [0, 1] x [-1, 3]"
    assert pc.Box(0.0, np.ones((2, 2))).low.shape == (2, 2)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [([0, 0], [1, 0], "low < high"), ([0, 0], [1, 1, 1], "arrays of one shape"), ([0.0], [np.inf], "finite"), ({"a": np.zeros(1)}, {"a": np.ones(1)}, "Product of one Box")],
)  # fmt: skip
def test_bad_boxes_are_refused(low, high, message):
    with pytest.raises(pc.InvalidInputError, match=message):
        pc.Box(low, high)


def test_a_search_stays_in_a_box():
    """The minimum on the box is at a corner; below it nothing is found, above it something inside is."""
    box = pc.Box([0.0, -1.0], [1.0, 3.0])
    f = lambda w: w[0] + 2 * w[1]  # noqa: E731
    assert pc.falsify(pc.BoundedBelow(-2.0, f=f, region=box), budget=5_000).status is pc.Status.NOT_FALSIFIED
    found = pc.falsify(pc.BoundedBelow(-1.99, f=f, region=box), budget=5_000)
    assert found.status is pc.Status.FALSIFIED and box.contains(found.witness["point"]["w"])
