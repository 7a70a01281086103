"""The families of the library in explicit small form, each with a constant that cannot be improved."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar

from ...core.conditions import GradientGrowth, ProxyConvexity, ProxyPL, Smooth
from ...core.regions import Ball
from .reduced import PROXY_CONSTANT
from .specimen import Specimen

# --- U: any differentiable model with a convex loss ----------------------------------------------------------------

_X = np.array([[1.0, 0.5], [-0.5, 1.0], [0.25, -1.0]])
_Y = np.array([1.0, -1.0, 1.0])


def _logistic(q: Any) -> Any:
    return jnp.mean(jax.nn.softplus(-_Y * q))


def _squared(q: Any) -> Any:
    return jnp.mean((q - _Y) ** 2) / 2


def _tangent(
    model: Callable[[Any], Any], loss: Callable[[Any], Any], v: Any, radius: float
) -> Callable[[float], ProxyConvexity]:
    """U1 with ``g = c f`` and ``h(v; w) = loss(tangent of the model at w, taken at v)``: true for c <= 1, false at w = v beyond."""

    def f(w: Any) -> Any:
        return loss(model(w))

    def h(u: Any, w: Any) -> Any:
        outputs, change = jax.jvp(model, (w,), (jax.tree.map(lambda a, b: jnp.asarray(a, float) - b, u, w),))
        return loss(outputs + change)

    def make(c: float) -> ProxyConvexity:
        return ProxyConvexity(f, lambda w: c * f(w), h, comparator=v, region=Ball(v, radius))

    return make


def _tanh_net(w: Any) -> Any:
    return jnp.tanh(_X @ w[:4].reshape(2, 2).T) @ w[4:]


def _softplus_net(w: Any) -> Any:
    return jax.nn.softplus(_X @ w.T) @ (jnp.array([1.0, -1.0]) / math.sqrt(2))


def _deep_relu(w: Any) -> Any:
    """Two hidden layers, all weights trained."""
    hidden = jax.nn.relu(_X @ w[:4].reshape(2, 2).T)
    return jax.nn.relu(hidden @ w[4:8].reshape(2, 2).T) @ w[8:]


def _three_layer(w: Any) -> Any:
    """Both hidden layers trained, the output layer fixed."""
    hidden = jax.nn.softplus(_X @ w["first"].T)
    return jnp.tanh(hidden @ w["second"].T) @ jnp.array([1.0, -0.5])


_V = np.random.default_rng(3)
_U2 = np.array([[1.0, 0.0], [0.0, 2.0]])
_U3 = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, -1.0, 1.0], [0.5, 0.0, 0.0, 2.0]])


def _slopes(w: Any) -> Any:
    return jax.nn.sigmoid(-(_U2 @ w))


TANGENT = [
    Specimen("U1: tanh network, squared loss", "U", _tangent(_tanh_net, _squared, _V.normal(size=6), 2.0), 1.0, True, "convexity of the loss; equality at w = v"),
    Specimen("U2: mean slope against the tangent margin", "U", lambda c: ProxyPL(lambda w: jnp.mean(jax.nn.softplus(-(_U2 @ w))), lambda w: jnp.mean(_slopes(w)), 0, 1, c), 2 / math.sqrt(1.25), True, "margin of the rows (1, 0), (0, 2) is 1/sqrt(1.25)", np.zeros(2)),
    Specimen("U3: least squares and the Gram matrix", "U", lambda c: ProxyPL(lambda w: jnp.mean((_U3 @ w - _Y) ** 2) / 2, lambda w: jnp.mean((_U3 @ w - _Y) ** 2) / 2, 0, 2, c), float(4 * np.linalg.eigvalsh(_U3 @ _U3.T).min() / 3), True, "smallest eigenvalue of the Gram matrix", np.zeros(4), 1e-6),
]  # fmt: skip

# --- F1: leaky ReLU, hinge; F2: leaky ReLU, logistic. One row x with y <w*, x> = 1, two neurons ---------------------

_ROW = np.array([0.6, 0.8])  # of norm one: w* = x, margin 1
_SIGNS = np.array([1.0, -1.0])
_A, _LEAK = 1 / math.sqrt(2), 0.5


def _leaky(w: Any) -> Any:
    t = w @ _ROW
    return _A * jnp.sum(_SIGNS * jnp.where(t > 0, t, _LEAK * t))


def _hinge(w: Any) -> Any:
    gap = 1 - _leaky(w)
    return jnp.where(gap > 0, gap, 0.0)  # derivative 0 at the kink


_KAPPA = 2 * _A * _LEAK  # m a c
_LAM = 2 / _KAPPA


def _f1_proxy(kappa: float) -> Callable[[Any], Any]:
    return lambda w: jnp.where(_leaky(w) < 1, kappa * _LAM - 1, 0.0) + _hinge(w)


def _f1(kappa: float) -> ProxyConvexity:
    return ProxyConvexity(_hinge, _f1_proxy(kappa), 0, comparator=_LAM * _SIGNS[:, None] * _ROW)


def _slope(w: Any) -> Any:
    return jax.nn.sigmoid(-_leaky(w))


def _cross_entropy(w: Any) -> Any:
    return jax.nn.softplus(-_leaky(w))


_F2_KAPPA = _LEAK  # lam c / ||u|| with lam = 1 and ||u|| = 1


def _f2(h: float) -> ProxyConvexity:
    v = _SIGNS[:, None] * _ROW / math.sqrt(2)
    return ProxyConvexity(_cross_entropy, lambda w: _F2_KAPPA * _slope(w), h, comparator=v)


LEAKY = [
    Specimen("F1: hinge, proxy convexity", "F1", _f1, _KAPPA, True, "kappa = m a c, where every neuron leaks"),
    Specimen("F1: hinge, growth", "F1", lambda c: GradientGrowth(c, 0, g=_f1_proxy(_KAPPA), f=_hinge), 2 * _A**2, False, "A = m a^2 X^2, as y N -> 1 with every neuron active", np.zeros((2, 2))),
    Specimen("F2: logistic, proxy PL", "F2", lambda c: ProxyPL(_cross_entropy, _slope, 0, 1, c), 2 * _LEAK, True, "2 c / ||u||, where every neuron leaks", np.zeros((2, 2))),
    Specimen("F2: logistic, proxy convexity", "F2", _f2, PROXY_CONSTANT, False, "k0 = max q/(1 + e^q), where every neuron leaks"),
    Specimen("F2: logistic, growth", "F2", lambda c: GradientGrowth(c, 0, g=lambda w: _F2_KAPPA * _slope(w), f=_cross_entropy), 1 / _F2_KAPPA, False, "X^2 / kappa, as the loss grows", np.zeros((2, 2))),
]  # fmt: skip

# --- F3: one neuron -------------------------------------------------------------------------------------------------

_TEACHER = np.array([1.0, 0.5])


def _f3(s: Callable[[Any], Any], ds: Callable[[Any], Any]) -> Callable[[float], ProxyConvexity]:
    """Without label noise: ``g = c E(s(a) - s(b))^2 s'(a)``, h = 0."""

    def f(w: Any) -> Any:
        return jnp.mean((s(_X @ w) - s(_X @ _TEACHER)) ** 2) / 2

    def make(c: float) -> ProxyConvexity:
        return ProxyConvexity(
            f,
            lambda w: c * jnp.mean((s(_X @ w) - s(_X @ _TEACHER)) ** 2 * ds(_X @ w)),
            0,
            comparator=_TEACHER,
        )

    return make


NEURON = [
    Specimen("F3: ReLU neuron", "F3", _f3(jax.nn.relu, lambda t: jnp.where(t > 0, 1.0, 0.0)), 1.0, True, "1 / sup s', where rows are active for both"),
    Specimen("F3: growth of a ReLU neuron", "F3", lambda c: GradientGrowth(c, 0, g=lambda w: jnp.sum((jax.nn.relu(w @ _ROW) - 1.0) ** 2 * jnp.where(w @ _ROW > 0, 1.0, 0.0)), f=lambda w: (jax.nn.relu(w @ _ROW) - 1.0) ** 2 / 2), 1.0, False, "|x|^2", np.zeros(2)),
]  # fmt: skip

# --- F4 to F6 --------------------------------------------------------------------------------------------------------


def _one_neuron(w: Any) -> Any:
    return jax.nn.softplus(-jax.nn.softplus(w)).sum()


def _largest_curvature() -> float:
    """``sup |f''|`` of ``log(1 + exp(-softplus(w)))``, from its formula in one variable."""

    def curvature(w: float) -> float:
        s, d = np.logaddexp(0, w), 1 / (1 + math.exp(-w))
        loss1, loss2 = -1 / (1 + math.exp(s)), math.exp(s) / (1 + math.exp(s)) ** 2
        return abs(loss2 * d * d + loss1 * d * (1 - d))

    grid = np.linspace(-10, 10, 4001)
    best = float(grid[int(np.argmax([curvature(w) for w in grid]))])
    found = minimize_scalar(
        lambda w: -curvature(w), bounds=(best - 0.01, best + 0.01), method="bounded", options={"xatol": 1e-13}
    )
    return float(-found.fun)


def _f5_slope(w: Any) -> Any:
    """``|loss'| ||grad N||`` at the first row."""

    def one(u: Any) -> Any:
        return _deep_relu(u)[0]

    return jax.nn.sigmoid(-one(w)) * jnp.sqrt(jnp.sum(jax.grad(one)(w) ** 2) + 1e-300)


NETWORKS = [
    Specimen("F4: two-layer softplus, tangent comparison", "F4", _tangent(_softplus_net, _logistic, _V.normal(size=(2, 2)), 3.0), 1.0, True, "convexity of the loss; equality at w = v"),
    Specimen("F4: smoothness of one neuron", "F4", lambda c: Smooth(c, f=_one_neuron), _largest_curvature(), False, "sup |f''|, one variable", np.zeros(1), 1e-7),
    Specimen("F5: deep ReLU, tangent comparison", "F5", _tangent(_deep_relu, _logistic, _V.normal(size=10), 1.5), 1.0, True, "convexity of the loss; equality at w = v"),
    Specimen("F5: deep ReLU, slope times feature norm", "F5", lambda c: ProxyPL(lambda w: jax.nn.softplus(-_deep_relu(w)[0]), _f5_slope, 0, 1, c, region=Ball(np.ones(10), 0.5)), 2.0, True, "|grad f| = |loss'| |grad N| for one row"),
    Specimen("F6: three layers, tangent comparison", "F6", _tangent(_three_layer, _squared, {"first": _V.normal(size=(2, 2)), "second": _V.normal(size=(2, 2))}, 1.0), 1.0, True, "convexity of the loss; equality at w = v"),
]  # fmt: skip

FAMILIES = [*TANGENT, *LEAKY, *NEURON, *NETWORKS]
