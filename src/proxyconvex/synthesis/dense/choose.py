"""The choice of what the user left open: a few architectures are planned, and the best promise wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ...core.errors import InvalidInputError
from ..plan_types import Plan
from .promise import percent

NEARLY = 1.1
"""A promise is as good as another if it is at most this many times as large."""


def best_promise(
    candidates: Iterable[tuple[str, Callable[[], Plan]]], what: str, enough: float = 0.0
) -> Plan:
    """Plan the candidates in order until one promises at most ``enough``; keep the first that is nearly as good as the best.

    Args:
        candidates: a name and a way to make the plan; the preferred ones first.
        what: what distinguishes them, in words.
        enough: bound at which nothing more is tried.

    Returns:
        The chosen plan, with a note that lists what was compared.

    Raises:
        InvalidInputError: the first candidate's, if no candidate can be planned.
    """
    made: list[tuple[str, Plan]] = []
    refused: list[tuple[str, InvalidInputError]] = []
    for name, make in candidates:
        try:
            made.append((name, make()))
        except InvalidInputError as error:
            refused.append((name, error))
            continue
        if _size(made[-1][1]) <= enough:
            break
    if not made:
        raise refused[0][1]
    telling = [(n, p) for n, p in made if not p.guarantee.vacuous] or made
    least = min(_size(p) for _, p in telling)
    name, chosen = next((n, p) for n, p in telling if _size(p) <= NEARLY * least)
    if len(made) + len(refused) == 1:
        return chosen
    rows = [f"{n}: {_said(p)}" for n, p in made] + [f"{n}: no promise" for n, _ in refused]
    note = f"Compared were ({what}) {', '.join(rows)}. Chosen is {name}, the first whose promise is within {NEARLY - 1:.0%} of the smallest."
    return replace(chosen, notes=(note, *chosen.notes))


def _size(plan: Plan) -> float:
    g = plan.guarantee
    return g.bound if g.error_bound is None else g.error_bound


def _said(plan: Plan) -> str:
    g = plan.guarantee
    return f"loss {g.bound:.4g}" if g.error_bound is None else f"error at most {percent(g.error_bound)}"
