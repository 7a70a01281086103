"""What each theorem promises, about which method, on which premises: the meaning of a certificate.

A certificate's words are not free: its statement, premises, evidence and references are regenerated here from
its numbers and must be equal to the stored ones. `proxyconvex` writes certificates with the same functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..decimals import show
from ..document import EVIDENCE
from ..errors import CheckError
from ..rounding import to_float_down, to_float_up

STEP = "theorem"
PADDING = Fraction(1, 10**10)
"""Stored numbers are moved by this, relatively, in their safe direction: rounding elsewhere may differ."""
PROMISED = ("bound", "error_bound", "online_bound")


@dataclass(frozen=True)
class Premise:
    """One premise: a sentence with ``{names}`` of numbers, its evidence and where it is proved."""

    name: str
    sentence: str
    evidence: str
    reference: str
    value: str | None = None


@dataclass(frozen=True)
class Claim:
    """One theorem about one family and one kind of method.

    Attributes:
        quantity: identifier of the bounded quantity.
        mode: ``"every-run"``, ``"expectation"`` or ``"probability"``.
        methods: names of the methods it speaks of.
        integers: parameters stored as integers.
        reals: parameters stored as floats.
        optional: parameters that may be absent.
        promise: the promise, with ``{names}``.
        premises: what it rests on.
        references: keys of exactly the results it uses.
        lower: constants that are lower bounds; those neither here nor in ``exact`` are upper bounds.
        exact: constants that are stored exactly as derived.
        whole_passes: whether the steps must visit every row equally often (the bound averages over the rows).
        statistics_allowed: whether the preprocessing may use statistics of the data.
    """

    quantity: str
    mode: str
    methods: tuple[str, ...]
    promise: str
    premises: tuple[Premise, ...]
    references: tuple[str, ...]
    integers: tuple[str, ...] = ("T",)
    reals: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    whole_passes: bool = False
    statistics_allowed: bool = True

    @property
    def evidence(self) -> str:
        """The weakest premise's evidence."""
        return min((p.evidence for p in self.premises), key=EVIDENCE.index)


# --- does the theorem speak of this method? ----------------------------------------------------------------


def lookup(document: dict[str, Any], table: dict[tuple[str, str, str | None], Claim]) -> Claim:
    """The entry for a document's family, theorem and sampling.

    Raises:
        CheckError: if there is no such theorem for that family and sampling.
    """
    key = (document["family"]["name"], document["theorem"]["id"], document["method"]["sampling"])
    if key not in table:
        raise CheckError(
            STEP, f"no theorem {key[1]} is known for family {key[0]} with sampling {key[2] or 'none'}"
        )
    return table[key]


def check_method(document: dict[str, Any], claim: Claim) -> None:
    """Refuse a document whose theorem speaks of another method, other numbers or another preprocessing.

    Raises:
        CheckError: naming the field that disagrees.
    """
    method, params = document["method"], document["theorem"]["params"]
    if method["name"] not in claim.methods:
        raise CheckError(
            STEP, f"method.name is {method['name']}; the theorem speaks of {', '.join(claim.methods)}"
        )
    if method["batch_size"] not in (None, 1):
        raise CheckError(
            STEP, f"method.batch_size is {method['batch_size']}; the theorem speaks of single rows"
        )
    _check_parameters(params, claim)
    step = method["step"]
    bound = {"T": method["steps"], **{k: v for k, v in step.items() if k != "kind"}}
    for name, value in bound.items():
        if name not in params:
            raise CheckError(
                STEP, f"theorem.params.{name} is missing, so the promise does not speak of this method"
            )
        if params[name] != value:
            raise CheckError(STEP, f"theorem.params.{name} = {params[name]} but the method has {value}")
    if method["sampling"] == "one-pass" and method["steps"] > document["data"]["n"]:
        raise CheckError(
            STEP, f"one pass over {document['data']['n']} rows cannot take {method['steps']} steps"
        )
    if claim.whole_passes and method["steps"] % document["data"]["n"]:
        raise CheckError(STEP, f"{method['steps']} steps are not a whole number of passes over the rows")
    if not claim.statistics_allowed:
        _check_no_statistics(document)


def _check_parameters(params: dict[str, Any], claim: Claim) -> None:
    known = set(claim.integers) | set(claim.reals)
    for name in params:
        if name not in known:
            raise CheckError(STEP, f"theorem.params.{name} is not a parameter of this theorem")
    for name in sorted(known - set(claim.optional)):
        if name not in params:
            raise CheckError(STEP, f"theorem.params.{name} is missing")
    for name, value in params.items():
        if isinstance(value, int) != (name in claim.integers):
            kind = "an integer" if name in claim.integers else "a hexadecimal float"
            raise CheckError(STEP, f"theorem.params.{name} must be {kind}")


def _check_no_statistics(document: dict[str, Any]) -> None:
    """A promise about unseen rows needs a preprocessing that was fixed before the rows were seen."""
    settings, d = document["preprocessing"], document["data"]["d"]
    if settings["center"] or settings["scale"] != "none" or settings["kept_columns"] != list(range(d)):
        raise CheckError(
            STEP,
            "a promise about unseen rows allows no data statistics: no centring, scaling or dropped columns",
        )


# --- numbers -----------------------------------------------------------------------------------------------


def scale(name: str, value: float) -> Fraction:
    """The size that paddings and windows refer to.

    Promised bounds are compared relatively. All other constants are of order one or more, or differences of
    such numbers (a margin, a shortfall that should be zero), whose rounding errors are those of numbers of
    order one.
    """
    size = abs(Fraction(value))
    return size if name in PROMISED else max(size, Fraction(1))


def padded(name: str, value: float, lower: bool = False) -> float:
    """``value`` moved by `PADDING` in its safe direction: up, or down for a lower bound."""
    shift = scale(name, value) * PADDING
    return to_float_down(Fraction(value) - shift) if lower else to_float_up(Fraction(value) + shift)


def stored_constants(derived: dict[str, float], claim: Claim) -> dict[str, float]:
    """The constants as a certificate stores them."""
    return {
        name: float(value) if name in claim.exact else padded(name, value, name in claim.lower)
        for name, value in derived.items()
    }


def probability(params: dict[str, Any], claim: Claim) -> float | None:
    """The confidence a claim has: ``1 - delta`` rounded down, or None where it is not about probability."""
    return to_float_down(1 - Fraction(params["delta"])) if claim.mode == "probability" else None


def _names(document: dict[str, Any], claim: Claim) -> dict[str, str]:
    """The ``{names}`` a sentence may use: data sizes, parameters, constants and the claimed bounds."""
    names = {"n": str(document["data"]["n"]), "T": str(document["method"]["steps"])}
    for name, value in document["constants"].items():
        names[name] = show(value, name in claim.lower)
    names |= {k: str(v) if isinstance(v, int) else repr(v) for k, v in document["theorem"]["params"].items()}
    if "k" in document["theorem"]["params"]:
        names["errors"] = _errors(document["theorem"]["params"]["k"] - 1)
    stated = document["claim"]
    names["bound"] = show(stated["bound"])
    if stated["error_bound"] is not None:
        percent = to_float_up(Fraction(stated["error_bound"]) * 100)
        names["error_bound"] = show(percent) + "%"
    if stated["probability"] is not None:
        names["probability"] = show(stated["probability"], lower=True)
    return names


def _errors(count: int) -> str:
    return "no error" if count == 0 else f"at most {count} error{'s' if count > 1 else ''}"


def _fill(sentence: str, names: dict[str, str]) -> str:
    try:
        return sentence.format_map(names)
    except KeyError as error:
        raise CheckError(STEP, f"the constant {error} of this theorem is missing") from error


# --- words -------------------------------------------------------------------------------------------------


def premises(document: dict[str, Any], claim: Claim) -> list[dict[str, Any]]:
    """The premises as the document must state them."""
    names = _names(document, claim)
    return [
        {
            "name": p.name,
            "statement": _fill(p.sentence, names),
            "evidence": p.evidence,
            "reference": p.reference,
            "value": None if p.value is None else document["constants"].get(p.value, math.nan),
        }
        for p in claim.premises
    ]


def statement(document: dict[str, Any], claim: Claim) -> str:
    """The whole certificate in words: the promise, then everything it speaks of."""
    data, family = document["data"], document["family"]
    params = ", ".join(
        f"{k} = {v if isinstance(v, int) else repr(v)}"
        for k, v in sorted(document["theorem"]["params"].items())
    )
    return " ".join(
        (
            _fill(claim.promise, _names(document, claim)),
            f"Data: {data['name']}, {data['n']} rows of {data['d']} columns, {target_words(data['labels'])}, "
            f"SHA-256 {data['digest']}.",
            f"Preprocessing: {preprocessing_words(document['preprocessing'], data['d'])}.",
            f"Network: {network_words(family)}.",
            f"Method: {method_words(document['method'])}.",
            f"Theorem {document['theorem']['id']} with {params}.",
            "The promise is about exact arithmetic on these float64 numbers; a run in floating point is "
            f"compared with it, not covered by it. Written by proxyconvex {document['proxyconvex']}.",
        )
    )


def network_words(family: dict[str, Any]) -> str:
    """The network in one line that fixes every setting."""
    activation = family["activation"]
    bend = f"activation {activation['name']} (slope {activation['slope']!r}, beta {activation['beta']!r})"
    if "hidden" not in family:
        return f"{family['name']} of width {family['width']}, {bend}, initial scale {family['init_scale']!r}, seed {family['seed']}"
    layers = "-".join(map(str, family["hidden"]))
    paired = ", the last hidden layer in opposite pairs" if family["paired"] else ""
    return (
        f"{family['name']} with hidden layers {layers}, {bend}, initial variance {family['gain']!r} over the width, fixed output weights "
        f"({family['head']}{paired}) times {family['output_scale']!r}, seed {family['seed']}"
    )


def target_words(labels: list[str]) -> str:
    """What the stored targets mean."""
    if not labels:
        return "numeric targets"
    if len(labels) == 2:
        return f'targets -1 for "{labels[0]}" and +1 for "{labels[1]}"'
    return "targets " + ", ".join(f'{k} for "{label}"' for k, label in enumerate(labels))


def preprocessing_words(settings: dict[str, Any], d: int) -> str:
    """The preprocessing in one line that fixes every setting."""
    kept = settings["kept_columns"]
    steps = [f"all {d} columns" if kept == list(range(d)) else f"columns {ranges(kept)} of {d}"]
    if settings["divide_by"] != 1:
        steps.append(f"divided by {settings['divide_by']!r}")
    if settings["center"]:
        steps.append("column means removed")
    if settings["scale"] == "column":
        steps.append("columns scaled to unit deviation")
    if settings["unit_norm"]:
        steps.append("rows scaled to unit norm")
    if settings["bias"] > 0:
        again = ", rows scaled again" if settings["unit_norm"] else ""
        steps.append(f"feature {settings['bias']!r} appended{again}")
    return ", ".join(steps)


def ranges(numbers: list[int]) -> str:
    """An increasing list as ranges, e.g. ``0-3, 5, 7-9``."""
    parts: list[list[int]] = []
    for i in numbers:
        if parts and i == parts[-1][1] + 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def method_words(method: dict[str, Any]) -> str:
    """The method in one line that fixes every setting."""
    step = method["step"]
    if step["kind"] == "normalised":
        rule = f"eta_t = {step['c']!r} / max(mean |loss'|, {step['floor']!r})"
    else:
        rule = f"eta = {step['eta']!r}"
    kind = "full-batch gradient descent"
    if method["name"] == "sgd":
        kind = f"stochastic gradient descent ({method['sampling']}, batch {method['batch_size']})"
    return f"{kind}, {rule}, {method['steps']} steps, sampling seed {method['seed']}"
