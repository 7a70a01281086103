"""T7, the identity that every recorded run must satisfy, and the a-posteriori guarantee it gives.

Expanding ``||w_{t+1} - v||^2`` for ``w_{t+1} = w_t - eta_t d_t`` and summing over t gives, with no assumption,

    sum_{s<t} eta_s <d_s, w_s - v> = (||w_0-v||^2 - ||w_t-v||^2) / 2 + (1/2) sum_{s<t} eta_s^2 ||d_s||^2 .

(theory.md, T7; it is the first line of every proof of T3, e.g. Frei & Gu 2021, proof of Theorem 3.1.) A trace that
breaks it beyond rounding is not the record of such a run.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..core.evidence import Evidence, Status, Verdict
from ..core.trace_identity import RELATIVE_TOLERANCE, right_side, rounding_scale
from .trace import Trace

EPS = float(np.finfo(np.float64).eps)


def ledger_sides(
    trace: Trace,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Left side, right side and rounding allowance of T7 at every record.

    The allowance is `RELATIVE_TOLERANCE` times the sum of the absolute values of all terms, plus what rounding the iterates
    to float64 can move: at most ``4 eps (||w|| + ||w - v||) ||w - v||`` a step, with ``||w|| <= ||v|| + ||w - v||``.
    """
    left, squares = trace.sums["sum_eta_inner"], trace.sums["sum_eta2_grad_sq"]
    start = trace.dist_sq[0]
    right = right_side(start - trace.dist_sq, squares)
    scale = rounding_scale(trace.sums["sum_abs"], start + trace.dist_sq, squares)
    far = float(np.sqrt(trace.max_dist_sq))
    drift = 4 * EPS * far * (2 * far + trace.comparator_norm)
    return left, right, RELATIVE_TOLERANCE * scale + drift * np.maximum(trace.step, 1)


def trace_identity(trace: Trace) -> Verdict:
    """Check T7 at every record of a trace, and its recorded columns against its running sums.

    Returns:
        HOLDS (ON_TRACE) or FALSIFIED with the first record at fault as witness; INVALID_INPUT for a run with
        projection, where the identity is only an inequality, and for values that are not finite.
    """
    if trace.method.projection is not None:
        return Verdict(
            Status.INVALID_INPUT, "T7 speaks of unprojected steps; this run projects its iterates."
        )
    left, right, allowed = ledger_sides(trace)
    if not trace.finite or not np.isfinite(left + right + allowed).all():
        return Verdict(
            Status.INVALID_INPUT, "T7 cannot be checked: the trace holds values that are not finite."
        )
    gap = np.abs(left - right)
    if (gap > allowed).any():
        k = int(np.argmax(gap > allowed))
        return _broken(
            f"T7 is broken at step {trace.step[k]:,}: sum eta <d, w-v> = {left[k]:.12g}, but (D_0^2 - D_t^2)/2 + "
            f"(1/2) sum eta^2 ||d||^2 = {right[k]:.12g}; rounding allows a gap of {allowed[k]:.2g}, it is {gap[k]:.2g}",
            trace, k, float(gap[k]), float(allowed[k]),
        )  # fmt: skip
    k = _first_column_mismatch(trace)
    if k is not None:
        return _broken(
            f"the columns recorded at step {trace.step[k]:,} do not add up to the running sums", trace, k
        )
    worst = int(np.argmax(gap / allowed))
    return Verdict(
        Status.HOLDS,
        f"T7 holds at all {len(gap):,} records: the largest gap is {gap[worst]:.2g} (step {trace.step[worst]:,}), "
        f"rounding allows {allowed[worst]:.2g} there.",
        Evidence.ON_TRACE,
        {"gap": float(gap.max()), "allowed": float(allowed[worst]), "records": len(gap)},
    )


def average_slack(trace: Trace) -> float:
    """``[D_0^2/2 - D_T^2/2 + (1/2) sum eta^2||d||^2 - sum eta (g - h)] / sum eta``: the a-posteriori slack of T7.

    Non-negative whenever proxy convexity held at every step on the rows used: then ``sum eta (g_t - h_t)`` is at most
    the right side of T7, with no constant at all.
    """
    _, right, _ = ledger_sides(trace)
    balance = trace.total("sum_eta_g") - trace.total("sum_eta_h")
    return (float(right[-1]) - balance) / max(trace.total("sum_eta"), np.finfo(float).tiny)


def _first_column_mismatch(trace: Trace) -> int | None:
    """First record, followed by one a single step later, whose own columns contradict the sums."""
    near = np.flatnonzero(np.diff(trace.step) == 1)
    eta, inner, grad_sq = (c[near] for c in (trace.eta, trace.inner, trace.grad_sq))
    pairs = [("sum_eta", eta), ("sum_eta_inner", eta * inner), ("sum_eta2_grad_sq", eta**2 * grad_sq)]
    if not trace.stochastic:
        pairs += [
            ("sum_g", trace.g[near]),
            ("sum_loss", trace.loss[near]),
            ("sum_online_error", trace.error[near]),
        ]
    wrong = np.zeros(len(near), bool)
    for name, term in pairs:
        s = trace.sums[name]
        size = np.abs(s[near]) + np.abs(s[near + 1]) + np.abs(term)
        if name == "sum_eta_inner":
            size = size + trace.sums["sum_abs"][near + 1]
        wrong |= ~(np.abs(s[near + 1] - s[near] - term) <= RELATIVE_TOLERANCE * size)
    return int(near[np.argmax(wrong)]) if wrong.any() else None


def _broken(sentence: str, trace: Trace, k: int, gap: float = np.nan, allowed: float = np.nan) -> Verdict:
    witness = {"step": int(trace.step[k]), "record": k, "gap": gap, "allowed": allowed}
    return Verdict(
        Status.FALSIFIED, f"{sentence}. This is not the record of such a run.", Evidence.ON_TRACE, witness
    )
