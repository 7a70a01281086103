"""The theorems a certificate can use, by family, identifier and sampling (None for full-batch descent)."""

from __future__ import annotations

from .claims import Claim, Premise

_NOTES = "proxyconvexNotes"

CLAIMS: dict[tuple[str, str, str | None], Claim] = {
    ("two-layer-ntk", "T8", None): Claim(
        quantity="best-iterate-error",
        mode="every-run",
        methods=("normalised-gd",),
        promise=(
            "Within its first {T} iterates, normalised gradient descent reaches one with fewer than {k} "
            "errors on the {n} training rows: a training error of at most {error_bound}."
        ),
        premises=(
            Premise(
                "tangent-margins",
                "On the ball of radius {R} around the comparator, the tangent margin of every row towards "
                "the comparator is at least its certified value; the smallest of these is {q_min}.",
                "CERTIFIED",
                _NOTES,
                "q_min",
            ),
            Premise(
                "gradient-norm",
                "On that ball the gradient of the network's output at every row has norm at most {G}.",
                "CERTIFIED",
                _NOTES,
                "G",
            ),
            Premise(
                "few-errors",
                "While at least {k} rows are wrong, the distance to the comparator shrinks: S >= {S}, and "
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
}
