"""Where a training loop is seen: optimizer steps, gradient scaling, clipping. Nothing stays patched after the last monitor.

Optimizer steps are seen through torch's own hooks. Two things have no hook: a `GradScaler` that skips the step (then the
optimizer is never called) and the norm before clipping (afterwards it is gone, and clipping has computed it anyway). For
these, `GradScaler.step`, and the functions inside `torch.nn.utils.clip_grad` (however they were imported) are wrapped while at
least one monitor is active; each wrapper calls the original with the arguments it was given and returns what that
returned. If a later version of torch renames them, what they would have told is recorded as not seen.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.nn.utils import clip_grad


class Listener(Protocol):
    """What a monitor is told."""

    def scaler_begins(self, optimizer: Any, scaler: Any) -> None:
        """A scaler is about to step an optimizer."""

    def scaler_ends(self, optimizer: Any, scaler: Any) -> None:
        """The scaler is done; no step of the optimizer in between means it was skipped."""

    def clipped(self, parameters: list[Any], norm: Any, maximum: float, kind: float) -> None:
        """The gradients of these parameters, of this total norm, were scaled down to a maximal norm."""

    def clipped_by_value(self, grads: list[Any]) -> None:
        """The entries of these gradients were bounded."""


_listeners: list[Listener] = []
_originals: list[tuple[Any, str, Any]] = []
_norms: dict[int, float] = {}
_depth: list[int] = []


def listen(listener: Listener) -> None:
    """Start telling a monitor."""
    if not _listeners:
        _wrap(torch.amp.grad_scaler.GradScaler, "step", _scaler_step)
        _wrap(clip_grad, "_get_total_norm", _total_norm)
        _wrap(clip_grad, "_clip_grads_with_norm_", _clip)
        _wrap(torch.nn.utils, "clip_grads_with_norm_", _clip)
        _wrap(clip_grad, "_group_tensors_by_device_and_dtype", _group)
    _listeners.append(listener)


def forget(listener: Listener) -> None:
    """Stop; the last one takes the wrappers away."""
    if listener in _listeners:
        _listeners.remove(listener)
    if not _listeners:
        while _originals:
            owner, name, original = _originals.pop()
            setattr(owner, name, original)


def _wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(owner, name, None)
    if original is not None:
        _originals.append((owner, name, original))
        setattr(owner, name, functools.wraps(original)(make(original)))


def _scaler_step(original: Any) -> Any:
    def step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        told = list(_listeners) if self.is_enabled() else []
        for listener in told:
            listener.scaler_begins(optimizer, self)
        out = original(self, optimizer, *args, **kwargs)
        for listener in told:
            listener.scaler_ends(optimizer, self)
        return out

    return step


def _total_norm(original: Any) -> Any:
    def total_norm(tensors: Any, norm_type: float = 2.0, *args: Any, **kwargs: Any) -> Any:
        with _inside_norm():
            out = original(tensors, norm_type, *args, **kwargs)
        _norms.clear()
        _norms[id(out)] = float(norm_type)
        return out

    return total_norm


def _clip(original: Any) -> Any:
    def clip(parameters: Any, max_norm: float, total_norm: Any, *args: Any, **kwargs: Any) -> Any:
        # `clip_grad_norm_` passes a list; a generator would be used up by looking at it.
        parameters = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        with _inside_norm():
            out = original(parameters, max_norm, total_norm, *args, **kwargs)
        for listener in list(_listeners):
            listener.clipped(
                parameters, total_norm, float(max_norm), _norms.get(id(total_norm), float("nan"))
            )
        return out

    return clip


@contextlib.contextmanager
def _inside_norm() -> Iterator[None]:
    _depth.append(1)
    try:
        yield
    finally:
        _depth.pop()


def _group(original: Any) -> Any:
    """`clip_grad_value_` groups its gradients by this; so do the two functions above, which say so."""

    def group(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        if not _depth:
            for listener in list(_listeners):
                listener.clipped_by_value([g for some in tensors for g in some])
        return original(tensors, *args, **kwargs)

    return group


def around_first(
    closure: Callable[[], Any], before: Callable[[], None], after: Callable[[Any], None]
) -> Callable[[], Any]:
    """A closure that calls ``before`` and ``after(value)`` around its first evaluation."""
    first = True

    def evaluate() -> Any:
        nonlocal first
        if not first:
            return closure()
        before()
        value = closure()
        first = False
        after(value)
        return value

    return evaluate


def with_closure(args: tuple[Any, ...], kwargs: dict[str, Any], closure: Any) -> tuple[Any, Any]:
    """The arguments of ``optimizer.step`` with another closure."""
    if len(args) > 1:
        return (args[0], closure, *args[2:]), kwargs
    return args, {**kwargs, "closure": closure}
