"""Conditions on parameters as inequalities in a few bounded variables, for `checks.certify`."""

from __future__ import annotations

import copy
import dataclasses
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from proxyconvex_checker.boxes import curvature as checker_curvature
from proxyconvex_checker.boxes.expressions import rows as checker_rows

from ...core.conditions import BoundedBelow, GradientGrowth, Noise, ProxyConvexity, ProxyPL, Smooth
from ...core.errors import InvalidInputError
from ...core.expression_rows import instructions
from ...core.expressions import Expression, topological, variable
from ...core.intervals import exact, lower, upper
from ...core.numbers import is_exact_point, map_point
from ...core.premises import Premise, gradient, symbolic, takes_two
from ...core.reduced import ReducedCondition
from ...core.regions import exact_point
from ..deadline import NEVER, Deadline
from ..falsify.candidates_regions import center_of
from ..falsify.shapes import coordinate_name, template_of
from ..jaxprs import Unsupported
from .machine import translated
from .regions import Domain, describe, entries

MAX_VARIABLES, MAX_NODES = 6, 9_000
KNOWN = (ProxyConvexity, ProxyPL, Smooth, BoundedBelow, GradientGrowth, Noise)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")


class NotCertifiable(Exception):
    """A condition that was searched and cannot be certified by boxes; the message says why."""


@dataclass(frozen=True)
class Translation:
    """A condition on parameters, written down in variables.

    Attributes:
        reduced: the inequality; for smoothness, its expression is f itself.
        smoothness: L if the claim is that f is L-smooth, else None.
        zeros: values (numbers or other variables) of the parameters at which the slack may vanish to second order.
    """

    reduced: ReducedCondition
    smoothness: Fraction | None
    zeros: tuple[dict[str, Expression], ...]


def translate(
    condition: Premise, like: Any = None, moving: bool = False, name: str = "", until: Deadline | None = None
) -> Translation:
    """Write a condition down in at most six bounded variables.

    Args:
        condition: of `core.conditions`, with functions that JAX can trace.
        like: a point that shows the shape of the parameters where neither a comparator nor a region does.
        moving: let the comparator range over the region too (its coordinates then count as variables).
        name: how the user calls it.
        until: when to give up.

    Raises:
        OutOfTime: where it takes longer.
        NotCertifiable: where that cannot be done; the message says why.
        InvalidInputError: for functions that JAX cannot trace, or a missing shape.
    """
    template, point, comparator, domain, labels = _variables_of(condition, like, moving)
    try:
        expression, smoothness = _formula(condition, point, comparator, until or NEVER)
    except Unsupported as error:
        raise NotCertifiable(f"the formula cannot be written down: {error}") from error
    if len(topological(expression)) > MAX_NODES:
        raise NotCertifiable(
            f"the formula has more than {MAX_NODES} operations when written out; use fewer rows of data"
        )
    constraints = domain.constraints
    if smoothness is not None:
        # The checker wants to see that the region is convex; without a constraint it is larger, and what is proved is more.
        constraints = [
            d for d in constraints if checker_curvature.convex([checker_rows(instructions(d), "domain")])
        ]
    reduced = ReducedCondition(
        expression,
        {n: domain.ranges[n] for n in labels},
        name=f"{condition.name}, translated",
        domain=tuple(constraints),
        origin=_origin(condition, name),
    )
    return Translation(reduced, smoothness, _zeros(condition, template, point, comparator, like))


def why_not(condition: Premise, like: Any = None, moving: bool = False) -> str | None:
    """Why boxes cannot serve, as far as that shows without tracing the functions; None if nothing speaks against it."""
    try:
        _variables_of(condition, like, moving)
    except NotCertifiable as reason:
        return str(reason)
    return None


def _variables_of(condition: Premise, like: Any, moving: bool) -> tuple[Any, Any, Any, Domain, list[str]]:
    """Template, point, moving comparator (or None), what is known of the variables, and their names."""
    if not isinstance(condition, KNOWN):
        raise NotCertifiable(
            f"{type(condition).__name__} is not one of {', '.join(k.__name__ for k in KNOWN)}"
        )
    if (more := _further_claims(condition)) is not None:
        raise NotCertifiable(more)
    template = template_of(condition, like)
    size = sum(np.size(x) for x in entries_of(template))
    needed = size * (2 if moving else 1)
    if needed > MAX_VARIABLES:
        raise NotCertifiable(f"it has {needed} variables and boxes are subdivided in at most {MAX_VARIABLES}")
    point = _variables("w", template)
    domain, comparator = describe(condition.region, point), None
    if moving:
        if not isinstance(condition, ProxyConvexity):
            raise NotCertifiable("only proxy convexity has a comparator that could range over the region")
        comparator = _variables("v", template)
        also = describe(condition.region, comparator)
        domain = Domain({**domain.ranges, **also.ranges}, [*domain.constraints, *also.constraints])
    labels = [e.args[0] for e in (*entries(point), *(entries(comparator) if moving else ()))]
    if missing := [n for n in labels if n not in domain.ranges]:
        raise NotCertifiable(
            f"its region, {condition.region}, does not bound {', '.join(missing)}; give region=pc.Ball(center, radius) or "
            "region=pc.Box(low, high)"
        )
    if empty := [n for n in labels if not domain.ranges[n][0] < domain.ranges[n][1]]:
        raise NotCertifiable(f"its region leaves {', '.join(empty)} no room")
    return template, point, comparator, domain, labels


def _further_claims(condition: Premise) -> str | None:
    """What a condition claims beyond its slack, which a proof about the slack would not cover."""
    if getattr(condition, "samplewise", False) or getattr(condition, "scope", "") == "sample-wise":
        return "it is claimed for every single sample, and its functions are those of the mean; write the sample's own condition"
    if getattr(condition, "scope", "") == "expectation" and condition.moment is None:  # type: ignore[attr-defined]
        return "it is about E||grad f(w; z)||^2, and no moment is given; pass moment"
    extra = [what for what in ("h_max", "g_min") if getattr(condition, what, None) is not None]
    return (
        f"{' and '.join(extra)} would be claimed, too, and is not in the slack; leave it out"
        if extra
        else None
    )


def entries_of(template: Any) -> list[Any]:
    """The leaves of a template, dictionaries by sorted key."""
    if isinstance(template, dict):
        return [x for k in sorted(template) for x in entries_of(template[k])]
    if isinstance(template, list | tuple):
        return [x for t in template for x in entries_of(t)]
    return [template]


def _variables(prefix: str, template: Any) -> Any:
    """The template with variables in the place of its numbers, named after their position."""
    count = iter(range(10**6))
    size = sum(np.size(x) for x in entries_of(template))

    def leaf(x: Any) -> Any:
        array = np.asarray(x)
        out = np.empty(array.shape, dtype=object)
        for k in range(array.size):
            i = next(count)
            label = re.sub(r"[^A-Za-z0-9]+", "_", coordinate_name(prefix, template, i)).strip("_")
            if not _NAME.fullmatch(label):
                label = f"{prefix}{i}"
            out.ravel()[k] = variable(label if size > 1 or label != prefix else prefix)
        return out if out.ndim else out.item()

    return _map_sorted(leaf, template)


def _map_sorted(function: Any, template: Any) -> Any:
    if isinstance(template, dict):
        found = {k: _map_sorted(function, template[k]) for k in sorted(template)}
        return {k: found[k] for k in template}
    if isinstance(template, list | tuple):
        return type(template)(_map_sorted(function, t) for t in template)
    return function(template)


def _formula(
    condition: Premise, point: Any, comparator: Any, until: Deadline
) -> tuple[Expression, Fraction | None]:
    """The slack (or f, for smoothness), with every function translated."""
    if isinstance(condition, Smooth):
        return _smooth(condition, point, until)
    changes: dict[str, Any] = {}
    for what in ("f", "g", "moment"):
        function = getattr(condition, what, None)
        if function is not None:
            changes[what] = translated(what, function, until=until)
    f, grad = getattr(condition, "f", None), getattr(condition, "grad", None)
    if hasattr(condition, "grad") and (f is not None or grad is not None):
        changes["grad"] = translated("grad f", lambda w: gradient(f, grad, w), False, until)
    h = getattr(condition, "h", None)
    if callable(h):
        if takes_two(h):
            changes["h"] = _two(translated("h", h, until=until))
        else:
            changes["h"] = translated("h", h, until=until)
    symbolic_condition = dataclasses.replace(condition, **changes)
    if comparator is not None:
        symbolic_condition = copy.copy(symbolic_condition)
        object.__setattr__(symbolic_condition, "comparator", comparator)
    slack = symbolic_condition.slack(point)
    if not isinstance(slack, Expression):
        raise Unsupported("the slack does not depend on w")
    return slack, None


def _two(function: Any) -> Any:
    """With two named parameters, which mark ``h`` as pointwise."""
    return lambda v, w: function(v, w)


def _smooth(condition: Smooth, point: Any, until: Deadline) -> tuple[Expression, Fraction]:
    if condition.f is None:
        raise InvalidInputError(
            "f", None, "a function of w", "This premise was given by its constants alone."
        )
    value = exact(condition.L.value)
    if lower(value) != upper(value):
        raise Unsupported("a smoothness constant that is an interval")
    f = translated("f", condition.f, until=until)(point)
    if not isinstance(f, Expression) or f.op == "const":
        raise Unsupported("f does not depend on w")
    from .gradients import same_gradient

    given = translated("grad f", lambda w: gradient(condition.f, condition.grad, w), False, until)(point)
    if not same_gradient(f, list(entries(point)), list(entries(given)), until):
        raise Unsupported(
            "the gradient that the condition uses (its grad, or what JAX makes of f at kinks and custom derivatives) is not "
            "recognised as the gradient of f"
        )
    return f, Fraction(lower(value))


def _origin(condition: Premise, name: str) -> str:
    """Which of the user's functions were translated: for the statement of the certificate."""
    parts = []
    for what in ("f", "g", "h", "grad", "moment"):
        function = getattr(condition, what, None)
        code = getattr(function, "__code__", None)
        if callable(function):
            where = (
                ""
                if code is None
                else f" ({code.co_filename.rsplit('/', 1)[-1]}, line {code.co_firstlineno})"
            )
            parts.append(f"{what} = {getattr(function, '__name__', type(function).__name__)}{where}")
    title = f"{type(condition).__name__}{f' {name}' if name else ''}"
    return f"{title} with {', '.join(parts)}"[:600] if parts else title


def _zeros(
    condition: Premise, template: Any, point: Any, comparator: Any, like: Any
) -> tuple[dict[str, Expression], ...]:
    """Where the slack may vanish to second order: at the comparator, the centre of the region, zero, and ``like``."""
    names = [e.args[0] for e in entries(point)]
    if comparator is not None:
        return (dict(zip(names, entries(comparator), strict=True)),)
    found: list[dict[str, Expression]] = []
    options = [getattr(condition, "comparator", None), center_of(condition.region), like, map_point(lambda x: 0.0 * np.asarray(x, float), template)]  # fmt: skip
    for option in options:
        if option is None:
            continue
        exactly = symbolic(
            option
            if is_exact_point(option)
            else exact_point(option)
            if not isinstance(option, dict | list | tuple)
            else option
        )
        values = list(entries(exactly))
        if len(values) == len(names):
            one = dict(zip(names, values, strict=True))
            if one not in found:
                found.append(one)
    return tuple(found)
