"""T7: the identity that every unprojected run satisfies exactly, checked to rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from .errors import InvalidInputError
from .evidence import Evidence, Status, Verdict

RELATIVE_TOLERANCE = 1e-11


def right_side(dropped: Any, squares: Any) -> Any:
    """``(||w_0-v||^2 - ||w_t-v||^2)/2 + (1/2) sum ||u_s||^2``, for numbers or arrays: what ``sum <u_s, w_s - v>`` is, ``u_s = w_s - w_{s+1}``.

    Args:
        dropped: ``||w_0-v||^2 - ||w_t-v||^2``.
        squares: ``sum ||u_s||^2``, for a gradient step ``sum eta_s^2 ||d_s||^2``.
    """
    return dropped / 2 + squares / 2


def rounding_scale(absolute: Any, ends: Any, squares: Any) -> Any:
    """The sum of the absolute values of all terms of the identity: what rounding is relative to.

    Args:
        absolute: ``sum |<u_s, w_s - v>|``, or an upper bound such as ``sum ||u_s|| ||w_s - v||``.
        ends: ``||w_0-v||^2 + ||w_t-v||^2``.
        squares: as for `right_side`.
    """
    return absolute + ends / 2 + squares / 2


def _total(what: str, value: Any) -> float:
    """A number, or the correctly rounded sum of an array."""
    array = np.asarray(value, float)
    if array.ndim > 1:
        raise InvalidInputError(what, array.shape, "a number or a vector of per-step terms")
    return math.fsum(array.tolist()) if array.ndim else float(array)


def trace_identity(
    eta_inner: Float[np.ndarray, " T"] | float,
    dist0_sq: float,
    distT_sq: float,
    eta2_grad_sq: Float[np.ndarray, " T"] | float,
    absolute: Float[np.ndarray, " T"] | float | None = None,
    *,
    tolerance: float = RELATIVE_TOLERANCE,
    projected: bool = False,
) -> Verdict:
    """Check ``sum eta <d, w - v> = (||w_0-v||^2 - ||w_T-v||^2)/2 + (1/2) sum eta^2 ||d||^2``.

    It follows, with no assumption, from expanding ``||w_{t+1} - v||^2`` for ``w_{t+1} = w_t - eta_t d_t`` and summing
    (theory T7; first line of the proof of Frei & Gu 2021, Theorem 3.2).

    Args:
        eta_inner: ``sum eta_t <d_t, w_t - v>``, or the terms.
        dist0_sq: ``||w_0 - v||^2``.
        distT_sq: ``||w_T - v||^2``.
        eta2_grad_sq: ``sum eta_t^2 ||d_t||^2``, or the terms.
        absolute: ``sum |eta_t <d_t, w_t - v>|``, or the terms; taken from ``eta_inner`` if that is an array.
        tolerance: allowed gap relative to the sum of absolute terms.
        projected: whether the run projected its iterates; then the identity is only an inequality.

    Returns:
        HOLDS or FALSIFIED with evidence ON_TRACE and both sides in the witness; INVALID_INPUT for a projected run or for
        values that are not finite.
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise InvalidInputError("tolerance", tolerance, "a finite number > 0")
    if projected:
        return Verdict(
            Status.INVALID_INPUT, "T7 speaks of unprojected steps; this run projects its iterates."
        )
    if absolute is None:
        if np.ndim(eta_inner) == 0:
            raise InvalidInputError(
                "absolute", None, "the sum of |eta <d, w - v>|", "Pass it, or the terms themselves."
            )
        absolute = np.abs(np.asarray(eta_inner, float))
    raw = (eta_inner, dist0_sq, distT_sq, eta2_grad_sq, absolute)
    if not all(np.isfinite(np.asarray(x, float)).all() for x in raw):
        return Verdict(
            Status.INVALID_INPUT, "T7 cannot be checked: the trace holds values that are not finite."
        )
    left, squares = _total("eta_inner", eta_inner), _total("eta2_grad_sq", eta2_grad_sq)
    size = _total("absolute", absolute)
    for what, value in (
        ("dist0_sq", dist0_sq),
        ("distT_sq", distT_sq),
        ("eta2_grad_sq", squares),
        ("absolute", size),
    ):
        if value < 0:
            return Verdict(Status.INVALID_INPUT, f"T7 cannot be checked: {what} = {value:.6g} is negative.")
    if abs(left) > size * (1 + tolerance):
        return Verdict(
            Status.INVALID_INPUT,
            f"T7 cannot be checked: |sum| = {abs(left):.6g} exceeds the sum of absolute terms {size:.6g}.",
        )
    right = right_side(dist0_sq - distT_sq, squares)
    scale = rounding_scale(size, dist0_sq + distT_sq, squares)
    gap, allowed = abs(left - right), tolerance * scale
    witness = {"left": left, "right": right, "gap": gap, "allowed": allowed, "scale": scale}
    numbers = (
        f"sum eta <d, w-v> = {left:.12g}, (D_0^2 - D_T^2)/2 + (1/2) sum eta^2 ||d||^2 = {right:.12g}; the gap is {gap:.2g}, "
        f"rounding allows {allowed:.2g}"
    )
    if gap <= allowed:
        return Verdict(Status.HOLDS, f"T7 holds on this trace: {numbers}.", Evidence.ON_TRACE, witness)
    return Verdict(
        Status.FALSIFIED,
        f"T7 is broken: {numbers}. This is not the record of such a run.",
        Evidence.ON_TRACE,
        witness,
    )
