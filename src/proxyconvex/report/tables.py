"""The tables of the report: runs, theorems, data, model, the T7 ledger and references, as plain strings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.methods import SGD
from . import series
from .format import number, percent, quantity_value
from .summary import method_line

if TYPE_CHECKING:
    from ..core.guarantee import Alternative
    from ..core.references import Reference
    from ..descent.trace import Trace
    from ..synthesis.plan_types import Plan
    from .audit import Audit

LABELS = {"seed": "Seed of the initial weights", "init_scale": "Scale of the initial weights"}


def ledger_rows(trace: Trace) -> list[tuple[str, str]]:
    """T7's two sides at the end of the run; the residual is relative to the sum of absolute terms."""
    distance = series.column(trace, "dist_sq")
    left = series.final_total(trace, "sum_eta_inner")
    squares = series.final_total(trace, "sum_eta2_grad_sq")
    first = float(distance[0]) if distance.size else math.nan
    last = float(distance[-1]) if distance.size else math.nan
    moved, spent = (first - last) / 2, squares / 2
    absolute = series.final_total(trace, "sum_abs")
    absolute = (absolute if math.isfinite(absolute) else abs(left)) + abs(first) / 2 + abs(last) / 2 + spent
    residual = abs(left - moved - spent)
    relative = residual / absolute if absolute > 0 else math.nan
    return [
        ("Σ η ⟨d, w − v⟩", number(left, 8)),
        ("(‖w₀ − v‖² − ‖w_T − v‖²) / 2", number(moved, 8)),
        ("½ Σ η² ‖d‖²", number(spent, 8)),
        ("left side − right side", number(left - moved - spent, 3)),
        ("sum of absolute terms", number(absolute, 5)),
        ("relative residual", number(relative, 3)),
    ]


def run_rows(audit: Audit) -> list[dict[str, str]]:
    """One row per seed when there are several runs."""
    if len(audit.runs) < 2:
        return []
    _, name, _ = series.describe_quantity(audit.plan.guarantee.quantity)
    is_error, numeric = name == "error", audit.plan.dataset.task == "regression"
    out = []
    for trace in audit.runs:
        value = series.reduced(trace, audit.plan.guarantee.quantity)
        error = series.column(trace, "error")
        out.append(
            {
                "run": str(trace.seed),
                "value": quantity_value(value, is_error),
                "error": "–" if numeric else percent(error[-1] if len(error) else math.nan),
                "steps": number(int(trace.steps_done)),
            }
        )
    return out


def alternative_row(a: Alternative, plan: Plan) -> dict[str, Any]:
    """One theorem: whether it applies, why, and what it would promise."""
    return {
        "theorem": a.theorem,
        "accepted": a.accepted,
        "chosen": a.accepted and a.theorem == plan.guarantee.theorem,
        "reason": a.reason,
        "bound": "" if a.bound is None else number(a.bound, direction="up"),
        "error": "" if a.error_bound is None else percent(a.error_bound, direction="up"),
    }


def data_rows(plan: Plan) -> list[tuple[str, str]]:
    """The data set: size, classes, preprocessing, digest."""
    data, targets = plan.dataset, np.asarray(plan.dataset.targets)
    n, d = plan.features.shape
    raw_columns = np.shape(data.raw)[1] if np.ndim(data.raw) == 2 else len(data.columns)
    if data.task == "regression":
        what = (
            "Target",
            f"numeric, {number(targets.min())} to {number(targets.max())}, mean {number(targets.mean())}",
        )
    else:
        values = (-1, 1) if data.task == "binary" else range(len(data.labels))
        shown = ("−1", "+1") if data.task == "binary" else tuple(map(str, values))
        what = (
            "Classes",
            ", ".join(
                f"{label} ({number(int((targets == v).sum()))} rows, target {s})"
                for label, v, s in zip(data.labels, values, shown, strict=True)
            ),
        )
    described = plan.preprocessing.describe()
    steps = [described] if isinstance(described, str) else [str(s) for s in described]
    return [
        ("Name", str(data.name)),
        ("Source", str(data.source)),
        ("Rows n", number(int(n))),
        ("Features d", f"{number(int(d))} after preprocessing, {number(int(raw_columns))} in the raw data"),
        what,
        ("Columns", _shorten([str(c) for c in data.columns])),
        ("Preprocessing", "; ".join(steps)),
        ("Digest (SHA-256)", str(data.digest)),
    ]


def _shorten(names: list[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown + (f", and {len(names) - most} more" if len(names) > most else "")


def model_rows(plan: Plan) -> list[tuple[str, str]]:
    """Architecture and method."""
    rows = [("Family", f"{plan.family.name}: {plan.family.title}")]
    for key, value in plan.family.describe().items():
        if key != "name":
            shown = (
                ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
                if isinstance(value, dict)
                else _plain(value)
            )
            rows.append((LABELS.get(key, key.replace("_", " ").capitalize()), shown))
    rows.append(("Method", method_line(plan.method)))
    return [*rows, ("Sampling seed", str(plan.seed))] if isinstance(plan.method, SGD) else rows


def _plain(value: object) -> str:
    return number(value, 8) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def exact(value: object) -> str:
    """A float as the hexadecimal text that the certificate stores."""
    try:
        return float(value).hex()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)


def references(plan: Plan) -> list[Reference]:
    """The sources of exactly the results used: the guarantee's and its premises', each once."""
    used = [*plan.guarantee.references, *(p.reference for p in plan.guarantee.premises)]
    return list({r.key: r for r in used}.values())


def safe_url(url: str) -> str:
    """The address, or nothing if it is not a web address."""
    return url if url.startswith(("https://", "http://")) else ""
