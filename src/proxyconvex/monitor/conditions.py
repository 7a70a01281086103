"""Conditions to watch along a run, by the names of recorded values: proxy convexity and proxy PL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from ..core.errors import InvalidInputError
from .sums import RunningSum

Value = float | Mapping[str, float]


def _named(what: str, value: object) -> None:
    ok = isinstance(value, str) or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )
    if not ok:
        raise InvalidInputError(what, value, "the name of a recorded value, or a finite number")


@final
@dataclass(frozen=True)
class WatchConvexity:
    """Proxy convexity on the batch of each step: ``<grad f_t(w_t), w_t - v> >= g_t - h_t``.

    Attributes:
        name: how reports call it.
        g: name of a recorded value (``"loss"``, or a key of ``extra``), or a number.
        h: as ``g``; a value given per comparator is taken for the comparator at hand.
    """

    name: str
    g: str | float = "loss"
    h: str | float = 0.0

    def __post_init__(self) -> None:
        _named("g", self.g)
        _named("h", self.h)

    @property
    def formula(self) -> str:
        """The inequality in the names of the log."""
        return f"<grad, w - v> >= {self.g} - {self.h}"


@final
@dataclass(frozen=True)
class WatchPL:
    """Proxy PL: ``||grad f(w_t)||^alpha >= (mu/2)(g_t - xi)``; ``mu`` is what the run is asked for.

    With ``g = "loss"``, ``xi = f_star``, ``alpha = 2`` this is the PL inequality ``(1/2)||grad f||^2 >= m (f - f_star)``, ``mu = 4 m``.

    Attributes:
        name: how reports call it.
        g: name of a recorded value.
        xi: a finite number. For ``g = "loss"`` any lower bound on the loss gives a smaller, safe constant.
        alpha: 1 or 2.
    """

    name: str
    g: str = "loss"
    xi: float = 0.0
    alpha: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.g, str):
            raise InvalidInputError("g", self.g, "the name of a recorded value")
        if isinstance(self.xi, str):
            raise InvalidInputError("xi", self.xi, "a finite number")
        _named("xi", self.xi)
        if self.alpha not in (1, 2):
            raise InvalidInputError("alpha", self.alpha, "1 or 2")

    @property
    def formula(self) -> str:
        """The inequality in the names of the log."""
        return f"||grad||^{self.alpha} >= (mu/2)({self.g} - {self.xi:g})"


Watch = WatchConvexity | WatchPL
# What every run has: f itself against its tangent loss (U1, a theorem for convex losses), and PL of the loss.
DEFAULT_WATCHES: tuple[Watch, ...] = (
    WatchConvexity("tangent proxy (U1)", "loss", "tangent_loss"),
    WatchPL("PL", "loss", 0.0, 2),
)


def watches_of(header: Mapping[str, Any]) -> dict[str, Watch]:
    """The watches that a log names at its head."""
    kinds = {"WatchConvexity": WatchConvexity, "WatchPL": WatchPL}
    out: dict[str, Watch] = {}
    for row in header.get("watches", []):
        arguments = {k: v for k, v in row.items() if k != "kind"}
        out[row["name"]] = kinds[row["kind"]](**arguments)
    return out


def lookup(name: str | float, values: Mapping[str, Any], comparator: str) -> float | None:
    """A recorded value as a float; None where this step did not record it."""
    if not isinstance(name, str):
        return float(name)
    found = values.get(name)
    if isinstance(found, Mapping):
        found = found.get(comparator)
    return None if found is None else float(found)


@final
class ConvexityTally:
    """What a run has shown of one `WatchConvexity` against one comparator."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.checks = self.violations = 0
        self.first_step = self.last_step = self.last_violation = self.least_step = -1
        self.least = math.inf
        self.g_max = self.h_max = -math.inf
        self.g_min = math.inf
        self.growth = 0.0
        self.weight, self.weighted_g, self.weighted_h = RunningSum(), RunningSum(), RunningSum()
        self.inner, self.g_sum = RunningSum(), RunningSum()
        self.weighted = 0

    def add(
        self,
        step: int,
        inner: float,
        g: float,
        h: float,
        *,
        size: float,
        grad_sq: float,
        weight: float | None,
    ) -> None:
        """One step: ``inner = <grad, w - v>``; ``size`` bounds ``|inner|``; ``weight`` is the step size, if there is one."""
        slack = inner - g + h
        if not (math.isfinite(slack) and math.isfinite(grad_sq)):
            return
        self.first_step = step if self.checks == 0 else self.first_step
        self.checks += 1
        self.last_step = step
        if slack < self.least:
            self.least, self.least_step = slack, step
        if slack < -self.tolerance * (size + abs(g) + abs(h)):
            self.violations += 1
            self.last_violation = step
        self.g_max, self.g_min, self.h_max = max(self.g_max, g), min(self.g_min, g), max(self.h_max, h)
        if grad_sq > 0:
            self.growth = max(self.growth, grad_sq / g) if g > 0 else math.inf
        self.g_sum.add(g)
        if weight is not None:
            self.weighted += 1
            self.weight.add(weight)
            self.weighted_g.add(weight * g)
            self.weighted_h.add(weight * h)
            self.inner.add(weight * inner)

    _SUMS = ("weight", "weighted_g", "weighted_h", "inner", "g_sum")
    _PLAIN = (
        "checks", "violations", "first_step", "last_step", "last_violation", "least_step", "least", "g_max", "h_max",
        "g_min", "growth", "weighted",
    )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {k: getattr(self, k).state() for k in self._SUMS} | {k: getattr(self, k) for k in self._PLAIN}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a `state`."""
        for k in self._SUMS:
            setattr(self, k, RunningSum(*state[k]))
        for k in self._PLAIN:
            setattr(self, k, state[k])

    def summary(self) -> dict[str, Any]:
        """Plain numbers for the log."""
        return {k: getattr(self, k).value for k in self._SUMS} | {k: getattr(self, k) for k in self._PLAIN}


@final
class PLTally:
    """The smallest ``mu_t = 2 ||grad f(w_t)||^alpha / (g_t - xi)`` over the steps of a *full-batch* run.

    With mini-batches this is never computed: a batch's own squared norm is far larger than ``||grad f||^2`` and such a check
    passes falsely. See `estimates` for what is done there.
    """

    def __init__(self) -> None:
        self.checks, self.least_step = 0, -1
        self.least = math.inf

    def add(self, step: int, grad_sq: float, excess: float, alpha: int) -> None:
        """One step with ``excess = g_t - xi``; nothing is asked where that is not positive."""
        if not (math.isfinite(grad_sq) and math.isfinite(excess)):
            return
        self.checks += 1
        if excess > 0:
            mu = 2 * grad_sq ** (alpha / 2) / excess
            if mu < self.least:
                self.least, self.least_step = mu, step

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {"checks": self.checks, "least": self.least, "least_step": self.least_step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a `state`."""
        self.checks, self.least, self.least_step = state["checks"], state["least"], state["least_step"]
