"""Certificates in weight space: accepted as written, and no damage makes anything false acceptable."""

from __future__ import annotations

import copy
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificate_damage import at, dotted, leaves, objects

import proxyconvex as pc
from proxyconvex_checker import document
from proxyconvex_checker.checking import verify
from proxyconvex_checker.initial import array_digest
from proxyconvex_checker.weights import claims as weight_claims

MUTATIONS = 600


def spaces() -> dict[str, tuple[pc.WeightSpace, str]]:
    rng = np.random.default_rng(0)
    x, u = rng.standard_normal((8, 3)), rng.standard_normal(3)
    half, y = rng.standard_normal((5, 3)), np.sign(x @ u)
    v = np.concatenate([half + u, half - u])
    layers = (rng.standard_normal((6, 3)), rng.standard_normal((6, 6)), rng.standard_normal((1, 6)))
    hidden = np.logaddexp(0, 2 * 0.4 * np.logaddexp(0, 2 * x @ layers[0].T) / 2 @ layers[1].T) / 2
    labels = np.sign(hidden @ layers[2][0])
    two, dense = pc.TwoLayerNetwork, pc.DenseNetwork
    relu, soft = pc.Activation("relu"), pc.Activation("softplus", 0.0, 2.0)
    both = pc.intersect(pc.Ball(v, 0.5), pc.PerNeuronBalls(v, 0.3))
    per_layer = pc.Product(tuple(pc.Ball(w, 0.1) for w in layers))
    return {
        "joint flips": (pc.WeightSpace(two(relu), pc.Ball(v, 0.7), x, y), "tangent-loss"),
        "mean decrease": (pc.WeightSpace(two(relu), pc.Ball(v, 0.7), x, y), "mean-tangent-decrease"),
        "margin": (pc.WeightSpace(two(pc.Activation("leaky-relu", 0.2)), both, x, y), "margin"),
        "smooth": (pc.WeightSpace(two(soft), pc.PerNeuronBalls(v, 0.3), x, y), "tangent-margin"),
        "dense": (
            pc.WeightSpace(dense(soft, (1.0, 0.4, 0.4)), pc.Ball(layers, 0.02), x, labels),
            "tangent-margin",
        ),
        "per layer": (pc.WeightSpace(dense(soft, None, (True, False, True)), per_layer, x), "hessian"),
    }


@pytest.fixture(scope="module", params=list(spaces()))
def written(request, tmp_path_factory) -> tuple[Path, pc.WeightSpace, str]:
    space, quantity = spaces()[request.param]
    folder = tmp_path_factory.mktemp("weights")
    space.write_certificate(folder, quantity)
    return folder, space, quantity


def save(folder: Path, raw: dict[str, Any], reseal: bool = True) -> None:
    if reseal:
        raw = {**raw, "seal": document.seal(raw)}
    (folder / "certificate.json").write_text(json.dumps(raw))


@pytest.fixture
def good(written, tmp_path):
    """A private copy: folder, raw document, space, quantity."""
    folder, space, quantity = written
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path, json.loads((tmp_path / "certificate.json").read_text()), space, quantity


def test_a_certificate_is_accepted_and_says_what_was_certified(written):
    folder, space, quantity = written
    result = verify(folder)
    assert result.accepted, result.steps[-1]
    value = float.fromhex(json.loads((folder / "certificate.json").read_text())["claim"]["value"])
    assert value == pytest.approx(space.bound(quantity), rel=1e-9)
    assert weight_claims.QUANTITIES[quantity].words in result.statement
    assert pc.verify(folder / "certificate.json").accepted


def test_the_command_line_checks_it(written):
    run = subprocess.run(
        [sys.executable, "-m", "proxyconvex_checker", str(written[0])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ACCEPTED" in run.stdout


def test_a_tighter_claim_with_a_matching_sentence_is_rejected(good):
    """The near miss: the number moved by 1e-6 of its size beyond what is certified, everything else consistent."""
    folder, raw, space, quantity = good
    certified = space.bound(quantity)
    sign = 1 if weight_claims.QUANTITIES[quantity].lower else -1
    value = certified + sign * 1e-6 * max(abs(certified), 1e-3)
    raw["claim"]["value"] = value.hex()
    raw["statement"] = weight_claims.statement(space.subject, quantity, value)
    save(folder, raw)
    result = verify(folder)
    assert not result.accepted
    assert result.steps[-1].name == "claim"


def test_a_larger_region_with_a_matching_sentence_is_rejected(good):
    folder, raw, space, quantity = good
    if raw["region"]["radius"] is None:
        entry = next(a for a in raw["arrays"] if a["name"] == "radii")
        array = np.load(folder / "radii.npy") * 1.2
        np.save(folder / "radii.npy", array)
        entry["sha256"] = array_digest(array)
        arrays, radius = {**space.subject.arrays, "radii": array}, None
    else:
        radius = float.fromhex(raw["region"]["radius"]) * 1.2
        raw["region"]["radius"] = radius.hex()
        arrays = dict(space.subject.arrays)
        if "radii" in arrays:
            pytest.skip("the smaller of two regions is still covered by the other")
    subject = weight_claims.Subject(
        space.subject.kind,
        space.subject.activation,
        arrays,
        radius,
        space.subject.scales,
        space.subject.trained,
    )
    value = float.fromhex(raw["claim"]["value"])
    raw["statement"] = weight_claims.statement(subject, quantity, value)
    save(folder, raw)
    result = verify(folder)
    assert not result.accepted
    assert result.steps[-1].name == "claim"


def test_any_nu_proves_only_what_it_proves(good):
    """A nu far from the best gives a weaker bound; the certificate with it is rejected, not believed."""
    folder, raw, _, _ = good
    if raw["proof"]["nu"] is None:
        return
    raw["proof"]["nu"] = (100 * float.fromhex(raw["proof"]["nu"])).hex()
    save(folder, raw)
    assert not verify(folder).accepted
    raw["proof"]["nu"] = None
    save(folder, raw)
    result = verify(folder)
    assert not result.accepted, "without nu only the row-by-row bound is left"


def test_changed_arrays_are_rejected(good):
    folder, raw, _, _ = good
    rng = random.Random(0)
    for entry in raw["arrays"]:
        path = folder / entry["file"]
        original = path.read_bytes()
        array = np.load(path)
        array.flat[rng.randrange(array.size)] *= 1 + 1e-15 if array.flat[0] else 1
        array.flat[rng.randrange(array.size)] += 1e-9
        np.save(path, array)
        assert verify(folder).steps[-1].name == "arrays"
        path.write_bytes(original[:-8])
        assert verify(folder).exit_code == 2
        path.write_bytes(original)
    assert verify(folder).accepted


def test_weights_that_break_the_claim_are_rejected_even_when_named(good):
    """An adversary who replaces the network and its hash: the claim is computed again."""
    folder, raw, _, quantity = good
    entry = next(a for a in raw["arrays"] if a["name"] == "weight_0")
    array = np.load(folder / "weight_0.npy") * (-3.0)
    np.save(folder / "weight_0.npy", array)
    entry["sha256"] = array_digest(array)
    save(folder, raw)
    result = verify(folder)
    if quantity not in ("hessian", "mean-tangent-decrease"):
        assert not result.accepted


def damage(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return rng.choice([not value, None, 1])
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, -value - 1, str(value), None, float(value)])
    if value is None:
        return rng.choice([(0.5).hex(), 0, "", [], (1e-3).hex()])
    if value.lstrip("-").startswith("0x"):
        x = float.fromhex(value)
        moved = [float(np.nextafter(x, s * np.inf)) for s in (1, -1)] + [
            x * 1.001,
            x * 0.999,
            x + 1,
            -x,
            0.0,
            2 * x,
        ]
        return rng.choice([*(m.hex() for m in moved), "nan", "inf", x, None, value + "0"])
    i = rng.randrange(len(value))
    return rng.choice(
        [
            value[:i] + rng.choice("0aZ.x ") + value[i + 1 :],
            value[:i] + value[i + 1 :],
            value + " ",
            "",
            None,
            3,
        ]
    )


def weaker(raw: dict[str, Any], path: tuple, old: Any, new: Any) -> bool:
    """Whether a change cannot have made the claim false (then acceptance is right)."""
    if path[0] == "proof":
        return True  # any nu and any number of shells prove what they prove
    if path[0] == "proxyconvex":
        return isinstance(new, str)
    # One unit in the last place of a radius, a scale or the claim: stored claims keep a distance of 1e-10 from what is certified.
    return all(isinstance(v, str) and v.lstrip("-").startswith("0x") for v in (old, new)) and math.isclose(
        float.fromhex(old), float.fromhex(new), rel_tol=1e-14
    )


def test_no_single_change_makes_something_false_acceptable(good):
    folder, raw, _, _ = good
    rng, places = random.Random(1), [p for p in leaves(raw) if p != ("seal",)]
    for k in range(MUTATIONS // 6):
        changed, path = copy.deepcopy(raw), places[k % len(places)]
        holder, old = at(changed, path[:-1]), at(changed, path)
        holder[path[-1]] = damage(old, rng)
        if holder[path[-1]] == old and type(holder[path[-1]]) is type(old):
            continue
        save(folder, changed, reseal=False)
        assert not verify(folder).accepted, f"accepted without a new seal: {dotted(path)}"
        save(folder, changed)
        if verify(folder).accepted:
            assert weaker(changed, path, old, holder[path[-1]]), (
                f"{dotted(path)}: {old!r} -> {holder[path[-1]]!r}"
            )


def test_no_missing_or_extra_field(good):
    folder, raw, _, _ = good
    for path in objects(raw):
        for key in list(at(raw, path)):
            changed = copy.deepcopy(raw)
            del at(changed, path)[key]
            save(folder, changed, reseal=key != "seal")
            if (*path, key) != ("seal",):
                assert not verify(folder).accepted
        changed = copy.deepcopy(raw)
        at(changed, path)["extra"] = 1
        save(folder, changed)
        assert not verify(folder).accepted


def test_the_ordinary_checker_still_refuses_what_is_no_certificate(tmp_path):
    (tmp_path / "certificate.json").write_text('{"format": "something else"}')
    assert verify(tmp_path).exit_code == 2
