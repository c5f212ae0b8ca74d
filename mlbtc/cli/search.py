"""`mlbtc search`: structures for a shape within a budget. Imports torch in the command's body only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mlbtc.cli.tables import rich_table
from mlbtc.errors import CodegenError, SpecError

if TYPE_CHECKING:
    from mlbtc.selection import Search

_SHAPE = re.compile(r"(\d{1,8})x(\d{1,8})")
_FRACTION = re.compile(r"(\d*\.?\d+)x")


def search_command(
    shape: Annotated[str, typer.Option(help="Of the matrix, out x in.", metavar="1024x4096")],
    budget_macs: Annotated[
        str, typer.Option(help="MACs per token, at most: 0.25x of a dense matrix, or a number.", metavar="0.25x")
    ] = "0.5x",
    matrix: Annotated[str | None, typer.Option(help="Fit each structure to it: .npy or .safetensors.")] = None,
    key: Annotated[str | None, typer.Option(help="Which tensor of a .safetensors file.")] = None,
    families: Annotated[list[str] | None, typer.Option("--family", help="Only this one; repeat for several.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time the compiled modules too.")] = False,
    tokens: Annotated[int, typer.Option(help="Tokens of a timed call.", min=1)] = 256,
    everything: Annotated[bool, typer.Option("--all", help="Show what others beat too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[str | None, typer.Option(help="Draw MACs against error or rank: .png or .svg.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A folder for a spec file of each.")] = None,
) -> None:
    """List the structures for a shape that no other one beats, within a budget.

    Families are tried in a few ranks each. With a matrix one beats another if it has no more MACs and
    parameters and no larger error; without, if it has no more MACs and at least the rank, the parameters
    and the reach (the part of the entries that it can make other than 0):

        mlbtc search --shape 64x128 --budget-macs 0.25x

    With -o each becomes a spec file, for analyze, compile and fit.
    """
    sizes = _shape(shape)
    fraction = _fraction(budget_macs, sizes)
    from mlbtc.fitting.files import read_matrix
    from mlbtc.selection import search
    from mlbtc.selection.figure import plot_search

    console, messages = Console(), Console(stderr=True)
    wanted = None if matrix is None else read_matrix(matrix, key)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as bar:
        row = bar.add_task("searching", total=None)
        found = search(
            sizes, fraction, matrix=wanted, families=families or (), measure=measure, tokens=tokens,
            progress=lambda name, done, count: bar.update(row, description=name, completed=done, total=count),
        )  # fmt: skip
    shown = found.candidates if everything else found.front
    if plot is not None:
        plot_search(found, plot)
    if output is not None:
        _write(found, output)
    if as_json:
        typer.echo(json.dumps([one.to_json() for one in shown], indent=2))
        return
    title = f"{sizes[0]} x {sizes[1]}, at most {found.macs:,} MACs per token: {len(found.candidates)} structures, "
    console.print(f"{title}{len(found.front)} that no other beats", style="bold", highlight=False)
    console.print(rich_table(found.header, found.rows(shown), found.header[1:], fixed=None))


def _shape(text: str) -> tuple[int, int]:
    match = _SHAPE.fullmatch(text)
    if match is None or 0 in (sizes := tuple(map(int, match.groups()))):
        raise SpecError(f"--shape takes OUTxIN such as 1024x4096, found {text!r}")
    return sizes[0], sizes[1]


def _fraction(text: str, shape: tuple[int, int]) -> float:
    """Return a budget as a fraction of the MACs of a dense matrix."""
    dense = shape[0] * shape[1]
    match = _FRACTION.fullmatch(text)
    if match is None and not text.isdecimal():
        raise SpecError(f"--budget-macs takes a fraction of dense such as 0.25x or a number of MACs, found {text!r}")
    found = float(match.group(1)) if match else min(1.0, int(text) / dense)
    if not 0 < found <= 1:
        raise SpecError(f"--budget-macs {text}: a dense matrix has 1x, so above 0 and at most that")
    return found


def _write(found: Search, folder: Path) -> None:
    from mlbtc.codegen.loading import write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(found.front, 1):
            write_atomically(folder / f"{number:02d}-{one.spec.name}.yaml", one.spec.to_yaml())
    except OSError as error:
        raise CodegenError(f"cannot write to {folder}: {error.strerror or error}") from None
