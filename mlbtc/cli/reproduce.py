"""`mlbtc reproduce`: the paper's experiments as grids of runs. Imports torch in the command body only."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mlbtc.cli.options import words

INTERRUPTED = 130


class Scale(StrEnum):
    """Sizes of an experiment."""

    small = "small"
    paper = "paper"


def reproduce_command(
    experiment: Annotated[
        str,
        typer.Argument(
            help="icl, lm, forecast or mup.",
            metavar="EXPERIMENT",
            autocompletion=words("icl", "lm", "forecast", "mup"),
        ),
    ],
    scale: Annotated[Scale, typer.Option(help="small: two cores, about an hour; paper: the full size, for a GPU.")] = (
        Scale.small
    ),
    seeds: Annotated[int | None, typer.Option(help="Seeds of each variant, from 0.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of each run; warm-up, curriculum and evaluations follow.")
    ] = None,
    variants: Annotated[str | None, typer.Option(help="Only these, with commas between them.", metavar="A,B")] = None,
    data: Annotated[
        str | None, typer.Option(help="A file or folder, where the task takes one; as for mlbtc train.", metavar="PATH")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at a time. By default one a core at small scale on a CPU, else one.", min=1),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; runs/reproduce-EXPERIMENT-SCALE by default.")] = None,
    publish: Annotated[
        Path | None,
        typer.Option(
            help="Also report in this folder, beside what the report is computed from, to keep.", metavar="DIR"
        ),
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Make no runs: report those that are finished.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and the time they will take.")] = False,
) -> None:
    """Reproduce an experiment of the paper: variants of attention, several seeds, and a verdict for each claim.

    Each run has a folder of its own. The same command goes on where the last one stopped, by Ctrl-C or worse.
    It writes report.md, runs.csv and figures: means and spreads over seeds, what was measured
    against compute and time, and for each claim of the paper whether it holds, does not, or is not decidable.

        mlbtc reproduce icl --dry-run                     # what it would run, and for how long
        mlbtc reproduce icl --out runs/icl-grid
        mlbtc reproduce lm --data book.txt                # without it Python's own library
        mlbtc reproduce forecast --data ETTh1.csv
        mlbtc reproduce icl --variants standard,bilinear-btt --seeds 5 --out runs/icl-grid
        mlbtc reproduce icl --steps 100 --seeds 2         # a look at what it makes, in a minute or two
        mlbtc reproduce icl --out runs/icl-grid --report-only --publish docs/results/icl
    """
    from mlbtc.training.errors import Interrupted
    from mlbtc.training.reproduce import Plan, choose_jobs, plan, reproduce, reproduce_in_jobs
    from mlbtc.training.reproduce.execute import make_schedule, report
    from mlbtc.training.reproduce.publish import publish as publish_runs

    names = tuple(name.strip() for name in (variants or "").split(",") if name.strip())
    options = Plan(str(scale), seeds, steps, names, data, device)
    grid, jobs = plan(experiment, options), jobs or choose_jobs(options)
    folder = out or Path("runs") / f"reproduce-{experiment}-{scale}"
    if dry_run:
        schedule = make_schedule(grid, folder, typer.echo, jobs)
        for cell in schedule.cells:
            typer.echo(f"{cell}{'' if cell in schedule.waiting else ': finished'}")
        typer.echo(schedule)
        return
    # Without the places of files: the report is for others.
    given = {"seeds": seeds, "steps": steps, "variants": ",".join(names) or None, "device": device}
    given["data"] = data and Path(data).name
    words_given = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    command = shlex.join(["mlbtc", "reproduce", experiment, "--scale", str(scale), *words_given])
    try:
        if report_only:
            made = report(grid, folder, command=command)
        elif jobs > 1:
            made = reproduce_in_jobs(experiment, options, folder, jobs=jobs, command=command, console=Console())
        else:
            made = reproduce(grid, folder, command=command, console=Console())
        if publish is not None:
            made = publish_runs(grid, folder, publish, command)
    except Interrupted as stop:
        typer.echo(f"stopped; what is finished is in {stop.folder}, and the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    text = made.read_text(encoding="utf-8")
    typer.echo(text.partition("## Claims")[2].partition("\n\n")[2].partition("\n\n")[0])
    typer.echo(f"report {made}")
