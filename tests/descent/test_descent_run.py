"""Training against NumPy loops; chunks, interruption, resumption, overflow, one compilation, many seeds."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_problems import neuron, two_layer

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.methods import (
    SGD,
    BallProjection,
    ConstantStep,
    GradientDescent,
    NormalisedStep,
    PolynomialStep,
)
from proxyconvex.descent import kernels
from proxyconvex.descent.run import train, train_many
from proxyconvex.descent.sampling import BLOCK, RowSampler, record_steps
from proxyconvex.descent.trace import SUMS, Trace

SGD4 = SGD(ConstantStep(0.3), 300, batch_size=4)


def numpy_run(problem, w, method, seed=0):
    """The same run as a NumPy loop: weights, one row of (loss, g, h, inner, |d|^2, |w-v|^2, error, slope, eta)
    per step on the rows used, and the iterates."""
    w, v, n = w.copy(), problem.comparator, len(problem.targets)
    rows, iterates = [], [w.copy()]
    sampler = RowSampler(method, n, seed) if isinstance(method, SGD) else None
    for t in range(method.steps):
        used = sampler.rows(t, 1)[0] if sampler else np.arange(n)
        grad, loss, g, h, error, slope = problem.numpy_row(w, used)
        step = method.step
        if isinstance(step, NormalisedStep):
            eta = step.c / max(slope, step.floor)
        elif isinstance(step, PolynomialStep):
            eta = step.eta / (1 + t / step.scale) ** step.power
        else:
            eta = step.eta
        rows.append(
            (loss, g, h, np.sum(grad * (w - v)), np.sum(grad**2), np.sum((w - v) ** 2), error, slope, eta)
        )
        w = w - eta * grad
        if method.projection is not None:
            w *= min(1.0, method.projection.radius / np.linalg.norm(w))
        iterates.append(w.copy())
    return w, np.array(rows), iterates


PROBLEMS = {
    "neuron": neuron,
    "softplus": two_layer,
    "smooth-leaky": lambda: two_layer("smooth-leaky", slope=0.2),
    "leaky-relu": lambda: two_layer("leaky-relu", slope=0.5),
}
METHODS = {
    "gd": GradientDescent(ConstantStep(0.4), 120),
    "gd-polynomial": GradientDescent(PolynomialStep(0.8, 0.5, 10.0), 120),
    "gd-normalised": GradientDescent(NormalisedStep(0.2, 0.05), 120),
    "gd-projected": GradientDescent(ConstantStep(0.4), 120, BallProjection(1.5)),
    "sgd": SGD(ConstantStep(0.2), 300),
    "sgd-batch": SGD4,
    "sgd-polynomial-cyclic": SGD(PolynomialStep(0.5), 300, batch_size=7, sampling="cyclic"),
    "sgd-one-pass": SGD(ConstantStep(0.2), 10, batch_size=3, sampling="one-pass"),
    "sgd-projected": SGD(ConstantStep(0.2), 300, 2, projection=BallProjection(1.5)),
}


# Every method on the neuron, one of each kind on the networks: each pair costs a compilation.
PAIRS = [("neuron", m) for m in METHODS] + [
    (p, m) for p in PROBLEMS if p != "neuron" for m in ("gd-normalised", "sgd-batch")
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=[f"{p}-{m}" for p, m in PAIRS])
def test_matches_a_numpy_loop(name, kind):
    (problem, w0), method = PROBLEMS[name](), METHODS[kind]
    trace = train(problem, w0, method, seed=5, record_every=7, online=True, chunk=64)
    w, rows, iterates = numpy_run(problem, w0, method, seed=5)
    np.testing.assert_allclose(trace.final_w, w, rtol=1e-10, atol=1e-11)
    for i, name in enumerate(("loss", "g", "h", "inner", "grad_sq", "dist_sq", "error", "slope", "eta")):
        np.testing.assert_allclose(trace.online[name], rows[:, i], rtol=1e-9, atol=1e-11, err_msg=name)
    sums = dict(zip(SUMS, _sums(rows), strict=True))
    for name, value in sums.items():
        np.testing.assert_allclose(trace.sums[name], value[trace.step], rtol=1e-9, atol=1e-10, err_msg=name)
        assert getattr(trace, name) == trace.sums[name][-1]
    everything = np.arange(len(problem.targets))
    full = np.array([problem.numpy_row(w, everything)[1:] for w in iterates])
    for i, name in enumerate(("loss", "g", "h", "error", "slope")):
        np.testing.assert_allclose(
            getattr(trace, name), full[trace.step, i], rtol=1e-9, atol=1e-11, err_msg=name
        )
    distance = np.array([np.sum((w - problem.comparator) ** 2) for w in iterates])
    assert trace.max_dist_sq == pytest.approx(distance.max(), rel=1e-10)
    assert trace.min_slack == pytest.approx((rows[:, 3] - rows[:, 1] + rows[:, 2]).min(), abs=1e-10)
    assert trace.max_growth == pytest.approx((np.sqrt(rows[:, 4]) / rows[:, 7]).max(), rel=1e-9)
    balance = np.cumsum(rows[:, 1] - rows[:, 2])
    out = int(np.argmax(balance < 0)) + 1 if (balance < 0).any() else -1
    assert trace.exit_step == out
    until = distance[:out] if out > 0 else distance[:-1]
    assert trace.max_dist_sq_until_exit == pytest.approx(until.max(), rel=1e-10)
    considered = trace.step[:-1] if isinstance(method, SGD) else np.arange(method.steps)
    assert trace.min_error == pytest.approx(full[considered, 3].min(), abs=1e-12)
    np.testing.assert_allclose(trace.best_w, iterates[trace.min_error_step], rtol=1e-9, atol=1e-11)


def _sums(rows):
    loss, g, h, inner, grad_sq, _, error, slope, eta = rows.T
    terms = (
        eta, eta * inner, eta**2 * grad_sq, eta * g, eta * h, g, h, error, np.abs(eta * inner), loss, slope,
    )  # fmt: skip
    return [np.concatenate([[0.0], np.cumsum(t)]) for t in terms]


def test_least_error_is_over_every_step_and_its_first_step():
    problem, w0 = two_layer(n=25)
    method = GradientDescent(NormalisedStep(0.3, 0.01), 400)
    trace = train(problem, w0, method, record_every=400, chunk=32)
    _, rows, iterates = numpy_run(problem, w0, method)
    assert trace.min_error == rows[:, 6].min()
    assert trace.min_error_step == int(np.argmin(rows[:, 6]))
    np.testing.assert_allclose(trace.best_w, iterates[trace.min_error_step], rtol=1e-9)
    assert (np.diff(trace.best_errors) < 0).all()
    for k in range(1, 20):
        hit = np.flatnonzero(rows[:, 6] <= (k - 1) / 25)
        found = trace.first_step_with_error((k - 1) / 25)
        assert (found is None) == (not hit.size)
        if found is not None:
            assert found[0] == hit[0]
            assert found[1] == pytest.approx(rows[: hit[0] + 1, 5].max(), rel=1e-10)


@pytest.mark.parametrize("chunk", [1, 7, 100, 8192])
def test_weights_do_not_depend_on_the_chunk(chunk):
    problem, w0 = two_layer()
    a, b = train(problem, w0, SGD4, seed=3, chunk=chunk), train(problem, w0, SGD4, seed=3, chunk=64)
    np.testing.assert_allclose(a.final_w, b.final_w, rtol=1e-12)
    np.testing.assert_allclose(a.sums["sum_g"], b.sums["sum_g"], rtol=1e-12)
    assert (a.step == b.step).all()


def saved(trace, path):
    return trace.save(path).read_bytes()


def test_same_seed_same_bytes_and_another_seed_differs(tmp_path):
    problem, w0 = neuron()
    a, b, c = (
        saved(train(problem, w0, SGD4, seed=s), tmp_path / f"{i}.npz") for i, s in enumerate((1, 1, 2))
    )
    assert a == b
    assert a != c


class Stop(threading.Thread):
    """Sends Ctrl-C to this process once the checkpoint exists."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.over = path, threading.Event()

    def run(self):
        while not self.over.is_set():
            if self.path.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return
            self.over.wait(0.001)


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (neuron, SGD(ConstantStep(0.1), 6000, batch_size=2)),
        (two_layer, GradientDescent(NormalisedStep(0.05, 0.01), 6000)),
    ],
    ids=["sgd", "normalised-gd"],
)
def test_ctrl_c_keeps_what_was_done_and_resume_gives_the_same_bytes(tmp_path, make, method, capfd):
    problem, w0 = make()
    path = tmp_path / "checkpoint.npz"
    options = {"seed": 4, "record_every": 50, "chunk": 16, "online": True}
    whole = train(problem, w0, method, **options)
    stop = Stop(path)
    stop.start()
    part = train(problem, w0, method, checkpoint=path, **options)
    stop.over.set()
    stop.join()
    assert part.interrupted
    assert 0 < part.steps_done < method.steps
    assert "stopping after this chunk" in capfd.readouterr().err
    k = len(part.step) - 1
    assert part.step[-1] == part.steps_done
    np.testing.assert_array_equal(part.sums["sum_g"][:k], whole.sums["sum_g"][:k])
    resumed = train(problem, w0, method, checkpoint=path, resume=True, **options)
    assert resumed.complete
    assert not resumed.interrupted
    assert saved(resumed, tmp_path / "a.npz") == saved(whole, tmp_path / "b.npz")
    again = train(problem, w0, method, checkpoint=path, resume=True, **options)
    assert saved(again, tmp_path / "c.npz") == saved(whole, tmp_path / "b.npz")
    assert not list(tmp_path.glob(".*"))


def test_resume_refuses_a_damaged_checkpoint(tmp_path):
    problem, w0 = neuron()
    path = tmp_path / "c.npz"
    train(problem, w0, SGD4, checkpoint=path)
    whole = path.read_bytes()
    for damaged in (b"", b"junk", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInputError, match="It is damaged or no checkpoint"):
            train(problem, w0, SGD4, checkpoint=path, resume=True)
        assert path.read_bytes() == damaged


def test_resume_refuses_the_checkpoint_of_another_run(tmp_path):
    problem, w0 = neuron()
    path = tmp_path / "c.npz"
    train(problem, w0, SGD4, checkpoint=path)
    with pytest.raises(InvalidInputError, match="a checkpoint of this very run"):
        train(problem, w0, SGD4, seed=1, checkpoint=path, resume=True)
    with pytest.raises(InvalidInputError, match="a checkpoint of this very run"):
        train(problem, w0 + 1e-16 + 1e-9, SGD4, checkpoint=path, resume=True)
    with pytest.raises(InvalidInputError, match="resume=True"):
        train(problem, w0, SGD4, resume=True)


def test_overflow_stops_the_run_and_names_the_step():
    problem, w0 = two_layer(m=8)
    problem = eqx.tree_at(lambda p: p.features, problem, problem.features * 1e150)
    method = GradientDescent(ConstantStep(1e10), 50)
    trace = train(problem, w0, method, chunk=8)
    assert not trace.finite
    assert trace.nonfinite_step == trace.steps_done < 50
    assert trace.step[-1] == trace.steps_done
    assert np.isfinite(trace.sums["sum_g"]).all()
    assert "not finite" in repr(trace)


def test_a_nan_in_the_middle_keeps_the_steps_before_it():
    problem, w0 = neuron(d=3)

    class Fragile(type(problem)):
        def pointwise_loss(self, q, y):
            # Not a number once the error is small enough, which happens in the middle of the run.
            return jnp.where(jnp.mean(jnp.abs(q - y)) < 0.09, jnp.nan, super().pointwise_loss(q, y))

    fragile = Fragile(problem.features, problem.targets, problem.comparator)
    method = GradientDescent(ConstantStep(0.5), 500)
    trace = train(fragile, w0, method, chunk=64, record_every=1)
    _, rows, iterates = numpy_run(problem, w0, method)
    t = int(np.argmax(rows[:, 6] < 0.09))
    assert t % 64 not in (0, 63)
    assert (trace.finite, trace.nonfinite_step) == (False, t)
    np.testing.assert_allclose(trace.final_w, iterates[t], rtol=1e-10)
    np.testing.assert_allclose(trace.loss[:-1], rows[:t, 0], rtol=1e-10)


def test_a_second_run_compiles_nothing():
    problem, w0 = two_layer(n=31)
    other, _ = two_layer(n=31, seed=9)
    for method in (SGD4, GradientDescent(ConstantStep(0.1), 100)):
        train(problem, w0, method, chunk=32)
        before = _compilations()
        longer = dataclasses.replace(method, step=PolynomialStep(0.2), steps=333)
        train(other, w0 + 1, longer, seed=8, record_every=11, chunk=32)
        assert _compilations() == before
        train(problem, w0, method, chunk=33)
        assert _compilations() != before


def _compilations():
    names = ("full_batch_chunk", "stochastic_chunk", "complete")
    return [getattr(kernels, n)._cached._cache_size() for n in names]


def test_many_seeds_agree_with_single_runs():
    problem, w0 = two_layer()
    runs = train_many(problem, w0, SGD4, [3, 1, 4], record_every=10, chunk=64)
    assert [r.seed for r in runs] == [3, 1, 4]
    for run in runs:
        single = train(problem, w0, SGD4, seed=run.seed, record_every=10, chunk=64)
        np.testing.assert_allclose(run.final_w, single.final_w, rtol=1e-11)
        for name in ("loss", "error", "dist_sq", "grad_sq", "inner"):
            np.testing.assert_allclose(getattr(run, name), getattr(single, name), rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(run.sum_eta_inner, single.sum_eta_inner, rtol=1e-9)
        assert run.best_w is None


def test_many_initial_weights_and_one_that_overflows():
    problem, w0 = neuron(d=3)
    stack = np.stack([w0, 1e200 * np.ones(3), w0 + 1])
    runs = train_many(problem, stack, GradientDescent(ConstantStep(0.3), 70), chunk=16)
    assert [r.finite for r in runs] == [True, False, True]
    for i in (0, 2):
        single = train(problem, stack[i], GradientDescent(ConstantStep(0.3), 70), chunk=16)
        np.testing.assert_allclose(runs[i].final_w, single.final_w, rtol=1e-11)
    with pytest.raises(InvalidInputError, match="one per run"):
        train_many(problem, stack, SGD4, [1, 2])


def test_a_proxy_that_uses_the_weights_is_evaluated_at_the_right_ones():
    problem, w0 = neuron()

    class Distance(type(problem)):
        def proxy(self, w, q, x, y):
            return jnp.full_like(q, jnp.sum((w - self.comparator) ** 2)), x[:, 0]

    other = Distance(problem.features, problem.targets, problem.comparator)
    trace = train(other, w0, SGD4, online=True)
    np.testing.assert_allclose(trace.online["g"], trace.online["dist_sq"], rtol=1e-12)
    rows = RowSampler(SGD4, 40, 0).rows(0, 300)
    np.testing.assert_allclose(trace.online["h"], problem.features[rows, 0].mean(axis=1), rtol=1e-12)
    with jax.enable_x64(True):
        assert kernels.proxy_uses_weights(other, jnp.asarray(w0), 4)
        assert not kernels.proxy_uses_weights(problem, jnp.asarray(w0), 4)


def test_rows_depend_on_seed_and_step_only():
    method = SGD(ConstantStep(1.0), 10**7, batch_size=3)
    sampler = RowSampler(method, 17, 5)
    whole = sampler.rows(0, 3 * BLOCK)
    np.testing.assert_array_equal(sampler.rows(BLOCK - 5, BLOCK + 10), whole[BLOCK - 5 : 2 * BLOCK + 5])
    assert sampler.rows(10**7 - 1, 1).shape == (1, 3)
    counts = np.bincount(whole.ravel(), minlength=17)
    expected = whole.size / 17
    # Chi-square with 16 degrees of freedom: above 60 has probability below 1e-6.
    assert ((counts - expected) ** 2 / expected).sum() < 60
    assert (RowSampler(method, 17, 6).rows(0, 100) != whole[:100]).any()


def test_one_pass_uses_each_row_at_most_once_and_refuses_more():
    sampler = RowSampler(SGD(ConstantStep(1.0), 10, 3, "one-pass"), 31, 2)
    assert len(set(sampler.rows(0, 10).ravel())) == 30
    with pytest.raises(InvalidInputError, match="at most n / batch_size = 10"):
        RowSampler(SGD(ConstantStep(1.0), 11, 3, "one-pass"), 31, 2)


@pytest.mark.parametrize("steps", [1, 2, 1999, 2001, 10**5, 10**7])
@pytest.mark.parametrize("every", [None, 100_000])
def test_records_always_hold_both_ends_and_stay_few(steps, every):
    schedule = record_steps(steps, every)
    assert (schedule[0], schedule[-1]) == (0, steps)
    assert (np.diff(schedule) > 0).all()
    assert len(schedule) <= 2002


def test_save_and_load_round_trip(tmp_path):
    problem, w0 = two_layer()
    trace = train(problem, w0, METHODS["gd-normalised"], online=True)
    loaded = Trace.load(trace.save(tmp_path / "t.npz"))
    assert loaded.method == trace.method
    assert saved(loaded, tmp_path / "u.npz") == (tmp_path / "t.npz").read_bytes()
    np.savez(tmp_path / "x.npz", a=np.zeros(1))
    with pytest.raises(InvalidInputError, match="Trace.save"):
        Trace.load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": np.zeros(3)}, "shape"),
        ({"initial": np.full(7, np.nan)}, "finite numbers"),
        ({"seed": -1}, "a whole number in"),
        ({"record_every": 0}, "whole number >= 1"),
        ({"chunk": 0}, "whole number >= 1"),
    ],
    ids=["shape", "nan", "seed", "record_every", "chunk"],
)
def test_bad_arguments_are_refused(change, message):
    problem, w0 = neuron()
    with pytest.raises(InvalidInputError, match=message):
        train(problem, **({"initial": w0, "method": SGD4} | change))


def test_float32_data_are_refused_and_the_global_precision_is_left_alone():
    problem, w0 = neuron()
    single = type(problem)(problem.features.astype(np.float32), problem.targets, problem.comparator)
    with pytest.raises(InvalidInputError, match="float64"):
        train(single, w0, SGD4)
    assert train(problem, w0, SGD4).final_w.dtype == np.float64
    assert jnp.zeros(1).dtype == jnp.float32


def test_progress_is_shown_on_standard_error(capfd):
    problem, w0 = neuron()
    train(problem, w0, SGD4, progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "300/300" in captured.err
