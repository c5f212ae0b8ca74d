"""What a finished run says: its curve against steps, compute and time, and the number that claims are about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """An evaluation during training.

    Attributes:
        step: after how many steps.
        macs: multiply-adds spent on training until then, without read-in and read-out.
        seconds: of training until then.
        value: what was measured; smaller is better.
    """

    step: int
    macs: float
    seconds: float
    value: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run.

    Attributes:
        setting: of the experiment, such as a horizon.
        variant: the name of the variant.
        seed: of all its random streams.
        final: the number that tables and claims are about; smaller is better.
        curve: evaluations, in order; the last one is at the end of the run.
        parameters: of the model.
        versions: of what ran it, and its threads: pairs of a name and a value.
        data: what it was trained on: pairs of a name and a value.
        extra: other final numbers, for the table of runs.
    """

    setting: str
    variant: str
    seed: int
    final: float
    curve: tuple[Point, ...]
    parameters: int
    versions: tuple[tuple[str, Any], ...]
    data: tuple[tuple[str, Any], ...] = ()
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def last(self) -> Point:
        """The end of the run."""
        return self.curve[-1]


SPENT = "spent_macs"
"""In the metrics of published runs: multiply-adds of all steps until this one."""


def read_curve(
    rows: Iterable[dict[str, Any]],
    value: Callable[[dict[str, Any]], float | None],
    macs: Callable[[dict[str, Any]], float],
) -> tuple[Point, ...]:
    """Return the evaluations of a metrics file.

    Args:
        rows: of all steps, in order; or those that were evaluated, each with the compute until then as `SPENT`.
        value: what an evaluation found, None for a step without one.
        macs: multiply-adds of the step of a row.
    """
    points, spent = [], 0.0
    for row in rows:
        spent = row[SPENT] if SPENT in row else spent + macs(row)
        found = value(row)
        if found is not None:
            points.append(Point(row["step"], spent, row["seconds"], found))
    return tuple(points)


def value_at(curve: Sequence[Point], macs: float) -> float:
    """Return the value after so much compute, on the line between the evaluations beside it; nan outside of them."""
    for before, after in pairwise(curve):
        if before.macs <= macs <= after.macs:
            share = (macs - before.macs) / (after.macs - before.macs)
            return before.value + share * (after.value - before.value)
    return math.nan


def first_at_most(curve: Sequence[Point], bound: float) -> Point | None:
    """Return the first evaluation that is at most a bound, None where there is none."""
    return next((point for point in curve if point.value <= bound), None)
