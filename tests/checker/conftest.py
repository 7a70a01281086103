"""Small certificates for the checker's tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import certificate_cases
import numpy as np
import pytest

from proxyconvex.report import certificate
from proxyconvex_checker import document


class Certificate:
    """A certificate folder that a test may damage."""

    def __init__(self, folder: Path, plan: SimpleNamespace) -> None:
        self.folder, self.plan = folder, plan
        self.path = folder / "certificate.json"

    @property
    def raw(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    def write(self, raw: dict[str, Any], reseal: bool = True) -> Path:
        raw = dict(raw)
        if reseal:
            raw["seal"] = document.seal(raw)
        self.path.write_text(json.dumps(raw))
        return self.path

    def change(self, edit: Callable[[dict[str, Any]], None], reseal: bool = True) -> Path:
        raw = self.raw
        edit(raw)
        return self.write(raw, reseal)

    def array(self, name: str) -> np.ndarray:
        return np.load(self.folder / name)

    def save(self, name: str, array: np.ndarray) -> None:
        np.save(self.folder / name, array)


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


def copy_of(original: Certificate, folder: Path) -> Certificate:
    shutil.copytree(original.folder, folder / "certificate")
    return Certificate(folder / "certificate", original.plan)
