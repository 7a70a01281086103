"""Enclosures of the activations and their derivatives, by elementwise error analysis.

All four activations are 1-Lipschitz and convex. With ``u = 2^-53`` and ``r = 9 * 2^-52`` (the trusted accuracy of one
elementary function, see `rounding`), the computed ``log1p(exp(-a))``, ``a = fl(beta |t|)``, is off by at most ``2 r``:

* ``a`` is off by ``u a``, which moves the value by at most ``u a e^-a <= 0.4 u`` (derivative ``1 / (1 + e^a)``);
* ``exp`` is off by ``r e^-a <= r``, and ``log1p`` is 1-Lipschitz on ``[0, inf)``;
* ``log1p`` itself is off by ``r log 2 (1 + r) <= 0.75 r``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .errors import CheckError
from .rationals import rational, to_float_up
from .rounding import LIBM_ULPS, Array, add_up, div_up, mul_up, next_up

STEP = "activation"
SMOOTH = ("softplus", "smooth-leaky")
HOMOGENEOUS = ("leaky-relu", "relu")
_EPSILON = 2.0**-52
_LIBRARY = 2 * (LIBM_ULPS + 1) * _EPSILON


@dataclass(frozen=True)
class Activation:
    """An activation of a certificate.

    Attributes:
        name: ``"softplus"``: ``log(1 + exp(beta t)) / beta``; ``"smooth-leaky"``: derivative
            ``c + (1 - c) clip(1/2 + beta t / 4, 0, 1)`` and value ``max(t, c t)`` for ``|t| >= 2 / beta``;
            ``"leaky-relu"``: ``max(t, c t)``; ``"relu"``: ``max(t, 0)``.
        slope: the leak ``c`` in [0, 1].
        beta: sharpness of the smooth ones, ``> 0``.
    """

    name: str
    slope: float
    beta: float

    @property
    def smooth(self) -> bool:
        """Whether the derivative is Lipschitz."""
        return self.name in SMOOTH

    @property
    def curvature(self) -> Fraction:
        """``H``, exactly: ``|phi''| <= (1 - c) beta / 4`` almost everywhere."""
        if not self.smooth:
            raise CheckError(STEP, f"{self.name} is not smooth")
        return (1 - rational(self.slope)) * rational(self.beta) / 4

    def value(self, z: Array, e: Array) -> tuple[Array, Array]:
        """``(v, error)`` with ``|phi(t) - v| <= error`` for every ``t`` with ``|t - z| <= e`` (same shapes)."""
        with np.errstate(under="ignore"):
            if self.name == "softplus":
                return self._softplus(z, e)
            if self.name == "smooth-leaky":
                return self._smooth_leaky(z, e)
            v = np.where(z > 0, z, self.slope * z)
            return v, add_up(e, np.abs(v) * _EPSILON)

    def derivative_upper(self, z: Array, e: Array) -> Array:
        """Upper bound on ``phi'(t)`` for every ``t`` with ``|t - z| <= e``; at most 1."""
        if not self.smooth:
            return np.where(z > -e, 1.0, self.slope)
        with np.errstate(under="ignore"):
            if self.name == "softplus":
                # E = exp(-a) is off by less than r; quotient and sum round by one epsilon each.
                small = np.exp(-np.abs(self.beta * z))
                d = np.where(z >= 0, 1.0, small) / (1.0 + small)
            else:
                d = self.slope + (1 - self.slope) * self._ramp(z)
            rounding = _LIBRARY + 8 * _EPSILON
            return np.minimum(add_up(d, add_up(mul_up(e, to_float_up(self.curvature)), rounding)), 1.0)

    def _ramp(self, z: Array) -> Array:
        """``clip(1/2 + beta z / 4, 0, 1)``, off by at most one epsilon (where it is not clipped, ``|beta z / 4| <= 1/2``)."""
        return np.clip(z * (self.beta / 4) + 0.5, 0.0, 1.0)

    def _softplus(self, z: Array, e: Array) -> tuple[Array, Array]:
        v = np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(self.beta * z))) / self.beta
        fixed = div_up(_LIBRARY + _EPSILON, self.beta)
        return v, add_up(e, add_up(fixed, next_up(np.abs(v)) * (2 * _EPSILON)))

    def _smooth_leaky(self, z: Array, e: Array) -> tuple[Array, Array]:
        """Every intermediate is at most ``|z| + 2 / beta`` and there are fewer than ten roundings.

        The ramp's error enters through its square: ``(2 / beta) 2 k epsilon <= 2 epsilon (2 / beta)``.
        """
        k, knee = self._ramp(z), 2 / self.beta
        v = self.slope * z + (1 - self.slope) * (knee * (k * k) + np.maximum(z - knee, 0.0))
        return v, add_up(e, mul_up(add_up(np.abs(z), knee), 16 * _EPSILON))


def parse(fields: dict[str, Any]) -> Activation:
    """The activation of a certificate.

    Raises:
        CheckError: for an unknown name or a constant out of range.
    """
    name, slope, beta = fields["name"], float(fields["slope"]), float(fields["beta"])
    if name not in SMOOTH + HOMOGENEOUS:
        raise CheckError(STEP, f"unknown activation {name!r}; known: {', '.join(SMOOTH + HOMOGENEOUS)}")
    if not 0 <= slope <= 1 or (name in ("softplus", "relu") and slope != 0):
        raise CheckError(STEP, f"slope {slope!r} is not possible for {name}")
    # Beyond these a scaled argument could underflow or overflow, which the error analysis excludes.
    if not 1e-100 <= beta <= 1e100:
        raise CheckError(STEP, f"beta = {beta!r} is outside [1e-100, 1e100]")
    return Activation(name, slope, beta)
