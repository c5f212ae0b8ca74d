"""Permutations that are an order of digits, and how they become an order of indices in an expression.

A place on an axis of sizes (d_1, ..., d_k) has digits, slowest first. Strides, bit reversals and many lists only put
these digits into another order, and that is what `(a b)` against `(b a)` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlbtc.spec.indices import refine
from mlbtc.spec.level import Level
from mlbtc.spec.permutation import Permutation, positions, stride_of
from mlbtc.spec.rebuild import rebuild
from mlbtc.spec.sizes import Size, divide, product

SIDES = (("rows", "output"), ("columns", "input"))


@dataclass(frozen=True, slots=True)
class DigitOrder:
    """A permutation of an axis as an order of its digits.

    Attributes:
        sizes: the sizes of the digits, slowest first.
        order: the new order, slowest first, as positions in `sizes`.
    """

    sizes: tuple[Size, ...]
    order: tuple[int, ...]


def digit_order(permutation: Permutation, size: Size) -> DigitOrder | None:
    """Return a permutation of an axis as an order of digits, or None where it is none."""
    if permutation is None:
        return DigitOrder((size,), (0,))
    if isinstance(permutation, tuple):
        return _of_list(permutation)
    stride = stride_of(permutation)
    if stride is not None:
        inner, _ = divide(size, stride)
        return None if inner is None else DigitOrder((stride, inner), (1, 0))
    if not isinstance(size, int):
        return None
    digits = size.bit_length() - 1
    return DigitOrder((2,) * digits, tuple(reversed(range(digits))))


def _of_list(places: Sequence[int]) -> DigitOrder | None:
    """Peel digits off, fastest first: the places 0, s, 2s, ... of the first m entries are a digit of size m."""
    if places[0] != 0:
        return None
    total, sizes, strides = len(places), list[int](), list[int]()
    rest = list(places)
    while len(rest) > 1:
        step = rest[1]
        run = next((i for i, place in enumerate(rest) if place != i * step), len(rest))
        if len(rest) % run:
            return None
        sizes.insert(0, run)
        strides.insert(0, step)
        rest = rest[::run]
    order = tuple(sorted(range(len(sizes)), key=lambda digit: -strides[digit]))
    found = DigitOrder(tuple(sizes), order)
    return found if moved(found, total) == tuple(places) else None


def moved(digits: DigitOrder, total: int) -> tuple[int, ...]:
    """Return the list of places of an order of digits whose sizes are numbers."""
    places = [0] * total
    for digit, stride in zip(reversed(digits.order), _strides(digits), strict=True):
        before = 1
        for size in digits.sizes[digit + 1 :]:
            before *= int(size)
        size = int(digits.sizes[digit])
        places = [place + entry // before % size * stride for entry, place in enumerate(places)]
    return tuple(places)


def _strides(digits: DigitOrder) -> list[int]:
    """Return the strides after the move, fastest digit first."""
    strides = [1]
    for digit in reversed(digits.order[1:]):
        strides.append(strides[-1] * int(digits.sizes[digit]))
    return strides[: len(digits.order)]


def write_permutations(level: Level) -> Level:
    """Write the permutations of a level as orders of indices where they are orders of digits.

    Row i of the product becomes row rows[i]. Where the digits of rows[i] are those of i in another order, the same
    matrix is the product with the indices of the output axis in that order, after indices were split at the digits.
    A permutation stays where the axis cannot be split at its digits, or a factor would have more indices than the
    grammar allows.
    """
    for side, axis in SIDES:
        permutation = getattr(level, side)
        if permutation is None:
            continue
        size = product([level.size_of[name] for name in getattr(level.expression, axis)])
        digits = digit_order(permutation, size)
        cut = digits and refine(level, axis, digits.sizes)
        if not digits or not cut:
            continue
        level, groups = cut
        axes = {"output": level.expression.output, "input": level.expression.input}
        axes[axis] = tuple(name for digit in digits.order for name in groups[digit])
        expression = type(level.expression)(level.expression.factors, **axes)
        level = rebuild(level, expression=expression, **{side: None})
    return level


def free_permutations(level: Level) -> Level:
    """Drop permutations that only rename the entries of factors, and gather those of a single index on the rows.

    Where an axis is one index that the other axis lacks, permuting the axis permutes the values of that index on its
    factors, which are free. Where both axes are one and the same index, P_rows diag(d) P_columns^T equals
    P diag(d') for P = P_rows P_columns^T and a permuted d'.
    """
    output, input_ = level.expression.output, level.expression.input
    for (side, _), own, other in zip(SIDES, (output, input_), (input_, output), strict=True):
        if len(own) == 1 and own != other and own[0] not in other:
            level = rebuild(level, **{side: None})
    if len(output) == 1 and output == input_ and level.columns is not None:
        size = level.size_of[output[0]]
        if level.rows == level.columns:
            return rebuild(level, rows=None, columns=None)
        if isinstance(size, int):
            return rebuild(level, rows=_across(level.rows, level.columns, size), columns=None)
    return level


def _across(rows: Permutation, columns: Permutation, size: int) -> Permutation:
    """Return where column c of the level has its entry: rows[i] for c = columns[i]."""
    to, at = positions(rows, size) or range(size), positions(columns, size) or range(size)
    found = dict(zip(at, to, strict=True))
    return tuple(found[column] for column in range(size))
