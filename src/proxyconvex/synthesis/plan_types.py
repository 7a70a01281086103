"""The plan: everything that is fixed before training, and what is promised about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..core.guarantee import Alternative, Guarantee
from ..core.methods import Method
from ..families.base import Family, Problem

if TYPE_CHECKING:
    from ..data import Dataset, Preprocessing

__all__ = ["Alternative", "Plan"]


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """A guarantee for one architecture, method and data set, with all that is needed to train and to re-check it.

    Attributes:
        dataset: raw rows, targets in {-1, +1} and their digest.
        preprocessing: the recorded, repeatable preprocessing.
        features: shape (n, d), the exact float64 result of the preprocessing; the promise speaks of these numbers.
        family: architecture and hyperparameters.
        initial: initial weights, shape (m, d).
        comparator: comparator in parameter space, shape (m, d).
        certificate_comparator: what the certificate stores: the comparator itself, or the smaller object it is built
            from (for `leaky-relu-noise` the vector ``u`` of shape (d,)).
        method: gradient method with step size and number of steps.
        guarantee: the promise; its numbers are those the independent checker computed.
        derived: every certified number by name, exactly as the checker returned it.
        theorem_params: the numbers handed to the checker together with the arrays.
        proxy: keyword arguments of `Family.problem` that fix the recorded proxies (for example the certified tangent
            margins ``q`` of shape (n,)), so that a run records the very premise the guarantee uses.
        alternatives: what every other theorem says, best first.
        seed: seed of the sampling order (SGD); the initial weights have their own seed inside ``family``.
        notes: sentences a reader should see beside the promise (for example that it lives in the lazy regime).
        consequence: for a conditional promise ("if, along the run, ..."), what follows where its premises hold; else empty.
    """

    dataset: Dataset
    preprocessing: Preprocessing
    features: Float[np.ndarray, "n d"]
    family: Family
    initial: Float[np.ndarray, "m d"]
    comparator: Float[np.ndarray, "m d"]
    certificate_comparator: np.ndarray
    method: Method
    guarantee: Guarantee
    derived: dict[str, float]
    theorem_params: dict[str, float]
    proxy: dict[str, Any] = field(default_factory=dict)
    alternatives: tuple[Alternative, ...] = ()
    seed: int = 0
    notes: tuple[str, ...] = ()
    consequence: str = ""

    @property
    def conditional(self) -> bool:
        """Whether the promise assumes something about the run that only the run can show."""
        return bool(self.consequence)

    @property
    def targets(self) -> Float[np.ndarray, " n"]:
        """Targets in {-1, +1}, shape (n,)."""
        return self.dataset.targets

    def problem(self) -> Problem:
        """The finite-sum problem that `descent` trains, with the comparator and the recorded proxies bound."""
        return self.family.problem(self.features, self.targets, self.comparator, **self.proxy)

    def _lines(self) -> list[tuple[str, str]]:
        g = self.guarantee
        n, d = self.features.shape
        rows = [
            ("problem", f"{self.family.name} on {self.dataset.name} ({n} rows, {d} features)"),
            ("promise", g.sentence + (" This is vacuous." if g.vacuous else "")),
            ("theorem", f"{g.theorem}, {g.mode}"),
            ("evidence", f"{g.evidence.name}: {g.evidence.sentence}"),
            ("method", f"{self.method}"),
        ]
        rows += [("premise", f"{p.evidence.name} {p.name}: {p.statement}") for p in g.premises]
        return rows + [("note", note) for note in self.notes]

    def __repr__(self) -> str:
        return "\n".join(["Plan", *(f"  {name:<9} {text}" for name, text in self._lines())])

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<tr><th style="text-align:left">{escape(k)}</th><td style="text-align:left">{escape(v)}</td></tr>'
            for k, v in self._lines()
        )
        return f"<table><caption>Plan</caption>{cells}</table>"
