"""Whether a traced gradient is the gradient of a traced function, decided with polynomials in atoms."""

from __future__ import annotations

from ...core.errors import InvalidInputError
from ...core.expressions import Expression, derivative
from ..certify import polynomials as algebra
from ..deadline import NEVER, Deadline


def same_gradient(
    f: Expression, variables: list[Expression], given: list[Expression], until: Deadline | None = None
) -> bool:
    """Whether ``given`` equals the partial derivatives of f by an identity of polynomials in atoms.

    False says that no such identity was found, not that the two differ.
    """
    if len(variables) != len(given):
        return False
    try:
        for x, g in zip(variables, given, strict=True):
            (until or NEVER).check()
            if algebra.add(algebra.polynomial(g), algebra.polynomial(derivative(f, x.args[0])), -1):
                return False
    except InvalidInputError:
        return False
    return True
