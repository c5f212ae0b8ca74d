"""A record of `mlbtc bench linear` as a figure: how many times faster than the rival, over tokens, a panel per mode."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbtc.benchmarks.runner import BenchmarkError

Curves = dict[str, list[tuple[int, float]]]
"""For each case pairs of tokens and times faster."""


def read(path: Path) -> dict[str, Any]:
    """Return a record.

    Raises:
        BenchmarkError: the file cannot be read or is no record.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BenchmarkError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict) or not {"suite", "machine", "settings", "results"} <= set(found):
        raise BenchmarkError(f"{path} is no record of mlbtc bench: it lacks suite, machine, settings or results")
    return found


def curves(record: Mapping[str, Any]) -> dict[str, Curves]:
    """Return for each panel, a mode at a width and a number of threads, the curves of our fastest target."""
    panels: dict[str, Curves] = {}
    for result in record["results"]:
        sizes = result["sizes"]
        rest = ", ".join(f"{name} {size}" for name, size in sizes.items() if name != "tokens")
        ours = [timing for timing in result["timings"] if timing["name"].startswith("mlbtc")]
        if ours and "tokens" in sizes:
            faster = 1 / min(timing["ratio"] for timing in ours)
            panel = panels.setdefault(f"{result['mode']}, {rest}", {})
            panel.setdefault(result["case"], []).append((sizes["tokens"], faster))
    return {title: {case: sorted(points) for case, points in panel.items()} for title, panel in panels.items()}


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Write the figure.

    Raises:
        BenchmarkError: matplotlib is missing, there is nothing to draw, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchmarkError("figures need matplotlib: pip install 'mlbtc[plot]'") from None
    panels = curves(record)
    if not panels:
        raise BenchmarkError("the record has no timings over tokens to draw")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6 * columns, 3.6 * rows), layout="constrained")
    axes: list[Any] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis, (title, panel) in zip(axes, panels.items(), strict=False):
        for case, points in panel.items():
            axis.plot(*zip(*points, strict=True), marker="o", label=case)
        axis.axhline(1, color="0.5", linewidth=1)
        axis.set(title=title, xlabel="tokens per call", ylabel="times faster", xscale="log", yscale="log")
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    rival = record["results"][0]["rival"]
    figure.suptitle(
        f"{record['suite']} against {rival}: {record['machine']['cpu']}, torch {record['machine']['torch']}"
    )
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"cannot write {path}: {error}") from None
