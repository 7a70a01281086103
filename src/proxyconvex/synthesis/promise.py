"""From the checker's numbers to a `Guarantee` and a `Plan`: the same sentences the certificate will state."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from proxyconvex_checker.claims import promise as claims
from proxyconvex_checker.claims.table import CLAIMS

from ..core.evidence import Evidence
from ..core.guarantee import Guarantee, PremiseRecord
from ..core.methods import SGD, Method
from ..core.references import REFERENCES
from ..families.base import Family
from .plan_types import Plan


def guarantee(
    family: str,
    theorem: str,
    method: Method,
    params: dict[str, Any],
    derived: dict[str, float],
    rows: int,
) -> Guarantee:
    """The promise of a certified theorem, in the words and on the premises of its certificate.

    Args:
        family: name of the family.
        theorem: identifier, e.g. ``"T3e"``.
        method: the method it speaks of.
        params: the parameters handed to the checker.
        derived: what the checker returned.
        rows: number of rows n.
    """
    claim = CLAIMS[family, theorem, method.sampling if isinstance(method, SGD) else None]
    confidence = claims.probability(params, claim)
    error_bound = derived.get("error_bound")
    document = {
        "data": {"n": rows},
        "method": {"steps": method.steps},
        "constants": claims.stored_constants(derived, claim),
        "theorem": {"params": params},
        "claim": {"bound": derived["bound"], "error_bound": error_bound, "probability": confidence},
    }
    # The promise has the same {names} as a premise, so it is filled in like one.
    itself = claims.Premise("promise", claim.promise, "PROVED", claim.references[0])
    sentence = claims.premises(document, dataclasses.replace(claim, premises=(itself,)))[0]["statement"]
    return Guarantee(
        theorem=theorem,
        quantity=claim.quantity,
        sentence=sentence,
        bound=derived["bound"],
        error_bound=error_bound,
        mode=claim.mode,
        premises=tuple(
            PremiseRecord(
                p["name"], p["statement"], Evidence[p["evidence"]], REFERENCES[p["reference"]], p["value"]
            )
            for p in claims.premises(document, claim)
        ),
        method=method,
        references=tuple(REFERENCES[key] for key in claim.references),
        constants=dict(derived),
        probability=confidence,
        baseline=derived.get("baseline"),
    )


def certified_plan(
    *,
    family: Family,
    features: Float[np.ndarray, "n d"],
    comparator: np.ndarray,
    method: Method,
    theorem: str,
    params: dict[str, Any],
    derived: dict[str, float],
    stored: np.ndarray | None = None,
    **rest: Any,
) -> Plan:
    """The plan of a certified theorem.

    Args:
        family: architecture and hyperparameters.
        features: the rows the promise speaks of.
        comparator: in parameter space.
        method: with its step and number of steps.
        theorem: identifier, as for `guarantee`.
        params: the parameters handed to the checker.
        derived: what the checker returned.
        stored: what the certificate stores in place of the comparator, if something else.
        **rest: the remaining fields of `Plan`.
    """
    return Plan(
        family=family,
        features=features,
        comparator=comparator,
        certificate_comparator=comparator if stored is None else stored,
        method=method,
        guarantee=guarantee(family.name, theorem, method, params, derived, len(features)),
        derived=derived,
        theorem_params=params,
        **rest,
    )
