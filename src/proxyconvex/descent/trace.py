"""What a training run leaves behind: a `Trace` of NumPy arrays, saved to and loaded from one ``.npz`` file."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..core.errors import InvalidInputError
from ..core.methods import (
    SGD,
    BallProjection,
    ConstantStep,
    GradientDescent,
    Method,
    NormalisedStep,
    PolynomialStep,
    Step,
)

FORMAT = "proxyconvex-trace-1"
COLUMNS = ("loss", "g", "h", "inner", "grad_sq", "dist_sq", "error", "slope", "eta")
SUMS = (
    "sum_eta", "sum_eta_inner", "sum_eta2_grad_sq", "sum_eta_g", "sum_eta_h", "sum_g", "sum_h",
    "sum_online_error", "sum_abs", "sum_loss", "sum_slope",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Trace:
    """The record of one run ``w_{t+1} = w_t - eta_t d_t``, ``t = 0 .. steps_done - 1``.

    Record k describes the iterate ``w_t``, ``t = step[k]``; the first is t = 0 and the last t = ``steps_done``, the
    iterate from which no step was taken. For full-batch descent every column is the value on all data. For SGD
    ``loss, g, h, error, slope`` are values on *all* data at ``w_t``, while ``inner`` and ``grad_sq`` are those of
    the gradient ``d_t`` of the drawn rows (NaN in the last record, where nothing is drawn).

    Attributes:
        step: recorded steps, increasing, shape (k,).
        loss: mean loss.
        g: mean proxy ``g``.
        h: mean proxy ``h``.
        inner: ``<d_t, w_t - v>``.
        grad_sq: ``||d_t||^2``.
        dist_sq: ``||w_t - v||^2``.
        error: error of ``w_t`` (a fraction of the rows for classification).
        slope: mean ``|loss'|``.
        eta: step size taken from ``w_t`` (0 in the last record).
        sums: running sums over *every* step ``s < step[k]`` of what was used in that step (SGD: the drawn rows),
            each of shape (k,): ``sum_eta``, ``sum_eta_inner``, ``sum_eta2_grad_sq``, ``sum_eta_g``, ``sum_eta_h``,
            ``sum_g``, ``sum_h``, ``sum_online_error``, ``sum_abs`` (of ``|eta inner|``), ``sum_loss``,
            ``sum_slope``. The final values are also attributes: ``trace.sum_eta_inner``.
        min_error: least error; full batch: over every ``w_t``, ``t < steps_done``; SGD: over the recorded ones.
        min_error_step: first step at which it was reached.
        min_loss: least loss, over the same iterates.
        min_loss_step: first step at which it was reached.
        best_steps: steps at which the least error so far went down, shape (j,), at most
            ``rows + 2`` of them.
        best_errors: the errors there, strictly decreasing.
        best_max_dist_sq: largest ``||w_s - v||^2`` over every ``s <= best_steps``.
        max_dist_sq: largest ``||w_t - v||^2`` over *every* ``t <= steps_done``.
        max_dist_step: first step at which it was reached.
        exit_step: first ``t`` with ``sum_{s<t} (g_s - h_s) < 0``, -1 if there is none (premise of T5).
        max_dist_sq_until_exit: largest ``||w_t - v||^2`` over every ``t <= exit_step``.
        min_slack: least ``<d_t, w_t - v> - g_t + h_t`` over *every* step, on the rows used in the step.
        min_slack_step: first step at which it was reached.
        max_growth: largest ``||d_t|| / mean|loss'|`` over *every* step, on the rows used in the step.
        initial: ``w_0``.
        final_w: ``w_{steps_done}``.
        best_w: iterate at ``min_error_step`` (None from `train_many`).
        comparator_norm: ``||v||``.
        rows: number of rows of the data.
        method: what was run.
        seed: sampling seed.
        steps_done: number of steps taken.
        interrupted: stopped by the user before the last step.
        finite: False if a value overflowed or was not a number; the run stops at that iterate.
        nonfinite_step: the step of the first such iterate, -1 if all is finite.
        online: values on the rows used at every step, by column name, each of shape (steps_done,); empty unless
            asked for.
        watched: what `Problem.watch` said at a few iterates, by name, with their ``step``, each of shape (j,).
    """

    step: Int[np.ndarray, " k"]
    loss: Float[np.ndarray, " k"]
    g: Float[np.ndarray, " k"]
    h: Float[np.ndarray, " k"]
    inner: Float[np.ndarray, " k"]
    grad_sq: Float[np.ndarray, " k"]
    dist_sq: Float[np.ndarray, " k"]
    error: Float[np.ndarray, " k"]
    slope: Float[np.ndarray, " k"]
    eta: Float[np.ndarray, " k"]
    sums: dict[str, Float[np.ndarray, " k"]]
    min_error: float
    min_error_step: int
    min_loss: float
    min_loss_step: int
    best_steps: Int[np.ndarray, " j"]
    best_errors: Float[np.ndarray, " j"]
    best_max_dist_sq: Float[np.ndarray, " j"]
    max_dist_sq: float
    max_dist_step: int
    exit_step: int
    max_dist_sq_until_exit: float
    min_slack: float
    min_slack_step: int
    max_growth: float
    initial: np.ndarray
    final_w: np.ndarray
    best_w: np.ndarray | None
    comparator_norm: float
    rows: int
    method: Method
    seed: int
    steps_done: int
    interrupted: bool = False
    finite: bool = True
    nonfinite_step: int = -1
    online: dict[str, Float[np.ndarray, " t"]] = field(default_factory=dict)
    watched: dict[str, Float[np.ndarray, " j"]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> float:
        # Only reached for names that are not fields: the final values of the running sums.
        if name in SUMS:
            return self.total(name)
        raise AttributeError(f"Trace has no attribute {name!r}")

    def total(self, name: str) -> float:
        """The final value of a running sum, over all steps taken."""
        return float(self.sums[name][-1])

    @property
    def stochastic(self) -> bool:
        """Whether a step used drawn rows only."""
        return isinstance(self.method, SGD)

    @property
    def complete(self) -> bool:
        """Whether every planned step was taken."""
        return self.steps_done == self.method.steps

    @property
    def initial_dist_sq(self) -> float:
        """``||w_0 - v||^2``."""
        return float(self.dist_sq[0])

    @property
    def online_error(self) -> float:
        """Average over all steps of the error on the rows used, before they were used."""
        return self.total("sum_online_error") / max(self.steps_done, 1)

    def first_step_with_error(self, at_most: float) -> tuple[int, float] | None:
        """First step whose error is at most this, and the largest ``||w_s - v||^2`` over every ``s`` up to it.

        Returns:
            ``(step, max_dist_sq)``, or None if the error never got there.
        """
        hit = np.flatnonzero(self.best_errors <= at_most)
        return None if not hit.size else (int(self.best_steps[hit[0]]), float(self.best_max_dist_sq[hit[0]]))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to one ``.npz`` file, atomically; the same trace gives the same bytes."""
        arrays: dict[str, np.ndarray] = {}
        plain: dict[str, Any] = {"format": FORMAT, "method": method_fields(self.method)}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name in ("sums", "online", "watched"):
                arrays |= {f"{f.name}/{k}": v for k, v in value.items()}
            elif isinstance(value, np.ndarray):
                arrays[f.name] = value
            elif f.name != "method":
                plain[f.name] = value
        arrays["plain"] = np.array(json.dumps(plain))
        return write_npz(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace written by `save`.

        Raises:
            InvalidInputError: if the file is not a trace.
        """
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
        plain = json.loads(str(arrays.pop("plain", np.array("{}"))))
        if plain.pop("format", None) != FORMAT:
            raise InvalidInputError(
                "path", str(path), f"a file in the format {FORMAT}", "Write it with Trace.save."
            )
        plain["method"] = method_from_fields(plain["method"])
        for name in ("sums", "online", "watched"):
            keys = [k for k in arrays if k.startswith(f"{name}/")]
            plain[name] = {k.split("/", 1)[1]: arrays.pop(k) for k in keys}
        return cls(**plain, **arrays)

    def __repr__(self) -> str:
        state = "complete" if self.complete else "interrupted" if self.interrupted else "stopped"
        if not self.finite:
            state = f"not finite at step {self.nonfinite_step:,}"
        return (
            f"<Trace: {self.method.name}, {self.steps_done:,} of {self.method.steps:,} steps ({state}), "
            f"loss {self.loss[-1]:.4g}, error {self.error[-1]:.4g} (least {self.min_error:.4g} at step "
            f"{self.min_error_step:,}), {len(self.step):,} records>"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def write_npz(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> Path:
    """Write arrays to ``path`` through a temporary neighbour, so that a reader never sees half a file."""
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(scratch, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


_STEPS: dict[str, type[Step]] = {
    "constant": ConstantStep,
    "polynomial": PolynomialStep,
    "normalised": NormalisedStep,
}


def method_fields(method: Method) -> dict[str, Any]:
    """A method as JSON-ready fields (floats survive exactly: JSON prints their shortest round-trip form)."""
    kind = next(k for k, c in _STEPS.items() if isinstance(method.step, c))
    fields: dict[str, Any] = {
        "steps": method.steps,
        "step": {"kind": kind, **dataclasses.asdict(method.step)},
    }
    fields["projection"] = None if method.projection is None else method.projection.radius
    if isinstance(method, SGD):
        fields |= {"batch_size": method.batch_size, "sampling": method.sampling}
    return fields


def method_from_fields(fields: dict[str, Any]) -> Method:
    """The inverse of `method_fields`."""
    step = dict(fields["step"])
    rest: dict[str, Any] = {k: v for k, v in fields.items() if k not in ("step", "projection")}
    rest["step"] = _STEPS[step.pop("kind")](**step)
    rest["projection"] = None if fields["projection"] is None else BallProjection(fields["projection"])
    return SGD(**rest) if "sampling" in rest else GradientDescent(**rest)
