"""`mlbtc fit`: the best factors of a spec for a given matrix. Imports torch in the command's body only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mlbtc.cli.options import load_with
from mlbtc.errors import CodegenError, SpecError
from mlbtc.spec import MLBTC


def fit_command(
    spec: Annotated[str, typer.Argument(help="A spec file (YAML) of a matrix.", metavar="SPEC.yaml")],
    matrix: Annotated[str, typer.Argument(help="The matrix, (out, in): .npy or .safetensors.", metavar="MATRIX")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, .safetensors.")],
    key: Annotated[str | None, typer.Option(help="Which tensor of a .safetensors file.")] = None,
    covariance: Annotated[
        str | None, typer.Option(help="E[x x^T] of the inputs, (in, in): the error is then that of outputs.")
    ] = None,
    covariance_key: Annotated[str | None, typer.Option(help="Which tensor of its .safetensors file.")] = None,
    transposed: Annotated[bool, typer.Option("--transposed", help="The file holds the matrix as (in, out).")] = False,
    max_iterations: Annotated[int, typer.Option(help="Rounds over levels and steps, at most.", min=1)] = 100,
    tolerance: Annotated[float, typer.Option(help="The relative gain below which it stops.", min=0)] = 1e-5,
    seed: Annotated[int, typer.Option(help="Of random starts, where there is no other.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="Of the factors written; that of the matrix by default.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="A value for a symbol, as often as needed.", metavar="r=8")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the error of every iteration there, as JSON.")] = None,
) -> None:
    """Find the factors whose matrix is nearest to a given one, and write them for the compiled layer.

    A side of the shape that is a symbol takes the size of the matrix:

        mlbtc fit spec.yaml weights.safetensors --key layers.0.up.weight -o factors.safetensors

    The file is for load_state_dict of mlbtc.compile(spec). Beside the error stands the bound: no
    matrix of the same rank is nearer.
    """
    loaded = load_with(spec, assignments)
    if not isinstance(loaded, MLBTC):
        raise SpecError(f"{spec} holds an attention layer; name the spec of a matrix")
    if output.suffix != ".safetensors":
        raise SpecError(f"--output {output}: factors are written as .safetensors")
    from mlbtc.codegen.loading import write_atomically
    from mlbtc.fitting import Fit, fit
    from mlbtc.fitting.files import as_dtype, read_matrix

    kind = None if dtype is None else as_dtype(dtype)
    wanted = read_matrix(matrix, key)
    weights = None if covariance is None else read_matrix(covariance, covariance_key)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("fitting", total=max_iterations)
        found: Fit = fit(
            loaded,
            wanted.T if transposed else wanted,
            covariance=weights,
            max_iterations=max_iterations,
            tolerance=tolerance,
            seed=seed,
            dtype=kind,
            device="cpu",
            target="torch",
            progress=lambda done, error: bar.update(row, completed=done, description=f"error {error:.4g}"),
        )
    try:
        found.save(output)
        if report is not None:
            write_atomically(report, json.dumps(found.report.to_json(), indent=2) + "\n")
    except OSError as error:
        raise CodegenError(f"cannot write {error.filename or output}: {error.strerror or error}") from None
    typer.echo(str(found.report))
    typer.echo(f"wrote {output}: {', '.join(found.factors)}")
