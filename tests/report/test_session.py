"""The folder of an audit never shows one promise beside the outcome or the certificate of another."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.data import Dataset, default_preprocessing
from proxyconvex.families.links import Link
from proxyconvex.report.session import audit_folder, promise_folder, write_promise


def planned(steps: int = 60, activation: object = "leaky-relu"):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 2))
    data = Dataset("numbers", x, np.tanh(x[:, 0]), task="regression")
    return pc.plan(
        data,
        family="single-neuron",
        activation=activation,
        steps=steps,
        preprocessing=default_preprocessing(data),
    )


@pytest.fixture(scope="module")
def certified():
    return planned()


@pytest.fixture(scope="module")
def declared():
    return planned(activation=Link.custom(lambda t: jnp.maximum(t, 0.5 * t), 1.0, 0.5))


def names(folder):
    return {p.name for p in folder.iterdir()}


def test_a_promise_without_a_certificate_replaces_one_with_it_and_the_other_way_round(
    certified, declared, tmp_path
):
    write_promise(certified, tmp_path)
    assert "certificate.json" in names(tmp_path)
    assert write_promise(declared, tmp_path).name == "promise.json"
    assert "certificate.json" not in names(tmp_path)
    write_promise(certified, tmp_path)
    assert "promise.json" not in names(tmp_path) and pc.verify(tmp_path).accepted


def test_resuming_another_run_touches_nothing(certified, tmp_path):
    audit_folder(certified, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert {"certificate.json", "trace.npz", "audit.json", "report.html", "checkpoint.npz"} <= set(before)
    with pytest.raises(InvalidInputError, match="checkpoint of this very run"):
        audit_folder(planned(steps=70), tmp_path, resume=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_run_that_fails_leaves_no_outcome_of_the_one_before(certified, declared, tmp_path, monkeypatch):
    audit_folder(certified, tmp_path)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("proxyconvex.report.session.run", killed)
    with pytest.raises(KeyboardInterrupt):
        audit_folder(declared, tmp_path)
    assert not names(tmp_path) & {"certificate.json", "trace.npz", "audit.json", "report.html"}


def test_what_cannot_be_done_is_refused_before_anything_is_written(certified, tmp_path):
    with pytest.raises(InvalidInputError, match="runs = 3 .*no randomness"):
        audit_folder(certified, tmp_path / "many", runs=3)
    assert not (tmp_path / "many").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="a folder that can be created"):
        audit_folder(certified, tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""


def test_a_promise_alone_does_not_go_beside_the_outcome_of_another(certified, tmp_path):
    assert promise_folder(tmp_path / "new").is_dir()
    audit_folder(certified, tmp_path)
    with pytest.raises(InvalidInputError, match=r"audit\.json"):
        promise_folder(tmp_path)
