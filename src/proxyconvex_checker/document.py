"""The certificate document: a strict schema, its canonical form and its seal.

Nothing is optional and nothing extra is tolerated: a field that is unknown, missing, of another type or out
of range is refused with its path, e.g. ``method.step.eta``. Floats are stored as hexadecimal strings
(`float.hex`), so that no reader rounds them; plain JSON floats, NaN, infinities, duplicate keys and
non-printable characters are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import CheckError

FORMAT, SCHEMA = "proxyconvex-certificate", 1
MAX_BYTES = 16 * 2**20
MAX_ENTRIES = 2**27
"""Largest number of float64 entries of an array file (1 GiB)."""
ACTIVATIONS = ("softplus", "smooth-leaky", "leaky-relu", "relu", "sigmoid", "tanh")
DENSE = ("deep-relu", "tangent", "three-layer")
"""Families of dense networks of any depth, one output."""
EVIDENCE = ("ASSUMED", "SAMPLED", "ON_TRACE", "CERTIFIED", "PROVED")
MODES = ("every-run", "expectation", "probability")

Parser = Callable[[Any, str], Any]
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}\.npy")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")


class UnreadableError(Exception):
    """There is no certificate to judge: a file is missing, truncated or not of this format."""


# --- reading and writing -----------------------------------------------------------------------------------


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [k for k, _ in pairs]
        twice = next(k for k in keys if keys.count(k) > 1)
        raise CheckError("schema", f"the field {twice!r} appears twice in one object")
    return result


def _refuse_number(text: str) -> Any:
    raise CheckError(
        "schema", f"the number {text[:40]} is not an integer; floats are stored as hexadecimal strings"
    )


def _read_integer(text: str) -> int:
    if len(text) > 25:
        raise CheckError("schema", f"the integer {text[:20]}... is out of range")
    return int(text)


def read(path: Path) -> dict[str, Any]:
    """The raw JSON object of a certificate file.

    Raises:
        UnreadableError: if the file is missing, not JSON, or not a certificate of this schema version.
        CheckError: if it is JSON of a kind no certificate contains (duplicate keys, plain floats).
    """
    raw = load(path)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise UnreadableError(
            f'{path.name} is not a proxyconvex certificate (it has no "format": "{FORMAT}")'
        )
    version = raw.get("schema")
    if isinstance(version, int) and not isinstance(version, bool) and version != SCHEMA:
        raise UnreadableError(
            f"{path.name} has schema version {version}; this checker reads version {SCHEMA}"
        )
    return raw


def load(path: Path) -> Any:
    """The JSON value of a file, of any format: no duplicate keys, no plain floats.

    Raises:
        UnreadableError: if the file is missing, too large or not JSON.
        CheckError: if it is JSON of a kind no certificate contains.
    """
    content = read_bytes(path, MAX_BYTES)
    try:
        return json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_read_integer,
        )
    except CheckError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableError(
            f"{path.name} is not valid JSON ({error}); copy the certificate again"
        ) from error


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        UnreadableError: if there is no such file, it cannot be read or it is too large.
    """
    try:
        if not path.is_file():
            raise UnreadableError(
                f"there is no file {path}; a certificate is certificate.json with its .npy files beside it"
            )
        size = path.stat().st_size
        if size > limit:
            raise UnreadableError(f"{path.name} has {size} bytes, more than the {limit} it may have")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"{path.name} cannot be read ({error.strerror or error})") from error


def encode(value: Any) -> Any:
    """A parsed value as the document stores it: floats become hexadecimal strings, tuples lists.

    Raises:
        CheckError: for a NaN or an infinity.
    """
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CheckError("schema", f"{value} cannot be stored in a certificate")
        return (float(value) + 0.0).hex()
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    raise CheckError("schema", f"a {type(value).__name__} cannot be stored in a certificate")


def canonical(raw: dict[str, Any]) -> bytes:
    """The bytes the seal is taken of: every field but ``seal``, keys sorted, no white space, ASCII."""
    body = {k: v for k, v in raw.items() if k != "seal"}
    return json.dumps(
        body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def seal(raw: dict[str, Any]) -> str:
    """SHA-256 (hex) of the canonical form."""
    return hashlib.sha256(canonical(raw)).hexdigest()


def check_seal(raw: dict[str, Any], stated: str) -> str:
    """The step "seal" of every kind of certificate; raises `CheckError` if the document was changed."""
    if seal(raw) != stated:
        raise CheckError(
            "seal", "the seal does not belong to this text: the document was changed after it was written"
        )
    return "the document is as it was written"


# --- schema ------------------------------------------------------------------------------------------------


def _refuse(path: str, value: Any, accepted: str) -> CheckError:
    shown = repr(value)
    return CheckError(
        "schema", f"{path} = {shown if len(shown) <= 60 else shown[:57] + '...'}; accepted: {accepted}"
    )


def integer(low: int, high: int) -> Parser:
    """An integer in ``[low, high]``."""

    def parse(value: Any, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(path, value, f"an integer from {low} to {high}")
        return value

    return parse


def real(low: float = -math.inf, high: float = math.inf, *, open_low: bool = False) -> Parser:
    """A finite float in canonical hexadecimal form, in ``[low, high]`` (``low`` excluded if ``open_low``)."""
    accepted = f"a finite hexadecimal float {'>' if open_low else '>='} {low} and <= {high}"

    def parse(value: Any, path: str) -> float:
        try:
            number = float.fromhex(value) if isinstance(value, str) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        canonical_form = math.isfinite(number) and number.hex() == value and value != "-0x0.0p+0"
        if not canonical_form or not low <= number <= high or (open_low and number == low):
            raise _refuse(path, value, accepted)
        return number

    return parse


def text(limit: int = 200) -> Parser:
    """A non-empty printable string of at most ``limit`` characters."""

    def parse(value: Any, path: str) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= limit or not value.isprintable():
            raise _refuse(path, value, f"1 to {limit} printable characters")
        return value

    return parse


def matching(pattern: re.Pattern[str], accepted: str) -> Parser:
    """A string that matches a pattern completely."""

    def parse(value: Any, path: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _refuse(path, value, accepted)
        return value

    return parse


def choice(*values: Any) -> Parser:
    """One of a few values (of exactly their types)."""

    def parse(value: Any, path: str) -> Any:
        if not any(type(value) is type(v) and value == v for v in values):
            raise _refuse(path, value, " or ".join(map(repr, values)))
        return value

    return parse


def optional(parser: Parser) -> Parser:
    """Null or what ``parser`` accepts."""
    return lambda value, path: None if value is None else parser(value, path)


def items(parser: Parser, low: int, high: int) -> Parser:
    """A list of ``low`` to ``high`` items."""

    def parse(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise _refuse(path, value, f"a list of {low} to {high} items")
        return [parser(v, f"{path}[{i}]") for i, v in enumerate(value)]

    return parse


def record(**fields: Parser) -> Parser:
    """An object with exactly these fields."""

    def parse(value: Any, path: str) -> dict[str, Any]:
        prefix = f"{path}." if path else ""
        if not isinstance(value, dict):
            raise _refuse(path or "the document", value, "an object")
        for key in value:
            if key not in fields:
                raise CheckError("schema", f"unknown field {prefix}{key[:60]!s}")
        for key in fields:
            if key not in value:
                raise CheckError("schema", f"missing field {prefix}{key}")
        return {key: parser(value[key], prefix + key) for key, parser in fields.items()}

    return parse


def table(parser: Parser) -> Parser:
    """An object from names to values of one kind."""

    def parse(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > 200:
            raise _refuse(path, value, "an object of at most 200 named values")
        for key in value:
            if not _KEY.fullmatch(key):
                raise _refuse(f"a name in {path}", key, "letters, digits and underscores")
        return {key: parser(v, f"{path}.{key}") for key, v in value.items()}

    return parse


def _number(value: Any, path: str) -> int | float:
    return real()(value, path) if isinstance(value, str) else integer(-(2**63), 2**63)(value, path)


def _step(value: Any, path: str) -> dict[str, Any]:
    positive = real(0.0, open_low=True)
    if isinstance(value, dict) and value.get("kind") == "normalised":
        return record(kind=choice("normalised"), c=positive, floor=positive)(value, path)
    return record(kind=choice("constant"), eta=positive)(value, path)


_positive = real(0.0, open_low=True)
_seed = integer(0, 2**63 - 1)
_digest = matching(_HEX_DIGEST, "64 lower-case hexadecimal digits")
_file = matching(_FILE_NAME, "a plain file name ending in .npy, in the certificate's own folder")
DIGEST, FILE = _digest, _file

_activation = record(name=choice(*ACTIVATIONS), slope=real(0.0, 1.0), beta=_positive)


def _family(value: Any, path: str) -> dict[str, Any]:
    """A two-layer network by its width, a dense one by its hidden layers."""
    if isinstance(value, dict) and ("hidden" in value or value.get("name") in DENSE):
        return record(
            name=choice(*DENSE),
            hidden=items(integer(2, 2**20), 1, 32),
            activation=_activation,
            gain=_positive,
            head=choice("signs", "gaussian"),
            output_scale=_positive,
            paired=choice(False, True),
            seed=_seed,
            initial_sha256=_digest,
        )(value, path)
    return record(
        name=text(60),
        width=integer(1, 2**24),
        activation=_activation,
        init_scale=real(0.0),
        seed=_seed,
        initial_sha256=_digest,
    )(value, path)


_certificate = record(
    format=choice(FORMAT),
    schema=choice(SCHEMA),
    proxyconvex=text(40),
    statement=text(20_000),
    data=record(
        name=text(),
        n=integer(1, MAX_ENTRIES),
        d=integer(1, MAX_ENTRIES),
        labels=items(text(), 0, 1000),
        digest=_digest,
        file=_file,
    ),
    preprocessing=record(
        kept_columns=items(integer(0, MAX_ENTRIES), 1, MAX_ENTRIES),
        center=choice(False, True),
        scale=choice("none", "column"),
        divide_by=_positive,
        unit_norm=choice(False, True),
        bias=real(0.0),
    ),
    family=_family,
    method=record(
        name=choice("gd", "normalised-gd", "sgd"),
        steps=integer(1, 2**53),
        step=_step,
        sampling=optional(choice("with-replacement", "one-pass", "cyclic")),
        batch_size=optional(integer(1, 2**31)),
        seed=_seed,
    ),
    comparator=record(file=_file, sha256=_digest, shape=items(integer(1, MAX_ENTRIES), 1, 2)),
    theorem=record(id=matching(_KEY, "a theorem's identifier"), params=table(_number)),
    constants=table(real()),
    claim=record(
        quantity=text(60),
        bound=real(),
        error_bound=optional(real()),
        mode=choice(*MODES),
        probability=optional(real(0.0, 1.0)),
        evidence=choice(*EVIDENCE),
        premises=items(
            record(
                name=text(60),
                statement=text(2000),
                evidence=choice(*EVIDENCE),
                reference=matching(_KEY, "a reference key"),
                value=optional(real()),
            ),
            1,
            30,
        ),
    ),
    references=items(matching(_KEY, "a reference key"), 1, 30),
    seal=_digest,
)


def parse(raw: dict[str, Any]) -> dict[str, Any]:
    """The document with floats decoded, after every field has been checked for presence, type and range.

    Raises:
        CheckError: naming the first field that is refused.
    """
    document = _certificate(raw, "")
    data, labels = document["data"], document["data"]["labels"]
    if data["n"] * (data["d"] + 1) > MAX_ENTRIES:
        raise CheckError("schema", f"data.n and data.d describe more than {MAX_ENTRIES} numbers")
    if len(labels) == 1 or len(set(labels)) < len(labels):
        raise _refuse("data.labels", labels, "two or more different labels, or none for numeric targets")
    if math.prod(document["comparator"]["shape"]) > MAX_ENTRIES:
        raise CheckError("schema", f"comparator.shape describes more than {MAX_ENTRIES} numbers")
    activation = document["family"]["activation"]
    if activation["name"] in ("softplus", "relu", "sigmoid", "tanh") and activation["slope"] != 0:
        raise _refuse("family.activation.slope", activation["slope"], f"0 for {activation['name']}")
    method = document["method"]
    stochastic, normalised = method["name"] == "sgd", method["name"] == "normalised-gd"
    if stochastic != (method["sampling"] is not None) or stochastic != (method["batch_size"] is not None):
        raise CheckError("schema", "method.sampling and method.batch_size are given for sgd, and only then")
    if normalised != (method["step"]["kind"] == "normalised"):
        raise _refuse(
            "method.step.kind", method["step"]["kind"], "'normalised' for normalised-gd, and only then"
        )
    if (document["claim"]["mode"] == "probability") != (document["claim"]["probability"] is not None):
        raise CheckError("schema", "claim.probability is given for claim.mode 'probability', and only then")
    return document
