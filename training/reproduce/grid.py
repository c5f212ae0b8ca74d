"""An experiment as data: variants, settings and seeds, the runs that they make, and what is claimed of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from mlbtc.training.config import RunConfig
from mlbtc.training.report import Result
from mlbtc.training.reproduce.claims import Claim
from mlbtc.training.reproduce.outcome import Outcome
from mlbtc.training.runs import RunFolder

Options = tuple[tuple[str, Any], ...]


class Task(Protocol):
    """A module of `mlbtc.training.tasks`."""

    Config: Any

    def run(self, config: Any, *, resume: bool = False, console: Console | None = None) -> Result:
        """Train and evaluate."""

    def resume_config(self, folder: Path, **changes: Any) -> Any:
        """Return the config of an earlier run."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How the runs of a task are read.

    Attributes:
        quantity: what tables and claims are about, smaller is better.
        curve: what is measured during training.
        evaluates: the option that says how many steps lie between evaluations.
        value: of a row of metrics; None for a step without an evaluation.
        final: of the results.
        macs: multiply-adds of the step of a row.
        extra: other numbers of the results, for the table of runs.
    """

    quantity: str
    curve: str
    evaluates: str
    value: Callable[[dict[str, Any]], float | None]
    final: Callable[[dict[str, Any]], float]
    macs: Callable[[Any, dict[str, Any]], float]
    extra: Callable[[dict[str, Any]], dict[str, float]] = lambda results: {}


@dataclass(frozen=True, slots=True)
class Variant:
    """What is compared.

    Attributes:
        name: for folders and tables.
        about: what it is, in a few words.
        options: of the config of a run, given those of all runs and of the setting.
        like: the name of a variant whose runs take as long, so that timing one of them does; itself by default.
        seeds: how many at most, where that is less than those of the experiment; None for all.
    """

    name: str
    about: str
    options: Callable[[dict[str, Any]], dict[str, Any]]
    like: str = ""
    seeds: int | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """Under what variants are compared.

    Attributes:
        name: for folders and tables.
        options: of the config of a run.
        seeds: how many at most, where that is less than those of the experiment; None for all.
        variants: the names of those compared; () for all.
    """

    name: str
    options: Options
    seeds: int | None = None
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """A run of the grid.

    Attributes:
        setting: its name.
        variant: its name.
        seed: of the run.
        config: of the run; its `out` is the run folder.
        kind: runs of one setting and kind take as long.
    """

    setting: str
    variant: str
    seed: int
    config: RunConfig
    kind: str

    def __str__(self) -> str:
        return f"{self.setting}, {self.variant}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One of the paper's experiments at one scale.

    Attributes:
        name: of the task, as the command line knows it.
        scale: "small" or "paper".
        about: what it asks, in a sentence.
        task: the module that runs it.
        measure: how its runs are read.
        variants: that are compared.
        settings: under which.
        seeds: how many, from 0.
        options: of the config of every run.
        probe: options that replace them when a few steps are timed: those of a step late in the run.
        claims: about the outcomes.
        draw: draws the figure of the paper into axes; `(axes, experiment, outcomes)`.
    """

    name: str
    scale: str
    about: str
    task: Task
    measure: Measure
    variants: tuple[Variant, ...]
    settings: tuple[Setting, ...]
    seeds: int
    options: Options
    probe: Options
    claims: tuple[Claim, ...]
    draw: Callable[[Any, Experiment, tuple[Outcome, ...]], None]

    @property
    def planned(self) -> dict[str, Any]:
        """The options of every run."""
        return dict(self.options)

    def cells(self, out: Path) -> tuple[Cell, ...]:
        """Return the runs, those of one seed together, so that what is there early has a bit of everything."""
        return tuple(self._cells(out))

    def cells_to_report(self, out: Path) -> tuple[Cell, ...]:
        """Return the runs, and those of further seeds that a folder has results of."""
        return (*self.cells(out), *self._further(out))

    def _cells(self, out: Path) -> Iterator[Cell]:
        # A setting that is there for the trend waits for those that claims are about.
        whole = [setting for setting in self.settings if setting.seeds is None]
        for settings in (whole, [setting for setting in self.settings if setting.seeds is not None]):
            for seed in range(self.seeds):
                for setting, variant in self._compared(settings):
                    if seed < self._count(setting, variant):
                        yield self._cell(out, setting, variant, seed)

    def _further(self, out: Path) -> Iterator[Cell]:
        for setting, variant in self._compared(self.settings):
            for seed in itertools.count(self._count(setting, variant)):
                cell = self._cell(out, setting, variant, seed)
                if not RunFolder(cell.config.out).results.is_file():
                    break
                yield cell

    def _compared(self, settings: Iterable[Setting]) -> Iterator[tuple[Setting, Variant]]:
        for setting in settings:
            for variant in self.variants:
                if not setting.variants or variant.name in setting.variants:
                    yield setting, variant

    def _count(self, setting: Setting, variant: Variant) -> int:
        return min(seeds for seeds in (self.seeds, setting.seeds, variant.seeds) if seeds is not None)

    def _cell(self, out: Path, setting: Setting, variant: Variant, seed: int) -> Cell:
        folder = out / "runs" / setting.name / variant.name / f"seed-{seed}"
        given = self.planned | dict(setting.options)
        options = given | variant.options(given) | {"seed": seed, "out": folder}
        config = self.task.Config.make(**options)
        return Cell(setting.name, variant.name, seed, config, variant.like or variant.name)


def evaluation_interval(steps: int, most: int) -> int:
    """Return how many steps to leave between at most `most` evaluations, so that the last is at the end of a run.

    Where no divisor of the steps comes near, the last evaluation lies a little before the end.
    """
    least = -(-steps // most)
    return next((every for every in range(least, 3 * least) if steps % every == 0), least)
