"""The exported statements: Coq compiles two of them, SMT-LIB terms mean the slack."""

from __future__ import annotations

import re
import shutil
import subprocess

import condition_zoo as zoo
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.checks.certify.certify import certify
from proxyconvex.checks.certify.export_coq import coq_text, export_coq
from proxyconvex.checks.certify.export_smt import export_smt, smt_text


def neuron_with_room():
    """First differences of the sigmoid, equality on the diagonal included."""
    return pc.reduced(
        lambda a, b, y, s, ds: 0.02 * (s(b) - y) ** 2 + (s(a) - s(b)) * (a - b) - 0.05 * (a - b) ** 2,
        activation="sigmoid", a=(-1, 1), b=(-1, 1), y=(0, 1),
    )  # fmt: skip


def compile_coq(path) -> None:
    if shutil.which("coqc") is None:
        pytest.skip("coqc is not installed (Debian: apt install coq libcoq-interval)")
    probe = subprocess.run(["coqc", "-where"], capture_output=True, text=True)
    if not any((__import__("pathlib").Path(probe.stdout.strip()) / "user-contrib" / "Interval").glob("*")):
        pytest.skip("coq-interval is not installed (Debian: apt install libcoq-interval)")
    done = subprocess.run(["coqc", path.name], cwd=path.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("make", [zoo.strict, neuron_with_room], ids=["strict", "neuron"])
def test_coq_accepts_the_export(make, tmp_path):
    condition = make()
    verdict = certify(condition, jobs=1)
    path = export_coq(verdict, tmp_path / "condition.v")
    text = path.read_text()
    assert "Admitted" not in text and "Axiom" not in text and text.rstrip().endswith("Qed.")
    compile_coq(path)


def test_coq_states_the_condition_itself():
    condition = zoo.p2()
    verdict = certify(condition, jobs=1)
    text = coq_text(condition, verdict.plan)
    theorem = text[text.index("Theorem condition") :]
    assert "(-3) <= a <= 3 -> (-3) <= b <= 3 -> 0 <= y <= 3" in theorem
    assert "(721 / 1000)" in theorem.split("Proof.")[0]


def test_coq_refuses_what_it_cannot_prove():
    with pytest.raises(pc.InvalidInputError, match="first differences of one of"):
        export_coq(certify(zoo.smooth(), jobs=1), "/tmp/never.v")
    with pytest.raises(pc.InvalidInputError, match="HOLDS by boxes"):
        export_coq(certify(zoo.p3(), jobs=1), "/tmp/never.v")


def read(text: str):
    """S-expressions as nested lists."""
    stack = [[]]
    for token in re.findall(r"[()]|[^\s()]+", text):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    assert len(stack) == 1
    return stack[0]


def value(e, x):
    if isinstance(e, str):
        return x[e] if e in x else float(e)
    op, *args = e
    args = [value(a, x) for a in args]
    if op == "-":
        return -args[0] if len(args) == 1 else args[0] - args[1]
    return {
        "+": np.add, "*": np.multiply, "/": np.divide, "^": np.power, "max": np.maximum, "min": np.minimum, "<": np.less,
    }[op](*args) if op in "+*/^<" or op in ("max", "min") else getattr(np, op)(*args)  # fmt: skip


@pytest.mark.parametrize("name", zoo.TRUE)
def test_smt_asserts_the_negation_of_the_slack(name, tmp_path):
    condition = zoo.TRUE[name]()
    script = export_smt(condition, tmp_path / "c.smt2", delta="0.01").read_text()
    commands = read("\n".join(line for line in script.splitlines() if not line.startswith(";")))
    asserted = [c[1] for c in commands if c[0] == "assert"]
    assert len(asserted) == 2 * condition.dimension + 1
    less, slack, bound = asserted[-1]
    assert less == "<" and value(bound, {}) == pytest.approx(-0.01)
    rng = np.random.default_rng(0)
    x = {k: rng.uniform(float(lo), float(hi)) for k, (lo, hi) in condition.variables.items()}
    assert value(slack, x) == pytest.approx(condition.slack(**x), abs=1e-12)
    assert "(set-option :precision 0.005)" in script


def test_smt_of_the_form_has_no_counterexample_at_random_points():
    """Every assertion but the last is true where the unknowns have their meaning, and the last is false there."""
    condition = zoo.p2()
    plan = certify(condition, jobs=1).plan
    script = smt_text(condition, plan=plan)
    asserted = [
        c[1]
        for c in read("\n".join(s for s in script.splitlines() if not s.startswith(";")))
        if c[0] == "assert"
    ]
    rng = np.random.default_rng(0)
    for _ in range(200):
        x = {k: rng.uniform(float(lo), float(hi)) for k, (lo, hi) in condition.variables.items()}
        x["dd0"] = (np.log1p(np.exp(x["a"])) - np.log1p(np.exp(x["b"]))) / (x["a"] - x["b"])
        equations = [c for c in asserted if c[0] == "="]
        assert len(equations) == 1 and value(equations[0][1], x) == pytest.approx(
            value(equations[0][2], x), abs=1e-12
        )
        assert all(value(c[1], x) <= value(c[2], x) + 1e-12 for c in asserted if c[0] == "<=")
        assert asserted[-1][0] == "or" and not any(value(c, x) for c in asserted[-1][1:])
    with pytest.raises(pc.InvalidInputError, match="a number > 0"):
        smt_text(condition, delta=0)
