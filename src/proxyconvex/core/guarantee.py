"""A guarantee: premises with their evidence, a theorem, and the number it promises."""

from __future__ import annotations

from dataclasses import dataclass, field

from .evidence import Evidence
from .methods import Method
from .references import Reference


@dataclass(frozen=True)
class PremiseRecord:
    """One premise of a guarantee as it is printed, stored and audited.

    Attributes:
        name: short stable identifier, e.g. ``"proxy-convexity"``, ``"growth"``, ``"smoothness"``, ``"iid"``.
        statement: the premise as a sentence with its numbers.
        evidence: rung of the ladder on which it stands.
        reference: where it is proved.
        value: its constant, where it has one.
    """

    name: str
    statement: str
    evidence: Evidence
    reference: Reference
    value: float | None = None


@dataclass(frozen=True, repr=False)
class Guarantee:
    """What a theorem promises for a method on a problem.

    Attributes:
        theorem: identifier such as ``"T8"``.
        quantity: identifier of the bounded quantity: one of ``"best-iterate-error"``, ``"average-error"``,
            ``"online-error"``, ``"population-error"``, ``"final-loss"``, ``"best-loss"``, ``"average-slope"``, ``"best-proxy"``...
        sentence: the promise in one sentence for a person.
        bound: the promised upper bound on ``quantity``.
        error_bound: the implied upper bound on the classification error (``None`` where there is none).
        mode: ``"every-run"``, ``"expectation"`` (a promise about the mean over runs) or ``"probability"``.
        probability: confidence level when ``mode == "probability"``.
        baseline: what a constant prediction reaches, where the bound is a risk: a bound that is not below it says nothing.
        premises: everything it rests on.
        method: the method it speaks of, with its step size and number of steps.
        references: the sources of exactly the results used.
        constants: the numbers that enter the formula, by name.
    """

    theorem: str
    quantity: str
    sentence: str
    bound: float
    error_bound: float | None
    mode: str
    premises: tuple[PremiseRecord, ...]
    method: Method
    references: tuple[Reference, ...]
    constants: dict[str, float] = field(default_factory=dict)
    probability: float | None = None
    baseline: float | None = None

    @property
    def evidence(self) -> Evidence:
        """The weakest premise's evidence."""
        return min((p.evidence for p in self.premises), default=Evidence.ASSUMED)

    def __repr__(self) -> str:
        lines = [f"Guarantee by {self.theorem} ({self.mode}): {self.sentence}"]
        lines += [f"  evidence {self.evidence.name}: {self.evidence.sentence}"]
        lines += [f"  {p.evidence.name:<9} {p.name}: {p.statement}" for p in self.premises]
        return "\n".join(lines)

    @property
    def vacuous(self) -> bool:
        """Whether the promise says nothing: an error bound of at least one half, a risk that a constant has, or no number."""
        if self.baseline is not None:
            return not self.bound < self.baseline
        if self.error_bound is not None:
            return not self.error_bound < 0.5
        return not self.bound < float("inf")


@dataclass(frozen=True)
class Alternative:
    """One row of ``explain``: a theorem, whether it applies, and what it would promise.

    Attributes:
        theorem: identifier such as ``"T8"``.
        accepted: whether its premises hold for the method at hand.
        reason: why it applies, or the innermost premise that fails and what it would need.
        bound: what it would promise, where it applies.
        error_bound: the implied bound on the classification error.
    """

    theorem: str
    accepted: bool
    reason: str
    bound: float | None = None
    error_bound: float | None = None
