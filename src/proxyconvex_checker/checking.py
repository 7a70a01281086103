"""Verification of a certificate: rebuild everything from the stored rows and the seed, re-derive, compare.

Steps, in order, the first failure ends it: readable, schema, seal, data digest, preprocessing, initial
weights, comparator, theorem, constants, claim, statement. Acceptance means: every number in the document
holds in exact arithmetic (within the trusted base of `rounding`), and every word in it is the one those
numbers imply.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from . import document, initial, preprocessing
from .claims import promise as claims
from .claims.table import CLAIMS
from .errors import CheckError
from .families import FAMILIES, FamilyRules

WINDOW = Fraction(1, 10**9)
"""How far, relative to `claims.scale`, a constant may lie on the safe side of the re-derived one."""
CERTIFICATE = "certificate.json"
__all__ = [
    "CERTIFICATE",
    "FAMILIES",
    "STEPS",
    "FamilyRules",
    "Result",
    "Step",
    "derive",
    "load_array",
    "verify",
]


@dataclass(frozen=True)
class Step:
    """One step of the verification, with a sentence."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True)
class Result:
    """The outcome of a verification.

    Attributes:
        accepted: whether every step passed.
        steps: the steps taken; the last one failed unless ``accepted``.
        notes: what a reader should know although it does not make the certificate false.
        readable: whether there was a certificate to judge at all.
        statement: the certified statement, if accepted.
    """

    accepted: bool
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    readable: bool = True
    statement: str | None = None

    @property
    def exit_code(self) -> int:
        """0 accepted, 1 rejected, 2 unreadable."""
        return 0 if self.accepted else 1 if self.readable else 2


class _State:
    """What the steps hand on to each other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.raw: dict[str, Any] = {}
        self.document: dict[str, Any] = {}
        self.rows = self.targets = self.features = self.initial = self.comparator = np.empty(0)
        self.claim: claims.Claim
        self.derived: dict[str, float] = {}


# --- files -------------------------------------------------------------------------------------------------


def load_array(path: Path, shape: tuple[int, ...], step: str) -> np.ndarray:
    """The float64 array of a ``.npy`` file, which must have exactly this shape and no pickled objects.

    Raises:
        UnreadableError: if the file is missing, truncated or not a ``.npy`` file.
        CheckError: if it holds another shape, another type or a value that is not finite.
    """
    count = math.prod(shape)
    content = document.read_bytes(path, 8 * count + 10_000)
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        found, fortran, dtype = read_header(stream)
    except Exception as error:  # NumPy parses the header as Python text and lets its parser's errors through
        raise document.UnreadableError(f"{path.name} is not a NumPy array file ({error})") from error
    if dtype != np.dtype("<f8") or fortran:
        raise CheckError(
            step,
            f"{path.name} holds {dtype} in {'Fortran' if fortran else 'C'} order, not float64 in C order",
        )
    if tuple(found) != shape:
        raise CheckError(step, f"{path.name} has shape {tuple(found)}, the document says {shape}")
    if len(content) - stream.tell() != 8 * count:
        raise document.UnreadableError(
            f"{path.name} is truncated or has bytes after its array; copy it again"
        )
    array = np.frombuffer(content, dtype="<f8", offset=stream.tell()).astype(np.float64).reshape(shape)
    if not np.isfinite(array).all():
        raise CheckError(step, f"{path.name} holds a NaN or an infinity")
    return array


# --- steps -------------------------------------------------------------------------------------------------


def _readable(state: _State) -> str:
    if state.path.is_dir():
        state.path = state.path / CERTIFICATE
    state.raw = document.read(state.path)
    return f"{state.path.name} is a proxyconvex certificate"


def _schema(state: _State) -> str:
    state.document = document.parse(state.raw)
    return "every field is known, present, of its type and in its range"


def _seal(state: _State) -> str:
    return document.check_seal(state.raw, state.document["seal"])


def _data(state: _State) -> str:
    data = state.document["data"]
    table = load_array(state.path.parent / data["file"], (data["n"], data["d"] + 1), "data digest")
    state.rows, state.targets = np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1])
    _targets(state)
    digest = preprocessing.data_digest(state.rows, state.targets)
    if digest != data["digest"]:
        raise CheckError(
            "data digest",
            f"the rows have digest {digest[:16]}..., the document says {data['digest'][:16]}...",
        )
    return f"{data['n']} rows of {data['d']} columns, SHA-256 {digest[:16]}..."


def _targets(state: _State) -> None:
    """Targets of the kind the labels say, and of a kind the family speaks of."""
    labels, family = state.document["data"]["labels"], state.document["family"]["name"]
    task = "regression" if not labels else "binary" if len(labels) == 2 else "multiclass"
    if family in FAMILIES and task not in FAMILIES[family].tasks:
        raise CheckError(
            "data digest", f"{len(labels)} labels are {task} data, which {family} does not speak of"
        )
    if task == "binary" and not np.isin(state.targets, (-1.0, 1.0)).all():
        raise CheckError("data digest", "the last column of the data holds a target other than -1 and +1")
    if task == "multiclass" and not np.isin(state.targets, np.arange(len(labels))).all():
        raise CheckError("data digest", "the last column of the data holds a target that is no class index")


def _preprocess(state: _State) -> str:
    state.features = preprocessing.apply(state.rows, state.document["preprocessing"])
    return f"{state.features.shape[1]} features per row"


def _initial(state: _State) -> str:
    family = state.document["family"]
    if family["name"] not in FAMILIES:
        raise CheckError(
            "initial weights", f"unknown family {family['name']!r}; known: {', '.join(sorted(FAMILIES))}"
        )
    rules, d = FAMILIES[family["name"]], state.features.shape[1]
    if math.prod(rules.weights(family, d)) > document.MAX_ENTRIES:
        raise CheckError("initial weights", f"more than {document.MAX_ENTRIES} weights")
    state.initial = rules.start(family, state.features, state.targets)
    if initial.array_digest(state.initial) != family["initial_sha256"]:
        raise CheckError(
            "initial weights",
            f"seed {family['seed']} gives other weights with NumPy {np.__version__} than the document names",
        )
    return f"rebuilt from seed {family['seed']}, shape {state.initial.shape}"


def _comparator(state: _State) -> str:
    stored, family = state.document["comparator"], state.document["family"]
    shape = FAMILIES[family["name"]].comparator_shape(family, state.features.shape[1])
    if tuple(stored["shape"]) != shape:
        raise CheckError(
            "comparator", f"comparator.shape is {tuple(stored['shape'])}; this network needs {shape}"
        )
    state.comparator = load_array(state.path.parent / stored["file"], shape, "comparator")
    if initial.array_digest(state.comparator) != stored["sha256"]:
        raise CheckError(
            "comparator", f"{stored['file']} is not the array the document names (another SHA-256)"
        )
    return f"shape {shape}, as named"


def _theorem(state: _State) -> str:
    state.claim = claims.lookup(state.document, CLAIMS)
    claims.check_method(state.document, state.claim)
    return f"{state.document['theorem']['id']} speaks of this method, with these step sizes and steps"


def derive(
    parsed: dict[str, Any], features: Any, targets: Any, weights: Any, comparator: Any
) -> dict[str, float]:
    """Every certified number of a document, from the arrays it names."""
    family, theorem = parsed["family"], parsed["theorem"]
    rules = FAMILIES[family["name"]]
    return rules.derive(
        theorem["id"],
        features,
        targets,
        weights,
        dict(family) if rules.whole else dict(family["activation"]),
        comparator,
        dict(theorem["params"]),
    )


def _constants(state: _State) -> str:
    state.derived = derive(state.document, state.features, state.targets, state.initial, state.comparator)
    stored = state.document["constants"]
    if set(stored) != set(state.derived):
        odd = sorted(set(stored) ^ set(state.derived))
        raise CheckError(
            "constants", f"{', '.join(odd)}: named by the document or by the theorem, but not by both"
        )
    expected = claims.stored_constants(state.derived, state.claim)
    for name in sorted(stored):
        _compare_constant(state, name, stored[name], expected[name])
    return f"{len(stored)} constants re-derived with outward rounding"


def _compare_constant(state: _State, name: str, stored: float, expected: float) -> None:
    derived = state.derived[name]
    if not math.isfinite(derived):
        raise CheckError("constants", f"{name} is not finite")
    if stored == expected:
        return
    lower = name in state.claim.lower
    if name in state.claim.exact or (stored > derived if lower else stored < derived):
        raise CheckError("constants", f"constants.{name} is stored as {stored!r}; re-derived: {derived!r}")
    if abs(Fraction(stored) - Fraction(derived)) > WINDOW * claims.scale(name, derived):
        raise CheckError("constants", f"constants.{name} is stored as {stored!r}, far from {derived!r}")
    state.notes.append(
        f"constants.{name} differs from what this machine would store, but lies on the safe side of its value"
    )


def _claim(state: _State) -> str:
    stated, claim = state.document["claim"], state.claim
    for field, value in (("quantity", claim.quantity), ("mode", claim.mode), ("evidence", claim.evidence)):
        if stated[field] != value:
            raise CheckError("claim", f"claim.{field} is {stated[field]}; the theorem gives {value}")
    probability = claims.probability(state.document["theorem"]["params"], claim)
    if stated["probability"] != probability:
        raise CheckError(
            "claim", f"claim.probability is {stated['probability']}; the theorem gives {probability}"
        )
    for field in ("bound", "error_bound"):
        _compare_bound(state, field)
    bound = claims.show(stated["bound"])
    return f"{stated['quantity']} <= {bound} ({stated['mode']}, evidence {stated['evidence']})"


def _compare_bound(state: _State, field: str) -> None:
    stated, derived = state.document["claim"][field], state.derived.get(field)
    if stated is None and derived is None:
        return
    if stated is None or derived is None:
        raise CheckError("claim", f"claim.{field} is {stated}; the theorem gives {derived}")
    if stated < derived:
        raise CheckError("claim", f"claim.{field} = {stated!r} is below the re-derived {derived!r}")
    if stated == claims.padded(field, derived):
        return
    state.notes.append(
        f"claim.{field} = {stated!r} exceeds the re-derived {derived!r}; it is true, but not the tightest"
    )


def _statement(state: _State) -> str:
    stated = state.document["claim"]["premises"]
    due = claims.premises(state.document, state.claim)
    if len(stated) != len(due):
        raise CheckError("statement", f"{len(stated)} premises are stated; the theorem has {len(due)}")
    for i, (have, need) in enumerate(zip(stated, due, strict=True)):
        for field, value in need.items():
            if have[field] != value:
                raise CheckError(
                    "statement", f"claim.premises[{i}].{field} is not what the numbers say: {value!r}"
                )
    if state.document["references"] != list(state.claim.references):
        raise CheckError("statement", f"references must be {', '.join(state.claim.references)}")
    if state.document["statement"] != claims.statement(state.document, state.claim):
        raise CheckError("statement", "the sentence is not the one the numbers of the document imply")
    return "every sentence is the one the numbers imply"


STEPS: tuple[tuple[str, Callable[[_State], str]], ...] = (
    ("readable", _readable),
    ("schema", _schema),
    ("seal", _seal),
    ("data digest", _data),
    ("preprocessing", _preprocess),
    ("initial weights", _initial),
    ("comparator", _comparator),
    ("theorem", _theorem),
    ("constants", _constants),
    ("claim", _claim),
    ("statement", _statement),
)


OTHER_FORMATS = {
    "proxyconvex-box-certificate": "boxes.verify",
    "proxyconvex-weight-certificate": "weights.certificate",
}
"""Formats with their own steps: the module has ``STEPS`` and ``start(path, raw)``."""


def _dispatch(path: Path) -> tuple[Any, tuple[tuple[str, Callable[[Any], str]], ...], list[Step]]:
    """The state, the steps of the file's format, and the steps already taken."""
    path = path / CERTIFICATE if path.is_dir() else path
    try:
        raw = document.load(path) if path.is_file() else None
    except (document.UnreadableError, CheckError):
        raw = None  # the first step of the default format says what is wrong
    module = OTHER_FORMATS.get(str(raw.get("format"))) if isinstance(raw, dict) else None
    if module is None:
        return _State(path), STEPS, []
    found = importlib.import_module(f".{module}", __package__)
    return found.start(path, raw), found.STEPS, [Step("readable", True, f"a {raw['format']}")]


def verify(path: str | Path) -> Result:
    """Re-check a certificate.

    Args:
        path: ``certificate.json``, or the folder it is in; its arrays lie beside it. The file's format decides how.

    Returns:
        The result; it never raises for a bad certificate.
    """
    state, due, steps = _dispatch(Path(path))
    for name, step in due:
        readable, problem = True, ""
        try:
            steps.append(Step(name, True, step(state)))
            continue
        except document.UnreadableError as error:
            readable, problem = False, str(error)
        except CheckError as error:
            problem = error.message if error.step == name else f"{error.step}: {error.message}"
        except Exception as error:
            # A check that cannot be completed has not succeeded, whatever the reason.
            problem = f"the check could not be completed ({type(error).__name__}: {error})"
        steps.append(Step(name, False, problem))
        return Result(False, tuple(steps), tuple(state.notes), readable)
    return Result(True, tuple(steps), tuple(state.notes), True, state.document["statement"])
