"""Chains of dense layers: every number against the general evaluation and against autograd, and what must not be taken for a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch_loops import close, watched_and_plain

from proxyconvex.monitor.pytorch import dense, probing
from proxyconvex.monitor.pytorch.functional import Functional
from proxyconvex.monitor.pytorch.halves import Halves

F = nn.functional
ROWS = 12
pytestmark = pytest.mark.usefixtures("one_thread")


def wide() -> nn.Module:
    """Its first layer is larger than the batch: norms from the rows' products."""
    return nn.Sequential(nn.Linear(60, 50), nn.ReLU(), nn.Linear(50, 3))


def nested() -> nn.Module:
    inner = nn.Sequential(nn.Linear(20, 9, bias=False), nn.Identity(), nn.Tanh(), nn.Dropout(0.0))
    return nn.Sequential(nn.GELU(), nn.Flatten(), inner, nn.Linear(9, 8), nn.Sigmoid(), nn.Linear(8, 3))


def frozen(*names: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = nn.Sequential(
            nn.Linear(6, 7), nn.SiLU(), nn.Linear(7, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)
        )
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        return model

    return make


CHAINS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "wide": (wide, (60,)),
    "nested": (nested, (4, 5)),
    "one layer": (lambda: nn.Linear(6, 3), (6,)),
    "in place": (lambda: nn.Sequential(nn.Linear(6, 7), nn.ELU(inplace=True), nn.Linear(7, 3)), (6,)),
    "images": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 7), nn.Softplus(), nn.Linear(7, 3)),
        (2, 3, 3),
    ),
    "frozen": (frozen("0.weight", "2.bias"), (6,)),
    "first layer frozen": (frozen("0.weight", "0.bias", "2.weight"), (6,)),
    "only a bias": (frozen("0.weight", "0.bias", "2.weight", "2.bias", "4.weight"), (6,)),
    "off": (lambda: nn.Sequential(nn.Linear(6, 7), nn.Dropout(0.5), nn.Linear(7, 3)).eval(), (6,)),
}
EACH = [nn.ReLU6, nn.LeakyReLU, nn.SELU, nn.CELU, nn.Mish, nn.Softsign, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Tanhshrink]  # fmt: skip
CHAINS |= {m.__name__: (lambda m=m: nn.Sequential(nn.Linear(6, 7), m(), nn.Linear(7, 3)), (6,)) for m in EACH}


def started(name: str) -> tuple[nn.Module, Functional, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    make, shape = CHAINS[name]
    model = make().double()
    x = torch.randn(ROWS, *shape, dtype=torch.float64)
    y = torch.randint(0, 3, (ROWS,))
    return model, Functional(model, [n for n, p in model.named_parameters() if p.requires_grad]), x, y


def row_gradients(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """[n, p], one row at a time by reverse differentiation."""
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        gs = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), trained)
        rows.append(torch.cat([g.reshape(-1) for g in gs]))
    return torch.stack(rows)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_what_the_general_evaluation_is(name: str) -> None:
    model, general, x, y = started(name)
    kept = x.clone()
    chain = dense.chain(general, x)
    assert chain is not None
    direction = [torch.randn_like(p) for p in general.params]
    (out, slope), (expected, derivative) = chain.jvp(x, direction), general.jvp(x, direction)
    assert torch.allclose(out, expected, rtol=1e-13)
    assert torch.allclose(slope, derivative, rtol=1e-11, atol=1e-13)

    g = row_gradients(model, x, y)
    rows = chain.rows(y, F.cross_entropy)
    assert rows is not None
    assert rows.count == ROWS
    assert rows.total() == pytest.approx(float(g.sum(0) @ g.sum(0)), rel=1e-10)
    assert ROWS**2 * float(sum(rows.squares)) == pytest.approx(float((g * g).sum()), rel=1e-10)

    found = Halves(general).start(0, (x, y, F.cross_entropy), known=False)
    total, each = chain.halves(y, F.cross_entropy)
    assert total == pytest.approx(found["parts_total_sq"], rel=1e-10)
    assert each == pytest.approx(found["parts_sum_sq"], rel=1e-10)
    assert torch.equal(x, kept)
    assert all(p.grad is None for p in model.parameters())


def test_what_is_kept_is_of_the_weights_of_that_moment() -> None:
    model, general, x, _ = started("wide")
    direction = [torch.randn_like(p) for p in general.params]
    before = dense.chain(general, x)
    assert before is not None
    before.forward()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    after = dense.chain(general, x)
    assert after is not None
    assert torch.allclose(after.jvp(x, direction)[1], general.jvp(x, direction)[1], rtol=1e-11)


def test_a_batch_written_to_in_the_meantime_gives_no_norm() -> None:
    _, general, x, y = started("wide")
    chain = dense.chain(general, x)
    assert chain is not None
    rows = chain.rows(y, F.cross_entropy)
    x.mul_(2)
    assert rows is not None
    assert rows.total() is None


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_norms_from_row_products_lose_no_digits_where_gradients_cancel(spread: float) -> None:
    # Rows around a common one, under derivatives that add up to zero: of the products nothing is left but the spread.
    torch.manual_seed(0)
    x = (1 + spread * torch.randn(40, 300, dtype=torch.float64)).float()
    delta = torch.randn(40, 200, dtype=torch.float64)
    delta = (delta - delta.mean(0)).float()
    exact = (delta.double().T @ x.double()).square().sum().item()
    assert dense.square(x, delta) == pytest.approx(exact, rel=1e-4)
    assert dense.square(x, delta.abs(), weight=False, bias=True) == pytest.approx(
        delta.double().abs().sum(0).square().sum().item(), rel=1e-5
    )


# -- what is no chain -------------------------------------------------------------------------------------------------


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)).roll(1, 0)


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Residual(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def with_hook(kind: str) -> nn.Module:
    model = frozen()()
    hook = {
        "register_forward_hook": lambda *a: 2 * a[-1],
        "register_forward_pre_hook": lambda m, a: (2 * a[0],),
        "register_full_backward_hook": lambda *a: None,
        "register_full_backward_pre_hook": lambda *a: None,
    }[kind]
    getattr(model[2], kind)(hook)
    return model


def replaced() -> nn.Module:
    model = frozen()()
    forward = model[0].forward
    model[0].forward = lambda x: 2 * forward(x)  # type: ignore[method-assign]
    return model


def shared() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    return model


def unused() -> nn.Module:
    model = frozen()()
    model.register_parameter("extra", nn.Parameter(torch.zeros(2)))
    return model


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "own forward": Own,
    "subclass of a layer": lambda: nn.Sequential(Doubled(6, 3)),
    "subclass of the sequence": lambda: Residual(nn.Linear(6, 6)),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 7), nn.LayerNorm(7), nn.Linear(7, 3)),
    "softmax inside": lambda: nn.Sequential(nn.Linear(6, 7), nn.Softmax(0), nn.Linear(7, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 7), nn.Dropout(0.1), nn.Linear(7, 3)),
    "learned activation": lambda: nn.Sequential(nn.Linear(6, 7), nn.PReLU(), nn.Linear(7, 3)),
    "random activation": lambda: nn.Sequential(nn.Linear(6, 7), nn.RReLU(), nn.Linear(7, 3)),
    "flattens the batch": lambda: nn.Sequential(nn.Linear(6, 7), nn.Flatten(0), nn.Unflatten(0, (ROWS, 7))),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))),
    "spectral norm": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 3))),
    "shared": shared,
    "tied": tied,
    "unused parameter": unused,
    "replaced forward": replaced,
    "bfloat16": lambda: frozen()().bfloat16(),
    "complex": lambda: nn.Sequential(nn.Linear(6, 3, dtype=torch.complex64)),
    **{k: (lambda k=k: with_hook(k)) for k in (
        "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook",
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_is_left_to_the_general_evaluation(name: str) -> None:
    model = OTHERS[name]()
    x = torch.randn(ROWS, 6).to(next(model.parameters()).dtype)
    assert dense.chain(Functional(model, [n for n, _ in model.named_parameters()]), x) is None


def test_other_batches_and_calls_are_left_to_the_general_evaluation() -> None:
    model = frozen()()
    names = [n for n, _ in model.named_parameters()]
    general, x = Functional(model, names), torch.randn(ROWS, 6)
    assert dense.chain(general, x) is not None
    assert dense.chain(general, (x,)) is not None
    for other in ((x, x), {"input": x}, x.double(), x[0], x.to_sparse(), [x.tolist()]):
        assert dense.chain(general, other) is None
    assert dense.chain(Functional(model, names, lambda m, x: m(2 * x)), x) is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dense.chain(general, x) is None
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert dense.chain(general, x) is None
    handle.remove()
    assert dense.chain(general, torch.randn(ROWS, 4, 6)) is None, "not one row for each input"


def test_dropout_counts_only_while_it_is_on() -> None:
    model = nn.Sequential(nn.Linear(6, 7), nn.Dropout(0.5), nn.Linear(7, 3))
    general, x = Functional(model, [n for n, _ in model.named_parameters()]), torch.randn(ROWS, 6)
    assert dense.chain(general, x) is None
    model.eval()
    assert dense.chain(general, x) is not None


# -- which losses are means -------------------------------------------------------------------------------------------

CLASSES, OUT = torch.arange(ROWS) % 3, torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1))
SHARES = torch.softmax(OUT.roll(1, 0), 1)
MEANS: dict[str, tuple[Any, torch.Tensor]] = {
    "cross entropy": (F.cross_entropy, CLASSES),
    "shares": (F.cross_entropy, SHARES),
    "module": (nn.CrossEntropyLoss(), CLASSES),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES),
    "squared": (F.mse_loss, SHARES),
    "squared module": (nn.MSELoss(), SHARES),
    "logistic": (F.binary_cross_entropy_with_logits, SHARES),
    "logistic module": (nn.BCEWithLogitsLoss(), SHARES),
}


def hooked_loss() -> nn.Module:
    loss = nn.MSELoss()
    loss.register_forward_hook(lambda m, a, out: out * len(a[0]))
    return loss


NOT_KNOWN: dict[str, tuple[Any, Any]] = {
    "a row left out": (F.cross_entropy, torch.where(CLASSES == 0, -100, CLASSES)),
    "another row left out": (nn.CrossEntropyLoss(ignore_index=1), CLASSES),
    "weights": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), CLASSES),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), CLASSES),
    "sum of squares": (nn.MSELoss(reduction="sum"), SHARES),
    "broadcast": (F.mse_loss, SHARES[:1]),
    "positive weight": (nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)), SHARES),
    "own": (lambda out, y: F.cross_entropy(out, y), CLASSES),
    "hook": (hooked_loss(), SHARES),
    "no tensor": (F.cross_entropy, {"labels": CLASSES}),
}


@pytest.mark.parametrize("name", MEANS)
def test_a_loss_that_is_taken_for_a_mean_is_one(name: str) -> None:
    loss, y = MEANS[name]
    assert dense.is_mean_over_rows(loss, OUT, y)
    rows = torch.stack([loss(OUT[i : i + 1], y[i : i + 1]) for i in range(ROWS)])
    assert float(loss(OUT, y)) == pytest.approx(float(rows.mean()), rel=1e-6)


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_other_losses_are_not_taken_for_means(name: str) -> None:
    assert not dense.is_mean_over_rows(NOT_KNOWN[name][0], OUT, NOT_KNOWN[name][1])


# -- in a monitored loop ----------------------------------------------------------------------------------------------


def watched(loss_fn: Any, y: torch.Tensor, rows: int) -> list[dict[str, Any]]:
    """Records of the standard preset at every step of a loop, and the same training with and without the monitor."""
    x = torch.randn(rows, 60, generator=torch.Generator().manual_seed(3))

    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        for _ in range(15):
            optimizer.zero_grad()
            monitor.batch(x, y[:rows], loss_fn)
            loss = loss_fn(model(x), y[:rows])
            loss.backward()
            monitor.loss(loss)
            optimizer.step()

    chosen = {"record": 1, "tangent-loss": 1, "half-batch": 1, "smoothness": 4}
    _, records, *_ = watched_and_plain(
        wide, lambda p: torch.optim.SGD(p, lr=0.1), loop, preset="standard", schedule=chosen
    )
    return records


@pytest.mark.parametrize("rows", [11, 12])
@pytest.mark.parametrize("name", ["cross entropy", "squared", "own"])
def test_the_log_is_that_of_the_general_evaluation(
    name: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss_fn, y = (MEANS | NOT_KNOWN)[name]
    short = watched(loss_fn, y, rows)
    monkeypatch.setattr(probing, "chain", lambda *_: None)
    general = watched(loss_fn, y, rows)
    assert len(short) == len(general) == 15
    for a, b in zip(short, general, strict=True):
        assert close(a["tangent_loss"]["v"], b["tangent_loss"]["v"], 1e-5)
        assert close(a["probe_loss"], b["probe_loss"], 1e-6)
        assert close(a["probe_inner"]["v"], b["probe_inner"]["v"], 1e-4, abs(b["loss"]))
        assert b["parts"] == 2
        assert (a["parts"], a["part_size"]) == ((2, rows // 2) if name == "own" else (rows, 1))
        if name == "own":
            assert close(a["parts_total_sq"], b["parts_total_sq"], 1e-4)
            assert close(a["parts_sum_sq"], b["parts_sum_sq"], 1e-4)
        if rows % 2 == 0:
            # The batch's own gradient, whatever the parts.
            assert close(a["parts_total_sq"] / a["parts"] ** 2, b["parts_total_sq"] / 4, 1e-4)
    assert [("secant_smoothness" in a) for a in short] == [("secant_smoothness" in b) for b in general]


def test_row_parts_are_the_exact_noise_of_the_batch() -> None:
    loss_fn, y = MEANS["cross entropy"]
    r = watched(loss_fn, y, ROWS)[0]
    torch.manual_seed(0)
    model = wide().double()
    x = torch.randn(ROWS, 60, generator=torch.Generator().manual_seed(3)).double()
    # Weights that were drawn in float32.
    torch.manual_seed(0)
    model.load_state_dict(wide().state_dict())
    params = {n: p.detach() for n, p in model.named_parameters()}
    each = vmap(
        grad(lambda p, a, b: F.cross_entropy(functional_call(model, p, (a[None],)), b[None])), (None, 0, 0)
    )(params, x, y)
    g = torch.cat([each[n].flatten(1) for n in params], 1)
    k, total, squares = r["parts"], r["parts_total_sq"], r["parts_sum_sq"]
    pairs = ((g @ g.T).sum() - (g * g).sum()) / (ROWS * (ROWS - 1))
    assert (total - squares) / (k * (k - 1)) == pytest.approx(float(pairs), rel=1e-4)
    variance = (g - g.mean(0)).square().sum() / (ROWS - 1)
    assert (squares - total / k) / (k - 1) == pytest.approx(float(variance), rel=1e-4)
