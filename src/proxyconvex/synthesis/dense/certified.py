"""Dense networks with a smooth activation: a promise certified on a ball, before training.

The last hidden layer starts in opposite pairs, so the outputs are zero at w0. With outputs ``s N`` the comparator's distance R falls like
``1/s`` for given margins while the Hessian grows like s only: the remainder ``M R^2 / 2`` falls like ``1/s``. (For homogeneous layers of
weights ``t`` times larger and sharpness adapted, ``s = t^L``: this is the initial-scale trick of the two-layer family.) The planner finds about
the smallest s at which the certified bound says what it can, and prints it. It is the lazy regime, and is labelled so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.decimals import show

from ...core.errors import InvalidInputError
from ...core.evidence import Evidence
from ...core.guarantee import Alternative, Guarantee, PremiseRecord
from ...core.methods import ConstantStep, GradientDescent, NormalisedStep
from ...core.references import PROXYCONVEX_NOTES
from ...families.dense_family import DenseFamily
from ..plan_types import Plan
from ..promise import guarantee
from .apriori import LARGEST_SCALE, best_sharpness, enough_width, threshold
from .attempts import Attempt, search
from .promise import distance_upper, percent

if TYPE_CHECKING:
    from ...data import Dataset, Preprocessing

MOST_STEPS = 3000
BEYOND = 16.0
"""Sharpnesses are compared by their bounds at this multiple of the smallest output scale at which one says anything."""
BETTER = 0.9
"""T4T5: a larger scale is tried as long as it makes the bound at most this share of what it was."""


def certified_plan(
    dataset: Dataset,
    preprocessing: Preprocessing,
    x: Float[np.ndarray, "n d"],
    family: DenseFamily,
    theorem: str,
    output_scale: float | None,
    steps: int | None,
    choose_beta: bool = False,
) -> Plan:
    """Plan a promise whose premises are certified on a ball around the comparator.

    Args:
        dataset: two classes.
        preprocessing: as recorded.
        x: features.
        family: smooth activation, last hidden layer in opposite pairs, output scale 1.
        theorem: ``"T8"`` (errors) or ``"T4T5"`` (loss).
        output_scale: s; by default about the smallest at which the bound is as good as it gets.
        steps: T; by default what is needed, at most `MOST_STEPS`.
        choose_beta: whether the sharpness of the activation is the planner's to choose.

    Raises:
        InvalidInputError: if no direction separates any row.
    """
    s, notes, here = (
        search(family, x, dataset.targets, theorem, steps or MOST_STEPS, steps is not None),
        [],
        None,
    )
    if theorem == "T8" and s.unit is None:
        raise InvalidInputError("data", dataset.name, "rows that some tangent direction separates")
    if choose_beta:
        s, here, said = best_sharpness(s, BEYOND)
        notes.append(said)
    scale, tried = 1.0 if output_scale is None else float(output_scale), []
    while True:
        tried.append(s.at(scale))
        if output_scale is not None or scale > LARGEST_SCALE or _settled(theorem, tried):
            break
        scale *= 4
    best = (
        tried[-1] if theorem == "T8" else min(tried, key=lambda a: (a.bound, -a.family.network.output_scale))
    )
    notes.append(_path(tried))
    if best.error >= 0.5:
        notes.append("It is vacuous at all of them; a larger --output-scale makes it say something.")
    elif output_scale is None:
        first = next(a.family.network.output_scale for a in tried if a.error < 0.5)
        notes += enough_width(here or threshold(s, first), s)
    return _plan(dataset, preprocessing, x, best, tuple(notes), steps or MOST_STEPS)


def _settled(theorem: str, tried: list[Attempt]) -> bool:
    last = tried[-1]
    if theorem == "T8":
        return last.bound == 0
    return last.derived != {} and len(tried) > 1 and last.bound > BETTER * tried[-2].bound


def _path(tried: list[Attempt]) -> str:
    def said(a: Attempt) -> str:
        if not a.derived:
            return "nothing"
        return f"error at most {percent(a.error)}" + (
            "" if a.theorem == "T8" else f", loss {show(a.bound, digits=4)}"
        )

    path = "; ".join(f"{a.family.network.output_scale:g}: {said(a)}" for a in tried)
    return f"What the certified bound promises at each output scale tried: {path}."


def _plan(
    dataset: Dataset,
    preprocessing: Preprocessing,
    x: np.ndarray,
    best: Attempt,
    notes: tuple[str, ...],
    limit: int,
) -> Plan:
    family = best.family
    start = family.initial(x.shape[1])
    if best.method is not None:
        promised = guarantee(family.name, best.theorem, best.method, best.params, best.derived, len(x))
        lazy = 100 * 2 * best.derived.get("radius", best.derived["R"]) / float(np.linalg.norm(start))
        notes = (
            f"The promise lives in the lazy regime: its proof uses proxy convexity only within {show(lazy, digits=3)}% of the initial norm of "
            "the weights from where they started.",
            *notes,
        )
        method, derived = best.method, best.derived
    else:
        promised = _nothing(best, start, limit)
        method, derived = (
            promised.method,
            {
                "R": promised.constants["R"],
                "radius": promised.constants["R"],
                "bound": promised.bound,
                "error_bound": 1.0,
                "G": np.inf,
            },
        )
    proved, proxy = best.method is not None, {"theorem": "T4"}
    if best.theorem == "T8":
        proxy = {"theorem": "T8", "level": best.derived.get("S", 0.0)}
    reason = "certified on the ball" if proved else "not proved at this output scale"
    return Plan(
        dataset=dataset, preprocessing=preprocessing, features=x, family=family, initial=start, comparator=best.comparator,
        certificate_comparator=best.comparator, method=method, guarantee=promised, derived=derived, theorem_params=best.params,
        proxy=proxy, seed=family.network.seed, notes=notes,
        alternatives=(Alternative(promised.theorem, proved, reason, promised.bound, promised.error_bound),),
    )  # fmt: skip


def _nothing(best: Attempt, start: np.ndarray, limit: int) -> Guarantee:
    """An error of at most 100% needs no premise; nothing but the distance is claimed."""
    radius = distance_upper(start, best.comparator)
    scale = best.family.network.output_scale
    step = NormalisedStep(1e-3, 0.5) if best.theorem == "T8" else ConstantStep(1e-3)
    return Guarantee(
        theorem="T8",
        quantity="best-iterate-error",
        sentence=f"Nothing is proved for this network at output scale {scale:g}: every row may be wrong.",
        bound=1.0,
        error_bound=1.0,
        mode="every-run",
        premises=(
            PremiseRecord(
                "start-distance",
                f"||w_0 - V|| <= R = {show(radius)}.",
                Evidence.CERTIFIED,
                PROXYCONVEX_NOTES,
                radius,
            ),
        ),
        method=GradientDescent(step, limit),
        references=best.family.references,
        constants={"R": radius},
    )
