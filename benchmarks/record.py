"""What a benchmark leaves: the machine, the settings and the results, as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from mlbtc.benchmarks.runner import BenchmarkError, Result, Settings, Timing, barrier_seconds
from mlbtc.codegen import native
from mlbtc.codegen.loading import write_atomically

SLOW_BARRIER = 5e-4
"""Seconds for a tiny product above which threads share a core."""

COUNTED = ("TFLOP/s", "bound, ms")
"""Columns for candidates whose work was counted: without padding, and the part of the bound that was reached."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY", "MKL_NUM_THREADS")


def machine(threads: int) -> dict[str, Any]:
    """Return what timings depend on; `barrier_seconds` is measured now, with `threads` threads.

    Raises:
        BackendError: there is a compiler that does not run.
    """
    command = native.compiler_command()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "compiler": native.compiler_version(command) if command else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "einsum_optimizes_order": torch.backends.opt_einsum.is_available(),
        "environment": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "barrier_seconds": barrier_seconds(threads),
    }


def _cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_json(
    suite: str,
    settings: Settings,
    results: Sequence[Result],
    here: Mapping[str, Any],
    command: str = "",
    memory: str = "",
    missing: int = 0,
) -> str:
    """Return the record of a run, of which so many cases are missing.

    Times are in seconds, and `memory` says what `memory_bytes` of a timing means.
    """
    how = {**dataclasses.asdict(settings), "dtype": str(settings.dtype).removeprefix("torch.")}
    record = {
        "suite": suite,
        "command": command,
        "memory": memory,
        "machine": dict(here),
        "settings": how,
        "missing_cases": missing,
        "results": [dataclasses.asdict(result) for result in results],
    }
    return json.dumps(record, indent=2) + "\n"


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before anything is timed.

    Raises:
        BenchmarkError: the folder does not exist or is not writable, or the path is a folder.
    """
    if path.is_dir():
        raise BenchmarkError(f"--out {path}: that is a folder, name a file in it")
    if not path.parent.is_dir():
        raise BenchmarkError(f"--out {path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise BenchmarkError(f"--out {path}: the folder {path.parent} cannot be written")


def write(path: Path, text: str) -> None:
    """Write a record in one go.

    Raises:
        BenchmarkError: it cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise BenchmarkError(f"--out {path}: cannot write: {error.strerror or error}") from None


def table(results: Sequence[Result]) -> Table:
    """Return one row per candidate; a ratio behind `~` had noisy rounds on either side."""
    shown = Table(box=None, header_style="bold")
    for column in ("case", "sizes", "mode", "candidate"):
        shown.add_column(column, no_wrap=True)
    counted = any(timing.flops is not None for result in results for timing in result.timings)
    for column in ("ms", "quartiles", "time / rival's", "rounds", "error", "MiB", *(COUNTED if counted else ())):
        shown.add_column(column, justify="right", no_wrap=True)
    for result in results:
        sizes = " ".join(_short(name, size) for name, size in result.sizes.items())
        rival = next(timing for timing in result.timings if timing.name == result.rival)
        for place, timing in enumerate(result.timings):
            lead = (result.case, sizes, result.mode) if place == 0 else ("", "", "")
            low, high = (f"{1e3 * edge:.2f}" for edge in timing.quartiles)
            mark = "~" if timing.noisy or rival.noisy else ""
            ratio = "rival" if timing is rival else f"{mark}{timing.ratio:.2f}"
            cells = (timing.name, f"{1e3 * timing.seconds:.2f}", f"{low}-{high}", ratio, _rounds(timing))
            memory = "" if timing.memory_bytes is None else f"{timing.memory_bytes / 2**20:.1f}"
            last = place == len(result.timings) - 1 and not result.absent
            bounds = _bounds(timing) if counted else ()
            shown.add_row(*lead, *cells, f"{timing.error:.0e}", memory, *bounds, end_section=last)
        for one in result.absent:
            shown.add_row("", "", "", one.name, "-", end_section=one is result.absent[-1])
    return shown


def _rounds(timing: Timing) -> str:
    return "once" if timing.repetitions == 1 else str(timing.repetitions)


def _bounds(timing: Timing) -> tuple[str, str]:
    """Return TFLOP/s, and the bound with the part of it that was reached."""
    speed = "" if timing.flops is None else f"{timing.flops / timing.seconds / 1e12:.1f}"
    bound = timing.bound_seconds
    return speed, "" if bound is None else f"{1e3 * bound:.3f} ({bound / timing.seconds:.0%})"


def _short(name: str, size: int) -> str:
    return f"{size} threads" if name == "threads" else f"{name[0].upper()}{size}"


def reasons(results: Sequence[Result]) -> str:
    """Return a line for each candidate that was not timed and why; empty where all were."""
    lines = (
        f"{result.mode}, {' '.join(_short(*size) for size in result.sizes.items())}: {one.name} {one.reason}"
        for result in results
        for one in result.absent
    )
    return "\n".join(dict.fromkeys(lines))


def claims(results: Sequence[Result]) -> str:
    """Return how many claims were checked and one line for each that does not hold; empty where nothing is claimed."""
    found = []
    for result in results:
        where = f"{result.case}, {', '.join(_short(*size) for size in result.sizes.items())}, {result.mode}"
        for ours, theirs in result.broken_claims():
            times = f"{1e3 * ours.seconds:.3f} ms against {1e3 * theirs.seconds:.3f} ms of {theirs.name}"
            found.append(f"  {where}: {ours.name} {times}")
    checked = sum(len(result.claims) for result in results)
    if not checked:
        return ""
    noise = sum(len(result.slower()) for result in results) - len(found)
    close = f", {noise} slower within noise (quartiles overlap)" if noise else ""
    heading = f"claims of being no slower: {checked} checked, {len(found)} broken{close}{':' if found else ''}"
    return "\n".join([heading, *found])


def heading(suite: str, settings: Settings, here: Mapping[str, Any]) -> str:
    """Return where and how the table was measured, with a warning where the threads share a core."""
    warning = (
        f"\nwarning: a tiny product took {1e3 * here['barrier_seconds']:.1f} ms: the threads share a core and these "
        "times are not trustworthy. Set OMP_PROC_BIND=true, or --threads 1, and measure again."
    )
    where = here["gpu"] if "gpu" in here else f"{here['cpu']}, {here['cores']} cores, {settings.threads} threads"
    return (
        f"{suite}: {where}, torch {here['torch']}, "
        f"{str(settings.dtype).removeprefix('torch.')}; medians after {settings.warmup} warm-up rounds, "
        "candidates in turn, each checked against float64" + (warning if here["barrier_seconds"] > SLOW_BARRIER else "")
    )
