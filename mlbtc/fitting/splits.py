"""Where a network of factors can be cut in two so that the best factors come from singular value decompositions.

Take a tensor T over the open indices of a group of factors, and cut the group into a left and a right part. Let K be
the open indices on both parts, S the summed indices that both parts share, A and B the open indices of one part only.
For every value of K the product is a matrix (A x B) of rank |S|, and every such matrix is one of T:

    T[K, A, B] = sum_S L[K, A, S] R[K, S, B]

So the best L and R are the truncated singular value decompositions of |K| matrices. That one sentence holds the closed
forms of low rank and block low rank (K is the block index), Monarch and block tensor trains (K are two block indices),
Kronecker products (S is empty, A and B pair an output with an input index: the rearrangement of Van Loan and Pitsianis)
and their sums, and tensor trains of two cores. A longer chain is cut again and again: L and R are the tensors of their
parts. That is TT-SVD for tensor trains and hierarchical identification for butterflies.

L and R are given up to an invertible matrix (S x S) for every value of K. A part can take up any such matrix if it has
one factor alone, if a factor of it holds all of its open indices, or if a factor holds K and S and no other factor of
it holds an index of S of more than one value. A cut whose two parts can is *exact*: a tensor that the factors can make
is found again. Where no exact cut exists there is no closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

Names = tuple[str, ...]
MAX_ALL_CUTS = 8
"""Up to so many factors every cut is tried, with more only those between neighbours."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A single factor."""

    factor: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A group of factors cut in two.

    Attributes:
        left: the left part.
        right: the right part.
        shared: K, the open indices on both parts.
        summed: S, the summed indices on both.
        only_left: A, the open indices of the left part alone.
        only_right: B, those of the right part alone.
    """

    left: Tree
    right: Tree
    shared: Names
    summed: Names
    only_left: Names
    only_right: Names

    @property
    def is_single(self) -> bool:
        """Whether both parts are single factors: then the factors found are the best ones, and not only near them."""
        return isinstance(self.left, Leaf) and isinstance(self.right, Leaf)


Tree = Leaf | Cut


def find_tree(factors: Sequence[Names], axes: Names, sizes: Mapping[str, int]) -> Tree | None:
    """Return exact cuts down to single factors, or None where there are none.

    Args:
        factors: the index names of each factor.
        axes: the indices of the matrix.
        sizes: index name to size.
    """
    search = _Search(factors, axes, sizes)
    return search.tree(tuple(range(len(factors))))


class _Search:
    """The cuts of one network; what was found for a group of factors is kept."""

    def __init__(self, factors: Sequence[Names], axes: Names, sizes: Mapping[str, int]) -> None:
        self.factors, self.axes, self.sizes = factors, axes, sizes
        self.found: dict[Names | tuple[int, ...], Tree | None] = {}

    def tree(self, group: tuple[int, ...]) -> Tree | None:
        if len(group) == 1:
            return Leaf(group[0])
        if group not in self.found:
            self.found[group] = next(self._trees(group), None)
        return self.found[group]

    def _trees(self, group: tuple[int, ...]) -> Iterator[Tree]:
        for left, right in cuts(group):
            cut = self._exact(group, left, right)
            if cut is None:
                continue
            first, second = self.tree(left), self.tree(right)
            if first is not None and second is not None:
                yield Cut(first, second, *cut)

    def _exact(self, group: tuple[int, ...], left: tuple[int, ...], right: tuple[int, ...]) -> tuple[Names, ...] | None:
        """Return K, S, A and B of a cut that is exact, else None."""
        opened = self.open(group)
        ours, theirs = self.open(left), self.open(right)
        both = [name for name in ours if name in theirs]
        shared = tuple(name for name in both if name in opened)
        summed = tuple(name for name in both if name not in opened)
        if not (self._takes_up(left, ours, shared, summed) and self._takes_up(right, theirs, shared, summed)):
            return None
        return shared, summed, _without(ours, both), _without(theirs, both)

    def open(self, group: tuple[int, ...]) -> Names:
        """Return the indices of a group that the matrix or a factor outside has too."""
        inside = dict.fromkeys(name for factor in group for name in self.factors[factor])
        outside = {name for factor, names in enumerate(self.factors) if factor not in group for name in names}
        return tuple(name for name in inside if name in self.axes or name in outside)

    def _takes_up(self, part: tuple[int, ...], opened: Names, shared: Names, summed: Names) -> bool:
        if len(part) == 1:
            return True
        wide = {name for name in summed if self.sizes[name] > 1}
        for factor in part:
            held = set(self.factors[factor])
            if held >= {*opened}:
                return True
            others = {name for other in part if other != factor for name in self.factors[other]}
            if held >= {*shared, *wide} and not wide & others:
                return True
        return False


def cuts(group: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield the ways to cut a group in two, the most even and then those between neighbours first."""
    half = len(group) // 2
    for size in range(half, 0, -1):
        for count in dict.fromkeys((size, len(group) - size)):
            yield group[:count], group[count:]
        if len(group) > MAX_ALL_CUTS:
            continue
        for left in combinations(group, size):
            right = tuple(factor for factor in group if factor not in left)
            if group not in (left + right, right + left):
                yield left, right


def extent(names: Sequence[str], sizes: Mapping[str, int]) -> int:
    """Return the number of values that some indices have together."""
    return prod(sizes[name] for name in names)


def _without(names: Names, removed: Sequence[str]) -> Names:
    return tuple(name for name in names if name not in removed)
