"""Facts about a run that theorems need beside the conditions: where it starts, what bounds the samples, how sure to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np

from .errors import InvalidInputError
from .evidence import Evidence
from .numbers import leaves, lower, norm_upper, subtract, upper
from .premises import Constant, Premise, evaluate, fit, needed, require_callable
from .regions import checked_point, distance_upper


@final
@dataclass(frozen=True, eq=False, repr=False)
class Start(Premise):
    """Where the run starts.

    Attributes:
        value: ``f(w_0)`` (theorems need it exact or from above), or None.
        distance: ``R >= ||w_0 - v||``, or None; computed with rounding upwards when ``point`` and ``comparator`` are given.
        point: ``w_0``, or None. Needed where a premise holds only on a region around the start.
        comparator: ``v``, only used to compute ``distance``.
    """

    value: Any = None
    distance: Any = None
    point: Any = None
    comparator: Any = None

    name: ClassVar[str] = "start"
    constants: ClassVar[tuple[str, ...]] = ("value", "distance")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.point is not None:
            object.__setattr__(self, "point", checked_point("point", self.point))
        if self.distance is None and self.point is not None and self.comparator is not None:
            object.__setattr__(self, "distance", distance_upper(self.point, self.comparator))
        self._wrap("value", optional=True)
        self._wrap("distance", 0, optional=True)

    @property
    def statement(self) -> str:
        """What is known about the start."""
        known = []
        if self.value is not None:
            known.append(f"f(w_0) {self.value}")
        if self.distance is not None:
            known.append(f"||w_0 - v|| {self.distance}")
        return "The start: " + (", ".join(known) or "a point")


@final
@dataclass(frozen=True, eq=False, repr=False)
class IIDRows(Premise):
    """The rows are independent draws from the population the promise speaks of, each used at most once.

    Nobody can check this from the data: its evidence stays ASSUMED unless the caller knows better.
    """

    name: ClassVar[str] = "iid"

    @property
    def statement(self) -> str:
        """The assumption."""
        return "The rows are independent draws from one population"


@final
@dataclass(frozen=True, eq=False, repr=False)
class BoundedProxy(Premise):
    """``0 <= g_z(w) <= M`` for every sample and every ``w`` in the region."""

    M: Any

    name: ClassVar[str] = "bounded-proxy"
    constants: ClassVar[tuple[str, ...]] = ("M",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("M", 0, strict=True)

    @property
    def statement(self) -> str:
        """The bound."""
        return f"Every sample's proxy satisfies 0 <= g_z(w) <= M with M {self.M}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class IterateRange(Premise):
    """Every iterate satisfies ``||w_t - v|| <= D`` surely (known before the run, for example by projection)."""

    D: Any

    name: ClassVar[str] = "iterate-range"
    constants: ClassVar[tuple[str, ...]] = ("D",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("D", 0, strict=True)

    @property
    def statement(self) -> str:
        """The bound."""
        return f"Every iterate stays within D {self.D} of the comparator"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Confidence(Premise):
    """The failure probability ``delta`` of a high-probability promise and the free parameter ``u`` of T6.

    Both must be chosen before the data are seen.

    Attributes:
        delta: failure probability in (0, 1).
        u: free parameter > 0.
        comparator_fixed: whether v, too, was chosen before the rows were seen and ``h`` is the population mean of
            ``h_z(v)``; then T6 may use that mean plus a Bernstein term in place of ``h_max``.
    """

    delta: Any
    u: Any = 1
    comparator_fixed: bool = False
    evidence: Evidence = field(default=Evidence.PROVED, kw_only=True)

    name: ClassVar[str] = "confidence"
    constants: ClassVar[tuple[str, ...]] = ("delta", "u")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("delta", 0, strict=True)
        self._wrap("u", 0, strict=True)
        if upper(self.delta.value) >= 1:
            raise InvalidInputError("delta", float(self.delta), "a number in (0, 1)", "Try 0.05.")

    @property
    def statement(self) -> str:
        """The choice."""
        return f"Chosen in advance: failure probability delta {self.delta}, u {self.u}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class ErrorLink(Premise):
    """``error(w) <= factor * g(w)``: turns a bound on the proxy into one on the classification error.

    If ``g`` is given, only theorems about this very proxy use the link. Logistic loss: factor 2 for ``g = E|loss'|`` (``|loss'| >= 1/2`` at an error), ``1/log 2`` for ``g = f``; hinge: 1.
    """

    factor: Any
    g: Callable[[Any], Any] | None = None

    name: ClassVar[str] = "error-link"
    constants: ClassVar[tuple[str, ...]] = ("factor",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("factor", 0, strict=True)

    @property
    def statement(self) -> str:
        """The inequality."""
        return f"The classification error is at most {float(self.factor):.6g} g(w)"


@final
@dataclass(frozen=True, eq=False, repr=False)
class TangentMargins(Premise):
    """Tangent margins: ``y_i (N(w; x_i) + <grad N(w; x_i), V - w>) >= q_i`` for every row, on the region (premise of T8).

    Attributes:
        margins: ``q``, shape (n,), certified lower bounds.
        comparator: ``V``.
        model: ``w -> N(w; x_1..n)``, shape (n,), a JAX function, or None.
        targets: ``y`` in {-1, +1}, shape (n,), or None.
    """

    margins: np.ndarray
    comparator: Any
    model: Callable[[Any], Any] | None = None
    targets: np.ndarray | None = None

    name: ClassVar[str] = "tangent-margins"

    def __post_init__(self) -> None:
        super().__post_init__()
        q = np.asarray(self.margins, float)
        if q.ndim != 1 or q.size == 0 or not np.isfinite(q).all():
            raise InvalidInputError("margins", self.margins, "a vector of n >= 1 finite numbers")
        object.__setattr__(self, "margins", q)
        object.__setattr__(self, "comparator", checked_point("comparator", self.comparator))
        require_callable("model", self.model, optional=True)

    def slack(self, w: Any) -> Any:
        """Smallest over the rows of the tangent margin minus ``q_i``."""
        model = needed("model", self.model)
        if self.targets is None:
            raise InvalidInputError("targets", None, "a vector of -1 and +1")
        import jax

        def formula(u: Any) -> Any:
            outputs, change = jax.jvp(model, (u,), (subtract(fit(self.comparator, u), u),))
            return (self.targets * (outputs + change) - self.margins).min()

        return evaluate(formula, w)

    @property
    def statement(self) -> str:
        """The smallest margin."""
        return f"The tangent margin of each of {self.margins.size} rows is at least q_i, the smallest {self.margins.min():.6g}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class OutputGradient(Premise):
    """``||grad N(w; x_i)|| <= G`` for every row, on the region (premise of T8)."""

    G: Any
    model: Callable[[Any], Any] | None = None

    name: ClassVar[str] = "gradient-norm"
    constants: ClassVar[tuple[str, ...]] = ("G",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._wrap("G", 0, strict=True)
        require_callable("model", self.model, optional=True)

    def slack(self, w: Any) -> Any:
        """``G^2`` minus the largest squared gradient norm."""
        model = needed("model", self.model)
        import jax

        def formula(u: Any) -> Any:
            jacobian = jax.jacrev(model)(u)
            squares: Any = sum((j.reshape(j.shape[0], -1) ** 2).sum(axis=1) for j in leaves(jacobian))
            return fit(self.G, u) ** 2 - squares.max()

        return evaluate(formula, w)

    @property
    def statement(self) -> str:
        """The bound."""
        return f"The gradient of the output at every row has norm at most G {self.G}"


def projection_range(radius: float, comparator: Any) -> Constant:
    """``D = radius + ||v||``: how far an iterate in the ball around the origin can be from ``v``."""
    return Constant(lower(radius) + norm_upper(comparator), "upper", Evidence.PROVED)
