"""Collects what a theorem needs from premises and method, and remembers every reason why it cannot apply."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..conditions import GradientGrowth, ProxyConvexity, ProxyPL, Smooth
from ..errors import InvalidInputError
from ..methods import SGD, ConstantStep, GradientDescent, Method
from ..numbers import exact, lower, map_point, upper
from ..premises import Constant, Premise, same_point
from ..regions import WholeSpace, distance_upper, exact_point
from ..setting import IIDRows, Start, TangentMargins
from .base import Accepted, Answer, Rejected

if TYPE_CHECKING:
    from .base import Theorem

P = TypeVar("P", bound=Premise)


class Intake:
    """One attempt to apply a theorem; `finish` says whether it succeeded."""

    def __init__(self, theorem: Theorem, premises: Iterable[Premise], method: Method) -> None:
        self.theorem, self.method = theorem, method
        self.premises = tuple(premises)
        for premise in self.premises:
            if not isinstance(premise, Premise):
                raise InvalidInputError("premises", premise, "Premise objects such as Smooth(L=1.0)")
        self.failures: list[Rejected] = []
        self.used: list[Premise] = []
        self.notes: list[str] = []

    def fail(self, reason: str, value: Any = None, needed: str = "") -> None:
        """Record that something does not fit."""
        self.failures.append(Rejected(f"{self.theorem.id} {reason}", value, needed))

    def require(self, ok: bool, reason: str, value: Any = None, needed: str = "") -> None:
        """Record a failure unless ``ok``."""
        if not ok:
            self.fail(reason, value, needed)

    # --- premises and their constants ---

    def find(self, kind: type[P], what: str = "", optional: bool = False) -> P | None:
        """The one premise of a kind; a failure is recorded if it is missing or given twice."""
        found = [p for p in self.premises if isinstance(p, kind)]
        if len(found) == 1:
            if found[0] not in self.used:
                self.used.append(found[0])
            return found[0]
        if found:
            self.fail(
                f"was given {len(found)} premises of the kind {kind.__name__}", len(found), "exactly one"
            )
        elif not optional:
            self.fail(
                f"needs {what or kind.__name__}, and no such premise was given", None, what or kind.__name__
            )
        return None

    def found(self, kind: type[P]) -> P | None:
        """The premise of a kind that is in use already."""
        return next((p for p in self.used if isinstance(p, kind)), None)

    def number(self, premise: Premise | None, name: str, side: str) -> Fraction | None:
        """A constant on the side the theorem needs, as the exact number to put into the formula."""
        if premise is None:
            return None
        value = getattr(premise, name)
        if value is None:
            self.fail(f"needs {name} of {premise.name}, which was not given", None, f"{name} ({side} bound)")
            return None
        return self.side(value, f"{name} of {premise.name}", side)

    def side(self, value: Constant, what: str, side: str) -> Fraction | None:
        """The safe end of a constant; a failure if it is known only from the wrong side, or only estimated."""
        if value.side not in ("exact", side):
            kind = (
                "a statistical estimate"
                if value.side == "estimate"
                else f"{_A[value.side]} {value.side} bound"
            )
            self.fail(
                f"needs {_A[side]} {side} bound on {what}, and {float(value):.6g} is {kind}",
                float(value),
                f"{what} exactly or from {'below' if side == 'lower' else 'above'}",
            )
            return None
        return lower(value.value) if side == "lower" else upper(value.value)

    def everywhere(self, premise: Premise | None, *, trace: bool = True, why: str = "") -> None:
        """The premise must hold wherever the run can go: everywhere, or (if allowed) ON_TRACE, or on the projection ball."""
        if premise is None:
            return
        if premise.on_trace:
            if not trace:
                reason = why or "a promise that is not about one given run"
                self.fail(
                    f"cannot use {premise.name} seen ON_TRACE: {reason}", "ON_TRACE", "a premise on a region"
                )
            return
        if isinstance(premise.region, WholeSpace):
            return
        projection = self.method.projection
        center = self._origin() if projection is not None else None
        if (
            projection is not None
            and center is not None
            and premise.region.covers_ball(center, projection.radius)
        ):
            return
        self.fail(
            f"needs {premise.name} wherever the run may go, and it is claimed only on {premise.region}",
            str(premise.region),
            "the whole space (or a projection ball inside the region; on a ball around v see T3T5 and T4T5)",
        )

    def within_reach(self, premise: Premise | None, center: Any, radius: Any, what: str) -> None:
        """The premise must hold on a ball that the run provably does not leave."""
        if premise is None or premise.on_trace or isinstance(premise.region, WholeSpace):
            return
        if center is None:
            self.fail(
                f"needs {premise.name} on a ball around {what}, and its place was not given",
                None,
                "Start(point=w0, ...)" if what == "w_0" else "the comparator",
            )
            return
        self.require(
            premise.region.covers_ball(center, radius),
            f"needs {premise.name} on the ball of radius {float(radius):.6g} around {what}, "
            f"and {premise.region} does not contain it",
            premise.region.distance_to_boundary(center),
            f"room for radius {float(radius):.6g}",
        )

    def same_proxy(self, condition: ProxyConvexity | ProxyPL | None, growth: GradientGrowth | None) -> None:
        """Two premises must speak of the same ``g`` (compared as function objects, where both give one)."""
        if condition is None or growth is None or condition.g is None or growth.g is None:
            return
        self.require(
            condition.g is growth.g,
            "needs growth against the same proxy g as proxy convexity, and another function was given",
            "two functions g",
            "the same function object in both premises",
        )

    def same_objective(self, *premises: Premise | None) -> None:
        """Premises that carry an objective must carry the same one."""
        given = [f for f in (getattr(p, "f", None) for p in premises) if f is not None]
        self.require(
            all(f is given[0] for f in given),
            "needs all premises about the same objective f, and different functions were given",
            f"{len(given)} functions f",
            "the same function object in all premises",
        )

    def distance(
        self, condition: ProxyConvexity | TangentMargins | None, start: Start | None
    ) -> Fraction | None:
        """An upper bound on ``||w_0 - v||``: the given one, checked against the points where both are known."""
        if start is None:
            return None
        if condition is not None and start.comparator is not None:
            self.require(
                same_point(condition.comparator, start.comparator),
                f"needs the distance to the comparator of {condition.name}, and the start names another one",
                "two comparators",
                "the same v",
            )
        actual = None
        if condition is not None and start.point is not None:
            actual = distance_upper(start.point, condition.comparator)
            if start.distance is None:
                return actual
        given = self.number(start, "distance", "upper")
        if given is not None and actual is not None:
            self.require(
                given >= actual * (1 - Fraction(1, 10**12)),  # `actual` is itself rounded upwards
                f"needs R >= ||w_0 - v|| = {float(actual):.6g}, and the start gives R = {float(given):.6g}",
                float(given),
                f"R >= {float(actual):.6g}",
            )
        return given

    # --- the method ---

    def constant_step(self, kind: type = GradientDescent, projection: bool = False) -> Fraction | None:
        """The step size, if the method is of this kind with a constant step."""
        method = self.method
        if not isinstance(method, kind):
            name = "full-batch gradient descent" if kind is GradientDescent else "stochastic gradient descent"
            self.fail(f"speaks of {name}, and the method is {method.name}", method.name, name)
        if method.projection is not None and not projection:
            self.fail(
                "speaks of unprojected steps, and this method projects its iterates", "projection", "none"
            )
        if not isinstance(method.step, ConstantStep):
            self.fail(
                f"needs a constant step size, and got {type(method.step).__name__}",
                method.step,
                "ConstantStep",
            )
            return None
        return Fraction(method.step.eta)

    def projection_contains(self, condition: ProxyConvexity | None) -> None:
        """A projection must be onto a set that contains the comparator."""
        projection = self.method.projection
        if projection is None or condition is None:
            return
        from ..numbers import norm_upper

        size = norm_upper(exact_point(condition.comparator))
        self.require(
            size <= Fraction(projection.radius),
            f"allows projection only onto a set that contains v, and ||v|| = {float(size):.6g} exceeds the radius "
            f"{projection.radius:.6g}",
            float(size),
            f"at most {projection.radius:.6g}",
        )

    def fresh_samples(self) -> None:
        """In expectation, a sample must be fresh given the past: not for shuffled or cyclic epochs."""
        method = self.method
        if not isinstance(method, SGD):
            return
        if method.sampling == "cyclic":
            self.fail(
                "needs every sample to be drawn afresh given the past; cyclic (or shuffled) epochs are not, and only T3-samples holds",
                method.sampling,
                "sampling with replacement, or one pass over i.i.d. rows",
            )
        elif method.sampling == "one-pass":
            self.find(IIDRows, "IIDRows (one pass is fresh only if the rows are i.i.d.)")

    def _origin(self) -> Any:
        found = next((p for p in self.premises if isinstance(p, ProxyConvexity)), None)
        if found is not None:
            return map_point(lambda x: np.zeros_like(np.asarray(x, float)), found.comparator)
        start = next((p for p in self.premises if isinstance(p, Start)), None)
        if start is not None and start.point is not None:
            return map_point(lambda x: np.zeros_like(np.asarray(x, float)), start.point)
        return None

    @staticmethod
    def quantity(kind: str, condition: ProxyConvexity | ProxyPL | None) -> str:
        """``"best-proxy"`` or ``"average-proxy"``, or the loss where g is the objective itself."""
        is_loss = condition is not None and condition.g is not None and condition.g is condition.f
        return f"{kind}-loss" if is_loss else f"{kind}-proxy"

    @property
    def mode(self) -> str:
        """``"every-run"`` for full-batch descent, else ``"expectation"``."""
        return "every-run" if isinstance(self.method, GradientDescent) else "expectation"

    def finish(
        self, quantity: str, *, mode: str | None = None, probability: float | None = None, **constants: Any
    ) -> Answer:
        """Accepted with its constants, or Rejected with the first reason and all others."""
        if self.failures:
            first, *others = self.failures
            return Rejected(first.reason, first.value, first.needed, tuple(others))
        if any(p.on_trace for p in self.used):
            self.notes.append("This speaks of the recorded run only: a premise was seen ON_TRACE.")
        return Accepted(
            {k: exact(v) for k, v in constants.items()},
            tuple(self.used),
            mode or self.mode,
            quantity,
            f"{self.theorem.id} applies: " + ", ".join(p.name for p in self.used),
            probability,
            tuple(self.notes),
        )


_A = {"lower": "a", "upper": "an", "exact": "an"}


def step_below(intake: Intake, eta: Fraction | None, limit: Fraction | None, what: str) -> None:
    """Record a failure unless ``eta < limit``."""
    if eta is None or limit is None:
        return
    intake.require(
        eta < limit,
        f"needs a step size below {what} = {float(limit):.6g}, and eta = {float(eta):.6g}",
        float(eta),
        f"eta < {float(limit):.6g}",
    )


def gap(value: Fraction | None, f_star: Fraction | None, intake: Intake) -> Fraction | None:
    """``Delta = f(w_0) - f_star``; a failure if it is negative, which contradicts the lower bound."""
    if value is None or f_star is None:
        return None
    intake.require(
        value >= f_star,
        f"needs f(w_0) >= f_star, and f(w_0) = {float(value):.6g} is below f_star = {float(f_star):.6g}",
        float(value),
        f">= {float(f_star):.6g}",
    )
    return max(value - f_star, Fraction(0))


def smoothness(intake: Intake, *, trace: bool) -> tuple[Smooth | None, Fraction | None]:
    """The smoothness premise and an upper bound on L; evidence ON_TRACE only where ``trace`` allows it."""
    smooth = intake.find(Smooth, "Smooth(L)")
    if smooth is not None and not trace and smooth.on_trace:
        intake.fail(
            "needs smoothness on the whole space; ON_TRACE only means the measured descent inequality, which serves "
            "plain T1 and T4",
            "ON_TRACE",
            "Smooth(L) on the whole space",
        )
    return smooth, intake.number(smooth, "L", "upper")


__all__ = ["Intake", "gap", "smoothness", "step_below"]
