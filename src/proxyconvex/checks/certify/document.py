"""Write a proof by boxes as a certificate that `proxyconvex_checker` re-verifies."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from proxyconvex_checker import document
from proxyconvex_checker.boxes import tree as boxes_tree
from proxyconvex_checker.boxes import verify as boxes_verify

from ...core.errors import InvalidInputError
from ...core.expression_rows import instructions
from ...core.reduced import MEAN, RIDGE, ReducedCondition
from .rewrite import Plan
from .ways import Way


def _lift(condition: ReducedCondition) -> str:
    names = ", ".join(condition.variables)
    return {MEAN.format(names=names): "mean", RIDGE.format(names=names): "single-neuron"}.get(
        condition.lift, "none"
    )


def _form(plan: Plan) -> dict[str, Any]:
    return {
        "u": plan.u,
        "v": plan.v,
        "y": plan.y,
        "order": plan.order,
        "matrix": [instructions(m) for m in plan.matrix],
        "factors": [[{"of": instructions(e), "power": n} for e, n in part] for part in plan.factors],
    }


def draft(
    condition: ReducedCondition,
    way: Way,
    codes: np.ndarray,
    delta: Fraction,
    smoothness: Fraction | None = None,
) -> dict[str, Any]:
    """The sealed document of a proof."""
    from ... import __version__

    raw: dict[str, Any] = {
        "format": boxes_verify.FORMAT,
        "schema": boxes_verify.SCHEMA,
        "proxyconvex": __version__,
        "statement": "-",
        "variables": [[k, str(lo), str(hi)] for k, (lo, hi) in condition.variables.items()],
        "constants": [[k, str(v)] for k, v in condition.constants.items()],
        "slack": instructions(condition.expression),
        "curve": None if condition.curve is None else instructions(condition.curve),
        "domain": [instructions(e) for e in condition.domain],
        "origin": condition.origin or None,
        "smoothness": None if smoothness is None else str(smoothness),
        "delta": str(delta),
        "lift": _lift(condition),
        "form": None if way.plan is None else _form(way.plan),
        "rewritten": None if way.rewritten is None else instructions(way.rewritten),
        "segments": []
        if way.segment is None
        else [[n, instructions(e)] for n, e in zip(way.segment.moved, way.segment.starts, strict=True)],
        "tree": {
            "nodes": len(codes),
            "leaves": int((codes >= boxes_tree.NATURAL).sum()),
            "data": boxes_tree.pack(codes),
        },
        "trusted": boxes_verify.TRUSTED,
        "seal": "0" * 64,
    }
    raw["statement"] = boxes_verify.statement(boxes_verify.parse(raw))
    raw["seal"] = document.seal(raw)
    return raw


def write(raw: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write a document, atomically; returns its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(json.dumps(raw, indent=1) + "\n")
    partial.replace(target)
    return target


def accepted(
    condition: ReducedCondition,
    way: Way,
    codes: np.ndarray,
    delta: Fraction,
    smoothness: Fraction | None = None,
) -> dict[str, Any]:
    """The sealed document, after the checker's own tests passed on every leaf.

    The checker's enclosures are a little wider than those of the search. A leaf that it cannot close is bisected further
    here, so that the certificate is one it accepts.

    Raises:
        InvalidInputError: if a leaf resists 40 further levels.
    """
    parsed = boxes_verify.parse(draft(condition, way, codes, delta, smoothness))
    proof = boxes_verify.proof_of(parsed, boxes_verify.requirements(parsed))

    def failing(level: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
        return boxes_tree.open_leaves(proof, level, lo, hi)

    tree = deepened(codes, *boxes_tree.root(parsed["variables"]), failing)
    return draft(condition, way, tree, delta, smoothness)


def deepened(codes: np.ndarray, lo: np.ndarray, hi: np.ndarray, failing: Any, levels: int = 40) -> np.ndarray:
    """The tree with every leaf that fails bisected, along its widest coordinate, until its parts pass.

    A part is closed by the test of the leaf it came from, which only improves on smaller boxes.
    """
    widths = hi[0] - lo[0]
    # For each box of the current level: its position in the old tree, or minus the test its parts are to pass.
    source, start, old_width, new, extra = np.zeros(1, np.int64), 0, 1, [], 0
    while len(lo):
        inside = source >= 0
        level = np.where(inside, codes[np.where(inside, start + source, 0)], -source).astype(np.int64)
        leaf = level >= boxes_tree.NATURAL
        bad = np.zeros(len(lo), bool)
        bad[leaf] = failing(level[leaf].astype(np.uint8), lo[leaf], hi[leaf])
        extra += bool(bad.any())
        if extra > levels:
            raise InvalidInputError(
                "certificate", f"{int(bad.sum())} boxes", "boxes that the checker's arithmetic can close"
            )
        widest = np.argmax((hi - lo) / widths, axis=1)
        out = np.where(bad, widest, level)
        new.append(out.astype(np.uint8))
        # Children of old splits keep their order in the old tree.
        old = codes[start : start + old_width]
        rank = np.cumsum(old < boxes_tree.NATURAL) - 1
        split = out < boxes_tree.NATURAL
        first = np.where(inside & ~leaf, 2 * rank[np.where(inside, source, 0)] if old_width else 0, -level)
        second = np.where(inside & ~leaf, first + 1, -level)
        start, old_width = start + old_width, 2 * int((old < boxes_tree.NATURAL).sum())
        source = np.stack([first[split], second[split]], axis=1).ravel()
        lo, hi = boxes_tree.halves(lo[split], hi[split], out[split].astype(np.intp))
    return np.concatenate(new)
