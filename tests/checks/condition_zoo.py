"""Reduced conditions with known answers, shared by the tests."""

from __future__ import annotations

from fractions import Fraction

import proxyconvex as pc


def p1(**changes):
    """Sigmoid, equality on the diagonal and at slope 1/4."""
    given = {"a": (-4, 4), "b": (-4, 4), "k": 4, **changes}
    return pc.ProxyConvexity.pointwise(
        lambda a, b, s, k: (s(a) - s(b)) * (a - b) - k * (s(a) - s(b)) ** 2, activation="sigmoid", **given
    )


def p2(C="0.721", **changes):
    """Softplus neuron; the least C is 0.6866289..."""
    given = {"a": (-3, 3), "b": (-3, 3), "y": (0, 3), **changes}
    return pc.ProxyConvexity.pointwise(
        lambda a, b, y, s, ds, C: (s(a) - y) * ds(a) * (a - b) - (s(a) - s(b)) ** 2 * ds(a) / 2 + C * (s(b) - y) ** 2,
        activation="softplus", C=C, **given,
    )  # fmt: skip


def p3():
    """Tanh, plain convexity: false."""
    return pc.ProxyConvexity.pointwise(
        lambda a, b, y, s, ds: (s(a) - y) * ds(a) * (a - b) - (s(a) - y) ** 2 / 2 + (s(b) - y) ** 2 / 2,
        activation="tanh", a=(-3, 3), b=(-3, 3), y=(-1, 1),
    )  # fmt: skip


def bregman(activation="softplus", **ranges):
    """Convexity of the activation."""
    return pc.reduced(
        lambda a, b, s, ds: s(a) - s(b) - ds(b) * (a - b),
        activation=activation,
        **(ranges or {"a": (-3, 3), "b": (-3, 3)}),
    )


def smooth(L="1/4"):
    """Softplus is 1/4-smooth, and no better."""
    return pc.reduced(
        lambda a, b, s, ds, L: L * (a - b) ** 2 / 2 - (s(a) - s(b) - ds(b) * (a - b)),
        activation="softplus", a=(-3, 3), b=(-3, 3), L=L,
    )  # fmt: skip


def leaky(C=5):
    """Leaky ReLU neuron: kinks."""
    return pc.reduced(
        lambda a, b, y, s, ds, C: (s(a) - y) * ds(a) * (a - b) - (a - b) ** 2 * ds(a) / 20 + C * (s(b) - y) ** 2,
        activation="leaky-relu:1/10", a=(-3, 3), b=(-3, 3), y=(-1, 3), C=C,
    )  # fmt: skip


def swish(k="1/2"):
    """A user-declared activation."""
    return pc.reduced(
        lambda a, b, s, k: (s(a) - s(b)) * (a - b) + k * (a - b) ** 2,
        activation=lambda t, sigmoid: t * sigmoid(t), a=(-3, 3), b=(-3, 3), k=k,
    )  # fmt: skip


def strict():
    """No zero set: subdivision alone."""
    return pc.reduced(lambda a, b, tanh: 3 - a * b + tanh(a) ** 2, a=(-1, 1.5), b=(-1, 1.5))


def exponential():
    """Second differences of exp."""
    return pc.reduced(lambda a, b, exp: exp(a) - exp(b) - exp(b) * (a - b), a=(-3, 3), b=(-3, 3))


TRUE = {
    "sigmoid": p1,
    "softplus-neuron": p2,
    "convex-softplus": bregman,
    "smooth-softplus": smooth,
    "swish": swish,
    "strict": strict,
    "convex-exp": exponential,
    "exp-at-0": lambda: pc.reduced(lambda a, exp: exp(a) - 1 - a - a**2 / 4, a=(-1, 1)),
    "tanh-at-0": lambda: pc.reduced(lambda a, tanh: a * tanh(a) - tanh(a) ** 2, a=(-5, 5)),
    "log-at-1": lambda: pc.reduced(lambda a, log: a - 1 - log(a), a=("1/4", 4)),
    "label-at-0": lambda: pc.reduced(
        lambda a, y, s: (s(a) - y) ** 2 + a * (s(a) - Fraction(1, 2)),
        activation="sigmoid",
        a=(-2, 2),
        y=(0, 1),
    ),
    "convex-square": lambda: bregman("square"),
}
FALSE = {
    "sigmoid": lambda: p1(k="4.04"),
    "softplus-neuron": lambda: p2("0.6866"),
    "tanh": p3,
    "convex-tanh": lambda: bregman("tanh"),
    "smooth-softplus": lambda: smooth("0.2475"),
    "exp-at-0": lambda: pc.reduced(lambda a, exp: exp(a) - 1 - a - 0.37 * a**2, a=(-1, 1)),
    "swish": lambda: swish("0.08"),
    "leaky": lambda: leaky("0.01"),
    "strict": lambda: pc.reduced(lambda a, b: 2.249 - a * b, a=(-1, 1.5), b=(-1, 1.5)),
}
