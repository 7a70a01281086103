"""What a hook cannot see, from a batch: the tangent loss (U1), two half-batch gradients, secant smoothness, the tangent kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from .dense import Chain
from .functional import Functional, inner, random_state

Loss = Callable[[Tensor, Any], Tensor]
# Largest stored Jacobian of the probe set, in entries (256 MiB of float32), and its largest number of rows.
JACOBIAN_ENTRIES, JACOBIAN_ROWS = 1 << 26, 64


class Evaluated(Protocol):
    """A model whose gradients are taken: `Functional`, or `OverRanks`."""

    device: torch.device

    def weights(self) -> list[Tensor]:
        """The current weights, sharing memory."""
        ...

    def gradient(
        self, inputs: Any, targets: Any, loss_fn: Loss, random_state: Any = None
    ) -> tuple[float, list[Tensor]]:
        """Loss and gradient on a batch."""
        ...

    def inner(self, a: list[Tensor], b: list[Tensor]) -> float:
        """``<a, b>``."""
        ...


@final
@dataclass
class Batch:
    """A batch kept until the next step for the secant.

    Attributes:
        inputs, targets, loss_fn: as given to `Monitor.batch`.
        random_state: states of the generators when it was given, so that dropout draws the same masks twice.
        loss: its loss at ``w_t``.
        gradient: its gradient at ``w_t`` (of a sharded model: this rank's shards of the gradient over all ranks).
        weights: ``w_t``.
        step: t.
    """

    inputs: Any
    targets: Any
    loss_fn: Loss
    random_state: Any
    loss: float
    gradient: list[Tensor]
    weights: list[Tensor]
    step: int


def tangent_loss(
    model: Functional | Chain, inputs: Any, targets: Any, loss_fn: Loss, references: dict[str, list[Tensor]]
) -> dict[str, Any]:
    """U1 at each comparator: the loss of the tangent model, with what proves its inequality on this very forward pass.

    For a loss convex in the outputs, ``loss(N + D N[v - w]) >= loss(N) + <loss'(N), D N[v - w]>``, and the last term is
    ``<grad f(w), v - w>``. Returned are the three numbers: ``tangent_loss``, ``probe_loss`` and
    ``probe_inner = <grad f(w), w - v>``, all on one forward pass (the same dropout masks, the same batch statistics).
    """
    tangent, product, loss = {}, {}, 0.0
    for label, v in references.items():
        out, slope = model.towards(inputs, v)
        value, derivative = model.derivative(out, targets, loss_fn)
        with torch.no_grad():
            loss = float(value)
            tangent[label] = float(loss_fn(out + slope, targets))
            product[label] = -inner([derivative], [slope])
    return {"tangent_loss": tangent, "probe_loss": loss, "probe_inner": product}


def keep_for_secant(model: Evaluated, inputs: Any, targets: Any, loss_fn: Loss, step: int) -> Batch:
    """Evaluate a batch at ``w_t`` and keep it until ``w_{t+1}`` is there."""
    state = random_state(model.device)
    loss, gradient = model.gradient(inputs, targets, loss_fn, state)
    weights = [w.clone() for w in model.weights()]
    return Batch(inputs, targets, loss_fn, state, loss, gradient, weights, step)


def secant(model: Evaluated, batch: Batch) -> dict[str, float]:
    """Smoothness seen between ``w_t`` and ``w_{t+1}`` on one batch (the same rows, the same masks).

    ``secant_smoothness = ||grad f(w_{t+1}) - grad f(w_t)|| / ||u||`` and the least L of the descent inequality,
    ``2 (f(w_{t+1}) - f(w_t) - <grad f(w_t), u>) / ||u||^2``, ``u = w_{t+1} - w_t``.
    """
    loss, gradient = model.gradient(batch.inputs, batch.targets, batch.loss_fn, batch.random_state)
    step = [w - p for w, p in zip(model.weights(), batch.weights, strict=True)]
    size = model.inner(step, step)
    if not size > 0:
        return {}
    change = [a - b for a, b in zip(gradient, batch.gradient, strict=True)]
    gap = loss - batch.loss - model.inner(batch.gradient, step)
    return {
        "secant_smoothness": float(np.sqrt(model.inner(change, change) / size)),
        "descent_smoothness": 2 * gap / size,
    }


def tangent_kernel(model: Functional, inputs: Any, targets: Any) -> dict[str, float]:
    """On a probe set in evaluation mode: the smallest eigenvalue of the tangent kernel, and a tangent margin.

    ``K = J J^T`` over the rows of outputs. The margin is that of the unit direction recovered from an approximate minimiser
    ``p`` of ``p^T K p`` over the simplex, ``min_i (K p)_i / sqrt(p^T K p)``: a lower bound on ``max_V min_i <phi_i, V>`` (an
    approximate ``sqrt(p^T K p)`` would be above it). ``phi_i`` is ``y_i grad N`` for one output and labels -1, 1 or 0, 1, and
    ``grad (N_y - N_c)``, c the strongest other class, for several.
    """
    parameters = sum(p.numel() for p in model.params)
    limit = min(JACOBIAN_ROWS, JACOBIAN_ENTRIES // parameters)
    if limit < 2:
        return {}
    out, rows = model.rows(inputs, limit)
    kernel = (
        (rows.double() @ rows.double().T).cpu().numpy()
        if parameters < 1 << 20
        else (rows @ rows.T).double().cpu().numpy()
    )
    result = {
        "ntk_eigenvalue": float(np.linalg.eigvalsh(kernel)[0]),
        "probe_rows": float(len(out)),
    }
    signs = _signs(out.double().cpu().numpy(), targets)
    if signs is not None:
        signed = signs @ kernel @ signs.T
        result["tangent_margin"] = simplex_margin(signed)
    return result


def _signs(out: np.ndarray, targets: Any) -> np.ndarray | None:
    """Matrix that turns output rows into margins, shape [n, n * c]; None if the targets are not classes."""
    if not isinstance(targets, Tensor) or targets.dim() > 2 or targets.numel() < len(out):
        return None
    n, c = out.shape
    y = targets.reshape(-1)[:n].double().cpu().numpy()
    if c == 1:
        if set(np.unique(y)) <= {0.0, 1.0}:
            y = 2 * y - 1
        return np.diag(y) if set(np.unique(y)) <= {-1.0, 1.0} else None
    if targets.is_floating_point() or y.min() < 0 or y.max() >= c:
        return None
    matrix = np.zeros((n, n * c))
    for i, label in enumerate(y.astype(int)):
        others = out[i].copy()
        others[label] = -np.inf
        matrix[i, i * c + label], matrix[i, i * c + int(others.argmax())] = 1.0, -1.0
    return matrix


def simplex_margin(kernel: np.ndarray) -> float:
    """Margin of the direction of an approximate minimiser of ``p^T K p`` on the simplex; a lower bound on the largest margin.

    ``min ||A p||^2 + (1^T p - 1)^2`` over ``p >= 0``, ``K = A^T A``, is a non-negative least-squares problem whose solution is a
    multiple of the minimiser on the simplex: at ``p = s q``, ``q`` in the simplex, its value ``s^2 m + (s - 1)^2`` with ``m = q^T K q``
    is least at ``m / (1 + m)``, increasing in m.
    """
    values, vectors = np.linalg.eigh(kernel)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    scale = max(float(root.max(initial=0.0)), -float(root.min(initial=0.0)), 1e-300)
    p, _ = nnls(np.vstack([root / scale, np.ones(len(kernel))]), np.append(np.zeros(len(kernel)), 1.0))
    size = float(np.sqrt(max(p @ kernel @ p, 0.0)))
    return float((kernel @ p).min() / size) if size > 0 else 0.0
