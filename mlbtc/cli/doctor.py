"""`mlbtc doctor`: what works on this machine, and what would make it faster."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlbtc.errors import BackendError

if TYPE_CHECKING:
    from mlbtc.doctor import Examination

STYLES = {"ok": "green", "optional": "dim", "lost": "yellow", "broken": "bold red"}


class Format(StrEnum):
    """Output formats of an examination."""

    table = "table"
    json = "json"


def doctor_command(
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print what was found.")] = Format.table,
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

    Raises:
        BackendError: something essential is broken.
    """
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
