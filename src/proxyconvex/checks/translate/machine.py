"""JAX functions as expressions: the jaxpr is walked with symbols in the place of numbers, outside XLA.

The result means what the program means in real arithmetic: floats are the binary fractions they are, every operation is exact, and the
derivatives that JAX takes (also at kinks, also by a user's ``custom_jvp``) are in the jaxpr like anything else. What has no exact
counterpart is refused with the name of the operation and the user's line.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ...core.errors import InvalidInputError
from ...core.expressions import Expression, lift, unary
from ...core.numbers import map_point
from ...core.premises import noting_rounding
from .. import jaxprs
from ..deadline import NEVER, Deadline
from ..jaxprs import Unsupported
from . import simplify as s
from . import truth
from .truth import Truth

MOST = 400_000
INFINITY = float("inf")
Entry = Any
"""An expression, or plus or minus infinity (JAX starts a maximum with it)."""


def symbols(values: Any) -> np.ndarray:
    """Numbers as exact constants (an array of dtype object); infinities stay floats."""
    array = np.asarray(values)
    out = np.empty(array.shape, dtype=object)
    out.ravel()[:] = [_entry(x) for x in array.ravel().tolist()]
    return out


def _entry(x: float) -> Entry:
    if x != x:
        raise Unsupported("a constant that is not a number (NaN)")
    return x if x in (INFINITY, -INFINITY) else lift(Fraction(x))


def _finite(x: Entry) -> Expression:
    if not isinstance(x, Expression):
        raise Unsupported("arithmetic with infinity")
    return x


def _each(function: Callable[..., Entry], infinite: bool = False) -> Callable[..., np.ndarray]:
    """A function of entries on arrays; ``infinite`` if it knows what to do with infinities."""

    def apply(*arrays: np.ndarray) -> np.ndarray:
        arrays = tuple(np.broadcast_arrays(*arrays))
        out = np.empty(arrays[0].shape, dtype=object)
        rows = zip(*(a.ravel() for a in arrays), strict=True)
        out.ravel()[:] = [function(*(row if infinite else map(_finite, row))) for row in rows]
        return out

    return apply


def _maximum(x: Entry, y: Entry) -> Entry:
    for a, b in ((x, y), (y, x)):
        if not isinstance(a, Expression):
            return b if a < 0 else a
    return s.larger(x, y)


def _minimum(x: Entry, y: Entry) -> Entry:
    for a, b in ((x, y), (y, x)):
        if not isinstance(a, Expression):
            return b if a > 0 else a
    return s.smaller(x, y)


def _sign(x: Expression) -> Expression:
    return s.minus(truth.pick(truth.positive(x), lift(1), lift(0)), truth.pick(truth.positive(s.negated(x)), lift(1), lift(0)))  # fmt: skip


def _half(x: Expression) -> Expression:
    return s.over(x, lift(2))


ELEMENTWISE: dict[str, Callable[..., np.ndarray]] = {
    "add": _each(s.plus),
    "add_any": _each(s.plus),
    "sub": _each(s.minus),
    "mul": _each(s.times),
    "div": _each(s.over),
    "neg": _each(s.negated),
    "abs": _each(s.size),
    "sign": _each(_sign),
    "max": _each(_maximum, infinite=True),
    "min": _each(_minimum, infinite=True),
    "clamp": _each(lambda low, x, high: _minimum(_maximum(low, x), high), infinite=True),
    "pow": _each(s.raised),
    "square": _each(lambda x: s.times(x, x)),
    "sqrt": _each(lambda x: unary("sqrt", x)),
    "rsqrt": _each(lambda x: s.over(lift(1), unary("sqrt", x))),
    "exp": _each(s.exponential),
    "exp2": _each(lambda x: s.exponential(s.times(x, unary("log", lift(2))))),
    "expm1": _each(lambda x: s.minus(s.exponential(x), lift(1))),
    "log": _each(s.logarithm),
    "log1p": _each(s.log_one_plus),
    "logistic": _each(lambda x: unary("sigmoid", x)),
    "tanh": _each(lambda x: unary("tanh", x)),
    "sinh": _each(lambda x: _half(s.minus(unary("exp", x), unary("exp", s.negated(x))))),
    "cosh": _each(lambda x: _half(s.plus(unary("exp", x), unary("exp", s.negated(x))))),
    **{name: _each(lambda x: x, infinite=True) for name in ("copy", "copy_p", "stop_gradient", "optimization_barrier")},
}  # fmt: skip


# --- truth values --------------------------------------------------------------------------------------------------


def _compared(test: Callable[[Entry, Entry], Truth | bool]) -> Callable[..., np.ndarray]:
    def one(x: Entry, y: Entry) -> Truth | bool:
        if isinstance(x, Expression) and isinstance(y, Expression):
            return test(x, y)
        # A real number beside an infinity, or two infinities.
        ends = [lift(0) if isinstance(e, Expression) else lift(1 if e > 0 else -1) for e in (x, y)]
        return test(*ends)

    return _each(one, infinite=True)


COMPARISONS: dict[str, Callable[..., np.ndarray]] = {
    "gt": _compared(truth.greater),
    "lt": _compared(lambda x, y: truth.greater(y, x)),
    "ge": _compared(lambda x, y: truth.negation(truth.greater(y, x))),
    "le": _compared(lambda x, y: truth.negation(truth.greater(x, y))),
    "eq": _compared(truth.equal),
    "ne": _compared(lambda x, y: truth.negation(truth.equal(x, y))),
    "is_finite": _each(lambda x: isinstance(x, Expression), infinite=True),
}
LOGIC: dict[str, Callable[..., np.ndarray]] = {
    "not": _each(truth.negation, infinite=True),
    "and": _each(truth.both, infinite=True),
    "or": _each(truth.either, infinite=True),
}


def decided(x: np.ndarray) -> np.ndarray:
    """Truth values that are all decided as an array of dtype bool."""
    if x.dtype == object and all(isinstance(v, bool | np.bool_) for v in x.ravel()):
        return x.astype(bool)
    return x


def _select(equation: Any, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if which.dtype != object:
        return np.choose(np.broadcast_to(which, cases[0].shape).astype(int), cases)
    if cases[0].dtype != object and equation.outvars[0].aval.dtype != bool:
        raise Unsupported("a choice between whole numbers that depends on w")

    def one(p: Truth | bool, a: Entry, b: Entry) -> Entry:
        if not isinstance(p, Truth):
            return b if p else a
        if isinstance(a, Expression) and isinstance(b, Expression):
            return truth.pick(p, b, a)
        if isinstance(a, float) or isinstance(b, float):
            raise Unsupported("a choice between a number and infinity")
        return truth.either(truth.both(p, b), truth.both(truth.negation(p), a))

    picked = _each(one, infinite=True)(which, *(np.asarray(c, dtype=object) for c in cases))
    return decided(picked) if equation.outvars[0].aval.dtype == bool else picked


def _convert(equation: Any, x: np.ndarray) -> np.ndarray:
    target, source = np.dtype(equation.params["new_dtype"]), equation.invars[0].aval.dtype
    if np.issubdtype(source, np.bool_) and np.issubdtype(target, np.floating):
        return _each(lambda p: truth.pick(p, lift(1), lift(0)), infinite=True)(x)
    if target == np.float64:
        return x
    if np.issubdtype(target, np.integer):
        raise Unsupported("a branch or a position that depends on w; jnp.where takes the place of a branch")
    raise Unsupported(f"a conversion to {target}, which rounds")


def _total(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """A product of matrices, entry by entry; zeros cost nothing."""
    out = np.empty((p.shape[0], q.shape[1]), dtype=object)
    for i in range(p.shape[0]):
        for j in range(q.shape[1]):
            total = lift(0)
            for a, b in zip(p[i], q[:, j], strict=True):
                total = s.plus(total, s.times(_finite(a), _finite(b)))
            out[i, j] = total
    return out


STRUCTURED: dict[str, Callable[..., np.ndarray]] = {
    "integer_pow": lambda e, x: _each(lambda a: s.raised(a, lift(e.params["y"])))(x),
    "reduce_sum": lambda e, x: jaxprs.reduced(e, x, s.plus, lift(0)),
    "reduce_prod": lambda e, x: jaxprs.reduced(e, x, s.times, lift(1)),
    "reduce_max": lambda e, x: jaxprs.reduced(e, x, _maximum, None),
    "reduce_min": lambda e, x: jaxprs.reduced(e, x, _minimum, None),
    "reduce_and": lambda e, x: decided(jaxprs.reduced(e, x, truth.both, True)),
    "reduce_or": lambda e, x: decided(jaxprs.reduced(e, x, truth.either, False)),
    "cumsum": lambda e, x: jaxprs.accumulated(e, x, s.plus),
    "cumprod": lambda e, x: jaxprs.accumulated(e, x, s.times),
    "cummax": lambda e, x: jaxprs.accumulated(e, x, _maximum),
    "cummin": lambda e, x: jaxprs.accumulated(e, x, _minimum),
    "select_n": _select,
    "convert_element_type": _convert,
    "dot_general": lambda e, a, b: jaxprs.dot_general(e, a, b, _total),
    "scatter-add": jaxprs.scatter_add,
    "scatter_add": jaxprs.scatter_add,
}


class Symbolic(jaxprs.Machine):
    """Interpreter of jaxprs over expressions."""

    most = MOST
    doing = "a certificate"

    def __init__(self, until: Deadline | None = None) -> None:
        super().__init__()
        self.until = until or NEVER

    def entering(self, value: Any) -> np.ndarray:
        """Floats become exact constants; integers and truth values stay."""
        array = np.asarray(value)
        if array.dtype == object or array.dtype == bool or np.issubdtype(array.dtype, np.integer):
            return array
        if np.issubdtype(array.dtype, np.floating):
            return symbols(array.astype(float))
        raise Unsupported(f"numbers of type {array.dtype}")

    def apply(self, equation: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """One operation; what is not covered is named, with the user's line."""
        self.until.check()
        try:
            return self._apply(equation, inputs)
        except Unsupported as error:
            where = line_of(equation)
            raise Unsupported(
                f"{error} (at {where})" if where and "(at " not in str(error) else str(error)
            ) from error

    def _apply(self, equation: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        name = equation.primitive.name
        if any(v.aval.dtype == np.float32 for v in equation.outvars if hasattr(v.aval, "dtype")):
            raise Unsupported(f"{name!r} in float32, which rounds")
        if all(x.dtype != object for x in inputs):
            return jaxprs.on_integers(equation, inputs, symbols)
        if name in jaxprs.MOVES:
            return jaxprs.MOVES[name](equation, [np.asarray(x) for x in inputs])
        if name in COMPARISONS:
            if any(v.aval.dtype == bool for v in equation.invars):
                raise Unsupported("a comparison of truth values")
            return [decided(COMPARISONS[name](*inputs))]
        if name in LOGIC and equation.outvars[0].aval.dtype == bool:
            return [decided(LOGIC[name](*(x.astype(object) for x in inputs)))]
        if name in STRUCTURED:
            return [STRUCTURED[name](equation, *inputs)]
        if name in ELEMENTWISE:
            return [ELEMENTWISE[name](*(x if x.dtype == object else symbols(x) for x in inputs))]
        raise Unsupported(f"the operation {name!r} has no counterpart among the expressions")


def line_of(equation: Any) -> str:
    """``file.py:12`` of the user's line that made an equation, as far as JAX tells."""
    try:
        from jax._src import source_info_util

        frame = source_info_util.user_frame(equation.source_info.traceback)
        return "" if frame is None else f"{frame.file_name.rsplit('/', 1)[-1]}, line {frame.start_line}"
    except Exception:  # private to JAX: without it there is no line, nothing else changes
        return ""


def translated(
    what: str, function: Callable[..., Any], scalar: bool = True, until: Deadline | None = None
) -> Callable[..., Any]:
    """A JAX function as a function of points of expressions.

    Args:
        what: for errors: ``"f"``, ``"g"``, ...
        function: traceable by JAX, of pytrees of float64 arrays.
        scalar: whether its value must be one number.
        until: when to give up.

    Returns:
        A function of points whose leaves are expressions, or arrays of them, which raises `Unsupported` for what cannot be translated and
        `OutOfTime` where that takes too long.
    """

    def apply(*points: Any) -> Any:
        import jax

        templates = [map_point(lambda x: np.zeros(np.shape(x)), p) for p in points]
        leaves = [np.asarray(x, dtype=object) for p in points for x in jax.tree.leaves(p, is_leaf=lambda x: isinstance(x, Expression))]  # fmt: skip
        with jax.enable_x64(True), noting_rounding() as rounded:
            closed, shape = jax.make_jaxpr(function, return_shape=True)(*templates)
            if rounded:
                raise Unsupported(
                    f"{rounded[0]} inside {what} is no float64, so the traced formula is not yours"
                )
            results = Symbolic(until).run(closed.jaxpr, closed.consts, [x.copy() for x in leaves])
        outputs = [_real(what, r) for r in results]
        if scalar:
            if len(outputs) != 1 or outputs[0].size != 1:
                raise InvalidInputError(
                    what, [o.shape for o in outputs], "a function that returns one number"
                )
            return outputs[0].ravel()[0]
        return jax.tree.unflatten(jax.tree.structure(shape), [o if o.ndim else o.item() for o in outputs])

    return apply


def _real(what: str, result: np.ndarray) -> np.ndarray:
    entries = result if result.dtype == object else symbols(result)
    if not all(isinstance(x, Expression) for x in entries.ravel()):
        raise Unsupported(f"{what} is infinite or not a number")
    return entries
