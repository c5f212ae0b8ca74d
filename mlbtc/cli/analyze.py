"""`mlbtc analyze`: the cost report of spec files. Imports neither torch nor jinja2, unless for a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mlbtc.analysis import AttentionReport, Report, analyze, render
from mlbtc.analysis.memory import ELEMENT_BYTES
from mlbtc.analysis.score import SPLIT_HEADER, split_rows
from mlbtc.cli.options import load_several, load_with
from mlbtc.cli.tables import Format, print_comparison, rich_table
from mlbtc.errors import SpecError
from mlbtc.spec import MLBTC, AttentionSpec
from mlbtc.spec.files import addresses


def analyze_command(
    specs: Annotated[list[str], typer.Argument(help="Spec files (YAML); several make one table.", metavar="SPEC.yaml")],
    batch: Annotated[
        int | None, typer.Option(help="The number of tokens T; without it costs stay in the symbol T.", metavar="T")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="A value for a symbol, as often as needed.", metavar="D=2048")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print the report.")] = Format.table,
    dtype: Annotated[
        str, typer.Option(help=f"For the bytes that a matrix moves: {', '.join(ELEMENT_BYTES)}.")
    ] = "float32",
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="One row for each value of a symbol, or of T.", metavar="D=256:8192:2x"),
    ] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw the sweep too (needs matplotlib).", metavar="OUT.png|svg")
    ] = None,
    graph: Annotated[
        str | None, typer.Option(help="Draw the contraction graph too.", metavar="OUT.svg|dot|mmd|png")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one page for a browser, with sliders.", metavar="REPORT.html")
    ] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option("--range", help="With --html: where the slider of a symbol stops.", metavar="D=256:8192:2x"),
    ] = None,
) -> None:
    """Say what a spec costs: parameters, MACs, FLOPs, rank, memory and bytes moved, symbolic and in numbers.

    A MAC is one multiply-add; FLOPs are 2 MACs. Costs are those of applying one factor after the other to
    the tokens. A rank is called exact only where a proof or an evaluation shows it. Bytes are those that the
    steps read and write; the last lines say from how many tokens on the spec beats a dense matrix.

    One spec:

        mlbtc analyze examples/specs/local_and_global.yaml
        mlbtc analyze examples/specs/local_and_global.yaml --set D=4096 --batch 64 --dtype bfloat16
        mlbtc analyze examples/specs/mlr_attention.yaml --batch 1024 --format json

    Several side by side, matrices or attention layers:

        mlbtc analyze examples/specs/monarch.yaml examples/specs/butterfly.yaml

    A range of sizes, times 2, plus a step, or listed; T is the number of tokens:

        mlbtc analyze examples/specs/local_and_global.yaml --sweep D=256:4096:4x --plot costs.svg
        mlbtc analyze examples/specs/local_and_global.yaml --sweep D=1024,4096 --sweep T=1:1024:32x

    A picture of the contraction graph, as SVG, DOT, Mermaid or PNG:

        mlbtc analyze examples/specs/butterfly.yaml --graph butterfly.svg

    A page for a browser, offline: graph, steps, curves and source, and numbers that follow sliders. It takes
    several specs, or all of an index; --range says where a slider stops, and a symbol without a default needs one:

        mlbtc analyze examples/specs/local_and_global.yaml --html report.html
        mlbtc analyze examples/specs/monarch.yaml examples/specs/butterfly.yaml --html report.html
        mlbtc analyze examples/specs/symbolic_mlr.yaml --html report.html --range m=256,512 --range n=256 --range r=8
    """
    if batch is not None and batch < 1:
        raise SpecError(f"--batch must be at least 1, found {batch}")
    if ranges and html is None:
        raise SpecError("--range is for the sliders of a page: give --html REPORT.html too")
    if html is not None:
        specs = [address for path in specs for address in addresses(path)]
        _write_html(html, specs, ranges or [], batch, assignments, dtype)
    if len(specs) > 1:
        _refuse_with_several(graph=graph, sweep=sweep, plot=plot)
        return _print_several(specs, batch, assignments, format, dtype)
    spec = load_with(specs[0], assignments)
    if graph is not None:
        _draw_graph(spec, graph)
    if sweep:
        return _print_sweep(spec, sweep, batch, format, dtype, plot)
    if plot is not None:
        raise SpecError("--plot draws a sweep: give one, such as --sweep D=256:8192:2x")
    _print_one(analyze(spec, batch, dtype=dtype), format)


def _write_html(
    path: Path, specs: list[str], ranges: list[str], batch: int | None, assignments: list[str] | None, dtype: str
) -> None:
    # The page has source in it, and writing that takes torch and jinja2.
    from mlbtc.analysis.sweep import parse_sweep
    from mlbtc.page import check_page_path, render_page, write_page

    check_page_path(path)
    moved = [parse_sweep(text) for text in ranges]
    found = load_several(specs, assignments) if len(specs) > 1 else [load_with(specs[0], assignments)]
    write_page(path, render_page(found, moved, batch, dtype=dtype, names=specs))


def _print_one(report: Report | AttentionReport, format: Format) -> None:
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
        console.print(rich_table(render.ATTENTION_HEADER, render.attention_rows(report)))
        if report.score is not None:
            console.print(render.score_title(report.score), highlight=False, markup=False)
            console.print(rich_table(SPLIT_HEADER, split_rows(report.score)))
    else:
        console.print(rich_table(render.HEADER, render.matrix_rows(report)))
        console.print(rich_table(render.STEP_HEADER, render.step_rows(report)))
    for note in render.notes(report):
        console.print(note, highlight=False, markup=False)
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)


def _refuse_with_several(**options: object) -> None:
    for name, value in options.items():
        if value:
            raise SpecError(f"--{name} takes one spec file, found several")


def _print_several(
    paths: list[str], batch: int | None, assignments: list[str] | None, format: Format, dtype: str
) -> None:
    from mlbtc.analysis.compare import compare

    reports = [analyze(spec, batch, dtype=dtype) for spec in load_several(paths, assignments)]
    print_comparison(compare(reports, paths), [report.to_json() for report in reports], format)


def _print_sweep(
    spec: MLBTC | AttentionSpec, texts: list[str], batch: int | None, format: Format, dtype: str, plot: str | None
) -> None:
    from mlbtc.analysis.sweep import parse_sweep, run_sweep, sweep_table

    points = run_sweep(spec, [parse_sweep(text) for text in texts], batch, dtype=dtype)
    if plot is not None:
        from mlbtc.analysis.figure import plot_sweep

        plot_sweep(points, plot)
    print_comparison(sweep_table(points), [point.to_json() for point in points], format)


def _draw_graph(spec: MLBTC | AttentionSpec, path: str) -> None:
    from mlbtc.analysis.figure import draw_graph

    matrix = spec if isinstance(spec, MLBTC) else spec.score
    if matrix is None:
        raise SpecError(
            f"--graph draws a matrix, but the scores of {spec.name} have none: only bilinear attention does"
        )
    draw_graph(matrix, path)
