"""The house rules that a program can check: layers, light imports, file sizes."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = SOURCE / "proxyconvex"
# Top of the house first: a module may import its own layer and those before it.
# `data` stands for the modules beside the folders that know rows and files and no mathematics: they import core only.
LAYERS = ("core", "data", "families", "descent", "checks", "synthesis", "monitor", "report")
TOP_LEVEL = {
    "preprocessing": "data",
    "data": "data",
    "dataset": "data",
    "data_files": "data",
    "data_built_in": "data",
    "cli": "report",
    "cli_options": "report",
    "cli_output": "report",
    "cli_check": "report",
    "__init__": "report",
    # The public faces of the monitors: they join a monitor and its report.
    "jax": "report",
    "torch": "report",
    "lightning": "report",
    "huggingface": "report",
}
FILES = sorted(PACKAGE.rglob("*.py"))
CHECKER_FILES = sorted((SOURCE / "proxyconvex_checker").rglob("*.py"))


def layer(path: Path) -> int:
    """Position of a module's layer."""
    first = path.relative_to(PACKAGE).parts[0]
    name = TOP_LEVEL[first.removesuffix(".py")] if first.endswith(".py") else first
    return LAYERS.index(name)


def imported_modules(path: Path, text: str | None = None) -> list[str]:
    """Absolute names of everything a file imports, also inside functions; annotations only are left out."""
    tree = ast.parse(path.read_text() if text is None else text)
    typing_only = {
        id(n)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for n in ast.walk(block)
    }
    names = []
    package = path.relative_to(SOURCE).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module or "").split(".") if node.module else ())))
            names += [f"{module}.{a.name}" for a in node.names]
    return names


def downward(path: Path, text: str | None = None) -> list[str]:
    """The imports of a file that point to a later layer."""
    wrong = []
    for name in imported_modules(path, text):
        if not name.startswith("proxyconvex."):
            continue
        first = name.split(".")[1]
        # Anything else is a name of the package itself, such as __version__.
        target = TOP_LEVEL.get(first, first if first in LAYERS else "core")
        if LAYERS.index(target) > layer(path):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_up(path: Path) -> None:
    assert not downward(path)


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("core/x.py", "from ..descent.run import train", True),
        ("core/x.py", "def f():\n    from ..data import load", True),
        ("data.py", "from .families import base", True),
        ("data.py", "import proxyconvex.report.html", True),
        ("families/x.py", "from .. import descent", True),
        ("data.py", "from .core.errors import InvalidInputError", False),
        ("report/x.py", "from ..synthesis import plan", False),
        ("cli.py", "from .report import html", False),
        ("core/x.py", "if TYPE_CHECKING:\n    from ..data import Dataset", False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_walker_sees_a_wrong_import(file: str, line: str, wrong: bool) -> None:
    assert bool(downward(PACKAGE / file, line)) is wrong


# Imported inside a function, used where it is installed, and nothing depends on it.
OPTIONAL = {"library.py": "flint"}


@pytest.mark.parametrize("path", CHECKER_FILES, ids=lambda p: p.name)
def test_the_checker_stands_alone(path: Path) -> None:
    for name in imported_modules(path):
        root = name.split(".")[0]
        allowed = ("numpy", "proxyconvex_checker", OPTIONAL.get(path.name))
        assert root in allowed or root in sys.stdlib_module_names, name


def modules() -> dict[str, Path]:
    """Every module by its name; a package is its ``__init__``."""
    named = {}
    for path in FILES + CHECKER_FILES:
        parts = path.relative_to(SOURCE).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def test_no_module_imports_itself_in_a_circle() -> None:
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        found = set()
        for target in imported_modules(path):
            while target and target not in known:
                target = target.rpartition(".")[0]
            found.add(target)
        graph[name] = found - {"", name}
    order = graphlib.TopologicalSorter(graph)
    order.prepare()  # names the circle, should there be one


@pytest.mark.parametrize("path", FILES + CHECKER_FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420


@pytest.mark.parametrize("path", FILES + CHECKER_FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_functions_stay_readable(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node)
            body = node.end_lineno - node.lineno + 1 - (len(doc.splitlines()) if doc else 0)
            assert body <= 66, f"{node.name} has {body} lines"


def test_import_is_light() -> None:
    code = (
        "import sys, proxyconvex; from proxyconvex import *; "
        "heavy = {'torch', 'cvxpy', 'plotly', 'sklearn', 'polars'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_short_condition_is_refuted_without_loading_what_it_does_not_need() -> None:
    code = (
        "import sys, proxyconvex as pc; cond = pc.reduced(lambda a, b, s: s(a) - s(b) + 1, activation='tanh', a=(-3, 3), b=(-3, 3)); "
        "assert pc.falsify(cond).status.name == 'FALSIFIED'; "
        "unneeded = {'proxyconvex_checker.checking', 'numpy.random', 'flint', 'jax', 'proxyconvex.checks.falsify.distributed'} "
        "& set(sys.modules); assert not unneeded, unneeded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_checker_offers_its_function_and_not_a_module_of_that_name() -> None:
    code = (
        "import proxyconvex_checker as c, proxyconvex_checker.checking as steps; assert c.verify is steps.verify; "
        "from proxyconvex_checker import CheckError, Result, Step, verify; assert verify is steps.verify"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
