"""Verification step by step: a valid certificate passes, and damage is named by the step it belongs to."""

from __future__ import annotations

import ast
import json
import math
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import proxyconvex_checker
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.report import certificate
from proxyconvex_checker import document, preprocessing
from proxyconvex_checker.__main__ import main
from proxyconvex_checker.checking import STEPS, verify
from proxyconvex_checker.claims import promise as claims
from proxyconvex_checker.claims.table import CLAIMS

CHECKER = Path(proxyconvex_checker.__file__).parent


def failing(path) -> tuple[str, str]:
    result = verify(path)
    assert not result.accepted
    assert [s.ok for s in result.steps] == [True] * (len(result.steps) - 1) + [False]
    return result.steps[-1].name, result.steps[-1].message


def claim_of(raw) -> claims.Claim:
    parsed = document.parse(raw)
    return claims.lookup(parsed, CLAIMS)


def restated(raw):
    """The document with every sentence regenerated from its (changed) numbers, and sealed."""
    parsed = document.parse({**raw, "seal": "0" * 64})
    claim = claims.lookup(parsed, CLAIMS)
    parsed["claim"]["premises"] = claims.premises(parsed, claim)
    parsed["statement"] = claims.statement(parsed, claim)
    return certificate.sealed(parsed)


def test_a_valid_certificate_is_accepted_without_notes(good):
    result = verify(good.path)
    assert result.accepted and result.readable and result.exit_code == 0, result.steps[-1]
    assert [s.name for s in result.steps] == [name for name, _ in STEPS]
    assert all(s.ok and s.message for s in result.steps)
    assert result.notes == ()
    assert result.statement == good.raw["statement"]
    assert verify(good.folder).accepted and verify(str(good.folder)).accepted
    assert certificate.verify(good.path).accepted


def test_writing_twice_gives_the_same_bytes(good, tmp_path):
    again = certificate.write_certificate(good.plan, tmp_path / "again")
    for file in ("certificate.json", "data.npy", "comparator.npy"):
        assert (again.parent / file).read_bytes() == (good.folder / file).read_bytes()


def test_stored_numbers_are_padded_in_their_safe_direction(good):
    parsed, claim = certificate.load(good.path), claim_of(good.raw)
    for name, stored in parsed["constants"].items():
        derived = good.plan.derived[name]
        if name in claim.exact:
            assert stored == derived
        else:
            assert (stored <= derived) if name in claim.lower else (stored >= derived), name
            assert abs(stored - derived) <= 1.1e-10 * claims.scale(name, derived)
    for field in ("bound", "error_bound"):
        if good.plan.derived.get(field) is not None:
            assert (
                good.plan.derived[field] <= parsed["claim"][field] <= good.plan.derived[field] * (1 + 1.1e-10)
            )


@pytest.mark.parametrize("field", ["bound", "error_bound"])
@pytest.mark.parametrize("restate", [False, True], ids=["resealed", "restated"])
def test_a_bound_lowered_by_1e_12_below_the_derived_one_is_rejected(good, field, restate):
    raw, derived = good.raw, good.plan.derived.get(field)
    if derived is None or derived == 0:
        pytest.skip("this theorem promises exactly zero")
    raw["claim"][field] = (derived * (1 - 1e-12)).hex()
    step, message = failing(good.write(restated(raw) if restate else raw))
    assert step == "claim" and f"claim.{field}" in message and "below" in message


def test_a_bound_one_ulp_below_the_derived_one_is_rejected(good):
    raw, derived = good.raw, good.plan.derived["bound"]
    raw["claim"]["bound"] = math.nextafter(derived, -math.inf).hex()
    assert failing(good.write(restated(raw)))[0] == "claim"
    raw["claim"]["bound"] = float(derived).hex()
    assert verify(good.write(restated(raw))).accepted


def test_a_raised_bound_passes_with_a_note(good):
    raw, derived = good.raw, good.plan.derived["bound"]
    raw["claim"]["bound"] = (derived * 1.5 + 0.1).hex()
    result = verify(good.write(restated(raw)))
    assert result.accepted, result.steps[-1]
    assert any("claim.bound" in note and "exceeds" in note for note in result.notes)


@pytest.mark.parametrize("relative, accepted", [(2e-10, True), (5e-10, True), (2e-9, False), (1e-3, False)])
def test_constants_may_be_a_little_weak_but_not_strong(good, relative, accepted):
    raw, claim = good.raw, claim_of(good.raw)
    for name, derived in good.plan.derived.items():
        if claims.scale(name, derived) == 0 or name in claim.exact:
            continue
        shift = claims.scale(name, derived) * Fraction(relative)
        weak = Fraction(derived) + (-shift if name in claim.lower else shift)
        strong = 2 * Fraction(derived) - weak
        changed = {**raw, "constants": {**raw["constants"], name: float(weak).hex()}}
        result = verify(good.write(restated(changed)))
        assert result.accepted == accepted, (name, result.steps[-1])
        assert not accepted or any(name in note for note in result.notes)
        changed["constants"][name] = float(strong).hex()
        step, message = failing(good.write(restated(changed)))
        assert step == "constants" and name in message


DAMAGE = [
    ("seal", lambda r: r["claim"].update(bound="0x1.0p-9"), False, "schema"),
    ("text", lambda r: r.update(statement="All is well."), False, "seal"),
    ("statement", lambda r: r.update(statement="All is well."), True, "statement"),
    ("name", lambda r: r["data"].update(name="other rows"), True, "statement"),
    ("labels", lambda r: r["data"]["labels"].reverse(), True, "statement"),
    ("digest", lambda r: r["data"].update(digest="0" * 64), True, "data digest"),
    ("rows", lambda r: r["data"].update(n=r["data"]["n"] - 1), True, "data digest"),
    ("comparator", lambda r: r["comparator"].update(sha256="1" * 64), True, "comparator"),
    ("shape", lambda r: r["comparator"]["shape"].reverse(), True, "comparator"),
    ("seed", lambda r: r["family"].update(seed=r["family"]["seed"] + 1), True, "initial weights"),
    ("width", lambda r: r["family"].update(width=r["family"]["width"] + 1), True, "initial weights"),
    ("family", lambda r: r["family"].update(name="perceptron"), True, "initial weights"),
    ("theorem", lambda r: r["theorem"].update(id="T99"), True, "theorem"),
    ("steps", lambda r: r["method"].update(steps=r["method"]["steps"] - 1), True, "theorem"),
    ("parameter", lambda r: r["theorem"]["params"].update(zeta="0x1.0000000000000p+0"), True, "theorem"),
    ("unknown-constant", lambda r: r["constants"].update(zeta="0x1.0000000000000p+0"), True, "constants"),
    ("evidence", lambda r: r["claim"].update(evidence="PROVED"), True, "claim"),
    ("quantity", lambda r: r["claim"].update(quantity="test-error"), True, "claim"),
    ("premise", lambda r: r["claim"]["premises"][0].update(statement="It is so."), True, "statement"),
    ("premise-evidence", lambda r: r["claim"]["premises"][0].update(evidence="ON_TRACE"), True, "statement"),
    ("premises", lambda r: r["claim"]["premises"].append(r["claim"]["premises"][0]), True, "statement"),
    ("references", lambda r: r["references"].append("Euclid"), True, "statement"),
    ("version", lambda r: r.update(proxyconvex="9.9.9"), True, "statement"),
    (
        "unused-columns",
        lambda r: r["preprocessing"]["kept_columns"].append(r["data"]["d"] + 3),
        True,
        "preprocessing",
    ),
    ("unordered-columns", lambda r: r["preprocessing"]["kept_columns"].reverse(), True, "preprocessing"),
]


@pytest.mark.parametrize(("edit", "reseal", "step"), [pytest.param(*d[1:], id=d[0]) for d in DAMAGE])
def test_damage_is_named_by_its_step(one, edit, reseal, step):
    assert failing(one.change(edit, reseal))[0] == step


@pytest.mark.parametrize("where", ["center", "unit_norm", "bias", "divide_by", "scale"])
def test_another_preprocessing_is_noticed_even_where_the_numbers_do_not_move(one, where):
    other = {
        "center": False,
        "unit_norm": False,
        "bias": (0.5).hex(),
        "divide_by": (2.0).hex(),
        "scale": "none",
    }[where]
    step, _ = failing(one.change(lambda r: r["preprocessing"].update({where: other})))
    assert step in ("theorem", "constants", "claim", "statement", "margin")


@pytest.mark.parametrize("file", ["data.npy", "comparator.npy"])
@pytest.mark.parametrize("change", ["ulp", "sign", "swap"])
def test_one_changed_array_entry_is_rejected(good, file, change):
    array = good.array(file)
    flat = array.reshape(-1)
    if change == "ulp":
        flat[0] = np.nextafter(flat[0], np.inf)
    elif change == "sign":
        flat[-1] = -flat[-1]
    else:
        flat[[0, 1]] = flat[[1, 0]]
    good.save(file, array)
    assert failing(good.path)[0] == ("data digest" if file == "data.npy" else "comparator")


@pytest.mark.parametrize("file", ["data.npy", "comparator.npy"])
@pytest.mark.parametrize("change", ["float32", "fortran", "transposed", "nan", "infinite", "flat"])
def test_arrays_of_another_kind_are_rejected(one, file, change):
    array = one.array(file)
    if change in ("nan", "infinite"):
        array[1, 1] = math.nan if change == "nan" else math.inf
    other = {
        "float32": array.astype(np.float32),
        "fortran": np.asfortranarray(array),
        "transposed": np.ascontiguousarray(array.T),
        "flat": array.ravel(),
    }.get(change, array)
    one.save(file, other)
    assert failing(one.path)[0] == ("data digest" if file == "data.npy" else "comparator")


def test_a_pickled_array_is_never_loaded(one):
    np.save(one.folder / "comparator.npy", np.array([{"code": "to run"}], dtype=object), allow_pickle=True)
    step, message = failing(one.path)
    assert step == "comparator" and "object" in message


def test_targets_other_than_plus_and_minus_one_are_rejected(one):
    array = one.array("data.npy")
    array[0, -1] = 0.0
    one.save("data.npy", array)
    raw = one.raw
    raw["data"]["digest"] = preprocessing.data_digest(array[:, :-1], array[:, -1])
    assert failing(one.write(raw)) == (
        "data digest",
        "the last column of the data holds a target other than -1 and +1",
    )


@pytest.mark.parametrize(
    "name", ["../comparator.npy", "/etc/passwd", "a/b.npy", "..", ".npy", "c.npz", "C:x.npy", ""]
)
@pytest.mark.parametrize("where", ["data", "comparator"])
def test_file_names_stay_in_the_folder(one, where, name):
    step, message = failing(one.change(lambda r: r[where].update(file=name)))
    assert step == "schema" and f"{where}.file" in message


# --- exit codes --------------------------------------------------------------------------------------------


def test_exit_0_prints_every_step_and_the_statement(good, capsys):
    assert main([str(good.path)]) == 0
    out = capsys.readouterr().out
    assert out.rstrip().endswith("ACCEPTED")
    assert all(f"ok    {name}" in out for name, _ in STEPS)
    assert " ".join(out.split()).count(" ".join(good.raw["statement"].split())) == 1


def test_exit_1_names_the_failing_step(one, capsys):
    one.change(lambda r: r["theorem"].update(id="T99"))
    assert main([str(one.path)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  theorem" in out and out.rstrip().endswith("REJECTED")


UNREADABLE = {
    "missing": (lambda c: c.path.unlink(), "there is no file"),
    "empty": (lambda c: c.path.write_text(""), "not valid JSON"),
    "half": (lambda c: c.path.write_bytes(c.path.read_bytes()[:500]), "not valid JSON"),
    "binary": (lambda c: c.path.write_bytes(b"\xff\xfe\x00" * 50), "not valid JSON"),
    "list": (lambda c: c.path.write_text("[1, 2]"), "not a proxyconvex certificate"),
    "other": (lambda c: c.path.write_text('{"name": "package"}'), "not a proxyconvex certificate"),
    "nested": (lambda c: c.path.write_text("[" * 100_000), "not valid JSON"),
    "newer": (lambda c: c.change(lambda r: r.update(schema=2)), "schema version 2"),
    "no-data": (lambda c: (c.folder / "data.npy").unlink(), "data.npy"),
    "no-comparator": (lambda c: (c.folder / "comparator.npy").unlink(), "comparator.npy"),
    "cut-data": (
        lambda c: (c.folder / "data.npy").write_bytes((c.folder / "data.npy").read_bytes()[:-8]),
        "truncated",
    ),
    "long-data": (
        lambda c: (c.folder / "data.npy").write_bytes((c.folder / "data.npy").read_bytes() + b"0"),
        "bytes",
    ),
    "text-data": (lambda c: (c.folder / "data.npy").write_text("1,2,3"), "not a NumPy array"),
    "empty-data": (lambda c: (c.folder / "data.npy").write_text(""), "not a NumPy array"),
    "bad-header": (
        lambda c: (c.folder / "data.npy").write_bytes(
            b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': print(" + b" " * 90
        ),
        "not a NumPy array",
    ),
    "folder": (lambda c: ((c.folder / "data.npy").unlink(), (c.folder / "data.npy").mkdir()), "data.npy"),
}


@pytest.mark.parametrize(("damage", "sentence"), UNREADABLE.values(), ids=UNREADABLE)
def test_exit_2_says_what_cannot_be_read(one, capsys, damage, sentence):
    damage(one)
    assert main([str(one.path)]) == 2
    out = capsys.readouterr().out
    assert sentence in out and out.rstrip().endswith("UNREADABLE")


def test_json_output_is_one_object(one, capsys):
    assert main([str(one.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["verdict"] == "accepted" and shown["accepted"] is True
    assert [s["name"] for s in shown["steps"]] == [name for name, _ in STEPS]


def test_the_module_runs_from_anywhere_without_proxyconvex(originals, tmp_path):
    """An isolated interpreter that sees the checker alone accepts a certificate and loads nothing else."""
    shutil.copytree(CHECKER, tmp_path / "proxyconvex_checker")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import proxyconvex_checker.__main__ as m; "
        "code = m.main([sys.argv[2]]); heavy = {'jax', 'scipy', 'proxyconvex', 'flint'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    for name, case in originals.items():
        run = subprocess.run(
            [sys.executable, "-I", "-c", script, str(tmp_path), str(case.path)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        expected = 1 if name == "made-up" else 0  # the made-up family exists in the tests only
        assert run.returncode == expected, run.stdout + run.stderr


def test_the_checker_imports_only_numpy_and_the_standard_library():
    for file in CHECKER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                root = name.split(".")[0]
                if (file.name, root) == ("library.py", "flint"):
                    continue  # a test of NumPy's functions where python-flint is installed; nothing depends on it
                assert root == "numpy" or root in sys.stdlib_module_names, f"{file.name} imports {name}"


def test_an_unexpected_error_rejects(one, monkeypatch):
    from proxyconvex_checker.claims import promise as module

    monkeypatch.setattr(module, "statement", lambda *_: 1 / 0)
    step, message = failing(one.path)
    assert step == "statement" and "could not be completed (ZeroDivisionError" in message


# --- writing -----------------------------------------------------------------------------------------------


def test_a_plan_that_says_more_than_its_theorem_is_not_written(one, tmp_path):
    from proxyconvex.core.evidence import Evidence

    plan = one.plan
    plan.guarantee.evidence, before = Evidence.PROVED, plan.guarantee.evidence
    try:
        with pytest.raises(InvalidInputError, match="guarantee.evidence"):
            certificate.write_certificate(plan, tmp_path / "new")
    finally:
        plan.guarantee.evidence = before
    assert not (tmp_path / "new" / "certificate.json").exists()


def test_load_decodes_floats_and_refuses_bad_documents(one):
    assert certificate.load(one.folder)["claim"]["bound"] == claims.padded("bound", one.plan.derived["bound"])
    one.change(lambda r: r.pop("claim"))
    with pytest.raises(InvalidInputError, match="missing field claim"):
        certificate.load(one.path)


# --- numbers in words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [
        (0.1, "0.100001", "0.1"),
        (1 / 3, "0.333334", "0.333333"),
        (12345678.9, "12345700", "12345600"),
        (1e-9, "1e-9", "1.00000e-9"),
        (0.0, "0", "0"),
        (3.0, "3", "3"),
        (-1 / 3, "-0.333333", "-0.333334"),
    ],
)
def test_numbers_are_printed_on_their_safe_side(value, up, down):
    from decimal import Decimal

    assert Decimal(claims.show(value)) >= Decimal(value) >= Decimal(claims.show(value, lower=True))
    assert abs(Decimal(claims.show(value)) - Decimal(value)) <= abs(Decimal(value)) * Decimal("1e-5")
    if value not in (0.1, 1e-9):
        assert (claims.show(value), claims.show(value, lower=True)) == (up, down)


def test_column_ranges_are_compact():
    assert claims.ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
