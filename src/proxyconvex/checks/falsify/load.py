"""Load a condition, or an activation, from a user's file: ``my_condition.py:name``."""

from __future__ import annotations

import difflib
import importlib.util
import linecache
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from ...core.errors import InvalidInputError
from ...core.premises import Premise
from ...core.reduced import ReducedCondition
from ...families.links import Link

FORM = "FILE.py:name, for example my_condition.py:cond"


def load_condition(target: str) -> tuple[Premise | ReducedCondition, Any]:
    """The condition that a file defines under a name, and what it defines as ``like``.

    Args:
        target: ``FILE.py:name``; the name may be left out if the file defines exactly one condition.

    Returns:
        The condition, and a point with the shape of its parameters (None unless the file defines ``like``).

    Raises:
        InvalidInputError: if there is no such file or name, it is no condition, or the file raises (the message then shows
            the user's own line).
    """
    path, name = _split(target, FORM)
    module = _run(path)
    defined = {k: _condition_of(v) for k, v in vars(module).items()}
    found = {
        k: v
        for k, v in defined.items()
        if isinstance(v, Premise | ReducedCondition) and not k.startswith("_")
    }
    if not name:
        if len(found) == 1:
            return next(iter(found.values())), vars(module).get("like")
        listed = ", ".join(found) or "none"
        raise InvalidInputError("name", None, FORM, f"Conditions in {path.name}: {listed}.")
    _require(module, name, path, f"Conditions there: {', '.join(found) or 'none'}.")
    value = defined.get(name, getattr(module, name))
    if not isinstance(value, Premise | ReducedCondition):
        hint = (
            "Call it in the file, and name the result."
            if callable(value)
            else "Build one with pc.ProxyConvexity(...), pc.ProxyPL(...), pc.Smooth(...), or pc.ProxyConvexity.pointwise(...)."
        )
        raise InvalidInputError(
            f"{path.name}:{name}", type(value).__name__, "a condition of proxyconvex", hint
        )
    return value, vars(module).get("like")


def load_activation(target: str) -> Link:
    """The activation of a single neuron that a file defines under a name.

    Args:
        target: ``FILE.py:name``.

    Raises:
        InvalidInputError: as `load_condition` does.
    """
    form = "FILE.py:name, for example my_activation.py:act"
    path, name = _split(target, form)
    module = _run(path)
    there = [k for k, v in vars(module).items() if isinstance(v, Link) and not k.startswith("_")]
    listed = f"Activations there: {', '.join(there) or 'none'}."
    if not name:
        raise InvalidInputError("activation", target, form, listed)
    _require(module, name, path, listed)
    value = getattr(module, name)
    if not isinstance(value, Link):
        raise InvalidInputError(
            f"{path.name}:{name}", type(value).__name__, "an activation with declared constants",
            f"In the file: act = pc.Link.custom({name if callable(value) else 'function'}, lipschitz=..., curvature=...).",
        )  # fmt: skip
    return value


def _split(target: str, form: str) -> tuple[Path, str]:
    """File and name of ``FILE.py:name``; the name may be empty."""
    path_text, colon, name = target.rpartition(":")
    if not colon or path_text == "" or "/" in name or name.endswith(".py"):
        path_text, name = target, ""
    path = Path(path_text)
    if not path.exists():
        near = difflib.get_close_matches(
            path.name,
            [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else [],
            n=3,
            cutoff=0.75,
        )
        hint = f"Did you mean {', '.join(near)}?" if near else f"Looked in {path.parent.resolve()}."
        raise InvalidInputError("file", str(path), form, hint)
    if path.suffix != ".py" or path.is_dir():
        raise InvalidInputError("file", str(path), f"a Python file ({form})")
    return path, name


def _require(module: ModuleType, name: str, path: Path, listed: str) -> None:
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, vars(module), n=3)
        hint = f"Did you mean {', '.join(near)}? " if near else ""
        raise InvalidInputError("name", name, f"a name defined in {path.name}", f"{hint}{listed}")


def _condition_of(value: Any) -> Any:
    """What `certify_on_ball` returned stands for its proxy convexity."""
    module = sys.modules.get("proxyconvex.checks.weights.premises")
    return value.premises[0] if module is not None and isinstance(value, module.OnBall) else value


def _run(path: Path) -> ModuleType:
    """Import the file under a private name; whatever it raises is shown with the user's line."""
    name = f"_proxyconvex_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInputError("file", str(path), f"a Python file ({FORM})")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        where, line = f"{path.name}, line {error.lineno}", (error.text or "").strip()
        raise InvalidInputError(
            "file", f"{where}: {line}", "Python that runs", f"SyntaxError: {error.msg}."
        ) from error
    except (Exception, SystemExit) as error:
        raise InvalidInputError(
            "file", where_of(error, path), "Python that runs", f"{type(error).__name__}: {_short(error)}"
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def where_of(error: BaseException, path: Path) -> str:
    """The last line of the user's file on the way to an error, with its text."""
    own = [
        f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()
    ]
    if not own:
        return path.name
    linecache.checkcache(own[-1].filename)
    return f"{path.name}, line {own[-1].lineno}: {(own[-1].line or '').strip()}"


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else ""


def user_error(error: BaseException, target: str) -> Any:
    """Where in the user's file an error of a later evaluation comes from, or None."""
    path = Path(target.rpartition(":")[0] or target)
    while error is not None:
        found = where_of(error, path)
        if "line" in found:
            return found
        error = error.__cause__  # type: ignore[assignment]
    return None
