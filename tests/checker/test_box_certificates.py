"""Box certificates: what the checker accepts, and 2,000 mutations of which it accepts none."""

from __future__ import annotations

import copy
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from certificate_damage import at, leaves

sys.path.insert(0, str(Path(__file__).parents[1] / "checks"))

import condition_zoo as zoo  # noqa: E402
import parameter_conditions  # noqa: E402

import proxyconvex as pc  # noqa: E402
from proxyconvex.checks.certify import document as certify_document  # noqa: E402
from proxyconvex.checks.certify.certify import certify  # noqa: E402
from proxyconvex.checks.certify.ways import Way  # noqa: E402
from proxyconvex.core.arithmetics import evaluate  # noqa: E402
from proxyconvex_checker import document
from proxyconvex_checker.boxes import expressions as boxes_expressions  # noqa: E402
from proxyconvex_checker.boxes import tree as boxes_tree
from proxyconvex_checker.boxes import verify as boxes_verify
from proxyconvex_checker.checking import verify  # noqa: E402

MUTATIONS = 2_000


@pytest.fixture(scope="module")
def certificates() -> dict[str, dict]:
    """One document per true condition."""
    found = {name: certify(make(), jobs=1) for name, make in zoo.TRUE.items()}
    found["relaxed"] = certify(zoo.smooth("0.2475"), delta="0.05", jobs=1)
    for name, (condition, options) in parameter_conditions.TRUE.items():
        found[name] = certify(condition, **options)
    return {name: verdict.document() for name, verdict in found.items()}


def checked(raw: dict, folder: Path, reseal: bool = False):
    raw = dict(raw)
    if reseal:
        raw["seal"] = document.seal(raw)
    path = folder / "c.json"
    path.write_text(json.dumps(raw))
    return verify(path)


@pytest.mark.parametrize("name", [*zoo.TRUE, "relaxed", *parameter_conditions.TRUE])
def test_valid_certificates_are_accepted(certificates, tmp_path, name):
    result = checked(certificates[name], tmp_path)
    assert result.accepted, result.steps
    assert result.statement == certificates[name]["statement"]
    assert [s.name for s in result.steps] == [
        "readable", "schema", "seal", "condition", "quadratic form", "curvature", "tree", "statement", "library",
    ]  # fmt: skip


def test_the_sentence_says_what_follows_and_what_does_not(certificates):
    neuron = certificates["softplus-neuron"]["statement"]
    assert "every dimension and for every distribution" in neuron and "C = 721/1000" in neuron
    relaxed = certificates["relaxed"]["statement"]
    assert ">= -1/20" in relaxed and "is not proved" in relaxed and "distribution" not in relaxed


def test_command_line_dispatches_on_the_format(certificates, tmp_path, capsys):
    from proxyconvex_checker.__main__ import main

    path = certify_document.write(certificates["softplus-neuron"], tmp_path / "out.json")
    assert main([str(path)]) == 0
    assert "ACCEPTED" in capsys.readouterr().out
    assert pc.verify(path).accepted


def test_an_isolated_checker_without_flint_accepts(certificates, tmp_path):
    shutil.copytree(Path(boxes_verify.__file__).parents[1], tmp_path / "proxyconvex_checker")
    path = certify_document.write(certificates["softplus-neuron"], tmp_path / "out.json")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['flint'] = None; import proxyconvex_checker.__main__ as m; "
        "code = m.main([sys.argv[2]]); sys.exit('imported proxyconvex' if 'proxyconvex' in sys.modules else code)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path), str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "python-flint is not installed" in run.stdout


def change(value, rng: random.Random):
    """Another value of a kind that could be there."""
    if value is None:
        return rng.choice([1, "a", "0", []])
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, 0, value * 2 + 1, str(value), -value - 1])
    if value and set(value) <= set("0123456789/-"):
        x = Fraction(value)
        return rng.choice([str(x + 1), str(x * Fraction(1001, 1000)), str(x * Fraction(999, 1000)), str(-x - 1), str(x - Fraction(1, 10**6)),
                           str(x / 2), str(float(x)) + "e0", "0/1", f"{2 * x.numerator}/{2 * x.denominator}"])  # fmt: skip
    i = rng.randrange(len(value))
    return rng.choice([
        value[:i] + rng.choice("abcxyz019+/=") + value[i + 1 :], value[:i] + value[i + 1 :], value + "A", "a", "b", "y", "mul", "add",
        "sub", "sigmoid", "softplus", "tanh", "exp", "dd", "const", "mean", "none", "single-neuron",
    ])  # fmt: skip


def change_tree(raw: dict, rng: random.Random) -> None:
    """Damage inside the packed tree: another test, another split, one node more or less."""
    codes = boxes_tree.unpack(raw["tree"]["data"], raw["tree"]["nodes"]).copy()
    i = rng.randrange(len(codes))
    kind = rng.choice(["code", "swap", "drop", "insert", "prune"])
    if kind == "code":
        codes[i] = rng.choice([0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 255])
    elif kind == "swap":
        j = rng.randrange(len(codes))
        codes[[i, j]] = codes[[j, i]]
    elif kind == "drop":
        codes = np.delete(codes, i)
    elif kind == "insert":
        codes = np.insert(codes, i, rng.choice([0, 1, 8, 10]))
    else:
        codes = np.array([rng.choice([8, 9, 10, 11])], np.uint8)
    raw["tree"].update(nodes=len(codes), leaves=int((codes >= 8).sum()), data=boxes_tree.pack(codes))


def mutate(raw: dict, rng: random.Random) -> tuple:
    """Change one thing; returns where."""
    if rng.random() < 0.2:
        change_tree(raw, rng)
        return ("tree",)
    path = rng.choice([p for p in leaves(raw) if p != ("seal",)])
    if rng.random() < 0.1:
        parent = at(raw, path[:-1])
        if isinstance(parent, dict):
            del parent[path[-1]]
        else:
            parent.pop(path[-1])
        return path
    at(raw, path[:-1])[path[-1]] = change(at(raw, path), rng)
    return path


def test_no_mutation_is_accepted(certificates, tmp_path):
    """As a reader meets them: damaged, with the seal as it was."""
    rng, count, names = random.Random(1), 0, list(certificates)
    while count < MUTATIONS:
        original = certificates[names[count % len(names)]]
        raw = copy.deepcopy(original)
        mutate(raw, rng)
        if raw == original:
            continue
        count += 1
        assert not checked(raw, tmp_path).accepted


def restated(raw: dict) -> dict:
    """The same document with the sentence its numbers imply, if it is well formed."""
    try:
        return {**raw, "statement": boxes_verify.statement(boxes_verify.parse(raw))}
    except Exception:
        return raw


def still_true(raw: dict, original: dict) -> bool:
    """Whether a mutated document that was accepted states something true: compare values at sampled points of its ranges."""
    parsed = boxes_verify.parse(raw)
    fields = {k: [[n, *map(str, rest)] for n, *rest in parsed[k]] for k in ("variables", "constants")}
    condition = pc.ReducedCondition.from_dict({
        "name": "x", "activation": "x", "lift": "", "slack": raw["slack"], "curve": None, "domain": raw["domain"], **fields,
    })  # fmt: skip
    rng = np.random.default_rng(0)
    x = {}
    for k, (lo, hi) in condition.variables.items():
        x[k] = rng.uniform(float(lo), float(hi), 20_000)
    first, *others = x
    for k in others:
        x[k][:5_000] = x[first][:5_000] + rng.normal(size=5_000) * 1e-3
        x[k] = np.clip(x[k], float(condition.variables[k][0]), float(condition.variables[k][1]))
    inside = np.ones(20_000, bool)
    for d in condition.domain:
        inside &= np.broadcast_to(evaluate(d, x) >= 0, 20_000)
    if parsed["smoothness"] is not None:
        return smooth_enough(condition, {k: v[inside] for k, v in x.items()}, float(parsed["smoothness"]))
    slack = np.broadcast_to(condition.slack(x), 20_000)[inside]
    return not slack.size or bool(np.min(slack) >= -float(parsed["delta"]) - 1e-13)


def smooth_enough(condition, x, bound: float) -> bool:
    """Random pairs: ``|f(u) - f(w) - <grad f(w), u - w>| <= L/2 |u - w|^2``, the gradient by differentiation of the formula."""
    from proxyconvex.core.expressions import derivative

    half = len(next(iter(x.values()))) // 2
    w, u = ({k: v[i * half : (i + 1) * half] for k, v in x.items()} for i in (0, 1))
    step = {k: u[k] - w[k] for k in w}
    first = sum(evaluate(derivative(condition.expression, k), w) * step[k] for k in w)
    gap = np.abs(evaluate(condition.expression, u) - evaluate(condition.expression, w) - first)
    return bool(np.all(gap <= bound / 2 * sum(s**2 for s in step.values()) + 1e-12))


def test_an_adversary_who_seals_and_restates_gains_nothing_false(certificates, tmp_path):
    """With a new seal and a new sentence only true documents pass: another proof, a smaller region, a weaker constant."""
    rng, seen, count, names = random.Random(2), Counter(), 0, list(certificates)
    while count < MUTATIONS:
        original = certificates[names[count % len(names)]]
        raw = copy.deepcopy(original)
        mutate(raw, rng)
        raw = restated(raw)
        if raw == original:
            continue
        count += 1
        result = checked(raw, tmp_path, reseal=True)
        seen[result.steps[-1].name if not result.accepted else "accepted"] += 1
        if result.accepted:
            assert still_true(raw, original), raw["statement"]
    assert seen["accepted"] < 0.2 * MUTATIONS
    for step in ("schema", "condition", "quadratic form", "tree"):
        assert seen[step] >= 20, seen


@pytest.mark.parametrize("name", zoo.FALSE)
def test_forged_certificates_of_false_conditions(certificates, tmp_path, name):
    """The best forgery at hand: everything of a true proof, but the false condition's numbers."""
    false = zoo.FALSE[name]()
    true = certificates.get(name)
    tree = (
        np.array([10], np.uint8)
        if true is None
        else boxes_tree.unpack(true["tree"]["data"], true["tree"]["nodes"])
    )
    from proxyconvex.checks.certify.rewrite import plans

    for plan in [*plans(false, lambda e: True), None]:
        for codes in (tree, np.array([8], np.uint8), np.array([10], np.uint8), np.array([11], np.uint8)):
            raw = certify_document.draft(false, Way(plan), codes, Fraction(0))
            assert not checked(raw, tmp_path).accepted


def test_tree_that_leaves_a_box_out_is_refused(certificates, tmp_path):
    raw = copy.deepcopy(certificates["softplus-neuron"])
    codes = boxes_tree.unpack(raw["tree"]["data"], raw["tree"]["nodes"])
    assert len(codes) > 3
    raw["tree"].update(
        nodes=len(codes) - 1, leaves=raw["tree"]["leaves"] - 1, data=boxes_tree.pack(codes[:-1])
    )
    result = checked(raw, tmp_path, reseal=True)
    assert not result.accepted and "ends before every box is closed" in result.steps[-1].message


def test_leaves_that_the_checker_cannot_close_are_bisected_before_writing():
    """The repair keeps a breadth-first tree: every old leaf that fails is split until its parts pass."""
    codes = np.array([0, 8, 1, 8, 8], np.uint8)
    lo, hi = np.zeros((1, 2)), np.ones((1, 2))

    def failing(level, low, high):
        return (high - low).max(axis=1) > 0.3  # pretend that only small boxes close

    new = certify_document.deepened(codes, lo, hi, failing)
    seen = []
    leaves_ = boxes_tree.walk(
        [("a", Fraction(0), Fraction(1)), ("b", Fraction(0), Fraction(1))],
        new,
        lambda c, a, b: seen.append((b - a).copy()),
    )
    sizes = np.concatenate(seen)
    assert leaves_ == len(sizes) and (sizes.max(axis=1) <= 0.3).all()
    assert np.isclose(np.prod(sizes, axis=1).sum(), 1.0)
    assert (
        certify_document.deepened(codes, lo, hi, lambda c, a, b: np.zeros(len(c), bool)).tolist()
        == codes.tolist()
    )


def test_text_of_library_and_checker_mean_the_same():
    """The sentence is read by people: parentheses of the checker's text evaluate to the slack."""
    import math

    functions = {
        "softplus": lambda t: math.log1p(math.exp(t)), "sigmoid": lambda t: 1 / (1 + math.exp(-t)), "tanh": math.tanh, "exp": math.exp, "log": math.log,
        "bump": lambda t: math.exp(t) / (1 + math.exp(t)) ** 2, "relu": lambda t: max(t, 0), "step": lambda t: float(t > 0),
    }  # fmt: skip
    rng = random.Random(0)
    for make in [*zoo.TRUE.values(), *zoo.FALSE.values()]:
        condition = make()
        rows = boxes_expressions.rows(condition.to_dict()["slack"], "slack")
        line = boxes_expressions.text(rows).replace("^", "**")
        x = {k: rng.uniform(float(lo), float(hi)) for k, (lo, hi) in condition.variables.items()}
        value = eval(line, {}, {**functions, **x, **{k: float(v) for k, v in condition.constants.items()}})
        assert value == pytest.approx(condition.slack(**x), rel=1e-9, abs=1e-9)
