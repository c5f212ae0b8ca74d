"""What torch.utils.flop_counter.FlopCounterMode counts for the C++ kernels: every pair once, as it does for SDPA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import register_flop_formula

# The operators must exist before they are given a formula.
from mlbtc.attention.kernels import cpp as cpp

Shape = tuple[int, ...]


def shared_pairs(queries: int, keys: int, block: int) -> int:
    """Return how many pairs of a query and a key lie in one block; the queries are the last positions of the keys."""
    first, pairs = keys - queries, 0
    for start in range(first // block * block, keys, block):
        stop = min(start + block, keys)
        pairs += (stop - max(start, first)) * (stop - start)
    return pairs


def score_macs(query: Shape, key: Shape, ranks: Sequence[int], block_sizes: Sequence[int]) -> int:
    """Return the MACs of all scores: on each level its rank for every pair of tokens in one block, causal or not.

    Formulas see shapes only: calls with block ids come with sizes of the whole sequence, which is the most it can be.
    """
    levels = zip(ranks, block_sizes, strict=True)
    return query[0] * query[1] * sum(rank * shared_pairs(query[2], key[2], block) for rank, block in levels)


@register_flop_formula(torch.ops.mlbtc.mlr_attention)
def forward_flops(
    query: Shape, key: Shape, value: Shape, scales: object, ranks: Sequence[int], block_sizes: Sequence[int],
    *_: object, **__: object,
) -> int:  # fmt: skip
    """Return the FLOPs of scores and weighted values."""
    values = query[0] * query[1] * query[2] * value[2] * value[3]
    return 2 * (score_macs(query, key, ranks, block_sizes) + values)


@register_flop_formula(torch.ops.mlbtc.mlr_attention_backward)
def backward_flops(
    grad: Shape, query: Shape, key: Shape, value: Shape, output: Shape, logsumexp: Shape, scales: object,
    ranks: Sequence[int], block_sizes: Sequence[int], *_: object, **__: object,
) -> int:  # fmt: skip
    """Return the FLOPs of the scores again, their gradients for queries and keys, and two products with the values."""
    values = query[0] * query[1] * query[2] * value[2] * value[3]
    return 2 * (3 * score_macs(query, key, ranks, block_sizes) + 2 * values)
