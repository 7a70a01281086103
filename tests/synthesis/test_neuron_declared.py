"""A user's activation with declared constants: the promise agrees with the certified one, rests on the declaration, and a wrong one is refuted."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import proxyconvex as pc
from proxyconvex.cli import app
from proxyconvex.core.errors import InvalidInputError
from proxyconvex.core.evidence import Evidence
from proxyconvex.data import Dataset, default_preprocessing
from proxyconvex.families.links import Link
from proxyconvex.synthesis.neuron_declared import Declared

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_activation.py"
STEPS = 5_000


def numbers(n: int = 50) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 3))
    y = 1 / (1 + np.exp(-x @ np.array([1.0, -0.5, 0.2]))) + 0.05 * rng.standard_normal(n)
    return Dataset("numbers", x, y, task="regression")


def planned(link: Link | None, **options):
    data = numbers()
    options = {"preprocessing": default_preprocessing(data), "steps": STEPS, **options}
    return pc.plan(data, family="single-neuron", activation=link, **options)


@pytest.fixture(scope="module")
def own():
    # |s''| of the logistic function is at most 1 / (6 sqrt(3)) < 0.0963.
    return planned(Link.custom(jax.nn.sigmoid, 0.25, curvature=0.0963, label="mine"))


def test_the_promise_of_a_declared_sigmoid_is_that_of_the_certified_one(own):
    named = planned(None)
    assert own.guarantee.bound == pytest.approx(named.guarantee.bound, rel=2e-3)
    assert own.guarantee.bound >= named.guarantee.bound * (1 - 1e-6)
    assert named.guarantee.evidence is Evidence.CERTIFIED


def test_what_rests_on_the_declaration_is_assumed_and_says_so(own, tmp_path):
    g = own.guarantee
    assert g.evidence is Evidence.ASSUMED
    assert g.sentence.startswith("If what is declared for the activation mine is true: among its first")
    by_name = {p.name: p for p in g.premises}
    assert {n: p.evidence.name for n, p in by_name.items()} == {
        "declared activation": "ASSUMED", "distance": "CERTIFIED", "proxy-convexity": "ASSUMED", "growth": "CERTIFIED",
    }  # fmt: skip
    told = by_name["declared activation"].statement
    assert "not proved" in told and "0.0 <= s' <= 0.25" in told and "|s''| <= 0.0963" in told
    assert "proves nothing about others" in told
    assert all("certif" not in note for note in own.notes)
    with pytest.raises(InvalidInputError, match="function of yours with declared constants"):
        pc.write_certificate(own, tmp_path)
    assert not list(tmp_path.iterdir())
    result = pc.audit(own, pc.run(own))
    assert result.consistent, [c for c in result.checks if not c.ok]
    assert result.measured["value"] <= g.bound
    json.dumps(result.summary(), allow_nan=False)


def test_enclosures_contain_values_and_slopes():
    rng = np.random.default_rng(1)
    links = (
        Link.custom(lambda t: t + 0.5 * jnp.sin(t), 1.5, 0.5, curvature=0.5),
        Link.custom(lambda t: jnp.where(t > 0, t, 0.3 * t), 1.0, 0.3),
    )
    for link in links:
        declared = Declared(link, -6.0, 6.0, link.least_slope(-6.0, 6.0), 0)
        lo = rng.uniform(-5, 5, 400)
        hi = lo + 10 ** rng.uniform(-8, 0, 400)
        inside = lo + (hi - lo) * np.linspace(0, 1, 9)[:, None]
        for bounds, exact in (
            (declared.value(lo, hi), link.numpy(inside)),
            (declared.derivative(lo, hi), link.derivative(inside)),
        ):
            assert (bounds[0] <= exact).all() and (exact <= bounds[1]).all()


@pytest.mark.parametrize("kink", [True, False])
def test_the_level_is_above_the_largest_value_of_every_row(kink):
    """Against brute force with closed formulas: leaky ReLU with a declared least slope, and t + sin(t)/2 with a curvature."""
    if kink:
        link = Link.custom(lambda t: jnp.maximum(t, 0.4 * t), 1.0, 0.4)
        s, ds = lambda t: np.maximum(t, 0.4 * t), lambda t: np.where(t > 0, 1.0, 0.4)
    else:
        link = Link.custom(lambda t: t + 0.5 * jnp.sin(t), 1.5, 0.5, curvature=0.5)
        s, ds = lambda t: t + 0.5 * np.sin(t), lambda t: 1 + 0.5 * np.cos(t)
    plan = planned(link)
    x, y, v = plan.features, plan.targets, plan.comparator[0]
    assert not plan.guarantee.vacuous
    eta, alpha = plan.method.step.eta, plan.theorem_params["alpha"]
    radius = np.linalg.norm(plan.initial[0] - v)
    top = np.linalg.eigvalsh(x.T @ x / len(x))[-1]
    b = (x @ v)[:, None]
    a = b + radius * np.linalg.norm(x, axis=1)[:, None] * np.linspace(-1, 1, 20_001)
    r = s(a) - y[:, None]
    level = (alpha * r**2 + eta * top / 2 * (r * ds(a)) ** 2 - ds(a) * r * (a - b)).max(axis=1).mean()
    assert plan.derived["h"] >= level * (1 - 1e-9)
    bound = (level + radius**2 / (2 * eta * STEPS)) / alpha
    assert plan.guarantee.bound >= bound * (1 - 1e-9)
    if not kink:
        assert plan.guarantee.bound <= bound * 1.01


def test_with_a_lipschitz_constant_alone_the_promise_is_vacuous_and_says_what_would_help():
    plan = planned(Link.custom(jax.nn.sigmoid, 0.25, label="mine"))
    assert plan.guarantee.vacuous
    assert "declare a curvature" in plan.notes[-1]
    assert plan.theorem_params["alpha"] <= 1


def _wavy(t):
    return t + 0.5 * jnp.sin(t)


WRONG = {
    "slope above L": (Link.custom(_wavy, 1.485, 0.5), r"lipschitz = 1.485 .*At t = 0 the slope is 1.5"),
    "slope below gamma": (Link.custom(lambda t: jnp.maximum(t, 0.4 * t), 1.0, 0.45), r"gamma = 0.45 .*At t = -"),
    "curvature": (Link.custom(_wavy, 1.5, 0.5, curvature=0.35), r"curvature = 0.35 .*Between t = .* and .* the slope goes"),
    "kink": (Link.custom(lambda t: jnp.maximum(t, 0.4 * t), 1.0, 0.4, curvature=5.0), "kink has no such H"),
    "falls": (Link.custom(lambda t: -jnp.tanh(t), 1.0), "nondecreasing.*It falls from"),
    "not finite": (Link.custom(lambda t: jnp.sqrt(t), 1.0), "Its value at t = .* is nan"),
    "other derivative": (
        Link.custom(lambda t: t + jax.lax.stop_gradient(t), 1.0, 0.5, curvature=0.0), "the mean slope is at least"
    ),
    "not entrywise": (Link.custom(lambda t: t - jnp.mean(t) + jnp.cumsum(t), 1.0), "depends on the other entries"),
    "not JAX": (Link.custom(lambda t: np.tanh(t), 1.0), "Write it with jax.numpy"),
    "shape": (Link.custom(lambda t: jnp.sum(t), 1.0), "It turns shape"),
    "gamma above L": (Link.custom(jnp.tanh, 1.0, 1.5), "gamma = 1.5"),
    "gamma function": (Link.custom(_wavy, 1.5, lambda lo, hi: 2.0), "gamma = 2.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda c: c.replace(" ", "-"))
def test_a_wrong_declaration_is_refused_with_the_point(case):
    link, words = WRONG[case]
    with pytest.raises(InvalidInputError, match=words):
        planned(link)


def test_a_constant_one_percent_too_small_is_refuted_however_narrow_the_peak():
    """The slope exceeds L only within 2e-3 of a point that is on no coarse grid."""
    centre = 0.123456
    link = Link.custom(lambda t: t + 1e-5 * jnp.tanh((t - centre) / 1e-3), 1.0099)  # slope 1 + 0.01 sech^2
    with pytest.raises(InvalidInputError, match=r"lipschitz = 1.0099 .*At t = 0.123"):
        planned(link)


def test_declared_constants_out_of_range_are_refused():
    for arguments, words in (
        (dict(lipschitz=1.0, gamma=-0.1), "gamma"),
        (dict(lipschitz=1.0, curvature=-1.0), "curvature"),
        (dict(lipschitz=0.0), "lipschitz"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            Link.custom(jnp.tanh, **arguments)
    with pytest.raises(InvalidInputError, match="no beta beside a Link"):
        planned(Link.custom(jnp.tanh, 1.0), beta=2.0)


def run_cli(*arguments: str):
    result = CliRunner().invoke(app, [*arguments, "--family", "single-neuron", "--quiet"])
    error = result.exception
    return result, str(error) if isinstance(error, InvalidInputError) else result.output


def test_the_example_on_the_command_line(tmp_path):
    result, text = run_cli(
        "audit", "diabetes", "--activation", f"{EXAMPLE}:act", "--steps", "2000", "--out", str(tmp_path)
    )
    assert result.exit_code == 0, text
    flat = " ".join(text.split())
    assert "no certificate file" in flat and "consistent" in flat
    promise = json.loads((tmp_path / "promise.json").read_text())
    assert promise["guarantee"]["evidence"] == "ASSUMED" and not promise["guarantee"]["vacuous"]
    assert promise["architecture"]["activation"]["function"] == "half_arctan"
    assert not (tmp_path / "certificate.json").exists()
    page = (tmp_path / "report.html").read_text()
    assert "If what is declared for the activation half_arctan is true" in page


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (":too_small", "At t = 0 the slope is 0.318309"),
        (":half_arctan", "pc.Link.custom(half_arctan"),
        (":acting", "Did you mean act"),
        ("", "Activations there: act, too_small, leaky"),
    ],
)
def test_what_the_file_does_not_declare_is_refused(name, words):
    result, text = run_cli("plan", "diabetes", "--activation", f"{EXAMPLE}{name}", "--steps", "2000")
    assert result.exit_code != 0 and words in text


def test_a_file_that_raises_shows_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "import numpy as np\nimport proxyconvex as pc\n\ndef f(t):\n    return np.tanh(t)\n\nact = pc.Link.custom(f, 1.0)\n"
    )
    _, text = run_cli("plan", "diabetes", "--activation", f"{path}:act")
    assert "bad.py, line 5: return np.tanh(t)" in text
    result = CliRunner().invoke(
        app, ["plan", "diabetes", "--family", "tangent", "--activation", f"{path}:act"]
    )
    assert "goes with --family single-neuron" in str(result.exception)
