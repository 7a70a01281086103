"""Pick the best guarantee from premises and a method, and say for every theorem why it applies or not."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .errors import InvalidInputError
from .guarantee import Alternative, Guarantee
from .methods import Method
from .premises import Premise
from .theorems import THEOREMS, Rejected, Theorem

__all__ = ["Alternative", "explain", "guarantee"]

# Between equal numbers the stronger statement wins: every run before the mean over runs before high probability.
_MODES = {"every-run": 0, "expectation": 1, "probability": 2}


def _rank(made: Guarantee) -> tuple[float, ...]:
    """Sort key, best first: the error bound (where there is one), the bound, the kind of promise, the evidence."""
    error = math.inf if made.error_bound is None else made.error_bound
    minimum_only = made.quantity.startswith("best")
    return (error, made.bound, _MODES[made.mode], float(minimum_only), -float(made.evidence))


def _attempts(premises: Iterable[Premise], method: Method) -> list[tuple[Theorem, Guarantee | Rejected]]:
    given = tuple(premises)
    return [(theorem, theorem.promise(given, method)) for theorem in THEOREMS]


def guarantee(premises: Iterable[Premise], method: Method) -> Guarantee:
    """The best promise that any theorem gives for these premises and this method.

    "Best" is the smallest error bound where one is implied, then the smallest bound; bounds of different theorems are
    comparable because all speak of the same proxy ``g``.

    Args:
        premises: conditions and facts (`ProxyConvexity`, `Smooth`, `Start`, ...).
        method: `GradientDescent` or `SGD` with its step size and number of steps.

    Raises:
        InvalidInputError: if no theorem applies; the message names the reason for the theorem that came closest.
    """
    attempts = _attempts(premises, method)
    made = [g for _, g in attempts if isinstance(g, Guarantee)]
    if made:
        return min(made, key=_rank)
    closest = min((r for _, r in attempts if isinstance(r, Rejected)), key=lambda r: len(r.others))
    raise InvalidInputError(
        "premises",
        [p.name for p in premises] if isinstance(premises, list | tuple) else "given premises",
        "premises that some theorem accepts",
        f"Closest: {closest}. Call explain(premises, method) for all theorems.",
    )


def explain(premises: Iterable[Premise], method: Method) -> list[Alternative]:
    """One row for every theorem, best promise first, then the rejected ones (closest to applying first)."""
    attempts = _attempts(premises, method)
    accepted = sorted(
        ((t, g) for t, g in attempts if isinstance(g, Guarantee)), key=lambda pair: _rank(pair[1])
    )
    rejected = sorted(
        ((t, r) for t, r in attempts if isinstance(r, Rejected)), key=lambda pair: len(pair[1].others)
    )
    rows = [Alternative(t.id, True, g.sentence, g.bound, g.error_bound) for t, g in accepted]
    return rows + [Alternative(t.id, False, str(r)) for t, r in rejected]
