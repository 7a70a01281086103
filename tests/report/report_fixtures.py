"""Audits made by hand: real (tiny) normalised descent and SGD runs in NumPy."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from proxyconvex.core.evidence import Evidence
from proxyconvex.core.guarantee import Alternative, Guarantee, PremiseRecord
from proxyconvex.core.methods import SGD, ConstantStep, GradientDescent, NormalisedStep
from proxyconvex.core.references import CHIZAT_BACH_2019, FREI_GU_2021, JI_TELGARSKY_2020, PROXYCONVEX_NOTES
from proxyconvex.descent.trace import COLUMNS, SUMS, Trace
from proxyconvex.report.audit import Audit, AuditCheck
from proxyconvex.synthesis.plan_types import Plan

START = np.array([-1.0, 0.5, 0.0, -0.5, -0.8])


def check(
    name: str, ok: bool = True, sentence: str = "held at every step", margin: float | None = None
) -> AuditCheck:
    """A check of an audit, with defaults."""
    return AuditCheck(name, ok, sentence, margin)


def descend(steps: int = 400, seed: int = 0, *, normalised: bool = True, n: int = 120) -> Trace:
    """Logistic regression trained by normalised or stochastic descent, every step recorded."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    x = rng.standard_normal((n, 5)) + 1.3 * y[:, None]
    v, w = np.full(5, 2.0), START.copy()
    rows: dict[str, list] = {k: [] for k in COLUMNS}
    used: dict[str, list] = {k: [] for k in SUMS}
    slacks, growths = [], []

    def losses(p):
        return np.logaddexp(0, -y * (x @ p))

    for t in range(steps + 1):
        slope = 1 / (1 + np.exp(y * (x @ w)))
        use = np.arange(n) if normalised else rng.integers(n, size=1)
        d, r = -(slope[use] * y[use]) @ x[use] / len(use), w - v
        eta = (0.02 / max(slope.mean(), 1e-3) if normalised else 0.05) * (t < steps)
        f, fv, wrong = losses(w), losses(v), y * (x @ w) <= 0
        drawn = np.nan if t == steps and not normalised else 1.0
        both = d @ r * drawn, d @ d * drawn
        row = (f.mean(), f.mean(), fv.mean(), *both, r @ r, wrong.mean(), slope.mean(), eta)
        for k, value in zip(COLUMNS, row, strict=True):
            rows[k].append(value)
        g, h = f[use].mean(), fv[use].mean()
        terms = (eta, eta * (d @ r), eta**2 * (d @ d), eta * g, eta * h, g, h, wrong[use].mean())
        for k, value in zip(SUMS, (*terms, abs(eta * (d @ r)), g, slope[use].mean()), strict=True):
            used[k].append(value)
        slacks.append(d @ r - g + h)
        growths.append(np.sqrt(d @ d) / slope[use].mean())
        w = w - eta * d
    sums = {k: np.concatenate([[0.0], np.cumsum(u)[:-1]]) for k, u in used.items()}
    trace = as_trace({k: np.array(c) for k, c in rows.items()}, sums, normalised, seed)
    least = int(np.argmin(slacks[:-1]))
    return replace(
        trace, min_slack=float(slacks[least]), min_slack_step=least, max_growth=float(max(growths[:-1]))
    )


def as_trace(columns: dict, sums: dict, normalised: bool = True, seed: int = 0) -> Trace:
    """A trace of every step from its columns, with the extremes the library keeps."""
    k = len(columns["loss"])
    empty = k == 0
    error, slack = columns["error"], columns["inner"] - columns["g"] + columns["h"]
    drops = [] if empty else [i for i in range(k) if error[i] < np.min(error[:i], initial=np.inf)]
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = np.sqrt(columns["grad_sq"]) / columns["slope"]
    step = NormalisedStep(0.02, 1e-3) if normalised else ConstantStep(0.05)
    count = max(k - 1, 1)
    return Trace(
        step=np.arange(k),
        **columns,
        sums=sums,
        min_error=float(np.min(error, initial=np.inf)) if not empty else math.nan,
        min_error_step=0 if empty else int(np.argmin(error)),
        min_loss=math.nan if empty else float(np.min(columns["loss"])),
        min_loss_step=0 if empty else int(np.argmin(columns["loss"])),
        best_steps=np.array(drops, dtype=np.int64),
        best_errors=error[drops] if drops else np.array([]),
        best_max_dist_sq=np.maximum.accumulate(columns["dist_sq"])[drops] if drops else np.array([]),
        max_dist_sq=math.nan if empty else float(np.max(columns["dist_sq"])),
        max_dist_step=0 if empty else int(np.argmax(columns["dist_sq"])),
        exit_step=-1,
        max_dist_sq_until_exit=math.nan if empty else float(np.max(columns["dist_sq"])),
        min_slack=math.nan if empty else float(np.nanmin(slack)),
        min_slack_step=0 if empty else int(np.nanargmin(slack)),
        max_growth=math.nan if empty else float(np.nanmax(growth)),
        initial=START,
        final_w=START,
        best_w=None,
        comparator_norm=float(np.sqrt(20.0)),
        rows=120,
        method=GradientDescent(step, count) if normalised else SGD(step, count),
        seed=seed,
        steps_done=k - 1 if k else 0,
    )


def empty_trace() -> Trace:
    """A run that recorded nothing."""
    return as_trace({k: np.array([]) for k in COLUMNS}, {k: np.array([]) for k in SUMS})


SENTENCES = {
    True: "Within 400 steps, normalised gradient descent reaches at most 0.799% training errors.",
    False: "Averaged over the steps, SGD makes at most 11.6% training errors in expectation.",
}
START_DISTANCE = float(np.linalg.norm(START - 2.0))


class FakeFamily:
    """Enough of a family for a report."""

    name, title = "two-layer-ntk", "Two-layer network near its linearisation (Ji and Telgarsky 2020)"

    def describe(self) -> dict:
        """JSON-ready description."""
        activation = {"name": "softplus", "slope": 0.0, "beta": 0.25}
        return {"name": self.name, "width": 1024, "activation": activation, "init_scale": 8.0, "seed": 0}

    def certificate_obstacle(self) -> str:
        """None."""
        return ""


def premises(kind: str) -> tuple[PremiseRecord, ...]:
    """Premises as the planners state them."""
    if kind == "sgd":
        return (
            PremiseRecord(
                "proxy-convexity",
                "<grad f_z, w-v> >= g_z - h_z, every row, all w",
                Evidence.PROVED,
                FREI_GU_2021,
            ),
            PremiseRecord(
                "rows-iid",
                "The rows are independent draws from one distribution",
                Evidence.ASSUMED,
                FREI_GU_2021,
            ),
        )
    return (
        PremiseRecord(
            "tangent-margins",
            "On the ball around v every tangent margin is at least q_i, the smallest being 4.75",
            Evidence.CERTIFIED,
            JI_TELGARSKY_2020,
            4.75,
        ),
        PremiseRecord(
            "gradient-norm",
            "||grad N(w; x_i)|| <= G on the ball",
            Evidence.CERTIFIED,
            PROXYCONVEX_NOTES,
            9.0,
        ),
        PremiseRecord(
            "ball",
            "All iterates stay in the ball of radius R = ||w0 - v||",
            Evidence.PROVED,
            PROXYCONVEX_NOTES,
            4.5,
        ),
        PremiseRecord("few-errors", "T c (2 S - c G^2) > R^2", Evidence.CERTIFIED, PROXYCONVEX_NOTES, 0.31),
    )


def make_plan(kind: str = "t8", steps: int = 400, **changes: Any) -> Plan:
    """A plan for a run of `descend`."""
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((120, 5))
    data = SimpleNamespace(
        name="digits:0,1",
        raw=raw,
        targets=np.where(np.arange(120) % 2, 1.0, -1.0),
        labels=("0", "1"),
        task="binary",
        columns=tuple(f"pixel_{i}" for i in range(5)),
        source="scikit-learn, load_digits",
        digest="ab" * 32,
    )
    pre = SimpleNamespace(describe=lambda: "drop constant columns; centre; unit-norm rows; bias feature 0.1")
    t8 = kind == "t8"
    step = NormalisedStep(0.02, 1e-3) if t8 else ConstantStep(0.05)
    method = GradientDescent(step, steps) if t8 else SGD(step, steps)
    guarantee = Guarantee(
        theorem="T8" if t8 else "T3e",
        quantity="best-iterate-error" if t8 else "average-error",
        sentence=SENTENCES[t8],
        bound=0.0079821 if t8 else 0.11599,
        error_bound=0.0079821 if t8 else 0.11599,
        mode="every-run" if t8 else "expectation",
        premises=premises(kind),
        method=method,
        references=(JI_TELGARSKY_2020, CHIZAT_BACH_2019, PROXYCONVEX_NOTES) if t8 else (FREI_GU_2021,),
        constants={"G": 9.0, "R": START_DISTANCE, "S": 1.7} if t8 else {"X": 1.0},
    )
    guarantee = replace(guarantee, **changes)
    alternatives = (
        Alternative(
            "T8",
            t8,
            "every premise is certified" if t8 else "needs full-batch gradients",
            0.0079821 if t8 else None,
            0.0079821 if t8 else None,
        ),
        Alternative(
            "T4T5", t8, "smooth with L = 0.31; the premises hold on the ball of radius R'", 0.0612, 0.0883
        ),
        Alternative("T3e", not t8, "One gradient per row, in any order", 0.11599, 0.11599),
        Alternative("T1", False, "needs f >= f_star everywhere with L eta <= 1, but L eta = 3.4"),
    )
    derived = {
        "R": START_DISTANCE,
        "G": 9.0,
        "S": 1.7000000000000002,
        "q_min": 4.75,
        "error_bound": 0.0079821,
    }
    return Plan(
        dataset=data,
        preprocessing=pre,
        features=raw,
        family=FakeFamily(),
        initial=np.zeros((1, 5)),
        comparator=np.full((1, 5), 2.0),
        certificate_comparator=np.full((1, 5), 2.0),
        method=method,
        guarantee=guarantee,
        derived=derived,
        theorem_params={"k": 2.0},
        alternatives=alternatives,
        seed=3,
        notes=("This promise lives in the lazy regime: the weights barely move.",) if t8 else (),
    )


def make_audit(
    kind: str = "t8", *, trace: Any = None, guarantee: dict | None = None, **changes: Any
) -> Audit:
    """An audit; ``changes`` replace its fields, ``guarantee`` those of the guarantee, ``trace`` the run."""
    trace = descend(normalised=kind == "t8") if trace is None else trace
    plan = make_plan(kind, **(guarantee or {}))
    error = trace.error
    measured = {
        "quantity": plan.guarantee.quantity,
        "final": float(error[-1]) if len(error) else float("nan"),
        "min": float(np.min(error)) if len(error) else float("nan"),
        "average": float(np.mean(error)) if len(error) else float("nan"),
    }
    measured["error"] = measured["min" if kind == "t8" else "average"]
    names = ("proxy-convexity", "gradient-norm", "region") if kind == "t8" else ("proxy-convexity",)
    checks = [check(name) for name in names]
    checks += [check("promise", sentence="the measured value is below the promise", margin=0.0079821)]
    checks += [
        check("trace-identity", sentence="both sides agree to 3.1e-16 of the absolute terms", margin=1e-12)
    ]
    command = "proxyconvex audit digits:0,1 --family two-layer-ntk --out runs/d01"
    fields = {"measured": measured, "checks": tuple(checks), "runs": (trace,), "command": command, **changes}
    return Audit(plan, trace, **fields)


@pytest.fixture(scope="session")
def kept() -> Audit:
    """A promise that was kept."""
    return make_audit()


@pytest.fixture(scope="session")
def sgd() -> Audit:
    """A promise about the mean over runs, with several seeds."""
    runs = tuple(descend(normalised=False, seed=s) for s in range(4))
    return make_audit("sgd", trace=runs[0], runs=runs)


@pytest.fixture(scope="session")
def broken() -> Audit:
    """A promise that was violated."""
    checks = (
        check("trace-identity", margin=1e-12),
        check("promise", False, "measured 3.33% at the best iterate, above the promised 0.799%", -0.0253),
        check("proxy-convexity", False, "slack -0.0123 at step 17", -0.0123),
    )
    error = 4 / 120
    measured = {
        "quantity": "best-iterate-error",
        "final": error,
        "min": error,
        "average": 0.2,
        "error": error,
    }
    run = descend()
    worse = np.maximum(run.error, error)
    keep = run.best_errors > error
    trace = replace(
        run,
        error=worse,
        min_error=error,
        min_error_step=int(np.argmin(worse)),
        best_steps=run.best_steps[keep],
        best_errors=run.best_errors[keep],
    )
    return make_audit(checks=checks, measured=measured, trace=trace)
