"""`mlbtc bench`: timings against named rivals. Imports torch in the command bodies only."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import mlbtc
from mlbtc.cli.options import teach

if TYPE_CHECKING:
    import torch

    from mlbtc.benchmarks.runner import Case, Result, Settings, Timer

HELP = """Time what mlbtc makes against what PyTorch has, in one process and in turn.

Every candidate is first compared with a float64 reference, its gradients too; a wrong one is not timed, the command
fails and says how wrong it is. Shown are medians with quartiles, and each median over the rival's: 0.50 is half the
rival's time. A ratio behind ~ had quartiles more than a quarter apart: the machine was busy, measure again.

    mlbtc bench linear
    mlbtc bench attention --tokens 2048 --out attention.json

The file of --out is written after every case. What stops early, by Ctrl-C too, shows what it has; the same command with
--resume times the cases that are missing, and refuses if the machine, a version or a setting is another one. A claim is
broken only where the interquartile ranges do not overlap, or by a tenth where there is one round. What is ten times
slower than the rival in the first round is timed once, and says so.
"""

TABLE_WIDTH = 140
"""The least columns of the table, so that no cell is cut in a narrow terminal, a pipe or a file."""

WORTH_SAYING = 60
"""Seconds from which on a benchmark says at the start how long it will take."""

app = typer.Typer(help=teach(HELP), no_args_is_help=True, rich_markup_mode=None)

Threads = Annotated[int | None, typer.Option(help="Threads of torch; its own choice by default.")]
Seconds = Annotated[float, typer.Option("--seconds-per-case", help="Time for each mode of a case, all candidates.")]
Repetitions = Annotated[int, typer.Option(help="The least number of timed rounds.")]
Warmup = Annotated[int, typer.Option(help="Rounds before timing.")]
Seed = Annotated[int, typer.Option(help="Seed of the random operands.", min=0, max=2**63 - 1)]
Out = Annotated[Path | None, typer.Option(help="Write results, machine and settings as JSON, after every case.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished record that --out names.")]

Tokens = Annotated[list[int], typer.Option(help="Sequence lengths; repeat for several.", show_default=False)]
CaseNames = Annotated[list[str], typer.Option(help="A head to time, such as '8 x 8'; repeat for several.")]
ThreadCounts = Annotated[list[int], typer.Option(help="Threads of torch, its own choice by default; repeatable.")]
Full = Annotated[bool, typer.Option("--full", help="Every size: an hour or more, for a record.")]
FULL_TOKENS = (256, 512, 1024, 2048, 4096, 8192)

Backends = Annotated[
    list[str],
    typer.Option(help="A backend of mlr_attention; repeat. [auto, strips; on a GPU auto]", show_default=False),
]


class Device(StrEnum):
    """Where to time."""

    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[Device, typer.Option(help="Where to time: on a GPU against its own rivals, in bfloat16.")]


def linear_command(
    width: Annotated[list[int] | None, typer.Option(help="Rows and columns, powers of 2; 1024 by default.")] = None,
    tokens: Annotated[list[int] | None, typer.Option(help="Tokens per call; 1, 64 and 1024 by default.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads of torch; its own choice by default.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only cases whose name has this in it.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All widths, tokens, threads: most of an hour.")] = False,
    seconds: Annotated[
        float | None, typer.Option("--seconds-per-case", help="As above; 1.0, with --full 0.4.", show_default=False)
    ] = None,
    repetitions: Repetitions = 5,
    warmup: Warmup = 2,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Time emitted modules against nn.Linear with the same matrix, einsum on the same factors, and other packages.

    Monarch, block tensor trains of rank 1, 2 and 4, four MLR levels, low rank, a tensor train, a butterfly, and an MLP
    of two layers; forward without gradients, then forward and backward with the gradients of the input and the factors.
    Rivals are nn.Linear, torch.einsum, opt_einsum and, where they are installed, torch-structured, linear-operator
    and tensorly-torch; with --full also torch.compile, at width 1024 and 1024 tokens. It is claimed that the module
    of target auto is never slower than torch.einsum, and up to 64 tokens never slower than nn.Linear from width 1024
    on: what breaks a claim is listed last. Options for sizes and cases may be repeated; without any the command takes
    about four minutes.

        mlbtc bench linear --tokens 256 --tokens 4096 --case btt
        mlbtc bench linear --width 512 --threads 1 --threads 2 --out linear.json
    """
    from mlbtc.benchmarks import peers
    from mlbtc.benchmarks.linear import TOKENS, WIDTHS, Sizes, linear_cases

    def make(counts: list[int]) -> list[Case]:
        sizes = Sizes(
            widths=width or (WIDTHS if full else (1024,)),
            tokens=tokens or (TOKENS if full else (1, 64, 1024)),
            threads=counts,
            cases=case or (),
            compiled=full,
            full=full,
        )
        return linear_cases(sizes)

    _run(
        "linear", make, _counts(threads or [], full), seconds or (0.4 if full else 1.0), repetitions, warmup, seed, out,
        resume, more=lambda: {"peers": peers.states()}, patience=1.5 if full else None,
    )  # fmt: skip


def attention_command(
    tokens: Tokens = [],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Sequences per call.")] = 1,
    heads: Annotated[int, typer.Option(help="Heads of 64 features.")] = 8,
    backend: Backends = [],  # noqa: B006
    case: CaseNames = [],  # noqa: B006
    device: DeviceOption = Device.cpu,
    threads: ThreadCounts = [],  # noqa: B006
    flex: Annotated[
        bool | None, typer.Option(help="Time compiled FlexAttention too; on a CPU only with --full.")
    ] = None,
    memory: Annotated[bool, typer.Option(help="Measure peak memory of forward and backward.")] = True,
    full: Full = False,
    seconds: Seconds = 1.5,
    repetitions: Repetitions = 5,
    warmup: Warmup = 2,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Time causal MLR attention against scaled_dot_product_attention and the dense method, one matrix per level.

    Five heads of 64 features: eight levels of 8, 32|8|6|4|4|4|4|2, 48|16, 40|16|4|4, and one level of 64, which is
    standard attention; blocks halve from level to level. SDPA and FlexAttention compute standard attention in all of
    them. Without options 512 and 2048 tokens, a few minutes; --full takes 256 to 8192 tokens, one thread and all.

    The last column is the largest resident memory during one forward and backward pass, after a warm-up and beyond what
    was there before, in a process of its own. What cannot run is listed with the reason.

        mlbtc bench attention --tokens 256 --tokens 2048 --case "8 x 8"
        mlbtc bench attention --full --out attention.json

    With --device cuda everything is bfloat16 and measured by CUDA events with a cold L2 cache, 1024 to 16384 tokens, up
    to 65536 with --full. Rivals are the kernels of scaled_dot_product_attention (flash, cuDNN, memory-efficient), of
    which the fastest is what ratios refer to, compiled FlexAttention, and flash-attn where it is installed. Shown
    beside the times are TFLOP/s, padding not counted, and on GPUs whose peaks are known the bound of the hardware.

        mlbtc bench attention --device cuda --heads 16 --out attention.json
    """
    from mlbtc.benchmarks import memory as peaks
    from mlbtc.benchmarks.cases import attention_cases

    if device is Device.cuda:
        _refuse_threads(threads)
        _run_on_gpu(
            "attention", tokens, full, batch, heads, case, backend or ["auto"], flex is not False, seconds, repetitions,
            warmup, seed, out, resume,
        )  # fmt: skip
        return
    backend = backend or ["auto", "strips"]
    tokens = tokens or (list(FULL_TOKENS) if full else [512, 2048])
    missing = peaks.unavailable() if memory else ""
    note = f"no peak memory: {missing}" if missing else ""

    def make(counts: list[int]) -> list[Case]:
        return attention_cases(
            tokens, batch, heads, backend, names=case, threads=counts, flex=full if flex is None else flex,
            memory=memory and not missing,
        )  # fmt: skip

    ours = f"mlbtc {backend[0]}"
    _run(
        "attention",
        make,
        _counts(threads, full),
        seconds,
        repetitions,
        warmup,
        seed,
        out,
        resume,
        ours=ours,
        note=note,
        memory=peaks.DEFINITION,
    )


def decode_command(
    tokens: Tokens = [],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Sequences per call.")] = 1,
    heads: Annotated[int, typer.Option(help="Heads of 64 features.")] = 8,
    case: CaseNames = [],  # noqa: B006
    device: DeviceOption = Device.cpu,
    threads: ThreadCounts = [],  # noqa: B006
    full: Full = False,
    seconds: Seconds = 0.5,
    repetitions: Repetitions = 20,
    warmup: Warmup = 5,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Time one more token against scaled_dot_product_attention over a full cache.

    The heads of `mlbtc bench attention`; mlbtc keeps per level the keys of the current block, and every block is full.
    The last column is the memory of keys and values. Without options 1024 and 4096 tokens; --full takes 256 to 8192
    tokens, one thread and all.

        mlbtc bench decode --tokens 4096 --batch 4
        mlbtc bench decode --full --out decode.json

    With --device cuda as `mlbtc bench attention`: bfloat16, 1024 to 16384 tokens, up to 65536 with --full.

        mlbtc bench decode --device cuda --batch 16 --out decode.json
    """
    from mlbtc.benchmarks.decode import CACHE, decode_cases

    if device is Device.cuda:
        _refuse_threads(threads)
        _run_on_gpu(
            "decode", tokens, full, batch, heads, case, [], False, seconds, repetitions, warmup, seed, out, resume
        )
        return
    tokens = tokens or (list(FULL_TOKENS) if full else [1024, 4096])

    def make(counts: list[int]) -> list[Case]:
        return decode_cases(tokens, batch, heads, names=case, threads=counts)

    _run(
        "decode",
        make,
        _counts(threads, full),
        seconds,
        repetitions,
        warmup,
        seed,
        out,
        resume,
        ours=CACHE,
        memory="keys and values that are kept",
    )


def figure_command(
    record: Annotated[Path, typer.Argument(help="A record, what --out of a benchmark wrote.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The figure; .png, .svg or .pdf. [record].png")
    ] = None,
) -> None:
    """Draw a record over the number of tokens: time and memory of attention, speed of linear layers, to the rival's.

    mlbtc bench figure attention.json
    mlbtc bench figure decode.json -o decode.svg
    """
    from mlbtc.benchmarks.figures import draw, read_record
    from mlbtc.benchmarks.record import check_writable

    out = record.with_suffix(".png") if out is None else out
    found = read_record(record)
    check_writable(out)
    draw(found, out)
    typer.echo(f"wrote {out}")


def _counts(threads: list[int], full: bool) -> list[int]:
    """Return the numbers of threads to time with; none for the choice of torch."""
    import torch

    return list(dict.fromkeys(threads or ([1, torch.get_num_threads()] if full else [])))


def _refuse_threads(threads: list[int]) -> None:
    from mlbtc.benchmarks.runner import BenchmarkError

    if threads:
        raise BenchmarkError("--threads is for --device cpu: threads of torch do nothing for a GPU")


def _run_on_gpu(
    suite: str, tokens: list[int], full: bool, batch: int, heads: int, names: list[str], backends: list[str],
    flex: bool, seconds: float, repetitions: int, warmup: int, seed: int, out: Path | None, resume: bool,
) -> None:  # fmt: skip
    from mlbtc.benchmarks import cuda, gpu
    from mlbtc.benchmarks.decode import CACHE

    cuda.require_cuda()
    found = cuda.machine()
    peaks = cuda.peaks_of(found["gpu"])
    tokens = tokens or list(gpu.FULL_TOKENS if full else gpu.TOKENS)

    def make(_: list[int]) -> list[Case]:
        if suite == "decode":
            return gpu.decode_cases(tokens, batch, heads, names=names, gpu=peaks)
        return gpu.attention_cases(tokens, batch, heads, backends, names=names, flex=flex, gpu=peaks)

    _run(
        suite, make, [], seconds, repetitions, warmup, seed, out, resume,
        ours=CACHE if suite == "decode" else f"mlbtc {backends[0]}",
        note="" if peaks else f"no bounds: the peaks of {found['gpu']} are not known",
        memory="keys and values that are kept" if suite == "decode" else "",
        more=lambda: found,
        timer=cuda.cuda_timer(),
        dtype=gpu.DTYPE,
    )  # fmt: skip


def _run(
    suite: str, make: Callable[[list[int]], list[Case]], threads: list[int], seconds: float, repetitions: int,
    warmup: int, seed: int, out: Path | None, resume: bool, *, ours: str = "", note: str = "", memory: str = "",
    more: Callable[[], dict[str, object]] = dict, timer: Timer | None = None, dtype: torch.dtype | None = None,
    patience: float | None = None,
) -> None:  # fmt: skip
    import torch
    from rich.console import Console

    from mlbtc.benchmarks import record, summary
    from mlbtc.benchmarks.resume import check_unclaimed, earlier_results
    from mlbtc.benchmarks.runner import BenchmarkError, Settings

    if resume and out is None:
        raise BenchmarkError("--resume needs --out, the record to go on with")
    most = max(threads, default=torch.get_num_threads())
    settings = Settings(
        seconds=seconds,
        warmup=warmup,
        repetitions=repetitions,
        threads=most,
        seed=seed,
        dtype=dtype or torch.float32,
        patience=patience,
    )
    # One number of threads is a setting, several are sizes of the cases.
    cases = make(threads if len(threads) > 1 else [])
    if out is not None:
        record.check_writable(out)
        if not resume:
            check_unclaimed(out)
    here = {"mlbtc": mlbtc.__version__} | record.machine(most) | more()
    # --resume is how a record came about, not what it holds.
    command = shlex.join(["mlbtc", *(word for word in sys.argv[1:] if word != "--resume")])

    def text(results: Sequence[Result], missing: int) -> str:
        return record.as_json(suite, settings, results, here, command, memory, missing)

    def save(results: Sequence[Result], missing: int) -> None:
        if out is not None:
            record.write(out, text(results, missing))

    earlier = earlier_results(out, text([], 0)) if resume and out is not None else []
    results, missing = _time(cases, settings, earlier, save, timer)
    plain = Console(highlight=False)
    plain.width = max(plain.width, TABLE_WIDTH)
    plain.print(record.heading(suite, settings, here), markup=False, soft_wrap=True)
    plain.print(record.table(results))
    for part in (note, record.reasons(results), summary.ratios(results, ours), record.claims(results)):
        if part:
            plain.print(part, markup=False, soft_wrap=True)
    if missing:
        kept = f"; {out} holds the others, go on with --resume" if out is not None and results else ""
        typer.echo(f"mlbtc: interrupted, {missing} of {len(cases)} cases are missing{kept}", err=True)
        raise typer.Exit(130)
    if out is not None:
        save(results, 0)
        plain.print(f"wrote {out}", markup=False, soft_wrap=True)


def _time(
    cases: Sequence[Case],
    settings: Settings,
    earlier: Sequence[Result],
    save: Callable[[Sequence[Result], int], None],
    timer: Timer | None,
) -> tuple[list[Result], int]:
    """Return the results, and how many cases are missing because of Ctrl-C; a case counts with all its modes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from mlbtc.benchmarks.estimate import estimated_seconds, sentence
    from mlbtc.benchmarks.runner import run_cases

    kept = list(earlier)
    known = {(result.case, *result.sizes.items()) for result in earlier}
    missing = [case for case in cases if (case.name, *case.sizes.items()) not in known]
    left = len(missing)
    expected = estimated_seconds(missing, settings)
    if expected is not None and expected > WORTH_SAYING:
        typer.echo(f"mlbtc: {sentence(expected)}", err=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=3600) as bar:
        task = bar.add_task("", total=left)

        def done(results: Sequence[Result]) -> None:
            nonlocal left
            kept[:], left = results, left - 1
            save(kept, left)
            bar.update(task, advance=1, refresh=True)

        def progress(text: str) -> None:
            bar.update(task, description=text, refresh=True)

        try:
            return run_cases(cases, settings, progress=progress, timer=timer, earlier=earlier, done=done), 0
        except KeyboardInterrupt:
            return kept, left


app.command("linear", help=teach(linear_command.__doc__))(linear_command)
app.command("attention", help=teach(attention_command.__doc__))(attention_command)
app.command("decode", help=teach(decode_command.__doc__))(decode_command)
app.command("figure", help=teach(figure_command.__doc__))(figure_command)
