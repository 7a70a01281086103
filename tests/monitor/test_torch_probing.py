"""Evaluations beside the training: half batches by the short way, first layers computed once, always against autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch_loops import Kept, close, shifted

from proxyconvex.monitor.pytorch.functional import Functional
from proxyconvex.monitor.pytorch.halves import Halves
from proxyconvex.torch import Monitor

F = nn.functional
STEPS = 26
pytestmark = pytest.mark.usefixtures("one_thread")


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])


class Mlp(nn.Sequential):
    """Not exactly a sequence, so that it is evaluated as any module is."""


def mlp() -> nn.Module:
    return Mlp(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3))


def chain() -> nn.Module:
    """Evaluated layer by layer; its parts are the rows."""
    return nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3))


KINDS = pytest.mark.parametrize("make", [mlp, chain])


def data(n: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def oracle(
    model: nn.Module, weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, parts: int
) -> tuple[float, float]:
    """||sum g_i||^2 and sum ||g_i||^2 over equal parts in float64."""
    n = len(x) // parts
    grads = []
    for rows in (slice(i * n, i * n + n) for i in range(parts)):
        w = {k: p.detach().double().requires_grad_() for k, p in weights.items()}
        loss = F.cross_entropy(functional_call(model, w, (x[rows].double(),)), y[rows])
        grads.append(flat(torch.autograd.grad(loss, list(w.values()))))
    g = torch.stack(grads)
    return float(g.sum(0) @ g.sum(0)), float((g * g).sum())


def watched(
    make: Callable[[], nn.Module],
    backward: Callable[[nn.Module, torch.Tensor, torch.Tensor, int], torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    *,
    rows: int = 16,
    schedule: dict[str, Any] | None = None,
    after: Callable[[nn.Module], None] | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, torch.Tensor]], list[int]]:
    """A loop under the standard preset; records, the weights of each step, and the steps at which all parts were evaluated."""
    both: list[int] = []
    now = [0]
    for name in ("_direct", "_all_rows"):
        monkeypatch.setattr(
            Halves, name, lambda *a, original=getattr(Halves, name): (both.append(now[0]), original(*a))[1]
        )
    torch.manual_seed(0)
    model, kept, weights = make(), Kept(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data(rows)
    chosen = {"record": 1, "tangent-loss": 1, "half-batch": 1, "smoothness": None, **(schedule or {})}
    with Monitor(model, shifted(model), preset="standard", schedule=chosen, sinks=[kept]) as monitor:
        for t in range(STEPS):
            now[0] = t
            optimizer.zero_grad()
            monitor.batch(x, y, F.cross_entropy)
            monitor.loss(backward(model, x, y, t))
            if after is not None:
                after(model)
            weights.append({k: p.detach().clone() for k, p in model.named_parameters()})
            optimizer.step()
    return kept.records, weights, both


def usual(model: nn.Module, x: torch.Tensor, y: torch.Tensor, t: int) -> torch.Tensor:
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


def check(
    records: list[dict[str, Any]], weights: list[dict[str, torch.Tensor]], rows: int = 16, parts: int = 2
) -> int:
    """Every recorded sum over parts against the oracle; returns how many there were."""
    x, y = data(rows)
    seen = [r for r in records if "parts_sum_sq" in r]
    for r in seen:
        total, squares = oracle(mlp(), weights[r["step"]], x, y, parts)
        assert close(r["parts_total_sq"], total, 1e-4)
        assert close(r["parts_sum_sq"], squares, 1e-4)
        # The unbiased estimate is the difference of the two.
        assert close(r["parts_total_sq"] - r["parts_sum_sq"], total - squares, 1e-4, squares)
        assert (r["parts"], r["part_size"]) == (parts, rows // parts)
    return len(seen)


@KINDS
def test_the_short_way_gives_the_norms_of_all_parts(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    records, weights, both = watched(make, usual, monkeypatch)
    assert check(records, weights, parts=2 if make is mlp else 16) == STEPS
    assert both == [0, 1, 2, 10, 20], "otherwise the sum was the loop's gradient"


@KINDS
@pytest.mark.parametrize("rows", [15, 16])
def test_without_the_tangent_loss_or_with_an_odd_batch_all_are_evaluated(
    make: Any, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = {} if rows == 15 else {"tangent-loss": None}
    records, weights, both = watched(make, usual, monkeypatch, rows=rows, schedule=schedule)
    assert check(records, weights, rows, 2 if make is mlp else rows) == STEPS
    # An odd number of rows has no two halves; as parts they are as good as any.
    assert both == ([0, 1, 2, 10, 20] if make is chain and rows == 15 else list(range(STEPS)))


def decayed(model: nn.Module, x: torch.Tensor, y: torch.Tensor, t: int) -> torch.Tensor:
    loss = F.cross_entropy(model(x), y)
    (loss + 0.01 * sum(p.square().sum() for p in model.parameters())).backward()
    return loss


def clip(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)


def clip_by_hand(model: nn.Module) -> None:
    for p in model.parameters():
        p.grad.clamp_(-0.01, 0.01)  # type: ignore[union-attr]


@KINDS
@pytest.mark.parametrize("what", ["regulariser", "clipped", "changed by hand"])
def test_another_gradient_than_the_batchs_is_never_taken_for_it(
    make: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = decayed if what == "regulariser" else usual
    after = {"clipped": clip, "changed by hand": clip_by_hand}.get(what)
    records, weights, both = watched(make, backward, monkeypatch, after=after)
    assert check(records, weights, parts=2 if make is mlp else 16) == STEPS
    assert both == list(range(STEPS))


@KINDS
def test_a_loop_that_changes_its_objective_later_records_no_false_norm(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backward(model: nn.Module, x: torch.Tensor, y: torch.Tensor, t: int) -> torch.Tensor:
        return (usual if t < 7 else decayed)(model, x, y, t)

    records, weights, both = watched(make, backward, monkeypatch)
    count = check(records, weights, parts=2 if make is mlp else 16)
    assert STEPS - recording_delay() <= count < STEPS, (
        "the steps read before the change was known have no parts"
    )
    assert set(both) >= set(range(STEPS - 1, STEPS))


def recording_delay() -> int:
    from proxyconvex.monitor.pytorch.steps import FLUSH_EVERY

    return FLUSH_EVERY + 1


@pytest.mark.parametrize(
    "layer", [lambda: nn.BatchNorm1d(40), lambda: nn.Dropout(0.3)], ids=["batch norm", "dropout"]
)
def test_rows_that_influence_each_other_are_noticed(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make = lambda: nn.Sequential(nn.Linear(6, 40), layer(), nn.Tanh(), nn.Linear(40, 3))  # noqa: E731
    records, _, both = watched(make, usual, monkeypatch)
    assert both == list(range(STEPS))
    assert all(r["parts"] == 2.0 for r in records)


# -- first layers -----------------------------------------------------------------------------------------------------


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.Flatten(), nn.Linear(12, 3)
    )


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 7), nn.Linear(7, 3)
        self.first.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


class Twice(nn.Module):
    """One layer at two inputs, and its output changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 7), nn.Linear(7, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.first(x), self.first(x.square())
        return self.second(F.relu_(a) + torch.sin_(b))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "conv": strided,
    "frozen bias": Frozen,
    "twice": Twice,
    "mlp": mlp,
}


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_with_first_layers_computed_once(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().double()
    x = torch.randn(8, 2, 5, 5).double() if name == "conv" else torch.randn(8, 6).double()
    y = torch.randint(0, 3, (8,))
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    evaluated = Functional(model, list(named))
    direction = [torch.randn_like(p) for p in named.values()]
    jacobian = jacrev(lambda p: functional_call(model, p, (x,)))({n: p.detach() for n, p in named.items()})
    dense = torch.cat([jacobian[n].flatten(2) for n in named], 2)
    with torch.no_grad():
        expected = model(x)
    for _ in range(2):  # the second time with outputs that are remembered
        out, slope = evaluated.jvp(x, direction)
        assert torch.allclose(out, expected, rtol=1e-13)
        assert torch.allclose(slope, dense @ flat(direction), rtol=1e-10, atol=1e-12)
    for rows in (slice(0, 4), slice(4, 8), slice(0, 8), slice(2, 3)):
        loss, grads = evaluated.gradient(x[rows], y[rows], F.cross_entropy)
        value = F.cross_entropy(model(x[rows]), y[rows])
        assert loss == pytest.approx(value.item(), rel=1e-13)
        for g, t in zip(grads, torch.autograd.grad(value, list(named.values())), strict=True):
            assert torch.allclose(g, t, rtol=1e-11, atol=1e-14)
    assert all(p.grad is None for p in model.parameters())


def test_what_is_remembered_is_found_for_the_same_rows_and_weights_only() -> None:
    torch.manual_seed(0)
    model = mlp().double()
    x = torch.randn(8, 6).double()
    evaluated = Functional(model, [n for n, _ in model.named_parameters()])
    evaluated.jvp(x, [torch.zeros_like(p) for p in model.parameters()])
    weight, bias = model[0].weight, model[0].bias
    with torch.no_grad():
        whole = F.linear(x, weight, bias)
        assert torch.allclose(evaluated.first.find(x[3:6], weight, bias), whole[3:6])  # type: ignore[arg-type]
        for other in (x.clone(), x[::2], x[:, :3], torch.cat([x, x])):
            assert evaluated.first.find(other, weight, bias) is None
        assert evaluated.first.find(x, weight, None) is None
        assert evaluated.first.find(x, weight.clone(), bias) is None
    evaluated.first.clear()
    assert evaluated.first.find(x, weight, bias) is None


def test_the_parameters_are_in_their_places_after_an_error() -> None:
    torch.manual_seed(0)
    model = mlp()
    own = dict(model.named_parameters())
    evaluated = Functional(model, list(own))
    with pytest.raises(RuntimeError, match="shapes"):
        evaluated.gradient(torch.randn(3, 5), torch.zeros(3), F.cross_entropy)
    assert all(model.get_parameter(n) is p for n, p in own.items())
