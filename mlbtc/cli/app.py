"""The commands and what happens to errors: one message on stderr, exit status 2."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import mlbtc
from mlbtc.cli.analyze import analyze_command
from mlbtc.cli.autotune import autotune_command
from mlbtc.cli.bench import app as bench_app
from mlbtc.cli.compile import compile_command
from mlbtc.cli.doctor import doctor_command
from mlbtc.cli.explain import explain_command
from mlbtc.cli.fit import fit_command
from mlbtc.cli.generate import generate_command
from mlbtc.cli.options import teach
from mlbtc.cli.reproduce import reproduce_command
from mlbtc.cli.sample import sample_command
from mlbtc.cli.search import search_command
from mlbtc.cli.train import app as train_app
from mlbtc.errors import MlbtcError

HELP = """mlbtc compiles structured matrices: from a short spec to an exact cost report, readable PyTorch
source, and attention layers that train.

A spec file says what the matrix is:

    shape: [D, D]
    symbols: {D: 1024}
    levels:
      - {blocks: 1, rank: 32}        # low rank, everywhere
      - {blocks: 4, rank: 8}         # four low-rank blocks on the diagonal
      - {family: btt, rank: 2}       # a block tensor train

Then:

    mlbtc analyze spec.yaml                      # parameters, MACs, rank: symbolic and in numbers
    mlbtc compile spec.yaml -o layer.py          # a module that needs torch only
    mlbtc autotune spec.yaml --tokens 4096       # measure what runs it fastest here, and keep that
    mlbtc fit spec.yaml w.npy -o factors.safetensors   # the best factors for a given matrix
    mlbtc search --shape 1024x4096 --budget-macs 0.25x   # which structures are worth a look
    mlbtc generate --width 512 -o variants/      # one file per attention variant, and what each costs
    mlbtc train icl --attention mlr              # in-context regression with an attention spec
    mlbtc train forecast --data ETTh1.csv        # forecasting, against the trivial rivals
    mlbtc train lm --data book.txt               # a language model of characters
    mlbtc sample runs/lm --prompt "def "         # and text from it
    mlbtc explain runs/lm                        # what each level of its attention sees, as a page
    mlbtc reproduce icl                          # an experiment of the paper, with a verdict per claim
    mlbtc doctor                                 # what runs on this machine, and what would make it faster

Every command exits with 0, or with 2 and one message that says where the input is wrong and what would be right.
"""

app = typer.Typer(
    name="mlbtc",
    help=teach(HELP),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("analyze", help=teach(analyze_command.__doc__))(analyze_command)
app.command("autotune", help=teach(autotune_command.__doc__))(autotune_command)
app.command("compile", help=teach(compile_command.__doc__))(compile_command)
app.command("doctor", help=teach((doctor_command.__doc__ or "").partition("Raises:")[0]))(doctor_command)
app.command("explain", help=teach(explain_command.__doc__))(explain_command)
app.command("fit", help=teach(fit_command.__doc__))(fit_command)
app.command("generate", help=teach(generate_command.__doc__))(generate_command)
app.command("reproduce", help=teach(reproduce_command.__doc__))(reproduce_command)
app.command("search", help=teach(search_command.__doc__))(search_command)
app.command("sample", help=teach(sample_command.__doc__))(sample_command)
app.add_typer(train_app, name="train")
app.add_typer(bench_app, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlbtc {mlbtc.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


_options.__doc__ = teach(HELP)


def main() -> None:
    """Run the command line; errors of mlbtc become one message and exit status 2."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except MlbtcError as error:
        typer.echo(f"mlbtc: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        # What is left in the buffer cannot be written either; the interpreter would try, and complain, at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        place = "the output" if error.filename is None else error.filename
        typer.echo(f"mlbtc: cannot read or write {place}: {error.strerror or error}", err=True)
        sys.exit(2)
