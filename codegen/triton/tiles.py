"""Tiles of a two-factor kernel: how much of each role a program holds at a time, so that it fits on every target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from mlbtc.codegen.triton.two_factor import TwoFactor
from mlbtc.errors import BackendError

LEAST = 16
"""The narrowest side of a matrix product that all targets take."""

SHARED_BYTES = 64 * 1024
"""What a program may hold in shared memory: all that gfx942 has, and room for three programs on an H100."""

NUMBERS_PER_THREAD = {2: 96, 4: 48}
"""Sums that a thread may hold in its 255 registers, by bytes of an element; offsets and operands need the rest."""

MACS_PER_BYTE = {2: 90, 4: 12}
"""Multiply-adds in the time of one byte from the second-level cache, about, by bytes of an element, on an H100."""

BYTES_PER_TRIP = 4096
"""What one turn of a loop costs beside its work, in bytes that could have been moved meanwhile."""

MOST = {
    2: {"t": 128, "c": 32, "b": 32, "d": 64, "a": 128},
    4: {"t": 64, "c": 32, "b": 32, "d": 32, "a": 64},
}
"""The largest tiles by bytes of an element: exact products in float32 hold their operands in registers, too."""

_RUNS = ((4, 2), (4, 1), (8, 2), (8, 1))
"""Warps and stages."""

_WARP = 32


@dataclass(frozen=True, slots=True)
class Tiles:
    """What one program holds at a time: powers of two; what overruns a role is masked.

    Attributes:
        t: tokens.
        c: of the outer sum.
        b: of the output blocks.
        s: ranks, all of them.
        d: of the inner sum.
        a: rows of an output block.
        warps: per program.
        stages: of software pipelining.
    """

    t: int
    c: int
    b: int
    s: int
    d: int
    a: int
    warps: int
    stages: int = 2

    @property
    def dots(self) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
        """`(batch, M, N, K)` of the two products."""
        return (self.c, self.t, self.b * self.s, self.d), (self.b, self.t, self.a, self.c * self.s)

    @property
    def numbers(self) -> int:
        """Sums that a program holds: the middle and a tile of the output."""
        return self.t * self.b * (self.c * self.s + self.a)

    def __str__(self) -> str:
        roles = ", ".join(f"{letter} {getattr(self, letter)}" for letter in "tcbsda")
        return f"{roles}; {self.warps} warps, {self.stages} stages"


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Tiles for a level and an element size, and what they come to.

    Attributes:
        factor: the level.
        tiles: what a program holds.
        element_bytes: 2 or 4.
    """

    factor: TwoFactor
    tiles: Tiles
    element_bytes: int

    @property
    def whole(self) -> bool:
        """Whether a program holds the whole outer sum, so that one middle serves all rows of its output blocks."""
        return self.tiles.c >= self.factor.sizes["c"]

    @property
    def trips(self) -> dict[str, int]:
        """How many tiles cover each role."""
        return {letter: -(-self.factor.sizes[letter] // getattr(self.tiles, letter)) for letter in "cbda"}

    @property
    def programs(self) -> int:
        """Programs per tile of tokens."""
        return self.factor.sizes["k"] * self.trips["b"] * self.repeats

    @property
    def repeats(self) -> int:
        """How often the middle is computed: once, or for each tile of rows where the outer sum has more than one."""
        return 1 if self.whole else self.trips["a"]

    @property
    def macs(self) -> int:
        """Multiply-adds per token, what is padded and repeated included."""
        n, tiles = self.trips, self.tiles
        pieces = self.factor.sizes["k"] * n["b"] * n["c"] * tiles.b * tiles.c * tiles.s
        return pieces * (self.repeats * n["d"] * tiles.d + n["a"] * tiles.a)

    @property
    def bytes_per_token(self) -> float:
        """Bytes that programs read and write per token, most of them from a cache."""
        n, tiles, size = self.trips, self.tiles, self.factor.sizes
        visits = n["b"] * self.repeats
        rows = size["k"] * (visits * size["c"] * size["d"] + size["b"] * size["a"])
        right = size["k"] * visits * size["c"] * size["d"] * tiles.b * tiles.s
        left = size["k"] * size["b"] * size["a"] * size["c"] * size["s"]
        return self.element_bytes * (rows + (right + left) / tiles.t)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a program, at most: the operands of one product, or a tile that changes its layout."""
        tiles = self.tiles
        t, c, b, s, d, a = tiles.t, tiles.c, tiles.b, tiles.s, tiles.d, tiles.a
        stages = tiles.stages if self.trips["d"] * self.trips["c"] > 1 else 1
        middle, output = t * b * c * s, t * b * a
        operands = max(stages * c * d * (t + b * s), middle + a * b * c * s, middle + output)
        return max(self.element_bytes * operands, 4 * output)

    @property
    def score(self) -> float:
        """Time per token in bytes moved: those that are, and those that arithmetic and loops would let pass."""
        n = self.trips
        turns = self.factor.sizes["k"] * n["b"] * (self.repeats * n["c"] * n["d"] + n["a"])
        waiting = BYTES_PER_TRIP * turns / self.tiles.t
        return self.bytes_per_token + self.macs / MACS_PER_BYTE[self.element_bytes] + waiting

    @property
    def fits(self) -> bool:
        """Whether shared memory and registers hold a program on every target."""
        per_thread = self.tiles.numbers / (_WARP * self.tiles.warps)
        return self.shared_bytes <= SHARED_BYTES and per_thread <= NUMBERS_PER_THREAD[self.element_bytes]

    def __str__(self) -> str:
        return (
            f"tiles of {self.tiles} ({8 * self.element_bytes} bits): {self.macs:,} MACs per token with padding, of "
            f"{self.factor.macs:,}, {self.programs} program(s) per tile of tokens"
        )


@lru_cache(maxsize=1024)
def plan_tiles(factor: TwoFactor, element_bytes: int) -> TilePlan:
    """Return the tiles that should be fastest, by arithmetic: no kernel is timed.

    Args:
        factor: a level.
        element_bytes: 2 for bfloat16 and float16, 4 for float32.

    Raises:
        BackendError: nothing fits, which only ranks can cause: they are not cut.
    """
    plans = (TilePlan(factor, tiles, element_bytes) for tiles in _candidates(factor, MOST[element_bytes]))
    best = min((plan for plan in plans if plan.fits), key=_preference, default=None)
    if best is None:
        raise BackendError(
            f"no Triton kernel: the middle of {LEAST} tokens, a rank of {factor.sizes['s']} in elements of "
            f"{element_bytes} bytes, does not fit into {SHARED_BYTES // 1024} KiB of shared memory; target='torch' "
            "takes every spec on every device"
        )
    return best


def _preference(plan: TilePlan) -> tuple[float, int, int]:
    return plan.score, plan.tiles.warps, -plan.tiles.stages


def _candidates(factor: TwoFactor, most: Mapping[str, int]) -> Iterator[Tiles]:
    size = factor.sizes
    ranks, outer, inner = block_counts(factor, most)
    for c, b in product(outer, inner):
        for d, a in product(*(powers(LEAST, max(LEAST, min(most[x], power(size[x])))) for x in "da")):
            for t in powers(LEAST, most["t"]):
                yield from (Tiles(t, c, b, ranks, d, a, *run) for run in _RUNS)


def block_counts(
    factor: TwoFactor, most: Mapping[str, int] = MOST[2], padding: int = 1
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Return the ranks of a tile, `padding` times as many as needed, and the counts of c and of b that it may have.

    A product of several blocks needs b s and c s of `LEAST` at least: more blocks than there are are masked.
    """
    ranks = padding * power(factor.sizes["s"])
    wide = max(1, LEAST // ranks)
    if factor.flat:
        return max(ranks, LEAST), (1,), (1,)
    counts = (tuple(powers(wide, max(wide, min(most[x], power(factor.sizes[x]))))) for x in "cb")
    return ranks, next(counts), next(counts)


def power(size: int) -> int:
    """Return the least power of two that is no smaller."""
    return int(2 ** (size - 1).bit_length())


def powers(first: int, last: int) -> Iterator[int]:
    """Yield `first`, twice of it and so on up to `last`."""
    while first <= last:
        yield first
        first *= 2
