"""Probes of a sharded model on two gloo processes: as one process finds them on the whole batch, and the training is not changed by a bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch_ranks
import torch_sharded
from torch import nn
from torch.autograd.functional import jvp
from torch.func import functional_call
from torch_loops import close, shifted
from torch_ranks import results, start

F = nn.functional
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
EXACT = ("mlp", "mlp-together", "mlp-replicated", "alone/mlp")
CASES = (*EXACT, "mlp-uneven", "mlp-bf16", "net")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, in one pair of processes; a sharded model in a single process beside them."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "alone").mkdir()
    both = start(
        "torch_sharded.py", ",".join([*(c for c in CASES if "/" not in c), "refused", "raises"]), folder
    )
    for rank in (*both, *start("torch_sharded.py", "mlp", folder / "alone", ranks=1)):
        assert rank.returncode == 0, rank.stderr.decode()[-3000:]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_training_is_the_same_and_nothing_stays_gathered(case: str, runs: Path) -> None:
    for rank in results(runs / case):
        assert rank["same"], (
            "weights, buffers or the random state differ between the watched and the plain run"
        )
        assert rank["alike"]
        assert rank["sharded"]


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])


class Oracle:
    """The loss of the whole batch in float64 at the weights of each step."""

    def __init__(self, rank: dict[str, Any]) -> None:
        self.model = torch_sharded.make("mlp").double()
        names = [n for n, _ in self.model.named_parameters()]
        self.weights = [
            {n: torch.tensor(w).double() for n, w in zip(names, step, strict=True)}
            for step in rank["weights"]
        ]
        self.v = {n: p.double() for n, p in shifted(torch_sharded.make("mlp")).items()}
        self.x, self.y = torch_ranks.data()

    def outputs(self, w: dict[str, torch.Tensor], rows: slice = slice(None)) -> torch.Tensor:
        return functional_call(self.model, w, (self.x[rows].double(),))

    def gradient(self, t: int, rows: slice = slice(None)) -> torch.Tensor:
        w = {n: p.clone().requires_grad_() for n, p in self.weights[t].items()}
        return flat(
            torch.autograd.grad(F.cross_entropy(self.outputs(w, rows), self.y[rows]), list(w.values()))
        )

    def tangent(self, t: int) -> float:
        w = self.weights[t]
        out, slope = jvp(
            lambda *ws: self.outputs(dict(zip(w, ws, strict=True))),
            tuple(w.values()),
            tuple(self.v[n] - w[n] for n in w),
        )
        return F.cross_entropy(out + slope, self.y).item()

    def kernel(self, t: int) -> float:
        rows = []
        for y in range(15):
            w = {n: p.clone().requires_grad_() for n, p in self.weights[t].items()}
            rows.append(
                flat(torch.autograd.grad(self.outputs(w, slice(0, 5)).reshape(-1)[y], list(w.values())))
            )
        j = torch.stack(rows)
        return torch.linalg.eigvalsh(j @ j.T)[0].item()


@pytest.mark.parametrize("case", EXACT)
def test_probes_are_those_of_the_whole_batch_in_one_process(case: str, runs: Path) -> None:
    first, *others = results(runs / case)
    oracle = Oracle(first)
    assert len(first["records"]) == torch_sharded.STEPS
    assert all(rank["records"] == [] for rank in others), "only rank 0 writes"
    for t, r in enumerate(first["records"]):
        w = oracle.weights[t]
        assert close(r["probe_loss"], F.cross_entropy(oracle.outputs(w), oracle.y).item(), 1e-5)
        assert close(r["tangent_loss"]["v"], oracle.tangent(t), 1e-5)
        g, far = oracle.gradient(t), flat(w.values()) - flat(oracle.v.values())
        assert close(r["probe_inner"]["v"], float(g @ far), 1e-5, float(g.norm() * far.norm()))
        parts = [oracle.gradient(t, slice(8 * i, 8 * i + 8)) for i in range(2)]
        assert (r["parts"], r["part_size"]) == (2, 8)
        assert close(r["parts_total_sq"], float((4 * g) @ g), 1e-5)
        assert close(r["parts_sum_sq"], float(sum(p @ p for p in parts)), 1e-5)
        if t % 3 == 0:
            assert close(r["ntk_eigenvalue"], oracle.kernel(t), 1e-3)
        if t < torch_sharded.STEPS - 1:
            u = flat(oracle.weights[t + 1].values()) - flat(w.values())
            change = oracle.gradient(t + 1) - g
            assert close(r["secant_smoothness"], float(change.norm() / u.norm()), 1e-3)
        # A share of the batch has another gradient: the test would notice it.
        assert not close(float(parts[0] @ parts[0]), float(g @ g), 1e-2)


def test_shares_of_different_size_are_those_of_the_objective_that_is_trained(runs: Path) -> None:
    """Gradients are averaged over ranks, so the objective is the mean of the ranks' mean losses, not that of the rows."""
    first, _ = results(runs / "mlp-uneven")
    oracle, shares = Oracle(first), [torch_sharded.rows_of("mlp-uneven", rank) for rank in range(2)]
    for t, r in enumerate(first["records"]):
        w = oracle.weights[t]
        losses = [F.cross_entropy(oracle.outputs(w, rows), oracle.y[rows]).item() for rows in shares]
        assert close(r["probe_loss"], sum(losses) / 2, 1e-5)
        assert not close(r["probe_loss"], F.cross_entropy(oracle.outputs(w), oracle.y).item(), 1e-4)
        parts = [oracle.gradient(t, rows) for rows in shares]
        g, far = sum(parts) / 2, flat(w.values()) - flat(oracle.v.values())
        assert close(r["probe_inner"]["v"], float(g @ far), 1e-5, float(g.norm() * far.norm()))
        assert close(r["parts_total_sq"], float((4 * g) @ g), 1e-5)
        assert close(r["parts_sum_sq"], float(sum(p @ p for p in parts)), 1e-5)
        assert r["parts"] == 2
        assert "part_size" not in r


def test_a_loss_that_fails_leaves_the_model_as_it_was(runs: Path) -> None:
    assert all(rank["alike"] for rank in results(runs / "raises"))


def test_dropout_statistics_shared_and_frozen_weights(runs: Path) -> None:
    """What one process finds on this net depends on its own draws, but both sides of these hold for any."""
    first, _ = results(runs / "net")
    for r in first["records"]:
        assert r["probe_loss"] == r["loss"]
        assert "tangent_loss" in r
        size = (r["grad_sq"] * r["dist_sq"]["v"]) ** 0.5
        assert close(r["probe_inner"]["v"], r["grad_w_minus_v"]["v"], 1e-5, size)
        assert close(r["parts_total_sq"], 4 * r["grad_sq"], 1e-4)
    net = torch_sharded.make("net")
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert sum(torch.tensor(w).numel() for w in first["weights"][0]) == trained
    u = [flat(map(torch.tensor, b)) - flat(map(torch.tensor, a)) for a, b in zip(first["weights"], first["weights"][1:], strict=False)]  # fmt: skip
    for r, step in zip(first["records"], u, strict=True):
        assert close(0.01 * r["grad_sq"], float(step @ step), 1e-3), (
            "the sums are those of all trained parameters"
        )


def test_mixed_precision_rounds_as_the_training_does(runs: Path) -> None:
    first, _ = results(runs / "mlp-bf16")
    oracle = Oracle(first)
    for t, r in enumerate(first["records"]):
        assert r["probe_loss"] == r["loss"]
        assert not close(r["loss"], F.cross_entropy(oracle.outputs(oracle.weights[t]), oracle.y).item(), 1e-7)
        assert close(r["parts_total_sq"], 4 * r["grad_sq"], 2e-2)
        assert close(r["tangent_loss"]["v"], oracle.tangent(t), 2e-2)


def test_what_cannot_be_made_whole_is_refused_with_what_to_do(runs: Path) -> None:
    for rank in results(runs / "refused"):
        assert set(rank) == {"not wanted", "ignored", "two kinds", "another kind"}
        for sentence in rank.values():
            assert "tangent-loss, half-batch, smoothness" in sentence
            assert 'preset="light"' in sentence
        assert "gather=False" in rank["not wanted"]
        assert "0.weight is not sharded (ignored_params)" in rank["ignored"]
        assert "another kind of parallelism" in rank["two kinds"]
        assert "something else than fully_shard" in rank["another kind"]
