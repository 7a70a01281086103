"""Single rows of models that see ``<w, x>`` alone: a step measured in one pass is the step of a NumPy loop."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proxyconvex.core.methods import SGD, BallProjection, ConstantStep, PolynomialStep
from proxyconvex.descent import kernels, ridge
from proxyconvex.descent.compilation import Compiled
from proxyconvex.descent.engine import Engine, prepare
from proxyconvex.descent.ledger import trace_identity
from proxyconvex.descent.run import train
from proxyconvex.families.base import Problem
from proxyconvex.families.classical import LinearModel
from proxyconvex.families.links import Link
from proxyconvex.families.single_neuron import FORMS, SingleNeuron

LINKS = {
    "sigmoid": Link("sigmoid", beta=2.0),
    "tanh": Link("tanh"),
    "softplus": Link("softplus", beta=1.5),
    "leaky-relu": Link("leaky-relu", slope=0.3),
    "relu": Link("relu"),
    "custom": Link.custom(lambda t: t + 0.5 * jnp.sin(t), 1.5),
}


def neuron(link="sigmoid", form="i", d=7, n=30, **numbers):
    rng = np.random.default_rng(d)
    x, v = rng.normal(size=(n, d)), rng.normal(size=(1, d))
    y = LINKS[link].numpy(x @ v[0]) + 0.2 * rng.normal(size=n)
    return SingleNeuron(LINKS[link]).problem(x, y, v, form=form, **numbers), rng.normal(size=(1, d))


def linear(loss, d=7, n=30):
    rng = np.random.default_rng(d)
    x, v = rng.normal(size=(n, d)), rng.normal(size=(1, d))
    y = x @ v[0] + rng.normal(size=n)
    return LinearModel(loss).problem(x, np.sign(y) if loss == "logistic" else y, v), rng.normal(size=(1, d))


def without_table(monkeypatch, problem, w, method, **options):
    with monkeypatch.context() as patch:
        patch.setattr(ridge, "row_table", lambda problem: None)
        return train(problem, w, method, **options)


PROBLEMS = (
    {f"neuron {form}": lambda form=form: neuron(form=form, tail=0.1, level=0.3) for form in FORMS}
    | {f"neuron {link}": lambda link=link: neuron(link, "ii") for link in LINKS}
    | {f"linear {loss}": lambda loss=loss: linear(loss) for loss in ("squares", "logistic")}
)


@pytest.mark.parametrize("name", PROBLEMS)
def test_agrees_with_the_general_loop(name, monkeypatch):
    problem, w = PROBLEMS[name]()
    method = SGD(PolynomialStep(0.1), 90)
    with jax.enable_x64(True):
        assert ridge.row_table(prepare(problem)) is not None
    options = {"seed": 2, "online": True, "record_every": 7, "chunk": 32}
    a, b = train(problem, w, method, **options), without_table(monkeypatch, problem, w, method, **options)
    np.testing.assert_allclose(a.final_w, b.final_w, rtol=1e-12)
    for column, values in b.online.items():
        np.testing.assert_allclose(a.online[column], values, rtol=1e-10, atol=1e-13, err_msg=column)
    for column in ("loss", "g", "h", "error", "dist_sq"):
        np.testing.assert_allclose(getattr(a, column), getattr(b, column), rtol=1e-10, err_msg=column)
    assert trace_identity(a).status.name == "HOLDS"


@pytest.mark.parametrize("d", [1, 15, 16, 17, 65, 300, 2047])
@pytest.mark.parametrize("projection", [None, BallProjection(3.0)], ids=["free", "projected"])
def test_every_product_against_exact_sums(d, projection):
    problem, w = neuron(d=d)
    method, eta = SGD(ConstantStep(0.5 / d), 25, projection=projection), 0.5 / d
    trace = train(problem, w, method, seed=1, online=True)
    with jax.enable_x64(True):
        drawn = Engine(prepare(problem), method, [1], False, None).samplers[0].rows(0, 25)[:, 0]
    w, v = w[0], problem.comparator[0]
    for t, i in enumerate(drawn):
        x, y = problem.features[i], problem.targets[i]
        a = 2 * math.fsum(x * w)
        q, rest = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(a))
        grad, r = (q - y) * 2 * q * rest * x, w - v
        size = math.sqrt(math.fsum(grad**2) * math.fsum(r**2))
        assert abs(trace.online["inner"][t] - math.fsum(grad * r)) <= 1e-12 * size
        assert trace.online["grad_sq"][t] == pytest.approx(math.fsum(grad**2), rel=1e-11)
        assert trace.online["dist_sq"][t] == pytest.approx(math.fsum(r**2), rel=1e-12)
        w = w - eta * grad
        if projection is not None:
            w = w * min(1.0, projection.radius / np.linalg.norm(w))
    np.testing.assert_allclose(trace.final_w[0], w, rtol=1e-11, atol=1e-13)


def test_t7_is_broken_by_weights_that_move_otherwise(monkeypatch):
    problem, w = neuron()
    honest = kernels._advance
    # A millionth of the step goes astray, along every coordinate alike.
    monkeypatch.setattr(
        kernels, "_advance", lambda w, grad, eta, *rest: honest(w, grad, eta, *rest) + 1e-6 * eta
    )
    trace = train(problem, w, SGD(ConstantStep(0.1), 333), chunk=37)
    assert trace_identity(trace).status.name == "FALSIFIED"


def test_inner_product_does_not_cancel_where_the_comparator_is_near():
    problem, _ = neuron(d=64)
    w = problem.comparator + 1e-9
    trace = train(problem, w, SGD(ConstantStep(1e-12), 5), online=True)
    r = w - problem.comparator
    with jax.enable_x64(True):
        engine = Engine(prepare(problem), SGD(ConstantStep(1e-12), 5), [0], False, None)
        i = engine.samplers[0].rows(0, 1)[0]
        grad = np.asarray(
            engine.problem.loss_grad(*map(jnp.asarray, (w, problem.features[i], problem.targets[i])))[2]
        )
    size = math.sqrt(math.fsum((grad**2).ravel()) * math.fsum((r**2).ravel()))
    assert abs(trace.online["inner"][0] - math.fsum((grad * r).ravel())) <= 1e-13 * size


def test_a_subclass_that_changes_the_model_is_not_taken_for_one():
    problem, _ = neuron()
    fields = {name: getattr(problem, name) for name in type(problem).__dataclass_fields__}

    class Doubled(type(problem)):
        def proxy(self, w, q, x, y):
            g, h = super().proxy(w, q, x, y)
            return 2 * g, h

    class Louder(type(problem)):
        def pointwise_loss(self, q, y):
            return (q - y) ** 2

    assert ridge.row_table(Doubled(**fields)) is None
    with jax.enable_x64(True):
        assert ridge.row_table(prepare(Louder(**fields))) is not None
    a, b = (
        train(kind(**fields), np.ones((1, 7)), SGD(ConstantStep(eta), 20), online=True)
        for kind, eta in ((type(problem), 0.2), (Louder, 0.1))
    )
    np.testing.assert_allclose(a.final_w, b.final_w, rtol=1e-12)
    np.testing.assert_allclose(2 * a.online["loss"], b.online["loss"], rtol=1e-12)


@pytest.mark.parametrize("change", ["scale", "shape"])
def test_compiled_functions_follow_what_is_not_an_array(change):
    calls = []

    def fun(scale, x):
        calls.append(1)
        return scale * x

    compiled = Compiled(fun)
    assert compiled(2.0, np.ones(3)).tolist() == [2.0] * 3
    assert compiled(2.0, np.full(3, 4.0)).tolist() == [8.0] * 3
    assert len(calls) == 1
    again = compiled(3.0, np.ones(3)) if change == "scale" else compiled(2.0, np.ones(4))
    assert again.sum() in (9.0, 8.0)
    assert len(calls) == 2


class CallsPython(Problem):
    """A linear model under squared loss whose output goes through Python, as a user's own library would."""

    features: Any
    targets: Any
    comparator: Any

    def output(self, a):
        # As 32-bit integers: inside the call, 64-bit floats would need a setting of the whole process.
        bits = jax.lax.bitcast_convert_type(a, jnp.int32)
        same = jax.pure_callback(
            np.asarray, jax.ShapeDtypeStruct(bits.shape, bits.dtype), bits, vmap_method="broadcast_all"
        )
        return jax.lax.bitcast_convert_type(same, a.dtype), jnp.ones_like(a)

    def predict(self, w, x):
        return self.output(x @ w)[0]

    def loss_grad(self, w, x, y):
        q = self.predict(w, x)
        return jnp.mean((q - y) ** 2) / 2, q, (q - y) @ x / len(y)

    def pointwise_loss(self, q, y):
        return (q - y) ** 2 / 2

    def slope(self, q, y):
        return jnp.abs(q - y)

    error = slope

    def proxy_at(self, a, b, q, y):
        return self.pointwise_loss(q, y), self.pointwise_loss(b, y)

    def proxy(self, w, q, x, y):
        return self.proxy_at(None, x @ self.comparator, q, y)


def test_a_model_that_calls_python_is_trained_all_the_same():
    rng = np.random.default_rng(0)
    x, y, v = rng.normal(size=(20, 6)), rng.normal(size=20), rng.normal(size=6)
    traces = [
        train(kind(x, y, v), np.zeros(6), SGD(ConstantStep(0.05), 40), online=True)
        for kind in (CallsPython, type("Twice", (CallsPython,), {}))
    ]
    w, eta = np.zeros(6), 0.05
    with jax.enable_x64(True):
        engine = Engine(prepare(CallsPython(x, y, v)), SGD(ConstantStep(eta), 40), [0], False, None)
    for t, i in enumerate(engine.samplers[0].rows(0, 40)[:, 0]):
        assert traces[0].online["loss"][t] == pytest.approx((x[i] @ w - y[i]) ** 2 / 2, rel=1e-10)
        w = w - eta * (x[i] @ w - y[i]) * x[i]
    for trace in traces:
        np.testing.assert_allclose(trace.final_w, w, rtol=1e-11)
        assert trace_identity(trace).status.name == "HOLDS"


class Blind(CallsPython):
    """A linear model that wants to be zero: nothing in its loop depends on the targets."""

    def output(self, a):
        return a, jnp.ones_like(a)

    def loss_grad(self, w, x, y):
        q = self.predict(w, x)
        return jnp.mean(q**2) / 2, q, q @ x / len(y)

    def pointwise_loss(self, q, y):
        return q**2 / 2


@pytest.mark.parametrize(
    ("rows", "kind"), [(1, Blind), (6, Blind), (1, None)], ids=["both", "blind", "one-row"]
)
def test_what_the_loop_does_not_need_to_read_does_no_harm(rows, kind):
    problem, w = neuron(n=rows)
    if kind is not None:
        problem, w = kind(problem.features, problem.targets, problem.comparator[0]), w[0]
    trace = train(problem, w, SGD(ConstantStep(0.02), 60), seed=3, online=True)
    assert trace.finite and trace.steps_done == 60
    assert trace_identity(trace).status.name == "HOLDS"
    if rows == 1 and kind is Blind:
        x, w = problem.features[0], w.copy()
        for _ in range(60):
            w = w - 0.02 * (w @ x) * x
        np.testing.assert_allclose(trace.final_w, w, rtol=1e-11, atol=1e-14)
