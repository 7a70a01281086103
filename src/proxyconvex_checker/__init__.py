"""Independent re-check of certificates: standard library and NumPy only, nothing of proxyconvex is imported.

    python -m proxyconvex_checker certificate.json

`rounding` states the trusted base; `checking` the steps; `claims` what each theorem promises. The names below are imported on
first use: a search for a counterexample needs `decimals` only, and the whole checker takes longer to load than the search runs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checking import Result, Step, verify
    from .errors import CheckError

__all__ = ["CheckError", "Result", "Step", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'proxyconvex_checker' has no attribute {name!r}")
    module = importlib.import_module(".errors" if name == "CheckError" else ".checking", __name__)
    value = globals()[name] = getattr(module, name)
    return value
