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

from mlbtc.analysis.compare import Comparison
from mlbtc.analysis.render import markdown_table

Row = tuple[str, ...]


class Format(StrEnum):
    """Output formats of a report."""

    table = "table"
    json = "json"
    markdown = "markdown"
    csv = "csv"


NUMERIC = {"value", "dense / this", "standard / this"}


def rich_table(header: Row, rows: Sequence[Row], numeric: Sequence[str] = tuple(NUMERIC), fixed: int = 2) -> Table:
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
            # What is no name and no message is a number or a formula.
            numeric = [title for title in comparison.header if title not in ("name", "certainty", "problem")]
            Console().print(rich_table(comparison.header, comparison.rows, numeric, fixed=0))


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
