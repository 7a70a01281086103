"""The smallest C of a single neuron on a range: certified above, refuted below, and never smaller than brute force finds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.families.links import Link
from proxyconvex.synthesis.neuron_range import condition, range_constant
from proxyconvex_checker import single_neuron as checker


def plan(link: Link, seed: int = 0) -> SimpleNamespace:
    """What `range_constant` needs of a plan."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((12, 2))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    v = np.array([[0.5, -0.3]])
    y = link.numpy(x @ v[0]) + 0.2 * rng.standard_normal(12)
    return SimpleNamespace(
        features=x,
        targets=y,
        comparator=v,
        derived={"R": 0.6},
        family=SimpleNamespace(name="single-neuron", activation=link),
    )


@pytest.mark.parametrize(
    "link", [Link("sigmoid", beta=2.0), Link("leaky-relu", 0.5)], ids=["sigmoid", "leaky"]
)
def test_certified_and_refuted_bracket_brute_force(link):
    made = plan(link)
    found = range_constant(made, alphas=[0.25], seconds=4.0)
    assert found.refuted <= found.C <= 1.01 * found.refuted
    a, b, y = (np.linspace(*interval, 61) for interval in (found.a, found.b, found.y))
    a, b, y = np.meshgrid(a, b, y, indexing="ij")
    r, q = link.numpy(a) - y, link.numpy(b) - y
    need = 0.25 * r**2 - link.derivative(a) * r * (a - b)
    assert np.all(need <= 0.25 * found.C * q**2 + 1e-12)
    big = np.abs(q) > 1e-6
    assert np.max(need[big] / (0.25 * q[big] ** 2)) >= 0.9 * found.C

    # The rows of the data need no more than the range: their maxima without the growth term.
    neuron = checker.neuron_of(
        made.features, made.targets, np.zeros((1, 2)), link.describe(), made.comparator
    )
    rows = checker.maxima(neuron, 0.25, 0.0, 0.6)
    risk = np.mean((link.numpy(made.features @ made.comparator[0]) - made.targets) ** 2)
    assert rows.mean() <= 0.25 * found.C * risk * (1 + 1e-3)


def test_the_formula_scales_with_beta():
    """The slack for beta = 3 at (a, b, y) is that of beta = 1 at (3a, 3b, y); softplus also scales y, and the slack by 9."""
    for name, power in (("sigmoid", 0), ("tanh", 0), ("softplus", 2)):
        link = Link(name, beta=3.0)
        made = condition(link, (-1, 1), (-1, 1), (0, 1), 0.25, C=2)
        a, b, y = 0.3, -0.4, 0.7
        s, d = link.numpy(np.array([a, b])), link.derivative(np.array([a, b]))
        by_hand = d[0] * (s[0] - y) * (a - b) - 0.25 * (s[0] - y) ** 2 + 0.5 * (s[1] - y) ** 2
        slack = float(made.slack({"a": 3 * a, "b": 3 * b, "y": (3 if power else 1) * y}))
        assert slack == pytest.approx(3**power * by_hand, rel=1e-9)


def test_what_cannot_be_certified_is_refused():
    with pytest.raises(InvalidInputError, match="Write it with proxyconvex.reduced"):
        condition(Link.custom(np.sin, 1.0), (-1, 1), (-1, 1), (0, 1), 0.25)
    with pytest.raises(InvalidInputError, match="a plan of the family single-neuron"):
        range_constant(SimpleNamespace(family=SimpleNamespace(name="two-layer-ntk")))
