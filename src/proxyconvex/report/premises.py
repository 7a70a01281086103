"""The premises of each theorem, checked on a trace: near misses must show up here."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..core.methods import ConstantStep, NormalisedStep
from ..descent.trace import Trace
from ..synthesis.plan_types import Plan
from . import on_trace
from .checks import TOLERANCE, AuditCheck

__all__ = ["AuditCheck", "last_needed", "premise_checks"]


def premise_checks(plan: Plan, trace: Trace) -> list[AuditCheck]:
    """Every premise of the plan's theorem that a run can contradict."""
    makers = _CHECKS.get(plan.guarantee.theorem, ())
    if plan.conditional:
        shared = {
            "T8": (start_distance, step_rule),
            "T4": (start_distance, step_rule, proxy_convexity),
            "T1": (step_rule,),
        }
        makers = (*shared[plan.guarantee.theorem], *on_trace.CHECKS[plan.guarantee.theorem])
    checks = [make(plan, trace) for make in makers]
    return [check for check in checks if check is not None]


def last_needed(plan: Plan, trace: Trace) -> tuple[int, float]:
    """Last step the premises speak of, and the largest squared distance up to it.

    T8 speaks of the run up to the first iterate with fewer than k errors, T3r up to the first recorded one with the promised risk, T4T5 and T3T5 up to the first step at which the
    sum of ``g - h`` turns negative; afterwards an iterate may leave the ball, and the promise has been kept already.
    """
    if plan.conditional:
        return on_trace.reached(plan, trace), trace.max_dist_sq
    if plan.guarantee.theorem == "T8":
        reached = trace.first_step_with_error(plan.guarantee.bound * (1 + TOLERANCE))
        if reached is not None:
            return reached
    if plan.guarantee.theorem == "T3r":
        reached = np.flatnonzero(2 * trace.loss <= plan.guarantee.bound)
        if len(reached):
            inside = trace.dist_sq[: reached[0] + 1]
            return int(trace.step[reached[0]]), float(np.max(inside))
    if plan.guarantee.theorem in ("T4T5", "T3T5") and trace.exit_step >= 0:
        return trace.exit_step, trace.max_dist_sq_until_exit
    return trace.steps_done, trace.max_dist_sq


def proxy_convexity(plan: Plan, trace: Trace) -> AuditCheck:
    """``<d_t, w_t - v> - g_t + h_t >= 0``, on the rows used in the step."""
    last, _ = last_needed(plan, trace)
    slack = trace.inner - trace.g + trace.h
    size = np.abs(trace.inner) + np.abs(trace.g) + np.abs(trace.h)
    inside = (trace.step <= last) & np.isfinite(slack)
    if not inside.any():
        return AuditCheck("proxy-convexity", True, "no step was taken inside the region", None)
    k = int(np.argmin(np.where(inside, slack, math.inf)))
    least, where = float(slack[k]), int(trace.step[k])
    ok = bool(np.all(slack[inside] >= -TOLERANCE * size[inside]))
    if trace.stochastic:
        # Under SGD the recorded g and h are those of all rows; the run itself keeps the least slack over every step.
        least, where = trace.min_slack, trace.min_slack_step
        ok = least >= -TOLERANCE * float(np.max(size[inside]))
    elif trace.min_slack_step <= last and trace.min_slack < least:
        # An unrecorded step is worse than every recorded one.
        least, where = trace.min_slack, trace.min_slack_step
        ok = ok and least >= -TOLERANCE * float(np.max(size[inside]))
    text = f"least slack of <grad, w-v> - (g - h) is {least:.4g}, at step {where:,}"
    return AuditCheck("proxy-convexity", ok, text, least)


def gradient_norm(plan: Plan, trace: Trace) -> AuditCheck:
    """``||d_t|| <= G mean|loss'|`` (T8), and with ``G = X`` sample by sample (T3e, T6e)."""
    limit = plan.derived["G"] if "G" in plan.derived else plan.derived["X"]
    last, _ = last_needed(plan, trace)
    inside = (trace.step <= last) & (trace.slope > 0) & np.isfinite(trace.grad_sq)
    if trace.stochastic or last >= trace.steps_done:
        ratio = trace.max_growth
    else:
        ratio = float(np.max(np.sqrt(trace.grad_sq[inside]) / trace.slope[inside], initial=0.0))
    text = f"largest ||grad|| / mean|loss'| is {ratio:.6g}, allowed {limit:.6g}"
    return AuditCheck("gradient-norm", ratio <= limit * (1 + TOLERANCE), text, limit - ratio)


def proxy_pl(plan: Plan, trace: Trace) -> AuditCheck:
    """``||grad f|| >= (c/||u||) (g - h)``, the proxy PL inequality of the leaky family (T1)."""
    factor = plan.derived["u_norm"] / plan.family.describe()["activation"]["slope"]
    inside = np.isfinite(trace.grad_sq)
    slack = factor * np.sqrt(trace.grad_sq[inside]) - trace.g[inside] + trace.h[inside]
    size = trace.g[inside] + trace.h[inside]
    k = int(np.argmin(slack))
    text = f"least slack of (||u||/c) ||grad|| - (g - xi) is {slack[k]:.4g}, at step {int(trace.step[inside][k]):,}"
    return AuditCheck("proxy-pl", bool(np.all(slack >= -TOLERANCE * size)), text, float(slack[k]))


def growth(plan: Plan, trace: Trace) -> AuditCheck:
    """``||grad f||^2 <= lambda_max mean|loss'|^2``, seen through ``mean|loss'|^2 <= mean|loss'|`` (T3f)."""
    limit = plan.derived["lambda_max"]
    inside = (trace.slope > 0) & np.isfinite(trace.grad_sq)
    ratio = float(np.max(trace.grad_sq[inside] / trace.slope[inside], initial=0.0))
    text = f"largest ||grad||^2 / mean|loss'| is {ratio:.6g}, allowed {limit:.6g}"
    return AuditCheck("growth", ratio <= limit * (1 + TOLERANCE), text, limit - ratio)


def region(plan: Plan, trace: Trace) -> AuditCheck:
    """The iterates stay in the ball around the comparator for as long as the theorem needs it."""
    limit = plan.derived.get("radius", plan.derived["R"])
    last, farthest = last_needed(plan, trace)
    distance = math.sqrt(max(farthest, 0.0))
    text = (
        f"farthest from the comparator up to step {last:,}: {distance:.6g}, radius of the region {limit:.6g}"
    )
    return AuditCheck("region", distance <= limit * (1 + TOLERANCE), text, limit - distance)


def smoothness(plan: Plan, trace: Trace) -> AuditCheck | None:
    """The descent inequality ``f_t - f_{t+1} >= (1/eta - L/2) eta^2 ||grad||^2``, over the whole run and step by step."""
    step = plan.method.step
    if not isinstance(step, ConstantStep):
        return None
    eta, limit = step.eta, plan.derived["L"]
    pairs = np.flatnonzero(np.diff(trace.step) == 1)
    moved = eta * eta * trace.grad_sq[pairs]
    drop = trace.loss[pairs] - trace.loss[pairs + 1]
    slack = drop - (1 / eta - limit / 2) * moved
    # The two losses are subtracted, so their own rounding is the scale.
    scale = 1e-13 * (trace.loss[pairs] + trace.loss[pairs + 1]) + TOLERANCE * moved / eta
    total = trace.loss[0] - trace.loss[-1] - (1 / eta - limit / 2) * trace.total("sum_eta2_grad_sq")
    ok = bool(np.all(slack >= -scale) and total >= -TOLERANCE * max(float(trace.loss[0]), 1e-300))
    with np.errstate(all="ignore"):
        measured = 2 * (1 / eta - drop / moved)
    largest = float(
        np.nanmax(np.where(moved > 1e-12 * np.max(moved, initial=0), measured, np.nan), initial=-math.inf)
    )
    text = f"largest curvature seen along a step is {largest:.6g}, allowed L = {limit:.6g}"
    return AuditCheck("smoothness", ok, text, float(total))


def step_rule(plan: Plan, trace: Trace) -> AuditCheck:
    """The step sizes taken are those the theorem speaks of."""
    step = plan.method.step
    taken = trace.eta[:-1]
    if isinstance(step, NormalisedStep):
        meant = step.c / np.maximum(trace.slope[:-1], step.floor)
    elif isinstance(step, ConstantStep):
        meant = np.full(len(taken), step.eta)
    else:
        meant = step.eta / (1 + trace.step[:-1] / step.scale) ** step.power
    worst = float(np.max(np.abs(taken / meant - 1), initial=0.0))
    return AuditCheck(
        "step-size", worst <= TOLERANCE, f"relative deviation from the planned rule {worst:.2g}", None
    )


def start_distance(plan: Plan, trace: Trace) -> AuditCheck:
    """``||w_0 - v||`` is at most the certified R."""
    limit = plan.derived["R"]
    distance = math.sqrt(trace.initial_dist_sq)
    text = f"||w_0 - v|| = {distance:.9g}, certified at most {limit:.9g}"
    return AuditCheck("start-distance", distance <= limit * (1 + TOLERANCE), text, limit - distance)


def online_errors(plan: Plan, trace: Trace) -> AuditCheck:
    """T3e in its every-run form: the errors SGD makes on the rows it draws, before using them."""
    limit = plan.derived.get("online_bound", plan.derived["bound"])
    value = trace.online_error
    text = f"fraction of drawn rows that were wrong when drawn: {value:.6g}"
    if trace.method.sampling == "with-replacement":  # type: ignore[union-attr]
        return AuditCheck(
            "online-errors", True, f"{text} (its mean over seeds is promised at most {limit:.6g})", None
        )
    return AuditCheck(
        "online-errors", value <= limit * (1 + TOLERANCE), f"{text}, promised {limit:.6g}", limit - value
    )


def updates(plan: Plan, trace: Trace) -> AuditCheck:
    """T3m and T3u: how often the weights were changed, and since when they were not."""
    count = trace.total("sum_slope")
    quiet = int(trace.step[int(np.argmax(trace.sums["sum_slope"] >= count))])
    text = f"{count:,.0f} updates, none after step {quiet:,} of {trace.steps_done:,}"
    if plan.guarantee.theorem == "T3m":
        limit = plan.derived["updates"]
        return AuditCheck("updates", count <= limit, f"{text}; promised at most {limit:,.0f}", limit - count)
    limit = plan.derived["bound"] * plan.method.steps
    if trace.method.sampling == "with-replacement":  # type: ignore[union-attr]
        return AuditCheck(
            "updates", True, f"{text} (at most {limit:,.0f} are promised in the mean over seeds)", None
        )
    return AuditCheck(
        "updates", count <= limit * (1 + TOLERANCE), f"{text}; promised at most {limit:,.0f}", limit - count
    )


def neuron_growth(plan: Plan, trace: Trace) -> AuditCheck:
    """``||grad f||^2 <= lambda_max mean (r s')^2``; the mean is what g holds beside ``alpha mean r^2`` (T3r)."""
    last, _ = last_needed(plan, trace)
    inside = (trace.step <= last) & np.isfinite(trace.grad_sq)
    steep = (trace.g - plan.theorem_params["alpha"] * 2 * trace.loss)[inside] / plan.proxy["tail"]
    limit, grad = plan.derived["lambda_max"], trace.grad_sq[inside]
    # g is a sum of two terms, so that what is left of it has the rounding of the whole.
    noise = 1e-13 * trace.g[inside] / plan.proxy["tail"]
    ok = bool(np.all(grad <= limit * (steep * (1 + TOLERANCE) + noise)))
    ratio = float(np.max(grad[steep > noise] / steep[steep > noise], initial=0.0))
    text = f"largest ||grad||^2 / mean (r s')^2 is {ratio:.6g}, allowed {limit:.6g}"
    return AuditCheck("growth", ok, text, limit - ratio)


def gradient_dominance(plan: Plan, trace: Trace) -> AuditCheck:
    """``(1/2)||grad f||^2 >= m (f - f*)``, seen through ``f* <= f(v)``: at least ``m (f_t - f(v))`` (PLg)."""
    m, inside = plan.derived["m"], np.isfinite(trace.grad_sq)
    slack = trace.grad_sq[inside] / 2 - m * (trace.loss[inside] - plan.derived["opt"])
    ok = bool(np.all(slack >= -1e-12 * m * (trace.loss[inside] + plan.derived["opt"])))
    k = int(np.argmin(slack))
    text = f"least slack of ||grad||^2/2 - m (f - f(v)) is {slack[k]:.4g}, at step {int(trace.step[inside][k]):,}"
    return AuditCheck("proxy-pl", ok, text, float(slack[k]))


def contraction(plan: Plan, trace: Trace) -> AuditCheck:
    """``||w_t - v|| <= q^t R + eta delta / (1 - q)`` at every recorded step (RSIrank, RSIphase)."""
    square, R = plan.derived["contraction"], plan.derived["R"]
    q, push = math.sqrt(square), plan.theorem_params["eta"] * plan.derived["noise"]
    limit = R * q ** trace.step.astype(float) + push / (1 - q)
    excess = np.sqrt(trace.dist_sq) - limit
    # Distances are differences of weights of the comparator's size.
    ok = bool(np.all(excess <= TOLERANCE * limit + 1e-13 * float(np.linalg.norm(plan.comparator))))
    k = int(np.argmax(np.sqrt(trace.dist_sq) / limit))
    text = (
        f"largest share of the promised distance q^t R: {float(np.sqrt(trace.dist_sq[k]) / limit[k]):.6g}, at step {int(trace.step[k]):,}; "
        f"farthest {math.sqrt(max(trace.max_dist_sq, 0.0)):.6g}, radius of the region {R:.6g}"
    )
    return AuditCheck("region", ok, text, -float(excess[k]))


def moved(plan: Plan, trace: Trace) -> AuditCheck:
    """The last iterate is in the ball around the start (PLnet)."""
    limit = plan.theorem_params["radius"]
    distance = float(np.linalg.norm(trace.final_w - trace.initial))
    text = f"||w_T - w_0|| = {distance:.6g}, radius of the region {limit:.6g}"
    return AuditCheck("region", distance <= limit * (1 + TOLERANCE), text, limit - distance)


_CHECKS: dict[str, tuple[Callable[[Plan, Trace], AuditCheck | None], ...]] = {
    "T8": (start_distance, step_rule, proxy_convexity, gradient_norm, region),
    "T3e": (start_distance, step_rule, proxy_convexity, gradient_norm, online_errors),
    "T3m": (start_distance, step_rule, proxy_convexity, gradient_norm, updates),
    "T3u": (start_distance, step_rule, proxy_convexity, gradient_norm, updates),
    "CvxSquares": (start_distance, step_rule, proxy_convexity, smoothness),
    "CvxLogistic": (start_distance, step_rule, proxy_convexity, smoothness),
    "PLg": (start_distance, step_rule, proxy_convexity, smoothness, gradient_dominance),
    "RSIrank": (start_distance, step_rule, proxy_convexity, contraction),
    "RSIphase": (start_distance, step_rule, proxy_convexity, contraction),
    "PLnet": (step_rule, smoothness, gradient_dominance, moved),
    "T3r": (start_distance, step_rule, proxy_convexity, neuron_growth, region),
    "T3f": (start_distance, step_rule, proxy_convexity, growth),
    "T6e": (start_distance, step_rule, proxy_convexity, gradient_norm, online_errors),
    "T4T5": (start_distance, step_rule, proxy_convexity, smoothness, region),
    "T3T5": (start_distance, step_rule, proxy_convexity, gradient_norm, region),
    "T1": (step_rule, proxy_pl, smoothness),
}
