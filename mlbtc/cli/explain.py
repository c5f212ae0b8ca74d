"""`mlbtc explain`: a page about what the attention of a trained model sees. Imports torch in the command body only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explain_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run of `mlbtc train`.", metavar="RUN")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page; RUN/explained.html by default.", metavar="PAGE.html"),
    ] = None,
    rows: Annotated[int, typer.Option(help="Prompts or windows of validation data to look at.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of their draw; equal seeds draw equal data.")] = 0,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Where the data of the run is now, as for `mlbtc train`; its place then by default."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps; auto by default.")] = None,
) -> None:
    """Write a page that says what each level of a run's attention sees, head by head.

    The model reads some of its validation data. For every head, the page has the share of the attention mass on pairs
    of tokens by the deepest level of blocks that they share, beside that of equal weights, the entropy, and the scores;
    and for the run its loss and what its layers cost. It is one file without scripts and needs no network.

        mlbtc explain runs/lm
        mlbtc explain runs/icl --rows 64 --seed 1 -o icl.html
        mlbtc explain runs/forecast --data ETTh1.csv

    The model of a finished run is that of its table, else the newest checkpoint. All pairs of tokens are in memory, of
    one head after the other: where rows have too many, the first of them are explained.
    """
    from mlbtc.page import check_page_path
    from mlbtc.training import TrainingError
    from mlbtc.training.explained import explain_run
    from mlbtc.training.explained_page import write_run_page

    page = output or run / "explained.html"
    if output is not None:
        check_page_path(page, TrainingError)
    explained = explain_run(run, rows=rows, seed=seed, data=data or (), device=device)
    write_run_page(explained, page)
    count = len(explained.layers)
    layers = "1 layer" if count == 1 else f"{count} layers"
    typer.echo(f"wrote {page}: {layers}, loss {explained.loss:.4g} on {rows} rows of validation data")
