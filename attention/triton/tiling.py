"""The tiling planner: which features a tile of tokens multiplies with which others, decided before source is written.

A kernel owns one tile of `rows` positions and loops over the other side in tiles of `columns` positions. A level whose
block is a multiple of `rows` is coarse: all pairs of two tiles share its block or none does. The others are fine: near
the diagonal they are masked pair by pair, and nowhere else does a pair share their blocks. Blocks nest, so the tokens
before a tile fall into ranges of growing depth, and the features of a depth are a prefix of the feature axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from mlbtc.errors import BackendError, SpecError

GRANULE = 16
"""The least width of a matrix product in Triton; widths are multiples of it."""
MOST_VALUES = 256
"""The widest value, whose tile of sums must stay in registers."""


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """What a set of kernels computes; any batch, heads and numbers of tokens.

    Attributes:
        ranks: r_1, ..., r_L.
        block_sizes: b_1, ..., b_L in tokens, each a multiple of the next; None is the whole sequence.
        scales: the factor of each level's scores.
        value_dim: features of a value.
        causal: whether a query sees keys up to its own position only.
        ragged: whether tiles may be cut: by the end of the sequence, or because there are fewer queries than keys.
        lengths: whether each sequence has its own length; then tiles may be cut.
    """

    ranks: tuple[int, ...]
    block_sizes: tuple[int | None, ...]
    scales: tuple[float, ...]
    value_dim: int
    causal: bool = True
    ragged: bool = True
    lengths: bool = False

    def __post_init__(self) -> None:
        if self.lengths and not self.ragged:
            raise SpecError("lengths cut tiles: a problem with lengths is ragged, too")
        counts = len(self.ranks), len(self.block_sizes), len(self.scales)
        if not self.ranks or len(set(counts)) > 1:
            raise SpecError("each level needs a rank, a block size and a scale, found {}, {} and {}".format(*counts))
        if min(self.ranks) < 1 or self.value_dim < 1:
            raise SpecError(f"ranks and value_dim are at least 1, found {self.ranks} and {self.value_dim}")
        if not all(math.isfinite(scale) for scale in self.scales):
            raise SpecError(f"scales are finite numbers, found {self.scales}")
        for before, block in pairwise((None, *self.block_sizes)):
            nested = before is None if block is None else block >= 1 and (before is None or before % block == 0)
            if not nested:
                raise SpecError(f"each block size divides the one before, found {self.block_sizes}")
        if self.value_dim > MOST_VALUES:
            raise BackendError(f"Triton kernels take values of up to {MOST_VALUES} features, found {self.value_dim}")

    def cut(self, ragged: bool, lengths: bool) -> AttentionProblem:
        """Return the problem for tensors whose tiles may be cut, or are not."""
        return replace(self, ragged=ragged, lengths=lengths)

    @property
    def features(self) -> int:
        """The sum of ranks."""
        return sum(self.ranks)

    @property
    def offsets(self) -> tuple[int, ...]:
        """For each depth from 0 on, how many features are active."""
        return tuple(sum(self.ranks[:depth]) for depth in range(len(self.ranks) + 1))

    @property
    def base_scale(self) -> float:
        """The largest factor by magnitude; scores are multiplied by it, queries by the ratio where factors differ."""
        return max(map(abs, self.scales)) or 1.0

    @property
    def ratios(self) -> tuple[float, ...]:
        """For each level its factor over `base_scale`."""
        return tuple(scale / self.base_scale for scale in self.scales)


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tile sizes of a kernel and how it is launched.

    Attributes:
        rows: positions of the tile that a program owns.
        columns: positions of the tiles that it loops over; divides rows.
        warps: of a program.
        stages: how many iterations ahead loads are issued.
    """

    rows: int = 64
    columns: int = 64
    warps: int = 4
    stages: int = 2

    def __post_init__(self) -> None:
        for name, size, least in (
            ("rows", self.rows, GRANULE),
            ("columns", self.columns, GRANULE),
            ("warps", self.warps, 1),
        ):
            if size < least or size & (size - 1):
                raise SpecError(f"{name} is a power of two of at least {least}, found {size}")
        if self.columns > self.rows:
            raise SpecError(f"columns divides rows, found {self.columns} and {self.rows}")
        if self.stages < 1:
            raise SpecError(f"stages is at least 1, found {self.stages}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Neighbouring features that one matrix product takes.

    Attributes:
        index: which one.
        start, width: its columns; width is a power of two of at least `GRANULE`.
        overruns: whether columns lie behind the last feature.
        segments: pairs of a coarse level and where its columns end, for the levels inside the chunk.
    """

    index: int
    start: int
    width: int
    overruns: bool
    segments: tuple[tuple[int, int], ...]

    @property
    def stop(self) -> int:
        """Where its columns end."""
        return self.start + self.width


@dataclass(frozen=True, slots=True)
class Use:
    """A chunk in a loop; predicated: columns are loaded only where their level's block holds both tiles."""

    chunk: Chunk
    predicated: bool


@dataclass(frozen=True, slots=True)
class Loop:
    """Tiles away from the diagonal, whose pairs have the same padded width.

    Attributes:
        depths: of its pairs.
        width: columns that are multiplied, padding included.
        uses: the chunks.
        before: first and last position of the range before the tile, as names of the emitted source.
        after: the same behind the tile.
    """

    depths: tuple[int, ...]
    width: int
    uses: tuple[Use, ...]
    before: tuple[str, str]
    after: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Piece:
    """The columns from start to stop of a chunk; whole: they are all it has."""

    chunk: Chunk
    start: int
    stop: int

    @property
    def whole(self) -> bool:
        """Whether no column of the chunk has to be masked."""
        return self.start <= self.chunk.start and self.stop >= self.chunk.stop


@dataclass(frozen=True, slots=True)
class Term:
    """A summand of the scores near the diagonal: the coarse levels (block None), or one fine level."""

    block: int | None
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class TilingPlan:
    """What the templates of the kernels show.

    Attributes:
        problem, tiles: what was planned.
        coarse: how many leading levels are coarse.
        chunks: of the feature axis.
        loops: away from the diagonal, by growing depth.
        terms: of the scores near the diagonal.
        near_block: the block of the first fine level if it reaches beyond the tile, else None.
        value_width: columns of a value, padded to a power of two.
    """

    problem: AttentionProblem
    tiles: Tiles
    coarse: int
    chunks: tuple[Chunk, ...]
    loops: tuple[Loop, ...]
    terms: tuple[Term, ...]
    near_block: int | None
    value_width: int

    def ratios(self, chunk: Chunk) -> tuple[tuple[int, float], ...]:
        """Return what queries are multiplied by in a chunk: columns up to a number, and their ratio."""
        problem = self.problem
        found = [
            (min(stop, chunk.stop), ratio)
            for (start, stop), ratio in zip(pairwise(problem.offsets), problem.ratios, strict=True)
            if start < chunk.stop and stop > chunk.start
        ]
        return tuple([*group][-1] for _, group in groupby(found, key=lambda pair: pair[1]))

    @property
    def near_chunks(self) -> tuple[Chunk, ...]:
        """The chunks that are multiplied near the diagonal."""
        used = {piece.chunk for term in self.terms for piece in term.pieces}
        return tuple(chunk for chunk in self.chunks if chunk in used)

    @property
    def near_width(self) -> int:
        """Columns that are multiplied near the diagonal: a chunk counts once for each term that takes part of it."""
        return sum(piece.chunk.width for term in self.terms for piece in term.pieces)

    def __str__(self) -> str:
        problem, tiles = self.problem, self.tiles
        blocks = "|".join("all" if block is None else str(block) for block in problem.block_sizes)
        lines = [
            f"{'causal' if problem.causal else 'bidirectional'} attention, ranks {'|'.join(map(str, problem.ranks))}, "
            f"blocks {blocks}, values of {problem.value_dim} in {self.value_width} columns",
            f"tiles of {tiles.rows} x {tiles.columns} positions, {tiles.warps} warps, {tiles.stages} stages; features "
            f"in chunks of {' + '.join(str(chunk.width) for chunk in self.chunks)}",
        ]
        for loop in self.loops:
            depths = " and ".join(map(str, loop.depths))
            active = " and ".join(str(problem.offsets[depth]) for depth in loop.depths)
            lines.append(
                f"depth {depths}: {active} features in {loop.width} columns, {loop.before[0]} to {loop.before[1]}"
            )
        fine = len(self.terms) - (self.coarse > 0)
        lines.append(
            f"near the diagonal: {problem.features} features in {self.near_width} columns, {fine} masked levels"
        )
        return "\n".join(lines)


def plan_tiles(problem: AttentionProblem, tiles: Tiles) -> TilingPlan:
    """Return the tiling of a problem; equal input gives an equal plan."""
    coarse = _coarse_levels(problem, tiles)
    chunks = _chunks(problem, coarse)
    inner = problem.block_sizes[coarse] if coarse < len(problem.ranks) else None
    near_block = inner if inner is not None and tiles.rows % inner else None
    return TilingPlan(
        problem=problem,
        tiles=tiles,
        coarse=coarse,
        chunks=chunks,
        loops=_loops(problem, tiles, coarse, chunks),
        terms=_terms(problem, coarse, chunks),
        near_block=near_block,
        value_width=max(GRANULE, 1 << (problem.value_dim - 1).bit_length()),
    )


def _coarse_levels(problem: AttentionProblem, tiles: Tiles) -> int:
    count = 0
    for block in problem.block_sizes:
        if block is not None and block % tiles.rows:
            break
        count += 1
    return count


def _padded(features: int) -> int:
    return -(-features // GRANULE) * GRANULE


def _chunks(problem: AttentionProblem, coarse: int) -> tuple[Chunk, ...]:
    """Cut the padded feature axis where a depth's padded prefix ends, and the parts into powers of two."""
    ends = sorted({_padded(problem.offsets[depth]) for depth in (*range(1, coarse + 1), len(problem.ranks))})
    chunks: list[Chunk] = []
    for start, stop in pairwise((0, *ends)):
        while start < stop:
            width = 1 << ((stop - start).bit_length() - 1)
            segments = _segments(problem, coarse, start, start + width)
            chunks.append(Chunk(len(chunks), start, width, start + width > problem.features, segments))
            start += width
    return tuple(chunks)


def _segments(problem: AttentionProblem, coarse: int, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    bounds = [*pairwise(problem.offsets)][:coarse]
    return tuple((level, last) for level, (first, last) in enumerate(bounds) if first < stop and last > start)


def _loops(problem: AttentionProblem, tiles: Tiles, coarse: int, chunks: tuple[Chunk, ...]) -> tuple[Loop, ...]:
    depths = [depth for depth in range(coarse + 1) if not _always_empty(problem, tiles, coarse, depth)]
    grouped = groupby(depths, key=lambda depth: _padded(problem.offsets[depth]))
    return tuple(_loop(problem, coarse, chunks, width, tuple(group)) for width, group in grouped)


def _always_empty(problem: AttentionProblem, tiles: Tiles, coarse: int, depth: int) -> bool:
    """Return whether no pair of tiles has that depth; a loop that never runs crashes the assembler."""
    blocks = problem.block_sizes
    if depth == 0:
        return blocks[0] is None
    if depth < coarse:
        return blocks[depth] == blocks[depth - 1]
    # The innermost coarse block is the tile itself.
    return blocks[depth - 1] == tiles.rows


def _loop(
    problem: AttentionProblem, coarse: int, chunks: tuple[Chunk, ...], width: int, depths: tuple[int, ...]
) -> Loop:
    least = problem.offsets[depths[0]]
    uses = tuple(Use(chunk, min(chunk.stop, problem.features) > least) for chunk in chunks if chunk.start < width)
    outer, inner = depths[0] - 1, depths[-1]
    return Loop(
        depths=depths,
        width=width,
        uses=uses,
        before=(f"start{outer}" if outer >= 0 else "0", f"start{inner}" if inner < coarse else "near_start"),
        after=(f"stop{inner}" if inner < coarse else "near_stop", f"stop{outer}" if outer >= 0 else "length"),
    )


def _terms(problem: AttentionProblem, coarse: int, chunks: tuple[Chunk, ...]) -> tuple[Term, ...]:
    offsets = problem.offsets
    parts: list[tuple[int | None, int, int]] = [(None, 0, offsets[coarse])] if coarse else []
    parts += [
        (problem.block_sizes[level], offsets[level], offsets[level + 1]) for level in range(coarse, len(problem.ranks))
    ]
    return tuple(Term(block, _pieces(problem, chunks, start, stop)) for block, start, stop in parts)


def _pieces(problem: AttentionProblem, chunks: tuple[Chunk, ...], start: int, stop: int) -> tuple[Piece, ...]:
    """Return the parts of chunks in a range of features; columns behind the last feature are zeros for everyone."""
    end = chunks[-1].stop if stop == problem.features else stop
    held = [chunk for chunk in chunks if chunk.start < stop and chunk.stop > start]
    return tuple(Piece(chunk, max(start, chunk.start), min(end, chunk.stop)) for chunk in held)
