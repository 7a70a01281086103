"""Random single-field damage to valid certificates: nothing false is ever accepted.

A mutation changes one field of ``certificate.json`` or one entry of an array, and may be followed by sealing
the document anew (an adversary can do that). Without a new seal nothing may pass. With one, only a number
that became weaker on its safe side may pass (every statement stays true), and then with a note that names it.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from certificate_damage import Certificate, at, copy_of, leaves, objects

from proxyconvex_checker import document
from proxyconvex_checker.checking import verify
from proxyconvex_checker.claims import promise as claims
from proxyconvex_checker.claims.table import CLAIMS

MUTATIONS = 2_000


# --- mutating one value ------------------------------------------------------------------------------------


def is_hex_float(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip("-").startswith("0x")


def mutate_float(text: str, rng: random.Random) -> Any:
    x = float.fromhex(text)
    choices: list[Any] = [float(np.nextafter(x, s * np.inf)).hex() for s in (1, -1)]
    for relative in (1e-12, 3e-11, 1e-10, 5e-10, 1e-8, 1e-3, 1.0):
        choices += [
            (x * (1 + relative)).hex(),
            (x * (1 - relative)).hex(),
            (x + relative).hex(),
            (x - relative).hex(),
        ]
    choices += [
        (-x).hex(),
        (0.0).hex(),
        "nan",
        "inf",
        "",
        text.upper(),
        repr(x),
        x,
        None,
        1,
        [text],
        text + "0",
    ]
    return rng.choice(choices)


def mutate_text(text: str, rng: random.Random) -> Any:
    i = rng.randrange(len(text))
    other = rng.choice("0123456789abcdefxyz .")
    return rng.choice(
        [
            text[:i] + other + text[i + 1 :],
            text[:i] + text[i + 1 :],
            text[:i] + other + text[i:],
            text.swapcase(),
        ]
        + [
            text + " ",
            "",
            "x",
            None,
            7,
            [text],
            "T8",
            "T3e",
            "PROVED",
            "CERTIFIED",
            "gd",
            "sgd",
            "expectation",
            "none",
        ]
        + [
            "softplus",
            "relu",
            "leaky-relu",
            "two-layer-ntk",
            "leaky-relu-noise",
            "one-pass",
            "cyclic",
            "../data.npy",
        ]
    )


def mutate_scalar(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return rng.choice([not value, None, int(value), str(value)])
    if value is None:
        return rng.choice([0, 1, "cyclic", "one-pass", (0.5).hex(), False, []])
    if isinstance(value, int):
        return rng.choice(
            [
                value + 1,
                value - 1,
                2 * value,
                0,
                -value,
                10**12,
                str(value),
                float(value).hex(),
                value + 0.5,
                None,
            ]
        )
    return mutate_float(value, rng) if is_hex_float(value) else mutate_text(value, rng)


def mutate_structure(raw: dict[str, Any], rng: random.Random) -> tuple:
    path = rng.choice(objects(raw))
    target = at(raw, path)
    key = rng.choice(list(target))
    kind = rng.choice(["drop", "add", "rename", "list"])
    if kind == "drop":
        del target[key]
    elif kind == "add":
        target[rng.choice(["note", "zeta", "slope", "bound", "seed"]) + "_"] = rng.choice(
            [0, (0.5).hex(), "x", None]
        )
    elif kind == "rename":
        target[key + "_"] = target.pop(key)
    else:
        lists = [p for p in {q[:-1] for q in leaves(raw)} if isinstance(at(raw, p), list)]
        path, key = rng.choice(sorted(lists, key=str)), "[]"
        values = at(raw, path)
        rng.choice([values.pop, lambda: values.append(values[0]), lambda: values.insert(0, values[-1])])()
    return (*path, key)


def mutate_array(case: Certificate, rng: random.Random) -> tuple:
    name = rng.choice(["data.npy", "comparator.npy"])
    array = case.array(name)
    flat = array.reshape(-1)
    i, j = rng.sample(range(flat.size), 2)
    kind = rng.choice(["ulp", "tiny", "sign", "swap", "zero", "shape", "type"])
    if kind == "ulp":
        flat[i] = np.nextafter(flat[i], rng.choice([-np.inf, np.inf]))
    elif kind == "swap":
        flat[[i, j]] = flat[[j, i]]
    elif kind in ("tiny", "sign", "zero"):
        flat[i] = {"tiny": flat[i] + 1e-9, "sign": -flat[i], "zero": 0.0}[kind]
    before = case.array(name)
    array = {
        "shape": array[..., :-1],
        "type": array.astype(np.float32).astype(rng.choice([np.float32, np.float64])),
    }.get(kind, array)
    if array.dtype == before.dtype and array.shape == before.shape and np.array_equal(array, before):
        return ()
    case.save(name, np.ascontiguousarray(array))
    return (name, kind)


# --- the oracle --------------------------------------------------------------------------------------------


def still_true(case: Certificate, path: tuple, new: Any) -> bool:
    """Whether a document with this one number changed states nothing false, by the planner's numbers."""
    if not is_hex_float(new) or path[0] not in ("constants", "claim") or len(path) != 2:
        return False
    derived = case.plan.derived.get(path[1])
    if derived is None:
        return False
    sampling = getattr(case.plan.method, "sampling", None)
    claim = CLAIMS[case.plan.family.describe()["name"], case.plan.guarantee.theorem, sampling]
    if path[0] == "claim":
        return float.fromhex(new) >= derived
    lower = path[1] in claim.lower
    return path[1] not in claim.exact and (
        float.fromhex(new) <= derived if lower else float.fromhex(new) >= derived
    )


def one_mutation(case: Certificate, rng: random.Random, reseal: bool) -> tuple[tuple, Any] | None:
    """Damage the folder; returns (path, new value), or None if the draw happened to change nothing."""
    original = case.raw
    if rng.random() < 0.15:
        path = mutate_array(case, rng)
        return (path, None) if path else None
    raw = copy.deepcopy(original)
    if rng.random() < 0.15:
        path, new = mutate_structure(raw, rng), None
    else:
        path = rng.choice(leaves(raw))
        new = mutate_scalar(at(raw, path), rng)
        at(raw, path[:-1])[path[-1]] = new
    if reseal and path != ("seal",):
        raw["seal"] = document.seal(raw)
    if json.dumps(raw) == json.dumps(original) or (
        path != ("seal",) and document.seal(raw) == document.seal(original)
    ):
        return None
    case.write(raw, reseal=False)
    return path, new


def judge(case: Certificate, reseal: bool, path: tuple, new: Any) -> str:
    """The step that caught the damage, or ``"passed"`` after checking that what passed is true and has its note."""
    result = verify(case.path)
    if not result.accepted:
        return result.steps[-1].name
    assert reseal and still_true(case, path, new), (path, new)
    assert any(".".join(path) in note for note in result.notes), (path, new, result.notes)
    return "passed"


@pytest.mark.parametrize("reseal", [False, True], ids=["as-is", "sealed-anew"])
def test_no_mutation_makes_a_false_certificate_pass(originals, tmp_path, reseal):
    rng, caught = random.Random(f"mutations-{reseal}"), Counter()
    cases = [copy_of(original, tmp_path / name) for name, original in originals.items()]
    pristine = [{file: file.read_bytes() for file in case.folder.iterdir()} for case in cases]
    while caught.total() < MUTATIONS:
        index = caught.total() % len(cases)
        drawn = one_mutation(cases[index], rng, reseal)
        if drawn is not None:
            caught[judge(cases[index], reseal, *drawn)] += 1
        for file, content in pristine[index].items():
            file.write_bytes(content)
    # The test can only fail if the damage reaches every part of the checker.
    reached = {"schema", "data digest", "comparator"}
    reached |= {"theorem", "constants", "claim", "statement", "initial weights"} if reseal else {"seal"}
    assert all(caught[step] >= 10 for step in reached), caught
    assert caught["passed"] <= (0.06 * MUTATIONS if reseal else 0), caught


# --- an adversary who also rewrites the sentences ----------------------------------------------------------


def restate(raw: dict[str, Any]) -> dict[str, Any]:
    parsed = document.parse(raw)
    claim = claims.lookup(parsed, CLAIMS)
    parsed["claim"]["premises"] = claims.premises(parsed, claim)
    parsed["statement"] = claims.statement(parsed, claim)
    raw = document.encode(parsed)
    raw["seal"] = document.seal(raw)
    return raw


def scaled(*path: str, by: str) -> Callable[[dict[str, Any]], None]:
    def edit(raw: dict[str, Any]) -> None:
        old = at(raw, path)
        new = Fraction(float.fromhex(old) if isinstance(old, str) else old) * Fraction(by)
        at(raw, path[:-1])[path[-1]] = float(new).hex() if isinstance(old, str) else int(new)

    return edit


def both(*edits: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda raw: [edit(raw) for edit in edits] and None


REWRITES = {
    "half-the-steps-in-the-method": scaled("method", "steps", by="1/2"),
    "half-the-bound": scaled("claim", "bound", by="1/2"),
    "half-the-error": scaled("claim", "error_bound", by="1/2"),
    "stronger-evidence": lambda r: r["claim"].update(evidence="PROVED"),
    "every-run": lambda r: r["claim"].update(
        mode="every-run" if r["claim"]["mode"] != "every-run" else "expectation"
    ),
    "other-quantity": lambda r: r["claim"].update(quantity="test-error"),
    "other-initial-scale": lambda r: scaled(
        "family", "gain" if "gain" in r["family"] else "init_scale", by="1001/1000"
    )(r),
    "other-output-scale": lambda r: (
        "output_scale" in r["family"] and scaled("family", "output_scale", by="999/1000")(r)
    ),
    "other-head": lambda r: (
        "head" in r["family"]
        and r["family"].update(head="signs" if r["family"]["head"] == "gaussian" else "gaussian")
    ),
    "not-paired": lambda r: "paired" in r["family"] and r["family"].update(paired=False),
    "another-layer": lambda r: "hidden" in r["family"] and r["family"]["hidden"].append(2),
    "other-initial-seed": lambda r: r["family"].update(seed=r["family"]["seed"] + 1),
    "other-width": lambda r: r["family"].update(
        {"hidden": [m + 2 for m in r["family"]["hidden"]]}
        if "hidden" in r["family"]
        else {"width": r["family"]["width"] + 2}
    ),
    "other-rows": lambda r: r["data"].update(n=r["data"]["n"] - 1),
    "other-bias": lambda r: r["preprocessing"].update(bias=(0.75).hex()),
    "not-centred": lambda r: r["preprocessing"].update(center=not r["preprocessing"]["center"]),
}


@pytest.mark.parametrize("edit", REWRITES.values(), ids=REWRITES)
def test_rewriting_the_sentences_does_not_help(good, edit):
    raw = good.raw
    if at(raw, ("claim", "error_bound")) is None and edit is REWRITES["half-the-error"]:
        pytest.skip("no error bound")
    edit(raw)
    if raw == good.raw:
        pytest.skip("nothing to change: the bound is zero, or the family has no such field")
    try:
        good.write(restate(raw), reseal=False)
    except (claims.CheckError, TypeError):
        return  # the schema or the theorem table already refuses it
    assert not verify(good.path).accepted
