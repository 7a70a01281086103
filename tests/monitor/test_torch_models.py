"""Architectures under the full preset (training unchanged to the bit), and every probe against autograd by another route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch_loops import Kept, check_steps, close, shifted, watched_and_plain

from proxyconvex.core.evidence import Status
from proxyconvex.monitor.pytorch import comparators, probes
from proxyconvex.monitor.pytorch.functional import Functional
from proxyconvex.monitor.pytorch.halves import Halves
from proxyconvex.torch import Monitor

F = nn.functional
STEPS = 7
pytestmark = pytest.mark.usefixtures("one_thread")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 16)
        self.body = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(4, 12, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0][:, -1])


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 3),
    )


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def tokens(n: int) -> torch.Tensor:
    return torch.randint(0, 7, (n, 5), generator=torch.Generator().manual_seed(2))


def sequences(n: int) -> torch.Tensor:
    return torch.randn(n, 6, 4, generator=torch.Generator().manual_seed(2))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], torch.Tensor]]] = {
    "batch norm and dropout": (conv, images),
    "channels last": (lambda: conv().to(memory_format=torch.channels_last), images),
    "layer norm": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(24, 20), nn.LayerNorm(20), nn.GELU(), nn.Linear(20, 3)),
        sequences,
    ),
    "attention": (Attention, tokens),
    "LSTM": (Recurrent, sequences),
    "GRU": (lambda: _Last(nn.GRU(4, 12, batch_first=True)), sequences),
    "compiled": (lambda: torch.compile(conv(), backend="eager"), images),
}


class _Last(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0][:, -1])


def targets(n: int) -> torch.Tensor:
    return torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", MODELS)
def test_training_is_unchanged_under_everything_recorded_at_every_step(name: str) -> None:
    make, inputs = MODELS[name]
    x, y = inputs(10), targets(10)

    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            monitor.batch(x, y, F.cross_entropy)
            out = model(x)
            loss = F.cross_entropy(out, y)
            loss.backward()
            monitor.loss(loss)
            monitor.outputs(out, y)
            optimizer.step()

    monitor, records, spy, v = watched_and_plain(
        make, lambda p: torch.optim.Adam(p, lr=1e-3), loop, preset="full", loss_name="cross-entropy", probe=(x, y),
        schedule={"record": 1, "tangent-margin": 3},
    )  # fmt: skip
    check_steps(records, spy, v)
    assert monitor.verdict().status is Status.HOLDS
    for r in records:
        # The probe's forward pass drew the masks and used the statistics of the loop's own.
        assert close(r["probe_loss"], r["loss"], 1e-5)
        size = (r["grad_sq"] * r["dist_sq"]["v"]) ** 0.5
        assert close(r["probe_inner"]["v"], r["grad_w_minus_v"]["v"], 1e-4, size), (
            "D N[w - v] against the loop's gradient"
        )
        assert r["tangent_loss"]["v"] >= r["probe_loss"] - r["probe_inner"]["v"] - 1e-4 * (1 + size)
        assert r["parts"] == 2
        assert {"slope", "error", "margin_mean", "margin_min"} <= set(r)
    assert all(r["secant_smoothness"] > 0 for r in records[:-1])
    assert [r["step"] for r in records if "ntk_eigenvalue" in r] == [0, 3, 6]
    assert all(r["tangent_margin"] > -1e9 for r in records if "ntk_eigenvalue" in r)


def test_names_without_the_wrappers() -> None:
    model = conv()
    compiled = torch.compile(model, backend="eager")
    assert [n for n, _ in comparators.trained_parameters(compiled)] == [
        n for n, _ in model.named_parameters()
    ]
    prefixed = {f"module._orig_mod.{n}": p for n, p in model.state_dict().items()}
    found = comparators.resolve(prefixed, comparators.trained_parameters(compiled))
    assert all(torch.equal(found[n], p) for n, p in model.named_parameters())
    assert comparators.clean("_orig_mod.a._orig_mod.b") == "a.b"


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "lightning", "module", "safetensors", "averaged"])
def test_comparators_from_files_and_modules(wrap: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = conv()
    v = shifted(model)
    if wrap in ("module", "averaged"):
        other = conv()
        other.load_state_dict(model.state_dict() | v)
        source: Any = other if wrap == "module" else torch.optim.swa_utils.AveragedModel(other)
    elif wrap == "safetensors":
        from safetensors.torch import save_file

        save_file({k: t.contiguous() for k, t in v.items()}, tmp_path / "v.safetensors")
        source = tmp_path / "v.safetensors"
    else:
        inside = {
            "plain": v,
            "state_dict": {"state_dict": v, "epoch": 3},
            "lightning": {"state_dict": {f"model.{k}": t for k, t in v.items()}},
        }
        torch.save(inside[wrap], tmp_path / "v.pt")
        source = str(tmp_path / "v.pt")
    found = comparators.resolve(source, comparators.trained_parameters(model))
    assert all(torch.equal(found[n], v[n]) for n, _ in model.named_parameters())


# -- probes against autograd by another route, in float64 -------------------------------------------------------------


def small() -> tuple[nn.Module, torch.Tensor, torch.Tensor, list[str]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    return model, x, targets(8), [n for n, _ in model.named_parameters()]


def jacobian(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """[n, c, p], by reverse differentiation of the whole Jacobian."""
    params = {n: p.detach() for n, p in model.named_parameters()}
    parts = jacrev(lambda p: functional_call(model, p, (x,)))(params)
    return torch.cat([parts[n].flatten(2) for n in params], 2)


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def test_tangent_loss_against_the_dense_jacobian() -> None:
    model, x, y, names = small()
    v = shifted(model)
    found = probes.tangent_loss(Functional(model, names), x, y, F.cross_entropy, {"v": [v[n] for n in names]})
    direction = flat(v[n] for n in names) - flat(model.parameters())
    with torch.no_grad():
        linear = model(x) + jacobian(model, x) @ direction
    g = flat(torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters())))
    assert found["tangent_loss"]["v"] == pytest.approx(F.cross_entropy(linear, y).item(), rel=1e-12)
    assert found["probe_inner"]["v"] == pytest.approx(-(g @ direction).item(), rel=1e-10)
    assert found["probe_loss"] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-14)


def test_half_batches_against_autograd() -> None:
    model, x, y, names = small()
    found = Halves(Functional(model, names)).start(0, (x, y, F.cross_entropy), known=False)
    a, b = (
        flat(torch.autograd.grad(F.cross_entropy(model(x[r]), y[r]), list(model.parameters())))
        for r in (slice(0, 4), slice(4, 8))
    )
    assert found["parts_total_sq"] == pytest.approx(((a + b) @ (a + b)).item(), rel=1e-12)
    assert found["parts_sum_sq"] == pytest.approx((a @ a + b @ b).item(), rel=1e-12)
    assert (found["parts_total_sq"] - found["parts_sum_sq"]) / 2 == pytest.approx((a @ b).item(), rel=1e-10)


def test_secant_smoothness_of_a_quadratic_is_its_curvature() -> None:
    # f = mean (w x)^2 / 2 in one dimension: L = mean x^2 exactly.
    model = nn.Linear(1, 1, bias=False).double()
    x = torch.randn(9, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept, loss = Kept(), lambda out, _: out.square().mean() / 2
    with Monitor(model, sinks=[kept], preset="full") as monitor:
        for _ in range(4):
            optimizer.zero_grad()
            monitor.batch(x, None, loss)
            loss(model(x), None).backward()
            optimizer.step()
    curvature = x.square().mean().item()
    for r in kept.records[:-1]:
        assert r["secant_smoothness"] == pytest.approx(curvature, rel=1e-9)
        assert r["descent_smoothness"] == pytest.approx(curvature, rel=1e-6)
    assert len(kept.records) == 4


def test_secant_is_taken_on_the_same_batch() -> None:
    # Two batches of curvature 1 and 100 alternate: a difference of gradients of different batches would show neither.
    model = nn.Linear(1, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batches = [torch.full((3, 1), s, dtype=torch.float64) for s in (1.0, 10.0)]
    kept, loss = Kept(), lambda out, _: out.square().mean() / 2
    with Monitor(model, sinks=[kept], preset="full") as monitor:
        for t in range(6):
            optimizer.zero_grad()
            monitor.batch(batches[t % 2], None, loss)
            loss(model(batches[t % 2]), None).backward()
            optimizer.step()
    for r in kept.records[:-1]:
        assert r["secant_smoothness"] == pytest.approx([1.0, 100.0][r["step"] % 2], rel=1e-9)


def test_tangent_kernel_against_the_dense_jacobian() -> None:
    model, x, y, names = small()
    found = probes.tangent_kernel(Functional(model, names), x, y)
    j = jacobian(model, x).flatten(0, 1).numpy()
    assert found["ntk_eigenvalue"] == pytest.approx(np.linalg.eigvalsh(j @ j.T)[0], rel=1e-4, abs=1e-6)
    with torch.no_grad():
        out = model(x).numpy()
    rows = jacobian(model, x).numpy()
    phi = []
    for i, label in enumerate(y.tolist()):
        other = max((c for c in range(3) if c != label), key=lambda c: out[i, c])
        phi.append(rows[i, label] - rows[i, other])
    assert found["tangent_margin"] == pytest.approx(largest_margin(np.array(phi)), rel=1e-3, abs=1e-5)


def largest_margin(phi: np.ndarray) -> float:
    """max over unit V of min_i <phi_i, V>, by cvxpy (a second-order cone program)."""
    import cvxpy as cp

    direction, margin = cp.Variable(phi.shape[1]), cp.Variable()
    cp.Problem(cp.Maximize(margin), [phi @ direction >= margin, cp.norm(direction) <= 1]).solve(
        solver=cp.CLARABEL
    )
    return float(margin.value)


@pytest.mark.parametrize("seed", range(5))
def test_the_margin_is_a_lower_bound_and_nearly_the_largest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(7, 12)) + 0.3 * seed
    found, best = probes.simplex_margin(phi @ phi.T), largest_margin(phi)
    assert found <= best * (1 + 1e-6) + 1e-6
    assert found >= best * (1 - 1e-4) - 1e-6


def test_a_tangent_loss_of_other_masks_is_not_held_against_the_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.Linear(30, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y, kept = torch.randn(6, 4), targets(6), Kept()
    with Monitor(model, shifted(model), sinks=[kept], preset="full") as monitor:
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            monitor.batch(x, y, F.cross_entropy)  # after the forward pass: new masks
            loss.backward()
            monitor.loss(loss)
            optimizer.step()
    assert all("tangent_loss" not in r and "tangent_loss_other" in r for r in kept.records)
    # On its own forward pass convexity holds all the same.
    for r in kept.records:
        assert r["tangent_loss_other"]["v"] >= r["probe_loss"] - r["probe_inner"]["v"] - 1e-5


def test_own_proxies_and_masked_targets() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y, kept = torch.randn(6, 4), targets(6), Kept()
    y[2] = -100
    own = {"confidence": lambda out, _: out.softmax(-1).amax(-1).mean()}
    expected = []
    with Monitor(
        model, sinks=[kept], loss_name="cross-entropy", proxies=own, schedule={"record": 1}
    ) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            out = model(x)
            F.cross_entropy(out, y).backward()
            monitor.outputs(out, y)
            keep = y >= 0
            p = out.detach().softmax(-1)
            expected.append(
                (
                    (1 - p[keep, y[keep]]).mean().item(),
                    p.amax(-1).mean().item(),
                    (out.argmax(-1) != y)[keep].float().mean().item(),
                )
            )
            optimizer.step()
    for r, (slope, confidence, error) in zip(kept.records, expected, strict=True):
        assert r["slope"] == pytest.approx(slope, rel=1e-5)
        assert r["confidence"] == pytest.approx(confidence, rel=1e-5)
        assert r["error"] == pytest.approx(error)


@pytest.mark.parametrize("make", [lambda: small()[0].float(), Recurrent], ids=["chain", "LSTM"])
def test_a_loss_that_draws_random_numbers_draws_the_same(make: Callable[[], nn.Module]) -> None:
    x = torch.randn(8, 4) if make is not Recurrent else sequences(8)
    y = targets(8)

    def noisy(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(out + 0.1 * torch.randn_like(out), targets)

    def loop(model: nn.Module, optimizer: Any, monitor: Any) -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            monitor.batch(x, y, noisy)
            loss = noisy(model(x), y)
            loss.backward()
            monitor.loss(loss)
            optimizer.step()

    _, records, *_ = watched_and_plain(make, lambda p: torch.optim.SGD(p, lr=0.1), loop, preset="full")
    assert all("tangent_loss" in r or "tangent_loss_other" in r for r in records)
