"""The theorems about leaky two-layer networks on the hinge loss (the proofs are in `leaky_relu_hinge`)."""

from __future__ import annotations

from .premises import DISTANCE
from .promise import Claim, Premise

_REFERENCES = ("Brutzkus2018", "FreiGu2021", "proxyconvexNotes")
_SIGNED = Premise(
    "tangent-margins",
    "For all weights, y <grad N(w; x), v> >= kappa q(y <u, x>), because every slope of the activation is at least the leak; "
    "the vector u has norm at most {u_norm}.",
    "PROVED",
    "Brutzkus2018",
    "u_norm",
)
_ROW_GRADIENT = Premise(
    "gradient-norm",
    "The gradient of the hinge loss of a row has norm at most {X}, the largest norm of a row, and is zero where y N >= 1.",
    "CERTIFIED",
    "Brutzkus2018",
    "X",
)
_SEPARATED = Premise(
    "separation",
    "Every row has q(y <u, x>) >= {q_min}, and an update brings the weights closer to the comparator because "
    "2 (kappa q_min - 1) > eta X^2.",
    "CERTIFIED",
    "proxyconvexNotes",
    "q_min",
)
_CHARGE = Premise(
    "charge",
    "A row is charged max(0, 1 + theta/2 + 1/kappa - q), theta = {theta}; the mean over the rows is at most {charge}.",
    "CERTIFIED",
    "proxyconvexNotes",
    "charge",
)


def _mistakes(promise: str, integers: tuple[str, ...]) -> Claim:
    return Claim(
        quantity="updates",
        mode="every-run",
        methods=("sgd",),
        promise="Stochastic gradient descent changes the weights at most {updates} times, whatever the order of the rows and "
        "the width of the network" + promise,
        premises=(DISTANCE, _SIGNED, _ROW_GRADIENT, _SEPARATED),
        references=_REFERENCES,
        integers=integers,
        reals=("eta", "kappa"),
        lower=("q_min",),
        exact=("updates",),
    )


def _share(sampling: str) -> Claim:
    mean = sampling == "with-replacement"
    return Claim(
        quantity="average-error" if mean else "online-error",
        mode="expectation" if mean else "every-run",
        methods=("sgd",),
        promise=(
            "In the mean over independent uniform draws, the training error of stochastic gradient descent averaged over its "
            "first {T} iterates, and the share of its steps that change the weights, are at most {error_bound}."
            if mean
            else "Over {T} steps of stochastic gradient descent (cyclic), the share of rows that are wrong when they are "
            "visited, and of steps that change the weights, is at most {error_bound}, whatever their order in each pass."
        ),
        premises=(DISTANCE, _SIGNED, _ROW_GRADIENT, _CHARGE),
        references=_REFERENCES,
        reals=("eta", "kappa"),
        whole_passes=not mean,
    )


HINGE: dict[tuple[str, str, str | None], Claim] = {
    ("leaky-relu-hinge", "T3m", "cyclic"): _mistakes(
        "; after {passes} passes over the {n} rows they no longer change, and the training error is {error_bound}.",
        ("T", "passes"),
    ),
    ("leaky-relu-hinge", "T3m", "with-replacement"): _mistakes(".", ("T",)),
    ("leaky-relu-hinge", "T3u", "with-replacement"): _share("with-replacement"),
    ("leaky-relu-hinge", "T3u", "cyclic"): _share("cyclic"),
}
