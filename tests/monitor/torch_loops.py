"""Loops to watch, and an independent record of the same loop: clones of weights and gradients in float64, products by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from proxyconvex.torch import Monitor


class Kept:
    """A receiver that keeps every record."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def record(self, record: Any) -> None:
        self.records.append(dict(record))

    def close(self) -> None:
        pass


class Spy:
    """Clones of the weights and gradients at each call of optimizer.step, through a hook of its own."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.params = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.weights: list[torch.Tensor] = []
        self.grads: list[torch.Tensor] = []
        optimizer.register_step_pre_hook(self._look)

    def _look(self, *_: Any) -> None:
        self.weights.append(self.flat(self.params))
        self.grads.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if p.grad is None else p.grad.to_dense())
                    .detach()
                    .double()
                    .reshape(-1)
                    for p in self.params.values()
                ]
            )
        )

    def flat(self, named: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([named[n].detach().double().reshape(-1) for n in self.params])

    def end(self) -> None:
        self.weights.append(self.flat(self.params))


def shifted(model: nn.Module, by: float = 0.3) -> dict[str, torch.Tensor]:
    """A comparator: the weights plus noise from a generator of its own."""
    generator = torch.Generator().manual_seed(7)
    return {
        n: p.detach() + by * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        for n, p in model.named_parameters()
    }


Loop = Callable[[nn.Module, torch.optim.Optimizer, Any], None]


class Silent:
    """Stands in for the monitor in the run that nobody watches."""

    def loss(self, *_: Any) -> None: ...
    def batch(self, *_: Any) -> None: ...
    def outputs(self, *_: Any) -> None: ...


def watched_and_plain(
    make: Callable[[], nn.Module],
    optimizer: Callable[[Any], torch.optim.Optimizer],
    loop: Loop,
    **options: Any,
) -> tuple[Monitor, list[dict[str, Any]], Spy, torch.Tensor]:
    """Run the loop twice from the same seed, once watched; require that the training was the same, bit for bit.

    Returns:
        the closed monitor, its records, the spy of the run that was not watched, and the flat comparator.
    """
    torch.manual_seed(0)
    plain = make()
    spy = Spy(plain, first := optimizer([p for p in plain.parameters() if p.requires_grad]))
    loop(plain, first, Silent())
    spy.end()
    random_plain = torch.get_rng_state()

    torch.manual_seed(0)
    model = make()
    second = optimizer([p for p in model.parameters() if p.requires_grad])
    kept = Kept()
    v = options.pop("comparator", None) or shifted(model)
    options.setdefault("schedule", {"record": 1})
    with Monitor(model, v, sinks=[kept], **options) as monitor:
        loop(model, second, monitor)
    assert torch.equal(torch.get_rng_state(), random_plain)
    for (n, a), b in zip(plain.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), f"{n} differs between the watched and the plain run"
    flags = [m.training for m in model.modules()]
    assert flags == [m.training for m in plain.modules()]
    target = (
        spy.flat(v)
        if isinstance(v, dict) and isinstance(next(iter(v.values())), torch.Tensor)
        else spy.weights[0]
    )
    return monitor, kept.records, spy, target


def close(a: float, b: float, tolerance: float, size: float = 0.0) -> bool:
    """Relative to the larger, or to a given size."""
    return abs(a - b) <= tolerance * max(abs(a), abs(b), size, 1e-30)


def check_steps(
    records: list[dict[str, Any]],
    spy: Spy,
    v: torch.Tensor,
    *,
    name: str = "v",
    tolerance: float = 2e-5,
    used: list[int] | None = None,
) -> None:
    """Every recorded product against the float64 clones of the run that was not watched."""
    records = [r for r in records if not r.get("skipped")]
    assert len(records) == len(spy.grads)
    for t, r in enumerate(records):
        w, g, after = spy.weights[t], spy.grads[t], spy.weights[t + 1]
        a, u = w - v, w - after
        product = float(g.norm() * a.norm())
        assert close(r["grad_sq"], float(g @ g), tolerance), (t, "grad_sq")
        assert close(r["dist_sq"][name], float(a @ a), tolerance), (t, "dist_sq")
        assert close(r["grad_w_minus_v"][name], float(g @ a), tolerance, product), (t, "inner")
        if "update_sq" in r:
            assert close(r["update_sq"], float(u @ u), tolerance), (t, "update_sq")
            assert close(r["update_dot"][name], float(u @ a), tolerance, float(u.norm() * a.norm())), (
                t,
                "update_dot",
            )
        if "dist0_sq" in r:
            start = w - spy.weights[0]
            assert close(r["dist0_sq"], float(start @ start), tolerance, 1e-12), (t, "dist0_sq")
