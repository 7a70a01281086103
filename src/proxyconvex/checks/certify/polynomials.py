"""Expressions as polynomials in atoms: what is neither a sum nor a product is an atom, and equal atoms are equal.

This is the normal form in which "the residual vanishes at t = r = 0" is decided, exactly, with rational coefficients.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from fractions import Fraction

from ...core.errors import InvalidInputError
from ...core.expression_rows import digest
from ...core.expressions import UNARY, Expression, binary, lift, power, topological, unary

Monomial = tuple[tuple[Expression, int], ...]
Polynomial = dict[Monomial, Fraction]
LIMIT = 5_000


@functools.lru_cache(maxsize=200_000)
def _order(atom: Expression) -> str:
    """A text to sort by; where it would be cut, a digest tells atoms apart."""
    text = repr(atom)
    return text + digest(atom) if len(text) >= 1900 else text


def constant(c: Fraction | int) -> Polynomial:
    """A number as a polynomial."""
    return {(): Fraction(c)} if c else {}


def atom(e: Expression) -> Polynomial:
    """An atom as a polynomial."""
    return {((e, 1),): Fraction(1)}


def add(p: Polynomial, q: Polynomial, factor: Fraction | int = 1) -> Polynomial:
    """``p + factor q``."""
    total = dict(p)
    for m, c in q.items():
        value = total.get(m, Fraction(0)) + factor * c
        if value:
            total[m] = value
        else:
            total.pop(m, None)
    return total


def join(m: Monomial, n: Monomial) -> Monomial:
    """The product of two monomials."""
    exponents: dict[Expression, int] = dict(m)
    for a, e in n:
        exponents[a] = exponents.get(a, 0) + e
    return tuple(sorted(exponents.items(), key=lambda item: _order(item[0])))


def multiply(p: Polynomial, q: Polynomial) -> Polynomial:
    """``p q``.

    Raises:
        InvalidInputError: if the product would have more than `LIMIT` terms.
    """
    total: Polynomial = {}
    if len(p) * len(q) > 40 * LIMIT:
        raise InvalidInputError("formula", f"{len(p) * len(q)} terms", f"at most {LIMIT} terms when expanded")
    for m, c in p.items():
        for n, d in q.items():
            key = join(m, n)
            total[key] = total.get(key, Fraction(0)) + c * d
    total = {m: c for m, c in total.items() if c}
    if len(total) > LIMIT:
        raise InvalidInputError("formula", f"{len(total)} terms", f"at most {LIMIT} terms when expanded")
    return total


def raised(p: Polynomial, n: int) -> Polynomial:
    """``p^n``."""
    result = constant(1)
    for _ in range(n):
        result = multiply(result, p)
    return result


def polynomial(e: Expression, replace: Mapping[Expression, Polynomial] | None = None) -> Polynomial:
    """The expanded form of an expression.

    Args:
        e: the expression.
        replace: polynomials to put in the place of atoms, where those occur as factors of terms (inside the argument of
            a function an atom is left as it is).
    """
    swap = replace or {}
    done: dict[Expression, Polynomial] = {}

    def leaf(a: Expression) -> Polynomial:
        return swap.get(a) or (dict(swap[a]) if a in swap else atom(a))

    for node in topological(e):
        args = [done[x] if isinstance(x, Expression) else x for x in node.args]
        if node.op == "const":
            done[node] = constant(node.args[0])
        elif node.op == "var":
            done[node] = leaf(node)
        elif node.op in ("add", "sub"):
            done[node] = add(args[0], args[1], 1 if node.op == "add" else -1)
        elif node.op == "neg":
            done[node] = add({}, args[0], -1)
        elif node.op == "mul":
            done[node] = multiply(*args)
        elif node.op == "pow":
            done[node] = raised(*args)
        elif node.op == "div":
            divisor = polynomial(node.args[1])
            if set(divisor) == {()}:
                done[node] = add({}, args[0], 1 / divisor[()])
            else:
                done[node] = multiply(args[0], leaf(binary("div", 1, expression(divisor))))
        elif node.op in UNARY:
            done[node] = _of(unary(node.op, expression(polynomial(node.args[0]))), leaf)
        elif node.op in ("max", "min"):
            done[node] = _of(binary(node.op, *(expression(polynomial(x)) for x in node.args)), leaf)
        else:
            done[node] = leaf(node)
    return done[e]


def _of(e: Expression, leaf) -> Polynomial:
    return constant(e.args[0]) if e.op == "const" else leaf(e)


def _monomial(m: Monomial) -> Expression:
    result = lift(1)
    for a, n in m:
        result = result * power(a, n)
    return result


def content(p: Polynomial) -> Monomial:
    """The monomial that divides every term."""
    common: dict[Expression, int] | None = None
    for m in p:
        own = dict(m)
        common = own if common is None else {a: min(n, own[a]) for a, n in common.items() if a in own}
    return tuple(sorted((common or {}).items(), key=lambda item: _order(item[0])))


def divide(p: Polynomial, m: Monomial) -> Polynomial:
    """``p`` over a monomial that divides every term."""
    down = dict(m)
    return {tuple((a, n - down.get(a, 0)) for a, n in key if n > down.get(a, 0)): c for key, c in p.items()}


def expression(p: Polynomial) -> Expression:
    """A polynomial as nested products (Horner), which interval arithmetic encloses more tightly than a sum of terms."""
    if not p:
        return lift(0)
    if set(p) == {()}:
        return lift(p[()])
    common = content(p)
    if common:
        rest = expression(divide(p, common))
        return _monomial(common) * rest if rest.op != "const" or rest.args[0] != 1 else _monomial(common)
    counts: dict[Expression, int] = {}
    for m in p:
        for a, _ in m:
            counts[a] = counts.get(a, 0) + 1
    most = max(sorted(counts, key=_order), key=lambda a: counts[a])
    inside = {m: c for m, c in p.items() if most in dict(m)}
    outside = {m: c for m, c in p.items() if most not in dict(m)}
    left = expression(inside)
    if outside:
        right = expression(outside)
        if right.op == "const" and right.args[0] < 0:
            return left - -right.args[0]
        return right + left
    return left
