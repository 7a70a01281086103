"""The one JSON object that the command line prints, and the method as one readable line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..core.methods import SGD, ConstantStep, Method, NormalisedStep
from ..synthesis.plan_types import Plan

if TYPE_CHECKING:
    from ..core.guarantee import Guarantee
    from .audit import Audit


def _number(x: float | None) -> float | None:
    """JSON has no NaN or infinity; they become null."""
    return None if x is None or not math.isfinite(x) else float(x)


def step_fields(method: Method) -> dict[str, Any]:
    """The step-size rule as JSON-ready fields."""
    step = method.step
    if isinstance(step, ConstantStep):
        return {"kind": "constant", "eta": step.eta}
    if isinstance(step, NormalisedStep):
        return {"kind": "normalised", "c": step.c, "floor": step.floor}
    return {"kind": "polynomial", "eta": step.eta, "power": step.power, "scale": step.scale}


def method_line(method: Method) -> str:
    """The method in one line, e.g. ``SGD (with-replacement, batch 1), eta = 0.5, 1,000,000 steps``."""
    step = method.step
    if isinstance(step, ConstantStep):
        rule = f"eta = {step.eta:.6g}"
    elif isinstance(step, NormalisedStep):
        rule = f"eta_t = {step.c:.6g} / max(mean|loss'|, {step.floor:.3g})"
    else:
        rule = f"eta_t = {step.eta:.6g} / (1 + t/{step.scale:g})^{step.power:g}"
    kind = (
        f"SGD ({method.sampling}, batch {method.batch_size})" if isinstance(method, SGD) else "full-batch GD"
    )
    return f"{kind}, {rule}, {method.steps:,} steps"


def baseline_words(plan: Plan) -> str:
    """What has the loss or risk that a promise is compared with (`Guarantee.baseline`)."""
    return "zero vector" if plan.family.name == "rank-one" else "best constant prediction"


def _premises(guarantee: Guarantee) -> list[dict[str, Any]]:
    return [
        {"name": p.name, "statement": p.statement, "evidence": p.evidence.name, "value": _number(p.value)}
        for p in guarantee.premises
    ]


def summary(plan: Plan, audit: Audit | None = None) -> dict[str, Any]:
    """The object printed by ``--json``: what was promised, and, after a run, what happened."""
    g = plan.guarantee
    step = step_fields(plan.method)
    document: dict[str, Any] = {
        "family": plan.family.name,
        "data": {
            "name": plan.dataset.name,
            "n": int(plan.features.shape[0]),
            "d": int(plan.features.shape[1]),
            "digest": plan.dataset.digest,
        },
        "architecture": plan.family.describe(),
        "method": plan.method.name,
        "step_size": step.get("eta", step.get("c")),
        "step": step,
        "steps": plan.method.steps,
        "guarantee": {
            "theorem": g.theorem,
            "quantity": g.quantity,
            "sentence": g.sentence,
            "mode": g.mode,
            "probability": g.probability,
            "bound": _number(g.bound),
            "error_bound": _number(g.error_bound),
            "baseline": _number(g.baseline),
            "vacuous": g.vacuous,
            "evidence": g.evidence.name,
            "conditional": plan.conditional,
            "premises": _premises(g),
        },
        "notes": list(plan.notes),
        "measured": None,
        "consistent": None,
    }
    if audit is not None:
        document["measured"] = {
            k: _number(v) if isinstance(v, float) else v for k, v in audit.measured.items()
        }
        document["checks"] = [{"name": c.name, "ok": c.ok, "sentence": c.sentence} for c in audit.checks]
        document["consistent"] = audit.consistent
        after = audit.after_run
        if plan.conditional:
            document["after_run"] = after and {
                "sentence": after.sentence,
                "evidence": after.evidence.name,
                "bound": _number(after.bound),
                "error_bound": _number(after.error_bound),
                "premises": _premises(after),
            }
        if audit.trace.watched:
            document["watched"] = {k: [_number(float(x)) for x in v] for k, v in audit.trace.watched.items()}
    return document
