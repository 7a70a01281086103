"""What every other theorem says about a `leaky-relu-noise` plan: its bound, or the premise that fails.

T3's bound is the checker's; those of T2 and T4 are the same formulas in plain floating point (they are never stated
in a certificate).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ..core.guarantee import Alternative
from ..families.leaky_relu_noise import K0
from .convex_comparator import gradient_form

if TYPE_CHECKING:
    from .plan_leaky_relu_noise import Candidate, Task

_NAMES = {"sgd": "stochastic descent", "gd": "full-batch descent", "normalised-gd": "normalised descent"}


def alternatives(
    task: Task, method: str, one_pass: bool, chosen: Candidate, others: list[Candidate]
) -> tuple[Alternative, ...]:
    """Every theorem but the chosen one: those that apply first, by error bound."""
    rows = [
        Alternative(
            c.theorem,
            True,
            f"applies; {chosen.theorem} promises less error",
            c.derived["bound"],
            c.derived["error_bound"],
        )
        for c in others
    ]
    done = {chosen.theorem, *(c.theorem for c in others)}
    rows += [row for row in _all(task, method, one_pass, chosen) if row.theorem not in done]
    return tuple(sorted(rows, key=lambda r: (not r.accepted, r.error_bound or math.inf, r.theorem)))


def _all(task: Task, method: str, one_pass: bool, chosen: Candidate) -> list[Alternative]:
    smooth, this = task.family.activation.smooth, _NAMES[method]
    kink = (
        f"needs Smooth(L): {task.family.activation.name} has a kink, so the gradient jumps; use smooth-leaky"
    )
    full = f"speaks of full-batch descent with a constant step (--method gd); this is {this}"
    plain = method == "normalised-gd"

    def no(theorem: str, reason: str) -> Alternative:
        return Alternative(theorem, False, reason)

    return [
        no("T1", kink if method == "gd" else full),
        _stochastic_ppl(task)
        if method == "sgd" and smooth and not one_pass
        else no("T2", _why_not_t2(method, smooth)),
        no("T3", _why_not_t3(one_pass, this)) if one_pass or plain else _plain(task, chosen),
        no(
            "T3e",
            f"speaks of SGD with uniform draws (--method sgd); this is {this}{' in one pass' * one_pass}",
        ),
        no("T3f", full),
        _smooth_pc(task, chosen) if method == "gd" and smooth else no("T4", kink if method == "gd" else full),
        no("T5", "localises T3 and T4 to a ball; here their conditions hold everywhere, so it adds nothing"),
        no(
            "T6",
            "T6e is its form for the error: it charges rows instead of slopes, and the error is 0 or 1 (M = 1)",
        )
        if one_pass
        else no("T6", "needs one pass over i.i.d. rows (--one-pass)"),
        no("T6e", "needs one pass over i.i.d. rows (--method sgd --one-pass)"),
        no("T8", f"speaks of normalised full-batch descent (--method normalised-gd); this is {this}"),
    ]


def _why_not_t2(method: str, smooth: bool) -> str:
    if method != "sgd":
        return f"speaks of stochastic descent; this is {_NAMES[method]}"
    if not smooth:
        return "needs Smooth(L): leaky-relu has a kink, so the gradient jumps; use smooth-leaky"
    return "bounds the loss on the rows it draws again and again; in one pass only fresh rows count"


def _why_not_t3(one_pass: bool, this: str) -> str:
    if one_pass:
        return "bounds slopes on the rows drawn, not the error on fresh rows; T6e turns it into that"
    return f"needs a step size fixed in advance (--method gd or sgd); this is {this}"


def _plain(task: Task, chosen: Candidate) -> Alternative:
    """T3 in the paper's form, along the chosen direction: the best multiple of u and the best theta."""
    q, u = task.rows.unit_margins(chosen.u), chosen.u
    travel = task.radius**2 * float(u @ u) / (2 * task.steps * task.family.activation.slope**2)

    def limit(scale: float) -> tuple[float, float]:
        """(bound, theta): the best theta of ``(a + b / theta) / (1 - theta / 2)`` solves a quadratic."""
        a, b = float(np.maximum(1 - scale * q, 0.0).mean()), travel * scale**2
        theta = 1.0 if a == 0 else (math.sqrt(b * b + 2 * a * b) - b) / a
        theta = min(max(theta, 1e-9), 2 - 1e-9)
        return (a + b / theta) / (1 - theta / 2), theta

    scale = min(np.geomspace(0.1, 10, 400), key=lambda s: limit(s)[0])
    value, theta = limit(scale)
    kappa = max(2 * K0 / (1e-3 * value), 1.0)
    params = {"T": task.steps, "eta": theta * kappa / task.radius**2, "kappa": kappa}
    derived = task.derive("T3", scale * u, params)
    reason = "applies to mean |loss'|; the error is at most twice that, which is what T3e improves on"
    return Alternative("T3", True, reason, derived["bound"], derived["error_bound"])


def _slope_bound(task: Task, u: Float[np.ndarray, " d"], gradient: float) -> float:
    shortfall = np.maximum(1 - task.rows.unit_margins(u), 0.0).mean()
    return float(shortfall + np.linalg.norm(u) / task.family.activation.slope * gradient)


def _smoothness(task: Task) -> float:
    return task.spread * (0.25 + task.family.activation.curvature / math.sqrt(task.family.width))


def _initial_loss(task: Task) -> float:
    net = task.family.problem(task.features, task.targets, np.zeros_like(task.initial))
    z = task.family.activation.numpy(task.features @ task.initial.T) @ np.asarray(net.signs)
    return float(np.logaddexp(0.0, -task.targets * z / math.sqrt(task.family.width)).mean())


def _stochastic_ppl(task: Task) -> Alternative:
    """T2 with ``E ||grad f_z||^2 <= X^2`` as the noise and the step that minimises the bound."""
    noise = 2 * _initial_loss(task) * _smoothness(task) * task.radius**2 / task.steps
    gradient = noise**0.25
    best = gradient_form(task.rows, gradient)
    reason = (
        "applies to the least expected slope over the iterates, at the slow rate T^(-1/4) of bounded noise; "
        "computed in plain floating point, not certified"
    )
    return Alternative("T2", True, reason, _slope_bound(task, best.u, gradient), best.value)


def _smooth_pc(task: Task, chosen: Candidate) -> Alternative:
    """T4 in the error form, along the chosen direction, with ``eta = 1 / L`` and the best kappa."""
    eta, loss, q = 1 / _smoothness(task), _initial_loss(task), task.rows.unit_margins(chosen.u)

    def bounds(kappa: float) -> tuple[float, float]:
        shift = task.family.omega / kappa
        distance = float(np.sum((task.initial - task.family.comparator(chosen.u, kappa)) ** 2))
        rest = K0 / kappa + (distance / (2 * eta) + loss) / (task.steps * kappa)
        error = np.maximum(np.maximum(1 - q + shift, 1 - 2 * (q - shift)), 0.0).mean()
        return float(np.maximum(1 - q + shift, 0.0).mean() + rest), float(error + 2 * rest)

    slope, error = min((bounds(kappa) for kappa in np.geomspace(1, 1e9, 400)), key=lambda b: b[1])
    reason = "applies to averages with the step 1/L; computed in plain floating point, not certified (certificates know T1 and T3f)"
    return Alternative("T4", True, reason, slope, error)
