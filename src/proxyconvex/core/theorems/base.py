"""What a theorem is: one executable object with its premises, admissible steps, bound and source."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import InvalidInputError
from ..guarantee import Guarantee
from ..methods import Method
from ..numbers import Interval, exact, lower, upper, upper_float
from ..premises import Premise
from ..references import Reference
from ..setting import ErrorLink


@dataclass(frozen=True)
class Rejected:
    """A theorem does not apply: why, which value was found and what would be needed.

    Attributes:
        reason: the innermost failing premise, as a sentence.
        value: what was found (None if something is missing).
        needed: what the theorem needs instead.
        others: further premises that fail as well.
    """

    reason: str
    value: Any = None
    needed: str = ""
    others: tuple[Rejected, ...] = ()

    def __str__(self) -> str:
        return "; also: ".join([self.reason, *(o.reason for o in self.others)])


@dataclass(frozen=True)
class Accepted:
    """A theorem applies to these premises and this method.

    Attributes:
        constants: the numbers of `Theorem.bound` by name, exact (Fractions or Intervals).
        premises: the premises it uses.
        mode: ``"every-run"``, ``"expectation"`` or ``"probability"``.
        quantity: the bounded quantity.
        reason: why it applies, as a sentence.
        probability: confidence level for the mode ``"probability"``.
    """

    constants: dict[str, Any]
    premises: tuple[Premise, ...]
    mode: str
    quantity: str
    reason: str
    probability: float | None = None
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.reason


Answer = Accepted | Rejected


class Theorem(abc.ABC):
    """A theorem as one object; concrete classes are final and their only instances are listed in ``THEOREMS``.

    `bound` is the one formula: it takes floats, Fractions or Intervals. `accepts` collects its arguments, on the safe
    side, from premises and method.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    statement: ClassVar[str]
    references: ClassVar[tuple[Reference, ...]]
    limit_name: ClassVar[str] = "h"

    @property
    def reference(self) -> Reference:
        """The main source."""
        return self.references[0]

    @abc.abstractmethod
    def accepts(self, premises: Iterable[Premise], method: Method) -> Answer:
        """Whether the theorem applies; every failing premise is named."""

    @abc.abstractmethod
    def bound(self, *args: Any, **constants: Any) -> Any:
        """``bound(T, name=value, ...)``: the promise after ``T`` steps, in the arithmetic of its arguments."""

    @abc.abstractmethod
    def step_size(self, *args: Any, **constants: Any) -> float:
        """``step_size(T, name=value, ...)``: the admissible step size with the smallest bound (as a float; any admissible step is valid)."""

    def level(self, **constants: Any) -> Any:
        """What the bound is measured against in `steps`: ``xi`` or ``h``."""
        return constants[self.limit_name]

    def steps(self, eps: Any, **constants: Any) -> int | None:
        """The number of steps after which `bound` is at most `level` plus ``eps``.

        Found by doubling and bisection on the formula itself, evaluated exactly, so the returned number certainly
        suffices. None if no number of steps up to 2^60 does (the step size leaves a noise floor above ``eps``).
        """
        if not lower(eps) > 0:
            raise InvalidInputError("eps", eps, "a number > 0")
        safe = {k: exact(v) for k, v in constants.items()}
        target = lower(self.level(**safe)) + lower(eps)

        def enough(T: int) -> bool:
            return upper(self.bound(T, **safe)) <= target

        high = 1
        while not enough(high):
            high *= 2
            if high > 2**60:
                return None
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high

    def promise(self, premises: Iterable[Premise], method: Method) -> Guarantee | Rejected:
        """The guarantee for this method, its bound rounded upwards from exact arithmetic; or why there is none."""
        premises = tuple(premises)
        answer = self.accepts(premises, method)
        if isinstance(answer, Rejected):
            return answer
        bound = upper_float(self.bound(method.steps, **answer.constants))
        used, error = answer.premises, self.error_bound(answer, method)
        link = next((p for p in premises if isinstance(p, ErrorLink)), None)
        if error is None and link is not None and self._links(link, answer):
            value = self.bound(method.steps, **answer.constants) * exact(link.factor.value)
            error, used = upper_float(value), (*used, link)
        return Guarantee(
            theorem=self.id,
            quantity=answer.quantity,
            sentence=self.sentence(bound, answer, method),
            bound=bound,
            error_bound=error,
            mode=answer.mode,
            premises=tuple(p.record() for p in used),
            method=method,
            references=self.references,
            constants={k: float((lower(v) + upper(v)) / 2) for k, v in answer.constants.items()},
            probability=answer.probability,
        )

    @staticmethod
    def _links(link: ErrorLink, answer: Accepted) -> bool:
        """Whether the link speaks of the proxy this theorem bounds, with its factor known from the safe side."""
        known = [
            g for g in (getattr(p, "g", None) for p in answer.premises if p is not link) if g is not None
        ]
        return link.factor.side in ("exact", "upper") and (link.g is None or not known or link.g is known[0])

    def error_bound(self, answer: Accepted, method: Method) -> float | None:
        """A bound on the error that the theorem gives by itself (T8)."""
        return None

    def sentence(self, bound: float, answer: Accepted, method: Method) -> str:
        """The promise in one sentence."""
        what = _WHAT[answer.quantity].format(T=f"{method.steps:,}")
        if answer.mode == "expectation" and answer.quantity in _MEAN:
            what = _MEAN[answer.quantity].format(T=f"{method.steps:,}")
        how = " (a promise about the mean over runs)" if answer.mode == "expectation" else ""
        if answer.probability is not None:
            how = f", with probability at least {answer.probability:.6g}"
        return f"{what} at most {bound:.6g}{how}." + "".join(f" {n}" for n in answer.notes)

    def __repr__(self) -> str:
        return f"<Theorem {self.id}: {self.title}>"


_WHAT = {
    "best-proxy": "The smallest g(w_t) among the first {T} iterates is",
    "average-proxy": "The average of g(w_t) over the first {T} iterates is",
    "online-proxy": "The average of g_z(w_t) over the {T} samples drawn is",
    "population-proxy": "The average over the {T} iterates of the population value of g is",
    "final-loss": "After {T} steps the loss f(w_T) is",
    "best-loss": "The smallest loss among the first {T} iterates is",
    "average-loss": "The average loss over the first {T} iterates is",
    "best-iterate-error": "The training error of the best of the first {T} iterates is",
}


# In expectation the theorems bound the smallest of the mean values, not the mean of the smallest.
_MEAN = {
    "best-proxy": "The smallest over the first {T} iterates of the mean value of g(w_t) is",
    "best-loss": "The smallest over the first {T} iterates of the mean loss is",
}


def check_range(what: str, value: Any, *, above: Any = None, below: Any = None, at_most: Any = None) -> None:
    """Refuse a number that is not certainly in its range (used by every `bound`).

    Raises:
        InvalidInputError: naming the admissible range.
    """
    parts = []
    ok = True
    if above is not None:
        parts.append(f"> {_show(above)}")
        ok = ok and lower(value) > upper(above)
    if below is not None:
        parts.append(f"< {_show(below)}")
        ok = ok and upper(value) < lower(below)
    if at_most is not None:
        parts.append(f"<= {_show(at_most)}")
        ok = ok and upper(value) <= lower(at_most)
    if not ok:
        raise InvalidInputError(what, _show(value), " and ".join(parts))


def check_steps(T: int) -> None:
    """Refuse a number of steps that is not a whole number >= 1."""
    if isinstance(T, bool) or not isinstance(T, int) or T < 1:
        raise InvalidInputError("T", T, "a whole number of steps >= 1")


def _show(x: Any) -> str:
    return f"{float(x) if not isinstance(x, Interval) else float(x.lo):.6g}"
