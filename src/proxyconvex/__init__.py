"""Guarantees for gradient training that can be computed on your data and checked by anyone.

    import proxyconvex as pc

    plan = pc.plan("breast-cancer", family="two-layer-ntk", width=1024)
    run = pc.run(plan)
    audit = pc.audit(plan, run)

Names are imported on first use, so that ``import proxyconvex`` is fast and pulls in no solver, plotter or data library.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "plan": "synthesis.plan",
    "Plan": "synthesis.plan_types",
    "run": "synthesis.execute",
    "run_seeds": "synthesis.execute",
    "audit": "report.audit",
    "Audit": "report.audit",
    "load": "data",
    "Dataset": "data",
    "Preprocessing": "data",
    "Trace": "descent.trace",
    "train": "descent.run",
    "train_many": "descent.run",
    "write_certificate": "report.certificate",
    "verify": "report.certificate",
    "write_report": "report.html",
    "Evidence": "core.evidence",
    "Status": "core.evidence",
    "Verdict": "core.evidence",
    "InvalidInputError": "core.errors",
    "GradientDescent": "core.methods",
    "SGD": "core.methods",
    "ConstantStep": "core.methods",
    "PolynomialStep": "core.methods",
    "NormalisedStep": "core.methods",
    "BallProjection": "core.methods",
    "Guarantee": "core.guarantee",
    "guarantee": "core.explain",
    "explain": "core.explain",
    "THEOREMS": "core.theorems",
    "trace_identity": "core.trace_identity",
    "Activation": "families.activations",
    "Link": "families.links",
    **dict.fromkeys(("WeightSpace", "TwoLayerNetwork", "DenseNetwork"), "checks.weights.space"),
    **dict.fromkeys(("Layers", "layer_bounds", "hessian_bound"), "checks.weights.layer_bounds"),
    "joint_flip_bound": "checks.weights.joint_flips",
    "certify_on_ball": "checks.weights.premises",
    **dict.fromkeys(
        ("ProxyConvexity", "ProxyPL", "Smooth", "BoundedBelow", "GradientGrowth", "Noise"), "core.conditions"
    ),
    "Box": "core.region_box",
    **dict.fromkeys(("WholeSpace", "Ball", "PerNeuronBalls", "Product", "intersect"), "core.regions"),
    **dict.fromkeys(
        (
            "Start",
            "IIDRows",
            "BoundedProxy",
            "IterateRange",
            "Confidence",
            "TangentMargins",
            "OutputGradient",
        ),
        "core.setting",
    ),
    "Constant": "core.premises",
    "reduced": "core.reduced",
    "ReducedCondition": "core.reduced",
    "certify": "checks.certify.certify",
    "falsify": "checks.falsify.falsify",
    "tightest": "checks.tightest",
    "export_coq": "checks.certify.export_coq",
    "export_smt": "checks.certify.export_smt",
    **dict.fromkeys(
        ("estimate", "estimate_mean", "estimate_noise", "smoothness_upper", "curvature_lower"),
        "checks.estimate",
    ),
    **dict.fromkeys(("combine", "scale", "reparametrise", "regularise", "weaken", "bridge"), "core.calculus"),
    **dict.fromkeys(
        (
            "convex",
            "strongly_convex",
            "star_convex",
            "quasar_convex",
            "restricted_secant",
            "one_point_convex",
            "polyak_lojasiewicz",
            "kurdyka_lojasiewicz",
        ),
        "core.classical",
    ),
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'proxyconvex' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
