"""The main job in one call: certificate, training with a checkpoint, audit and report in one folder."""

from __future__ import annotations

import json
from pathlib import Path

from ..synthesis.execute import run, run_seeds
from ..synthesis.plan_types import Plan
from .audit import Audit, audit
from .certificate import certifiable, write_certificate
from .html import write_report
from .summary import summary


def write_promise(plan: Plan, folder: Path) -> Path:
    """The certificate, or ``promise.json`` for a promise that the independent checker cannot state (a conditional one)."""
    if certifiable(plan):
        return write_certificate(plan, folder)
    path = folder / "promise.json"
    path.write_text(json.dumps(summary(plan), indent=1, allow_nan=False) + "\n")
    return path


def audit_folder(
    plan: Plan,
    folder: str | Path,
    *,
    runs: int = 1,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
) -> Audit:
    """Write the promise, train, check the run against it, and write the outcome beside it.

    The certificate is written before training starts, so that the promise is on disk before anything has happened.

    Args:
        plan: what to promise and train.
        folder: created if needed; receives ``certificate.json`` (with its arrays; ``promise.json`` where there is no certificate), ``checkpoint.npz``, ``trace.npz``,
            ``audit.json`` and ``report.html``.
        runs: number of sampling seeds (SGD only); the first is the plan's own seed.
        resume: continue from ``checkpoint.npz``.
        progress: show a progress bar on standard error.
        command: the line that reproduces this call, for the report.

    Returns:
        The audit.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_promise(plan, folder)
    trace = run(plan, progress=progress, checkpoint=folder / "checkpoint.npz", resume=resume)
    others = run_seeds(plan, [plan.seed + i for i in range(1, runs)], progress=progress) if runs > 1 else []
    trace.save(folder / "trace.npz")
    result = audit(plan, trace, *others, command=command)
    (folder / "audit.json").write_text(json.dumps(result.summary(), indent=1, allow_nan=False) + "\n")
    write_report(result, folder / "report.html")
    return result
