"""The place of a level: the rows and columns of the matrix that its product fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sympy as sp

from mlbtc.errors import SpecError
from mlbtc.spec.sizes import AtLeast, Size, as_size, same, substitute

Range: TypeAlias = tuple[Size, Size]
"""`(start, stop)`, half open; start may be 0."""

SIDES = ("rows", "columns")


@dataclass(frozen=True, slots=True)
class Place:
    """A rectangle of a matrix; None for a side is all of it.

    Attributes:
        rows: `(start, stop)` of the rows, half open.
        columns: `(start, stop)` of the columns.
    """

    rows: Range | None = None
    columns: Range | None = None

    @property
    def sides(self) -> tuple[Range | None, Range | None]:
        """Rows, then columns."""
        return self.rows, self.columns

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Every bound."""
        return tuple(bound for side in self.sides if side is not None for bound in side)

    @property
    def T(self) -> Place:
        """The place in the transposed matrix."""
        return Place(self.columns, self.rows)

    def substitute(self, values: Mapping[str, Size]) -> Place:
        """Return the place with symbols replaced."""
        rows, columns = (
            side and (_substituted(side[0], values, name, "start", 0), _substituted(side[1], values, name, "stop", 1))
            for name, side in zip(SIDES, self.sides, strict=True)
        )
        return Place(rows, columns)

    def __str__(self) -> str:
        named = zip(SIDES, self.sides, strict=True)
        return " ".join(f"{name} {side[0]}:{side[1]}" for name, side in named if side is not None)


def _substituted(bound: Size, values: Mapping[str, Size], side: str, which: str, least: int) -> Size:
    return substitute(bound, values, f"the {which} of the {side} of at", least)


def as_place(value: object) -> Place | None:
    """Check the form of a place; that it fits the matrix is checked by `fit`.

    Args:
        value: a pair `(rows, columns)`, each `(start, stop)` or None; a `Place`, or None.

    Raises:
        SpecError: a side is no pair, a bound is no size, or a range is empty.
    """
    if value is None:
        return None
    value = value.sides if isinstance(value, Place) else value
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise SpecError(f"at is a pair (rows, columns), each (start, stop) or None; found {value!r}")
    rows, columns = (_as_range(side, name) for side, name in zip(value, SIDES, strict=True))
    return None if rows is None and columns is None else Place(rows, columns)


def _as_range(value: Any, side: str) -> Range | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise SpecError(f"the {side} of at are a pair (start, stop), found {value!r}")
    start = as_size(value[0], f"the start of the {side} of at", 0)
    stop = as_size(value[1], f"the stop of the {side} of at")
    if at_most(stop, start):
        raise SpecError(f"the {side} of at are empty: start {start} must be below stop {stop}")
    return start, stop


def fit(place: Place | None, shape: tuple[Size, Size]) -> tuple[Place | None, list[AtLeast]]:
    """Check that a place lies inside a matrix.

    Returns:
        The place, without the sides that are whole, None where nothing is left; and what must hold for symbolic bounds.

    Raises:
        SpecError: it does not fit.
    """
    if place is None:
        return None, []
    sides: list[Range | None] = []
    conditions: list[AtLeast] = []
    for side, size, name in zip(place.sides, shape, SIDES, strict=True):
        if side is None or (side[0] == 0 and same(side[1], size)):
            sides.append(None)
            continue
        start, stop = side
        if below(size, stop):
            raise SpecError(f"the {name} {start}:{stop} of at go beyond the matrix, which has {size} {name}")
        if at_most(stop, start):
            raise SpecError(f"the {name} of at are empty: start {start} must be below stop {stop}")
        sides.append(side)
        # That a bound is an integer is a condition of its own, so above 0 is at least 1.
        needed = [] if below(start, stop) else [AtLeast(length(side), 1)]
        conditions += [c for c in (AtLeast(start, 0), *needed, AtLeast(size, stop)) if not c.certain]
    return as_place(sides), conditions


def ranges(place: Place | None, shape: tuple[Size, Size]) -> tuple[Range, Range]:
    """Return the rows and the columns of a place, also where they are all of a matrix of that shape."""
    sides = (None, None) if place is None else place.sides
    rows, columns = (side or (0, size) for side, size in zip(sides, shape, strict=True))
    return rows, columns


def part_shape(place: Place | None, shape: tuple[Size, Size]) -> tuple[Size, Size]:
    """Return how many rows and columns a place has."""
    rows, columns = ranges(place, shape)
    return length(rows), length(columns)


def length(side: Range) -> Size:
    """Return how many positions a range has."""
    return _difference(side[1], side[0])


def _difference(one: Size, other: Size) -> Size:
    found = one - other
    return int(found) if not isinstance(found, int) and found.is_Integer else found


def shifted(side: Range, by: Size) -> Range:
    """Return a range moved by a number of positions."""
    return side[0] + by, side[1] + by


def at_most(one: Size, other: Size) -> bool:
    """Return whether `one <= other` for certain, whatever the symbols are."""
    if isinstance(one, int) and isinstance(other, int):
        return one <= other
    return bool(sp.expand(sp.sympify(other) - one).is_nonnegative)


def below(one: Size, other: Size) -> bool:
    """Return whether `one < other` for certain."""
    if isinstance(one, int) and isinstance(other, int):
        return one < other
    return bool(sp.expand(sp.sympify(other) - one).is_positive)


def equal(one: Range, other: Range) -> bool:
    """Return whether two ranges are the same for certain."""
    return all(same(a, b) for a, b in zip(one, other, strict=True))


def disjoint(one: Range, other: Range) -> bool:
    """Return whether two ranges share no position for certain."""
    return at_most(one[1], other[0]) or at_most(other[1], one[0])
