"""One budget for all parts of a check, with a clock that only moves when a piece of work is done."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
from rich.console import Console

import proxyconvex as pc
from proxyconvex.checks import deadline
from proxyconvex.checks.certify import search
from proxyconvex.checks.certify.certify import certify
from proxyconvex.checks.certify.program import Program
from proxyconvex.checks.deadline import Deadline, OutOfTime
from proxyconvex.checks.falsify.reduced import ReducedProblem
from proxyconvex.checks.falsify.shrink import Shrinker
from proxyconvex.checks.translate.machine import Symbolic
from proxyconvex.cli_check import Session
from proxyconvex.core.evidence import Status

PIECE = 0.5
"""Seconds that each piece of work takes on the clock of these tests."""


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; ``clock.costs(owner, name)`` lets every call of a function take a piece of time."""

    class Clock:
        now = 1000.0
        pieces: dict[str, int] = {}

        def __call__(self):
            return self.now

        def costs(self, owner, name):
            original = getattr(owner, name)

            @functools.wraps(original)
            def slow(*args, **kwargs):
                self.now += PIECE
                self.pieces[name] = self.pieces.get(name, 0) + 1
                return original(*args, **kwargs)

            monkeypatch.setattr(owner, name, slow)

    made = Clock()
    made.pieces = {}
    monkeypatch.setattr(deadline, "clock", made)
    return made


def endless():
    """True, zero on a curve that no test of this package removes: the branch and bound never ends."""
    return pc.reduced(
        lambda a, b, c, s: (s(a) * s(b)) ** 2 - s(a) * s(b) * s(c) + s(c) ** 2 / 4,
        activation="sigmoid",
        a=(-1, 1),
        b=(-1, 1),
        c=(-1, 1),
    )


def test_parts_of_a_deadline(clock):
    whole = Deadline.after(10)
    half = whole.part(0.5)
    assert (whole.left, half.left, Deadline().over) == (10, 5, False)
    clock.now += 6
    assert half.over and not whole.over
    with pytest.raises(OutOfTime):
        half.check()


def test_search_and_bound_share_the_time_of_a_certification(clock):
    clock.costs(search, "examine")
    clock.costs(Program, "centred")
    begin = clock.now
    verdict = certify(endless(), seconds=20, solver="boxes")
    assert verdict.status is Status.INCONCLUSIVE and verdict.delta > 0
    assert 18 <= clock.now - begin <= 20 + 2 * PIECE  # a chunk is a mean-value form, too
    assert clock.pieces["examine"] > 5


def test_a_translation_that_takes_too_long_is_given_up(clock):
    clock.costs(Symbolic, "_apply")
    condition = pc.BoundedBelow(0, f=lambda w: ((w * w).sum() - 1) ** 2, region=pc.Box([-1, -1], [1, 1]))
    begin = clock.now
    verdict = certify(condition, seconds=1)
    assert verdict.status is Status.INCONCLUSIVE and "writing the formula down" in verdict.sentence
    assert clock.now - begin <= 1 + PIECE


def test_one_budget_for_the_whole_check(clock, tmp_path):
    for owner, name in ((search, "examine"), (Program, "centred"), (ReducedProblem, "values")):
        clock.costs(owner, name)
    begin = clock.now
    session = Session(
        endless(), None, str(tmp_path / "some.py:cond"), 30.0, 0, 1, None, False, "fixed", Console(file=io.StringIO()), False
    )  # fmt: skip
    verdict = session.run()
    assert verdict.status is Status.INCONCLUSIVE
    assert clock.pieces["values"] * PIECE <= 30 / 4 + 2 * PIECE  # the search has a quarter
    assert 27 <= clock.now - begin <= 30 + 2 * PIECE


def test_shrinking_has_what_the_search_leaves(clock, monkeypatch):
    cond = pc.reduced(lambda a, b: (a - 0.3) ** 2 + (b - 0.7) ** 2 - 0.01, a=(-1, 1), b=(-1, 1))
    clock.costs(ReducedProblem, "values")
    begin = clock.now
    seen = []
    original = Shrinker.run
    monkeypatch.setattr(Shrinker, "run", lambda self, x: (seen.append(clock.now), original(self, x))[1])
    verdict = pc.falsify(cond, seconds=6, search_seconds=5)
    assert verdict.status is Status.FALSIFIED and len(seen) == 1
    assert clock.now > seen[0]
    assert clock.now - begin <= 6 + PIECE
    assert np.all(np.abs(verdict.witness["flat"]) <= 1)
