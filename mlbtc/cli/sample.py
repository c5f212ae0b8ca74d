"""`mlbtc sample`: text from a trained language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run of `mlbtc train lm`.", metavar="RUN")],
    prompt: Annotated[str, typer.Option(help="The text to continue.")] = "\n",
    tokens: Annotated[int, typer.Option(help="How many tokens to add.")] = 200,
    temperature: Annotated[
        float, typer.Option(help="Divides the logits: below 1 safer, above 1 bolder, 0: the most likely token.")
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from so many of the most likely tokens; all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws; equal seeds give equal text.")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps; auto by default.")] = None,
) -> None:
    """Continue a text with the model of a run, through the reduced key caches of its attention.

    The model of a finished run is that of its table, else the newest checkpoint. When the context is full, its last
    half is read anew and the text goes on from there.

        mlbtc sample runs/lm --prompt "def "
        mlbtc sample runs/lm --prompt "import " --tokens 500 --temperature 0.5 --top-k 10 --seed 1
    """
    from mlbtc.training.tasks.sampling import Sampler

    sampler = Sampler(run, device)
    pieces = sampler.text(prompt, tokens, temperature=temperature, top_k=top_k, seed=seed)
    first = next(pieces)
    typer.echo(prompt + first, nl=False)
    for piece in pieces:
        typer.echo(piece, nl=False)
    typer.echo()
