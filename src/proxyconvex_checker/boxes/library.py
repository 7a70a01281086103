"""A test of the trusted base: NumPy's elementary functions against ball arithmetic, at arguments in the ranges.

Only where python-flint is installed; nothing depends on it, so a certificate is as good without.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CheckError

POINTS = 200
FUNCTIONS = ("exp", "expm1", "log", "log1p")


def check(document: dict[str, Any]) -> str:
    """Compare at a fixed grid over the ranges; a sentence about what was done.

    Raises:
        CheckError: if a function is further than 8 units in the last place from the true value.
    """
    try:
        import flint  # type: ignore[import-not-found]
    except ImportError:
        return "python-flint is not installed; NumPy's functions are trusted as stated"
    tested = 0
    for _, lo, hi in document["variables"]:
        for k in range(POINTS):
            x = float(lo + (hi - lo) * k / (POINTS - 1))
            for name in FUNCTIONS:
                if (name == "log" and x <= 0) or (name == "log1p" and x <= -1) or not -700 <= x <= 700:
                    continue
                value = float(getattr(np, name)(x))
                true = getattr(flint.arb(x), name)()
                if not abs(true - value) <= flint.arb(8 * float(np.spacing(abs(value))) + 2.0**-1022):
                    raise CheckError(
                        "library",
                        f"NumPy's {name}({x!r}) = {value!r} is not within 8 units of the true value",
                    )
                tested += 1
    return f"NumPy's elementary functions agree with python-flint at {tested} arguments"
