"""Plain chains of dense layers, evaluated layer by layer: the tangent loss and half-batch norms from one forward pass.

For ``x_{l+1} = phi(x_l W_l^T + b_l)`` the derivative in a direction costs one product ``x_l dW_l^T`` a layer beside the forward pass; for
elementwise ``phi`` the Jacobian is diagonal, so one derivative serves tangents and gradients. The gradient of a half batch with
respect to ``W_l`` is ``sum_i delta_i x_i^T`` over its rows i, ``delta_i`` the derivative of its loss in row i of ``x_l W_l^T``, so the
inner products of the halves' gradients are sums of blocks of

    P_ij = <x_i, x_j> <delta_i, delta_j> ,

which needs no gradient at all and fewer operations where the layer is larger than the batch. All of it is what the general evaluation
(`Functional`, `Halves`) returns, to rounding; it is used only where `chain` has read off the modules that the model is such a chain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
import torch.nn.modules.module as module_hooks
from torch import Tensor, nn

from .functional import Functional, plain_forward, split_batch
from .halves import SAME, record

# Modules that act on each entry by itself, without parameters and without chance.
_ELEMENTWISE = frozenset(
    (
        nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign, nn.Tanh,
        nn.Sigmoid, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink,
    )
)  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


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
    if any(getattr(module_hooks, name, None) for name in _GLOBAL):
        return None
    layers = _layers(model.model)
    if layers is None:
        return None
    place = {id(p): i for i, p in enumerate(model.params)}
    used = [p for m in layers if type(m) is nn.Linear for p in m._parameters.values() if p is not None]
    trained = [id(p) for p in used if id(p) in place]
    same = all(_alike(p, inputs) for p in used)
    if not same or sorted(trained) != sorted(place):
        return None
    return Chain(model, layers, place, inputs.detach())


def _layers(module: nn.Module) -> list[nn.Module] | None:
    """The layers in order, without those that do nothing; None for anything else than such a chain."""
    kind = type(module)
    if any(getattr(module, name, None) for name in _HOOKS) or "forward" in vars(module):
        return None
    if kind is nn.Sequential:
        inside = [_layers(m) for m in module]
        return None if any(x is None for x in inside) else list(itertools.chain(*inside))  # type: ignore[arg-type]
    if module._modules or module._buffers:
        return None
    if kind is nn.Identity or (kind is nn.Dropout and (not module.training or module.p == 0)):
        return []
    if kind is nn.Linear:
        whole = set(module._parameters) == {"weight", "bias"} and module._parameters["weight"] is not None
        return [module] if whole else None
    if kind is nn.Flatten:
        return [module] if (module.start_dim, module.end_dim) == (1, -1) else None
    return [module] if kind in _ELEMENTWISE and not module._parameters else None


def _alike(p: Tensor, x: Tensor) -> bool:
    dense = type(p.data) is Tensor and p.layout is torch.strided and p.dtype in (torch.float32, torch.float64)
    return dense and p.dtype == x.dtype and p.device == x.device


@final
class Chain:
    """A chain on one batch at the current weights; see `chain`.

    Args:
        model: of whose parameters `direction` below speaks.
        layers: linear layers, activations, flattening, in order.
        place: position of a trained parameter, by identity.
        x: the batch, shape [n, ...].
    """

    def __init__(self, model: Functional, layers: list[nn.Module], place: dict[int, int], x: Tensor) -> None:
        self.model, self.layers, self.x = model, layers, x
        # Positions of weight and bias; None if frozen or absent.
        self.places = [
            (place.get(id(m.weight)), place.get(id(m.bias))) if type(m) is nn.Linear else (None, None)
            for m in layers
        ]
        self.kept: list[Any] = []
        self.out: Tensor | None = None

    def weights(self) -> list[Tensor]:
        """As `Functional.weights`."""
        return self.model.weights()

    def forward(self) -> Tensor | None:
        """Outputs [n, c], computed once; None if a linear layer meets something else than one row for each input."""
        if self.out is not None:
            return self.out
        x, kept = self.x, []
        with torch.no_grad():
            for m in self.layers:
                if type(m) is nn.Linear:
                    if x.dim() != 2:
                        return None
                    kept.append(x)
                    x = nn.functional.linear(x, m.weight, m.bias)
                elif type(m) is nn.Flatten:
                    kept.append(x.shape)
                    x = x.flatten(1)
                else:
                    x, slope = _activate(m, x)
                    kept.append(slope)
        self.kept, self.out = kept, x
        return x

    def jvp(self, inputs: Any, direction: list[Tensor]) -> tuple[Tensor, Tensor]:
        """As `Functional.jvp`, for the batch of this chain."""
        out = self.forward()
        assert out is not None
        t: Tensor | None = None
        with torch.no_grad():
            for m, kept, (i, j) in zip(self.layers, self.kept, self.places, strict=True):
                if type(m) is not nn.Linear:
                    if t is not None:
                        t = t.flatten(1) if type(m) is nn.Flatten else t.mul_(kept)
                    continue
                shift = None if j is None else direction[j]
                before = None if t is None else t @ m.weight.t()
                if i is not None:
                    t = nn.functional.linear(kept, direction[i], shift)
                    t = t if before is None else t.add_(before)
                elif before is not None:
                    t = before if shift is None else before.add_(shift)
                else:
                    t = None if shift is None else shift.expand(len(kept), -1).clone()
        return out, torch.zeros_like(out) if t is None else t

    def halves(self, targets: Any, loss_fn: Callable[[Tensor, Any], Tensor]) -> dict[str, float]:
        """The record of two half-batch gradients, as `Halves.start` has it; with an odd number of rows the last one is left out."""
        out = self.forward()
        assert out is not None
        n = len(out) // 2
        if n < 1:
            return {}
        with torch.enable_grad():
            leaf = out[: 2 * n].detach().requires_grad_()
            first, second = (
                loss_fn(leaf[k : k + n], split_batch(targets, k, k + n)) for k in (0, n)
            )
            (delta,) = torch.autograd.grad(first + second, leaf)
        with torch.no_grad():
            sums = [s.tolist() for s in self._products(delta, n)]
        a, b, c = (sum(s[i][j] for s in sums) for i, j in ((0, 0), (0, 1), (1, 1)))
        return record(a + 2 * b + c, a + c, n)

    def _products(self, delta: Tensor, n: int) -> Iterator[Tensor]:
        """Inner products of the halves' gradients, shape [2, 2], for each parameter, from the last layer to the first."""
        first = next(k for k, places in enumerate(self.places) if places != (None, None))
        for k in range(len(self.layers) - 1, first - 1, -1):
            m, kept, (i, j) = self.layers[k], self.kept[k], self.places[k]
            if type(m) is nn.Flatten:
                delta = delta.reshape(len(delta), *kept[1:])
            elif type(m) is not nn.Linear:
                delta = delta * kept[: 2 * n]
            else:
                if i is not None:
                    yield products(kept[: 2 * n], delta, n)
                if j is not None:
                    yield _gram(delta.view(2, n, -1).sum(1))
                if k > first:
                    delta = delta @ m.weight


def _activate(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value and derivative, entry by entry; at a kink the derivative that automatic differentiation takes."""
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        y = m.forward(z.clone() if getattr(m, "inplace", False) else z)
        (slope,) = torch.autograd.grad(y, z, torch.ones_like(y))
    return y.detach(), slope


def products(x: Tensor, delta: Tensor, n: int) -> Tensor:
    """Inner products of ``G_k = sum_i delta_i x_i^T`` over the rows i of half k, shape [2, 2] in float64.

    From the rows' own products where that takes fewer operations, unless their sum cancels so far that rounding could be seen:
    each ``P_ij`` is off by a small multiple of ``eps |x_i| |x_j| |delta_i| |delta_j|``, together ``eps (sum_i |x_i| |delta_i|)^2``.

    Args:
        x: shape [2 n, d].
        delta: shape [2 n, h].
        n: rows of a half.
    """
    rows, d, h = 2 * n, x.shape[1], delta.shape[1]
    if rows * (d + h) < d * h:
        table = (x @ x.t()) * (delta @ delta.t())
        size = float(table.diagonal().clamp_min(0.0).sqrt().sum())
        found = table.view(2, n, 2, n).sum((1, 3), dtype=torch.float64)
        if torch.finfo(x.dtype).eps * size * size <= SAME * float(found.trace()):
            return found
    halves = delta.view(2, n, h).transpose(1, 2) @ x.view(2, n, d)
    return _gram(halves.view(2, -1))


def _gram(rows: Tensor) -> Tensor:
    """Products of two rows, each product a sum in the rows' type."""
    a, b = rows
    cross = torch.dot(a, b)
    return torch.stack([torch.dot(a, a), cross, cross, torch.dot(b, b)]).double().view(2, 2)
