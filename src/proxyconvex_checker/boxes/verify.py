"""Verification of a box certificate: an inequality in a few bounded variables, proved on a subdivision of their ranges.

Steps: readable, schema, seal, condition, quadratic form, curvature, tree, statement. The boxes are not stored: they are the bisections the
tree names, starting from the ranges (rounded outward), so the leaves cover the ranges whatever the tree says; every leaf is
proved again, in the arithmetic of `intervals`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import document
from ..document import choice, integer, items, matching, optional, record, text
from ..errors import CheckError
from . import curvature
from . import expressions as ex
from . import form as boxes_form
from .tree import Proof, open_leaves, unpack, walk

T = TypeVar("T")
FORMAT, SCHEMA = "proxyconvex-box-certificate", 2
MAX_NODES = 50_000_000
TRUSTED = (
    "IEEE 754 binary64 + - * / and sqrt in NumPy; NumPy's exp, expm1, log and log1p within 8 units in the last place; "
    "Python's exact fractions; the proofs of the rewriting and of the mean-value form in the documentation."
)
LIFTS = {
    "none": "",
    "mean": " The mean of the slack over any distribution of ({names}) inside these ranges is then >= 0 as well.",
    "single-neuron": (
        " If the slack of a condition at w is the mean of this expression over the data, with a = <w, x> and b = <v, x>, then the "
        "condition holds in every dimension and for every distribution of the data that keeps ({names}) inside these ranges."
    ),
}

ORIGIN = (
    "The formula was translated from {origin}. What is checked here is the formula; that it is what the functions compute in real arithmetic "
    "is not."
)

_name = matching(ex.NAME, "a name of letters, digits and underscores")


def _rational(value: Any, path: str) -> Fraction:
    return ex.rational(value, path)


def _range(value: Any, path: str) -> tuple[str, Fraction, Fraction]:
    if not isinstance(value, list) or len(value) != 3:
        raise CheckError("schema", f"{path}: accepted: [name, lo, hi]")
    name, lo, hi = _name(value[0], path), _rational(value[1], path), _rational(value[2], path)
    if not lo < hi or max(abs(lo), abs(hi)) > 10**100:
        raise CheckError("schema", f"{path}: accepted: lo < hi, of size at most 1e100")
    return name, lo, hi


def _constant(value: Any, path: str) -> tuple[str, Fraction]:
    if not isinstance(value, list) or len(value) != 2:
        raise CheckError("schema", f"{path}: accepted: [name, value]")
    return _name(value[0], path), _rational(value[1], path)


def _pivot(value: Any, path: str) -> str | Fraction:
    """A variable's name, or a number."""
    if isinstance(value, str) and ex.NAME.fullmatch(value):
        return value
    return _rational(value, path)


def _target(value: Any, path: str) -> tuple[str, ex.Rows]:
    """A variable and where its segment starts."""
    if not isinstance(value, list) or len(value) != 2:
        raise CheckError("schema", f"{path}: accepted: [name, rows]")
    return _name(value[0], path), ex.rows(value[1], path)


_factor = record(of=ex.rows, power=integer(1, 64))
_document = record(
    format=choice(FORMAT),
    schema=choice(SCHEMA),
    proxyconvex=text(40),
    statement=text(20_000),
    variables=items(_range, 1, 6),
    constants=items(_constant, 0, 50),
    slack=ex.rows,
    curve=optional(ex.rows),
    domain=items(ex.rows, 0, 20),
    origin=optional(text(1_000)),
    smoothness=optional(_rational),
    delta=_rational,
    lift=choice(*LIFTS),
    form=optional(
        record(
            u=_name,
            v=_pivot,
            y=optional(_name),
            order=choice(1, 2),
            matrix=items(ex.rows, 1, 3),
            factors=items(items(_factor, 0, 50), 1, 3),
        )
    ),
    rewritten=optional(ex.rows),
    segments=items(_target, 0, 6),
    tree=record(nodes=integer(1, MAX_NODES), leaves=integer(1, MAX_NODES), data=text(document.MAX_BYTES)),
    trusted=choice(TRUSTED),
    seal=matching(document._HEX_DIGEST, "64 lower-case hexadecimal digits"),
)


def closed(slack: ex.Rows, constants: dict[str, Fraction], delta: Fraction) -> ex.Rows:
    """``slack + delta`` with the values of the constants put in."""
    rows = [("const", constants[r[1]]) if r[0] == "var" and r[1] in constants else r for r in slack]
    if delta:
        rows = [*rows, ("const", delta)]
        rows.append(("add", len(rows) - 2, len(rows) - 1))
    return rows


def statement(raw: dict[str, Any]) -> str:
    """The sentence that a parsed document implies."""
    where = ", ".join(f"{n} in [{ex.short(lo)}, {ex.short(hi)}]" for n, lo, hi in raw["variables"])
    where += "".join(f" with {ex.text(d)} >= 0" for d in raw["domain"])
    fixed = ", ".join(f"{n} = {ex.short(c)}" for n, c in raw["constants"])
    bound = f"-{ex.short(raw['delta'])}" if raw["delta"] else "0"
    lift = LIFTS[raw["lift"]].format(names=", ".join(n for n, _, _ in raw["variables"]))
    given = f" with {fixed}" if fixed else ""
    weaker = " The inequality with 0 in place of this bound is not proved." if raw["delta"] else ""
    origin = f" {ORIGIN.format(origin=raw['origin'])}" if raw["origin"] else ""
    if raw["smoothness"] is not None:
        names = ", ".join(n for n, _, _ in raw["variables"])
        return (
            f"|f(u) - f(w) - <grad f(w), u - w>| <= (L/2) ||u - w||^2 with L = {ex.short(raw['smoothness'])} for all u and w = ({names}) "
            f"with {where}, where f = {ex.text(raw['slack'])}.{origin}"
        )
    said = f"{ex.text(raw['slack'])} >= {bound} for all {where}{given}.{weaker}{lift if not raw['delta'] else ''}"
    return said + origin


def either(parsed: dict[str, Any], check: Callable[[ex.Rows], T]) -> T:
    """A check of the slack with delta added or, failing that, of the slack alone: where this is >= 0, ``slack + delta`` is, too."""
    constants, delta = dict(parsed["constants"]), parsed["delta"]
    try:
        return check(closed(parsed["slack"], constants, delta))
    except CheckError:
        if not delta:
            raise
        return check(closed(parsed["slack"], constants, Fraction(0)))


def requirements(parsed: dict[str, Any]) -> list[ex.Rows] | None:
    """What the quadratic form, or the slack in another writing, asks for, after checking that it is the slack."""
    return either(parsed, lambda slack: _requirements(parsed, slack))


def _requirements(parsed: dict[str, Any], slack: ex.Rows) -> list[ex.Rows] | None:
    known = {n for n, _, _ in parsed["variables"]}
    if parsed["rewritten"] is not None:
        return [_rewritten(parsed, slack, known)]
    if parsed["form"] is None:
        return None
    form = parsed["form"]
    wanted = {n for n in (form["u"], form["v"], form["y"]) if isinstance(n, str)}
    for rows in (*form["matrix"], *(f["of"] for part in form["factors"] for f in part)):
        wanted |= ex.variables(rows)
    if not wanted <= known:
        raise CheckError("quadratic form", f"it uses {sorted(wanted - known)}, which are not variables")
    return boxes_form.check(form, parsed["curve"], slack)


def _rewritten(parsed: dict[str, Any], slack: ex.Rows, known: set[str]) -> ex.Rows:
    rows = parsed["rewritten"]
    if parsed["form"] is not None or parsed["smoothness"] is not None:
        raise CheckError("quadratic form", "another writing excludes a quadratic form and smoothness")
    if ex.variables(rows) - known or any(row[0] == "dd" for row in rows):
        raise CheckError("quadratic form", "another writing may use the variables only")
    if ex.expand(rows) != ex.expand(slack):
        raise CheckError("quadratic form", "the other writing is not the slack")
    return rows


def proof_of(parsed: dict[str, Any], required: list[ex.Rows] | None) -> Proof:
    """What the leaves may rest on, from a parsed document and its checked requirements."""
    slack = closed(parsed["slack"], dict(parsed["constants"]), parsed["delta"])
    names = [n for n, _, _ in parsed["variables"]]
    return Proof(slack, required, parsed["segments"], parsed["domain"], parsed["smoothness"], names)


# --- the steps -----------------------------------------------------------------------------------------------------


class _State:
    def __init__(self, path: Path, raw: dict[str, Any]) -> None:
        self.path, self.raw = path, raw
        self.notes: list[str] = []
        self.document: dict[str, Any] = {}
        self.required: list[ex.Rows] | None = None


def parse(raw: dict[str, Any]) -> dict[str, Any]:
    """The document with rationals and rows decoded, after every field has been checked for form."""
    return _document(raw, "")


def _schema(state: _State) -> str:
    state.document = parse(state.raw)
    return "every field is known, present and of its type"


def _seal(state: _State) -> str:
    return document.check_seal(state.raw, state.document["seal"])


def _condition(state: _State) -> str:
    d = state.document
    names = [v[0] for v in d["variables"]]
    fixed = [c[0] for c in d["constants"]]
    if len({*names, *fixed}) != len(names) + len(fixed):
        raise CheckError("condition", "a name is given twice")
    used = ex.variables(d["slack"])
    if any(ex.variables(rows) - set(names) or any(row[0] == "dd" for row in rows) for rows in d["domain"]):
        raise CheckError("condition", "the domain uses something that is not a variable")
    if not used <= {*names, *fixed} or any(row[0] == "dd" for row in d["slack"]):
        raise CheckError("condition", "the slack uses something that is neither a variable nor a constant")
    if not set(fixed) <= used:
        raise CheckError("condition", "a constant is given that the slack does not use")
    if d["curve"] is not None and (ex.variables(d["curve"]) - {"t"} or any(r[0] == "dd" for r in d["curve"])):
        raise CheckError("condition", "the activation is not a function of t alone")
    if d["delta"] < 0:
        raise CheckError("condition", "delta must not be negative")
    if d["smoothness"] is not None and (
        d["smoothness"] < 0 or d["delta"] or fixed or d["curve"] is not None or d["lift"] != "none"
    ):
        raise CheckError("condition", "smoothness goes with a constant L >= 0 and nothing else")
    return f"an inequality in {len(names)} variables"


def _form(state: _State) -> str:
    state.required = requirements(state.document)
    if state.required is None:
        return "none is used"
    if state.document["rewritten"] is not None:
        return "the slack is the stated other writing of it"
    return f"the slack is the stated quadratic form; {len(state.required)} inequalities make it >= 0"


def _curvature(state: _State) -> str:
    d = state.document
    if d["smoothness"] is not None:
        if d["segments"] or d["form"] is not None:
            raise CheckError("curvature", "smoothness is proved by second derivatives alone")
        if not curvature.convex(d["domain"]):
            raise CheckError("curvature", "smoothness needs a region that is convex by its form")
        return "the region is convex; second derivatives decide"
    if not d["segments"]:
        return "none is used"
    names = {n for n, _, _ in d["variables"]}
    either(d, lambda slack: curvature.check(d["segments"], slack, names))
    return "the slack and its derivatives vanish where the segments start"


def _tree(state: _State) -> str:
    d = state.document
    codes = unpack(d["tree"]["data"], d["tree"]["nodes"])
    proof = proof_of(d, state.required)

    def leaf(level: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> None:
        failed = open_leaves(proof, level, lo, hi)
        if failed.any():
            i = int(np.flatnonzero(failed)[0])
            box = ", ".join(
                f"{n} in [{a!r}, {b!r}]"
                for n, a, b in zip(proof.names, lo[i].tolist(), hi[i].tolist(), strict=True)
            )
            raise CheckError("tree", f"{int(failed.sum())} boxes are not proved, the first {box}")

    leaves = walk(d["variables"], codes, leaf)
    if leaves != d["tree"]["leaves"]:
        raise CheckError("tree", f"the tree has {leaves} leaves, the document says {d['tree']['leaves']}")
    return f"{leaves:,} boxes cover the ranges and each is proved"


def _statement(state: _State) -> str:
    if state.document["statement"] != statement(state.document):
        raise CheckError("statement", "the sentence is not the one the document implies")
    return "the sentence is the one the document implies"


def _library(state: _State) -> str:
    from .library import check

    return check(state.document)


STEPS = (
    ("schema", _schema),
    ("seal", _seal),
    ("condition", _condition),
    ("quadratic form", _form),
    ("curvature", _curvature),
    ("tree", _tree),
    ("statement", _statement),
    ("library", _library),
)


def start(path: Path, raw: dict[str, Any]) -> _State:
    """The state from which `STEPS` run."""
    return _State(path, raw)
