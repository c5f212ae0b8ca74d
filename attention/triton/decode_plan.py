"""What the decoding kernel multiplies, decided before source is written: one new token per sequence against a cache.

A tile is a panel of the cache, `PANEL_KEYS` tokens, or half of one. A level whose block is a multiple of a panel starts
where a tile starts, so that each tile of the sequence lies in one panel of the level, or has none of it; the others are
read lane by lane. What a token does not meet is not loaded: decoding is bound by memory, so products with zeros cost
little.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

from mlbtc.attention.kernels.native import PANEL_KEYS
from mlbtc.attention.triton.tiling import GRANULE, AttentionProblem
from mlbtc.codegen.emit_torch import render
from mlbtc.errors import SpecError

MOST_PIECE = 64
"""The widest product over features: what is held of the keys at a time."""

LOG2E = math.log2(math.e)

MOST_TILE_BYTES = 32 << 10
"""Of the values of a tile; they pass through shared memory, of which the smallest GPU has 64 KiB."""

MOST_STAGED_BYTES = 48 << 10
"""Of keys and values that are loaded ahead."""

MOST_SUMS = 64 * 128
"""Of weighted values that four warps hold in registers; more take eight."""

MOST_SPLITS = 128
"""Parts of a sequence that are joined by one program."""


@dataclass(frozen=True, slots=True)
class FeaturePiece:
    """Features of one level that one matrix product takes.

    Attributes:
        name: in the emitted source.
        start: the first feature within the level.
        offset: the first feature within the query.
        width: columns, a power of two of at least `GRANULE`.
        real: how many of them are features; the others are zeros.
    """

    name: str
    start: int
    offset: int
    width: int
    real: int


@dataclass(frozen=True, slots=True)
class DecodeLevel:
    """One level of the cache.

    Attributes:
        number: which one.
        rank: its features.
        block: its tokens; None is the whole sequence, or the window.
        scale: the factor of its scores, for exponentials to the base 2.
        pieces: of its features.
    """

    number: int
    rank: int
    block: int | None
    scale: float
    pieces: tuple[FeaturePiece, ...]

    @property
    def kept(self) -> str:
        """What the cache keeps of it."""
        return "all tokens" if self.block is None else f"the current {self.block} tokens"

    @property
    def aligned(self) -> bool:
        """Whether a tile of the sequence lies in one panel of the level, or outside of its block."""
        return self.block is None or self.block % PANEL_KEYS == 0


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What the template of the decoding kernels shows; any batch, number of key heads, lengths and space.

    Attributes:
        problem: ranks, blocks, scales and the width of values.
        groups: query heads that share a key head.
        window: tokens that a token sees, itself included; None sees all.
        levels: of the cache.
        rows: of a tile of queries, the groups padded.
        value_width: columns of a value, padded to a power of two.
        tile: tokens that are multiplied at a time.
        warps, stages: of the kernel that reads the cache.
    """

    problem: AttentionProblem
    groups: int
    window: int | None
    levels: tuple[DecodeLevel, ...]
    rows: int
    value_width: int
    tile: int
    warps: int
    stages: int

    @property
    def pieces(self) -> tuple[FeaturePiece, ...]:
        """The pieces of all levels."""
        return tuple(piece for level in self.levels for piece in level.pieces)

    @property
    def running_sizes(self) -> tuple[str, ...]:
        """The names of the arguments that are sizes."""
        return ("heads", "splits", "capacity", *(f"panels{level.number}" for level in self.levels))

    @property
    def summary(self) -> str:
        """The plan in lines of a file."""
        return textwrap.fill(str(self), 116)

    @property
    def join_width(self) -> int:
        """Columns of a value that one program joins."""
        return min(self.value_width, MOST_PIECE)

    @property
    def width(self) -> int:
        """Columns that are multiplied for a pair, padding included."""
        return sum(piece.width for piece in self.pieces)

    def __str__(self) -> str:
        problem = self.problem
        blocks = "|".join("all" if block is None else str(block) for block in problem.block_sizes)
        window = f", a window of {self.window}" if self.window else ""
        return (
            f"decoding, ranks {'|'.join(map(str, problem.ranks))}, blocks {blocks}{window}, values of "
            f"{problem.value_dim} in {self.value_width} columns, {self.groups} query heads per key head in {self.rows} "
            f"rows; {problem.features} features in products of {' + '.join(str(piece.width) for piece in self.pieces)}"
        )


def plan_decode(
    problem: AttentionProblem, groups: int = 1, window: int | None = None, element_bytes: int = 2
) -> DecodePlan:
    """Return what the decoding kernels of a problem do; equal input gives an equal plan.

    Args:
        problem: of the cache; `causal` is not looked at.
        groups: query heads that share a key head.
        window: w where a token sees the last w tokens only; there is one level then, of the whole sequence.
        element_bytes: of one number of the cache.

    Raises:
        SpecError: groups or window are no positive numbers, or a window has several levels or a block.
    """
    for name, value in (("groups", groups), ("window", 1 if window is None else window)):
        if value < 1:
            raise SpecError(f"{name} is at least 1, found {value}")
    if window is not None and problem.block_sizes != (None,):
        raise SpecError(f"a window has one level of the whole sequence, found blocks of {problem.block_sizes}")
    levels = tuple(_level(problem, number) for number in range(len(problem.ranks)))
    rows, value_width = _power_of_two(groups), _power_of_two(problem.value_dim)
    tile = PANEL_KEYS if PANEL_KEYS * value_width * element_bytes <= MOST_TILE_BYTES else PANEL_KEYS // 2
    columns = value_width + sum(piece.width for level in levels for piece in level.pieces)
    ahead = MOST_STAGED_BYTES // (tile * columns * element_bytes)
    return DecodePlan(
        problem=problem,
        groups=groups,
        window=window,
        levels=levels,
        rows=rows,
        value_width=value_width,
        tile=tile,
        warps=4 if rows * value_width <= MOST_SUMS else 8,
        stages=min(3, 1 + ahead),
    )


def _power_of_two(size: int) -> int:
    return max(GRANULE, 1 << (size - 1).bit_length())


def _level(problem: AttentionProblem, number: int) -> DecodeLevel:
    rank, offset = problem.ranks[number], problem.offsets[number]
    pieces: list[FeaturePiece] = []
    start = 0
    while start < rank:
        left = rank - start
        # The largest power of two that is left; what is smaller than a product can be is padded.
        width = min(MOST_PIECE, max(GRANULE, 1 << (left.bit_length() - 1)))
        pieces.append(FeaturePiece(f"{number}_{len(pieces)}", start, offset + start, width, min(width, left)))
        start += width
    return DecodeLevel(number, rank, problem.block_sizes[number], problem.scales[number] * LOG2E, tuple(pieces))


def decode_source(plan: DecodePlan) -> str:
    """Return the source of the kernels `mlr_decode_split` and `mlr_decode_join` for a plan."""
    return render("triton_decode.jinja", plan=plan, problem=plan.problem, panel=PANEL_KEYS, most_splits=MOST_SPLITS)
