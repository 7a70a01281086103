"""The theorem about a single neuron (its proof is in `single_neuron`)."""

from __future__ import annotations

from .premises import DISTANCE
from .promise import Claim, Premise

NEURON: dict[tuple[str, str, str | None], Claim] = {
    ("single-neuron", "T3r", None): Claim(
        quantity="best-risk",
        mode="every-run",
        methods=("gd",),
        promise=(
            "Among its first {T} iterates, gradient descent reaches one whose mean squared error on the {n} rows is at most "
            "{bound} (at most {fit} of it from the targets, the rest from {T} steps being finite); the comparator has "
            "{opt}, the best constant prediction at least {baseline}."
        ),
        premises=(
            DISTANCE,
            Premise(
                "proxy-convexity",
                "On the ball of that radius around the comparator, <grad f(w), w - v> >= alpha mean r^2 + (eta lambda_max / 2) "
                "mean (r s')^2 - h, h = {h}: the largest value each row allows, by interval branch and bound.",
                "CERTIFIED",
                "FreiCaoGu2020",
                "h",
            ),
            Premise(
                "growth",
                "The squared norm of the gradient is at most lambda_max mean (r s')^2, where lambda_max <= {lambda_max} is the "
                "largest eigenvalue of the second moments of the rows.",
                "CERTIFIED",
                "proxyconvexNotes",
                "lambda_max",
            ),
        ),
        references=("FreiCaoGu2020", "FreiGu2021", "proxyconvexNotes"),
        reals=("eta", "alpha"),
        lower=("baseline",),
    ),
}
