"""The weights of a model as one vector ``w``, its reference points, and the inner products of one step in one pass.

Everything is formed from differences: ``||w - v||^2`` is the sum of squares of ``w - v``, never
``||w||^2 - 2<w, v> + ||v||^2``, which loses all digits once ``w`` is near ``v``. Half precision is widened before it is
subtracted or multiplied. Large tensors are read in pieces that stay in the cache, small ones are packed together, and the
sums of the pieces are added in float64.

With ``u = w_t - w_{t-1}`` (both weights stored exactly) and ``a = w_t - v``, one pass returns ``||g||^2``, ``<g, a>``,
``||a||^2``, ``||u||^2`` and ``<u, a>``; the inner product at the point the step left is ``<u, w_{t-1} - v> = <u, a> - ||u||^2``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InvalidInputError
from .reading import Reading

# Elements of one piece: 1 MiB of float32.
PIECE = 1 << 18
# Tensors below this size are packed into common pieces.
SMALL = 1 << 14


def local(tensor: Tensor) -> Tensor:
    """The part of a (possibly sharded, sparse or complex) tensor that this process holds, as a real dense tensor."""
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
        # A collective that is still under way is waited for.
        tensor = tensor.wait() if hasattr(tensor, "wait") else tensor
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def shard_groups(tensor: Tensor) -> tuple[Any, ...]:
    """The process groups over which the sums of a tensor's shards must be added; empty for a whole tensor."""
    if not hasattr(tensor, "device_mesh"):
        return ()
    placements = tensor.placements
    if any(p.is_partial() for p in placements):
        raise InvalidInputError("a parameter's placements", placements, "Shard and Replicate")
    return tuple(tensor.device_mesh.get_group(i) for i, p in enumerate(placements) if p.is_shard())


def _without_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.no_grad`, in a third of its time."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        mode = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            return function(*args, **kwargs)
        finally:
            torch._C._set_grad_enabled(mode)

    return call


@final
@dataclass
class Piece:
    """Entries that are handled at once: a range of one large tensor, or several small tensors packed.

    Attributes:
        params: positions of its tensors in the vector.
        start: first entry of the range within a large tensor.
        size: number of entries.
        packed: whether it holds whole small tensors.
        group: row of the sums it adds to (one row for each way of sharding).
        references: per reference point its entries, shape [size].
        scratch: work space, three of shape [size]: a difference, the gradient or the weights widened, the step.
        views: windows of ``scratch[1]`` and ``scratch[2]`` shaped like the packed tensors.
        previous: the weights at the last call that asked to keep them, shape [size].
    """

    params: list[int]
    start: int
    size: int
    packed: bool
    group: int
    dtype: torch.dtype
    references: list[Tensor]
    scratch: tuple[Tensor, Tensor, Tensor]
    views: tuple[list[Tensor], list[Tensor]] = ((), ())  # type: ignore[assignment]
    previous: Tensor | None = None


@final
class ParameterVector:
    """The trained parameters of a model as a vector, with reference points ``v``.

    Args:
        parameters: name and parameter, each parameter once (shared weights are one entry of the vector).
        references: per reference point its value for every name; tensors of the whole shape.
        precision: ``"float32"`` (float64 weights are always handled in float64) or ``"float64"`` for everything.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Tensor]],
        references: Mapping[str, Mapping[str, Tensor]],
        precision: str = "float32",
    ) -> None:
        if precision not in ("float32", "float64"):
            raise InvalidInputError("precision", precision, "'float32' or 'float64'")
        self.names, self.params = [], []
        for name, p in parameters:
            self.names.append(name)
            self.params.append(p)
        if not self.params:
            raise InvalidInputError(
                "model", "no parameter that requires a gradient", "at least one trained parameter"
            )
        self.precision = precision
        self.labels = list(references)
        self.groups: list[tuple[Any, ...]] = []
        self.plain = all(
            type(p.data) is Tensor and p.layout == torch.strided for p in self.params
        ) and not any(p.is_complex() for p in self.params)
        self.pieces: list[Piece] = []
        self._whole: dict[str, list[Tensor]] = {}
        self._cut(
            {
                k: [_aligned(r[n], p, n) for n, p in zip(self.names, self.params, strict=True)]
                for k, r in references.items()
            }
        )
        self.size = sum(p.numel() for p in self.params)

    def _dtype(self, p: Tensor) -> torch.dtype:
        wide = self.precision == "float64" or p.dtype in (torch.float64, torch.complex128)
        return torch.float64 if wide else torch.float32

    def _cut(self, references: Mapping[str, list[Tensor]]) -> None:
        """Cut the tensors into pieces."""
        packs: dict[tuple[Any, ...], list[int]] = {}
        scratch: dict[tuple[Any, ...], Tensor] = {}
        lists = list(references.values())
        for i, p in enumerate(self.params):
            mine = local(p)
            groups = shard_groups(p)
            if groups not in self.groups:
                self.groups.append(groups)
            group, dtype, n = self.groups.index(groups), self._dtype(p), mine.numel()
            if n < SMALL:
                key = (group, dtype, mine.device)
                if key in packs and sum(local(self.params[j]).numel() for j in packs[key]) + n > PIECE:
                    self._pack(packs.pop(key), key, lists)
                packs.setdefault(key, []).append(i)
                continue
            space = scratch.setdefault(
                (dtype, mine.device), torch.empty(3, PIECE, dtype=dtype, device=mine.device)
            )
            for start in range(0, n, PIECE):
                size = min(PIECE, n - start)
                kept = [r[i].reshape(-1)[start : start + size].to(dtype).clone() for r in lists]
                self.pieces.append(
                    Piece([i], start, size, False, group, dtype, kept, space[:, :size].unbind())
                )
        for key, members in packs.items():
            self._pack(members, key, lists)

    def _pack(self, members: list[int], key: tuple[Any, ...], lists: list[list[Tensor]]) -> None:
        group, dtype, device = key
        shapes = [local(self.params[i]).shape for i in members]
        sizes = [s.numel() for s in shapes]
        space = torch.empty(3, sum(sizes), dtype=dtype, device=device)
        kept = [torch.cat([r[i].reshape(-1).to(dtype) for i in members]) for r in lists]
        views = tuple(
            [v.view(s) for v, s in zip(space[row].split(sizes), shapes, strict=True)] for row in (1, 2)
        )
        self.pieces.append(Piece(members, 0, sum(sizes), True, group, dtype, kept, space.unbind(), views))  # type: ignore[arg-type]

    # -- one pass -----------------------------------------------------------------------------------------------------

    def columns(self, count: int) -> list[str]:
        """Names of the sums that `sums` returns for the first ``count`` reference points."""
        each = [f"{c}:{k}" for k in self.labels[:count] for c in ("inner", "dist_sq", "update_inner")]
        return ["grad_sq", "update_sq", *each]

    @_without_graph
    def squares(self) -> Reading:
        """``||g||^2`` alone: the first column of `sums`."""
        reading = Reading(len(self.groups), 2)
        put, at = reading.values.append, reading.places.append
        grads = self._gradients()
        for piece in self.pieces:
            g = _gradient(piece, grads)
            put(torch.dot(g, g))
            at(2 * piece.group)
        return reading

    @_without_graph
    def sums(
        self,
        *,
        count: int,
        products: int | None = None,
        gradient: bool = True,
        update: bool = False,
        keep: bool = False,
        distance: bool = True,
    ) -> Reading:
        """The sums of this process: for each way of sharding ``2 + 3 * count`` numbers, see `columns`.

        Args:
            count: use the first ``count`` reference points.
            products: with how many of them inner products are formed (the others stay 0); by default all.
            gradient: whether to read the gradients (those missing count as zero).
            update: whether to form ``u = w - previous``; needs an earlier call with ``keep``.
            keep: whether to store the weights as ``previous``.
            distance: whether to form ``||w - v||^2``.
        """
        width, products = 2 + 3 * count, count if products is None else products
        reading = Reading(len(self.groups), width)
        dot, sub, put, at = torch.dot, torch.sub, reading.values.append, reading.places.append
        weights, grads = self._weights(), self._gradients() if gradient else []
        for piece in self.pieces:
            base = width * piece.group
            w = _weights(piece, weights)
            delta = piece.scratch[0]
            u = None
            if update:
                # Packed weights lie in scratch[2] themselves.
                u = sub(w, piece.previous, out=None if piece.packed else piece.scratch[2])
                put(dot(u, u))
                at(base + 1)
            g = _gradient(piece, grads) if gradient else None
            if g is not None:
                put(dot(g, g))
                at(base)
            for r in range(count):
                sub(w, piece.references[r], out=delta)
                if distance:
                    put(dot(delta, delta))
                    at(base + 3 + 3 * r)
                if r >= products:
                    continue
                if g is not None:
                    put(dot(g, delta))
                    at(base + 2 + 3 * r)
                if u is not None:
                    put(dot(u, delta))
                    at(base + 4 + 3 * r)
            if keep:
                if piece.previous is None:
                    piece.previous = torch.empty(piece.size, dtype=piece.dtype, device=w.device)
                piece.previous.copy_(w)
        return reading

    def _weights(self) -> list[Tensor]:
        return self.params if self.plain else [local(p) for p in self.params]

    def _gradients(self) -> list[Tensor | None]:
        grads = [p.grad for p in self.params]
        if self.plain and all(g is None or g.layout is torch.strided for g in grads):
            return grads
        return [None if g is None else local(g) for g in grads]

    @property
    def wide(self) -> bool:
        """Whether every difference and product is formed in float64."""
        return all(p.dtype == torch.float64 for p in self.pieces)

    def norms(self, exchange: Any) -> dict[str, float]:
        """``||v||`` of every reference point, over all ranks."""
        sums = np.zeros((1, len(self.groups), len(self.labels)))
        for piece in self.pieces:
            for r, v in enumerate(piece.references):
                sums[0, piece.group, r] += float(torch.dot(v, v))
        return dict(zip(self.labels, np.sqrt(exchange.whole(sums)[0]).tolist(), strict=True))

    # -- whole vectors ------------------------------------------------------------------------------------------------

    def reference(self, label: str) -> list[Tensor]:
        """A reference point as local tensors shaped like the parameters, in the order of `names`; not to be written to."""
        known = self._whole.get(label)
        if known is None:
            r = self.labels.index(label)
            known = self._unpack([p.references[r] for p in self.pieces])
            # Views are kept; the tensors that had to be put together again are not held twice.
            if all(p.packed or p.size == local(self.params[p.params[0]]).numel() for p in self.pieces):
                self._whole[label] = known
        return known

    def _unpack(self, flat: list[Tensor]) -> list[Tensor]:
        parts: list[list[Tensor]] = [[] for _ in self.params]
        for piece, values in zip(self.pieces, flat, strict=True):
            sizes = [local(self.params[i]).numel() for i in piece.params] if piece.packed else [piece.size]
            for i, x in zip(piece.params, values.split(sizes), strict=True):
                parts[i].append(x)
        return [
            (x[0] if len(x) == 1 else torch.cat(x)).view(local(p).shape)
            for x, p in zip(parts, self.params, strict=True)
        ]

    def accumulate(self, into: list[Tensor], *, weight: float, label: str | None = None) -> None:
        """``into += weight * gradient``, or ``into += weight * (w - v)`` for a reference point, piece by piece."""
        gradient, r = label is None, 0 if label is None else self.labels.index(label)
        with torch.no_grad():
            weights, grads = self._weights(), self._gradients() if gradient else []
            for piece, target in zip(self.pieces, into, strict=True):
                if gradient:
                    target.add_(_gradient(piece, grads), alpha=weight)
                else:
                    w = _weights(piece, weights)
                    target.add_(torch.sub(w, piece.references[r], out=piece.scratch[0]), alpha=weight)

    def zeros(self) -> list[Tensor]:
        """A zero vector in the pieces of `accumulate`."""
        return [torch.zeros(p.size, dtype=p.dtype, device=p.scratch[0].device) for p in self.pieces]


def _weights(piece: Piece, weights: list[Tensor]) -> Tensor:
    """The entries of a piece in its dtype: a view where that is possible."""
    if piece.packed:
        torch._foreach_copy_(piece.views[1], [weights[i] for i in piece.params])
        return piece.scratch[2]
    flat = weights[piece.params[0]].reshape(-1)
    if piece.size != flat.numel():
        flat = flat[piece.start : piece.start + piece.size]
    return flat if flat.dtype == piece.dtype else flat.to(piece.dtype)


def _gradient(piece: Piece, grads: list[Tensor | None]) -> Tensor:
    """The gradient entries of a piece in its dtype; a missing gradient is zero."""
    if piece.packed:
        mine = [grads[i] for i in piece.params]
        if any(g is None for g in mine):
            for view, g in zip(piece.views[0], mine, strict=True):
                view.zero_() if g is None else view.copy_(g)
        else:
            torch._foreach_copy_(piece.views[0], mine)  # type: ignore[arg-type]
        return piece.scratch[1]
    g = grads[piece.params[0]]
    if g is None:
        return piece.scratch[1].zero_()
    flat = g.reshape(-1)
    if piece.size != flat.numel():
        flat = flat[piece.start : piece.start + piece.size]
    return flat if flat.dtype == piece.dtype else piece.scratch[1].copy_(flat)


def _aligned(value: Tensor, p: Tensor, name: str) -> Tensor:
    """A reference value as the local part of its parameter, on its device."""
    if tuple(value.shape) != tuple(p.shape):
        raise InvalidInputError(
            f"comparator[{name!r}]", tuple(value.shape), f"a tensor of shape {tuple(p.shape)}"
        )
    if hasattr(p, "device_mesh"):
        if not hasattr(value, "device_mesh"):
            from torch.distributed.tensor import distribute_tensor

            value = distribute_tensor(value.detach().to(p.device), p.device_mesh, p.placements)
        elif value.placements != p.placements:
            value = value.redistribute(p.device_mesh, p.placements)
    return local(value).to(local(p).device)
