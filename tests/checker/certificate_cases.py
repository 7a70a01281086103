"""Plans small enough that a certificate is checked in milliseconds: a made-up family, and the real ones."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from proxyconvex.core.evidence import Evidence
from proxyconvex.core.methods import SGD, ConstantStep, GradientDescent, Method, NormalisedStep
from proxyconvex.families.activations import Activation
from proxyconvex.families.dense import DenseNetwork
from proxyconvex_checker import initial, preprocessing, rounding
from proxyconvex_checker.claims import table as claim_table
from proxyconvex_checker.claims.promise import Claim, Premise
from proxyconvex_checker.errors import CheckError
from proxyconvex_checker.families import FAMILIES, FamilyRules


def dataset(n: int = 12, d: int = 3) -> SimpleNamespace:
    """Two well separated classes, one constant column."""
    rng = np.random.default_rng(0)
    targets = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    raw = np.column_stack([rng.standard_normal((n, d)) + 3 * targets[:, None], np.full(n, 2.0)])
    digest = preprocessing.data_digest(raw, targets)
    return SimpleNamespace(name="two clouds", raw=raw, targets=targets, labels=("no", "yes"), digest=digest)


def settings(d: int = 3, **changes) -> SimpleNamespace:
    fields = dict(
        kept_columns=list(range(d)), center=True, scale="column", divide_by=1.0, unit_norm=True, bias=0.1
    )
    return SimpleNamespace(**(fields | changes))


# --- a family made up for these tests: every array and parameter enters its numbers ------------------------


def fake_derive(theorem, x, y, w0, activation, comparator, params):
    if theorem != "T0":
        raise CheckError("theorem", f"unknown theorem {theorem}")
    radius = float(rounding.norm_upper(comparator - w0))
    value, error = rounding.matmul_enclosure(x, (comparator - w0).sum(axis=0))
    margin = float((y * value - error).min()) * (1 + activation["beta"])
    if not margin > 0:
        raise CheckError("margin", f"the smallest margin is {margin}, not above 0")
    if not params["T"] * params["c"] * margin > radius**2:
        raise CheckError("steps", "T c q_min does not exceed R^2")
    bound = (params["k"] - 1) / len(y) + params["floor"]
    return {"R": radius, "q_min": margin, "k": float(params["k"]), "bound": bound, "error_bound": 2 * bound}


FAMILIES["made-up"] = FamilyRules(fake_derive, initial.paired_normal, lambda family, d: (family["width"], d))
claim_table.CLAIMS[("made-up", "T0", None)] = Claim(
    quantity="best-iterate-error",
    mode="every-run",
    methods=("normalised-gd",),
    promise="Within {T} iterates fewer than {k} of {n} rows are wrong: an error of at most {error_bound}.",
    premises=(
        Premise("margins", "Every margin is at least {q_min}.", "CERTIFIED", "proxyconvexNotes", "q_min"),
        Premise("distance", "The comparator is within {R}.", "PROVED", "proxyconvexNotes", "R"),
    ),
    references=("proxyconvexNotes",),
    integers=("T", "k"),
    reals=("c", "floor"),
    lower=("q_min",),
    exact=("k",),
)


def plan(
    family: dict[str, Any],
    theorem: str,
    method: Method,
    params: dict[str, Any],
    comparator: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    says: tuple[str, str, Evidence],
    prep: SimpleNamespace | None = None,
    data: SimpleNamespace | None = None,
) -> SimpleNamespace:
    """What `write_certificate` needs of a plan, with the numbers derived by the checker."""
    data, prep = data or dataset(), prep or settings()
    rules = FAMILIES[family["name"]]
    features = preprocessing.apply(data.raw, vars(prep))
    weights = rules.start(family, features, data.targets)
    v = comparator(features, data.targets, weights)
    return SimpleNamespace(
        dataset=data,
        preprocessing=prep,
        family=SimpleNamespace(
            describe=lambda: family, certificate_fields=lambda: family, certificate_obstacle=lambda: ""
        ),
        initial=weights,
        certificate_comparator=v,
        method=method,
        derived=rules.derive(
            theorem,
            features,
            data.targets,
            weights,
            family if rules.whole else family["activation"],
            v,
            params,
        ),
        theorem_params=params,
        seed=5,
        guarantee=SimpleNamespace(theorem=theorem, quantity=says[0], mode=says[1], evidence=says[2]),
    )


def architecture(
    name: str, width: int, activation: str, slope: float, beta: float, scale: float
) -> dict[str, Any]:
    return {
        "name": name,
        "width": width,
        "activation": {"name": activation, "slope": slope, "beta": beta},
        "init_scale": scale,
        "seed": 3,
    }


def made_up() -> SimpleNamespace:
    return plan(
        architecture("made-up", 6, "softplus", 0.0, 0.5, 1.5),
        "T0",
        GradientDescent(NormalisedStep(0.25, 0.01), 1000),
        {"T": 1000, "k": 2, "c": 0.25, "floor": 0.01},
        lambda x, y, w: w + y @ x,
        ("best-iterate-error", "every-run", Evidence.CERTIFIED),
    )


# --- two-layer networks ------------------------------------------------------------------------------------


def paired_direction(scale: float) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Move the neurons with positive output sign along ``mean y x``, the others against it."""

    def comparator(x, y, w):
        signs = np.repeat([1.0, -1.0], len(w) // 2)
        return w + scale * signs[:, None] * (y @ x / len(y))

    return comparator


def normalised_two_layer() -> SimpleNamespace:
    return plan(
        architecture("two-layer-ntk", 10, "softplus", 0.0, 0.02, 40.0),
        "T8",
        GradientDescent(NormalisedStep(3.0, 0.03), 400),
        {"T": 400, "k": 2, "c": 3.0, "floor": 0.03},
        paired_direction(8.0),
        ("best-iterate-error", "every-run", Evidence.CERTIFIED),
    )


def smooth_two_layer() -> SimpleNamespace:
    return plan(
        architecture("two-layer-ntk", 10, "smooth-leaky", 0.1, 0.02, 40.0),
        "T4T5",
        GradientDescent(ConstantStep(2.0), 500),
        {"T": 500, "eta": 2.0},
        paired_direction(4.0),
        ("final-loss", "every-run", Evidence.CERTIFIED),
    )


def homogeneous_two_layer() -> SimpleNamespace:
    return plan(
        architecture("two-layer-ntk", 10, "relu", 0.0, 1.0, 40.0),
        "T3T5",
        GradientDescent(ConstantStep(1.0), 500),
        {"T": 500, "eta": 1.0},
        paired_direction(4.0),
        ("best-loss", "every-run", Evidence.CERTIFIED),
    )


# --- leaky ReLU under label noise ------------------------------------------------------------------------------


def mean_direction(scale: float) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    return lambda x, y, w: scale * (y @ x / len(y))


def sampled_leaky() -> SimpleNamespace:
    return plan(
        architecture("leaky-relu-noise", 7, "leaky-relu", 0.5, 1.0, 0.5),
        "T3e",
        SGD(ConstantStep(0.5), 5000),
        {"T": 5000, "eta": 0.5, "kappa": 40.0},
        mean_direction(0.8),
        ("average-error", "expectation", Evidence.CERTIFIED),
    )


def cyclic_leaky() -> SimpleNamespace:
    return plan(
        architecture("leaky-relu-noise", 7, "smooth-leaky", 0.5, 20.0, 0.5),
        "T3e",
        SGD(ConstantStep(0.5), 6000, sampling="cyclic"),
        {"T": 6000, "eta": 0.5, "kappa": 40.0},
        mean_direction(0.8),
        ("online-error", "every-run", Evidence.CERTIFIED),
    )


def one_pass_leaky() -> SimpleNamespace:
    eta = 2.0**20
    return plan(
        architecture("leaky-relu-noise", 7, "leaky-relu", 0.5, 1.0, 0.5),
        "T6e",
        SGD(ConstantStep(eta), 12, sampling="one-pass"),
        {"T": 12, "eta": eta, "kappa": 2.0**22, "u0": 1.0, "delta": 0.25},
        mean_direction(0.8),
        ("population-error", "probability", Evidence.ASSUMED),
        settings(4, center=False, scale="none"),
    )


def full_batch_leaky() -> SimpleNamespace:
    return plan(
        architecture("leaky-relu-noise", 7, "leaky-relu", 0.5, 1.0, 0.5),
        "T3f",
        GradientDescent(ConstantStep(1.0), 400),
        {"T": 400, "eta": 1.0, "kappa": 40.0},
        mean_direction(0.8),
        ("average-error", "every-run", Evidence.CERTIFIED),
    )


def normalised_leaky() -> SimpleNamespace:
    return plan(
        architecture("leaky-relu-noise", 7, "leaky-relu", 0.5, 1.0, 0.5),
        "T8",
        GradientDescent(NormalisedStep(2.0, 0.03), 5000),
        {"T": 5000, "k": 2, "c": 2.0, "floor": 0.03, "kappa": 10.0},
        mean_direction(0.8),
        ("best-iterate-error", "every-run", Evidence.CERTIFIED),
    )


def smooth_leaky() -> SimpleNamespace:
    return plan(
        architecture("leaky-relu-noise", 7, "smooth-leaky", 0.5, 2.0, 0.5),
        "T1",
        GradientDescent(ConstantStep(1.0), 20_000),
        {"T": 20_000, "eta": 1.0},
        mean_direction(0.8),
        ("best-slope", "every-run", Evidence.CERTIFIED),
    )


def average_slope_leaky() -> SimpleNamespace:
    return plan(
        architecture("leaky-relu-noise", 7, "leaky-relu", 0.5, 1.0, 0.5),
        "T3",
        GradientDescent(ConstantStep(1.0), 20_000),
        {"T": 20_000, "eta": 1.0, "kappa": 40.0},
        mean_direction(0.8),
        ("average-slope", "every-run", Evidence.CERTIFIED),
    )


# --- leaky ReLU on the hinge loss --------------------------------------------------------------------------------


def counted_updates() -> SimpleNamespace:
    return plan(
        architecture("leaky-relu-hinge", 7, "leaky-relu", 0.5, 1.0, 0.5),
        "T3m",
        SGD(ConstantStep(20.0), 12 * 60, sampling="cyclic"),
        {"T": 12 * 60, "eta": 20.0, "kappa": 40.0, "passes": 55},
        mean_direction(1.5),
        ("updates", "every-run", Evidence.CERTIFIED),
    )


def counted_updates_any_order() -> SimpleNamespace:
    return plan(
        architecture("leaky-relu-hinge", 7, "leaky-relu", 0.5, 1.0, 0.5),
        "T3m",
        SGD(ConstantStep(20.0), 50),
        {"T": 50, "eta": 20.0, "kappa": 40.0},
        mean_direction(1.5),
        ("updates", "every-run", Evidence.CERTIFIED),
    )


def share_of_updates(sampling: str) -> Callable[[], SimpleNamespace]:
    quantity, mode = (
        ("average-error", "expectation") if sampling == "with-replacement" else ("online-error", "every-run")
    )
    return lambda: plan(
        architecture("leaky-relu-hinge", 7, "leaky-relu", 0.5, 1.0, 0.5),
        "T3u",
        SGD(ConstantStep(5.0), 1200, sampling=sampling),
        {"T": 1200, "eta": 5.0, "kappa": 40.0},
        mean_direction(1.2),
        (quantity, mode, Evidence.CERTIFIED),
    )


# --- a single neuron -----------------------------------------------------------------------------------------------


def numeric(n: int = 12, d: int = 3) -> SimpleNamespace:
    """Targets in [0, 1] that depend on the rows and on noise."""
    rng = np.random.default_rng(1)
    raw = np.column_stack([rng.standard_normal((n, d)), np.full(n, 2.0)])
    targets = 1 / (1 + np.exp(-raw @ np.array([1.0, -0.5, 0.2, 0.1]))) + 0.05 * rng.standard_normal(n)
    digest = preprocessing.data_digest(raw, targets)
    return SimpleNamespace(name="numbers", raw=raw, targets=targets, labels=(), digest=digest)


def neuron(
    activation: str, slope: float, data: Callable[[], SimpleNamespace]
) -> Callable[[], SimpleNamespace]:
    def fit(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(x, y, rcond=None)[0][None]

    return lambda: plan(
        architecture("single-neuron", 1, activation, slope, 1.0, 0.1),
        "T3r",
        GradientDescent(ConstantStep(0.25), 2000),
        {"T": 2000, "eta": 0.25, "alpha": 0.2},
        fit,
        ("best-risk", "every-run", Evidence.CERTIFIED),
        data=data(),
    )


# --- linear models ---------------------------------------------------------------------------------------------


def linear(
    theorem: str, quantity: str, data: Callable[[], SimpleNamespace], steps: int
) -> Callable[[], SimpleNamespace]:
    return lambda: plan(
        architecture("classical", 1, "leaky-relu", 1.0, 1.0, 0.1),
        theorem,
        GradientDescent(ConstantStep(0.75), steps),
        {"T": steps, "eta": 0.75},
        lambda x, y, w: np.linalg.lstsq(x, y, rcond=None)[0][None],
        (quantity, "every-run", Evidence.CERTIFIED),
        data=data(),
    )


# --- non-convex classical problems -----------------------------------------------------------------------------


def unlabelled() -> SimpleNamespace:
    return SimpleNamespace(**{**vars(dataset()), "labels": ()})


def leading(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    v = np.sqrt(values[-1]) * vectors[:, -1]
    return np.ascontiguousarray((v if v @ w[0] > 0 else -v)[None])


def factorisation() -> SimpleNamespace:
    return plan(
        architecture("rank-one", 1, "leaky-relu", 1.0, 1.0, 0.5),
        "RSIrank",
        GradientDescent(ConstantStep(0.25), 200),
        {"T": 200, "eta": 0.25, "tau": 0.0625},
        leading,
        ("final-loss", "every-run", Evidence.CERTIFIED),
        data=unlabelled(),
    )


def intensities() -> SimpleNamespace:
    """The squares of 600 Gaussian measurements of a vector in the plane."""
    z, raw = np.array([0.75, -0.5]), np.random.default_rng(2).standard_normal((600, 2))
    targets = (raw @ z) ** 2
    digest = preprocessing.data_digest(raw, targets)
    return plan(
        architecture("phase-retrieval", 1, "leaky-relu", 1.0, 1.0, 1.0),
        "RSIphase",
        GradientDescent(ConstantStep(0.0625), 100),
        {"T": 100, "eta": 0.0625, "tau": 1.5, "c": 3.0},
        lambda x, y, w: (z if z @ w[0] > 0 else -z)[None],
        ("final-loss", "every-run", Evidence.CERTIFIED),
        settings(2, center=False, scale="none", unit_norm=False, bias=0.0),
        SimpleNamespace(name="intensities", raw=raw, targets=targets, labels=(), digest=digest),
    )


def linear_layers() -> SimpleNamespace:
    def fit(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
        a = w[:, -1]
        return np.column_stack([np.outer(a, np.linalg.lstsq(x, y, rcond=None)[0]) / (a @ a), a])

    return plan(
        architecture("linear-network", 3, "leaky-relu", 1.0, 1.0, 64.0),
        "PLnet",
        GradientDescent(ConstantStep(2.0**-15), 300),
        {"T": 300, "eta": 2.0**-15, "radius": 8.0},
        fit,
        ("final-risk", "every-run", Evidence.CERTIFIED),
        data=numeric(),
    )


# --- dense networks of any depth -----------------------------------------------------------------------------------


def dense(
    name: str,
    theorem: str,
    head: str,
    activation: Activation,
    hidden: tuple[int, ...],
    method: Method,
    params: dict[str, Any],
    length: float,
) -> Callable[[], SimpleNamespace]:
    """The comparator is ``length`` away, along the mean of ``y grad N``."""
    network = DenseNetwork(hidden, 1, activation, 2.0, head, 1e5, True, 3)
    family = {
        "name": name,
        "hidden": list(hidden),
        "activation": activation.describe(),
        "gain": 2.0,
        "head": head,
        "output_scale": 1e5,
        "paired": True,
        "seed": 3,
    }

    def comparator(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
        direction = network.features(w, x).combine(y[:, None] / len(y))
        return w + length * direction / np.linalg.norm(direction)

    quantity = "best-iterate-error" if theorem == "T8" else "final-loss"
    return lambda: plan(
        family, theorem, method, params, comparator, (quantity, "every-run", Evidence.CERTIFIED)
    )


SOFT, LEAK = Activation("softplus", 0.0, 1.0), Activation("smooth-leaky", 0.25, 2.0)
T8_DENSE = {"T": 400, "k": 2, "c": 6e-11, "floor": 0.03}
T4_DENSE = {"T": 500, "eta": 4e-10, "rho": 6e-4}


CASES: dict[str, Callable[[], SimpleNamespace]] = {
    "made-up": made_up,
    "two-layer-T8": normalised_two_layer,
    "two-layer-T4T5": smooth_two_layer,
    "two-layer-T3T5": homogeneous_two_layer,
    "leaky-T3e": sampled_leaky,
    "leaky-T3e-cyclic": cyclic_leaky,
    "leaky-T3f": full_batch_leaky,
    "leaky-T6e": one_pass_leaky,
    "leaky-T8": normalised_leaky,
    "leaky-T1": smooth_leaky,
    "leaky-T3": average_slope_leaky,
    "linear-CvxSquares": linear("CvxSquares", "final-risk", numeric, 300),
    "linear-CvxLogistic": linear("CvxLogistic", "final-loss", dataset, 300),
    "linear-PLg": linear("PLg", "final-risk", numeric, 300),
    "rank-one-RSIrank": factorisation,
    "phase-RSIphase": intensities,
    "network-PLnet": linear_layers,
    "hinge-T3m": counted_updates,
    "hinge-T3m-any-order": counted_updates_any_order,
    "hinge-T3u": share_of_updates("with-replacement"),
    "hinge-T3u-cyclic": share_of_updates("cyclic"),
    "neuron-T3r-sigmoid": neuron("sigmoid", 0.0, numeric),
    "neuron-T3r-leaky": neuron("leaky-relu", 0.5, numeric),
    "neuron-T3r-tanh": neuron("tanh", 0.0, dataset),
    "deep-T8": dense(
        "deep-relu",
        "T8",
        "signs",
        SOFT,
        (6, 5, 6),
        GradientDescent(NormalisedStep(6e-11, 0.03), 400),
        T8_DENSE,
        1e-4,
    ),
    "tangent-T8": dense(
        "tangent",
        "T8",
        "gaussian",
        LEAK,
        (6,),
        GradientDescent(NormalisedStep(6e-11, 0.03), 400),
        T8_DENSE,
        1e-4,
    ),
    "three-layer-T4T5": dense(
        "three-layer",
        "T4T5",
        "gaussian",
        SOFT,
        (6, 4),
        GradientDescent(ConstantStep(4e-10), 500),
        T4_DENSE,
        3e-4,
    ),
}
