"""`mlbtc generate`: a folder with one source file per attention variant and an index of their costs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Common(StrEnum):
    """What variants have in common."""

    width = "width"
    compute = "compute"
    cache = "cache"


def generate_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to; made where missing.")],
    width: Annotated[int, typer.Option(help="The model width D.")] = 512,
    heads: Annotated[int, typer.Option(help="The number of heads; divides the width.")] = 8,
    context: Annotated[int, typer.Option(help="Tokens that blocks, windows and costs refer to.")] = 1024,
    equal: Annotated[
        Common,
        typer.Option(
            help="What variants have in common: width; compute, the MACs of a block with its MLP; or cache, what "
            "decoding keeps. For the latter two each is as wide as makes it cost as much as standard attention."
        ),
    ] = Common.width,
) -> None:
    """Write one file per attention variant of a size, and an index that compares what they cost.

    Standard, MLR with 2, 4 and 8 levels, bilinear attention with six structures of the score, sliding window, and
    global with sliding window; those that the sizes do not allow are left out. Each file needs torch only, and its last
    class takes no required arguments: (B, T, width) to the same, causal, any T.

        mlbtc generate --width 512 --heads 8 --context 1024 -o variants/
        mlbtc generate --width 64 --heads 4 --context 128 -o variants/
        mlbtc generate --width 64 --heads 4 --context 128 --equal compute -o variants/

    The costs are in variants/index.md, and with the specs in variants/index.json and index.yaml. A spec of the latter
    is named variants/index.yaml:NAME, wherever a spec file is asked for:

        mlbtc train lm --attention variants/index.yaml:mlr-2-levels --out runs/mlr
    """
    from mlbtc.attention.variants import write_variants

    variants = write_variants(output, width, heads, context, equal.value)
    for variant in variants:
        wide = "" if equal is Common.width else f", width {variant.spec.width}"
        typer.echo(f"{output / variant.file}: {variant.spec.variant}, {variant.about}{wide}")
    typer.echo(f"wrote {len(variants)} variants; {output / 'index.md'}, index.yaml and index.json compare them")
