"""The theorems about dense networks of any depth with a smooth activation (the proofs are in `dense` and `dense_promise`)."""

from __future__ import annotations

from .premises import DISTANCE, proxy_convexity
from .promise import Claim, Premise

_NOTES = "proxyconvexNotes"
_SOURCES = {"deep-relu": "CaoGu2020", "tangent": "FreiGu2021", "three-layer": "AllenZhuLiLiang2019"}


def _tangent_margins(radius: str) -> Premise:
    return Premise(
        "tangent-margins",
        f"On the ball of radius {{{radius}}} around the comparator the second derivative of the output along any unit direction is at "
        "most {M} at every row (recursion over the layers), so that the tangent margin of every row towards the comparator is at "
        "least its certified value; the smallest of these is {q_min}.",
        "CERTIFIED",
        _NOTES,
        "q_min",
    )


def few_errors(source: str, margins: Premise) -> Claim:
    """T8 of a network whose tangent margins are certified on the ball of radius R around the comparator."""
    return Claim(
        quantity="best-iterate-error",
        mode="every-run",
        methods=("normalised-gd",),
        promise=(
            "Within its first {T} iterates, normalised gradient descent reaches one with {errors} on the {n} training rows: a training "
            "error of at most {error_bound}."
        ),
        premises=(
            DISTANCE,
            margins,
            Premise(
                "gradient-norm",
                "On that ball the gradient of the network's output at every row has norm at most {G}.",
                "CERTIFIED",
                _NOTES,
                "G",
            ),
            Premise(
                "few-errors",
                "While at least {k} rows are wrong, <grad f(w), w - v> >= S mean |loss'| with S = {S}, and T c (2 S - c G^2) exceeds R^2.",
                "CERTIFIED",
                _NOTES,
                "S",
            ),
        ),
        references=(source, "ChizatOyallonBach2019", _NOTES),
        integers=("T", "k"),
        reals=("c", "floor"),
        lower=("S", "q_min"),
    )


def _small_loss(source: str) -> Claim:
    return Claim(
        quantity="final-loss",
        mode="every-run",
        methods=("gd",),
        promise=(
            "After {T} steps of gradient descent the mean logistic loss on the {n} training rows is at most {bound} (at most {h} of it is "
            "what the comparator loses), and so the training error of the last iterate is at most {error_bound}."
        ),
        premises=(
            DISTANCE,
            _tangent_margins("rho"),
            proxy_convexity("FreiGu2021"),
            Premise(
                "smoothness",
                "On that ball, which no iterate leaves (they stay within {radius} of the comparator), the gradient of the loss is Lipschitz "
                "with constant at most {L}, and eta L < 2.",
                "CERTIFIED",
                _NOTES,
                "L",
            ),
        ),
        references=tuple(dict.fromkeys((source, "FreiGu2021", "ChizatOyallonBach2019", _NOTES))),
        reals=("eta", "rho"),
        lower=("q_min",),
    )


DENSE: dict[tuple[str, str, str | None], Claim] = {
    (family, theorem, None): claim
    for family, source in _SOURCES.items()
    for theorem, claim in (("T8", few_errors(source, _tangent_margins("R"))), ("T4T5", _small_loss(source)))
}
