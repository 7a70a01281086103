"""From the checker's numbers to a `Guarantee`: the same sentences the certificate will state."""

from __future__ import annotations

import dataclasses
from typing import Any

from proxyconvex_checker.claims import promise as claims
from proxyconvex_checker.claims.table import CLAIMS

from ..core.evidence import Evidence
from ..core.guarantee import Guarantee, PremiseRecord
from ..core.methods import SGD, Method
from ..core.references import REFERENCES


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
