"""Plans small enough that a certificate is checked in milliseconds: a made-up family, and the real ones."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from proxyconvex.core.evidence import Evidence
from proxyconvex.core.methods import GradientDescent, NormalisedStep
from proxyconvex_checker import claim_table, initial, preprocessing, rounding
from proxyconvex_checker.claims import Claim, Premise
from proxyconvex_checker.errors import CheckError
from proxyconvex_checker.verify import FAMILIES, FamilyRules


def dataset(n: int = 12, d: int = 3) -> SimpleNamespace:
    """Two well separated classes, one constant column."""
    rng = np.random.default_rng(0)
    targets = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    raw = np.column_stack([rng.standard_normal((n, d)) + 3 * targets[:, None], np.full(n, 2.0)])
    digest = preprocessing.data_digest(raw, targets)
    return SimpleNamespace(name="two clouds", raw=raw, targets=targets, labels=("no", "yes"), digest=digest)


def settings(d: int = 3, **changes) -> SimpleNamespace:
    fields = dict(
        kept_columns=list(range(d)), center=True, scale="column", divide_by=1.0, unit_norm=True, bias=0.1
    )
    return SimpleNamespace(**(fields | changes))


# --- a family made up for these tests: every array and parameter enters its numbers ------------------------


def fake_derive(theorem, x, y, w0, activation, comparator, params):
    if theorem != "T0":
        raise CheckError("theorem", f"unknown theorem {theorem}")
    radius = float(rounding.norm_upper(comparator - w0))
    value, error = rounding.matmul_enclosure(x, (comparator - w0).sum(axis=0))
    margin = float((y * value - error).min()) * (1 + activation["beta"])
    if not margin > 0:
        raise CheckError("margin", f"the smallest margin is {margin}, not above 0")
    if not params["T"] * params["c"] * margin > radius**2:
        raise CheckError("steps", "T c q_min does not exceed R^2")
    bound = (params["k"] - 1) / len(y) + params["floor"]
    return {"R": radius, "q_min": margin, "k": float(params["k"]), "bound": bound, "error_bound": 2 * bound}


FAMILIES["made-up"] = FamilyRules(fake_derive, initial.paired_normal, lambda width, d: (width, d))
claim_table.CLAIMS[("made-up", "T0", None)] = Claim(
    quantity="best-iterate-error",
    mode="every-run",
    methods=("normalised-gd",),
    promise="Within {T} iterates fewer than {k} of {n} rows are wrong: an error of at most {error_bound}.",
    premises=(
        Premise("margins", "Every margin is at least {q_min}.", "CERTIFIED", "proxyconvexNotes", "q_min"),
        Premise("distance", "The comparator is within {R}.", "PROVED", "proxyconvexNotes", "R"),
    ),
    references=("proxyconvexNotes",),
    integers=("T", "k"),
    reals=("c", "floor"),
    lower=("q_min",),
    exact=("k",),
)


def made_up() -> SimpleNamespace:
    data, prep = dataset(), settings()
    fields = {
        "name": "made-up",
        "width": 6,
        "activation": {"name": "softplus", "slope": 0.0, "beta": 0.5},
        "init_scale": 1.5,
        "seed": 3,
    }
    features = preprocessing.apply(data.raw, vars(prep))
    weights = initial.paired_normal(fields, features.shape[1])
    comparator = weights + data.targets @ features
    params = {"T": 1000, "k": 2, "c": 0.25, "floor": 0.01}
    method = GradientDescent(NormalisedStep(params["c"], params["floor"]), params["T"])
    derived = fake_derive("T0", features, data.targets, weights, fields["activation"], comparator, params)
    return SimpleNamespace(
        dataset=data,
        preprocessing=prep,
        features=features,
        family=SimpleNamespace(describe=lambda: fields),
        initial=weights,
        comparator=comparator,
        certificate_comparator=comparator,
        method=method,
        derived=derived,
        theorem_params=params,
        seed=5,
        guarantee=SimpleNamespace(
            theorem="T0",
            quantity="best-iterate-error",
            mode="every-run",
            evidence=Evidence.CERTIFIED,
            probability=None,
        ),
    )


CASES: dict[str, Callable[[], SimpleNamespace]] = {"made-up": made_up}
