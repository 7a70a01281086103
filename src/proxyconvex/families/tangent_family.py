"""The command line's instance of U: a dense network of the user's shape (`tangent` has the theory and the Python interface)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..core.references import FREI_GU_2021, JACOT_2018, PROXYCONVEX_NOTES, Reference
from .dense_family import DenseFamily


@dataclass(frozen=True)
class TangentFamily(DenseFamily):
    """Any dense network through its tangent model."""

    name: ClassVar[str] = "tangent"
    title: ClassVar[str] = (
        "Any model through its tangent model; here a dense network (Frei and Gu 2021, section 4)"
    )
    references: ClassVar[tuple[Reference, ...]] = (FREI_GU_2021, JACOT_2018, PROXYCONVEX_NOTES)
    tasks: ClassVar[tuple[str, ...]] = ("binary", "multiclass", "regression")
