"""Matrices known up to an error: sums, products and eigenvalue bounds, rounded outward (built on `rounding`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .rounding import (
    add_up,
    div_up,
    lambda_max_upper,
    matmul_enclosure,
    mul_up,
    norm_lower,
    norm_upper,
    rational,
    to_float_down,
)


@dataclass(frozen=True)
class Enclosed:
    """Every array with ``|A - value| <= error`` entry by entry."""

    value: np.ndarray
    error: np.ndarray

    @classmethod
    def exactly(cls, value: np.ndarray) -> Enclosed:
        """An array that is known exactly."""
        return cls(value, np.zeros_like(value))

    @classmethod
    def outer(cls, v: np.ndarray) -> Enclosed:
        """``v v^T``, shape (d, d)."""
        return cls._rounded(np.outer(v, v))

    @classmethod
    def _rounded(cls, value: np.ndarray) -> Enclosed:
        """The exact result of one correctly rounded operation per entry."""
        return cls(value, np.spacing(np.abs(value)))

    def __matmul__(self, other: Enclosed) -> Enclosed:
        return Enclosed(*matmul_enclosure(self.value, other.value, self.error, other.error))

    def __sub__(self, other: Enclosed) -> Enclosed:
        value = self.value - other.value
        return Enclosed(value, add_up(add_up(self.error, other.error), np.spacing(np.abs(value))))

    def __mul__(self, factor: float | np.ndarray) -> Enclosed:
        """Times a number, or an array that is known exactly (broadcast)."""
        value = self.value * factor
        return Enclosed(value, add_up(mul_up(self.error, np.abs(factor)), np.spacing(np.abs(value))))

    def __truediv__(self, n: int) -> Enclosed:
        value = self.value / n
        return Enclosed(value, add_up(div_up(self.error, n), np.spacing(np.abs(value))))

    @property
    def T(self) -> Enclosed:
        """The transpose."""
        return Enclosed(self.value.T, self.error.T)

    @property
    def most(self) -> np.ndarray:
        """Upper bounds on the absolute values."""
        return add_up(np.abs(self.value), self.error)

    def norm(self) -> float:
        """Upper bound on the Euclidean (Frobenius) norm."""
        return float(norm_upper(self.most))

    def norm_below(self) -> float:
        """Lower bound on the Euclidean (Frobenius) norm."""
        return float(norm_lower(np.maximum(-add_up(-np.abs(self.value), self.error), 0.0)))

    def top(self) -> float:
        """Upper bound on the largest eigenvalue of a symmetric matrix; at least 0."""
        return lambda_max_upper(self.value, self.error)

    def bottom(self) -> float:
        """Lower bound on the smallest eigenvalue of a symmetric matrix: ``s - lambda_max(s I - A)``, s near the largest."""
        shift = float(np.linalg.eigvalsh((self.value + self.value.T) / 2)[-1])
        flipped = Enclosed.exactly(shift * np.eye(len(self.value))) - self
        return to_float_down(rational(shift) - rational(flipped.top()))


def covariance_top(x: np.ndarray) -> float:
    """Upper bound on the largest eigenvalue of ``(1/n) sum x x^T``, for rows known exactly."""
    gram, error = matmul_enclosure(x.T, x)
    return float(div_up(lambda_max_upper(gram, error), len(x)))


def largest_row(x: np.ndarray) -> float:
    """Upper bound on the largest norm of a row."""
    return float(norm_upper(x, axis=1).max())


def moments(rows: Enclosed) -> Enclosed:
    """``(1/n) sum r r^T`` of n rows, shape (d, d)."""
    return (rows.T @ rows) / len(rows.value)
