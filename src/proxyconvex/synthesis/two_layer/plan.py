"""Planner of the two-layer family: from data to a certified promise about (normalised) gradient descent, before training.

The route to tight promises is the lazy regime: enlarging the initial scale ``s`` with ``beta = b / s`` keeps the tangent kernel and
makes the network's departure from it vanish (Chizat, Oyallon and Bach 2019). The planner makes ``s`` no larger than the promise
needs, says so beside the promise, and lets the user fix ``init_scale`` and ``beta`` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import CheckError, two_layer_ntk

from ...core.errors import InvalidInputError
from ...core.methods import ConstantStep, GradientDescent, Method, NormalisedStep
from ...families.two_layer_ntk import TwoLayerNTK, check_rows
from ..plan_types import Plan
from . import gd as constant
from . import t8 as normalised
from . import words
from .options import DEFAULT_WIDTH, MOST_STEPS, TRAINING_SHARE, Options, step_seconds

if TYPE_CHECKING:
    from ...data import Dataset, Preprocessing

WIDTHS = (DEFAULT_WIDTH, 256)
"""Widths tried, in this order, when only a time budget is given; the first that reaches the target is taken."""


@dataclass(frozen=True)
class _Outcome:
    """A certified promise, before it is put into words."""

    family: TwoLayerNTK
    initial: Float[np.ndarray, "m d"]
    comparator: Float[np.ndarray, "m d"]
    q: Float[np.ndarray, " n"]
    theorem: str
    params: dict[str, Any]
    derived: dict[str, float]
    ideal: float | None = None

    @property
    def method(self) -> Method:
        """The method the promise speaks of."""
        p = self.params
        step = NormalisedStep(p["c"], p["floor"]) if self.theorem == "T8" else ConstantStep(p["eta"])
        return GradientDescent(step, int(p["T"]))


def plan_two_layer_ntk(
    dataset: Dataset,
    *,
    width: int | None = None,
    activation: str = "softplus",
    slope: float = 0.0,
    beta: float | None = None,
    init_scale: float | None = None,
    method: str = "normalised-gd",
    steps: int | None = None,
    target_errors: int | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    budget_seconds: float | None = None,
    progress: bool = False,
) -> Plan:
    """Choose a two-layer network and a gradient method with the best promise, and certify it.

    The promise lives in the lazy regime (see the module's docstring and ``plan.notes``): it holds because the weights
    need not move far from their initial values, relative to them, to fit the data.

    Args:
        dataset: rows, shape (n, d), and targets in {-1, +1}.
        width: number of hidden neurons m, even; 1024 by default (256 if only that fits the budget).
        activation: ``"softplus"``, ``"smooth-leaky"``, ``"relu"`` or ``"leaky-relu"``.
        slope: leak c in [0, 1) of the leaky activations.
        beta: sharpness of the smooth activations; by default the planner's choice.
        init_scale: standard deviation of the initial weights; by default the smallest (at least 1) that the promise allows.
        method: ``"normalised-gd"`` (theorem T8: number of errors) or ``"gd"`` (constant steps; T4 + T5 or T3 + T5: loss).
        steps: number of steps T. Given, the promise is the lowest error reachable in that many; by default about four
            times the least number that could promise the target, at most 20,000 or what the budget allows.
        target_errors: number of errors that is good enough; 0 by default.
        seed: of the initial weights.
        preprocessing: recorded preprocessing; `proxyconvex.data.default_preprocessing` by default.
        budget_seconds: time for training on this machine, of which half is planned for the steps.
        progress: say on standard error what is being done.

    Returns:
        The plan, with the numbers of the independent checker.

    Raises:
        InvalidInputError: for an option that cannot be used, or if no promise below an error of one half can be made.
    """
    options = Options(
        width,
        activation,
        float(slope),
        beta,
        init_scale,
        method,
        steps,
        target_errors,
        seed,
        budget_seconds,
        progress,
    )
    if preprocessing is None:
        from ...data import default_preprocessing

        preprocessing = default_preprocessing(dataset)
    features, targets = preprocessing.apply(dataset.raw), dataset.targets
    check_rows(features, targets)
    outcome = _best(options, features, targets)
    return _plan(dataset, preprocessing, features, outcome, seed)


def _best(options: Options, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> _Outcome:
    """The best outcome over the widths that are open."""
    widths = (options.width,) if options.width else (WIDTHS if options.budget_seconds else WIDTHS[:1])
    best: _Outcome | None = None
    failure: CheckError | None = None
    for width in widths:
        options.say(f"width {width}: margins in the tangent features")
        most = _most_steps(options, x, y, width)
        try:
            made = _normalised(options, x, y, width, most) if options.method == "normalised-gd" else None
            made = made or _constant(options, x, y, width, most)
        except CheckError as error:
            failure = error
            continue
        if best is None or made.derived["error_bound"] < best.derived["error_bound"]:
            best = made
        if best.derived["error_bound"] * len(y) < options.least:
            break
    if best is None or not best.derived["error_bound"] < 0.5:
        reason = str(failure) if failure else "the bound on the training error is at least one half"
        raise InvalidInputError(
            "plan",
            f"width {options.width or widths[0]}, {options.activation}, {options.method}, steps {options.steps}",
            "settings for which an error below one half can be promised",
            f"{reason}. Allow more steps or a larger width, or leave init_scale and beta to the planner.",
        )
    return best


def _most_steps(options: Options, x: np.ndarray, y: np.ndarray, width: int) -> int:
    """Largest number of steps the planner may choose."""
    if options.budget_seconds is None or options.steps is not None:
        return options.steps or MOST_STEPS
    seconds = step_seconds(x, y, options.tangents(x, y, width)[0])
    most = int(max(1, TRAINING_SHARE * options.budget_seconds / seconds))
    options.say(f"width {width}: {1e3 * seconds:.2g} ms a step, at most {most:,} steps fit the budget")
    return most


def _normalised(options: Options, x: np.ndarray, y: np.ndarray, width: int, most: int) -> _Outcome:
    """The best promise of T8 at one width.

    Raises:
        CheckError: if there is none.
    """
    tangents = options.tangents(x, y, width)
    found, ideal = normalised.search(tangents, options.steps, most, options.least)
    if found is None:
        raise CheckError("theorem T8", f"no comparator has a large enough margin for {most:,} steps")
    options.say(
        f"width {width}: fewer than {found.k} errors in {found.steps:,} steps, initial scale {found.scale:.4g}"
    )
    made = normalised.certify(found, options.seed, free_steps=options.steps is None)
    family = made.proposal.tangent.family(made.proposal.scale, options.seed)
    return _Outcome(family, made.initial, made.comparator, made.q, "T8", made.params, made.derived, ideal)


def _constant(options: Options, x: np.ndarray, y: np.ndarray, width: int, most: int) -> _Outcome:
    """The best promise of T4 + T5 or T3 + T5 at one width; without given steps, few enough that more would not help."""
    tangents = options.tangents(x, y, width)
    steps = options.steps or min(most, 1000)
    while True:
        found = constant.propose(tangents, steps)
        errors = int(len(y) * found.bound / constant.LOG2)
        if options.steps is not None or steps >= most or errors < options.least:
            break
        steps = min(most, 4 * steps)
    if options.smooth and found.tangent.scales[0] == found.tangent.scales[1]:
        found = constant.polish(found)
    options.say(
        f"width {width}: loss at most {found.bound:.4g} in {steps:,} steps, initial scale {found.scale:.4g}"
    )
    family = found.tangent.family(found.scale, options.seed)
    initial, fields = family.initial(x.shape[1]), family.activation.describe()
    theorem = "T4T5" if options.smooth else "T3T5"
    params = {"T": steps, "eta": found.eta}
    derived = two_layer_ntk.derive(theorem, x, y, initial, fields, found.comparator, params)
    network = two_layer_ntk.examine(x, y, initial, fields, found.comparator)
    q = network.tangent_margins(derived.get("radius", derived["R"]))
    return _Outcome(family, initial, found.comparator, q, theorem, params, derived)


def _plan(
    dataset: Dataset, preprocessing: Preprocessing, features: np.ndarray, made: _Outcome, seed: int
) -> Plan:
    guarantee = words.guarantee(
        made.theorem, made.method, made.params, made.derived, len(features), made.initial
    )
    return Plan(
        dataset=dataset,
        preprocessing=preprocessing,
        features=features,
        family=made.family,
        initial=made.initial,
        comparator=made.comparator,
        certificate_comparator=made.comparator,
        method=made.method,
        guarantee=guarantee,
        derived=made.derived,
        theorem_params=made.params,
        proxy={"theorem": made.theorem, "margins": made.q},
        alternatives=words.alternatives(guarantee, made.family, made.ideal),
        seed=seed,
        notes=words.notes(made.derived, made.family, made.initial),
    )
