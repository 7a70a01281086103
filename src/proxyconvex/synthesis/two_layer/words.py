"""Guarantees of the two-layer family in words: the certificate's sentences, and how lazy the regime is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.decimals import show

from ...core.guarantee import Alternative, Guarantee
from ...core.methods import Method
from ...families.two_layer_ntk import TwoLayerNTK
from .. import promise


def reach(derived: dict[str, float], initial: Float[np.ndarray, "m d"]) -> float:
    """How far from the initial weights the region of proxy convexity can reach, relative to their norm."""
    return (derived["R"] + derived.get("radius", derived["R"])) / float(np.linalg.norm(initial))


def guarantee(
    theorem: str,
    method: Method,
    params: dict[str, Any],
    derived: dict[str, float],
    rows: int,
    initial: Float[np.ndarray, "m d"],
) -> Guarantee:
    """The promise as its certificate states it, with one more sentence about the regime it lives in."""
    plain = promise.guarantee(TwoLayerNTK.name, theorem, method, params, derived, rows)
    lazy = (
        "The promise lives in the lazy (tangent-kernel) regime: its proof uses proxy convexity only where the weights are "
        f"within {show(100.001 * reach(derived, initial), digits=3)}% of their initial norm of where they started."
    )
    return dataclasses.replace(plain, sentence=f"{plain.sentence} {lazy}")


def notes(
    derived: dict[str, float], family: TwoLayerNTK, initial: Float[np.ndarray, "m d"]
) -> tuple[str, ...]:
    """Sentences a reader should see beside the promise."""
    size = float(np.linalg.norm(initial))
    return (
        f"Lazy regime: initial weights have standard deviation {family.init_scale:.4g} and norm {size:.4g}; the proof "
        f"uses proxy convexity within {reach(derived, initial) * size:.4g} of them. There the network is close to its "
        "linearisation at initialisation; how it learns features further away the promise does not say. A smaller initial "
        "scale can be asked for (init_scale, more steps or a larger width); the promise then gets weaker or slower.",
        "The promise speaks of the training rows only, and of exact arithmetic; the audit sets a run in floating point beside it.",
    )


def alternatives(chosen: Guarantee, family: TwoLayerNTK, ideal: float | None) -> tuple[Alternative, ...]:
    """Why each theorem applies to the plan or not, the chosen one first."""
    smooth, normalised = family.activation.smooth, chosen.theorem == "T8"
    rows = [
        Alternative(
            chosen.theorem, True, "its premises are certified for this plan", chosen.bound, chosen.error_bound
        )
    ]
    if not normalised:
        rows.append(Alternative("T8", False, "it speaks of normalised steps; plan with method normalised-gd"))
    elif ideal is not None and np.isfinite(ideal):
        rows[0] = Alternative(
            "T8",
            True,
            f"its premises are certified for this plan; over the radii and sharpnesses tried, the fewest steps found for the target "
            f"(at the largest initial scale, in floating point) are about {ideal:,.0f}",
            chosen.bound,
            chosen.error_bound,
        )
    if normalised or not smooth:
        why = (
            "it speaks of a constant step; plan with method gd" if smooth else "the activation is not smooth"
        )
        rows.append(Alternative("T4T5", False, why))
    if chosen.theorem != "T3T5":
        why = (
            "not computed: for smooth activations the planner uses T4T5"
            if smooth
            else "it speaks of a constant step; plan with method gd"
        )
        rows.append(Alternative("T3T5", False, why))
    rows.append(
        Alternative(
            "T6", False, "full-batch descent sees every row at every step; it says nothing about unseen rows"
        )
    )
    return tuple(rows)
