"""From stored rows to the features a promise speaks of: recorded, repeatable, and the same bits on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import operator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from .core.errors import InvalidInputError


@dataclass(frozen=True)
class Preprocessing:
    """The steps, in order: keep columns, divide, centre, scale columns, scale rows to unit norm, append a bias, scale rows again.

    Every step is an elementwise float64 operation or an exactly rounded sum (`math.fsum`), so every machine gets the same
    bits; the checker has its own copy.

    Attributes:
        kept_columns: indices of the columns kept, increasing.
        center: remove column means.
        scale: ``"column"`` divides columns by their standard deviation, ``"none"`` does not.
        divide_by: constant divisor, ``> 0``.
        unit_norm: scale every row to Euclidean norm one (rows of zeros stay).
        bias: value of an appended constant feature; 0 for none.
    """

    kept_columns: tuple[int, ...]
    center: bool = True
    scale: Literal["none", "column"] = "none"
    divide_by: float = 1.0
    unit_norm: bool = True
    bias: float = 0.1

    def __post_init__(self) -> None:
        try:
            kept = tuple(operator.index(j) for j in self.kept_columns)
        except TypeError:
            kept = ()
        # A negative index would mean a column counted from the end to NumPy and nothing to the checker.
        if not kept or kept[0] < 0 or any(b <= a for a, b in itertools.pairwise(kept)):
            raise InvalidInputError(
                "kept_columns",
                self.kept_columns,
                "an increasing list of indices >= 0 with at least one column",
            )
        if self.scale not in ("none", "column"):
            raise InvalidInputError("scale", self.scale, "'none' or 'column'")
        object.__setattr__(self, "kept_columns", kept)
        for name in ("center", "unit_norm"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise InvalidInputError(name, value, "True or False")
            object.__setattr__(self, name, bool(value))
        object.__setattr__(self, "divide_by", _number("divide_by", self.divide_by))
        object.__setattr__(self, "bias", _number("bias", self.bias))
        if self.divide_by <= 0:
            raise InvalidInputError("divide_by", self.divide_by, "a finite number > 0")
        if self.bias < 0:
            raise InvalidInputError("bias", self.bias, "a finite number >= 0")

    def describe(self) -> dict[str, Any]:
        """The certificate's fields."""
        return {**dataclasses.asdict(self), "kept_columns": list(self.kept_columns)}

    def apply(self, raw: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
        """The features.

        Raises:
            InvalidInputError: if a kept column does not exist or is constant and scaled, or a feature overflows.
        """
        raw = np.asarray(raw, dtype=np.float64)
        if raw.ndim != 2 or not len(raw):
            raise InvalidInputError("raw", f"an array of shape {raw.shape}", "shape (n, d) with n >= 1")
        if self.kept_columns[-1] >= raw.shape[1]:
            raise InvalidInputError("kept_columns", self.kept_columns[-1], f"indices below {raw.shape[1]}")
        with np.errstate(all="ignore"):
            x = raw[:, list(self.kept_columns)] / self.divide_by
            x = self._standardised(x)
            x = unit_rows(x) if self.unit_norm else x
            if self.bias > 0:
                x = np.column_stack([x, np.full(len(x), self.bias)])
                x = unit_rows(x) if self.unit_norm else x
        _refuse_overflow(x)
        return np.ascontiguousarray(x)

    def _standardised(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        centred = x - np.array([_sum(column) / len(x) for column in x.T])
        out = centred if self.center else x
        if self.scale == "column":
            spread = np.array([np.sqrt(_sum(column * column) / len(x)) for column in centred.T])
            _refuse_overflow(spread)
            if not np.all(spread > 0):
                where = self.kept_columns[int(np.flatnonzero(~(spread > 0))[0])]
                raise InvalidInputError(
                    f"feature {where} (counted from 0)", "no spread that float64 can hold", "columns that vary, when scale='column'",
                    "Leave it out of kept_columns, or rescale it.",
                )  # fmt: skip
            out = out / spread
        return out


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise InvalidInputError(name, value, f"a finite number {'> 0' if name == 'divide_by' else '>= 0'}")
    return float(value)


def _refuse_overflow(x: Float[np.ndarray, "..."]) -> None:
    if not np.isfinite(x).all():
        raise InvalidInputError(
            "features",
            "values whose squares overflow float64",
            "finite numbers",
            "Rescale the data, e.g. divide_by=1e6.",
        )


def _sum(values: Float[np.ndarray, " n"]) -> float:
    try:
        return math.fsum(values.tolist())
    except (OverflowError, ValueError):
        return math.nan


def unit_rows(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows divided by their norms; rows of zeros stay.

    Raises:
        InvalidInputError: if a norm overflows; dividing by an infinity would turn the row into zeros without a word.
    """
    norms = np.array([np.sqrt(_sum(row * row)) for row in x])
    _refuse_overflow(norms)
    divisor = np.where(norms > 0, norms, 1.0)
    return np.where((norms > 0)[:, None], x / divisor[:, None], x)


def data_digest(raw: Float[np.ndarray, "n d"], targets: Float[np.ndarray, " n"]) -> str:
    """SHA-256 (hex) of the shape, the rows and the targets as little-endian float64."""
    digest = hashlib.sha256(b"proxyconvex-data-1\n" + f"{raw.shape[0]} {raw.shape[1]}\n".encode())
    for array in (raw, targets):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()
