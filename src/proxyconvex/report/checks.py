"""One check of an audit, and the rounding it allows."""

from __future__ import annotations

from dataclasses import dataclass

# Rounding in a run of float64 arithmetic, relative to the size of the terms compared.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class AuditCheck:
    """One check of an audit.

    Attributes:
        name: the premise's name, or ``finite``, ``trace-identity``, ``promise``.
        ok: whether it held.
        sentence: what was compared, with numbers.
        margin: by how much it held (negative: was violated), in the units of the sentence.
    """

    name: str
    ok: bool
    sentence: str
    margin: float | None
