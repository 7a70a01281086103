"""What the real planners promise on real data is what the checker accepts, and a promise damaged by 1e-12 is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from certificate_damage import Certificate

from proxyconvex.core.references import REFERENCES
from proxyconvex.report import certificate
from proxyconvex.synthesis.plan import plan
from proxyconvex_checker import document
from proxyconvex_checker.checking import verify
from proxyconvex_checker.claims import promise as claims
from proxyconvex_checker.claims.table import CLAIMS

SETTINGS = {
    "two-layer-T8": dict(family="two-layer-ntk", width=64, method="normalised-gd"),
    "two-layer-T4T5": dict(family="two-layer-ntk", width=64, method="gd", steps=500),
    "leaky-T3e": dict(family="leaky-relu-noise", width=5, method="sgd", steps=10_000),
    "leaky-T6e": dict(family="leaky-relu-noise", width=5, method="sgd", one_pass=True),
    "leaky-T8": dict(family="leaky-relu-noise", width=5, method="normalised-gd", steps=1_000_000),
    "leaky-T3f": dict(family="leaky-relu-noise", width=5, method="gd", steps=10_000),
    "hinge-T3m": dict(family="leaky-relu-hinge", width=5),
    "hinge-T3u": dict(family="leaky-relu-hinge", width=5, steps=5000),
    "neuron-T3r": dict(family="single-neuron", steps=20_000),
    "deep-T8": dict(family="deep-relu", width=16, activation="softplus", output_scale=2.0**14),
    "tangent-T8": dict(
        family="tangent", width=16, activation="smooth-leaky", slope=0.2, output_scale=2.0**12
    ),
    "three-layer-T4T5": dict(
        family="three-layer",
        width=16,
        activation="softplus",
        beta=1.0,
        output_scale=2.0**16,
        method="gd",
        steps=300,
    ),
    "leaky-smooth": dict(
        family="leaky-relu-noise", width=5, method="gd", steps=10_000, activation="smooth-leaky"
    ),
}


@pytest.fixture(scope="module", params=list(SETTINGS))
def planned(request, tmp_path_factory) -> Certificate:
    made = plan("wine:0,1", **SETTINGS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    certificate.write_certificate(made, folder)
    return Certificate(folder, made)


def test_the_checker_accepts_what_the_planner_promises(planned):
    result = verify(planned.path)
    assert result.accepted, result.steps[-1]
    assert result.notes == ()
    stated, promise = certificate.load(planned.path)["claim"], planned.plan.guarantee
    assert stated["quantity"] == promise.quantity and stated["evidence"] == promise.evidence.name
    assert promise.bound <= stated["bound"] <= promise.bound * (1 + 2e-10)
    assert promise.probability == stated["probability"]
    if promise.error_bound is not None:
        assert promise.error_bound <= stated["error_bound"] <= promise.error_bound * (1 + 2e-10)


def test_the_planned_promise_lowered_by_1e_12_is_rejected(planned, tmp_path):
    derived = planned.plan.derived["error_bound"]
    lowered = derived * (1 - 1e-12) if derived else -math.ulp(0.0)
    parsed = certificate.load(planned.path)
    claim = claims.lookup(parsed, CLAIMS)
    parsed["claim"]["error_bound"] = lowered
    parsed["claim"]["premises"] = claims.premises(parsed, claim)
    parsed["statement"] = claims.statement(parsed, claim)
    copy = Certificate(tmp_path, planned.plan)
    for name in ("data.npy", "comparator.npy"):
        copy.save(name, planned.array(name))
    result = verify(copy.write(document.encode(parsed)))
    assert not result.accepted and result.steps[-1].name == "claim"


def test_another_comparator_is_rejected(planned, tmp_path):
    copy = Certificate(tmp_path, planned.plan)
    copy.save("data.npy", planned.array("data.npy"))
    other = planned.array("comparator.npy") * np.float64(1 + 1e-15)
    copy.save("comparator.npy", other)
    copy.write(planned.raw)
    assert verify(copy.path).steps[-1].name == "comparator"


def test_every_reference_of_the_table_exists():
    for claim in CLAIMS.values():
        assert set(claim.references) | {p.reference for p in claim.premises} <= {*REFERENCES}
        assert claim.premises and claim.references and claim.evidence in document.EVIDENCE
