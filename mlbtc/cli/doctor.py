"""`mlbtc doctor`: what works on this machine, and what would make it faster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mlbtc.errors import BackendError, SpecError

if TYPE_CHECKING:
    from mlbtc.attention.triton.proof import Verdict
    from mlbtc.doctor import Examination

KERNEL_TABLE_WIDTH = 100
"""The least columns of the table of kernels, so that no number is cut in a pipe or a file."""

STYLES = {"ok": "green", "optional": "dim", "lost": "yellow", "broken": "bold red"}


class Format(StrEnum):
    """Output formats of an examination."""

    table = "table"
    json = "json"


def doctor_command(
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print what was found.")] = Format.table,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Prove the Triton kernels instead, with no GPU: a minute or two, once.")
    ] = False,
    arch: Annotated[
        list[str] | None, typer.Option(help="With --kernels, a GPU: sm_80, sm_90 or gfx942; all by default.")
    ] = None,
    ranks: Annotated[
        list[str] | None, typer.Option(help="With --kernels, a head: 48|16, or 8x8 for eight levels of 8.")
    ] = None,
) -> None:
    """Say what mlbtc finds on this machine, what runs and why, and what is lost without a compiler.

    It builds a small C++ kernel, runs it and compares it with float64, so it takes some seconds. `lost` marks what is
    slower or missing here, with the way to get it; `broken` what keeps mlbtc from working, and only that makes the exit
    status 2.

        mlbtc doctor
        mlbtc doctor --format json

    What it shows can be steered by the environment: CXX names the C++ compiler, MLBTC_CACHE the folder for emitted
    source and built kernels, OMP_NUM_THREADS the number of threads:

        CXX=clang++ MLBTC_CACHE=kernels mlbtc doctor

    With --kernels it compiles the Triton kernels of attention and of decoding ahead of time, for GPUs that need not be
    here, and reads registers, spills and shared memory from the binaries. A kernel that breaks a limit of its GPU, or
    spills on sm_90 for a head of up to 64 features, makes the exit status 1:

        mlbtc doctor --kernels
        mlbtc doctor --kernels --arch sm_90 --ranks "48|16" --ranks 8x8 --format json

    Raises:
        BackendError: something essential is broken, or kernels cannot be compiled here.
        SpecError: an architecture or ranks that there are not.
    """
    if kernels:
        _prove(format, arch, ranks)
        return
    if arch or ranks:
        raise SpecError("--arch and --ranks go with --kernels")
    try:
        from mlbtc.doctor import examine
    except (ImportError, OSError) as error:
        raise BackendError(f"PyTorch cannot be imported ({error}); reinstall it, see https://pytorch.org") from error
    found = examine()
    if format == Format.json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        Console().print(table(found))
    if found.broken:
        raise BackendError("; ".join(f"{fact.value} ({fact.advice})" for fact in found.broken))


def table(found: Examination) -> Table:
    """Return one row per fact; advice stands under what it is about."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    for column in ("section", "name", "state"):
        shown.add_column(column, no_wrap=True, style="dim" if column == "section" else "")
    shown.add_column("value", overflow="fold")
    section = ""
    for fact in found.facts:
        value = Text(fact.value)
        if fact.advice:
            value.append(f"\n{fact.advice}", style="dim")
        lead = fact.section if fact.section != section else ""
        shown.add_row(lead, fact.name, Text(fact.state, style=STYLES[fact.state]), value)
        section = fact.section
    return shown


# Kernels --------------------------------------------------------------------------------------------------------------


def _prove(format: Format, arch: list[str] | None, ranks: list[str] | None) -> None:
    from mlbtc.attention.triton import proof
    from mlbtc.codegen.triton import TARGETS

    heads = [proof.parse_ranks(text) for text in ranks] if ranks else list(proof.RANKS)
    targets = list(dict.fromkeys(arch or TARGETS))
    proof.require_compiler()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("compiling", total=len(targets) * sum(len(proof.subjects(head)) for head in heads))

        def done(verdict: Verdict) -> None:
            bar.update(task, advance=1, description=f"{verdict.kernel}, {verdict.target}")

        verdicts = proof.prove_all(heads, targets, done=done)
    failed = [verdict for verdict in verdicts if verdict.failures]
    if format == Format.json:
        found = {"passes": not failed, "tokens": proof.TOKENS, "kernels": [verdict.to_json() for verdict in verdicts]}
        typer.echo(json.dumps(found, indent=2))
    else:
        plain = Console(highlight=False)
        plain.width = max(plain.width, KERNEL_TABLE_WIDTH)
        plain.print(kernel_table(verdicts))
    if failed:
        first = failed[0]
        what = f"{first.kernel} of {_spelled(first.ranks)} on {first.target}: {first.failures[0]}"
        typer.echo(f"mlbtc: {len(failed)} of {len(verdicts)} kernels break a limit, the first is {what}", err=True)
        raise typer.Exit(1)


def kernel_table(verdicts: Sequence[Verdict]) -> Table:
    """Return one row per kernel; failures stand beside their verdict."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("target", "ranks", "kernel"):
        shown.add_column(column, no_wrap=True)
    for column in ("registers", "spilled bytes", "shared bytes", "of"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("", overflow="fold")
    lead = ("", "")
    for verdict in verdicts:
        record, place = verdict.record, (verdict.target, _spelled(verdict.ranks))
        numbers = ["-"] * 4
        if record is not None:
            counts = record.registers, record.local_bytes, record.shared_bytes, record.shared_limit
            numbers = [f"{count:,}" for count in counts]
        state = Text("FAIL", style="bold red") if verdict.failures else Text("PASS", style="green")
        state.append("".join(f" {failure}" for failure in verdict.failures), style="not bold")
        shown.add_row(*(place if place != lead else ("", "")), verdict.kernel, *numbers, state)
        lead = place
    return shown


def _spelled(ranks: Sequence[int]) -> str:
    same = len(ranks) > 1 and len(set(ranks)) == 1
    return f"{len(ranks)}x{ranks[0]}" if same else "|".join(map(str, ranks))
