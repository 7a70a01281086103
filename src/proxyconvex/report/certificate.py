"""Certificates: a promise written so that `proxyconvex_checker` can re-derive it from the data alone.

A certificate is a folder with ``certificate.json``, the rows (``data.npy``) and the comparator
(``comparator.npy``). Words and bounds come from the checker's own functions; nothing the planner says about
itself is copied unchecked.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proxyconvex_checker import document, initial
from proxyconvex_checker import verify as _check
from proxyconvex_checker.checking import CERTIFICATE, Result
from proxyconvex_checker.claims import promise as claims
from proxyconvex_checker.claims.table import CLAIMS

from ..core.errors import InvalidInputError
from ..core.methods import SGD, ConstantStep, Method, NormalisedStep

if TYPE_CHECKING:
    from ..synthesis.plan_types import Plan

__all__ = ["Result", "load", "verify", "write_certificate"]
DATA_FILE, COMPARATOR_FILE = "data.npy", "comparator.npy"


def write_certificate(plan: Plan, folder: str | os.PathLike[str]) -> Path:
    """Write the promise of a plan.

    Args:
        plan: what to certify; its ``derived`` numbers are those the checker computed.
        folder: created if needed; receives ``certificate.json``, ``data.npy`` and ``comparator.npy``.

    Returns:
        The path of ``certificate.json``.

    Raises:
        InvalidInputError: if the plan's promise is not one a certificate can state.
    """
    target = Path(folder)
    rows = np.column_stack([plan.dataset.raw, plan.dataset.targets]).astype("<f8", order="C")
    comparator = np.ascontiguousarray(plan.certificate_comparator, dtype="<f8")
    raw = sealed(certificate_document(plan))
    target.mkdir(parents=True, exist_ok=True)
    np.save(target / DATA_FILE, rows, allow_pickle=False)
    np.save(target / COMPARATOR_FILE, comparator, allow_pickle=False)
    path = target / CERTIFICATE
    # Replaced in one step, so that an interrupted write never leaves half a certificate.
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(raw, indent=1, ensure_ascii=True, allow_nan=False) + "\n", encoding="ascii")
    partial.replace(path)
    return path


def certifiable(plan: Plan) -> bool:
    """Whether the independent checker knows this plan's theorem for this family and method."""
    sampling = plan.method.sampling if isinstance(plan.method, SGD) else None
    known = (plan.family.name, plan.guarantee.theorem, sampling) in CLAIMS
    # Without parameters of the theorem nothing was proved (a plan may say just that).
    return (
        known
        and not plan.conditional
        and bool(plan.theorem_params)
        and not plan.family.certificate_obstacle()
    )


def no_certificate(plan: Plan) -> str | None:
    """Why there is no certificate file of this plan, in a sentence; None where there is one."""
    if certifiable(plan):
        return None
    if plan.conditional:
        return (
            "There is no certificate file: before a run this promise assumes what only the run can show, and after it the conclusion is about "
            "that run alone. The distance of the comparator from the start is all that is certified."
        )
    if obstacle := plan.family.certificate_obstacle():
        return f"There is no certificate file: {obstacle}"
    if not plan.theorem_params:
        return "There is no certificate file: nothing was proved about this network."
    return "There is no certificate file: the independent checker does not know this theorem for this family and method."


def certificate_document(plan: Plan) -> dict[str, Any]:
    """The certificate of a plan with Python floats, before it is encoded and sealed."""
    from .. import __version__

    if obstacle := plan.family.certificate_obstacle():
        raise InvalidInputError(
            "plan",
            f"{plan.family.name} on {plan.dataset.name}",
            "a plan with a certificate",
            f"No file: {obstacle}",
        )
    n, d = plan.dataset.raw.shape
    family, method = plan.family.certificate_fields(), method_fields(plan.method, plan.seed)
    claim = _claim_of(family["name"], plan.guarantee.theorem, method["sampling"])
    stated = {
        "format": document.FORMAT,
        "schema": document.SCHEMA,
        "proxyconvex": __version__,
        "statement": "",
        "data": {
            "name": _printable(plan.dataset.name),
            "n": int(n),
            "d": int(d),
            "labels": [_printable(str(label)) for label in plan.dataset.labels],
            "digest": plan.dataset.digest,
            "file": DATA_FILE,
        },
        "preprocessing": _preprocessing_fields(plan.preprocessing),
        "family": {**family, "initial_sha256": initial.array_digest(plan.initial)},
        "method": method,
        "comparator": {
            "file": COMPARATOR_FILE,
            "sha256": initial.array_digest(plan.certificate_comparator),
            "shape": [int(k) for k in plan.certificate_comparator.shape],
        },
        "theorem": {"id": plan.guarantee.theorem, "params": _parameters(plan.theorem_params, claim)},
        "constants": claims.stored_constants(plan.derived, claim),
        "claim": _claim_fields(plan, claim),
        "references": list(claim.references),
    }
    stated["claim"]["premises"] = claims.premises(stated, claim)
    stated["statement"] = claims.statement(stated, claim)
    return stated


def sealed(stated: dict[str, Any]) -> dict[str, Any]:
    """A document with floats encoded and its seal added, after the checker's own schema has accepted it."""
    raw = document.encode({k: v for k, v in stated.items() if k != "seal"})
    raw["seal"] = document.seal(raw)
    document.parse(raw)
    return raw


def method_fields(method: Method, seed: int) -> dict[str, Any]:
    """The certificate's ``method`` fields.

    Raises:
        InvalidInputError: for a step-size rule or projection that no certified theorem covers.
    """
    step: dict[str, Any]
    if isinstance(method.step, ConstantStep):
        step = {"kind": "constant", "eta": float(method.step.eta)}
    elif isinstance(method.step, NormalisedStep):
        step = {"kind": "normalised", "c": float(method.step.c), "floor": float(method.step.floor)}
    else:
        raise InvalidInputError(
            "step", method.step, "ConstantStep or NormalisedStep", "Plan with a constant step."
        )
    if method.projection is not None:
        raise InvalidInputError(
            "projection", method.projection, "None", "No certified theorem uses a projection yet."
        )
    stochastic = isinstance(method, SGD)
    return {
        "name": method.name,
        "steps": int(method.steps),
        "step": step,
        "sampling": method.sampling if stochastic else None,
        "batch_size": int(method.batch_size) if stochastic else None,
        "seed": int(seed),
    }


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a certificate with floats decoded, checked for form only (`verify` checks the content).

    Args:
        path: ``certificate.json`` or its folder.

    Raises:
        InvalidInputError: if it cannot be read or has a field the schema refuses.
    """
    file = Path(path)
    file = file / CERTIFICATE if file.is_dir() else file
    try:
        return document.parse(document.read(file))
    except (document.UnreadableError, claims.CheckError) as error:
        raise InvalidInputError("certificate", str(path), "a proxyconvex certificate", str(error)) from error


def verify(path: str | os.PathLike[str]) -> Result:
    """Re-check a certificate with the independent checker; the result lists every step."""
    return _check(Path(path))


# --- parts -------------------------------------------------------------------------------------------------


def _claim_of(family: str, theorem: str, sampling: str | None) -> claims.Claim:
    key = (family, theorem, sampling)
    if key not in CLAIMS:
        raise InvalidInputError(
            "theorem", theorem, f"a theorem the checker knows for {family} with {sampling or 'GD'}"
        )
    return CLAIMS[key]


def _claim_fields(plan: Plan, claim: claims.Claim) -> dict[str, Any]:
    """The claim; refuses a plan that says something else than its theorem."""
    promise = plan.guarantee
    for field, value in (
        ("quantity", claim.quantity),
        ("mode", claim.mode),
        ("evidence", claim.evidence),
    ):
        said = promise.evidence.name if field == "evidence" else getattr(promise, field)
        if said != value:
            raise InvalidInputError(
                f"guarantee.{field}", said, f"{value!r}, which theorem {promise.theorem} gives"
            )
    error_bound = plan.derived.get("error_bound")
    return {
        "quantity": claim.quantity,
        "bound": claims.padded("bound", plan.derived["bound"]),
        "error_bound": None if error_bound is None else claims.padded("error_bound", error_bound),
        "mode": claim.mode,
        "probability": claims.probability(plan.theorem_params, claim),
        "evidence": claim.evidence,
        "premises": [],
    }


def _parameters(params: dict[str, Any], claim: claims.Claim) -> dict[str, int | float]:
    return {
        name: int(value) if name in claim.integers and float(value).is_integer() else float(value)
        for name, value in params.items()
    }


def _preprocessing_fields(settings: Any) -> dict[str, Any]:
    return {
        "kept_columns": [int(i) for i in settings.kept_columns],
        "center": bool(settings.center),
        "scale": str(settings.scale),
        "divide_by": float(settings.divide_by),
        "unit_norm": bool(settings.unit_norm),
        "bias": float(settings.bias),
    }


def _printable(text: str) -> str:
    """Names come from files; a certificate holds printable ones of at most 200 characters."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if 0 < len(clean) <= 200 else (clean[:199] + "…" if clean else "unnamed")
