"""The end of a run: a table on the terminal, and a report with the same table for later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from torch import nn

from mlbtc.analysis import AttentionReport, analyze
from mlbtc.training.checkpoints import save_weights
from mlbtc.training.config import RunConfig
from mlbtc.training.durable import write_json, write_text
from mlbtc.training.launch import launch
from mlbtc.training.runs import RunFolder


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text below a header; the first column names the row.

    Attributes:
        title: what the numbers are.
        header: names of columns.
        rows: cells.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """Return a Markdown table."""
        ruler = ["---", *("---:" for _ in self.header[1:])]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.header, ruler, *self.rows))

    def to_rich(self) -> RichTable:
        """Return a table for a terminal."""
        table = RichTable(box=None, pad_edge=False, header_style="dim")
        for position, name in enumerate(self.header):
            table.add_column(name, justify="right" if position else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


@dataclass(frozen=True, slots=True)
class Result:
    """What a run leaves behind.

    Attributes:
        metrics: final numbers by name, those of the rivals among them.
        table: the same as a table.
        notes: what a reader of the numbers must know.
        steps: the steps done.
        folder: the run folder.
        report: the report, Markdown.
        figure: the figure, None where matplotlib is not installed.
    """

    metrics: dict[str, Any]
    table: Table
    notes: tuple[str, ...]
    steps: int
    folder: Path
    report: Path
    figure: Path | None

    def show(self, console: Console) -> None:
        """Print the table and where the files are."""
        console.print(self.table.title, style="bold", highlight=False, markup=False, soft_wrap=True)
        # A console of its own: numbers are never cut short, however narrow the terminal.
        width = max(console.width, 120)
        wide = Console(file=console.file, width=width, force_terminal=console.is_terminal, quiet=console.quiet)
        wide.print(self.table.to_rich())
        for note in self.notes:
            console.print(f"note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        figure = f"  figure {self.figure}" if self.figure else "  (no figure: matplotlib is not installed)"
        place = f"run folder {self.folder}  report {self.report}{figure}"
        console.print(place, highlight=False, markup=False, soft_wrap=True)


def finish(
    config: RunConfig,
    folder: RunFolder,
    *,
    model: nn.Module,
    metrics: dict[str, Any],
    table: Table,
    notes: tuple[str, ...],
    steps: int,
    draw: Callable[[], Path | None],
) -> Result:
    """Write weights, results, figure and report, where this process leads, and return the result.

    Args:
        config: resolved.
        folder: where files go.
        model: what the metrics are about.
        metrics: final numbers by name.
        table: the same as a table.
        notes: what a reader must know.
        steps: the steps done.
        draw: draws the figure and returns its path, None without matplotlib.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    values = {"steps": steps, "parameters": parameters, **metrics}
    figure = None
    if launch().leads:
        save_weights(model, folder.model)
        figure = draw()
        write_json(folder.results, values)
        write_text(folder.report, _report(config, folder, values, table, notes, figure))
    return Result(values, table, notes, steps, folder.root, folder.report, figure)


def _report(
    config: RunConfig,
    folder: RunFolder,
    values: dict[str, Any],
    table: Table,
    notes: tuple[str, ...],
    figure: Path | None,
) -> str:
    lines = [f"# {config.task}: {table.title}", "", table.to_markdown(), ""]
    lines += [f"- **{note}**" for note in notes] + [""] * bool(notes)
    if figure:
        lines += [f"![{table.title}]({figure.name})", ""]
    layers = f", {len(config.specs)} layers" if config.specs else ", no attention"
    lines += ["## Model", "", f"{values['parameters']:,} parameters{layers}", ""]
    lines += [f"- {count} x {spec_line}" for spec_line, count in _layers(config).items()]
    lines += ["", "## Run", "", f"{values['steps']} steps of {config.batch}, learning rate {config.lr:g}, "]
    lines[-1] += f"seed {config.seed}, device {config.device}. Everything else is in `{folder.config.name}`; "
    lines[-1] += f"the loss of every step is in `{folder.metrics.name}`; the weights are in `{folder.model.name}`."
    return "\n".join(lines) + "\n"


def _layers(config: RunConfig) -> dict[str, int]:
    counts: dict[str, int] = {}
    for spec in config.specs:
        costs = analyze(spec, batch=spec.context)
        assert isinstance(costs, AttentionReport)
        line = f"{spec}; scores {int(costs.scores):,} MACs per sequence of {spec.context} tokens"
        line += f" (standard attention {spec.context**2 * spec.width:,})"
        counts[line] = counts.get(line, 0) + 1
    return counts
