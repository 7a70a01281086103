"""One budget of time for all parts of a check: every part asks the same deadline what is left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

clock = time.monotonic
"""The clock of every part of a check, in seconds; asked through this module, so that a test can put another one in its place."""


class OutOfTime(Exception):
    """The time was used up inside a part that cannot give a partial result."""


@dataclass(frozen=True)
class Deadline:
    """A time of `clock` after which no new piece of work is begun.

    Attributes:
        at: the time; infinite for no limit.
    """

    at: float = math.inf

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """So many seconds from now; None for no limit."""
        return cls() if seconds is None else cls(clock() + seconds)

    @property
    def left(self) -> float:
        """Seconds that remain, negative afterwards."""
        return self.at - clock()

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return clock() >= self.at

    def part(self, share: float) -> Deadline:
        """The deadline for a part that may use this share of what is left."""
        return Deadline(self.at - (1 - share) * self.left) if math.isfinite(self.at) else self

    def check(self) -> None:
        """For loops without a partial result.

        Raises:
            OutOfTime: if it has passed.
        """
        if self.over:
            raise OutOfTime


NEVER = Deadline()
