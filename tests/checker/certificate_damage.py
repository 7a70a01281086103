"""A certificate folder that a test may damage, and paths into its JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

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


def copy_of(original: Certificate, folder: Path) -> Certificate:
    shutil.copytree(original.folder, folder / "certificate")
    return Certificate(folder / "certificate", original.plan)


def leaves(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of every scalar in a JSON value."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in leaves(v, (*path, k))]
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in leaves(v, (*path, i))]
    return [path]


def objects(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of every object in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ([path] if isinstance(value, dict) else []) + [p for k, v in inner for p in objects(v, (*path, k))]


def at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def dotted(path: tuple) -> str:
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path).lstrip(".")
