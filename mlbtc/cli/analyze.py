"""`mlbtc analyze`: the cost report of a spec file. Imports neither torch nor jinja2."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mlbtc.analysis import AttentionReport, Report, analyze, render
from mlbtc.analysis.score import SPLIT_HEADER, split_rows
from mlbtc.cli.options import load_with
from mlbtc.errors import SpecError


class Format(StrEnum):
    """Output formats of a report."""

    table = "table"
    json = "json"
    markdown = "markdown"
    csv = "csv"


def analyze_command(
    spec: Annotated[str, typer.Argument(help="A spec file (YAML).", metavar="SPEC.yaml")],
    batch: Annotated[
        int | None, typer.Option(help="The number of tokens T; without it costs stay in the symbol T.", metavar="T")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="A value for a symbol, as often as needed.", metavar="D=2048")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print the report.")] = Format.table,
) -> None:
    """Say what a spec costs: parameters, MACs, FLOPs, rank and memory, symbolic and in numbers.

    A MAC is one multiply-add; FLOPs are 2 MACs. Costs are those of applying one factor after the other to
    the tokens. A rank is called exact only where a proof or an evaluation shows it.

    Three examples:

        mlbtc analyze examples/specs/local_and_global.yaml
        mlbtc analyze examples/specs/local_and_global.yaml --set D=4096 --batch 64
        mlbtc analyze examples/specs/mlr_attention.yaml --batch 1024 --format json
    """
    if batch is not None and batch < 1:
        raise SpecError(f"--batch must be at least 1, found {batch}")
    report = analyze(load_with(spec, assignments), batch=batch)
    match format:
        case Format.json:
            typer.echo(json.dumps(report.to_json(), indent=2))
        case Format.markdown:
            typer.echo(report.to_markdown(), nl=False)
        case Format.csv:
            typer.echo(render.to_csv(report), nl=False)
        case Format.table:
            print_report(report, Console())


def print_report(report: Report | AttentionReport, console: Console) -> None:
    """Print a report as tables."""
    console.print(render.title(report), style="bold", highlight=False, markup=False)
    if isinstance(report, AttentionReport):
        console.print(_table(render.ATTENTION_HEADER, render.attention_rows(report)))
        if report.score is not None:
            console.print(render.score_title(report.score), highlight=False, markup=False)
            console.print(_table(SPLIT_HEADER, split_rows(report.score)))
    else:
        console.print(_table(render.HEADER, render.matrix_rows(report)))
        console.print(_table(render.STEP_HEADER, render.step_rows(report)))
    for note in render.notes(report):
        console.print(note, highlight=False, markup=False)
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for position, title in enumerate(header):
        numeric = title in ("value", "dense / this", "standard / this")
        table.add_column(title, justify="right" if numeric else "left", overflow="fold", no_wrap=position == 2)
    for row in rows:
        # Brackets in a step are index names, not markup.
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    return table
