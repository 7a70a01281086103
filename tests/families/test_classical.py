"""Classical conditions on classical problems: constants against closed forms in NumPy, exactness, near misses, promises."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import proxyconvex as pc
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.methods import ConstantStep
from proxyconvex.data import Dataset
from proxyconvex.families import classical_conditions as cc
from proxyconvex.report.audit import audit
from proxyconvex_checker import classical as checker
from proxyconvex_checker.errors import CheckError


def rows(n=20, d=4, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) @ np.diag(np.geomspace(2, 0.3, d))
    if rank is not None:
        x = x @ (q := np.linalg.qr(rng.standard_normal((d, rank)))[0]) @ q.T
    return x, x @ rng.standard_normal(d) + 0.3 * rng.standard_normal(n)


def oracle(x, y):
    """f, gradient, a minimiser, its value, and the eigenpairs of C that are not zero, from the singular values of X."""
    n = len(x)
    left, s, right = np.linalg.svd(x, full_matrices=False)
    keep = s > 1e-10 * s[0]
    star = right[keep].T @ ((left[:, keep].T @ y) / s[keep])
    f = lambda w: np.sum((x @ w - y) ** 2) / (2 * n)  # noqa: E731
    return f, lambda w: x.T @ (x @ w - y) / n, star, f(star), s[keep] ** 2 / n, right[keep]


@pytest.mark.parametrize("rank", [None, 2], ids=["full-rank", "rank-2"])
def test_least_squares(rank):
    x, y = rows(rank=rank)
    made = cc.least_squares(x, y)
    f, grad, star, least, values, basis = oracle(x, y)
    low, top = values.min(), values.max()
    assert float(made["pl"].mu) == pytest.approx(4 * low, rel=1e-8) and float(made["pl"].mu) <= 4 * low
    assert float(made["smooth"].L) == pytest.approx(top, rel=1e-8) and float(made["smooth"].L) >= top
    rng = np.random.default_rng(1)
    points = [star + s * rng.standard_normal(4) for s in (1e-3, 0.1, 1, 10, 1e3) for _ in range(4)]
    points += [star + t * basis[k] for k in range(len(values)) for t in (0.5, -3.0)]
    for w in points:
        e, value, g = w - star, f(w), grad(w)
        size = value + abs(g @ e) + 1e-300
        inside = basis.T @ (basis @ e)
        strong = 0.0 if rank else low
        by_hand = {
            "convex": g @ e - value + least,
            "strongly convex": g @ e - value + least - strong / 2 * (e @ e),
            "star-convex": g @ e - value + least,
            "quasar-convex": g @ e - value + least,
            "rsi": g @ e - low * (inside @ inside),
            "pl": g @ g - 2 * low * (value - least),
            "kl": g @ g - 2 * low * (value - least),
        }
        for name, slack in by_hand.items():
            assert slack >= -1e-11 * max(size, g @ g), name
            assert float(made[name].slack(w)) == pytest.approx(slack, abs=1e-6 * max(size, g @ g)), name
            assert float(made[name].slack(w)) >= -1e-11 * max(size, g @ g), name
        assert made["smooth"].slack(w, star) >= -1e-11 * size * 10
    # PL and RSI are equalities along the direction of the smallest eigenvalue: one per cent more is false.
    w = star + basis[int(np.argmin(values))]
    g, e = grad(w), w - star
    assert g @ g < 2 * 1.01 * low * (f(w) - least) and g @ e < 1.01 * low * (e @ e)
    too_strong = replace(made["pl"], mu=1.01 * 4 * low)
    assert too_strong.slack(w) < -1e-3 * (g @ g)


def test_quasar_convexity_of_least_squares_is_in_fact_two():
    """``<grad f, w - w*> = 2 (f - f*)``, an equality: the constant 1 of convexity is half of what holds."""
    x, y = rows()
    f, grad, star, least, _, _ = oracle(x, y)
    w = star + np.array([0.3, -1.0, 2.0, 0.1])
    assert grad(w) @ (w - star) == pytest.approx(2 * (f(w) - least), rel=1e-10)


@pytest.mark.parametrize("radius", [0.1, 1.0, 4.0])
def test_logistic_regression(radius):
    x, _ = rows(seed=2)
    rng = np.random.default_rng(3)
    y, v = np.where(rng.random(len(x)) < 0.5, -1.0, 1.0), rng.standard_normal(4)
    made = cc.logistic_regression(x, y, v, radius)

    def f(w):
        t = -y * (x @ w)
        return np.mean(np.maximum(t, 0) + np.log1p(np.exp(-np.abs(t))))

    def grad(w):
        return -x.T @ (y * 0.5 * (1 - np.tanh(y * (x @ w) / 2))) / len(x)

    for k in range(60):
        e = rng.standard_normal(4)
        w = v + radius * (1.0 if k % 2 else rng.random()) * e / np.linalg.norm(e)
        for name in ("convex", "strongly convex"):
            assert made[name].slack(w) >= -1e-12
        gap = f(v) - f(w) - grad(w) @ (v - w)
        # The curvature between w and v, by hand: at least m, at most L.
        square = (w - v) @ (w - v)
        assert gap <= float(made["smooth"].L) / 2 * square * (1 + 1e-9)
        slack = grad(w) @ (w - v) - f(w) + f(v)
        assert made["convex"].slack(w) == pytest.approx(slack, abs=1e-12)
        m = 2 * (slack - made["strongly convex"].slack(w)) / square
        reach = np.abs(x @ v) + radius * np.linalg.norm(x, axis=1)
        p = 1 / (1 + np.exp(reach))
        assert m == pytest.approx(
            np.linalg.eigvalsh(x.T @ x / len(x))[0] * np.min(p * (1 - p)), rel=1e-3, abs=1e-10
        )


def exact_slack(kind: str, u: list[Fraction], z: list[Fraction], rho2: Fraction) -> Fraction:
    """``<grad f(u), u - z> - m ||u - z||^2`` in exact rationals, with the gradient from matrices or moments."""
    d = len(z)
    e = [a - b for a, b in zip(u, z, strict=True)]
    size, s = sum(b * b for b in z), sum(a * a for a in e)
    if kind == "rank-one":  # grad f = (u u^T - z z^T) u
        matrix = [[u[i] * u[j] - z[i] * z[j] for j in range(d)] for i in range(d)]
        grad = [sum(matrix[i][j] * u[j] for j in range(d)) for i in range(d)]
        m = size - Fraction(5, 4) * rho2
    else:  # E (q - r) <x,u> x with E x_i x_j x_k x_l = the three pairings
        uu, uz = sum(a * a for a in u), sum(a * b for a, b in zip(u, z, strict=True))
        grad = [3 * uu * u[i] - size * u[i] - 2 * uz * z[i] for i in range(d)]
        m = 2 * size - Fraction(33, 16) * rho2
    return sum(g * a for g, a in zip(grad, e, strict=True)) - m * s


@pytest.mark.parametrize("kind", ["rank-one", "phase-retrieval"])
def test_secant_constants_exactly_on_spheres_and_where_they_are_attained(kind):
    z = np.array([1.2, -0.5, 0.8])
    make = cc.rank_one if kind == "rank-one" else cc.phase_retrieval
    norm, rng = float(np.linalg.norm(z)), np.random.default_rng(4)
    for share in (0.05, 0.3, 0.6, 0.85):
        rho = share * norm
        premise = make(z, rho)["rsi"]
        for k in range(40):
            e = rng.standard_normal(3)
            u = z + rho * (1.0 if k % 2 else rng.random()) * e / np.linalg.norm(e)
            s = Fraction(0) + sum(
                (Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(u, z, strict=True)
            )
            slack = exact_slack(kind, [Fraction(float(a)) for a in u], [Fraction(float(b)) for b in z], s)
            assert slack >= 0  # with the constant of the sphere the point is on
            assert premise.slack(u) >= -1e-12
        # The worst direction: <e, z> = -(3/2) ||e||^2, or -(9/8) ||e||^2; attained while that angle exists.
        factor = 1.5 if kind == "rank-one" else 1.125
        cosine = -factor * rho / norm
        if abs(cosine) <= 1:
            unit, other = z / norm, np.linalg.qr(np.column_stack([z, np.eye(3)]))[0][:, 1]
            e = rho * (cosine * unit + np.sqrt(1 - cosine**2) * other)
            tight = premise.slack(z + e) / (rho**2)
            assert 0 <= tight + 1e-12 and tight <= 1e-7 * norm**2
            # one per cent more is false there
            m = norm**2 - 1.25 * rho**2 if kind == "rank-one" else 2 * norm**2 - 33 / 16 * rho**2
            assert premise.slack(z + e) - 0.01 * m * rho**2 < 0
    with pytest.raises(InvalidInputError, match="constant would not be positive"):
        make(z, norm)


def test_phase_retrieval_is_the_mean_over_gaussian_inputs():
    """The population formulas against Gauss-Hermite quadrature in the plane of w and z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    weights = weights / weights.sum()
    grid = np.array([[a, b] for a in nodes for b in nodes])
    mass = np.array([a * b for a in weights for b in weights])
    w, z = np.array([0.7, -0.4]), np.array([1.1, 0.3])
    premise = cc.phase_retrieval(z, 0.5)["rsi"]
    gap = (grid @ w) ** 2 - (grid @ z) ** 2
    assert float(premise.f(w)) == pytest.approx(np.sum(mass * gap**2) / 4, rel=1e-10)
    np.testing.assert_allclose(premise.grad(w), grid.T @ (mass * gap * (grid @ w)), rtol=1e-10)


def test_linear_network():
    x, y = rows(12, 3)
    rng = np.random.default_rng(5)
    start = np.concatenate([0.1 * rng.standard_normal(6), [1.0, -0.8]])
    premise = cc.linear_network(x, y, 2, start, 0.5)["pl"]
    f, grad, _, least, values, _ = oracle(x, y)
    m = values.min() * (np.hypot(1, 0.8) - 0.5) ** 2
    assert float(premise.mu) == pytest.approx(4 * m, rel=1e-7)
    for k in range(40):
        e = rng.standard_normal(8)
        p = start + 0.5 * (1.0 if k % 2 else rng.random()) * e / np.linalg.norm(e)
        layer, a = p[:6].reshape(2, 3), p[6:]
        g = grad(layer.T @ a)
        square = (a @ a) * (g @ g) + np.sum((layer @ g) ** 2)
        slack = square - 2 * m * (f(layer.T @ a) - least)
        assert slack >= 0
        assert float(premise.slack(p)) == pytest.approx(slack, rel=1e-6)
    with pytest.raises(InvalidInputError, match="second layer"):
        cc.linear_network(x, y, 2, start, 1.5)


def test_matrix_factorisation_gets_a_guarantee_from_its_secant_inequality():
    """RSI and Cauchy-Schwarz feed the theorems: some iterate of GD comes as close to z as T3's formula says."""
    z = np.array([1.0, 0.5])
    rho = 0.4
    premise = cc.rank_one(z, rho)["rsi"]
    ppl = pc.bridge(premise)
    assert float(ppl.mu) == pytest.approx(2 / rho, rel=1e-9)
    w = z + 0.3 * np.array([0.6, -0.8])
    assert ppl.slack(w) >= 0
    m = 1.25 - 1.25 * rho**2
    for _ in range(200):
        before = np.sum((w - z) ** 2)
        w = w - 0.05 * np.asarray(premise.grad(w))
        assert np.sum((w - z) ** 2) <= before * (1 - 0.05 * m)
    assert before < 1e-3


# --- the two problems of the command line --------------------------------------------------------------------------


def numbers() -> Dataset:
    x, y = rows(30, 3, seed=6)
    return Dataset("numbers", x, y, task="regression")


def classes() -> Dataset:
    rng = np.random.default_rng(7)
    y = np.where(np.arange(40) % 2, 1.0, -1.0)
    return Dataset("classes", rng.standard_normal((40, 3)) + y[:, None] * np.array([1.0, 0.2, 0]), y)


@pytest.mark.parametrize(
    ("data", "steps", "theorem"),
    [(numbers(), 2000, "PLg"), (numbers(), 2, "CvxSquares"), (classes(), 500, "CvxLogistic")],
    ids=["PLg", "CvxSquares", "CvxLogistic"],
)
def test_plans_runs_and_certificates(data, steps, theorem, tmp_path):
    plan = pc.plan(data, family="classical", steps=steps)
    run = pc.run(plan)
    g, result = plan.guarantee, audit(plan, run)
    assert g.theorem == theorem and result.consistent, [c for c in result.checks if not c.ok]
    x, y, w = plan.features, data.targets, run.final_w[0]
    if data.task == "regression":
        value = np.mean((x @ w - y) ** 2)
        best = np.mean((x @ np.linalg.lstsq(x, y, rcond=None)[0] - y) ** 2)
    else:
        value, best = np.mean(np.log1p(np.exp(-y * (x @ w)))), 0.0
        assert np.mean(y * (x @ w) <= 0) <= g.error_bound
    assert best * (1 - 1e-12) <= value <= g.bound and result.measured["value"] == pytest.approx(
        value, rel=1e-9
    )
    verdict = pc.verify(pc.write_certificate(plan, tmp_path))
    assert verdict.accepted, verdict.steps[-1]
    for change, name in (({"R": 0.99}, "start-distance"), ({"L": 0.5}, "smoothness")):
        key, factor = next(iter(change.items()))
        wrong = replace(plan, derived={**plan.derived, key: factor * plan.derived[key]})
        found = {c.name for c in audit(wrong, run).checks if not c.ok}
        assert name in found or (key == "L" and theorem == "CvxLogistic")
    slower = replace(plan, method=replace(plan.method, step=ConstantStep(1.01 * plan.method.step.eta)))
    assert "step-size" in {
        c.name for c in audit(slower, replace(run, method=slower.method)).checks if not c.ok
    }


def test_pl_constant_too_large_is_reported():
    """One feature: ``||grad||^2 = 2 m (f - f*)`` at every step, so one per cent more is seen at once."""
    from proxyconvex.preprocessing import Preprocessing

    x = np.array([[1.0], [-2.0], [0.5]])
    data = Dataset("line", x, 3 * x[:, 0], task="regression")
    keep = Preprocessing((0,), center=False, unit_norm=False, bias=0.0)
    plan = pc.plan(data, family="classical", steps=30, preprocessing=keep)
    plan = replace(plan, method=replace(plan.method, step=ConstantStep(0.2 * plan.method.step.eta)))
    run = pc.run(plan)
    assert plan.guarantee.theorem == "PLg"
    good = replace(plan, guarantee=replace(plan.guarantee, bound=1e9))
    assert audit(good, run).consistent
    wrong = replace(good, derived={**plan.derived, "m": 1.01 * plan.derived["m"]})
    assert {c.name for c in audit(wrong, run).checks if not c.ok} == {"proxy-pl"}


def test_checker_formulas_and_refusals():
    x, y = rows(15, 3)
    w, v = np.zeros((1, 3)), np.linalg.lstsq(x, y, rcond=None)[0][None]
    identity = {"name": "leaky-relu", "slope": 1.0, "beta": 1.0}
    values = np.linalg.eigvalsh(x.T @ x / 15)
    eta = 0.9 / values[-1]
    made = checker.derive("PLg", x, y, w, identity, v, {"T": 40, "eta": eta})
    assert made["m"] == pytest.approx(values[0], rel=1e-9) and made["m"] <= values[0]
    best, start = np.mean((x @ v[0] - y) ** 2), np.mean(y**2)
    rate = np.exp(-eta * values[0] * 40)
    assert made["bound"] == pytest.approx((1 - rate) * best + rate * start, rel=1e-9)
    made = checker.derive("CvxSquares", x, y, w, identity, v, {"T": 40, "eta": eta})
    assert made["bound"] == pytest.approx(best + (v[0] @ v[0]) / (eta * 40), rel=1e-9)
    for theorem, activation, targets, step, word in (
        ("CvxSquares", identity, y, 1.01 / values[-1], "eta L exceeds 1"),
        ("CvxSquares", {**identity, "slope": 0.9}, y, eta, "identity"),
        ("CvxLogistic", identity, y, eta, "targets -1 and"),
        ("T3", identity, y, eta, "no theorem"),
    ):
        with pytest.raises(CheckError, match=word):
            checker.derive(theorem, x, targets, w, activation, v, {"T": 40, "eta": step})


def test_bad_arguments_are_refused():
    for options, word in (
        ({"method": "sgd"}, "gd"),
        ({"steps": 0}, "steps"),
        ({"depth": 2}, "an option of the family"),
    ):
        with pytest.raises(InvalidInputError, match=word):
            pc.plan(numbers(), family="classical", **options)
    with pytest.raises(InvalidInputError, match="radius"):
        cc.logistic_regression(*rows(), np.zeros(4), 0.0)
