"""Which interval arithmetic to use."""

from __future__ import annotations

from ...core.errors import InvalidInputError
from .arrays import Own


def arithmetic(name: str = "own") -> Own:
    """The arithmetic of this name: ``"own"``, or ``"crival"`` (correctly rounded, a package to install)."""
    if name == "own":
        return Own()
    if name == "crival":
        try:
            from .crival import Crival
        except ImportError as error:
            raise InvalidInputError(
                "arithmetic", name, "'own'", "Install it with: pip install crival."
            ) from error
        return Crival()
    raise InvalidInputError("arithmetic", name, "'own' or 'crival'")
