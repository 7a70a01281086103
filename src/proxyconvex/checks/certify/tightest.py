"""The best value of a constant: an upper end that is certified and a lower end that is refuted, as close as asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ...core.arithmetics import evaluate
from ...core.errors import InvalidInputError
from ...core.evidence import Evidence, Status
from ...core.expressions import derivative, names, substitute
from ...core.reduced import ReducedCondition
from ..intervals.choose import arithmetic as arithmetic_of
from . import verdict
from .certify import certify
from .verdict import Certification

POINTS, ROUNDS = 20_000, 60


@dataclass(frozen=True)
class Bracket:
    """The best constant lies between ``refuted`` and ``certified``.

    Attributes:
        name: the constant.
        direction: "smallest" if larger values are easier to satisfy, else "largest".
        certified: a value for which the condition is proved (None if none was found).
        refuted: a value for which it is false (None if none was found).
        witness: the point that refutes it, rational.
        verdict: the `Certification` at ``certified``.
        monotone: whether the slack is proved to be monotone in the constant, so that every value beyond ``certified`` serves too.
        seconds: time spent.
    """

    name: str
    direction: str
    certified: Fraction | None
    refuted: Fraction | None
    witness: dict[str, Fraction] | None
    verdict: Certification | None
    monotone: bool
    seconds: float

    @property
    def relative_width(self) -> float:
        """``|certified - refuted| / |certified|`` (infinite if an end is missing)."""
        if self.certified is None or self.refuted is None or not self.certified:
            return float("inf")
        return float(abs(self.certified - self.refuted) / abs(self.certified))

    @property
    def word(self) -> str:
        """How the value at ``certified`` was reached."""
        decided = self.verdict is not None and self.verdict.evidence is Evidence.DECIDED
        return "decided by z3 (which cannot be checked again)" if decided else "certified"

    def __str__(self) -> str:
        if self.certified is None:
            return f"No value of {self.name} was certified." + (
                f" {float(self.refuted):.10g} is refuted." if self.refuted is not None else ""
            )
        beyond = ""
        if self.monotone:
            beyond = f" (and every {'larger' if self.direction == 'smallest' else 'smaller'} value)"
        low = "no value was refuted"
        if self.refuted is not None:
            where = ", ".join(f"{k} = {float(v):.6g}" for k, v in (self.witness or {}).items())
            low = f"{self.name} = {float(self.refuted):.12g} is refuted at {where}"
        return (
            f"The {self.direction} {self.name} for which the condition holds: {self.name} = {float(self.certified):.12g}{beyond} is {self.word}; "
            f"{low}. Relative width {self.relative_width:.2g}, {self.seconds:.3g} s."
        )


def tightest(
    condition: ReducedCondition,
    name: str,
    *,
    tolerance: float = 1e-6,
    seconds: float = 60.0,
    seed: int = 0,
    **options: Any,
) -> Bracket:
    """Bracket the best value of a named constant: the smallest, or the largest, for which the condition holds.

    Points with the most demanding value are sought by sampling that zooms in; the best is confirmed in ball arithmetic and
    refutes every value short of it. Then `certify` is asked for values just beyond, with a gap that grows until one is proved
    and is bisected from there.

    Args:
        condition: a reduced condition; its value of the constant is where the search starts.
        name: the constant; the slack must be monotone in it (which side is found out).
        tolerance: relative width to aim for.
        seconds: time budget.
        seed: of the sampling.
        **options: handed to `certify` (``jobs``, ``arithmetic``, ``progress``, ...).

    Raises:
        InvalidInputError: for an unknown constant, or one that changes nothing.
    """
    if not isinstance(condition, ReducedCondition) or name not in condition.constants:
        known = ", ".join(getattr(condition, "constants", {})) or "none"
        raise InvalidInputError(
            "name", name, f"a constant of the condition: {known}", f"Give it a value, for example {name}=1."
        )
    if not 1e-14 <= tolerance < 1:
        raise InvalidInputError("tolerance", tolerance, "a number from 1e-14 to below 1")
    started = time.perf_counter()
    probe = _Probe(condition, name, seed)
    point, need = probe.most_demanding()
    sign = 1 if probe.increasing else -1
    refuted, witness = probe.refute(point, need, sign, tolerance)

    def attempt(value: Fraction) -> Certification:
        # A value just short of the best one can be neither proved nor refuted: it must not use up the budget.
        left = max(0.5, (seconds - (time.perf_counter() - started)) / 5)
        return certify(condition.with_constants(**{name: value}), seconds=left, **options)

    best, found, refuted, witness = _bracket(
        attempt,
        probe,
        need,
        sign,
        tolerance,
        lambda: time.perf_counter() - started < seconds,
        refuted,
        witness,
    )
    return Bracket(
        name, "smallest" if sign > 0 else "largest", best, refuted, witness, found,
        probe.monotone(sign), time.perf_counter() - started,
    )  # fmt: skip


def _bracket(
    attempt: Callable[[Fraction], Certification],
    probe: _Probe,
    need: float,
    sign: int,
    tolerance: float,
    more: Callable[[], bool],
    refuted: Fraction | None,
    witness: dict[str, Fraction] | None,
) -> tuple[Fraction | None, Certification | None, Fraction | None, dict[str, Fraction] | None]:
    """Widen the gap until a value is certified, then narrow it by bisection."""
    base, scale = Fraction(need), Fraction(max(abs(need), 1e-12))
    gap, failed = 0.5 * tolerance, None
    best: Fraction | None = None
    found: Certification | None = None
    while more() and gap < 1e12:
        value = base + sign * scale * Fraction(gap)
        result = attempt(value)
        if result.status is Status.HOLDS:
            best, found = value, result
            break
        failed = value
        if result.status is Status.FALSIFIED:
            point = result.witness["point"]
            refuted, witness = value, point
            need = float(probe.need_at({k: np.array([float(v)]) for k, v in point.items()})[0])
            if np.isfinite(need) and sign * need > sign * float(base):
                base = Fraction(need)
        gap *= 4
    while best is not None and failed is not None and more():
        if abs(best - (refuted if refuted is not None else failed)) <= Fraction(tolerance) * abs(best):
            break
        middle = (best + failed) / 2
        if abs(best - failed) <= Fraction(tolerance) / 4 * abs(best):
            break
        result = attempt(middle)
        if result.status is Status.HOLDS:
            best, found = middle, result
        else:
            failed = middle
            if result.status is Status.FALSIFIED:
                refuted, witness = middle, result.witness["point"]
    return best, found, refuted, witness


class _Probe:
    """Values of the constant that single points demand."""

    def __init__(self, condition: ReducedCondition, name: str, seed: int) -> None:
        self.condition, self.name = condition, name
        others = {k: v for k, v in condition.constants.items() if k != name}
        self.slack = substitute(condition.expression, others)
        self.slope = derivative(self.slack, name)
        self.affine = name not in names(self.slope)
        self.rng = np.random.default_rng(seed)
        self.lo, self.hi = condition.bounds()
        start = float(condition.constants[name])
        x = self.sample(self.lo, self.hi, 2_000)
        values = np.broadcast_to(evaluate(self.slope, {**x, name: np.full(2_000, start)}), (2_000,))
        values = values[np.isfinite(values)]
        if not values.size or not np.abs(values).max() > 0:
            raise InvalidInputError("name", name, "a constant that the slack depends on")
        up, down = (values > 0).mean(), (values < 0).mean()
        if min(up, down) > 0.01:
            raise InvalidInputError(
                name, f"the slack rises with it at {100 * up:.0f}% and falls at {100 * down:.0f}% of the points",
                "a constant in which the slack is monotone",
            )  # fmt: skip
        self.increasing = bool(up > down)
        self.scale = float(np.abs(values).max())

    def sample(self, lo: np.ndarray, hi: np.ndarray, n: int) -> dict[str, np.ndarray]:
        """Points in a box, a fifth of the coordinates at an end."""
        x = self.rng.uniform(lo, hi, (n, len(lo)))
        ends = self.rng.integers(0, 10, x.shape)
        x = np.where(ends == 0, lo, np.where(ends == 1, hi, x))
        return dict(zip(self.condition.variables, x.T, strict=True))

    def need_at(self, x: dict[str, np.ndarray]) -> np.ndarray:
        """The value of the constant with slack 0 at each point (NaN where it is not well determined)."""
        n = len(next(iter(x.values())))
        start = np.full(n, float(self.condition.constants[self.name]))
        value = np.broadcast_to(evaluate(self.slack, {**x, self.name: start}), (n,))
        slope = np.broadcast_to(evaluate(self.slope, {**x, self.name: start}), (n,))
        clear = np.abs(slope) > 1e-6 * self.scale
        need = start - np.where(clear, value / np.where(clear, slope, 1.0), np.nan)
        for _ in range(0 if self.affine else 30):
            value = np.broadcast_to(evaluate(self.slack, {**x, self.name: need}), (n,))
            slope = np.broadcast_to(evaluate(self.slope, {**x, self.name: need}), (n,))
            need = need - np.where(clear, value / np.where(np.abs(slope) > 0, slope, np.nan), np.nan)
        return need

    def most_demanding(self) -> tuple[np.ndarray, float]:
        """The point that asks for most, by sampling boxes that shrink around the best points so far."""
        sign = 1.0 if self.increasing else -1.0
        keys = list(self.condition.variables)
        x = self.sample(self.lo, self.hi, POINTS)
        points = np.stack([x[k] for k in keys], axis=1)
        need = sign * self.need_at(x)
        if not np.isfinite(need).any():
            raise InvalidInputError(
                "name", self.name, "a constant that decides the sign of the slack somewhere"
            )
        width = (self.hi - self.lo) / 8
        for _ in range(ROUNDS):
            keep = np.argsort(-np.where(np.isfinite(need), need, -np.inf))[:8]
            centres = np.repeat(points[keep], 100, axis=0)
            fresh = centres + self.rng.normal(size=centres.shape) * width * (
                self.rng.random(centres.shape) < 0.7
            )
            fresh = np.clip(fresh, self.lo, self.hi)
            new = sign * self.need_at(dict(zip(keys, fresh.T, strict=True)))
            points, need = np.concatenate([points[keep], fresh]), np.concatenate([need[keep], new])
            width = width * 0.7
        i = int(np.nanargmax(need))
        return points[i], sign * float(need[i])

    def refute(
        self, point: np.ndarray, need: float, sign: int, tolerance: float
    ) -> tuple[Fraction | None, dict[str, Fraction] | None]:
        """The value closest to what the point demands that the point refutes for certain."""
        exact = {k: Fraction(v) for k, v in zip(self.condition.variables, point.tolist(), strict=True)}
        gap = Fraction(max(abs(need), 1e-12)) * Fraction(tolerance) / 1000
        for _ in range(20):
            value = Fraction(need) - sign * gap
            if verdict.confirmed(self.condition.with_constants(**{self.name: value}), exact) is not None:
                return value, exact
            gap *= 4
        return None, None

    def monotone(self, sign: int) -> bool:
        """Whether the slack is proved monotone in the constant on the whole region (by one interval evaluation)."""
        from .program import Program

        keys = list(self.condition.variables)
        if not self.affine:
            return False
        low, high = Program([self.slope], keys, arithmetic_of()).values(self.lo[None], self.hi[None])[0]
        return bool(low[0] >= 0) if sign > 0 else bool(high[0] <= 0)
