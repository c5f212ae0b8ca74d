"""What others do, written down again so that it can be timed: slow on purpose, nothing of mlbtc in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor


def dense_per_level(
    query: Tensor,  # (B, H, T, R)
    key: Tensor,  # (B, H, T, R)
    value: Tensor,  # (B, H, T, Dv)
    ranks: Sequence[int],
    block_sizes: Sequence[int],
) -> Tensor:
    """Return causal MLR attention as the paper computes it: every level adds its blocks to dense scores."""
    batch, heads, tokens, features = query.shape
    padding = -tokens % block_sizes[0]
    padded = [torch.nn.functional.pad(x, (0, 0, 0, padding)) for x in (query * features**-0.5, key)]
    size, start = tokens + padding, 0
    scores = query.new_zeros(batch, heads, size, size)
    for rank, block in zip(ranks, block_sizes, strict=True):
        left, right = (x[..., start : start + rank].unflatten(2, (-1, block)) for x in padded)
        level = query.new_zeros(batch, heads, size // block, block, size // block, block)
        level.diagonal(0, 2, 4).copy_((left @ right.mT).movedim(2, -1))
        scores = scores + level.view(scores.shape)
        start += rank
    scores = scores[..., :tokens, :tokens]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
    return torch.softmax(scores.masked_fill(later, float("-inf")), dim=-1) @ value


@cache
def compiled_flex(tokens: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return causal FlexAttention for one number of tokens under torch.compile, which leaves whole blocks out."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, tokens, tokens, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda query, key, value: compiled(query, key, value, block_mask=mask)
