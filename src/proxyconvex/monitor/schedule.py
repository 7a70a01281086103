"""When a quantity is recorded: schedules without state, so that a resumed run records the same steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, final

from ..core.errors import InvalidInputError


class Schedule(Protocol):
    """Decides from the step number alone whether something is due."""

    def due(self, step: int) -> bool:
        """Whether it is due at this step (0, 1, 2, ...)."""
        ...


@final
@dataclass(frozen=True)
class Every:
    """Steps 0, k, 2k, ...

    Attributes:
        k: a whole number >= 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise InvalidInputError("k", self.k, "a whole number of steps >= 1", "Try Every(10).")

    def due(self, step: int) -> bool:
        """See the class."""
        return step % self.k == 0

    def __str__(self) -> str:
        return "every step" if self.k == 1 else f"every {self.k} steps"


@final
@dataclass(frozen=True)
class WithNext:
    """Steps 0, k, 2k, ... and the step after each: what a step left from, and where it arrived.

    Attributes:
        k: a whole number >= 1.
    """

    k: int = 20

    def __post_init__(self) -> None:
        Every(self.k)

    def due(self, step: int) -> bool:
        """See the class."""
        return step % self.k == 0 or step % self.k == 1

    def __str__(self) -> str:
        return "every step" if self.k <= 2 else f"every {self.k} steps and at the step after each"


@final
@dataclass(frozen=True)
class LogSpaced:
    """About ``per_decade`` steps of every power of ten: less than ``(10^(1/per_decade) - 1)(t + 1) + 1`` steps apart at step t.

    Step 0 and, below about ``per_decade / 2.3`` steps, every step are included.

    Attributes:
        per_decade: a whole number >= 1.
    """

    per_decade: int = 300

    def __post_init__(self) -> None:
        if isinstance(self.per_decade, bool) or not isinstance(self.per_decade, int) or self.per_decade < 1:
            raise InvalidInputError(
                "per_decade", self.per_decade, "a whole number >= 1", "Try LogSpaced(20)."
            )

    def due(self, step: int) -> bool:
        """See the class."""
        if step < 1:
            return True
        here, before = (math.floor(self.per_decade * math.log10(s)) for s in (step + 1, step))
        return here > before

    def __str__(self) -> str:
        return f"{self.per_decade} steps of each power of ten"


@final
@dataclass(frozen=True)
class Thinned:
    """The multiples of k, of which about ``per_decade`` in every power of ten."""

    k: int = 10
    per_decade: int = 300

    def __post_init__(self) -> None:
        Every(self.k)
        LogSpaced(self.per_decade)

    def due(self, step: int) -> bool:
        """See the class."""
        return step % self.k == 0 and LogSpaced(self.per_decade).due(step // self.k)

    def __str__(self) -> str:
        return f"{self.per_decade} steps of each power of ten, multiples of {self.k}"


@final
@dataclass(frozen=True)
class Opening:
    """Each of the first ``steps`` steps, afterwards what another schedule says.

    Attributes:
        steps: a whole number >= 1.
        then: a schedule.
    """

    steps: int
    then: Schedule

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidInputError("steps", self.steps, "a whole number of steps >= 1", "Try Opening(32, Every(10)).")  # fmt: skip
        check_schedule("then", self.then)

    def due(self, step: int) -> bool:
        """See the class."""
        return step < self.steps or self.then.due(step)

    def __str__(self) -> str:
        return f"each of the first {self.steps} steps, then {self.then}"


@final
@dataclass(frozen=True)
class Never:
    """Not recorded."""

    def due(self, step: int) -> bool:
        """Never."""
        return False

    def __str__(self) -> str:
        return "never"


@final
class Together:
    """Whether any of several schedules is due. Remembers when that is next, so that asking in order costs one comparison a step.

    Args:
        schedules: any number; they are pure functions of the step, which is what allows to look ahead.
    """

    AHEAD = 64

    def __init__(self, schedules: Iterable[Schedule]) -> None:
        self.schedules: list[Schedule] = []
        for s in schedules:
            if not isinstance(s, Never) and s not in self.schedules:
                self.schedules.append(s)
        self._first, self._next = 0, 0

    def __call__(self, step: int) -> bool:
        """Whether one is due at this step."""
        if self._first <= step < self._next:
            return False
        self._first, self._next = step, self.next(step)
        return self._next == step

    def next(self, step: int) -> int:
        """The first step from ``step`` on at which one is due; ``step + AHEAD`` if none of those before it is."""
        last = step
        while last < step + self.AHEAD and not any(s.due(last) for s in self.schedules):
            last += 1
        return last


def check_schedule(what: str, value: object) -> Schedule:
    """A schedule; a whole number k stands for ``Every(k)`` and None for ``Never()``.

    Raises:
        InvalidInputError: for anything else.
    """
    if value is None:
        return Never()
    if isinstance(value, int) and not isinstance(value, bool):
        return Every(value)
    if callable(getattr(value, "due", None)):
        return value  # type: ignore[return-value]
    raise InvalidInputError(what, value, "Every(k), LogSpaced(per_decade), Never(), a whole number or None")


# Per preset: quantity -> schedule. Quantities that are not named are not recorded.
# "record" is the schedule of the lines of the log; the ledger itself sums every step in every preset.
_EVERY_STEP = ("loss", "step-size", "gradient-norm", "inner-product", "distance", "update", "proxies")
_LIGHT = dict.fromkeys(_EVERY_STEP, Every(1)) | {"record": LogSpaced(300)}
PRESETS: dict[str, dict[str, Schedule]] = {
    "light": _LIGHT,
    "standard": _LIGHT | dict.fromkeys(("tangent-loss", "half-batch", "smoothness"), Every(10)),
    "full": _LIGHT
    | dict.fromkeys(("tangent-loss", "half-batch", "smoothness"), Every(1))
    | {"tangent-margin": LogSpaced(4), "record": Every(1)},
}
