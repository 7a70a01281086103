"""Ways to prove one inequality by boxes: as it stands, in another writing, as a quadratic form, with second derivatives."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.expressions import Expression
from .curvature import Segment
from .rewrite import Plan


@dataclass(frozen=True)
class Way:
    """What boxes may be closed with, besides the slack itself.

    Attributes:
        plan: a quadratic form that equals the slack.
        rewritten: another expression that equals the slack.
        segment: where the slack vanishes to second order.
    """

    plan: Plan | None = None
    rewritten: Expression | None = None
    segment: Segment | None = None

    @property
    def requirements(self) -> tuple[Expression, ...] | None:
        """What makes the slack >= 0 where it is >= 0."""
        if self.plan is not None:
            return self.plan.requirements
        return None if self.rewritten is None else (self.rewritten,)

    @property
    def sentence(self) -> str:
        """How, in words."""
        parts = []
        if self.plan is not None:
            parts.append(f"{self.plan.sentence}, positive semi-definite on every box")
        if self.rewritten is not None:
            parts.append("the slack expanded as a polynomial in function values")
        if self.segment is not None:
            parts.append(self.segment.sentence)
        return "; ".join(parts) or "by subdivision alone"
