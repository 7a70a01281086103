"""Planners of the dense-network families: `tangent` (U), `deep-relu` (F5) and `three-layer` (F6).

Without certified bounds on a region the promises are conditional (`few_errors`, `small_loss`): the premises about the run are ASSUMED before
training and measured along it. With a smooth activation ``deep-relu`` can also certify them (`certified`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ...core.errors import InvalidInputError
from ...families import deep_relu, losses, three_layer
from ...families.activations import Activation
from ...families.dense import DenseNetwork
from ...families.dense_family import DenseFamily
from ...families.tangent_family import TangentFamily
from ..plan_types import Plan
from .choose import best_promise
from .parts import Wish, conditional_plan

if TYPE_CHECKING:
    from ...data import Dataset, Preprocessing


def plan_tangent(
    dataset: Dataset,
    *,
    width: int | None = None,
    depth: int = 1,
    activation: str = "relu",
    slope: float = 0.0,
    beta: float | None = None,
    output_scale: float | None = None,
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
        width: neurons per hidden layer, even; by default 256, or 512 where that promises fewer errors.
        depth: hidden layers, all trained.
        activation: ``"relu"``, ``"leaky-relu"``, ``"softplus"`` or ``"smooth-leaky"``.
        slope: leak of the leaky activations.
        beta: sharpness of the smooth activations; 4 by default.
        output_scale: factor on the outputs, which start at zero (opposite pairs of neurons in the last hidden layer); larger is
            closer to the tangent model. 8 by default for ``"normalised-gd"``, else the planner compares 8, 32 and 128.
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
    wish = Wish(method, steps, "all", budget_seconds, progress)
    x, prepared = _features(dataset, preprocessing)
    phi = _activation(activation, slope, beta)

    if _certifiable(phi, dataset, method):
        network = DenseNetwork((width or 256,) * _depth(depth), 1, phi, 2.0, "gaussian", 1.0, True, seed)
        return _certified(
            dataset, prepared, x, TangentFamily(network, "logistic"), method, output_scale, wish.steps
        )

    def at(neurons: int, scale: float) -> Plan:
        network = DenseNetwork(
            (neurons,) * _depth(depth), _outputs(dataset), phi, 2.0, "gaussian", scale, True, seed
        )
        return conditional_plan(
            dataset, prepared, x, TangentFamily(network, losses.OF_TASK[dataset.task]), wish
        )

    errors = _counts_errors(dataset, method)
    widths = (width,) if width is not None else (256, 512) if errors else (256,)
    scales = (
        (float(output_scale),)
        if output_scale is not None
        else (8.0,)
        if errors
        else _scales(dataset, SCALES[1:])
    )
    named = [(f"width {m}, scale {s:g}", lambda m=m, s=s: at(m, s)) for m in widths for s in scales]
    return _with_outlook(best_promise(named, "neurons per hidden layer, output scale"))


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
        width: neurons per hidden layer, even; by default the planner compares 128 and 256.
        depth: hidden layers, all trained; by default the planner compares 3, 2 and 1, deeper first among equals (3 for methods other
            than ``"normalised-gd"``, 2 for several classes, and 2 where a promise is certified).
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
    wish = Wish(method, steps, layers, budget_seconds, progress)
    x, prepared = _features(dataset, preprocessing)
    phi, outputs = _activation(activation, slope, beta), _outputs(dataset)
    several = outputs > 1
    if _certifiable(phi, dataset, method):
        network = deep_relu.network(
            _width(width), _depth(2 if depth is None else depth), 1, phi, 1.0, True, seed
        )
        return _certified(
            dataset, prepared, x, deep_relu.DeepReLU(network, "logistic"), method, output_scale, wish.steps
        )
    scale = output_scale if output_scale is not None else (8.0 if several else 1.0)

    def at(layer_count: int, neurons: int) -> Plan:
        network = deep_relu.network(
            _width(neurons), _depth(layer_count), outputs, phi, float(scale), several, seed
        )
        family = deep_relu.DeepReLU(network, losses.OF_TASK[dataset.task])
        return conditional_plan(dataset, prepared, x, family, wish)

    shapes = [
        (
            3 if depth is None and not several else 2 if depth is None else depth,
            128 if width is None else width,
        )
    ]
    if _counts_errors(dataset, method):
        shapes = [(d if depth is None else depth, m if width is None else width) for d, m in SHAPES]
    named = [(f"{d} x {m}", lambda d=d, m=m: at(d, m)) for d, m in dict.fromkeys(shapes)]
    return _with_outlook(best_promise(named, "hidden layers x width"))


def plan_three_layer(
    dataset: Dataset,
    *,
    width: int | None = None,
    activation: str | None = None,
    slope: float = 0.0,
    beta: float | None = None,
    output_scale: float | None = None,
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
        output_scale: factor on the outputs. 1 is the published network; larger ones start in opposite pairs (outputs at zero) and stay
            closer to their tangent model. By default the planner compares 1, 8, 32 and 128 (only 32 from
            10,000 rows times outputs on).
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
        raise InvalidInputError(
            "method", method, "gd", "The promise of this family is about the loss of plain gradient descent."
        )
    wish = Wish(method, steps, "all", budget_seconds, progress)
    x, prepared = _features(dataset, preprocessing)
    activation = activation or ("softplus" if dataset.task == "regression" else "relu")
    phi = _activation(activation, slope, beta)

    if _certifiable(phi, dataset, method):
        network = three_layer.network(_width(width), 1, phi, 1.0, True, seed)
        family = three_layer.ThreeLayer(network, "logistic")
        return _certified(
            dataset, prepared, x, family, method, output_scale, wish.steps, choose_beta=beta is None
        )

    def at(scale: float) -> Plan:
        network = three_layer.network(_width(width), _outputs(dataset), phi, scale, scale > 1, seed)
        family = three_layer.ThreeLayer(network, losses.OF_TASK[dataset.task])
        return conditional_plan(dataset, prepared, x, family, wish, opt)

    scales = _scales(dataset, SCALES) if output_scale is None else (float(output_scale),)
    named = [(f"{s:g}", lambda s=s: at(s)) for s in scales]
    return _with_outlook(best_promise(named, "output scale; 1 is the published network"))


SCALES = (1.0, 8.0, 32.0, 128.0)
LARGE, SCALE_OF_LARGE = 10_000, 32.0
"""Rows times outputs from which on one output scale is planned and none compared: each takes half a minute."""


def _scales(dataset: Dataset, all_of_them: tuple[float, ...]) -> tuple[float, ...]:
    large = len(dataset.targets) * _outputs(dataset) >= LARGE
    return (SCALE_OF_LARGE,) if large else all_of_them


SHAPES = ((3, 128), (2, 128), (2, 256), (1, 256))
"""Hidden layers and width that are compared, the preferred ones first."""


def _counts_errors(dataset: Dataset, method: str | None) -> bool:
    return dataset.task != "regression" and method in (None, "normalised-gd")


def _certifiable(phi: Activation, dataset: Dataset, method: str | None) -> bool:
    """Smooth activation, one output with margins, and a theorem that speaks of a ball."""
    return phi.smooth and dataset.task == "binary" and method in (None, "normalised-gd", "gd")


def _certified(
    dataset: Dataset,
    prepared: Preprocessing,
    x: np.ndarray,
    family: DenseFamily,
    method: str | None,
    output_scale: float | None,
    steps: int | None,
    choose_beta: bool = False,
) -> Plan:
    from .certified import certified_plan

    theorem = "T4T5" if method == "gd" else "T8"
    return certified_plan(dataset, prepared, x, family, theorem, output_scale, steps, choose_beta)


def _with_outlook(plan: Plan) -> Plan:
    """Add what would make the promise say something before training, or how to have it certified."""
    if plan.dataset.task != "binary":
        return plan
    if plan.guarantee.vacuous:
        from .apriori import foreseen
        from .certified import MOST_STEPS

        assert isinstance(plan.family, DenseFamily)
        said = foreseen(plan.family, plan.features, plan.targets, max(plan.method.steps, MOST_STEPS))
    else:
        said = [
            "A promise that is certified before training: --activation softplus (at an output scale the planner searches for)."
        ]
    return replace(plan, notes=(*plan.notes, *said))


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


def _features(
    dataset: Dataset, preprocessing: Preprocessing | None
) -> tuple[Float[np.ndarray, "n d"], Preprocessing]:
    if preprocessing is None:
        from ...data import default_preprocessing

        preprocessing = default_preprocessing(dataset)
    return preprocessing.apply(dataset.raw), preprocessing
