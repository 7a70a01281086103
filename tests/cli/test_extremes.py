"""Absurd settings and degenerate data end in one sentence, not in a traceback; a weak promise is called weak."""

from __future__ import annotations

import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.data import Dataset
from proxyconvex.report.repr import audit_text


def two_classes(n: int = 30, positive: int | None = None) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 3))
    order = np.argsort(x[:, 0])
    y = -np.ones(n)
    y[order[n // 2 if positive is None else n - positive :]] = 1.0
    return Dataset("rows", x, y)


EXTREMES = {
    "leak 1e-300": ("leaky-relu-noise", dict(slope=1e-300), "slope=1e-300.*ordinary size"),
    "leak 1e-9": ("leaky-relu-noise", dict(slope=1e-9, steps=5), "beyond the reach of the convex solver"),
    "hinge leak 1e-12": ("leaky-relu-hinge", dict(slope=1e-12, steps=5), "larger --slope"),
    "weights 1e200": ("leaky-relu-noise", dict(init_scale=1e200, steps=5), r"init_scale=1e\+200"),
    "a billion million neurons": ("leaky-relu-hinge", dict(width=10**15), "does not fit in memory"),
    "more steps than time": ("leaky-relu-noise", dict(steps=10**21), r"at most 1e\+15 steps"),
    "output scale 1e200": ("tangent", dict(output_scale=1e200, steps=5), "ordinary size"),
    "one measurement": ("classical", dict(problem="phase-retrieval", measurements=1), "measurements = 1 "),
    "10^8 measurements": (
        "classical",
        dict(problem="phase-retrieval", measurements=10**8),
        r"measurements = 100000000 .*2 to",
    ),
    "10^8 hidden units": (
        "classical",
        dict(problem="linear-network", width=10**8),
        "width = 100000000 .*at most",
    ),
    "beta of relu": ("single-neuron", dict(activation="relu", beta=2.0), "no beta for relu"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", EXTREMES, ids=lambda c: c.replace(" ", "-"))
def test_extreme_settings_are_refused_in_a_sentence(case):
    family, settings, words = EXTREMES[case]
    with pytest.raises(InvalidInputError, match=words):
        pc.plan(two_classes(), family=family, **settings)


def test_an_error_of_the_library_itself_is_not_dressed_up(monkeypatch):
    import proxyconvex.synthesis.plan as module

    def broken(dataset, *, progress=False):
        raise TypeError("a bug")

    monkeypatch.setattr(module, "planner", lambda family: broken)
    with pytest.raises(TypeError, match="a bug"):
        pc.plan(two_classes(), family="leaky-relu-noise")


def test_equal_rows_with_different_labels_leave_no_tangent_direction():
    x = np.random.default_rng(0).standard_normal((10, 3))
    data = Dataset("conflict", np.r_[x, x], np.repeat([-1.0, 1.0], 10))
    with pytest.raises(InvalidInputError, match="equal rows with different labels"):
        pc.plan(data, family="tangent", method="normalised-gd", steps=20, width=16)


def test_features_too_small_for_their_squares_are_refused_by_name():
    x = np.random.default_rng(0).standard_normal((10, 2))
    with pytest.raises(InvalidInputError, match="column 'size'.*above 1e-150"):
        Dataset("tiny", x * [1e-200, 1.0], np.repeat([-1.0, 1.0], 5), columns=("size", "other"))
    assert Dataset("zeros allowed", x * [0.0, 1.0], np.repeat([-1.0, 1.0], 5)).raw[0, 0] == 0


@pytest.mark.parametrize(("positive", "told"), [(1, True), (15, False)])
def test_a_promise_that_one_constant_answer_keeps_says_so(positive, told):
    plan = pc.plan(two_classes(positive=positive), family="two-layer-ntk", width=256, steps=200)
    assert not plan.guarantee.vacuous
    notes = [n for n in plan.notes if "Always answering" in n]
    assert bool(notes) == (plan.guarantee.error_bound >= positive / 30) == told
    if told:
        assert "Always answering '-1' is wrong on 3.333% of these rows" in notes[0]


def test_a_squared_error_is_not_printed_as_a_percentage_of_errors():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 2))
    data = Dataset("numbers", x, np.tanh(x[:, 0]), task="regression")
    plan = pc.plan(data, family="single-neuron", activation="tanh", steps=50)
    text = audit_text(pc.audit(plan, pc.run(plan)))
    assert "mean squared error of the best iterate" in text and "error 0" not in text and "%" not in text
