"""Verification of a box certificate: an inequality in a few bounded variables, proved on a subdivision of their ranges.

Steps: readable, schema, seal, condition, quadratic form, tree, statement. The boxes are not stored: they are the bisections the
tree names, starting from the ranges (rounded outward), so the leaves cover the ranges whatever the tree says; every leaf is
proved again, in the arithmetic of `intervals`.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .. import document
from ..document import choice, integer, items, matching, optional, record, text
from ..errors import CheckError
from ..rationals import to_float_down, to_float_up
from . import expressions as ex
from . import form as boxes_form
from . import intervals as iv

FORMAT, SCHEMA = "proxyconvex-box-certificate", 1
MAX_NODES = 50_000_000
CHUNK = 16_384
NATURAL, CENTRED, FORM, FORM_CENTRED = 8, 9, 10, 11
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
    fixed = ", ".join(f"{n} = {ex.short(c)}" for n, c in raw["constants"])
    bound = f"-{ex.short(raw['delta'])}" if raw["delta"] else "0"
    lift = LIFTS[raw["lift"]].format(names=", ".join(n for n, _, _ in raw["variables"]))
    given = f" with {fixed}" if fixed else ""
    weaker = " The inequality with 0 in place of this bound is not proved." if raw["delta"] else ""
    return f"{ex.text(raw['slack'])} >= {bound} for all {where}{given}.{weaker}{lift if not raw['delta'] else ''}"


# --- the tree ------------------------------------------------------------------------------------------------------


def pack(codes: np.ndarray) -> str:
    """The codes of a tree as text."""
    return base64.b64encode(zlib.compress(codes.astype(np.uint8).tobytes(), 9)).decode()


def unpack(packed: str, nodes: int) -> np.ndarray:
    """The codes of a tree.

    Raises:
        CheckError: if the text is not canonical base64 of exactly this many bytes.
    """
    try:
        content = base64.b64decode(packed, validate=True)
        if base64.b64encode(content).decode() != packed:
            raise CheckError("tree", "the tree is not stored canonically")
        engine = zlib.decompressobj()
        codes = engine.decompress(content, nodes + 1)
        if not engine.eof or engine.unused_data or len(codes) != nodes:
            raise CheckError("tree", f"the tree does not have exactly {nodes} nodes")
    except (binascii.Error, zlib.error, ValueError) as error:
        if isinstance(error, CheckError):
            raise
        raise CheckError("tree", f"the tree cannot be decoded ({error})") from error
    return np.frombuffer(codes, np.uint8)


def root(variables: list[tuple[str, Fraction, Fraction]]) -> tuple[np.ndarray, np.ndarray]:
    """The ranges as one box of floats, rounded outward."""
    lo = np.array([[to_float_down(a) for _, a, _ in variables]])
    hi = np.array([[to_float_up(b) for _, _, b in variables]])
    return lo, hi


def halves(lo: np.ndarray, hi: np.ndarray, coordinate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of every box; they share the midpoint."""
    rows = np.arange(len(lo))
    middle = lo[rows, coordinate] + 0.5 * (hi[rows, coordinate] - lo[rows, coordinate])
    low, high = np.repeat(lo, 2, axis=0), np.repeat(hi, 2, axis=0)
    high[2 * rows, coordinate] = middle
    low[2 * rows + 1, coordinate] = middle
    return low, high


def open_leaves(
    slack: ex.Rows, required: list[ex.Rows] | None, names: list[str], codes: np.ndarray, lo, hi
) -> np.ndarray:
    """Which of these leaves are not proved by the test their code names."""
    index = {n: i for i, n in enumerate(names)}
    failed = np.zeros(len(codes), bool)
    with np.errstate(all="ignore"):
        for start in range(0, len(codes), CHUNK):
            part = slice(start, start + CHUNK)
            for code in np.unique(codes[part]):
                pick = np.flatnonzero(codes[part] == code) + start
                failed[pick] = ~_holds(int(code), slack, required, lo[pick], hi[pick], index)
    return failed


def _holds(
    code: int, slack: ex.Rows, required: list[ex.Rows] | None, lo, hi, index: dict[str, int]
) -> np.ndarray:
    if code in (FORM, FORM_CENTRED) and required is None:
        return np.zeros(len(lo), bool)
    expressions = [slack] if code in (NATURAL, CENTRED) else required or []
    good = np.ones(len(lo), bool)
    for e in expressions:
        if code in (CENTRED, FORM_CENTRED):
            good &= iv.evaluate_centred(e, lo, hi, index) >= 0
        else:
            good &= iv.evaluate(e, lo, hi, index)[0] >= 0
    return good


def walk(
    variables: list[tuple[str, Fraction, Fraction]],
    codes: np.ndarray,
    leaf: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
) -> int:
    """Bisect as the tree says and hand every level's leaves (codes, lo, hi) on; returns the number of leaves.

    Raises:
        CheckError: for an unknown code, or a tree that ends too early or too late.
    """
    lo, hi = root(variables)
    position, leaves = 0, 0
    while len(lo):
        level = codes[position : position + len(lo)]
        if len(level) < len(lo):
            raise CheckError("tree", "the tree ends before every box is closed")
        position += len(level)
        split = level < len(variables)
        ends = (level >= NATURAL) & (level <= FORM_CENTRED)
        if not (split | ends).all():
            raise CheckError("tree", f"code {int(level[~(split | ends)][0])} means nothing here")
        leaves += int(ends.sum())
        if ends.any():
            leaf(level[ends], lo[ends], hi[ends])
        lo, hi = halves(lo[split], hi[split], level[split].astype(np.intp))
    if position != len(codes):
        raise CheckError("tree", "the tree goes on after every box is closed")
    return leaves


def requirements(parsed: dict[str, Any]) -> list[ex.Rows] | None:
    """What the quadratic form asks for, after checking that it is the slack."""
    if parsed["form"] is None:
        return None
    known = {n for n, _, _ in parsed["variables"]}
    form = parsed["form"]
    wanted = {n for n in (form["u"], form["v"], form["y"]) if isinstance(n, str)}
    for rows in (*form["matrix"], *(f["of"] for part in form["factors"] for f in part)):
        wanted |= ex.variables(rows)
    if not wanted <= known:
        raise CheckError("quadratic form", f"it uses {sorted(wanted - known)}, which are not variables")
    slack = closed(parsed["slack"], dict(parsed["constants"]), parsed["delta"])
    return boxes_form.check(form, parsed["curve"], slack)


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
    if document.seal(state.raw) != state.document["seal"]:
        raise CheckError("seal", "the document is not as it was written")
    return "the document is as it was written"


def _condition(state: _State) -> str:
    d = state.document
    names = [v[0] for v in d["variables"]]
    fixed = [c[0] for c in d["constants"]]
    if len({*names, *fixed}) != len(names) + len(fixed):
        raise CheckError("condition", "a name is given twice")
    used = ex.variables(d["slack"])
    if not used <= {*names, *fixed} or any(row[0] == "dd" for row in d["slack"]):
        raise CheckError("condition", "the slack uses something that is neither a variable nor a constant")
    if not set(fixed) <= used:
        raise CheckError("condition", "a constant is given that the slack does not use")
    if d["curve"] is not None and (ex.variables(d["curve"]) - {"t"} or any(r[0] == "dd" for r in d["curve"])):
        raise CheckError("condition", "the activation is not a function of t alone")
    if d["delta"] < 0:
        raise CheckError("condition", "delta must not be negative")
    return f"an inequality in {len(names)} variables"


def _form(state: _State) -> str:
    state.required = requirements(state.document)
    if state.required is None:
        return "none is used"
    return f"the slack is the stated quadratic form; {len(state.required)} inequalities make it >= 0"


def _tree(state: _State) -> str:
    d = state.document
    codes = unpack(d["tree"]["data"], d["tree"]["nodes"])
    slack = closed(d["slack"], dict(d["constants"]), d["delta"])
    names = [v[0] for v in d["variables"]]

    def leaf(level: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> None:
        failed = open_leaves(slack, state.required, names, level, lo, hi)
        if failed.any():
            i = int(np.flatnonzero(failed)[0])
            box = ", ".join(
                f"{n} in [{a!r}, {b!r}]"
                for n, a, b in zip(names, lo[i].tolist(), hi[i].tolist(), strict=True)
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
    ("tree", _tree),
    ("statement", _statement),
    ("library", _library),
)


def start(path: Path, raw: dict[str, Any]) -> _State:
    """The state from which `STEPS` run."""
    return _State(path, raw)
