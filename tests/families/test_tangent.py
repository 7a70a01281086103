"""Tangent proxies, kernels and margins against closed forms in NumPy float64, written without autodiff."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proxyconvex.core.errors import InvalidInputError
from proxyconvex.families import losses, tangent_kernels, tangent_margin
from proxyconvex.families.activations import Activation
from proxyconvex.families.dense import DenseNetwork, jax_outputs
from proxyconvex.families.dense_problem import bind
from proxyconvex.families.tangent import Tangent

ACTIVATIONS = {
    "relu": Activation("relu"),
    "softplus": Activation("softplus", 0.0, 3.0),
    "leaky": Activation("leaky-relu", 0.3),
}
cases = pytest.mark.parametrize(
    ("loss", "outputs", "phi"),
    [
        ("logistic", 1, "relu"),
        ("squared", 1, "softplus"),
        ("cross-entropy", 4, "leaky"),
        ("cross-entropy", 3, "softplus"),
    ],
)


def make(loss, outputs, phi="relu", hidden=(6, 4), n=9, d=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = {"logistic": np.where(np.arange(n) % 2, 1.0, -1.0), "squared": rng.standard_normal(n)}.get(
        loss, np.arange(n) % outputs * 1.0
    )
    return DenseNetwork(hidden, outputs, ACTIVATIONS[phi], seed=seed), x, y, rng


def scalar_pass(network, w, x):
    """Outputs and Jacobian, row by row and neuron by neuron."""
    phi, head, weights = network.activation, network.output_weights(), network.layers(w, x.shape[1])
    outputs, jacobian = [], []
    for row in x:
        h, inputs, slopes = row, [], []
        for weight in weights:
            inputs.append(h)
            z = np.array([sum(a * b for a, b in zip(neuron, h, strict=True)) for neuron in weight])
            slopes.append(phi.derivative(z))
            h = phi.numpy(z)
        outputs.append([float(sum(h * head[:, c])) for c in range(network.outputs)])
        per_output = []
        for c in range(network.outputs):
            delta, blocks = head[:, c] * slopes[-1], []
            for k in range(len(weights) - 1, -1, -1):
                blocks.append(np.array([[s * t for t in inputs[k]] for s in delta]).reshape(-1))
                if k:
                    delta = (
                        np.array([sum(delta * weights[k][:, j]) for j in range(weights[k].shape[1])])
                        * slopes[k - 1]
                    )
            per_output.append(np.concatenate(blocks[::-1]))
        jacobian.append(per_output)
    return np.array(outputs), np.array(jacobian)


def loss_and_slope(loss, q, y):
    """Loss and its derivative in the outputs, in closed form."""
    if loss == "logistic":
        m = y * q[:, 0]
        return np.logaddexp(0, -m), (-y * np.exp(-np.logaddexp(0, m)))[:, None]
    if loss == "squared":
        return (q[:, 0] - y) ** 2 / 2, q - y[:, None]
    e = np.exp(q - q.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    own = np.eye(q.shape[1])[y.astype(int)]
    p = p - own  # 1 - p_y by a sum over the others, so that it keeps its digits
    p = np.where(own == 1, -(p * (1 - own)).sum(axis=1, keepdims=True), p)
    return np.logaddexp.reduce(q, axis=1) - (q * own).sum(axis=1), p


def points(network, d, rng):
    """Random, near, far, zero and sign-flipped parameters."""
    w0 = network.initial(d)
    for scale in (1e-6, 0.3, 1.0, 30.0):
        yield w0, w0 + scale * rng.standard_normal(w0.size)
    yield w0, np.zeros_like(w0)
    yield w0, -w0
    yield rng.standard_normal(w0.size) * 5, w0


@cases
def test_u1_holds_and_equals_the_closed_form(loss, outputs, phi):
    network, x, y, rng = make(loss, outputs, phi)
    model = Tangent(jax_outputs(network), network.initial(3), x, y, loss=loss)
    for w, v in points(network, 3, rng):
        q, jacobian = scalar_pass(network, w, x)
        change = jacobian @ (v - w)
        values, slope = loss_and_slope(loss, q, y)
        lin, _ = loss_and_slope(loss, q + change, y)
        inner = -np.mean(np.sum(slope * change, axis=1))
        size = abs(inner) + values.mean() + lin.mean()
        assert inner - values.mean() + lin.mean() >= -1e-12 * size  # the inequality itself, without autodiff
        got = model.proxies(w, v)
        assert (got.loss, got.comparator_loss, got.inner) == pytest.approx(
            (values.mean(), lin.mean(), inner), rel=1e-9, abs=1e-10 * size
        )
        assert got.slack >= -1e-12 * size


@cases
def test_the_problem_records_u1_and_the_slope(loss, outputs, phi):
    network, x, y, rng = make(loss, outputs, phi)
    v = network.initial(3) + 0.2 * rng.standard_normal(network.size(3))
    problem = bind(network, x, y, v, loss, "T4")
    with jax.enable_x64(True):
        loss_grad = jax.jit(lambda w: problem.loss_grad(w, jnp.asarray(x), jnp.asarray(y)))
        for w, _ in list(points(network, 3, rng))[::2]:
            value, q, grad = loss_grad(jnp.asarray(w))
            g, h = (
                float(jnp.mean(a)) for a in problem.proxy(jnp.asarray(w), q, jnp.asarray(x), jnp.asarray(y))
            )
            outs, jacobian = scalar_pass(network, w, x)
            values, slope = loss_and_slope(loss, outs, y)
            exact = np.einsum("nc,ncp->p", slope, jacobian) / len(y)
            assert np.asarray(grad) == pytest.approx(exact, rel=1e-9, abs=1e-11 * (1 + np.abs(exact).max()))
            assert g == pytest.approx(values.mean(), rel=1e-10)
            assert h == pytest.approx(loss_and_slope(loss, outs + jacobian @ (v - w), y)[0].mean(), rel=1e-9)
            mean_slope = np.abs(slope[:, 0]) if outputs == 1 else -slope[np.arange(len(y)), y.astype(int)]
            assert np.asarray(problem.slope(q, jnp.asarray(y))) == pytest.approx(
                mean_slope, rel=1e-7, abs=1e-13
            )


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_u2_gradient_norm_is_at_least_the_margin_times_the_slope(phi):
    network, x, y, rng = make("logistic", 1, phi, hidden=(16, 12), n=12)
    checked = 0
    for w, _ in points(network, 3, rng):
        q, jacobian = scalar_pass(network, w, x)
        rows = jacobian[:, 0, :]
        _, slope = loss_and_slope("logistic", q, y)
        norm, p = np.linalg.norm(slope[:, 0] @ rows) / len(y), np.abs(slope[:, 0])
        for penalty in (None, 1.0):
            found = tangent_margin.tangent_margin(rows @ rows.T, y, penalty)
            if found.gamma > 0:
                assert norm >= found.gamma * p.mean() * (1 - 1e-12)
                checked += 1
            for level in (0.1, 1.0, 10.0):
                assert norm >= level * (p.mean() - found.slack(level)) - 1e-12 * (1 + norm)
    assert checked >= 3


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_u2_in_the_last_hidden_layer_alone(phi):
    network, x, y, rng = make("logistic", 1, phi, hidden=(10, 8, 24), n=10)
    last = slice(network.size(3) - 24 * 8, None)
    checked = 0
    for w, _ in points(network, 3, rng):
        q, jacobian = scalar_pass(network, w, x)
        rows = jacobian[:, 0, :]
        gram = rows[:, last] @ rows[:, last].T
        features = network.features(w, x)
        assert tangent_kernels.layerwise(features, only=(2,)) == pytest.approx(gram, rel=1e-9, abs=1e-12)
        combined = features.combine(np.ones((10, 1)), (2,))
        assert not combined[: last.start].any()
        assert combined[last] == pytest.approx(rows[:, last].sum(axis=0), rel=1e-9, abs=1e-12)
        found = tangent_margin.tangent_margin(gram, y, None)
        _, slope = loss_and_slope("logistic", q, y)
        p, part = np.abs(slope[:, 0]), np.linalg.norm(slope[:, 0] @ rows[:, last]) / len(y)
        norm = np.linalg.norm(slope[:, 0] @ rows) / len(y)
        assert norm >= part * (1 - 1e-12)
        if found.gamma > 0:
            # The proxy PL inequality of this layer's gradient, hence of all of it.
            assert part >= found.gamma * p.mean() * (1 - 1e-12)
            checked += 1
    assert checked >= 3


def test_u2_for_several_classes():
    network, x, y, rng = make("cross-entropy", 4, "softplus", hidden=(10, 8))
    model = Tangent(jax_outputs(network), network.initial(3), x, y, loss="cross-entropy")
    for w, v in points(network, 3, rng):
        direction = v - w
        q, jacobian = scalar_pass(network, w, x)
        _, slope = loss_and_slope("cross-entropy", q, y)
        change = jacobian @ (direction / np.linalg.norm(direction))
        margins = change[np.arange(9), y.astype(int)][:, None] - change
        margins[np.arange(9), y.astype(int)] = np.inf
        assert model.class_margins(w, direction) == pytest.approx(margins, rel=1e-8, abs=1e-9)
        u = -np.take_along_axis(slope, y.astype(int)[:, None], 1)[:, 0]
        norm = np.linalg.norm(np.einsum("nc,ncp->p", slope, jacobian)) / 9
        assert norm >= margins.min() * u.mean() - 1e-12 * norm


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_u3_and_its_near_miss(phi):
    network, x, y, rng = make("squared", 1, phi, hidden=(20, 16), n=6)
    for w, _ in list(points(network, 3, rng))[:4]:
        q, jacobian = scalar_pass(network, w, x)
        kernel = jacobian[:, 0] @ jacobian[:, 0].T
        floor = tangent_margin.least_eigenvalue(kernel)
        values, vectors = np.linalg.eigh(kernel)
        assert 0 < floor <= values[0] and floor == pytest.approx(values[0], rel=1e-5)
        r = q[:, 0] - y
        grad_sq, f = float(r @ kernel @ r) / 36, float(r @ r) / 12
        assert grad_sq >= 2 * floor / 6 * f * (1 - 1e-12)
        # Residuals along the bottom eigenvector attain it, so 1.01 times the constant is false.
        r = vectors[:, 0]
        assert float(r @ kernel @ r) / 36 < 1.01 * 2 * floor / 6 * float(r @ r) / 12


def test_the_margin_is_certified_from_below_and_the_simplex_value_is_not():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((5, 8)) + np.array([1.0, -1.0, 1.0, -1.0, 1.0])[:, None] * 2
    y = np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    found = tangent_margin.tangent_margin(rows @ rows.T, y)
    # The true margin by brute force over active sets of the dual.
    q = (rows @ rows.T) * y[:, None] * y
    best = np.inf
    for size in range(1, 6):
        for active in map(list, itertools.combinations(range(5), size)):
            p = np.linalg.solve(q[np.ix_(active, active)], np.ones(size))
            if (p > 0).all() and (q[:, active] @ p >= 1 - 1e-9).all():
                best = min(best, 1 / np.sqrt(p.sum()))
    assert found.gamma <= best * (1 + 1e-12) and found.gamma == pytest.approx(best, rel=1e-4)
    assert found.upper >= best * (1 - 1e-12)
    direction = (found.coefficients * y) @ rows
    assert np.min(y * (rows @ direction)) / np.linalg.norm(direction) >= found.gamma


def test_inseparable_rows_have_no_positive_margin_and_slack_says_so():
    kernel = np.ones((4, 4))  # identical rows with different labels
    found = tangent_margin.tangent_margin(kernel, np.array([1.0, -1.0, 1.0, -1.0]))
    assert not found.separable and found.slack(1.0) >= 1 - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_least_eigenvalue_never_exceeds_the_exact_one(seed):
    from fractions import Fraction

    a = np.random.default_rng(seed).integers(-3, 4, (3, 3)).astype(float)
    kernel = a @ a.T + np.eye(3) * 0.25
    floor = tangent_margin.least_eigenvalue(kernel)
    # K - floor I is positive semidefinite in exact arithmetic (leading minors of a symmetric 3 x 3 matrix).
    m = [[Fraction(kernel[i, j]) - (Fraction(floor) if i == j else 0) for j in range(3)] for i in range(3)]
    two = m[0][0] * m[1][1] - m[0][1] ** 2
    three = (
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] ** 2) - m[0][1] * (m[0][1] * m[2][2] - m[1][2] * m[0][2])
        + m[0][2] * (m[0][1] * m[1][2] - m[1][1] * m[0][2])
    )  # fmt: skip
    assert floor > 0 and m[0][0] > 0 and two > 0 and three > 0
    assert tangent_margin.least_eigenvalue(np.diag([1.0, -1e-3])) == 0


@cases
def test_kernels_equal_products_of_jacobians(loss, outputs, phi):
    network, x, _, _ = make(loss, outputs, phi)
    w = network.initial(3)
    _, jacobian = scalar_pass(network, w, x)
    features = network.features(w, x)
    for a, b in itertools.product(range(outputs), repeat=2):
        assert tangent_kernels.layerwise(features, a, other=b) == pytest.approx(
            jacobian[:, a] @ jacobian[:, b].T, rel=1e-10, abs=1e-11
        )
    cut = 6 * 3
    last = jacobian[:, 0, cut:] @ jacobian[:, 0, cut:].T
    assert tangent_kernels.layerwise(features, only=[1]) == pytest.approx(last, rel=1e-10, abs=1e-11)
    weights = np.random.default_rng(5).standard_normal((9, outputs))
    mixed = np.einsum("nc,ncp->np", weights, jacobian)
    # 9 rows: one block, blocks of one row, of two, and blocks and pieces that do not divide 9.
    for fitting, sizes in ((4, (1, 1)), (5, (2, 1)), (8, (5, 1)), (11, (5, 1)), (36, (9, 3)), (240, (9, 9))):
        memory = 8 * w.size * fitting
        assert tangent_kernels.block_sizes(9, w.size, memory) == sizes
        got = tangent_kernels.blockwise(jax_outputs(network), w, x, weights, memory)
        assert got == pytest.approx(mixed @ mixed.T, rel=1e-9, abs=1e-10)
        assert (got == got.T).all()
    direction = np.random.default_rng(6).standard_normal(w.size)
    assert features.directional(network.layers(direction, 3)) == pytest.approx(
        jacobian @ direction, rel=1e-10, abs=1e-11
    )
    assert features.combine(weights) == pytest.approx(
        np.einsum("nc,ncp->p", weights, jacobian), rel=1e-9, abs=1e-10
    )
    assert features.gradient_norms() == pytest.approx(np.linalg.norm(jacobian, axis=2))


def test_blocks_and_passing_pieces_that_do_not_divide_the_rows():
    """A model with several leaves, images as inputs and three outputs, against the Jacobian of the whole."""
    rng = np.random.default_rng(3)
    params = {"a": rng.standard_normal((4, 6)), "b": (rng.standard_normal(6), rng.standard_normal((6, 3)))}
    x, weights = rng.standard_normal((47, 2, 2)), rng.standard_normal((47, 3))
    size = 4 * 6 + 6 + 18

    def apply(p, x):
        return jnp.sin(x.reshape(len(x), -1) @ p["a"] + p["b"][0]) @ p["b"][1]

    with jax.enable_x64(True):
        whole = jax.jacrev(lambda p: jnp.sum(apply(p, x) * weights, 1))(params)
    jacobian = np.concatenate([np.asarray(a).reshape(47, -1) for a in jax.tree.leaves(whole)], axis=1)
    for fitting, sizes in ((27, (16, 2)), (30, (24, 2)), (36, (24, 3)), (48, (24, 4))):
        seen = []
        memory = 8 * size * fitting
        assert tangent_kernels.block_sizes(47, size, memory) == sizes
        got = tangent_kernels.blockwise(apply, params, x, weights, memory, lambda *a: seen.append(a))
        assert got == pytest.approx(jacobian @ jacobian.T, rel=1e-10, abs=1e-10)
        done = [a for a, _ in seen]
        assert seen[-1] == (47 * 47, 47 * 47) and done == sorted(set(done))


def test_rows_kept_and_passing_fit_the_memory():
    for n, p, fitting in itertools.product((1, 2, 7, 100, 2000), (1, 3, 1000), (4, 5, 12, 13, 77, 4000)):
        kept, piece = tangent_kernels.block_sizes(n, p, 8 * p * fitting + 8 * p - 1)
        assert 1 <= piece <= kept <= n
        assert kept + 3 * piece <= fitting or kept == n == piece
        assert kept == n or kept + 3 * piece > fitting / 2  # no more passes than about twice the least


def test_effective_margins_are_the_least_value_of_the_bracket():
    rng = np.random.default_rng(2)
    q = rng.normal(0, 2, (1, 4))
    q[0, 1] = np.inf
    level = losses.effective_margins("cross-entropy", q)[0]
    rest = q[0, [0, 2, 3]]
    for _ in range(400):
        s = rng.dirichlet(np.full(3, 0.4))
        assert s @ (rest + np.log(np.maximum(s, 1e-300))) >= level - 1e-12
    s = np.exp(-rest) / np.exp(-rest).sum()
    assert s @ (rest + np.log(s)) == pytest.approx(level)
    # And the whole bracket of T8 at random outputs.
    for _ in range(200):
        out = rng.normal(0, 3, 4)
        p = np.exp(out - out.max()) / np.exp(out - out.max()).sum()
        u, m = 1 - p[1], out[1] - out
        bracket = sum(p[c] * (q[0, c] - m[c]) for c in (0, 2, 3))
        assert bracket >= u * level + u * np.log(u / (1 - u)) - 1e-9


def test_errors_and_slopes_of_several_classes():
    q = jnp.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    y = jnp.array([0.0, 0.0, 2.0])
    assert losses.error("cross-entropy", q, y).tolist() == [0.0, 1.0, 1.0]  # a tie is an error
    slope = np.asarray(losses.slope("cross-entropy", q, y))
    assert (slope[1:] >= 0.5 - 1e-7).all()


class TestLedger:
    def run(self, loss="squared", steps=30, eta=0.05):
        network, x, y, _ = make(loss, 4 if loss == "cross-entropy" else 1, "softplus")
        model = Tangent(jax_outputs(network), network.initial(3), x, y, loss=loss)
        ws = [network.initial(3)]
        for _ in range(steps):
            ws.append(ws[-1] - eta * model.gradient(ws[-1])[1])
        return model, ws

    @pytest.mark.parametrize("loss", ["logistic", "cross-entropy"])
    def test_the_ledger_bounds_the_average_loss(self, loss):
        model, ws = self.run(loss)
        for v in ("average", "last", "tangent", ws[0] + 0.1):
            ledger = model.ledger(ws, 0.05, v)
            assert ledger.gradient and ledger.residual < 1e-12
            assert ledger.spent <= ledger.budget + 1e-12 * (abs(ledger.budget) + 1)
            assert ledger.average_loss <= ledger.average_loss_bound * (1 + 1e-12)

    def test_steps_that_are_not_gradients_are_noticed(self):
        model, ws = self.run()
        ws[5] = ws[5] + 0.01
        ledger = model.ledger(ws, 0.05)
        assert not ledger.gradient and ledger.residual < 1e-12  # T7 is an identity for any directions

    def test_bad_input(self):
        model, ws = self.run(steps=2)
        for wrong in (
            lambda: model.ledger(ws[:1], 0.1),
            lambda: model.ledger(ws, -1.0),
            lambda: model.ledger(ws, 0.1, "best"),
        ):
            with pytest.raises(InvalidInputError):
                wrong()


def test_equinox_models_and_pytrees():
    import equinox as eqx

    module = eqx.nn.MLP(3, "scalar", 5, 1, key=jax.random.key(0))
    x, y = np.random.default_rng(0).standard_normal((7, 3)), np.where(np.arange(7) % 2, 1.0, -1.0)
    model = Tangent(lambda m, rows: jax.vmap(m)(rows), module, x, y)
    other = eqx.tree_at(lambda m: m.layers[0].bias, module, module.layers[0].bias + 1)
    proxies = model.proxies(module, other)
    assert proxies.slack >= -1e-12 and proxies.inner != 0
    assert model.gram(module).shape == (7, 7)
    assert model.margin(module).gamma == pytest.approx(
        tangent_margin.tangent_margin(model.gram(module), y).gamma
    )


def test_flax_models():
    flax = pytest.importorskip("flax.linen")
    net = flax.Dense(1)
    x, y = np.random.default_rng(0).standard_normal((6, 3)), np.random.default_rng(1).standard_normal(6)
    params = net.init(jax.random.key(0), jnp.ones((1, 3)))
    model = Tangent(lambda p, rows: net.apply(p, rows)[:, 0], params, x, y, loss="squared")
    # A linear model: the kernel is X X' + 1, whatever the parameters.
    assert model.gram(params) == pytest.approx(x @ x.T + 1, rel=1e-6)


def test_bad_models_are_refused():
    x, y = np.ones((4, 2)), np.array([1.0, -1.0, 1.0, -1.0])
    w = {"w": np.zeros(2)}
    for kwargs in (
        {"apply": lambda p, x: x @ p["w"][:, None]},
        {"y": np.array([0.0, 1.0, 0.0, 1.0])},
        {"loss": "hinge"},
        {"params": {"w": "text"}},
    ):
        with pytest.raises(InvalidInputError):
            Tangent(
                **{
                    "apply": lambda p, x: x @ p["w"],
                    "params": w,
                    "x": x,
                    "y": y,
                    "loss": "logistic",
                    **kwargs,
                }
            )
    with pytest.raises(InvalidInputError, match="memory"):
        tangent_kernels.blockwise(lambda p, x: x @ p["w"], w, x, memory=8)
