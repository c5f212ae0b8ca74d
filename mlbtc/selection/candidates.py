"""Candidates for a shape within a budget, what each costs, and those that no other beats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

from mlbtc.analysis import generic_rank, recognise
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan
from mlbtc.selection.options import Shape, macs_of, options, parameters_of
from mlbtc.spec.language import MLBTC

RANKS = 4
"""How many ranks of a structure are tried: the largest that the budget allows, a half, a quarter, an eighth."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A structure for a shape.

    Attributes:
        spec: the structure, named after its family.
        macs: per token.
        parameters: learnable numbers.
        rank: the generic rank, or a bound of it.
        reach: the part of the entries that the level with the most of them can make other than 0.
        error: the relative error to a given matrix, None without one.
        seconds: the time of a call, None where it was not measured.
    """

    spec: MLBTC
    macs: int
    parameters: int
    rank: int
    reach: float
    error: float | None = None
    seconds: float | None = None

    @property
    def text(self) -> str:
        """What the structure is, in words."""
        return str(recognise(self.spec) or self.spec.name)

    @property
    def objectives(self) -> tuple[float, ...]:
        """What should be small: MACs, time, and parameters and the error to a matrix.

        Without a matrix nobody knows what a structure misses: there what it can express should be large, which is its
        rank, its parameters and its reach.
        """
        time = () if self.seconds is None else (self.seconds,)
        if self.error is None:
            return self.macs, -self.rank, -self.parameters, -self.reach, *time
        return self.macs, self.parameters, self.error, *time

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "structure": self.text,
            "family": self.spec.name,
            "macs": self.macs,
            "parameters": self.parameters,
            "rank": self.rank,
            "reach": self.reach,
            "error": self.error,
            "seconds": self.seconds,
            "spec": self.spec.to_yaml(),
        }


def specs_within(shape: Shape, macs: float, families: Sequence[str] = (), ranks: int = RANKS) -> list[MLBTC]:
    """Return the structures of a shape that have at most so many MACs per token, none of them twice.

    Two that are written differently and are the same set of matrices by their canonical forms count as one, the first.

    Args:
        shape: `(out, in)`.
        macs: at most so many per token.
        families: names of families; none for all.
        ranks: how many ranks of each structure, halved each time.

    Raises:
        SpecError: there is no such family.
    """
    found: dict[object, MLBTC] = {}
    for family in families or (None,):
        for option in options(shape, family):
            for spec in _halved(option.make, option.largest_rank(macs), ranks):
                found.setdefault(spec.simplify().canonical().levels, spec)
    return list(found.values())


def _halved(make: Callable[[int], MLBTC], rank: int, count: int) -> Iterator[MLBTC]:
    for _ in range(count):
        if rank < 1:
            return
        yield make(rank)
        rank //= 2


def measured(spec: MLBTC, error: float | None = None, seconds: float | None = None) -> Candidate:
    """Return a structure with its costs."""
    contraction = check(build_graph(spec))
    rank = generic_rank(spec, contraction, build_plan(contraction)).size
    return Candidate(spec, macs_of(spec), parameters_of(spec), int(rank), _reach(spec), error, seconds)


def _reach(spec: MLBTC) -> float:
    entries = [
        prod(int(level.size_of[name]) for name in {*level.expression.output, *level.expression.input})
        for level in spec.levels
    ]
    return max(entries) / (int(spec.shape[0]) * int(spec.shape[1]))


def front(items: Sequence[T], objectives: Callable[[T], tuple[float, ...]]) -> list[T]:
    """Return the items that no other one equals or beats in every objective, the cheapest first.

    Of items with equal objectives the first stays.
    """
    kept: list[T] = []
    values = [objectives(item) for item in items]
    for place, (item, mine) in enumerate(zip(items, values, strict=True)):
        beaten = any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and (other != mine or number < place)
            for number, other in enumerate(values)
            if number != place
        )
        if not beaten:
            kept.append(item)
    return sorted(kept, key=objectives)
