"""Put a run together once its optimizers are known: the vector, the ledger, the recorder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...core.errors import InvalidInputError
from ..ledger import Ledger
from .comparators import resolve, trained_parameters
from .distributed import Exchange
from .seen import Due, takes_plain_steps
from .settings import weight_unit
from .steps import Recorder
from .vector import ParameterVector


def torch_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside wrappers such as accelerate's."""
    inside = optimizer
    while isinstance(getattr(inside, "optimizer", None), torch.optim.Optimizer):
        inside = inside.optimizer
    if not isinstance(inside, torch.optim.Optimizer):
        raise InvalidInputError("optimizer", type(optimizer).__name__, "a torch.optim.Optimizer")
    return inside


def is_word(source: Any, word: str) -> bool:
    """Whether a comparator is given as this word."""
    return isinstance(source, str) and source == word


def assemble(
    model: nn.Module,
    optimizers: list[Any],
    sources: Mapping[str, Any],
    start: Mapping[str, torch.Tensor] | None,
    precision: str,
    meta: dict[str, Any],
    **ledger: Any,
) -> Recorder:
    """The recorder of a run whose first step is about to be taken.

    Args:
        model: as trained.
        optimizers: that update it; the vector is made of the trained parameters that they own.
        sources: comparators by name.
        start: ``w_0`` of a resumed run, None if it is what the weights are now.
        precision: see `ParameterVector`.
        meta: completed here with what is known now.
        ledger: arguments of `Ledger`; its log and receivers are left out on ranks that do not write.
    """
    ids = {id(p) for o in optimizers for g in o.param_groups for p in g["params"]}
    trained = [(n, p) for n, p in trained_parameters(model) if id(p) in ids]
    if not trained:
        raise InvalidInputError(
            "optimizer", type(optimizers[0]).__name__, "an optimizer of this model's trained parameters"
        )
    first = {n: p.detach() for n, p in trained} if start is None else start
    references: dict[str, Mapping[str, torch.Tensor]] = {}
    for name, source in sources.items():
        if is_word(source, "init"):
            references["init"] = first
        elif not is_word(source, "average"):
            references[name] = resolve(source, trained)
    # The average is judged from the sums against w_0.
    if not references or any(is_word(s, "average") for s in sources.values()):
        references["init"] = first
    comparators = list(references)
    references.setdefault("init", first)
    vector = ParameterVector(trained, references, precision)
    exchange = Exchange(model, vector.groups, vector.params[0].device)
    plain = len(optimizers) == 1 and takes_plain_steps(optimizers[0])
    rounding: dict[str, Any] = {}
    if plain:
        norms = vector.norms(exchange)
        rounding = {
            "weight_unit": weight_unit(vector),
            "comparator_norms": {c: norms[c] for c in comparators},
        }
    meta |= {
        "optimizer": "+".join(type(o).__name__ for o in optimizers),
        "parameters": vector.size,
        "training": exchange.kind,
        "step_taken": "eta g, checked" if plain else "measured on the weights",
    }
    if not exchange.writer:
        ledger |= {"log_dir": None, "sinks": ()}
    book = Ledger(
        comparators=comparators,
        meta=meta,
        precision="float64" if vector.wide else "float32",
        **rounding,
        **ledger,
    )
    return Recorder(vector, book, exchange, plain, Due(ledger["preset"]))
