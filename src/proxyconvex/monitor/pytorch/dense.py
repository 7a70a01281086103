"""Plain chains of dense layers, evaluated layer by layer: the tangent loss and the norms of row gradients from one forward pass.

For ``x_{l+1} = phi(x_l W_l^T + b_l)`` the derivative in a direction costs one product ``x_l dW_l^T`` a layer beside the forward pass; for
elementwise ``phi`` the Jacobian is diagonal, so one derivative serves tangents and gradients. With ``delta_i`` the derivative of row i's
loss in row i of ``x_l W_l^T`` the gradient of rows S with respect to ``W_l`` is ``sum_{i in S} delta_i x_i^T``, and

    ||sum_i delta_i x_i^T||^2 = sum_ij <x_i, x_j> <delta_i, delta_j> ,

which needs no gradient, and for a single row is ``||x_i||^2 ||delta_i||^2``. All of it is what the general evaluation (`Functional`) returns, to
rounding; it is used only where `chain` has read off the modules that the model is such a chain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
import torch.nn.modules.module as module_hooks
from torch import Tensor, nn

from .functional import Functional, plain_forward, split_batch
from .proxies import IGNORE

# Relative gap of two float32 computations of the same gradient, inner product or loss.
SAME = 1e-4

# Modules that act on each entry by itself, without parameters and without chance.
_ELEMENTWISE = frozenset(
    (
        nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Tanh,
        nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink,
    )
)  # fmt: skip
_TYPES = (torch.float32, torch.float64)
_LINEAR = (["weight", "bias"], ["bias", "weight"])


def chain(model: Functional, inputs: Any) -> Chain | None:
    """The model as a chain on this batch, or None if that cannot be read off its modules as they are now.

    Required are: nested `nn.Sequential` of `nn.Linear`, elementwise activations, `nn.Flatten`, `nn.Identity` and switched-off dropout, of
    exactly these types and without hooks; every trained parameter used once; one dense real floating type; no autocast.
    """
    if isinstance(inputs, (tuple, list)) and len(inputs) == 1:
        inputs = inputs[0]
    if type(inputs) is not Tensor or inputs.dim() < 2 or model.forward is not plain_forward:
        return None
    if inputs.layout is not torch.strided or torch.is_autocast_enabled(inputs.device.type):
        return None
    if hooked_everywhere():
        return None
    layers = layers_of(model.model)
    if layers is None:
        return None
    place = {id(p): i for i, p in enumerate(model.params)}
    used = [p for m in layers if type(m) is nn.Linear for p in m._parameters.values() if p is not None]
    trained = [id(p) for p in used if id(p) in place]
    same = all(_alike(p, inputs) for p in used)
    if not same or sorted(trained) != sorted(place):
        return None
    # A linear layer takes one row for each input: not the entries of a sequence, not images.
    first = next(m for m in layers if type(m) in (nn.Linear, nn.Flatten))
    return Chain(model, layers, place, inputs) if type(first) is nn.Flatten or inputs.dim() == 2 else None


def hooked_everywhere() -> bool:
    """Whether there are hooks on the calls of all modules."""
    m = module_hooks
    return bool(
        m._global_forward_hooks or m._global_forward_pre_hooks
        or m._global_backward_hooks or m._global_backward_pre_hooks
    )  # fmt: skip


def layers_of(module: nn.Module) -> list[nn.Module] | None:
    """The layers in order, without those that do nothing; None for anything else than such a chain."""
    kind = type(module)
    if not _is_bare(module):
        return None
    if kind is nn.Sequential:
        inside = [layers_of(m) for m in module._modules.values()]
        return None if any(x is None for x in inside) else list(itertools.chain(*inside))  # type: ignore[arg-type]
    if module._modules or module._buffers:
        return None
    if kind is nn.Identity or (kind is nn.Dropout and (not module.training or module.p == 0)):
        return []
    if kind is nn.Linear:
        own = module._parameters
        return [module] if list(own) in _LINEAR and own["weight"] is not None else None
    if kind is nn.Flatten:
        return [module] if (module.start_dim, module.end_dim) == (1, -1) else None
    return [module] if kind in _ELEMENTWISE and not module._parameters else None


def _is_bare(module: nn.Module) -> bool:
    """Whether calling it does what its class says."""
    own = vars(module)
    hooked = (
        own["_forward_hooks"] or own["_forward_pre_hooks"]
        or own["_backward_hooks"] or own["_backward_pre_hooks"]
    )  # fmt: skip
    return not hooked and "forward" not in own


def _alike(p: Tensor, x: Tensor) -> bool:
    # A parameter that is sharded, quantised or otherwise special is of a type of its own.
    dense = type(p) is nn.Parameter and p.layout is torch.strided and p.dtype in _TYPES
    return dense and p.dtype == x.dtype and p.device == x.device


@final
class Chain:
    """A chain on one batch at the current weights; see `chain`.

    Args:
        model: of whose parameters `direction` below speaks.
        layers: linear layers, activations, flattening, in order.
        place: position of a trained parameter, by identity.
        given: the batch, shape [n, ...].

    Attributes:
        x: the batch, without its graph.
        kept: of the forward pass, for each layer: the input of a linear one, the derivative of an activation, the shape to flatten.
        out: outputs [n, c], None before the forward pass.
    """

    def __init__(
        self, model: Functional, layers: list[nn.Module], place: dict[int, int], given: Tensor
    ) -> None:
        self.model, self.layers, self.given, self.x = model, layers, given, given.detach()
        # Positions of weight and bias; None if frozen or absent.
        self.places = [
            (place.get(id(m.weight)), place.get(id(m.bias))) if type(m) is nn.Linear else (None, None)
            for m in layers
        ]
        self.kept: list[Any] = []
        self.out: Tensor | None = None
        # Of the one loss that a batch comes with.
        self._loss: tuple[Tensor, Tensor] | None = None
        self._mean: bool | None = None

    def weights(self) -> list[Tensor]:
        """As `Functional.weights`."""
        return self.model.weights()

    def forward(self) -> Tensor:
        """Outputs [n, c], computed once."""
        if self.out is not None:
            return self.out
        x, kept = self.x, []
        with torch.no_grad():
            for m in self.layers:
                if type(m) is nn.Linear:
                    kept.append(x)
                    x = nn.functional.linear(x, m.weight, m.bias)
                elif type(m) is nn.Flatten:
                    kept.append(x.shape)
                    x = x.flatten(1)
                else:
                    x, slope = activate(m, x)
                    kept.append(slope)
        self.kept, self.out = kept, x
        return x

    def jvp(self, inputs: Any, direction: list[Tensor]) -> tuple[Tensor, Tensor]:
        """As `Functional.jvp`, for the batch of this chain."""
        return self._jvp(lambda i, p: direction[i])

    def towards(self, inputs: Any, v: list[Tensor]) -> tuple[Tensor, Tensor]:
        """As `Functional.towards`, for the batch of this chain; layer by layer, so that no whole direction is held."""
        return self._jvp(lambda i, p: self.model.difference(v[i], p, shared=p.dim() > 1))

    def _jvp(self, direction: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """``direction`` gives that of a parameter by its position and value; that of a weight is used before the next is asked for."""
        out = self.forward()
        t: Tensor | None = None
        with torch.no_grad():
            for m, kept, (i, j) in zip(self.layers, self.kept, self.places, strict=True):
                if type(m) is not nn.Linear:
                    if t is not None:
                        t = t.flatten(1) if type(m) is nn.Flatten else t.mul_(kept)
                    continue
                shift = None if j is None else direction(j, m.bias)
                before = None if t is None else t @ m.weight.t()
                if i is not None:
                    t = nn.functional.linear(kept, direction(i, m.weight), shift)
                    t = t if before is None else t.add_(before)
                elif before is not None:
                    t = before if shift is None else before.add_(shift)
                else:
                    t = None if shift is None else shift.expand(len(kept), -1).clone()
        return out, torch.zeros_like(out) if t is None else t

    def derivative(
        self, out: Tensor, targets: Any, loss_fn: Callable[[Tensor, Any], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """As `Functional.derivative`, computed once."""
        if self._loss is None:
            if self._is_mean(targets, loss_fn) and is_class_entropy(loss_fn, targets):
                self._loss = class_entropy(out, targets)
            else:
                self._loss = self.model.derivative(out, targets, loss_fn)
        return self._loss

    def _is_mean(self, targets: Any, loss_fn: Callable[[Tensor, Any], Tensor]) -> bool:
        if self._mean is None:
            self._mean = is_mean_over_rows(loss_fn, self.forward(), targets)
        return self._mean

    def rows(self, targets: Any, loss_fn: Callable[[Tensor, Any], Tensor]) -> Rows | None:
        """The gradients of single rows, or None unless the loss is read off to be the mean of theirs."""
        out = self.forward()
        if len(out) < 2 or not self._is_mean(targets, loss_fn):
            return None
        delta = self.derivative(out, targets, loss_fn)[1]
        return Rows(list(self._deltas(delta)), self.x, len(out))

    def halves(self, targets: Any, loss_fn: Callable[[Tensor, Any], Tensor]) -> tuple[float, float]:
        """``||g_1 + g_2||^2`` and ``||g_1||^2 + ||g_2||^2`` for the two halves; with an odd number of rows the last one is left out."""
        out = self.forward()
        n = len(out) // 2
        with torch.enable_grad():
            leaf = out[: 2 * n].detach().requires_grad_()
            first, second = (loss_fn(leaf[k : k + n], split_batch(targets, k, k + n)) for k in (0, n))
            (delta,) = torch.autograd.grad(first + second, leaf)
        total, each = 0.0, 0.0
        for x, d, weight, bias in self._deltas(delta):
            total += square(x, d, weight, bias)
            each += sum(square(x[k : k + n], d[k : k + n], weight, bias) for k in (0, n))
        return total, each

    def _deltas(self, delta: Tensor) -> Iterator[tuple[Tensor, Tensor, bool, bool]]:
        """Of each linear layer, last to first: its input, the derivative in its output, whether weight and bias are trained."""
        rows = len(delta)
        first = next(k for k, places in enumerate(self.places) if places != (None, None))
        with torch.no_grad():
            for k in range(len(self.layers) - 1, first - 1, -1):
                m, kept, (i, j) = self.layers[k], self.kept[k], self.places[k]
                if type(m) is nn.Flatten:
                    delta = delta.reshape(rows, *kept[1:])
                elif type(m) is not nn.Linear:
                    delta = delta * kept[:rows]
                else:
                    yield kept[:rows], delta, i is not None, j is not None
                    if k > first:
                        delta = delta @ m.weight


@final
class Rows:
    """The gradients ``g_i`` of the rows of a batch, whose mean is that of the batch, by what is needed for their norms.

    Attributes:
        count: number of rows n.
        squares: tensors that add up to ``sum_i ||g_i||^2 / n^2``.
    """

    def __init__(self, deltas: list[tuple[Tensor, Tensor, bool, bool]], x: Tensor, count: int) -> None:
        self.deltas, self.count = deltas, count
        self._x, self._version = x, x._version
        self.squares: list[Tensor] = []
        with torch.no_grad():
            for x, delta, weight, bias in deltas:
                size = torch.linalg.vector_norm(delta, dim=1)
                if bias:
                    self.squares.append(torch.dot(size, size))
                if weight:
                    size = size * torch.linalg.vector_norm(x, dim=1)
                    self.squares.append(torch.dot(size, size))

    def total(self) -> float | None:
        """``||sum_i g_i||^2``; None if the batch has been written to in the meantime."""
        if self._x._version != self._version:
            return None
        return self.count**2 * sum(square(*d) for d in self.deltas)


def is_known(loss_fn: Any) -> bool:
    """Whether a loss is one of torch's own means, without weights: nothing that draws random numbers or remembers anything."""
    kind = type(loss_fn)
    if kind in (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss):
        weights = (getattr(loss_fn, "weight", None), getattr(loss_fn, "pos_weight", None))
        return _is_bare(loss_fn) and loss_fn.reduction == "mean" and weights == (None, None)
    f = nn.functional
    return loss_fn in (f.cross_entropy, f.mse_loss, f.binary_cross_entropy_with_logits)


def is_mean_over_rows(loss_fn: Any, out: Tensor, targets: Any) -> bool:
    """Whether a loss is known to be the mean of the losses of the single rows, here; False if it cannot be told."""
    if not is_known(loss_fn) or type(targets) is not Tensor or out.dim() != 2:
        return False
    entropy = loss_fn is nn.functional.cross_entropy or type(loss_fn) is nn.CrossEntropyLoss
    if entropy and targets.dim() == 1 and not targets.is_floating_point():
        # A row that is left out would make the others weigh more.
        left_out = getattr(loss_fn, "ignore_index", IGNORE)
        if len(targets) != len(out):
            return False
        # Classes are not negative: seldom more than their minimum is needed.
        return (left_out < 0 and int(targets.min()) >= 0) or not bool((targets == left_out).any())
    return targets.shape == out.shape


def is_class_entropy(loss_fn: Any, targets: Tensor) -> bool:
    """Whether a loss that `is_mean_over_rows` is the cross-entropy of logits and one class for each row, nothing smoothed."""
    entropy = loss_fn is nn.functional.cross_entropy or type(loss_fn) is nn.CrossEntropyLoss
    plain = targets.dim() == 1 and targets.dtype == torch.int64
    return entropy and plain and getattr(loss_fn, "label_smoothing", 0.0) == 0.0


def class_entropy(out: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of logits [n, c] at classes [n], and its derivative ``(softmax - 1[class]) / n``."""
    with torch.no_grad():
        log_shares = torch.log_softmax(out, 1)
        value = nn.functional.nll_loss(log_shares, targets)
        derivative = log_shares.exp_()
        derivative.scatter_(1, targets.unsqueeze(1), -1.0, reduce="add")
        return value, derivative.div_(len(out))


def activate(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value and derivative, entry by entry; at a kink the derivative that automatic differentiation takes."""
    kind = type(m)
    if kind is nn.ReLU:
        y = torch.relu(x)
        # Several times faster than by way of booleans.
        return y, y.sign()
    if kind is nn.Tanh:
        y = torch.tanh(x)
        return y, 1 - y * y
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        y = m.forward(z.clone() if getattr(m, "inplace", False) else z)
        (slope,) = torch.autograd.grad(y, z, torch.ones_like(y))
    return y.detach(), slope


def square(x: Tensor, delta: Tensor, weight: bool = True, bias: bool = False) -> float:
    """``||sum_i delta_i x_i^T||^2`` and ``||sum_i delta_i||^2`` of a layer's weight and bias, added.

    From the rows' own products where that takes fewer operations, unless their sum cancels so far that rounding could be seen: each is
    off by a small multiple of ``eps |x_i| |x_j| |delta_i| |delta_j|``, together of ``eps (sum_i |x_i| |delta_i|)^2``.

    Args:
        x: shape [n, d].
        delta: shape [n, h].
        weight: whether the weight counts.
        bias: whether the bias counts.
    """
    with torch.no_grad():
        found = _square_of_weight(x, delta) if weight else 0.0
        if bias:
            shift = delta.sum(0)
            found += float(torch.dot(shift, shift))
    return found


def _square_of_weight(x: Tensor, delta: Tensor) -> float:
    (n, d), h = x.shape, delta.shape[1]
    if n * (d + h) < d * h:
        table = (x @ x.t()) * (delta @ delta.t())
        total, size = (
            float(table.sum(dtype=torch.float64)),
            float(table.diagonal().clamp_min(0.0).sqrt().sum()),
        )
        if torch.finfo(x.dtype).eps * size * size <= SAME * total:
            return total
    gradient = (delta.t() @ x).reshape(-1)
    return float(torch.dot(gradient, gradient))
