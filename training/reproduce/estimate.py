"""How long a run will take, from a few of its steps."""

from __future__ import annotations

import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mlbtc.training.metrics import read_metrics
from mlbtc.training.reproduce.grid import Cell, Experiment

WARM_UP, TIMED = 3, 5


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the parts of a run take, in seconds.

    Attributes:
        step: a step of training, late in the run.
        evaluation: one during training.
        around: building the model, and what comes behind the last step.
    """

    step: float
    evaluation: float
    around: float

    def total(self, steps: int, every: int) -> float:
        """Return the seconds of a run of so many steps with an evaluation every so many."""
        return self.around + steps * self.step + steps // every * self.evaluation


def measure(experiment: Experiment, cell: Cell) -> Estimate:
    """Train the first steps of a cell, with the options of a late step, and time them."""
    until = WARM_UP + TIMED
    # One step more: the time of an evaluation shows in that of the step behind it.
    options = dict(experiment.probe) | {experiment.measure.evaluates: until, "steps": until + 1, "warmup": 0}
    with tempfile.TemporaryDirectory(prefix="mlbtc-") as folder:
        config = cell.config.replace(**options, checkpoint_every=until + 1, out=Path(folder) / "run")
        began = time.perf_counter()
        result = experiment.task.run(config, console=Console(file=io.StringIO()))
        all_of_it = time.perf_counter() - began
        seconds = [row["seconds"] for row in read_metrics(result.folder / "metrics.jsonl")]
    step = (seconds[until - 1] - seconds[WARM_UP - 1]) / TIMED
    return Estimate(step, max(0.0, seconds[until] - seconds[until - 1] - step), max(0.0, all_of_it - seconds[until]))


def spoken(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
