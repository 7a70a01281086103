"""The loop's own forward pass, seen through hooks: what is taken from it, when it is not taken, and that nothing is left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_torch_dense import CHAINS, started
from torch import nn
from torch.func import functional_call, jacrev
from torch_loops import Kept, close, shifted, watched_and_plain

from proxyconvex.monitor.pytorch import dense
from proxyconvex.monitor.pytorch.dense import Chain
from proxyconvex.monitor.pytorch.functional import Functional
from proxyconvex.monitor.pytorch.ride import Ride, can_ride
from proxyconvex.torch import Monitor

F = nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


def armed(name: str = "in place") -> tuple[nn.Module, Any, Any, Ride, list[Chain]]:
    model, general, x, y = started(name)
    chain, used = dense.chain(general, x), []
    assert chain is not None
    assert can_ride(chain, model, y)
    return model, x, y, Ride(chain, y, used.append), used


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_seen_is_what_the_chain_would_compute(name: str) -> None:
    model, x, y, _, used = armed(name)
    before = x.clone()
    out = model(x)
    assert len(used) == 1
    assert hooks_of(model) == 0
    mine = dense.chain(used[0].model, x)
    assert mine is not None
    assert torch.equal(used[0].out, mine.forward())  # type: ignore[arg-type]
    assert torch.equal(used[0].out, out)  # type: ignore[arg-type]
    for a, b in zip(used[0].kept, mine.kept, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        assert not isinstance(a, torch.Tensor) or not a.requires_grad
    assert torch.equal(x, before)
    F.cross_entropy(out, y).backward()
    expected = torch.autograd.grad(
        F.cross_entropy(model(x), y), trained := [p for p in model.parameters() if p.requires_grad]
    )
    assert all(torch.equal(p.grad, g) for p, g in zip(trained, expected, strict=True))  # type: ignore[arg-type]


# -- calls that are not the loop's own ---------------------------------------------------------------------------------


def layer_by_layer(model: nn.Module, x: torch.Tensor) -> None:
    out = x
    for m in model:  # type: ignore[attr-defined]
        out = 2 * m(out)


def with_other_weights(model: nn.Module, x: torch.Tensor) -> None:
    functional_call(model, {n: 2 * p for n, p in model.named_parameters()}, (x,))


def without_gradients(model: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        model(x)


def in_inference(model: nn.Module, x: torch.Tensor) -> None:
    with torch.inference_mode():
        model(x)


def under_autocast(model: nn.Module, x: torch.Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)


def with_a_hook(model: nn.Module, x: torch.Tensor) -> None:
    handle = model[1].register_forward_pre_hook(lambda m, args: (2 * args[0],))  # type: ignore[index]
    model(x)
    handle.remove()


def with_a_hook_everywhere(model: nn.Module, x: torch.Tensor) -> None:
    def change(module: nn.Module, args: Any) -> Any:
        return (2 * args[0],) if isinstance(module, nn.ELU) else None

    handle = nn.modules.module.register_module_forward_pre_hook(change)
    model(x)
    handle.remove()


def while_a_layer_is_another(model: nn.Module, x: torch.Tensor) -> None:
    own = model[1]  # type: ignore[index]
    model[1] = nn.Tanh()  # type: ignore[index]
    model(x)
    model[1] = own  # type: ignore[index]


def that_fails(model: nn.Module, x: torch.Tensor) -> None:
    handle = model[2].register_forward_pre_hook(lambda *_: 1 / 0)  # type: ignore[index]
    with pytest.raises(ZeroDivisionError):
        model(x)
    handle.remove()


OTHER_CALLS: dict[str, Callable[[nn.Module, torch.Tensor], Any]] = {
    "none": lambda model, x: None,
    "a copy of the batch": lambda model, x: model(x.clone()),
    "another batch": lambda model, x: model(x + 1),
    "layers by hand": layer_by_layer,
    "other weights": with_other_weights,
    "no gradients": without_gradients,
    "inference": in_inference,
    "autocast": under_autocast,
    "a hook": with_a_hook,
    "a hook everywhere": with_a_hook_everywhere,
    "another layer": while_a_layer_is_another,
    "an error": that_fails,
}


@pytest.mark.parametrize("name", OTHER_CALLS)
def test_after_another_call_the_chain_computes_its_own(name: str) -> None:
    model, x, _, ride, used = armed()
    OTHER_CALLS[name](model, x)
    assert used == [], "nothing was taken from that call"
    ride.finish()
    assert len(used) == 1
    assert hooks_of(model) == 0
    with torch.no_grad():
        assert torch.equal(used[0].forward(), model(x))
    ride.finish()
    assert len(used) == 1, "used once"


@pytest.mark.parametrize(
    "name", ["a copy of the batch", "other weights", "no gradients", "inference", "an error"]
)
def test_the_loops_own_call_may_come_after_others(name: str) -> None:
    model, x, _, ride, used = armed()
    if name != "other weights":  # there the pass was of this batch, and is not looked at twice
        OTHER_CALLS[name](model, x)
    model(x)
    assert len(used) == 1
    model(x)
    ride.finish()
    assert len(used) == 1


@pytest.mark.parametrize("what", ["inputs", "targets"])
def test_a_batch_written_to_is_not_evaluated(what: str) -> None:
    model, x, y, ride, used = armed()
    (x if what == "inputs" else y).zero_()
    model(x)
    ride.finish()
    assert used == []
    assert hooks_of(model) == 0


def test_wrapped_and_compiled_models_are_not_hooked() -> None:
    model, general, x, y = started("wide")
    chain = dense.chain(general, x)
    assert chain is not None
    assert can_ride(chain, model, y)
    assert not can_ride(chain, torch.nn.DataParallel(model), y)
    assert not can_ride(chain, model, {"labels": y})
    model[1].compile(backend="eager")  # type: ignore[index]
    assert not can_ride(chain, model, y)


def test_a_copy_of_the_model_takes_nothing_with_it() -> None:
    model, x, _, ride, used = armed()
    other = copy.deepcopy(model)
    other(x)
    assert used == []
    model(x)
    assert len(used) == 1
    ride.finish()


# -- in a monitored loop -----------------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(inplace=True), nn.Linear(40, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def loop_with(call: Callable[..., torch.Tensor], steps: int = 15) -> Callable[..., None]:
    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data()
        for _ in range(steps):
            optimizer.zero_grad()
            monitor.batch(x, y, F.cross_entropy)
            loss = F.cross_entropy(call(model, x), y)
            loss.backward()
            monitor.loss(loss)
            optimizer.step()

    return loop


EVERY = {"record": 1, "tangent-loss": 1, "half-batch": 1, "smoothness": 4}
CALLS: dict[str, tuple[Callable[..., torch.Tensor], bool]] = {
    "the model": (lambda model, x: model(x), True),
    "with a copy": (lambda model, x: model(x.clone()), False),
    "layer by layer": (lambda model, x: model[2](model[1](model[0](x))), False),
}


@pytest.mark.parametrize("name", CALLS)
def test_tangent_losses_and_parts_are_right_whoever_computes_the_forward_pass(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, seen = CALLS[name]
    own, forward = [], Chain.forward
    monkeypatch.setattr(Chain, "forward", lambda self: (own.append(self.out is None), forward(self))[1])
    _, records, spy, v = watched_and_plain(
        mlp, lambda p: torch.optim.SGD(p, lr=0.1), loop_with(call), preset="standard", schedule=EVERY
    )
    # The first batch comes before the optimizer is known.
    assert sum(own) == (1 if seen else 15)
    x, y = data()
    model = mlp().double()
    shapes = [(n, p.shape) for n, p in model.named_parameters()]

    def named(flat: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = flat.split([s.numel() for _, s in shapes])
        return {n: t.view(s) for (n, s), t in zip(shapes, parts, strict=True)}

    for r, w in zip(records, spy.weights, strict=False):
        out = functional_call(model, named(w), (x.double(),)).detach()
        jacobian = jacrev(lambda p: functional_call(model, p, (x.double(),)))(named(w))
        slope = torch.cat([jacobian[n].flatten(2) for n, _ in shapes], 2) @ (v - w)
        assert close(r["tangent_loss"]["v"], float(F.cross_entropy(out + slope, y)), 1e-5)
        assert close(r["probe_loss"], float(F.cross_entropy(out, y)), 1e-6)
        rows = []
        for i in range(len(x)):
            at = {n: t.detach().requires_grad_() for n, t in named(w).items()}
            value = F.cross_entropy(functional_call(model, at, (x[i : i + 1].double(),)), y[i : i + 1])
            rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(at.values()))]))
        g = torch.stack(rows)
        assert (r["parts"], r["part_size"]) == (16, 1)
        assert close(r["parts_total_sq"], float(g.sum(0) @ g.sum(0)), 1e-4)
        assert close(r["parts_sum_sq"], float((g * g).sum()), 1e-4)


@pytest.mark.parametrize("name", ["the model", "layer by layer"])
def test_a_loss_that_draws_random_numbers_draws_the_same_in_both(name: str) -> None:
    def noisy(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(out + torch.randn_like(out), y)

    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data()
        for _ in range(8):
            optimizer.zero_grad()
            monitor.batch(x, y, noisy)
            loss = noisy(CALLS[name][0](model, x), y)
            loss.backward()
            monitor.loss(loss)
            optimizer.step()

    _, records, *_ = watched_and_plain(
        mlp, lambda p: torch.optim.SGD(p, lr=0.1), loop, preset="standard", schedule=EVERY
    )
    assert [close(r["probe_loss"], r["loss"], 1e-6) for r in records] == [True] * 8
    assert all("tangent_loss" in r for r in records)


def test_a_model_that_the_user_compiled_is_traced_without_the_hooks() -> None:
    torch._dynamo.reset()
    x, y = data()
    weights = []
    for watched in (True, False):
        torch.manual_seed(0)
        model, kept = mlp(), Kept()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        # The compiled model shares its modules with the one that is told.
        monitor = Monitor(model, shifted(model), preset="standard", schedule=EVERY, sinks=[kept])
        if watched:
            monitor.attach(optimizer)
        for _ in range(6):
            optimizer.zero_grad()
            if watched:
                monitor.batch(x, y, F.cross_entropy)
            loss = F.cross_entropy(compiled(x), y)
            loss.backward()
            if watched:
                monitor.loss(loss)
            optimizer.step()
        monitor.close()
        assert hooks_of(model) == 0
        weights.append([p.detach().clone() for p in model.parameters()])
        if watched:
            assert [r["step"] for r in kept.records if "tangent_loss" in r and "parts" in r] == list(range(6))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_an_exception_between_the_batch_and_the_step_leaves_no_hook() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data()
    with pytest.raises(ZeroDivisionError), Monitor(model, preset="standard", schedule=EVERY) as monitor:
        loop_with(lambda model, x: model(x), 3)(model, optimizer, monitor)
        monitor.batch(x, y, F.cross_entropy)
        assert hooks_of(model) > 0
        raise ZeroDivisionError
    assert hooks_of(model) == 0


@pytest.mark.parametrize("loss_fn", [F.cross_entropy, nn.CrossEntropyLoss()], ids=["function", "module"])
@pytest.mark.parametrize("spread", [1.0, 30.0, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_the_derivative_of_cross_entropy_is_that_of_autograd(loss_fn: Any, spread: float, dtype: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    out = (spread * torch.randn(20, 5, generator=generator, dtype=torch.float64)).to(dtype)
    y = torch.randint(0, 5, (20,), generator=generator)
    assert dense.is_class_entropy(loss_fn, y)
    value, derivative = dense.class_entropy(out, y)
    leaf = out.double().requires_grad_()
    exact = F.cross_entropy(leaf, y)
    (gradient,) = torch.autograd.grad(exact, leaf)
    exact = exact.detach()
    unit = torch.finfo(dtype).eps
    assert value.dtype == derivative.dtype == dtype
    assert float(value) == pytest.approx(float(exact), rel=20 * unit)
    assert float((derivative.double() - gradient).abs().max()) <= 4 * unit / 20 * max(spread, 1.0)


def test_other_entropies_are_left_to_autograd() -> None:
    y = torch.arange(4)
    assert not dense.is_class_entropy(nn.CrossEntropyLoss(label_smoothing=0.1), y)
    assert not dense.is_class_entropy(F.cross_entropy, torch.rand(4, 3))
    assert not dense.is_class_entropy(F.mse_loss, y)


def test_the_chain_takes_the_derivative_of_whichever_loss() -> None:
    for loss_fn in (
        F.cross_entropy,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda o, t: F.cross_entropy(3 * o, t),
    ):
        model, general, x, y = started("wide")
        chain = dense.chain(general, x)
        assert chain is not None
        value, derivative = chain.derivative(chain.forward(), y, loss_fn)
        expected = Functional(model, general.names).derivative(chain.forward(), y, loss_fn)
        assert float(value) == pytest.approx(float(expected[0]), rel=1e-13)
        assert torch.allclose(derivative, expected[1], rtol=1e-12, atol=1e-15)
