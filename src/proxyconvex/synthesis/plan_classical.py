"""Planning for the family `classical`: the comparator and the better of convexity and PL (`proxyconvex_checker.classical`).

The step is ``1/L``. The comparator minimises ``f(v) + ||w_0 - v||^2 / (2 eta T)``: ridge regression, or L2-regularised
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
from .plan_types import Plan
from .promise import guarantee


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
    method: str = "gd",
    steps: int = 20_000,
    init_scale: float = 0.0,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    progress: bool = False,
) -> Plan:
    """State what gradient descent reaches with a linear model: least squares on numbers, logistic regression on two classes.

    Args:
        dataset: rows and targets: numbers or two classes.
        method: ``"gd"`` (full batch, step 1/L).
        steps: number of steps T.
        init_scale: standard deviation of the initial weights.
        seed: of the initial weights.
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
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInputError("steps", steps, "a whole number >= 1", "Pass e.g. --steps 20000.")
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
    gd = GradientDescent(ConstantStep(eta), steps)
    return Plan(
        dataset=dataset,
        preprocessing=preprocessing,
        features=x,
        family=family,
        initial=initial,
        comparator=v[None],
        certificate_comparator=v[None],
        method=gd,
        guarantee=guarantee(family.name, theorem, gd, params, derived, len(x)),
        derived=derived,
        theorem_params=params,
        alternatives=tuple(
            Alternative(
                name, True, f"applies; {theorem} promises less", numbers["bound"], numbers.get("error_bound")
            )
            for name, _, numbers in others
        ),
        seed=seed,
    )
