"""The subdivision of a box certificate: how it is stored, what its boxes are, and what closes a leaf."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import CheckError
from ..rationals import to_float_down, to_float_up
from . import curvature
from . import evaluation as ev
from . import expressions as ex

CHUNK = 16_384
NATURAL, CENTRED, FORM, FORM_CENTRED, CURVED, OUTSIDE = 8, 9, 10, 11, 12, 13


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


@dataclass(frozen=True)
class Proof:
    """What the leaves of a tree may rest on.

    Attributes:
        slack: the inequality with its constants put in (f itself for smoothness).
        required: what makes the slack >= 0 where it is >= 0: the parts of a quadratic form, or the slack rewritten.
        segments: where the slack vanishes to second order: coordinates and the values they take there.
        domain: what is >= 0 in the region.
        smoothness: L, or None.
        names: names of the coordinates.
    """

    slack: ex.Rows
    required: list[ex.Rows] | None
    segments: list[tuple[str, ex.Rows]]
    domain: list[ex.Rows]
    smoothness: Fraction | None
    names: list[str]


def open_leaves(proof: Proof, codes: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Which of these leaves are not proved by the test their code names."""
    index = {n: i for i, n in enumerate(proof.names)}
    failed = np.zeros(len(codes), bool)
    with np.errstate(all="ignore"):
        for start in range(0, len(codes), CHUNK):
            part = slice(start, start + CHUNK)
            for code in np.unique(codes[part]):
                pick = np.flatnonzero(codes[part] == code) + start
                failed[pick] = ~_holds(int(code), proof, lo[pick], hi[pick], index)
    return failed


def _holds(code: int, proof: Proof, lo: np.ndarray, hi: np.ndarray, index: dict[str, int]) -> np.ndarray:
    if code == OUTSIDE:
        outside = np.zeros(len(lo), bool)
        for d in proof.domain:
            outside |= ev.evaluate(d, lo, hi, index)[1] < 0
        return outside
    if proof.smoothness is not None:
        if code != CURVED:
            return np.zeros(len(lo), bool)
        return curvature.smooth(proof.slack, proof.smoothness, lo, hi, index)
    if code == CURVED:
        if not proof.segments:
            return np.zeros(len(lo), bool)
        return curvature.closes(proof.slack, proof.segments, lo, hi, index)
    if code in (FORM, FORM_CENTRED) and proof.required is None:
        return np.zeros(len(lo), bool)
    good = np.ones(len(lo), bool)
    for e in [proof.slack] if code in (NATURAL, CENTRED) else proof.required or []:
        if code in (CENTRED, FORM_CENTRED):
            good &= ev.evaluate_centred(e, lo, hi, index) >= 0
        else:
            good &= ev.evaluate(e, lo, hi, index)[0] >= 0
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
        ends = (level >= NATURAL) & (level <= OUTSIDE)
        if not (split | ends).all():
            raise CheckError("tree", f"code {int(level[~(split | ends)][0])} means nothing here")
        leaves += int(ends.sum())
        if ends.any():
            leaf(level[ends], lo[ends], hi[ends])
        lo, hi = halves(lo[split], hi[split], level[split].astype(np.intp))
    if position != len(codes):
        raise CheckError("tree", "the tree goes on after every box is closed")
    return leaves
