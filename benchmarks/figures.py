"""Figures of records by the number of tokens: time and memory, or how many times faster, against the rival's."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlbtc.benchmarks.runner import BenchmarkError

OURS = {"attention": ("mlbtc auto", "forward+backward"), "decode": ("mlbtc cache", "token")}
"""The candidate and the mode that are drawn of each suite."""

Points = dict[str, dict[int, float]]
Curves = dict[str, list[tuple[int, float]]]
"""For each case pairs of tokens and times faster."""


def read_record(path: Path) -> dict[str, Any]:
    """Return the record of a benchmark.

    Raises:
        BenchmarkError: the file is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read as a record: {error.strerror or error}") from None
    except ValueError as error:
        raise BenchmarkError(f"{path}: cannot be read as a record: {error}") from None
    suite = record.get("suite") if isinstance(record, dict) else None
    suites = ("linear", *OURS)
    if suite not in suites or not isinstance(record.get("results"), list):
        raise BenchmarkError(f"{path}: a record of {', '.join(suites[:-1])} or {suites[-1]} is needed, found {suite!r}")
    return record


def points(record: Mapping[str, Any], threads: int) -> tuple[Points, Points]:
    """Return by head and number of tokens the time and the memory over the rival's, for a number of threads."""
    name, mode = OURS[record["suite"]]
    times: Points = {}
    memory: Points = {}
    for result in record["results"]:
        timings = {timing["name"]: timing for timing in result["timings"]}
        if result["mode"] != mode or name not in timings or threads_of(record, result) != threads:
            continue
        ours, rival, tokens = timings[name], timings[result["rival"]], result["sizes"]["tokens"]
        times.setdefault(result["case"], {})[tokens] = ours["seconds"] / rival["seconds"]
        if ours.get("memory_bytes") and rival.get("memory_bytes"):
            memory.setdefault(result["case"], {})[tokens] = ours["memory_bytes"] / rival["memory_bytes"]
    return times, memory


def threads_of(record: Mapping[str, Any], result: Mapping[str, Any]) -> int:
    """Return the threads of a result."""
    return int(result["sizes"].get("threads", record["settings"]["threads"]))


def curves(record: Mapping[str, Any]) -> dict[str, Curves]:
    """Return for each panel, a mode at a width and a number of threads, the curves of what "auto" compiles."""
    panels: dict[str, Curves] = {}
    for result in record["results"]:
        sizes = result["sizes"]
        rest = ", ".join(f"{name} {size}" for name, size in sizes.items() if name != "tokens")
        ours = [timing["ratio"] for timing in result["timings"] if timing["name"] == "mlbtc auto"]
        if ours and "tokens" in sizes:
            panel = panels.setdefault(f"{result['mode']}, {rest}", {})
            panel.setdefault(result["case"], []).append((sizes["tokens"], 1 / ours[0]))
    return {title: {case: sorted(points) for case, points in panel.items()} for title, panel in panels.items()}


def common_names(panels: Sequence[Curves]) -> list[str]:
    """Return the names of the cases of the first panel, without the words that differ in other panels: their sizes."""
    found = []
    for place, case in enumerate(panels[0]):
        words = [list(panel)[place].split() for panel in panels if place < len(panel)]
        same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
        found.append(" ".join(column[0] for column in same) or case)
    return found


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Draw a record.

    Raises:
        BenchmarkError: matplotlib is not installed, there is nothing to draw, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchmarkError("a figure needs matplotlib: pip install 'mlbtc[plot]'") from None
    if not record["results"]:
        raise BenchmarkError("the record has no timings to draw")
    figure = Figure(layout="constrained")
    (_draw_speed if record["suite"] == "linear" else _draw_time_and_memory)(record, figure)
    rival = record["results"][0]["rival"]
    figure.suptitle(
        f"{record['suite']} against {rival}: {record['machine']['cpu']}, torch {record['machine']['torch']}"
    )
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"--out {path}: cannot write the figure: {error}") from None


def _draw_time_and_memory(record: Mapping[str, Any], figure: Any) -> None:
    """Draw a row per number of threads, time on the left and memory on the right, both over the rival's."""
    rows = sorted({threads_of(record, result) for result in record["results"]})
    rival, mode = record["results"][0]["rival"], OURS[record["suite"]][1]
    figure.set_size_inches(9, 3.2 * len(rows))
    for axes, threads in zip(figure.subplots(len(rows), 2, squeeze=False), rows, strict=True):
        for panel, measured, what in zip(axes, points(record, threads), ("time", "memory"), strict=True):
            for case, curve in measured.items():
                panel.plot(*zip(*sorted(curve.items()), strict=True), "-o", label=case, markersize=3)
            panel.axhline(1, color="0.6", linewidth=1)
            panel.set_xscale("log", base=2)
            panel.set_ylim(bottom=0)
            panel.set(xlabel="tokens", ylabel=f"{what} / {rival}'s", title=f"{mode}, {threads} threads")
        axes[0].legend(frameon=False, fontsize=8)


def _draw_speed(record: Mapping[str, Any], figure: Any) -> None:
    """Draw how many times faster than the rival what "auto" compiles is, a panel per mode, width and threads."""
    panels = curves(record)
    columns = min(2 if len(panels) <= 8 else 4, len(panels))
    rows = -(-len(panels) // columns)
    figure.set_size_inches(6 * columns, 3.6 * rows)
    axes: list[Any] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis, (title, panel) in zip(axes, panels.items(), strict=False):
        for case, measured in panel.items():
            axis.plot(*zip(*measured, strict=True), marker="o", label=case)
        axis.axhline(1, color="0.5", linewidth=1)
        axis.set(title=title, xlabel="tokens per call", ylabel="times faster", xscale="log", yscale="log")
    for axis in axes[len(panels) :]:
        axis.remove()
    handles, _ = axes[0].get_legend_handles_labels()
    figure.legend(handles, common_names(list(panels.values())), loc="outside lower center", ncols=4, frameon=False)
