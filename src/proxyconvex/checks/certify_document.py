"""Write a proof by boxes as a certificate that `proxyconvex_checker` re-verifies."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from proxyconvex_checker import boxes_verify, document

from ..core.expressions import instructions
from ..core.reduced import MEAN, RIDGE, ReducedCondition
from .certify_rewrite import Plan


def _lift(condition: ReducedCondition) -> str:
    names = ", ".join(condition.variables)
    return {MEAN.format(names=names): "mean", RIDGE.format(names=names): "single-neuron"}.get(condition.lift, "none")


def _form(plan: Plan) -> dict[str, Any]:
    return {
        "u": plan.u,
        "v": plan.v,
        "y": plan.y,
        "order": plan.order,
        "matrix": [instructions(m) for m in plan.matrix],
        "factors": [[{"of": instructions(e), "power": n} for e, n in part] for part in plan.factors],
    }


def draft(condition: ReducedCondition, plan: Plan | None, codes: np.ndarray, delta: Fraction) -> dict[str, Any]:
    """The sealed document of a proof."""
    from .. import __version__

    raw: dict[str, Any] = {
        "format": boxes_verify.FORMAT,
        "schema": boxes_verify.SCHEMA,
        "proxyconvex": __version__,
        "statement": "-",
        "variables": [[k, str(lo), str(hi)] for k, (lo, hi) in condition.variables.items()],
        "constants": [[k, str(v)] for k, v in condition.constants.items()],
        "slack": instructions(condition.expression),
        "curve": None if condition.curve is None else instructions(condition.curve),
        "delta": str(delta),
        "lift": _lift(condition),
        "form": None if plan is None else _form(plan),
        "tree": {
            "nodes": len(codes),
            "leaves": int((codes >= boxes_verify.NATURAL).sum()),
            "data": boxes_verify.pack(codes),
        },
        "trusted": boxes_verify.TRUSTED,
        "seal": "0" * 64,
    }
    raw["statement"] = boxes_verify.statement(boxes_verify.parse(raw))
    raw["seal"] = document.seal(raw)
    return raw


def write(raw: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write a document, atomically; returns its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(json.dumps(raw, indent=1) + "\n")
    partial.replace(target)
    return target
