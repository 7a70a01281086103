"""Planning for the family `classical`: the comparator and the better of convexity and PL (`proxyconvex_checker.classical`).

The non-convex problems are in `plan_classical_nonconvex`. For linear models the step is ``1/L``. The comparator minimises ``f(v) + ||w_0 - v||^2 / (2 eta T)``: ridge regression, or L2-regularised
logistic regression by Newton's method.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker import classical as checker

from ..core.errors import InvalidInputError
from ..core.guarantee import Alternative
from ..core.methods import ConstantStep, GradientDescent
from ..data import Dataset, Preprocessing, default_preprocessing
from ..families.classical import LinearModel
from .plan_classical_nonconvex import PLANNERS, Options
from .plan_types import Plan
from .promise import certified_plan


def ridge(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], start: Float[np.ndarray, " d"], weight: float
) -> Float[np.ndarray, " d"]:
    """Minimiser of ``||X v - y||^2 / (2n) + (weight/2) ||v - w_0||^2``."""
    c = x.T @ x / len(x) + weight * np.eye(x.shape[1])
    return start + np.linalg.solve(c, x.T @ (y - x @ start) / len(x))


def regularised_logistic(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], start: Float[np.ndarray, " d"], weight: float
) -> Float[np.ndarray, " d"]:
    """Minimiser of ``mean log(1 + exp(-y <v, x>)) + (weight/2) ||v - w_0||^2``, by damped Newton steps."""
    v = start.copy()

    def value(u: np.ndarray) -> float:
        return float(np.logaddexp(0.0, -y * (x @ u)).mean()) + weight / 2 * float((u - start) @ (u - start))

    for _ in range(200):
        p = 1 / (1 + np.exp(np.clip(y * (x @ v), -700, 700)))
        gradient = -x.T @ (p * y) / len(x) + weight * (v - start)
        hessian = (x * (p * (1 - p))[:, None]).T @ x / len(x) + weight * np.eye(len(v))
        step, size, now = np.linalg.solve(hessian, gradient), 1.0, value(v)
        while value(v - size * step) > now - 1e-4 * size * float(gradient @ step) and size > 1e-12:
            size /= 2
        if size <= 1e-12 or float(gradient @ step) < 1e-15 * (1 + now):
            break
        v = v - size * step
    return v


def plan_classical(
    dataset: Dataset,
    *,
    problem: str | None = None,
    method: str = "gd",
    steps: int | None = None,
    width: int | None = None,
    measurements: int | None = None,
    init_scale: float | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    progress: bool = False,
) -> Plan:
    """State what gradient descent reaches on a classical problem.

    Args:
        dataset: rows and targets: numbers or two classes; for ``"rank-one"`` and ``"phase-retrieval"`` of any kind.
        problem: ``"rank-one"``, ``"phase-retrieval"`` or ``"linear-network"``; by default least squares on numbers and logistic
            regression on two classes.
        method: ``"gd"`` (full batch).
        steps: number of steps T; 20,000 for linear models and networks, else what leaves a millionth of the baseline.
        width: hidden units of a linear network, 16 by default.
        measurements: number of Gaussian measurements of phase retrieval, 200 per entry of the signal by default (more if needed).
        init_scale: standard deviation of the initial weights (linear models: 0 by default; the second layer of a network), or the
            factor on a spectral start (rank one: 0.5, phase retrieval: 1).
        seed: of the initial weights; for phase retrieval also of the measurements and the row that is the signal.
        preprocessing: the default one unless given.
        progress: accepted for uniformity.

    Returns:
        The plan; its numbers are those of the independent checker.

    Raises:
        InvalidInputError: for an argument out of range or data that cannot be used.
    """
    del progress
    if method != "gd":
        raise InvalidInputError(
            "method", method, "gd", "The classical rates here are those of full-batch descent."
        )
    for name, value in (("steps", steps), ("width", width), ("measurements", measurements)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InvalidInputError(name, value, "a whole number >= 1", f"Pass e.g. --{name} 20000.")
    for name, value, owner in (
        ("width", width, "linear-network"),
        ("measurements", measurements, "phase-retrieval"),
    ):
        if value is not None and problem != owner:
            raise InvalidInputError(name, value, f"nothing, except for --problem {owner}")
    if problem is not None:
        options = Options(steps, width, measurements, init_scale, seed, preprocessing)
        return PLANNERS[problem](dataset, options)
    return _linear(dataset, 20_000 if steps is None else steps, init_scale or 0.0, seed, preprocessing)


def _linear(
    dataset: Dataset, steps: int, init_scale: float, seed: int, preprocessing: Preprocessing | None
) -> Plan:
    """Least squares or logistic regression with a linear model."""
    logistic = dataset.task == "binary"
    family = LinearModel("logistic" if logistic else "squares", init_scale, seed)
    preprocessing = preprocessing or default_preprocessing(dataset)
    x, y = preprocessing.apply(dataset.raw), dataset.targets
    initial = family.initial(x.shape[1])
    smooth = float(np.linalg.eigvalsh(x.T @ x / len(x))[-1]) / (4 if logistic else 1)
    eta = (1 - 1e-9) / smooth
    weight = 1 / (eta * steps)
    params: dict[str, Any] = {"T": steps, "eta": eta}
    found = []
    if logistic:
        found.append(("CvxLogistic", regularised_logistic(x, y, initial[0], weight)))
    else:
        found.append(("CvxSquares", ridge(x, y, initial[0], weight)))
        found.append(("PLg", ridge(x, y, initial[0], 1e-13 * smooth)))
    activation = family.describe()["activation"]
    made = [(name, v, checker.derive(name, x, y, initial, activation, v[None], params)) for name, v in found]
    made.sort(key=lambda one: one[2]["bound"])
    (theorem, v, derived), others = made[0], made[1:]
    return certified_plan(
        dataset=dataset,
        preprocessing=preprocessing,
        features=x,
        family=family,
        initial=initial,
        comparator=v[None],
        method=GradientDescent(ConstantStep(eta), steps),
        theorem=theorem,
        params=params,
        derived=derived,
        alternatives=tuple(
            Alternative(
                name, True, f"applies; {theorem} promises less", numbers["bound"], numbers.get("error_bound")
            )
            for name, _, numbers in others
        ),
        seed=seed,
    )
