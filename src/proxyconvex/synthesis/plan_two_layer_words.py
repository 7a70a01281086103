"""Guarantees of the two-layer family in words, from the checker's numbers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..core.evidence import Evidence
from ..core.guarantee import Alternative, Guarantee, PremiseRecord
from ..core.methods import Method
from ..core.references import CHIZAT_BACH_2019, FREI_GU_2021, JI_TELGARSKY_2020, PROXYCONVEX_NOTES
from ..families.two_layer_ntk import TwoLayerNTK

Numbers = dict[str, float]


def _percent(value: float) -> str:
    return f"{100 * value:.4g}%"


def _premise(name: str, statement: str, value: float, proved: bool = False) -> PremiseRecord:
    evidence = Evidence.PROVED if proved else Evidence.CERTIFIED
    return PremiseRecord(name, statement, evidence, PROXYCONVEX_NOTES, value)


def _lazy(family: TwoLayerNTK, initial: Float[np.ndarray, "m d"], reach: float) -> str:
    size = float(np.linalg.norm(initial))
    return (
        f"The promise lives in the lazy (tangent-kernel) regime: initial weights have standard deviation "
        f"{family.init_scale:.4g} and norm {size:.4g}, and where it is proved no weights are further than {reach:.4g} "
        f"from them, {_percent(reach / size)} of that norm; how the network would learn features further away "
        f"it does not say."
    )


def _tangent_margins(family: TwoLayerNTK, radius: float, least: float, distance: float) -> PremiseRecord:
    phi = family.activation
    why = (
        f"curvature |phi''| <= {phi.curvature:.4g}"
        if phi.smooth
        else "a knapsack bound on the neurons whose sign can flip"
    )
    return _premise(
        "proxy-convexity",
        f"Wherever the weights are within {radius:.5g} of the comparator V, the network linearised at them gives V a margin of "
        f"at least its certified value q_i on every row (the least is {least:.4g}), by {why}. This is the lazy "
        f"regime: initial weights have scale {family.init_scale:.4g} and V is {distance:.5g} from them.",
        least,
    )


def _distance(derived: Numbers) -> PremiseRecord:
    return _premise(
        "start-distance", f"The initial weights are at most R = {derived['R']:.6g} from V.", derived["R"]
    )


def few_errors(derived: Numbers, params: Numbers, n: int, family: TwoLayerNTK, method: Method) -> Guarantee:
    """T8 in words."""
    k, steps = int(params["k"]), int(params["T"])
    wrong = (
        "no training error at all"
        if k == 1
        else f"at most {k - 1} of {n} training errors ({_percent((k - 1) / n)})"
    )
    return Guarantee(
        theorem="T8",
        quantity="best-iterate-error",
        sentence=(
            f"Some iterate among the first {steps:,} of normalised gradient descent makes {wrong}; the run keeps the best. "
            "It is promised in the lazy (tangent-kernel) regime, for exact arithmetic, and speaks of these training rows only."
        ),
        bound=derived["bound"],
        error_bound=derived["error_bound"],
        mode="every-run",
        premises=(
            _tangent_margins(family, derived["R"], derived["q_min"], derived["R"]),
            _premise(
                "gradient-norm",
                f"There the gradient of the network's output has norm at most G = {derived['G']:.6g} on every row.",
                derived["G"],
            ),
            _premise(
                "few-errors",
                f"While {k} or more rows are wrong, S = {derived['S']:.6g} bounds the descent towards V from below, and "
                f"T c (2 S - c G^2) exceeds R^2 = {derived['R'] ** 2:.6g} (exact rational arithmetic).",
                derived["S"],
            ),
            _distance(derived),
        ),
        method=method,
        references=(JI_TELGARSKY_2020, CHIZAT_BACH_2019, FREI_GU_2021, PROXYCONVEX_NOTES),
        constants=dict(derived),
    )


def small_loss(derived: Numbers, params: Numbers, n: int, family: TwoLayerNTK, method: Method) -> Guarantee:
    """T4 + T5 (smooth) or T3 + T5 (ReLU) in words."""
    smooth, steps = family.activation.smooth, int(params["T"])
    radius = derived["radius"] if smooth else derived["R"]
    which = (
        f"After {steps:,} steps gradient descent has"
        if smooth
        else f"Some iterate among the first {steps:,} of gradient descent has"
    )
    if smooth:
        side = _premise(
            "smoothness",
            f"The loss is L-smooth everywhere, L = {derived['L']:.6g}, and eta = {params['eta']:.6g} is below 2 / L.",
            derived["L"],
        )
    else:
        side = _premise(
            "gradient-growth",
            f"||grad f||^2 <= A f everywhere, A = {derived['A']:.6g}, and eta = {params['eta']:.6g} is below 2 / A.",
            derived["A"],
        )
    return Guarantee(
        theorem="T4T5" if smooth else "T3T5",
        quantity="final-loss" if smooth else "best-loss",
        sentence=(
            f"{which} a mean logistic loss of at most {derived['bound']:.5g}, hence at most {_percent(derived['error_bound'])} "
            f"training errors ({round(derived['error_bound'] * n)} of {n}). It is promised in the lazy (tangent-kernel) regime, "
            "for exact arithmetic, and speaks of these training rows only."
        ),
        bound=derived["bound"],
        error_bound=derived["error_bound"],
        mode="every-run",
        premises=(_tangent_margins(family, radius, derived["q_min"], derived["R"]), side, _distance(derived)),
        method=method,
        references=(JI_TELGARSKY_2020, CHIZAT_BACH_2019, FREI_GU_2021, PROXYCONVEX_NOTES),
        constants=dict(derived),
    )


def notes(derived: Numbers, family: TwoLayerNTK, initial: Float[np.ndarray, "m d"]) -> tuple[str, ...]:
    """Sentences a reader should see beside the promise."""
    return (_lazy(family, initial, derived["R"] + derived.get("radius", derived["R"])),)


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
            f"its premises are certified for this plan; at no initial scale could fewer than about {ideal:,.0f} steps promise "
            "the target in this tangent model",
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
            "T4T5 is never worse for smooth activations here"
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
