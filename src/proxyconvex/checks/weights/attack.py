"""Attack a claim in weight space: projected gradient ascent on its violation, confirmed with outward rounding.

What the attack finds is a counterexample only after `proxyconvex_checker.weights.point` has enclosed the quantity at the weights found
and their distance from the centre. What it does not find proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from proxyconvex_checker.weights import point as weight_point
from proxyconvex_checker.weights.claims import QUANTITIES, TWO_LAYER, Subject

from ...families.activations import Activation

Array = np.ndarray
Weights = tuple[Array, ...]
ATTACKED = ("margin", "tangent-margin", "loss", "tangent-loss")
INSIDE = 1 - 1e-9
"""The attack stays this much inside, so that rounding cannot put its points outside."""


@dataclass(frozen=True)
class Found:
    """What an attack reached.

    Attributes:
        value: certified bound on the quantity at the worst weights found (None: not attacked).
        weights: those weights, one array per layer.
        refutes: whether they refute the level.
        tried: what was tried, in words.
    """

    value: float | None
    weights: Weights | None
    refutes: bool
    tried: str


def attack(
    subject: Subject, quantity: str, level: float, *, seed: int = 0, effort: int = 200, starts: int = 3
) -> Found:
    """Search the region for weights that violate ``quantity`` at ``level``.

    Args:
        subject: network, rows, region.
        quantity: margins and losses are attacked, other quantities are not.
        level: the claim.
        seed: of the random starts.
        effort: gradient steps per start.
        starts: number of starts (the first is the centre).
    """
    if quantity not in ATTACKED or effort <= 0:
        return Found(None, None, False, "no attack was made")
    with jax.enable_x64(True):
        candidates = list(_gradient_points(subject, quantity, seed, effort, starts))
    tried = f"{starts} starts of {effort} gradient steps"
    if subject.kind == TWO_LAYER and not subject.activation.smooth and quantity.startswith("tangent"):
        candidates += _flip_points(subject)
        tried += " and the cheapest sign flips"
    return _judge(subject, quantity, level, candidates, tried)


def _judge(subject: Subject, quantity: str, level: float, candidates: list[Weights], tried: str) -> Found:
    lower = QUANTITIES[quantity].lower
    best, best_weights = None, None
    for weights in candidates:
        if not weight_point.inside(subject, weights):
            continue
        low, high = weight_point.value(subject, quantity, weights)
        value = high if lower else low
        if best is None or (value < best if lower else value > best):
            best, best_weights = value, weights
    refutes = best is not None and (best < level if lower else best > level)
    return Found(best, best_weights, refutes, tried)


# --- gradient ascent -------------------------------------------------------------------------------------------


def outputs(subject: Subject, weights: Sequence[Any], x: Any) -> Any:
    """Network outputs under JAX, shape (n,)."""
    phi = Activation(subject.activation.name, subject.activation.slope, subject.activation.beta)
    if subject.kind == TWO_LAYER:
        m = weights[0].shape[0]
        return phi(x @ weights[0].T) @ subject.arrays["signs"] / np.sqrt(m)
    h = x
    for layer, w in enumerate(weights):
        z = subject.scales[layer] * (h @ w.T)
        h = phi(z)
    return z[:, subject.output]


def quantity_function(subject: Subject, quantity: str) -> Callable[[Weights], Any]:
    """``weights -> number to be made large`` by the attack."""
    x, y = jnp.asarray(subject.arrays["inputs"]), jnp.asarray(subject.targets)
    center = tuple(map(jnp.asarray, subject.weights))

    def margins(weights: Weights) -> Any:
        if not quantity.startswith("tangent"):
            return y * outputs(subject, weights, x)
        change = tuple(c - w for c, w in zip(center, weights, strict=True))
        value, move = jax.jvp(lambda w: outputs(subject, w, x), (weights,), (change,))
        return y * (value + move)

    if quantity.endswith("margin"):
        return lambda weights: -margins(weights).min()
    return lambda weights: jnp.mean(jax.nn.softplus(-margins(weights)))


def _gradient_points(subject: Subject, quantity: str, seed: int, effort: int, starts: int) -> Any:
    climb = jax.jit(jax.value_and_grad(quantity_function(subject, quantity)))
    rng = np.random.default_rng(seed)
    center = tuple(subject.weights)
    for start in range(starts):
        # The centre is stationary for tangent quantities, so even the first start is moved a little.
        size = 1e-3 if start == 0 else 1.0
        w = project(
            subject, tuple(c + size * d for c, d in zip(center, _directions(subject, rng), strict=True))
        )
        best, best_value = w, -np.inf
        for step in range(effort):
            value, slope = climb(w)
            if float(value) > best_value:
                best, best_value = w, float(value)
            g = [np.asarray(a) for a in slope]
            if not any(a.any() for a in g):
                break
            w = project(subject, _step(subject, w, g, 0.5 / (1 + 10 * step / effort)))
        yield w
        yield best


def _reach(subject: Subject) -> list[Any]:
    """How far each layer may move; per neuron, shape (m, 1), for per-neuron balls."""
    radii = subject.arrays.get("radii")
    if subject.kind == TWO_LAYER:
        whole = np.inf if subject.radius is None else subject.radius
        return [whole if radii is None else np.minimum(radii, whole)[:, None]]
    each = [subject.radius] * len(subject.weights) if radii is None else list(radii)
    return [r if t else 0.0 for r, t in zip(each, subject.trained, strict=True)]


def _directions(subject: Subject, rng: np.random.Generator) -> list[Array]:
    out = []
    for w, r in zip(subject.weights, _reach(subject), strict=True):
        d = rng.standard_normal(w.shape)
        out.append(d * (r / np.linalg.norm(d, axis=1 if np.ndim(r) else None, keepdims=True)))
    return out


def _step(subject: Subject, w: Weights, g: list[Array], size: float) -> Weights:
    """One step of the steepest ascent in the geometry of the region."""
    reach, joint = _reach(subject), subject.arrays.get("radii") is None
    total = np.sqrt(sum(float((v * v).sum()) for v, r in zip(g, reach, strict=True) if np.any(r)))
    moved = []
    for a, v, r in zip(w, g, reach, strict=True):
        norm = total if joint else np.linalg.norm(v, axis=1 if np.ndim(r) else None, keepdims=True)
        moved.append(a + size * r * v / np.maximum(norm, 1e-300) if np.any(r) else a)
    return tuple(moved)


def project(subject: Subject, weights: Weights) -> Weights:
    """Weights moved towards the centre until they are inside every ball (not the nearest point of an intersection, but a point of it)."""
    radii, moved = subject.arrays.get("radii"), []
    for w, c, r in zip(weights, subject.weights, _reach(subject), strict=True):
        gap = np.asarray(w) - c
        norm = np.linalg.norm(gap, axis=1 if np.ndim(r) else None, keepdims=True)
        moved.append(gap * np.minimum(1.0, INSIDE * r / np.maximum(norm, 1e-300)))
    if subject.radius is not None and (radii is None or subject.kind == TWO_LAYER):
        total = np.sqrt(sum(float((g * g).sum()) for g in moved))
        moved = [g * min(1.0, INSIDE * subject.radius / max(total, 1e-300)) for g in moved]
    return tuple(c + g for c, g in zip(subject.weights, moved, strict=True))


# --- sign flips ------------------------------------------------------------------------------------------------


def _flip_points(subject: Subject) -> list[Weights]:
    """For the weakest rows: flip the cheapest adverse neurons, as the knapsack does; the best the ball allows for one row."""
    v, x, y = subject.weights[0], subject.arrays["inputs"], subject.targets
    z = x @ v.T
    phi = Activation(subject.activation.name, subject.activation.slope, subject.activation.beta)
    margins = y * (phi.numpy(z) @ subject.arrays["signs"]) / np.sqrt(len(v))
    points = [_flip_one(subject, i, z[i]) for i in np.argsort(margins)[:16]]
    return [*points, _flip_together(subject, z)]


def _flip_one(subject: Subject, row: int, z: Array) -> Weights:
    v, x = subject.weights[0], subject.arrays["inputs"][row]
    square = float(x @ x)
    adverse = np.flatnonzero(subject.arrays["signs"] * subject.targets[row] > 0)
    order = adverse[np.argsort(np.abs(z[adverse]))]
    cost = (np.abs(z[order]) / np.sqrt(square) * (1 + 1e-7)) ** 2 + 1e-18
    if subject.radius is not None:
        order, cost = (a[np.cumsum(cost) <= (INSIDE * subject.radius) ** 2] for a in (order, cost))
    if "radii" in subject.arrays:
        order = order[cost <= (INSIDE * subject.arrays["radii"][order]) ** 2]
    w = v.copy()
    # Just beyond the kink; at the kink itself the derivative is that of the left side.
    shift = z[order] * (1 + 1e-7) + np.where(z[order] > 0, 1e-9, -1e-9) * np.sqrt(square)
    w[order] -= shift[:, None] * x / square
    return (w,)


def _flip_together(subject: Subject, z: Array) -> Weights:
    """Every neuron moves towards its adverse rows' mean by the same amount: many rows at once."""
    v, x, y = subject.weights[0], subject.arrays["inputs"], subject.targets
    adverse = (y[:, None] * subject.arrays["signs"] > 0) * np.abs(z) / (1e-3 + z * z)
    pull = -(np.sign(z) * adverse).T @ x
    size = np.linalg.norm(pull, axis=1, keepdims=True)
    radius = subject.radius if subject.radius is not None else float(np.linalg.norm(subject.arrays["radii"]))
    move = pull / np.maximum(size, 1e-300) * radius / np.sqrt(len(v))
    return project(subject, (v + move,))
