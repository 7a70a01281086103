"""The theorems a certificate can use, by family, identifier and sampling (None for full-batch descent)."""

from __future__ import annotations

from .classical import CLASSICAL
from .dense import DENSE, few_errors
from .hinge import HINGE
from .neuron import NEURON
from .premises import DISTANCE, proxy_convexity
from .promise import Claim, Premise

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


_PROXY = proxy_convexity("JiTelgarsky2020")

TWO_LAYER: dict[tuple[str, str, str | None], Claim] = {
    ("two-layer-ntk", "T8", None): few_errors("JiTelgarsky2020", _tangent_margins("R")),
    ("two-layer-ntk", "T4T5", None): Claim(
        quantity="final-loss",
        mode="every-run",
        methods=("gd",),
        promise=(
            "After {T} steps of gradient descent the mean logistic loss on the {n} training rows is at most "
            "{bound}, and so the training error of the last iterate is at most {error_bound}."
        ),
        premises=(
            DISTANCE,
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
            DISTANCE,
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

# --- leaky ReLU under label noise ------------------------------------------------------------------------------

_LEAKY = ("FreiGu2021", "FreiCaoGu2021", _NOTES)
_SIGNED = Premise(
    "tangent-margins",
    "For all weights, y <grad N(w; x), v> >= kappa q(y <u, x>), because every slope of the activation is at least the leak; "
    "the vector u has norm at most {u_norm}.",
    "PROVED",
    "FreiCaoGu2021",
    "u_norm",
)
_ROW_GRADIENT = Premise(
    "gradient-norm",
    "The gradient of the loss of a row has norm at most {X} |loss'|, the largest norm of a row.",
    "CERTIFIED",
    "FreiCaoGu2021",
    "X",
)
_CHARGE = Premise(
    "charge",
    "A row is charged max(0, 1/2 + theta/8 - q/2, 1/2 + theta/2 - q), theta = {theta}; the mean over the rows used is at most "
    "{charge}.",
    "CERTIFIED",
    _NOTES,
    "charge",
)
_IID = Premise(
    "iid",
    "The rows are independent draws from one distribution, and the preprocessing, the network, its initial weights, the step "
    "size and delta were fixed before they were seen.",
    "ASSUMED",
    _NOTES,
)
_SPREAD = Premise(
    "growth",
    "The squared norm of the gradient is at most lambda_max mean |loss'|^2, where lambda_max <= {lambda_max} is the largest "
    "eigenvalue of the second moments of the rows.",
    "CERTIFIED",
    _NOTES,
    "lambda_max",
)
_SHORTFALL = Premise(
    "shortfall", "The mean of (1 - q(y <u, x>))_+ is at most {xi}.", "CERTIFIED", "FreiCaoGu2021", "xi"
)


def _online(sampling: str) -> Claim:
    return Claim(
        quantity="online-error",
        mode="every-run",
        methods=("sgd",),
        promise=(
            "Over {T} steps of stochastic gradient descent ("
            + sampling
            + "), the share of rows that are wrong when they are "
            "visited is at most {error_bound}, whatever their order."
        ),
        premises=(DISTANCE, _SIGNED, _ROW_GRADIENT, _CHARGE),
        references=_LEAKY,
        reals=("eta", "kappa"),
        whole_passes=True,
    )


def _slope(methods: tuple[str, ...], mode: str, words: str) -> Claim:
    return Claim(
        quantity="average-slope",
        mode=mode,
        methods=methods,
        promise=(
            "Averaged over the first {T} iterates"
            + words
            + ", the mean of |loss'| on the {n} training rows is at most "
            "{bound}, and so the training error at most {error_bound}."
        ),
        premises=(DISTANCE, _SIGNED, _ROW_GRADIENT, _SHORTFALL),
        references=_LEAKY,
        reals=("eta", "kappa"),
    )


LEAKY: dict[tuple[str, str, str | None], Claim] = {
    ("leaky-relu-noise", "T3e", "with-replacement"): Claim(
        quantity="average-error",
        mode="expectation",
        methods=("sgd",),
        promise=(
            "In the mean over independent uniform draws, the training error of stochastic gradient descent averaged over its "
            "first {T} iterates is at most {error_bound}."
        ),
        premises=(DISTANCE, _SIGNED, _ROW_GRADIENT, _CHARGE),
        references=_LEAKY,
        reals=("eta", "kappa"),
    ),
    ("leaky-relu-noise", "T3e", "cyclic"): _online("cyclic"),
    ("leaky-relu-noise", "T3e", "one-pass"): _online("one pass"),
    ("leaky-relu-noise", "T3f", None): Claim(
        quantity="average-error",
        mode="every-run",
        methods=("gd",),
        promise=(
            "Averaged over the first {T} iterates of gradient descent, the training error on the {n} rows is at most "
            "{error_bound}."
        ),
        premises=(DISTANCE, _SIGNED, _SPREAD, _CHARGE),
        references=_LEAKY,
        reals=("eta", "kappa"),
    ),
    ("leaky-relu-noise", "T6e", "one-pass"): Claim(
        quantity="population-error",
        mode="probability",
        methods=("sgd",),
        promise=(
            "With probability at least 1 - {delta} over the draw of the rows, the error on fresh rows, averaged over the "
            "{T} iterates of one pass of stochastic gradient descent, is at most {error_bound}."
        ),
        premises=(DISTANCE, _SIGNED, _ROW_GRADIENT, _CHARGE, _IID),
        references=(*_LEAKY, "Freedman1975"),
        reals=("eta", "kappa", "u0", "delta"),
        statistics_allowed=False,
    ),
    ("leaky-relu-noise", "T8", None): Claim(
        quantity="best-iterate-error",
        mode="every-run",
        methods=("normalised-gd",),
        promise=TWO_LAYER["two-layer-ntk", "T8", None].promise,
        premises=(
            DISTANCE,
            _SIGNED,
            _ROW_GRADIENT,
            Premise(
                "few-errors",
                "While at least {k} rows are wrong, <grad f(w), w - v> >= S mean |loss'| with S = {S}, and "
                "T c (2 S - c G^2) exceeds R^2 with G = {G}.",
                "CERTIFIED",
                _NOTES,
                "S",
            ),
        ),
        references=_LEAKY,
        integers=("T", "k"),
        reals=("c", "floor", "kappa"),
        lower=("S", "q_min"),
    ),
    ("leaky-relu-noise", "T1", None): Claim(
        quantity="best-slope",
        mode="every-run",
        methods=("gd",),
        promise=(
            "Among its first {T} iterates, gradient descent reaches one whose mean |loss'| on the {n} training rows is at most "
            "{bound}, and whose training error is at most {error_bound}."
        ),
        premises=(
            Premise(
                "proxy-pl",
                "For all weights, ||grad f|| >= (c / ||u||) (mean |loss'| - xi) with xi = {xi} and ||u|| <= {u_norm}.",
                "CERTIFIED",
                "FreiCaoGu2021",
                "xi",
            ),
            Premise(
                "smoothness",
                "The gradient is Lipschitz with constant at most {L} everywhere, and eta L <= 1.",
                "CERTIFIED",
                "FreiCaoGu2021",
                "L",
            ),
            Premise(
                "initial-loss",
                "The loss is at most {initial_loss} at the start and never negative.",
                "CERTIFIED",
                _NOTES,
                "initial_loss",
            ),
        ),
        references=(*_LEAKY, "AbbaszadehpeivastiDeKlerkZamani2021"),
        reals=("eta",),
    ),
    ("leaky-relu-noise", "T3", None): _slope(("gd",), "every-run", " of gradient descent"),
    ("leaky-relu-noise", "T3", "with-replacement"): _slope(
        ("sgd",), "expectation", " of stochastic gradient descent and over independent uniform draws"
    ),
}

CLAIMS: dict[tuple[str, str, str | None], Claim] = TWO_LAYER | LEAKY | HINGE | NEURON | CLASSICAL | DENSE
