"""`mlbtc train`: small transformers whose attention comes from specs. Imports torch in the command bodies only."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mlbtc.cli.options import teach
from mlbtc.cli.train_options import (
    Accumulate,
    Attention,
    BaseWidth,
    Batch,
    CheckpointEvery,
    DecaySteps,
    Device,
    Ema,
    Eps,
    Heads,
    Layers,
    Mlp,
    Mup,
    Out,
    Parallel,
    Precisions,
    Rate,
    Resume,
    Schedules,
    Seed,
    Steps,
    Tensorboard,
    Warmup,
    Width,
)
from mlbtc.errors import SpecError

INTERRUPTED = 130
CHANGEABLE = ("steps", "data", "device", "parallel")
"""Options that may be given beside --resume."""

HELP = """Train a small transformer whose attention is any attention spec, and compare it with trivial rivals.

A run writes a folder: config.json, metrics.jsonl (a JSON object per step), checkpoints, model.safetensors,
results.json, report.md and figure.png. Ctrl-C writes a checkpoint; --resume FOLDER goes on from it, bit by bit as if
nothing had happened. Equal seeds give equal numbers.

    mlbtc train icl --attention mlr --out runs/icl
    mlbtc train icl --resume runs/icl --steps 4000
    mlbtc train forecast --data ETTh1.csv --attention examples/specs/forecast_mlr.yaml
    mlbtc train lm --data book.txt --attention mlr
"""

app = typer.Typer(help=teach(HELP), no_args_is_help=True, rich_markup_mode=None)


class Protocol(StrEnum):
    """Forecasting protocols."""

    channels = "channels"
    positions = "positions"


class Model(StrEnum):
    """Forecasting models."""

    transformer = "transformer"
    dlinear = "dlinear"


class Tokens(StrEnum):
    """Kinds of tokens."""

    characters = "characters"
    bytes = "bytes"


@app.command("icl")
def icl_command(
    attention: Attention = None,
    mlp: Mlp = None,
    dims: Annotated[int | None, typer.Option(help="Dimensions d of a point; 8 by default.")] = None,
    points: Annotated[int | None, typer.Option(help="Points of a prompt; 2 d by default.")] = None,
    width: Width = None,
    heads: Heads = None,
    layers: Layers = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
    warmup: Warmup = None,
    curriculum: Annotated[
        int | None, typer.Option(help="Steps over which dimensions and points grow from a quarter; 0: none.")
    ] = None,
    schedule: Schedules = None,
    decay_steps: DecaySteps = None,
    mup: Mup = None,
    base_width: BaseWidth = None,
    eps: Eps = None,
    precision: Precisions = None,
    accumulate: Accumulate = None,
    ema: Ema = None,
    tensorboard: Tensorboard = None,
    checkpoint_every: CheckpointEvery = None,
    parallel: Parallel = None,
    seed: Seed = None,
    out: Out = None,
    device: Device = None,
    resume: Resume = None,
) -> None:
    """Learn linear regression in context: from x_1, w.x_1, ..., x_N predict w.x_N, for a new w in every prompt.

    The error of predicting zero is 1. The table compares the model, on fresh prompts, with zero and with least squares
    on the points seen so far.

        mlbtc train icl                                             # standard attention, about a minute
        mlbtc train icl --attention mlr --steps 4000 --out runs/icl-mlr
        mlbtc train icl --attention examples/specs/icl_mlr.yaml --dims 8
        mlbtc train icl --resume runs/icl-mlr --steps 8000
    """
    options = {key: value for key, value in locals().items() if key != "resume"}
    from mlbtc.training.tasks import in_context_regression

    _train(in_context_regression, options, resume)


@app.command("forecast")
def forecast_command(
    data: Annotated[
        str | None,
        typer.Option(
            help="A CSV file like ETTh1.csv, a folder that holds it, or 'synthetic'. Without it $MLBTC_ETTH1, then "
            "$MLBTC_DATA; without these a synthetic series.",
            metavar="FILE.csv",
        ),
    ] = None,
    attention: Attention = None,
    mlp: Mlp = None,
    model: Annotated[
        Model | None,
        typer.Option(
            help="transformer (default); or its linear rival dlinear, trained as published: 2640 steps at most, rate "
            "0.0001, validation after every epoch."
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(help="channels (default): each feature alone, with a linear skip; positions: the paper's model."),
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="Rows to forecast, hours in ETTh1; 96 by default.")] = None,
    context: Annotated[
        int | None, typer.Option(help="Look-back in rows; of the spec file by default, else the horizon, at least 96.")
    ] = None,
    width: Width = None,
    heads: Heads = None,
    layers: Layers = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
    warmup: Warmup = None,
    patience: Annotated[
        int | None, typer.Option(help="Validations (every 25 steps) without a better one before stopping; 0: never.")
    ] = None,
    schedule: Schedules = None,
    decay_steps: DecaySteps = None,
    mup: Mup = None,
    base_width: BaseWidth = None,
    eps: Eps = None,
    precision: Precisions = None,
    accumulate: Accumulate = None,
    ema: Ema = None,
    tensorboard: Tensorboard = None,
    checkpoint_every: CheckpointEvery = None,
    parallel: Parallel = None,
    seed: Seed = None,
    out: Out = None,
    device: Device = None,
    resume: Resume = None,
) -> None:
    """Forecast series, ETTh1 above all; the table has test errors beside those of trivial rivals.

    The file has the header date,...,OT and rows that are equally far apart, such as an hour; 12, 4 and 4 months of 30
    days are train, validation and test, scaled by train statistics, and every test window counts.

        mlbtc train forecast --data ETTh1.csv --attention examples/specs/forecast_mlr.yaml
        mlbtc train forecast --data ETTh1.csv --attention standard --horizon 192
        mlbtc train forecast --data ETTh1.csv --protocol positions --width 64 --heads 8
        mlbtc train forecast --data ETTh1.csv --model dlinear       # the linear model to beat
        mlbtc train forecast                                        # no data at hand: a synthetic series
    """
    options = {key: value for key, value in locals().items() if key != "resume"}
    from mlbtc.training.tasks import forecasting

    _train(forecasting, options, resume)


@app.command("lm")
def lm_command(
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A text file, or a folder of them in the order of names; may be repeated. Without it the source text "
            "of Python's standard library.",
            metavar="PATH",
        ),
    ] = None,
    tokens: Annotated[
        Tokens | None,
        typer.Option(help="characters (default): newline and printable ASCII, others are dropped; or bytes."),
    ] = None,
    attention: Attention = None,
    mlp: Mlp = None,
    context: Annotated[int | None, typer.Option(help="Tokens of a window; of the spec file, else 128.")] = None,
    width: Annotated[int | None, typer.Option(help="Model width; of the spec file by default, else 64.")] = None,
    heads: Heads = None,
    layers: Annotated[int | None, typer.Option(help="Transformer layers; 2 by default.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps in all; 400 by default.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows per step; 16 by default.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate after warm-up; 0.002 by default.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps over which the rate grows; 100 by default.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between validations; 100 by default.")] = None,
    eval_windows: Annotated[
        int | None, typer.Option(help="Validation windows, evenly spread; 256 by default, 0: all.")
    ] = None,
    schedule: Schedules = None,
    decay_steps: DecaySteps = None,
    mup: Mup = None,
    base_width: BaseWidth = None,
    eps: Eps = None,
    precision: Precisions = None,
    accumulate: Accumulate = None,
    ema: Ema = None,
    tensorboard: Tensorboard = None,
    checkpoint_every: CheckpointEvery = None,
    parallel: Parallel = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder, runs/lm by default; an earlier run there is moved aside.")
    ] = None,
    device: Device = None,
    resume: Resume = None,
) -> None:
    """Learn to predict the next character of a text; the table has loss, perplexity and bits per token.

    The last tenth of the text is for validation: fixed windows without overlap, the same for all runs of one context.

        mlbtc train lm                                              # Python's own library
        mlbtc train lm --data book.txt --attention mlr --out runs/book
        mlbtc train lm --steps 20 --width 16 --context 32 --layers 1  # a few seconds
        mlbtc train lm --resume runs/book --steps 2000
    """
    options = {key: value for key, value in locals().items() if key != "resume"}
    from mlbtc.training.tasks import language_model

    _train(language_model, options, resume)


for _command in app.registered_commands:
    _command.help = teach(_command.callback.__doc__ if _command.callback else None)


def _train(task: Any, options: dict[str, Any], resume: Path | None) -> None:
    """Run a task with the options that were given, and print where everything is."""
    from mlbtc.training.errors import Interrupted
    from mlbtc.training.launch import launch, own_console

    # An option that may be repeated is an empty list where it is not given; flags are None or true.
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items() if value != []}
    console = own_console()
    try:
        if resume is None:
            result = task.run(task.Config.make(**options), console=console)
        else:
            _refuse_beside_resume(options)
            kept = {key: options.get(key) for key in CHANGEABLE}
            result = task.run(task.resume_config(resume, **kept), resume=True, console=console)
    except Interrupted as stop:
        go_on = f"mlbtc train {task.Config.task} --resume {stop.folder}"
        if launch().leads:
            typer.echo(f"{stop}; go on with: {go_on}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    result.show(console)


def _refuse_beside_resume(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None and name not in CHANGEABLE:
            option = f"--{name.replace('_', '-')} {value}"
            raise SpecError(f"{option} cannot change beside --resume: the run folder says what the run is")
