"""What the command line prints for people: the promise, the outcome, and the tables of what there is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxyconvex_checker.decimals import show

from .core.guarantee import Alternative
from .report.summary import baseline_words, method_line

if TYPE_CHECKING:
    from .report.audit import Audit
    from .synthesis.plan_types import Plan


def percent(x: float | None) -> str:
    """A fraction as a percentage with three significant digits, rounded up as a promise must be; ``-`` for none."""
    return "-" if x is None or not math.isfinite(x) else show(100 * x, digits=3) + "%"


def print_plan(console: Console, plan: Plan) -> None:
    """The promise in a sentence, what it rests on, and how it was planned."""
    g = plan.guarantee
    n, d = plan.features.shape
    colour = "yellow" if g.vacuous else "green"
    console.print(
        f"[bold]Promise[/] ({escape(plan.dataset.name)}, {n} rows, {d} features; {plan.family.name})"
    )
    console.print(f"  [{colour}]{escape(g.sentence)}[/]")
    if g.vacuous:
        console.print("  [yellow]This promise is vacuous: it says no more than guessing would.[/]")
    console.print(f"  theorem {g.theorem}, evidence {g.evidence.name} ({g.evidence.sentence})")
    console.print(f"  method: {escape(method_line(plan.method))}")
    for premise in g.premises:
        console.print(f"  - {premise.evidence.name:<9} {escape(premise.statement)}")
    for note in plan.notes:
        console.print(f"  note: {escape(note)}")


def print_audit(console: Console, audit: Audit, folder: Path) -> None:
    """Violations first and in red, then promise beside outcome, then where the files are."""
    from .report.certificate import no_certificate
    from .report.on_trace import failed_conditions

    failed = [c for c in audit.checks if not c.ok]
    unmet = [c.name for c in failed_conditions(audit.plan, audit.checks)]
    for check in failed:
        label = "CONDITION NOT MET" if check.name in unmet else "VIOLATED"
        console.print(f"[bold red]{label}[/] {escape(check.name)}: {escape(check.sentence)}")
    measured = audit.measured
    verdict = "[bold green]consistent[/]" if audit.consistent else "[bold red]NOT consistent[/]"
    if failed and len(unmet) == len(failed):
        verdict = "[bold red]nothing was promised for this run[/]"
    console.print(f"[bold]Outcome[/]: {verdict}")
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("quantity")
    table.add_column("promised", justify="right")
    table.add_column("measured", justify="right")
    g = audit.plan.guarantee
    table.add_row(g.quantity, show(g.bound), f"{measured['value']:.6g}")
    if g.baseline is not None:
        table.add_row(baseline_words(audit.plan), "", show(g.baseline, lower=True))
    if audit.plan.dataset.task != "regression":
        table.add_row("error", percent(g.error_bound), percent(measured["error"]))
    console.print(table)
    for check in audit.checks:
        if check.ok:
            console.print(f"  [green]ok[/] {escape(check.name)}: {escape(check.sentence)}")
    after = audit.after_run
    if after is not None:
        console.print(f"[bold]After the run[/] (evidence {after.evidence.name}): {escape(after.sentence)}")
    elif audit.plan.conditional:
        console.print(
            "[yellow]A condition of the promise did not hold on this run: it says nothing about this run.[/]"
        )
    console.print(f"Report: {folder / 'report.html'}")
    if (folder / "certificate.json").exists():
        console.print(f"Check the certificate yourself: proxyconvex verify {folder / 'certificate.json'}")
    elif (why := no_certificate(audit.plan)) is not None:
        console.print(why)


def print_alternatives(console: Console, plan: Plan) -> None:
    """Every theorem: accepted with its promise, or refused with the innermost reason."""
    g = plan.guarantee
    chosen = Alternative(g.theorem, True, "chosen: " + g.sentence, g.bound, g.error_bound)
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{plan.family.name} on {plan.dataset.name}: {method_line(plan.method)}"
    )
    for name in ("theorem", "applies", "error <=", "bound", "why"):
        table.add_column(name, overflow="fold")
    for row in (chosen, *(a for a in plan.alternatives if a.theorem != g.theorem)):
        bound = "-" if row.bound is None else show(row.bound, digits=4)
        applies = "[green]yes[/]" if row.accepted else "[red]no[/]"
        table.add_row(row.theorem, applies, percent(row.error_bound), bound, escape(row.reason))
    console.print(table)


def print_families(console: Console) -> None:
    """The families with their sources and options."""
    from .families import FAMILIES
    from .synthesis.plan import options

    for name, family in FAMILIES.items():
        console.print(f"[bold]{name}[/]: {escape(family.title)}")
        for reference in family.references:
            console.print(f"    {escape(str(reference))}", style="dim")
        accepted = ", ".join(
            f"{k}={p.default!r}" for k, p in options(name).items() if k not in ("progress", "preprocessing")
        )
        console.print(f"    data: {' or '.join(family.tasks)}")
        console.print(f"    options: {escape(accepted)}")


def print_theorems(console: Console) -> None:
    """The theorems with their premises, promises and sources, then the forms a certificate can state, by family."""
    from proxyconvex_checker.claims.table import CLAIMS

    from .core.references import REFERENCES
    from .core.theorems import THEOREMS

    for theorem in THEOREMS:
        console.print(f"[bold]{theorem.id}[/] {escape(theorem.title)}")
        console.print(f"    {escape(theorem.statement)}")
        for reference in theorem.references:
            console.print(f"    {escape(str(reference))}", style="dim")
    console.print("\n[bold]Certified promises, by family[/]")
    for (family, theorem, sampling), claim in CLAIMS.items():
        console.print(
            f"[bold]{theorem}[/] {family}, {' or '.join(claim.methods)}"
            + (f", {sampling}" if sampling else "")
        )
        console.print(f"    {escape(claim.promise)}")
        for key in claim.references:
            console.print(f"    {escape(str(REFERENCES[key]))}", style="dim")
