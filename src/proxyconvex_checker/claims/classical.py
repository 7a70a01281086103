"""The theorems about least squares and logistic regression (the proofs are in `classical`)."""

from __future__ import annotations

from .premises import DISTANCE
from .promise import Claim, Premise

_SMOOTH = Premise(
    "smoothness",
    "The gradient is Lipschitz with constant at most {L}, and eta L <= 1.",
    "CERTIFIED",
    "FreiGu2021",
    "L",
)
_CONVEX = Premise(
    "proxy-convexity",
    "The loss is convex in the weights: <grad f(w), w - v> >= f(w) - f(v), f(v) at most {opt}.",
    "CERTIFIED",
    "FreiGu2021",
    "opt",
)
_DOMINANCE = Premise(
    "proxy-pl",
    "||grad f||^2 >= 2 m (f - f*) with m = {m}, a lower bound on the smallest eigenvalue of the second moments of the rows.",
    "CERTIFIED",
    "FreiGu2021",
    "m",
)
_REFERENCES = ("FreiGu2021", "proxyconvexNotes")


def _risk(premises: tuple[Premise, ...], lower: tuple[str, ...], integers: tuple[str, ...]) -> Claim:
    return Claim(
        quantity="final-risk",
        mode="every-run",
        methods=("gd",),
        promise=(
            "After {T} steps, gradient descent on the squared loss of a linear model has a mean squared error on the {n} rows of "
            "at most {bound}; the best constant prediction has at least {baseline}."
        ),
        premises=premises,
        references=_REFERENCES,
        integers=integers,
        reals=("eta",),
        lower=lower,
    )


CLASSICAL: dict[tuple[str, str, str | None], Claim] = {
    ("classical", "CvxSquares", None): _risk((DISTANCE, _CONVEX, _SMOOTH), ("baseline",), ("T",)),
    ("classical", "PLg", None): _risk((_DOMINANCE, _SMOOTH), ("baseline", "m"), ("T",)),
    ("classical", "CvxLogistic", None): Claim(
        quantity="final-loss",
        mode="every-run",
        methods=("gd",),
        promise=(
            "After {T} steps, gradient descent on the logistic loss of a linear model has a mean loss on the {n} training rows of "
            "at most {bound}, and so a training error of at most {error_bound}."
        ),
        premises=(DISTANCE, _CONVEX, _SMOOTH),
        references=_REFERENCES,
        reals=("eta",),
    ),
}
