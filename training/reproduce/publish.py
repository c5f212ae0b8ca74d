"""A grid to keep in a repository: the report beside all that it was computed from, without weights and single steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mlbtc.codegen.loading import write_atomically
from mlbtc.training.metrics import read_metrics
from mlbtc.training.reproduce.execute import read_outcome, report
from mlbtc.training.reproduce.grid import Cell, Experiment
from mlbtc.training.reproduce.outcome import SPENT
from mlbtc.training.runs import RunFolder


def publish(experiment: Experiment, out: Path, target: Path, command: str) -> Path:
    """Copy the finished runs of a grid, as far as reports read them, and report them there.

    Of a run stay the config, the results and the steps that were evaluated. For `reproduce` they are finished runs, so
    that the same command with `target` for its folder adds seeds to them. Runs that are there already stay.

    Args:
        experiment: the grid.
        out: its folder.
        target: of the copy; made where it does not exist.
        command: what the report says made it.

    Returns:
        The report.

    Raises:
        TrainingError: a run in either folder was made with other options.
    """
    for made in experiment.cells_to_report(out):
        if RunFolder(made.config.out).results.is_file():
            _copy(experiment, made, RunFolder(target / Path(made.config.out).relative_to(out)))
    return report(experiment, target, command=command)


def _copy(experiment: Experiment, made: Cell, copy: RunFolder) -> None:
    source = RunFolder(made.config.out)
    copy.root.mkdir(parents=True, exist_ok=True)
    rows = read_metrics(source.metrics)
    evaluated = [row for row in rows if experiment.measure.value(row) is not None]
    curve = read_outcome(experiment, made).curve
    lines = [json.dumps(row | {SPENT: point.macs}) for row, point in zip(evaluated, curve, strict=True)]
    write_atomically(copy.metrics, "".join(f"{line}\n" for line in lines))
    shutil.copyfile(source.config, copy.config)
    # Last: a run with results counts as finished.
    write_atomically(copy.results, source.results.read_text(encoding="utf-8"))
