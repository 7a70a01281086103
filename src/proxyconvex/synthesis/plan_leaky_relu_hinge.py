"""Planning for the family F1, `leaky-relu-hinge`: how often SGD changes the weights, and what it gets wrong.

Two theorems (statements and proofs: `proxyconvex_checker.leaky_relu_hinge`):

* **T3m**, separable rows: the number of updates in any order, ``(X ||u|| / c)^2`` in the limit of a long comparator; u is
  the hard-margin support vector;
* **T3u**, any rows: the share of steps that are updates; u and the step solve a convex program.

The planner takes T3m where its promise fits into the steps allowed, else T3u.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import leaky_relu_hinge as checker
from proxyconvex_checker.errors import CheckError

from ..core.errors import InvalidInputError
from ..core.guarantee import Alternative
from ..core.methods import SGD, ConstantStep
from ..data import Dataset, Preprocessing
from ..families.activations import Activation
from ..families.leaky_relu_hinge import LeakyReluHinge
from .choose_preprocessing import scaled_and_biased
from .convex_comparator import Rows, Solution, hard_margin, update_form
from .plan_leaky_relu_noise import shortest_kappa
from .plan_types import Plan
from .promise import certified_plan

SAMPLINGS = ("cyclic", "with-replacement")


@dataclass(frozen=True)
class Promise:
    """A promise and everything the checker needs to re-derive it."""

    theorem: str
    method: SGD
    u: Float[np.ndarray, " d"]
    level: float
    params: dict[str, Any]
    derived: dict[str, float]


@dataclass(frozen=True)
class Task:
    """What the promises are made about."""

    family: LeakyReluHinge
    features: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, " n"]
    initial: Float[np.ndarray, "m d"]

    @property
    def rows(self) -> Rows:
        """Signed data."""
        return Rows(self.targets[:, None] * self.features, self.family.activation.slope)

    @property
    def radius(self) -> float:
        """``X``, a hair above the largest row norm."""
        return float(np.linalg.norm(self.features, axis=1).max()) * (1 + 1e-13)

    def distance_sq(self, u: Float[np.ndarray, " d"], kappa: float) -> float:
        """``||w_0 - V||^2`` in plain floating point."""
        return float(np.sum((self.initial - self.family.comparator(u, kappa)) ** 2))

    def derive(self, theorem: str, u: Float[np.ndarray, " d"], params: dict[str, Any]) -> dict[str, float]:
        """The checker's numbers."""
        activation = self.family.activation.describe()
        return checker.derive(theorem, self.features, self.targets, self.initial, activation, u, params)


def mistake_promise(task: Task, steps: int, sampling: str) -> Promise | str:
    """T3m, or the sentence that says why it promises nothing within these steps."""
    best = hard_margin(task.rows)
    if best is None:
        return "needs rows that a vector u separates with a margin, and none was found"
    u = best.u / float(task.rows.unit_margins(best.u).min())

    def updates(kappa: float) -> float:
        return task.distance_sq(u, kappa) * (task.radius / (kappa - 1)) ** 2

    limit = (task.radius * float(np.linalg.norm(u)) / task.family.activation.slope) ** 2
    kappa = shortest_kappa(lambda k: updates(1 + k), limit) + 1
    eta = (kappa - 1) / task.radius**2 * (1 - 1e-12)
    passes = math.floor(updates(kappa) * (1 + 1e-9) + 1e-9) + 1
    needed = passes * len(task.features)
    if needed > steps and sampling == "cyclic":
        return (
            f"separable, but the bound is about {passes - 1:,} updates, and as many passes are {needed:,} steps; "
            f"{steps:,} are allowed"
        )
    params: dict[str, Any] = {"T": needed if sampling == "cyclic" else steps, "eta": eta, "kappa": kappa}
    if sampling == "cyclic":
        params["passes"] = passes
    try:
        derived = task.derive("T3m", u, params)
    except CheckError as error:
        return f"separable, but the margin is lost in rounding: {error.message}"
    method = SGD(ConstantStep(eta), params["T"], sampling=sampling)  # type: ignore[arg-type]
    return Promise("T3m", method, u, derived["q_min"], params, derived)


def share_promise(task: Task, steps: int, sampling: str, best: Solution | None = None) -> Promise:
    """T3u: the share of steps that change the weights."""
    n = len(task.features)
    if sampling == "cyclic":
        steps = max(1, steps // n) * n
    best = best or update_form(task.rows, task.radius**2, steps)
    q, theta = task.rows.unit_margins(best.u), best.theta

    def share(kappa: float) -> float:
        charge = np.maximum(1 + theta / 2 + 1 / kappa - q, 0.0).mean()
        travel = task.radius**2 * task.distance_sq(best.u, kappa) / (2 * theta * kappa**2 * steps)
        return float(charge) + travel

    kappa = shortest_kappa(share, best.value)
    eta = theta * kappa / task.radius**2
    params = {"T": steps, "eta": eta, "kappa": kappa}
    derived = task.derive("T3u", best.u, params)
    method = SGD(ConstantStep(eta), steps, sampling=sampling)  # type: ignore[arg-type]
    level = 1 + theta / 2 + 1 / kappa
    return Promise("T3u", method, best.u, level, params, derived)


def best_preprocessing(dataset: Dataset, slope: float, steps: int) -> Preprocessing:
    """The standard preprocessing with the least promised share."""

    def worth(x: Float[np.ndarray, "k d"], y: Float[np.ndarray, " k"]) -> float:
        growth = float(np.max(np.sum(x * x, axis=1)))
        return update_form(Rows(y[:, None] * x, slope), growth, steps, quick=True).value

    return scaled_and_biased(dataset, worth)


def plan_leaky_relu_hinge(
    dataset: Dataset,
    *,
    width: int = 64,
    slope: float = 0.5,
    method: str = "sgd",
    sampling: str | None = None,
    steps: int = 1_000_000,
    init_scale: float = 0.1,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    progress: bool = False,
) -> Plan:
    """State how often SGD on the hinge loss can change the weights of a leaky ReLU network, of any width.

    Args:
        dataset: rows and targets of two classes.
        width: number of neurons m >= 1; the promise does not grow with it.
        slope: the leak c in (0, 1].
        method: ``"sgd"`` (one row a step).
        sampling: ``"cyclic"`` (passes over the rows, promises about every run) or ``"with-replacement"``. By default
            cyclic where separable rows allow the mistake bound within ``steps``, else with replacement.
        steps: the most steps T; the mistake bound takes only as many passes as it needs.
        init_scale: standard deviation of the initial weights, ``>= 0``.
        seed: of the initial weights and of the sampling.
        preprocessing: by default a few standard ones are compared and the one with the least promise is kept.
        progress: accepted for uniformity; planning takes seconds.

    Returns:
        The plan; its numbers are those of the independent checker.

    Raises:
        InvalidInputError: for an argument out of range or data that cannot be used.
    """
    del progress
    if method != "sgd":
        raise InvalidInputError("method", method, "sgd", "The mistake bound counts updates on single rows.")
    if sampling is not None and sampling not in SAMPLINGS:
        raise InvalidInputError(
            "sampling", sampling, " or ".join(SAMPLINGS), "Leave it out to let the planner choose."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInputError("steps", steps, "a whole number >= 1", "Pass e.g. --steps 1000000.")
    family = LeakyReluHinge(width, Activation("leaky-relu", slope), init_scale, seed)
    preprocessing = preprocessing or best_preprocessing(dataset, slope, steps)
    features = preprocessing.apply(dataset.raw)
    task = Task(family, features, dataset.targets, family.initial(features.shape[1]))
    mistakes = mistake_promise(task, steps, sampling or "cyclic")
    share = share_promise(task, steps, sampling or "with-replacement")
    chosen = share if isinstance(mistakes, str) else mistakes
    return certified_plan(
        dataset=dataset,
        preprocessing=preprocessing,
        features=features,
        family=family,
        initial=task.initial,
        comparator=family.comparator(chosen.u, chosen.params["kappa"]),
        stored=chosen.u,
        method=chosen.method,
        theorem=chosen.theorem,
        params=chosen.params,
        derived=chosen.derived,
        proxy={"u": chosen.u, "kappa": chosen.params["kappa"], "level": chosen.level},
        alternatives=_alternatives(mistakes, share, chosen),
        seed=seed,
        notes=_notes(chosen, mistakes),
    )


def _alternatives(mistakes: Promise | str, share: Promise, chosen: Promise) -> tuple[Alternative, ...]:
    kink = "needs Smooth(L): the hinge and leaky ReLU have kinks, so the gradient jumps"
    rows = [Alternative(name, False, kink) for name in ("T1", "T2", "T4")]
    rows += [
        Alternative(
            "T3",
            False,
            "bounds the mean of g = 1[yN < 1] + hinge over the steps; T3m and T3u count the same updates sharper",
        ),
        Alternative(
            "T5", False, "localises T3 to a ball; here its conditions hold everywhere, so it adds nothing"
        ),
        Alternative("T6", False, "needs one pass over i.i.d. rows and a bounded proxy"),
        Alternative("T8", False, "speaks of normalised full-batch descent on the logistic loss"),
    ]
    if isinstance(mistakes, str):
        rows.insert(0, Alternative("T3m", False, mistakes))
    else:
        rows.insert(
            0,
            Alternative(
                "T3u", True, "applies to the share of steps that are updates; T3m counts them once and for all",
                share.derived["bound"], share.derived["error_bound"],
            ),
        )  # fmt: skip
    return tuple(row for row in rows if row.theorem != chosen.theorem)


def _notes(chosen: Promise, mistakes: Promise | str) -> tuple[str, ...]:
    if chosen.theorem == "T3m":
        return (
            "The step is long: at this kappa the loss 1 is small beside the outputs, so SGD acts almost like a perceptron.",
        )
    notes = [str(mistakes).replace("separable, but", "The mistake bound T3m: separable, but")]
    if not chosen.derived["error_bound"] < 0.5:
        notes.append("A larger margin, a leak nearer to 1 or more steps would lower the promise.")
    return tuple(note[0].upper() + note[1:] + ("" if note.endswith(".") else ".") for note in notes)
