"""Tables of costs on the terminal, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from mlbtc.analysis.compare import PROBLEM, Comparison
from mlbtc.analysis.render import markdown_table

Row = tuple[str, ...]


class Format(StrEnum):
    """Output formats of a report."""

    table = "table"
    json = "json"
    markdown = "markdown"
    csv = "csv"


NUMERIC = ("value", "dense / this", "standard / this")
WORDS = ("name", "certainty")
"""Columns of a comparison that hold words."""


def rich_table(header: Row, rows: Sequence[Row], numeric: Sequence[str] = NUMERIC, fixed: int | None = 2) -> Table:
    """Return a table for the terminal.

    Args:
        header: the titles of the columns.
        rows: their cells.
        numeric: titles of columns that are aligned on the right.
        fixed: the column whose cells are never folded.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for position, title in enumerate(header):
        justify: Any = "right" if title in numeric else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=position == fixed)
    for row in rows:
        # Brackets in a step are index names, not markup.
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    return table


def print_comparison(comparison: Comparison, values: Sequence[dict[str, Any]], format: Format) -> None:
    """Print one row a spec or a point of a sweep.

    Args:
        comparison: the table.
        values: the same as data, for JSON.
        format: how.
    """
    match format:
        case Format.json:
            typer.echo(json.dumps(list(values), indent=2))
        case Format.markdown:
            typer.echo(markdown_table(comparison.header, list(comparison.rows)))
        case Format.csv:
            typer.echo(_csv(comparison), nl=False)
        case Format.table:
            _print_table(comparison, Console())


def _print_table(comparison: Comparison, console: Console) -> None:
    """Print the rows, and below them what is wrong with those that have no costs."""
    header, rows = comparison.header, comparison.rows
    problems = [(row[0], row[-1]) for row in rows if header[-1] == PROBLEM and row[-1]]
    if problems:
        header, rows = header[:-1], tuple(row[:-1] for row in rows)
    numeric = [title for title in header if title not in WORDS]
    # Lines that a narrow terminal wraps lose nothing, as cells that are cut would.
    console.width = max(console.width, sum(2 + max(map(len, cells)) for cells in zip(header, *rows, strict=True)))
    console.print(rich_table(header, rows, numeric, fixed=None))
    for value, problem in problems:
        console.print(f"{header[0]} = {value}: {problem}", style="yellow", highlight=False, markup=False)


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(comparison.header)
    writer.writerows([[_plain(cell) for cell in row] for row in comparison.rows])
    return text.getvalue()


def _plain(cell: str) -> str:
    """Return a number without the commas between its thousands, anything else as it is."""
    digits = cell.replace(",", "")
    return digits if digits.isdecimal() else cell
