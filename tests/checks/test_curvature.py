"""Second derivatives on boxes: library and checker enclose closed forms, know kinks, and never call an indefinite matrix semi-definite."""

from __future__ import annotations

import flint
import numpy as np
import pytest

from proxyconvex.checks.certify import curvature
from proxyconvex.checks.certify.program import Program
from proxyconvex.checks.intervals.arrays import Own
from proxyconvex.core.arithmetics import evaluate
from proxyconvex.core.expression_rows import instructions
from proxyconvex.core.expressions import HELPERS, binary, derivative, power, select, variable
from proxyconvex_checker.boxes import curvature as theirs
from proxyconvex_checker.boxes import expressions as their_rows

A, B = variable("a"), variable("b")
H = HELPERS
SMOOTH = {
    "polynomial": power(A, 3) * B - 4 * A * B + power(B, 5) / 3,
    "softplus": H["softplus"](2 * A - B) * A,
    "sigmoid": H["sigmoid"](A * B) / (2 + H["sigmoid"](B)),
    "bump": H["bump"](A + B) * H["tanh"](A),
    "exponential": H["exp"](A - power(B, 2)) + H["log"](3 + A) * H["log1p"](power(B, 2)),
    "root": H["sqrt"](5 + A * B) / (4 + A),
    "quotient": (A - B) / (1 + power(A, 2) + power(B, 2)),
}


def both(e, lo, hi):
    """The 2 x 2 second derivatives by library and checker."""
    program = Program([e], ["a", "b"], Own())
    with np.errstate(all="ignore"):
        ours = curvature.Second(program, lo, hi, (0, 1)).matrix()
        rows = their_rows.rows(instructions(e), "e")
        other = theirs.Second(rows, lo, hi, {"a": 0, "b": 1}, ["a", "b"]).matrix()
    return ours, other


def boxes(seed=0, n=40):
    rng = np.random.default_rng(seed)
    lo = rng.uniform(-1, 1, (n, 2))
    hi = lo + 10.0 ** rng.uniform(-6, -0.5, (n, 1)) * rng.random((n, 2))
    lo[:3], hi[:3] = -1.0, 1.0
    return lo, hi, rng


@pytest.mark.parametrize("name", SMOOTH)
def test_enclosures_contain_symbolic_derivatives_in_300_bits(name):
    e = SMOOTH[name]
    lo, hi, rng = boxes()
    matrices = both(e, lo, hi)
    symbolic = [[derivative(derivative(e, p), q) for q in ("a", "b")] for p in ("a", "b")]
    for k in range(len(lo)):
        for x in (lo[k], hi[k], rng.uniform(lo[k], hi[k])):
            with flint.ctx.workprec(300):
                at = {"a": flint.arb(float(x[0])), "b": flint.arb(float(x[1]))}
                for i in range(2):
                    for j in range(2):
                        true = evaluate(symbolic[i][j] + 0 * A, at)
                        for matrix in matrices:
                            low, high = (float(end[k]) for end in matrix[i][j])
                            assert np.isnan(low) or flint.arb(low) <= true, (name, k, i, j)
                            assert np.isnan(high) or true <= flint.arb(high), (name, k, i, j)


@pytest.mark.parametrize("name", SMOOTH)
def test_enclosures_close_in(name):
    """On tiny boxes both enclosures are narrow: nothing is lost by being unknown."""
    lo = np.full((1, 2), 0.3)
    for matrix in both(SMOOTH[name], lo, lo + 1e-9):
        assert max(float((m[1] - m[0])[0]) for row in matrix for m in row) < 1e-6


KINKED = {
    "relu": H["relu"](A) * B,
    "abs": H["abs"](A),
    "max": binary("max", A, 0 * B + power(B, 2) - power(B, 2)) + B,
    "step": H["step"](A) * power(B, 2),
    "select": select(A, power(A, 2), B),
    "flat on one side": select(A, B, 2 * B),
}


@pytest.mark.parametrize("name", KINKED)
def test_a_kink_in_the_box_leaves_second_derivatives_unknown(name):
    lo = np.array([[-0.5, 0.1], [0.25, 0.1], [-0.5, 0.1], [0.0, 0.1]])
    hi = np.array([[0.5, 0.2], [0.5, 0.2], [-0.25, 0.2], [0.5, 0.2]])
    for matrix in both(KINKED[name], lo, hi):
        unknown = np.any([np.isnan(m[0]) for row in matrix for m in row], axis=0)
        # Across the kink, and with the kink on the edge; known on either side.
        assert unknown[[0, 3]].all(), name
        assert not unknown[[1, 2]].any(), name


def test_semi_definite_is_right_about_thin_matrices_and_sound_about_thick_ones():
    rng = np.random.default_rng(0)
    a, yes, no = Own(), 0, 0
    for _ in range(300):
        k = int(rng.integers(1, 6))
        m = rng.normal(size=(k, k))
        m = m @ m.T + rng.normal() * np.eye(k)
        radius = 10.0 ** rng.uniform(-12, 0)
        interval = [[(np.array([x - radius]), np.array([x + radius])) for x in row] for row in m]
        answers = {bool(curvature.semi_definite(a, interval)[0]), bool(theirs.semi_definite(interval)[0])}
        least = np.linalg.eigvalsh(m).min()
        if answers == {True}:
            yes += 1
            for _ in range(20):
                shift = rng.choice([-radius, radius], (k, k))
                sample = m + np.triu(shift) + np.triu(shift, 1).T
                assert np.linalg.eigvalsh(sample).min() >= -1e-9
        else:
            no += 1
            assert least < 50 * k * radius + 1e-9 or len(answers) == 2
        assert curvature.circles(a, interval)[0] <= least + 1e-9
    assert yes > 50 and no > 50


def test_zero_rows_are_passed_over_only_where_they_are_zero():
    zero, one = (np.zeros(1), np.zeros(1)), (np.ones(1), np.ones(1))
    tiny = (np.array([-1e-300]), np.array([1e-300]))
    unknown = (np.array([np.nan]), np.array([np.nan]))
    for semi in (lambda m: curvature.semi_definite(Own(), m)[0], lambda m: theirs.semi_definite(m)[0]):
        assert semi([[zero, zero], [zero, one]]) and semi([[one, zero], [zero, zero]]) and semi([[zero]])
        assert not semi([[zero, tiny], [tiny, one]])
        assert not semi([[zero, unknown], [unknown, one]])
        assert not semi([[one, unknown], [unknown, one]])
        assert not semi([[one, one], [one, (np.array([0.999]), np.array([2.0]))]])


def test_the_checker_refuses_segments_on_which_nothing_vanishes():
    from proxyconvex_checker.errors import CheckError

    def rows(e):
        return their_rows.rows(instructions(e), "e")

    good = rows(H["softplus"](2 * A) - H["softplus"](2 * B) - 2 * H["sigmoid"](2 * B) * (A - B))
    theirs.check([("a", rows(B))], good, {"a", "b"})
    for slack, segment, message in (
        (good, [("a", rows(0 * A + 1))], "does not vanish"),
        (rows(A - B), [("a", rows(B))], "derivative in a"),
        (rows(power(A - B, 2)), [("a", rows(A + B))], "other variables only"),
        (rows(power(A - B, 2)), [("a", rows(B)), ("b", rows(A))], "other variables only"),
        (rows(power(A - B, 2)), [("a", rows(B)), ("a", rows(B))], "different variables"),
        (rows(power(A - B, 2) + power(B, 2) / 10**9), [("a", rows(B))], "does not vanish"),
    ):
        with pytest.raises(CheckError, match=message):
            theirs.check(segment, slack, {"a", "b"})


def test_choices_enclose_both_sides_where_they_are_open():
    """Natural extensions and gradients of ``select`` in both arithmetics, against values at points."""
    from proxyconvex_checker.boxes import evaluation

    e = select(A - power(B, 2), A * B + 3, H["exp"](B))
    lo, hi, rng = boxes(3, 200)
    program, rows = Program([e], ["a", "b"], Own()), their_rows.rows(instructions(e), "e")
    ours, other = program.values(lo, hi)[0], evaluation.evaluate(rows, lo, hi, {"a": 0, "b": 1})
    below, other_below = (
        program.centred(lo, hi)[0][0],
        evaluation.evaluate_centred(rows, lo, hi, {"a": 0, "b": 1}),
    )
    for _ in range(50):
        x = lo + rng.random(lo.shape) * (hi - lo)
        value = evaluate(e, {"a": x[:, 0], "b": x[:, 1]})
        for low, high in (ours, other):
            assert (low <= value + 1e-12).all() and (value <= high + 1e-12).all()
        for low in (below, other_below):
            assert (low <= value + 1e-12).all()
