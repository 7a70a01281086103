"""``proxyconvex check``: exit codes, what is printed, and errors that show the user's own line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import proxyconvex as pc
from proxyconvex import cli
from proxyconvex.cli_check import state_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_condition.py"

HEAD = "import jax.numpy as jnp\nimport numpy as np\nimport proxyconvex as pc\n\n"


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    runner = CliRunner()
    result = runner.invoke(cli.app, ["check", *map(str, arguments)], env={"COLUMNS": "400"})
    if isinstance(result.exception, cli.InvalidInputError):
        return 2, result.stdout, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def user_file(tmp_path):
    def write(body: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(HEAD + body)
        return path

    return write


def test_a_condition_that_holds_is_certified_and_verified(tmp_path):
    certificate = tmp_path / "out.json"
    code, out, _ = run(f"{EXAMPLE}:monotone", "--certificate", certificate, "--quiet")
    assert code == 0
    assert "HOLDS (evidence CERTIFIED" in out
    assert "proxyconvex verify" in out
    assert CliRunner().invoke(cli.app, ["verify", str(certificate)]).exit_code == 0


def test_a_false_condition_is_refuted_with_a_line_that_reproduces_it():
    code, out, err = run(f"{EXAMPLE}:too_good")
    assert code == 1
    assert "FALSIFIED" in out
    assert err.index("Counterexample") < err.index("Making it simpler")
    line = re.search(r"reproduce: (.*)", out)[1]
    sys.path.insert(0, str(EXAMPLE.parent))
    try:
        statement, expression = line.split("; ")
        scope: dict[str, object] = {}
        exec(statement, scope)
        assert eval(expression, scope) < 0
    finally:
        sys.path.remove(str(EXAMPLE.parent))


def test_json_is_one_object_and_nothing_else():
    code, out, err = run(f"{EXAMPLE}:too_good", "--json")
    data = json.loads(out)
    assert (code, data["exit_code"], data["status"], data["evidence"]) == (1, 1, "FALSIFIED", "CERTIFIED")
    assert set(data["witness"]["point"]) == {"a", "b", "y"}
    assert err == ""


def test_a_condition_on_parameters_is_only_searched(tmp_path):
    code, out, _ = run(
        f"{EXAMPLE}:strong", "--budget", "1s", "--certificate", tmp_path / "no.json", "--quiet"
    )
    assert code == 3
    assert "NOT_FALSIFIED (evidence SAMPLED" in out
    assert "does not show that none exists" in out
    assert "Searched, not certified, because its region, the whole space, does not bound w_0, w_1" in out
    assert "No certificate was written" in out
    assert not (tmp_path / "no.json").exists()
    state_file(f"{EXAMPLE}:strong").unlink()


def test_a_condition_on_few_parameters_in_a_ball_is_certified_and_verified(tmp_path):
    certificate = tmp_path / "near.json"
    code, out, _ = run(f"{EXAMPLE}:near", "--budget", "20s", "--certificate", certificate, "--quiet")
    assert code == 0 and "HOLDS (evidence CERTIFIED" in out
    result = CliRunner().invoke(cli.app, ["verify", str(certificate)])
    assert result.exit_code == 0 and "translated from ProxyConvexity near with f = small_loss" in " ".join(
        result.stdout.split()
    )


def test_a_condition_on_a_known_network_is_certified_by_its_bounds(tmp_path):
    code, out, _ = run(f"{EXAMPLE}:network", "--certificate", tmp_path / "net.json", "--quiet")
    assert code == 0 and "It follows from smoothness at most" in out
    assert f"Check it: proxyconvex verify {tmp_path / 'net'}" in out
    assert CliRunner().invoke(cli.app, ["verify", str(tmp_path / "net")]).exit_code == 0


def test_every_comparator_of_a_region_at_once(user_file):
    path = user_file(
        "f = lambda w: jnp.sum(w**2 + w**4)\ncond = pc.ProxyConvexity(f, f, f, comparator=np.zeros(1), region=pc.Ball(np.zeros(1), 1.0))\n"
    )
    code, out, _ = run(f"{path}:cond", "--budget", "20s", "--comparator", "region", "--quiet")
    assert code == 0 and "v_0 in [-1, 1]" in out, out
    assert "fixed or region" in run(f"{path}:cond", "--comparator", "all")[2]


def test_what_has_no_translation_is_searched_and_the_reason_names_the_line(user_file):
    path = user_file(
        "cond = pc.BoundedBelow(-1, f=lambda w: jnp.sum(jnp.sin(w)) + 8, region=pc.Ball(np.zeros(2), 1.0))\n"
    )
    code, out, _ = run(f"{path}:cond", "--budget", "2s", "--quiet")
    assert code == 3 and "NOT_FALSIFIED" in out
    assert "'sin' has no counterpart among the expressions (at mine.py, line 5)" in out


def test_too_many_variables_are_searched_and_it_says_why(user_file):
    path = user_file("cond = pc.BoundedBelow(0, f=lambda w: w @ w, region=pc.Ball(np.zeros(7), 1.0))\n")
    code, out, _ = run(f"{path}:cond", "--budget", "2s", "--quiet")
    assert code == 3
    assert "Searched, not certified, because it has 7 variables and boxes are subdivided in at most 6." in out


def test_an_undecided_condition_keeps_its_state_and_resumes(user_file):
    # True, with equality on a curve that no rewriting removes: boxes alone cannot close it.
    path = user_file(
        "cond = pc.reduced(lambda a, b, exp: exp(2 * a) - 2 * exp(a) * b + b**2, a=(-2, 2), b=(-2, 2))\n"
    )
    code, out, _ = run(f"{path}:cond", "--budget", "2s", "--quiet")
    assert code == 3
    assert "INCONCLUSIVE" in out
    assert "Worst open box" in out
    state = state_file(f"{path}:cond")
    assert state.exists()
    code, out, err = run(f"{path}:cond", "--budget", "2s", "--resume", "--quiet")
    assert code == 3
    assert "Nothing to resume" not in err
    state.unlink()
    assert "Nothing to resume" in run(f"{path}:cond", "--budget", "1s", "--resume", "--quiet")[2]


def test_the_shape_can_be_given_in_the_file(user_file):
    path = user_file("cond = pc.BoundedBelow(0, f=lambda w: jnp.sum(w) + 1.0 * w.size)\n")
    code, _, message = run(f"{path}:cond")
    assert code == 2
    assert "define like = w0" in message
    path = user_file("like = np.zeros(3)\ncond = pc.BoundedBelow(0, f=lambda w: jnp.sum(w) + 1.0 * w.size)\n")
    assert run(f"{path}:cond")[0] == 1


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        ("x = 1 / 0\n", "x", r"mine.py, line 5: x = 1 / 0.*ZeroDivisionError: division by zero"),
        ("cond = pc.Smooth(1.0\n", "cond", r"mine.py, line 5: cond = pc.Smooth\(1.0.*SyntaxError: '\(' was never closed"),
        ("raise SystemExit('no')\n", "cond", r"mine.py, line 5: raise SystemExit\('no'\).*SystemExit: no"),
        ("import not_a_module\n", "cond", r"mine.py, line 5: import not_a_module.*ModuleNotFoundError"),
        ("cond = 3\n", "cond", r"mine.py:cond = 'int'.*Build one with"),
        ("def cond():\n    return 1\n", "cond", r"Call it in the file"),
        ("conjecture = pc.Smooth(1.0)\n", "conjectur", r"Did you mean conjecture\?"),
        ("a = pc.Smooth(1.0)\nb = pc.Smooth(2.0)\n", "", r"Conditions in mine.py: a, b"),
        (
            "def f(w):\n    return np.exp(w[0]) + w['a']\n\n\ncond = pc.Smooth(1.0, f=f, region=pc.Ball(np.zeros(2), 1.0))\n",
            "cond", r"mine.py, line 6: return np.exp\(w\[0\]\).*Use jax.numpy",
        ),
    ],
    ids=["raises", "syntax", "exits", "import", "no condition", "function", "misspelt", "which", "raises later"],
)  # fmt: skip
def test_bad_files_show_the_users_line(user_file, body, name, message):
    path = user_file(body)
    code, _, text = run(f"{path}:{name}" if name else path)
    assert code == 2
    assert re.search(message, text, re.DOTALL), text


def test_no_such_file_suggests_one_that_exists(user_file):
    path = user_file("cond = 1\n", "my_condition.py")
    code, _, text = run(f"{path.with_name('my_conditoin.py')}:cond")
    assert code == 2
    assert "Did you mean my_condition.py?" in text
    assert run(f"{path.with_name('elsewhere.py')}:cond")[0] == 2


def test_bad_options_are_refused():
    assert "a positive time" in run(f"{EXAMPLE}:too_good", "--budget", "soon")[2]
    assert run(f"{EXAMPLE}:too_good", "--jobs", 0)[0] == 2


def test_the_help_documents_exit_codes():
    text = CliRunner().invoke(cli.app, ["check", "--help"], env={"COLUMNS": "200"}).stdout
    for part in (
        "0: it holds",
        "1: it is false",
        "3: not decided",
        "2: bad input",
        "--certificate",
        "--resume",
        "--scheduler",
    ):
        assert part in text


def test_an_undecided_condition_leaves_a_certificate_of_what_is_proved(tmp_path):
    path = tmp_path / "flat.py"
    path.write_text(
        "import proxyconvex as pc\n"
        "cond = pc.reduced(lambda a, b, c, d: (a * c + b * d) ** 2 - 2 * (a * c + b * d) + 1, a=(0, 2), b=(-1, 1), c=(0, 2), d=(-1, 1))\n"
    )
    certificate = tmp_path / "flat.json"
    code, out, _ = run(f"{path}:cond", "--budget", "2s", "--certificate", certificate, "--quiet")
    assert code == 3
    assert "INCONCLUSIVE, but slack >= -" in out and "It holds up to -delta" in out
    assert "Certificate of slack >= -" in out
    assert pc.verify(certificate).accepted
