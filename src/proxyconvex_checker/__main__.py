"""Command line of the checker: ``python -m proxyconvex_checker CERTIFICATE [--json]``.

Exit status: 0 accepted, 1 rejected (the failing step is named), 2 unreadable.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Sequence

from .checking import Result, verify

VERDICTS = {0: "ACCEPTED", 1: "REJECTED", 2: "UNREADABLE"}


def _print_text(result: Result) -> None:
    for step in result.steps:
        print(f"{'ok  ' if step.ok else 'FAIL'}  {step.name:16} {step.message}")
    for note in result.notes:
        print(f"note  {note}")
    if result.statement:
        print(
            "\n"
            + textwrap.fill(
                result.statement, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
            )
        )
    print(f"\n{VERDICTS[result.exit_code]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify one certificate, print every step and return the exit status.

    Args:
        arguments: command line without the program's name; ``sys.argv[1:]`` by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m proxyconvex_checker",
        description="Re-check a proxyconvex certificate from its data alone.",
        epilog="Exit status: 0 accepted, 1 rejected, 2 unreadable.",
    )
    parser.add_argument("certificate", help="certificate.json, or the folder it is in")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(arguments)
    result = verify(options.certificate)
    if options.json:
        print(
            json.dumps(
                {"verdict": VERDICTS[result.exit_code].lower(), **dataclasses.asdict(result)}, indent=1
            )
        )
    else:
        _print_text(result)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
