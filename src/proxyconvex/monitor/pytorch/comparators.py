"""Where the comparator ``v`` comes from: a checkpoint, a state dict, a model, the start, an average of the run's iterates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InvalidInputError

ACCEPTED = (
    "'init', 'average', a state dict, a module, the path of a checkpoint (.pt, .pth, .ckpt, .bin, .safetensors), or a list or "
    "dict of these"
)
# Parts that wrappers insert into names: torch.compile, DDP / DataParallel, FSDP, activation checkpointing, SWA.
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?:\.|$)")
# Where a training program keeps the model inside its checkpoint.
INSIDE = ("state_dict", "model_state_dict", "model", "module", "net", "weights")


def clean(name: str) -> str:
    """A parameter's name without what torch.compile and the wrappers of distributed training add."""
    return WRAPPERS.sub("", name)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside torch.compile, DDP or DataParallel."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def trained_parameters(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Clean name and parameter, each once, of all that require a gradient."""
    return [(clean(n), p) for n, p in unwrap(model).named_parameters() if p.requires_grad]


def named_sources(comparator: Any) -> dict[str, Any]:
    """The comparators by name; the first is the one whose sums carry the report.

    Raises:
        InvalidInputError: for something that is not a comparator.
    """
    if isinstance(comparator, Mapping) and not _is_state(comparator):
        sources = {str(k): v for k, v in comparator.items()}
    elif isinstance(comparator, (list, tuple)):
        sources = {}
        for i, source in enumerate(comparator):
            label = _label(source)
            sources[label if label not in sources else f"{label}-{i}"] = source
    else:
        sources = {_label(comparator): comparator}
    if not sources:
        raise InvalidInputError("comparator", comparator, ACCEPTED)
    if "init" in sources and not (isinstance(sources["init"], str) and sources["init"] == "init"):
        raise InvalidInputError(
            "comparator", "the name 'init'", "that name for the weights at the first step only"
        )
    for source in sources.values():
        if isinstance(source, str) and source in ("init", "average"):
            continue
        if not isinstance(source, (str, Path, nn.Module)) and not (
            isinstance(source, Mapping) and _is_state(source)
        ):
            raise InvalidInputError("comparator", type(source).__name__, ACCEPTED)
    return sources


def _label(source: Any) -> str:
    if isinstance(source, str) and source in ("init", "average"):
        return source
    if isinstance(source, (str, Path)):
        return Path(source).stem
    return "v"


def _is_state(mapping: Mapping[Any, Any]) -> bool:
    return (bool(mapping) and any(isinstance(v, Tensor) for v in mapping.values())) or any(
        isinstance(mapping.get(k), Mapping) and _is_state(mapping[k]) for k in INSIDE
    )


def resolve(source: Any, parameters: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The value of a comparator for every trained parameter, by clean name.

    Raises:
        InvalidInputError: naming the parameters that the comparator lacks.
    """
    parameters = list(parameters)
    if isinstance(source, str) and source == "init":
        return {n: p.detach() for n, p in parameters}
    state = _state(source)
    named: dict[str, Tensor] = {clean(k): v for k, v in state.items() if isinstance(v, Tensor)}
    wanted = [n for n, _ in parameters]
    best = max(_prefixes(named, wanted), key=lambda c: sum(n in c for n in wanted))
    missing = [n for n in wanted if n not in best]
    if missing:
        raise InvalidInputError(
            "comparator",
            f"{len(state)} entries: {', '.join(list(state)[:3])}, ...",
            f"a value for each of the {len(wanted)} trained parameters",
            f"Missing: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}.",
        )
    return {n: best[n] for n in wanted}


def _prefixes(named: dict[str, Tensor], wanted: list[str]) -> list[dict[str, Tensor]]:
    """The state with and without a common prefix such as ``module.`` or ``model.``."""
    out = [named]
    for prefix in sorted({k.split(".", 1)[0] for k in named if "." in k}):
        out.append({k.removeprefix(prefix + "."): v for k, v in named.items() if k.startswith(prefix + ".")})
    for prefix in sorted({n.split(".", 1)[0] for n in wanted if "." in n}):
        out.append({f"{prefix}.{k}": v for k, v in named.items()})
    return out


def _state(source: Any) -> Mapping[str, Any]:
    if isinstance(source, nn.Module):
        if isinstance(source, torch.optim.swa_utils.AveragedModel):
            source = source.module
        return unwrap(source).state_dict()
    if isinstance(source, (str, Path)):
        source = _read(Path(source))
    for key in INSIDE:
        inner = source.get(key)
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            return inner
    return source


def _read(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise InvalidInputError(
            "comparator", str(path), "'init', 'average' or the path of a checkpoint that exists"
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InvalidInputError(
            "comparator", str(path), "a checkpoint that torch.load(weights_only=True) reads",
            f"It said: {str(error).splitlines()[0]} Load it yourself and pass the state dict.",
        ) from error  # fmt: skip
    if not isinstance(state, Mapping):
        raise InvalidInputError("comparator", type(state).__name__, "a checkpoint that holds a state dict")
    return state
