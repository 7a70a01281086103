"""A user's own activation in the promise T3r: enclosures from what was declared about it, and a search for a point that refutes that.

Declared are: s is nondecreasing, ``gamma <= s' <= L``, and perhaps ``|s'(t) - s'(u)| <= H |t - u|``. On a cell with middle m and half
width d then ``s`` lies between its values at the ends and ``s'`` within ``H d`` of ``s'(m)`` (without H: between gamma and L), which is
all that the proof of T3r asks of an activation (`proxyconvex_checker.single_neuron`). Values and slopes at points are those of the user's
function in float64. Nothing of this is proved: what uses it has evidence ASSUMED.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from proxyconvex_checker.links import Bounds

from ..core.errors import InvalidInputError
from ..core.evidence import Evidence
from ..core.guarantee import Guarantee, PremiseRecord
from ..core.references import FREI_CAO_GU_2020
from ..families.links import Link

ROUNDING = 1e-12
"""Relative error allowed for the float64 evaluation of a user's function."""
POINTS = 4_001


@dataclass(frozen=True)
class Declared:
    """A declared activation with the interface that `proxyconvex_checker.single_neuron` needs of its own.

    Attributes:
        link: the activation.
        lo: the least ``<w, x_i>`` that the ball allows.
        hi: the largest.
        gamma: the declared least slope between them.
        tried: points at which the declared constants were tried.
    """

    link: Link
    lo: float
    hi: float
    gamma: float
    tried: int

    @classmethod
    def of(
        cls,
        link: Link,
        x: Float[np.ndarray, "n d"],
        initial: Float[np.ndarray, "1 d"],
        comparator: Float[np.ndarray, "1 d"],
    ) -> Declared:
        """The activation on the range of a plan, after its constants have been tried there.

        Raises:
            InvalidInputError: naming the point at which a declared constant is wrong.
        """
        b = x @ comparator[0]
        half = float(np.linalg.norm(initial - comparator)) * np.linalg.norm(x, axis=1)
        lo, hi = float((b - half).min()), float((b + half).max())
        wide = 1e-9 * (1 + abs(lo) + abs(hi))  # more than the rounding of these numbers
        lo, hi = lo - wide, hi + wide
        gamma = _least(link, lo, hi)
        return cls(link, lo, hi, gamma, try_constants(link, gamma, lo, hi, b))

    @property
    def name(self) -> str:
        """Of the activation."""
        return self.link.label

    def value(self, lo: np.ndarray, hi: np.ndarray) -> Bounds:
        """Bounds of s on ``[lo, hi]``."""
        low, high = self.link.numpy(lo), self.link.numpy(hi)
        return low - ROUNDING * (1 + np.abs(low)), high + ROUNDING * (1 + np.abs(high))

    def derivative(self, lo: np.ndarray, hi: np.ndarray) -> Bounds:
        """Bounds of s' on ``[lo, hi]``."""
        lo, hi = np.broadcast_arrays(np.asarray(lo, float), np.asarray(hi, float))
        most = self.link.lipschitz
        if self.link.curvature is None and not np.array_equal(lo, hi):
            return np.full(lo.shape, self.gamma), np.full(lo.shape, most)
        middle = lo + (hi - lo) / 2
        slope = self.link.derivative(middle)
        half = np.maximum(hi - middle, middle - lo)
        room = (self.link.curvature or 0.0) * half * (1 + ROUNDING) + ROUNDING * most
        return np.clip(slope - room, self.gamma, most), np.clip(slope + room, self.gamma, most)

    def pieces(self, lo: np.ndarray, hi: np.ndarray) -> list[tuple[Bounds, bool]]:
        """`derivative`, possible everywhere."""
        return [(self.derivative(lo, hi), True)]

    def promise(self, g: Guarantee) -> Guarantee:
        """A promise of T3r restated on what was declared.

        Args:
            g: the promise in the words of a certificate.
        """
        link = self.link
        claims = [
            f"it is nondecreasing with {self.gamma!r} <= s' <= {link.lipschitz!r}",
            *([] if link.curvature is None else [f"|s''| <= {link.curvature!r}"]),
        ]
        told = PremiseRecord(
            "declared activation",
            f"Declared for {self.name}, not proved: {' and '.join(claims)} on [{self.lo:.6g}, {self.hi:.6g}], where the ball keeps every "
            f"<w, x_i>. No violation at {self.tried:,} points there, which proves nothing about others.",
            Evidence.ASSUMED,
            FREI_CAO_GU_2020,
            link.lipschitz,
        )
        premises = tuple(
            replace(
                p,
                statement=f"{p.statement} Computed from the declared constants and from values of {self.name} in float64.",
                evidence=Evidence.ASSUMED,
            )
            if p.name == "proxy-convexity"
            else p
            for p in g.premises
        )
        sentence = f"If what is declared for the activation {self.name} is true: {g.sentence[0].lower()}{g.sentence[1:]}"
        return replace(g, sentence=sentence, premises=(told, *premises))


def check_function(link: Link) -> None:
    """Refuse a function that JAX cannot trace, that changes the shape, or that does not act entry by entry.

    Raises:
        InvalidInputError: with what the function raised or returned.
    """
    t = np.linspace(-1.0, 1.0, 16)
    accepted = "a JAX function of an array, applied entrywise"
    try:
        shape = jax.eval_shape(link.function, jax.ShapeDtypeStruct(t.shape, jnp.float32)).shape  # type: ignore[arg-type]
        if shape != t.shape:
            raise InvalidInputError(
                "activation", link.label, accepted, f"It turns shape {t.shape} into {shape}."
            )
        together, backwards, slopes = link.numpy(t), link.numpy(t[::-1])[::-1], link.derivative(t)
    except InvalidInputError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        why = f"{type(error).__name__}: {lines[0][:200]} Write it with jax.numpy."
        raise InvalidInputError("activation", link.label, accepted, why) from error
    _finite(link, t, together, slopes)
    if not np.allclose(together, backwards, rtol=1e-9, atol=1e-12, equal_nan=True):
        raise InvalidInputError(
            "activation", link.label, accepted, "An entry of its value depends on the other entries."
        )


def try_constants(link: Link, gamma: float, lo: float, hi: float, extra: Float[np.ndarray, " k"]) -> int:
    """Search ``[lo, hi]`` for a point at which a declared constant is wrong.

    Args:
        link: the activation.
        gamma: its declared least slope there.
        lo: lower end.
        hi: upper end.
        extra: further points.

    Returns:
        How many points were tried.

    Raises:
        InvalidInputError: naming the point.
    """
    t = np.unique(np.concatenate([np.linspace(lo, hi, POINTS), extra, [0.0] if lo < 0 < hi else []]))
    tried = len(t)
    _try(link, gamma, t)
    # Once more, finely, around the least and the largest slope and the fastest change.
    slope = link.derivative(t)
    for k in {int(slope.argmin()), int(slope.argmax()), int(np.abs(np.diff(slope)).argmax())}:
        near = np.linspace(t[max(k - 1, 0)], t[min(k + 2, len(t) - 1)], 513)
        tried += len(near)
        _try(link, gamma, near)
    return tried


def _try(link: Link, gamma: float, t: Float[np.ndarray, " k"]) -> None:
    value, slope, most = link.numpy(t), link.derivative(t), link.lipschitz
    _finite(link, t, value, slope)
    step, rise = np.diff(t), np.diff(value)
    error = 1e-11 * (1 + float(np.abs(value).max()))
    if rise.size and rise.min() < -error:
        k = int(rise.argmin())
        _refuse(
            link, "activation", link.label, "nondecreasing",
            f"It falls from {value[k]:.17g} at t = {t[k]:.17g} to {value[k + 1]:.17g} at t = {t[k + 1]:.17g}.",
        )  # fmt: skip
    room = 1e-9 * most
    if slope.max() > most + room:
        k = int(slope.argmax())
        _refuse(
            link, "lipschitz", most, "L with s' <= L", f"At t = {t[k]:.17g} the slope is {slope[k]:.17g}."
        )
    if slope.min() < gamma - room:
        k = int(slope.argmin())
        _refuse(
            link,
            "gamma",
            gamma,
            "a lower bound on s', at least 0",
            f"At t = {t[k]:.17g} the slope is {slope[k]:.17g}.",
        )
    steep = (rise - 2 * error) / step
    if steep.size and steep.max() > most + room:
        k = int(steep.argmax())
        _refuse(
            link, "lipschitz", most, "L with s' <= L",
            f"Between t = {t[k]:.17g} and {t[k + 1]:.17g} the mean slope is at least {steep[k]:.17g}.",
        )  # fmt: skip
    if link.curvature is not None and step.size:
        bend = (np.abs(np.diff(slope)) - 2 * room) / step
        if bend.max() > link.curvature * (1 + 1e-9):
            k = int(bend.argmax())
            _refuse(
                link, "curvature", link.curvature, "H with |s'(t) - s'(u)| <= H |t - u|",
                f"Between t = {t[k]:.17g} and {t[k + 1]:.17g} the slope goes from {slope[k]:.17g} to {slope[k + 1]:.17g}. "
                "An activation with a kink has no such H: leave it out.",
            )  # fmt: skip


def _finite(link: Link, t: np.ndarray, value: np.ndarray, slope: np.ndarray) -> None:
    for what, array in (("value", value), ("slope", slope)):
        if not np.isfinite(array).all():
            k = int(np.flatnonzero(~np.isfinite(array))[0])
            _refuse(
                link, "activation", link.label, "finite, with a finite slope, where the data take it",
                f"Its {what} at t = {t[k]:.17g} is {array[k]}.",
            )  # fmt: skip


def _refuse(link: Link, what: str, value: object, accepted: str, why: str) -> NoReturn:
    raise InvalidInputError(what, value, f"{accepted}, as declared for {link.label}", why)


def _least(link: Link, lo: float, hi: float) -> float:
    """The declared least slope on ``[lo, hi]``, refused unless it is a number from 0 to L."""
    gamma = link.least_slope(lo, hi)
    if not 0 <= gamma <= link.lipschitz:
        raise InvalidInputError(
            "gamma", gamma, f"a number from 0 to the Lipschitz constant {link.lipschitz!r}"
        )
    return gamma
