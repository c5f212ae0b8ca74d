"""Figures of records: time and memory against the rival's, by the number of tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbtc.benchmarks.runner import BenchmarkError

OURS = {"attention": ("mlbtc auto", "forward+backward"), "decode": ("mlbtc cache", "token")}
"""The candidate and the mode that are drawn of each suite."""

Points = dict[str, dict[int, float]]


def read_record(path: Path) -> dict[str, Any]:
    """Return a record of attention or decoding.

    Raises:
        BenchmarkError: the file is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BenchmarkError(f"{path}: cannot be read as a record: {error}") from None
    suite = record.get("suite") if isinstance(record, dict) else None
    if suite not in OURS or not isinstance(record.get("results"), list):
        raise BenchmarkError(f"{path}: a record of {' or '.join(OURS)} is needed, found {suite!r}")
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


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Draw a record: a row per number of threads, time on the left and memory on the right, both over the rival's.

    Raises:
        BenchmarkError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchmarkError("a figure needs matplotlib: pip install 'mlbtc[plot]'") from None
    rows = sorted({threads_of(record, result) for result in record["results"]})
    rival = record["results"][0]["rival"] if rows else ""
    figure = Figure(figsize=(9, 3.2 * max(1, len(rows))), layout="constrained")
    grid = figure.subplots(max(1, len(rows)), 2, squeeze=False)
    for axes, threads in zip(grid, rows, strict=False):
        for panel, curves, what in zip(axes, points(record, threads), ("time", "memory"), strict=True):
            for case, curve in curves.items():
                panel.plot(*zip(*sorted(curve.items()), strict=True), "-o", label=case, markersize=3)
            panel.axhline(1, color="0.6", linewidth=1)
            panel.set_xscale("log", base=2)
            panel.set_ylim(bottom=0)
            panel.set(xlabel="tokens", ylabel=f"{what} / {rival}'s", title=f"{threads} threads")
        axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{OURS[record['suite']][1]}, {record['machine']['cpu']}, torch {record['machine']['torch']}")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"--out {path}: cannot write the figure: {error}") from None
