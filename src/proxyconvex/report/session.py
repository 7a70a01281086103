"""The main job in one call: certificate, training with a checkpoint, audit and report in one folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..core.errors import InvalidInputError
from ..synthesis.execute import require_seeds, run, run_seeds
from ..synthesis.plan_types import Plan
from .audit import Audit, audit
from .certificate import CERTIFICATE, certifiable, write_certificate
from .html import write_report
from .summary import summary


def write_promise(plan: Plan, folder: Path) -> Path:
    """The certificate, or ``promise.json`` for a promise that the independent checker cannot state (a conditional one)."""
    if certifiable(plan):
        path = write_certificate(plan, folder)
        (folder / "promise.json").unlink(missing_ok=True)
        return path
    # A certificate of an earlier plan must not lie beside a promise that has none.
    (folder / CERTIFICATE).unlink(missing_ok=True)
    path = folder / "promise.json"
    path.write_text(json.dumps(summary(plan), indent=1, allow_nan=False) + "\n")
    return path


OUTCOME = ("trace.npz", "audit.json", "report.html")
"""Files about what happened: those of an earlier run are removed before another one starts."""


def output_folder(folder: str | Path) -> Path:
    """The folder, created if needed.

    Raises:
        InvalidInputError: if it cannot be made or written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        raise InvalidInputError(
            "out", str(folder), "a folder that can be created", f"{error.strerror or error}."
        ) from error
    if not writable:
        raise InvalidInputError("out", str(folder), "a folder that can be written to", "Choose another one.")
    return path


def promise_folder(folder: str | Path) -> Path:
    """`output_folder` for a promise alone.

    Raises:
        InvalidInputError: also if the folder holds the outcome of a run, which would then lie beside another promise.
    """
    path = output_folder(folder)
    if (path / "audit.json").exists():
        raise InvalidInputError(
            "out", str(folder), "a folder without the outcome of a run",
            "Choose another one: audit.json there belongs to the promise beside it.",
        )  # fmt: skip
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

    Raises:
        InvalidInputError: for a folder that cannot be written, several runs without randomness, or a checkpoint of another run.
    """
    if runs > 1:
        require_seeds(plan, runs)
    folder = output_folder(folder)
    checkpoint = folder / "checkpoint.npz"
    # Of a run that is continued the promise is on disk; if the checkpoint turns out to be another run's, nothing is touched.
    continued = resume and checkpoint.exists()
    if not continued:
        write_promise(plan, folder)
        for name in OUTCOME:
            (folder / name).unlink(missing_ok=True)
    trace = run(plan, progress=progress, checkpoint=checkpoint, resume=resume)
    if continued:
        write_promise(plan, folder)
    others = run_seeds(plan, [plan.seed + i for i in range(1, runs)], progress=progress) if runs > 1 else []
    trace.save(folder / "trace.npz")
    result = audit(plan, trace, *others, command=command)
    (folder / "audit.json").write_text(json.dumps(result.summary(), indent=1, allow_nan=False) + "\n")
    write_report(result, folder / "report.html")
    return result
