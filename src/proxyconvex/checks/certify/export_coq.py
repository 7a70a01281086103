"""The same statement for the Coq proof assistant, with a proof script for the `interval` tactic of coq-interval.

Without a quadratic form the script asks `interval` to bisect. With one in first differences of one function it states the
mean-value theorem, bounds the form near the diagonal (``|t| <= gap``, q a value of the derivative in between) and away from it (q the
quotient), and concludes by algebra; so equality at ``t = r = 0`` is included, as in the certificate.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from ...core.arithmetics import evaluate, run
from ...core.errors import InvalidInputError
from ...core.expressions import (
    Expression,
    lift,
    names,
    power,
    rebuild,
    substitute,
    topological,
    unary_derivative,
    variable,
)
from ...core.reduced import ReducedCondition
from .rewrite import Plan, difference, plans
from .verdict import Certification

HEAD = """(* {title}

   Written by proxyconvex {version}. Needs coq-interval (Debian: coq, libcoq-interval). Check it with: coqc {file} *)
Require Import Reals Lra Psatz.
From Coquelicot Require Import Coquelicot.
From Interval Require Import Tactic.
Open Scope R_scope.

Definition sigmoid (x : R) := 1 / (1 + exp (- x)).
Definition softplus (x : R) := ln (1 + exp x).
Definition tanh' (x : R) := 1 - 2 / (exp (2 * x) + 1).
Definition bump (x : R) := sigmoid x * sigmoid (- x).
"""

ALGEBRA = """
Lemma psd (A B D t r : R) : 0 <= A -> 0 <= D -> 0 <= A * D - B * B ->
  0 <= A * t * t + 2 * B * t * r + D * r * r.
Proof.
intros HA HD HB. destruct (Req_dec A 0) as [E | E].
- assert (B = 0) by nra. subst. nra.
- apply Rmult_le_reg_l with A; [lra |]. rewrite Rmult_0_r.
  replace (A * (A * t * t + 2 * B * t * r + D * r * r))
    with ((A * t + B * r) * (A * t + B * r) + (A * D - B * B) * (r * r)) by ring.
  apply Rplus_le_le_0_compat; [apply Rle_0_sqr | apply Rmult_le_pos; [assumption | apply Rle_0_sqr]].
Qed.

Lemma mean (f df : R -> R) (b t : R) : (forall x, is_derive f x (df x)) ->
  exists tau, 0 <= tau <= 1 /\\ f (b + t) - f b = df (b + tau * t) * t.
Proof.
intros H. destruct (Req_dec t 0) as [E | E].
- exists 0. subst. split; [lra |]. replace (b + 0) with b by ring. ring.
- destruct (MVT_gen f b (b + t) df) as [c [Hc Ec]].
  + intros x _. apply H.
  + intros x _. apply continuity_pt_filterlim, (ex_derive_continuous f). exists (df x). apply H.
  + exists ((c - b) / t). replace (b + (c - b) / t * t) with c by (field; exact E).
    split; [| replace t with (b + t - b) at 2 by ring; exact Ec].
    unfold Rmin, Rmax in Hc. destruct (Rle_dec b (b + t)) as [L | L].
    * split; apply Rmult_le_reg_r with t; try lra; replace ((c - b) / t * t) with (c - b) by (field; lra); lra.
    * split; apply Rmult_le_reg_r with (- t); try lra; replace ((c - b) / t * - t) with (b - c) by (field; lra); lra.
Qed.
"""

DERIVATIVES = {
    "softplus": ("softplus", "sigmoid", "unfold softplus, sigmoid. auto_derive; [pose proof (exp_pos x); lra |]. "
                 "rewrite exp_Ropp. pose proof (exp_pos x). field. split; lra."),
    "sigmoid": ("sigmoid", "bump", "unfold bump, sigmoid. auto_derive; [pose proof (exp_pos (- x)); lra |]. "
                "rewrite Ropp_involutive, exp_Ropp. pose proof (exp_pos x). field. split; lra."),
    "exp": ("exp", "exp", "auto_derive; [exact I | ring]."),
}  # fmt: skip
"""Coq name of a function, of its derivative, and the proof of that."""


def number(c: Fraction) -> str:
    """A rational as a Coq term."""
    top = f"({c.numerator})" if c.numerator < 0 else str(c.numerator)
    return top if c.denominator == 1 else f"({top} / {c.denominator})"


def _no_step(_: str) -> str:
    raise InvalidInputError(
        "formula", "step", "functions that coq-interval knows", "Kinks in a derivative cannot be exported."
    )


TERMS: dict[str, Callable[..., str]] = {
    "neg": lambda x: f"(- {x})",
    "add": lambda x, y: f"({x} + {y})",
    "sub": lambda x, y: f"({x} - {y})",
    "mul": lambda x, y: f"({x} * {y})",
    "div": lambda x, y: f"({x} / {y})",
    "pow": lambda x, n: f"({x} ^ {n})",
    "max": lambda x, y: f"(({x} + {y} + Rabs ({x} - {y})) / 2)",
    "min": lambda x, y: f"(({x} + {y} - Rabs ({x} - {y})) / 2)",
    "exp": lambda x: f"(exp {x})",
    "log": lambda x: f"(ln {x})",
    "log1p": lambda x: f"(ln (1 + {x}))",
    "sqrt": lambda x: f"(sqrt {x})",
    "abs": lambda x: f"(Rabs {x})",
    "relu": lambda x: f"(({x} + Rabs {x}) / 2)",
    "tanh": lambda x: f"(tanh' {x})",
    "sigmoid": lambda x: f"(sigmoid {x})",
    "softplus": lambda x: f"(softplus {x})",
    "bump": lambda x: f"(bump {x})",
    "step": _no_step,
}


def term(e: Expression) -> str:
    """An expression as a Coq term."""
    return run(e, {n: n for n in names(e)}, TERMS, number)


def _between(name: str, lo: Fraction, hi: Fraction) -> str:
    return f"{number(lo)} <= {name} <= {number(hi)}"


def _interval(variables: list[str], first: str | None = None) -> str:
    bisect = [f"i_bisect {v}" for v in variables] + ([f"i_autodiff {first}"] if first else [])
    return f"interval with ({', '.join(bisect)}, i_depth 45, i_prec 40)"


UNFOLD = "unfold softplus, bump, sigmoid, tanh'"


def _direct(condition: ReducedCondition) -> str:
    ranges = " -> ".join(_between(k, lo, hi) for k, (lo, hi) in condition.variables.items())
    keys = list(condition.variables)
    return (
        f"\nTheorem condition ({' '.join(keys)} : R) : {ranges} ->\n  0 <= {term(condition.closed)}.\n"
        f"Proof.\nintros. {UNFOLD}.\n{_interval(keys, keys[0])}.\nQed.\n"
    )


def _with_form(condition: ReducedCondition, plan: Plan, gap: Fraction) -> str:
    nodes = {n for m in plan.matrix for n in topological(m) if n.op == "dd"}
    used = {n.args[0] for n in nodes}
    if plan.order != 1 or len(used) != 1 or not used <= set(DERIVATIVES):
        raise InvalidInputError(
            "certificate", plan.sentence, f"a form in first differences of one of {', '.join(DERIVATIVES)}",
            "Other forms can be checked by proxyconvex verify, not by Coq.",
        )  # fmt: skip
    f = used.pop()
    coq, slope, proof = DERIVATIVES[f]
    u, v, t, q = plan.u, plan.v, "dt", "dq"
    shifted = {u: variable(v) + variable(t)}
    node = difference(f, 1, variable(u), variable(v))
    entries = [substitute(_replace(m, node, variable(q)), shifted) for m in plan.matrix]
    parts = [substitute(_replace(_product(part), node, variable(q)), shifted) for part in plan.factors]
    others = [k for k in condition.variables if k != u]
    (ulo, uhi), (vlo, vhi) = condition.variables[u], condition.variables[v]
    low, high = min(ulo - vhi, -gap), max(uhi - vlo, gap)
    ranges = {k: condition.variables[k] for k in others}

    def goal(name: str, span: tuple[Fraction, Fraction], value: str, tau: bool) -> str:
        need = [k for k in others if any(k in names(p) for p in parts) or k == v]
        keys = [*need, t, *(["tau"] if tau else [])]
        given = (
            [_between(k, *ranges[k]) for k in need]
            + [_between(t, *span)]
            + (["0 <= tau <= 1"] if tau else [])
        )
        claims = " /\\ ".join(f"0 <= {term(substitute(p, {q: variable('QQ')}))}" for p in parts).replace(
            "QQ", value
        )
        tactic = _interval(keys, None if tau else t)
        return (
            f"\nLemma {name} ({' '.join(keys)} : R) : {' -> '.join(given)} ->\n  {claims}.\n"
            f"Proof.\nintros. {UNFOLD}. repeat split; {tactic}.\nQed.\n"
        )

    ends = f"({coq} ({v} + {t}))", f"({coq} {v})"
    quotient = f"(({ends[0]} - {ends[1]}) / {t})"
    lemmas = [
        f"\nLemma derive (x : R) : is_derive {coq} x ({slope} x).\nProof. {proof} Qed.\n",
        goal("near", (-gap, gap), f"({slope} ({v} + tau * {t}))", True),
    ]
    if high > gap:
        lemmas.append(goal("above", (gap, high), quotient, False))
    if low < -gap:
        lemmas.append(goal("below", (low, -gap), quotient, False))
    return "".join(lemmas) + _conclusion(
        condition, plan, entries, parts, others, (low, high), gap, coq, slope
    )


def _product(part: tuple[tuple[Expression, int], ...]) -> Expression:
    result = lift(1)
    for e, n in part:
        result = result * power(e, n)
    return result


def _replace(e: Expression, node: Expression, by: Expression) -> Expression:
    return rebuild(e, lambda n: by if n == node else None)


def _conclusion(condition, plan, entries, parts, others, span, gap, coq, slope) -> str:
    u, v, t, q = plan.u, plan.v, "dt", "dq"
    need = [k for k in others if any(k in names(p) for p in parts) or k == v]
    low, high = span
    given = " -> ".join([*(_between(k, *condition.variables[k]) for k in need), _between(t, low, high)])
    claims = " /\\ ".join(f"0 <= {term(p)}" for p in parts)
    keys = " ".join([*need, t])
    value = f"(({coq} ({v} + {t}) - {coq} {v}) / {t})"
    apply = lambda lemma, extra="": f"apply ({lemma} {keys}{extra}); (assumption || lra)"  # noqa: E731
    cases = f"exists {value}. split; [field; lra |]. "
    above = cases + apply("above") + "." if high > gap else "lra."
    below = cases + apply("below") + "." if low < -gap else "lra."
    slack = term(substitute(condition.closed, {u: variable(v) + variable(t)}))
    products = [term(p) for p in parts]
    same = [f"replace ({{}}) with {product} by field; exact G{i}" for i, product in enumerate(products)]
    if plan.y is None or condition.curve is None:
        a = term(entries[0])
        form = f"{a} * ({t} * {t})"
        last = f"apply Rmult_le_pos; [{same[0].format(a)} | apply Rle_0_sqr]."
    else:
        r = term(substitute(condition.curve, {"t": variable(v)}) - variable(plan.y))
        a, b, d = (term(m) for m in entries)
        form = f"{a} * {t} * {t} + 2 * {b} * {t} * {r} + {d} * {r} * {r}"
        last = f"apply psd; [{same[0].format(a)} | {same[1].format(d)} | {same[2].format(f'{a} * {d} - {b} * {b}')}]."
    ranges = " -> ".join(_between(k, lo, hi) for k, (lo, hi) in condition.variables.items())
    names_ = " ".join(condition.variables)
    pattern = f"G{len(parts) - 1}"
    for i in reversed(range(len(parts) - 1)):
        pattern = f"[G{i} {pattern}]"
    return (
        f"\nLemma difference ({keys} : R) : {given} ->\n  exists {q} : R, {coq} ({v} + {t}) - {coq} {v} = {q} * {t} /\\ {claims}.\n"
        f"Proof.\nintros. destruct (Rle_dec {t} {number(gap)}) as [L | L]; [destruct (Rle_dec {number(-gap)} {t}) as [L' | L'] |].\n"
        f"- destruct (mean {coq} {slope} {v} {t} derive) as [tau [Ht E]].\n"
        f"  exists ({slope} ({v} + tau * {t})). split; [exact E |]. {apply('near', ' tau')}.\n"
        f"- {below}\n- {above}\nQed.\n"
        f"\nTheorem condition ({names_} : R) : {ranges} ->\n  0 <= {term(condition.closed)}.\n"
        f"Proof.\nintros. pose ({t} := {u} - {v}). assert (Eu : {u} = {v} + {t}) by (unfold {t}; ring).\n"
        f"assert (Ht : {_between(t, low, high)}) by (unfold {t}; lra). clearbody {t}. subst {u}.\n"
        f"destruct (difference {keys}) as [{q} [E {pattern}]]; try assumption.\n"
        f"assert (F : {coq} ({v} + {t}) = {coq} {v} + {q} * {t}) by lra.\n"
        f"replace {slack}\n  with ({form}).\n- {last}\n- rewrite ?F. field.\nQed.\n"
    )


def coq_text(
    condition: ReducedCondition, plan: Plan | None, file: str = "condition.v", gap: Fraction | None = None
) -> str:
    """The Coq file of a certified condition.

    Args:
        condition: the condition; every name must be usable in Coq.
        plan: the quadratic form of its proof, or None.
        file: name shown in the first comment.
        gap: half-width of the strip about the diagonal (default: a twelfth of the larger range).

    Raises:
        InvalidInputError: if the proof is of a kind that this exporter does not know.
    """
    from ... import __version__

    reserved = {
        "dt",
        "dq",
        "tau",
        "QQ",
        "exp",
        "ln",
        "sqrt",
        "R",
        "e",
        "E",
        "F",
        "x",
        "in",
        "at",
        "as",
        "fun",
        "if",
    }
    if bad := reserved & set(condition.variables):
        raise InvalidInputError(
            "variables", sorted(bad), "names other than these", "Rename them for the export."
        )
    title = condition.statement.replace("(*", "( *").replace("*)", "* )")
    head = HEAD.format(title=title, version=__version__, file=file)
    if plan is None:
        return head + _direct(condition)
    return head + ALGEBRA + _with_form(condition, plan, gap if gap is not None else _gap(condition, plan))


def _gap(condition: ReducedCondition, plan: Plan, part: int = 12) -> Fraction:
    return max(hi - lo for lo, hi in (condition.variables[plan.u], condition.variables[plan.v])) / part


def _promising(condition: ReducedCondition, plan: Plan, gap: Fraction) -> bool:
    """Whether the obligations of `_with_form` look true at sampled points: they are posed with u free to leave its range."""
    nodes = {n for m in plan.matrix for n in topological(m) if n.op == "dd"}
    if plan.order != 1 or len(nodes) != 1 or not {n.args[0] for n in nodes} <= set(DERIVATIVES):
        return False
    node, rng, n = nodes.pop(), np.random.default_rng(0), 20_000
    point = {
        k: rng.uniform(float(lo), float(hi), n) for k, (lo, hi) in condition.variables.items() if k != plan.u
    }
    (ulo, uhi), (vlo, vhi) = condition.variables[plan.u], condition.variables[plan.v]
    t = rng.uniform(float(min(ulo - vhi, -gap)), float(max(uhi - vlo, gap)), n)
    v = point[plan.v]
    f, q = node.args[0], variable("dq")
    slope = unary_derivative(f, variable("z"))
    far = (
        evaluate(Expression(f, variable("z")), {"z": v + t})
        - evaluate(Expression(f, variable("z")), {"z": v})
    ) / t
    near = evaluate(slope, {"z": v + rng.uniform(0, 1, n) * t})
    values = {**point, plan.u: v + t, "dq": np.where(np.abs(t) < float(gap), near, far)}
    parts = [_replace(_product(part), node, q) for part in plan.factors]
    return all(
        np.min(evaluate(p, values)) > 0 if names(p) else p.op == "const" and p.args[0] >= 0 for p in parts
    )


def export_coq(
    certification: Certification, path: str | os.PathLike[str], gap: Fraction | None = None
) -> Path:
    """Write a `Certification` that HOLDS as a Coq file; returns its path.

    The form of the proof is used if the obligations it leads to look true at sampled points, else another form that does.

    Raises:
        InvalidInputError: if nothing was proved by boxes, or no form leads to a script.
    """
    condition = certification.condition
    if condition is None or certification.codes is None or certification.delta != 0:
        raise InvalidInputError(
            "verdict", certification.status.name, "a verdict HOLDS by boxes with delta = 0"
        )
    plan, target = certification.plan, Path(path)
    if certification.smoothness is not None or certification.way.segment is not None or condition.domain:
        raise InvalidInputError(
            "certificate", "second derivatives or a domain", "an inequality on a box, by subdivision or a quadratic form",
            "Check it with proxyconvex verify.",
        )  # fmt: skip
    if plan is not None and plan.v not in condition.variables:
        raise InvalidInputError(
            "certificate", plan.sentence, "a form about two variables", "Check it with proxyconvex verify."
        )
    if plan is not None:
        gaps = [gap] if gap is not None else [_gap(condition, plan, part) for part in (6, 12, 24)]
        candidates = [plan, *plans(condition, lambda e: e.op in ("sigmoid", "bump", "exp", "softplus", "dd"))]
        candidates = [p for p in candidates if p.v in condition.variables]
        plan, gap = next(
            ((p, g) for g in gaps for p in candidates if _promising(condition, p, g)), (None, None)
        )
        if plan is None:
            raise InvalidInputError(
                "certificate", "its form", f"a form in first differences of one of {', '.join(DERIVATIVES)} with room to spare",
                "Other forms can be checked by proxyconvex verify, not by Coq.",
            )  # fmt: skip
    target.write_text(coq_text(condition, plan, target.name, gap))
    return target
