"""Small certificates for the checker's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves helper modules to us

import certificate_cases  # noqa: E402
from certificate_damage import Certificate, copy_of  # noqa: E402

from proxyconvex.report import certificate  # noqa: E402


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> dict[str, Certificate]:
    """One valid certificate per case of `certificate_cases`, written once."""
    made = {}
    for name, build in certificate_cases.CASES.items():
        plan, folder = build(), tmp_path_factory.mktemp(name.replace(" ", "-"))
        certificate.write_certificate(plan, folder)
        made[name] = Certificate(folder, plan)
    return made


@pytest.fixture(params=list(certificate_cases.CASES))
def good(request, originals, tmp_path) -> Certificate:
    """A private copy of a valid certificate, for every case."""
    return copy_of(originals[request.param], tmp_path)


@pytest.fixture
def one(originals, tmp_path) -> Certificate:
    """A private copy of one valid certificate, where the family does not matter."""
    return copy_of(next(iter(originals.values())), tmp_path)
