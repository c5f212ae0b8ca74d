"""`mlbtc autotune`: measure how a spec runs fastest on this machine. Imports torch in the command's body only."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from mlbtc.cli.options import load_with
from mlbtc.errors import SpecError
from mlbtc.spec import MLBTC


class Kind(StrEnum):
    """Dtypes that can be tuned for."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"


def autotune_command(
    spec: Annotated[str, typer.Argument(help="A spec file (YAML) of a matrix.", metavar="SPEC.yaml")],
    tokens: Annotated[list[int], typer.Option(help="Tokens per call; repeat for several.")] = [1024],  # noqa: B006
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="A value for a symbol, as often as needed.", metavar="D=2048")
    ] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Time forward and backward together.")] = False,
    dtype: Annotated[Kind, typer.Option(help="Of the factors and the input.")] = Kind.float32,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; its own choice by default.", min=1)] = None,
    seconds: Annotated[float, typer.Option(help="Time for each number of tokens, all candidates together.")] = 2.0,
) -> None:
    """Time every way to run a matrix on this CPU and keep the fastest for mlbtc.compile.

    Tried are the torch program in each of its layouts, with all tokens at once and in chunks, and the C++
    kernel with chunks of several sizes. A kernel is built once, in a second or two. The winner is kept in the
    cache, and mlbtc.compile(spec) takes it on this machine with as many threads.

        mlbtc autotune examples/specs/local_and_global.yaml --tokens 1 --tokens 4096
    """
    loaded = load_with(spec, assignments)
    if not isinstance(loaded, MLBTC):
        raise SpecError(f"{spec} holds an attention layer, which chooses its kernel call by call; name a matrix")
    import torch

    from mlbtc.tuner import autotune

    if threads is not None:
        torch.set_num_threads(threads)
    console, messages = Console(), Console(stderr=True)
    for count in tokens:
        with messages.status("") as status:
            tuning = autotune(
                loaded, count, backward=backward, dtype=getattr(torch, dtype), seconds=seconds, progress=status.update
            )
        console.print(f"{loaded.name}, {torch.get_num_threads()} thread(s), {tuning}", highlight=False, markup=False)
