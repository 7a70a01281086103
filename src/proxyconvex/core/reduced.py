"""Reduced (single-index) conditions: one inequality ``slack(a, b, y, ...) >= 0`` in a few bounded real variables.

A single neuron, and every model that acts through one inner product at a time, meets its proxy condition for all
dimensions and all data at once as soon as an inequality in ``a = <w, x>``, ``b = <v, x>`` and ``y`` holds pointwise,
because the slack of the condition is the mean of that inequality's slack (Frei, Cao, Gu 2020; `ReducedCondition.lift`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, final

import numpy as np

from .arithmetics import evaluate
from .errors import InvalidInputError
from .expression_rows import from_instructions, instructions
from .expressions import (
    HELPERS,
    Expression,
    derivative,
    lift,
    names,
    power,
    rational,
    show,
    substitute,
    unary,
    variable,
)
from .intervals import lower, lower_float, upper_float

Range = tuple[Fraction, Fraction]
Curve = Callable[[Expression], Expression]
ACTIVATIONS: dict[str, Curve] = {
    "identity": lift,
    "square": lambda t: power(t, 2),
    **{op: (lambda t, op=op: unary(op, t)) for op in ("relu", "sigmoid", "softplus", "tanh")},
}
RESERVED = ("s", "ds", "dds", "activation", "name")


@dataclass(frozen=True)
class Activation:
    """An activation of a reduced condition, with its derivative.

    Attributes:
        name: shown and stored.
        value: ``t -> s(t)``, written with ring operations; it may list helpers (``exp``, ``sigmoid``, ``maximum``, ...)
            as further parameters.
        slope: ``t -> s'(t)``; derived from ``value`` if left out (at a kink: the left derivative).
    """

    name: str
    value: Callable[..., Any]
    slope: Callable[..., Any] | None = None

    def at(self, t: Any, order: int = 0) -> Expression:
        """``s``, ``s'`` or ``s''`` of an expression."""
        inner, free = lift(t), variable("t")
        body = call("activation", self.value, {"t": free}, first="t")
        if order > 0:
            body = call("slope", self.slope, {"t": free}, first="t") if self.slope else derivative(body, "t")
        if order > 1:
            body = derivative(body, "t")
        if extra := names(body) - {"t"}:
            raise InvalidInputError("activation", sorted(extra), "a function of one variable t")
        return substitute(body, {"t": inner})


def leaky_relu(slope: Any) -> Activation:
    """``max(t, c t)`` with a slope ``c`` in [0, 1]; its derivative at 0 is ``c``."""
    c = rational("slope", slope)
    if not 0 <= c <= 1:
        raise InvalidInputError("slope", slope, "a number in [0, 1]")
    return Activation(f"leaky-relu:{c}", lambda t: c * t + (1 - c) * unary("relu", t))


def activation_of(given: Any) -> Activation:
    """An activation from a name, a function, a pair (function, derivative) or an `Activation`.

    Raises:
        InvalidInputError: for an unknown name or anything else.
    """
    accepted = (
        f"{', '.join(sorted(ACTIVATIONS))}, 'leaky-relu:SLOPE' (for example leaky-relu:1/10), a function of t, "
        "a pair (function, derivative) or None"
    )
    if given is None:
        return Activation("none", lambda t: t)
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        if given in ACTIVATIONS:
            return Activation(given, ACTIVATIONS[given])
        head, _, tail = given.partition(":")
        if head == "leaky-relu":
            return leaky_relu(tail or "0.01")
    elif callable(given):
        return Activation("custom", given)
    elif isinstance(given, tuple) and len(given) == 2 and all(map(callable, given)):
        return Activation("custom", *given)
    raise InvalidInputError("activation", given, accepted)


def call(
    what: str, formula: Callable[..., Any], given: Mapping[str, Any], first: str | None = None
) -> Expression:
    """Call a formula with the arguments it lists by name, out of ``given`` and the helpers.

    Args:
        what: for error messages.
        formula: the user's function.
        given: named values.
        first: the value for the first parameter, whatever the user calls it.

    Raises:
        InvalidInputError: if it asks for something unknown or does not return one number.
    """
    try:
        parameters = list(inspect.signature(formula).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    known, arguments = {**HELPERS, **given}, {}
    wanted = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if first is not None and wanted:
        arguments[wanted[0].name] = given[first]
    for p in wanted:
        if p.name in arguments:
            continue
        if p.name in known:
            arguments[p.name] = known[p.name]
        elif p.default is p.empty:
            raise InvalidInputError(
                f"parameter {p.name!r} of the {what}", "not given", ", ".join(sorted(known)),
                f"Give {p.name}=(lo, hi) for a variable or {p.name}=number for a constant.",
            )  # fmt: skip
    try:
        result = formula(**arguments) if parameters else formula(*([given[first]] if first else []))
    except InvalidInputError:
        raise
    except Exception as error:
        raise InvalidInputError(
            what, getattr(formula, "__name__", formula), "one formula made of + - * / ** and the helpers",
            f"Calling it with symbols failed: {type(error).__name__}: {error}.",
        ) from error  # fmt: skip
    if result is None or isinstance(result, bool | np.bool_ | tuple | list | dict):
        raise InvalidInputError(
            f"result of the {what}", result, "the slack, one number that is >= 0 where the condition holds",
            "Return left - right instead of a comparison.",
        )  # fmt: skip
    return lift(result)


def checked_range(name: str, given: Any) -> Range:
    """The exact ends of a range.

    Raises:
        InvalidInputError: unless it is a pair of finite numbers ``lo < hi``.
    """
    ends = tuple(given)
    if len(ends) != 2:
        raise InvalidInputError(f"range of {name}", given, "a pair (lo, hi)")
    lo, hi = (rational(f"range of {name}", e) for e in ends)
    if not lo < hi:
        raise InvalidInputError(
            f"range of {name}", given, "lo < hi", "For a fixed value give a number, not a pair."
        )
    if max(abs(lo), abs(hi)) > 10**100:
        raise InvalidInputError(f"range of {name}", given, "ends of size at most 1e100")
    return lo, hi


@final
@dataclass(frozen=True, eq=False, repr=False)
class ReducedCondition:
    """``slack >= 0`` for all values of a few variables in their ranges, with named constants.

    Attributes:
        expression: the slack as an expression of variables and constants.
        variables: name -> exact range ``(lo, hi)``, in the order given.
        constants: name -> exact value.
        activation: name of the activation.
        name: what the inequality is called.
        lift: what a proof of it says about models and data, a sentence.
        curve: ``s(t)`` as an expression of ``t``, if there is an activation.
        domain: expressions; the inequality is claimed only where all of them are >= 0.
        origin: which functions of a user the expression was translated from, if any.
    """

    expression: Expression
    variables: Mapping[str, Range]
    constants: Mapping[str, Fraction] = field(default_factory=dict)
    activation: str = "none"
    name: str = "inequality"
    lift: str = ""
    curve: Expression | None = None
    domain: tuple[Expression, ...] = ()
    origin: str = ""

    def __post_init__(self) -> None:
        used = names(self.expression).union(*map(names, self.domain))
        if not self.variables:
            raise InvalidInputError("variables", {}, "at least one keyword such as a=(-3, 3)")
        if unknown := used - set(self.variables) - set(self.constants):
            raise InvalidInputError("formula", sorted(unknown), "the names of the ranges and constants given")

    # --- values ---

    @property
    def dimension(self) -> int:
        """The number of variables."""
        return len(self.variables)

    @property
    def closed(self) -> Expression:
        """The slack with the constants put in: an expression of the variables alone."""
        return substitute(self.expression, self.constants)

    def slack(self, *positional: Any, **values: Any) -> Any:
        """The slack at a point, or at arrays of points, in the arithmetic of the values given.

        Args:
            *positional: values of the variables, in order; or one mapping from names to values.
            **values: the same by name; a constant given here overrides the condition's.

        Returns:
            A float for floats, an array for NumPy or JAX arrays, a Fraction or an enclosing `Interval` for Fractions
            and Intervals, a ball for `flint.arb`.
        """
        point = self.named(*positional, **values)
        expression = substitute(self.expression, {k: v for k, v in self.constants.items() if k not in point})
        return evaluate(expression, point)

    def named(self, *positional: Any, **values: Any) -> dict[str, Any]:
        """The point as a mapping; refused unless every variable is given once."""
        if len(positional) == 1 and isinstance(positional[0], Mapping):
            values = {**positional[0], **values}
        elif positional:
            if len(positional) > self.dimension:
                raise InvalidInputError(
                    "point", positional, f"{self.dimension} values: {', '.join(self.variables)}"
                )
            values = {**dict(zip(self.variables, positional, strict=False)), **values}
        if wrong := set(values) - set(self.variables) - set(self.constants):
            raise InvalidInputError("point", sorted(wrong), f"the variables {', '.join(self.variables)}")
        if missing := [k for k in self.variables if k not in values]:
            raise InvalidInputError("point", sorted(values), f"a value for each of {', '.join(missing)} too")
        return values

    def contains(self, *positional: Any, **values: Any) -> bool:
        """Whether a point lies in the ranges and the domain, decided exactly."""
        point = {k: rational(k, v) for k, v in self.named(*positional, **values).items()}
        inside = all(lo <= point[k] <= hi for k, (lo, hi) in self.variables.items())
        return inside and all(lower(evaluate(d, point)) >= 0 for d in self.domain)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The largest float64 ranges inside the exact ones: lower and upper ends, one entry a variable."""
        ranges = self.variables.values()
        return np.array([upper_float(lo) for lo, _ in ranges]), np.array(
            [lower_float(hi) for _, hi in ranges]
        )

    # --- variants ---

    def with_constants(self, **constants: Any) -> ReducedCondition:
        """The same inequality with other values of its constants."""
        if wrong := set(constants) - set(self.constants):
            raise InvalidInputError(
                "constants", sorted(wrong), ", ".join(self.constants) or "none: there are no constants"
            )
        return replace(
            self, constants={**self.constants, **{k: rational(k, v) for k, v in constants.items()}}
        )

    def raised(self, delta: Fraction) -> ReducedCondition:
        """The condition with ``slack + delta`` in place of the slack."""
        return self if not delta else replace(self, expression=self.expression + delta)

    def on(self, **ranges: Any) -> ReducedCondition:
        """The same inequality on other ranges."""
        if wrong := set(ranges) - set(self.variables):
            raise InvalidInputError("ranges", sorted(wrong), ", ".join(self.variables))
        return replace(
            self, variables={**self.variables, **{k: checked_range(k, v) for k, v in ranges.items()}}
        )

    # --- words ---

    @property
    def where(self) -> str:
        """The ranges and the domain as text."""
        ranges = ", ".join(f"{k} in [{_short(lo)}, {_short(hi)}]" for k, (lo, hi) in self.variables.items())
        return ranges + "".join(f" with {show(d, 300)} >= 0" for d in self.domain)

    @property
    def statement(self) -> str:
        """The inequality with ranges and constants."""
        fixed = "".join(f", {k} = {_short(v)}" for k, v in self.constants.items())
        return f"{show(self.expression)} >= 0 for all {self.where}{fixed}"

    def __repr__(self) -> str:
        return f"<{self.name}: {self.statement}>"

    # --- storage ---

    def to_dict(self) -> dict[str, Any]:
        """The condition as JSON data, all numbers exact."""
        return {
            "name": self.name,
            "activation": self.activation,
            "lift": self.lift,
            "variables": [[k, str(lo), str(hi)] for k, (lo, hi) in self.variables.items()],
            "constants": [[k, str(v)] for k, v in self.constants.items()],
            "slack": instructions(self.expression),
            "curve": None if self.curve is None else instructions(self.curve),
            "domain": [instructions(d) for d in self.domain],
            "origin": self.origin,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ReducedCondition:
        """The condition that `to_dict` stored."""
        return cls(
            from_instructions(stored["slack"]),
            {k: (Fraction(lo), Fraction(hi)) for k, lo, hi in stored["variables"]},
            {k: Fraction(v) for k, v in stored["constants"]},
            stored["activation"], stored["name"], stored["lift"],
            None if stored["curve"] is None else from_instructions(stored["curve"]),
            tuple(from_instructions(d) for d in stored.get("domain", ())), stored.get("origin", ""),
        )  # fmt: skip


def _short(x: Fraction) -> str:
    """A rational as a short decimal where that is exact for its float, else as a fraction."""
    plain = str(x)
    return plain if len(plain) <= 12 else repr(float(x)) if Fraction(float(x)) == x else plain


MEAN = "The mean of the slack over any distribution of ({names}) inside these ranges is then >= 0 as well."
RIDGE = (
    "If the slack of a condition at w is the mean of this expression over the data, with a = <w, x> and b = <v, x>, then the "
    "condition holds in every dimension and for every distribution of the data that keeps ({names}) inside these ranges."
)


def reduced(
    formula: Callable[..., Any],
    *,
    activation: Any = None,
    name: str = "inequality",
    lift: str | None = None,
    **given: Any,
) -> ReducedCondition:
    """An inequality ``formula(...) >= 0`` in a few bounded variables.

    Example:
        >>> cond = reduced(lambda a, b, s: (s(a) - s(b)) * (a - b), activation="tanh", a=(-1, 1), b=(-1, 1))
        >>> cond.slack(a=0.5, b=0.5)
        0.0

    Args:
        formula: the slack. It receives by name what it lists: the variables and constants below, the activation
            ``s``, its derivatives ``ds`` and ``dds``, and helpers (``exp``, ``log``, ``tanh``, ``maximum``, ...).
        activation: a name (`ACTIVATIONS`, ``"leaky-relu:SLOPE"``), a function of ``t``, or a pair (function, derivative).
        name: what to call it.
        lift: what a proof says about models, one sentence.
        **given: ``a=(-3, 3)`` for a variable, ``C=0.721`` or ``C="0.721"`` for a constant. A float is the binary
            fraction it is; a string is the decimal or quotient it says.

    Raises:
        InvalidInputError: naming the argument that cannot be used.
    """
    if not callable(formula):
        raise InvalidInputError("formula", formula, "a function that returns the slack")
    curve = activation_of(activation)
    variables: dict[str, Range] = {}
    constants: dict[str, Fraction] = {}
    for key, value in given.items():
        if key in RESERVED or key in HELPERS:
            raise InvalidInputError("name", key, "a name that is not an activation or a helper")
        if isinstance(value, tuple | list | np.ndarray):
            variables[key] = checked_range(key, value)
        else:
            constants[key] = rational(key, value)
    symbols: dict[str, Any] = {k: variable(k) for k in given}
    curves = {"s": lambda t: curve.at(t), "ds": lambda t: curve.at(t, 1), "dds": lambda t: curve.at(t, 2)}
    if activation is None:
        curves = {}
    expression = call("formula", formula, {**symbols, **curves})
    if unused := set(given) - names(expression):
        for key in unused & set(constants):
            raise InvalidInputError(
                key, given[key], "constants that the formula uses", f"Drop {key} or use it."
            )
    sentence = (MEAN if lift is None else lift).format(names=", ".join(variables))
    shape = None if activation is None else curve.at(variable("t"))
    return ReducedCondition(expression, variables, constants, curve.name, name, sentence, shape)
