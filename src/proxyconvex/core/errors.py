"""The one exception this package raises for input it refuses."""

from __future__ import annotations


class InvalidInputError(ValueError):
    """An argument was refused; the message says what it was, what is accepted and how to fix it.

    Args:
        what: the name of the argument or field that was refused.
        value: the value (or a short description of it) that was given.
        accepted: the accepted type, range or choices.
        fix: one sentence that tells the caller what to do next.
    """

    def __init__(self, what: str, value: object, accepted: str, fix: str = "") -> None:
        self.what, self.value, self.accepted, self.fix = what, value, accepted, fix
        shown = repr(value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        message = f"{what} = {shown} is not accepted; accepted: {accepted}."
        super().__init__(f"{message} {fix}".rstrip())
