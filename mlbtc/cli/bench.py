"""`mlbtc bench`: timings against named rivals. Imports torch in the command bodies only."""

from __future__ import annotations

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
    width: Annotated[int, typer.Option(help="Rows and columns of the matrices, a power of 2.")] = 1024,
    tokens: Annotated[list[int], typer.Option(help="Tokens per call; repeat for several.")] = [1024],  # noqa: B006
    threads: Threads = None,
    seconds: Seconds = 2.0,
    repetitions: Repetitions = 5,
    warmup: Warmup = 2,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Time emitted modules against nn.Linear with the same matrix and torch.einsum on the same factors.

    Monarch, block tensor trains of rank 1, 2 and 4, four MLR levels, low rank and a butterfly; forward without
    gradients, then forward and backward with the gradients of the input and of every factor.

        mlbtc bench linear --tokens 256 --tokens 4096
        mlbtc bench linear --width 512 --threads 1 --out linear.json
    """
    from mlbtc.benchmarks.cases import linear_cases

    _run("linear", lambda: linear_cases(width, tokens), threads, seconds, repetitions, warmup, seed, out)


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
    seed: int, out: Path | None,
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
    here = record.machine(threads)
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
    if out is not None:
        record.write(out, record.as_json(suite, settings, results, here))
        plain.print(f"wrote {out}", markup=False, soft_wrap=True)


app.command("linear", help=teach(linear_command.__doc__))(linear_command)
app.command("attention", help=teach(attention_command.__doc__))(attention_command)
app.command("decode", help=teach(decode_command.__doc__))(decode_command)
