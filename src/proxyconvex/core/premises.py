"""What premises are made of: the abstract `Premise`, one-sided `Constant`s, and evaluation at a point."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from .errors import InvalidInputError
from .evidence import Evidence
from .expressions import lift
from .guarantee import PremiseRecord
from .numbers import (
    Interval,
    exact,
    is_exact,
    is_exact_point,
    is_symbolic,
    is_traced,
    leaves,
    lower,
    map_point,
    upper,
)
from .references import PROXYCONVEX_NOTES, Reference
from .regions import Region, WholeSpace, checked_point, exact_point

Side = Literal["exact", "lower", "upper", "estimate"]
SIDES = ("exact", "lower", "upper", "estimate")


@dataclass(frozen=True)
class Constant:
    """A number that enters a theorem, with the side on which it is known.

    Attributes:
        value: a finite real number (int, float, Fraction or Interval).
        side: ``"exact"``, a ``"lower"`` or ``"upper"`` bound on the true constant, or a statistical ``"estimate"``
            (which no theorem accepts: it may err on either side).
        evidence: what the value rests on; ``None`` means that of the premise it belongs to.
    """

    value: Any
    side: Side = "exact"
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise InvalidInputError("side", self.side, ", ".join(map(repr, SIDES)))
        exact(self.value)

    def __float__(self) -> float:
        value = exact(self.value)
        return float((lower(value) + upper(value)) / 2)

    def __str__(self) -> str:
        sign = {"exact": "", "lower": ">= ", "upper": "<= ", "estimate": "about "}[self.side]
        return f"{sign}{float(self):.6g}"


def constant(what: str, value: Any, minimum: Any = None, strict: bool = False) -> Constant:
    """Wrap a number as a `Constant` and check its range.

    Raises:
        InvalidInputError: if it is not a finite real number or lies below ``minimum``.
    """
    wrapped = value if isinstance(value, Constant) else None
    accepted = (
        "a finite real number" if minimum is None else f"a finite number {'>' if strict else '>='} {minimum}"
    )
    if wrapped is None:
        try:
            wrapped = Constant(value if is_exact(value) or isinstance(value, int | float) else exact(value))
        except InvalidInputError:
            raise InvalidInputError(
                what, value, accepted, "Give a number or a Constant(value, side)."
            ) from None
    low = lower(wrapped.value)
    if minimum is not None and (low < minimum or (strict and low == minimum)):
        raise InvalidInputError(what, float(wrapped), accepted)
    return wrapped


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Premise(abc.ABC):
    """A condition that a theorem takes as its premise.

    Attributes:
        region: where it is claimed to hold.
        evidence: what it rests on.
        reference: where it is proved, or the definition it instantiates.
    """

    region: Region = field(default_factory=WholeSpace)
    evidence: Evidence = Evidence.ASSUMED
    reference: Reference = PROXYCONVEX_NOTES

    name: ClassVar[str] = "premise"
    constants: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.region, Region):
            raise InvalidInputError(
                "region", self.region, "a Region", "Use WholeSpace() or Ball(center, radius)."
            )
        if not isinstance(self.evidence, Evidence):
            raise InvalidInputError(
                "evidence", self.evidence, ", ".join(f"Evidence.{e.name}" for e in Evidence)
            )

    @property
    @abc.abstractmethod
    def statement(self) -> str:
        """The premise as a sentence with its numbers."""

    def slack(self, w: Any) -> Any:
        """How far the condition is from failing at ``w``: it holds there if and only if this is ``>= 0``."""
        raise InvalidInputError(
            type(self).__name__,
            "slack",
            "a premise about functions",
            f"{self.name} is not a condition at a point.",
        )

    def weakest(self) -> Evidence:
        """Evidence of the premise together with that of its constants."""
        own = [getattr(self, c) for c in self.constants]
        return min(
            [self.evidence, *(c.evidence for c in own if isinstance(c, Constant) and c.evidence is not None)]
        )

    @property
    def on_trace(self) -> bool:
        """Whether the premise, or one of its constants, was only seen along one run."""
        own = [getattr(self, c) for c in self.constants]
        return Evidence.ON_TRACE in (self.evidence, *(c.evidence for c in own if isinstance(c, Constant)))

    def record(self) -> PremiseRecord:
        """The premise as it is printed, stored and audited."""
        values = [c for c in (getattr(self, n) for n in self.constants) if isinstance(c, Constant)]
        where = "" if isinstance(self.region, WholeSpace) else f" on {self.region}"
        return PremiseRecord(
            self.name,
            f"{self.statement}{where}.",
            self.weakest(),
            self.reference,
            float(values[0]) if values else None,
        )

    def __repr__(self) -> str:
        record = self.record()
        return f"<{type(self).__name__}: {record.statement} Evidence {record.evidence.name}: {record.evidence.sentence}.>"

    def _wrap(self, name: str, minimum: Any = None, strict: bool = False, optional: bool = False) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        object.__setattr__(self, name, constant(name, value, minimum, strict))


# --- evaluation ----------------------------------------------------------------------------------------------------


def require_callable(what: str, value: Any, optional: bool = False) -> None:
    """Refuse what is neither callable nor, where that is allowed, None."""
    if not (callable(value) or (optional and value is None)):
        raise InvalidInputError(what, value, "a function of w" + (" or None" if optional else ""))


def needed(what: str, value: Callable[..., Any] | None) -> Callable[..., Any]:
    """The function itself; refused if it was not given."""
    if value is None:
        raise InvalidInputError(
            what, None, "a function of w", "This premise was given by its constants alone; it has no slack."
        )
    return value


def takes_two(function: Callable[..., Any]) -> bool:
    """Whether a function has two positional parameters without defaults."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) >= 2


def gradient(f: Callable[[Any], Any] | None, grad: Callable[[Any], Any] | None, w: Any) -> Any:
    """Gradient of ``f`` at ``w``: the given one, else by JAX.

    Raises:
        InvalidInputError: if there is neither, or if JAX would have to differentiate at an exact point.
    """
    if grad is not None:
        return grad(w)
    if f is None:
        raise InvalidInputError(
            "f", None, "a function of w", "This premise was given by its constants alone."
        )
    if is_exact_point(w):
        raise InvalidInputError(
            "grad",
            None,
            "a function w -> gradient",
            "JAX cannot differentiate on Fractions or intervals; pass grad.",
        )
    import jax

    return jax.grad(lambda u: _scalar(f(u)))(w)


def _scalar(value: Any) -> Any:
    """An array of one number as a scalar, which is what `jax.grad` asks for."""
    return value.reshape(()) if getattr(value, "size", 0) == 1 else value


def evaluate(formula: Callable[..., Any], *points: Any) -> Any:
    """Run a formula at points in the arithmetic that fits them.

    * traced points (inside jit, grad, vmap), and points of expressions: as they are;
    * points with Fractions or Intervals: in interval arithmetic, so that floats inside the user's functions keep
      their exact value; a Fraction comes back when the result is one number;
    * anything else: in float64 under JAX, whatever the global flags are; a Python float comes back.
    """
    if any(is_traced(p) or is_symbolic(p) for p in points):
        return formula(*points)
    if any(is_exact_point(p) for p in points):
        points = tuple(map_point(lambda x: Interval(exact(x)), exact_point(p)) for p in points)
        result = formula(*points)
        result = result if isinstance(result, Interval) else exact(result)
        return result.lo if isinstance(result, Interval) and result.lo == result.hi else result
    import jax
    import jax.numpy as jnp

    checked = tuple(checked_point("w", p) for p in points)
    with jax.enable_x64(True):
        result = formula(*(map_point(jnp.asarray, p) for p in checked))
        value = np.asarray(result)
    if value.size != 1:
        raise InvalidInputError("slack", value.shape, "a scalar", "f, g and h must return one number each.")
    return float(value.reshape(()))


_rounded: ContextVar[list[Any] | None] = ContextVar("rounded", default=None)


@contextmanager
def noting_rounding() -> Iterator[list[Any]]:
    """Collects the constants and fixed points that `fit` rounds to float64 within the scope.

    A formula traced by JAX knows floats only; who wants to prove something from the trace must know what was rounded.
    """
    seen: list[Any] = []
    token = _rounded.set(seen)
    try:
        yield seen
    finally:
        _rounded.reset(token)


def _float(x: Any) -> float:
    """The value as a float64; noted if that rounds it."""
    value = exact(x)
    number = float((lower(value) + upper(value)) / 2)
    seen = _rounded.get()
    if seen is not None and (lower(value) != upper(value) or exact(number) != value):
        seen.append(x)
    return number


def fit(value: Any, w: Any) -> Any:
    """A constant or a fixed point in the arithmetic of ``w``: exact beside exact points, else float64 arrays.

    Beside traced points these are JAX arrays and beside Intervals they are Intervals, so that what a user's function computes
    from them (``h(v)``, say) is traced, or enclosed, as well, not rounded by NumPy on the way.
    """
    if isinstance(value, Constant):
        return exact(value.value) if is_exact_point(w) or is_symbolic(w) else _float(value.value)
    if is_symbolic(w):
        return symbolic(value)
    if is_exact_point(w):
        point = exact_point(value)
        enclosed = any(isinstance(x, Interval) for x in leaves(w))
        return map_point(lambda x: Interval(x), point) if enclosed else point
    if isinstance(value, list | tuple) and all(is_exact(x) or isinstance(x, int | float) for x in value):
        point = np.array([_float(x) for x in value])  # an exact vector beside a float array
    else:
        point = map_point(lambda x: np.asarray(x, float) if not is_exact(x) else _float(x), value)
    if is_traced(w):
        import jax.numpy as jnp

        return map_point(jnp.asarray, point)
    return point


def symbolic(point: Any) -> Any:
    """A point with its numbers as exact expressions; arrays become object arrays."""
    if isinstance(point, list | tuple) and all(is_exact(x) or isinstance(x, int | float) for x in point):
        point = np.array([exact(x) for x in point], dtype=object)  # a vector
    if is_symbolic(point):
        return point

    def one(x: Any) -> Any:
        entries = np.asarray(x, dtype=object)
        out = np.empty(entries.shape, dtype=object)
        out.ravel()[:] = [lift(exact(e)) for e in entries.ravel()]
        return out if entries.ndim else out.item()

    return map_point(one, point)


def same_point(a: Any, b: Any) -> bool:
    """Whether two points are equal entry by entry, in exact arithmetic."""
    if a is b:
        return True
    try:
        left, right = exact_point(a), exact_point(b)
        return list(leaves(left)) == list(leaves(right))
    except (InvalidInputError, TypeError, ValueError):
        return False
