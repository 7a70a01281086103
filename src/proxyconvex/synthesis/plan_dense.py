"""Planners of the dense-network families: `tangent` (U), `deep-relu` (F5) and `three-layer` (F6).

Without certified bounds on a region the promises are conditional (`conditional`): the premises about the run are ASSUMED before
training and measured along it. With a smooth activation ``deep-relu`` can also certify them (`certified_dense`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..core.errors import InvalidInputError
from ..core.guarantee import Alternative
from ..families import deep_relu, losses, three_layer
from ..families.activations import Activation
from ..families.dense import DenseNetwork
from ..families.dense_family import DenseFamily
from ..families.tangent_family import TangentFamily
from ..families.tangent_kernels import layerwise
from ..families.tangent_margin import least_eigenvalue, tangent_margin
from . import conditional
from .conditional import Promise
from .plan_types import Plan
from .tangent_directions import Setting

if TYPE_CHECKING:
    from ..data import Dataset, Preprocessing

MOST_STEPS = 2000
LAYERS = ("all", "last")
METHODS = ("normalised-gd", "gd", "gd-slope")
SECONDS, SECONDS_SEVERAL = 15.0, 40.0
"""Time for which steps are planned by default, at the rate below; for several classes."""
FLOPS = 8e9


@dataclass(frozen=True)
class _Wish:
    """What the user asked for."""

    method: str | None
    steps: int | None
    layers: str
    budget: float | None
    progress: bool

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in METHODS:
            raise InvalidInputError(
                "method", self.method, "normalised-gd (T8: errors), gd (T4: loss) or gd-slope (T1: slope, by proxy PL)"
            )
        if self.layers not in LAYERS:
            raise InvalidInputError("layers", self.layers, "'all' or 'last'")
        if self.steps is not None and (isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1):
            raise InvalidInputError("steps", self.steps, "a whole number >= 1")

    def most(self, rows: int, parameters: int, outputs: int) -> int:
        """Steps that fit the time, from the number of floating-point operations (never from a clock: plans repeat)."""
        seconds = (SECONDS_SEVERAL if outputs > 1 else SECONDS) if self.budget is None else self.budget / 2
        return int(np.clip(seconds * FLOPS / (8.0 * rows * parameters), 50, MOST_STEPS)) // 10 * 10


def plan_tangent(
    dataset: Dataset,
    *,
    width: int | None = None,
    depth: int = 1,
    activation: str = "relu",
    slope: float = 0.0,
    beta: float | None = None,
    output_scale: float = 8.0,
    method: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    budget_seconds: float | None = None,
    progress: bool = False,
) -> Plan:
    """U on a dense network: a conditional promise from the tangent model at the initial weights.

    Args:
        dataset: two classes, several classes, or numeric targets.
        width: neurons per hidden layer, even; 256 by default.
        depth: hidden layers, all trained.
        activation: ``"relu"``, ``"leaky-relu"``, ``"softplus"`` or ``"smooth-leaky"``.
        slope: leak of the leaky activations.
        beta: sharpness of the smooth activations; 4 by default.
        output_scale: factor on the outputs, which start at zero (opposite pairs of neurons in the last hidden layer); larger is
            closer to the tangent model.
        method: ``"normalised-gd"`` (T8), ``"gd"`` (T4) or ``"gd-slope"`` (T1; two classes); by default the smallest error, or T4.
        steps: T; chosen by default.
        seed: of the initial weights.
        preprocessing: recorded preprocessing; `proxyconvex.data.default_preprocessing` by default.
        budget_seconds: time for training.
        progress: say on standard error what is being done.

    Returns:
        The plan.

    Raises:
        InvalidInputError: for options that cannot be used.
    """
    wish = _Wish(method, steps, "all", budget_seconds, progress)
    x, prepared = _features(dataset, preprocessing)
    network = DenseNetwork(
        (width or 256,) * _depth(depth), _outputs(dataset), _activation(activation, slope, beta), 2.0, "gaussian", float(output_scale),
        True, seed,
    )  # fmt: skip
    family = TangentFamily(network, losses.OF_TASK[dataset.task])
    return _plan(dataset, prepared, x, family, wish)


def plan_deep_relu(
    dataset: Dataset,
    *,
    width: int | None = None,
    depth: int | None = None,
    activation: str = "relu",
    slope: float = 0.0,
    beta: float | None = None,
    output_scale: float | None = None,
    layers: str = "all",
    method: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    budget_seconds: float | None = None,
    progress: bool = False,
) -> Plan:
    """F5: a deep ReLU network; conditional promises, or with a smooth activation a certified one.

    Args:
        dataset: two or several classes.
        width: neurons per hidden layer, even; 128 by default, 256 for several classes.
        depth: hidden layers, all trained; 3 by default, 2 for several classes.
        activation: ``"relu"`` (or ``"leaky-relu"``): conditional; ``"softplus"`` (or ``"smooth-leaky"``), two classes: certified on a
            ball, at the output scale from which the Hessian bound allows it.
        slope: leak of the leaky activations.
        beta: sharpness of the smooth activations; 4 by default.
        output_scale: factor on the outputs; 1 for the published network (two classes), the planner's choice for a certified promise,
            8 for several classes, which the paper does not treat: there the last layer starts in opposite pairs, outputs at zero.
        layers: ``"all"`` or ``"last"``: hidden layers in whose tangent features the comparator lies.
        method: ``"normalised-gd"`` (T8), ``"gd"`` (T4) or ``"gd-slope"`` (T1 by proxy PL, the published route; two classes).
        steps: T; chosen by default.
        seed: of the initial weights.
        preprocessing: recorded preprocessing.
        budget_seconds: time for training.
        progress: say on standard error what is being done.

    Returns:
        The plan.

    Raises:
        InvalidInputError: for options that cannot be used.
    """
    wish = _Wish(method, steps, layers, budget_seconds, progress)
    x, prepared = _features(dataset, preprocessing)
    phi, outputs = _activation(activation, slope, beta), _outputs(dataset)
    depth = depth if depth is not None else (2 if outputs > 1 else 3)
    width = width if width is not None else (256 if outputs > 1 else None)
    if phi.smooth and outputs == 1 and method in (None, "normalised-gd"):
        from .certified_dense import certified_plan

        return certified_plan(dataset, prepared, x, _width(width), _depth(depth), phi, output_scale, wish.steps, seed)
    several = outputs > 1
    scale = output_scale if output_scale is not None else (8.0 if several else 1.0)
    network = deep_relu.network(_width(width), _depth(depth), outputs, phi, float(scale), several, seed)
    return _plan(dataset, prepared, x, deep_relu.DeepReLU(network, losses.OF_TASK[dataset.task]), wish)


def plan_three_layer(
    dataset: Dataset,
    *,
    width: int | None = None,
    activation: str | None = None,
    slope: float = 0.0,
    beta: float | None = None,
    output_scale: float = 1.0,
    method: str = "gd",
    steps: int | None = None,
    opt: float | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    budget_seconds: float | None = None,
    progress: bool = False,
) -> Plan:
    """F6: a three-layer network with both hidden layers trained; the loss after T steps is at most OPT + eps, conditionally.

    Args:
        dataset: two classes, several classes, or numeric targets.
        width: neurons per hidden layer, even; 128 by default.
        activation: any of the four; ReLU by default for classes and softplus for numeric targets.
        slope: leak of the leaky activations.
        beta: sharpness of the smooth activations; 4 by default.
        output_scale: factor on the outputs.
        method: ``"gd"`` (T4), the only one of this result.
        steps: T; chosen by default.
        opt: loss of a teacher on these labels, to set the promise against (see `proxyconvex.families.three_layer.teacher`).
        seed: of the initial weights.
        preprocessing: recorded preprocessing.
        budget_seconds: time for training.
        progress: say on standard error what is being done.

    Returns:
        The plan.

    Raises:
        InvalidInputError: for options that cannot be used.
    """
    if method != "gd":
        raise InvalidInputError("method", method, "gd", "The promise of this family is about the loss of plain gradient descent.")
    wish = _Wish(method, steps, "all", budget_seconds, progress)
    x, prepared = _features(dataset, preprocessing)
    activation = activation or ("softplus" if dataset.task == "regression" else "relu")
    network = three_layer.network(
        _width(width), _outputs(dataset), _activation(activation, slope, beta), float(output_scale), False, seed
    )
    return _plan(dataset, prepared, x, three_layer.ThreeLayer(network, losses.OF_TASK[dataset.task]), wish, opt)


# --- parts ---------------------------------------------------------------------------------------------------------


def _width(width: int | None) -> int:
    return 128 if width is None else width


def _depth(depth: int) -> int:
    if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= 32:
        raise InvalidInputError("depth", depth, "a whole number of hidden layers from 1 to 32")
    return depth


def _outputs(dataset: Dataset) -> int:
    return dataset.classes if dataset.task == "multiclass" else 1


def _activation(name: str, slope: float, beta: float | None) -> Activation:
    return Activation(name, float(slope), 4.0 if beta is None else float(beta))


def _features(dataset: Dataset, preprocessing: Preprocessing | None) -> tuple[Float[np.ndarray, "n d"], Preprocessing]:
    if preprocessing is None:
        from ..data import default_preprocessing

        preprocessing = default_preprocessing(dataset)
    return preprocessing.apply(dataset.raw), preprocessing


def _plan(
    dataset: Dataset,
    preprocessing: Preprocessing,
    x: Float[np.ndarray, "n d"],
    family: DenseFamily,
    wish: _Wish,
    opt: float | None = None,
) -> Plan:
    network = family.network
    only = (len(network.hidden) - 1,) if wish.layers == "last" else None
    setting = Setting(network, family.loss, x, dataset.targets, only)
    most = wish.most(len(x), network.size(x.shape[1]), network.outputs)
    made = _promises(setting, wish, most, opt)
    best = min(made, key=lambda p: (p.guarantee.error_bound if p.guarantee.error_bound is not None else 1.0, p.guarantee.bound))
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
        derived={**best.derived, "bound": g.bound, **({} if g.error_bound is None else {"error_bound": g.error_bound}), **facts},
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


def _promises(setting: Setting, wish: _Wish, most: int, opt: float | None) -> list[Promise]:
    made: list[Promise] = []
    steps = wish.steps or most
    if wish.method in (None, "normalised-gd") and setting.loss != "squared":
        try:
            made.append(conditional.few_errors(setting, wish.steps, most))
        except InvalidInputError:
            if wish.method is not None:
                raise
    elif wish.method == "normalised-gd":
        raise InvalidInputError("method", wish.method, "gd for numeric targets", "T8 counts classification errors.")
    if wish.method == "gd" or (wish.method is None and not (made and made[0].guarantee.bound < 0.02)):
        made.append(conditional.small_loss(setting, steps, opt))
    if wish.method == "gd-slope":
        if setting.loss != "logistic":
            raise InvalidInputError("method", wish.method, "gd or normalised-gd for this data", "Proxy PL here is for two classes.")
        margin = tangent_margin(setting.kernel, setting.y)
        words = "the last hidden layer" if wish.layers == "last" else "all hidden layers"
        made.append(conditional.small_slope(setting, margin, steps, words))
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
            (f"Least eigenvalue of the tangent kernel at w_0: at least {floor:.4g} ({p:,} parameters). Predicting the mean has loss "
             f"{trivial:.4g}.",),
        )  # fmt: skip
    return {}, (f"{p:,} parameters.",)


def _vacuous(setting: Setting, promise: Promise, most: int) -> tuple[str, ...]:
    """What would make a promise say something, where it does not."""
    g = promise.guarantee
    trivial = float(np.var(setting.y) / 2) if setting.loss == "squared" else None
    if not g.vacuous:
        return ()
    size = promise.derived["R"] if "R" in promise.derived else None
    fix = f"more steps (this plan has {g.method.steps:,}) or a larger width"
    if g.theorem == "T4" and size is not None:
        target, h, eta = trivial if trivial is not None else 0.5 * float(np.log(2)), promise.derived["h"], promise.derived["eta"]
        if target > h:
            fix = f"at least {int(np.ceil(size * size / (2 * eta * (target - h)))):,} steps with the same comparator"
    return (f"The promise is vacuous; what would make it say something: {fix}.",)


def _alternatives(best: Promise, made: list[Promise]) -> tuple[Alternative, ...]:
    rows = [
        Alternative(p.guarantee.theorem, True, "conditional: " + p.consequence, p.guarantee.bound, p.guarantee.error_bound)
        for p in sorted(made, key=lambda p: p is not best)
    ]
    named = {r.theorem for r in rows}
    why = {
        "T8": "not planned; ask for method normalised-gd (classification)",
        "T4": "not planned; ask for method gd",
        "T1": "not planned; ask for method gd-slope (two classes)",
    }
    rows += [Alternative(k, False, v) for k, v in why.items() if k not in named]
    rows.append(Alternative("T6", False, "full-batch descent sees every row at every step; it says nothing about unseen rows"))
    return tuple(rows)


__all__: list[Any] = ["plan_deep_relu", "plan_tangent", "plan_three_layer"]
