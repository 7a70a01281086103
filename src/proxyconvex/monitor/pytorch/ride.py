"""The loop's own forward pass through a chain of dense layers, looked at once: what `Chain.forward` would compute a second time.

From the moment a batch is given until the model is called with it (or the step is taken), the model and its layers carry hooks that
look at what goes in and out and change nothing. They take effect only for a call of the model itself with the very tensor that was given, and only if the
layers were entered in their order, each once, with inputs that nobody has written to since. In every other case the chain computes its own forward pass, later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from .dense import Chain, activate, hooked_everywhere, layers_of


def can_ride(chain: Chain, watched: nn.Module, targets: Any) -> bool:
    """Whether a call of the watched model runs the chain's modules one by one (it is no wrapper, and nothing of it is compiled), and whether writes to the batch are counted."""
    model = chain.model.model
    plain = model is watched and all(m._compiled_call_impl is None for m in model.modules())
    return plain and type(targets) is Tensor and not (chain.x.is_inference() or targets.is_inference())


@final
class Ride:
    """Waits for one forward pass.

    Args:
        chain: the model on the batch that was given.
        targets: of the batch.
        use: called once with the chain when its outputs are there.
    """

    def __init__(self, chain: Chain, targets: Tensor, use: Callable[[Chain], None]) -> None:
        self.chain, self.targets, self._use = chain, targets, use
        self._versions = self._batch()
        self._weights = _weights(chain.layers)
        # Of the call under way: per layer entered the module, its input and its version, or the slope of what will overwrite it.
        self._entered: list[tuple[nn.Module, Tensor, int, Tensor | None]] | None = None
        self._handles = self._listen(chain.model.model)

    def _listen(self, model: nn.Module) -> list[Any]:
        # Functions, not methods: a copy of the model made in the meantime shall not copy what they belong to, and what is done with
        # it is none of theirs. While a compiler traces the model they are nothing.
        def begin(module: nn.Module, args: Any) -> None:
            if not torch.compiler.is_compiling() and module is model:
                self._begin(args)

        def enter(module: nn.Module, args: Any) -> None:
            if not torch.compiler.is_compiling():
                self._enter(module, args)

        def end(module: nn.Module, _: Any, out: Any) -> None:
            if not torch.compiler.is_compiling() and module is model:
                self._end(out)

        first = [model.register_forward_pre_hook(begin)]
        inside = [m.register_forward_pre_hook(enter) for m in dict.fromkeys(self.chain.layers)]
        return [*first, *inside, model.register_forward_hook(end)]

    def release(self) -> None:
        """Take the hooks away."""
        while self._handles:
            self._handles.pop().remove()
        self._entered = None

    def finish(self) -> None:
        """At the step's hook: if the forward pass was not seen, the chain makes its own, unless the batch is no longer what it was."""
        self.release()
        use, self._use = self._use, None
        if use is not None and self._batch() == self._versions:
            # As where the batch was given; a chain is none under autocast.
            with torch.autocast(self.chain.x.device.type, enabled=False):
                use(self.chain)

    def _batch(self) -> tuple[int, int]:
        """How often the batch has been written to."""
        return self.chain.x._version, self.targets._version

    def _begin(self, args: Any) -> None:
        given = len(args) == 1 and args[0] is self.chain.given and self._batch() == self._versions
        usual = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        self._entered = [] if given and usual and self._use is not None else None

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self._entered is None:
            return
        x = args[0]
        slope = None
        if getattr(module, "inplace", False):
            with torch.no_grad():
                slope = activate(module, x.detach())[1]
        self._entered.append((module, x, x._version, slope))

    def _end(self, out: Tensor) -> None:
        entered = self._entered
        if entered is None:
            return
        self.release()
        chain, use = self.chain, self._use
        if use is None or not self._is_sound(entered, out):
            return
        self._use = None
        kept: list[Any] = []
        with torch.no_grad():
            for m, x, _, slope in entered:
                if type(m) is nn.Linear:
                    kept.append(x.detach())
                elif type(m) is nn.Flatten:
                    kept.append(x.shape)
                else:
                    kept.append(activate(m, x.detach())[1] if slope is None else slope)
        chain.kept, chain.out = kept, out.detach()
        use(chain)

    def _is_sound(self, entered: list[tuple[nn.Module, Tensor, int, Tensor | None]], out: Any) -> bool:
        """Whether what was entered is this chain at these weights, and what was seen is still there."""
        layers, x = self.chain.layers, self.chain.x
        if torch.is_autocast_enabled(x.device.type) or hooked_everywhere():
            return False
        if layers_of(self.chain.model.model) != layers:
            return False
        tensors = [*(t for _, t, _, _ in entered), out]
        return (
            [m for m, *_ in entered] == layers
            and all(type(t) is Tensor and t.dtype == x.dtype for t in tensors)
            and all(slope is not None or t._version == version for _, t, version, slope in entered)
            and all(p is q for p, q in zip(self._weights, _weights(layers), strict=True))
        )


def _weights(layers: list[nn.Module]) -> list[Any]:
    return [p for m in layers if type(m) is nn.Linear for p in m._parameters.values()]
