"""Planning for the non-convex problems of `classical`: rank-one factorisation, phase retrieval, linear networks.

The theorems are in `proxyconvex_checker.secant` and `proxyconvex_checker.linear_network`. For the first two the ball is the one that the
start lies on, the step minimises the certified contraction, and the number of steps is what leaves a millionth of the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import linear_network, secant
from proxyconvex_checker.classical import lambda_min_lower
from proxyconvex_checker.errors import CheckError
from proxyconvex_checker.single_neuron import neuron_of

from ..core.errors import InvalidInputError
from ..core.guarantee import Alternative
from ..core.methods import ConstantStep, GradientDescent
from ..data import Dataset, Preprocessing, default_preprocessing
from ..families.classical_nonconvex import Factored, LinearNetwork, PhaseRetrieval, RankOne
from .plan_types import Plan
from .promise import certified_plan

LEFT = 1e-6
"""Share of the baseline that the planned number of steps leaves above the comparator."""
MOST_STEPS = 1_000_000
MEASUREMENTS = 200
"""Gaussian measurements per entry of the signal, to begin with; more where these certify nothing."""
MOST_NUMBERS = 10_000_000
"""Entries of the largest matrix that is planned with: a run of more is not one for a desktop computer."""
SHARE = 0.1
"""Radius of the ball of a linear network over the norm of its second layer, where the planner chooses the scale."""

MOST_FEATURES = {"rank-one": 1000, "phase-retrieval": 200}
"""Exactly rounded moments of the rows cost d^2 n, the third moments of phase retrieval d^3 n."""
REASONS = {
    "rank-one": (
        ("CvxSquares", "needs convexity: the second derivative at u = 0 is -M"),
        ("PLg", "needs PL on the whole space: u = 0 is stationary and no minimum"),
    ),
    "phase-retrieval": (
        ("CvxSquares", "needs convexity: the second derivative at w = 0 is -(1/n) sum y x x^T"),
        ("PLg", "needs PL on the whole space: w = 0 is stationary and no minimum"),
    ),
    "linear-network": (
        (
            "CvxSquares",
            "needs convexity: at W = 0, a = 0 the second derivative has both signs, unless X^T y = 0",
        ),
        ("PLg", "needs PL on the whole space: W = 0, a = 0 is stationary and no minimum, unless X^T y = 0"),
        ("RSIrank", "needs an isolated solution: W and a can be rescaled against each other"),
    ),
}
"""Why the theorems of linear models, and of each other, do not apply."""


@dataclass(frozen=True)
class Options:
    """What the command line or a caller fixes; None is left to the planner."""

    steps: int | None = None
    width: int | None = None
    measurements: int | None = None
    init_scale: float | None = None
    seed: int = 0
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Pieces:
    """A problem bound to rows, before its promise."""

    dataset: Dataset
    preprocessing: Preprocessing
    x: Float[np.ndarray, "n d"]
    family: Factored
    initial: Float[np.ndarray, "m e"]
    comparator: Float[np.ndarray, "m e"]
    notes: tuple[str, ...] = ()

    @property
    def given(self) -> tuple[Any, ...]:
        """The arrays and the activation in the order the checker takes them."""
        return (
            self.x,
            self.dataset.targets,
            self.initial,
            self.family.describe()["activation"],
            self.comparator,
        )

    def plan(self, theorem: str, params: dict[str, Any], derived: dict[str, float], **more: Any) -> Plan:
        """The plan with the checker's numbers."""
        return certified_plan(
            dataset=self.dataset,
            preprocessing=self.preprocessing,
            features=self.x,
            family=self.family,
            initial=self.initial,
            comparator=self.comparator,
            method=GradientDescent(ConstantStep(params["eta"]), params["T"]),
            theorem=theorem,
            params=params,
            derived=derived,
            alternatives=tuple(Alternative(name, False, why) for name, why in REASONS[self.family.name]),
            seed=self.family.seed,
            notes=self.notes,
            **more,
        )


def _refuse_wide(problem: str, d: int) -> None:
    most = MOST_FEATURES[problem]
    if d > most:
        raise InvalidInputError(
            "data", f"{d} features", f"at most {most} for --problem {problem}",
            "The certificate's moments of the rows would take too long; keep fewer columns.",
        )  # fmt: skip


def _spectral_plan(
    theorem: str, pieces: Pieces, curvature: secant.Curvature, fixed: dict[str, float], steps: int | None
) -> Plan:
    """The step with the smallest certified contraction, and enough steps."""
    m, L, mu = float(curvature.m), float(curvature.L), float(curvature.mu)
    eta = min(m / ((L - mu) * m + L * mu), 2 / (L - mu) if mu < L else math.inf) * (1 - 1e-9)
    if steps is None:
        shrink = 2 * eta * m - eta**2 * ((L - mu) * m + L * mu)
        square = float(np.sum((pieces.initial - pieces.comparator) ** 2))
        over = max(L * square / (2 * LEFT * curvature.baseline), math.e)
        steps = min(MOST_STEPS, math.ceil(math.log(over) / shrink))
    params = {"T": steps, "eta": eta, **fixed}
    # What `secant.derive` returns, without bounding the curvature a second time.
    derived = secant.contraction(neuron_of(*pieces.given), params, curvature)
    return pieces.plan(theorem, params, derived, proxy={"secant": derived["m"], "noise": derived["noise"]})


def plan_rank_one(dataset: Dataset, options: Options) -> Plan:
    """Rank-one factorisation of the second moments of the rows; the targets are not used."""
    preprocessing = options.preprocessing or default_preprocessing(dataset)
    x = preprocessing.apply(dataset.raw)
    _refuse_wide("rank-one", x.shape[1])
    family = RankOne(0.5 if options.init_scale is None else options.init_scale, options.seed)
    initial = family.start(x, dataset.targets)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    v = np.sqrt(values[-1]) * vectors[:, -1] * (1 if initial[0] @ vectors[:, -1] >= 0 else -1)
    second = float(values[-2]) if len(values) > 1 else 0.0
    unlabelled = replace(dataset, task="regression", labels=())
    pieces = Pieces(unlabelled, preprocessing, x, family, initial, np.ascontiguousarray(v[None]))
    fixed = {"tau": max(second, 0.0) / float(values[-1])}
    curvature = secant.rank_one(neuron_of(*pieces.given), fixed)
    if not curvature.m > 0:
        raise InvalidInputError(
            "init_scale", family.init_scale, "a start from which the secant inequality holds",
            f"The two largest eigenvalues are {values[-1]:.4g} and {second:.4g}; the ball through the start must be smaller: try a "
            "value nearer to 1.",
        )  # fmt: skip
    return _spectral_plan("RSIrank", pieces, curvature, fixed, options.steps)


def plan_phase_retrieval(dataset: Dataset, options: Options) -> Plan:
    """Recover one preprocessed row of the data from the squares of Gaussian measurements; the seed picks both."""
    prepared = options.preprocessing or default_preprocessing(dataset)
    rows = prepared.apply(dataset.raw)
    row = options.seed % len(rows)
    signal, d = rows[row], rows.shape[1]
    _refuse_wide("phase-retrieval", d)
    count = options.measurements or MEASUREMENTS * d
    if options.measurements is not None and not 2 <= count <= MOST_NUMBERS // d:
        raise InvalidInputError(
            "measurements", count, f"2 to {MOST_NUMBERS // d:,} for {d} features", "Leave --measurements out for the planner's choice."
        )  # fmt: skip
    for _ in range(1 if options.measurements else 3):
        pieces = _measured(dataset, signal, row, count, options)
        fixed = _moment_parameters(pieces)
        curvature = secant.phase_retrieval(neuron_of(*pieces.given), fixed)
        if curvature.m > 0:
            return _spectral_plan("RSIphase", pieces, curvature, fixed, options.steps)
        count *= 2
    raise InvalidInputError(
        "measurements", len(pieces.x), "enough for a secant constant above 0 on the ball through the spectral start",
        f"It is {float(curvature.m):.4g} at distance {float(np.linalg.norm(pieces.initial - signal)):.4g} from the signal; double the number.",
    )  # fmt: skip


def _measured(
    dataset: Dataset, signal: Float[np.ndarray, " d"], row: int, count: int, options: Options
) -> Pieces:
    rng = np.random.Generator(np.random.PCG64([options.seed, 1]))
    x = rng.standard_normal((count, len(signal)))
    words = f"row {row + 1} of {dataset.name} from {count} Gaussian measurements (seed {options.seed})"
    measured = Dataset(words, x, (x @ signal) ** 2, source=f"{dataset.source}; {words}", task="regression")
    as_it_is = Preprocessing(tuple(range(len(signal))), center=False, scale="none", unit_norm=False, bias=0.0)
    family = PhaseRetrieval(1.0 if options.init_scale is None else options.init_scale, options.seed)
    initial = family.start(measured.raw, measured.targets)
    sign = 1.0 if initial[0] @ signal >= 0 else -1.0
    note = (
        f"The rows are {count} standard normal vectors x, the targets <x, z>^2 for the signal z: the preprocessed row {row + 1} of "
        f"{dataset.name} (norm {np.linalg.norm(signal):.6g}). Only z up to its sign can be recovered; the sign of the start decides which."
    )
    return Pieces(measured, as_it_is, as_it_is.apply(x), family, initial, sign * signal[None], (note,))


def _moment_parameters(pieces: Pieces) -> dict[str, float]:
    """``c`` and ``tau`` of the certified bound: least squares for c, a grid for tau; any values are valid."""
    x, v, n = pieces.x, pieces.comparator[0], len(pieces.x)
    a, square = x @ v, float(v @ v)
    radius = float(np.linalg.norm(pieces.initial - v))
    c = 3 * float(np.mean(a * a * np.sum(x * x, axis=1))) / (square * (len(v) + 2))
    second = (x * (a * a)[:, None]).T @ x / n

    def secant_constant(tau: float) -> float:
        alpha = float(np.linalg.eigvalsh(second - tau * np.outer(v, v))[0])
        return 2 * alpha - max(9 * c * c / (8 * tau) - 1, 0) * radius**2

    return {"tau": max(np.linspace(0.2, 3.0, 15).tolist(), key=secant_constant), "c": c}


def plan_linear_network(dataset: Dataset, options: Options) -> Plan:
    """A two-layer linear network on the squared loss, from hidden weights zero and a large second layer."""
    preprocessing = options.preprocessing or default_preprocessing(dataset)
    x, y = preprocessing.apply(dataset.raw), dataset.targets
    low = lambda_min_lower(x)
    if not low > 0:
        raise InvalidInputError(
            "data", dataset.name, "rows whose second moments are certainly not singular",
            "Use more rows than features, drop features that depend on others, or take --problem rank-one.",
        )  # fmt: skip
    theta = np.linalg.lstsq(x, y, rcond=None)[0]
    gap = float(np.mean(y**2) - np.mean((x @ theta - y) ** 2)) / 2 * (1 + 1e-9) + 1e-15
    if options.width is not None and options.width > MOST_NUMBERS // x.shape[1]:
        raise InvalidInputError(
            "width", options.width, f"at most {MOST_NUMBERS // x.shape[1]:,} for {x.shape[1]} features", "Try --width 16."
        )  # fmt: skip
    base = LinearNetwork(1.0, options.seed, 16 if options.width is None else options.width)
    unit = float(np.linalg.norm(base.initial(x.shape[1])[:, -1]))
    needed = 8 * gap / low
    if options.init_scale is None:
        scale = (needed / (SHARE * (1 - SHARE)) ** 2) ** 0.25 / unit
    else:
        scale = options.init_scale
    family = replace(base, init_scale=scale)
    size = scale * unit
    # The smallest share b of the second layer with (b (1 - b))^2 size^4 >= needed.
    product = math.sqrt(needed) / size**2 * (1 + 1e-6)
    if not product < 0.25:
        least = 2 * needed**0.25 / unit
        raise InvalidInputError(
            "init_scale", scale, f"more than {least:.4g}: no ball around the start is large enough below that",
            "Leave --init-scale out.",
        )  # fmt: skip
    radius = (1 - math.sqrt(1 - 4 * product)) / 2 * size
    initial = family.start(x, y)
    a = initial[:, -1]
    v = np.column_stack([np.outer(a, theta) / (a @ a), a])
    pieces = Pieces(dataset, preprocessing, x, family, initial, v)
    params: dict[str, Any] = {"T": options.steps or 20_000, "eta": 1e-300, "radius": radius}
    try:
        # The first call is for L, which does not depend on the step.
        params["eta"] = (1 - 1e-9) / linear_network.derive("PLnet", *pieces.given, params)["L"]
        derived = linear_network.derive("PLnet", *pieces.given, params)
    except CheckError as error:
        raise InvalidInputError(
            "init_scale", scale, "a start with a certified ball", error.message
        ) from error
    return pieces.plan("PLnet", params, derived)


PLANNERS: dict[str, Callable[[Dataset, Options], Plan]] = {
    "rank-one": plan_rank_one,
    "phase-retrieval": plan_phase_retrieval,
    "linear-network": plan_linear_network,
}
