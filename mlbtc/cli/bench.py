"""`mlbtc bench`: timings against named rivals. Imports torch in the command bodies only."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbtc.cli.options import teach

if TYPE_CHECKING:
    from mlbtc.benchmarks.runner import Case

HELP = """Time what mlbtc makes against what PyTorch has, in one process and in turn.

Every candidate is first compared with a float64 reference, its gradients too; a wrong one is not timed, the command
fails and says how wrong it is. Shown are medians with quartiles, and each median over the rival's: 0.50 is half the
rival's time. A ratio behind ~ had quartiles more than a quarter apart: the machine was busy, measure again.

    mlbtc bench linear
    mlbtc bench attention --tokens 2048 --out attention.json
"""

TABLE_WIDTH = 140
"""The least columns of the table, so that no cell is cut in a narrow terminal, a pipe or a file."""

app = typer.Typer(help=teach(HELP), no_args_is_help=True, rich_markup_mode=None)

Threads = Annotated[int | None, typer.Option(help="Threads of torch; its own choice by default.")]
Seconds = Annotated[float, typer.Option("--seconds-per-case", help="Time for each mode of a case, all candidates.")]
Repetitions = Annotated[int, typer.Option(help="The least number of timed rounds.")]
Warmup = Annotated[int, typer.Option(help="Rounds before timing.")]
Seed = Annotated[int, typer.Option(help="Seed of the random operands.", min=0, max=2**63 - 1)]
Out = Annotated[Path | None, typer.Option(help="Also write the results, machine and settings as JSON.")]

Backends = Annotated[list[str], typer.Option(help="A backend of mlr_attention; repeat for several.")]


def linear_command(
    width: Annotated[list[int] | None, typer.Option(help="Rows and columns, powers of 2; 1024 by default.")] = None,
    tokens: Annotated[list[int] | None, typer.Option(help="Tokens per call; 1, 64 and 1024 by default.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads of torch; its own choice by default.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only cases whose name has this in it.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All widths, tokens, threads and rivals: hours.")] = False,
    seconds: Seconds = 1.0,
    repetitions: Repetitions = 5,
    warmup: Warmup = 2,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Time emitted modules against nn.Linear with the same matrix, einsum on the same factors, and other packages.

    Monarch, block tensor trains of rank 1, 2 and 4, four MLR levels, low rank, a tensor train, a butterfly, and an MLP
    of two layers; forward without gradients, then forward and backward with the gradients of the input and the factors.
    Rivals are nn.Linear, torch.einsum, opt_einsum and, where they are installed, torch-structured, linear-operator and
    tensorly-torch; with --full also torch.compile. It is claimed that the module of target auto is never slower than
    torch.einsum, and up to 64 tokens never slower than nn.Linear: what breaks a claim is listed last. Options for sizes
    and cases may be repeated; without any the command takes about four minutes.

        mlbtc bench linear --tokens 256 --tokens 4096 --case btt
        mlbtc bench linear --width 512 --threads 1 --threads 2 --out linear.json
    """
    import torch

    from mlbtc.benchmarks import peers
    from mlbtc.benchmarks.linear import TOKENS, WIDTHS, Sizes, linear_cases

    both = sorted({1, torch.get_num_threads()})
    several = threads if threads and len(threads) > 1 else both if full and not threads else []
    sizes = Sizes(
        widths=width or (WIDTHS if full else (1024,)),
        tokens=tokens or (TOKENS if full else (1, 64, 1024)),
        threads=several,
        cases=case or (),
        compiled=full,
    )
    most = max(several) if several else threads[0] if threads else None
    _run(
        "linear", lambda: linear_cases(sizes), most, seconds, repetitions, warmup, seed, out,
        lambda: {"peers": peers.states()},
    )  # fmt: skip


def figure_command(
    record: Annotated[Path, typer.Argument(help="What --out of mlbtc bench linear wrote.", metavar="RECORD.json")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure; its ending says the format.")] = Path(
        "bench.png"
    ),
) -> None:
    """Draw a record: how many times faster than the rival, over tokens, our fastest target per case.

    mlbtc bench figure benchmarks/results/linear.json -o linear.png
    mlbtc bench figure linear.json --out linear.svg
    """
    from mlbtc.benchmarks.figure import draw, read

    draw(read(record), out)
    typer.echo(f"wrote {out}")


def attention_command(
    tokens: Annotated[list[int], typer.Option(help="Sequence lengths; repeat for several.")] = [512, 1024],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Sequences per call.")] = 1,
    heads: Annotated[int, typer.Option(help="Heads of 64 features.")] = 8,
    backend: Backends = ["auto", "strips"],  # noqa: B006
    threads: Threads = None,
    seconds: Seconds = 1.5,
    repetitions: Repetitions = 5,
    warmup: Warmup = 2,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Time causal MLR attention against scaled_dot_product_attention and the dense method, one matrix per level.

    Five heads of 64 features: eight levels of 8, 32|8|6|4|4|4|4|2, 48|16, 40|16|4|4, and one level of 64, which is
    standard attention; blocks halve from level to level. SDPA computes standard attention in all of them.

        mlbtc bench attention --tokens 256 --tokens 2048 --heads 4
        mlbtc bench attention --backend auto --backend strips --threads 1 --out attention.json
    """
    from mlbtc.benchmarks.cases import attention_cases

    _run(
        "attention",
        lambda: attention_cases(tokens, batch, heads, backend),
        threads, seconds, repetitions, warmup, seed, out,
    )  # fmt: skip


def decode_command(
    tokens: Annotated[list[int], typer.Option(help="Tokens so far; repeat for several.")] = [1024, 4096],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Sequences per call.")] = 1,
    heads: Annotated[int, typer.Option(help="Heads of 64 features.")] = 8,
    threads: Threads = None,
    seconds: Seconds = 0.5,
    repetitions: Repetitions = 20,
    warmup: Warmup = 5,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Time one more token against scaled_dot_product_attention over a full cache.

    The heads of `mlbtc bench attention`; mlbtc keeps per level the keys of the current block, and every block is full.

        mlbtc bench decode --tokens 4096 --batch 4
        mlbtc bench decode --threads 1 --out decode.json
    """
    from mlbtc.benchmarks.decode import decode_cases

    _run("decode", lambda: decode_cases(tokens, batch, heads), threads, seconds, repetitions, warmup, seed, out)


def _run(
    suite: str, make: Callable[[], list[Case]], threads: int | None, seconds: float, repetitions: int, warmup: int,
    seed: int, out: Path | None, more: Callable[[], dict[str, object]] = dict,
) -> None:  # fmt: skip
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mlbtc.benchmarks import record
    from mlbtc.benchmarks.runner import Settings, run_cases

    threads = torch.get_num_threads() if threads is None else threads
    settings = Settings(seconds=seconds, warmup=warmup, repetitions=repetitions, threads=threads, seed=seed)
    cases = make()
    if out is not None:
        record.check_writable(out)
    here = record.machine(threads) | more()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(cases), completed=-1)
        results = run_cases(
            cases, settings, progress=lambda text: bar.update(task, advance=1, description=text, refresh=True)
        )
    plain = Console(highlight=False)
    plain.width = max(plain.width, TABLE_WIDTH)
    plain.print(record.heading(suite, settings, here), markup=False, soft_wrap=True)
    plain.print(record.table(results))
    if found := record.claims(results):
        plain.print(found, markup=False, soft_wrap=True)
    if out is not None:
        record.write(out, record.as_json(suite, settings, results, here, shlex.join(["mlbtc", *sys.argv[1:]])))
        plain.print(f"wrote {out}", markup=False, soft_wrap=True)


app.command("linear", help=teach(linear_command.__doc__))(linear_command)
app.command("figure", help=teach(figure_command.__doc__))(figure_command)
app.command("attention", help=teach(attention_command.__doc__))(attention_command)
app.command("decode", help=teach(decode_command.__doc__))(decode_command)
