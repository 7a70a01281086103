"""The command ``proxyconvex check``: a user's condition is searched for a counterexample, then certified where that can be done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from proxyconvex_checker.decimals import show

from .checks import deadline as timing
from .checks.deadline import Deadline
from .checks.falsify.load import load_condition, user_error
from .cli_options import parse_budget
from .core.errors import InvalidInputError
from .core.evidence import Status, Verdict
from .core.reduced import ReducedCondition

EXIT = {
    Status.HOLDS: 0,
    Status.FALSIFIED: 1,
    Status.NOT_FALSIFIED: 3,
    Status.INCONCLUSIVE: 3,
    Status.INVALID_INPUT: 2,
}
COLOURS = {
    Status.HOLDS: "green",
    Status.FALSIFIED: "red",
    Status.NOT_FALSIFIED: "yellow",
    Status.INCONCLUSIVE: "yellow",
}
SHOWN = 400


def check(
    target: Annotated[
        str, typer.Argument(help="A Python file and the condition it defines.", metavar="FILE.py:NAME")
    ],
    certificate: Annotated[
        Path | None, typer.Option(help="Where to write the certificate of a condition that holds.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for search, translation, proof and simplification together, e.g. 30s, 5min (a piece of work once begun is finished; "
            "a certificate is written after that). Default: a fixed number of evaluations, then at most 60s for the proof."
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            help="Parallel processes: of the branch and bound, and of a search on parameters (the latter need Dask).",
            min=1,
        ),
    ] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler to run on, e.g. tcp://127.0.0.1:8786.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted check (its state lies beside the file).")
    ] = False,
    comparator: Annotated[
        str,
        typer.Option(
            help="For proxy convexity on parameters: 'fixed', or 'region' to certify it against every v of the region.",
            metavar="fixed|region",
        ),
    ] = "fixed",
    seed: Annotated[int, typer.Option(help="Seed of the search.", min=0)] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Refute or certify a condition that you wrote down in a Python file.

    First a search for a counterexample: the first one is printed at once, then made as simple as possible and confirmed in ball
    arithmetic. If there is none, the condition is proved by interval branch and bound: a reduced condition (`pc.ProxyConvexity.pointwise`,
    `pc.reduced`), or one on at most six parameters in a bounded region, whose JAX functions are translated to a formula. A condition on the
    loss of a `pc.WeightSpace` is proved by its bounds, whatever its size. Anything else is searched, and the text says why it is not certified.

    Exit code 0: it holds (certified); 1: it is false; 3: not decided; 2: bad input.

    Example: `proxyconvex check examples/my_condition.py:cond --certificate out.json`, then `proxyconvex verify out.json`
    """
    seconds = None if budget is None else parse_budget(budget)
    out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
    condition, like = load_condition(target)
    if comparator not in ("fixed", "region"):
        raise InvalidInputError("--comparator", comparator, "fixed or region")
    session = Session(
        condition,
        like,
        target,
        seconds,
        seed,
        jobs,
        scheduler,
        resume,
        comparator,
        err,
        not quiet and not as_json,
    )
    raise typer.Exit(_answer(session, out, certificate, as_json))


def _answer(session: Session, out: Console, certificate: Path | None, as_json: bool) -> int:
    """Run the check and print its verdict; returns the exit code."""
    target, err = session.target, session.err
    if not as_json:
        out.print(f"[bold]{escape(target)}[/]\n  {escape(_cut(_statement(session.condition)))}")
    try:
        verdict = session.run()
    except InvalidInputError as error:
        where = user_error(error, target)
        if where is None:
            raise
        raise InvalidInputError(error.what, where, error.accepted, error.fix) from error
    except KeyboardInterrupt:
        err.print(f"Interrupted. Continue with: proxyconvex check {target} --resume")
        raise typer.Exit(130) from None
    note = _write(verdict, certificate)
    if as_json:
        print(
            json.dumps(
                as_data(verdict, target, session, note),
                allow_nan=False,
            )
        )
    else:
        _show(out, verdict, session, target, note)
    return EXIT[verdict.status]


class Session:
    """One check: the search, then the certification, within one budget of time."""

    def __init__(
        self, condition: Any, like: Any, target: str, seconds: float | None, seed: int, jobs: int, scheduler: str | None,
        resume: bool, comparator: str, err: Console, talk: bool,
    ) -> None:  # fmt: skip
        self.condition, self.like, self.target, self.seconds, self.seed = (
            condition,
            like,
            target,
            seconds,
            seed,
        )
        self.jobs, self.scheduler, self.err, self.talk = jobs, scheduler, err, talk
        self.comparator = comparator
        self.started, self.deadline = timing.clock(), Deadline.after(seconds)
        self.reduced = isinstance(condition, ReducedCondition)
        self.state = state_file(target)
        if not resume:
            self.state.unlink(missing_ok=True)
        elif not self.state.exists():
            err.print(f"Nothing to resume ({self.state.name} is not there); starting from the beginning.")

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return timing.clock() - self.started

    def run(self) -> Verdict:
        """The verdict."""
        known = None if self.reduced else self._network()
        if known is not None and known.status is Status.HOLDS:
            return known
        reason = None if self.reduced or known is not None else self._reason()
        verdict = self._search(self.reduced or (known is None and reason is None))
        if verdict.status is Status.FALSIFIED:
            pass
        elif known is not None:
            verdict = _searched(verdict, known.sentence)
        elif reason is not None:
            verdict = _searched(verdict, f"Searched, not certified, because {reason}.")
        else:
            verdict = self._certify(verdict)
        if verdict.status in (Status.HOLDS, Status.FALSIFIED):
            self.state.unlink(missing_ok=True)
        return verdict

    def _network(self) -> Verdict | None:
        """What the bounds of a known network say about a condition on its loss."""
        from .checks.weights.network_of import network_of

        if network_of(self.condition) is None:
            return None
        from .checks.weights.conditions import certify_network

        return certify_network(self.condition)

    def _reason(self) -> str | None:
        from .checks.translate.condition import why_not

        return why_not(self.condition, self.like, self.comparator == "region")

    def _certify(self, searched: Verdict) -> Verdict:
        from .checks.certify.certify import certify

        left = 60.0 if self.seconds is None else max(0.01, self.deadline.left)
        with self._line() as report:
            proved = certify(
                self.condition, seconds=left, jobs=self.jobs, scheduler=self.scheduler, like=self.like, comparator=self.comparator,
                progress=report if self.talk else False, checkpoint=self.state, name=self.target.rpartition(":")[2],
            )  # fmt: skip
        if proved.status is not Status.INCONCLUSIVE:
            return proved
        if "reason" in proved.witness:
            return _searched(searched, f"Searched, not certified, because {proved.witness['reason']}.")
        return _both(searched, proved)

    def _search(self, certifiable: bool) -> Verdict:
        from .checks.falsify.falsify import falsify

        limit = None if self.seconds is None else max(0.01, self.deadline.left)
        part = None if limit is None else limit / 4 if certifiable else limit
        evaluations = None if limit is None or self.reduced else 10**9
        elsewhere = {} if self.reduced else {"scheduler": self.scheduler, "jobs": self.jobs}
        with self._line() as report:
            return falsify(
                self.condition, like=self.like, seed=self.seed, seconds=limit, search_seconds=part, budget=evaluations, on_first=self._first,
                progress=(lambda what, n: report(f"{n:,} evaluations, {n / max(self.elapsed, 1e-9):,.0f}/s: {what}")) if self.talk else None,
                checkpoint=None if self.reduced else self.state, **elsewhere,
            )  # fmt: skip

    def _first(self, verdict: Verdict) -> None:
        if self.talk:
            self.err.print(
                f"[red]Counterexample[/] after {self.elapsed:.2f} s: {escape(_cut(verdict.witness['reproduce'], 200))} is at most "
                f"{show(verdict.witness['slack_upper'])} ({verdict.witness['confirmed_by']}). Making it simpler ..."
            )

    def _line(self) -> Any:
        return _Line(self.err)


class _Line:
    """A line of progress that overwrites itself, at most five times a second."""

    def __init__(self, err: Console) -> None:
        self.err, self.last, self.shown = err, time.monotonic(), False

    def __enter__(self) -> Callable[[Any], None]:
        return self.report

    def report(self, what: Any) -> None:
        now = time.monotonic()
        if now - self.last > 0.2:
            self.last, self.shown = now, True
            if self.err.is_terminal:
                print(
                    f"\r\033[K{_cut(str(what), self.err.width - 1)}", end="", file=self.err.file, flush=True
                )

    def __exit__(self, *details: object) -> None:
        if self.shown and self.err.is_terminal:
            print("\r\033[K", end="", file=self.err.file, flush=True)


def state_file(target: str) -> Path:
    """Where the state of a check is kept: beside the file, named by file and condition."""
    path, _, name = target.rpartition(":")
    file = Path(path or target)
    return file.with_name(f".{file.stem}.{name if path else 'condition'}.check.npz")


def _searched(search: Verdict, why: str) -> Verdict:
    """What the search saw, and why that is all."""
    return Verdict(search.status, f"{search.sentence} {why}", search.evidence, search.witness)


def _both(search: Verdict, proved: Any) -> Verdict:
    """Undecided: what the search saw and what the branch and bound proved, whose certificate stays with it."""
    return replace(
        proved,
        sentence=f"{proved.sentence} {search.sentence}",
        witness={**search.witness, **proved.witness},
    )


def _weaker(verdict: Any) -> str:
    """What is proved of a condition that is not decided, where that can be written down: ``slack >= -delta``."""
    if verdict.status is not Status.INCONCLUSIVE or getattr(verdict, "codes", None) is None:
        return ""
    return f"slack >= -{show(float(verdict.delta))}"


def _write(verdict: Any, path: Path | None) -> str:
    """Write the certificate and say where, or say why there is none."""
    if path is None:
        return ""
    weaker = _weaker(verdict)
    if verdict.status is not Status.HOLDS and not weaker:
        return "No certificate was written: there is one only for what is proved."
    try:
        written = Path(verdict.write(path))
        what = written.parent if written.name == "certificate.json" and written != path else written
        return (
            f"Certificate{f' of {weaker}' if weaker else ''}: {written}\nCheck it: proxyconvex verify {what}"
        )
    except InvalidInputError as error:
        return f"No certificate was written: {error.fix or error}"


def _show(out: Console, verdict: Any, session: Session, target: str, note: str) -> None:
    w = verdict.witness
    out.print(
        f"[bold {COLOURS[verdict.status]}]{verdict.status.name}[/]{f', but {weaker} holds' if (weaker := _weaker(verdict)) else ''} (evidence {verdict.evidence.name}, {session.elapsed:.2f} s)"
    )
    if verdict.status is Status.FALSIFIED and "confirmed_by" in w:
        for name, value in _short_point(w):
            out.print(f"  {escape(name)} = {escape(value)}")
        out.print(f"  slack at most {show(w['slack_upper'])} < 0, by {w['confirmed_by']}")
        if w["does_not_matter"]:
            out.print(f"  does not seem to matter: {escape(_cut(', '.join(w['does_not_matter']), 200))}")
        out.print(
            f"  found by: {w['found_by']}, {w['evaluations']:,} evaluations; coordinates different from zero: {w['nonzero']} of {w['size']}"
        )
        file, _, name = target.rpartition(":")
        line = w["reproduce"].replace("cond.", f"{name or 'cond'}.")
        out.print(
            f"  reproduce: from {Path(file or target).stem} import {name or 'cond'}; {escape(_cut(line))}"
        )
    else:
        out.print(f"  {escape(verdict.sentence)}")
    if note:
        out.print(escape(note))


def _short_point(w: dict[str, Any]) -> list[tuple[str, str]]:
    """The coordinates to print: all of a short point, those different from zero of a long one, at most twelve."""
    if w["size"] <= 12:
        return [
            (k, str(np.asarray(v).tolist()) if not isinstance(v, dict | tuple | list) else str(v))
            for k, v in w["point"].items()
        ]
    spots = np.flatnonzero(w["flat"])
    lines = [(f"coordinate {i}", repr(float(w["flat"][i]))) for i in spots[:12].tolist()]
    if len(spots) > 12:
        lines.append(("...", f"{len(spots) - 12} more"))
    return lines


def _statement(condition: Any) -> str:
    return condition.statement if isinstance(condition, ReducedCondition) else condition.record().statement


def _cut(text: str, limit: int = SHOWN) -> str:
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def as_data(verdict: Any, target: str, session: Session, note: str) -> dict[str, Any]:
    """The verdict as JSON data."""
    return {
        "target": target,
        "status": verdict.status.name,
        "exit_code": EXIT[verdict.status],
        "sentence": verdict.sentence,
        "evidence": verdict.evidence.name,
        "seconds": round(session.elapsed, 4),
        "seed": session.seed,
        "certificate": note.split(": ", 1)[1].split("\n")[0] if note.startswith("Certificate") else None,
        "witness": _plain({k: v for k, v in verdict.witness.items() if k not in ("flat", "arguments")}),
    }


def _plain(value: Any) -> Any:
    """JSON data: arrays as lists (long ones by shape and a hash), numbers that JSON has not as text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        if value.size > 4096:
            return {"shape": list(value.shape), "sha256": hashlib.sha256(value.tobytes()).hexdigest()}
        return _plain(value.tolist())
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    return str(value)
