"""What a network certainly does at one given choice of weights: used to confirm a counterexample, never to prove a bound on a ball."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import CheckError
from ..rationals import sqrt_lower, sqrt_upper, to_float_down, to_float_up
from ..rounding import (
    Array,
    add_up,
    finite,
    matmul_enclosure,
    mean_bounds,
    mul_up,
    norm_upper,
    softplus_bounds,
    sub_down,
    sub_up,
)
from .claims import TWO_LAYER, Subject
from .layers import slope_enclosure

Pair = tuple[Array, Array]


def inside(subject: Subject, weights: Sequence[Array]) -> bool:
    """Whether weights certainly lie in the region (distances rounded up)."""
    gaps = [np.maximum(sub_up(w, v), sub_up(v, w)) for w, v in zip(weights, subject.weights, strict=True)]
    if any(w.shape != v.shape for w, v in zip(weights, subject.weights, strict=True)):
        raise CheckError("point", "weights of another shape than the centre")
    gaps = [np.maximum(g, 0.0) * (w != v) for g, w, v in zip(gaps, weights, subject.weights, strict=True)]
    radii, ok = subject.arrays.get("radii"), True
    if subject.kind != TWO_LAYER:
        ok = all(t or not g.any() for t, g in zip(subject.trained, gaps, strict=True))
    if subject.radius is not None:
        ok = ok and bool(norm_upper(np.concatenate([g.ravel() for g in gaps])) <= subject.radius)
    if radii is not None:
        sizes = norm_upper(gaps[0], axis=1) if subject.kind == TWO_LAYER else [norm_upper(g) for g in gaps]
        # A row or layer that has not moved has norm zero, which rounding upwards must not spoil.
        still = [not g.any() for g in (gaps[0] if subject.kind == TWO_LAYER else gaps)]
        ok = ok and bool(np.all(np.where(still, True, np.asarray(sizes) <= radii)))
    return ok


def outputs(subject: Subject, weights: Sequence[Array], rows: Array) -> Pair:
    """(lower, upper) bounds on ``N(W; x_i)`` for some rows."""
    return _ends(subject, _pass(subject, weights, rows)[0])


def tangents(subject: Subject, weights: Sequence[Array], rows: Array) -> Pair:
    """(lower, upper) bounds on ``N(W; x_i) + <grad N(W; x_i), V - W>`` for some rows."""
    (value, error), (change, change_error) = _pass(subject, weights, rows)
    total = value + change
    return _ends(subject, (total, add_up(add_up(error, change_error), np.abs(total) * 2.0**-52)))


def _ends(subject: Subject, enclosure: Pair) -> Pair:
    low, high = sub_down(*enclosure), add_up(*enclosure)
    if subject.kind == TWO_LAYER:
        m = len(subject.weights[0])
        root = 1 / sqrt_upper(m), 1 / sqrt_lower(m)
        down, up = to_float_down(root[0]), to_float_up(root[1])
        low, high = low * np.where(low >= 0, down, up), high * np.where(high >= 0, up, down)
        low, high = low - np.abs(low) * 2.0**-50, high + np.abs(high) * 2.0**-50
    return low, high


def _pass(subject: Subject, weights: Sequence[Array], rows: Array) -> tuple[Pair, Pair]:
    """Output and its derivative along ``V - W``, both before the factor ``m^{-1/2}`` of a two-layer network."""
    centers, scales = list(subject.weights), list(subject.scales)
    weights = [finite(w, "the weights") for w in weights]
    if subject.kind == TWO_LAYER:
        last = subject.arrays["signs"][None, :]
        centers, weights, scales = [centers[0], last], [weights[0], last], [1.0, 1.0]
    else:
        pick = slice(subject.output, subject.output + 1)
        centers[-1], weights[-1] = centers[-1][pick], weights[-1][pick]
    h, h_error = subject.arrays["inputs"][rows], np.zeros_like(subject.arrays["inputs"][rows])
    t, t_error = np.zeros_like(h), np.zeros_like(h)
    for layer, (w, v, s) in enumerate(zip(weights, centers, scales, strict=True)):
        u = v - w
        u_error = np.abs(u) * 2.0**-52
        z = _times(matmul_enclosure(h, w.T, a_error=h_error), s)
        one = matmul_enclosure(t, w.T, a_error=t_error)
        two = matmul_enclosure(h, u.T, a_error=h_error, b_error=u_error.T)
        both = one[0] + two[0]
        dz = _times((both, add_up(add_up(one[1], two[1]), np.abs(both) * 2.0**-52)), s)
        if layer == len(weights) - 1:
            return (z[0][:, 0], z[1][:, 0]), (dz[0][:, 0], dz[1][:, 0])
        h, h_error = subject.activation.value(*z)
        d = slope_enclosure(subject.activation, *z)
        t = d[0] * dz[0]
        t_error = add_up(mul_up(add_up(d[0], d[1]), dz[1]), mul_up(d[1], np.abs(dz[0])))
        t_error = add_up(t_error, np.abs(t) * 2.0**-52 + 2.0**-1022)
    raise CheckError("point", "a network has at least two layers")


def _times(enclosure: Pair, s: float) -> Pair:
    value = enclosure[0] * s
    return value, add_up(mul_up(enclosure[1], s), np.abs(value) * 2.0**-52)


def value(
    subject: Subject, quantity: str, weights: Sequence[Array], rows: Array | None = None
) -> tuple[float, float]:
    """(lower, upper) bounds on a margin (least over the rows) or loss (mean over *all* rows) at these weights.

    Args:
        subject: network and rows.
        quantity: ``"margin"``, ``"tangent-margin"``, ``"loss"`` or ``"tangent-loss"``.
        weights: one array per layer.
        rows: for margins, which rows to look at; all by default.

    Raises:
        CheckError: for another quantity.
    """
    y = subject.targets
    if quantity not in ("margin", "tangent-margin", "loss", "tangent-loss"):
        raise CheckError("point", f"{quantity} is not evaluated at single points")
    chosen = np.arange(len(y)) if rows is None or quantity.endswith("loss") else rows
    low, high = (tangents if quantity.startswith("tangent") else outputs)(subject, weights, chosen)
    s = y[chosen] > 0
    low, high = np.where(s, low, -high), np.where(s, high, -low)
    if quantity.endswith("margin"):
        return float(low.min()), float(high.min())
    return mean_bounds(softplus_bounds(-high)[0])[0], mean_bounds(softplus_bounds(-low)[1])[1]
