"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from .core.errors import InvalidInputError

DATA_HELP = (
    "Data: `breast-cancer`, `digits:A,B`, `digits:even-odd`, `wine:A,B` (two classes), `digits`, `wine` (several), `diabetes`, "
    "`linnerud:weight`, `digits:pixel-27` (numeric), or a CSV, Parquet or NPZ file (with --target)."
)
Data = Annotated[str, typer.Argument(help=DATA_HELP, metavar="DATA")]
Family = Annotated[
    str, typer.Option(help="Which published result to use; `proxyconvex families` lists them.")
]
Target = Annotated[str | None, typer.Option(help="Name of the target column (files).")]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Read the target column as binary, regression or multiclass; found from its values by default.",
    ),
]
DropMissing = Annotated[bool, typer.Option("--drop-missing", help="Drop rows with missing values (files).")]
DropConstant = Annotated[
    bool, typer.Option("--drop-constant", help="Drop features that do not vary (files).")
]
Width = Annotated[int | None, typer.Option(help="Number of hidden neurons m.", min=1)]
Activation = Annotated[
    str | None,
    typer.Option(
        help="softplus, smooth-leaky, relu or leaky-relu, for one neuron also sigmoid and tanh (the family says which it covers), or your "
        "own with declared constants: FILE.py:NAME (single-neuron)."
    ),
]
Slope = Annotated[float | None, typer.Option(help="Leak c of the leaky activations, in (0, 1].")]
Beta = Annotated[
    float | None, typer.Option(help="Sharpness of a smooth activation; chosen by the planner by default.")
]
InitScale = Annotated[float | None, typer.Option(help="Standard deviation of the initial weights.")]
Depth = Annotated[int | None, typer.Option(help="Number of hidden layers (dense families).", min=1)]
Layers = Annotated[
    str | None,
    typer.Option(help="all or last: hidden layers whose tangent features the comparator uses (deep-relu)."),
]
OutputScale = Annotated[
    float | None,
    typer.Option(help="Factor on the outputs (dense families); larger is closer to the tangent model."),
]
ProblemOption = Annotated[
    str | None,
    typer.Option(
        "--problem",
        help="rank-one, phase-retrieval or linear-network (classical); least squares or logistic regression by default.",
    ),
]
Measurements = Annotated[
    int | None, typer.Option(help="Number of Gaussian measurements (phase retrieval).", min=1)
]
MethodOption = Annotated[
    str | None,
    typer.Option("--method", help="normalised-gd, gd, gd-slope or sgd (the family says which it covers)."),
]
Steps = Annotated[
    int | None, typer.Option(help="Number of steps T; chosen by the planner by default.", min=1)
]
Budget = Annotated[
    str | None,
    typer.Option(help="Time for planning and training, e.g. 90s, 3min: the planner picks width and steps."),
]
Sampling = Annotated[
    str | None,
    typer.Option(help="Order of the rows under sgd: cyclic or with-replacement (leaky-relu-hinge)."),
]
OnePass = Annotated[
    bool,
    typer.Option(
        "--one-pass", help="Use each row once and promise the population error (rows assumed i.i.d.)."
    ),
]
Delta = Annotated[float | None, typer.Option(help="Failure probability of a high-probability promise.")]
Seed = Annotated[int | None, typer.Option(help="Seed of initial weights and sampling.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


def parse_budget(text: str) -> float:
    """Seconds in a text like ``90``, ``90s``, ``3min`` or ``1h``.

    Raises:
        InvalidInputError: if it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|m|min|h)?\s*", text)
    seconds = 0.0
    if match:
        seconds = float(match[1]) * {None: 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}[match[2]]
    if seconds <= 0:
        raise InvalidInputError("budget", text, "a positive time such as 90s, 3min or 1h")
    return seconds
