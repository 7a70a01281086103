"""Parameters of any structure as one flat vector: their shape, names of coordinates, and Python code of a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import InvalidInputError
from ...core.intervals import upper
from ...core.numbers import is_exact_point, map_point
from ...core.premises import Premise
from ...core.regions import checked_point
from .candidates_regions import center_of, flat

if TYPE_CHECKING:
    from jaxtyping import Float


def template_of(condition: Premise, like: Any) -> Any:
    """A float pytree with the shape of the parameters."""
    for point in (getattr(condition, "comparator", None), center_of(condition.region), like):
        if point is not None:
            point = checked_point("like", point)
            if is_exact_point(point) and isinstance(point, list):
                return np.array([float(upper(x)) for x in flat_exact(point)])
            return map_point(lambda x: np.asarray(x, float), point)
    raise InvalidInputError(
        "like", None, "a point with the shape of the parameters",
        "The condition names no comparator and its region no centre: pass like=w0, any point of the right shape (in a file for "
        "`proxyconvex check`, define like = w0).",
    )  # fmt: skip


def flat_exact(point: list[Any]) -> list[Any]:
    """A list of exact scalars; nested exact points are refused."""
    if any(isinstance(x, list | tuple | dict) for x in point):
        raise InvalidInputError("comparator", point, "a flat list of exact numbers, or float arrays")
    return point


def unravel_of(template: Any) -> Callable[[Any], Any]:
    """The map from flat JAX vectors to parameters of the shape of the template."""
    import jax
    import jax.flatten_util

    with jax.enable_x64(True):
        leaves, tree = jax.tree.flatten(template)
    shapes = [np.shape(x) for x in leaves]
    ends = np.cumsum([int(np.prod(s, dtype=int)) for s in shapes])[:-1].tolist()

    def unravel(x: Any) -> Any:
        parts = jax.numpy.split(x, ends)
        return jax.tree.unflatten(tree, [p.reshape(s) for p, s in zip(parts, shapes, strict=True)])

    return unravel


def numpy_tree(template: Any, x: Float[np.ndarray, " p"]) -> Any:
    """The same map for one NumPy vector."""
    import jax

    leaves, tree = jax.tree.flatten(template)
    ends = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]
    parts = [p.reshape(np.shape(leaf)) for p, leaf in zip(np.split(x, ends), leaves, strict=True)]
    return jax.tree.unflatten(tree, parts)


def coordinate_name(name: str, tree: Any, i: int) -> str:
    """Name of the i-th flat coordinate, such as ``w['a'][0, 2]``."""
    if isinstance(tree, dict | list | tuple):
        for key in sorted(tree) if isinstance(tree, dict) else range(len(tree)):
            size = flat(tree[key]).size
            if i < size:
                return coordinate_name(f"{name}[{key!r}]", tree[key], i)
            i -= size
    shape = np.shape(tree)
    return name if shape == () else f"{name}[{', '.join(str(int(j)) for j in np.unravel_index(i, shape))}]"


def code_line(points: tuple[Any, ...]) -> str:
    """Python that evaluates the slack at these arguments."""
    if all(flat(p).size <= 24 for p in points):
        return f"cond.slack({', '.join(map(code_of, points))})"
    arrays = [p for p in points if isinstance(p, np.ndarray)]
    if len(arrays) < len(points) or any(np.count_nonzero(a) > 24 for a in arrays):
        return "cond.slack(*verdict.witness['arguments'])"
    lines = []
    for name, a in zip("wu", arrays, strict=False):
        spots = np.flatnonzero(a).tolist()
        lines.append(f"{name} = np.zeros({a.shape}); {name}.flat[{spots}] = {a.ravel()[spots].tolist()}")
    return "; ".join([*lines, f"cond.slack({', '.join('wu'[: len(arrays)])})"])


def code_of(point: Any) -> str:
    """Python code of a short point."""
    if isinstance(point, dict):
        return "{" + ", ".join(f"{k!r}: {code_of(v)}" for k, v in point.items()) + "}"
    if isinstance(point, list | tuple):
        inside = ", ".join(map(code_of, point))
        return f"({inside},)" if isinstance(point, tuple) else f"[{inside}]"
    array = np.asarray(point, float)
    return repr(array.tolist()) if array.ndim <= 1 else f"np.array({array.tolist()!r})"
