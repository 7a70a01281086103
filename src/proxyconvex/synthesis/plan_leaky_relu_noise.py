"""Planning for the family F2, `leaky-relu-noise`: the comparator, the step size and the promise.

Theorems (statements and proofs: `proxyconvex_checker.leaky_relu_noise`) by method:

* ``sgd``: T3e, the expected training error averaged over the run; one pass: T6e, the error on fresh rows;
* ``normalised-gd``: T8, an iterate with few errors, in every run;
* ``gd``: T3f, the average training error, in every run; or T1 (smooth activation only), the least slope.

The comparator's direction comes from a convex program in the limit kappa to infinity. A finite kappa costs a term
``k0 / kappa``; it is the smallest one whose promise is within `KAPPA_LOSS` of the limit, up to `KAPPA_CAP`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import leaky_relu_noise as checker
from proxyconvex_checker import margins
from proxyconvex_checker.errors import CheckError

from ..core.errors import InvalidInputError
from ..core.methods import SGD, ConstantStep, GradientDescent, Method, NormalisedStep
from ..data import Dataset, Preprocessing, default_preprocessing
from ..families.activations import Activation
from ..families.leaky_relu_noise import K0, LeakyReluNoise
from .choose_preprocessing import scaled_and_biased
from .convex_comparator import Rows, count_form, error_form, gradient_form, margin_form
from .leaky_alternatives import alternatives
from .plan_types import Plan
from .promise import certified_plan

KAPPA_LOSS = 1e-3
KAPPA_CAP = 2.0**60
METHODS = ("sgd", "normalised-gd", "gd")
# Failure probability of the one-pass promise.
DELTA = 0.05


@dataclass(frozen=True)
class Task:
    """What a planner of one theorem works on."""

    family: LeakyReluNoise
    features: Float[np.ndarray, "n d"]
    targets: Float[np.ndarray, " n"]
    initial: Float[np.ndarray, "m d"]
    steps: int
    delta: float = DELTA

    @property
    def rows(self) -> Rows:
        """Signed data."""
        return Rows(self.targets[:, None] * self.features, self.family.activation.slope)

    @property
    def radius(self) -> float:
        """``X``, the largest row norm (in plain floating point)."""
        return float(np.linalg.norm(self.features, axis=1).max())

    @property
    def spread(self) -> float:
        """``lambda_max((1/n) sum x x^T)`` (in plain floating point)."""
        return float(np.linalg.eigvalsh(self.features.T @ self.features / len(self.features))[-1])

    def derive(self, theorem: str, u: Float[np.ndarray, " d"], params: dict[str, Any]) -> dict[str, float]:
        """The checker's numbers."""
        return checker.derive(
            theorem,
            self.features,
            self.targets,
            self.initial,
            self.family.activation.describe(),
            u,
            params,
        )


@dataclass(frozen=True)
class Candidate:
    """A promise: theorem, method and everything the checker needs to re-derive it."""

    theorem: str
    method: Method
    u: Float[np.ndarray, " d"]
    kappa: float
    params: dict[str, Any]
    derived: dict[str, float]
    proxy: dict[str, float] = field(default_factory=dict)


# --- one planner per theorem -----------------------------------------------------------------------------------


def shortest_kappa(cost: Callable[[float], float], limit: float) -> float:
    """Smallest kappa (to 1%) with ``cost(kappa) <= (1 + KAPPA_LOSS) limit``, at most `KAPPA_CAP`.

    Args:
        cost: the promise for a given kappa; it tends to ``limit`` and, beyond its first entry, stays near it.
        limit: its limit for kappa to infinity.
    """
    low = high = 1.0
    while cost(high) > (1 + KAPPA_LOSS) * limit and high < KAPPA_CAP:
        low, high = high, 4 * high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if cost(middle) <= (1 + KAPPA_LOSS) * limit else (middle, high)
    return high


def _error_promise(
    task: Task, u: Float[np.ndarray, " d"], theta: float, growth: float, kappa: float
) -> float:
    """The bound of T3e or T3f at a finite kappa, in plain floating point."""
    q = task.rows.unit_margins(u) - task.family.omega / kappa
    charge = np.maximum(np.maximum(1 + theta / 4 - q, 1 + theta - 2 * q), 0.0).mean()
    distance = task.initial - task.family.comparator(u, kappa)
    travel = growth * float(np.sum(distance**2)) / (theta * kappa**2 * task.steps)
    return float(charge + 2 * K0 / kappa + travel)


def plan_error(task: Task, theorem: str) -> Candidate:
    """T3e (SGD) and T3f (full batch): the average training error."""
    growth = task.radius**2 if theorem == "T3e" else task.spread
    best = error_form(task.rows, growth, task.steps)

    def promise(kappa: float) -> float:
        return _error_promise(task, best.u, best.theta, growth, kappa)

    kappa = shortest_kappa(promise, best.value)
    eta = best.theta * kappa / growth
    params = {"T": task.steps, "eta": eta, "kappa": kappa}
    step = ConstantStep(eta)
    method = SGD(step, task.steps) if theorem == "T3e" else GradientDescent(step, task.steps)
    derived = task.derive(theorem, best.u, params)
    return Candidate(theorem, method, best.u, kappa, params, derived, {"theta": derived["theta"]})


def plan_one_pass(task: Task) -> Candidate:
    """T6e: the error on fresh rows. The step is a constant, so kappa follows from theta."""
    steps = min(task.steps, len(task.features))
    growth = task.radius**2
    best = error_form(task.rows, growth, steps)
    kappa = checker.ONE_PASS_ETA * growth / best.theta
    shared = {"T": steps, "eta": checker.ONE_PASS_ETA, "kappa": kappa, "delta": task.delta}
    options = [shared | {"u0": u0} for u0 in checker.ONE_PASS_U0]
    derived = [task.derive("T6e", best.u, params) for params in options]
    k = int(np.argmin([numbers["bound"] for numbers in derived]))
    method = SGD(ConstantStep(checker.ONE_PASS_ETA), steps, sampling="one-pass")
    return Candidate("T6e", method, best.u, kappa, options[k], derived[k], {"theta": derived[k]["theta"]})


def plan_few_errors(task: Task) -> Candidate:
    """T8: the fewest errors that can be promised within the steps given, then the fewest steps for that promise.

    A finite kappa needs *fewer* steps than the limit where some rows cannot be fitted (a row that is far wrong pulls
    with its own negative margin too), so the program for k is solved again with as many more steps as that gained.

    Raises:
        InvalidInputError: if nothing can be excluded in this many steps.
    """
    n, allowed = len(task.features), task.steps
    found: Candidate | None = None
    for _ in range(3):
        fewest = count_form(task.rows, task.radius, allowed).value
        k = max(1, math.floor(fewest * n * (1 - 1e-9)) + 1)
        if found is not None and k >= found.params["k"]:
            break
        better, gain = _first_possible(task, k, n if found is None else found.params["k"] - 1)
        if better is None:
            break
        found, allowed = better, math.ceil(task.steps * gain)
    if found is None:
        raise InvalidInputError(
            "steps", task.steps, "enough steps to promise anything", "Give more, or another preprocessing."
        )
    return found


def _first_possible(task: Task, k: int, last: int) -> tuple[Candidate | None, float]:
    """The smallest count from k on (a few are tried, at most ``last``) that T8 excludes, and what kappa gained."""
    for count in sorted({k, k + 1, k + 2, k + max(3, len(task.features) // 100), last}):
        if k <= count <= last:
            found, gain = _few_errors(task, task.rows, count)
            if found is not None:
                return found, gain
    return None, 1.0


def _few_errors(task: Task, rows: Rows, k: int) -> tuple[Candidate | None, float]:
    """A promise of fewer than k errors, and the factor by which it needs fewer steps than kappa to infinity."""
    best = margin_form(rows, k)
    if best is None:
        return None, 1.0
    q, growth = rows.unit_margins(best.u), Fraction(task.radius * (1 + 1e-12)) ** 2
    options: list[tuple[int, float, float]] = []
    for kappa in 2.0 ** np.arange(-1, 31):
        margin = margins.margin_floor(kappa * q - task.family.omega - 1e-11 * kappa, k)
        if margin > 0:
            distance = float(np.sum((task.initial - task.family.comparator(best.u, kappa)) ** 2))
            c = margins.best_step(margin, growth)
            options.append(
                (margins.steps_needed(margin, c, growth, Fraction(distance * (1 + 1e-9))), kappa, c)
            )
    if not options or min(options)[0] > task.steps:
        return None, 1.0
    fewest = max(min(options)[0], 1)
    steps, kappa, c = next(option for option in options if option[0] <= (1 + KAPPA_LOSS) * fewest)
    floor = math.nextafter(k / (2 * len(rows.z)), 0.0)
    params = {"T": min(steps, task.steps), "c": c, "floor": floor, "k": k, "kappa": float(kappa)}
    try:
        derived = task.derive("T8", best.u, params)
    except CheckError:
        return None, 1.0
    method = GradientDescent(NormalisedStep(c, floor), params["T"])
    return Candidate("T8", method, best.u, float(kappa), params, derived), options[-1][0] / fewest


def plan_gradient(task: Task) -> Candidate:
    """T1: smooth descent reaches a small gradient, which cannot be with many errors."""
    activation, steps = task.family.activation, task.steps
    bend = activation.curvature / math.sqrt(task.family.width)
    eta = (1 - 1e-9) / (task.spread * (0.25 + bend))
    zero = np.zeros(task.features.shape[1])
    # Any u gives the certified initial loss; the direction is then optimised for the gradient it implies.
    gradient = task.derive("T1", zero, {"T": steps, "eta": eta})["gradient"]
    best = gradient_form(task.rows, gradient)
    params = {"T": steps, "eta": eta}
    derived = task.derive("T1", best.u, params)
    return Candidate("T1", GradientDescent(ConstantStep(eta), steps), best.u, 1.0, params, derived)


# --- the planner -----------------------------------------------------------------------------------------------


def best_preprocessing(dataset: Dataset, slope: float, steps: int, one_pass: bool) -> Preprocessing:
    """The standard preprocessing with the least T3e promise.

    A promise about unseen rows must not look at them, so one pass keeps the default.
    """
    if one_pass:
        return default_preprocessing(dataset, statistics=False)

    def worth(x: Float[np.ndarray, "k d"], y: Float[np.ndarray, " k"]) -> float:
        growth = float(np.max(np.sum(x * x, axis=1)))
        return error_form(Rows(y[:, None] * x, slope), growth, steps, quick=True).value

    return scaled_and_biased(dataset, worth)


def _check(method: str, steps: int, one_pass: bool, delta: float | None, activation: str) -> None:
    if method not in METHODS:
        raise InvalidInputError("method", method, ", ".join(METHODS))
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInputError("steps", steps, "a whole number >= 1", "Pass e.g. --steps 1000000.")
    if one_pass and method != "sgd":
        raise InvalidInputError("one_pass", one_pass, "False unless method='sgd'", "Use --method sgd.")
    if delta is not None and not one_pass:
        raise InvalidInputError(
            "delta", delta, "nothing without one_pass=True", "Add --one-pass, or leave --delta out: only the promise of one pass has a failure probability."
        )  # fmt: skip
    if delta is not None and not (isinstance(delta, float) and 0 < delta < 1):
        raise InvalidInputError("delta", delta, "a number in (0, 1)", "Use e.g. 0.05.")
    if activation not in ("leaky-relu", "smooth-leaky"):
        raise InvalidInputError("activation", activation, "leaky-relu or smooth-leaky")


def _check_no_statistics(preprocessing: Preprocessing, dataset: Dataset) -> None:
    """A promise about unseen rows allows no preprocessing that looked at rows."""
    every = tuple(range(dataset.raw.shape[1]))
    if preprocessing.center or preprocessing.scale != "none" or tuple(preprocessing.kept_columns) != every:
        raise InvalidInputError(
            "preprocessing",
            preprocessing,
            "all columns, no centring and no column scaling with one_pass=True",
            "Use default_preprocessing(dataset, statistics=False).",
        )


def _promise(task: Task, method: str, one_pass: bool) -> tuple[Candidate, list[Candidate]]:
    """The best promise for the method, and the others that apply to it."""
    if method == "normalised-gd":
        return plan_few_errors(task), []
    if method == "sgd":
        return (plan_one_pass(task) if one_pass else plan_error(task, "T3e")), []
    found = [plan_error(task, "T3f")]
    if task.family.activation.smooth:
        found.append(plan_gradient(task))
    found.sort(key=lambda candidate: candidate.derived["error_bound"])
    return found[0], found[1:]


def plan_leaky_relu_noise(
    dataset: Dataset,
    *,
    width: int = 64,
    slope: float = 0.5,
    activation: str = "leaky-relu",
    beta: float = 1.0,
    method: str = "sgd",
    steps: int = 1_000_000,
    one_pass: bool = False,
    delta: float | None = None,
    init_scale: float = 0.1,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    progress: bool = False,
) -> Plan:
    """State what (stochastic) gradient descent is guaranteed to reach with a leaky two-layer network of any width.

    Args:
        dataset: rows and targets.
        width: number of neurons m >= 1; no promise depends on it (but T1's, slightly).
        slope: the leak c in (0, 1].
        activation: ``"leaky-relu"`` or ``"smooth-leaky"``.
        beta: sharpness of ``smooth-leaky``.
        method: ``"sgd"`` (batch 1), ``"normalised-gd"`` or ``"gd"``.
        steps: number of steps T. Normalised descent takes only as many of them as its promise needs; one pass at
            most one per row.
        one_pass: use every row at most once and promise the error on fresh rows (rows assumed i.i.d.).
        delta: failure probability of the one-pass promise, in (0, 1); None for `DELTA`.
        init_scale: standard deviation of the initial weights, ``> 0``.
        seed: of the initial weights and of the sampling.
        preprocessing: by default a few standard ones are compared and the one with the least promise is kept.
        progress: accepted for uniformity; planning takes seconds.

    Returns:
        The plan; its numbers are those of the independent checker.

    Raises:
        InvalidInputError: for an argument out of range or data that cannot be used.
    """
    del progress
    _check(method, steps, one_pass, delta, activation)
    family = LeakyReluNoise(width, Activation(activation, slope, beta), init_scale, seed)
    if preprocessing is None:
        preprocessing = best_preprocessing(dataset, slope, steps, one_pass)
    elif one_pass:
        _check_no_statistics(preprocessing, dataset)
    features = preprocessing.apply(dataset.raw)
    initial = family.initial(features.shape[1])
    task = Task(family, features, dataset.targets, initial, steps, DELTA if delta is None else delta)
    chosen, others = _promise(task, method, one_pass)
    return certified_plan(
        dataset=dataset,
        preprocessing=preprocessing,
        features=features,
        family=family,
        initial=initial,
        comparator=family.comparator(chosen.u, chosen.kappa),
        stored=chosen.u,
        method=chosen.method,
        theorem=chosen.theorem,
        params=chosen.params,
        derived=chosen.derived,
        proxy={"theorem": chosen.theorem, "u": chosen.u, "kappa": chosen.kappa, **chosen.proxy},
        alternatives=alternatives(task, method, one_pass, chosen, others),
        seed=seed,
        notes=_notes(chosen, steps),
    )


def _notes(chosen: Candidate, steps: int) -> tuple[str, ...]:
    notes = []
    if chosen.theorem == "T3e":
        notes.append(
            "The promise is about the mean over sampling seeds. In every single run, whatever the order of the rows, "
            "the number of drawn rows that are wrong when drawn is at most twice the sum of their charges plus "
            "2 k0 T / kappa + R^2 / (eta kappa)."
        )
    if chosen.theorem == "T8" and chosen.method.steps < steps:
        notes.append(
            f"The promise needs {chosen.method.steps:,} of the {steps:,} steps allowed; the planner found no use for more."
        )
    if chosen.theorem == "T6e":
        notes.append("Preprocessing, step size and u0 are constants chosen without looking at the rows.")
        if chosen.method.steps < steps:
            notes.append(
                f"One pass takes one step per row: {chosen.method.steps:,} of the {steps:,} steps allowed."
            )
    return tuple(notes)
