"""Loop nests: how one step of a chain walks over its operands, with every size and stride a number.

An operand with tokens is stored as rows, one per feature, of as many tokens as fit into a few vectors. A step reads
rows of one operand (the source), numbers of a factor, and writes rows of another (the result).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Strides = Mapping[str, int]

_SHORTEST_RUN = 4


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop: its size and how far one iteration moves in each operand, 0 where the operand lacks the index.

    Attributes:
        name: the indices that the loop runs over, for comments.
        size: iterations.
        source: rows of the operand that is read.
        factor: elements of the factor.
        result: rows of the operand that is written.
    """

    name: str
    size: int
    source: int
    factor: int
    result: int

    @property
    def strides(self) -> tuple[int, int, int]:
        """The three strides."""
        return self.source, self.factor, self.result


ONE = Axis("1", 1, 0, 0, 0)
"""The loop that runs once."""


@dataclass(frozen=True, slots=True)
class Contraction:
    """`result[outer, row] = sum over sums of factor[...] * source[...]`.

    Attributes:
        outer: loops around a tile of rows.
        row: the loop that a register tile covers.
        sums: loops inside a tile, first outermost.
    """

    outer: tuple[Axis, ...]
    row: Axis
    sums: tuple[Axis, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds per token."""
        return math.prod(axis.size for axis in (*self.outer, self.row, *self.sums))


@dataclass(frozen=True, slots=True)
class FactorGradient:
    """`factor[outer, row, column] += sum over sums and tokens of source[...] * result[...]`.

    Attributes:
        outer: loops around a tile.
        row: a loop of the factor that the source lacks, or the loop that runs once.
        column: a loop of the factor that the result lacks, or the loop that runs once.
        sums: loops beside the tokens, first outermost.
    """

    outer: tuple[Axis, ...]
    row: Axis
    column: Axis
    sums: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class OuterProduct:
    """The same gradient where one operand has a run of neighbours in the factor: a vector of them times one number.

    Attributes:
        outer: loops around a tile.
        down: the loop over rows of a tile, of the operand that gives single numbers.
        across: loops that together run over neighbours in the factor, first outermost.
        of_source: whether `across` belongs to the source, not to the result.
        sums: loops beside the tokens, first outermost.
    """

    outer: tuple[Axis, ...]
    down: Axis
    across: tuple[Axis, ...]
    of_source: bool
    sums: tuple[Axis, ...]

    @property
    def width(self) -> int:
        """Numbers in the run."""
        return math.prod(axis.size for axis in self.across)


def axes(sizes: Mapping[str, int], source: Strides, factor: Strides, result: Strides) -> tuple[Axis, ...]:
    """Return one axis per index that any operand has; indices of size 1 need no loop."""
    names = dict.fromkeys((*source, *factor, *result))
    return tuple(Axis(i, sizes[i], source.get(i, 0), factor.get(i, 0), result.get(i, 0)) for i in names if sizes[i] > 1)


def contraction(loops: Iterable[Axis]) -> Contraction:
    """Arrange the loops of a step for register tiles: the widest axis that shares its source rows becomes the row."""
    loops = tuple(loops)
    outer = merge([a for a in loops if a.result], lambda a: a.result)
    sums = merge([a for a in loops if not a.result], lambda a: a.factor)
    row = _widest([a for a in outer if not a.source]) or _widest([a for a in outer if not a.factor]) or ONE
    return Contraction(tuple(a for a in outer if a is not row), row, sums)


def input_gradient(loops: Iterable[Axis]) -> Contraction:
    """Arrange the same loops with source and result exchanged."""
    return contraction(Axis(a.name, a.size, a.result, a.factor, a.source) for a in loops)


def factor_gradient(loops: Iterable[Axis]) -> FactorGradient:
    """Arrange the same loops with the factor as what is written."""
    loops = tuple(loops)
    outer = merge([a for a in loops if a.factor], lambda a: a.factor)
    row = _widest([a for a in outer if not a.source]) or ONE
    # The column is the one that is stored in a run, where there is a choice.
    column = _widest([a for a in outer if not a.result and a is not row]) or ONE
    sums = merge([a for a in loops if not a.factor], lambda a: a.source)
    return FactorGradient(tuple(a for a in outer if a is not row and a is not column), row, column, sums)


def outer_product(loops: Iterable[Axis]) -> OuterProduct | None:
    """Arrange the loops of a factor's gradient around the longest run of neighbours that one operand has; None without.

    A run of fewer than four is none.
    """
    loops = tuple(loops)
    of_source, of_result = ([a for a in loops if a.factor and not other(a)] for other in (_result, _source))
    runs = (_run(of_source), _run(of_result))
    longest = max(runs, key=lambda run: math.prod(a.size for a in run))
    if math.prod(a.size for a in longest) < _SHORTEST_RUN:
        return None
    from_source = longest is runs[0]
    # An index that only the factor has is on both sides.
    others = [a for a in (of_result if from_source else of_source) if a not in longest]
    down = _widest(merge(others, _factor)) or ONE
    inside = {i for a in (*longest, down) for i in a.name.split()}
    outer = merge([a for a in loops if a.factor and a.name not in inside], _factor)
    sums = merge([a for a in loops if not a.factor], _source)
    return OuterProduct(outer, down, tuple(reversed(longest)), from_source, sums)


def _run(loops: Sequence[Axis]) -> list[Axis]:
    """Return the axes that lie side by side in the factor, from stride 1 outwards."""
    run: list[Axis] = []
    for axis in sorted(loops, key=_factor):
        if axis.factor != math.prod(a.size for a in run):
            break
        run.append(axis)
    return run


def _source(axis: Axis) -> int:
    return axis.source


def _factor(axis: Axis) -> int:
    return axis.factor


def _result(axis: Axis) -> int:
    return axis.result


def merge(loops: Sequence[Axis], by: Callable[[Axis], int]) -> tuple[Axis, ...]:
    """Sort loops by a stride, largest first, and join neighbours that one loop can run over."""
    joined: list[Axis] = []
    for axis in sorted(loops, key=by, reverse=True):
        before = joined[-1] if joined else None
        if before and before.strides == tuple(stride * axis.size for stride in axis.strides):
            joined[-1] = Axis(f"{before.name} {axis.name}", before.size * axis.size, *axis.strides)
        else:
            joined.append(axis)
    return tuple(joined)


def _widest(loops: Sequence[Axis]) -> Axis | None:
    return max(loops, key=lambda a: a.size, default=None)


def row_major(indices: Sequence[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the strides of a contiguous operand, without indices of size 1."""
    strides, step = {}, 1
    for name in reversed(indices):
        if sizes[name] > 1:
            strides[name] = step
        step *= sizes[name]
    return strides
