"""The theorems a certificate can use, by family, identifier and sampling (None for full-batch descent)."""

from __future__ import annotations

from .claims import Claim, Premise

_NOTES = "proxyconvexNotes"


def _tangent_margins(radius: str) -> Premise:
    return Premise(
        "tangent-margins",
        f"On the ball of radius {{{radius}}} around the comparator, the tangent margin of every row towards the "
        "comparator is at least its certified value; the smallest of these is {q_min}.",
        "CERTIFIED",
        _NOTES,
        "q_min",
    )


_DISTANCE = Premise(
    "distance",
    "The initial weights are within {R} of the comparator (where this is small beside the weights themselves, the "
    "promise lives in the lazy regime).",
    "CERTIFIED",
    "ChizatOyallonBach2019",
    "R",
)
_PROXY = Premise(
    "proxy-convexity",
    "Convexity of the loss in the output and these margins give <grad f(w), w - v> >= f(w) - h on that ball, "
    "h = {h}.",
    "CERTIFIED",
    "JiTelgarsky2020",
    "h",
)

CLAIMS: dict[tuple[str, str, str | None], Claim] = {
    ("two-layer-ntk", "T8", None): Claim(
        quantity="best-iterate-error",
        mode="every-run",
        methods=("normalised-gd",),
        promise=(
            "Within its first {T} iterates, normalised gradient descent reaches one with {errors} on the {n} "
            "training rows: a training error of at most {error_bound}."
        ),
        premises=(
            _DISTANCE,
            _tangent_margins("R"),
            Premise(
                "gradient-norm",
                "On that ball the gradient of the network's output at every row has norm at most {G}.",
                "CERTIFIED",
                _NOTES,
                "G",
            ),
            Premise(
                "few-errors",
                "While at least {k} rows are wrong, <grad f(w), w - v> >= S mean |loss'| with S = {S}, and "
                "T c (2 S - c G^2) exceeds R^2.",
                "CERTIFIED",
                _NOTES,
                "S",
            ),
        ),
        references=("JiTelgarsky2020", "ChizatOyallonBach2019", _NOTES),
        integers=("T", "k"),
        reals=("c", "floor"),
        lower=("S", "q_min"),
    ),
    ("two-layer-ntk", "T4T5", None): Claim(
        quantity="final-loss",
        mode="every-run",
        methods=("gd",),
        promise=(
            "After {T} steps of gradient descent the mean logistic loss on the {n} training rows is at most "
            "{bound}, and so the training error of the last iterate is at most {error_bound}."
        ),
        premises=(
            _DISTANCE,
            _tangent_margins("radius"),
            _PROXY,
            Premise(
                "smoothness",
                "The gradient of the loss is Lipschitz with constant at most {L} everywhere, and eta L < 2.",
                "CERTIFIED",
                _NOTES,
                "L",
            ),
        ),
        references=("FreiGu2021", "JiTelgarsky2020", "ChizatOyallonBach2019", _NOTES),
        reals=("eta",),
        lower=("q_min",),
    ),
    ("two-layer-ntk", "T3T5", None): Claim(
        quantity="best-loss",
        mode="every-run",
        methods=("gd",),
        promise=(
            "Among its first {T} iterates, gradient descent reaches one whose mean logistic loss on the {n} "
            "training rows is at most {bound}, and so whose training error is at most {error_bound}."
        ),
        premises=(
            _DISTANCE,
            _tangent_margins("R"),
            _PROXY,
            Premise(
                "growth",
                "The squared norm of the gradient is at most {A} times the loss everywhere, and eta A < 2.",
                "CERTIFIED",
                _NOTES,
                "A",
            ),
        ),
        references=("FreiGu2021", "JiTelgarsky2020", "ChizatOyallonBach2019", _NOTES),
        reals=("eta",),
        lower=("q_min",),
    ),
}
