"""What the planners of the dense families share: which promises are tried, the facts and notes printed beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.decimals import show

from ...core.errors import InvalidInputError
from ...core.guarantee import Alternative
from ...families.dense_family import DenseFamily
from ...families.tangent_kernels import layerwise
from ...families.tangent_margin import least_eigenvalue, tangent_margin
from ..plan_types import Plan
from . import few_errors, small_loss
from .directions import Setting
from .promise import Promise

if TYPE_CHECKING:
    from ...data import Dataset, Preprocessing

MOST_STEPS = 3000
LAYERS = ("all", "last")
METHODS = ("normalised-gd", "gd", "gd-slope")
SECONDS, SECONDS_SEVERAL = 15.0, 40.0
"""Time for which steps are planned by default, at the rate below; for several classes and numeric targets."""
FLOPS = 8e9


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    method: str | None
    steps: int | None
    layers: str
    budget: float | None
    progress: bool

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in METHODS:
            raise InvalidInputError(
                "method",
                self.method,
                "normalised-gd (T8: errors), gd (T4: loss) or gd-slope (T1: slope, by proxy PL)",
            )
        if self.layers not in LAYERS:
            raise InvalidInputError("layers", self.layers, "'all' or 'last'")
        if self.steps is not None and (
            isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1
        ):
            raise InvalidInputError("steps", self.steps, "a whole number >= 1")

    def most(self, rows: int, parameters: int, longer: bool) -> int:
        """Steps that fit the time, from the number of floating-point operations (never from a clock: plans repeat)."""
        seconds = (SECONDS_SEVERAL if longer else SECONDS) if self.budget is None else self.budget / 2
        return int(np.clip(seconds * FLOPS / (8.0 * rows * parameters), 50, MOST_STEPS)) // 10 * 10


def conditional_plan(
    dataset: Dataset,
    preprocessing: Preprocessing,
    x: Float[np.ndarray, "n d"],
    family: DenseFamily,
    wish: Wish,
    opt: float | None = None,
) -> Plan:
    """Make the promises the wish allows and keep the best: the smallest error, then the smallest bound.

    Args:
        dataset: rows and targets.
        preprocessing: as recorded.
        x: features, shape (n, d).
        family: network and loss.
        wish: what the user asked for.
        opt: loss of a teacher on the labels, or None.
    """
    network = family.network
    only = (len(network.hidden) - 1,) if wish.layers == "last" else None
    setting = Setting(network, family.loss, x, dataset.targets, only)
    most = wish.most(len(x), network.size(x.shape[1]), family.loss != "logistic")
    made = _promises(setting, wish, most, opt)
    best = min(
        made,
        key=lambda p: (
            p.guarantee.error_bound if p.guarantee.error_bound is not None else 1.0,
            p.guarantee.bound,
        ),
    )
    facts, notes = _facts(setting)
    g = best.guarantee
    return Plan(
        dataset=dataset,
        preprocessing=preprocessing,
        features=x,
        family=family,
        initial=setting.start,
        comparator=best.comparator,
        certificate_comparator=best.comparator,
        method=g.method,
        guarantee=g,
        derived={
            **best.derived,
            "bound": g.bound,
            **({} if g.error_bound is None else {"error_bound": g.error_bound}),
            **facts,
        },
        theorem_params={},
        proxy=best.proxy,
        alternatives=_alternatives(best, made),
        seed=network.seed,
        notes=(*notes, *_vacuous(setting, best, most), CONDITIONAL),
        consequence=best.consequence,
    )


CONDITIONAL = (
    "Before training this is an implication: what it assumes about the run is not known yet. The audit measures it at every step; where "
    "it held, the conclusion is a statement about that run only."
)


def _promises(setting: Setting, wish: Wish, most: int, opt: float | None) -> list[Promise]:
    made: list[Promise] = []
    steps = wish.steps or most
    if wish.method in (None, "normalised-gd") and setting.loss != "squared":
        try:
            made.append(few_errors.few_errors(setting, wish.steps, most))
        except InvalidInputError:
            if wish.method is not None:
                raise
    elif wish.method == "normalised-gd":
        raise InvalidInputError(
            "method", wish.method, "gd for numeric targets", "T8 counts classification errors."
        )
    if wish.method == "gd" or (wish.method is None and not (made and made[0].guarantee.bound < 0.02)):
        made.append(small_loss.small_loss(setting, steps, opt))
    if wish.method == "gd-slope":
        if setting.loss != "logistic":
            raise InvalidInputError(
                "method",
                wish.method,
                "gd or normalised-gd for this data",
                "Proxy PL here is for two classes.",
            )
        margin = tangent_margin(setting.kernel, setting.y)
        words = "the last hidden layer" if wish.layers == "last" else "all hidden layers"
        made.append(small_loss.small_slope(setting, margin, steps, words))
    return made


def _facts(setting: Setting) -> tuple[dict[str, float], tuple[str, ...]]:
    """Tangent margins (two classes) or the least eigenvalue of the kernel (numeric targets) at w0."""
    kernel = layerwise(setting.features) if setting.network.outputs == 1 else None
    p = setting.network.size(setting.x.shape[1])
    if setting.loss == "logistic" and kernel is not None:
        last = layerwise(setting.features, only=[len(setting.network.hidden) - 1])
        gammas = [tangent_margin(k, setting.y).gamma for k in (kernel, last)]
        words = " and ".join(
            f"{g:.4g} {where}" if g > 0 else f"not found positive {where}"
            for g, where in zip(gammas, ("in all hidden layers", "in the last one"), strict=True)
        )
        return (
            {"tangent_margin_all": gammas[0], "tangent_margin_last": gammas[1]},
            (f"Tangent margin at w_0 ({p:,} parameters), certified for the kernel as computed: {words}; largest ||grad N|| "
             f"{setting.steepest():.4g}.",),
        )  # fmt: skip
    if setting.loss == "squared" and kernel is not None:
        floor, trivial = least_eigenvalue(kernel), float(np.var(setting.y) / 2)
        return (
            {"lambda_min": floor, "trivial_loss": trivial},
            (f"Least eigenvalue of the tangent kernel at w_0: at least {show(floor, lower=True, digits=4)} ({p:,} parameters). Predicting the mean has loss "
             f"{trivial:.4g}.",),
        )  # fmt: skip
    return {}, (f"{p:,} parameters.",)


def _vacuous(setting: Setting, promise: Promise, most: int) -> tuple[str, ...]:
    """What would make a promise say something, where it does not."""
    g = promise.guarantee
    trivial = float(np.var(setting.y) / 2) if setting.loss == "squared" else None
    if not g.vacuous:
        return ()
    size = promise.derived.get("R")
    fix = f"more steps (this plan has {g.method.steps:,}) or a larger width"
    if g.theorem == "T4" and size is not None:
        target, h, eta = (
            trivial if trivial is not None else 0.5 * float(np.log(2)),
            promise.derived["h"],
            promise.derived["eta"],
        )
        if target > h:
            fix = f"at least {int(np.ceil(size * size / (2 * eta * (target - h)))):,} steps with the same comparator"
    return (f"The promise is vacuous; what would make it say something: {fix}.",)


def _alternatives(best: Promise, made: list[Promise]) -> tuple[Alternative, ...]:
    rows = [
        Alternative(
            p.guarantee.theorem,
            True,
            "conditional: " + p.consequence,
            p.guarantee.bound,
            p.guarantee.error_bound,
        )
        for p in sorted(made, key=lambda p: p is not best)
    ]
    named = {r.theorem for r in rows}
    why = {
        "T8": "not planned; ask for method normalised-gd (classification)",
        "T4": "not planned; ask for method gd",
        "T1": "not planned; ask for method gd-slope (two classes)",
    }
    rows += [Alternative(k, False, v) for k, v in why.items() if k not in named]
    rows.append(
        Alternative(
            "T6", False, "full-batch descent sees every row at every step; it says nothing about unseen rows"
        )
    )
    return tuple(rows)
