"""JAX formulas in ball arithmetic: they contain the true value, and they say so when they cannot."""

from __future__ import annotations

from fractions import Fraction

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proxyconvex.checks.falsify import balls as falsify_balls
from proxyconvex.checks.falsify.balls import Unsupported, enclose
from proxyconvex.core.numbers import Interval, exp, log

RNG = np.random.default_rng(0)
X, A = RNG.normal(size=(7, 4)), RNG.normal(size=(4, 4))
Y = np.where(RNG.normal(size=7) > 0, 1.0, -1.0)


def _logistic(w):
    return jnp.mean(jax.nn.softplus(-Y * (X @ w)))


# One formula for each group of operations; the value JAX computes is the reference to about 1e-12.
FORMULAS = {
    "gradient of the logistic loss": lambda w: jnp.sum(jax.grad(_logistic)(w) * w),
    "gradient through relu": lambda w: jnp.sum(jax.grad(lambda u: jnp.mean(jax.nn.relu(X @ u) ** 2))(w) * w),
    "gradient of a maximum": lambda w: jnp.sum(jax.grad(lambda u: jnp.max(X @ u))(w)),
    "logsumexp": lambda w: jnp.sum(jax.grad(lambda u: jax.nn.logsumexp(X @ u))(w) ** 2),
    "norms and indices": lambda w: jnp.linalg.norm(w) ** 3 + w[1] * w[::-1][0],
    "gradient through gather": lambda w: jnp.sum(
        jax.grad(lambda u: u[jnp.array([0, 1, 1])].sum() * u[2] + jnp.tanh(u[3]))(w) ** 2
    ),
    "scan": lambda w: jax.grad(lambda u: jax.lax.scan(lambda c, t: (c * 0.5 + jnp.sin(t) * c, c), 1.0, u)[0])(
        w
    ).sum(),
    "loop": lambda w: jax.lax.fori_loop(0, 5, lambda i, c: c * w[0] + i, w[1]),
    "while": lambda w: jax.lax.while_loop(lambda c: c < 50, lambda c: 2 * c, 1 + w[0] ** 2),
    "branch": lambda w: jax.lax.cond(w[0] > 0, lambda u: u.sum(), lambda u: (u**2).sum(), w),
    "where": lambda w: jnp.where(w > 0.1, w**3, jnp.exp(w)).sum(),
    "contractions": lambda w: jnp.einsum("ni,ij,nj->", X, A * w[0], X) + jnp.abs(w).max(),
    "hinge": lambda w: jnp.sum(jax.grad(lambda u: jnp.maximum(0, 1 - Y * (X @ u)).mean())(w)),
    "activations": lambda w: sum(
        f(w).sum() for f in (jax.nn.gelu, jax.nn.silu, jax.nn.elu, jax.nn.leaky_relu, jax.nn.log_sigmoid)
    ),
    "softmax": lambda w: jax.nn.softmax(X @ w)[0] + jax.grad(lambda u: jax.nn.log_softmax(X @ u)[1])(w)[0],
    "cumulative sums": lambda w: (jnp.cumsum(w) * w).sum() + jnp.prod(w) + jnp.var(w),
    "powers": lambda w: (jnp.abs(w) ** 1.5).sum() + jnp.sqrt(1 + w @ w) + jnp.cbrt(w[0]) + jnp.exp2(w[1]),
    "Hessian product": lambda w: jax.jvp(jax.grad(_logistic), (w,), (w,))[1].sum(),
    "vmap": lambda w: jax.vmap(lambda x, y: jax.nn.softplus(-y * jnp.dot(x, w)))(X, Y).mean(),
    "moves": lambda w: (
        jax.lax.dynamic_slice(w, (1,), (2,)).sum() + jnp.pad(w, 2).sum() + jnp.concatenate([w, w])[5]
    ),
    "counting": lambda w: (
        (w * jnp.arange(4.0)).sum() + (w * jnp.arange(1, 5)).sum() + (w * jnp.linspace(0, 3, 4)).sum()
    ),
    "sort": lambda w: jnp.sort(w)[0] + jnp.median(w),
    "argmax": lambda w: w[jnp.argmax(X[:4] @ w)],
    "trigonometry": lambda w: (jnp.sin(w) * jnp.cos(w) + jnp.arctan(w) + jnp.sinh(w) / jnp.cosh(w)).sum(),
    "erf": lambda w: jax.scipy.special.erf(w).sum() + jax.scipy.special.gammaln(1 + w**2).sum(),
    "clip and sign": lambda w: jnp.clip(w, -0.5, 0.5).sum() + jnp.sign(w).sum() + jnp.expm1(w).sum(),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_agrees_with_jax_and_is_tight(name):
    formula = FORMULAS[name]
    for w in (np.random.default_rng(5).normal(size=4), np.array([1.0, 0.0, -1.0, 2.0])):
        ball = enclose(formula, w)
        with jax.enable_x64(True):
            value = float(formula(jnp.asarray(w)))
        assert abs(float(ball.mid()) - value) <= 1e-11 * (1 + abs(value))
        assert float(ball.rad()) <= 1e-40 * (1 + abs(value))


def test_contains_the_value_of_exact_fractions():
    """An independent oracle: rational intervals of the core, at 224 bits."""
    w = [Fraction(1, 3).limit_denominator(2**20), Fraction(-7, 4)]
    w = [Fraction(float(x)) for x in w]
    ball = enclose(
        lambda u: jnp.log(1 + jnp.exp(u[0])) * u[1] ** 3 - u[0] / u[1], np.array([float(x) for x in w])
    )
    true = log(1 + exp(w[0])) * w[1] ** 3 - w[0] / w[1]
    assert isinstance(true, Interval)
    low, high = (
        Fraction(int(m)) * Fraction(2) ** int(e) for m, e in (ball.lower().man_exp(), ball.upper().man_exp())
    )
    assert low <= true.lo
    assert true.hi <= high


def test_sees_through_cancellation():
    """In float64 this difference is not zero (and in compiled code may be anything); over the reals it is."""
    ball = enclose(lambda u: (u[0] + 1e16) - 1e16 - u[0], np.array([0.3]))
    assert ball == 0
    with jax.enable_x64(True):
        assert float((jnp.asarray(0.3) + 1e16) - 1e16 - 0.3) != 0


def test_an_undecided_comparison_keeps_both_branches():
    """``tanh(x)^2 + 1/cosh(x)^2 = 1``, which no finite precision can see."""

    def formula(u):
        one = jnp.tanh(u[0]) ** 2 + 1 / jnp.cosh(u[0]) ** 2
        return jnp.where(one > 1, 5.0, -3.0)

    ball = enclose(formula, np.array([0.7]))
    assert ball.contains(flint.arb(5))
    assert ball.contains(flint.arb(-3))


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda w: jnp.sum(w.astype(jnp.float32)).astype(jnp.float64), "rounds"),
        (lambda w: jax.random.uniform(jax.random.key(0)) + w[0], "no enclosure|TypeError|numbers of type"),
        (lambda w: jnp.fft.fft(w).real.sum(), "no enclosure|rounds|TypeError|numbers of type"),
    ],
    ids=["float32", "random", "fft"],
)
def test_what_it_cannot_do_it_refuses(formula, message):
    with pytest.raises(Unsupported, match=message):
        enclose(formula, np.ones(4))


def test_too_long_a_computation_is_refused(monkeypatch):
    monkeypatch.setattr(falsify_balls, "MOST_OPERATIONS", 10_000)
    matrix = np.ones((20, 20))
    with pytest.raises(Unsupported, match="more than 10000 operations"):
        enclose(lambda w: jax.lax.fori_loop(0, 10**9, lambda i, c: (matrix @ c) / 20, w).sum(), np.ones(20))


def test_the_precision_of_the_caller_is_restored():
    before = flint.ctx.prec
    enclose(lambda w: w.sum(), np.ones(3))
    assert flint.ctx.prec == before
