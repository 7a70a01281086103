"""A bounded region of parameters as exact ranges of its coordinates and polynomials that are >= 0 on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from ...core.expressions import Expression, lift, power
from ...core.numbers import exact, lower, upper
from ...core.premises import symbolic
from ...core.region_box import Box
from ...core.regions import Ball, Intersection, PerNeuronBalls, Product, Pullback, Region, WholeSpace

Ranges = dict[str, tuple[Fraction, Fraction]]


@dataclass
class Domain:
    """What is known of the variables inside a region.

    Attributes:
        ranges: name -> exact ends; a name that is missing is unbounded.
        constraints: polynomials that are >= 0 exactly inside, where the ranges alone say too little.
    """

    ranges: Ranges = field(default_factory=dict)
    constraints: list[Expression] = field(default_factory=list)

    def narrow(self, name: str, lo: Fraction, hi: Fraction) -> None:
        """A further range of a variable."""
        old = self.ranges.get(name)
        self.ranges[name] = (lo, hi) if old is None else (max(lo, old[0]), min(hi, old[1]))


def entries(point: Any) -> Iterator[Expression]:
    """The expressions of a point in a fixed order: dictionaries by sorted key, arrays row by row."""
    if isinstance(point, Expression):
        yield point
    elif isinstance(point, dict):
        for key in sorted(point):
            yield from entries(point[key])
    else:
        for part in point.ravel() if isinstance(point, np.ndarray) else point:
            yield from entries(part)


def describe(region: Region, point: Any) -> Domain:
    """Ranges and constraints of the coordinates of a point in a region.

    Args:
        region: any region of the library; what bounds nothing (the whole space) adds nothing.
        point: a point of variables, with the structure of the parameters.
    """
    found = Domain()
    _add(found, region, point)
    return found


def _add(found: Domain, region: Region, point: Any) -> None:
    if isinstance(region, Intersection):
        for part in region.parts:
            _add(found, part, point)
    elif isinstance(region, Product):
        for part, component in zip(region.parts, point, strict=True):
            _add(found, part, component)
    elif isinstance(region, Box):
        for x, lo, hi in zip(entries(point), region.low.ravel(), region.high.ravel(), strict=True):
            found.narrow(x.args[0], Fraction(lo), Fraction(hi))
    elif isinstance(region, Ball):
        _ball(
            found,
            list(entries(point)),
            [e.args[0] for e in entries(symbolic(region.center))],
            exact(region.radius),
        )
    elif isinstance(region, PerNeuronBalls):
        for row, center, radius in zip(point, region.center, region.radii.tolist(), strict=True):
            _ball(found, list(row), [Fraction(c) for c in center.tolist()], Fraction(radius))
    elif isinstance(region, Pullback):
        _pullback(found, region, point)
    elif not isinstance(region, WholeSpace):
        raise TypeError(f"a region of an unknown kind: {type(region).__name__}")


def _ball(found: Domain, xs: list[Expression], center: list[Fraction], radius: Any) -> None:
    """``||x - c|| <= r``: each coordinate within r, and ``r^2 - ||x - c||^2 >= 0``."""
    outer = upper(radius)
    for x, c in zip(xs, center, strict=True):
        if x.op == "var":
            found.narrow(x.args[0], c - outer, c + outer)
    if len(xs) > 1 or xs[0].op != "var":
        square = lift(0)
        for x, c in zip(xs, center, strict=True):
            square = square + power(x - c, 2)
        found.constraints.append(lift(outer**2) - square)


def _pullback(found: Domain, region: Pullback, point: Any) -> None:
    """``M u + b`` in the inner region: its constraints at the image; ranges of the image bound nothing by themselves."""
    matrix, offset = ([exact(x) for x in row] for row in (np.ravel(region.matrix), np.ravel(region.offset)))
    us = list(entries(point))
    rows = [matrix[i * len(us) : (i + 1) * len(us)] for i in range(len(offset))]
    image = [sum((lift(lower(m)) * u for m, u in zip(row, us, strict=True)), lift(lower(b))) for row, b in zip(rows, offset, strict=True)]  # fmt: skip
    if isinstance(region.region, Ball):
        _ball(
            found,
            image,
            [e.args[0] for e in entries(symbolic(region.region.center))],
            exact(region.region.radius),
        )
