"""What an adapter may hand to the ledger; everything else is refused at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from ..core.errors import InvalidInputError
from .conditions import Watch, WatchConvexity, WatchPL

GRADIENTS = ("raw", "clipped", "accumulated", "rank-local", "global")
BY_COMPARATOR = ("grad_w_minus_v", "raw_grad_w_minus_v", "dist_sq", "update_dot", "drop")
SCALARS = ("grad_sq", "raw_grad_sq", "clip", "dist0_sq", "update_sq", "update_grad")
DOT_KEYS = (*SCALARS, *BY_COMPARATOR)


def checked_comparators(comparators: Sequence[str]) -> tuple[str, ...]:
    """Distinct, non-empty names."""
    names = (comparators,) if isinstance(comparators, str) else tuple(comparators)
    if not names or len(set(names)) < len(names) or not all(isinstance(c, str) and c for c in names):
        raise InvalidInputError(
            "comparators", comparators, "at least one name, all different", 'Try ("init",).'
        )
    return names


def checked_watches(watches: Iterable[Watch]) -> tuple[Watch, ...]:
    """Watches with different names."""
    found: dict[str, Watch] = {}
    for watch in watches:
        if not isinstance(watch, WatchConvexity | WatchPL):
            raise InvalidInputError("watches", watch, "WatchConvexity(...) or WatchPL(...)")
        if watch.name in found and found[watch.name] != watch:
            raise InvalidInputError("watches", watch.name, "a different name for every watch")
        found[watch.name] = watch
    return tuple(found.values())


@cache
def checked_gradient(gradient: str) -> str:
    """A kind of gradient, or several joined by ``+`` (returned in a fixed order)."""
    parts = gradient.split("+") if isinstance(gradient, str) else []
    if not parts or any(p not in GRADIENTS for p in parts) or {"raw", "clipped"} <= set(parts):
        raise InvalidInputError(
            "gradient", gradient, " or ".join(map(repr, GRADIENTS)) + ", or several joined by +",
            "Say which gradient was seen: before or after clipping, of one rank or of all.",
        )  # fmt: skip
    return "+".join(sorted(set(parts), key=GRADIENTS.index))


def checked_dots(dots: Mapping[str, Any], comparators: tuple[str, ...]) -> dict[str, Any]:
    """A copy with every value a Python float, comparators by name."""
    out: dict[str, Any] = {}
    for key, value in dots.items():
        if value is None:
            continue
        if key in BY_COMPARATOR:
            if not isinstance(value, Mapping):
                raise InvalidInputError(key, value, "a mapping from comparator to a float")
            for c in value:
                if c not in comparators:
                    raise InvalidInputError(key, c, f"the comparators {', '.join(comparators)}")
            out[key] = {c: float(x) for c, x in value.items()}
        elif key in SCALARS:
            out[key] = float(value)
        else:
            raise InvalidInputError("dots", key, ", ".join(DOT_KEYS), "Other values go into extra.")
    return out


def single(etas: Sequence[float]) -> float | None:
    """The one step size of all parameter groups; None if they differ."""
    values = {float(x) for x in etas}
    return values.pop() if len(values) == 1 else None
