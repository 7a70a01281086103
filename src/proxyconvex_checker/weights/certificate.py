"""Certificates in weight space: arrays beside a small document; everything is computed again.

Steps after reading: schema, seal, arrays, network, claim, statement. The document names the arrays (inputs, targets, weights, signs,
radii) by their SHA-256, the region, the claimed number and the scalars that prove it (nu; the number of shells).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import activations, document
from ..checking import load_array
from ..document import choice, integer, items, matching, optional, real, record, text
from ..errors import CheckError
from ..initial import array_digest
from . import claims as weight_claims
from .claims import DENSE, QUANTITIES, TWO_LAYER, Subject

FORMAT, SCHEMA = "proxyconvex-weight-certificate", 1
MAX_LAYERS = 64

_ARRAY = matching(
    re.compile(r"inputs|targets|signs|radii|weight_[0-9]{1,2}"),
    "inputs, targets, signs, radii, weight_0, ...",
)
_parse = record(
    format=choice(FORMAT),
    schema=choice(SCHEMA),
    proxyconvex=text(40),
    statement=text(2000),
    network=record(
        kind=choice(TWO_LAYER, DENSE),
        activation=record(
            name=choice(*document.ACTIVATIONS), slope=real(0.0, 1.0), beta=real(0.0, open_low=True)
        ),
        layers=integer(1, MAX_LAYERS),
        scales=items(real(0.0, open_low=True), 0, MAX_LAYERS),
        trained=items(choice(False, True), 0, MAX_LAYERS),
        output=integer(0, 2**24),
    ),
    arrays=items(
        record(
            name=_ARRAY,
            file=document.FILE,
            sha256=document.DIGEST,
            shape=items(integer(1, document.MAX_ENTRIES), 1, 2),
        ),
        2,
        MAX_LAYERS + 4,
    ),
    region=record(radius=optional(real(0.0))),
    claim=record(
        quantity=choice(*QUANTITIES),
        side=choice("at least", "at most"),
        value=real(),
        evidence=choice("CERTIFIED"),
    ),
    proof=record(nu=optional(real(0.0)), shells=integer(1, 1000)),
    seal=document.DIGEST,
)


def parse(raw: dict[str, Any]) -> dict[str, Any]:
    """The document with floats decoded, every field checked.

    Raises:
        CheckError: naming the first field that is refused.
    """
    found = _parse(raw, "")
    network, names = found["network"], [a["name"] for a in found["arrays"]]
    dense = network["kind"] == DENSE
    activation = network["activation"]
    if activation["name"] in activations.HOMOGENEOUS and activation["beta"] != 1:
        raise CheckError(
            "schema", f"network.activation.beta has no meaning for {activation['name']} and must be 1"
        )
    if len(set(names)) != len(names):
        raise CheckError("schema", "an array is named twice")
    due = {"inputs", *(f"weight_{i}" for i in range(network["layers"]))} | (set() if dense else {"signs"})
    odd = (due - set(names)) | (set(names) - due - {"targets", "radii"})
    if odd:
        raise CheckError("schema", f"arrays: {', '.join(sorted(odd))} missing, or not part of this network")
    if (len(network["scales"]), len(network["trained"])) != ((network["layers"],) * 2 if dense else (0, 0)):
        raise CheckError(
            "schema",
            "network.scales and network.trained have one entry per layer of a dense network, else none",
        )
    if not dense and (network["layers"] != 1 or network["output"] != 0):
        raise CheckError("schema", "a two-layer network has one layer of weights and one output")
    if sum(math.prod(a["shape"]) for a in found["arrays"]) > document.MAX_ENTRIES:
        raise CheckError("schema", f"the arrays hold more than {document.MAX_ENTRIES} numbers")
    return found


def subject(found: dict[str, Any], arrays: dict[str, np.ndarray]) -> Subject:
    """The network, rows and region a document speaks of."""
    network = found["network"]
    return Subject(
        network["kind"],
        activations.parse(network["activation"]),
        arrays,
        found["region"]["radius"],
        tuple(network["scales"]),
        tuple(network["trained"]),
        network["output"],
    )


class _State:
    def __init__(self, path: Path, raw: dict[str, Any]) -> None:
        self.path, self.raw = path, raw
        self.document: dict[str, Any] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.notes: list[str] = []
        self.subject: Subject


def start(path: Path, raw: dict[str, Any]) -> _State:
    """The state `checking.verify` runs `STEPS` on."""
    return _State(path, raw)


def _schema(state: _State) -> str:
    state.document = parse(state.raw)
    return "every field is known, present, of its type and in its range"


def _seal(state: _State) -> str:
    return document.check_seal(state.raw, state.document["seal"])


def _arrays(state: _State) -> str:
    for entry in state.document["arrays"]:
        array = load_array(state.path.parent / entry["file"], tuple(entry["shape"]), "arrays")
        if array_digest(array) != entry["sha256"]:
            raise CheckError(
                "arrays", f"{entry['file']} is not the array the document names (another SHA-256)"
            )
        state.arrays[entry["name"]] = array
    return f"{len(state.arrays)} arrays, as named"


def _network(state: _State) -> str:
    state.subject = subject(state.document, state.arrays)
    return weight_claims.network_words(state.subject)


def _claim(state: _State) -> str:
    claim, proof = state.document["claim"], state.document["proof"]
    quantity, about = claim["quantity"], QUANTITIES[claim["quantity"]]
    side = "at least" if about.lower else "at most"
    if claim["side"] != side:
        raise CheckError("claim", f"claim.side is {claim['side']!r}; a bound on {quantity} is {side!r}")
    derived = weight_claims.evaluator(state.subject, proof["nu"], proof["shells"])(quantity)
    if not weight_claims.implied(quantity, derived, claim["value"]):
        raise CheckError(
            "claim", f"claim.value = {claim['value']!r} does not follow from the re-derived {derived!r}"
        )
    return f"{quantity} is {side} {claim['value']!r}: re-derived {derived!r} with outward rounding"


def _statement(state: _State) -> str:
    claim = state.document["claim"]
    if state.document["statement"] != weight_claims.statement(
        state.subject, claim["quantity"], claim["value"]
    ):
        raise CheckError("statement", "the sentence is not the one the numbers of the document imply")
    return "the sentence is the one the numbers imply"


STEPS: tuple[tuple[str, Callable[[_State], str]], ...] = (
    ("schema", _schema),
    ("seal", _seal),
    ("arrays", _arrays),
    ("network", _network),
    ("claim", _claim),
    ("statement", _statement),
)
