"""MLR attention as one call of scaled_dot_product_attention, for short sequences and few blocks.

A level with p blocks and r features is a single level of p r features in which every token fills the r places of its
own block and leaves the others 0: tokens of one block meet in their places, tokens of different blocks in none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Everything below is inlined into emitted layers: it may use torch and the language, nothing else.


def expanded_width(tokens: int, ranks: Sequence[int], block_sizes: Sequence[int]) -> int:
    """Return how many features the expansion has: the sum of r_l times the number of blocks."""
    return sum(rank * max(1, -(-tokens // block)) for rank, block in zip(ranks, block_sizes, strict=True))


def expanded_attention(
    query: Tensor,  # (B, H, T, R)
    key: Tensor,  # (B, H, T, R)
    value: Tensor,  # (B, H, T, Dv)
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
) -> Tensor:
    """Return what `reference_attention` returns; scales are part of the query."""
    wide = expand(query, key, value, ranks, block_sizes)
    output = torch.nn.functional.scaled_dot_product_attention(*wide, is_causal=causal, scale=1.0)
    return output[..., : value.shape[-1]]


def expand(
    query: Tensor, key: Tensor, value: Tensor, ranks: Sequence[int], block_sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value of one width, for the fused kernels take no others."""
    width = max(expanded_width(query.shape[-2], ranks, block_sizes), value.shape[-1])
    wide_query, wide_key = (_expand(x, ranks, block_sizes, width) for x in (query, key))
    return wide_query, wide_key, torch.nn.functional.pad(value, (0, width - value.shape[-1]))


def _expand(x: Tensor, ranks: Sequence[int], block_sizes: Sequence[int], width: int) -> Tensor:
    """Place the features of every level in the columns of the token's block, then pad to `width`."""
    positions = torch.arange(x.shape[-2], device=x.device)
    parts, start = [], 0
    for rank, block in zip(ranks, block_sizes, strict=True):
        level = x[..., start : start + rank]
        blocks = max(1, -(-x.shape[-2] // block))
        if blocks > 1:
            own = (positions // block)[:, None] == torch.arange(blocks, device=x.device)
            level = (level.unsqueeze(-2) * own.to(x.dtype).unsqueeze(-1)).flatten(-2)
        parts.append(level)
        start += rank
    missing = width - sum(part.shape[-1] for part in parts)
    if missing:
        parts.append(x.new_zeros(()).expand(*x.shape[:-1], missing))
    return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
