"""Independent re-check of certificates: standard library and NumPy only, nothing of proxyconvex is imported.

    python -m proxyconvex_checker certificate.json

`rounding` states the trusted base; `verify` the steps; `claims` what each theorem promises.
"""

from __future__ import annotations

from .errors import CheckError
from .verify import Result, Step, verify

__all__ = ["CheckError", "Result", "Step", "verify"]
