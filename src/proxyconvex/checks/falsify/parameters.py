"""The search problem of a condition on parameters: JAX evaluates and differentiates, ball arithmetic confirms."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import numpy as np

from ...core.conditions import BoundedBelow, GradientGrowth, Noise, ProxyConvexity, ProxyPL, Smooth
from ...core.errors import InvalidInputError
from ...core.intervals import lower_float, upper, upper_float
from ...core.numbers import absolute, map_point, norm_sq, subtract
from ...core.premises import Constant, Premise, fit, gradient, noting_rounding
from ...core.regions import exact_point
from .candidates_regions import (
    center_of,
    flat,
    inner_point,
    inside_exactly,
    inside_many,
    projection,
    radius_of,
)
from .problem import Confirmation, Problem, Values, fixed_batches, float_only
from .shapes import code_line, coordinate_name, numpy_tree, template_of, unravel_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from .problem import Points

_TINY = 1e-200
_FAR = 1e6
_FLOATS_AT_ONCE = 2**23
_EXACT_SIZE = 2000


@final
class ParameterProblem(Problem):
    """A condition of `core.conditions` on a pytree of parameters (for smoothness, on a pair of them).

    Args:
        condition: with functions f, g, ... that JAX can trace.
        like: a point that shows the shape of the parameters; needed where neither a comparator nor a ball does.
        moving: the condition with a constant set to 1 and to 2, in which the slack is affine: `at` then moves that constant
            without compiling again.

    Raises:
        InvalidInputError: without a shape, or if JAX cannot trace the condition.
    """

    def __init__(
        self, condition: Premise, like: Any = None, moving: tuple[Premise, Premise] | None = None
    ) -> None:
        self.condition = condition
        self._moving, self._value = moving, 1.0
        self.pair = isinstance(condition, Smooth)
        self.template = template_of(condition, like)
        self.parameters = flat(self.template).size
        self.size = self.parameters * (2 if self.pair else 1)
        self.statement = condition.record().statement
        self.spread = radius_of(condition.region)
        self._unravel = unravel_of(self.template)
        self._anchor = self._inner_point(like)
        self._project_one = projection(condition.region, self._anchor)
        self.anchors = self._named_anchors(like)
        self._rows = max(1, min(256, _FLOATS_AT_ONCE // max(self._cost(), 1)))

    def at(self, condition: Premise, value: float) -> ParameterProblem:
        """The problem with the moving constant at a value (this object, changed)."""
        self.condition, self._value, self.statement = condition, value, condition.record().statement
        return self

    # --- shape and anchors ---

    def _inner_point(self, like: Any) -> Float[np.ndarray, " p"]:
        """A point of the region."""
        named = (getattr(self.condition, "comparator", None), center_of(self.condition.region), like)
        options = [flat(p) for p in named if p is not None] + [np.zeros(self.parameters)]
        options = [p for p in options if p.size == self.parameters]
        for point in [*options, inner_point(self.condition.region, np.mean(options, axis=0))]:
            if inside_many(self.condition.region, point[None])[0]:
                return point
        raise InvalidInputError(
            "region", str(self.condition.region), "a region with a known inner point",
            "The comparator lies outside it; pass like=w with a point w of the region.",
        )  # fmt: skip

    def _named_anchors(self, like: Any) -> dict[str, Float[np.ndarray, " p"]]:
        named = {
            "comparator": getattr(self.condition, "comparator", None),
            "centre": center_of(self.condition.region),
            "like": like,
            "zero": np.zeros(self.parameters),
        }
        found = {}
        for name, point in named.items():
            if point is None or flat(point).size != self.parameters:
                continue
            one = self._project_one(flat(point)[None])[0]
            found[name] = np.concatenate([one, one]) if self.pair else one
        return found

    def coordinate(self, i: int) -> str:
        """``w[3]``, or ``w['layer'][0, 2]`` for a pytree."""
        name = ("other" if i >= self.parameters else "w") if self.pair else "w"
        return coordinate_name(name, self.template, i % self.parameters)

    def points_of(self, x: Float[np.ndarray, " p"]) -> tuple[Any, ...]:
        """The arguments of ``condition.slack`` for a flat point, as NumPy pytrees."""
        parts = np.split(x, 2) if self.pair else [x]
        return tuple(map_point(np.asarray, numpy_tree(self.template, part)) for part in parts)

    def present(self, point: Float[np.ndarray, " p"]) -> dict[str, Any]:
        """``{"w": w}``, for smoothness ``{"w": w, "other": u}``."""
        return dict(zip(("w", "other"), self.points_of(point), strict=False))

    def reproduce(self, point: Float[np.ndarray, " p"]) -> str:
        """``cond.slack(...)``; a long point by its nonzero entries, or by the search that found it."""
        return code_line(self.points_of(point))

    # --- values by JAX ---

    def _sides(self, points: list[Any], value: Any) -> tuple[Any, Any, Any]:
        """Slack, the size of its two sides, and the sum of the sizes of its terms."""
        import jax.numpy as jnp

        if self._moving is None:
            slack, left, extra = _parts(self.condition, *points)
        else:
            (slack, left, extra), (slack2, left2, _) = (_parts(c, *points) for c in self._moving)
            slack, left = slack + (value - 1) * (slack2 - slack), left + (value - 1) * (left2 - left)
        right = left - slack
        return slack, jnp.sqrt(left**2 + right**2 + _TINY), absolute(left) + absolute(right) + extra

    def _objective(self, x: Any, raw: Any, value: Any) -> tuple[Any, tuple[Any, Any, Any]]:
        import jax.numpy as jnp

        parts = jnp.split(x, 2) if self.pair else [x]
        slack, size, terms = self._sides([self._unravel(p) for p in parts], value)
        return slack / jnp.where(raw, 1.0, size), (slack, terms, slack / size)

    def _cost(self) -> int:
        """Numbers made by one evaluation; also the first trace, where errors of the user's functions show."""
        import jax

        try:
            with jax.enable_x64(True):
                jaxpr = jax.make_jaxpr(lambda x: self._objective(x, False, 1.0)[1])(np.zeros(self.size))
        except InvalidInputError:
            raise
        except Exception as error:
            raise InvalidInputError(
                "condition", type(self.condition).__name__, "functions of w that JAX can trace",
                f"Evaluating the slack raised {type(error).__name__}: {_first_line(error)}. Use jax.numpy where numpy or math stand.",
            ) from error  # fmt: skip
        return _numbers(jaxpr.jaxpr) + self.size

    @functools.cached_property
    def _compiled_values(self) -> Callable[[Points], tuple[np.ndarray, ...]]:
        import jax

        one = jax.jit(jax.vmap(lambda x: self._objective(x[:-1], False, x[-1])[1]))
        return fixed_batches(one, self._rows)

    @functools.cached_property
    def _compiled_gradients(self) -> Callable[[Points], tuple[np.ndarray, ...]]:
        import jax

        def one(x: Any) -> tuple[Any, ...]:
            gradient, values = jax.grad(self._objective, has_aux=True)(x[:-2], x[-2] > 0, x[-1])
            return (*values, gradient)

        return fixed_batches(jax.jit(jax.vmap(one)), self._rows)

    def values(self, points: Points) -> Values:
        """By one compiled function, in batches."""
        import jax

        with jax.enable_x64(True):
            return Values.of(*self._compiled_values(self._with(points)))

    def gradients(self, points: Points, raw: Bool[np.ndarray, " n"]) -> tuple[Values, Points]:
        """By one compiled function, in batches."""
        import jax

        with jax.enable_x64(True):
            flagged = np.concatenate([points, np.asarray(raw, float)[:, None]], axis=1)
            slack, terms, relative, gradient = self._compiled_gradients(self._with(flagged))
        return Values.of(slack, terms, relative), np.nan_to_num(gradient, posinf=0.0, neginf=0.0)

    def _with(self, columns: Points) -> Points:
        """The moving constant as a last column."""
        return np.concatenate([columns, np.full((len(columns), 1), self._value)], axis=1)

    @functools.cached_property
    def _compiled_descent(self) -> Callable[[Points], tuple[np.ndarray, ...]]:
        import jax

        f, grad = self.condition.f, self.condition.grad  # type: ignore[attr-defined]

        def one(x: Any) -> tuple[Any, Any]:
            w = self._unravel(x)
            slope = gradient(f, grad, w)
            return f(w), jax.flatten_util.ravel_pytree(
                map_point(lambda s: jax.numpy.asarray(s, float), slope)
            )[0]

        return fixed_batches(jax.jit(jax.vmap(one)), self._rows)

    def descent(self, starts: Points, steps: int) -> Points:
        """Gradient descent on f with a step that doubles after success and shrinks after failure."""
        if getattr(self.condition, "f", None) is None or not hasattr(self.condition, "grad"):
            return super().descent(starts, steps)
        import jax

        x, visited = starts[:, : self.parameters], []
        with jax.enable_x64(True):
            value, slope = self._compiled_descent(x)
            step = np.full(len(x), 0.1)
            for _ in range(steps):
                new = self._project_one(x - step[:, None] * np.nan_to_num(slope))
                new_value, new_slope = self._compiled_descent(new)
                better = new_value < value
                x, value = np.where(better[:, None], new, x), np.where(better, new_value, value)
                slope = np.where(better[:, None], new_slope, slope)
                step = np.where(better, 2.0, 0.2) * step
                visited.append(x)
        path = np.concatenate(visited)
        return np.concatenate([path, np.roll(path, len(starts), axis=0)], axis=1) if self.pair else path

    # --- region ---

    def project(self, points: Points) -> Points:
        """Into the region (both points of a pair) and within `_FAR` of the origin, beyond which float64 sees nothing."""
        points = np.clip(points, -_FAR, _FAR)
        if not self.pair:
            return self._project_one(points)
        return np.concatenate([self._project_one(x) for x in np.split(points, 2, axis=1)], axis=1)

    def inside(self, points: Points) -> Bool[np.ndarray, " n"]:
        """Membership in float64."""
        parts = np.split(points, 2, axis=1) if self.pair else [points]
        return np.all([inside_many(self.condition.region, x) for x in parts], axis=0)

    def structured(self, rng: Callable[[], np.random.Generator]) -> Points:
        """For smoothness: pairs a short or a long step apart."""
        if not self.pair:
            return super().structured(rng)
        draw, scale, n = rng(), self.spread or 1.0, 256
        base = np.stack([a[: self.parameters] for a in self.anchors.values()])[
            draw.integers(len(self.anchors), size=n)
        ]
        w = base + scale * 10 ** draw.uniform(-3, 1, (n, 1)) * draw.normal(size=base.shape) * (
            draw.random((n, 1)) < 0.7
        )
        u = w + scale * 10 ** draw.uniform(-3, 1, (n, 1)) * draw.normal(size=base.shape)
        return np.concatenate([w, u], axis=1)

    # --- confirmation ---

    def confirm(self, point: Float[np.ndarray, " p"]) -> Confirmation:
        """Exactly where the formula runs on fractions, else by balls, else labelled as float64 only."""
        points = self.points_of(point)
        if not all(inside_exactly(self.condition.region, p) for p in points):
            return Confirmation(
                False, "float64 only", float("nan"), "the point is not certainly inside the region"
            )
        if getattr(self.condition, "grad", None) is not None and self.size <= _EXACT_SIZE:
            exactly = self._exactly(points)
            if exactly is not None:
                return Confirmation(upper(exactly) < 0, "exact fractions", upper_float(exactly))
        return self._by_balls(point, points)

    def _by_balls(self, point: Float[np.ndarray, " p"], points: tuple[Any, ...]) -> Confirmation:
        """Negative for every rounding of the constants that are no float64.

        The slack is monotone in each constant, so its value lies between those for the neighbouring floats.
        """
        from .balls import Unsupported, enclose
        from .balls import upper_float as ball_above

        tops = []
        try:
            for condition in _neighbours(self.condition):
                with noting_rounding() as rounded:
                    ball = enclose(condition.slack, *points)
                if rounded:
                    raise Unsupported(f"{rounded[0]} inside the condition's functions is no float64")
                if not ball.is_finite():
                    raise Unsupported("ball arithmetic gives no finite value there")
                if not ball < 0:
                    return Confirmation(False, "ball arithmetic", ball_above(ball))
                tops.append(ball_above(ball))
        except Unsupported as error:
            return float_only(self, point, f"not confirmed: {error}")
        return Confirmation(True, "ball arithmetic", max(tops))

    def _exactly(self, points: tuple[Any, ...]) -> Any:
        """The slack in fractions and intervals, or None if the user's functions do not run on them."""
        try:
            return self.condition.slack(*(exact_point(p) for p in points))
        except Exception:
            return None


def _neighbours(condition: Premise) -> list[Premise]:
    """The condition with each constant that is no float64 replaced by the floats on its two sides, in all combinations."""
    variants = [condition]
    for name in condition.constants:
        constant = getattr(condition, name)
        if not isinstance(constant, Constant):
            continue
        ends = {lower_float(constant.value), upper_float(constant.value)}
        if len(ends) > 1:
            variants = [dataclasses.replace(c, **{name: end}) for c in variants for end in sorted(ends)]  # type: ignore[type-var]
    return variants


def _parts(condition: Premise, *points: Any) -> tuple[Any, Any, Any]:
    """Slack, one side, and the sizes of terms that cancel inside a side."""
    import jax.numpy as jnp

    slack = jnp.asarray(condition.slack(*points), float).reshape(())
    left, extra = _left_and_terms(condition, slack, *points)
    return slack, left, extra


def _left_and_terms(condition: Premise, slack: Any, *points: Any) -> tuple[Any, Any]:
    """One side of the inequality (the other is it minus the slack), and the sizes of terms that cancel inside a side."""
    w = points[0]
    if isinstance(condition, ProxyConvexity):
        g, h = condition.g(w), condition.level_at(w)  # type: ignore[misc]
        return slack + (g - h), absolute(g) + absolute(h)
    if isinstance(condition, ProxyPL):
        g = condition.g(w)  # type: ignore[misc]
        return slack + fit(condition.mu, w) / 2 * (g - fit(condition.xi, w)), absolute(g)
    if isinstance(condition, Smooth):
        a, b = points
        sizes = absolute(condition.f(a)) + absolute(condition.f(b))  # type: ignore[misc]
        return fit(condition.L, a) / 2 * norm_sq(subtract(b, a)), sizes
    if isinstance(condition, GradientGrowth):
        g = condition.g(w)  # type: ignore[misc]
        return fit(condition.A, w) * g + fit(condition.C, w), absolute(g)
    if isinstance(condition, Noise):
        full = norm_sq(gradient(condition.f, condition.grad, w))
        return fit(condition.rho, w) * full + fit(condition.sigma2, w), 0.0
    if isinstance(condition, BoundedBelow):
        return slack + 1.0 + abs(float(condition.f_star)), abs(float(condition.f_star))
    return slack + 1.0, 0.0


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _numbers(jaxpr: Any) -> int:
    """Numbers made by a jaxpr and those nested in it."""
    total = 0
    for equation in jaxpr.eqns:
        total += sum(getattr(v.aval, "size", 0) for v in equation.outvars)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += _numbers(inner)
    return total
