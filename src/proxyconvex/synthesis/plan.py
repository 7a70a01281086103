"""One entry for planning: data and a family's name in, a `Plan` with a certified promise out."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InvalidInputError
from ..data import TASKS, Dataset, load, require_task
from ..descent.run import train
from ..families import FAMILIES, PROBLEMS
from .plan_types import Plan

# Module and function of each planner; imported on use, because the solvers they need are slow to import.
PLANNERS = {
    "two-layer-ntk": ("two_layer.plan", "plan_two_layer_ntk"),
    "classical": ("plan_classical", "plan_classical"),
    "leaky-relu-hinge": ("plan_leaky_relu_hinge", "plan_leaky_relu_hinge"),
    "single-neuron": ("plan_single_neuron", "plan_single_neuron"),
    "leaky-relu-noise": ("plan_leaky_relu_noise", "plan_leaky_relu_noise"),
    "tangent": ("dense.plan", "plan_tangent"),
    "deep-relu": ("dense.plan", "plan_deep_relu"),
    "three-layer": ("dense.plan", "plan_three_layer"),
}


def planner(family: str) -> Callable[..., Plan]:
    """The planning function of a family.

    Raises:
        InvalidInputError: if there is no such family.
    """
    if family not in PLANNERS:
        near = difflib.get_close_matches(str(family), PLANNERS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "`proxyconvex families` lists what there is."
        raise InvalidInputError("family", family, ", ".join(sorted(PLANNERS)), hint)
    module, name = PLANNERS[family]
    return getattr(importlib.import_module(f".{module}", __package__), name)


def options(family: str) -> dict[str, inspect.Parameter]:
    """The keyword options a family's planner accepts, by name."""
    parameters = inspect.signature(planner(family)).parameters
    return {k: p for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def plan(
    data: Dataset | str | Path,
    *,
    family: str = "two-layer-ntk",
    target: str | None = None,
    drop_constant: bool = False,
    drop_missing: bool = False,
    task: str | None = None,
    **settings: Any,
) -> Plan:
    """State, before any training, what gradient descent is guaranteed to reach on this data.

    Args:
        data: a `Dataset`, the name of a built-in one (``"breast-cancer"``, ``"digits:0,1"``, ``"digits:even-odd"``,
            ``"wine:0,1"``) or the path of a CSV, Parquet or NPZ file.
        family: the published result to use; see `options` for what each accepts.
        target: name of the label column, for files.
        drop_constant: drop features that do not vary instead of refusing them (files).
        drop_missing: drop rows with missing values instead of refusing them (files).
        task: how to read the target column, ``"binary"``, ``"regression"`` or ``"multiclass"``; found from its values and
            what the family accepts by default (files).
        **settings: the family's own options, e.g. ``width=1024``, ``steps=2000``, ``method="sgd"``. With
            ``budget_seconds`` the planner chooses what can be trained in that time: width, activation scale and steps where
            the family leaves them open, else the number of steps.

    Returns:
        The plan; ``plan.guarantee`` is the promise, computed by the independent checker.

    Raises:
        InvalidInputError: for a family, option or data set that cannot be used; the message says how to fix it.
    """
    make = planner(family)
    accepted = options(family)
    budget = settings.pop("budget_seconds", None) if "budget_seconds" not in accepted else None
    for name in settings:
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = (
                f"Did you mean {near[0]!r}?"
                if near
                else f"Options of {family}: {', '.join(sorted(accepted))}."
            )
            raise InvalidInputError(name, settings[name], f"an option of the family {family}", hint)
    # A problem of the family may take other data than its default one.
    problem = settings.get("problem")
    if problem is not None and problem not in PROBLEMS:
        raise InvalidInputError(
            "problem", problem, ", ".join(PROBLEMS), "Leave it out for the family's default."
        )
    accepts = (FAMILIES[family] if problem is None else PROBLEMS[problem]).tasks
    if task is not None and task not in TASKS:
        raise InvalidInputError(
            "task", task, ", ".join(TASKS), "Leave --task out to find it from the column."
        )
    wanted = accepts if task is None else (task,)
    dataset = (
        data
        if isinstance(data, Dataset)
        else load(str(data), target, drop_constant=drop_constant, drop_missing=drop_missing, tasks=wanted)
    )
    require_task(dataset, family, accepts)
    steps = settings.get("steps")
    if isinstance(steps, int) and steps > MOST_ASKED:
        raise InvalidInputError(
            "steps",
            steps,
            f"at most {MOST_ASKED:.0e} steps",
            "A run of so many would take longer than a life.",
        )
    with in_range(settings):
        if budget is not None and "steps" not in settings:
            settings["steps"] = steps_within(budget, make(dataset, **settings))
        return beside_the_larger_class(make(dataset, **settings))


@contextlib.contextmanager
def in_range(settings: dict[str, Any]) -> Iterator[None]:
    """Turn overflow, lack of memory and a solver that gives up into one refusal that names the settings.

    Every planner is meant for numbers of ordinary size; what 1e-300 or 10^12 neurons break first differs between them.
    """
    try:
        yield
    except InvalidInputError:
        raise
    except Exception as error:
        solver = type(error).__module__.startswith("cvxpy")
        if not (solver or isinstance(error, ArithmeticError | MemoryError | np.linalg.LinAlgError)):
            raise
        given = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k not in ("progress", "preprocessing"))
        why = "The numbers leave the range in which the planner can compute"
        if isinstance(error, MemoryError):
            why = "A network of this size does not fit in memory"
        raise InvalidInputError(
            "settings", given or "the defaults", "settings and data of ordinary size",
            f"{why} ({type(error).__name__}). Choose a setting of another size, or rescale the data.",
        ) from error  # fmt: skip


def beside_the_larger_class(made: Plan) -> Plan:
    """The plan, with a note where one constant answer makes no more errors on these rows than are promised."""
    bound, data = made.guarantee.error_bound, made.dataset
    if data.task == "regression" or bound is None or made.guarantee.vacuous:
        return made
    values, counts = np.unique(data.targets, return_counts=True)
    share = 1 - float(counts.max()) / len(data.targets)
    if bound < share:
        return made
    index = (
        int(np.searchsorted((-1.0, 1.0), values[counts.argmax()]))
        if data.task == "binary"
        else int(values[counts.argmax()])
    )
    note = (
        f"Always answering {data.labels[index]!r} is wrong on {share:.3%} of these rows, no more than the error promised here: "
        "the promise says nothing about the smaller classes."
    )
    return replace(made, notes=(*made.notes, note))


# A run can only be timed; half of the budget is left for planning, compilation, checking and the report.
TRAINING_SHARE = 0.5
TIMED_STEPS = 5_000
MOST_STEPS = 100_000_000
MOST_ASKED = 10**15


def steps_within(seconds: float, plan: Plan) -> int:
    """How many steps of a plan's method fit in half of this time on this machine, by timing a short run of it.

    Args:
        seconds: the budget, ``> 0``.
        plan: any plan of the method; its own number of steps does not matter.

    Returns:
        A number of steps in ``1 .. 10^8``, rounded down to two digits (a promise should not depend on a timer's noise). One
        pass over the data cannot take more steps than there are rows.
    """
    most = len(plan.targets) if getattr(plan.method, "sampling", "") == "one-pass" else MOST_STEPS
    method = replace(plan.method, steps=min(TIMED_STEPS, most))
    elapsed = 0.0
    for _ in range(2):  # the first run compiles
        started = time.perf_counter()
        train(plan.problem(), plan.initial, method, seed=plan.seed)
        elapsed = time.perf_counter() - started
    steps = int(min(most, max(1, TRAINING_SHARE * seconds * method.steps / elapsed)))
    unit = 10 ** max(0, len(str(steps)) - 2)
    return min(most, steps // unit * unit)
