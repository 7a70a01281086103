"""What a claim rests on (the evidence ladder) and what a check can answer (verdicts)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Evidence(enum.IntEnum):
    """The ladder of evidence; a guarantee has the evidence of its weakest premise."""

    ASSUMED = 0
    SAMPLED = 1
    ON_TRACE = 2
    DECIDED = 3
    CERTIFIED = 4
    PROVED = 5

    def __str__(self) -> str:
        return self.name

    @property
    def sentence(self) -> str:
        """What this rung of the ladder means, in one sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Evidence.ASSUMED: "taken on trust; not proved",
    Evidence.SAMPLED: "no violation was found at the points tried, which proves nothing about others",
    Evidence.ON_TRACE: "true at every point this run visited; says nothing about another run",
    Evidence.DECIDED: "decided for the whole region by a solver whose answer cannot be checked again",
    Evidence.CERTIFIED: "verified with outward-rounded arithmetic on the whole region",
    Evidence.PROVED: "a lemma with a written proof holds for these constants",
}


class Status(enum.Enum):
    """The possible answers of a check; each member's value is a sentence."""

    HOLDS = "The condition holds."
    FALSIFIED = "The condition is false: a counterexample was found."
    NOT_FALSIFIED = "No counterexample was found; this does not show that none exists."
    INCONCLUSIVE = "Neither a counterexample nor a proof was found."
    INVALID_INPUT = "The input cannot be checked."


@dataclass(frozen=True)
class Verdict:
    """The answer of a check: a status, a sentence with numbers, and its witness.

    There is deliberately no truth value: ``if verdict:`` raises, because "not falsified" is not "true".
    """

    status: Status
    sentence: str
    evidence: Evidence = Evidence.ASSUMED
    witness: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        raise TypeError(
            "a Verdict has no truth value; compare verdict.status with Status.HOLDS, Status.FALSIFIED, ..."
        )

    def __str__(self) -> str:
        return f"{self.status.name}: {self.sentence}"
