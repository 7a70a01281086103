"""Built-in proxies of outputs and targets, for arrays of any library: |loss'|, margins and errors.

Every function takes the array namespace ``xp`` (``numpy``, ``jax.numpy`` or ``torch``) first and uses only what the three share, so
the same line runs on the host, inside a jitted step and on a PyTorch device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import InvalidInputError

PerSample = dict[str, Any]
NAMES = ("slope", "error", "margin_mean", "margin_min")


def cross_entropy(xp: Any, outputs: Any, targets: Any) -> PerSample:
    """Softmax cross-entropy of logits.

    With ``p = softmax(outputs)``: slope ``1 - p_y = -d loss/d z_y`` (``||d loss/d z||_1 = 2 (1 - p_y)``), margin ``z_y - max_{k != y} z_k``,
    error ``1[margin <= 0]`` (a tie counts as an error). At an error ``p_y <= 1/2``, so ``error <= 2 slope``.

    Args:
        xp: array namespace.
        outputs: logits, shape (..., K) with K >= 2.
        targets: class indices, shape (...).
    """
    logits = outputs.reshape(-1, outputs.shape[-1])
    y = targets.reshape(-1)
    rows = xp.arange(logits.shape[0])
    own = logits[rows, y]
    classes = xp.arange(logits.shape[1])
    if hasattr(logits, "device") and hasattr(classes, "to"):
        classes = classes.to(logits.device)
    others = xp.where(classes[None, :] == y[:, None], -float("inf"), logits)
    margin = own - xp.amax(others, -1)
    # 1 - p_y = S/(1 + S) with S = sum_{k != y} exp(z_k - z_y); for S large, 1/(1 + 1/S): shift by the larger of own and rival.
    top = xp.where(margin > 0, own, own - margin)
    rest = xp.sum(xp.exp(others - top[:, None]), -1)
    return {"slope": rest / (xp.exp(own - top) + rest), "margin": margin}


def logistic(xp: Any, outputs: Any, targets: Any) -> PerSample:
    """``log(1 + exp(-y q))`` with y in {-1, +1}: slope ``1/(1 + exp(y q))``, margin ``y q``; ``error <= 2 slope``."""
    margin = outputs.reshape(-1) * targets.reshape(-1)
    small = xp.exp(-xp.abs(margin))
    return {"slope": xp.where(margin > 0, small / (1 + small), 1 / (1 + small)), "margin": margin}


def binary_cross_entropy(xp: Any, outputs: Any, targets: Any) -> PerSample:
    """The logistic loss of logits with y in {0, 1}; see `logistic`."""
    return logistic(xp, outputs, 2 * targets - 1)


def hinge(xp: Any, outputs: Any, targets: Any) -> PerSample:
    """``max(0, 1 - y q)`` with y in {-1, +1}: slope ``1[y q < 1]`` (0 at the kink), margin ``y q``; ``error <= slope``."""
    margin = outputs.reshape(-1) * targets.reshape(-1)
    return {"slope": xp.where(margin < 1, 1.0, 0.0), "margin": margin}


def squared(xp: Any, outputs: Any, targets: Any) -> PerSample:
    """``(q - y)^2 / 2``: slope ``|q - y|``; the margin ``y q`` (and the error) mean something for y in {-1, +1} only: there ``error <= slope``."""
    q, y = outputs.reshape(-1), targets.reshape(-1)
    return {"slope": xp.abs(q - y), "margin": q * y}


BUILT_IN: dict[str, Callable[[Any, Any, Any], PerSample]] = {
    "cross-entropy": cross_entropy,
    "logistic": logistic,
    "binary-cross-entropy": binary_cross_entropy,
    "hinge": hinge,
    "squared": squared,
}
# error <= factor * slope, sample by sample (for "squared": for targets -1 and +1).
ERROR_FACTOR = {
    "cross-entropy": 2.0,
    "logistic": 2.0,
    "binary-cross-entropy": 2.0,
    "hinge": 1.0,
    "squared": 1.0,
}


def proxies(loss: str, xp: Any, outputs: Any, targets: Any, mask: Any = None) -> dict[str, Any]:
    """The built-in proxies of a batch, as scalars of the array library.

    Args:
        loss: ``"cross-entropy"``, ``"logistic"``, ``"binary-cross-entropy"``, ``"hinge"`` or ``"squared"``.
        xp: ``numpy``, ``jax.numpy`` or ``torch``.
        outputs: outputs of the model, shape (..., K) for cross-entropy, else (...).
        targets: targets, shape (...).
        mask: 1 for positions that count and 0 for padding, shape (...), or None. Targets of masked positions must still be valid.

    Returns:
        ``slope`` (mean of |loss'|), ``error`` (share with margin <= 0), ``margin_mean``, ``margin_min``.

    Raises:
        InvalidInputError: for an unknown loss.
    """
    if loss not in BUILT_IN:
        raise InvalidInputError(
            "loss",
            loss,
            ", ".join(map(repr, BUILT_IN)),
            "Pass your own proxies as functions of outputs and targets.",
        )
    each = BUILT_IN[loss](xp, outputs, targets)
    margin = each["margin"]
    wrong = xp.where(margin <= 0, 1.0, 0.0)
    if mask is None:
        mean, least = (lambda x: x.sum() / x.shape[0]), margin.min()
    else:
        keep = mask.reshape(-1)
        mean = lambda x: (x * keep).sum() / keep.sum()  # noqa: E731 - the other branch's counterpart
        least = xp.where(keep > 0, margin, float("inf")).min()
    return {
        "slope": mean(each["slope"]),
        "error": mean(wrong),
        "margin_mean": mean(margin),
        "margin_min": least,
    }
