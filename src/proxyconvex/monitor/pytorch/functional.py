"""Evaluate a model beside its training: outputs, derivatives and gradients that leave no trace in it.

Parameters are passed as fresh leaves that share memory with the model's, so no hook of the user's fires and no ``.grad`` is
touched; buffers are copies, so BatchNorm's statistics stay; the state of the random generators is put back, so dropout in the
training that follows draws what it would have drawn.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .comparators import clean, unwrap
from .first_layers import Gradients, Outputs, Tangents

Forward = Callable[[Callable[..., Any], Any], Tensor]


def plain_forward(model: Callable[..., Any], inputs: Any) -> Tensor:
    """Call with a tuple's, a mapping's or the single input."""
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


@contextlib.contextmanager
def untouched_random_state(device: torch.device) -> Iterator[None]:
    """Put back the generators of the CPU and of the model's device."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The states of the generators of the CPU and of the model's device."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Inverse of `random_state`."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


@contextlib.contextmanager
def _differentiable_kernels(recurrent: bool) -> Iterator[None]:
    """Kernels that have a forward derivative: not oneDNN's LSTM, not fused attention or fused encoder layers."""
    fast = torch.backends.mha.get_fastpath_enabled()
    dnn = torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    if recurrent:
        torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=not recurrent):
            yield
    finally:
        torch._C._set_mkldnn_enabled(dnn)
        torch.backends.mha.set_fastpath_enabled(fast)


@final
class Functional:
    """A model as a function of its trained parameters.

    Args:
        model: any module; compiled and DDP models are evaluated through the module inside.
        names: clean names of the trained parameters, in the order of every list of tensors below.
        forward: how to call it: ``forward(model, inputs) -> outputs``.

    Attributes:
        first: outputs of first layers, remembered by `jvp` for `gradient`; clear it before the weights or the batch change.
    """

    def __init__(self, model: nn.Module, names: list[str], forward: Forward | None = None) -> None:
        self.model = unwrap(model)
        real = {clean(n): n for n, _ in self.model.named_parameters()}
        self.names = [real[n] for n in names]
        self.forward = forward or plain_forward
        own = dict(self.model.named_parameters())
        self.params = [own[n] for n in self.names]
        # oneDNN and cuDNN have no forward derivative for their LSTM; everything else keeps its kernel.
        self.recurrent = any(isinstance(m, nn.RNNBase) for m in self.model.modules())
        self.device = self.params[0].device
        self.first = Outputs()
        self._space = torch.empty(0)

    def _call(self, parameters: list[Tensor], inputs: Any) -> Tensor:
        """The model at other parameters: they take the places of its own for as long as it runs, buffers are copies.

        What `torch.func.functional_call` does, at a third of its cost for a small model.
        """
        at = {id(p): q for p, q in zip(self.params, parameters, strict=True)}
        changed: list[tuple[dict[str, Any], str, Any]] = []
        try:
            for module in self.model.modules():
                for name, p in module._parameters.items():
                    if id(p) in at:
                        changed.append((module._parameters, name, p))
                for name, b in module._buffers.items():
                    if b is not None:
                        changed.append((module._buffers, name, b))
            copies: dict[int, Tensor] = {}
            for places, name, own in changed:
                if id(own) in at:
                    places[name] = at[id(own)]
                else:
                    copies.setdefault(id(own), own.detach().clone())
                    places[name] = copies[id(own)]
            return self.forward(self.model, inputs)
        finally:
            for places, name, own in changed:
                places[name] = own

    def weights(self) -> list[Tensor]:
        """The current weights, sharing memory."""
        return [p.detach() for p in self.params]

    def inner(self, a: list[Tensor], b: list[Tensor]) -> float:
        """See `inner`."""
        return inner(a, b)

    def jvp(self, inputs: Any, direction: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Outputs ``N(w)`` and the derivative ``D N(w)[direction]`` by forward differentiation."""
        _load_decompositions()
        with (
            untouched_random_state(self.device),
            _differentiable_kernels(self.recurrent),
            torch.no_grad(),
            forward_ad.dual_level(),
            Tangents(self.first),
        ):
            dual = [
                forward_ad.make_dual(
                    w, d if d.dtype == w.dtype and d.shape == w.shape else d.to(w.dtype).view_as(w)
                )
                for w, d in zip(self.weights(), direction, strict=True)
            ]
            out = forward_ad.unpack_dual(self._call(dual, inputs))
            tangent = torch.zeros_like(out.primal) if out.tangent is None else out.tangent
            return out.primal.clone(), tangent.clone()

    def towards(self, inputs: Any, v: list[Tensor]) -> tuple[Tensor, Tensor]:
        """`jvp` in the direction ``v - w`` to other weights."""
        direction = [self.difference(a, w, shared=False) for a, w in zip(v, self.weights(), strict=True)]
        return self.jvp(inputs, direction)

    def difference(self, v: Tensor, w: Tensor, shared: bool = True) -> Tensor:
        """``v - w`` in the type of w; ``shared``: in space that the next call uses again (fresh memory is slow to write to)."""
        if v.dtype != w.dtype:
            v = v.to(w.dtype)
        if not shared:
            return v - w
        if self._space.numel() < w.numel() or self._space.dtype != w.dtype or self._space.device != w.device:
            self._space = torch.empty(w.numel(), dtype=w.dtype, device=w.device)
        with torch.no_grad():
            return torch.sub(v, w, out=self._space[: w.numel()].view(w.shape))

    def derivative(
        self, out: Tensor, targets: Any, loss_fn: Callable[[Tensor, Any], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The loss of outputs, and its derivative in them."""
        with torch.enable_grad():
            leaf = out.detach().requires_grad_()
            value = loss_fn(leaf, targets)
            (derivative,) = torch.autograd.grad(value, leaf)
        return value.detach(), derivative

    def gradient(
        self, inputs: Any, targets: Any, loss_fn: Callable[[Tensor, Any], Tensor], random_state: Any = None
    ) -> tuple[float, list[Tensor]]:
        """Loss and gradient on a batch at the current weights; ``random_state`` fixes dropout's draws."""
        with untouched_random_state(self.device), torch.enable_grad(), Gradients(self.first):
            if random_state is not None:
                set_random_state(random_state, self.device)
            leaves = [w.requires_grad_() for w in self.weights()]
            loss = loss_fn(self._call(leaves, inputs), targets)
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
            return float(loss.detach()), [
                torch.zeros_like(w) if g is None else g.detach() for g, w in zip(grads, leaves, strict=True)
            ]

    def rows(self, inputs: Any, limit: int) -> tuple[Tensor, Tensor]:
        """Outputs [n, c] and the gradients of each output in evaluation mode, flattened to [n * c, p]; at most ``limit`` rows."""
        modes = {m: m.training for m in self.model.modules()}
        try:
            self.model.eval()
            with untouched_random_state(self.device), torch.enable_grad():
                leaves = [w.requires_grad_() for w in self.weights()]
                out = self._call(leaves, inputs)
                out = out.reshape(out.shape[0], -1)
                out = out[: max(1, limit // out.shape[1])]
                rows = []
                for y in out.reshape(-1):
                    grads = torch.autograd.grad(y, leaves, retain_graph=True, allow_unused=True)
                    rows.append(
                        torch.cat(
                            [
                                (torch.zeros_like(w) if g is None else g).reshape(-1).float()
                                for g, w in zip(grads, leaves, strict=True)
                            ]
                        )
                    )
                return out.detach(), torch.stack(rows)
        finally:
            for m, mode in modes.items():
                m.training = mode


@functools.cache
def _load_decompositions() -> None:
    """The first dual number makes torch load rules through its own deprecated `torch.jit.script`; its warning is not the user's."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


def split_batch(value: Any, start: int, stop: int) -> Any:
    """Rows ``start:stop`` of every tensor of a batch."""
    if isinstance(value, Tensor):
        return value[start:stop] if value.dim() else value
    if isinstance(value, Mapping):
        return {k: split_batch(v, start, stop) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(split_batch(v, start, stop) for v in value)
    return value


def rows_of(value: Any) -> int:
    """Number of rows of a batch: the length of its first tensor."""
    if isinstance(value, Tensor):
        return value.shape[0] if value.dim() else 0
    items = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    )
    return next((n for n in map(rows_of, items) if n), 0)


def inner(a: list[Tensor], b: list[Tensor]) -> float:
    """``<a, b>``, half precision widened, the tensors added in float64."""

    def wide(t: Tensor) -> Tensor:
        t = (torch.view_as_real(t) if t.is_complex() else t).reshape(-1)
        return t if t.dtype == torch.float64 else t.float()

    dots = [torch.dot(wide(x), wide(y)) for x, y in zip(a, b, strict=True)]
    return float(dots[0]) if len(dots) == 1 else float(sum(d.double() for d in dots))
