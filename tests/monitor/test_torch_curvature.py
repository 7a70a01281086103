"""Curvature and noise that the monitor reports against exact Hessians, Gauss-Newton matrices and row gradients of `torch.func`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch_loops import Kept, shifted

from proxyconvex.monitor.estimates import parts_of
from proxyconvex.monitor.log import RunLog
from proxyconvex.monitor.pytorch import probes
from proxyconvex.monitor.pytorch.functional import Functional, _load_decompositions
from proxyconvex.torch import Monitor

F = nn.functional
STEPS = 5
NODES, SHARES = (torch.tensor(a, dtype=torch.float64) for a in np.polynomial.legendre.leggauss(12))


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # The first forward derivative of a process makes torch warn about itself.
    _load_decompositions()
    yield
    torch.set_num_threads(threads)


class Own(nn.Module):
    """No chain of dense layers: normalised, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x + torch.tanh(self.norm(self.first(x))))


MODELS = {"chain": lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), "residual": Own}
each_model = pytest.mark.parametrize("name", MODELS)


def started(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = MODELS[name]().double()
    return model, torch.randn(10, 4, dtype=torch.float64), torch.arange(10) % 3


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


class Problem:
    """A model on a batch as a function of the flat vector of its parameters."""

    def __init__(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        self.model, self.x, self.y = model, x, y
        self.shapes = {n: p.shape for n, p in model.named_parameters()}

    def outputs(self, w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        parts = w.split([s.numel() for s in self.shapes.values()])
        named = {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}
        return functional_call(self.model, named, (x,))

    def loss(self, w: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.outputs(w, self.x), self.y)

    def rows(self, w: torch.Tensor) -> torch.Tensor:
        """The gradient of each row's loss, shape [n, p]."""
        one = lambda w, a, b: F.cross_entropy(self.outputs(w, a[None]), b[None])  # noqa: E731
        return vmap(grad(one), (None, 0, 0))(w, self.x, self.y)


def run(name: str, lr: float = 0.5) -> tuple[list[dict[str, Any]], Problem, list[torch.Tensor], torch.Tensor]:
    """A loop under everything at every step: records, the problem, the weights of each step, the comparator."""
    model, x, y = started(name)
    v, kept, weights = shifted(model), Kept(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with Monitor(model, v, preset="full", sinks=[kept]) as monitor:
        for _ in range(STEPS):
            optimizer.zero_grad()
            monitor.batch(x, y, F.cross_entropy)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            monitor.loss(loss)
            weights.append(flat(model.parameters()))
            optimizer.step()
    return kept.records, Problem(model, x, y), weights, flat(v.values())


@each_model
def test_secant_smoothness_is_the_hessian_averaged_along_the_step(name: str) -> None:
    # grad f(w + u) - grad f(w) = int_0^1 H(w + s u) u ds, and f(w + u) - f(w) - <grad f(w), u> = int_0^1 (1 - s) <u, H(w + s u) u> ds.
    records, problem, weights, _ = run(name)
    for t in range(STEPS - 1):
        w, u = weights[t], weights[t + 1] - weights[t]
        s, share = (NODES + 1) / 2, SHARES / 2
        products = torch.stack([jvp(grad(problem.loss), (w + a * u,), (u,))[1] for a in s])
        change = (share[:, None] * products).sum(0)
        gap = (share * (1 - s) * (products @ u)).sum()
        assert records[t]["secant_smoothness"] == pytest.approx(float(change.norm() / u.norm()), rel=1e-8)
        assert records[t]["descent_smoothness"] == pytest.approx(float(2 * gap / (u @ u)), rel=1e-5)


@each_model
def test_secant_smoothness_lies_below_the_largest_curvature_on_the_step(name: str) -> None:
    records, problem, weights, _ = run(name)
    for t in range(STEPS - 1):
        w, u = weights[t], weights[t + 1] - weights[t]
        top = max(
            float(torch.linalg.eigvalsh(hessian(problem.loss)(w + s * u)).abs().max())
            for s in torch.linspace(0, 1, 9)
        )
        assert 0 < records[t]["secant_smoothness"] <= top * (1 + 1e-3)
        assert records[t]["descent_smoothness"] <= top * (1 + 1e-3)


@each_model
def test_tangent_loss_and_products_against_forward_derivatives(name: str) -> None:
    records, problem, weights, v = run(name)
    for r, w in zip(records, weights, strict=True):
        out, slope = jvp(lambda p: problem.outputs(p, problem.x), (w,), (v - w,))
        assert r["tangent_loss"]["v"] == pytest.approx(
            float(F.cross_entropy(out + slope, problem.y)), rel=1e-10
        )
        assert r["probe_inner"]["v"] == pytest.approx(float(grad(problem.loss)(w) @ (w - v)), rel=1e-8)


@each_model
def test_the_tangent_kernel_has_the_spectrum_of_the_gauss_newton_matrix(name: str) -> None:
    # J J^T and J^T J share their non-zero eigenvalues, and J^T J is the whole Hessian of |N(w) - N(w_0)|^2 / 2 at w_0: no residual is left.
    model, x, y = started(name)
    x, y = x[:5], y[:5]
    problem, w = Problem(model, x, y), flat(model.parameters())
    start = problem.outputs(w, x)
    matrix = hessian(lambda p: (problem.outputs(p, x) - start).square().sum() / 2)(w)
    found = probes.tangent_kernel(Functional(model, [n for n, _ in model.named_parameters()]), x, y)
    count = start.numel()
    assert count < len(w)
    assert found["probe_rows"] == 5
    # Its rows are kept in float32.
    top = torch.linalg.eigvalsh(matrix)
    assert found["ntk_eigenvalue"] == pytest.approx(float(top[-count]), rel=1e-3, abs=1e-6 * float(top[-1]))


@each_model
def test_unbiased_norm_and_noise_against_row_gradients(name: str) -> None:
    records, problem, weights, _ = run(name)
    n = len(problem.x)
    found = parts_of(_log(records))
    assert found.step.tolist() == list(range(STEPS))
    for k, w in enumerate(weights):
        g = problem.rows(w)
        if name == "chain":
            # All pairs of different rows, and the sample variance of the rows.
            table = g @ g.T
            pairs = (table.sum() - table.trace()) / (n * (n - 1))
            variance = (g - g.mean(0)).square().sum() / (n - 1)
        else:
            a, b = g[: n // 2].mean(0), g[n // 2 :].mean(0)
            pairs, variance = a @ b, (a - b).square().sum() / 2 * (n // 2)
        assert found.unbiased[k] == pytest.approx(float(pairs), rel=1e-7, abs=1e-9)
        assert found.per_sample[k] == pytest.approx(float(variance), rel=1e-7)
        assert found.noise[k] == pytest.approx(float(variance) / n, rel=1e-7)
        assert found.naive[k] == pytest.approx(float(g.mean(0).square().sum()), rel=1e-7)


def _log(records: list[dict[str, Any]]) -> RunLog:
    log = RunLog(header={"event": "start", "comparators": ["v"]})
    for r in records:
        log.take(r)
    return log
