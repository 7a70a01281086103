"""Certificates and refutations of reduced conditions: known answers, budgets, other back ends."""

from __future__ import annotations

import json
from fractions import Fraction

import condition_zoo as zoo
import flint
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.checks.certify import rewrite
from proxyconvex.checks.certify.boxes import CHUNK
from proxyconvex.checks.certify.certify import certify
from proxyconvex.checks.certify.search import Progress
from proxyconvex.core.evidence import Evidence, Status
from proxyconvex_checker import document, verify
from proxyconvex_checker.boxes import verify as boxes_verify


@pytest.mark.parametrize("name", zoo.TRUE)
def test_true_conditions_are_certified_with_equality(name):
    verdict = certify(zoo.TRUE[name](), seconds=60, jobs=1)
    assert verdict.status is Status.HOLDS, verdict
    assert verdict.evidence is Evidence.CERTIFIED
    assert "equality included" in verdict.sentence and str(verdict.boxes) in verdict.sentence.replace(",", "")


@pytest.mark.parametrize("name", zoo.FALSE)
def test_false_conditions_are_refuted_by_a_confirmed_point(name):
    condition = zoo.FALSE[name]()
    verdict = certify(condition, seconds=60, jobs=1)
    assert verdict.status is Status.FALSIFIED, verdict
    point = verdict.witness["point"]
    assert condition.contains(point)
    with flint.ctx.workprec(300):
        ball = condition.slack(
            {k: flint.arb(flint.fmpq(v.numerator, v.denominator)) for k, v in point.items()}
        )
        assert ball < 0
        assert float(ball) <= verdict.witness["slack"][1]


def test_witness_is_simple():
    point = certify(zoo.p3(), jobs=1).witness["point"]
    assert all(v.denominator <= 2 for v in point.values())


@pytest.mark.parametrize("name", [n for n in zoo.TRUE if n != "strict"])
def test_the_rewriting_is_an_identity(name):
    """The quadratic form equals the slack at random points, in 200-bit arithmetic; divided differences computed apart."""
    condition = zoo.TRUE[name]()
    found = rewrite.plans(condition, lambda e: False)
    assert found
    rng = np.random.default_rng(0)
    with flint.ctx.workprec(200):
        for plan in found:
            form = rewrite.residual(plan, condition)
            for _ in range(5):
                x = {
                    k: flint.arb(float(rng.uniform(float(lo), float(hi))))
                    for k, (lo, hi) in condition.variables.items()
                }
                gap = evaluate_with_differences(form, x) - condition.slack(x)
                assert abs(gap) < 1e-40, plan


def evaluate_with_differences(e, x):
    from proxyconvex.core.arithmetics import evaluate
    from proxyconvex.core.expressions import Expression, derivative, rebuild, topological, variable

    values = dict(x)
    nodes = [n for n in topological(e) if n.op == "dd"]
    for i, node in enumerate(nodes):
        f, order, u, v = node.args
        left, right = evaluate(u, x), evaluate(v, x) if v.op == "var" else flint.arb(int(v.args[0]))
        at = [evaluate(Expression(f, variable("z")), {"z": w}) for w in (left, right)]
        t = left - right
        q = (at[0] - at[1]) / t
        if order == 2:
            q = (q - evaluate(derivative(Expression(f, variable("z")), "z"), {"z": right})) / t
        values[f"d{i}"] = q
    plain = rebuild(e, lambda n: variable(f"d{nodes.index(n)}") if n in nodes else None)
    return evaluate(plain, values)


# A constant a little beyond the truth must never be certified. The true values are known in closed form, but for the
# softplus neuron, whose value was computed by others to 8 digits.
NEAR = {
    "sigmoid": (lambda c: zoo.p1(k=c), 4, -1),
    "softplus-neuron": (lambda c: zoo.p2(c), "0.68662890", 1),
    "smooth": (lambda c: zoo.smooth(c), "0.25", 1),
    "strict": (lambda c: pc.reduced(lambda a, b, C: C - a * b, a=(-1, 1.5), b=(-1, 1.5), C=c), "2.25", 1),
    "tanh": (lambda c: pc.reduced(lambda a, b, s, C: C * (a - b) ** 2 - (s(a) - s(b)) * (a - b),
                                  activation="tanh", a=(-2, 2), b=(-2, 2), C=c), 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR)
@pytest.mark.parametrize("beyond", ["1e-2", "1e-4", "1e-6"])
def test_nothing_beyond_the_truth_is_certified(name, beyond):
    make, truth, side = NEAR[name]
    wrong = Fraction(truth) * (1 - side * Fraction(beyond))
    assert (
        certify(make(wrong), seconds=3, max_boxes=20_000, jobs=1, solver="boxes").status is not Status.HOLDS
    )
    right = Fraction(truth) * (1 + side * Fraction(beyond))
    assert certify(make(right), seconds=30, jobs=1).status is Status.HOLDS


def test_relaxed_by_delta():
    wrong = zoo.smooth("0.2475")  # false by about (a - b)^2 / 800 where a and b are near 0
    relaxed = certify(wrong, delta="0.05", jobs=1)
    assert relaxed.status is Status.HOLDS and "-0.05" in relaxed.sentence
    assert relaxed.delta == Fraction(1, 20)
    assert "every dimension" not in relaxed.sentence


def test_spent_budget_says_what_is_proved_and_where_it_is_worst():
    condition = zoo.leaky()
    verdict = certify(condition, seconds=20, max_boxes=4_000, solver="boxes", jobs=1)
    assert verdict.status is Status.INCONCLUSIVE
    assert "holds up to -delta" in verdict.sentence and "Worst open box: a in [" in verdict.sentence
    assert verdict.delta > 0
    # The bound is true.
    rng = np.random.default_rng(0)
    x = {k: rng.uniform(float(lo), float(hi), 20_000) for k, (lo, hi) in condition.variables.items()}
    assert condition.slack(x).min() >= -float(verdict.delta)


def product():
    """True and zero on a surface of four variables that subdivision alone cannot close."""
    return pc.reduced(
        lambda a, b, c, d: (a * c + b * d) ** 2 - 2 * (a * c + b * d) + 1,
        a=(0, 2),
        b=(-1, 1),
        c=(0, 2),
        d=(-1, 1),
    )


def with_segment():
    """Second derivatives close the boxes near the centre; along the factorisations that are as good others stay open."""
    f = lambda w: (w[0] * w[2] + w[1] * w[3] - 1) ** 2 / 2  # noqa: E731
    return pc.ProxyPL(f, f, 0, 2, 0.5, region=pc.Ball([1.0, 0.0, 1.0, 0.0], 0.5))


OPEN = {"form": zoo.leaky, "plain": product, "segment": with_segment}


@pytest.mark.parametrize("name", OPEN)
def test_what_is_proved_when_the_budget_is_spent_can_be_checked_by_others(name, tmp_path):
    verdict = certify(OPEN[name](), max_boxes=2_500, solver="boxes", jobs=1)
    assert verdict.status is Status.INCONCLUSIVE and verdict.delta > 0
    path = verdict.write(tmp_path / "up-to-delta.json")
    answer = verify(path)
    assert answer.accepted, answer
    raw = json.loads(path.read_text())
    assert (raw["form"] is not None) == (name == "form") and bool(raw["segments"]) == (name == "segment")
    assert Fraction(raw["delta"]) == verdict.delta and "is not proved" in raw["statement"]
    for delta in ("0", str(verdict.delta / 3)):
        damaged = {**raw, "delta": delta}
        damaged["statement"] = boxes_verify.statement(boxes_verify.parse(damaged))
        damaged["seal"] = document.seal(damaged)
        path.write_text(json.dumps(damaged))
        assert not verify(path).accepted


def test_formula_that_is_not_defined_everywhere_is_not_certified():
    condition = pc.reduced(lambda a, log: 5 + log(a), a=(0, 1))
    assert certify(condition, seconds=2, max_boxes=3_000, jobs=1).status is not Status.HOLDS
    division = pc.reduced(lambda a: 1 / (a * a), a=(-1, 1))
    assert certify(division, seconds=2, max_boxes=3_000, jobs=1).status is not Status.HOLDS


def test_kinks_are_decided_by_z3():
    pytest.importorskip("z3", reason="z3 is not installed")
    holds = certify(zoo.leaky(), jobs=1, solver="z3")
    assert holds.status is Status.HOLDS and "rests on z3" in holds.sentence
    # Nobody can check it again, so it is not CERTIFIED, and there is nothing to write.
    assert holds.evidence is Evidence.DECIDED < Evidence.CERTIFIED
    with pytest.raises(pc.InvalidInputError, match="reached by boxes"):
        holds.document()
    false = certify(zoo.leaky("0.01"), jobs=1, solver="z3")
    assert false.status is Status.FALSIFIED
    assert zoo.leaky("0.01").slack(false.witness["point"]) < 0
    with pytest.raises(pc.InvalidInputError, match="z3 serves formulas"):
        certify(zoo.p2(), solver="z3")


def test_crival_gives_the_same_answers():
    pytest.importorskip("ival", reason="crival is not installed")
    for make in (zoo.p1, zoo.p2, zoo.smooth):
        assert certify(make(), arithmetic="crival", jobs=1).status is Status.HOLDS
    assert certify(zoo.p2("0.6866"), arithmetic="crival", jobs=1).status is Status.FALSIFIED


def hard():
    """Needs a few thousand boxes without a form."""
    return pc.reduced(
        lambda a, b, c, s: 2.0001 - s(a) * s(b) * s(c) - s(a) - s(b) * (1 - s(c)),
        activation="sigmoid", a=(-8, 8), b=(-8, 8), c=(-8, 8),
    )  # fmt: skip


def test_progress_names_the_worst_open_box():
    seen: list[Progress] = []
    assert certify(hard(), progress=seen.append, jobs=1).status is Status.HOLDS
    assert seen[-1].boxes > 1_000 and seen[-1].open == 0
    text = str(max(seen, key=lambda p: p.open))
    assert "boxes/s" in text and "worst open box" in text


class Stop(Exception):
    pass


def test_interrupted_search_resumes_where_it_was(tmp_path):
    whole = certify(hard(), jobs=1)
    calls = []

    def interrupt(p: Progress) -> None:
        calls.append(p.boxes)
        if p.boxes > 1_000:
            raise Stop

    keep = tmp_path / "state.npz"
    with pytest.raises(Stop):
        certify(hard(), jobs=1, progress=interrupt, checkpoint=keep)
    later: list[Progress] = []
    resumed = certify(hard(), jobs=1, progress=later.append, checkpoint=keep)
    assert resumed.status is Status.HOLDS and later[0].boxes > 500
    assert np.array_equal(resumed.codes, whole.codes)
    # The file belongs to one condition.
    other: list[Progress] = []
    certify(zoo.p2(), jobs=1, progress=other.append, checkpoint=keep)
    assert other[0].boxes == 1


def test_a_line_of_progress_is_shown(capsys):
    certify(zoo.p2(), jobs=1, progress=True)
    shown = capsys.readouterr().err
    assert "boxes/s" in shown and "worst open box" in shown and shown.endswith("\r\033[K")


def test_processes_change_nothing():
    one, two = certify(hard(), jobs=1), certify(hard(), jobs=2)
    assert np.array_equal(one.codes, two.codes)


@pytest.mark.slow
def test_dask_gives_the_same_tree(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    from proxyconvex.checks.certify import boxes as certify_boxes

    monkeypatch.setattr(certify_boxes, "CHUNK", CHUNK // 16)
    here = certify(hard(), jobs=1)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        there = certify(hard(), scheduler=client)
        used = client.run(lambda: __import__("os").getpid())
    assert len(set(used.values())) == 2
    assert there.status is Status.HOLDS
    assert np.array_equal(there.codes, here.codes)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: certify(lambda w: w), "reduced condition in at most 6"),
        (lambda: certify(zoo.p2(), delta=-1), "a number >= 0"),
        (lambda: certify(zoo.p2(), seconds=0), "seconds > 0"),
        (lambda: certify(zoo.p2(), jobs=0), "jobs"),
        (lambda: certify(zoo.p2(), solver="cvc5"), "auto, boxes, z3"),
        (lambda: certify(zoo.p2(), arithmetic="mpfi"), "'own' or 'crival'"),
        (lambda: certify(pc.reduced(lambda **k: 0, **{f"x{i}": (0, 1) for i in range(7)})), "at most 6"),
    ],
    ids=["not-reduced", "delta", "seconds", "jobs", "solver", "arithmetic", "dimension"],
)
def test_refusals(call, match):
    with pytest.raises(pc.InvalidInputError, match=match):
        call()


# --- tightest ------------------------------------------------------------------------------------------------------


def test_softplus_constant_is_bracketed():
    found = pc.tightest(zoo.p2(1), "C", jobs=1)
    assert found.direction == "smallest" and found.monotone
    assert found.relative_width <= 1e-6
    assert found.refuted < Fraction("0.68662898") and found.certified > Fraction("0.68662890")
    assert zoo.p2(found.refuted).slack({k: v for k, v in found.witness.items()}) < 0
    assert "is certified" in str(found) and "is refuted" in str(found)


@pytest.mark.parametrize(
    ("make", "name", "truth", "direction"),
    [
        (lambda: zoo.p1(k=1), "k", 4.0, "largest"),
        (lambda: zoo.smooth(1), "L", 0.25, "smallest"),
        (lambda: pc.reduced(lambda a, b, C: C - a * b, a=(-1, 1.5), b=(-1, 1.5), C=0), "C", 2.25, "smallest"),
    ],
    ids=["sigmoid", "smoothness", "product"],
)
def test_other_constants(make, name, truth, direction):
    found = pc.tightest(make(), name, jobs=1, seconds=20)
    assert found.direction == direction
    assert found.certified is not None and found.refuted is not None
    low, high = sorted((float(found.certified), float(found.refuted)))
    assert low - 1e-12 <= truth <= high + 1e-12
    assert found.relative_width <= 3e-6


def test_least_value_that_no_point_attains_is_bracketed_from_both_sides():
    """Strong convexity of exp: the infimum 1/e is a limit at a = b, so points refute it less closely."""
    condition = pc.reduced(
        lambda a, b, m, exp: exp(a) - exp(b) - exp(b) * (a - b) - m * (a - b) ** 2 / 2,
        a=(-1, 1),
        b=(-1, 1),
        m=0,
    )
    found = pc.tightest(condition, "m", jobs=1, seconds=5)
    assert float(found.certified) <= np.exp(-1) <= float(found.refuted)
    assert float(found.certified) >= np.exp(-1) * (1 - 1e-3)
    assert found.relative_width < 0.01


def test_constant_that_is_not_monotone_is_refused():
    condition = pc.reduced(lambda a, k: 1 + k * a, a=(-1, 1), k=0)
    with pytest.raises(pc.InvalidInputError, match="monotone"):
        pc.tightest(condition, "k")
    with pytest.raises(pc.InvalidInputError, match="a constant of the condition: k"):
        pc.tightest(condition, "C")


def bregman(m: str):
    """A divergence whose function has an inner factor, which divided differences at bare variables do not reach."""
    return pc.reduced(
        lambda a, b, softplus, sigmoid, m: softplus(2 * a) - softplus(2 * b) - 2 * sigmoid(2 * b) * (a - b) - m * (a - b) ** 2,
        a=(-1, 1), b=(-1, 1), m=m,
    )  # fmt: skip


def test_the_hessian_on_the_hull_closes_what_no_rewriting_does(tmp_path):
    """Least second derivative 4 bump(2) = 0.41997 on the square, so m = 0.20998 is the truth."""
    verdict = certify(bregman("0.2099"), seconds=30)
    assert verdict.status is Status.HOLDS, verdict
    assert verdict.plan is None and verdict.way.segment.moved == ("a",)
    assert "second derivatives are positive semi-definite" in verdict.sentence
    assert not rewrite.plans(bregman("0.2099"), lambda e: False)
    assert pc.verify(verdict.write(tmp_path / "out.json")).accepted
    for m in ("0.2121", "0.3"):
        assert certify(bregman(m), seconds=10).status is Status.FALSIFIED


@pytest.mark.parametrize(
    "formula",
    [
        lambda a, b: (a - b) ** 3 + 0 * b,
        lambda a, b, softplus: softplus(2 * a) - softplus(2 * b),
        lambda a, b, relu: relu(a - b) - (a - b) ** 2,
        lambda a, b: (a - b) ** 2 - (a - b) ** 4 * 0.3,
    ],
    ids=["cubic", "first order", "kink", "sign change"],
)
def test_second_derivatives_never_certify_what_is_false(formula):
    verdict = certify(pc.reduced(formula, a=(-1, 1), b=(-1, 1)), seconds=5)
    assert verdict.status is Status.FALSIFIED, verdict
