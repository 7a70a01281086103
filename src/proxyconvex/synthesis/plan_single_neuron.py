"""Planning for the family F3, `single-neuron`: the comparator, the step size and the promised risk.

The theorem is T3r (statement and proof: `proxyconvex_checker.single_neuron`): gradient descent reaches a mean squared error
of at most ``C OPT + eps``. The comparator, alpha and the step minimise that number; see `neuron_comparator`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from proxyconvex_checker import single_neuron as checker
from proxyconvex_checker.decimals import show
from proxyconvex_checker.errors import CheckError

from ..core.errors import InvalidInputError
from ..core.guarantee import Alternative
from ..core.methods import ConstantStep, GradientDescent
from ..core.theorems.proxy_convex import best_step
from ..data import Dataset, Preprocessing, default_preprocessing
from ..families.links import LINKS, Link
from ..families.single_neuron import SingleNeuron
from .choose_preprocessing import cheapest
from .neuron_comparator import Choice, Rows, choose, slopes_only
from .neuron_declared import Declared, check_function
from .plan_types import Plan
from .promise import certified_plan


def candidates(dataset: Dataset) -> list[Preprocessing]:
    """The preprocessings that are compared: rows of unit norm or not, columns scaled or not, two bias features."""
    base = default_preprocessing(dataset)
    return [
        base,
        replace(base, bias=1.0),
        replace(base, scale="column", unit_norm=False, bias=1.0),
    ]


def best_preprocessing(dataset: Dataset, family: SingleNeuron, steps: int) -> Preprocessing:
    """The candidate with the least promise."""

    def worth(x: np.ndarray, y: np.ndarray) -> float:
        rows = Rows(x, y, family.initial(x.shape[1])[0], family.activation, steps)
        return choose(rows, polish=1, rounds=30).value

    return cheapest(dataset, candidates(dataset), worth)


def plan_single_neuron(
    dataset: Dataset,
    *,
    activation: str | Link | None = None,
    slope: float | None = None,
    beta: float | None = None,
    method: str = "gd",
    steps: int = 200_000,
    init_scale: float | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    progress: bool = False,
) -> Plan:
    """State what mean squared error gradient descent is guaranteed to reach with a single neuron, on any targets.

    Args:
        dataset: rows and targets: numbers, or two classes (targets -1 and +1).
        activation: ``sigmoid``, ``tanh``, ``softplus``, ``leaky-relu`` or ``relu``; by default sigmoid for numbers (files and
            built-in sets have them scaled to [0, 1]) and tanh for two classes. Or a `Link`, for example a function of your own with
            declared constants (`Link.custom`): they are tried on the range of the data, what rests on them is ASSUMED, and there
            is no certificate.
        slope: the leak c of leaky-relu, 0.5 by default.
        beta: sharpness of the smooth activations, 1 by default.
        method: ``"gd"`` (full batch).
        steps: number of steps T.
        init_scale: standard deviation of the initial weights; 0 by default, and 0.1 for relu, whose gradient is zero at the
            origin.
        seed: of the initial weights.
        preprocessing: by default a few standard ones are compared and the one with the least promise is kept.
        progress: accepted for uniformity; planning takes seconds.

    Returns:
        The plan; its numbers are those of the independent checker.

    Raises:
        InvalidInputError: for an argument out of range or data that cannot be used.
    """
    del progress
    if method != "gd":
        raise InvalidInputError(
            "method", method, "gd", "The promise holds on a ball, which only full-batch descent keeps."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInputError("steps", steps, "a whole number >= 1", "Pass e.g. --steps 200000.")
    link = _link(dataset, activation, slope, beta)
    scale = (0.1 if link.name == "relu" else 0.0) if init_scale is None else init_scale
    family = SingleNeuron(link, scale, seed)
    preprocessing = preprocessing or best_preprocessing(dataset, family, steps)
    features = preprocessing.apply(dataset.raw)
    initial = family.initial(features.shape[1])
    chosen = choose(Rows(features, dataset.targets, initial[0], family.activation, steps))
    params = {"T": steps, "eta": chosen.eta, "alpha": chosen.alpha}
    comparator = chosen.v[None]
    declared = None
    try:
        if link.name == "custom":
            declared = Declared.of(link, features, initial, comparator)
            neuron = checker.Neuron(features, dataset.targets, initial, comparator, declared)  # type: ignore[arg-type]
            derived = checker.promise(neuron, params)
        else:
            derived = checker.derive(
                "T3r", features, dataset.targets, initial, link.describe(), comparator, params
            )
    except CheckError as error:
        raise InvalidInputError(
            "data", dataset.name, "data on which the promise can be computed", str(error)
        ) from error
    made = certified_plan(
        dataset=dataset,
        preprocessing=preprocessing,
        features=features,
        family=family,
        initial=initial,
        comparator=comparator,
        method=GradientDescent(ConstantStep(chosen.eta), steps),
        theorem="T3r",
        params=params,
        derived=derived,
        proxy={
            "alpha": chosen.alpha,
            "tail": chosen.eta * derived["lambda_max"] / 2,
            "level": derived["h"],
        },
        alternatives=_alternatives(family, features, dataset.targets, initial, chosen, steps),
        seed=seed,
        notes=_notes(derived, link, steps),
    )
    return made if declared is None else replace(made, guarantee=declared.promise(made.guarantee))


def _link(dataset: Dataset, activation: str | Link | None, slope: float | None, beta: float | None) -> Link:
    """The activation from the options."""
    if isinstance(activation, Link):
        for option, value in (("slope", slope), ("beta", beta)):
            if value is not None:
                raise InvalidInputError(
                    option, value, f"no {option} beside a Link", "The Link has its own constants."
                )
        if activation.name == "custom":
            check_function(activation)
        return activation
    name = activation or ("tanh" if dataset.task == "binary" else "sigmoid")
    if name not in LINKS:
        raise InvalidInputError(
            "activation", name, ", ".join(LINKS),
            "One neuron has a nondecreasing activation; declare your own with Link.custom (on the command line: my_file.py:name).",
        )  # fmt: skip
    if beta is not None and name in ("relu", "leaky-relu"):
        raise InvalidInputError("beta", beta, f"no beta for {name}", "It has a kink; its leak is --slope.")
    leak = (0.5 if slope is None else slope) if name == "leaky-relu" else (slope or 0.0)
    return Link(name, leak, 1.0 if beta is None else beta)


def _notes(derived: dict[str, float], link: Link, steps: int) -> tuple[str, ...]:
    notes, name = [], link.name
    certified = "certifies on the range of these rows"
    if name == "custom":
        certified = f"finds on the range of these rows if the constants declared for {link.label} are true"
    if "C" in derived:
        notes.append(
            f"Risk <= C OPT + eps with C = {show(derived['C'])}, OPT = {show(derived['opt'])} (the comparator's own risk) and "
            f"eps = {show(derived['eps'])}; C is what interval branch and bound {certified}."
        )
    if derived["bound"] >= derived["baseline"]:
        if name == "relu":
            why = "relu has slope 0 on half of the ball, where nothing can be promised; a leak (leaky-relu) would make it so"
        elif slopes_only(link):
            why = (
                f"between two points nothing is known of {link.label} but its least and largest slope; declare a curvature, or a least "
                "slope on the range (gamma)"
            )
        elif derived["eps"] > derived["fit"] - derived["opt"]:
            why = f"more than {steps:,} steps would lower it"
        else:
            why = "a comparator with less risk (better features) or a wider range of large slopes would lower it"
        notes.append(
            f"A constant prediction has risk {show(derived['baseline'], lower=True)}, no more than this promise: {why}."
        )
    return tuple(notes)


def _alternatives(
    family: SingleNeuron, x: np.ndarray, y: np.ndarray, initial: np.ndarray, chosen: Choice, steps: int
) -> tuple[Alternative, ...]:
    rows = [_form(form, family, x, y, initial, chosen, steps) for form in ("i", "ii")]
    rows += [
        Alternative("T3 (iii)", False, "needs E[y|x] = s(<v, x>) in the population, which no data can show"),
        Alternative(
            "T1",
            False,
            "proxy PL by Cauchy-Schwarz from T3's condition; slower (T^(-1/2)) for the same level",
        ),
        Alternative("T3u", False, "speaks of SGD on the hinge loss"),
    ]
    return tuple(rows)


def _form(
    form: str,
    family: SingleNeuron,
    x: np.ndarray,
    y: np.ndarray,
    initial: np.ndarray,
    chosen: Choice,
    steps: int,
) -> Alternative:
    """The risk that the paper's form (i) or (ii) promises with T3 and T5, in plain floating point.

    Raises:
        nothing: a form that does not apply is reported as such.
    """
    link, v = family.activation, chosen.v
    radius = float(np.linalg.norm(initial[0] - v))
    size = radius * float(np.linalg.norm(x, axis=1).max())
    b = x @ v
    gamma = link.least_slope(float(b.min()) - size, float(b.max()) + size)
    name = f"T3 ({form})"
    if not gamma > 0:
        return Alternative(
            name, False, f"the slope of {link.label or link.name} vanishes on the ball, so g bounds no risk"
        )
    with_form: dict[str, Any] = dict(form=form, radius=max(radius, 1e-12))
    pc, growth = family.conditions(x, y, v, **with_form)
    level, a, c = float(pc.h), float(growth.A), float(growth.C)
    eta = best_step(steps, R=max(radius, 1e-12), A=a, C=c, h=level)
    proxy = (level + radius**2 / (2 * eta * steps) + eta * c / 2) / (1 - eta * a / 2)
    own = float(np.mean((link.numpy(b) - y) ** 2))
    # (s(a) - y)^2 <= 2 (s(a) - s(b))^2 + 2 (s(b) - y)^2, and s' >= gamma in g.
    factor = 2 * link.lipschitz / gamma if form == "i" else 4 * link.lipschitz**2 / gamma**2
    bound = factor * proxy + 2 * own
    reason = (
        f"the paper's form ({form}): gamma = {gamma:.3g} on the ball, risk <= {factor:.4g} g + 2 OPT, {bound / own:.4g} OPT in all; "
        "computed in plain floating point, not certified"
    )
    return Alternative(name, True, reason, bound, None)
