"""`mlbtc compile`: a spec file to a source file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlbtc.cli.options import load_with, words
from mlbtc.errors import CodegenError


def compile_command(
    spec: Annotated[
        str, typer.Argument(help="A spec file (YAML): a matrix or an attention layer.", metavar="SPEC.yaml")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; without it the source is printed.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="torch (also auto), triton for kernels with the module, or cpp for the C++ kernel of a matrix.",
            autocompletion=words("auto", "torch", "cpp", "triton"),
        ),
    ] = "auto",
    class_name: Annotated[
        str | None, typer.Option(help="The class to define; made of the spec's name by default.")
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            help="How a matrix draws its factors: dense, mup or spectral.",
            autocompletion=words("dense", "mup", "spectral"),
        ),
    ] = "dense",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="A value for a symbol, as often as needed.", metavar="D=2048")
    ] = None,
) -> None:
    """Write a spec as a readable PyTorch module that needs torch only, with its costs in the docstring.

    The last class of the file takes no required arguments:

        mlbtc compile examples/specs/local_and_global.yaml -o layer.py
        python -c "import torch, layer; print(layer.LocalAndGlobal()(torch.randn(3, 1024)).shape)"

    With --target triton the file has kernels for GPUs, too, of a matrix of two-factor levels or of attention in nested
    blocks, and needs torch and triton:

        mlbtc compile examples/specs/local_and_global.yaml --target triton -o layer.py
        mlbtc compile examples/specs/mlr_attention.yaml --target triton -o kernels.py

    An attention spec gives a layer (B, T, width) -> (B, T, width):

        mlbtc compile examples/specs/mlr_attention.yaml -o attention_layer.py
    """
    from mlbtc.codegen.loading import write_atomically
    from mlbtc.compiler import generate

    source = generate(load_with(spec, assignments), class_name=class_name, target=target, init=init)
    if output is None:
        typer.echo(source, nl=False)
        return
    try:
        write_atomically(output, source)
    except OSError as error:
        raise CodegenError(f"cannot write {output}: {error.strerror or error}") from None
    lines = len(source.splitlines())
    if target == "cpp":
        typer.echo(f"wrote {output}: functions forward and backward, {lines} lines, target cpp")
        return
    defined = [line.split("(")[0].removeprefix("class ") for line in source.splitlines() if line.startswith("class ")]
    typer.echo(f"wrote {output}: class {defined[-1]}, {lines} lines, target {'torch' if target == 'auto' else target}")
