"""What others do, written down again so that it can be timed: slow on purpose, nothing of mlbtc in it."""

from __future__ import annotations

import importlib
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
def compiled_flex(tokens: int, device: str = "cpu") -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return causal FlexAttention for one number of tokens under torch.compile, which leaves whole blocks out."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, tokens, tokens, device=device)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda query, key, value: compiled(query, key, value, block_mask=mask)


def sdpa(backend: str, query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Return scaled_dot_product_attention by one backend, a name of `torch.nn.attention.SDPBackend`, or fail."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, backend)):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)


def flash_attn(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return causal attention by the package flash-attn, whose heads come behind the tokens."""
    package = importlib.import_module("flash_attn")
    found: Tensor = package.flash_attn_func(*(x.transpose(1, 2) for x in (query, key, value)), causal=True)
    return found.transpose(1, 2)


def flash_attn_token(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what a query `(B, H, 1, R)` attends to by flash-attn, which keeps keys and values as `(B, T, H, R)`."""
    package = importlib.import_module("flash_attn")
    found: Tensor = package.flash_attn_with_kvcache(query.transpose(1, 2), key, value)
    return found.transpose(1, 2)
