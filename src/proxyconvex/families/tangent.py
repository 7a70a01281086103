"""U: any differentiable model with a convex loss is proxy convex through its tangent model (Frei and Gu 2021, section 4).

Notation: outputs ``N(w; x_i)``, loss ``f(w) = mean_i l(N(w; x_i), y_i)`` with l convex in the outputs, and the tangent model
``N^lin_w(v; x) = N(w; x) + <grad N(w; x), v - w>``. Four facts, each with its proof; nothing about the architecture is assumed.

* **U1.** ``<grad f(w), w - v> >= f(w) - h(v; w)``, ``h(v; w) = mean l(N^lin_w(v; x_i), y_i)``. *Proof.* The left side is
  ``mean <l'(N_i), N_i - N^lin_i>``, and convexity gives ``<l'(a), a - b> >= l(a) - l(b)``. One forward-mode derivative along ``v - w``
  yields all three numbers.
* **U2.** For the logistic loss and a unit vector V with ``y_i <grad N(w; x_i), V> >= gamma``:
  ``||grad f(w)|| >= <-grad f, V> = mean p_i y_i <grad N_i, V> >= gamma mean p_i``, which is PPL(mean p, 0, 1, 2 gamma). With slack:
  ``mean p_i m_i >= gamma (mean p_i - xi)``, ``xi = mean (1 - m_i / gamma)_+``. Cross-entropy: the same with class margins
  ``<grad(N_y - N_c), V>`` and ``1 - p_y`` for p (see `losses`). Needs ``l' <= 0`` in the margin.
* **U3.** Squared loss, ``f = ||r||^2 / (2n)``: ``||grad f||^2 = r' K r / n^2 >= (2 lambda_min(K) / n) f``: PPL(f, 0, 2, 4 lambda_min / n).
* **T7** along any recorded run bounds ``sum eta_t (f(w_t) - h(v; w_t))`` with no constant at all (`Tangent.ledger`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from ..core.errors import InvalidInputError
from . import losses, tangent_kernels
from .tangent_margin import TangentMargin, least_eigenvalue, tangent_margin


@dataclass(frozen=True)
class TangentProxies:
    """U1 at one point: ``inner >= loss - comparator_loss``.

    Attributes:
        loss: ``g = f(w)``.
        comparator_loss: ``h(v; w)``, the loss of the tangent model at w evaluated at v.
        inner: ``<grad f(w), w - v>``.
    """

    loss: float
    comparator_loss: float
    inner: float

    @property
    def slack(self) -> float:
        """``inner - (loss - comparator_loss)``, non-negative by U1 up to rounding."""
        return self.inner - self.loss + self.comparator_loss


@dataclass(frozen=True, eq=False)
class TangentLedger:
    """U1 added up along a run, against the identity T7. A statement about this run only (evidence ON_TRACE).

    Attributes:
        g: ``f(w_t)``, shape (T,).
        h: ``h(v; w_t)``, shape (T,).
        inner: ``<d_t, w_t - v>``, ``d_t`` the direction that was stepped along, shape (T,).
        eta: step sizes, shape (T,).
        start: ``||w_0 - v||^2``.
        end: ``||w_T - v||^2``.
        moved: ``eta_t^2 ||d_t||^2``, shape (T,).
        gradient: whether the recorded steps are gradient steps, up to rounding.
    """

    g: Float[np.ndarray, " T"]
    h: Float[np.ndarray, " T"]
    inner: Float[np.ndarray, " T"]
    eta: Float[np.ndarray, " T"]
    start: float
    end: float
    moved: Float[np.ndarray, " T"]
    gradient: bool

    @property
    def residual(self) -> float:
        """T7's left side minus its right side, relative to the sum of absolute terms: rounding, on any real run."""
        left, right = self.eta @ self.inner, (self.start - self.end) / 2 + self.moved.sum() / 2
        size = np.abs(self.eta * self.inner).sum() + (self.start + self.end) / 2 + self.moved.sum() / 2
        return float(abs(left - right) / max(size, np.finfo(float).tiny))

    @property
    def spent(self) -> float:
        """``sum eta_t (g_t - h_t)``."""
        return float(self.eta @ (self.g - self.h))

    @property
    def budget(self) -> float:
        """``(||w_0-v||^2 - ||w_T-v||^2)/2 + (1/2) sum eta^2 ||d||^2``: for gradient steps, at least `spent`."""
        return (self.start - self.end) / 2 + float(self.moved.sum()) / 2

    @property
    def average_loss_bound(self) -> float:
        """What the ledger proves about the average of f over this run, weighted by the steps: ``mean h + budget / sum eta``."""
        return float((self.eta @ self.h + self.budget) / self.eta.sum())

    @property
    def average_loss(self) -> float:
        """The average of f over this run, weighted by the steps."""
        return float(self.eta @ self.g / self.eta.sum())

    def __repr__(self) -> str:
        return (
            f"<TangentLedger of {len(self.eta):,} steps: on this run the average loss is {self.average_loss:.6g}, and the ledger "
            f"bounds it by {self.average_loss_bound:.6g} (comparator {float(self.eta @ self.h / self.eta.sum()):.6g}); T7 holds to "
            f"{self.residual:.1g}>"
        )


class Tangent:
    """The tangent proxies of any JAX model on given data.

    Args:
        apply: ``(params, x) -> outputs`` of shape (n,), or (n, C) for cross-entropy; each output depends on its own row.
        params: a pytree of arrays (a dict, an Equinox module, Flax variables); leaves that are not floating-point arrays stay fixed.
        x: inputs, first axis of length n.
        y: targets, shape (n,): -1 and +1 (logistic), class numbers 0..C-1 (cross-entropy), numbers (squared).
        loss: ``"logistic"``, ``"squared"`` (``(q - y)^2 / 2``) or ``"cross-entropy"``.
        memory: bytes that rows of the Jacobian may take at one time; at least four rows.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, -1.0])
        >>> model = Tangent(lambda p, x: jnp.tanh(x @ p["w"]), {"w": np.zeros(2)}, x, y, loss="logistic")
        >>> model.proxies(model.params, {"w": np.array([1.0, -1.0])}).slack >= 0
        True
    """

    def __init__(
        self,
        apply: Callable[[Any, Any], Any],
        params: Any,
        x: Any,
        y: Any,
        *,
        loss: str = "logistic",
        memory: int = tangent_kernels.MEMORY,
    ) -> None:
        self.loss = losses.check_loss(loss)
        self.params, self.memory = params, memory
        dynamic, static = eqx.partition(params, eqx.is_inexact_array_like)
        with jax.enable_x64(True):
            flat, unravel = ravel_pytree(
                jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), dynamic)
            )
            self._x, self._y = jnp.asarray(np.asarray(x)), jnp.asarray(np.asarray(y, np.float64))
            self._flat = np.asarray(flat)
            if not self._flat.size:
                raise InvalidInputError("params", params, "a pytree with at least one floating-point array")
            self._unravel = lambda w: eqx.combine(unravel(w), static)
            self._structure = jax.tree.structure(dynamic)
            self._apply = lambda w, rows: apply(self._unravel(w), rows)
            shape = np.shape(jax.eval_shape(self._apply, flat, self._x))
        n = self._x.shape[0]
        wanted = len(shape) == (2 if loss == "cross-entropy" else 1)
        if not wanted or shape[0] != n or self._y.shape != (n,):
            raise InvalidInputError(
                "apply", f"outputs of shape {shape} for targets of shape {self._y.shape}",
                f"outputs of shape ({n}, classes)" if loss == "cross-entropy" else f"outputs of shape ({n},)",
                "Reshape inside apply, for example model.apply(params, x)[:, 0].",
            )  # fmt: skip
        self._check_targets(shape)

    def _check_targets(self, shape: tuple[int, ...]) -> None:
        y = np.asarray(self._y)
        ok = {
            "logistic": np.isin(y, (-1.0, 1.0)).all(),
            "squared": np.isfinite(y).all(),
            "cross-entropy": np.isin(y, np.arange(shape[-1])).all(),
        }[self.loss]
        if not ok:
            accepted = {
                "logistic": "-1 and +1",
                "squared": "finite numbers",
                "cross-entropy": f"class numbers 0 to {shape[-1] - 1}",
            }
            raise InvalidInputError("y", np.unique(y)[:5].tolist(), accepted[self.loss])

    # --- U1 ----------------------------------------------------------------------------------------------------

    def flatten(self, params: Any) -> Float[np.ndarray, " p"]:
        """Parameters (a pytree like ``params``, or already a flat vector) as one float64 vector."""
        if isinstance(params, np.ndarray | jax.Array) and np.shape(params) == self._flat.shape:
            return np.asarray(params, np.float64)
        dynamic, _ = eqx.partition(params, eqx.is_inexact_array_like)
        if jax.tree.structure(dynamic) != self._structure:
            raise InvalidInputError("params", jax.tree.structure(dynamic), f"the structure {self._structure}")
        leaves = [np.asarray(a, np.float64).reshape(-1) for a in jax.tree.leaves(dynamic)]
        flat = np.concatenate(leaves)
        if flat.shape != self._flat.shape:
            raise InvalidInputError("params", flat.shape, f"{self._flat.size} parameters in all")
        return flat

    @cached_property
    def _push(self) -> Callable[..., Any]:
        @jax.jit
        def push(w: Any, v: Any) -> tuple[Any, Any, Any]:
            q, change = jax.jvp(lambda u: self._apply(u, self._x), (w,), (v - w,))
            slope = losses.derivative(self.loss, q, self._y)
            return (
                jnp.mean(losses.value(self.loss, q, self._y)),
                jnp.mean(losses.value(self.loss, q + change, self._y)),
                -jnp.sum(slope * change) / q.shape[0],
            )

        return push

    def proxies(self, w: Any, v: Any) -> TangentProxies:
        """U1 at ``w`` against the comparator ``v``, from one forward-mode derivative.

        Args:
            w: parameters.
            v: comparator.
        """
        with jax.enable_x64(True):
            return TangentProxies(*(float(a) for a in self._push(self.flatten(w), self.flatten(v))))

    @cached_property
    def _value_and_grad(self) -> Callable[..., Any]:
        return jax.jit(
            jax.value_and_grad(lambda w: jnp.mean(losses.value(self.loss, self._apply(w, self._x), self._y)))
        )

    def gradient(self, w: Any) -> tuple[float, Float[np.ndarray, " p"]]:
        """``f(w)`` and its gradient as a flat vector."""
        with jax.enable_x64(True):
            value, grad = self._value_and_grad(self.flatten(w))
            return float(value), np.asarray(grad)

    def outputs(self, w: Any) -> np.ndarray:
        """``N(w; x_i)``."""
        with jax.enable_x64(True):
            return np.asarray(self._apply(jnp.asarray(self.flatten(w)), self._x))

    # --- U2 and U3 -----------------------------------------------------------------------------------------------

    def gram(
        self,
        w: Any,
        weights: np.ndarray | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float[np.ndarray, "n n"]:
        """Gram matrix of the tangent features at ``w``, in blocks that fit the memory limit.

        Args:
            w: parameters.
            weights: which combination of outputs to differentiate, shape (n, C).
            progress: called after every piece of rows with the entries of the matrix that are done and their number.
        """
        return tangent_kernels.blockwise(
            lambda p, x: self._apply(p, x), self.flatten(w), self._x, weights, self.memory, progress
        )

    def margin(self, w: Any, penalty: float | None = None) -> TangentMargin:
        """U2 at ``w``: a direction with certified margins, for the Gram matrix as computed.

        Args:
            w: parameters.
            penalty: of the squared slack (soft margin); None for the hard margin.
        """
        if self.loss != "logistic":
            raise InvalidInputError(
                "loss",
                self.loss,
                "logistic",
                "Squared loss: kernel_floor. Several classes: class_margins of a direction.",
            )
        return tangent_margin(self.gram(w), np.asarray(self._y), penalty)

    def class_margins(self, w: Any, direction: Any) -> np.ndarray:
        """Margins ``y_i <grad N, V>`` or ``<grad (N_y - N_c), V>`` of a direction, divided by its norm.

        Args:
            w: parameters.
            direction: V, like the parameters; infinite entries mark the row's own class.
        """
        vector = self.flatten(direction)
        with jax.enable_x64(True):
            _, change = jax.jvp(
                lambda u: self._apply(u, self._x), (jnp.asarray(self.flatten(w)),), (jnp.asarray(vector),)
            )
        return losses.tangent_margins(
            self.loss, np.asarray(change) / np.linalg.norm(vector), np.asarray(self._y)
        )

    def kernel_floor(self, w: Any) -> float:
        """U3 at ``w``: a lower bound on ``lambda_min`` of the tangent kernel, proved for the Gram matrix as computed."""
        return least_eigenvalue(self.gram(w))

    # --- T7 along a run ------------------------------------------------------------------------------------------

    def tangent_solution(self, w: Any, weight: float, iterations: int = 200) -> Float[np.ndarray, " p"]:
        """The comparator ``argmin_v h(v; w) + weight ||v - w||^2`` (L-BFGS in the tangent space; any v is valid).

        Args:
            w: where to linearise.
            weight: ``1 / (2 eta T)`` minimises what T4 promises; ``> 0``.
            iterations: at most this many.
        """
        from scipy.optimize import minimize

        if not weight > 0:
            raise InvalidInputError("weight", weight, "a number > 0")
        base = self.flatten(w)

        @jax.jit
        def objective(d: Any, base: Any) -> Any:
            q, change = jax.jvp(partial(self._apply, rows=self._x), (base,), (d,))
            return jnp.mean(losses.value(self.loss, q + change, self._y)) + weight * jnp.vdot(d, d)

        with jax.enable_x64(True):
            both = jax.jit(jax.value_and_grad(objective))
            result = minimize(
                lambda d: tuple(np.asarray(a) for a in both(jnp.asarray(d), jnp.asarray(base))),
                np.zeros_like(base), jac=True, method="L-BFGS-B", options={"maxiter": iterations},
            )  # fmt: skip
        return base + result.x

    def ledger(
        self, iterates: Sequence[Any], eta: float | Sequence[float], comparator: Any = "average"
    ) -> TangentLedger:
        """Add U1 up along a recorded run and set it against T7.

        Args:
            iterates: ``w_0 .. w_T`` (T >= 1 steps), each like ``params``.
            eta: the step sizes, one number or T of them; the directions are ``d_t = (w_t - w_{t+1}) / eta_t``.
            comparator: ``"average"`` (of the iterates), ``"last"`` (the trained parameters), ``"tangent"`` (the tangent solution
                at ``w_0``), or parameters.

        Returns:
            The ledger. Its bound holds for gradient steps, which `TangentLedger.gradient` checks.
        """
        points = [self.flatten(w) for w in iterates]
        if len(points) < 2:
            raise InvalidInputError("iterates", len(points), "at least two: w_0 and w_1")
        steps = np.broadcast_to(np.asarray(eta, float), (len(points) - 1,)).copy()
        if not (np.isfinite(steps).all() and (steps > 0).all()):
            raise InvalidInputError("eta", eta, "positive step sizes")
        v = self._comparator(comparator, points, float(steps.sum()))
        rows, exact = [], True
        for w, after, size in zip(points, points[1:], steps, strict=False):
            proxies, d = self.proxies(w, v), (w - after) / size
            _, grad = self.gradient(w)
            room = 1e-9 * np.linalg.norm(grad) + 1e-12 * np.linalg.norm(w) / size
            exact = exact and bool(np.linalg.norm(d - grad) <= room)
            rows.append(
                (proxies.loss, proxies.comparator_loss, float(d @ (w - v)), size * size * float(d @ d))
            )
        g, h, inner, moved = (np.array(c) for c in zip(*rows, strict=True))
        start, end = (float(np.sum((points[k] - v) ** 2)) for k in (0, -1))
        return TangentLedger(g, h, inner, steps, start, end, moved, exact)

    def _comparator(self, comparator: Any, points: list[np.ndarray], total: float) -> np.ndarray:
        if isinstance(comparator, str):
            if comparator not in ("average", "last", "tangent"):
                raise InvalidInputError(
                    "comparator", comparator, "'average', 'last', 'tangent' or parameters"
                )
            if comparator == "tangent":
                return self.tangent_solution(points[0], 1 / (2 * total))
            return points[-1] if comparator == "last" else np.mean(points, axis=0)
        return self.flatten(comparator)
