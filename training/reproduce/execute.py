"""Running a grid: what is finished is kept, what was stopped is resumed, and the report says what came out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from mlbtc.training.checkpoints import latest_checkpoint
from mlbtc.training.errors import Interrupted, TrainingError
from mlbtc.training.metrics import read_metrics
from mlbtc.training.reproduce.estimate import Estimate, measure, spoken
from mlbtc.training.reproduce.grid import Cell, Experiment
from mlbtc.training.reproduce.outcome import Outcome, read_curve
from mlbtc.training.reproduce.report import write_report
from mlbtc.training.runs import RunFolder


@dataclass(frozen=True, slots=True)
class Schedule:
    """Runs still to make, and how long each will take.

    Attributes:
        cells: all runs of the grid.
        waiting: those that are not finished.
        seconds: the estimate for each of `waiting`.
        jobs: how many runs go at a time.
    """

    cells: tuple[Cell, ...]
    waiting: tuple[Cell, ...]
    seconds: tuple[float, ...]
    jobs: int = 1

    def __str__(self) -> str:
        kept = len(self.cells) - len(self.waiting)
        done = f", {kept} of them finished" if kept else ""
        return f"{len(self.cells)} runs{done}; about {spoken(sum(self.seconds) / self.jobs)} to go on this machine"


def make_schedule(
    experiment: Experiment, out: Path, say: Callable[[str], None] = lambda line: None, jobs: int = 1
) -> Schedule:
    """Look at what is finished in a folder, and time a few steps of each kind of run that is not.

    Args:
        experiment: the grid.
        out: its folder; need not exist.
        say: takes a line for each kind of run that was timed.
        jobs: how many runs go at a time.

    Raises:
        TrainingError: a run in the folder was made with other options.
    """
    cells = experiment.cells(out)
    waiting = tuple(cell for cell in cells if not is_finished(experiment, cell))
    known: dict[tuple[str, str], Estimate] = {}
    seconds = []
    for cell in waiting:
        kind = cell.setting, cell.kind
        if kind not in known:
            known[kind] = measure(experiment, cell)
            say(f"{cell.setting}, {cell.kind}: {1e3 * known[kind].step:.1f} ms a step of {cell.config.steps:,}")
        seconds.append(known[kind].total(cell.config.steps, getattr(cell.config, experiment.measure.evaluates)))
    return Schedule(cells, waiting, tuple(seconds), jobs)


def reproduce(experiment: Experiment, out: Path, *, command: str, console: Console) -> Path:
    """Make the runs of a grid that are not finished, then write report, table and figures.

    Several processes may work at one folder: each takes the next run that none of the others has begun.

    Args:
        experiment: the grid.
        out: its folder; runs that are finished in it are kept, one that was stopped is resumed.
        command: what the report says made it.
        console: for progress.

    Returns:
        The report.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what is there is reported, and the same call goes on.
        TrainingError: a run in the folder was made with other options, or an option is wrong.
    """
    say = plain_lines(console)
    schedule = make_schedule(experiment, out, say)
    say(str(schedule))
    try:
        run_waiting(experiment, schedule, console)
    except Interrupted as stop:
        report(experiment, out, command=command)
        raise Interrupted(stop.step, out) from None
    return report(experiment, out, command=command)


def report(experiment: Experiment, out: Path, *, command: str) -> Path:
    """Report the runs of a grid that are finished, those of further seeds too, and make none.

    Args:
        experiment: the grid.
        out: its folder.
        command: what the report says made it.

    Returns:
        The report.

    Raises:
        TrainingError: a run in the folder was made with other options.
    """
    cells = experiment.cells_to_report(out)
    finished = tuple(cell for cell in cells if is_finished(experiment, cell))
    return write_report(experiment, tuple(read_outcome(experiment, cell) for cell in finished), out, command)


def run_waiting(experiment: Experiment, schedule: Schedule, console: Console) -> None:
    """Make the runs of a schedule that no other process has begun.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the run under way has written a checkpoint.
    """
    say = plain_lines(console)
    spent = planned = 0.0
    first = len(schedule.cells) - len(schedule.waiting) + 1
    elsewhere = 0
    for number, cell in enumerate(schedule.waiting):
        # What runs took so far, over what was thought of them: another program may have the machine, too.
        factor = spent / planned if planned else 1.0
        left = factor * sum(schedule.seconds[number:]) / schedule.jobs
        with _claimed(cell) as ours:
            if not ours:
                elsewhere += 1
                continue
            if is_finished(experiment, cell):
                continue
            say(f"run {first + number} of {len(schedule.cells)}: {cell}; about {spoken(left)} left")
            began = time.perf_counter()
            run_cell(experiment, cell, console)
            spent += time.perf_counter() - began
            planned += schedule.seconds[number]
    if elsewhere:
        say(f"runs left to other processes, which had begun them: {elsewhere}; the last process reports them all")


def plain_lines(console: Console) -> Callable[[str], None]:
    """Return what prints a line as it is, however long."""
    return partial(console.print, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _claimed(cell: Cell) -> Iterator[bool]:
    """Yield whether this process may make a run; another one that makes it keeps it until it ends or dies."""
    folder = Path(cell.config.out)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder: a run that died before its first checkpoint is removed as a whole.
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def run_cell(experiment: Experiment, cell: Cell, console: Console) -> None:
    """Make a run, from its checkpoint where it has one."""
    folder = RunFolder(cell.config.out)
    if folder.config.is_file() and latest_checkpoint(folder.checkpoints) is not None:
        experiment.task.run(experiment.task.resume_config(folder.root), resume=True, console=console)
        return
    # Stopped before its first checkpoint: there is nothing to keep.
    shutil.rmtree(folder.root, ignore_errors=True)
    experiment.task.run(cell.config, console=console)


def is_finished(experiment: Experiment, cell: Cell) -> bool:
    """Return whether a run has results; whatever is there must be of this very run.

    Raises:
        TrainingError: it was made with other options.
    """
    folder = RunFolder(cell.config.out)
    if not folder.config.is_file():
        return False
    wanted, found = (_plain(config) for config in (cell.config, experiment.task.resume_config(folder.root)))
    for key, value in wanted.items():
        if found.get(key) != value:
            raise TrainingError(
                f"{folder.root}: this run was made with {key} {_short(found.get(key))}, now asked for is "
                f"{_short(value)}; name another --out"
            )
    return folder.results.is_file()


def _plain(config: Any) -> dict[str, Any]:
    resolved: dict[str, Any] = config.resolved().model_dump(mode="json", exclude={"out"})
    return resolved


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else text[:57] + "..."


def read_outcome(experiment: Experiment, cell: Cell) -> Outcome:
    """Return the outcome of a finished run."""
    folder, measure = RunFolder(cell.config.out), experiment.measure
    config = experiment.task.resume_config(folder.root)
    results = json.loads(folder.results.read_text(encoding="utf-8"))
    stored = json.loads(folder.config.read_text(encoding="utf-8"))
    return Outcome(
        setting=cell.setting,
        variant=cell.variant,
        seed=cell.seed,
        final=measure.final(results),
        curve=read_curve(read_metrics(folder.metrics), measure.value, lambda row: measure.macs(config, row)),
        parameters=results["parameters"],
        versions=tuple(stored["versions"].items()),
        data=tuple(stored["inputs"].items()),
        extra=measure.extra(results),
    )
