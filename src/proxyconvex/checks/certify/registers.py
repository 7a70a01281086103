"""Straight-line code on arrays: written once for a formula, run on every chunk with few temporaries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray

_UFUNCS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "fmax": np.fmax,
    "fmin": np.fmin,
    "neg": np.negative,
}
_FOLD: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "max": max,
    "min": min,
    "neg": lambda a: -a,
}


class Code:
    """Instructions in the order they were written; each has a register, and equal ones have the same.

    The operations are the keys of ``_UFUNCS``; ``take`` (a coordinate and the key of a column: its entries for the intervals of the
    boxes), ``call`` (what, then registers: a tuple of arrays) and ``part`` (of such a tuple).
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.known: dict[tuple[Any, ...], int] = {}
        self.constants: dict[int, float] = {}

    def constant(self, value: float) -> int:
        """The register of a number."""
        # Zeros of both signs are told apart: they are equal as keys.
        register = self.emit("const", value, math.copysign(1.0, value))
        self.constants[register] = value
        return register

    def emit(self, op: str, *args: Any) -> int:
        """The register of an operation on registers."""
        if op in _FOLD and all(a in self.constants for a in args):
            return self.constant(_FOLD[op](*(self.constants[a] for a in args)))
        if op in ("max", "min") and args[0] == args[1]:
            return args[0]
        row = (op, *(sorted(args) if op in ("add", "mul", "max", "min") else args))
        if row not in self.known:
            self.known[row] = len(self.rows)
            self.rows.append(row)
        return self.known[row]

    def inputs(self, register: int) -> tuple[int, ...]:
        """The registers that an instruction reads."""
        op, *args = self.rows[register]
        if op in ("const", "take"):
            return ()
        return tuple(args[1:]) if op == "call" else (args[0],) if op == "part" else tuple(args)

    def plan(self, outputs: Sequence[int]) -> Plan:
        """What is needed for some registers, in order."""
        last: dict[int, int] = {}
        for register in range(len(self.rows) - 1, -1, -1):
            if register in outputs or register in last:
                for r in self.inputs(register):
                    last.setdefault(r, register)
        called = {r for row in self.rows if row[0] == "call" for r in row[2:]}
        steps = []
        for register in sorted({*outputs, *last}):
            op, *args = self.rows[register]
            if op == "const":
                continue
            read = set(self.inputs(register))
            dead = tuple(
                r for r in read if last[r] == register and r not in outputs and r not in self.constants
            )
            # A result may take the place of an operand that nobody reads again, where the operand is an array of this code's own.
            # What a call has seen may live on in its results.
            free = [r for r in dead if r not in called and self.rows[r][0] in (*_UFUNCS, "take")]
            own = free if op in _UFUNCS else []
            steps.append((op, register, tuple(args), own[0] if own else -1, dead))
        return Plan(len(self.rows), dict(self.constants), tuple(steps), tuple(outputs))


@dataclass(frozen=True)
class Plan:
    """Code ready to run.

    Attributes:
        registers: how many.
        constants: registers that are numbers.
        steps: operation, register of the result, arguments, register whose array is overwritten (-1: none), registers then done with.
        outputs: registers of the results.
    """

    registers: int
    constants: dict[int, float]
    steps: tuple[tuple[str, int, tuple[Any, ...], int, tuple[int, ...]], ...]
    outputs: tuple[int, ...]

    @property
    def columns(self) -> set[tuple[int, Any]]:
        """The columns that it takes from."""
        return {args for op, _, args, _, _ in self.steps if op == "take"}

    def run(
        self, n: int, numbers: Sequence[Array], columns: dict[Any, Array], call: Callable[..., Any]
    ) -> list[Any]:
        """The outputs, arrays of length n or numbers.

        Args:
            n: how many boxes.
            numbers: numbers of their intervals in each coordinate, intp.
            columns: by coordinate and key.
            call: does ``call``: what, the arrays, n.
        """
        regs: list[Any] = [None] * self.registers
        for r, value in self.constants.items():
            regs[r] = value
        for op, to, args, over, dead in self.steps:
            if op == "take":
                # The numbers are in range; "clip" only spares NumPy a buffer.
                regs[to] = columns[args].take(numbers[args[0]], mode="clip")
            elif op == "call":
                regs[to] = call(args[0], [regs[r] for r in args[1:]], n)
            elif op == "part":
                regs[to] = regs[args[0]][args[1]]
            else:
                out = regs[over] if over >= 0 else None
                regs[to] = _UFUNCS[op](*[regs[r] for r in args], out=out)
            for r in dead:
                regs[r] = None
        return [regs[r] for r in self.outputs]
