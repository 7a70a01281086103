"""The theorems about the classical problems (the proofs are in `classical`, `secant` and `linear_network`)."""

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


def _near_solution(promise: str, params: tuple[str, ...]) -> Claim:
    """Gradient descent in the ball around the comparator that the start is on, by the restricted secant inequality."""
    return Claim(
        quantity="final-loss",
        mode="every-run",
        methods=("gd",),
        promise=promise,
        premises=(
            DISTANCE,
            Premise(
                "proxy-convexity",
                "On the ball of that radius, <grad f(w) - grad f(v), w - v> >= m ||w - v||^2 with m = {m} (restricted secant "
                "inequality), from eigenvalues of moments of the rows.",
                "CERTIFIED",
                "proxyconvexNotes",
                "m",
            ),
            Premise(
                "curvature",
                "Between v and any point of the ball the mean second derivative lies between -mu and L, mu = {mu}, L = {L}.",
                "CERTIFIED",
                "proxyconvexNotes",
                "L",
            ),
            Premise(
                "stationarity", "||grad f(v)|| is at most {noise}.", "CERTIFIED", "proxyconvexNotes", "noise"
            ),
            Premise(
                "region",
                "A step multiplies ||w - v||^2 by at most {contraction}, up to eta ||grad f(v)||, so that no iterate leaves the ball and the "
                "last is within {reach} of v.",
                "CERTIFIED",
                "proxyconvexNotes",
                "contraction",
            ),
        ),
        references=(*_REFERENCES, "CandesLiSoltanolkotabi2015"),
        reals=params,
        lower=("m", "baseline"),
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
    ("rank-one", "RSIrank", None): _near_solution(
        "After {T} steps of gradient descent, ||u u^T - M||^2 / 4 is at most {bound}, where M is the matrix of second moments of the {n} "
        "rows; the comparator has {opt}, u = 0 has at least {baseline}. The targets are not used.",
        ("eta", "tau"),
    ),
    ("phase-retrieval", "RSIphase", None): _near_solution(
        "After {T} steps of gradient descent from the spectral start, the mean of (<x, w>^2 - y)^2 / 4 over the {n} measurements is at "
        "most {bound}; the signal has {opt}, the best constant prediction at least {baseline}.",
        ("eta", "tau", "c"),
    ),
    ("linear-network", "PLnet", None): Claim(
        quantity="final-risk",
        mode="every-run",
        methods=("gd",),
        promise=(
            "After {T} steps, gradient descent on the squared loss of a two-layer linear network has a mean squared error on the {n} rows "
            "of at most {bound}; the best constant prediction has at least {baseline}."
        ),
        premises=(
            Premise(
                "proxy-pl",
                "On the ball of radius {radius} around the start, ||grad f||^2 >= 2 m (f - f*) with m = {m}: the squared norm of the second "
                "layer there, times the smallest eigenvalue {l} of the second moments of the rows.",
                "CERTIFIED",
                "proxyconvexNotes",
                "m",
            ),
            Premise(
                "smoothness",
                "Where f is at most f(w_0) on that ball, the gradient is Lipschitz with constant at most {L}, and eta L <= 1.",
                "CERTIFIED",
                "proxyconvexNotes",
                "L",
            ),
            Premise(
                "region",
                "m radius^2 exceeds 8 (f(w_0) - f*), f(w_0) - f* at most {gap}, so that no iterate leaves the ball (which is small beside the "
                "second layer: the promise lives in the lazy regime).",
                "CERTIFIED",
                "ChizatOyallonBach2019",
                "gap",
            ),
        ),
        references=(*_REFERENCES, "ChizatOyallonBach2019"),
        reals=("eta", "radius"),
        lower=("baseline", "l", "m"),
    ),
}
