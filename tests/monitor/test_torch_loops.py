"""The monitor under what real loops do: the training stays the same bit for bit, and each number is that of an independent record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch_loops import Kept, Spy, check_steps, close, shifted, watched_and_plain

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Status
from proxyconvex.torch import Monitor

F = nn.functional
STEPS = 23
pytestmark = pytest.mark.usefixtures("one_thread")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 160), nn.ReLU(), nn.Linear(160, 120), nn.Tanh(), nn.Linear(120, 3))


def data(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def usual(model: nn.Module, optimizer: Any, monitor: Any) -> None:
    x, y = data()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        monitor.loss(loss)
        optimizer.step()


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "weight decay": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "maximize": lambda p: torch.optim.SGD(p, lr=1e-3, maximize=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_product_of_every_step(name: str) -> None:
    monitor, records, spy, v = watched_and_plain(mlp, OPTIMIZERS[name], usual)
    check_steps(records, spy, v)
    assert monitor.verdict().status is Status.HOLDS, monitor.verdict().sentence
    assert all(r["gradient"] == "raw" and r["loss"] > 0 for r in records)
    assert ("update_sq" in records[0]) == (name != "SGD")
    if name == "SGD":
        checks = [r["update_drift"] for r in records if "update_drift" in r]
        assert len(checks) == 3
        assert max(checks) < 1e-4


def test_float64_precision_on_float32_weights() -> None:
    _, records, spy, v = watched_and_plain(mlp, OPTIMIZERS["Adam"], usual, precision="float64")
    check_steps(records, spy, v, tolerance=1e-12)


def test_t7_is_not_vacuous_a_change_behind_the_optimizer_is_found() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    x, y = data()
    with Monitor(model, "init") as monitor:
        for t in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if t == 11:
                with torch.no_grad():
                    model[0].weight += 0.01
    assert monitor.verdict().status is Status.FALSIFIED
    assert "step 12" in monitor.verdict().sentence


@pytest.mark.parametrize("told", [False, True], ids=["", "first batch told"])
def test_gradient_accumulation_and_its_unbiased_norm(told: bool) -> None:
    parts: list[list[torch.Tensor]] = []

    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data(16)
        for _ in range(STEPS):
            optimizer.zero_grad()
            for i in range(4):
                rows = slice(4 * i, 4 * i + 4)
                if told:
                    monitor.batch(x[rows], y[rows], F.cross_entropy)
                loss = F.cross_entropy(model(x[rows]), y[rows]) / 4
                loss.backward()
                monitor.loss(loss)
            parts.append([p.detach().clone() for p in model.parameters()])
            optimizer.step()

    _, records, spy, v = watched_and_plain(
        mlp, OPTIMIZERS["SGD"], loop, schedule={"record": 1, "half-batch": 5}
    )
    check_steps(records, spy, v)
    assert {r["gradient"] for r in records} == {"raw+accumulated"}
    # Before step 5 nobody knew that there would be several passes; a batch that was told has parts of its own.
    counted = [r for r in records if "parts_sum_sq" in r and r["step"]]
    assert [r["step"] for r in counted] == [5, 10, 15, 20]
    x, y = data(16)
    model = mlp()
    for r in counted:
        for p, w in zip(model.parameters(), parts[r["step"]], strict=True):
            p.data.copy_(w)
        g = []
        for i in range(4):
            loss = F.cross_entropy(model(x[4 * i : 4 * i + 4]), y[4 * i : 4 * i + 4])
            g.append(
                torch.cat(
                    [t.reshape(-1) for t in torch.autograd.grad(loss, list(model.parameters()))]
                ).double()
            )
        unbiased = sum(float(g[i] @ g[j]) for i in range(4) for j in range(4) if i != j) / 12
        assert r["parts"] == 4
        assert "part_size" not in r, "that of the parts of the first batch is another"
        assert close((r["parts_total_sq"] - r["parts_sum_sq"]) / 12, unbiased, 1e-4)
        assert close(r["loss"], F.cross_entropy(model(x), y).item(), 1e-5)


@pytest.mark.parametrize("maximum", [0.05, 100.0])
def test_clipping_by_norm_records_both_gradients(maximum: float) -> None:
    before: list[torch.Tensor] = []

    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data()
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            before.append(torch.cat([p.grad.double().reshape(-1) for p in model.parameters()]))
            clip_grad_norm_(model.parameters(), maximum)
            optimizer.step()

    monitor, records, spy, v = watched_and_plain(mlp, OPTIMIZERS["SGD"], loop)
    check_steps(records, spy, v)
    assert monitor.verdict().status is Status.HOLDS
    for r, g, w in zip(records, before, spy.weights, strict=False):
        assert r["gradient"] == "clipped"
        assert close(r["raw_grad_sq"], float(g @ g), 1e-5)
        assert close(r["raw_grad_w_minus_v"]["v"], float(g @ (w - v)), 1e-4, float(g.norm() * (w - v).norm()))
        assert (r["clip"] < 1) == (maximum < 1)


def test_clipping_by_value_or_of_a_part_leaves_the_raw_gradient_unseen() -> None:
    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data()
        for t in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if t % 2:
                clip_grad_value_(model.parameters(), 0.01)
            else:
                clip_grad_norm_(model[0].parameters(), 0.01)
            optimizer.step()

    monitor, records, spy, v = watched_and_plain(mlp, OPTIMIZERS["SGD"], loop)
    check_steps(records, spy, v)
    assert {r["gradient"] for r in records} == {"clipped"}
    assert not any("raw_grad_sq" in r for r in records)
    assert monitor.verdict().status is Status.HOLDS


def scaled_loop(blow_up: int) -> Any:
    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=5)
        for t in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(x).float(), y)
            scaler.scale(loss * float("inf") if t == blow_up else loss).backward()
            monitor.loss(loss)
            scaler.step(optimizer)
            scaler.update()

    return loop


@pytest.mark.parametrize("fused", [False, True], ids=["unscaled before the step", "unscaled inside the step"])
def test_scaler_gradients_are_unscaled_once_and_a_skipped_step_is_recorded(fused: bool) -> None:
    make = lambda p: torch.optim.SGD(p, lr=0.1, fused=fused)  # noqa: E731
    monitor, records, spy, v = watched_and_plain(mlp, make, scaled_loop(9))
    assert [r["step"] for r in records if r.get("skipped")] == [9]
    assert len(records) == STEPS
    assert monitor.ledger.skipped == 1
    assert monitor.verdict().status is Status.HOLDS, monitor.verdict().sentence
    if not fused:
        check_steps(records, spy, v)
        return
    # The spy saw scaled gradients; the weights tell the unscaled ones: w_t - w_{t+1} = eta g.
    for t, r in enumerate(records):
        u = (spy.weights[t] - spy.weights[t + 1]) / 0.1
        if t != 9:
            assert close(r["grad_sq"], float(u @ u), 1e-3)
            assert close(r["grad_w_minus_v"]["v"], float(u @ (spy.weights[t] - v)), 1e-3, float(u.norm()))


def test_scaler_with_clipping_and_adam() -> None:
    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for t in range(STEPS):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y) * (float("nan") if t == 3 else 1.0)).backward()
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()

    monitor, records, spy, v = watched_and_plain(mlp, OPTIMIZERS["Adam"], loop)
    assert [r["step"] for r in records if r.get("skipped")] == [3]
    check_steps(records, spy, v)
    assert monitor.verdict().status is Status.HOLDS


@pytest.mark.parametrize("keyword", [False, True])
@pytest.mark.parametrize("name", ["SGD", "LBFGS"])
def test_closures(name: str, keyword: bool) -> None:
    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data()
        for _ in range(6):

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure=closure) if keyword else optimizer.step(closure)

    make = {
        "SGD": OPTIMIZERS["SGD"],
        "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4, line_search_fn="strong_wolfe"),
    }
    monitor, records, spy, v = watched_and_plain(mlp, make[name], loop)
    assert len(records) == 6
    assert monitor.verdict().status is Status.HOLDS
    x, y = data()
    model = mlp()
    for t, r in enumerate(records):
        start = 0
        for p in model.parameters():
            p.data.copy_(spy.weights[t][start : start + p.numel()].view_as(p))
            start += p.numel()
        loss = F.cross_entropy(model(x), y)
        g = torch.cat([q.reshape(-1) for q in torch.autograd.grad(loss, list(model.parameters()))]).double()
        a = spy.weights[t] - v
        assert r["gradient"] == "raw"
        assert close(r["loss"], loss.item(), 1e-5)
        assert close(r["grad_sq"], float(g @ g), 1e-4)
        assert close(r["grad_w_minus_v"]["v"], float(g @ a), 1e-4, float(g.norm() * a.norm()))


def test_frozen_parameters_are_no_part_of_the_vector() -> None:
    def frozen() -> nn.Module:
        model = mlp()
        model[0].requires_grad_(False)
        return model

    monitor, records, spy, v = watched_and_plain(frozen, OPTIMIZERS["Adam"], usual)
    check_steps(records, spy, v)
    assert monitor.ledger.meta["parameters"] == sum(
        p.numel() for p in frozen().parameters() if p.requires_grad
    )


def test_a_parameter_outside_the_optimizer_is_no_part_of_the_vector() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with Monitor(model, shifted(model)) as monitor:
        usual(model, optimizer, monitor)
    assert monitor.ledger.meta["parameters"] == 120 * 160 + 120
    assert monitor.verdict().status is Status.HOLDS


def test_parameter_groups_with_different_steps() -> None:
    def make(params: list[Any]) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": params[:2], "lr": 0.1}, {"params": params[2:], "lr": 0.01}])

    monitor, records, spy, v = watched_and_plain(mlp, make, usual)
    check_steps(records, spy, v)
    assert records[0]["eta"] == [0.1, 0.01]
    assert "update_sq" in records[0]
    assert monitor.verdict().status is Status.HOLDS


def test_learning_rate_schedule() -> None:
    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        x, y = data()
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()

    monitor, records, spy, v = watched_and_plain(mlp, OPTIMIZERS["SGD"], loop)
    check_steps(records, spy, v)
    assert [r["eta"] for r in records] == pytest.approx([0.1 * 0.9**t for t in range(STEPS)])
    assert monitor.verdict().status is Status.HOLDS


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embed(x)))


def token_loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randint(0, 11, (9,), generator=generator) for _ in range(2))
    for _ in range(STEPS):
        optimizer.zero_grad()
        monitor.batch(x, y, F.cross_entropy)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        monitor.loss(loss)
        optimizer.step()


def test_shared_weights_count_once() -> None:
    monitor, records, spy, v = watched_and_plain(
        Tied, OPTIMIZERS["Adam"], token_loop, preset="standard", schedule={"record": 1}
    )
    check_steps(records, spy, v)
    assert monitor.ledger.meta["parameters"] == 88
    assert all("tangent_loss" in r for r in records[::10])


def test_sparse_gradients() -> None:
    make = lambda: nn.Sequential(nn.Embedding(11, 8, sparse=True), nn.Linear(8, 11))  # noqa: E731
    monitor, records, spy, v = watched_and_plain(make, OPTIMIZERS["SGD"], token_loop)
    check_steps(records, spy, v)
    assert monitor.verdict().status is Status.HOLDS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_half_precision_models(dtype: torch.dtype, name: str) -> None:
    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        x, y = data()
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.to(dtype)).float(), y)
            loss.backward()
            monitor.loss(loss)
            optimizer.step()

    make = lambda: mlp().to(dtype)  # noqa: E731
    chosen = {"SGD": OPTIMIZERS["SGD"], "Adam": lambda p: torch.optim.Adam(p, lr=1e-2, eps=1e-3)}[name]
    monitor, records, spy, v = watched_and_plain(make, chosen, loop)
    check_steps(records, spy, v, tolerance=1e-5)
    # The step is what the rounded weights really did, not eta g.
    assert "update_sq" in records[0]
    assert monitor.verdict().status is Status.HOLDS


def test_near_the_comparator_no_digits_are_lost() -> None:
    make = lambda: nn.Sequential(nn.Linear(5, 3))  # noqa: E731
    torch.manual_seed(0)
    model = make()
    v = {n: p.detach() * (1 + 1e-6) for n, p in model.named_parameters()}
    _, records, spy, flat = watched_and_plain(
        make, lambda p: torch.optim.SGD(p, lr=1e-9), usual, comparator=v
    )
    true = float((spy.weights[0] - flat) @ (spy.weights[0] - flat))
    assert close(records[0]["dist_sq"]["v"], true, 1e-5)
    w32, v32 = spy.weights[0].float(), flat.float()
    assert not close(float(w32 @ w32 - 2 * w32 @ v32 + v32 @ v32), true, 0.1)


def test_exceptions_of_the_loop_pass_through_unchanged() -> None:
    class Mine(Exception):
        pass

    torch.manual_seed(0)
    model = mlp()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    x, y = data()
    error = Mine("from the loop")
    kept = Kept()
    original = torch.amp.GradScaler.step
    with pytest.raises(Mine) as caught, Monitor(model, sinks=[kept]) as monitor:
        for t in range(9):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if t == 5:
                raise error
    assert caught.value is error
    assert monitor.ledger.steps == 6
    assert torch.amp.GradScaler.step is original
    steps = monitor.ledger.steps
    optimizer.step()
    assert monitor.ledger.steps == steps


def test_an_exception_in_a_closure_passes_through() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["SGD"](model.parameters())

    def closure() -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Monitor(model):
        optimizer.step(closure)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("stop", [1, 10, 11])
def test_resume_at_any_step(name: str, stop: int, tmp_path: Any) -> None:
    x, y = data()

    def some(model: nn.Module, optimizer: Any, monitor: Monitor, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            monitor.batch(x, y, F.cross_entropy)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            monitor.loss(loss)
            optimizer.step()

    def start() -> tuple[nn.Module, Any, Kept]:
        torch.manual_seed(0)
        model = mlp()
        return model, OPTIMIZERS[name](model.parameters()), Kept()

    options: dict[str, Any] = {"preset": "standard", "schedule": {"record": 1}}
    model, optimizer, whole = start()
    comparators = {"v": shifted(model), "init": "init"}
    with Monitor(model, comparators, sinks=[whole], **options) as monitor:
        some(model, optimizer, monitor, STEPS)
    expected = monitor.ledger.totals()["tracks"]

    model, optimizer, first = start()
    monitor = Monitor(model, comparators, sinks=[first], **options).attach(optimizer)
    some(model, optimizer, monitor, stop)
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "monitor": monitor.state_dict()},
        tmp_path / "c.pt",
    )
    saved = torch.load(tmp_path / "c.pt", weights_only=True)

    torch.manual_seed(5)
    model, second = mlp(), Kept()
    optimizer = OPTIMIZERS[name](model.parameters())
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    resumed = Monitor(model, comparators, sinks=[second], **options)
    resumed.load_state_dict(saved["monitor"])
    with resumed:
        some(model, optimizer, resumed, STEPS - stop)
    assert [r["step"] for r in first.records + second.records] == list(range(STEPS))
    assert resumed.verdict().status is Status.HOLDS
    assert resumed.verdict("init").status is Status.HOLDS
    found = resumed.ledger.totals()["tracks"]
    for c in comparators:
        for key, value in expected[c].items():
            if isinstance(value, float) and key not in ("worst", "share"):
                assert close(found[c][key], value, 1e-5, 1e-6), (c, key)


def test_two_monitors_at_once() -> None:
    torch.manual_seed(0)
    a, b = mlp(), mlp()
    first, second = OPTIMIZERS["SGD"](a.parameters()), OPTIMIZERS["Adam"](b.parameters())
    with Monitor(a) as one, Monitor(b) as two:
        for _ in range(3):
            usual(a, first, one)
        usual(b, second, two)
    assert (one.ledger.steps, two.ledger.steps) == (3 * STEPS, STEPS)


def test_attach_several_optimizers() -> None:
    torch.manual_seed(0)
    model = mlp()
    spy_optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    other = torch.optim.Adam([*model[2].parameters(), *model[4].parameters()], lr=1e-3)
    spy = Spy(model, spy_optimizer)
    v, kept = shifted(model), Kept()
    monitor = Monitor(model, v, sinks=[kept], schedule={"record": 1}).attach(spy_optimizer, other)
    x, y = data()
    for _ in range(STEPS):
        spy_optimizer.zero_grad()
        other.zero_grad()
        F.cross_entropy(model(x), y).backward()
        spy_optimizer.step()
        other.step()
    monitor.close()
    spy.end()
    check_steps(kept.records, spy, spy.flat(v))
    assert monitor.verdict().status is Status.HOLDS


def test_what_is_refused() -> None:
    model = mlp()
    with pytest.raises(InvalidInputError, match="Missing: 0.weight"):
        Monitor(model, {"2.weight": model[2].weight})
    with pytest.raises(InvalidInputError, match="exists"):
        Monitor(model, "nowhere.pt")
    with pytest.raises(InvalidInputError, match="'light'"):
        Monitor(model, preset="heavy")
    with pytest.raises(InvalidInputError, match="requires a gradient"):
        Monitor(mlp().requires_grad_(False))
    with pytest.raises(InvalidInputError, match="optimizer"):
        Monitor(model).attach(object())
    with pytest.raises(InvalidInputError, match="optimizer of this model"):
        Monitor(model).attach(OPTIMIZERS["SGD"](mlp().parameters()))
    with pytest.raises(InvalidInputError, match="shape"):
        wrong = shifted(model) | {"0.bias": torch.zeros(3)}
        with Monitor(model, wrong) as monitor:
            usual(model, OPTIMIZERS["SGD"](model.parameters()), monitor)
    monitor = Monitor(model)
    with monitor:
        usual(model, OPTIMIZERS["SGD"](model.parameters()), monitor)
    with pytest.raises(InvalidInputError, match="whole run"), monitor:
        pass


def test_the_average_of_the_iterates() -> None:
    monitor, _, spy, _ = watched_and_plain(mlp, OPTIMIZERS["Adam"], usual, comparator="average")
    result = monitor.average
    w = torch.stack(spy.weights)
    v = w[:-1].mean(0)
    left = sum(float((w[t] - w[t + 1]) @ (w[t] - v)) for t in range(STEPS))
    assert result is not None
    assert close(result.dist0_sq, float((w[0] - v).square().sum()), 1e-5)
    assert close(result.distT_sq, float((w[-1] - v).square().sum()), 1e-5)
    assert close(result.update_dot, left, 1e-4)
    assert result.verdict.status is Status.HOLDS
