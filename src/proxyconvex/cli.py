"""The command line: ``proxyconvex audit | plan | check | verify | watch | families | theorems | explain``."""

from __future__ import annotations

import functools
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from . import __version__
from .cli_check import check
from .cli_options import (
    Activation,
    Beta,
    Budget,
    Data,
    Delta,
    Depth,
    DropConstant,
    DropMissing,
    Family,
    InitScale,
    Json,
    Layers,
    Measurements,
    MethodOption,
    OnePass,
    OutputScale,
    ProblemOption,
    Quiet,
    Sampling,
    Seed,
    Slope,
    Steps,
    Target,
    TaskOption,
    Width,
    parse_budget,
)
from .cli_output import print_alternatives, print_audit, print_families, print_plan, print_theorems
from .core.errors import InvalidInputError
from .synthesis.plan_types import Plan

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Guarantees for gradient training that can be computed on your data and checked by anyone.\n\n"
    "Start with `proxyconvex audit breast-cancer --budget 1min --out runs/bc`, then open `runs/bc/report.html`.",
)
err = Console(stderr=True, highlight=False)


def _plan(
    data: Data,
    family: Family = "two-layer-ntk",
    target: Target = None,
    drop_missing: DropMissing = False,
    drop_constant: DropConstant = False,
    task: TaskOption = None,
    problem: ProblemOption = None,
    measurements: Measurements = None,
    width: Width = None,
    activation: Activation = None,
    slope: Slope = None,
    beta: Beta = None,
    init_scale: InitScale = None,
    depth: Depth = None,
    layers: Layers = None,
    output_scale: OutputScale = None,
    method: MethodOption = None,
    steps: Steps = None,
    budget: Budget = None,
    sampling: Sampling = None,
    one_pass: OnePass = False,
    delta: Delta = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> Plan:
    from .synthesis.plan import plan

    settings = {k: v for k, v in locals().items() if k not in ("data", "quiet", "budget", "plan")}
    settings = {k: v for k, v in settings.items() if v is not None and v is not False}
    if budget is not None:
        settings["budget_seconds"] = parse_budget(budget)
    own = activation if activation is not None and ".py" in activation else None
    if own is not None:
        settings["activation"] = _own_activation(own, family)
    try:
        return plan(data, **settings, progress=not quiet)
    except InvalidInputError as error:
        from .checks.falsify.load import user_error

        where = None if own is None else user_error(error, own)
        if where is None:
            raise
        raise InvalidInputError(error.what, where, error.accepted, error.fix) from error


def _own_activation(target: str, family: str) -> Any:
    """The activation that a user's file declares; a file is run for the family that can use one, and for no other."""
    if family != "single-neuron":
        raise InvalidInputError(
            "activation", target, f"a named activation for {family}",
            "An activation of your own goes with --family single-neuron.",
        )  # fmt: skip
    from .checks.falsify.load import load_activation

    return load_activation(target)


def planning(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``(make, quiet, ...)`` the options of `_plan`; ``make()`` makes the plan they describe."""
    shared = inspect.signature(_plan, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters
    extra = [p for name, p in own.items() if name not in ("make", "quiet")]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        options = {name: given.pop(name) for name in shared}
        command(lambda: _plan(**options), options["quiet"], **given)

    call.__signature__ = inspect.Signature([*shared.values(), *extra])  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in (*shared.values(), *extra)}
    return call


def _command() -> str:
    """The line that reproduces this call."""
    return shlex.join(["proxyconvex", *sys.argv[1:]])


@app.command()
@planning
def audit(
    make: Callable[[], Plan],
    quiet: bool,
    runs: Annotated[int, typer.Option(help="Number of sampling seeds to train (SGD only).", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for certificate, trace and report.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Promise, train, check every premise on the run, and set promise beside outcome.

    Writes `certificate.json` (or `promise.json`, where there is nothing to certify), `trace.npz`, `audit.json` and `report.html` to --out.
    Exit code 0: consistent; 1: a premise, a condition or the promise was violated (printed first, in red); 2: bad input.

    Examples: `proxyconvex audit digits:0,1 --width 1024 --out runs/d01` or
    `proxyconvex audit digits:0,1 --family leaky-relu-noise --slope 0.5 --method sgd --steps 1000000`
    """
    from .report.session import audit_folder, output_folder

    if out is not None:
        output_folder(out)
    made = make()
    name = re.sub(r"[^A-Za-z0-9]+", "-", made.dataset.name)
    folder = out or Path("runs") / f"{name}-{made.family.name}"
    if not quiet and not as_json:
        print_plan(err, made)
    result = audit_folder(made, folder, runs=runs, resume=resume, progress=not quiet, command=_command())
    if as_json:
        print(json.dumps(result.summary(), allow_nan=False))
    else:
        print_audit(Console(highlight=False), result, folder)
    raise typer.Exit(0 if result.consistent else 1)


@app.command()
@planning
def plan(
    make: Callable[[], Plan],
    quiet: bool,
    out: Annotated[Path | None, typer.Option(help="Folder to write the certificate to.")] = None,
    as_json: Json = False,
) -> None:
    """State the promise alone: nothing is trained. With --out, write the certificate of the promise."""
    from .report.certificate import no_certificate
    from .report.session import promise_folder, write_promise
    from .report.summary import summary

    if out is not None:
        promise_folder(out)
    made = make()
    written = write_promise(made, out) if out is not None else None
    if as_json:
        print(json.dumps(summary(made), allow_nan=False))
        return
    console = Console(highlight=False)
    print_plan(console, made)
    if written is not None and written.name == "certificate.json":
        console.print(f"Certificate: {written}\nCheck it: proxyconvex verify {written}")
    elif written is not None:
        console.print(f"Promise: {written}. {no_certificate(made)}")


@app.command()
@planning
def explain(make: Callable[[], Plan], quiet: bool) -> None:
    """Say for every theorem why it applies to this problem, or which premise fails, best promise first."""
    print_alternatives(Console(highlight=False), make())


app.command()(check)


@app.command()
def verify(
    certificate: Annotated[
        Path, typer.Argument(help="certificate.json (its array files must lie beside it).")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Re-check a certificate with the independent checker. Exit 0 accepted, 1 rejected, 2 unreadable."""
    from proxyconvex_checker.__main__ import main as checker_main

    arguments = [str(certificate), *(["--json"] if as_json else [])]
    raise typer.Exit(checker_main(arguments))


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="log_dir of a monitor (or the file monitor.jsonl in it).")],
    once: Annotated[bool, typer.Option("--once", help="Show what is there and return.")] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print the summary in plain words and return.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write the HTML report to this file and return.")
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between looks.", min=0.05)] = 0.5,
) -> None:
    """Follow a monitored training run in the terminal while it runs; Ctrl-C leaves, the run goes on."""
    console = Console(highlight=False)
    if summary:
        from .monitor.summary import summarise

        print(summarise(folder))
    if report is not None:
        from .report.monitor_html import write_monitor_report

        console.print(f"Report: {write_monitor_report(folder, report)}")
    if summary or report is not None:
        return
    from .monitor.live import watch as follow

    follow(console, folder, once=once, interval=interval)


@app.command()
def families() -> None:
    """List the families: which published result each makes executable, and its options."""
    print_families(Console(highlight=False))


@app.command()
def theorems() -> None:
    """List the theorems with premises, promise and source."""
    print_theorems(Console(highlight=False))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"proxyconvex {__version__}")
        raise typer.Exit(0)


def main() -> None:
    """Run the command line; bad input ends with one readable message and exit code 2."""
    try:
        app()
    except InvalidInputError as error:
        err.print(f"[bold red]Bad input:[/] {escape(str(error))}")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        err.print("Interrupted.")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
