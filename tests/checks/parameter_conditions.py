"""Conditions on parameters that are true, and the same a little beyond the truth; with the options that certify them."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

import proxyconvex as pc

ROWS = np.array([[0.5, -1.0], [1.25, 0.5], [-0.75, 2.0], [1.0, 1.0]])
TEACHER = np.array([1.0, 0.5])
DISC = pc.Ball(np.zeros(2), 2.0)


def logistic(w):
    return jnp.mean(jax.nn.softplus(ROWS @ w))


def quadratic(w):
    return jnp.sum(jnp.array([1.0, 3.0]) * w * w) / 2


def quartic(w):
    return (w @ w) ** 2 / 4


def neuron(w):
    return jnp.mean((jnp.tanh(ROWS @ w) - jnp.tanh(ROWS @ TEACHER)) ** 2) / 2


def _steepness():
    """Least ``<grad f(w), w - v> / |w - v|^2`` over the disc of radius 1/4 around v, on a fine grid of circles, by hand."""
    radius, angle = np.meshgrid(np.linspace(0.001, 0.25, 80), np.linspace(0, 2 * np.pi, 720))
    t = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    a, b = (TEACHER + t) @ ROWS.T, ROWS @ TEACHER
    slope = ((np.tanh(a) - np.tanh(b)) * (1 - np.tanh(a) ** 2))[..., None] * ROWS
    return float((np.sum(slope.mean(axis=-2) * t, axis=-1) / radius**2).min())


STEEPNESS = _steepness()


def leaky(w):
    return jnp.sum(jnp.where(w > 0, w, w / 4) ** 2)


def largest():
    return float(np.linalg.eigvalsh(ROWS.T @ ROWS / 4).max() / 4)


def convexity(factor):
    return pc.ProxyConvexity(
        logistic,
        lambda w: factor * logistic(w),
        lambda v: factor * logistic(v),
        comparator=[0.5, 0.25],
        region=DISC,
    )


def everywhere(factor):
    """Every v of the region at once: four variables."""
    return pc.ProxyConvexity(
        quadratic,
        lambda w: factor * quadratic(w),
        lambda v: factor * quadratic(v),
        comparator=[0.0, 0.0],
        region=DISC,
    )


def smooth(factor):
    return pc.Smooth(factor * largest(), f=logistic, region=pc.Ball(np.zeros(2), 1.0))


def smooth_quadratic(factor):
    return pc.Smooth(3 * factor, f=quadratic, region=pc.Ball(np.zeros(2), 1.0))


def lojasiewicz(factor):
    return pc.ProxyPL(quadratic, quadratic, 0, 2, 4 * factor, region=DISC)


def star(factor):
    return pc.ProxyConvexity(
        quartic, lambda w: 4 * factor * quartic(w), 0, comparator=np.zeros(2), region=pc.Box([-1, -1], [1, 2])
    )


def one_point(factor):
    return pc.ProxyConvexity(
        neuron,
        lambda w: factor * STEEPNESS * jnp.sum((w - TEACHER) ** 2),
        0,
        comparator=TEACHER,
        region=pc.Ball(TEACHER, 0.25),
    )


def growth_rows(factor):
    flat = lambda w: quadratic(w.reshape(-1))  # noqa: E731
    return pc.GradientGrowth(
        Fraction(6) / Fraction(factor), 0, g=flat, f=flat, region=pc.PerNeuronBalls(np.zeros((1, 2)), 1.0)
    )


def below(factor):
    return pc.BoundedBelow(
        0.9 * factor,
        f=lambda w: 1 + (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2,
        region=pc.Box([-2, -2], [2, 2]),
    )


def kinked(factor):
    """Leaky squares: ``<grad f, w> = 2 f``, with a kink in the derivative through the comparator."""
    return pc.ProxyConvexity(
        leaky, lambda w: 2 * factor * leaky(w), 0, comparator=np.zeros(2), region=pc.Box([-1, -1], [1, 1])
    )


def noise(factor):
    return pc.Noise(
        3, 2, moment=lambda w: factor * (3 * (w @ w) + 2) - (factor - 1), f=lambda w: w @ w / 2, region=DISC
    )


MAKE = {
    "convexity": (convexity, {}),
    "all comparators": (everywhere, {"comparator": "region"}),
    "smooth": (smooth, {}),
    "smooth quadratic": (smooth_quadratic, {}),
    "PL": (lojasiewicz, {}),
    "star": (star, {}),
    "one-point": (one_point, {}),
    "growth": (growth_rows, {}),
    "below": (below, {}),
    "noise": (noise, {}),
}
SLIGHTLY = {"smooth": 1.01, "one-point": 0.99}
"""Where the constant itself is only a rounded number, the true condition is one percent inside."""
TRUE = {name: (make(SLIGHTLY.get(name, 1)), options) for name, (make, options) in MAKE.items()}
