"""Nested low rank as two kernels: features of all levels from the input, then the output from all features.

With P the largest number of blocks, a level of p blocks sees P / p neighbouring finest blocks as one. The first kernel
reads the input once, finest block by finest block, and keeps one sum of features per level; the second one sums all
levels in registers and writes the output once. Between them stand sum p r features per token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, product

from mlbtc.codegen.triton.tiles import BYTES_PER_TRIP, LEAST, MOST, NUMBERS_PER_THREAD, SHARED_BYTES, power, powers
from mlbtc.codegen.triton.two_factor import positions_of
from mlbtc.spec.language import MLBTC


@dataclass(frozen=True, slots=True)
class NestedLevel:
    """One level.

    Attributes:
        blocks: p.
        rank: r of each block.
        scale: of the level.
        right: position of the factor `(p, in / p, r)` among the tensors of the matrix.
        left: position of the factor `(p, out / p, r)`.
    """

    blocks: int
    rank: int
    scale: float
    right: int
    left: int

    @property
    def features(self) -> int:
        """Numbers per token between the two factors."""
        return self.blocks * self.rank

    @property
    def padded(self) -> int:
        """The rank as the side of a tile."""
        return max(LEAST, power(self.rank))


@dataclass(frozen=True, slots=True)
class Nested:
    """Nested low rank, `y = sum over levels of scale * U_l (V_l^T x)`, U and V block diagonal.

    Attributes:
        levels: in the order of the spec.
        in_features: columns.
        out_features: rows.
    """

    levels: tuple[NestedLevel, ...]
    in_features: int
    out_features: int

    @property
    def finest(self) -> int:
        """The largest number of blocks."""
        return max(level.blocks for level in self.levels)

    @property
    def groups(self) -> int:
        """The smallest number of blocks: no level's features cross its borders."""
        return min(level.blocks for level in self.levels)

    @property
    def features(self) -> int:
        """Numbers per token between the two kernels."""
        return sum(level.features for level in self.levels)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where the features of each level start."""
        return tuple(accumulate((level.features for level in self.levels[:-1]), initial=0))

    @property
    def columns(self) -> int:
        """Columns of a finest block."""
        return self.in_features // self.finest

    @property
    def rows(self) -> int:
        """Rows of a finest block."""
        return self.out_features // self.finest

    @property
    def macs(self) -> int:
        """Multiply-adds per token."""
        return sum(level.rank for level in self.levels) * (self.in_features + self.out_features)

    def transposed(self) -> Nested:
        """Return the same for the transposed matrix, whose product is the gradient of the input."""
        levels = tuple(replace(level, right=level.left, left=level.right) for level in self.levels)
        return Nested(levels, self.out_features, self.in_features)


def nested(spec: MLBTC) -> Nested | None:
    """Return what the kernels multiply by, or None where a spec is no nested low rank.

    Args:
        spec: without open symbols, every level of which has a kernel of its own.
    """
    if len(spec.levels) < 2 or not all("rank" in (level.shorthand or {}) for level in spec.levels):
        return None
    levels = []
    for number, level in enumerate(spec.levels):
        left, right = positions_of(spec, number)
        levels.append(NestedLevel(int(level.size_of["k"]), int(level.size_of["r"]), float(level.scale), right, left))
    found = Nested(tuple(levels), int(spec.shape[1]), int(spec.shape[0]))
    shared = all(found.finest % level.blocks == 0 == level.blocks % found.groups for level in levels)
    return found if shared else None


# Tiles ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SideTiles:
    """What a program of one side holds at a time.

    Attributes:
        t: tokens.
        n: columns of a finest block for features, rows of one for outputs.
        warps: per program.
        stages: of software pipelining.
    """

    t: int
    n: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return f"{self.t} x {self.n}, {self.warps} warps, {self.stages} stages"


@dataclass(frozen=True, slots=True)
class NestedPlan:
    """Tiles of both sides for an element size.

    Attributes:
        matrix: what is multiplied by.
        features: tiles of the first kernel.
        outputs: tiles of the second one.
        element_bytes: 2 or 4.
    """

    matrix: Nested
    features: SideTiles
    outputs: SideTiles
    element_bytes: int

    @property
    def output_programs(self) -> int:
        """Programs of the second kernel for a tile of tokens."""
        return self.matrix.finest * -(-self.matrix.rows // self.outputs.n)

    @property
    def macs(self) -> int:
        """Multiply-adds per token, what is padded included."""
        ranks = sum(level.padded for level in self.matrix.levels)
        columns = -(-self.matrix.columns // self.features.n) * self.features.n
        rows = -(-self.matrix.rows // self.outputs.n) * self.outputs.n
        return ranks * self.matrix.finest * (columns + rows)

    @property
    def dots(self) -> tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]:
        """`(M, N, K)` of the products of both kernels, a product per level."""
        first, second = self.features, self.outputs
        ranks = [level.padded for level in self.matrix.levels]
        return tuple((first.t, r, first.n) for r in ranks), tuple((second.t, second.n, r) for r in ranks)

    def __str__(self) -> str:
        return (
            f"all levels: features in tiles of {self.features}; outputs in tiles of {self.outputs} "
            f"({8 * self.element_bytes} bits): {self.macs:,} MACs per token with padding, of {self.matrix.macs:,}"
        )


def plan_nested(matrix: Nested, element_bytes: int) -> NestedPlan | None:
    """Return the tiles that should be fastest, by arithmetic, or None where the ranks do not fit."""
    features = [tiles for tiles in _candidates(matrix.columns, element_bytes) if _fits(matrix, tiles, element_bytes, 0)]
    outputs = [tiles for tiles in _candidates(matrix.rows, element_bytes) if _fits(matrix, tiles, element_bytes, 1)]
    if not features or not outputs:
        return None
    return NestedPlan(
        matrix,
        min(features, key=lambda tiles: _waste(matrix, tiles, matrix.columns, element_bytes)),
        min(outputs, key=lambda tiles: _waste(matrix, tiles, matrix.rows, element_bytes)),
        element_bytes,
    )


def _candidates(size: int, element_bytes: int) -> Iterator[SideTiles]:
    most = MOST[element_bytes]
    sizes = powers(LEAST, max(LEAST, min(most["d"], power(size))))
    for t, n in product(powers(LEAST, most["t"]), sizes):
        yield from (SideTiles(t, n, warps, stages) for warps in (4, 8) for stages in (2, 1))


def _fits(matrix: Nested, tiles: SideTiles, element_bytes: int, side: int) -> bool:
    """Return whether shared memory and registers hold a program on every target; `side`: 0 for features."""
    t, n = tiles.t, tiles.n
    ranks = [level.padded for level in matrix.levels]
    operands = tiles.stages * n * (t + sum(ranks)) if side == 0 else sum((t + n) * r for r in ranks)
    numbers = t * sum(ranks) if side == 0 else t * n
    held = max(element_bytes * operands, 4 * t * max(n, *ranks))
    return held <= SHARED_BYTES and numbers <= NUMBERS_PER_THREAD[element_bytes] * 32 * tiles.warps


def _waste(matrix: Nested, tiles: SideTiles, size: int, element_bytes: int) -> tuple[float, int, int]:
    """Return what tiles cost per token beside what every tile costs: padding, factors read again, turns of loops."""
    ranks = sum(level.padded for level in matrix.levels)
    turns = matrix.finest * -(-size // tiles.n)
    factors = element_bytes * matrix.finest * size * ranks / tiles.t
    features = element_bytes * turns * ranks
    padding = element_bytes * turns * tiles.n
    return factors + features + padding + BYTES_PER_TRIP * turns / tiles.t, tiles.warps, -tiles.stages
