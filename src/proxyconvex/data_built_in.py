"""The data sets that scikit-learn ships, by name."""

from __future__ import annotations

import difflib
import re
from typing import Any

import numpy as np
from jaxtyping import Float

from .core.errors import InvalidInputError
from .dataset import Dataset

BUILT_IN = (
    "breast-cancer", "digits:A,B", "digits:even-odd", "wine:A,B", "digits", "wine", "diabetes", "digits:pixel-J",
    "linnerud:weight",
)  # fmt: skip
LINNERUD = ("weight", "waist", "pulse")


def built_in(spec: str) -> Dataset:
    """A data set by its name, lower case and without spaces.

    Raises:
        InvalidInputError: if there is none of that name; the message lists those there are.
    """
    import sklearn.datasets as source

    kind, _, part = spec.partition(":")
    if spec == "breast-cancer":
        bunch = source.load_breast_cancer()
        y = np.where(bunch.target == 1, 1.0, -1.0)
        return Dataset(
            spec, bunch.data, y, ("malignant", "benign"), _names(bunch), "scikit-learn load_breast_cancer"
        )
    if spec == "diabetes":
        bunch = source.load_diabetes(scaled=False)
        return regression(spec, bunch.data, bunch.target, _names(bunch), "scikit-learn load_diabetes")
    if kind == "linnerud" and part in LINNERUD:
        bunch = source.load_linnerud()
        y = bunch.target[:, LINNERUD.index(part)]
        return regression(spec, bunch.data, y, _names(bunch), "scikit-learn load_linnerud")
    if kind in ("digits", "wine"):
        found = _classes(spec, kind, part, source.load_digits() if kind == "digits" else source.load_wine())
        if found is not None:
            return found
    accepted = ", ".join(f"`{name}`" for name in BUILT_IN) + ", or the path of a CSV, Parquet or NPZ file"
    raise InvalidInputError("data", spec, accepted, _hint(spec))


def regression(
    name: str, raw: np.ndarray, y: Float[np.ndarray, " n"], columns: tuple[str, ...], source: str
) -> Dataset:
    """A regression data set with its targets scaled to [0, 1]: ``(y - min) / (max - min)``."""
    y = np.asarray(y, dtype=np.float64)
    offset, unit = float(y.min()), float(y.max() - y.min())
    scaled = (y - offset) / (unit if unit > 0 else 1.0)
    return Dataset(name, raw, scaled, (), columns, source, "regression", (offset, unit if unit > 0 else 1.0))


def _names(bunch: Any) -> tuple[str, ...]:
    return tuple(str(s) for s in bunch.feature_names)


def _classes(spec: str, kind: str, part: str, bunch: Any) -> Dataset | None:
    """All classes, two of them, even against odd, or one pixel from the others; None if the name says none of these."""
    names, origin = _names(bunch), f"scikit-learn load_{kind}"
    known = sorted({int(k) for k in bunch.target})
    if spec == kind:
        labels = tuple(str(k) for k in known)
        return Dataset(spec, bunch.data, bunch.target.astype(float), labels, names, origin, "multiclass")
    if spec == "digits:even-odd":
        y = np.where(bunch.target % 2 == 1, 1.0, -1.0)
        return Dataset(spec, bunch.data, y, ("even", "odd"), names, origin)
    if kind == "digits" and (pixel := re.fullmatch(r"pixel-(\d+)", part)):
        return _pixel(spec, bunch, names, int(pixel[1]))
    pair = re.fullmatch(r"(\d+),(\d+)", part)
    if not pair:
        return None
    a, b = int(pair[1]), int(pair[2])
    if a == b or a not in known or b not in known:
        raise InvalidInputError(
            "data", spec, f"two different classes out of {known}", f"For example {kind}:0,1."
        )
    rows = np.isin(bunch.target, (a, b))
    y = np.where(bunch.target[rows] == b, 1.0, -1.0)
    return Dataset(f"{kind}:{a},{b}", bunch.data[rows], y, (str(a), str(b)), names, origin)


def _pixel(spec: str, bunch: Any, names: tuple[str, ...], pixel: int) -> Dataset:
    """Grey value of one pixel from the 63 others."""
    varying = np.flatnonzero(bunch.data.max(axis=0) > bunch.data.min(axis=0))
    if pixel not in varying:
        raise InvalidInputError(
            "data", spec, "a pixel from 0 to 63 that varies", "For example digits:pixel-27, near the middle."
        )
    others = np.delete(np.arange(bunch.data.shape[1]), pixel)
    return regression(
        spec,
        bunch.data[:, others],
        bunch.data[:, pixel],
        tuple(names[j] for j in others),
        "scikit-learn load_digits",
    )


def _hint(spec: str) -> str:
    kind = spec.partition(":")[0]
    if kind in ("digits", "wine"):
        return f"Name two classes, for example {kind}:0,1, or all of them: {kind}."
    if kind == "linnerud":
        return f"Name its target, one of {', '.join(LINNERUD)}, for example linnerud:weight."
    near = difflib.get_close_matches(
        kind, ["breast-cancer", "digits", "wine", "diabetes", "linnerud"], n=1, cutoff=0.5
    )
    return f"Did you mean {near[0]}?" if near else "No such data set or file was found."


def is_built_in(spec: str) -> bool:
    """Whether a name begins like one of the data sets scikit-learn ships."""
    known = ("breast-cancer", "digits", "wine", "diabetes", "linnerud")
    return spec.partition(":")[0].strip().lower() in known
