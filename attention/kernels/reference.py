"""MLR attention as it is defined: dense scores, one mask per level. Slow, obvious, any dtype, differentiable twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Everything below is inlined into emitted layers: it may use torch and the language, nothing else.


def reference_scores(
    query: Tensor,  # (..., Tq, R)
    key: Tensor,  # (..., Tk, R)
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
) -> Tensor:
    """Return S `(..., Tq, Tk)`, S_ij the sum of q_i^(l) . k_j^(l) over the levels l whose blocks hold both i and j.

    Queries are the last Tq positions of the Tk tokens. Scales are part of the query. Causal scores of later keys are
    minus infinity.
    """
    positions = torch.arange(key.shape[-2], device=key.device)
    return block_scores(query, key, ranks, [positions // block for block in block_sizes], causal)


def block_scores(
    query: Tensor,  # (..., Tq, R)
    key: Tensor,  # (..., Tk, R)
    ranks: Sequence[int],
    block_ids: Sequence[Tensor],  # (Tk,) or (..., Tk) each
    causal: bool,
) -> Tensor:
    """Return the scores of `reference_scores` where two tokens share a block if the level's ids are the same."""
    first = key.shape[-2] - query.shape[-2]
    scores = query.new_zeros(query.shape[:-1] + key.shape[-2:-1])
    start = 0
    for rank, block in zip(ranks, block_ids, strict=True):
        level = slice(start, start + rank)
        together = block[..., first:, None] == block[..., None, :]
        scores = scores + query[..., level] @ key[..., level].mT * together
        start += rank
    if causal:
        positions = torch.arange(key.shape[-2], device=key.device)
        scores = scores.masked_fill(positions[first:, None] < positions, float("-inf"))
    return scores


def level_ids(blocks: Sequence[Tensor | int | None], tokens: int, device: torch.device) -> list[Tensor]:
    """Return for each level which block a token is in, `(T,)` or `(B, 1, T)`.

    Blocks are such numbers, `(T,)` or `(B, T)`, or tokens of a block, or None for one block.
    """
    positions = torch.arange(tokens, device=device)
    ids = [own if isinstance(own, Tensor) else positions // (own or max(1, tokens)) for own in blocks]
    for level, own in enumerate(ids, start=1):
        if own.dim() not in (1, 2) or own.shape[-1] != tokens:
            raise ValueError(
                f"blocks of level {level} are ids (T,) or (B, T) for {tokens} tokens, found {tuple(own.shape)}"
            )
    return [own if own.dim() == 1 else own[:, None] for own in ids]


def reference_attention(
    query: Tensor,  # (..., Tq, R)
    key: Tensor,  # (..., Tk, R)
    value: Tensor,  # (..., Tk, Dv)
    ranks: Sequence[int],
    block_sizes: Sequence[int],
    causal: bool,
) -> Tensor:
    """Return softmax(S) V with the scores S of `reference_scores`."""
    return torch.softmax(reference_scores(query, key, ranks, block_sizes, causal), dim=-1) @ value
