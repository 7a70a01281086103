"""Processes for the branch and bound: the same outcomes in the same order, also after an abandoned level and a death."""

from __future__ import annotations

import time

import condition_zoo as zoo
import numpy as np
import pytest

from proxyconvex.checks.certify import workers as module
from proxyconvex.checks.certify.certify import Problem
from proxyconvex.checks.certify.lattice import Boxes
from proxyconvex.checks.certify.search import serial
from proxyconvex.checks.certify.ways import Way
from proxyconvex.checks.certify.workers import Workers


def chunks_of(problem, seed, count=12):
    rng = np.random.default_rng(seed)
    low = rng.uniform(problem.lo[0], problem.hi[0], (count * 40, problem.lo.shape[1]))
    boxes = Boxes.of(low, np.minimum(low + 0.1, problem.hi[0]))
    return [(boxes.part(slice(s, s + 40)),) for s in range(0, count * 40, 40)]


@pytest.fixture
def workers():
    made = Workers(2)
    made.workers, made.started = [module._Worker() for _ in range(2)], True
    until = time.monotonic() + 120
    while not all([w.is_ready() for w in made.workers]) and time.monotonic() < until:
        time.sleep(0.05)
    assert all(w.alive for w in made.workers)
    yield made
    made.close()


@pytest.fixture
def problem():
    return Problem.make(zoo.p2(), 0, "own")


def same(found, expected):
    found = list(found)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a.codes, b.codes)
        assert np.array_equal(a.lower, b.lower)
        assert np.array_equal(a.score, b.score)
        assert (a.refuted is None) == (b.refuted is None)
        if a.refuted is not None and b.refuted is not None:
            assert a.refuted[0] == b.refuted[0] and np.array_equal(a.refuted[1], b.refuted[1])


def test_processes_change_nothing_and_are_used(workers, problem, monkeypatch):
    task, chunks = problem.task(problem.ways()[0]), chunks_of(problem, 0)
    expected = list(serial(task, chunks))

    def refuse(task, chunks):
        raise AssertionError("nothing should be examined here")

    monkeypatch.setattr(module, "serial", refuse)
    same(workers(task, chunks), expected)


def test_new_intervals_reach_the_processes(workers, problem):
    task = problem.task(Way())
    boxes = Boxes.of(problem.lo, problem.hi)
    for level in range(9):
        chunks = [(boxes.part(slice(s, s + 40)),) for s in range(0, len(boxes), 40)]
        if len(chunks) > 4:
            same(workers(task, chunks), list(serial(task, chunks)))
        boxes = boxes.halved(np.full(len(boxes), level % 3, np.uint8))


def test_answers_of_an_abandoned_level_are_dropped(workers, problem):
    first, second = problem.task(problem.ways()[0]), problem.task(Way())
    begun = workers(first, chunks_of(problem, 1))
    next(begun)
    begun.close()  # as when the time runs out: answers to other boxes are on their way
    chunks = chunks_of(problem, 2)
    same(workers(second, chunks), list(serial(second, chunks)))


def test_a_process_that_dies_changes_nothing(workers, problem):
    task, chunks = problem.task(Way()), chunks_of(problem, 3)
    workers.workers[0].process.kill()
    workers.workers[0].process.wait()
    same(workers(task, chunks), list(serial(task, chunks)))
    assert not workers.workers[0].alive
    same(workers(task, chunks), list(serial(task, chunks)))


def test_an_error_of_a_process_is_raised(workers, problem):
    bad = [(Boxes.of(np.zeros((3, 1)), np.ones((3, 1))),)] * 8
    with pytest.raises(IndexError):
        list(workers(problem.task(Way()), bad))
