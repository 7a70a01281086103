"""Independent oracles for bounds in weight space: plain NumPy networks, high-precision Hessians, brute force over flip patterns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import flint
import numpy as np
from scipy.optimize import nnls


def phi(name: str, t: np.ndarray, c: float, beta: float) -> np.ndarray:
    """The activations, written again."""
    if name == "softplus":
        return np.maximum(t, 0) + np.log1p(np.exp(-abs(beta * t))) / beta
    if name == "smooth-leaky":
        edge = 2 / beta
        middle = c * t + (1 - c) * (t + edge) ** 2 / (4 * edge)
        return np.where(t >= edge, t, np.where(t <= -edge, c * t, middle))
    return np.where(t > 0, t, c * t)


def slope(name: str, t: np.ndarray, c: float, beta: float) -> np.ndarray:
    if name == "softplus":
        return 0.5 * (1 + np.tanh(beta * t / 2))
    if name == "smooth-leaky":
        edge = 2 / beta
        return np.where(t >= edge, 1.0, np.where(t <= -edge, c, c + (1 - c) * (t + edge) / (2 * edge)))
    return np.where(t > 0, 1.0, c)


def dense(weights, scales, x, act, along=None):
    """Outputs of a dense net, shape (n,), and their derivative along a direction (zero without one)."""
    h, t = x, np.zeros_like(x)
    for k, (w, s) in enumerate(zip(weights, scales, strict=True)):
        z = s * h @ w.T
        dz = s * (t @ w.T + (h @ along[k].T if along is not None else 0.0))
        if k == len(weights) - 1:
            return z[:, 0], dz[:, 0]
        h, t = phi(act.name, z, act.slope, act.beta), slope(act.name, z, act.slope, act.beta) * dz
    raise AssertionError


def two_layer(w, signs, x, act):
    return phi(act.name, x @ w.T, act.slope, act.beta) @ signs / np.sqrt(len(w))


def two_layer_tangent(w, v, signs, x, act):
    """``N(w) + <grad N(w), v - w>``, shape (n,)."""
    z = x @ w.T
    move = (slope(act.name, z, act.slope, act.beta) * (x @ (v - w).T)) @ signs / np.sqrt(len(w))
    return two_layer(w, signs, x, act) + move


def softplus_hessian(weights, scales, x, beta, bits=160) -> float:
    """Largest absolute eigenvalue of the Hessian of a dense softplus net at one input, all weights, in ``bits`` bits.

    Second directional derivatives by exact truncated power series (jets), nothing shared with the bound: for every pair of
    coordinates ``u``, ``N(w + t u) = N + t N' + t^2 N'' / 2`` is carried through the layers.
    """
    with flint.ctx.workprec(bits):
        shapes = [w.shape for w in weights]
        flat = [flint.arb(float(v)) for w in weights for v in w.ravel()]

        def second(direction: dict[int, int]) -> flint.arb:
            h = [(flint.arb(float(v)), flint.arb(0), flint.arb(0)) for v in x]
            start = 0
            for k, (rows, columns) in enumerate(shapes):
                z = []
                for r in range(rows):
                    a = b = c = flint.arb(0)
                    for j in range(columns):
                        p = start + r * columns + j
                        w, u = flat[p], direction.get(p, 0)
                        h0, h1, h2 = h[j]
                        a, b, c = a + w * h0, b + w * h1 + u * h0, c + w * h2 + u * h1
                    s = flint.arb(float(scales[k]))
                    z.append((s * a, s * b, s * c))
                start += rows * columns
                if k == len(shapes) - 1:
                    return 2 * z[0][2]
                h = []
                for z0, z1, z2 in z:
                    g = 1 / (1 + (-beta * z0).exp())
                    h.append(
                        (
                            (1 + (beta * z0).exp()).log() / beta,
                            g * z1,
                            g * z2 + beta * g * (1 - g) * z1 * z1 / 2,
                        )
                    )
            raise AssertionError

        p = len(flat)
        own = [second({i: 1}) for i in range(p)]
        h = np.zeros((p, p))
        for i in range(p):
            h[i, i] = float(own[i])
            for j in range(i):
                h[i, j] = h[j, i] = float((second({i: 1, j: 1}) - own[i] - own[j]) / 2)
    return float(np.abs(np.linalg.eigvalsh(h)).max())


def flip_distance(v: np.ndarray, x: np.ndarray, flipped: tuple[int, ...]) -> float:
    """Least ``||w - v||^2`` with ``<w, x_i>`` of the other sign (or zero) for every flipped i: a small quadratic program.

    ``min ||d||^2`` subject to ``A d >= b``, ``A = -sign(v x) x``, ``b = |v x|``; its dual is a non-negative least squares problem
    (Lawson and Hanson: least distance programming).
    """
    if not flipped:
        return 0.0
    rows = x[list(flipped)]
    z = rows @ v
    a, b = -np.sign(z)[:, None] * rows, np.abs(z)
    e = np.vstack([a.T, b])
    f = np.zeros(len(e))
    f[-1] = 1.0
    u, _ = nnls(e, f)
    r = e @ u - f
    if np.linalg.norm(r) < 1e-9:
        return np.inf
    d = -r[:-1] / r[-1]
    return float(d @ d)


def flip_patterns(v, x, y, signs, c, leak, radius) -> float:
    """The largest weighted loss of tangent margins over *all* flip patterns that fit into the ball, helpful flips left out."""
    m = len(v)
    options = []
    for r in range(m):
        hurting = [i for i in range(len(x)) if y[i] * signs[r] > 0]
        choices = []
        for k in range(len(hurting) + 1):
            for pattern in itertools.combinations(hurting, k):
                cost = flip_distance(v[r], x, pattern)
                gain = sum(c[i] * (1 - leak) * abs(float(v[r] @ x[i])) for i in pattern) / np.sqrt(m)
                if cost <= radius**2:
                    choices.append((cost, gain))
        options.append(choices)
    best = 0.0
    for combination in itertools.product(*options):
        if sum(cost for cost, _ in combination) <= radius**2:
            best = max(best, sum(gain for _, gain in combination))
    return best


def points_in_ball(rng, shapes, radius, count) -> Iterator[list[np.ndarray]]:
    """Random displacements of total norm ``radius`` (on the boundary) and inside, dense and concentrated on few entries."""
    for k in range(count):
        moves = [rng.standard_normal(s) for s in shapes]
        if k % 3 == 1:
            moves = [m * (rng.random(m.shape) < 0.1) for m in moves]
        if k % 3 == 2:
            moves = [m * (j == k % len(shapes)) for j, m in enumerate(moves)]
        size = np.sqrt(sum((m * m).sum() for m in moves))
        share = 1 - 1e-12 if k % 2 else rng.random()
        yield [m * (share * radius / size if size else 0.0) for m in moves]
