"""Lower bounds in seconds for causal MLR attention on a GPU: arithmetic, not measurement.

A fused kernel multiplies on its matrix units, takes an exponential for every pair, has a few operations on float32
lanes around it, and moves its operands once. At the best all four overlap, so that the slowest one is the bound. With
heads of 64 features the exponentials take as long as the products: few features per pair make the backward pass and
decoding faster by much, and the forward pass by little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlbtc.attention.triton.tiling import TilingPlan
from mlbtc.codegen.triton.roofline import H100, Gpu

FORWARD_LANES = 6
"""Operations on float32 lanes for a pair: scale, maximum, subtract, sum, convert, mask or rescale."""
BACKWARD_LANES = 8
"""The same in the backward pass: scale, subtract, subtract delta, two products, two conversions, mask."""

Blocks = Sequence[int | None]


@dataclass(frozen=True, slots=True)
class AttentionWork:
    """What attention must compute and move at the least.

    Attributes:
        macs: of matrix products.
        exponentials: one per pair of a query and a key that it sees.
        lane_operations: on float32 lanes.
        bytes_moved: from and to the GPU's memory.
    """

    macs: int
    exponentials: int
    lane_operations: int
    bytes_moved: int

    @property
    def flops(self) -> int:
        """Two for each MAC."""
        return 2 * self.macs

    def seconds(self, gpu: Gpu = H100) -> float:
        """Return the time below which no kernel can be."""
        return max(
            self.flops / gpu.flops_per_second,
            self.exponentials / gpu.exponentials_per_second,
            self.lane_operations / gpu.lane_operations_per_second,
            self.bytes_moved / gpu.bytes_per_second,
        )

    def __add__(self, other: AttentionWork) -> AttentionWork:
        """Return the work of one after the other, as one kernel would do it."""
        return AttentionWork(
            self.macs + other.macs,
            self.exponentials + other.exponentials,
            self.lane_operations + other.lane_operations,
            self.bytes_moved + other.bytes_moved,
        )


def causal_pairs(tokens: int, block: int | None) -> int:
    """Return how many pairs of a query and a key at or before it lie in one block; None is the whole sequence."""
    size = tokens if block is None else min(block, tokens)
    full, rest = divmod(tokens, size)
    return full * (size * (size + 1) // 2) + rest * (rest + 1) // 2


def score_macs(tokens: int, ranks: Sequence[int], block_sizes: Blocks) -> int:
    """Return the MACs of the scores of a head: the active ranks of every causal pair, without padding."""
    return sum(rank * causal_pairs(tokens, block) for rank, block in zip(ranks, block_sizes, strict=True))


def forward_work(
    tokens: int, heads: int, ranks: Sequence[int], block_sizes: Blocks, value_dim: int, element_bytes: int = 2
) -> AttentionWork:
    """Count the forward pass of causal attention: scores, then weighted values.

    Args:
        tokens: T, queries and keys.
        heads: of queries, of all sequences; each has keys of its own.
        ranks: r_1, ..., r_L.
        block_sizes: b_1, ..., b_L; None is the whole sequence.
        value_dim: features of a value.
        element_bytes: bytes of one element, 2 for bfloat16.
    """
    pairs = causal_pairs(tokens, None)
    moved = tokens * (element_bytes * (2 * sum(ranks) + 2 * value_dim) + 4)
    return AttentionWork(
        macs=heads * (score_macs(tokens, ranks, block_sizes) + value_dim * pairs),
        exponentials=heads * pairs,
        lane_operations=heads * FORWARD_LANES * pairs,
        bytes_moved=heads * moved,
    )


def backward_work(
    tokens: int, heads: int, ranks: Sequence[int], block_sizes: Blocks, value_dim: int, element_bytes: int = 2
) -> AttentionWork:
    """Count the backward pass: scores again, their gradient, and dq, dk and dv; arguments as for `forward_work`.

    A pass that makes dq and dk with dv in two kernels computes scores and their gradient twice, which is more than
    this.
    """
    pairs = causal_pairs(tokens, None)
    # Read q, k, v, o, do and the logsumexp; write dq, dk, dv.
    moved = tokens * (element_bytes * (4 * sum(ranks) + 4 * value_dim) + 4)
    return AttentionWork(
        macs=heads * (3 * score_macs(tokens, ranks, block_sizes) + 2 * value_dim * pairs),
        exponentials=heads * pairs,
        lane_operations=heads * BACKWARD_LANES * pairs,
        bytes_moved=heads * moved,
    )


def decode_work(
    tokens: int,
    pairs: int,
    groups: int,
    ranks: Sequence[int],
    block_sizes: Blocks,
    value_dim: int,
    element_bytes: int = 2,
) -> AttentionWork:
    """Count the last of `tokens` tokens against the keys that it meets and all values, each read once.

    Args:
        tokens: of a sequence, the new one included.
        pairs: sequences times key heads.
        groups: query heads that share a key head.
        ranks: r_1, ..., r_L.
        block_sizes: b_1, ..., b_L; None is the whole sequence.
        value_dim: features of a value.
        element_bytes: bytes of one element of the cache.
    """
    met = [(tokens - 1) % (block or tokens) + 1 for block in block_sizes]
    keys = sum(rank * count for rank, count in zip(ranks, met, strict=True))
    kept = keys + tokens * value_dim
    return AttentionWork(
        macs=pairs * groups * kept,
        exponentials=pairs * groups * tokens,
        lane_operations=pairs * groups * FORWARD_LANES * tokens,
        bytes_moved=pairs * element_bytes * kept,
    )


def tiled_score_macs(plan: TilingPlan, tokens: int) -> int:
    """Return the MACs that the causal forward kernel of a plan spends on the scores of a head.

    Padded columns, columns that are masked and pairs behind the diagonal count, as the kernel multiplies them, too.
    """
    tiles = plan.tiles
    found = 0
    for first in range(0, tokens, tiles.rows):
        bounds = _positions(plan, first)
        for loop in plan.loops:
            found += tiles.rows * loop.width * (bounds[loop.before[1]] - bounds[loop.before[0]])
        stop = min(first + tiles.rows, tokens)
        columns = -(-(stop - bounds["near_start"]) // tiles.columns) * tiles.columns
        found += tiles.rows * plan.near_width * columns
    return found


def _positions(plan: TilingPlan, first: int) -> dict[str, int]:
    """Return where loops start and stop for the tile that starts at a position, by the names of the plan."""
    blocks = plan.problem.block_sizes[: plan.coarse]
    found = {f"start{level}": first // size * size if size else 0 for level, size in enumerate(blocks)}
    near = first
    if plan.near_block is not None:
        near = first // plan.near_block * plan.near_block // plan.tiles.columns * plan.tiles.columns
    return {"0": 0, "near_start": near, **found}
