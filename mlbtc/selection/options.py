"""The members of a family for a shape: the structures it comes in, and for each the ranks it can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import gcd, isqrt
from typing import Any

from mlbtc.errors import SpecError, nearest
from mlbtc.graph import build_graph, check
from mlbtc.plan import build_plan
from mlbtc.spec import families
from mlbtc.spec.language import MLBTC
from mlbtc.spec.sizes import product, total

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Option:
    """A structure of a family for a shape.

    Attributes:
        family: the name of the family.
        make: rank to spec; a family without a rank has rank 1.
        most: the largest rank that makes sense.
    """

    family: str
    make: Callable[[int], MLBTC]
    most: int

    def largest(self, macs: float) -> MLBTC | None:
        """Return the member of the largest rank that has at most so many MACs per token, or None."""
        rank = self.largest_rank(macs)
        return self.make(rank) if rank else None

    def largest_rank(self, macs: float) -> int:
        """Return that rank, 0 where even a rank of 1 has more."""
        below, above = 0, self.most + 1
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (middle, above) if macs_of(self.make(middle)) <= macs else (below, middle)
        return below


@lru_cache(maxsize=4096)
def macs_of(spec: MLBTC) -> int:
    """Return the multiply-adds per token of a spec without open symbols."""
    return int(build_plan(check(build_graph(spec)), 1).macs)


def parameters_of(spec: MLBTC) -> int:
    """Return the learnable numbers of a spec without open symbols."""
    return int(total([product(spec.levels[level].factor_shape(factor)) for level, factor in spec.tensors]))


def options(shape: Shape, family: str | None = None) -> Iterator[Option]:
    """Yield the structures for a shape, of one family or of all.

    Raises:
        SpecError: there is no such family to choose from.
    """
    if family is not None and family not in _OPTIONS:
        raise SpecError(f"family {family!r} is none to choose members of; {nearest(family, list(_OPTIONS))}")
    for name, of_shape in _OPTIONS.items():
        if family in (None, name):
            yield from of_shape(shape)


def largest_member(shape: Shape, family: str, macs: float) -> MLBTC:
    """Return the member of a family that comes nearest to so many MACs per token from below.

    Raises:
        SpecError: there is no such family, it has no member of the shape, or none that is cheap enough.
    """
    found = list(options(shape, family))
    if not found:
        raise SpecError(f"{family} has no member of {shape[0]} x {shape[1]}")
    members = [member for option in found if (member := option.largest(macs)) is not None]
    if not members:
        least = min(macs_of(option.make(1)) for option in found)
        raise SpecError(
            f"no {family} of {shape[0]} x {shape[1]} has at most {int(macs):,} MACs per token: the cheapest has "
            f"{least:,}"
        )
    return max(members, key=lambda spec: (macs_of(spec), parameters_of(spec)))


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, smallest first."""
    low = [d for d in range(1, isqrt(number) + 1) if number % d == 0]
    return low + [number // d for d in reversed(low) if d * d != number]


def _fixed(make: Callable[..., MLBTC], *arguments: Any) -> Callable[[int], MLBTC]:
    """Return a structure that has no rank."""
    return lambda rank: make(*arguments)


def _low_rank(shape: Shape) -> Iterator[Option]:
    yield Option("low_rank", partial(families.low_rank, shape), min(shape))


def _block_diagonal(shape: Shape) -> Iterator[Option]:
    for blocks in divisors(gcd(*shape))[1:]:
        yield Option("block_diagonal", _fixed(families.block_diagonal, shape, blocks), 1)


def _block_low_rank(shape: Shape) -> Iterator[Option]:
    for blocks in divisors(gcd(*shape))[1:]:
        yield Option("block_low_rank", partial(families.block_low_rank, shape, blocks), min(shape) // blocks)


def _equal_ranks(shape: Shape, levels: int, rank: int) -> MLBTC:
    return families.mlr(shape, [rank] * levels)


def _mlr(shape: Shape) -> Iterator[Option]:
    for levels in (2, 3, 4):
        finest = 2 ** (levels - 1)
        if gcd(*shape) % finest == 0 and finest < min(shape):
            yield Option("mlr", partial(_equal_ranks, shape, levels), min(shape) // finest)


def _monarch(shape: Shape) -> Iterator[Option]:
    for blocks in divisors(gcd(*shape))[1:]:
        yield Option("monarch", _fixed(families.monarch, shape, blocks), 1)


def _btt(shape: Shape) -> Iterator[Option]:
    a, b, c, d = (*_near_square(shape[0]), *_near_square(shape[1]))
    yield Option("btt", partial(families.btt, shape, factors=(a, b, c, d)), min(a, d))


def _kronecker(shape: Shape) -> Iterator[Option]:
    for (a, b), (c, d) in _splits(shape):
        yield Option("kronecker", _fixed(families.kronecker, (a, c), (b, d)), 1)


def _two_cores(rows: Shape, columns: Shape, rank: int) -> MLBTC:
    return families.tensor_train(rows, columns, [rank])


def _tensor_train(shape: Shape) -> Iterator[Option]:
    for rows, columns in _splits(shape):
        most = min(rows[0] * columns[0], rows[1] * columns[1])
        yield Option("tensor_train", partial(_two_cores, rows, columns), most)


def _butterfly(shape: Shape) -> Iterator[Option]:
    if shape[0] == shape[1] and shape[0] > 1 and shape[0] & (shape[0] - 1) == 0:
        yield Option("butterfly", _fixed(families.butterfly, shape[0]), 1)


def _low_rank_plus_diagonal(shape: Shape) -> Iterator[Option]:
    if shape[0] == shape[1]:
        yield Option("low_rank_plus_diagonal", partial(families.low_rank_plus_diagonal, shape), shape[0])


def _splits(shape: Shape) -> list[tuple[Shape, Shape]]:
    """Return the ways to write both sizes as products near to square, each way round."""
    sides = [sorted({_near_square(size), _near_square(size)[::-1]}) for size in shape]
    return [(rows, columns) for rows in sides[0] for columns in sides[1]]


def _near_square(size: int) -> Shape:
    small = max(d for d in divisors(size) if d * d <= size)
    return small, size // small


_OPTIONS: dict[str, Callable[[Shape], Iterator[Option]]] = {
    "low_rank": _low_rank,
    "low_rank_plus_diagonal": _low_rank_plus_diagonal,
    "block_diagonal": _block_diagonal,
    "block_low_rank": _block_low_rank,
    "mlr": _mlr,
    "monarch": _monarch,
    "btt": _btt,
    "kronecker": _kronecker,
    "tensor_train": _tensor_train,
    "butterfly": _butterfly,
}

CHOSEN_FROM: Sequence[str] = tuple(_OPTIONS)
"""The families with members to choose."""
