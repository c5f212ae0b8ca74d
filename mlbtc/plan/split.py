"""The ways to cut one level of a score x_i^T M x_j into a query side and a key side, each with its exact cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlbtc.graph.build import INPUT, OUTPUT, ContractionGraph
from mlbtc.plan.step import index_key

EXHAUSTIVE_FACTORS = 10
"""Up to here every bipartition is tried, beyond it only those that cut a chain in two."""


@dataclass(frozen=True, slots=True)
class Split:
    """A bipartition of the factors of a level.

    Attributes:
        query: the factors that meet the query token, in the order in which they do.
        key: the factors that meet the key token.
        cut: the indices that both sides touch, which are the features that a pair of tokens multiplies.
        features: the product of their sizes.
        query_macs: multiply-adds per token and head on the query side.
        key_macs: multiply-adds per token and head on the key side.
    """

    query: tuple[int, ...]
    key: tuple[int, ...]
    cut: tuple[str, ...]
    features: int
    query_macs: int
    key_macs: int

    @property
    def macs(self) -> int:
        """Multiply-adds per token and head of both sides."""
        return self.query_macs + self.key_macs

    @property
    def side(self) -> str:
        """Where the factors are: "query", "key" or "both"."""
        return "both" if self.query and self.key else "query" if self.query else "key"

    def cost(self, tokens: int, block: int | None = None) -> int:
        """Return the multiply-adds of one head in blocks of b tokens, T by default: T b cut + T (query + key MACs)."""
        return tokens * (tokens if block is None else block) * self.features + tokens * self.macs

    def __str__(self) -> str:
        query, key = (", ".join(f"f{f}" for f in sorted(side)) or "x" for side in (self.query, self.key))
        return f"query {query} | key {key}"


def find_splits(contraction: ContractionGraph, level: int) -> tuple[Split, ...]:
    """Return the splits of a level with numbers for sizes, those with more factors on the key side first.

    On a side the token meets one factor after the other in the cheapest order. What it carries after a set S of factors
    depends on S alone: the indices of the axis and of S that something outside S still needs. These are also the cut of
    the split that has S on this side, so that one table per side holds the costs of all splits.
    """
    sizes = {index_key(name): int(size) for name, size in contraction.sizes(level).items()}
    bit = {name: 1 << position for position, name in enumerate(sizes)}
    factors = [_mask(contraction.indices_of(node), bit) for node in contraction.factors(level)]
    axes = [tuple(map(index_key, contraction.axis(level, which))) for which in (OUTPUT, INPUT)]
    near, far = (_mask(axis, bit) for axis in axes)
    query, key = (_Side(factors, *ends, list(sizes.values())) for ends in ((near, far), (far, near)))
    full = (1 << len(factors)) - 1
    sides = sorted(_candidates(len(factors)), key=lambda side: (side.bit_count(), side))
    query.fill(sides)
    key.fill([full ^ side for side in sides])
    found = []
    for side in sides:
        (query_macs, first), (key_macs, last) = query.best[side], key.best[full ^ side]
        names = [*axes[0], *axes[1], *sizes] if first or not last else [*axes[0]]
        names = [*axes[1]] if not last else names
        cut = tuple(dict.fromkeys(name for name in names if query.legs(side) & bit[name]))
        found.append(Split(first, last, cut, math.prod(sizes[n] for n in cut), query_macs, key_macs))
    return tuple(found)


def _mask(names: Sequence[str], bit: dict[str, int]) -> int:
    return sum(bit[name] for name in set(map(index_key, names)))


def _candidates(count: int) -> Iterator[int]:
    """Bipartitions as bit masks of the factors on the query side."""
    if count <= EXHAUSTIVE_FACTORS:
        yield from range(1 << count)
        return
    full = (1 << count) - 1
    heads = {(1 << first) - 1 for first in range(count + 1)}
    yield from heads | {full ^ side for side in heads}


class _Side:
    """The cheapest way of a token through every wanted set of factors; sets are bit masks."""

    def __init__(self, factors: list[int], near: int, far: int, sizes: list[int]) -> None:
        self.factors, self.near, self.far, self.sizes = factors, near, far, sizes
        self.best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}

    def legs(self, mask: int) -> int:
        """Return the indices that the token carries once it has met a set of factors."""
        inside = outside = 0
        for position, indices in enumerate(self.factors):
            if mask >> position & 1:
                inside |= indices
            else:
                outside |= indices
        return (self.near | inside) & (self.far | outside)

    def fill(self, wanted: list[int]) -> None:
        """Compute the wanted sets, smaller ones first; a set is reached from the wanted sets that lack one factor."""
        for mask in sorted(wanted, key=int.bit_count):
            if not mask:
                continue
            options = []
            for position in range(len(self.factors)):
                before = self.best.get(mask ^ (1 << position)) if mask >> position & 1 else None
                if before is not None:
                    options.append((before[0] + self._macs(mask, position), (*before[1], position)))
            self.best[mask] = min(options)

    def _macs(self, after: int, factor: int) -> int:
        # What the factor alone is summed over goes before the product, and a sum multiplies nothing.
        joint = self.legs(after) | (self.legs(after ^ (1 << factor)) & self.factors[factor])
        return math.prod(size for position, size in enumerate(self.sizes) if joint >> position & 1)
