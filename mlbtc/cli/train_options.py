"""Options that all `mlbtc train` commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mlbtc.cli.options import words


class Together(StrEnum):
    """What several processes do."""

    ddp = "ddp"
    fsdp = "fsdp"


class Schedule(StrEnum):
    """What the learning rate does behind the warm-up."""

    constant = "constant"
    cosine = "cosine"


class Precision(StrEnum):
    """What the model computes in while it trains."""

    fp32 = "fp32"
    bf16 = "bf16"


Attention = Annotated[
    list[str] | None,
    typer.Option(
        help="standard, mlr, or an attention spec file (YAML); once for all layers, or once per layer.",
        metavar="standard|mlr|FILE.yaml",
        autocompletion=words("standard", "mlr"),
    ),
]
Mlp = Annotated[
    list[str] | None,
    typer.Option(
        help="dense (default), or the spec file of a matrix of shape [O, I] for both maps of an MLP; once for all "
        "layers, or once per layer.",
        metavar="dense|FILE.yaml",
        autocompletion=words("dense"),
    ),
]
Width = Annotated[int | None, typer.Option(help="Model width; of the spec file by default, else 32.")]
Heads = Annotated[int | None, typer.Option(help="Attention heads; of the spec file by default, else 4.")]
Layers = Annotated[int | None, typer.Option(help="Transformer layers; 3 (icl) or 2 by default.")]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps in all; 2000 (icl) or 200 by default.")]
Batch = Annotated[int | None, typer.Option(help="Prompts or windows per step; 64 (icl) or 32 by default.")]
Accumulate = Annotated[int | None, typer.Option(help="Parts of a batch, one after the other, to save memory.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate after warm-up; 0.002 (icl) or 0.001.")]
Warmup = Annotated[int | None, typer.Option(help="Steps over which the rate grows; 100 or 20 (forecast) by default.")]
Schedules = Annotated[
    Schedule | None, typer.Option(help="constant (default), or cosine down to a tenth at --decay-steps.")
]
DecaySteps = Annotated[int | None, typer.Option(help="The step at which the cosine ends, whatever --steps is.")]
Mup = Annotated[
    bool | None, typer.Option("--mup", help="Rates by the fan-in of every factor, so that --lr carries over to widths.")
]
BaseWidth = Annotated[int | None, typer.Option(help="With --mup: the width at which --lr was found.")]
Eps = Annotated[float | None, typer.Option(help="Of AdamW; 1e-8, or 1e-20 with --mup.")]
Precisions = Annotated[Precision | None, typer.Option(help="fp32 (default), or bf16 autocast in training.")]
Ema = Annotated[
    float | None, typer.Option(help="Evaluate with averaged weights of this decay, such as 0.999; off by default.")
]
Tensorboard = Annotated[
    bool | None, typer.Option("--tensorboard", help="Also write the metrics for TensorBoard, into the run folder.")
]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(help="Steps between checkpoints, all that a killed run loses; 500 by default."),
]
Parallel = Annotated[
    Together | None,
    typer.Option(help="Under torchrun: ddp (default), a replica each, or fsdp, a part of every weight each."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of all random streams; 0 by default.")]
Out = Annotated[
    Path | None, typer.Option(help="The run folder; an earlier run there is moved aside. runs/icl or runs/forecast.")
]
Device = Annotated[str | None, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps.")]
Resume = Annotated[
    Path | None,
    typer.Option(help="Continue the run in this folder; beside it only --steps, --data, --device, --parallel."),
]
