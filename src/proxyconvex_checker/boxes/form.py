"""That the slack is the stated quadratic form, and which inequalities make that form non-negative.

With ``t = u - v``, ``r = s(v) - y``, first differences ``f(u) = f(v) + q t`` or second ones ``f(u) = f(v) + f'(v) t + p t^2``, the identity
``slack = M_tt t^2 + 2 M_tr t r + M_rr r^2`` is checked as an identity of polynomials in atoms, which implies it as an identity of functions. A
symmetric 2 x 2 matrix is positive semi-definite if its diagonal and its determinant are >= 0; each of these is checked to
be the product of the stated factors, so it is >= 0 where every factor of odd multiplicity is.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from ..errors import CheckError
from . import expressions as ex
from .expressions import Polynomial, Rows

STEP = "quadratic form"
_T, _R = "t'", "r'"


def substitution(form: dict[str, Any], curve: Rows | None, slack: Rows) -> dict[str, Polynomial]:
    """What stands for which atom: ``u``, functions of ``u`` and ``y``."""
    u, v, y, order = form["u"], form["v"], form["y"], form["order"]
    t, x = ex.atom(_T), pivot(v)
    swap = {u: ex.plus(x, t)}
    used = {row[0] for rows in (slack, curve or []) for row in rows} & set(ex.DIFFERENTIABLE)
    # Only differences that the matrix mentions; others would be atoms that cannot cancel.
    named = {row[1] for rows in form["matrix"] for row in rows if row[0] == "dd"}
    for f in sorted(used & named):
        q = ex.atom(ex.difference_key(f, order, ex.atom(u), x))
        if order == 2:
            q = ex.plus(ex.slope(f, x), ex.times(q, t))
        swap[ex.function_key(f, ex.atom(u))] = ex.plus(ex.value_at(f, x), ex.times(q, t))
    if y is not None:
        swap[y] = ex.plus(_at(curve, v), ex.atom(_R), -1)
    return swap


def pivot(v: str | Fraction) -> Polynomial:
    """The second variable, or the number in its place."""
    return ex.constant(v) if isinstance(v, Fraction) else ex.atom(v)


def _at(curve: Rows | None, v: str | Fraction) -> Polynomial:
    """``s(v)`` as a polynomial: the curve with its variable replaced."""
    if curve is None:
        raise CheckError(STEP, "r = s(v) - y needs the activation s, which is not stored")
    row_of_v = ("const", v) if isinstance(v, Fraction) else ("var", v)
    return ex.expand([row_of_v if row == ("var", "t") else row for row in curve])


def check(form: dict[str, Any], curve: Rows | None, slack: Rows) -> list[Rows]:
    """Check a form; returns the expressions that must be >= 0 on a box for the slack to be so.

    Raises:
        CheckError: if the slack is not this form, or a product not what it is said to be.
    """
    names = (form["u"], form["v"], form["y"])
    if len({n for n in names if n is not None}) != (2 if form["y"] is None else 3):
        raise CheckError(STEP, "u, v and y must be different variables")
    if len(form["matrix"]) != (1 if form["y"] is None else 3) or len(form["factors"]) != len(form["matrix"]):
        raise CheckError(STEP, "one entry belongs to t alone, three to t and r")
    swap = substitution(form, curve, slack)
    entries = [ex.expand(rows, swap) for rows in form["matrix"]]
    t, r = ex.atom(_T), ex.atom(_R)
    total = ex.times(entries[0], ex.power(t, 2))
    if len(entries) == 3:
        cross = ex.times(entries[1], ex.times(t, r))
        total = ex.plus(ex.plus(total, cross, 2), ex.times(entries[2], ex.power(r, 2)))
    if ex.expand(slack, swap) != total:
        raise CheckError(STEP, "the slack is not the stated quadratic form")
    due = [entries[0]]
    if len(entries) == 3:
        determinant = ex.plus(ex.times(entries[0], entries[2]), ex.power(entries[1], 2), -1)
        due += [entries[2], determinant]
    required: list[Rows] = []
    for name, want, factors in zip(("M_tt", "M_rr", "the determinant"), due, form["factors"], strict=False):
        product = ex.constant(Fraction(1))
        for factor in factors:
            product = ex.times(product, ex.power(ex.expand(factor["of"], swap), factor["power"]))
        if product != want:
            raise CheckError(STEP, f"{name} is not the product of its stated factors")
        required += [f["of"] for f in factors if f["power"] % 2 and f["of"] not in required]
    return required
