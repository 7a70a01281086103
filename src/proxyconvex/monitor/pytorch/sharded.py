"""A model sharded by ``fully_shard`` (FSDP2), for the time of a probe whole on every rank.

Each parameter is gathered and put in the place of its shard, fully_shard's own hooks and class are taken away, and the module is the
plain one it was before it was sharded: whatever evaluates a model beside its training evaluates it then, on this rank's rows. Afterwards every
place holds the very object that it held before. What the ranks find is combined where it is linear: losses and inner products are averaged,
gradients are added by one reduce-scatter for each parameter, and norms are formed from the shards of the sum.
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import probes
from .comparators import unwrap
from .dense import chain
from .functional import (
    Forward,
    Functional,
    inner,
    rows_of,
    split_batch,
    untouched_random_state,
)
from .halves import record
from .probing import BatchProbing
from .steps import Recorder
from .vector import local, shard_groups

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_FSDP = "torch.distributed.fsdp"


def _sharded_modules(model: nn.Module) -> list[Any]:
    """Those on which ``fully_shard`` was called."""
    if not (dist.is_available() and dist.is_initialized()):
        return []
    from torch.distributed.fsdp import FSDPModule

    return [m for m in unwrap(model).modules() if isinstance(m, FSDPModule)]


def at_rest(model: nn.Module) -> None:
    """Let go of parameters that a forward pass without a backward pass has left gathered: their shards are in place again."""
    for m in _sharded_modules(model):
        m.reshard()


def why_not(model: nn.Module) -> str | None:
    """Why a sharded model cannot be gathered so that it computes what the training computes; None if it can."""
    from torch.distributed.tensor import Replicate, Shard

    modules = _sharded_modules(model)
    if not modules:
        return "Its parameters were sharded by something else than fully_shard, which alone is known to compute what the whole model computes."
    if not all(any(map(_is_fsdp, m._forward_pre_hooks.values())) for m in modules):
        return f"torch {torch.__version__} keeps fully_shard's hooks elsewhere than version 2.13, for which this was written."
    for name, p in unwrap(model).named_parameters():
        if not hasattr(p, "device_mesh"):
            return f"The parameter {name} is not sharded (ignored_params), so each rank may have another."
        mesh, placements = p.device_mesh, p.placements
        if (
            mesh.ndim > 2
            or type(placements[-1]) is not Shard
            or not all(type(x) is Replicate for x in placements[:-1])
        ):
            return f"The parameter {name} is placed as {placements}: beside fully_shard, another kind of parallelism splits it."
        if mesh.size() != dist.get_world_size():
            return f"The parameter {name} lies on {mesh.size()} of {dist.get_world_size()} processes."
        if local(p).device.type != mesh.device_type:
            return f"The parameter {name} is kept on {local(p).device.type} (offloaded), not on {mesh.device_type}."
    if any(_wrapped_methods(m) and _rounding(m) for m in modules):
        return "It combines a MixedPrecisionPolicy with register_fsdp_forward_method."
    return None


def _is_fsdp(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith(_FSDP)


@final
class Gathered:
    """Makes a sharded model whole for a while.

    Args:
        model: after ``fully_shard``.
        recorder: of the run.
        forward: how to call the model.
    """

    def __init__(self, model: nn.Module, recorder: Recorder, forward: Forward | None) -> None:
        self.model, self.recorder, self.forward = unwrap(model), recorder, forward

    @functools.cached_property
    def _sharded(self) -> list[tuple[Any, _Rounding | None]]:
        return [(m, _rounding(m)) for m in _sharded_modules(self.model)]

    @functools.cached_property
    def _slots(self) -> list[tuple[dict[str, Any], str, Any]]:
        """Where the parameters are, and the sharded ones."""
        at_rest(self.model)
        places = [m._parameters for m in self.model.modules()]
        return [(named, n, p) for named in places for n, p in named.items() if p is not None]

    @contextlib.contextmanager
    def whole(self) -> Iterator[Functional]:
        """The model with whole parameters, alone on this rank. All ranks have to enter together.

        The gathered parameters are let go at the end.
        """
        with contextlib.ExitStack() as stack:
            full: dict[int, nn.Parameter] = {}
            for places, name, p in self._slots:
                if id(p) not in full:
                    full[id(p)] = nn.Parameter(_full(p), requires_grad=p.requires_grad)
                stack.callback(places.__setitem__, name, places[name])
                places[name] = full[id(p)]
            for m, rounding in self._sharded:
                _undress(m, rounding, stack)
            # Compiled blocks would be compiled anew for these parameters.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield Functional(self.model, self.recorder.vector.names, self.forward)

    def reference(self, label: str) -> list[Tensor]:
        """A reference point as whole tensors."""
        from torch.distributed.tensor import DTensor

        vector = self.recorder.vector
        return [
            _full(DTensor.from_local(v, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()))
            for v, p in zip(vector.reference(label), vector.params, strict=True)
        ]  # fmt: skip


def _full(p: Any) -> Tensor:
    with torch.no_grad():
        return p.detach().full_tensor()


def _wrapped_methods(module: Any) -> list[str]:
    """Methods that `register_fsdp_forward_method` wrapped: they would gather shards over what was put in their place."""
    codes = ((n, getattr(getattr(f, "__func__", None), "__code__", None)) for n, f in vars(module).items())
    return [n for n, code in codes if code is not None and "_fully_shard" in code.co_filename]


def _undress(module: Any, rounding: _Rounding | None, stack: contextlib.ExitStack) -> None:
    """Take fully_shard's hooks, methods and class from a module until the stack is left; what rounds stays."""
    own = vars(module)
    for name in _wrapped_methods(module):
        stack.callback(own.__setitem__, name, own.pop(name))
    for name in _HOOKS:
        instead = None if rounding is None else rounding.before if name == _HOOKS[0] else rounding.after
        hooks = ((k, instead if _is_fsdp(h) else h) for k, h in own[name].items())
        stack.callback(own.__setitem__, name, own[name])
        own[name] = OrderedDict((k, h) for k, h in hooks if h is not None)
    kind = type(module)
    stack.callback(setattr, module, "__class__", kind)
    module.__class__ = kind.__mro__[getattr(kind, "_orig_cls_mro_index", 2)]


def _rounding(module: Any) -> _Rounding | None:
    """What the policy of a sharded module rounds, if anything."""
    policy = module._get_fsdp_state()._mp_policy
    return None if policy.param_dtype is None and policy.output_dtype is None else _Rounding(module, policy)


@final
class _Rounding:
    """What a `MixedPrecisionPolicy` does around a forward pass: parameters and inputs are rounded before, outputs after.

    Args:
        module: on which ``fully_shard`` was called.
        policy: given to it.
    """

    def __init__(self, module: nn.Module, policy: Any) -> None:
        inner_ones = {id(x) for m in _sharded_modules(module) if m is not module for x in m.modules()}
        self.slots = [
            (m._parameters, n) for m in module.modules() if id(m) not in inner_ones for n, p in m._parameters.items() if p is not None
        ]  # fmt: skip
        self.policy = policy
        self.kept: list[list[Any]] = []

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """In place of fully_shard's forward pre-hook."""
        dtype = self.policy.param_dtype
        if dtype is None:
            return args, kwargs
        self.kept.append([places[n] for places, n in self.slots])
        for (places, n), p in zip(self.slots, self.kept[-1], strict=True):
            places[n] = _rounded(dtype, p)
        return _rounded(dtype, (args, kwargs)) if self.policy.cast_forward_inputs else (args, kwargs)

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        """In place of fully_shard's forward hook."""
        if self.policy.param_dtype is not None:
            for (places, n), p in zip(self.slots, self.kept.pop(), strict=True):
                places[n] = p
        return output if self.policy.output_dtype is None else _rounded(self.policy.output_dtype, output)


def _rounded(dtype: torch.dtype, values: Any) -> Any:
    """All tensors in these containers, rounded; the same function that fully_shard uses to find them."""
    from torch.distributed.utils import _apply_to_tensors

    return _apply_to_tensors(lambda x: x.to(dtype) if x.is_floating_point() else x, values)


@final
class OverRanks:
    """A gathered model on the batches of all ranks together: as `Functional`, with vectors kept as this rank's shards.

    The objective is the one that is trained: the mean over ranks of the loss of each.

    Args:
        model: whole, on this rank.
        recorder: of the run.
    """

    def __init__(self, model: Functional, recorder: Recorder) -> None:
        self.model, self.vector, self.exchange = model, recorder.vector, recorder.exchange
        self.device = model.device

    def weights(self) -> list[Tensor]:
        """Shards of the weights, sharing memory."""
        return [local(p) for p in self.vector.params]

    def gradient(
        self, inputs: Any, targets: Any, loss_fn: Any, random_state: Any = None
    ) -> tuple[float, list[Tensor]]:
        """The mean loss, and shards of the mean gradient."""
        loss, grads = self.model.gradient(inputs, targets, loss_fn, random_state)
        ranks = self.exchange.ranks
        mean = float(self.exchange.added(np.array([loss]))[0]) / ranks
        return mean, [g / ranks for g in self._added(grads)]

    def inner(self, a: list[Tensor], b: list[Tensor]) -> float:
        """``<a, b>`` of whole vectors from their shards."""
        groups = self.vector.groups
        sums = np.zeros((1, len(groups), 1))
        for p, x, y in zip(self.vector.params, a, b, strict=True):
            sums[0, groups.index(shard_groups(p)), 0] += inner([x], [y])
        return float(self.exchange.whole(sums)[0, 0])

    def parts(self, inputs: Any, targets: Any, loss_fn: Any) -> dict[str, float]:
        """Norms of independent parts for the unbiased ``||grad f||^2``: the batch of each rank, or two halves of the only one."""
        halves = 2 if self.exchange.ranks == 1 else 1
        n = rows_of(inputs) // halves
        rows = self.exchange.added(np.array([n, n * n], float))
        if n == 0 or self.exchange.ranks * halves < 2:
            return {}
        total: list[Tensor] | None = None
        each = 0.0
        for i in range(halves):
            x, y = (split_batch(t, i * n, i * n + n) for t in (inputs, targets))
            _, grads = self.model.gradient(x, y, loss_fn)
            each += inner(grads, grads)
            share = self._added(grads)
            total = share if total is None else [a + b for a, b in zip(total, share, strict=True)]
        assert total is not None
        squares = float(self.exchange.added(np.array([each]))[0])
        found = record(self.inner(total, total), squares, halves * self.exchange.ranks, n)
        # Parts of different size are parts as good, but have no size in common.
        if rows[1] * self.exchange.ranks != rows[0] ** 2:
            del found["part_size"]
        return found

    def _added(self, grads: list[Tensor]) -> list[Tensor]:
        """Shards of the sum over ranks; the list is emptied on the way, so that no two whole gradients are held."""
        from torch.distributed.tensor import DTensor, Partial

        shards = []
        for p in self.vector.params:
            g = grads.pop(0).contiguous()
            mesh: Any = p.device_mesh  # type: ignore[attr-defined]
            wide = g.float() if g.dtype in (torch.float16, torch.bfloat16) else g
            partial = DTensor.from_local(wide, mesh, [Partial()] * mesh.ndim, run_check=False)
            shards.append(local(partial.redistribute(mesh, p.placements)))  # type: ignore[attr-defined]
        return shards


@final
class ShardedProbing(BatchProbing):
    """`BatchProbing` of a sharded model: it is whole for as long as a batch is evaluated, on all ranks at the same time.

    Args:
        recorder: of the run.
        model: the trained model.
        forward: how to call it.
        probe: fixed rows for the tangent kernel, or None.
    """

    def __init__(self, recorder: Recorder, model: Any, forward: Forward | None, probe: Any) -> None:
        super().__init__(recorder, probe, recorder.vector.params[0].device)
        self.gathered = Gathered(model, recorder, forward)

    def run(
        self, wanted: list[str], step: int, batch: tuple[Any, Any, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values that ranks average, and those that are the same on all of them, for the quantities that are wanted."""
        means: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        with untouched_random_state(self.device), self.gathered.whole() as model:
            together = OverRanks(model, self.recorder)
            self.pay(together, step)
            if "tangent-loss" in wanted:
                means = self._tangent_loss(model, batch)
            if "half-batch" in wanted:
                extra |= together.parts(*batch)
            if "smoothness" in wanted:
                self.kept = probes.keep_for_secant(together, *batch, step)
            model.first.clear()
            if "tangent-margin" in wanted and self.probe is not None:
                extra |= probes.tangent_kernel(model, *self.probe)
        return means, extra

    def _tangent_loss(self, model: Functional, batch: tuple[Any, Any, Any]) -> dict[str, Any]:
        """One comparator after the other: no two of them are whole at the same time."""
        dense, means = chain(model, batch[0]) or model, {}
        for c in self.recorder.comparators:
            found = probes.tangent_loss(dense, *batch, {c: self.gathered.reference(c)})
            for key, value in found.items():
                means[key] = {**means.get(key, {}), **value} if isinstance(value, dict) else value
        return means

    def secant(self, step: int) -> None:
        """`pay` what is owed."""
        if self.owes(step):
            with untouched_random_state(self.device), self.gathered.whole() as model:
                self.pay(OverRanks(model, self.recorder), step)
